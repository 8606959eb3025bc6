"""What each subscription holds of the file, counted from the rows: for the check, and for an old one."""

import sqlite3
from collections.abc import Mapping
from typing import Final

from bridge.store.ledger import Ledger
from bridge.store.shares import CALL_BYTES, MESSAGE_BYTES, Share, grow

_SIZE: Final = f"length(body) + {MESSAGE_BYTES}"
_HELD: Final[Mapping[str, tuple[str, ...]]] = {
    "pending": (
        f"""
        SELECT subscription, {_SIZE} FROM inbox
        WHERE id > :cursor AND id NOT IN (SELECT id FROM ahead)
        """,  # noqa: S608 - a constant
        f"SELECT subscription, {_SIZE} FROM again JOIN inbox USING (id)",  # noqa: S608
    ),
    "parked": (f"SELECT subscription, {_SIZE} FROM parked JOIN inbox USING (id)",),  # noqa: S608
    "dead": (
        f"SELECT inbox.subscription, {_SIZE} FROM letter JOIN inbox ON inbox.id = letter.message",  # noqa: S608
    ),
    "owed": (f"SELECT subscription, length(call) + {CALL_BYTES} FROM outbox WHERE state = 'owed'",),  # noqa: S608
}


def counted(con: sqlite3.Connection, ledger: Ledger) -> dict[str, Share]:
    """Count what subscriptions hold."""
    shares: dict[str, Share] = {}
    for part, statements in _HELD.items():
        for statement in statements:
            for subscription, size in con.execute(statement, {"cursor": ledger.cursor}):
                grow(shares, subscription, part, size)
    return shares
