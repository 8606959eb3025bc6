"""Erasing a user from the file, one bounded transaction at a time.

Rules:
- Rows that are deleted are overwritten as far as SQLite does that (secure_delete); `compact` sees to the rest.
- A building goes with the last of its calls, in one transaction: whoever worked on it meanwhile begins anew.
- Of a building of others a call keeps its id and its place. A sender counts the events of what it was lent from the
  front, so nothing is cut out of a row before it is given back.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from bridge.store.calls import CallState, done_before, doubt_without, redacted, size
from bridge.store.codec import Form, decode_call, encode_call, names_user, to_json
from bridge.store.entries import pending
from bridge.store.ledger import Ledger
from bridge.store.port import Doubt, Erased, Pending, Redaction
from bridge.store.sqlite.inbox import forget_rows
from bridge.store.sqlite.statements import gathered

STEP: Final = 100
"""Most rows of one transaction beside a running daemon."""

STATES: Final = 500
"""Most states that one look for a user reads."""

_strings: Final = msgspec.json.Decoder(list[str])
_users: Final = msgspec.json.Decoder(dict[str, str])


class Step(NamedTuple):
    """What one transaction did, and whether there is more for the next one."""

    erased: Erased
    more: bool
    after: int = 0  # the last row that was looked at
    waits: bool = False  # for a row that is lent to a sender


# ---- whose is it ----------------------------------------------------------------------------------------------------

_DEAD: Final = """
SELECT inbox.id, subscription, topic, received, body FROM letter JOIN inbox ON inbox.id = letter.message
WHERE user IS NULL AND inbox.id > ? ORDER BY inbox.id LIMIT ?
"""
_GIVEN_UP: Final = """
SELECT inbox.id, subscription, topic, received, body FROM discarded JOIN inbox USING (id)
WHERE inbox.id > ? ORDER BY inbox.id LIMIT ?
"""
_AGAIN: Final = """
SELECT inbox.id, subscription, topic, received, body FROM again JOIN inbox USING (id)
WHERE inbox.id > ? ORDER BY inbox.id LIMIT ?
"""
_WAITING: Final = """
SELECT id, subscription, topic, received, body FROM inbox
WHERE id > max(?, (SELECT ledger ->> 'cursor' FROM bridge)) AND id NOT IN (SELECT id FROM ahead) ORDER BY id LIMIT ?
"""
UNOWNED: Final = (_DEAD, _GIVEN_UP, _AGAIN, _WAITING)
"""Where messages lie whose user the store may not know."""


def unowned(con: sqlite3.Connection, statement: str, after: int) -> list[Pending]:
    """Read a page of one of `UNOWNED`."""
    return [pending(row) for row in con.execute(statement, (after, STEP))]


_OWNERS: Final = "SELECT last, users FROM owner WHERE last > ? ORDER BY last LIMIT ?"
_PARKED: Final = "SELECT id FROM parked WHERE user = ?"
_LETTERS: Final = "SELECT message FROM letter WHERE user = ? AND message IS NOT NULL"


def owned(con: sqlite3.Connection, user: str, after: int) -> tuple[list[int], int | None]:
    """Read a page of the ids of a user's messages; the second is where the next one begins, None = nowhere."""
    found, last = [], None
    for last, users in con.execute(_OWNERS, (after, STEP)):  # noqa: B007 - the last one counts
        found += [int(number) for number, name in _users.decode(users).items() if name == user]
    return found, last


def apart(con: sqlite3.Connection, user: str) -> list[int]:
    """Read the ids of a user's messages that are parked or dead."""
    return [number for statement in (_PARKED, _LETTERS) for (number,) in con.execute(statement, (user,))]


_BY_ROWS: Final = "SELECT building FROM residence WHERE user = ?1 UNION SELECT building FROM home WHERE user = ?1"
_LOOK: Final = """
SELECT id, CASE WHEN EXISTS (SELECT 1 FROM json_each(?2) AS name WHERE instr(state, CAST(name.value AS BLOB)) > 0)
    THEN state END
FROM building WHERE id > ?1 ORDER BY id LIMIT ?3
"""


def buildings_by_rows(con: sqlite3.Connection, user: str) -> list[str]:
    """Read the buildings of a user's directory rows and devices."""
    return [building for (building,) in con.execute(_BY_ROWS, (user,))]


def buildings_by_state(
    con: sqlite3.Connection, user: str, raw_users: Sequence[str], after: str
) -> tuple[list[str], str | None]:
    """Look through a page of states; the second is where the next page begins, None = nowhere."""
    found, last = [], None
    for last, state in con.execute(_LOOK, (after, to_json([user, *raw_users]), STATES)):
        if state is not None and names_user(state, user, raw_users):
            found.append(last)
    return found, last


# ---- messages -------------------------------------------------------------------------------------------------------

_FATES: Final = """
SELECT json_group_array(json_array(inbox.id, length(body), reason, parked.id, again.id, discarded.id, ahead.id))
FROM json_each(?) AS asked
JOIN inbox ON inbox.id = asked.value
LEFT JOIN letter ON letter.message = inbox.id
LEFT JOIN parked ON parked.id = inbox.id
LEFT JOIN again ON again.id = inbox.id
LEFT JOIN discarded ON discarded.id = inbox.id
LEFT JOIN ahead ON ahead.id = inbox.id
"""
_UNHANG: Final = tuple(
    f"DELETE FROM {table} WHERE {column} IN (SELECT value FROM json_each(?))"  # noqa: S608 - names of the schema
    for table, column in (("letter", "message"), ("parked", "id"), ("again", "id"), ("ahead", "id"))
)


class _Fate(msgspec.Struct, array_like=True):
    """One message that is there, and where."""

    id: int
    length: int
    reason: str | None
    parked: int | None
    again: int | None
    discarded: int | None
    ahead: int | None

    def name(self, cursor: int) -> str:
        """Return the count of the ledger that it belongs to."""
        if self.reason is not None:
            return "dead"
        if self.parked is not None:
            return "parked"
        if self.again is not None:
            return "pending"
        if self.discarded is not None:
            return "discarded"
        return "pending" if self.id > cursor and self.ahead is None else "settled"


def messages(con: sqlite3.Connection, ledger: Ledger, ids: Sequence[int]) -> Erased:
    """Erase messages, and what hangs on their ids."""
    rows = msgspec.convert(gathered(con, _FATES, (to_json(ids),)), list[_Fate])
    if not rows:
        return Erased()
    for row in rows:
        ledger.erase_message(row.name(ledger.cursor))
        if row.reason is not None:
            ledger.erase_letter(row.reason)
    ledger.again -= sum(row.again is not None for row in rows)
    ledger.ahead -= sum(row.ahead is not None for row in rows)
    ledger.inbox_rows -= len(rows)
    ledger.inbox_bytes -= sum(row.length for row in rows)
    ledger.erased_to = ledger.last_message
    gone = to_json([row.id for row in rows])
    for statement in _UNHANG:
        con.execute(statement, (gone,))
    forget_rows(con, gone)
    return Erased(messages=len(rows), letters=sum(row.reason is not None for row in rows))


# ---- the user itself ------------------------------------------------------------------------------------------------

_USER: Final = (
    "DELETE FROM residence WHERE user = ?",
    "DELETE FROM changed WHERE user = ?",
    "DELETE FROM home WHERE user = ?",
)
_DISOWN: Final = "DELETE FROM owner WHERE last = ?"
_OWN: Final = "UPDATE owner SET users = ? WHERE last = ?"


def rows_of_user(con: sqlite3.Connection, user: str) -> Erased:
    """Erase directory rows and homes."""
    return Erased(rows=sum(con.execute(statement, (user,)).rowcount for statement in _USER))


def disown(con: sqlite3.Connection, user: str, after: int) -> int | None:
    """Forget whose messages were, a page at a time; return where the next page begins, None = nowhere."""
    last = None
    for last, text in con.execute(_OWNERS, (after, STEP)).fetchall():
        users = _users.decode(text)
        left = {number: name for number, name in users.items() if name != user}
        if not left:
            con.execute(_DISOWN, (last,))
        elif len(left) < len(users):
            con.execute(_OWN, (to_json(left), last))
    return last


# ---- a building of its own ------------------------------------------------------------------------------------------

_CALLS: Final = """
SELECT json_group_array(json_array(id, state, count - done, length(call)))
FROM (SELECT * FROM outbox WHERE building = ? ORDER BY id LIMIT ?)
"""
_LETTERS_OF: Final = "SELECT id, reason FROM letter WHERE call IN (SELECT value FROM json_each(?))"
_LETTERS_LEFT: Final = "SELECT id, reason FROM letter WHERE building = ?"
_DROP_LETTERS: Final = "DELETE FROM letter WHERE id IN (SELECT value FROM json_each(?))"
_DROP_CALLS: Final = (
    "DELETE FROM attempt WHERE call IN (SELECT value FROM json_each(?))",
    "DELETE FROM outbox WHERE id IN (SELECT value FROM json_each(?))",
)
_FLAGS: Final = "SELECT flags FROM building WHERE id = ?"
_WHOLE: Final = tuple(
    f"DELETE FROM {table} WHERE {column} = ?"  # noqa: S608 - names of the schema
    for table, column in (
        *(("tick", "building"), ("lane", "building"), ("sheet", "building"), ("home", "building")),
        ("building", "id"),
    )
)


class _Call(msgspec.Struct, array_like=True):
    """One row of the outbox."""

    id: int
    state: str
    left: int
    length: int

    @property
    def owed(self) -> bool:
        """Tell whether something of it is owed."""
        return self.state == CallState.OWED


def building(con: sqlite3.Connection, ledger: Ledger, name: str) -> Step:
    """Erase some calls of a building; with the last of them the building."""
    rows = msgspec.convert(gathered(con, _CALLS, (name, STEP)), list[_Call])
    gone = to_json([row.id for row in rows])
    letters = con.execute(_LETTERS_OF, (gone,)).fetchall()
    _drop(con, ledger, rows, gone)
    last = len(rows) < STEP
    if last:
        letters += con.execute(_LETTERS_LEFT, (name,)).fetchall()  # of calls that are gone already
    letters = sorted(set(letters))
    _discard(con, ledger, letters)
    erased = Erased(calls=len(rows), letters=len(letters))
    return Step(erased + _whole(con, ledger, name), more=False) if last else Step(erased, more=True)


def _drop(con: sqlite3.Connection, ledger: Ledger, rows: Sequence[_Call], gone: str) -> None:
    """Take rows out of the outbox."""
    ledger.erase_calls(sum(row.left for row in rows if row.owed))
    ledger.outbox_rows -= len(rows)
    ledger.outbox_bytes -= sum(row.length for row in rows)
    ledger.outbox_settled -= sum(not row.owed for row in rows)
    for statement in _DROP_CALLS if rows else ():
        con.execute(statement, (gone,))


def _discard(con: sqlite3.Connection, ledger: Ledger, letters: Sequence[tuple[int, str]]) -> None:
    """Take the letters of calls away."""
    for _, reason in letters:
        ledger.discard_call(reason)
    if letters:
        con.execute(_DROP_LETTERS, (to_json([number for number, _ in letters]),))


def _whole(con: sqlite3.Connection, ledger: Ledger, name: str) -> Erased:
    flags = con.execute(_FLAGS, (name,)).fetchone()
    if flags is not None:
        ledger.flag(_strings.decode(flags[0]), ())
    ledger.erasures += 1
    *_, states = [con.execute(statement, (name,)).rowcount for statement in _WHOLE]
    return Erased(rows=states)


# ---- a building of others -------------------------------------------------------------------------------------------

_NAMING: Final = """
SELECT outbox.id, state, form, count, done, doubt, historical, doubt_count, call,
    state = 'owed' AND coalesce(lane.lent_until > ?5 AND outbox.id <= lane.lent, 0)
FROM outbox LEFT JOIN lane USING (building)
WHERE building = ?1 AND outbox.id > ?2
    AND EXISTS (SELECT 1 FROM json_each(?3) AS name WHERE instr(call, '"' || name.value || '"') > 0)
ORDER BY outbox.id LIMIT ?4
"""
_REWRITE: Final = """
UPDATE outbox SET call = ?2, count = ?3, done = ?4, doubt = ?5, historical = ?6, doubt_count = ?7,
    tried = NULL, outcome = NULL, answer = NULL WHERE id = ?1
"""
_DROP_ATTEMPTS: Final = "DELETE FROM attempt WHERE call = ?"
_NAMING_LETTERS: Final = """
SELECT id, reason, call, form, item FROM letter
WHERE building = ?1 AND id > ?2 AND item IS NOT NULL
    AND EXISTS (SELECT 1 FROM json_each(?3) AS name WHERE instr(item, '"' || name.value || '"') > 0)
ORDER BY id LIMIT ?4
"""
_REWRITE_LETTER: Final = "UPDATE letter SET item = ?2, answer = '' WHERE id = ?1"
_LOSE: Final = """
UPDATE outbox SET buried = buried - 1, state = CASE WHEN state = 'dead' AND buried = 1 THEN 'discarded' ELSE state END
WHERE id = ?
"""
_SHEET: Final = "SELECT form, call, devices FROM sheet WHERE building = ?"
_DROP_COPIES: Final = "UPDATE tick SET state = NULL WHERE building = ? AND state IS NOT NULL"
_REWRITE_SHEET: Final = "UPDATE sheet SET call = ?2, devices = ?3 WHERE building = ?1"


def letters(con: sqlite3.Connection, ledger: Ledger, name: str, what: Redaction, after: int) -> Step:
    """Take what is to be forgotten out of a page of a building's letters."""
    rows = con.execute(_NAMING_LETTERS, (name, after, _names(what), STEP)).fetchall()
    gone: list[tuple[int, str]] = []
    for number, reason, call, form, item in rows:
        left = redacted(decode_call(form, item), what)
        if left is None:
            gone.append((number, reason))
            con.execute(_LOSE, (call,))
        else:
            con.execute(_REWRITE_LETTER, (number, encode_call(left)))
    _discard(con, ledger, gone)
    return Step(Erased(letters=len(rows)), more=len(rows) == STEP, after=rows[-1][0] if rows else after)


def calls(con: sqlite3.Connection, ledger: Ledger, name: str, what: Redaction, after: int, now: int) -> Step:
    """Take what is to be forgotten out of a page of a building's calls, up to one that is lent to a sender."""
    rows = con.execute(_NAMING, (name, after, _names(what), STEP, now)).fetchall()
    free = [row[:-1] for row in rows[: next((place for place, row in enumerate(rows) if row[-1]), len(rows))]]
    for row in free:
        _redact(con, ledger, row, what)
    waits = len(free) < len(rows)
    last = free[-1][0] if free else after
    return Step(Erased(calls=len(free)), more=waits or len(rows) == STEP, after=last, waits=waits)


def sheet(con: sqlite3.Connection, name: str, what: Redaction) -> None:
    """Take what is to be forgotten out of what is sent again after a refusal, and drop the copies of the state."""
    con.execute(_DROP_COPIES, (name,))
    row = con.execute(_SHEET, (name,)).fetchone()
    if row is not None:
        form, call, devices = row
        con.execute(_REWRITE_SHEET, (name, _less(form, call, what), _less(Form.DEVICES, devices, what)))


def _less(form: int, call: bytes | None, what: Redaction) -> bytes | None:
    left = None if call is None else redacted(decode_call(form, call), what)
    return None if left is None else encode_call(left)


def _names(what: Redaction) -> str:
    return to_json(sorted(what.devices | what.users))


_Naming = tuple[int, str, int, int, int, bytes | None, int | None, int | None, bytes]


def _redact(con: sqlite3.Connection, ledger: Ledger, row: _Naming, what: Redaction) -> None:
    """Rewrite one call without what is to be forgotten, or drop it where nothing is left."""
    number, state, form, count, done, payload, historical, doubted, data = row
    call = decode_call(form, data)
    left = redacted(call, what)
    if left is None:
        _drop(con, ledger, [_Call(number, state, count - done, len(data))], to_json([number]))
        return
    doubt = None if payload is None else Doubt(payload=payload, historical=bool(historical), count=doubted or 0)
    if doubt is not None:
        whole = Doubt(payload=b"", historical=False, count=1)  # of a whole state nothing is sent as it was
        doubt = doubt_without(doubt, what) if form == Form.EVENTS else whole
    new = encode_call(left)
    # A row that is done keeps its numbers: they say what was counted then.
    kept = (size(left), done_before(call, done, what)) if state == CallState.OWED else (count, done)
    if state == CallState.OWED:
        ledger.erase_calls((count - done) - (kept[0] - kept[1]))
    ledger.outbox_bytes += len(new) - len(data)
    con.execute(_REWRITE, (number, new, *kept, *_columns(doubt)))
    con.execute(_DROP_ATTEMPTS, (number,))


def _columns(doubt: Doubt | None) -> Iterator[object]:
    yield from (None, None, None) if doubt is None else (doubt.payload, doubt.historical, doubt.count)
