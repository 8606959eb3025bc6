"""New calls: where they stand in the order of their building (see `places`).

Rules:
- The lane of a building is locked before its calls are numbered, and until the transaction ends: ids grow in the order
  of queueing within a building, whichever replica queues.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from bridge.store.calls import CallState, replaceable
from bridge.store.codec import Form, decode_call, encode_call, from_ms, to_ms
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
from bridge.store.postgres.clock import server_ms
from bridge.store.postgres.connection import Connection, columns

_TURN: Final = f"""
INSERT INTO lane (building, due, subscription, rank) SELECT building, {server_ms(4)}, subscription, rank
FROM unnest($1::text[], $2::text[], $3::smallint[]) AS asked (building, subscription, rank)
ORDER BY building COLLATE "C"
ON CONFLICT (building) DO UPDATE SET due = excluded.due, subscription = excluded.subscription, rank = excluded.rank
WHERE lane.due IS NULL AND lane.lent_until IS NULL
"""  # noqa: S608 - a part of the statement, no value
_UNSENT: Final = f"""
SELECT outbox.id, outbox.building, outbox.form, cause, queued, call, outbox.subscription
FROM unnest($1::text[], $2::smallint[]) AS asked (building, form)
JOIN outbox ON outbox.building = asked.building AND state = 'owed' AND outbox.form = asked.form
JOIN lane ON lane.building = outbox.building
WHERE doubt IS NULL AND NOT coalesce(lane.lent_until > {server_ms(3)} AND outbox.id <= lane.lent, false)
ORDER BY outbox.id
"""  # noqa: S608 - a part of the statement, no value
_NUMBERS: Final = "SELECT nextval('call_id') FROM generate_series(1, $1)"
_APPEND: Final = """
INSERT INTO outbox (id, building, state, form, cause, queued, settled, count, call, subscription, rank)
SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::smallint[], $5::bigint[], $6::bigint[], $7::bigint[],
    $8::integer[], $9::text[], $10::text[], $11::smallint[])
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


_SHEETS: Final = "SELECT building, form, call, devices FROM sheet WHERE building = ANY($1)"
_BEHIND: Final = """
SELECT DISTINCT asked.building, asked.device
FROM unnest($1::bigint[], $2::text[], $3::text[]) AS asked (older, building, device)
WHERE EXISTS (
    SELECT FROM outbox
    WHERE building = asked.building AND state = 'owed' AND id > asked.older AND form = 0
        AND strpos(call, '"device":"' || asked.device || '"') > 0
)
"""


async def queue(con: Connection, ledger: Ledger, calls: Sequence[Planned], now: datetime, at: int | None) -> None:
    """Queue calls in order; they are due `at` once [ms], None = by the server's clock."""
    if calls:
        await _take_turns(con, calls, now, at)
        sheets = await _sheets(con, {row.call.building for row in calls if row.form is Form.CHANGE})
        finder = Finder(ledger, await _standing(con, calls, at), to_ms(now))
        await _queue(con, ledger, finder, calls, sheets)


async def requeue(con: Connection, ledger: Ledger, rows: Iterable[Planned], now: datetime, at: int | None) -> None:
    """Queue single calls that were dead once more, as they have to be by now; the ledger has counted them already."""
    found = list(rows)
    if found:
        await _take_turns(con, found, now, at)
        sheets = await _sheets(con, {row.call.building for row in found if replaceable(row.call)})
        calls = once_more(sheets, found)
        finder = Finder(ledger, await _standing(con, calls, at), to_ms(now), again=True)
        await _queue(con, ledger, finder, calls, sheets)


async def _queue(
    con: Connection, ledger: Ledger, finder: Finder, calls: Sequence[Planned], sheets: dict[str, Sheet]
) -> None:
    ms, plan = finder.ms, finder.plan
    for (number,), row in zip(await con.fetch(_NUMBERS, len(calls)), calls, strict=True):
        finder.place(row, number)
    appended = [_row(number, row, CallState.OWED, ms, None) for number, row in plan.new.items()]
    appended += [_row(old.number, old.content, CallState.REPLACED, old.queued, ms) for old in plan.retired]
    if appended:
        await con.execute(_APPEND, *columns(appended, 11))
    if plan.changed:
        changed = [(number, row.data.decode(), row.cause) for number, row in plan.changed.items()]
        await con.execute(_CHANGE, *columns(changed, 3))
    new = [*plan.new.values(), *(old.content for old in plan.retired)]
    ledger.outbox_rows += len(new)
    ledger.outbox_settled += len(plan.retired)
    ledger.outbox_bytes += plan.grown + sum(len(row.data) for row in new)
    told(sheets, (row.call for row in calls))
    if sheets:
        await con.execute(_SHEET, *columns([_sheet(building, known) for building, known in sheets.items()], 4))


async def _standing(con: Connection, calls: Sequence[Planned], at: int | None) -> Standing:
    """Read what stands in the lanes that whole states come to."""
    unsent = await _unsent(con, {(row.call.building, row.form) for row in calls if replaceable(row.call)}, at)
    asked = [
        (number, building, name)
        for number, (building, names) in questions(calls, unsent).items()
        for name in sorted(names)
    ]
    awaited: dict[str, set[str]] = {}
    for building, name in await con.fetch(_BEHIND, *columns(asked, 3)) if asked else ():
        awaited.setdefault(building, set()).add(name)
    return Standing(unsent=unsent, awaited=awaited)


async def _sheets(con: Connection, buildings: set[str]) -> dict[str, Sheet]:
    """Read what buildings shall be."""
    if not buildings:
        return {}
    return {
        building: sheet_read(form, None if call is None else call.encode(), None if listed is None else listed.encode())
        for building, form, call, listed in await con.fetch(_SHEETS, sorted(buildings))
    }


def _sheet(building: str, known: Sheet) -> tuple[object, ...]:
    kept = None if known.building is None else encode_call(known.building).decode()
    devices = None if known.devices is None else encode_call(known.devices).decode()
    return (building, None if kept is None else int(Form.CHANGE), kept, devices)


async def _take_turns(con: Connection, calls: Iterable[Planned], now: datetime, at: int | None) -> None:
    lines = [(building, *line) for building, line in first_lines(calls, now).items()]
    await con.execute(_TURN, *columns(lines, 3), at)


async def _unsent(con: Connection, places: set[Place], at: int | None) -> dict[Place, Unsent]:
    if not places:
        return {}
    return {
        (building, Form(kind)): Unsent(
            number=number, queued=queued, content=Planned.of(decode_call(kind, call.encode()), cause, payer)
        )
        for number, building, kind, cause, queued, call, payer in await con.fetch(
            _UNSENT, *columns(sorted(places), 2), at
        )
    }


def _row(number: int, row: Planned, state: CallState, queued: int, settled: int | None) -> tuple[object, ...]:
    return (
        *(number, row.call.building, state, int(row.form), row.cause, queued, settled, row.count, row.data.decode()),
        *row.line(from_ms(queued)),
    )
