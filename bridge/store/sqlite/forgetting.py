"""Erasing a user from the file, one bounded transaction at a time.

Rules:
- Rows that are deleted are overwritten as far as SQLite does that (secure_delete); `compact` sees to the rest.
- A building goes with the last of its calls, in one transaction: whoever worked on it meanwhile begins anew.
"""

import sqlite3
from collections.abc import Sequence
from typing import Final

import msgspec

from bridge.store import erasing
from bridge.store.calls import CallState
from bridge.store.codec import Form, names_user, to_json
from bridge.store.desk import Erased, Redaction
from bridge.store.entries import pending
from bridge.store.erasing import Step, less
from bridge.store.ledger import Ledger
from bridge.store.port import Pending
from bridge.store.sqlite.desk import lose
from bridge.store.sqlite.inbox import forget_rows
from bridge.store.sqlite.statements import gathered
from bridge.store.steps import STEP

_strings: Final = msgspec.json.Decoder(list[str])
_users: Final = msgspec.json.Decoder(dict[str, str])


# ---- whose is it ----------------------------------------------------------------------------------------------------

_DEAD: Final = """
SELECT inbox.id, inbox.subscription, topic, received, body FROM letter JOIN inbox ON inbox.id = letter.message
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


_BY_ROWS: Final = "SELECT building FROM residence WHERE user = ? UNION SELECT building FROM home WHERE user = ?"
_LOOK: Final = """
SELECT id, CASE WHEN EXISTS (SELECT 1 FROM json_each(?) AS name WHERE instr(state, CAST(name.value AS BLOB)) > 0)
    THEN state END
FROM building WHERE id > ? ORDER BY id LIMIT ?
"""


def buildings_by_rows(con: sqlite3.Connection, user: str) -> list[str]:
    """Read the buildings of a user's directory rows and devices."""
    return [building for (building,) in con.execute(_BY_ROWS, (user, user))]


def buildings_by_state(
    con: sqlite3.Connection, user: str, raw_users: Sequence[str], after: str
) -> tuple[list[str], str | None]:
    """Look through a page of states; the second is where the next page begins, None = nowhere."""
    found, last = [], None
    for last, state in con.execute(_LOOK, (to_json([user, *raw_users]), after, erasing.STATES)):
        if state is not None and names_user(state, user, raw_users):
            found.append(last)
    return found, last


# ---- messages -------------------------------------------------------------------------------------------------------

_FATES: Final = """
SELECT json_group_array(json_array(
    inbox.id, inbox.subscription, length(body), reason, parked.id, again.id, discarded.id, ahead.id
))
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
    subscription: str
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

    def erased(self, cursor: int) -> erasing.OldMessage:
        """Return it as a message that goes."""
        return erasing.OldMessage(self.name(cursor), self.reason, self.subscription, self.length)


def messages(con: sqlite3.Connection, ledger: Ledger, ids: Sequence[int]) -> Erased:
    """Erase messages, and what hangs on their ids."""
    rows = msgspec.convert(gathered(con, _FATES, (to_json(ids),)), list[_Fate])
    if not rows:
        return Erased()
    erased = erasing.erase_messages(ledger, (row.erased(ledger.cursor) for row in rows))
    ledger.again -= sum(row.again is not None for row in rows)
    ledger.ahead -= sum(row.ahead is not None for row in rows)
    ledger.inbox_rows -= len(rows)
    ledger.inbox_bytes -= sum(row.length for row in rows)
    ledger.erased_to = ledger.last_message
    gone = [row.id for row in rows]
    for statement in _UNHANG:
        con.execute(statement, (to_json(gone),))
    forget_rows(con, gone)
    return erased


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
SELECT json_group_array(json_array(id, state, count - done, length(call), subscription))
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


def building(con: sqlite3.Connection, ledger: Ledger, name: str) -> Step:
    """Erase some calls of a building; with the last of them the building."""
    rows = msgspec.convert(gathered(con, _CALLS, (name, STEP)), list[erasing.OldCall])
    letters = con.execute(_LETTERS_OF, (to_json([row.id for row in rows]),)).fetchall()
    _drop(con, ledger, rows)
    last = len(rows) < STEP
    if last:
        letters += con.execute(_LETTERS_LEFT, (name,)).fetchall()  # of calls that are gone already
    letters = sorted(set(letters))
    _discard(con, ledger, letters)
    erased = Erased(calls=len(rows), letters=len(letters))
    return Step(erased + _whole(con, ledger, name), more=False) if last else Step(erased, more=True)


def _drop(con: sqlite3.Connection, ledger: Ledger, rows: Sequence[erasing.OldCall]) -> None:
    """Take rows out of the outbox."""
    gone = erasing.drop_calls(ledger, rows)
    for statement in _DROP_CALLS if gone else ():
        con.execute(statement, (to_json(gone),))


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
    state = 'owed' AND coalesce(lane.lent_until > ? AND outbox.id <= lane.lent, 0), outbox.subscription
FROM outbox LEFT JOIN lane USING (building)
WHERE building = ? AND outbox.id > ?
    AND EXISTS (SELECT 1 FROM json_each(?) AS name WHERE instr(call, '"' || name.value || '"') > 0)
ORDER BY outbox.id LIMIT ?
"""
_REWRITE: Final = """
UPDATE outbox SET call = ?, count = ?, done = ?, doubt = ?, historical = ?, doubt_count = ?,
    tried = NULL, outcome = NULL, answer = NULL WHERE id = ?
"""
_DROP_ATTEMPTS: Final = "DELETE FROM attempt WHERE call = ?"
_NAMING_LETTERS: Final = """
SELECT id, reason, call, form, item FROM letter
WHERE building = ? AND id > ? AND item IS NOT NULL
    AND EXISTS (SELECT 1 FROM json_each(?) AS name WHERE instr(item, '"' || name.value || '"') > 0)
ORDER BY id LIMIT ?
"""
_REWRITE_LETTER: Final = "UPDATE letter SET item = ?, answer = '' WHERE id = ?"
_SHEET: Final = "SELECT form, call, devices FROM sheet WHERE building = ?"
_DROP_COPIES: Final = "UPDATE tick SET state = NULL WHERE building = ? AND state IS NOT NULL"
_REWRITE_SHEET: Final = "UPDATE sheet SET call = ?, devices = ? WHERE building = ?"


def letters(con: sqlite3.Connection, ledger: Ledger, name: str, what: Redaction, after: int) -> Step:
    """Take what is to be forgotten out of a page of a building's letters."""
    rows = con.execute(_NAMING_LETTERS, (name, after, to_json(erasing.names(what)), STEP)).fetchall()
    gone: list[tuple[int, str]] = []
    for number, reason, call, form, item in rows:
        left = less(form, item, what)
        if left is None:
            gone.append((number, reason))
            lose(con, [call], CallState.DISCARDED)
        else:
            con.execute(_REWRITE_LETTER, (left, number))
    _discard(con, ledger, gone)
    return Step(Erased(letters=len(rows)), more=len(rows) == STEP, after=rows[-1][0] if rows else after)


def calls(con: sqlite3.Connection, ledger: Ledger, name: str, what: Redaction, after: int, now: int) -> Step:
    """Take what is to be forgotten out of a page of a building's calls, up to one that is lent to a sender."""
    found = con.execute(_NAMING, (now, name, after, to_json(erasing.names(what)), STEP)).fetchall()
    free, step = erasing.until_lent([erasing.Naming(*row) for row in found], after)
    for row in free:
        _redact(con, ledger, row, what)
    return step


def sheet(con: sqlite3.Connection, name: str, what: Redaction) -> None:
    """Take what is to be forgotten out of what is sent again after a refusal, and drop the copies of the state."""
    con.execute(_DROP_COPIES, (name,))
    row = con.execute(_SHEET, (name,)).fetchone()
    if row is not None:
        form, call, devices = row
        con.execute(_REWRITE_SHEET, (less(form, call, what), less(Form.DEVICES, devices, what), name))


def _redact(con: sqlite3.Connection, ledger: Ledger, row: erasing.Naming, what: Redaction) -> None:
    """Rewrite one call without what is to be forgotten, or drop it where nothing is left."""
    left = erasing.without(ledger, row, what)
    if left is None:
        _drop(con, ledger, [row.old])
    else:
        con.execute(_REWRITE, (*left, row.id))
        con.execute(_DROP_ATTEMPTS, (row.id,))
