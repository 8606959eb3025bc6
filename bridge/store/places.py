"""New calls and the places they take, whichever keeper holds them; and what their buildings shall be then.

A whole state takes the place of an unsent older one, as `calls` says; the older content stays as a row of its own.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from bridge.core.effects import Call, ChangeBuilding, PutDevices, SendEvents
from bridge.store.calls import laid_over, renewed, replaceable, size, unlisted, wanted
from bridge.store.codec import Form, encode_call, form
from bridge.store.ledger import Ledger
from bridge.store.port import Outgoing
from bridge.store.ranks import Line, rank
from bridge.store.shares import call_bytes

Place = tuple[str, Form]


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A call to queue, encoded on the caller's side."""

    call: Call
    form: Form
    data: bytes
    cause: int
    count: int
    subscription: str

    @classmethod
    def of(cls, call: Call, cause: int, subscription: str) -> "Planned":
        """Encode a call."""
        kind, data = form(call), encode_call(call)
        return cls(call=call, form=kind, data=data, cause=cause, count=size(call), subscription=subscription)

    def line(self, queued: datetime) -> Line:
        """Return the line in which it stands, as a row of the outbox has it."""
        return Line(self.subscription, int(rank(self.call, queued)))


def first_lines(calls: Iterable[Planned], now: datetime) -> dict[str, Line]:
    """Return the line of each building that owed nothing before."""
    found: dict[str, Line] = {}
    for row in calls:
        if row.call.building not in found:
            found[row.call.building] = row.line(now)
    return found


def planned(calls: Sequence[Outgoing]) -> list[Planned]:
    """Encode calls."""
    return [Planned.of(outgoing.call, outgoing.cause, outgoing.subscription) for outgoing in calls]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsent:
    """A whole state whose place a newer one may take."""

    number: int
    content: Planned
    queued: int


@dataclass(slots=True)
class Plan:
    """What queueing changes: new rows, rows with new content, rows that keep the old content."""

    new: dict[int, Planned] = field(default_factory=dict)
    changed: dict[int, Planned] = field(default_factory=dict)
    retired: list[Unsent] = field(default_factory=list)
    grown: int = 0  # [bytes] of the rows with new content


@dataclass(slots=True)
class Standing:
    """What stands in the lanes that calls are queued in, as far as it matters for their places."""

    unsent: dict[Place, Unsent] = field(default_factory=dict)
    awaited: dict[str, set[str]] = field(default_factory=dict)  # building -> devices of events behind its unsent list


class Finder:
    """Finds the places of calls, one after the other."""

    def __init__(self, ledger: Ledger, standing: Standing, ms: int, *, again: bool = False) -> None:
        """Begin with the lanes as they stand; `again` = the calls were counted when they were queued first."""
        self._ledger = ledger
        self._standing = standing
        self.ms = ms
        self._again = again
        self.plan = Plan()

    def place(self, row: Planned, number: int) -> None:
        """Find the place of one call, whose number is used for its row or for the content that it displaces."""
        if not self._again:
            self._ledger.queue(row.count)
        if not replaceable(row.call):
            self._append(row, number)
            self._await(row.call)
            return
        place = (row.call.building, row.form)
        older = self._older(place, row.call)
        if older is None:
            self._append(row, number)
            self._standing.unsent[place] = Unsent(number=number, content=row, queued=self.ms)
            if row.form is Form.DEVICES:
                self._standing.awaited.pop(row.call.building, None)
        else:
            self._displace(place, older, row, number)

    def _append(self, row: Planned, number: int) -> None:
        self.plan.new[number] = row
        self._ledger.hold([(row.subscription, call_bytes(len(row.data)))], into="owed")

    def _older(self, place: Place, call: Call) -> Unsent | None:
        """Return the unsent call whose place a newer one takes."""
        older = self._standing.unsent.get(place)
        if older is None:
            return None
        needed = self._standing.awaited.get(call.building, set())
        return None if unlisted(older.content.call, call) & needed else older

    def _displace(self, place: Place, older: Unsent, row: Planned, number: int) -> None:
        """Put a call in an older one's place; the older content stays as a row of its own, for `explain`."""
        plan = self.plan
        self._ledger.replace()
        plan.retired.append(Unsent(number=number, content=older.content, queued=older.queued))
        merged = Planned.of(laid_over(older.content.call, row.call), row.cause, older.content.subscription)
        grown = len(merged.data) - len(older.content.data)
        self._ledger.hold([(merged.subscription, grown)], into="owed")
        if older.number in plan.new:
            plan.new[older.number] = merged
        else:
            plan.changed[older.number] = merged
            plan.grown += grown
        self._standing.unsent[place] = Unsent(number=older.number, content=merged, queued=older.queued)

    def _await(self, call: Call) -> None:
        """Remember whose events stand behind an unsent list."""
        if isinstance(call, SendEvents) and (call.building, Form.DEVICES) in self._standing.unsent:
            self._standing.awaited.setdefault(call.building, set()).update(event.device for event in call.events)


def questions(calls: Sequence[Planned], unsent: Mapping[Place, Unsent]) -> dict[int, tuple[str, frozenset[str]]]:
    """Return what has to be known of the events behind unsent lists that newer ones come for.

    Number of the unsent list -> its building, and the devices that one of the newer lists lacks.
    """
    lists: dict[Place, list[Call]] = {}
    for row in calls:
        if row.form is Form.DEVICES and (place := (row.call.building, row.form)) in unsent:
            lists.setdefault(place, [unsent[place].content.call]).append(row.call)
    asked = {
        unsent[place].number: (
            place[0],
            frozenset(name for older, newer in itertools.combinations(listed, 2) for name in unlisted(older, newer)),
        )
        for place, listed in lists.items()
    }
    return {number: question for number, question in asked.items() if question[1]}


@dataclass(slots=True)
class Sheet:
    """What a building shall be at MOOST, as far as queued calls say it."""

    building: ChangeBuilding | None = None
    devices: PutDevices | None = None


def told(sheets: dict[str, Sheet], calls: Iterable[Call]) -> None:
    """Bring what buildings shall be up to date with queued calls."""
    for call in calls:
        if replaceable(call):
            known = sheets.setdefault(call.building, Sheet())
            known.building = wanted(known.building, call)
            known.devices = call if isinstance(call, PutDevices) else known.devices


def once_more(sheets: Mapping[str, Sheet], rows: Iterable[Planned]) -> list[Planned]:
    """Return calls that are sent once more as they have to be by now."""
    none = Sheet()
    return [
        Planned.of(renewed(row.call, known.building, known.devices), row.cause, row.subscription)
        if replaceable(row.call)
        else row
        for row in rows
        for known in (sheets.get(row.call.building, none),)
    ]
