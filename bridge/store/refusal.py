"""Why a store must not be opened this way: the operator has to decide, waiting does not help."""

from bridge.store.port import StoreUnavailable


class StoreRefused(StoreUnavailable):
    """The store is in use, was made for a dry run, or belongs to a newer release; a daemon ends with exit code 2."""
