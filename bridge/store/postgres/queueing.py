"""New calls: where they stand in the order of their building (see `places`).

Rules:
- The lane of a building is locked before its calls are numbered, and until the transaction ends: ids grow in the order
  of queueing within a building, whichever replica queues.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from bridge.store.calls import CallState, replaceable
from bridge.store.codec import Form, decode_call, to_ms
from bridge.store.ledger import Ledger
from bridge.store.places import Place, Plan, Planned, Unsent, find_place
from bridge.store.postgres.clock import server_ms
from bridge.store.postgres.connection import Connection, columns

_TURN: Final = f"""
INSERT INTO lane (building, due) SELECT building, {server_ms(2)} FROM unnest($1::text[]) AS asked (building)
ORDER BY building COLLATE "C"
ON CONFLICT (building) DO UPDATE SET due = excluded.due WHERE lane.due IS NULL AND lane.lent_until IS NULL
"""  # noqa: S608 - a part of the statement, no value
_UNSENT: Final = f"""
SELECT outbox.id, outbox.building, outbox.form, cause, queued, call
FROM unnest($1::text[], $2::smallint[]) AS asked (building, form)
JOIN outbox ON outbox.building = asked.building AND state = 'owed' AND outbox.form = asked.form
JOIN lane ON lane.building = outbox.building
WHERE doubt IS NULL AND NOT coalesce(lane.lent_until > {server_ms(3)} AND outbox.id <= lane.lent, false)
ORDER BY outbox.id
"""  # noqa: S608 - a part of the statement, no value
_NUMBERS: Final = "SELECT nextval('call_id') FROM generate_series(1, $1)"
_APPEND: Final = """
INSERT INTO outbox (id, building, state, form, cause, queued, settled, count, call)
SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::smallint[], $5::bigint[], $6::bigint[], $7::bigint[],
    $8::integer[], $9::text[])
"""
_CHANGE: Final = """
UPDATE outbox SET call = new.call, cause = new.cause, repaired = false
FROM unnest($1::bigint[], $2::text[], $3::bigint[]) AS new (id, call, cause) WHERE outbox.id = new.id
"""
_SHEET: Final = """
INSERT INTO sheet (building, form, call, devices)
SELECT * FROM unnest($1::text[], $2::smallint[], $3::text[], $4::text[])
ON CONFLICT (building) DO UPDATE SET form = coalesce(excluded.form, sheet.form),
    call = coalesce(excluded.call, sheet.call), devices = coalesce(excluded.devices, sheet.devices)
"""


async def queue(con: Connection, ledger: Ledger, calls: Sequence[Planned], now: datetime, at: int | None) -> None:
    """Queue calls in order; they are due `at` once [ms], None = by the server's clock."""
    if not calls:
        return
    ms = to_ms(now)
    await _take_turns(con, (row.call.building for row in calls), at)
    unsent = await _unsent(con, {(row.call.building, row.form) for row in calls if replaceable(row.call)}, at)
    plan = Plan()
    for (number,), row in zip(await con.fetch(_NUMBERS, len(calls)), calls, strict=True):
        find_place(ledger, plan, unsent, row, number, ms)
    appended = [_row(number, row, CallState.OWED, ms, None) for number, row in plan.new.items()]
    appended += [_row(old.number, old.content, CallState.REPLACED, old.queued, ms) for old in plan.retired]
    await con.execute(_APPEND, *columns(appended, 9))
    if plan.changed:
        changed = [(number, row.data.decode(), row.cause) for number, row in plan.changed.items()]
        await con.execute(_CHANGE, *columns(changed, 3))
    new = [*plan.new.values(), *(old.content for old in plan.retired)]
    ledger.outbox_rows += len(new)
    ledger.outbox_settled += len(plan.retired)
    ledger.outbox_bytes += plan.grown + sum(len(row.data) for row in new)
    await _write_sheets(con, plan)


async def _take_turns(con: Connection, buildings: Iterable[str], at: int | None) -> None:
    await con.execute(_TURN, list(dict.fromkeys(buildings)), at)


async def _write_sheets(con: Connection, plan: Plan) -> None:
    """Write whole states as last queued; one row a building, because a statement may not write a row twice."""
    sheets: dict[str, list[object]] = {}
    for (building, kind), row in plan.whole.items():
        sheet = sheets.setdefault(building, [building, None, None, None])
        if kind is Form.DEVICES:
            sheet[3] = row.data.decode()
        else:
            sheet[1:3] = [int(kind), row.data.decode()]
    if sheets:
        await con.execute(_SHEET, *columns([tuple(sheet) for sheet in sheets.values()], 4))


async def _unsent(con: Connection, places: set[Place], at: int | None) -> dict[Place, Unsent]:
    if not places:
        return {}
    return {
        (building, Form(kind)): Unsent(
            number=number, queued=queued, content=Planned.of(decode_call(kind, call.encode()), cause)
        )
        for number, building, kind, cause, queued, call in await con.fetch(_UNSENT, *columns(sorted(places), 2), at)
    }


def _row(number: int, row: Planned, state: CallState, queued: int, settled: int | None) -> tuple[object, ...]:
    return (
        *(number, row.call.building, state, int(row.form), row.cause, queued, settled, row.count, row.data.decode()),
    )


async def requeue(con: Connection, ledger: Ledger, rows: Iterable[Planned], now: datetime, at: int | None) -> None:
    """Put single calls that were dead at the end of their lanes; the ledger has counted them already."""
    ms, found = to_ms(now), list(rows)
    if not found:
        return
    await _take_turns(con, (row.call.building for row in found), at)
    numbers = [row[0] for row in await con.fetch(_NUMBERS, len(found))]
    appended = [_row(number, row, CallState.OWED, ms, None) for number, row in zip(numbers, found, strict=True)]
    await con.execute(_APPEND, *columns(appended, 9))
    ledger.outbox_rows += len(found)
    ledger.outbox_bytes += sum(len(row.data) for row in found)
