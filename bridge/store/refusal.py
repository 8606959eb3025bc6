"""Why a store must not be opened this way: an operator has to change something, waiting does not help."""

import errno
from typing import Final

from bridge.store.port import StoreUnavailable

_TO_CHANGE: Final = frozenset(
    {
        *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EROFS),
        *(errno.ELOOP, errno.ENAMETOOLONG),
    }
)
"""Why a file cannot be opened until somebody changes a path, a right or a mount; whatever else may pass."""


class StoreRefused(StoreUnavailable):
    """A daemon ends with exit code 2.

    The store is in use, was made for a dry run, belongs to a newer release; an address, a right, a setting of the
    server is wrong.
    """


def of_file(sentence: str, error: OSError) -> StoreUnavailable:
    """Return why a file cannot be used: something to change, or something that passes."""
    kind = StoreRefused if error.errno in _TO_CHANGE else StoreUnavailable
    return kind(f"{sentence} ({error.strerror})")
