"""New calls: where they stand in the order of their building.

A whole state takes the place of an unsent older one; the older content stays as a row of its own, for `explain`.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from bridge.core.effects import Call
from bridge.store.calls import CallState, laid_over, replaceable, size
from bridge.store.codec import Form, decode_call, encode_call, form, to_json, to_ms
from bridge.store.ledger import Ledger
from bridge.store.port import Outgoing
from bridge.store.sqlite.statements import Batch

Place = tuple[str, Form]


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A call to queue, encoded on the caller's side."""

    call: Call
    form: Form
    data: bytes
    cause: int
    count: int

    @classmethod
    def of(cls, call: Call, cause: int) -> "Planned":
        """Encode a call."""
        return cls(call=call, form=form(call), data=encode_call(call), cause=cause, count=size(call))


def planned(calls: Sequence[Outgoing]) -> list[Planned]:
    """Encode calls."""
    return [Planned.of(outgoing.call, outgoing.cause) for outgoing in calls]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsent:
    """A whole state whose place a newer one may take."""

    number: int
    content: Planned
    queued: int


@dataclass(slots=True)
class Plan:
    """What queueing changes: new rows, rows with new content, rows that keep the old content."""

    new: dict[int, Planned] = field(default_factory=dict)
    changed: dict[int, Planned] = field(default_factory=dict)
    retired: list[Unsent] = field(default_factory=list)
    whole: dict[Place, Planned] = field(default_factory=dict)
    grown: int = 0  # [bytes] of the rows with new content


_APPEND: Final = Batch("INSERT INTO outbox (id, building, state, form, cause, queued, settled, count, call) VALUES ", 9)
_CHANGE: Final = "UPDATE outbox SET call = ?, cause = ?, repaired = 0 WHERE id = ?"
_TURN: Final = Batch(
    "INSERT INTO lane (building, due) VALUES ",
    2,
    " ON CONFLICT (building) DO UPDATE SET due = excluded.due WHERE due IS NULL AND lent_until IS NULL",
)
_SHEET: Final = Batch(
    "INSERT INTO sheet (building, form, call, devices) VALUES ",
    4,
    " ON CONFLICT (building) DO UPDATE SET form = coalesce(excluded.form, form),"
    " call = coalesce(excluded.call, call), devices = coalesce(excluded.devices, devices)",
)
_UNSENT: Final = """
SELECT outbox.id, outbox.building, form, cause, queued, call
FROM json_each(?) AS asked
CROSS JOIN outbox ON outbox.building = asked.value ->> 0 AND state = 'owed' AND form = asked.value ->> 1
LEFT JOIN lane ON lane.building = outbox.building
WHERE doubt IS NULL AND NOT coalesce(lane.lent_until > ? AND outbox.id <= lane.lent, 0)
ORDER BY outbox.id
"""


def queue(con: sqlite3.Connection, ledger: Ledger, calls: Sequence[Planned], now: datetime) -> None:
    """Queue calls in order."""
    if not calls:
        return
    ms = to_ms(now)
    unsent = _unsent(con, {(row.call.building, row.form) for row in calls if replaceable(row.call)}, ms)
    plan = Plan()
    for row in calls:
        _place(ledger, plan, unsent, row, ms)
    _APPEND.run(con, [_row(number, row, CallState.OWED, ms, None) for number, row in plan.new.items()])
    _APPEND.run(con, [_row(old.number, old.content, CallState.REPLACED, old.queued, ms) for old in plan.retired])
    for number, row in plan.changed.items():
        con.execute(_CHANGE, (row.data, row.cause, number))
    appended = [*plan.new.values(), *(old.content for old in plan.retired)]
    ledger.outbox_rows += len(appended)
    ledger.outbox_settled += len(plan.retired)
    ledger.outbox_bytes += plan.grown + sum(len(row.data) for row in appended)
    _TURN.run(con, [(building, ms) for building in dict.fromkeys(row.call.building for row in calls)])
    _SHEET.run(con, [_sheet(place, row) for place, row in plan.whole.items()])


def _place(ledger: Ledger, plan: Plan, unsent: dict[Place, Unsent], row: Planned, ms: int) -> None:
    """Find the place of one call."""
    ledger.queue(row.count)
    ledger.last_call += 1
    number = ledger.last_call
    if not replaceable(row.call):
        plan.new[number] = row
        return
    place = (row.call.building, row.form)
    older = unsent.get(place)
    if older is not None:
        ledger.replace()
        plan.retired.append(Unsent(number=number, content=older.content, queued=older.queued))
        number, queued = older.number, older.queued
        row = Planned.of(laid_over(older.content.call, row.call), row.cause)
    else:
        queued = ms
    if older is None or number in plan.new:
        plan.new[number] = row
    else:
        plan.changed[number] = row
        plan.grown += len(row.data) - len(unsent[place].content.data)
    unsent[place] = Unsent(number=number, content=row, queued=queued)
    plan.whole.pop(place, None)  # last queued, last written
    plan.whole[place] = row


def _unsent(con: sqlite3.Connection, places: set[Place], now: int) -> dict[Place, Unsent]:
    if not places:
        return {}
    found = con.execute(_UNSENT, (to_json(sorted(places)), now))
    return {
        (building, Form(kind)): Unsent(number=number, queued=queued, content=Planned.of(decode_call(kind, call), cause))
        for number, building, kind, cause, queued, call in found
    }


def _row(number: int, row: Planned, state: CallState, queued: int, settled: int | None) -> tuple[object, ...]:
    return (number, row.call.building, state, int(row.form), row.cause, queued, settled, row.count, row.data)


def _sheet(place: Place, row: Planned) -> tuple[object, ...]:
    building, kind = place
    if kind is Form.DEVICES:
        return (building, None, None, row.data)
    return (building, int(kind), row.data, None)


def requeue(con: sqlite3.Connection, ledger: Ledger, rows: Iterable[Planned], now: datetime) -> None:
    """Put single calls that were dead at the end of their lanes; the ledger has counted them already."""
    ms, found = to_ms(now), list(rows)
    first = ledger.last_call + 1
    ledger.last_call += len(found)
    _APPEND.run(con, [_row(number, row, CallState.OWED, ms, None) for number, row in enumerate(found, first)])
    ledger.outbox_rows += len(found)
    ledger.outbox_bytes += sum(len(row.data) for row in found)
    _TURN.run(con, [(building, ms) for building in dict.fromkeys(row.call.building for row in found)])
