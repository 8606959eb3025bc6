"""What keeps the shared store small and honest: retention, the census, the check.

The size of the store is what is kept in it, as the counts say: bytes of messages and calls, and a constant per row for
its place in the tables and indexes. The files of the server are of no use for it: they do not shrink when rows are
deleted, though the room is used again.
"""

from dataclasses import replace
from typing import Final, NamedTuple

import msgspec

from bridge.store import entries
from bridge.store.codec import maybe_from_ms
from bridge.store.ledger import Ledger, total
from bridge.store.port import Census
from bridge.store.postgres import holdings
from bridge.store.postgres.connection import Connection, changed
from bridge.store.postgres.inbox import (
    END_OF_TIME,
    early_rows,
    forget_devices,
    forget_early,
    forget_rows,
    oldest_pending,
)
from bridge.store.shares import CALL_BYTES, EARLY_SHARE, FULL_SHARE, MESSAGE_BYTES

STEP_ROWS: Final = 500
"""Rows that one step deletes."""

LOOK_ROWS: Final = 2_000
"""Rows that one step looks at; most of them may be exempt."""

EARLY_BYTES: Final = 400
"""What still knows the repeats of a message that was deleted early (its digest, twice, with the indexes)."""

_ledgers: Final = msgspec.json.Decoder(Ledger)


async def ledger(con: Connection) -> Ledger:
    """Return the counts of all replicas together, as of one moment."""
    return total(_ledgers.decode(row[0]) for row in await con.fetch("SELECT ledger FROM counter"))


def size_bytes(counts: Ledger, early: int) -> int:
    """Return the size of the store; `early` = messages that were deleted early and whose repeats are known."""
    rows = counts.inbox_rows * MESSAGE_BYTES + counts.outbox_rows * CALL_BYTES + early * EARLY_BYTES
    return rows + counts.inbox_bytes + counts.outbox_bytes


def owed_bytes(counts: Ledger, size: int, early: int) -> int:
    """Return what of the size may not be deleted yet; what knows repeats of messages that are gone is not owed."""
    rows = early * EARLY_BYTES + counts.settled_rows() * MESSAGE_BYTES + counts.outbox_settled * CALL_BYTES
    return max(0, size - counts.deletable_bytes() - rows)


_OLDEST_OWED: Final = "SELECT queued FROM outbox WHERE settled IS NULL ORDER BY id LIMIT 1"


async def census(con: Connection) -> Census:
    """Read the counts, and what is measured beside them."""
    counts, early = await ledger(con), await early_rows(con)
    found = counts.census(
        oldest_pending=maybe_from_ms(await oldest_pending(con)),
        oldest_owed=maybe_from_ms(await con.fetchval(_OLDEST_OWED)),
        size_bytes=size_bytes(counts, early),
        free_disk_bytes=None,
    )
    return replace(found, owed_bytes=owed_bytes(counts, found.size_bytes, early))


# ---- retention ------------------------------------------------------------------------------------------------------


class Swept(NamedTuple):
    """What one step of the sweep did."""

    deleted: int
    more: bool
    last: int = 0  # the message up to which the log has been looked at


_ALONE: Final = "SELECT pg_try_advisory_xact_lock(hashtext('moost-bridge sweep ' || current_schema()))"
_LOOK: Final = """
SELECT id, received,
    EXISTS (SELECT FROM waiting WHERE waiting.id = looked.id) OR EXISTS (SELECT FROM parked WHERE parked.id = looked.id)
    OR EXISTS (SELECT FROM letter WHERE letter.message = looked.id)
FROM (
    SELECT id, received FROM inbox WHERE id > $1
        AND id < coalesce((SELECT place FROM waiting WHERE place > 0 ORDER BY place LIMIT 1), 1::bigint << 62)
    ORDER BY id LIMIT $2
) AS looked
ORDER BY id
"""
_OLD_CALLS: Final = """
WITH old AS (
    SELECT id, building FROM outbox WHERE settled < $1 AND state <> 'dead' ORDER BY settled LIMIT $2
), tries AS (DELETE FROM attempt USING old WHERE attempt.call = old.id)
DELETE FROM outbox USING old WHERE outbox.id = old.id AND outbox.building = old.building
RETURNING octet_length(call), settled
"""
# Without the messages before them ticks and copies say nothing.
_OLD_TICKS: Final = """
DELETE FROM tick USING (SELECT building, id FROM tick WHERE after < $1 ORDER BY after LIMIT $2) AS old
WHERE tick.building = old.building AND tick.id = old.id
"""


async def sweep(con: Connection, counted: Ledger, edge: int, young: int, max_size: int, after: int) -> Swept:
    """Take one step: delete settled rows older than the edge [ms], or the oldest while the store is too big.

    What knows the repeats of messages that came at `young` [ms] or later stays in any case.
    """
    if not await con.fetchval(_ALONE):
        return Swept(0, more=False)  # another replica does
    counts = await ledger(con)
    early = await early_rows(con)
    too_big = size_bytes(counts, early) > max_size * FULL_SHARE
    messages = await _sweep_inbox(con, counted, edge, young, after, everything=too_big)
    calls = await con.fetch(_OLD_CALLS, END_OF_TIME if too_big and not messages.deleted else edge, STEP_ROWS)
    counted.outbox_rows -= len(calls)
    counted.outbox_settled -= len(calls)
    counted.outbox_bytes -= sum(row[0] for row in calls)
    counted.forget_calls([row[1] for row in calls])
    deleted = messages.deleted + len(calls)
    newest = max(counts.forgotten_message, counted.forgotten_message)
    deleted += changed(await con.execute(_OLD_TICKS, newest, STEP_ROWS))
    deleted += await forget_devices(con, edge, STEP_ROWS)
    over = early - int(max_size * EARLY_SHARE) // EARLY_BYTES
    if over > 0:
        deleted += await forget_early(con, END_OF_TIME, young, min(over, STEP_ROWS))
    elif early:
        deleted += await forget_early(con, edge, young, STEP_ROWS)
    return Swept(deleted, messages.more or deleted > messages.deleted, messages.last)


async def _sweep_inbox(
    con: Connection, counted: Ledger, edge: int, young: int, after: int, *, everything: bool
) -> Swept:
    """Delete from the front of the log, up to the first message that is not old; of `everything` to the first pending.

    What knows the repeats of those that are not old stays.
    """
    rows = await con.fetch(_LOOK, after, LOOK_ROWS)
    gone: list[int] = []
    last = after
    for (number, _, kept), received in zip(rows, entries.ages([row[1] for row in rows]), strict=True):
        if (received >= edge and not everything and not kept) or len(gone) >= STEP_ROWS:
            break
        last = number
        if not kept:
            gone.append(number)
    if gone:
        counted.forget(gone, await forget_rows(con, counted, gone, young=min(edge, young)))
        await con.execute("DELETE FROM owner WHERE last <= $1", last)
    return Swept(len(gone), last > after, last)


# ---- the check ------------------------------------------------------------------------------------------------------

_COUNTS: Final = {
    "pending": "SELECT count(*) FROM waiting",
    "parked": "SELECT count(*) FROM parked",
    "dead": "SELECT count(*) FROM letter WHERE message IS NOT NULL",
    "calls_pending": "SELECT coalesce(sum(count - done), 0)::bigint FROM outbox WHERE state = 'owed'",
    "calls_dead": "SELECT count(*) FROM letter WHERE call IS NOT NULL",
    "inbox_rows": "SELECT count(*) FROM inbox",
    "inbox_bytes": "SELECT coalesce(sum(octet_length(body)), 0)::bigint FROM inbox",
    "outbox_rows": "SELECT count(*) FROM outbox",
    "outbox_bytes": "SELECT coalesce(sum(octet_length(call)), 0)::bigint FROM outbox",
    "outbox_settled": "SELECT count(*) FROM outbox WHERE settled IS NOT NULL",
}
_GROUPS: Final = {
    "dead_letters": "SELECT reason, count(*) FROM letter GROUP BY reason",
    "flags": "SELECT flag, count(*) FROM building, json_array_elements_text(flags::json) AS flag GROUP BY flag",
}
_LOST: Final = """
SELECT count(*) FROM (SELECT id, bucket FROM waiting UNION ALL SELECT id, bucket FROM parked) AS waits
WHERE NOT EXISTS (SELECT FROM inbox WHERE inbox.id = waits.id AND inbox.bucket = waits.bucket)
"""


async def verify(con: Connection) -> list[str]:
    """Check the identities, and the ledger against the rows; within one snapshot."""
    counts = await ledger(con)
    counted: dict[str, object] = {name: await con.fetchval(statement) for name, statement in _COUNTS.items()}
    for name, statement in _GROUPS.items():
        counted[name] = dict(await con.fetch(statement))
    lost = await con.fetchval(_LOST)
    damage = [f"{lost} messages that wait are not in the log"] if lost else []
    return damage + counts.problems() + counts.differences(counted) + counts.misheld(await holdings.counted(con))
