"""One step of the worker or the clock, written as a whole."""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from bridge.store.codec import plain, to_json, to_ms
from bridge.store.ledger import Ledger
from bridge.store.places import Planned, planned
from bridge.store.port import Work
from bridge.store.recent import Recent
from bridge.store.shares import Held
from bridge.store.sqlite import buildings, inbox, lives, queueing
from bridge.store.sqlite.statements import Batch

_NOTE: Final = Batch("INSERT INTO note (message, name, detail) VALUES ", 3)
_TICK: Final = Batch("INSERT INTO tick (building, after, at, catching_up, moved, state) VALUES ", 6)
_DROP_COPIES: Final = """
UPDATE tick SET state = NULL
WHERE building IN (SELECT value FROM json_each(?)) AND after >= ? AND state IS NOT NULL
"""
_OWNER: Final = """
INSERT INTO owner (last, users) VALUES (?, ?)
ON CONFLICT (last) DO UPDATE SET users = json_patch(users, excluded.users)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A step of work, encoded on the caller's side."""

    work: Work
    states: buildings.States
    calls: list[Planned]
    shown: dict[str, int]  # changed users as the worker was last shown them
    claimed: Mapping[int, Held]  # messages that the worker was last shown: whose they are, and what they count
    suspects: str | None = None  # ids that are taken out of those that wait, where some are taken one by one (JSON)
    hand: str | None = None  # what is taken next (JSON); null = the first that wait
    names_hand: bool = False  # that is other than it was


def prepare(
    work: Work, shown: dict[str, int], claimed: Mapping[int, Held], recent: Recent, *, careful: bool, named: bool
) -> Prepared:
    """Encode a step; `careful` while messages are taken one by one, `named` where some are named as the next."""
    done = [*work.settled, *(row[0] for row in work.dead), *(row[0] for row in work.parked)] if careful else []
    return Prepared(
        work=work,
        states=buildings.prepared(work.buildings, recent),
        calls=planned(work.calls),
        shown=shown,
        claimed=claimed,
        suspects=to_json(done) if done else None,
        hand=to_json(list(work.hand)) if work.hand else None,
        names_hand=bool(work.hand) or named,
    )


def commit(con: sqlite3.Connection, ledger: Ledger, step: Prepared) -> list[str]:
    """Write a step, or nothing: return the buildings that have moved."""
    work = step.work
    before = buildings.old(con, work.buildings)
    moved = buildings.moved(before, work.buildings)
    if moved:
        return moved
    inbox.unpark(con, ledger, step.shown, work.unparked)
    late = inbox.process(con, ledger, work, step.claimed)
    if step.suspects is not None:
        lives.clear(con, step.suspects)
    if step.names_hand:
        lives.name_hand(con, step.hand)
    buildings.write(con, ledger, before, step.states, work.due)
    buildings.move_in(con, work)
    queueing.queue(con, ledger, step.calls, work.now, work.turn)
    _notes(con, ledger, work)
    if work.ticked is not None:
        ledger.tick(to_ms(work.ticked))
    if work.trouble is not None:
        ledger.tell(to_ms(work.now), plain(work.trouble))
    if work.tick is not None:
        tick = (ledger.cursor, to_ms(work.tick.now), work.tick.catching_up, False)
        _TICK.run(con, [(name, *tick, state if name in work.copied else None) for name, _, _, state, _ in step.states])
    if late is not None:
        con.execute(_DROP_COPIES, (to_json([row.state.id for row in work.buildings]), late))
    if work.moved:
        move = (ledger.cursor, to_ms(work.now), False, True)
        _TICK.run(con, [(name, *move, state) for name, _, _, state, _ in step.states if name in work.moved])
    return []


def _notes(con: sqlite3.Connection, ledger: Ledger, work: Work) -> None:
    for _, note in work.notes:
        ledger.note(note.name)
    _NOTE.run(
        con,
        [(number, plain(note.name), plain(note.detail)) for number, note in work.notes if number and note.detail],
    )
    if work.users:
        con.execute(_OWNER, (max(work.users), to_json(work.users)))
