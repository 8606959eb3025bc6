"""What the commands ask of the database."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from bridge.core.model import Residence
from bridge.store.calls import CallState
from bridge.store.codec import Form, maybe_ms, to_json
from bridge.store.desk import CallTrip, DeadFilter, DeadLetter, MessageTrip, Ticked
from bridge.store.entries import pending
from bridge.store.ledger import Ledger
from bridge.store.letters import KEPT, Taken, give_up, letter, revive
from bridge.store.port import Pending
from bridge.store.postgres.connection import Connection, Row
from bridge.store.postgres.inbox import again, cursor, held
from bridge.store.postgres.queueing import requeue
from bridge.store.postgres.replicas import bucket_of
from bridge.store.residences import left, place, residence
from bridge.store.steps import STEP
from bridge.store.trips import call_trip, message_trip, ticked

# ---- the directory --------------------------------------------------------------------------------------------------

_DIRECTORY: Final = """
SELECT user_id, place, building, attributes FROM residence ORDER BY user_id COLLATE "C", place
"""
_UPSERT: Final = """
INSERT INTO residence (user_id, place, building, attributes) VALUES ($1, $2, $3, $4)
ON CONFLICT (user_id, place) DO UPDATE SET building = excluded.building, attributes = excluded.attributes
WHERE residence.building <> excluded.building OR residence.attributes <> excluded.attributes
RETURNING user_id
"""
_REMOVE: Final = "DELETE FROM residence WHERE user_id = $1 AND place = $2"
_CHANGED: Final = """
INSERT INTO changed (user_id, bucket, change) VALUES ($1, $2, nextval('change_id'))
ON CONFLICT (user_id) DO UPDATE SET change = excluded.change RETURNING buildings
"""
_NAMED: Final = "SELECT building FROM residence WHERE user_id = $1 AND place = $2 FOR UPDATE"
_LEAVE: Final = "UPDATE changed SET buildings = $2 WHERE user_id = $1"


async def residences(con: Connection) -> list[Residence]:
    """Read the directory."""
    return [residence(tuple(row)) for row in await con.fetch(_DIRECTORY)]


async def write_residences(con: Connection, rows: Sequence[Residence], remove: Sequence[tuple[str, str | None]]) -> int:
    """Write at most `STEP` rows; mark the users whose rows differ now."""
    touched = 0
    for row in rows:
        before = await con.fetchval(_NAMED, row.user, place(row.location))
        values = (row.user, place(row.location), row.building, to_json(row.attributes))
        if await con.fetchval(_UPSERT, *values) is not None:
            await _mark(con, row.user, before if before != row.building else None)
            touched += 1
    for user, location in remove:
        before = await con.fetchval(_NAMED, user, place(location))
        if before is not None:
            await con.execute(_REMOVE, user, place(location))
            await _mark(con, user, before)
            touched += 1
    return touched


async def _mark(con: Connection, user: str, before: str | None) -> None:
    """Mark a user as changed; `before` is the building that a row of it does not name any more."""
    known = await con.fetchval(_CHANGED, user, bucket_of(user))
    if before is not None:
        await con.execute(_LEAVE, user, left(known or [], before))


_FLAGGED: Final = """
SELECT id FROM building
WHERE id COLLATE "C" > $1 AND flags <> '[]' AND EXISTS (
    SELECT 1 FROM json_array_elements_text(flags::json) AS flag WHERE flag = $2
)
ORDER BY id COLLATE "C" LIMIT $3
"""


async def flagged(con: Connection, flag: str, after: str, limit: int) -> list[str]:
    """Read which buildings have a flag."""
    return [row[0] for row in await con.fetch(_FLAGGED, after, flag, limit)]


# ---- dead letters ---------------------------------------------------------------------------------------------------

_LETTERS: Final = """
SELECT letter.id, reason, detail, at, coalesce(letter.subscription, inbox.subscription), topic, building, user_id,
    answer, message, call, item, body
FROM letter LEFT JOIN inbox ON inbox.id = coalesce(letter.message, letter.cause)
WHERE letter.id > $1
    AND ($3::bigint[] IS NULL OR letter.id = ANY($3))
    AND ($4::text IS NULL OR reason = $4)
    AND ($5::text IS NULL OR coalesce(letter.subscription, inbox.subscription) = $5)
    AND ($6::text IS NULL OR building = $6)
    AND ($7::bigint IS NULL OR at >= $7)
    AND ($8::bigint IS NULL OR at < $8)
ORDER BY letter.id LIMIT $2
"""


async def dead_letters(con: Connection, which: DeadFilter, after: int, limit: int) -> list[DeadLetter]:
    """Read dead letters."""
    found = await con.fetch(
        _LETTERS,
        after,
        limit,
        None if which.ids is None else list(which.ids),
        which.reason,
        which.subscription,
        which.building,
        maybe_ms(which.since),
        maybe_ms(which.until),
    )
    return [letter(row, body if item is None else item.encode()) for *row, item, body in found]


_OLDEST: Final = f"""
SELECT letter.id, reason, detail, at, coalesce(letter.subscription, inbox.subscription), topic, building, user_id,
    answer, message, call, item, body
FROM letter LEFT JOIN inbox ON inbox.id = coalesce(letter.message, letter.cause)
WHERE reason NOT IN {KEPT} AND {{}} ORDER BY letter.at, letter.id LIMIT $2
"""  # noqa: S608 - constants
_BEFORE: Final = _OLDEST.format("letter.at < $1")
_OF: Final = _OLDEST.format("letter.subscription = $1 AND letter.message IS NOT NULL")


async def oldest_letters(con: Connection, before: int | None, subscription: str | None, limit: int) -> list[DeadLetter]:
    """Read the oldest dead letters that may be given up."""
    found = await (con.fetch(_BEFORE, before, limit) if subscription is None else con.fetch(_OF, subscription, limit))
    return [letter(row, body if item is None else item.encode()) for *row, item, body in found]


_TAKE: Final = """
DELETE FROM letter WHERE id = ANY($1)
RETURNING id, reason, message, call, cause, form, item,
    (SELECT subscription FROM outbox WHERE outbox.id = letter.call)
"""
_LOSE: Final = """
UPDATE outbox SET buried = buried - 1, state = CASE WHEN state = 'dead' AND buried = 1 THEN $2 ELSE state END
WHERE id = $1
"""


async def retry(con: Connection, ledger: Ledger, ids: Sequence[int], now: datetime, at: int | None) -> int:
    """Put dead letters back into the flow: messages wait once more, calls go to the end of their lanes."""
    letters = await _take(con, ids)
    freed = revive(ledger, letters)
    ledger.hold((await held(con, freed.messages)).values(), out="dead", into="pending")
    await lose(con, freed.calls, CallState.RETRIED)
    await again(con, freed.messages)
    await requeue(con, ledger, freed.items, now, at)
    return len(letters)


async def discard(con: Connection, ledger: Ledger, ids: Sequence[int]) -> int:
    """Give dead letters up."""
    letters = await _take(con, ids)
    freed = give_up(ledger, letters)
    ledger.hold((await held(con, freed.messages)).values(), out="dead")
    for message in freed.messages:
        await con.execute("INSERT INTO discarded (id) VALUES ($1)", message)
    await lose(con, freed.calls, CallState.DISCARDED)
    return len(letters)


async def _take(con: Connection, ids: Sequence[int]) -> list[Taken]:
    found = sorted(await con.fetch(_TAKE, sorted(set(ids))), key=lambda row: int(row[0]))
    return [Taken._make((*row, b"" if item is None else item.encode(), payer)) for *row, item, payer in found]


async def lose(con: Connection, calls: Sequence[int], end: CallState) -> None:
    """Take one dead item out of each row; the last one decides how a row that is done has ended."""
    for call in calls:
        await con.execute(_LOSE, call, end)


# ---- one message ----------------------------------------------------------------------------------------------------

_MESSAGE: Final = "SELECT id, subscription, topic, received, body FROM inbox WHERE id = $1"
_TRIPS: Final = """
SELECT id, form, CASE WHEN state = 'owed' AND doubt IS NOT NULL THEN 'in doubt' ELSE state END,
    queued, settled, tried, outcome, answer, cause, call
FROM outbox
"""
_CALLS: Final = _TRIPS + "WHERE cause = $1 AND cause > 0 ORDER BY id"
_EVENT_CALLS: Final = _TRIPS + f"WHERE building = $1 AND form = {Form.EVENTS:d} AND id > $2 ORDER BY id LIMIT $3"
_ATTEMPTS: Final = "SELECT at, outcome, detail FROM attempt WHERE call = $1 ORDER BY id"
_STATE: Final = """
SELECT CASE
    WHEN EXISTS (SELECT FROM waiting WHERE id = $1) THEN 'pending'
    WHEN EXISTS (SELECT FROM parked WHERE id = $1) THEN 'parked'
    WHEN EXISTS (SELECT FROM discarded WHERE id = $1) THEN 'discarded'
    ELSE 'settled' END
"""


async def trip(con: Connection, number: int) -> MessageTrip | None:
    """Read the trip of one message."""
    row = await con.fetchrow(_MESSAGE, number)
    if row is None:
        return None
    calls = [await _call(con, found) for found in await con.fetch(_CALLS, number)]
    known = await con.fetchval("SELECT id FROM letter WHERE message = $1", number)
    dead = None if known is None else next(iter(await dead_letters(con, DeadFilter(ids=[known]), 0, 1)), None)
    state = await con.fetchval(_STATE, number) if dead is None else "dead"
    notes = await con.fetch("SELECT name, detail FROM note WHERE message = $1 ORDER BY id", number)
    return message_trip(pending(row), state, calls, dead, notes)


async def _call(con: Connection, row: Row) -> CallTrip:
    *told, call = row
    return call_trip(told, call.encode(), await con.fetch(_ATTEMPTS, told[0]))


async def event_calls(con: Connection, building: str, after: int, limit: int) -> list[CallTrip]:
    """Read the calls with events of a building."""
    return [await _call(con, row) for row in await con.fetch(_EVENT_CALLS, building, after, limit)]


# ---- raw messages ---------------------------------------------------------------------------------------------------

_RAW: Final = """
SELECT id, subscription, topic, received, body FROM inbox
WHERE id > $1 AND received >= $2 AND received < $3 ORDER BY id LIMIT $4
"""


async def raw(con: Connection, after: int, since: int, until: int) -> list[Pending]:
    """Read a page of raw messages received in [since, until) [ms]."""
    return [pending(row) for row in await con.fetch(_RAW, after, since, until, STEP)]


# ---- what replay needs ----------------------------------------------------------------------------------------------

_SETTLED: Final = """
SELECT id, subscription, topic, received, body FROM inbox
WHERE id > $1 AND id <= $2
    AND NOT EXISTS (SELECT FROM waiting WHERE waiting.id = inbox.id)
    AND NOT EXISTS (SELECT FROM parked WHERE parked.id = inbox.id)
    AND NOT EXISTS (SELECT FROM discarded WHERE discarded.id = inbox.id)
    AND NOT EXISTS (SELECT FROM letter WHERE letter.message = inbox.id)
ORDER BY id LIMIT $3
"""
_MESSAGES: Final = "SELECT id, subscription, topic, received, body FROM inbox WHERE id = ANY($1) ORDER BY id"
_TICKS: Final = "SELECT after, at, catching_up, moved, state FROM tick WHERE building = $1 ORDER BY id"
_OF_USERS: Final = """
SELECT id FROM (
    SELECT DISTINCT message AS id FROM owner, unnest(messages, users) AS whose (message, name)
    WHERE owner.id > $1 AND owner.id <= $1 + $2 AND users && $3 AND name = ANY($3)
) AS named JOIN inbox USING (id)
WHERE id <= $4
    AND NOT EXISTS (SELECT FROM waiting WHERE waiting.id = inbox.id)
    AND NOT EXISTS (SELECT FROM parked WHERE parked.id = inbox.id)
    AND NOT EXISTS (SELECT FROM discarded WHERE discarded.id = inbox.id)
    AND NOT EXISTS (SELECT FROM letter WHERE letter.message = inbox.id)
"""


async def of_users(con: Connection, users: Sequence[str], after: int, steps: int) -> list[int]:
    """Read the ids of the settled messages of some users, from some steps of workers."""
    return [row[0] for row in await con.fetch(_OF_USERS, after, steps, list(users), await cursor(con))]


async def settled(con: Connection, after: int, limit: int) -> list[Pending]:
    """Read settled messages."""
    return [pending(row) for row in await con.fetch(_SETTLED, after, await cursor(con), limit)]


async def messages(con: Connection, ids: Sequence[int]) -> list[Pending]:
    """Read some messages."""
    return [pending(row) for row in await con.fetch(_MESSAGES, list(ids))]


async def ticks(con: Connection, building: str) -> list[Ticked]:
    """Read the ticks of a building."""
    return [ticked(row) for row in await con.fetch(_TICKS, building)]
