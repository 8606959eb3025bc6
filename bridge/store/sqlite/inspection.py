"""After a start the whole file is read once, beside serving, so that damage is found before a household misses it.

Rules:
- Nobody waits for it: the door opens first, and it works a quarter of the time at most.
- Its reads are short, or the log could not start anew meanwhile.
- Damage is the end of the daemon (R10): the keeper's census says so.

A small file is checked as a whole by SQLite itself. Of a large one every row is read, which finds pages that are not
what they should be, but no index that disagrees with its table: that takes `moost-bridge store check`.
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from bridge.store.sqlite.files import unavailable

SMALL_BYTES: Final = 64 * 1024 * 1024
"""A file up to this size is checked in one go, some 0.2 s."""

SLICE_BYTES: Final = 256 * 1024
"""What one read returns at most, one row aside."""

SLICE_ROWS: Final = 500

HEAD_START_S: Final = 0.5
"""What a starting daemon has to do comes first."""

PAUSE: Final = 3.0
"""Pause after a read, in times of what it took."""

_CACHE_KIB: Final = 1024
_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR})


class Inspection:
    """The thread that reads the file."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], path: Path) -> None:
        """Start the thread."""
        self._connect = connect
        self._path = path
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="store-inspection", daemon=True)
        self.damage: str | None = None
        self.done = threading.Event()  # everything was read
        self._thread.start()

    def close(self) -> None:
        """End the thread; blocking, but for one read at most."""
        self._ending.set()
        self._thread.join()

    def _work(self) -> None:
        if self._ending.wait(HEAD_START_S):
            return
        try:
            con = self._connect()
            try:
                self._inspect(con)
            finally:
                con.close()
        except sqlite3.Error as error:  # other trouble is met by whoever works on the store, and said there
            if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF in _DAMAGE:
                self.damage = str(unavailable(error))
        except OSError:
            pass
        self.done.set()

    def _inspect(self, con: sqlite3.Connection) -> None:
        con.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        if self._path.stat().st_size <= SMALL_BYTES:
            (found,) = con.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                self.damage = f"the store is damaged ({found})"
            return
        for table, keys in _tables(con):
            for seconds in _read(con, table, keys):
                if self._ending.wait(seconds * PAUSE):
                    return


def _tables(con: sqlite3.Connection) -> list[tuple[str, list[str]]]:
    """Return all tables, each with the columns that order it."""
    named = con.execute(
        "SELECT name, wr FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite_%'"
    ).fetchall()
    keys = "SELECT name FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk"
    return [(name, [key for (key,) in con.execute(keys, (name,))] if wr else ["rowid"]) for name, wr in named]


def _read(con: sqlite3.Connection, table: str, keys: list[str]) -> Iterator[float]:
    """Read a table slice by slice; yield how long each read took [s]."""
    order = ", ".join(f'"{key}"' for key in keys)
    behind = f"WHERE ({order}) > ({', '.join('?' * len(keys))})"
    select = f"SELECT {order}, * FROM {table} {{}} ORDER BY {order} LIMIT {SLICE_ROWS}"  # noqa: S608 - names of ours
    last: tuple[object, ...] | None = None
    while True:
        began, size, rows = time.monotonic(), 0, 0
        statement = select.format("" if last is None else behind)
        cursor = con.execute(statement, last or ())
        for row in cursor:
            last, rows = row[: len(keys)], rows + 1
            size += sum(len(value) for value in row if isinstance(value, bytes | str))
            if size > SLICE_BYTES:
                break
        cursor.close()
        if not rows:
            return
        yield time.monotonic() - began
