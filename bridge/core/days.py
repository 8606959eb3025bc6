"""Local days: where they begin, what they sum up, what leaves when one is over (mapping rule M5.8).

Rules:
- A day lasts from one local midnight to the next, on the building's calendar: 92, 96 or 100 quarter hours, in places
  94 or 98. Where midnight does not exist the day begins with the first instant after it, where it comes twice with
  the first.
- A day's value is the sum of its closed slots, sent or not, unrounded; what M4.5 withholds is not in it. Its coverage
  is the known time against the length of the day. A rate comes from the day's two sums.
- Its events carry the first instant of the new day, however slots are stamped.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from bridge.core.copying import replace
from bridge.core.devices import entry_of, gateway_entry
from bridge.core.effects import DeviceEntry, Event
from bridge.core.household import rates
from bridge.core.model import Building, Device
from bridge.core.rules import Rules
from bridge.core.tracks import enough_of
from bridge.core.units import tidy
from bridge.core.vocabulary import EventType

_YESTERDAY: Final[Mapping[str, EventType]] = {
    EventType.ENERGY_GENERATION: EventType.ENERGY_GENERATION_YESTERDAY,
    EventType.GRID_ENERGY_CONSUMPTION: EventType.GRID_ENERGY_CONSUMPTION_YESTERDAY,
    EventType.ENERGY_CONSUMPTION: EventType.ENERGY_CONSUMPTION_YESTERDAY,
    EventType.ENERGY_EXCESS: EventType.ENERGY_EXCESS_YESTERDAY,
    EventType.SELF_CONSUMPTION_RATE: EventType.SELF_CONSUMPTION_RATE_YESTERDAY,
    EventType.SELF_SUFFICIENCY_RATE: EventType.SELF_SUFFICIENCY_RATE_YESTERDAY,
}


def day_start(at: datetime, zone: ZoneInfo) -> datetime:
    """Return the first instant of the local day that holds an instant."""
    return datetime.combine(at.astimezone(zone).date(), time.min, zone).astimezone(UTC)


def day_end(at: datetime, zone: ZoneInfo) -> datetime:
    """Return the first instant of the next local day."""
    return datetime.combine(at.astimezone(zone).date() + timedelta(days=1), time.min, zone).astimezone(UTC)


def on_calendar(building: Building, time_zone: str) -> Building:
    """Return a building on the calendar of a time zone.

    Where that makes the open day another one, its sums are dropped: they would be of hours that do not belong to it.
    """
    if time_zone == building.time_zone:
        return building
    moved, summed_to = replace(building, time_zone=time_zone), building.open_from
    zones = ZoneInfo(building.time_zone), ZoneInfo(time_zone)
    if summed_to is None or len({day_start(summed_to, zone) for zone in zones}) == 1:
        return moved
    return _without_sums(moved)


def _without_sums(building: Building, end: datetime | None = None) -> Building:
    """Return a building whose day has nothing yet, but for devices that have closed the day before `end` already."""
    devices = {name: _without(device, end) for name, device in building.devices.items()}
    return replace(building, devices=devices, days={})


def _without(device: Device, end: datetime | None) -> Device:
    """Return a device whose day has nothing yet."""
    level = device.level._replace(gap_s=0.0, spare_s=0.0) if device.level is not None else None
    days = device.days if is_ahead(device, end) else {}
    return replace(device, days=days, level=level) if device.days or level is not None else device


def is_ahead(device: Device, end: datetime | None) -> bool:
    """Tell whether a device's own slots up to an instant are closed already (M5.7)."""
    return device.own_from is not None and end is not None and device.own_from >= end


def is_apart(building: Building, end: datetime) -> bool:
    """Tell whether a building's devices named two places when a slot ended: its household says nothing then (M1.3)."""
    return any(since < end and (until is None or end <= until) for since, until in building.apart)


def close_day(building: Building, start: datetime, end: datetime, rules: Rules) -> tuple[Building, list[Event]]:
    """Close the local day that ends with the slot from `start` to `end`."""
    enough = enough_of(end - day_start(start, ZoneInfo(building.time_zone)), rules)
    events: list[Event] = []
    if not is_apart(building, end):
        gateway = gateway_entry(building.id)
        known: list[tuple[str, float]] = [
            (name, total.energy_wh)
            for name, total in building.days.items()
            if name in _YESTERDAY and enough(total.known_s)
        ]
        known += [(name, rate.value) for name, rate in rates(building.days, enough) if rate.why is None]
        events += [_event(gateway, _YESTERDAY[name], value, end) for name, value in known]
    for name in sorted(building.devices):
        device = building.devices[name]
        if not is_ahead(device, end):
            events += own_day(device, end, enough)
    return _without_sums(building, end), events


def own_day(device: Device, end: datetime, enough: Callable[[float], bool]) -> Iterator[Event]:
    """Yield what a device itself says of the local day that is over."""
    entry = entry_of(device) if device.days else None
    if entry is not None:
        for type_, total in device.days.items():
            if enough(total.known_s):
                yield _event(entry, type_, total.energy_wh, end)


def _event(entry: DeviceEntry, type_: EventType, value: float, end: datetime) -> Event:
    """Return an event of the day that ends."""
    return Event(device=entry.id, name=entry.name, source=entry.type, type=type_, value=tidy(value), at=end)
