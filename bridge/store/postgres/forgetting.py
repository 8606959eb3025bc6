"""Erasing a user from the database, one bounded transaction at a time.

Rules:
- A building goes with the last of its calls, in one transaction: whoever worked on it meanwhile begins anew.
- Rows are locked as everywhere else: the building, then its lane, then its calls.
- A deleted row is gone for every reader at once; its bytes stay in the server's files until the room is used again or
  the tables are written anew (`compact`), and in its write-ahead log and backups as long as the operator keeps them.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from bridge.store import erasing
from bridge.store.calls import CallState
from bridge.store.codec import Form, names_user
from bridge.store.desk import Erased, Redaction
from bridge.store.entries import pending
from bridge.store.erasing import Step
from bridge.store.ledger import Ledger
from bridge.store.port import Pending
from bridge.store.postgres.clock import server_ms
from bridge.store.postgres.connection import Connection, Row, changed
from bridge.store.postgres.desk import lose
from bridge.store.postgres.inbox import forget_rows
from bridge.store.steps import STEP

OWNERS: Final = 50_000
"""Numbers of steps of workers that one look for a user's messages goes through."""

TABLES: Final = (
    *("inbox", "seen", "waiting", "parked", "discarded", "belongs", "owner", "letter", "note", "residence", "changed"),
    *("home", "building", "outbox", "attempt", "lane", "sheet", "tick", "early"),
)
"""Tables that hold anything of a user."""

_strings: Final = msgspec.json.Decoder(list[str])


# ---- whose is it ----------------------------------------------------------------------------------------------------

_UNOWNED: Final = """
SELECT inbox.id, subscription, topic, received, body FROM (
    (SELECT id FROM waiting WHERE id > $1 ORDER BY id LIMIT $2)
    UNION (SELECT id FROM discarded WHERE id > $1 ORDER BY id LIMIT $2)
    UNION (SELECT message FROM letter WHERE message > $1 AND user_id IS NULL ORDER BY message LIMIT $2)
    ORDER BY 1 LIMIT $2
) AS found JOIN inbox ON inbox.id = found.id
ORDER BY inbox.id
"""


async def unowned(con: Connection, after: int) -> list[Pending]:
    """Read a page of messages whose user the store may not know."""
    return [pending(row) for row in await con.fetch(_UNOWNED, after, STEP)]


_OWNED: Final = """
SELECT message FROM owner, unnest(messages, users) AS whose (message, name)
WHERE id > $1 AND id <= $1 + $2 AND $3 = ANY(users) AND name = $3
"""
_APART: Final = "SELECT id FROM parked WHERE user_id = $1 UNION SELECT message FROM letter WHERE user_id = $1"


async def last_owner(con: Connection) -> int:
    """Return where the look for a user's messages ends."""
    found: int = await con.fetchval("SELECT coalesce(max(id), 0) FROM owner")
    return found


async def owned(con: Connection, user: str, after: int) -> list[int]:
    """Read a page of the ids of a user's messages."""
    return [row[0] for row in await con.fetch(_OWNED, after, OWNERS, user)]


async def apart(con: Connection, user: str) -> list[int]:
    """Read the ids of a user's messages that are parked or dead."""
    return [row[0] for row in await con.fetch(_APART, user) if row[0] is not None]


_BY_ROWS: Final = """
SELECT building FROM residence WHERE user_id = $1 UNION SELECT building FROM home WHERE user_id = $1
"""
_LOOK: Final = """
SELECT id, CASE WHEN EXISTS (SELECT FROM unnest($2::bytea[]) AS name WHERE position(name IN state) > 0) THEN state END
FROM building WHERE id > $1 ORDER BY id LIMIT $3
"""


async def buildings_by_rows(con: Connection, user: str) -> list[str]:
    """Read the buildings of a user's directory rows and devices."""
    return [row[0] for row in await con.fetch(_BY_ROWS, user)]


async def buildings_by_state(
    con: Connection, user: str, raw_users: Sequence[str], after: str
) -> tuple[list[str], str | None]:
    """Look through a page of states; the second is where the next page begins, None = nowhere."""
    found, last = [], None
    names = [name.encode() for name in (user, *raw_users)]
    for last, state in await con.fetch(_LOOK, after, names, erasing.STATES):
        if state is not None and names_user(state, user, raw_users):
            found.append(last)
    return found, last


# ---- messages -------------------------------------------------------------------------------------------------------

_FATES: Final = """
SELECT inbox.id, inbox.subscription, octet_length(body), reason, CASE
    WHEN letter.id IS NOT NULL THEN 'dead'
    WHEN EXISTS (SELECT FROM parked WHERE parked.id = inbox.id) THEN 'parked'
    WHEN EXISTS (SELECT FROM waiting WHERE waiting.id = inbox.id) THEN 'pending'
    WHEN EXISTS (SELECT FROM discarded WHERE discarded.id = inbox.id) THEN 'discarded'
    ELSE 'settled' END
FROM inbox LEFT JOIN letter ON letter.message = inbox.id WHERE inbox.id = ANY($1)
ORDER BY inbox.id FOR UPDATE OF inbox
"""
_HELD: Final = "SELECT id FROM waiting WHERE id = ANY($1) ORDER BY id FOR UPDATE"
_UNHANG: Final = (
    "DELETE FROM letter WHERE message = ANY($1)",
    "DELETE FROM parked WHERE id = ANY($1)",
    "DELETE FROM waiting WHERE id = ANY($1)",
)


async def messages(con: Connection, ledger: Ledger, ids: Sequence[int]) -> Erased:
    """Erase messages, and what hangs on their ids."""
    await con.fetch(_HELD, list(ids))  # whoever settles one just now is waited for
    rows = await con.fetch(_FATES, list(ids))
    if not rows:
        return Erased()
    erased = erasing.erase_messages(
        ledger,
        (erasing.OldMessage(fate, reason, subscription, length) for _, subscription, length, reason, fate in rows),
    )
    gone = [row[0] for row in rows]
    for statement in _UNHANG:
        await con.execute(statement, gone)
    await forget_rows(con, ledger, gone)
    return erased


# ---- the user itself ------------------------------------------------------------------------------------------------

_USER: Final = (
    "DELETE FROM residence WHERE user_id = $1",
    "DELETE FROM home WHERE user_id = $1",
)
_HINTS: Final = ("DELETE FROM changed WHERE user_id = $1", "DELETE FROM belongs WHERE user_id = $1")
_DISOWN: Final = """
UPDATE owner SET (messages, users) = (
    SELECT coalesce(array_agg(message ORDER BY place), '{}'), coalesce(array_agg(name ORDER BY place), '{}')
    FROM unnest(messages, users) WITH ORDINALITY AS whose (message, name, place) WHERE name <> $3
)
WHERE id > $1 AND id <= $1 + $2 AND $3 = ANY(users)
"""


async def rows_of_user(con: Connection, user: str) -> Erased:
    """Erase directory rows and homes."""
    for statement in _HINTS:
        await con.execute(statement, user)
    return Erased(rows=sum([changed(await con.execute(statement, user)) for statement in _USER]))


async def disown(con: Connection, user: str, after: int) -> None:
    """Forget whose a page of messages were."""
    await con.execute(_DISOWN, after, OWNERS, user)
    await con.execute("DELETE FROM owner WHERE id > $1 AND id <= $1 + $2 AND users = '{}'", after, OWNERS)


# ---- a building of its own ------------------------------------------------------------------------------------------

_LOCK: Final = (
    "SELECT id FROM building WHERE id = $1 FOR UPDATE",
    "SELECT building FROM lane WHERE building = $1 FOR UPDATE",
)
_CALLS: Final = """
SELECT id, state, count - done, octet_length(call), subscription FROM outbox WHERE building = $1 ORDER BY id LIMIT $2
"""
_LETTERS_OF: Final = "SELECT id, reason FROM letter WHERE call = ANY($1)"
_LETTERS_LEFT: Final = "SELECT id, reason FROM letter WHERE building = $1"
_DROP_CALLS: Final = ("DELETE FROM attempt WHERE call = ANY($1)", "DELETE FROM outbox WHERE id = ANY($1)")
_WHOLE: Final = (
    "DELETE FROM tick WHERE building = $1",
    "DELETE FROM lane WHERE building = $1",
    "DELETE FROM sheet WHERE building = $1",
    "DELETE FROM home WHERE building = $1",
    "DELETE FROM building WHERE id = $1",
)


async def _lock(con: Connection, building: str) -> None:
    for statement in _LOCK:
        await con.execute(statement, building)


async def building(con: Connection, ledger: Ledger, name: str) -> Step:
    """Erase some calls of a building; with the last of them the building."""
    await _lock(con, name)
    rows = [erasing.OldCall(*row) for row in await con.fetch(_CALLS, name, STEP)]
    letters = {(row[0], row[1]) for row in await con.fetch(_LETTERS_OF, [row.id for row in rows])}
    await _drop(con, ledger, rows)
    last = len(rows) < STEP
    if last:
        letters |= {(row[0], row[1]) for row in await con.fetch(_LETTERS_LEFT, name)}  # of calls that are gone already
    await _discard(con, ledger, sorted(letters))
    erased = Erased(calls=len(rows), letters=len(letters))
    return Step(erased + await _whole(con, ledger, name), more=False) if last else Step(erased, more=True)


async def _drop(con: Connection, ledger: Ledger, rows: Sequence[erasing.OldCall]) -> None:
    """Take rows out of the outbox."""
    gone = erasing.drop_calls(ledger, rows)
    for statement in _DROP_CALLS if gone else ():
        await con.execute(statement, gone)


async def _discard(con: Connection, ledger: Ledger, letters: Sequence[tuple[int, str]]) -> None:
    """Take the letters of calls away."""
    for _, reason in letters:
        ledger.discard_call(reason)
    if letters:
        await con.execute("DELETE FROM letter WHERE id = ANY($1)", [number for number, _ in letters])


async def _whole(con: Connection, ledger: Ledger, name: str) -> Erased:
    flags = await con.fetchval("SELECT flags FROM building WHERE id = $1", name)
    if flags is not None:
        ledger.flag(_strings.decode(flags), ())
    await con.execute("UPDATE bridge SET erasures = erasures + 1")
    *_, states = [changed(await con.execute(statement, name)) for statement in _WHOLE]
    return Erased(rows=states)


# ---- a building of others -------------------------------------------------------------------------------------------

_NAMING: Final = f"""
SELECT outbox.id, state, form, count, done, doubt, historical, doubt_count, call,
    state = 'owed' AND coalesce(lane.lent_until > {server_ms(5)} AND outbox.id <= lane.lent, false),
    outbox.subscription
FROM outbox LEFT JOIN lane USING (building)
WHERE building = $1 AND outbox.id > $2
    AND EXISTS (SELECT FROM unnest($3::text[]) AS name WHERE position('"' || name || '"' IN call) > 0)
ORDER BY outbox.id LIMIT $4
"""  # noqa: S608 - a part of the statement, no value
_REWRITE: Final = """
UPDATE outbox SET call = $2, count = $3, done = $4, doubt = $5, historical = $6, doubt_count = $7,
    tried = NULL, outcome = NULL, answer = NULL WHERE id = $1
"""
_NAMING_LETTERS: Final = """
SELECT id, reason, call, form, item FROM letter
WHERE building = $1 AND id > $2 AND item IS NOT NULL
    AND EXISTS (SELECT FROM unnest($3::text[]) AS name WHERE position('"' || name || '"' IN item) > 0)
ORDER BY id LIMIT $4
"""


async def letters(con: Connection, ledger: Ledger, name: str, what: Redaction, after: int) -> Step:
    """Take what is to be forgotten out of a page of a building's letters."""
    await _lock(con, name)
    rows = await con.fetch(_NAMING_LETTERS, name, after, erasing.names(what), STEP)
    gone: list[tuple[int, str]] = []
    for number, reason, call, form, item in rows:
        left = _less(form, item, what)
        if left is None:
            gone.append((number, reason))
            await lose(con, [call], CallState.DISCARDED)
        else:
            await con.execute("UPDATE letter SET item = $2, answer = '' WHERE id = $1", number, left)
    await _discard(con, ledger, gone)
    return Step(Erased(letters=len(rows)), more=len(rows) == STEP, after=rows[-1][0] if rows else after)


async def calls(con: Connection, ledger: Ledger, name: str, what: Redaction, after: int, at: int | None) -> Step:
    """Take what is to be forgotten out of a page of a building's calls, up to one that is lent to a sender."""
    await _lock(con, name)
    found = await con.fetch(_NAMING, name, after, erasing.names(what), STEP, at)
    free, step = erasing.until_lent([_naming(row) for row in found], after)
    for row in free:
        await _redact(con, ledger, row, what)
    return step


def _naming(row: Row) -> erasing.Naming:
    *columns, call, lent, payer = row
    return erasing.Naming(*[*columns, call.encode(), lent, payer])


async def sheet(con: Connection, name: str, what: Redaction) -> None:
    """Take what is to be forgotten out of what is sent again after a refusal, and drop the copies of the state."""
    await _lock(con, name)
    await con.execute("UPDATE tick SET state = NULL WHERE building = $1 AND state IS NOT NULL", name)
    row = await con.fetchrow("SELECT form, call, devices FROM sheet WHERE building = $1", name)
    if row is not None:
        form, call, devices = row
        left = (_less(form, call, what), _less(Form.DEVICES, devices, what))
        await con.execute("UPDATE sheet SET call = $2, devices = $3 WHERE building = $1", name, *left)


def _less(form: int, call: str | None, what: Redaction) -> str | None:
    left = erasing.less(form, None if call is None else call.encode(), what)
    return None if left is None else left.decode()


async def _redact(con: Connection, ledger: Ledger, row: erasing.Naming, what: Redaction) -> None:
    """Rewrite one call without what is to be forgotten, or drop it where nothing is left."""
    left = erasing.without(ledger, row, what)
    if left is None:
        await _drop(con, ledger, [row.old])
    else:
        call, *numbers = left
        await con.execute(_REWRITE, row.id, call.decode(), *numbers)
        await con.execute("DELETE FROM attempt WHERE call = $1", row.id)
