"""The log is written back into the database beside the writer, not in its way.

Theory of operation: a checkpoint in its own thread copies what is in the log while the writer goes on; only what the
writer added meanwhile is left, and the log starts anew only when nothing is left. So when the log has grown long, the
writer copies that small rest itself between two rounds. Should the log become very long all the same, the writer
shortens the file, so that a full disk finds it no longer than the reserve.
"""

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bridge.store.sqlite.files import BUSY_TIMEOUT_S, LOG_BYTES, log_bytes

INTERVAL_S: Final = 0.25
"""Pause between two checkpoints while there is something to write back."""

AGAIN_S: Final = 5.0
"""How long a log that could not be shortened is left as it is, unless it grows by a quarter of what is long."""

LONG_PAGES: Final = 2_000
"""From this length on (8 MiB) the writer finishes a checkpoint itself."""


class Checkpoints:
    """The thread that writes the log back."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], path: Path) -> None:
        """Start the thread; it connects when there is something to do."""
        self._connect = connect
        self._path = path
        self._limit = LOG_BYTES
        self._again_at = 0.0  # [s of the monotonic clock]
        self._turn = threading.Lock()  # SQLite turns a second checkpoint away
        self._dirty = threading.Event()
        self._ending = threading.Event()
        self._rest = threading.Event()  # the log is long, and all but its newest part is copied
        self._thread = threading.Thread(target=self._work, name="store-checkpoint", daemon=True)
        self._thread.start()

    def written(self, con: sqlite3.Connection) -> None:
        """Learn that the writer has committed; called in its thread, between two rounds."""
        if self._rest.is_set():
            self._rest.clear()
            write_back(con)
        length = log_bytes(self._path)
        if length > LOG_BYTES and (length > self._limit or time.monotonic() > self._again_at):
            self.shorten(con)  # in vain while a reader is in the way
            self._limit = max(LOG_BYTES, log_bytes(self._path) + LOG_BYTES // 4)
            self._again_at = time.monotonic() + AGAIN_S
        if not self._dirty.is_set():
            self._dirty.set()

    def shorten(self, con: sqlite3.Connection) -> None:
        """Write the whole log back and cut the file, unless a reader is on it just now."""
        with self._turn, contextlib.suppress(sqlite3.Error):
            con.execute("PRAGMA busy_timeout = 0")
            try:
                con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                con.execute(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT_S * 1000)}")

    def now(self) -> None:
        """Write back what is in the log, as far as readers and the disk allow; blocking."""
        with contextlib.suppress(sqlite3.Error), contextlib.closing(self._connect()) as con, self._turn:
            write_back(con)

    def _work(self) -> None:
        con: sqlite3.Connection | None = None
        while not self._ending.wait(INTERVAL_S):
            self._dirty.wait()
            self._dirty.clear()
            with contextlib.suppress(sqlite3.Error):  # the writer meets the same trouble, and says so
                con = con or self._connect()
                with self._turn:
                    pages = write_back(con)
                if pages >= LONG_PAGES:
                    self._rest.set()
        if con is not None:
            con.close()

    def close(self) -> None:
        """End the thread; blocking, but for one checkpoint at most."""
        self._ending.set()
        self._dirty.set()
        self._thread.join()


def write_back(con: sqlite3.Connection) -> int:
    """Copy the log into the database as far as readers allow; return its length [pages]."""
    with contextlib.suppress(sqlite3.Error):
        _, pages, _ = con.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return int(pages)
    return 0
