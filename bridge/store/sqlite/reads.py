"""One read: a short transaction, and what an error of the database means to whoever asked."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

import msgspec

from bridge.store.ledger import Ledger
from bridge.store.sqlite import files

T = TypeVar("T")
Read = Callable[[sqlite3.Connection, Ledger], T]

_ledgers: Final = msgspec.json.Decoder(Ledger)


def transaction(con: sqlite3.Connection, read: Read[T]) -> T:
    """Read the ledger, then run a read, as of one moment."""
    with translated():
        con.execute("BEGIN")
        try:
            ledger = _ledgers.decode(con.execute("SELECT ledger FROM bridge").fetchone()[0])
            return read(con, ledger)
        finally:
            con.execute("ROLLBACK")


@contextmanager
def translated() -> Iterator[None]:
    """Turn an error of the database into the condition behind it."""
    try:
        yield
    except sqlite3.Error as error:
        condition = files.unavailable(error)
        if condition is None:
            raise
        raise condition from error
