"""What each subscription holds of the database, counted from the rows: for the check, and for an old one."""

from collections.abc import Mapping
from typing import Final

from bridge.store.postgres.connection import Connection
from bridge.store.shares import CALL_BYTES, MESSAGE_BYTES, Share, grow

_SIZE: Final = f"sum(octet_length(body) + {MESSAGE_BYTES})::bigint"
_HELD: Final[Mapping[str, str]] = {
    "pending": f"SELECT subscription, {_SIZE} FROM waiting JOIN inbox USING (id, bucket) GROUP BY 1",  # noqa: S608 - a constant
    "parked": f"SELECT subscription, {_SIZE} FROM parked JOIN inbox USING (id, bucket) GROUP BY 1",  # noqa: S608 - a constant
    "dead": f"SELECT inbox.subscription, {_SIZE} FROM letter JOIN inbox ON inbox.id = letter.message GROUP BY 1",  # noqa: S608 - a constant
    "owed": f"""
        SELECT subscription, sum(octet_length(call) + {CALL_BYTES})::bigint FROM outbox WHERE state = 'owed' GROUP BY 1
        """,  # noqa: S608 - a constant
}


async def counted(con: Connection) -> dict[str, Share]:
    """Count what subscriptions hold."""
    shares: dict[str, Share] = {}
    for part, statement in _HELD.items():
        for subscription, size in await con.fetch(statement):
            grow(shares, subscription, part, size)
    return shares
