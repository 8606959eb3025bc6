"""What the commands ask of the file."""

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from bridge.core.model import Residence
from bridge.store.calls import CallState
from bridge.store.codec import Form, maybe_ms, to_json
from bridge.store.desk import CallTrip, DeadFilter, DeadLetter, MessageTrip, Ticked
from bridge.store.entries import pending
from bridge.store.ledger import Ledger
from bridge.store.letters import KEPT, Taken, give_up, letter, revive
from bridge.store.port import Pending
from bridge.store.residences import left, place, residence
from bridge.store.sqlite.inbox import held
from bridge.store.sqlite.queueing import requeue
from bridge.store.sqlite.statements import Row, value
from bridge.store.steps import STEP
from bridge.store.trips import call_trip, message_trip, ticked

_ids: Final = msgspec.json.Decoder(list[int])
_names: Final = msgspec.json.Decoder(list[str])

# ---- the directory --------------------------------------------------------------------------------------------------

_DIRECTORY: Final = "SELECT user, place, building, attributes FROM residence ORDER BY user, place"
_UPSERT: Final = """
INSERT INTO residence (user, place, building, attributes) VALUES (?, ?, ?, ?)
ON CONFLICT (user, place) DO UPDATE SET building = excluded.building, attributes = excluded.attributes
WHERE building <> excluded.building OR attributes <> excluded.attributes
"""
_REMOVE: Final = "DELETE FROM residence WHERE user = ? AND place = ?"
_NAMED: Final = "SELECT building FROM residence WHERE user = ? AND place = ?"
_CHANGED: Final = """
INSERT INTO changed (user, change) VALUES (?, ?) ON CONFLICT (user) DO UPDATE SET change = excluded.change
"""
_LEFT: Final = "SELECT buildings FROM changed WHERE user = ?"
_LEAVE: Final = "UPDATE changed SET buildings = ? WHERE user = ?"


def residences(con: sqlite3.Connection) -> list[Residence]:
    """Read the directory."""
    return [residence(row) for row in con.execute(_DIRECTORY)]


def write_residences(
    con: sqlite3.Connection, ledger: Ledger, rows: Sequence[Residence], remove: Sequence[tuple[str, str | None]]
) -> int:
    """Write at most `STEP` rows; mark the users whose rows differ now."""
    touched = 0
    for row in rows:
        before = value(con, _NAMED, (row.user, place(row.location)))
        if con.execute(_UPSERT, _directory_row(row)).rowcount:
            _mark(con, ledger, row.user, before if before != row.building else None)
            touched += 1
    for user, location in remove:
        before = value(con, _NAMED, (user, place(location)))
        if before is not None:
            con.execute(_REMOVE, (user, place(location)))
            _mark(con, ledger, user, before)
            touched += 1
    return touched


def _mark(con: sqlite3.Connection, ledger: Ledger, user: str, before: object) -> None:
    """Mark a user as changed; `before` is the building that a row of it does not name any more."""
    ledger.changes += 1
    con.execute(_CHANGED, (user, ledger.changes))
    if isinstance(before, str):
        known = _names.decode(str(value(con, _LEFT, (user,)) or "[]"))
        con.execute(_LEAVE, (to_json(left(known, before)), user))


def _directory_row(row: Residence) -> Row:
    return (row.user, place(row.location), row.building, to_json(row.attributes))


_FLAGGED: Final = """
SELECT id FROM building
WHERE id > ? AND flags <> '[]' AND EXISTS (SELECT 1 FROM json_each(flags) WHERE value = ?)
ORDER BY id LIMIT ?
"""


def flagged(con: sqlite3.Connection, flag: str, after: str, limit: int) -> list[str]:
    """Read which buildings have a flag."""
    return [name for (name,) in con.execute(_FLAGGED, (after, flag, limit))]


# ---- dead letters ---------------------------------------------------------------------------------------------------

_LETTERS: Final = """
SELECT letter.id, reason, detail, at, coalesce(letter.subscription, inbox.subscription), topic, building, user,
    answer, message, call, coalesce(item, body)
FROM letter LEFT JOIN inbox ON inbox.id = coalesce(letter.message, letter.cause)
WHERE letter.id > :after
    AND (:ids IS NULL OR letter.id IN (SELECT value FROM json_each(:ids)))
    AND (:reason IS NULL OR reason = :reason)
    AND (:subscription IS NULL OR coalesce(letter.subscription, inbox.subscription) = :subscription)
    AND (:building IS NULL OR building = :building)
    AND (:since IS NULL OR at >= :since)
    AND (:until IS NULL OR at < :until)
ORDER BY letter.id LIMIT :limit
"""


def dead_letters(con: sqlite3.Connection, which: DeadFilter, after: int, limit: int) -> list[DeadLetter]:
    """Read dead letters."""
    found = con.execute(
        _LETTERS,
        {
            "after": after,
            "limit": limit,
            "ids": None if which.ids is None else to_json(list(which.ids)),
            "reason": which.reason,
            "subscription": which.subscription,
            "building": which.building,
            "since": maybe_ms(which.since),
            "until": maybe_ms(which.until),
        },
    )
    return [letter(row, body) for *row, body in found]


_OLDEST: Final = f"""
SELECT letter.id, reason, detail, at, coalesce(letter.subscription, inbox.subscription), topic, building, user,
    answer, message, call, coalesce(item, body)
FROM letter LEFT JOIN inbox ON inbox.id = coalesce(letter.message, letter.cause)
WHERE reason NOT IN {KEPT} AND {{}} ORDER BY letter.at, letter.id LIMIT :limit
"""  # noqa: S608 - constants
_BEFORE: Final = _OLDEST.format("letter.at < :before")
_OF: Final = _OLDEST.format("letter.subscription = :subscription AND letter.message IS NOT NULL")


def oldest_letters(
    con: sqlite3.Connection, before: int | None, subscription: str | None, limit: int
) -> list[DeadLetter]:
    """Read the oldest dead letters that may be given up."""
    statement = _BEFORE if subscription is None else _OF
    found = con.execute(statement, {"before": before, "subscription": subscription, "limit": limit})
    return [letter(row, body) for *row, body in found]


_TAKE: Final = """
DELETE FROM letter WHERE id IN (SELECT value FROM json_each(?))
RETURNING id, reason, message, call, cause, form, item,
    (SELECT subscription FROM outbox WHERE outbox.id = letter.call)
"""
_LOSE: Final = """
UPDATE outbox SET buried = buried - 1, state = CASE WHEN state = 'dead' AND buried = 1 THEN ? ELSE state END
WHERE id = ?
"""


def retry(con: sqlite3.Connection, ledger: Ledger, ids: Sequence[int], now: datetime) -> int:
    """Put dead letters back into the flow: messages wait once more, calls go to the end of their lanes."""
    letters = _take(con, ids)
    freed = revive(ledger, letters)
    ledger.hold(held(con, freed.messages).values(), out="dead", into="pending")
    for message in freed.messages:
        ledger.again += 1
        con.execute("INSERT INTO again (id) VALUES (?)", (message,))
    lose(con, freed.calls, CallState.RETRIED)
    requeue(con, ledger, freed.items, now)
    return len(letters)


def discard(con: sqlite3.Connection, ledger: Ledger, ids: Sequence[int]) -> int:
    """Give dead letters up."""
    letters = _take(con, ids)
    freed = give_up(ledger, letters)
    ledger.hold(held(con, freed.messages).values(), out="dead")
    for message in freed.messages:
        ledger.swept = min(ledger.swept, message - 1)
        con.execute("INSERT INTO discarded (id) VALUES (?)", (message,))
    lose(con, freed.calls, CallState.DISCARDED)
    return len(letters)


def _take(con: sqlite3.Connection, ids: Sequence[int]) -> list[Taken]:
    return [Taken._make(row) for row in sorted(con.execute(_TAKE, (to_json(sorted(set(ids))),)))]


def lose(con: sqlite3.Connection, calls: Sequence[int], end: CallState) -> None:
    """Take one dead item out of each row; the last one decides how a row that is done has ended."""
    con.executemany(_LOSE, [(end, call) for call in calls])


# ---- one message ----------------------------------------------------------------------------------------------------

_MESSAGE: Final = "SELECT id, subscription, topic, received, body FROM inbox WHERE id = ?"
_TRIPS: Final = """
SELECT id, form, CASE WHEN state = 'owed' AND doubt IS NOT NULL THEN 'in doubt' ELSE state END,
    queued, settled, tried, outcome, answer, cause, call
FROM outbox
"""
_CALLS: Final = _TRIPS + "WHERE cause = ? AND cause > 0 ORDER BY id"
_EVENT_CALLS: Final = _TRIPS + f"WHERE building = ? AND form = {Form.EVENTS:d} AND id > ? ORDER BY id LIMIT ?"
_ATTEMPTS: Final = "SELECT at, outcome, detail FROM attempt WHERE call = ? ORDER BY id"


def trip(con: sqlite3.Connection, ledger: Ledger, number: int) -> MessageTrip | None:
    """Read the trip of one message."""
    row = con.execute(_MESSAGE, (number,)).fetchone()
    if row is None:
        return None
    calls = [_call(con, found) for found in con.execute(_CALLS, (number,)).fetchall()]
    known = value(con, "SELECT id FROM letter WHERE message = ?", (number,))
    dead = next(iter(dead_letters(con, DeadFilter(ids=[known]), 0, 1)), None) if isinstance(known, int) else None
    state = _state(con, ledger, number) if dead is None else "dead"
    notes = con.execute("SELECT name, detail FROM note WHERE message = ? ORDER BY id", (number,))
    return message_trip(pending(row), state, calls, dead, notes)


_STATES: Final = (
    ("SELECT 1 FROM again WHERE id = ?", "pending"),
    ("SELECT 1 FROM parked WHERE id = ?", "parked"),
    ("SELECT 1 FROM discarded WHERE id = ?", "discarded"),
    ("SELECT 1 FROM ahead WHERE id = ?", "settled"),
)


def _state(con: sqlite3.Connection, ledger: Ledger, number: int) -> str:
    for statement, state in _STATES:
        if value(con, statement, (number,)) is not None:
            return state
    return "settled" if number <= ledger.cursor else "pending"


def _call(con: sqlite3.Connection, row: tuple[Any, ...]) -> CallTrip:
    *told, call = row
    return call_trip(told, call, con.execute(_ATTEMPTS, (told[0],)))


def event_calls(con: sqlite3.Connection, building: str, after: int, limit: int) -> list[CallTrip]:
    """Read the calls with events of a building."""
    return [_call(con, row) for row in con.execute(_EVENT_CALLS, (building, after, limit)).fetchall()]


# ---- raw messages ---------------------------------------------------------------------------------------------------

_RAW: Final = """
SELECT id, subscription, topic, received, body FROM inbox
WHERE id > ? AND received >= ? AND received < ? ORDER BY id LIMIT ?
"""


def raw(con: sqlite3.Connection, after: int, since: int, until: int) -> list[Pending]:
    """Read a page of raw messages received in [since, until) [ms]."""
    return [pending(row) for row in con.execute(_RAW, (after, since, until, STEP))]


# ---- what replay needs ----------------------------------------------------------------------------------------------

_SETTLED: Final = """
SELECT id, subscription, topic, received, body FROM inbox
WHERE id > ? AND id <= ? AND id NOT IN (SELECT id FROM again) AND id NOT IN (SELECT id FROM parked)
    AND id NOT IN (SELECT id FROM discarded) AND id NOT IN (SELECT message FROM letter WHERE message IS NOT NULL)
ORDER BY id LIMIT ?
"""
_OF_USERS: Final = f"""
WITH page AS MATERIALIZED (SELECT last, users FROM owner WHERE last > ? ORDER BY last LIMIT {STEP}),
    named AS (SELECT CAST(one.key AS INTEGER) AS id FROM page, json_each(page.users) AS one
        WHERE one.value IN (SELECT value FROM json_each(?)))
SELECT (SELECT max(last) FROM page), (SELECT json_group_array(id) FROM named
    WHERE id <= ? AND id NOT IN (SELECT id FROM again) AND id NOT IN (SELECT id FROM parked)
        AND id NOT IN (SELECT id FROM discarded) AND id NOT IN (SELECT message FROM letter WHERE message IS NOT NULL)
        AND id IN (SELECT id FROM inbox))
"""  # noqa: S608 - a constant
_MESSAGES: Final = """
SELECT id, subscription, topic, received, body FROM inbox WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id
"""
_TICKS: Final = "SELECT after, at, catching_up, moved, state FROM tick WHERE building = ? ORDER BY id"


def settled(con: sqlite3.Connection, ledger: Ledger, after: int, limit: int) -> list[Pending]:
    """Read settled messages."""
    return [pending(row) for row in con.execute(_SETTLED, (after, ledger.cursor, limit))]


def of_users(con: sqlite3.Connection, ledger: Ledger, after: int, users: str) -> tuple[int | None, list[int]]:
    """Read a page of the steps of the worker; return the last of it, and the ids of the users' settled messages."""
    last, ids = con.execute(_OF_USERS, (after, users, ledger.cursor)).fetchone()
    return last, _ids.decode(ids)


def messages(con: sqlite3.Connection, ids: Sequence[int]) -> list[Pending]:
    """Read some messages."""
    return [pending(row) for row in con.execute(_MESSAGES, (to_json(list(ids)),))]


def ticks(con: sqlite3.Connection, building: str) -> list[Ticked]:
    """Read the ticks of a building."""
    return [ticked(row) for row in con.execute(_TICKS, (building,))]
