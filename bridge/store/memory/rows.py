"""What the keeper in memory holds, and the movements that its store and its desk share."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from bridge.core.effects import Call, ChangeBuilding, Note, PutDevices, SendEvents
from bridge.core.model import Residence
from bridge.core.vocabulary import DeadReason, DeviceKey
from bridge.store.calls import CallState, Progress, laid_over, renewed, replaceable, size, unlisted, wanted
from bridge.store.codec import encode_call, form, from_ms, plain, to_ms
from bridge.store.desk import Ticked
from bridge.store.ledger import Ledger
from bridge.store.port import Arrival, Attempt, Doubt, Home, Pending, Versioned
from bridge.store.ranks import Line, rank
from bridge.store.repeats import Heard, Verdict
from bridge.store.shares import Held, Share, call_bytes, grow, message_bytes


@dataclass(slots=True, kw_only=True)
class CallRow:
    """One row of the outbox."""

    id: int
    call: Call
    cause: int
    line: Line
    queued: datetime
    progress: Progress
    doubt: Doubt | None = None
    settled: datetime | None = None
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def held(self) -> Held:
        """Return whose it is, and what it counts while it is owed."""
        return self.line.subscription, call_bytes(len(encode_call(self.call)))

    @property
    def owed(self) -> bool:
        """Tell whether something of it is owed."""
        return self.progress.state is CallState.OWED


@dataclass(slots=True, kw_only=True)
class LaneRow:
    """The turn of one building, and what it shall be at MOOST."""

    due: datetime | None = None
    line: Line = Line("", 0)  # noqa: RUF009 - a constant
    lent_until: datetime | None = None
    lent: int = 0  # newest row that is lent
    building: ChangeBuilding | None = None
    devices: PutDevices | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """One dead message or one dead item of a call."""

    id: int
    reason: DeadReason
    detail: str
    at: datetime
    user: str | None = None
    message: int | None = None
    row: CallRow | None = None
    item: Call | None = None
    answer: str = ""


@dataclass(slots=True)
class Rows:
    """All tables."""

    ledger: Ledger = field(default_factory=Ledger)
    inbox: dict[int, Arrival] = field(default_factory=dict)
    seen: dict[tuple[str, str, int], dict[tuple[bytes, str], Heard | None]] = field(default_factory=dict)
    early: dict[int, Arrival] = field(default_factory=dict)  # deleted before their time; their repeats are known
    pending: set[int] = field(default_factory=set)
    again: set[int] = field(default_factory=set)
    parked: dict[int, str] = field(default_factory=dict)
    suspects: dict[int, tuple[int, int]] = field(default_factory=dict)  # taken one by one -> last life, how many
    hand: list[int] = field(default_factory=list)  # named as taken next
    life: int = 0
    running: bool = False  # a life that has not ended
    discarded: set[int] = field(default_factory=set)
    letters: dict[int, Letter] = field(default_factory=dict)
    notes: list[tuple[int, Note]] = field(default_factory=list)
    directory: dict[tuple[str, str | None], Residence] = field(default_factory=dict)
    owners: dict[int, str] = field(default_factory=dict)  # message -> user, where known
    changed: dict[str, int] = field(default_factory=dict)  # user -> how many changes the store has seen then
    changes: int = 0
    left: dict[str, list[str]] = field(default_factory=dict)  # changed user -> buildings that its rows named before
    homes: dict[DeviceKey, Home] = field(default_factory=dict)
    buildings: dict[str, Versioned] = field(default_factory=dict)
    due: dict[str, datetime] = field(default_factory=dict)
    ticks: list[tuple[str, Ticked]] = field(default_factory=list)
    outbox: dict[int, CallRow] = field(default_factory=dict)
    lanes: dict[str, LaneRow] = field(default_factory=dict)

    def waiting(self) -> Iterator[int]:
        """Yield pending messages: those that wait once more first, each group in order of acceptance."""
        yield from sorted(self.again)
        yield from sorted(self.pending)

    def cursor(self) -> int:
        """Return up to which id every message has been processed, unless it waits once more."""
        return min(self.pending, default=self.ledger.last_message + 1) - 1

    def message(self, number: int) -> Pending:
        """Return a stored message."""
        row = self.inbox[number]
        return Pending(
            id=number, subscription=row.subscription, topic=row.topic, body=row.body, received=_whole(row.received)
        )

    def drop(self, number: int, *, early: bool = False) -> None:
        """Delete a message with its notes, and what knows a repeat of it unless it goes early."""
        row = self.inbox.pop(number)
        self.ledger.inbox_rows -= 1
        self.ledger.inbox_bytes -= len(row.body)
        self.discarded.discard(number)
        self.suspects.pop(number, None)
        self.owners.pop(number, None)
        self.notes = [(cause, note) for cause, note in self.notes if cause != number]
        if early and row.message_id is not None:
            self.early[number] = row
        else:
            self.unsee(row)

    def hold(self, number: int, *, out: str = "", into: str = "") -> None:
        """Count that a message leaves one part of its subscription's share, and comes to another."""
        row = self.inbox[number]
        self.ledger.hold([(row.subscription, message_bytes(len(row.body)))], out=out, into=into)

    def owe(self, row: CallRow, *, out: bool = False) -> None:
        """Count that a call is owed, or is no longer."""
        held = [row.held]
        self.ledger.hold(held, **({"out": "owed"} if out else {"into": "owed"}))

    def judge(self, row: Arrival) -> Verdict:
        """Return what a message is, and remember it."""
        if row.message_id is None:
            return Verdict.NEW
        known = self.seen.setdefault((plain(row.message_id), row.subscription, row.position), {})
        key = row.body, row.topic if row.signed is None else ""
        if key not in known:
            self.ledger.same_id_other_bytes += bool(known) and all(body != row.body for body, _ in known)
            known[key] = None if row.signed is None else Heard(to_ms(row.signed), [row.topic])
            return Verdict.NEW
        heard = known[key]
        return Verdict.REPEAT if heard is None or row.signed is None else heard.judge(row.topic, to_ms(row.signed))[0]

    def unsee(self, row: Arrival) -> None:
        """Forget what knows a repeat of a message; of a replayed one that is what knows the original."""
        if row.message_id is not None and row.dead is not DeadReason.REPLAYED:
            known = self.seen[plain(row.message_id), row.subscription, row.position]
            known.pop((row.body, row.topic if row.signed is None else ""), None)

    def oldest_pending(self) -> datetime | None:
        """Return the earliest receipt among the first of those that wait."""
        first = [min(group) for group in (self.again, self.pending) if group]
        return min((_whole(self.inbox[number].received) for number in first), default=None)

    def oldest_owed(self) -> datetime | None:
        """Return when the oldest owed call was queued."""
        return next((row.queued for _, row in sorted(self.outbox.items()) if row.owed), None)

    def owed(self, building: str) -> list[CallRow]:
        """Return what is owed for a building, oldest first."""
        return [row for _, row in sorted(self.outbox.items()) if row.owed and row.call.building == building]

    def queue(self, call: Call, cause: int, subscription: str, now: datetime, turn: datetime | None = None) -> None:
        """Put a call at the end of its lane, or in the place of an unsent older one; it is due at `turn`."""
        older = self._unsent(call, turn or now) if replaceable(call) else None
        if older is None:
            self._append(call, cause, subscription, (now, turn or now))
        else:
            self.ledger.replace()
            self._retire(older, now)
            self.owe(older, out=True)
            older.call, older.cause = laid_over(older.call, call), cause
            older.progress = replace(older.progress, repaired=False)
            self.owe(older)
        self._remember(call)

    def queue_again(self, call: Call, cause: int, subscription: str, now: datetime) -> None:
        """Queue a call that was dead as it has to be by now."""
        lane = self.lanes.get(call.building, LaneRow())
        call = renewed(call, lane.building, lane.devices) if replaceable(call) else call
        self.queue(call, cause, subscription, now)

    def _unsent(self, call: Call, now: datetime) -> CallRow | None:
        lane = self.lanes.get(call.building, LaneRow())
        lent = lane.lent if lane.lent_until is not None and lane.lent_until > now else 0
        owed = self.owed(call.building)
        rows = [row for row in owed if form(row.call) is form(call) and row.id > lent and row.doubt is None]
        if not rows:
            return None
        behind = [row.call for row in owed if row.id > rows[-1].id]
        awaited = {event.device for each in behind if isinstance(each, SendEvents) for event in each.events}
        return None if unlisted(rows[-1].call, call) & awaited else rows[-1]

    def _retire(self, row: CallRow, now: datetime) -> None:
        """Keep the content whose place is taken, for `explain`."""
        self.ledger.last_call += 1
        number = self.ledger.last_call
        progress = replace(row.progress, state=CallState.REPLACED)
        self.outbox[number] = replace(row, id=number, progress=progress, settled=_whole(now), attempts=[])

    def _append(self, call: Call, cause: int, subscription: str, at: tuple[datetime, datetime]) -> None:
        now, turn = at
        self.ledger.last_call += 1
        row = CallRow(
            id=self.ledger.last_call,
            call=call,
            cause=cause,
            line=Line(subscription, rank(call, now)),
            queued=_whole(now),
            progress=Progress(count=size(call)),
        )
        self.outbox[row.id] = row
        self.owe(row)
        lane = self.lanes.setdefault(call.building, LaneRow())
        if lane.lent_until is None and lane.due is None:
            lane.due, lane.line = _whole(turn), row.line

    def _remember(self, call: Call) -> None:
        """Keep what the building shall be."""
        lane = self.lanes.setdefault(call.building, LaneRow())
        lane.building = wanted(lane.building, call)
        lane.devices = call if isinstance(call, PutDevices) else lane.devices

    def expire(self, now: datetime) -> None:
        """Take back lanes whose lease has run out."""
        for building, lane in self.lanes.items():
            if lane.lent_until is not None and lane.lent_until <= now:
                self.take_back(building, lane.lent_until)

    def hasten(self, now: datetime) -> None:
        """Let no lane wait longer than until now."""
        for lane in self.lanes.values():
            if lane.due is not None:
                lane.due = min(lane.due, _whole(now))

    def take_back(self, building: str, at: datetime) -> None:
        """End a lease; the lane is due again at `at` if it still owes anything."""
        lane, owed = self.lanes[building], self.owed(building)
        lane.due = at if owed else None
        lane.line = owed[0].line if owed else lane.line
        lane.lent_until, lane.lent = None, 0

    def counted(self) -> Mapping[str, object]:
        """Return what the ledger must say."""
        letters: dict[str, int] = {}
        for letter in self.letters.values():
            letters[letter.reason] = letters.get(letter.reason, 0) + 1
        flags: dict[str, int] = {}
        for building in self.buildings.values():
            for name in set(building.state.flags):
                flags[name] = flags.get(name, 0) + 1
        return {
            "pending": len(self.pending) + len(self.again),
            "parked": len(self.parked),
            "dead": sum(letter.message is not None for letter in self.letters.values()),
            "calls_pending": sum(row.progress.left for row in self.outbox.values() if row.owed),
            "calls_dead": sum(letter.row is not None for letter in self.letters.values()),
            "dead_letters": letters,
            "flags": flags,
            "inbox_rows": len(self.inbox),
        }

    def held(self) -> dict[str, Share]:
        """Return what subscriptions hold."""
        dead = [letter.message for letter in self.letters.values() if letter.message is not None]
        groups = {"pending": [*self.pending, *self.again], "parked": self.parked, "dead": dead}
        shares: dict[str, Share] = {}
        for part, numbers in groups.items():
            for number in numbers:
                row = self.inbox[number]
                grow(shares, row.subscription, part, message_bytes(len(row.body)))
        for call in self.outbox.values():
            if call.owed:
                grow(shares, call.held[0], "owed", call.held[1])
        return shares


def _whole(at: datetime) -> datetime:
    return from_ms(to_ms(at))
