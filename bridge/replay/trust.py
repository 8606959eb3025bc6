"""What of a remade past can be relied on, where the store has deleted the messages before it.

Rules:
- A household whose messages are all there is known from the first one on. Else it is known from a copy of its state on,
  as the store keeps them now and then: the first one that holds every deleted message, and every change by the
  directory, of which there is no message. Before it nothing is made; without one nothing at all.
- Of what is made then an interval counts if it begins in the first open slot of the copy or later.
- An on-change value counts if the device is younger than the copy, or another one of its type was made before: whether
  the first one is news, the settings of that time have decided.
- Households that share users are known once each of them is. If a device that nobody knows turns up in one of them
  before, it may come from another: then nothing counts.
- What comes out must be the household as it is, its devices, since when, and which were deleted: else something
  happened to it that the messages do not say, and nothing counts.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from bridge.core.days import day_start
from bridge.core.devices import moost_id
from bridge.core.effects import Event
from bridge.core.intervals import QUARTER
from bridge.core.model import Building
from bridge.core.rules import Rules, Stamp
from bridge.core.vocabulary import EVENT_TYPES, Cadence, EventType
from bridge.replay.world import Made

LENGTHS: Final[Mapping[Cadence, timedelta]] = {Cadence.QUARTER: QUARTER, Cadence.HALF_HOUR: 2 * QUARTER}


def slot_end(event: Event, rules: Rules) -> datetime:
    """Return the end of the interval of an event."""
    if EVENT_TYPES[event.type].cadence is Cadence.DAY:
        return event.at  # the first instant of the new day, however slots are stamped
    match rules.stamp:
        case Stamp.INSIDE:
            return event.at + timedelta(seconds=1)
        case Stamp.START:
            return event.at + LENGTHS.get(EVENT_TYPES[event.type].cadence, QUARTER)
        case _:
            return event.at


def interval_start(event: Event, rules: Rules, time_zone: str) -> datetime:
    """Return when the interval of a value began; of an on-change value its own time."""
    cadence = EVENT_TYPES[event.type].cadence
    if cadence is Cadence.CHANGE:
        return event.at
    if cadence is Cadence.DAY:
        return day_start(event.at - timedelta(seconds=1), ZoneInfo(time_zone))
    return slot_end(event, rules) - LENGTHS[cadence]


class Trust:
    """Which households are known, from when on, and what counts of them."""

    def __init__(self, unknown: Iterable[str], rules: Rules) -> None:
        """Take the households that have to begin with a copy."""
        self._rules = rules
        self._unknown = set(unknown)
        self._since: dict[str, datetime] = {}  # first open slot of the copy that a household begins with
        self._older: set[tuple[str, str]] = set()  # building and MOOST's device of those that are in a copy
        self._said: set[tuple[str, str, EventType]] = set()  # on-change values that were made
        self._void = False

    # ---- on the way ----

    def begin(self, copy: Building) -> None:
        """Note that a household is known from here on."""
        self._unknown.discard(copy.id)
        if copy.open_from is not None:
            self._since[copy.id] = copy.open_from
        self._older |= {(copy.id, moost_id(one)) for one in copy.devices.values()}

    def knows(self, building: str) -> bool:
        """Tell whether a household is known."""
        return building not in self._unknown

    def touch(self, buildings: Iterable[str], home: str | None) -> None:
        """Note which households a message has changed, and where its device lived before; None = nowhere."""
        if not self._unknown or (home is not None and self.knows(home)):
            return
        self._void = self._void or any(self.knows(building) for building in buildings)

    def firm(self, made: Made) -> bool:
        """Tell whether an event that a message makes is news by what has been made so far."""
        if not self.knows(made.building):
            return False
        name = (made.building, made.event.device, made.event.type)
        firm = name in self._said or name[:2] not in self._older
        self._said.add(name)
        return firm

    def compare(self, live: Iterable[Building], remade: Mapping[str, Building | None]) -> None:
        """Take the households as they are, and as they came out."""
        known = [one for one in live if self.knows(one.id)]
        self._void = self._void or any(_lives(one) != _lives(remade.get(one.id)) for one in known)

    # ---- the verdict ----

    def allows(self, made: Made, time_zone: str) -> bool:
        """Tell whether a remade event counts."""
        if self._void or not made.firm:
            return False
        change = EVENT_TYPES[made.event.type].cadence is Cadence.CHANGE
        return change or self.reaches(made.building, made.event, time_zone)

    def reaches(self, building: str, event: Event, time_zone: str) -> bool:
        """Tell whether a household was known when the interval of a value began."""
        since = self._since.get(building)
        began = since is None or interval_start(event, self._rules, time_zone) >= since
        return self.knows(building) and began


def _lives(building: Building | None) -> tuple[dict[str, datetime], Mapping[str, datetime]]:
    """Return the devices of a household, since when they count, and which were deleted."""
    if building is None:
        return {}, {}
    return {name: device.since for name, device in building.devices.items()}, building.gone
