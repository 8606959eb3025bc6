"""The calls owed to MOOST: lent lane by lane, settled.

Theory of operation: `lane` says whose turn it is. A lane that is lent has no `due`; giving it back, or the end of its
lease, makes it due again if it still owes anything. Each lending is a `turn` with a holder.

Rules:
- What a replica says of a call counts only in its own turn: where the lane has been lent to another since, that one
  resolves the doubt. A settlement counts from the front of a row, so one that comes too late would settle events that
  were never sent.
- Lanes are locked in the order of their buildings, before the calls.
- When a lane is due, and until when it is lent, is told by the server's clock (see `clock`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from bridge.core.effects import Call
from bridge.store import owed as rows
from bridge.store import ranks
from bridge.store.calls import LOST_AT_THE_END, CallState
from bridge.store.codec import from_ms, maybe_from_ms, to_ms
from bridge.store.ledger import Ledger
from bridge.store.port import Begin, Doubt, Lane, Owed, Return, Settlement
from bridge.store.postgres.clock import server_ms
from bridge.store.postgres.connection import Connection, Row, changed, columns
from bridge.store.ranks import Line


@dataclass(slots=True)
class Turns:
    """Which lanes this replica has, and in which of their turns."""

    holder: int = 0
    told: bool = False  # go by the times that callers tell, not by the server's clock
    mine: dict[str, int] = field(default_factory=dict)  # building -> turn

    def at(self, now: datetime) -> int | None:
        """Return the time that is told to the server [ms]; None = it goes by its own clock."""
        return to_ms(now) if self.told else None


# ---- lending --------------------------------------------------------------------------------------------------------

_OWES: Final = "EXISTS (SELECT FROM outbox WHERE outbox.building = lane.building AND state = 'owed')"
_FIRST: Final = "FROM outbox WHERE outbox.building = lane.building AND state = 'owed' ORDER BY outbox.id LIMIT 1"
_STANDS: Final = (
    f"subscription = coalesce((SELECT outbox.subscription {_FIRST}), lane.subscription),"
    f" rank = coalesce((SELECT outbox.rank {_FIRST}), lane.rank)"
)
_EXPIRE: Final = f"""
WITH late AS (
    SELECT building FROM lane WHERE lent_until <= {server_ms(1)} ORDER BY building FOR UPDATE SKIP LOCKED
)
UPDATE lane SET due = CASE WHEN {_OWES} THEN lent_until END, lent_until = NULL, lent = NULL, {_STANDS}
FROM late WHERE lane.building = late.building RETURNING lane.building, holder
"""  # noqa: S608 - a part of the statement, no value
_LOSE: Final = f"""
WITH lost AS (
    UPDATE outbox SET lost = true WHERE building = ANY($1) AND state = 'owed' AND doubt IS NOT NULL AND NOT lost
    RETURNING id
)
INSERT INTO attempt (call, at, outcome, detail)
SELECT id, {server_ms(4)}, $2, $3 FROM lost ORDER BY id
"""  # noqa: S608 - a part of the statement, no value
_HASTEN: Final = f"""
WITH far AS (
    SELECT building FROM lane WHERE due > {server_ms(1)} OR lent_until > {server_ms(1)} + $2
    ORDER BY building FOR UPDATE SKIP LOCKED
)
UPDATE lane SET due = CASE WHEN due > {server_ms(1)} THEN {server_ms(1)} ELSE due END,
    lent_until = CASE WHEN lent_until > {server_ms(1)} + $2 THEN {server_ms(1)} + $2 ELSE lent_until END
FROM far WHERE lane.building = far.building
"""  # noqa: S608 - a part of the statement, no value
_DUE: Final = f"""
WITH RECURSIVE line (subscription, rank) AS (
    (SELECT subscription, rank FROM lane WHERE due IS NOT NULL ORDER BY subscription, rank LIMIT 1)
    UNION ALL
    SELECT next.subscription, next.rank FROM line CROSS JOIN LATERAL (
        SELECT subscription, rank FROM lane
        WHERE due IS NOT NULL AND (subscription, rank) > (line.subscription, line.rank)
        ORDER BY subscription, rank LIMIT 1
    ) AS next
)
SELECT line.subscription, line.rank, waiting.count FROM line CROSS JOIN LATERAL (
    SELECT count(*) AS count FROM (
        SELECT FROM lane WHERE lane.subscription = line.subscription AND lane.rank = line.rank
            AND due <= {server_ms(1)} LIMIT $2
    ) AS found
) AS waiting
"""  # noqa: S608 - a part of the statement, no value
_LATE: Final = f"""
SELECT late.building
FROM unnest($1::text[], $2::smallint[], $3::bigint[]) AS asked (subscription, rank, share) CROSS JOIN LATERAL (
    SELECT due, building FROM lane
    WHERE lane.subscription = asked.subscription AND lane.rank = asked.rank AND due <= {server_ms(4)}
    ORDER BY due, building LIMIT asked.share FOR UPDATE SKIP LOCKED
) AS late
ORDER BY late.due, late.building
"""  # noqa: S608 - a part of the statement, no value
_CALLS: Final = """
SELECT id, building, form, queued, done, attempts, first_failed, repaired, subscription,
    doubt, historical, doubt_count, call
FROM unnest($1::text[]) AS asked (lane) CROSS JOIN LATERAL (
    SELECT * FROM outbox WHERE building = asked.lane AND state = 'owed' ORDER BY id LIMIT $2
) AS owed
ORDER BY id
"""
_SHEETS: Final = "SELECT building, form, call, devices FROM sheet WHERE building = ANY($1)"
_LEND: Final = f"""
UPDATE lane SET due = NULL, lent_until = {server_ms(3)} + $4, lent = new.lent, holder = $5, turn = turn + 1
FROM unnest($1::text[], $2::bigint[]) AS new (building, lent)
WHERE lane.building = new.building RETURNING lane.building, turn
"""  # noqa: S608 - a part of the statement, no value
_NOTHING_OWED: Final = "UPDATE lane SET due = NULL WHERE building = ANY($1)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a sender asks for, see `Store.lease`."""

    now: datetime
    lanes: int
    calls: int
    hold: timedelta
    held: Mapping[Line, int]


async def lease(con: Connection, ledger: Ledger, turns: Turns, asked: Asked) -> list[Lane]:
    """Lend the lanes that have waited longest, in turns over the lines."""
    at, until = turns.at(asked.now), to_ms(asked.now + asked.hold)
    await _expire(con, ledger, turns, at)
    due = {Line(name, rank): count for name, rank, count in await con.fetch(_DUE, at, asked.lanes)}
    shares = [(*line, count) for line, count in ranks.lent(due, asked.held, asked.lanes).items()]
    late = [row[0] for row in await con.fetch(_LATE, *columns(shares, 3), at)] if shares else []
    if not late:
        return []
    owed: dict[str, list[Owed]] = {}
    for row in await con.fetch(_CALLS, late, asked.calls):
        owed.setdefault(row[1], []).append(_owed(row))
    sheets = {row[0]: _sheet(row) for row in await con.fetch(_SHEETS, late)}
    lent = [(building, owed[building][-1].id) for building in late if building in owed]
    for building, turn in await con.fetch(_LEND, *columns(lent, 2), at, until - to_ms(asked.now), turns.holder):
        turns.mine[building] = turn
    if len(lent) < len(late):
        await con.execute(_NOTHING_OWED, [building for building in late if building not in owed])
    return [
        Lane(building=building, calls=tuple(owed[building]), until=from_ms(until), sheet=sheets.get(building, ()))
        for building, _ in lent
    ]


async def hasten(con: Connection, at: int | None, hold: timedelta) -> None:
    """Let no lane wait any longer, nor be lent for longer than a lease: it is by a clock that was set back."""
    await con.execute(_HASTEN, at, round(hold.total_seconds() * 1000))


async def _expire(con: Connection, ledger: Ledger, turns: Turns, at: int | None) -> None:
    """Take back lanes whose lease has run out; what others had on the wire has lost its reply."""
    gone = [row[0] for row in await con.fetch(_EXPIRE, at) if row[1] != turns.holder]
    await _lose(con, ledger, gone, at)


async def _lose(con: Connection, ledger: Ledger, buildings: Sequence[str], at: int | None) -> None:
    """Count what was on the wire when its replica ended, and say so."""
    if buildings:
        told = LOST_AT_THE_END
        ledger.in_doubt += changed(await con.execute(_LOSE, list(buildings), told.outcome, told.detail, at))


def _owed(row: Row) -> Owed:
    *lent, payload, historical, count, call = row
    doubt = None if payload is None else Doubt(payload=payload, historical=historical, count=count)
    return rows.Lent(*lent).owed(call.encode(), doubt)


def _sheet(row: Row) -> tuple[Call, ...]:
    _, kind, call, devices = row
    return rows.sheet_of(kind, None if call is None else call.encode(), None if devices is None else devices.encode())


_NEXT_DUE: Final = "SELECT least((SELECT min(due) FROM lane), (SELECT min(lent_until) FROM lane))"


async def next_due(con: Connection) -> datetime | None:
    """Return when `lease` could next lend something."""
    return maybe_from_ms(await con.fetchval(_NEXT_DUE))


_FREE: Final = f"""
WITH mine AS (
    SELECT building FROM lane WHERE lent_until IS NOT NULL AND holder = $1 ORDER BY building FOR UPDATE
)
UPDATE lane SET due = CASE WHEN {_OWES} THEN 0 END, lent_until = NULL, lent = NULL, {_STANDS}
FROM mine WHERE lane.building = mine.building RETURNING lane.building
"""  # noqa: S608 - a part of the statement, no value


async def free(con: Connection, ledger: Ledger, holder: int) -> None:
    """End all leases of a replica that stops; what it had on the wire has lost its reply."""
    await _lose(con, ledger, [row[0] for row in await con.fetch(_FREE, holder)], None)


# ---- settling -------------------------------------------------------------------------------------------------------

_LANES: Final = f"""
SELECT building, lent_until IS NOT NULL, holder, turn, coalesce(lent_until <= {server_ms(3)}, false) FROM lane
WHERE building = ANY($2) OR building IN (SELECT building FROM outbox WHERE id = ANY($1))
ORDER BY building FOR UPDATE
"""  # noqa: S608 - a part of the statement, no value
_ROWS: Final = """
SELECT id, building, form, cause, count, done, buried, attempts, first_failed, repaired, doubt IS NOT NULL, lost,
    subscription, octet_length(call), state
FROM outbox WHERE id = ANY($1)
"""
_WRITE: Final = """
UPDATE outbox SET state = new.state, settled = new.settled, done = new.done, buried = new.buried,
    attempts = new.attempts, first_failed = new.first_failed, repaired = new.repaired, lost = new.lost,
    doubt = CASE WHEN in_doubt THEN doubt END, tried = new.tried, outcome = new.outcome, answer = new.answer
FROM unnest(
    $1::bigint[], $2::text[], $3::bigint[], $4::integer[], $5::integer[], $6::integer[], $7::bigint[], $8::boolean[],
    $9::boolean[], $10::boolean[], $11::bigint[], $12::text[], $13::text[]
) AS new (id, state, settled, done, buried, attempts, first_failed, repaired, lost, in_doubt, tried, outcome, answer)
WHERE outbox.id = new.id
"""
_BEGIN: Final = """
UPDATE outbox SET doubt = new.doubt, historical = new.historical, doubt_count = new.count, lost = false
FROM unnest($1::bigint[], $2::bytea[], $3::boolean[], $4::integer[]) AS new (id, doubt, historical, count)
WHERE outbox.id = new.id AND state = 'owed' RETURNING outbox.id
"""
_ATTEMPT: Final = """
INSERT INTO attempt (call, at, outcome, detail)
SELECT call, at, outcome, detail FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[])
    WITH ORDINALITY AS new (call, at, outcome, detail, row)
ORDER BY row
"""
_LETTER: Final = """
INSERT INTO letter (reason, detail, answer, at, call, cause, form, building, item)
SELECT reason, detail, answer, at, call, cause, form, building, item
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::smallint[], $8::text[],
    $9::text[]) WITH ORDINALITY AS new (reason, detail, answer, at, call, cause, form, building, item, row)
ORDER BY row
"""
_CONTENTS: Final = "SELECT id, call FROM outbox WHERE id = ANY($1)"
_RETURN: Final = f"""
UPDATE lane SET due = CASE WHEN {_OWES} THEN {server_ms(3)} + new.wait END, lent_until = NULL, lent = NULL, {_STANDS}
FROM unnest($1::text[], $2::bigint[]) AS new (building, wait)
WHERE lane.building = new.building AND lent_until IS NOT NULL
"""  # noqa: S608 - a part of the statement, no value


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a sender says at once."""

    now: datetime
    settlements: Sequence[Settlement]
    begun: Sequence[Begin]
    returned: Sequence[Return]


async def settle(con: Connection, ledger: Ledger, turns: Turns, said: Report) -> list[int]:
    """Write what became of calls, which go on the wire next, which lanes come back.

    Returns the named calls that are not there any more, or not ours to send.
    """
    ids = sorted({*(one.call_id for one in said.settlements), *(one.call_id for one in said.begun)})
    held = await con.fetch(_LANES, ids, [back.building for back in said.returned], turns.at(said.now))
    foreign = {row[0] for row in held if not _is_ours(turns, *row[:-1])}
    late = {row[0] for row in held if row[-1]}  # nobody has taken them yet, but anybody may
    found = [row for row in (await con.fetch(_ROWS, ids) if ids else ()) if row[1] not in foreign]
    owed = {row[0]: rows.Live(*row[:-1]) for row in found if row[-1] == CallState.OWED}
    gone = set(ids).difference(row[0] for row in found)
    if said.settlements:
        await _settle(con, ledger, said, owed)
    begun = [begin for begin in said.begun if begin.call_id in owed and owed[begin.call_id].building not in late]
    gone.update({begin.call_id for begin in said.begun}.difference(begin.call_id for begin in begun))
    if begun:
        marks = [(one.call_id, one.doubt.payload, one.doubt.historical, one.doubt.count) for one in begun]
        await con.execute(_BEGIN, *columns(marks, 4))
    now = to_ms(said.now)
    back = [(one.building, to_ms(one.at) - now) for one in said.returned if one.building not in foreign]
    if back:
        await con.execute(_RETURN, *columns(back, 2), turns.at(said.now))
    return sorted(gone)


def _is_ours(turns: Turns, building: str, lent: bool, holder: int | None, turn: int) -> bool:  # noqa: FBT001 - a row
    """Tell whether a lane has not been lent to another since we had it."""
    known = turns.mine.get(building)
    return turn == known if known is not None else not lent or holder == turns.holder


async def _settle(con: Connection, ledger: Ledger, said: Report, owed: Mapping[int, rows.Live]) -> None:
    settled = rows.settle(ledger, said.now, said.settlements, owed)
    if settled.rows:
        await con.execute(_WRITE, *columns(settled.rows, 13))
    if settled.attempts:
        await con.execute(_ATTEMPT, *columns(settled.attempts, 4))
    if settled.buried:
        found = await con.fetch(_CONTENTS, [row.id for row, _ in settled.buried])
        calls = {number: text.encode() for number, text in found}
        dead = rows.dead_items(ledger, said.now, settled.buried, calls)
        await con.execute(_LETTER, *columns([(*row[1:-1], row.item.decode()) for row in dead], 9))
