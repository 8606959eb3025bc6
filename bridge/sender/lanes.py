"""What a lane sends next, and what an answer does to it. No waiting, no store, no wire.

Rules:
- A lane is worked off from its front, one call at a time; what is behind waits.
- An event is live while its age is at most `live_max_age`; else it leaves in an array, together with the old events
  right behind it, also those of the next rows.
- What was in doubt is sent again as it was, by itself; the settings say by which lane, or that the operator decides.
- A refused array is halved until the one bad event stands alone; the half known to be good is not held up by it.
- After a refusal that may mean an unknown building, building and device list (the sheet) go first, once. A change that
  finds its building gone is done with the creation that holds it.
- What goes on the wire never takes back what an errand has told: a list names the devices of the newest one too, and
  the list of an errand those whose events are still to come.

Theory of operation: `suspect` is how many events at the front are known to hold a bad one; the next array takes half of
them. If it is taken, the rest is suspected; if it is refused, it is the new suspect, and what is behind it is not.
"""

from collections import deque
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, assert_never

from bridge.core.effects import Call, ChangeBuilding, CreateBuilding, DeviceEntry, Event, PutDevices, SendEvents
from bridge.core.retry import CallKind, LostPolicy
from bridge.core.vocabulary import DeadReason
from bridge.sink import encode, validate
from bridge.sink.encode import WireCall
from bridge.store.port import Attempt, Begin, Burial, Doubt, Lane, Owed, Settlement
from bridge.store.ranks import Line, Rank

_NOTHING: Final = b""


@dataclass(slots=True)
class Row:
    """A leased row and how much of it is done since."""

    owed: Owed
    done: int = 0

    @property
    def events(self) -> Sequence[Event]:
        """Return the events of the row as leased."""
        return self.owed.call.events if isinstance(self.owed.call, SendEvents) else ()

    @property
    def left(self) -> int:
        """Return how many items the row still owes."""
        return (len(self.events) if isinstance(self.owed.call, SendEvents) else 1) - self.done

    @property
    def doubt(self) -> Doubt | None:
        """Return the doubt about the front of the row."""
        return self.owed.doubt if self.done == 0 else None


@dataclass(slots=True)
class Run:
    """A leased lane while it is in hand."""

    lane: Lane
    rows: deque[Row]
    errands: deque[Call] = field(default_factory=deque)  # sent before the front row: the sheet, for a repair
    repairing: bool = False
    repaired: bool = False
    repaired_row: int | None = None  # for which that was
    made: bool = False  # an errand made the building anew
    renewed: bool = False  # the token was renewed for the front item
    suspect: int = 0

    @classmethod
    def of(cls, lane: Lane, suspect: int = 0) -> "Run":
        """Return a lane as just leased."""
        return cls(lane=lane, rows=deque(Row(owed) for owed in lane.calls), suspect=suspect)

    @property
    def front(self) -> Row:
        """Return the row whose turn it is."""
        return self.rows[0]

    @property
    def is_repaired(self) -> bool:
        """Return whether building and list have gone before the front row, or cannot: there are none."""
        known = self.front.owed
        again = self.repaired if isinstance(known.call, SendEvents) else self.repaired_row == known.id
        return again or known.repaired or not any(_errands(self))

    def holds(self, calls: Container[int]) -> bool:
        """Tell whether one of these calls is still to be worked off here."""
        return any(row.owed.id in calls for row in self.rows)

    def advance(self, parts: Iterable[tuple[int, int]]) -> None:
        """Take items off the front: (row id, number) in order."""
        for _, count in parts:
            self.front.done += count
            if self.front.left <= 0:
                self.rows.popleft()
        self.renewed = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One call, ready for the wire."""

    run: Run
    kind: CallKind
    call: Call
    wire: WireCall
    parts: tuple[tuple[int, int], ...] = ()  # (row id, events of it in this call); empty = an errand
    begins: tuple[Begin, ...] = ()

    @property
    def count(self) -> int:
        """Return how many items are in the call."""
        return sum(count for _, count in self.parts) or 1

    @property
    def requests(self) -> int:
        """Return how many requests the call is expected to take."""
        return 2 if self.kind is CallKind.CHANGE else 1

    @property
    def historical(self) -> bool:
        """Return whether it takes the historical lane."""
        return self.kind is CallKind.HISTORICAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Planner:
    """Chooses what a lane sends next."""

    customer: str
    battery_soc: bool
    live_max_age: timedelta
    historical_batch: int
    on_lost: LostPolicy

    def next(self, run: Run, now: datetime) -> Job | list[Settlement]:
        """Return the next call of a lane that owes something, or what is buried instead of being sent."""
        if run.errands:
            return self._state(run, run.errands[0], errand=True)
        call = run.front.owed.call
        if isinstance(call, SendEvents):
            return self._events(run, call, now)
        return self._state(run, call, errand=False)

    def line(self, run: Run, now: datetime) -> Line:
        """Return the line in which a lane waits that owes something: by what it sends next."""
        row = run.front
        if run.errands or not isinstance(row.owed.call, SendEvents):
            return Line(row.owed.subscription, Rank.STATE)
        old = bool(row.events) and self._is_old(row, 0, row.events[row.done], now)
        return Line(row.owed.subscription, Rank.HISTORY if old else Rank.LIVE)

    # ---- whole states ----

    def _state(self, run: Run, call: Call, *, errand: bool) -> Job | list[Settlement]:
        call = call if errand else _with_newest(call, run.lane.sheet)
        rule = _broken_rule(call)
        if rule is not None:
            if errand:
                return errand_done(run)
            return buried_front(run, Burial(reason=DeadReason.RULE, detail=rule))
        kind, wire = self._wire(call)
        if errand:
            return Job(run=run, kind=kind, call=call, wire=wire)
        row = run.front.owed.id
        doubt = Doubt(payload=wire.body or _NOTHING, historical=False, count=1)
        begins = (Begin(call_id=row, doubt=doubt),)
        return Job(run=run, kind=kind, call=call, wire=wire, parts=((row, 1),), begins=begins)

    def _wire(self, call: Call) -> tuple[CallKind, WireCall]:
        match call:
            case CreateBuilding():
                return CallKind.CREATE, encode.create(encode.new_building(call.building, call.attributes))
            case ChangeBuilding():
                return CallKind.CHANGE, encode.update(encode.changed_building({}, call))
            case PutDevices():
                return CallKind.DEVICES, encode.devices(call)
            case SendEvents():
                msg = "events are no whole state"
                raise TypeError(msg)
            case _:
                assert_never(call)

    # ---- events ----

    def _events(self, run: Run, call: SendEvents, now: datetime) -> Job | list[Settlement]:
        row = run.front
        if row.doubt is not None and self.on_lost is LostPolicy.HOLD:
            what = "the reply was lost, and nobody knows whether MOOST took it"
            parts = ((row.owed.id, min(row.doubt.count, row.left)),)
            return buried(run, parts, Burial(reason=DeadReason.IN_DOUBT, detail=what))
        event = row.events[row.done]
        if self._is_old(row, 0, event, now):
            return self._array(run, call, now)
        body, rule = self._encoded(event, call)
        if rule is not None:
            return buried_front(run, Burial(reason=DeadReason.RULE, detail=rule))
        if row.doubt is not None:
            body = row.doubt.payload
        begins = (Begin(call_id=row.owed.id, doubt=Doubt(payload=body, historical=False, count=1)),)
        parts = ((row.owed.id, 1),)
        return Job(run=run, kind=CallKind.LIVE, call=call, wire=encode.live(body), parts=parts, begins=begins)

    def _array(self, run: Run, call: SendEvents, now: datetime) -> Job | list[Settlement]:
        limit, count = self._limit(run), 0
        pieces: list[bytes] = []
        begins: list[Begin] = []
        for row in run.rows:
            bodies, rule, whole = self._old_front(row, now, limit - count)
            if not count and not bodies and rule is not None:
                return buried_front(run, Burial(reason=DeadReason.RULE, detail=rule))
            if bodies:
                piece = _as_it_was(row, bodies)
                doubt = Doubt(payload=b"[" + piece + b"]", historical=True, count=len(bodies))
                pieces.append(piece)
                begins.append(Begin(call_id=row.owed.id, doubt=doubt))
                count += len(bodies)
            if not whole or count >= limit:
                break
        parts = tuple((begin.call_id, begin.doubt.count) for begin in begins)
        wire = encode.historical(encode.array(pieces))
        return Job(run=run, kind=CallKind.HISTORICAL, call=call, wire=wire, parts=parts, begins=tuple(begins))

    def _limit(self, run: Run) -> int:
        return min(self.historical_batch, max(1, run.suspect // 2)) if run.suspect else self.historical_batch

    def _old_front(self, row: Row, now: datetime, limit: int) -> tuple[list[bytes], str | None, bool]:
        """Return the old events at the front of a row, the rule that the next one breaks, and if they are all."""
        call = row.owed.call
        bodies: list[bytes] = []
        if not isinstance(call, SendEvents) or (row.doubt is not None and self.on_lost is LostPolicy.HOLD):
            return bodies, None, False
        if row.doubt is not None:
            limit = min(limit, row.doubt.count)
        for event in row.events[row.done : row.done + limit]:
            if not self._is_old(row, len(bodies), event, now):
                return bodies, None, False
            body, rule = self._encoded(event, call)
            if rule is not None:
                return bodies, rule, False
            bodies.append(body)
        return bodies, None, len(bodies) == row.left

    def _is_old(self, row: Row, place: int, event: Event, now: datetime) -> bool:
        """Return whether the event takes the historical lane; `place` counts from the front of the row."""
        if now - event.at > self.live_max_age:
            return True
        if isinstance(row.owed.call, SendEvents) and row.owed.call.replay:
            return True
        doubt = row.doubt
        if doubt is None or place >= doubt.count:
            return False
        return doubt.historical or self.on_lost is LostPolicy.HISTORICAL

    def _encoded(self, event: Event, call: SendEvents) -> tuple[bytes, str | None]:
        body = encode.event(event, call.building, self.customer)
        rule = validate.event(body, battery_soc=self.battery_soc)
        return (_NOTHING, rule) if rule is not None else (encode.body_of(body), None)


def _broken_rule(call: Call) -> str | None:
    match call:
        case CreateBuilding() | ChangeBuilding():
            return validate.building(call)
        case PutDevices():
            return validate.devices(call)
        case SendEvents():
            return None
        case _:
            assert_never(call)


def _as_it_was(row: Row, bodies: Sequence[bytes]) -> bytes:
    """Return the events joined; exactly as they were sent if their outcome was lost and all of them go again."""
    doubt = row.doubt
    if doubt is None or doubt.count != len(bodies):
        return b",".join(bodies)
    return doubt.payload[1:-1] if doubt.historical else doubt.payload


# ---- what becomes of the items at the front --------------------------------------------------------------------------


def delivered(job: Job, attempt: Attempt) -> list[Settlement]:
    """Take what MOOST took off the lane."""
    run = job.run
    if run.suspect:
        run.suspect = max(0, run.suspect - job.count)
    run.advance(job.parts)
    return [Settlement(call_id=row, delivered=count, attempt=attempt) for row, count in job.parts]


def still_owed(
    job: Job, attempt: Attempt, *, failed: bool = False, throttled: bool = False, lost: bool = False
) -> list[Settlement]:
    """Note a try that left everything owed; of an errand it counts for the row that waits for it."""
    rows = [row for row, _ in job.parts] or [job.run.front.owed.id]
    return [Settlement(call_id=row, attempt=attempt, failed=failed, throttled=throttled, lost=lost) for row in rows]


def buried(
    run: Run, parts: Sequence[tuple[int, int]], burial: Burial, attempt: Attempt | None = None
) -> list[Settlement]:
    """Take items off the front of the lane as dead letters."""
    settlements: list[Settlement] = []
    for row, (_, count) in zip(run.rows, parts, strict=False):
        settlements += _graves(row, count, burial, attempt)
    run.suspect = max(0, run.suspect - sum(count for _, count in parts))
    run.advance(parts)
    return settlements


def buried_front(run: Run, burial: Burial, attempt: Attempt | None = None) -> list[Settlement]:
    """Take the one item at the front of the lane as a dead letter."""
    return buried(run, ((run.front.owed.id, 1),), burial, attempt)


def _graves(row: Row, count: int, burial: Burial, attempt: Attempt | None) -> Iterator[Settlement]:
    if count >= row.left > 1:
        yield Settlement(call_id=row.owed.id, buried=burial, bury_all=True, attempt=attempt)
        return
    for place in range(count):
        yield Settlement(call_id=row.owed.id, buried=burial, attempt=attempt if place == 0 else None)


def repair(run: Run) -> None:
    """Let the building and its list go first."""
    run.errands.extend(_errands(run))
    run.repairing, run.made = True, False


def _errands(run: Run) -> Iterator[Call]:
    """Yield what goes before the front row: the building, and its list where that is not the row itself."""
    for call in run.lane.sheet:
        if not isinstance(call, PutDevices):
            yield call
        elif not isinstance(run.front.owed.call, PutDevices):
            yield _with_awaited(call, [row.owed.call for row in run.rows])


def errand_done(run: Run, attempt: Attempt | None = None) -> list[Settlement]:
    """Take an errand off; after the last one the front row counts as repaired.

    A change whose building was made anew is done: the creation held it. `attempt` is what is said of it then.
    """
    run.errands.popleft()
    if run.errands or not run.rows:
        return []
    front = run.front.owed
    run.repairing, run.repaired, run.repaired_row = False, True, front.id
    if run.made and attempt is not None and isinstance(front.call, ChangeBuilding):
        run.advance(((front.id, 1),))
        return [Settlement(call_id=front.id, delivered=1, attempt=attempt)]
    return [Settlement(call_id=front.id, repaired=True)]


# ---- device lists ---------------------------------------------------------------------------------------------------


def _with_newest(call: Call, sheet: Iterable[Call]) -> Call:
    """Return a list with the devices of the newest one that it lacks: an errand may have told them already."""
    if not isinstance(call, PutDevices):
        return call
    newest = next((each for each in sheet if isinstance(each, PutDevices)), call)
    return _with_entries(call, newest.devices)


def _with_awaited(newest: PutDevices, calls: Sequence[Call]) -> PutDevices:
    """Return the newest list with the devices whose events come before the list that lacks them."""
    until = next((place for place, call in enumerate(calls) if isinstance(call, PutDevices)), 0)
    events = [event for call in calls[:until] if isinstance(call, SendEvents) for event in call.events]
    return _with_entries(newest, [DeviceEntry(id=each.device, type=each.source, name=each.name) for each in events])


def _with_entries(call: PutDevices, entries: Iterable[DeviceEntry]) -> PutDevices:
    """Return a list with more devices: GATEWAY first, the others by id."""
    known = {entry.id for entry in call.devices}
    more = {entry.id: entry for entry in entries if entry.id not in known}
    if not more:
        return call
    head, *others = call.devices or (None,)
    listed = sorted([*others, *more.values()], key=lambda entry: entry.id)
    return replace(call, devices=tuple(listed) if head is None else (head, *listed))
