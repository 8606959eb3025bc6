"""What of a remade past can be relied on, where the store has deleted the messages before it.

Rules:
- A device that was there before the oldest complete message is there from the start, with nothing known of it.
- It can be relied on from the instant at which messages that are still there decide everything that slots need of it:
  its newest value from then on cannot be one of a deleted message, because that was received before.
- A device that has been away is not relied on at all: its end may have been marked by a deleted message.
- A household can be relied on once all its devices can, an interval if it begins after that.
- Of such a device an on-change value says something once a message before it has decided what it is made of.
- Where the directory moved a device, its new home cannot be remade before the move, nor can its old one.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from bridge.core.days import day_start
from bridge.core.effects import Event
from bridge.core.identity import device_id
from bridge.core.intervals import QUARTER, slot_of
from bridge.core.mapping import QUANTITIES
from bridge.core.messages import Inbound, Quantity, Report
from bridge.core.model import Building, Device
from bridge.core.rules import Rules, Stamp
from bridge.core.slots import BEHIND
from bridge.core.tracks import HOLD_CONSUMER, counts
from bridge.core.vocabulary import EVENT_TYPES, Action, Cadence, DeviceType, EventType, Kind
from bridge.replay.world import Made

NEVER: Final = datetime.max.replace(tzinfo=UTC)
LONG_AGO: Final = timedelta(days=1)  # before the oldest message, for a device of which only the delete is known

_LENGTHS: Final[Mapping[Cadence, timedelta]] = {Cadence.QUARTER: QUARTER, Cadence.HALF_HOUR: 2 * QUARTER}
_OF_CHANGES: Final[Mapping[EventType, frozenset[Quantity]]] = {
    EventType.STATE_OF_CHARGE_RATE: frozenset({Quantity.STATE_OF_CHARGE}),
    EventType.SWITCH_STATE: frozenset({Quantity.PLUGGED, Quantity.STATE}),
    EventType.CHARGING_MODE: frozenset({Quantity.MODE}),
    EventType.DEVICE_STATUS: frozenset({Quantity.STATE, Quantity.ACTIVE}),
}
_REACH: Final = frozenset({Action.OFFLINE, Action.DISCONNECT, Action.DELETE})
_OF_SLOTS: Final = frozenset({Quantity.POWER, Quantity.TEMPERATURE, Quantity.COUNTER})


def slot_end(event: Event, rules: Rules) -> datetime:
    """Return the end of the interval of a slot's event."""
    match rules.stamp:
        case Stamp.INSIDE:
            return event.at + timedelta(seconds=1)
        case Stamp.START:
            return event.at + _LENGTHS.get(EVENT_TYPES[event.type].cadence, QUARTER)
        case _:
            return event.at


def interval_start(event: Event, rules: Rules, time_zone: str) -> datetime:
    """Return when the interval of a value began; of an on-change value its own time."""
    cadence = EVENT_TYPES[event.type].cadence
    if cadence is Cadence.CHANGE:
        return event.at
    if cadence is Cadence.DAY:
        return day_start(event.at - timedelta(seconds=1), ZoneInfo(time_zone))
    return slot_end(event, rules) - _LENGTHS[cadence]


class Trust:
    """What is known of the time before the oldest complete message, and from when on it does not matter any more."""

    def __init__(self, live: Iterable[Building], edge: datetime | None, rules: Rules) -> None:
        """Take the households as they are now; `edge` is the newest receipt of a deleted message, None = none was."""
        self._edge = edge
        self._rules = rules
        self._known: dict[tuple[Kind, str], dict[Quantity, datetime]] = {}  # device -> what it needs, known from when
        self._online: set[tuple[Kind, str]] = set()  # devices that have said whether they can be reached
        self._before: dict[str, tuple[Kind, str]] = {}  # MOOST's device -> device, of those that were there before
        self._away: set[tuple[Kind, str]] = set()  # devices that have been away: from when on, deleted messages may say
        self._tainted: datetime | None = None
        self.states = [state for one in live if (state := self._opening(one)) is not None]
        self._buildings: dict[str, set[tuple[Kind, str]]] = {
            state.id: {(device.kind, device.id) for device in state.devices.values()} for state in self.states
        }

    # ---- the beginning ----

    def _opening(self, live: Building) -> Building | None:
        """Return a household as it was before the oldest complete message, as far as can be told; None = not there."""
        edge = self._edge
        if edge is None:
            return None
        devices = {name: self._seed(device) for name, device in live.devices.items() if device.since <= edge}
        for device in live.departed:
            if device.since <= edge and device.until is not None and device.until > edge:
                devices.setdefault(f"{device.kind.value}:{device.id}", self._seed(device))
        for name, stamp in live.gone.items():
            kind, _, number = name.partition(":")
            if stamp > edge and name not in devices and Kind(kind) is not Kind.TARIFF:
                before = edge - LONG_AGO
                user = live.users[0] if live.users else ""
                devices[name] = Device(
                    kind=Kind(kind), id=number, user=user, subscription="", since=before, stamp=before
                )
        gone = {name: stamp for name, stamp in live.gone.items() if stamp <= edge}
        if not devices and not gone:
            return None
        for device in devices.values():
            self._before[device_id(device.kind, device.id)] = (device.kind, device.id)
            self._known[device.kind, device.id] = {}
        return Building(
            id=live.id, created=True, known=live.known, users=live.users, time_zone=live.time_zone, devices=devices,
            gone=gone, open_from=slot_of(edge), closed=True,
        )  # fmt: skip

    def _seed(self, device: Device) -> Device:
        """Return a device of which nothing is known but that it is there."""
        if device.offline_stamp is not None or device.disconnect_stamp is not None:
            self._away.add((device.kind, device.id))
        return Device(
            kind=device.kind, id=device.id, user=device.user, subscription=device.subscription, since=device.since,
            stamp=device.since, location=device.location, facts=device.facts,
        )  # fmt: skip

    # ---- on the way ----

    def firm(self, event: Event) -> bool:
        """Tell whether the messages so far decide that an on-change value differs from the one sent before it."""
        device = self._before.get(event.device)
        if device is None:
            return True
        needed = _OF_CHANGES[event.type] & set(QUANTITIES[device[0]])
        online = event.type is not EventType.DEVICE_STATUS or device in self._online
        return online and needed <= self._known[device].keys()

    def hear(self, message: Inbound) -> None:
        """Note what a message decides."""
        known = self._known.get((message.kind, message.id))
        if known is None or self._edge is None or not isinstance(message, Report):
            return
        if message.action is Action.DELETE:
            for quantity in Quantity:
                known.setdefault(quantity, message.received)
        if message.stamp >= self._edge and (message.online is not None or message.action in _REACH):
            self._online.add((message.kind, message.id))
        for reading in message.readings:
            if reading.at >= self._edge:
                known.setdefault(reading.quantity, reading.at)
            elif message.stamp >= self._edge + BEHIND:
                known.setdefault(reading.quantity, message.stamp)

    def compare(self, live: Iterable[Building], remade: Mapping[str, Building | None]) -> None:
        """Notice devices that the directory moved: their messages are older than their life in this household."""
        for one in live:
            there = remade.get(one.id)
            for name, device in one.devices.items():
                known = there.devices.get(name) if there is not None else None
                if known is not None and known.since < device.since:
                    self._tainted = max(device.since, self._tainted or device.since)

    # ---- the verdict ----

    def allows(self, made: Made, time_zone: str) -> bool:
        """Tell whether a remade event can be relied on."""
        event = made.event
        start = interval_start(event, self._rules, time_zone)
        if self._tainted is not None and start <= self._tainted:
            return False
        if self._edge is None or made.building not in self._buildings:
            return True
        if EVENT_TYPES[event.type].cadence is Cadence.CHANGE:
            return made.firm
        return start >= self._from(made)

    def _from(self, made: Made) -> datetime:
        """Return from when on what an event needs can be relied on."""
        devices = self._buildings[made.building]
        if made.event.source is not DeviceType.GATEWAY:
            devices = {one for one in devices if device_id(*one) == made.event.device}
        edge = self._edge or NEVER
        return max((self._decided(*one) for one in devices), default=edge)

    def _decided(self, kind: Kind, number: str) -> datetime:
        """Return from when on the messages that are still there decide what slots need of a device."""
        if (kind, number) in self._away:
            return NEVER
        known, edge = self._known[kind, number], self._edge or NEVER
        needed = _OF_SLOTS & set(QUANTITIES[kind])
        meter = Device(kind=kind, id=number, user="", subscription="", since=edge, stamp=edge)
        counting = counts(meter, self._rules)
        if not counting:
            needed -= {Quantity.COUNTER}
        # What was last known does not hold for ever; but an inverter may sleep at 0, and a counter goes on.
        forgotten = NEVER
        if kind is not Kind.PV_INVERTER and not counting:
            forgotten = edge + max(self._rules.hold, self._rules.hold_active, HOLD_CONSUMER)
        return max((known.get(quantity, forgotten) for quantity in needed), default=edge)
