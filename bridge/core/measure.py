"""One slot of a building, measured: each value, for how long what it needs is known, and why one does not leave.

Rules:
- A power or temperature is the value just before the slot's end, an energy the integral over the time that is known,
  sent if that is enough of the slot (M5.3). What a counter says takes the place of a meter's integral (M4.4).
- The excess energy is one of half hours: it leaves with the second quarter (M5.3).
- What cannot be is withheld, and neither the half hour nor the day counts it (M4.5, M5.8).
- Closing makes events of what is found here, and `explain` words: neither reckons by itself.

Theory of operation: `measure` looks at each device once (a `Track`); everything is read off these tracks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from bridge.core.counters import count
from bridge.core.devices import device_type
from bridge.core.household import (
    Flows,
    GroupCount,
    Members,
    Tally,
    energies,
    flows,
    members,
    powers,
    rates,
    together,
    wrong_sign,
)
from bridge.core.intervals import QUARTER, value_before
from bridge.core.mapping import BY_SOURCE, ENGINES_WITHOUT_PLUG, Part
from bridge.core.messages import Quantity
from bridge.core.model import Building, Device, Half, Sum
from bridge.core.rules import Role, Rules
from bridge.core.tracks import (
    Measured,
    Track,
    Why,
    counts,
    enough_of,
    hold_always,
    is_ignored,
    meter_rule,
    present,
    roles,
    seconds,
    track,
)
from bridge.core.vocabulary import Cadence, DeviceType, EventType, Kind

_PARTS: Final[Mapping[DeviceType, frozenset[Part]]] = {
    source: frozenset(row.part for row in rows if row.energy) for source, rows in BY_SOURCE.items()
}
_SLOT_ENERGIES: Final = (EventType.ENERGY_GENERATION, EventType.GRID_ENERGY_CONSUMPTION, EventType.ENERGY_CONSUMPTION)
_SOUND: Final = frozenset({EventType.POWER_GENERATION, EventType.ENERGY_GENERATION})  # no meter has a part in these


class Own(NamedTuple):
    """What a device itself says of a slot; a type that is missing is unknown."""

    values: Mapping[EventType, Measured]
    days: Mapping[EventType, Sum]  # what it adds to the day


NOTHING: Final = Own({}, {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A slot as it is known now."""

    start: datetime
    tracks: Sequence[Track]  # of all that take part, also of what has left
    living: Mapping[str, Track]  # of those that are there, by name
    roles: Mapping[str, Role]
    unclear: tuple[str, ...]  # meters without a role beside others
    who: Members
    flows: Flows
    own: Mapping[str, Own]  # by the device's name
    house: Mapping[EventType, Measured]  # a type that is missing is unknown, or nobody has a part in it
    days: Mapping[str, Sum]  # what the household adds to the day
    half: Half | None  # what the open half hour holds with this slot, or has held
    implausible: bool

    @property
    def end(self) -> datetime:
        """Return when it ends."""
        return self.start + QUARTER


def measure(building: Building, start: datetime, rules: Rules) -> Measure:
    """Measure the slot of a building that begins at `start`, its first open one."""
    living, everybody = present(building, start + QUARTER)
    roles_, unclear = roles(everybody, rules)
    has_charger = any(device.kind is Kind.CHARGER for device in everybody)
    tracks = [tracked(device, start, rules) for device in everybody]
    who = members(tracks, roles_, rules)
    moved = flows(who)
    implausible = wrong_sign(moved)
    counted = together(who.grid or who.load)
    if counted is not None and counted.spare_s:
        tracks = [_with_spare(one, who.grid or who.load, counted) for one in tracks]
    house, days, excess = _household(who, moved, counted, rules, implausible=implausible)
    half = _half_hour(building.half, start, excess, implausible=implausible)
    if start.minute % 30 != 0 and half is not None:
        house[EventType.ENERGY_EXCESS] = _of_half(half, rules)
    there = dict(zip(living, tracks, strict=False))
    return Measure(
        start=start,
        tracks=tracks,
        living=there,
        roles=roles_,
        unclear=unclear,
        who=who,
        flows=moved,
        own={name: own_of(one, start, rules, has_charger=has_charger) for name, one in there.items()},
        house=house,
        days=days,
        half=half,
        implausible=implausible,
    )


def tracked(device: Device, start: datetime, rules: Rules) -> Track:
    """Return what a device's power did in a slot, and what its counter says."""
    one = track(device, start, start + QUARTER, rules)
    if not counts(device, rules):
        return one
    served = enough_of(QUARTER, rules)(seconds(one.pieces))
    return one._replace(counted=count(one, start, rules, served=served))


def _judged(energy: Sum, enough: Callable[[float], bool], why: Why | None = None) -> Measured:
    """Return an energy [Wh], which leaves if enough of it is known."""
    return Measured(energy.energy_wh, energy.known_s, why if enough(energy.known_s) else why or Why.UNKNOWN)


# ---- devices --------------------------------------------------------------------------------------------------------


def own_of(one: Track, start: datetime, rules: Rules, *, has_charger: bool) -> Own:
    """Return what a device itself says of a slot."""
    device = one.device
    type_ = device_type(device)
    if type_ is None or _silent(device, rules, has_charger=has_charger):
        return NOTHING
    enough = enough_of(QUARTER, rules)
    values: dict[EventType, Measured] = {}
    days: dict[EventType, Sum] = {}
    parts = {part: _energy(one, part) for part in _PARTS[type_]}
    for row in BY_SOURCE[type_]:
        if row.cadence is Cadence.DAY:
            days[row.type] = parts[row.part] if one.counted is None else one.counted.of_day
        elif row.energy:
            why = one.counted.why if one.counted is not None else None
            values[row.type] = _judged(parts[row.part], enough, why)
        elif row.cadence is Cadence.QUARTER:
            value = _instant(one, row.quantity, start + QUARTER, rules)
            if value is not None:
                values[row.type] = Measured(value)
    return Own(values, days)


def _silent(device: Device, rules: Rules, *, has_charger: bool) -> bool:
    """Tell whether a device has no interval events of its own (M2, M3, M4.2)."""
    if is_ignored(device, rules):
        return True
    if device.kind is Kind.VEHICLE:
        return has_charger or device.facts.engine in ENGINES_WITHOUT_PLUG
    return device.kind is Kind.METER and meter_rule(device, rules).role not in {Role.LOAD, Role.SUB}


def _instant(one: Track, quantity: Quantity, end: datetime, rules: Rules) -> float | None:
    """Return a device's power [W] or temperature [°C] just before the slot's end, if it is known then."""
    if quantity is Quantity.POWER:
        return max(one.last, 0.0) if one.last is not None else None
    value = value_before(one.device.series.get(quantity, ()), end, hold_always(rules))
    return value if isinstance(value, float) else None


def _energy(one: Track, part: Part) -> Sum:
    """Return the energy [Wh] of one part of a device's power in the slot, and the time for which it is known."""
    if one.counted is not None:
        return one.counted.of_slot
    tally = Tally()
    for start, end, power_w in one.pieces:
        tally.add(max(-power_w if part is Part.NEGATIVE else power_w, 0.0), end - start)
    return tally.sum


# ---- the household --------------------------------------------------------------------------------------------------


def _with_spare(one: Track, meters: Sequence[Track], counted: GroupCount) -> Track:
    """Return a meter with what the day knows of it, but not of the others that count with it."""
    spare_s = next((mine_s for meter, mine_s in zip(meters, counted.spare_s, strict=True) if meter is one), None)
    if spare_s is None or one.counted is None or one.counted.level is None:
        return one
    return one._replace(counted=one.counted._replace(level=one.counted.level._replace(spare_s=spare_s)))


def _household(
    who: Members, moved: Flows, counted: GroupCount | None, rules: Rules, *, implausible: bool
) -> tuple[dict[EventType, Measured], dict[str, Sum], Sum | None]:
    """Return the household's values, what they add to the day, and its excess of the slot."""
    enough = enough_of(QUARTER, rules)
    house = {type_: Measured(power_w) for type_, power_w in powers(who).items()}
    sums = energies(who, moved)
    days = dict(sums)
    whys: dict[str, Why | None] = {}
    if counted is not None:
        for name in _by_counters(who):
            sums[name], days[name], whys[name] = counted.of_slot, counted.of_day, counted.why
    for name in _SLOT_ENERGIES:
        if name in sums:
            house[name] = _judged(sums[name], enough, whys.get(name))
    house |= rates(sums, enough)
    excess = sums.get(EventType.ENERGY_EXCESS)
    if implausible:  # M4.5: nothing leaves that a meter has a part in
        house = {name: one if name in _SOUND else one._replace(why=Why.IMPLAUSIBLE) for name, one in house.items()}
        days = {name: sum_ for name, sum_ in days.items() if name in _SOUND}
        excess = None
    return house, days, excess


def _by_counters(who: Members) -> Sequence[EventType]:
    """Return the types in which the counters of meters take the place of an integral, where all of a group count."""
    if not who.grid:
        return (EventType.ENERGY_CONSUMPTION,)
    if who.sources:
        return (EventType.GRID_ENERGY_CONSUMPTION,)
    return (EventType.GRID_ENERGY_CONSUMPTION, EventType.ENERGY_CONSUMPTION)


def _half_hour(first: Half | None, start: datetime, excess: Sum | None, *, implausible: bool) -> Half | None:
    """Return what the half hour holds with a slot (M5.3)."""
    quarter = Half(*(excess or Sum()), wrong=implausible) if excess is not None or implausible else None
    if start.minute % 30 == 0 or first is None:
        return quarter
    if quarter is None:
        return first
    return Half(
        first.energy_wh + quarter.energy_wh, first.known_s + quarter.known_s, wrong=first.wrong or quarter.wrong
    )


def _of_half(half: Half, rules: Rules) -> Measured:
    """Return the excess of a half hour [Wh] that is over."""
    energy = Sum(half.energy_wh, half.known_s)
    return _judged(energy, enough_of(2 * QUARTER, rules), Why.IMPLAUSIBLE if half.wrong else None)
