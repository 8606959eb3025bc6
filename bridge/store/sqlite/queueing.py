"""New calls: where they stand in the order of their building (see `places`)."""

import sqlite3
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from bridge.store.calls import CallState, replaceable
from bridge.store.codec import Form, decode_call, encode_call, from_ms, to_json, to_ms
from bridge.store.ledger import Ledger
from bridge.store.owed import sheet_read
from bridge.store.places import (
    Finder,
    Place,
    Planned,
    Sheet,
    Standing,
    Unsent,
    first_lines,
    once_more,
    questions,
    told,
)
from bridge.store.sqlite.statements import Batch

_APPEND: Final = Batch(
    "INSERT INTO outbox (id, building, state, form, cause, queued, settled, count, call, subscription, rank) VALUES ",
    11,
)
_CHANGE: Final = "UPDATE outbox SET call = ?, cause = ?, repaired = 0 WHERE id = ?"
_TURN: Final = Batch(
    "INSERT INTO lane (building, due, subscription, rank) VALUES ",
    4,
    " ON CONFLICT (building) DO UPDATE SET due = excluded.due, subscription = excluded.subscription,"
    " rank = excluded.rank WHERE due IS NULL AND lent_until IS NULL",
)
_SHEET: Final = Batch(
    "INSERT INTO sheet (building, form, call, devices) VALUES ",
    4,
    " ON CONFLICT (building) DO UPDATE SET form = coalesce(excluded.form, form),"
    " call = coalesce(excluded.call, call), devices = coalesce(excluded.devices, devices)",
)
_UNSENT: Final = """
SELECT outbox.id, outbox.building, form, cause, queued, call, outbox.subscription
FROM json_each(?) AS asked
CROSS JOIN outbox ON outbox.building = asked.value ->> 0 AND state = 'owed' AND form = asked.value ->> 1
LEFT JOIN lane ON lane.building = outbox.building
WHERE doubt IS NULL AND NOT coalesce(lane.lent_until > ? AND outbox.id <= lane.lent, 0)
ORDER BY outbox.id
"""


_SHEETS: Final = "SELECT building, form, call, devices FROM sheet WHERE building IN (SELECT value FROM json_each(?))"
_BEHIND: Final = """
SELECT DISTINCT asked.value ->> 1, name.value
FROM json_each(?) AS asked, json_each(asked.value, '$[2]') AS name
WHERE EXISTS (
    SELECT 1 FROM outbox
    WHERE building = asked.value ->> 1 AND state = 'owed' AND id > asked.value ->> 0 AND form = 0
        AND instr(CAST(call AS TEXT), '"device":"' || name.value || '"') > 0
)
"""


def queue(
    con: sqlite3.Connection, ledger: Ledger, calls: Sequence[Planned], now: datetime, turn: datetime | None = None
) -> None:
    """Queue calls in order; `turn` is when they are due, where `now` is of another clock than that of leases."""
    if calls:
        changed = {row.call.building for row in calls if row.form is Form.CHANGE}
        _queue(con, ledger, calls, (now, turn or now), _sheets(con, changed), again=False)


def requeue(con: sqlite3.Connection, ledger: Ledger, rows: Iterable[Planned], now: datetime) -> None:
    """Queue single calls that were dead once more, as they have to be by now; the ledger has counted them already."""
    found = list(rows)
    if found:
        sheets = _sheets(con, {row.call.building for row in found if replaceable(row.call)})
        _queue(con, ledger, once_more(sheets, found), (now, now), sheets, again=True)


def _queue(
    con: sqlite3.Connection,
    ledger: Ledger,
    calls: Sequence[Planned],
    at: tuple[datetime, datetime],
    sheets: dict[str, Sheet],
    *,
    again: bool,
) -> None:
    ms, turn_ms = map(to_ms, at)
    finder = Finder(ledger, _standing(con, calls, turn_ms), ms, again=again)
    for row in calls:
        ledger.last_call += 1
        finder.place(row, ledger.last_call)
    plan = finder.plan
    _APPEND.run(con, [_row(number, row, CallState.OWED, ms, None) for number, row in plan.new.items()])
    _APPEND.run(con, [_row(old.number, old.content, CallState.REPLACED, old.queued, ms) for old in plan.retired])
    for number, row in plan.changed.items():
        con.execute(_CHANGE, (row.data, row.cause, number))
    appended = [*plan.new.values(), *(old.content for old in plan.retired)]
    ledger.outbox_rows += len(appended)
    ledger.outbox_settled += len(plan.retired)
    ledger.outbox_bytes += plan.grown + sum(len(row.data) for row in appended)
    _TURN.run(con, [(building, turn_ms, *line) for building, line in first_lines(calls, at[0]).items()])
    told(sheets, (row.call for row in calls))
    _SHEET.run(con, [_sheet(building, known) for building, known in sheets.items()])


def _standing(con: sqlite3.Connection, calls: Sequence[Planned], now: int) -> Standing:
    """Read what stands in the lanes that whole states come to."""
    unsent = _unsent(con, {(row.call.building, row.form) for row in calls if replaceable(row.call)}, now)
    asked = [(number, building, sorted(names)) for number, (building, names) in questions(calls, unsent).items()]
    awaited: dict[str, set[str]] = {}
    for building, name in con.execute(_BEHIND, (to_json(asked),)) if asked else ():
        awaited.setdefault(building, set()).add(name)
    return Standing(unsent=unsent, awaited=awaited)


def _unsent(con: sqlite3.Connection, places: set[Place], now: int) -> dict[Place, Unsent]:
    if not places:
        return {}
    found = con.execute(_UNSENT, (to_json(sorted(places)), now))
    return {
        (building, Form(kind)): Unsent(
            number=number, queued=queued, content=Planned.of(decode_call(kind, call), cause, payer)
        )
        for number, building, kind, cause, queued, call, payer in found
    }


def _sheets(con: sqlite3.Connection, buildings: set[str]) -> dict[str, Sheet]:
    """Read what buildings shall be."""
    if not buildings:
        return {}
    found = con.execute(_SHEETS, (to_json(sorted(buildings)),))
    return {building: sheet_read(form, call, devices) for building, form, call, devices in found}


def _sheet(building: str, known: Sheet) -> tuple[object, ...]:
    kept = None if known.building is None else encode_call(known.building)
    devices = None if known.devices is None else encode_call(known.devices)
    return (building, None if kept is None else int(Form.CHANGE), kept, devices)


def _row(number: int, row: Planned, state: CallState, queued: int, settled: int | None) -> tuple[object, ...]:
    return (
        *(number, row.call.building, state, int(row.form), row.cause, queued, settled, row.count, row.data),
        *row.line(from_ms(queued)),
    )
