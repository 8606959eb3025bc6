"""The log of raw messages: what comes in, what waits, what is done.

Theory of operation: messages are processed in order, so progress is a cursor in the ledger and settling costs nothing
per message. Exceptions are rows: `ahead` (done beyond the cursor), `again` (waits once more), `parked`, and the dead.
"""

import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from bridge.store import entries
from bridge.store.codec import plain, to_json, to_ms
from bridge.store.entries import CLAIM_BYTES, pending
from bridge.store.ledger import Ledger
from bridge.store.port import Outdated, Pending, Receipt, Work
from bridge.store.repeats import BYTES, Heard, Verdict, read, written
from bridge.store.shares import Held, message_bytes
from bridge.store.sqlite.statements import Batch, gathered, value

SCAN_ROWS: Final = 5_000
"""How far one commit looks for the next waiting message."""

Entry = entries.Entry

entry: Final = Entry.of
"""Prepare an arrival; bound once, because it is done for every message."""


# ---- the door -------------------------------------------------------------------------------------------------------

_INSERT: Final = Batch("INSERT INTO inbox (id, subscription, topic, received, message_id, position, body) VALUES ", 7)
_INSERT_SEEN: Final = Batch("INSERT INTO seen (message_id, subscription, position, digest, message, heard) VALUES ", 6)
_INSERT_AHEAD: Final = Batch("INSERT INTO ahead (id) VALUES ", 1)
_INSERT_LETTER: Final = Batch("INSERT INTO letter (id, reason, detail, at, user, message, subscription) VALUES ", 7)

_HEARD_AGAIN: Final = """
UPDATE seen SET heard = ? WHERE message_id = ? AND subscription = ? AND position = ? AND digest = ?
"""

_SEEN: Final = """
SELECT json_group_array(json_array(message_id, subscription, position, hex(digest), heard))
FROM seen WHERE message_id IN (SELECT value FROM json_each(?))
"""

_Seen = dict[tuple[str, str, int], dict[bytes, Entry | Heard | None]]
"""Id, subscription, position -> digest -> the entry of this round, or how it was heard before; None = not signed."""


def accept(con: sqlite3.Connection, ledger: Ledger, entries: Sequence[Entry]) -> list[Receipt]:
    """Store new messages, tell repeats apart."""
    known = _known(con, entries)
    receipts: list[Receipt] = []
    fresh: list[Entry] = []
    remembered: list[tuple[object, ...]] = []  # new rows of `seen`
    again: list[tuple[object, ...]] = []  # what rows of `seen` say otherwise now
    for row in entries:
        number = ledger.last_message + len(fresh) + 1
        key = row.key
        if key is not None:
            same_id = known.setdefault(key[:3], {})
            if key[3] in same_id:
                verdict, heard = _judged(same_id, row, key[3])
                if heard is not None:
                    again.append((written(heard), *key))
                if verdict is Verdict.REPEAT:
                    ledger.duplicates += 1
                    receipts.append(Receipt(id=0, duplicate=True))
                    continue
                if verdict is Verdict.REPLAYED:
                    fresh.append(row.replayed())
                    receipts.append(Receipt(id=number, replayed=True))
                    continue
            else:
                if same_id:
                    ledger.same_id_other_bytes += all(digest[:BYTES] != key[3][:BYTES] for digest in same_id)
                same_id[key[3]] = row
                remembered.append((*key, number, None if row.signed is None else row.first_heard))
        fresh.append(row)
        receipts.append(Receipt(id=number))
    _store(con, ledger, fresh)
    _INSERT_SEEN.run(con, remembered)
    con.executemany(_HEARD_AGAIN, again)
    return receipts


def _judged(same_id: dict[bytes, Entry | Heard | None], row: Entry, digest: bytes) -> tuple[Verdict, Heard | None]:
    """Return what a message is whose delivery is known, and what is to be remembered otherwise."""
    heard = same_id[digest]
    if isinstance(heard, entries.Entry):
        heard = same_id[digest] = heard.heard
    if heard is None or row.signed is None:
        return Verdict.REPEAT, None
    verdict, changed = heard.judge(row.topic, row.signed)
    return verdict, heard if changed else None


def _known(con: sqlite3.Connection, entries: Sequence[Entry]) -> _Seen:
    ids = {row.message_id for row in entries if row.message_id is not None}
    known: _Seen = {}
    if ids:
        for message_id, subscription, position, digest, heard in gathered(con, _SEEN, (to_json(sorted(ids)),)):
            same_id = known.setdefault((str(message_id), str(subscription), int(str(position))), {})
            same_id[bytes.fromhex(str(digest))] = None if heard is None else read(str(heard))
    return known


def _store(con: sqlite3.Connection, ledger: Ledger, fresh: Sequence[Entry]) -> None:
    first = ledger.last_message + 1
    numbered = list(enumerate(fresh, first))
    _INSERT.run(
        con,
        [(n, r.subscription, r.topic, r.received, r.message_id, r.position, r.body) for n, r in numbered],
    )
    ledger.take_in(len(fresh), sum(len(row.body) for row in fresh))
    ledger.hold(((row.subscription, message_bytes(len(row.body))) for row in fresh), into="pending")
    dead = [(n, r, r.dead) for n, r in numbered if r.dead is not None]
    if dead:
        letters = [
            (ledger.bury_message(reason), reason, r.detail, r.received, None, n, r.subscription)
            for n, r, reason in dead
        ]
        _INSERT_LETTER.run(con, letters)
        ledger.hold(((r.subscription, message_bytes(len(r.body))) for _, r, _ in dead), out="pending", into="dead")
        _INSERT_AHEAD.run(con, [(n,) for n, _, _ in dead])
        ledger.ahead += len(dead)


# ---- the worker -----------------------------------------------------------------------------------------------------

_AGAIN: Final = """
SELECT inbox.id, subscription, topic, received, body FROM again JOIN inbox USING (id) ORDER BY id LIMIT ?
"""
_LOG: Final = "SELECT id, subscription, topic, received, body FROM inbox WHERE id > ? ORDER BY id LIMIT ?"
_LOG_AHEAD: Final = """
SELECT id, subscription, topic, received, body FROM inbox
WHERE id > ? AND id NOT IN (SELECT id FROM ahead) ORDER BY id LIMIT ?
"""


def claim(con: sqlite3.Connection, ledger: Ledger, limit: int) -> list[Pending]:
    """Return the oldest messages that wait."""
    found: list[Pending] = []
    if ledger.again:
        found += _taken(con.execute(_AGAIN, (limit,)), CLAIM_BYTES)
    room = CLAIM_BYTES - sum(len(message.body) for message in found)
    if len(found) < limit and (room > 0 or not found):
        statement = _LOG_AHEAD if ledger.ahead else _LOG
        found += _taken(con.execute(statement, (ledger.cursor, limit - len(found))), room)
    return found


def _taken(rows: Iterable[tuple[int, str, str, int, bytes]], room: int) -> list[Pending]:
    """Return messages until their bodies fill the room."""
    taken = []
    for row in rows:
        message = pending(row)
        taken.append(message)
        room -= len(message.body)
        if room <= 0:
            break
    return taken


def oldest_pending(con: sqlite3.Connection, ledger: Ledger) -> int | None:
    """Return the earliest receipt among the first of those that wait [ms]."""
    first = [value(con, _AGAIN_RECEIVED)] if ledger.again else []
    first.append(value(con, _LOG_AHEAD_RECEIVED if ledger.ahead else _LOG_RECEIVED, (ledger.cursor,)))
    return min((at for at in first if isinstance(at, int)), default=None)


_AGAIN_RECEIVED: Final = "SELECT received FROM again JOIN inbox USING (id) ORDER BY id LIMIT 1"
_LOG_RECEIVED: Final = "SELECT received FROM inbox WHERE id > ? ORDER BY id LIMIT 1"
_LOG_AHEAD_RECEIVED: Final = """
SELECT received FROM inbox WHERE id > ? AND id NOT IN (SELECT id FROM ahead) ORDER BY id LIMIT 1
"""

_INSERT_PARKED: Final = Batch("INSERT INTO parked (id, user) VALUES ", 2)


def process(con: sqlite3.Connection, ledger: Ledger, work: Work, known: Mapping[int, Held]) -> int | None:
    """Take messages out of those that wait: settled, dead or parked. What does not wait is passed over.

    `known` is whose some of them are, and what they count.
    Returns the first id that is settled late, after newer ones: it had waited once more.
    """
    ids = {*work.settled, *(n for n, _, _ in work.dead), *(n for n, _ in work.parked)}
    if ids and min(ids) <= ledger.erased_to:
        _stay(con, ids)
    late = _take_again(con, ledger, ids) if ledger.again and ids else set()
    waited = late | _begin(con, ledger, ids - late)
    holds = held(con, waited, known)
    ledger.hold(holds.values(), out="pending")
    ledger.settle(len(waited.intersection(work.settled)))
    dead = [row for row in work.dead if row[0] in waited]
    if dead:
        ledger.hold((holds[number] for number, _, _ in dead), into="dead")
        now = to_ms(work.now)
        _INSERT_LETTER.run(
            con,
            [
                (
                    ledger.bury_message(reason),
                    reason,
                    plain(detail),
                    now,
                    work.users.get(number),
                    number,
                    holds[number][0],
                )
                for number, reason, detail in dead
            ],
        )
    parked = [row for row in work.parked if row[0] in waited]
    if parked:
        ledger.hold((holds[number] for number, _ in parked), into="parked")
        ledger.park(len(parked))
        _INSERT_PARKED.run(con, parked)
    return min(late.intersection(work.settled), default=None)


_HELD: Final = """
SELECT json_group_array(json_array(id, subscription, length(body)))
FROM inbox WHERE id IN (SELECT value FROM json_each(?))
"""


def held(con: sqlite3.Connection, ids: Collection[int], known: Mapping[int, Held] | None = None) -> dict[int, Held]:
    """Return whose messages are, and what they count [bytes]; those that are not `known` are read."""
    found = {number: known[number] for number in ids if number in known} if known else {}
    if len(found) < len(ids):
        for number, subscription, length in gathered(con, _HELD, (to_json(sorted(set(ids) - found.keys())),)):
            found[int(str(number))] = str(subscription), message_bytes(int(str(length)))
    return found


_THERE: Final = "SELECT count(*) FROM inbox WHERE id IN (SELECT value FROM json_each(?))"


def _stay(con: sqlite3.Connection, ids: Collection[int]) -> None:
    """Raise Outdated if one of these messages was erased."""
    if value(con, _THERE, (to_json(sorted(ids)),)) != len(ids):
        raise Outdated


def _begin(con: sqlite3.Connection, ledger: Ledger, ids: Collection[int]) -> set[int]:
    """Return which of the ids waited for the first time, and let them wait no longer."""
    fresh = {number for number in ids if ledger.cursor < number <= ledger.last_message}
    if fresh and ledger.ahead:
        fresh -= {number for (number,) in _listed(con, _WHICH_AHEAD, fresh)}
    advance(con, ledger, fresh)
    return fresh


_WHICH_AGAIN: Final = "SELECT json_group_array(json_array(id)) FROM again WHERE id IN (SELECT value FROM json_each(?))"
_WHICH_AHEAD: Final = "SELECT json_group_array(json_array(id)) FROM ahead WHERE id IN (SELECT value FROM json_each(?))"
_NO_LONGER: Final = "DELETE FROM again WHERE id IN (SELECT value FROM json_each(?))"


def _listed(con: sqlite3.Connection, statement: str, ids: Collection[int]) -> list[tuple[int]]:
    return [(int(str(row[0])),) for row in gathered(con, statement, (to_json(sorted(ids)),))]


def _take_again(con: sqlite3.Connection, ledger: Ledger, ids: Collection[int]) -> set[int]:
    waited = {number for (number,) in _listed(con, _WHICH_AGAIN, ids)}
    if waited:
        con.execute(_NO_LONGER, (to_json(sorted(waited)),))
        ledger.again -= len(waited)
        ledger.swept = min(ledger.swept, min(waited) - 1)
    return waited


def advance(con: sqlite3.Connection, ledger: Ledger, fresh: Collection[int] = ()) -> None:
    """Move the cursor over what is done; keep what is done beyond a gap."""
    if not ledger.ahead and fresh and max(fresh) == ledger.cursor + len(fresh):
        ledger.cursor = max(fresh)
        return
    if fresh:
        _INSERT_AHEAD.run(con, [(number,) for number in sorted(fresh)])
        ledger.ahead += len(fresh)
    if ledger.ahead:
        ledger.cursor = _first_gap(con, ledger)
        ledger.ahead -= con.execute("DELETE FROM ahead WHERE id <= ?", (ledger.cursor,)).rowcount


_NEXT_WAITING: Final = """
SELECT min(id), (SELECT max(id) FROM (SELECT id FROM inbox WHERE id > :cursor ORDER BY id LIMIT :rows))
FROM (SELECT id FROM inbox WHERE id > :cursor ORDER BY id LIMIT :rows) WHERE id NOT IN (SELECT id FROM ahead)
"""


def _first_gap(con: sqlite3.Connection, ledger: Ledger) -> int:
    """Return the id before the next message that waits, as far as one look goes."""
    waiting, last = con.execute(_NEXT_WAITING, {"cursor": ledger.cursor, "rows": SCAN_ROWS}).fetchone()
    if waiting is not None:
        return int(waiting) - 1
    return ledger.cursor if last is None else int(last)


# ---- parked ---------------------------------------------------------------------------------------------------------

_WAIT: Final = "SELECT id FROM parked WHERE user IN (SELECT value FROM json_each(?))"
_FREE: Final = "INSERT INTO again (id) SELECT id FROM parked WHERE user IN (SELECT value FROM json_each(?))"
_UNPARK: Final = "DELETE FROM parked WHERE user IN (SELECT value FROM json_each(?))"
_CHANGED_AMONG: Final = """
SELECT user, change FROM changed WHERE user IN (SELECT value FROM json_each(?)) ORDER BY change
"""
_DEALT_WITH: Final = "DELETE FROM changed WHERE user = ? AND change <= ?"
_ANY_CHANGE: Final = (1 << 63) - 1


def changed_among(con: sqlite3.Connection, users: Sequence[str]) -> dict[str, int]:
    """Read which of some users have changed directory rows, and which change it was."""
    return dict(con.execute(_CHANGED_AMONG, (to_json(list(users)),)).fetchall())


def unpark(con: sqlite3.Connection, ledger: Ledger, shown: dict[str, int], users: Sequence[str]) -> None:
    """Let the messages of users wait once more; forget the changes that the worker was shown, not newer ones."""
    if not users:
        return
    named = to_json(users)
    ids = [number for (number,) in con.execute(_WAIT, (named,))]
    ledger.hold(held(con, ids).values(), out="parked", into="pending")
    freed = con.execute(_FREE, (named,)).rowcount
    con.execute(_UNPARK, (named,))
    con.executemany(_DEALT_WITH, [(user, shown.get(user, _ANY_CHANGE)) for user in users])
    ledger.unpark(freed)
    ledger.again += freed


# ---- gone -----------------------------------------------------------------------------------------------------------

_UNSEE, _UNSEE_EARLY = (
    f"""
    DELETE FROM seen WHERE (message_id, subscription, position, digest) IN (
        SELECT seen.message_id, seen.subscription, seen.position, digest
        FROM json_each(?) AS gone
        CROSS JOIN {log} AS log ON log.{key} = gone.value
        CROSS JOIN seen ON seen.message_id = log.message_id AND seen.message = log.id
    )
    """  # noqa: S608 - names of the schema
    for log, key in (("inbox", "id"), ("early", "place"))
)
_FORGET: Final = (
    "DELETE FROM note WHERE message IN (SELECT value FROM json_each(?))",
    "DELETE FROM discarded WHERE id IN (SELECT value FROM json_each(?))",
    "DELETE FROM suspect WHERE id IN (SELECT value FROM json_each(?))",
    "DELETE FROM inbox WHERE id IN (SELECT value FROM json_each(?))",
)
_INSERT_EARLY: Final = Batch("INSERT INTO early (id, received, message_id) VALUES ", 3)
_FORGET_EARLY: Final = "DELETE FROM early WHERE place IN (SELECT value FROM json_each(?))"


def forget_rows(con: sqlite3.Connection, gone: Sequence[int], early: Sequence[tuple[int, int, str]] = ()) -> None:
    """Delete messages with their notes, and the digests that know a repeat.

    Digests of those that are deleted early stay: id, receipt [ms] and the sender's id of each. Rows are deleted before
    any is written: on a full disk that makes the room.
    """
    young = {number for number, _, _ in early}
    con.execute(_UNSEE, (to_json([number for number in gone if number not in young]),))
    for statement in _FORGET:
        con.execute(statement, (to_json(gone),))
    _INSERT_EARLY.run(con, early)


def forget_early(con: sqlite3.Connection, gone: Sequence[int]) -> None:
    """Delete what knows the repeats of messages that were deleted early, by their places."""
    for statement in (_UNSEE_EARLY, _FORGET_EARLY):
        con.execute(statement, (to_json(gone),))
