"""What leaves when one slot closes: the values of its devices and of the household (mapping rules M3, M4, M5.3).

Rules:
- A device's values leave as long as it is there; the household counts it up to its delete (M5.7).
- A power or temperature is the value just before the slot's end, an energy the integral over the time that is known,
  sent if that is enough of the slot.
- The excess energy is one of half hours: it leaves with the second quarter, stamped by the half hour's own ends.

Theory of operation: `close` looks at each device once (a `Track`), and everything is read off these tracks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, assert_never
from zoneinfo import ZoneInfo

from bridge.core.copying import replace
from bridge.core.counters import Reading, count
from bridge.core.days import added, close_day, day_end, day_start, enough_of, is_ahead, is_apart, own_day
from bridge.core.devices import entry_of, gateway_entry
from bridge.core.effects import DeviceEntry, Event, Note
from bridge.core.findings import marked
from bridge.core.household import (
    SIGN_MARGIN_WH,
    Members,
    Tally,
    energies,
    flows,
    lacking,
    members,
    powers,
    rates,
    suspects,
    turned,
    wrong_sign,
)
from bridge.core.intervals import QUARTER, QUARTER_S, trim, value_before
from bridge.core.mapping import BY_SOURCE, ENGINES_WITHOUT_PLUG, Part
from bridge.core.messages import Quantity
from bridge.core.model import Building, Device, Flag, Series, Sum, name_of
from bridge.core.rules import Role, Rules, Stamp
from bridge.core.tracks import Track, counts, hold_always, is_ignored, present, roles, track
from bridge.core.units import tidy
from bridge.core.vocabulary import Cadence, DeviceType, EventType, Kind

HALF_HOUR: Final = 2 * QUARTER
INSIDE: Final = timedelta(seconds=1)  # M5.1: how far before the end "inside" is
PATIENCE: Final = timedelta(hours=6)  # M4.5: a household that waits longer for one device is told

_PARTS: Final[Mapping[DeviceType, frozenset[Part]]] = {
    source: frozenset(row.part for row in rows if row.energy) for source, rows in BY_SOURCE.items()
}
_SLOT_ENERGIES: Final = (EventType.ENERGY_GENERATION, EventType.GRID_ENERGY_CONSUMPTION, EventType.ENERGY_CONSUMPTION)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """The slot that is closed, and what all its devices share."""

    start: datetime
    end: datetime
    rules: Rules
    enough: Callable[[float], bool]
    roles: Mapping[str, Role]
    has_charger: bool
    counted: dict[str, float]  # meter -> what its counter grew [Wh], where that serves

    def event(self, entry: DeviceEntry, type_: EventType, value: float, length: timedelta = QUARTER) -> Event:
        """Return an event of the interval that ends with this slot."""
        match self.rules.stamp:
            case Stamp.END:
                at = self.end
            case Stamp.INSIDE:
                at = self.end - INSIDE
            case Stamp.START:
                at = self.end - length
            case _:
                assert_never(self.rules.stamp)
        return Event(device=entry.id, name=entry.name, source=entry.type, type=type_, value=tidy(value), at=at)


def close(building: Building, start: datetime, rules: Rules) -> tuple[Building, list[Event], list[Note]]:
    """Close one slot."""
    end = start + QUARTER
    living, everybody = present(building, end)
    slot, unclear = _slot(everybody, start, rules)
    tracks = [track(device, start, end, rules) for device in everybody]
    devices = dict(building.devices)
    own: list[Event] = []
    for name, one in zip(living, tracks, strict=False):
        devices[name], events = _close_device(slot, one)
        own += events
    building = marked(replace(building, devices=devices), Flag.AMBIGUOUS_METERS, on=bool(unclear), about=unclear)
    building, house, notes = _close_household(slot, building, tracks)
    if not is_apart(building, end):
        own = [*house, *own]
    if day_end(start, ZoneInfo(building.time_zone)) == end:
        building, of_day = close_day(building, start, end, rules)
        own += of_day
    return _open(building, end), own, notes


def _slot(everybody: Sequence[Device], start: datetime, rules: Rules) -> tuple[Slot, tuple[str, ...]]:
    """Return the slot that some devices take part in, and the meters among them that are ambiguous."""
    roles_, unclear = roles(everybody, rules)
    return Slot(
        start=start, end=start + QUARTER, rules=rules, enough=enough_of(QUARTER, rules), roles=roles_, counted={},
        has_charger=any(device.kind is Kind.CHARGER for device in everybody),
    ), unclear  # fmt: skip


def close_own(building: Building, device: Device, until: datetime, rules: Rules) -> tuple[Device, list[Event]]:
    """Close the slots that ended by an instant for one device of the building, whatever the building's clock says.

    What a message changes of a device does not change what left before it (M5.7, M5.11). The household takes its own
    time: it counts the device in these slots when it closes them.
    """
    if building.open_from is None or device.kind is Kind.TARIFF:
        return device, []
    zone = ZoneInfo(building.time_zone)
    start = max(building.open_from, device.own_from or building.open_from)
    events: list[Event] = []
    one = device  # as it would be, were the household's slots closed too
    while start + QUARTER <= until:
        end = start + QUARTER
        _, everybody = present(building, end)
        if device.since < end:
            slot, _ = _slot(everybody, start, rules)
            one, own = _close_device(slot, track(one, start, end, rules))
            events += own
        if day_end(start, zone) == end:
            events += own_day(one, end, enough_of(end - day_start(start, zone), rules))
            one = replace(one, days={})
        start = end
    return replace(device, days=one.days, own_from=start), events


def skip(building: Building, start: datetime) -> Building:
    """Return the building with `start` as its first open slot; nothing is known of those before it."""
    devices = {name: replace(device, series=_trimmed(device, start)) for name, device in building.devices.items()}
    return _open(replace(building, devices=devices, half=None), start)


def _open(building: Building, start: datetime) -> Building:
    """Return the building with `start` as its first open slot."""
    departed = tuple(device for device in building.departed if device.until is not None and device.until > start)
    apart = tuple(one for one in building.apart if one[1] is None or one[1] > start)
    return replace(building, departed=departed, apart=apart, open_from=start, closed=True)


def _trimmed(device: Device, start: datetime) -> dict[Quantity, Series]:
    """Return a device's series without the samples that slots from `start` on do not need."""
    return {quantity: trim(samples, start) for quantity, samples in device.series.items()}


# ---- devices --------------------------------------------------------------------------------------------------------


def _close_device(slot: Slot, one: Track) -> tuple[Device, list[Event]]:
    """Close a slot for one device; returns it with its day's sums so far, and its events."""
    device = one.device
    base = _count(slot, one) if counts(device, slot.rules) else device.counter_base
    sums: dict[EventType, Sum] = {}
    events: list[Event] = []
    entry = None if _silent(slot, device) or is_ahead(device, slot.end) else entry_of(device)
    if entry is not None:
        energies_ = {part: _energy(slot, one, part) for part in _PARTS[entry.type]}
        for row in BY_SOURCE[entry.type]:
            if row.cadence is Cadence.DAY:
                sums[row.type] = energies_[row.part]
            elif row.cadence is Cadence.QUARTER:
                value = _sent(slot, energies_[row.part]) if row.energy else _instant(slot, one, row.quantity)
                if value is not None:
                    events.append(slot.event(entry, row.type, value))
    series = _trimmed(device, slot.end)
    return replace(device, series=series, days=added(device.days, sums), counter_base=base), events


def _silent(slot: Slot, device: Device) -> bool:
    """Tell whether a device has no interval events of its own (M2, M3, M4.2)."""
    if is_ignored(device, slot.rules):
        return True
    if device.kind is Kind.VEHICLE:
        return slot.has_charger or device.facts.engine in ENGINES_WITHOUT_PLUG
    return device.kind is Kind.METER and slot.roles[name_of(device)] not in {Role.LOAD, Role.SUB}


def _sent(slot: Slot, energy: Sum) -> float | None:
    """Return an energy [Wh] that may leave: one of which enough is known."""
    return energy.energy_wh if slot.enough(energy.known_s) else None


def _instant(slot: Slot, one: Track, quantity: Quantity) -> float | None:
    """Return a device's power [W] or temperature [°C] just before the slot's end, if it is known then."""
    if quantity is Quantity.POWER:
        return max(one.last, 0.0) if one.last is not None else None
    value = value_before(one.device.series.get(quantity, ()), slot.end, hold_always(slot.rules))
    return value if isinstance(value, float) else None


def _energy(slot: Slot, one: Track, part: Part) -> Sum:
    """Return the energy [Wh] of one part of a device's power in the slot, and the time for which it is known."""
    counted_wh = slot.counted.get(name_of(one.device)) if one.device.kind is Kind.METER else None
    if counted_wh is not None:
        return Sum(counted_wh, QUARTER_S)
    tally = Tally()
    for start, end, power_w in one.pieces:
        tally.add(max(-power_w if part is Part.NEGATIVE else power_w, 0.0), end - start)
    return tally.sum


def _count(slot: Slot, one: Track) -> Reading | None:
    """Read a meter's counter for the slot into `slot.counted`; returns where the next slot goes on (M4.4)."""
    found = count(one.device, slot.start, slot.end, slot.rules, served=bool(one.pieces))
    if found.energy_wh is not None:
        slot.counted[name_of(one.device)] = found.energy_wh
    return found.base


# ---- household ------------------------------------------------------------------------------------------------------


def _close_household(
    slot: Slot, building: Building, tracks: Sequence[Track]
) -> tuple[Building, list[Event], list[Note]]:
    """Close a slot for the household."""
    who = members(tracks, slot.roles, slot.rules)
    found = flows(who)
    counter_mode = any(counts(meter.device, slot.rules) for meter in who.grid)
    sums = energies(who, found, slot.counted, counter_mode=counter_mode)
    values = powers(who)
    implausible = wrong_sign(found)
    if implausible:  # M4.5: nothing leaves that the meter has a part in
        values = {type_: value for type_, value in values.items() if type_ is EventType.POWER_GENERATION}
        sums = {name: sum_ for name, sum_ in sums.items() if name == EventType.ENERGY_GENERATION}
    values |= {
        name: sums[name].energy_wh for name in _SLOT_ENERGIES if name in sums and slot.enough(sums[name].known_s)
    }
    values |= rates(sums, slot.enough)
    gateway = gateway_entry(building.id)
    events = [slot.event(gateway, type_, value) for type_, value in values.items()]
    half, excess_wh = _half_hour(slot, building.half, sums.get(EventType.ENERGY_EXCESS))
    if excess_wh is not None:
        events.append(slot.event(gateway, EventType.ENERGY_EXCESS, excess_wh, HALF_HOUR))
    building = replace(building, days=added(building.days, sums), half=half)
    if implausible:
        building = _suspected(building, who)
    elif Flag.WRONG_METER_SIGN in building.flags and _is_sound(building, who, values):
        building = marked(building, Flag.WRONG_METER_SIGN, on=False)
    building = _waiting(slot, building, who)
    return building, events, [Note(name="implausible_balance")] if implausible else []


def _suspected(building: Building, who: Members) -> Building:
    """Return a building whose balance cannot be, with the one sign that would explain it (M4.5)."""
    found = suspects(who)
    known = building.about.get(Flag.WRONG_METER_SIGN, ())
    about = (name_of(found[0].device),) if len(found) == 1 else known
    return marked(building, Flag.WRONG_METER_SIGN, on=True, about=about)


def _is_sound(building: Building, who: Members, values: Mapping[EventType, float]) -> bool:
    """Tell whether a balance would have shown a wrong sign: in the sun, or because the suspect's sign must be right."""
    if values.get(EventType.ENERGY_GENERATION, 0.0) >= SIGN_MARGIN_WH:
        return True
    about = building.about.get(Flag.WRONG_METER_SIGN, ())
    return any(
        name_of(one.device) in about and wrong_sign(flows(turned(who, one))) for one in (*who.grid, *who.batteries)
    )


def _waiting(slot: Slot, building: Building, who: Members) -> Building:
    """Return the building with the devices for want of which its values are withheld (M4.5)."""
    names = [name_of(one.device) for one in lacking(who, slot.enough)]
    if not names and not building.waits:
        return building
    waits = {name: building.waits.get(name, slot.start) for name in names}
    building = replace(building, waits=waits)
    about = building.about.get(Flag.WAITS_FOR_DEVICE, ())
    if len(names) == 1 and slot.end - waits[names[0]] > PATIENCE:
        return marked(building, Flag.WAITS_FOR_DEVICE, on=True, about=(names[0],))
    return building if set(about) & set(names) else marked(building, Flag.WAITS_FOR_DEVICE, on=False)


def _half_hour(slot: Slot, first: Sum | None, excess: Sum | None) -> tuple[Sum | None, float | None]:
    """Return what the open half hour holds now, and its excess [Wh] where it is over and known (M5.3)."""
    if slot.start.minute % 30 == 0:
        return excess, None
    both = [quarter for quarter in (first, excess) if quarter is not None]
    enough = enough_of(HALF_HOUR, slot.rules)(sum(quarter.known_s for quarter in both))
    return None, sum(quarter.energy_wh for quarter in both) if enough else None
