"""New calls: where they stand in the order of their building (see `places`)."""

import sqlite3
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from bridge.store.calls import CallState, replaceable
from bridge.store.codec import Form, decode_call, to_json, to_ms
from bridge.store.ledger import Ledger
from bridge.store.places import Place, Plan, Planned, Unsent, find_place
from bridge.store.sqlite.statements import Batch

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
        ledger.last_call += 1
        find_place(ledger, plan, unsent, row, ledger.last_call, ms)
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
