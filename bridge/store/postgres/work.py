"""One step of the worker or the clock, written as a whole."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from bridge.store.codec import plain, to_ms
from bridge.store.ledger import Ledger
from bridge.store.places import Planned, planned
from bridge.store.port import Outdated, Work
from bridge.store.postgres import buildings, inbox, queueing
from bridge.store.postgres.connection import Connection, columns
from bridge.store.recent import Recent
from bridge.store.shares import Held

_NOTE: Final = """
INSERT INTO note (message, name, detail)
SELECT message, name, detail FROM unnest($1::bigint[], $2::text[], $3::text[])
    WITH ORDINALITY AS new (message, name, detail, row) ORDER BY row
"""
_OWNER: Final = "INSERT INTO owner (last, messages, users) VALUES ($1, $2, $3)"
_TICK: Final = """
INSERT INTO tick (building, after, at, catching_up, moved, state)
SELECT id, greatest($3, newest), $4, $5, $6, copied.state
FROM unnest($1::text[], $2::bytea[]) AS copied (id, state) JOIN building USING (id)
"""
_DROP_COPIES: Final = "UPDATE tick SET state = NULL WHERE building = ANY($1) AND after >= $2 AND state IS NOT NULL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A step of work, encoded before the transaction."""

    work: Work
    states: list[buildings.Encoded]
    calls: list[Planned]
    shown: dict[str, int]  # changed users as the worker was last shown them
    claimed: Mapping[int, Held]  # messages that the worker was last shown: whose they are, and what they count
    named: int  # the replica that names what is taken next; 0 = nothing is named, nor was
    at: int | None  # the time that is told to the server [ms]; None = it goes by its own clock


class Moved(Exception):  # noqa: N818 - not a mistake: the step begins again
    """Buildings have changed since they were read; the transaction is broken off."""

    def __init__(self, buildings: list[str]) -> None:
        """Name them."""
        super().__init__(f"{len(buildings)} buildings")
        self.buildings = buildings


def prepare(
    work: Work, recent: Recent, shown: dict[str, int], claimed: Mapping[int, Held], named: int, at: int | None
) -> Prepared:
    """Encode a step of work."""
    return Prepared(
        work=work,
        states=buildings.prepared(work.buildings, recent),
        calls=planned(work.calls),
        shown=shown,
        claimed=claimed,
        named=named,
        at=at,
    )


async def commit(con: Connection, ledger: Ledger, step: Prepared) -> dict[str, int]:
    """Write a step; return the versions that its buildings have now.

    Raises Moved or Outdated where it rests on something that is not so any more: a message that the worker was shown
    may have been erased, or dealt with by another replica.
    """
    work = step.work
    before = await buildings.lock(con, step.states, list(work.due))
    if moved := buildings.moved(before, step.states):
        raise Moved(moved)
    await inbox.unpark(con, ledger, step.shown, work.unparked)
    waited, late = await inbox.process(con, ledger, work, step.claimed)
    done = {*work.settled, *(n for n, _, _ in work.dead), *(n for n, _ in work.parked)}
    if (done & step.claimed.keys()) - waited:
        raise Outdated
    versions = await buildings.write(con, ledger, before, step.states, work)
    if isinstance(versions, list):
        raise Moved(versions)
    await buildings.move_in(con, work)
    await queueing.queue(con, ledger, step.calls, work.now, step.at)
    await _remember(con, ledger, work)
    await _keep_ticks(con, step, late)
    if step.named:
        await inbox.name_hand(con, step.named, work.hand)
    return versions


async def _remember(con: Connection, ledger: Ledger, work: Work) -> None:
    """Write notes, whose the messages are, and that the clock was there."""
    for _, note in work.notes:
        ledger.note(note.name)
    notes = [(number, plain(note.name), plain(note.detail)) for number, note in work.notes if number and note.detail]
    if notes:
        await con.execute(_NOTE, *columns(notes, 3))
    if work.users:
        await con.execute(_OWNER, max(work.users), list(work.users), [plain(user) for user in work.users.values()])
    if work.ticked is not None:
        ledger.tick(to_ms(work.ticked))
    if work.trouble is not None:
        ledger.tell(to_ms(work.now), plain(work.trouble))


async def _keep_ticks(con: Connection, step: Prepared, late: int | None) -> None:
    """Write ticks and copies of states; `late` = first message that was settled after newer ones."""
    work = step.work
    if work.tick is not None:
        copies = [(row.id, row.state if row.id in work.copied else None) for row in step.states]
        at = (to_ms(work.tick.now), work.tick.catching_up, False)
        await con.execute(_TICK, *columns(copies, 2), await inbox.cursor(con), *at)
    if late is not None:
        await con.execute(_DROP_COPIES, [row.id for row in step.states], late)
    if work.moved:
        copies = [(row.id, row.state) for row in step.states if row.id in work.moved]
        at = (to_ms(work.now), False, True)
        await con.execute(_TICK, *columns(copies, 2), await inbox.cursor(con), *at)
