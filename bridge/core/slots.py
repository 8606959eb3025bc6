"""Closing slots and days: when a slot closes, and what leaves then (mapping rules M3, M4.4, M4.5, M5).

Rules:
- A slot closes when the building's clock has passed its end by `grace`; what arrives later changes no closed slot.
- A device's values leave for the device as long as it is there; the household counts it up to its delete.
- A day is the building's calendar day; its sums are those of its closed slots, sent or not, unrounded.
- Stretches in which nothing is known are skipped, not closed one by one.

Theory of operation: `advance` is called with a tick, closes what is ripe and returns the events in order of time.
`due` says when the next tick makes sense, so that a silent building costs nothing.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from bridge.core import household
from bridge.core.devices import entry_of, gateway_entry
from bridge.core.effects import DeviceEntry, Event, Note
from bridge.core.household import Flows, Members
from bridge.core.intervals import QUARTER, QUARTER_S, Limit, energy_wh, holds_until, slot_of, trim, value_before
from bridge.core.mapping import BY_SOURCE, ENGINES_WITHOUT_PLUG, EventRow, Part
from bridge.core.messages import Quantity, Tick
from bridge.core.model import Building, Device, Flag, Series, Sum
from bridge.core.rules import Role, Rules, Stamp
from bridge.core.units import WH_PER_KWH, tidy
from bridge.core.vocabulary import Cadence, EventType, Kind

MOST_AT_ONCE: Final = 16  # slots closed per tick, so that one building never holds the others up
DIP_WH: Final = 1 * WH_PER_KWH  # M4.4: a counter lower by less is noise
STEEPEST_W: Final = 60_000.0  # M4.4: no house draws more for long: a bigger step is a new counter
STALE_FOR: Final = timedelta(seconds=60)  # M5.4: a building is catching up this long after an old message
BEHIND: Final = timedelta(hours=1)  # M5.4: how far its clock then stays behind its newest stamp
LOOK_AGAIN: Final = timedelta(seconds=20)  # a building that waits for its backlog

_SLOT_SERIES: Final = (Quantity.POWER, Quantity.TEMPERATURE, Quantity.COUNTER)


# ---- when ---------------------------------------------------------------------------------------------------------


def clock_of(building: Building, tick: Tick, rules: Rules) -> datetime:
    """Return the building's clock at a tick (M5.4)."""
    late = (
        building.last_received is not None
        and building.newest_stamp is not None
        and tick.now - building.last_received < STALE_FOR
        and building.last_received - building.newest_stamp > rules.live_max_age
    )
    now = tick.now
    if late or tick.catching_up:
        now = min(now, (building.newest_stamp or tick.now) - BEHIND)
    return max(now, building.clock) if building.clock is not None else now


def due(building: Building, rules: Rules) -> datetime | None:
    """Return when the building's next slot is worth a tick; None = nothing is known or open."""
    start = building.open_from
    if start is None:
        return None
    ripe = _next_slot(building, start, rules)
    if ripe is None:
        return None
    spread_s = rules.spread.total_seconds()
    share = zlib.crc32(building.id.encode()) / 2**32
    return ripe + QUARTER + rules.grace + timedelta(seconds=spread_s * share)


def _next_slot(building: Building, start: datetime, rules: Rules) -> datetime | None:
    """Return the next slot in which something is known or a day with sums ends; None = neither is in sight."""
    candidates: list[datetime] = []
    known = _next_known(building, start, rules)
    if known is not None:
        candidates.append(slot_of(known))
    if building.days or any(device.days for device in building.devices.values()):
        candidates.append(day_end(start, ZoneInfo(building.time_zone)) - QUARTER)
    return max(min(candidates), start) if candidates else None


def _next_known(building: Building, start: datetime, rules: Rules) -> datetime | None:
    """Return the first instant from `start` on at which some series is known."""
    earliest: datetime | None = None
    for device in (*building.devices.values(), *building.departed):
        for quantity in _SLOT_SERIES:
            limit = household.limit_of(device.kind, rules) if quantity is Quantity.POWER else household.hold_always(rules)
            for since, until in _known(device.series.get(quantity, ()), limit):
                if until > start:
                    since = max(since, start)
                    earliest = since if earliest is None else min(earliest, since)
                    break
    return earliest


def _known(series: Series, limit: Limit) -> Iterator[tuple[datetime, datetime]]:
    """Yield (from, to) of each sample that says something."""
    for index, sample in enumerate(series):
        if sample.value is not None:
            until = holds_until(sample, limit)
            if index + 1 < len(series):
                until = min(until, series[index + 1].at)
            yield sample.at, until


def day_start(at: datetime, zone: ZoneInfo) -> datetime:
    """Return the first instant of the local day that holds an instant."""
    return datetime.combine(at.astimezone(zone).date(), time.min, zone).astimezone(UTC)


def day_end(at: datetime, zone: ZoneInfo) -> datetime:
    """Return the first instant of the next local day."""
    return datetime.combine(at.astimezone(zone).date() + timedelta(days=1), time.min, zone).astimezone(UTC)


# ---- closing ------------------------------------------------------------------------------------------------------


def advance(building: Building, tick: Tick, rules: Rules) -> tuple[Building, tuple[Event, ...], tuple[Note, ...]]:
    """Close every slot that is ripe, at most `MOST_AT_ONCE`; return the events in order of time."""
    clock = clock_of(building, tick, rules)
    building = replace(building, clock=clock)
    events: list[Event] = []
    notes: list[Note] = []
    for _ in range(MOST_AT_ONCE):
        start = building.open_from
        if start is None or start + QUARTER + rules.grace > clock:
            break
        following = _next_slot(building, start, rules)
        ripe = slot_of(clock - rules.grace)
        target = ripe if following is None else min(following, ripe)
        if target > start:
            building = _open(replace(building, half=None), target)
            continue
        building, closed, remarks = _close(building, start, rules)
        events += closed
        notes += remarks
    return building, tuple(events), tuple(notes)


def _open(building: Building, start: datetime) -> Building:
    """Move on to a slot: forget what only closed ones needed."""
    devices = {name: replace(device, series=_trimmed(device, start)) for name, device in building.devices.items()}
    departed = tuple(device for device in building.departed if device.until is not None and device.until > start)
    return replace(building, devices=devices, departed=departed, open_from=start, closed=True)


def _trimmed(device: Device, start: datetime) -> Mapping[Quantity, Series]:
    """Return a device's series without what lies before a slot."""
    return {quantity: trim(series, start) for quantity, series in device.series.items()}


def _close(building: Building, start: datetime, rules: Rules) -> tuple[Building, list[Event], list[Note]]:
    """Close one slot."""
    end = start + QUARTER
    present = [
        device
        for device in (*building.devices.values(), *building.departed)
        if device.kind is not Kind.TARIFF and device.since < end and (device.until is None or device.until > start)
    ]
    roles, unclear = household.roles(present, rules)
    shut = _Shut(building=building, start=start, end=end, rules=rules, roles=roles, counters={})
    devices, device_events = _close_devices(shut, present)
    days, half, house_events, implausible = _close_household(shut, household.members(present, roles))
    notes = [Note(name="implausible_balance")] if implausible else []
    flags = _flags(building, unclear=unclear, implausible=implausible, generated=house_events)
    if not _is_quiet(building):
        device_events = [*house_events, *device_events]
    day_over = day_end(start, ZoneInfo(building.time_zone)) == end
    building = replace(building, devices=devices, days=days, half=half, flags=flags)
    if day_over:
        building, of_day = _close_day(building, start, end, rules)
        device_events = [*device_events, *of_day]
    return _open(building, end), device_events, notes


def _is_quiet(building: Building) -> bool:
    """Tell whether the household's values are held back: its devices name two places (M1.3)."""
    return Flag.AMBIGUOUS_LOCATION in building.flags


def _flags(building: Building, *, unclear: bool, implausible: bool, generated: Sequence[Event]) -> tuple[str, ...]:
    """Return the building's flags after a slot; the sign flag goes with the next sound slot with sun in it."""
    flags = set(building.flags) - {Flag.AMBIGUOUS_METERS}
    if unclear:
        flags.add(Flag.AMBIGUOUS_METERS)
    if implausible:
        flags.add(Flag.WRONG_METER_SIGN)
    elif any(event.type is EventType.ENERGY_GENERATION and event.value >= household.SIGN_MARGIN_WH for event in generated):
        flags.discard(Flag.WRONG_METER_SIGN)
    return tuple(sorted(flags))


class _Shut:
    """What the closing of one slot is about."""

    __slots__ = ("building", "counters", "end", "roles", "rules", "start")

    def __init__(
        self, *, building: Building, start: datetime, end: datetime, rules: Rules,
        roles: Mapping[tuple[Kind, str], Role], counters: dict[tuple[Kind, str], float | None],
    ) -> None:  # fmt: skip
        self.building = building
        self.start = start
        self.end = end
        self.rules = rules
        self.roles = roles
        self.counters = counters  # meters in counter mode -> energy of the slot [Wh], None = the integral serves

    def stamp(self) -> datetime:
        """Return the instant that the slot's events carry."""
        match self.rules.stamp:
            case Stamp.END:
                return self.end
            case Stamp.INSIDE:
                return self.end - timedelta(seconds=1)
            case Stamp.START:
                return self.start

    def enough(self, known_s: float) -> bool:
        """Tell whether enough of the slot is known."""
        return known_s >= self.rules.min_coverage * QUARTER_S

    def event(self, entry: DeviceEntry, type_: EventType, value: float) -> Event:
        """Return an event of this slot."""
        return Event(device=entry.id, name=entry.name, source=entry.type, type=type_, value=tidy(value), at=self.stamp())


# ---- devices ------------------------------------------------------------------------------------------------------


def _close_devices(shut: _Shut, present: Sequence[Device]) -> tuple[dict[str, Device], list[Event]]:
    """Close a slot for each device; returns the devices with their day sums, and their events."""
    has_charger = any(device.kind is Kind.CHARGER for device in present)
    devices = dict(shut.building.devices)
    events: list[Event] = []
    for name in sorted(devices):
        device = devices[name]
        if device.kind is Kind.TARIFF or device.since >= shut.end:
            continue
        if device.kind is Kind.METER and household.counts(device, shut.rules):
            device = _count(shut, device)
        sums, own = _close_device(shut, device, has_charger=has_charger)
        events += own
        devices[name] = replace(device, days={**device.days, **sums}) if sums else device
    return devices, events


def _close_device(shut: _Shut, device: Device, *, has_charger: bool) -> tuple[dict[EventType, Sum], list[Event]]:
    """Close a slot for one device; returns its day sums so far, and its events."""
    entry = entry_of(device)
    sums: dict[EventType, Sum] = {}
    events: list[Event] = []
    if entry is None or _silent(shut, device, has_charger=has_charger):
        return sums, events
    for row in BY_SOURCE[entry.type]:
        if row.cadence is Cadence.CHANGE:
            continue
        if row.energy:
            found = _device_energy(shut, device, row)
            if row.cadence is Cadence.DAY:
                earlier = device.days.get(row.type, Sum())
                sums[row.type] = Sum(earlier.energy_wh + found.energy_wh, earlier.known_s + found.known_s)
            elif shut.enough(found.known_s):
                events.append(shut.event(entry, row.type, found.energy_wh))
        else:
            value = _device_value(shut, device, row)
            if value is not None:
                events.append(shut.event(entry, row.type, value))
    return sums, events


def _silent(shut: _Shut, device: Device, *, has_charger: bool) -> bool:
    """Tell whether a device has no interval events of its own (M2, M3)."""
    if device.kind is Kind.VEHICLE:
        return has_charger or device.facts.engine in ENGINES_WITHOUT_PLUG
    if device.kind is Kind.METER:
        return shut.roles.get((device.kind, device.id)) not in (Role.LOAD, Role.SUB)
    return False


def _device_value(shut: _Shut, device: Device, row: EventRow) -> float | None:
    """Return a device's power [W] or temperature [°C] just before the slot's end."""
    is_power = row.quantity is Quantity.POWER
    limit = household.limit_of(device.kind, shut.rules) if is_power else household.hold_always(shut.rules)
    value = value_before(device.series.get(row.quantity, ()), shut.end, limit)
    if not isinstance(value, float):
        return None
    if is_power and device.kind is Kind.METER:
        value *= household.sign_of(device, shut.rules)
    return max(value, 0.0) if is_power else value


def _device_energy(shut: _Shut, device: Device, row: EventRow) -> Sum:
    """Return the energy [Wh] of one part of a device's power in the slot, and the time for which it is known."""
    counted = shut.counters.get((device.kind, device.id))
    if counted is not None:
        return Sum(counted, QUARTER_S)
    total = known = 0.0
    for piece in household.power_track(device, shut.start, shut.end, shut.rules, absent=None):
        power_w = -piece.value if row.part is Part.NEGATIVE else piece.value
        total += energy_wh(max(power_w, 0.0), piece.end - piece.start)
        known += piece.end - piece.start
    return Sum(total, known)


def _count(shut: _Shut, device: Device) -> Device:
    """Read a meter's counter for the slot into `shut.counters` (M4.4); returns the device with its new base."""
    base = device.counter_base
    started = base is not None
    sound = True
    alive = True
    for sample in device.series.get(Quantity.COUNTER, ()):
        if sample.at >= shut.end:
            break
        alive = isinstance(sample.value, float) and holds_until(sample, household.hold_always(shut.rules)) >= shut.end
        if not isinstance(sample.value, float):
            continue
        if base is None or sample.at <= shut.start:
            base = base if base is not None and sample.value < base[1] < sample.value + DIP_WH else (sample.at, sample.value)
            started = started or sample.at <= shut.start
            continue
        step = sample.value - base[1]
        if -DIP_WH < step < 0:
            continue
        if step < 0 or step > energy_wh(STEEPEST_W, max((sample.at - base[0]).total_seconds(), 1.0)):
            sound = False
        base = (sample.at, sample.value)
    first = _reading_at(device, shut.start)
    energy = base[1] - first if base is not None and first is not None else None
    usable = started and sound and alive and energy is not None
    shut.counters[device.kind, device.id] = max(energy, 0.0) if usable and energy is not None else None
    return replace(device, counter_base=base)


def _reading_at(device: Device, start: datetime) -> float | None:
    """Return the last counter reading [Wh] at or before a slot's start; the base where the series holds none."""
    found = device.counter_base[1] if device.counter_base is not None else None
    for sample in device.series.get(Quantity.COUNTER, ()):
        if sample.at > start:
            break
        if isinstance(sample.value, float) and not (found is not None and sample.value < found < sample.value + DIP_WH):
            found = sample.value
    return found


# ---- household ----------------------------------------------------------------------------------------------------


def _close_household(shut: _Shut, who: Members) -> tuple[dict[str, Sum], Sum | None, list[Event], bool]:
    """Close a slot for the household; returns day sums, open half hour, events, and whether the balance cannot be."""
    found = household.flows(who, shut.start, shut.end, shut.rules)
    implausible = bool(who.grid) and household.wrong_sign(found)
    values = household.powers(who, shut.end, shut.rules)
    energies = _energies(shut, who, found)
    if implausible:
        values = {EventType.POWER_GENERATION: v for t, v in values.items() if t is EventType.POWER_GENERATION}
        energies = {t: s for t, s in energies.items() if t == EventType.ENERGY_GENERATION}
    entry = gateway_entry(shut.building.id)
    events = [shut.event(entry, type_, value) for type_, value in values.items()]
    for type_ in (EventType.ENERGY_GENERATION, EventType.GRID_ENERGY_CONSUMPTION, EventType.ENERGY_CONSUMPTION):
        if type_ in energies and shut.enough(energies[type_].known_s):
            events.append(shut.event(entry, type_, energies[type_].energy_wh))
    half, excess = _half_hour(shut, energies.get(EventType.ENERGY_EXCESS))
    if excess is not None:
        events.append(shut.event(entry, EventType.ENERGY_EXCESS, excess))
    events += [shut.event(entry, type_, value) for type_, value in _rates(energies, shut.enough)]
    days = dict(shut.building.days)
    for name, energy in energies.items():
        earlier = days.get(name, Sum())
        days[name] = Sum(earlier.energy_wh + energy.energy_wh, earlier.known_s + energy.known_s)
    return days, half, events, implausible


# Sums that only the rates need; like the event types they are keys of `Building.days`.
_PAIR_GENERATION: Final = "pair-generation"
_PAIR_EXCESS: Final = "pair-excess"
_ALL_CONSUMPTION: Final = "all-consumption"
_ALL_DRAW: Final = "all-draw"


def _energies(shut: _Shut, who: Members, found: Flows) -> dict[str, Sum]:
    """Return the household's energies [Wh] of a slot, each with the time for which it is known."""
    energies: dict[str, Sum] = {}
    behind_meter = bool(who.inverters or who.batteries)
    if who.inverters:
        energies[EventType.ENERGY_GENERATION] = found.generation
    if who.grid:
        energies[EventType.GRID_ENERGY_CONSUMPTION] = _counted(shut, who.grid) or found.draw
        consumed = Sum(max(found.net.energy_wh, 0.0), found.net.known_s)
        energies[EventType.ENERGY_CONSUMPTION] = consumed
        if behind_meter:
            energies[EventType.ENERGY_EXCESS] = found.excess
            energies[_ALL_CONSUMPTION] = consumed
            energies[_ALL_DRAW] = found.all_draw
        else:  # M4.4: without inverter and battery, consumption is what the grid gave
            energies[EventType.ENERGY_CONSUMPTION] = energies[EventType.GRID_ENERGY_CONSUMPTION]
        if who.inverters:
            energies[_PAIR_GENERATION] = found.pair_generation
            energies[_PAIR_EXCESS] = found.pair_excess
    elif who.load:
        load = Sum(max(found.load.energy_wh, 0.0), found.load.known_s)
        energies[EventType.ENERGY_CONSUMPTION] = _counted(shut, who.load) or load
    return energies


def _counted(shut: _Shut, meters: Sequence[Device]) -> Sum | None:
    """Return what the counters of all these meters say [Wh]; None as soon as one does not serve."""
    found = [shut.counters.get((meter.kind, meter.id)) for meter in meters]
    known = [energy for energy in found if energy is not None]
    return Sum(sum(known), QUARTER_S) if known and len(known) == len(found) else None


def _half_hour(shut: _Shut, excess: Sum | None) -> tuple[Sum | None, float | None]:
    """Return what the open half hour holds now, and its excess [Wh] where it is over and known (M5.3)."""
    if shut.start.minute % 30 == 0:
        return excess, None
    first = shut.building.half
    if excess is None or first is None:
        return None, None
    known = first.known_s + excess.known_s
    if known < shut.rules.min_coverage * 2 * QUARTER_S:
        return None, None
    return None, first.energy_wh + excess.energy_wh


def _rates(energies: Mapping[str, Sum], enough: Callable[[float], bool], suffix: str = "") -> Iterator[tuple[EventType, float]]:
    """Yield self-consumption and self-sufficiency [%] from slot or day energies."""
    generation, excess = energies.get(_PAIR_GENERATION), energies.get(_PAIR_EXCESS)
    if generation is not None and excess is not None and enough(generation.known_s):
        value = household.rate(generation.energy_wh - excess.energy_wh, generation.energy_wh)
        if value is not None:
            yield EventType(f"SELF_CONSUMPTION_RATE{suffix}"), value
    consumed, draw = energies.get(_ALL_CONSUMPTION), energies.get(_ALL_DRAW)
    if consumed is not None and draw is not None and enough(consumed.known_s):
        value = household.rate(consumed.energy_wh - draw.energy_wh, consumed.energy_wh)
        if value is not None:
            yield EventType(f"SELF_SUFFICIENCY_RATE{suffix}"), value


# ---- days ---------------------------------------------------------------------------------------------------------


class _Enough:
    """Whether enough of an interval is known."""

    __slots__ = ("least_s",)

    def __init__(self, length: timedelta, rules: Rules) -> None:
        self.least_s = rules.min_coverage * length.total_seconds()

    def __call__(self, known_s: float) -> bool:
        return known_s >= self.least_s


_DAY_TYPES: Final[Mapping[EventType, EventType]] = {
    EventType.ENERGY_GENERATION: EventType.ENERGY_GENERATION_YESTERDAY,
    EventType.GRID_ENERGY_CONSUMPTION: EventType.GRID_ENERGY_CONSUMPTION_YESTERDAY,
    EventType.ENERGY_CONSUMPTION: EventType.ENERGY_CONSUMPTION_YESTERDAY,
    EventType.ENERGY_EXCESS: EventType.ENERGY_EXCESS_YESTERDAY,
}


def _close_day(building: Building, start: datetime, end: datetime, rules: Rules) -> tuple[Building, list[Event]]:
    """Close the local day that ends with a slot (M5.8)."""
    enough = _Enough(end - day_start(start, ZoneInfo(building.time_zone)), rules)
    gateway = gateway_entry(building.id)
    values: list[tuple[DeviceEntry, EventType, float]] = []
    if not _is_quiet(building):
        for type_, of_day in _DAY_TYPES.items():
            total = building.days.get(type_)
            if total is not None and enough(total.known_s):
                values.append((gateway, of_day, total.energy_wh))
        values += [(gateway, type_, value) for type_, value in _rates(building.days, enough, "_YESTERDAY")]
    for name in sorted(building.devices):
        device = building.devices[name]
        entry = entry_of(device)
        if entry is not None:
            values += [(entry, type_, total.energy_wh) for type_, total in device.days.items() if enough(total.known_s)]
    events = [
        Event(device=entry.id, name=entry.name, source=entry.type, type=type_, value=tidy(value), at=end)
        for entry, type_, value in values
    ]
    devices = {name: replace(device, days={}) for name, device in building.devices.items()}
    return replace(building, devices=devices, days={}), events
