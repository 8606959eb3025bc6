"""The keeper in memory: same promise, nothing survives the process.

Rules:
- Plain loops over plain dictionaries: what is slow here is fast in the other keepers, what is allowed here is the law.
- Nothing here awaits, so every method is a transaction.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from bridge.core.model import Residence
from bridge.core.vocabulary import DeadReason, DeviceKey
from bridge.store import ranks
from bridge.store.calls import LOST_AT_THE_END, CallState, advance, item, rest, sheet, size
from bridge.store.codec import from_ms, plain, to_ms
from bridge.store.desk import Ticked
from bridge.store.lives import IN_HAND
from bridge.store.memory.desk import MemoryDesk
from bridge.store.memory.rows import CallRow, Letter
from bridge.store.port import (
    MOST_ROWS,
    NO_LINES,
    NO_TIME,
    Arrival,
    Attempt,
    Begin,
    Burial,
    Census,
    Home,
    Lane,
    Loaded,
    Outdated,
    Owed,
    Pending,
    Receipt,
    Return,
    Settlement,
    Work,
)
from bridge.store.ranks import Line
from bridge.store.repeats import KNOWN_FOR, REPLAYED, Verdict
from bridge.store.shares import EARLY_BYTES, EARLY_SHARE, FULL_SHARE


class MemoryStore(MemoryDesk):
    """A store that a test can look into."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        super().__init__()
        self._shown: dict[str, int] = {}

    async def open(self) -> None:
        """End all leases and waits; calls that were on the wire have lost their reply."""
        for building, lane in self._rows.lanes.items():
            if lane.lent_until is not None:
                self._rows.take_back(building, from_ms(0))
                for row in self._rows.owed(building):
                    if row.doubt is not None and not row.progress.lost:
                        row.progress = replace(row.progress, lost=True)
                        self._rows.ledger.in_doubt += 1
                        told = {"outcome": LOST_AT_THE_END.outcome, "detail": LOST_AT_THE_END.detail}
                        row.attempts.append(Attempt(at=from_ms(to_ms(datetime.now(UTC))), **told))
        self._rows.hasten(from_ms(0))
        self._live()

    def _live(self) -> None:
        """Begin a life; what the one before had in hand, where it did not end, is taken one by one."""
        rows = self._rows
        waiting = list(rows.waiting())
        if rows.running and not rows.suspects:
            hand = [number for number in rows.hand if number in set(waiting)] if rows.hand else waiting[:IN_HAND]
            rows.suspects = dict.fromkeys(hand, (0, 0))
        rows.life, rows.running, rows.hand = rows.life + 1, True, []

    async def close(self) -> None:
        """Keep everything, for whoever opens it again."""
        rows = self._rows
        rows.running, rows.hand = False, []
        rows.suspects = {
            number: (0, ends - 1) if life == rows.life else (life, ends)
            for number, (life, ends) in rows.suspects.items()
        }

    # ---- the door ----

    async def accept(self, arrivals: Sequence[Arrival]) -> Sequence[Receipt]:
        """Store new messages."""
        return [self._accept(arrival) for arrival in arrivals]

    def _accept(self, arrival: Arrival) -> Receipt:
        rows, ledger = self._rows, self._rows.ledger
        arrival = replace(arrival, topic=plain(arrival.topic), detail=plain(arrival.detail))
        verdict = rows.judge(arrival)
        if verdict is Verdict.REPEAT:
            ledger.duplicates += 1
            return Receipt(id=0, duplicate=True)
        if verdict is Verdict.REPLAYED:
            arrival = replace(arrival, dead=DeadReason.REPLAYED, detail=REPLAYED)
        ledger.take_in(1, len(arrival.body))
        number = ledger.last_message
        rows.inbox[number] = arrival
        rows.hold(number, into="pending" if arrival.dead is None else "dead")
        if arrival.dead is None:
            rows.pending.add(number)
        else:
            letter = ledger.bury_message(arrival.dead)
            rows.letters[letter] = Letter(
                id=letter, reason=arrival.dead, detail=arrival.detail, at=arrival.received, message=number
            )
        return Receipt(id=number, replayed=verdict is Verdict.REPLAYED)

    # ---- the worker ----

    async def claim(self, limit: int) -> tuple[Sequence[Pending], Sequence[str]]:
        """Return the oldest pending messages and the users whose rows changed, the longest waiting first."""
        self._shown = dict(self._rows.changed)
        waiting = self._alone() or [self._rows.message(number) for number in self._rows.waiting()]
        return waiting[:limit], sorted(self._shown, key=self._shown.__getitem__)

    async def changed_among(self, users: Sequence[str]) -> Sequence[str]:
        """Return those of some users whose rows changed."""
        found = {user: self._rows.changed[user] for user in users if user in self._rows.changed}
        self._shown |= found
        return sorted(found, key=found.__getitem__)

    def _alone(self) -> list[Pending]:
        """Return the next message that is taken alone, and note that it is."""
        rows = self._rows
        number = next((number for number in rows.waiting() if number in rows.suspects), None)
        if number is None:
            rows.suspects.clear()
            return []
        life, ends = rows.suspects[number]
        ends += life != rows.life
        rows.suspects[number] = rows.life, ends
        return [replace(rows.message(number), ends=ends)]

    async def load(self, users: Sequence[str], devices: Sequence[DeviceKey], buildings: Sequence[str]) -> Loaded:
        """Read directory rows, homes and states."""
        directory = await self.residences()
        residences = {user: tuple(row for row in directory if row.user == user) for user in users}
        residences = {user: found for user, found in residences.items() if found}
        homes = {device: self._rows.homes[device] for device in devices if device in self._rows.homes}
        named = {*buildings, *(home.building for home in homes.values())}
        named |= {row.building for found in residences.values() for row in found}
        states = {name: self._rows.buildings[name] for name in named if name in self._rows.buildings}
        return Loaded(residences=residences, homes=homes, buildings=states)

    async def homes_of(self, user: str) -> dict[DeviceKey, str]:
        """Return all devices of a user."""
        return {device: home.building for device, home in self._rows.homes.items() if home.user == user}

    async def directory_of(self, user: str) -> dict[str, tuple[Residence, ...]]:
        """Return the rows of the buildings that a changed user's rows name, or named before."""
        every = await self.residences()
        names = {*(row.building for row in every if row.user == user), *self._rows.left.get(user, ())}
        found: dict[str, tuple[Residence, ...]] = {}
        for name in sorted(names):
            room = MOST_ROWS - sum(len(rows) or 1 for rows in found.values())
            if room > 0:
                found[name] = tuple(row for row in every if row.building == name)[:room]
        return found

    async def commit(self, work: Work) -> Sequence[str]:
        """Write a step of work, unless a building has moved."""
        moved = [new.state.id for new in work.buildings if self._version(new.state.id) != new.version]
        if moved:
            return sorted(moved)
        self._refuse_erased(work)
        self._unpark(work.unparked)
        late = min(self._rows.again.intersection(work.settled), default=None)
        self._process(work)
        for new in work.buildings:
            old = self._rows.buildings.get(new.state.id)
            self._rows.ledger.flag(() if old is None else old.state.flags, new.state.flags)
            version = new.version + 1 if old is not None else self._rows.ledger.first_version()
            self._rows.buildings[new.state.id] = replace(new, version=version)
        self._plan(work)
        for outgoing in work.calls:
            self._rows.ledger.queue(size(outgoing.call))
            self._rows.queue(outgoing.call, outgoing.cause, outgoing.subscription, work.now, work.turn)
        for number, note in work.notes:
            self._rows.ledger.note(note.name)
            if number and note.detail:
                self._rows.notes.append((number, note))
        if work.ticked is not None:
            self._rows.ledger.tick(to_ms(work.ticked))
        if work.trouble is not None:
            self._rows.ledger.tell(to_ms(work.now), plain(work.trouble))
        self._remember(work, late)
        return []

    def _remember(self, work: Work, late: int | None) -> None:
        """Remember ticks and copies; `late` = first id that was settled after newer ones."""
        after = self._rows.cursor()
        if work.tick is not None:
            tick = replace(work.tick, now=from_ms(to_ms(work.tick.now)))
            for new in work.buildings:
                copy = new.state if new.state.id in work.copied else None
                self._rows.ticks.append((new.state.id, Ticked(after=after, tick=tick, state=copy)))
        if late is not None:
            self._drop_copies({new.state.id for new in work.buildings}, late)
        for new in work.buildings:
            if new.state.id in work.moved:
                self._rows.ticks.append((new.state.id, Ticked(after=after, tick=None, state=new.state)))

    def _drop_copies(self, buildings: Collection[str], after: int) -> None:
        """Drop copies that do not hold everything up to their place any more."""
        self._rows.ticks = [
            (name, replace(ticked, state=None) if name in buildings and ticked.after >= after else ticked)
            for name, ticked in self._rows.ticks
        ]

    def _refuse_erased(self, work: Work) -> None:
        """Raise Outdated where a message of the step was erased."""
        ids = {*work.settled, *(row[0] for row in work.dead), *(row[0] for row in work.parked)}
        if {number for number in ids if number <= self._rows.ledger.erased_to} - self._rows.inbox.keys():
            raise Outdated

    def _version(self, building: str) -> int:
        row = self._rows.buildings.get(building)
        return 0 if row is None else row.version

    def _unpark(self, users: Sequence[str]) -> None:
        rows = self._rows
        for user in users:
            if user in rows.changed and rows.changed[user] <= self._shown.get(user, rows.changed[user]):
                del rows.changed[user]
                rows.left.pop(user, None)
        freed = [number for number, user in rows.parked.items() if user in set(users)]
        for number in freed:
            del rows.parked[number]
            rows.again.add(number)
            rows.hold(number, out="parked", into="pending")
        rows.ledger.unpark(len(freed))
        rows.ledger.again += len(freed)

    def _process(self, work: Work) -> None:
        rows, ledger = self._rows, self._rows.ledger
        rows.owners.update(work.users)
        rows.hand = list(work.hand)
        ledger.settle(sum(self._begin(number) for number in work.settled))
        for number, reason, detail in work.dead:
            if self._begin(number):
                letter = ledger.bury_message(reason)
                rows.hold(number, into="dead")
                rows.letters[letter] = Letter(
                    id=letter,
                    reason=reason,
                    detail=plain(detail),
                    at=work.now,
                    user=work.users.get(number),
                    message=number,
                )
        for number, user in work.parked:
            if self._begin(number):
                rows.parked[number] = user
                rows.hold(number, into="parked")
                ledger.park(1)

    def _begin(self, number: int) -> bool:
        """Take a message out of those that wait; False = it did not wait."""
        self._rows.suspects.pop(number, None)
        if number in self._rows.again or number in self._rows.pending:
            self._rows.hold(number, out="pending")
        if number in self._rows.again:
            self._rows.again.remove(number)
            self._rows.ledger.again -= 1
            return True
        if number in self._rows.pending:
            self._rows.pending.remove(number)
            return True
        return False

    def _plan(self, work: Work) -> None:
        for building, at in work.due.items():
            if at is None:
                self._rows.due.pop(building, None)
            elif building in self._rows.buildings:
                self._rows.due[building] = from_ms(to_ms(at))
        for device, home in work.homes.items():
            if home is None:
                self._rows.homes.pop(device, None)
            else:
                self._rows.homes[device] = Home(building=home.building, user=home.user)

    async def due(
        self, now: datetime, limit: int, used: Mapping[str, float] = NO_TIME
    ) -> tuple[datetime, Sequence[str]]:
        """Return the horizon and the buildings due at it."""
        oldest = self._rows.oldest_pending()
        horizon = now if oldest is None else min(now, oldest)
        late = sorted((at, building) for building, at in self._rows.due.items() if at <= horizon)
        payers = {building: self._rows.buildings[building].state.payer for _, building in late}
        left = ranks.looked_at(Counter(sorted(payers.values())), used, limit)
        found: list[str] = []
        for _, building in late:
            if left[payers[building]]:
                left[payers[building]] -= 1
                found.append(building)
        return horizon, found

    # ---- the sender ----

    async def lease(
        self,
        now: datetime,
        lanes: int,
        calls: int,
        hold: timedelta,
        *,
        held: Mapping[Line, int] = NO_LINES,
        afresh: bool = False,
    ) -> Sequence[Lane]:
        """Lend lanes with due calls."""
        if afresh:
            self._rows.hasten(now)
        self._rows.expire(now)
        late = sorted((lane.due, name) for name, lane in self._rows.lanes.items() if lane.due and lane.due <= now)
        lines = {name: self._rows.lanes[name].line for _, name in late}
        left = ranks.lent(Counter(lines.values()), held, lanes)
        found: list[Lane | None] = []
        for _, name in late:
            if left.get(lines[name], 0):
                left[lines[name]] -= 1
                found.append(self._lend(name, calls, from_ms(to_ms(now + hold))))
        return [lane for lane in found if lane is not None]

    def _lend(self, building: str, calls: int, until: datetime) -> Lane | None:
        lane, rows = self._rows.lanes[building], self._rows.owed(building)[:calls]
        if not rows:
            lane.due = None
            return None
        lane.due, lane.lent_until, lane.lent = None, until, rows[-1].id
        return Lane(
            building=building,
            calls=tuple(_owed(row) for row in rows),
            until=until,
            sheet=tuple(sheet(lane.building, lane.devices)),
        )

    async def settle(
        self, now: datetime, settlements: Sequence[Settlement], begun: Sequence[Begin], returned: Sequence[Return]
    ) -> Sequence[int]:
        """Write what became of calls."""
        gone = [said.call_id for said in settlements if said.call_id not in self._rows.outbox]
        for said in settlements:
            row = self._rows.outbox.get(said.call_id)
            if row is not None and row.owed:
                self._settle(row, said, now)
        for begin in begun:
            row = self._rows.outbox.get(begin.call_id)
            if row is not None and row.owed:
                row.doubt = begin.doubt
                row.progress = replace(row.progress, in_doubt=True, lost=False)
            else:
                gone.append(begin.call_id)
        for back in returned:
            lane = self._rows.lanes.get(back.building)
            if lane is not None and lane.lent_until is not None:
                self._rows.take_back(back.building, from_ms(to_ms(back.at)))
        return gone

    def _settle(self, row: CallRow, said: Settlement, now: datetime) -> None:
        ledger = self._rows.ledger
        step = advance(row.progress, said, from_ms(to_ms(now)))
        row.progress = step.after
        ledger.deliver(step.delivered)
        ledger.in_doubt += step.newly_lost
        if not step.after.in_doubt:
            row.doubt = None
        if said.attempt is not None:
            row.attempts.append(replace(said.attempt, at=from_ms(to_ms(said.attempt.at))))
        if step.burial is not None:
            self._bury(row, step.burial, step.buried, now)
        if not row.owed:
            self._rows.owe(row, out=True)
            row.settled = from_ms(to_ms(now))

    def _bury(self, row: CallRow, burial: Burial, places: range, now: datetime) -> None:
        numbers = self._rows.ledger.bury_calls(burial.reason, len(places))
        for number, place in zip(numbers, places, strict=True):
            self._rows.letters[number] = Letter(
                id=number,
                reason=burial.reason,
                detail=plain(burial.detail),
                at=now,
                row=row,
                item=item(row.call, place),
                answer=plain(burial.answer),
            )

    async def next_due(self) -> datetime | None:
        """Return when `lease` could next lend something: a lane is due, or a lease runs out."""
        turns = (lane.due or lane.lent_until for lane in self._rows.lanes.values())
        return min((at for at in turns if at is not None), default=None)

    # ---- upkeep ----

    async def census(self) -> Census:
        """Return the counts; the size is that of the bodies."""
        return self._rows.ledger.census(
            oldest_pending=self._rows.oldest_pending(),
            oldest_owed=self._rows.oldest_owed(),
            size_bytes=self._rows.ledger.inbox_bytes,
            free_disk_bytes=None,
        )

    async def sweep(self, now: datetime, retention: timedelta, max_size: int) -> int:
        """Delete settled rows that are past retention, or the oldest while there is too much."""
        rows, edge, young = self._rows, now - retention, now - KNOWN_FOR
        exempt = {*rows.pending, *rows.again, *rows.parked}
        exempt |= {letter.message for letter in rows.letters.values() if letter.message is not None}
        too_many = rows.ledger.inbox_bytes > max_size * FULL_SHARE
        front = min(rows.pending, default=rows.ledger.last_message + 1)
        old = [number for number in sorted(rows.inbox) if number < front and number not in exempt][:SWEEP_ROWS]
        old = [number for number in old if too_many or rows.inbox[number].received < edge]
        rows.ledger.forget(old, [to_ms(rows.inbox[number].received) for number in old])
        for number in old:
            rows.drop(number, early=rows.inbox[number].received >= min(edge, young))
        over = len(rows.early) - int(max_size * EARLY_SHARE) // EARLY_BYTES
        known = enumerate(sorted(rows.early.items()))
        past = [
            number for place, (number, row) in known if row.received < young and (place < over or row.received < edge)
        ][:SWEEP_ROWS]
        for number in past:
            rows.unsee(rows.early.pop(number))
        done = [row for row in rows.outbox.values() if row.settled is not None and row.settled < edge]
        done = [row for row in done if row.progress.state is not CallState.DEAD][:SWEEP_ROWS]
        for row in done:
            del rows.outbox[row.id]
        rows.ledger.forget_calls(to_ms(row.settled) for row in done if row.settled is not None)
        rows.ticks = [one for one in rows.ticks if one[1].after >= rows.ledger.forgotten_message]
        return len(old) + len(past) + len(done)


def _owed(row: CallRow) -> Owed:
    return Owed(
        id=row.id,
        call=rest(row.call, row.progress.done),
        subscription=row.line.subscription,
        queued=row.queued,
        done=row.progress.done,
        attempts=row.progress.attempts,
        first_failed=row.progress.first_failed,
        repaired=row.progress.repaired,
        doubt=row.doubt,
    )


SWEEP_ROWS = 200
"""How many rows one step of the sweep deletes."""
