"""The calls owed to MOOST: lent lane by lane, settled.

Theory of operation: `lane` says whose turn it is, so that finding work needs no look at the calls. A lane that is lent
has no `due`; giving it back, or the end of its lease, makes it due again if it still owes anything. Being due later
than the others puts it behind them.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import msgspec

from bridge.core.effects import Call
from bridge.store import owed as rows
from bridge.store import ranks
from bridge.store.calls import LOST_AT_THE_END
from bridge.store.codec import from_ms, maybe_from_ms, to_json, to_ms
from bridge.store.ledger import Ledger
from bridge.store.port import Begin, Doubt, Lane, Owed, Return, Settlement
from bridge.store.ranks import Line
from bridge.store.sqlite.statements import Batch, cut, gathered

# ---- lending --------------------------------------------------------------------------------------------------------

_FIRST: Final = "FROM outbox WHERE outbox.building = lane.building AND state = 'owed' ORDER BY outbox.id LIMIT 1"
_OWES: Final = "EXISTS (SELECT 1 FROM outbox WHERE outbox.building = lane.building AND state = 'owed')"
_STANDS: Final = (
    f"subscription = coalesce((SELECT outbox.subscription {_FIRST}), subscription),"
    f" rank = coalesce((SELECT outbox.rank {_FIRST}), rank)"
)
_EXPIRE: Final = f"""
UPDATE lane SET due = CASE WHEN {_OWES} THEN lent_until END, lent_until = NULL, lent = NULL, {_STANDS}
WHERE lent_until <= ?
"""  # noqa: S608 - a part of the statement, no value
_LINES: Final = """
WITH RECURSIVE line (subscription, rank) AS (
    SELECT * FROM (SELECT subscription, rank FROM lane WHERE due IS NOT NULL ORDER BY subscription, rank LIMIT 1)
    UNION ALL
    SELECT next.subscription, next.rank FROM line JOIN lane AS next ON next.building = (
        SELECT building FROM lane WHERE due IS NOT NULL AND (subscription, rank) > (line.subscription, line.rank)
        ORDER BY subscription, rank LIMIT 1
    )
)
"""
_DUE: Final = f"""
{_LINES}
SELECT json_group_array(json_array(subscription, rank, (
    SELECT count(*) FROM (
        SELECT 1 FROM lane WHERE subscription = line.subscription AND rank = line.rank AND due <= ? LIMIT ?
    )
))) FROM line
"""  # noqa: S608 - a part of the statement, no value
_LATE: Final = """
SELECT json_group_array(json_array(due, building)) FROM (
    SELECT due, building FROM lane WHERE subscription = ? AND rank = ? AND due <= ? ORDER BY due, building LIMIT ?
)
"""
_CALLS: Final = """
SELECT json_group_array(json_array(
    id, building, form, queued, done, attempts, first_failed, repaired, subscription, doubt IS NOT NULL, length(call)
)), group_concat(call, '')
FROM (
    SELECT outbox.* FROM json_each(?) AS asked
    CROSS JOIN outbox ON outbox.id IN (
        SELECT id FROM outbox WHERE building = asked.value AND state = 'owed' ORDER BY id LIMIT ?
    )
)
"""
_DOUBTS: Final = """
SELECT id, doubt, historical, doubt_count FROM outbox WHERE id IN (SELECT value FROM json_each(?))
"""
_SHEETS: Final = """
SELECT json_group_array(json_array(building, form, length(call), length(devices))),
    group_concat(coalesce(call, '') || coalesce(devices, ''), '')
FROM sheet WHERE building IN (SELECT value FROM json_each(?))
"""
_LEND: Final = Batch(
    "WITH new (building, lent_until, lent) AS (VALUES ",
    3,
    ") UPDATE lane SET due = NULL, lent_until = new.lent_until, lent = new.lent"
    " FROM new WHERE lane.building = new.building",
)


_NOTHING_OWED: Final = "UPDATE lane SET due = NULL WHERE building = ?"


class _Lent(rows.Lent, array_like=True):
    """One owed row, and how long its call is."""

    in_doubt: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a sender asks for, see `Store.lease`."""

    now: datetime
    lanes: int
    calls: int
    hold: timedelta
    held: Mapping[Line, int]


def lease(con: sqlite3.Connection, asked: Asked) -> list[Lane]:
    """Lend the lanes that have waited longest, in turns over the lines."""
    ms, until = to_ms(asked.now), to_ms(asked.now + asked.hold)
    con.execute(_EXPIRE, (ms,))
    late = _late(con, ms, asked)
    if not late:
        return []
    owed = _owed(con, late, asked.calls)
    sheets = _sheets(con, late)
    _LEND.run(con, [(building, until, owed[building][-1].id) for building in late if building in owed])
    con.executemany(_NOTHING_OWED, [(building,) for building in late if building not in owed])
    return [
        Lane(building=building, calls=tuple(owed[building]), until=from_ms(until), sheet=sheets.get(building, ()))
        for building in late
        if building in owed
    ]


def _late(con: sqlite3.Connection, ms: int, asked: Asked) -> list[str]:
    """Return the buildings whose turn it is, the longest waiting first."""
    found = msgspec.convert(gathered(con, _DUE, (ms, asked.lanes)), list[tuple[str, int, int]])
    shares = ranks.lent({Line(name, rank): count for name, rank, count in found}, asked.held, asked.lanes)
    late = [row for line, count in shares.items() for row in gathered(con, _LATE, (*line, ms, count))]
    return [building for _, building in sorted(msgspec.convert(late, list[tuple[int, str]]))]


def _owed(con: sqlite3.Connection, buildings: Sequence[str], calls: int) -> dict[str, list[Owed]]:
    meta, text = con.execute(_CALLS, (to_json(buildings), calls)).fetchone()
    lent = msgspec.json.decode(meta, type=list[_Lent])
    data = cut(b"" if text is None else text.encode(), (row.length for row in lent))
    doubts = _doubts(con, [row.id for row in lent if row.in_doubt])
    found: dict[str, list[Owed]] = {}
    for row, call in sorted(zip(lent, data, strict=True), key=lambda pair: pair[0].id):
        found.setdefault(row.building, []).append(row.owed(call, doubts.get(row.id)))
    return found


def _doubts(con: sqlite3.Connection, ids: Sequence[int]) -> dict[int, Doubt]:
    if not ids:
        return {}
    return {
        number: Doubt(payload=payload, historical=bool(historical), count=count)
        for number, payload, historical, count in con.execute(_DOUBTS, (to_json(ids),))
    }


def _sheets(con: sqlite3.Connection, buildings: Sequence[str]) -> dict[str, tuple[Call, ...]]:
    meta, text = con.execute(_SHEETS, (to_json(buildings),)).fetchone()
    found = msgspec.json.decode(meta, type=list[tuple[str, int | None, int | None, int | None]])
    lengths = [length or 0 for row in found for length in row[2:]]
    data = cut(b"" if text is None else text.encode(), lengths)
    return {
        building: rows.sheet_of(kind, call, None if devices is None else listed)
        for (building, kind, _, devices), call, listed in zip(found, data[::2], data[1::2], strict=True)
    }


_NEXT_DUE: Final = f"""
{_LINES}
SELECT min(at) FROM (
    SELECT (
        SELECT min(due) FROM lane WHERE subscription = line.subscription AND rank = line.rank AND due IS NOT NULL
    ) AS at FROM line
    UNION ALL SELECT min(lent_until) FROM lane
)
"""  # noqa: S608 - a part of the statement, no value


def next_due(con: sqlite3.Connection) -> datetime | None:
    """Return when `lease` could next lend something."""
    return maybe_from_ms(con.execute(_NEXT_DUE).fetchone()[0])


def hasten(con: sqlite3.Connection, now: datetime) -> None:
    """Let no lane wait longer than until now: the clock by which it waits was set back."""
    con.execute("UPDATE lane SET due = :now WHERE due > :now", {"now": to_ms(now)})


_ON_THE_WIRE: Final = """
WHERE lost = 0 AND doubt IS NOT NULL AND state = 'owed'
    AND building IN (SELECT building FROM lane WHERE lent_until IS NOT NULL)
"""


def free(con: sqlite3.Connection, ledger: Ledger, now: datetime) -> None:
    """End all leases and waits of a former process; what it had on the wire has lost its reply."""
    con.execute(
        f"INSERT INTO attempt (call, at, outcome, detail) SELECT id, ?, ?, ? FROM outbox {_ON_THE_WIRE}",  # noqa: S608 - a part
        (to_ms(now), LOST_AT_THE_END.outcome, LOST_AT_THE_END.detail),
    )
    ledger.in_doubt += con.execute(f"UPDATE outbox SET lost = 1 {_ON_THE_WIRE}").rowcount  # noqa: S608 - a part
    con.execute(
        f"UPDATE lane SET due = CASE WHEN {_OWES} THEN 0 END, lent_until = NULL, lent = NULL, {_STANDS}"  # noqa: S608 - a part
        " WHERE lent_until IS NOT NULL"
    )
    con.execute("UPDATE lane SET due = 0 WHERE due IS NOT NULL")  # by a clock that may have been set back since


# ---- settling -------------------------------------------------------------------------------------------------------

_SETTLED: Final = """
SELECT json_group_array(json_array(
    id, building, form, cause, count, done, buried, attempts, first_failed, repaired, doubt IS NOT NULL, lost,
    subscription, length(call)
))
FROM outbox WHERE state = 'owed' AND id IN (SELECT value FROM json_each(?))
"""
_WRITE: Final = Batch(
    "WITH new (id, state, settled, done, buried, attempts, first_failed, repaired, lost, in_doubt, tried, outcome,"
    " answer) AS (VALUES ",
    13,
    ") UPDATE outbox SET state = new.state, settled = new.settled, done = new.done, buried = new.buried,"
    " attempts = new.attempts, first_failed = new.first_failed, repaired = new.repaired, lost = new.lost,"
    " doubt = CASE WHEN new.in_doubt THEN doubt END,"
    " tried = new.tried, outcome = new.outcome, answer = new.answer FROM new WHERE outbox.id = new.id",
)
_BEGIN: Final = Batch(
    "WITH new (id, doubt, historical, count) AS (VALUES ",
    4,
    ") UPDATE outbox SET doubt = new.doubt, historical = new.historical, doubt_count = new.count, lost = 0"
    " FROM new WHERE outbox.id = new.id AND state = 'owed'",
)
_ATTEMPT: Final = Batch("INSERT INTO attempt (call, at, outcome, detail) VALUES ", 4)
_LETTER: Final = Batch(
    "INSERT INTO letter (id, reason, detail, answer, at, call, cause, form, building, item) VALUES ", 10
)
_RETURN: Final = Batch(
    "WITH new (building, at) AS (VALUES ",
    2,
    f") UPDATE lane SET due = CASE WHEN {_OWES} THEN new.at END, lent_until = NULL, lent = NULL, {_STANDS}"  # noqa: S608 - a part
    " FROM new WHERE lane.building = new.building AND lent_until IS NOT NULL",
)


def settle(con: sqlite3.Connection, ledger: Ledger, now: datetime, settlements: Sequence[Settlement]) -> list[int]:
    """Write what became of calls; return those that are not there any more."""
    if not settlements:
        return []
    asked = sorted({said.call_id for said in settlements})
    found = msgspec.convert(gathered(con, _SETTLED, (to_json(asked),)), list[rows.Live])
    settled = rows.settle(ledger, now, settlements, {row.id: row for row in found})
    _WRITE.run(con, settled.rows)
    _ATTEMPT.run(con, settled.attempts)
    if settled.buried:
        calls = _contents(con, {row.id for row, _ in settled.buried})
        _LETTER.run(con, rows.dead_items(ledger, now, settled.buried, calls))
    return _missing(con, _THERE, asked) if len(found) < len(asked) else []


_THERE: Final = "SELECT id FROM outbox WHERE id IN (SELECT value FROM json_each(?))"
_OWED: Final = f"{_THERE} AND state = 'owed'"


def _missing(con: sqlite3.Connection, statement: str, asked: Sequence[int]) -> list[int]:
    found = {number for (number,) in con.execute(statement, (to_json(asked),))}
    return [number for number in asked if number not in found]


def _contents(con: sqlite3.Connection, ids: set[int]) -> Mapping[int, bytes]:
    statement = "SELECT id, call FROM outbox WHERE id IN (SELECT value FROM json_each(?))"
    return dict(con.execute(statement, (to_json(sorted(ids)),)).fetchall())


def begin(con: sqlite3.Connection, begun: Sequence[Begin]) -> list[int]:
    """Mark the calls that go on the wire next; return those that are not owed any more."""
    marked = _BEGIN.run(
        con, [(next_.call_id, next_.doubt.payload, next_.doubt.historical, next_.doubt.count) for next_ in begun]
    )
    return _missing(con, _OWED, [next_.call_id for next_ in begun]) if marked < len(begun) else []


def give_back(con: sqlite3.Connection, returned: Sequence[Return]) -> None:
    """End leases."""
    _RETURN.run(con, [(back.building, to_ms(back.at)) for back in returned])
