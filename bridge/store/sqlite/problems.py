"""What others do to the file, as far as the daemon notices: they hold it, or they keep its log from being shortened.

Rules:
- A problem is one word in `/health`, one line in the log when it begins and one when it ends, with how long it took.
"""

import sqlite3
import time
from collections.abc import Sequence
from typing import Final

from bridge import logs
from bridge.store.port import StoreUnavailable
from bridge.store.sqlite.files import LOG_BYTES

LOCKED: Final = "store_locked"
"""Another process holds the file, and nothing can be written."""

LOG: Final = "store_log"
"""The log cannot be shortened, because another process has read the file for a long time, and grows."""

LONG_LOG_BYTES: Final = 4 * LOG_BYTES

_log = logs.logger("store")


class Problems:
    """The problems that there are, and since when."""

    def __init__(self) -> None:
        """Begin without any."""
        self._since: dict[str, float] = {}

    def seen(self, *, log_bytes: int, trouble: StoreUnavailable | None) -> Sequence[str]:
        """Return the problems that there are now; tell of those that have begun or ended."""
        cause = None if trouble is None else trouble.__cause__
        busy = isinstance(cause, sqlite3.Error) and cause.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
        now = {LOCKED: busy, LOG: log_bytes > LONG_LOG_BYTES}
        for name in (name for name, there in now.items() if there and name not in self._since):
            self._since[name] = time.monotonic()
            _log.warning(f"{name}_began", reason=_REASONS[name], log_bytes=log_bytes)
        for name in (name for name, there in now.items() if not there and name in self._since):
            _log.info(f"{name}_ended", seconds=round(time.monotonic() - self._since.pop(name), 1))
        return tuple(self._since)


_REASONS: Final = {
    LOCKED: "another process holds the file: a backup, sqlite3, a virus scanner",
    LOG: "another process has read the file for a long time: a backup, sqlite3",
}
