"""One slot taken apart: who took part, which samples were in force, what is known and what comes of it.

Rules:
- The same functions as in `core.closing` say it; nothing is computed in another way here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from bridge.core.counters import count
from bridge.core.devices import moost_id
from bridge.core.household import Flows, Tally, energies, flows, members, powers, wrong_sign
from bridge.core.intervals import BLANK, GONE, NEVER, QUARTER, QUARTER_S
from bridge.core.mapping import BY_SOURCE, Part
from bridge.core.messages import Quantity, Tick
from bridge.core.model import Building, Device, Sample, Sum, name_of
from bridge.core.reduce import reduce
from bridge.core.rules import Role, Rules
from bridge.core.tracks import Track, counts, present, roles, sign_of, track
from bridge.core.vocabulary import EVENT_TYPES, Cadence, DeviceType, EventType, Kind

_GENERATION: Final = frozenset({Kind.PV_INVERTER})
_GRID: Final = frozenset({Kind.METER})
_BOTH: Final = _GENERATION | _GRID
_ALL: Final = _BOTH | {Kind.BATTERY}

_TAKES: Final[Mapping[EventType, frozenset[Kind]]] = {
    EventType.POWER_GENERATION: _GENERATION,
    EventType.ENERGY_GENERATION: _GENERATION,
    EventType.GRID_POWER_CONSUMPTION: _GRID,
    EventType.GRID_ENERGY_CONSUMPTION: _GRID,
    EventType.POWER_EXCESS: _GRID,
    EventType.ENERGY_EXCESS: _GRID,
    EventType.SELF_CONSUMPTION_RATE: _BOTH,
}
"""Household types and the kinds that they need; the others need all three."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A known value [W] of a device; from its meter's side already turned to import positive."""

    start: datetime
    end: datetime
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Taking:
    """A device that takes part in a value."""

    device: Device
    role: str
    quantity: Quantity
    samples: Sequence[Sample]  # the one in force at the start, and those within
    known: Sequence[Stretch]  # of its power
    counted_wh: float | None = None  # what its counter grew, where that serves


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A slot just before it closes."""

    start: datetime
    building: Building
    rules: Rules
    tracks: Sequence[Track]
    roles: Mapping[str, Role]
    flows: Flows
    counted: Mapping[str, float]
    sums: Mapping[str, Sum]
    powers: Mapping[EventType, float]
    implausible: bool

    @property
    def end(self) -> datetime:
        """Return when it ends."""
        return self.start + QUARTER

    def known_s(self, type_: EventType, device: str | None) -> float | None:
        """Return for how long what a value needs is known [s]; None where it is that of an instant."""
        if device is not None:
            return self._device_known_s(type_, device)
        if type_ is EventType.SELF_CONSUMPTION_RATE:
            return self.flows.pair_generation.sum.known_s
        if type_ is EventType.SELF_SUFFICIENCY_RATE:
            return self.flows.net.sum.known_s
        if type_ in self.powers or type_.value.startswith(("POWER_", "GRID_POWER_")):
            return None
        found = self.sums.get(type_)
        return found.known_s if found is not None else 0.0

    def _device_known_s(self, type_: EventType, device: str) -> float | None:
        one = next((one for one in self.tracks if moost_id(one.device) == device), None)
        if one is None or not type_.value.startswith("ENERGY_"):
            return None
        if one.device.kind is Kind.METER and name_of(one.device) in self.counted:
            return QUARTER_S
        return sum(piece.end - piece.start for piece in one.pieces)

    def taking(self, type_: EventType, device: str | None) -> list[Taking]:
        """Return the devices that a value is made of."""
        return [
            self._taking(one, Quantity.POWER if "TEMPERATURE" not in type_ else Quantity.TEMPERATURE)
            for one in self.tracks
            if self._takes_part(one.device, type_, device)
        ]

    def _takes_part(self, one: Device, type_: EventType, device: str | None) -> bool:
        if device is not None:
            return moost_id(one) == device
        if one.kind not in _TAKES.get(type_, _ALL):
            return False
        if one.kind is not Kind.METER:
            return True
        grid = Role.GRID in self.roles.values()
        return self.roles[name_of(one)] is (Role.GRID if grid else Role.LOAD)

    def _taking(self, one: Track, quantity: Quantity) -> Taking:
        device = one.device
        counted = self.counted.get(name_of(device)) if device.kind is Kind.METER else None
        used = Quantity.COUNTER if counted is not None else quantity
        return Taking(
            device=device,
            role=self._role(device),
            quantity=used,
            samples=_in_force(device.series.get(used, ()), self.start, self.end),
            known=[Stretch(start=self._at(p.start), end=self._at(p.end), value=p.value) for p in one.pieces],
            counted_wh=counted,
        )

    def _at(self, seconds: float) -> datetime:
        return self.start + timedelta(seconds=seconds)

    def _role(self, device: Device) -> str:
        if device.kind is not Kind.METER:
            return {Kind.PV_INVERTER: "production", Kind.BATTERY: "battery, + = charging"}.get(device.kind, "consumer")
        sign = "import" if sign_of(device, self.rules) > 0 else "export"
        return f"{self.roles[name_of(device)].value} meter, {sign} is positive"


def _in_force(series: Sequence[Sample], start: datetime, end: datetime) -> list[Sample]:
    """Return the sample in force at the start, and those within the slot."""
    first = max((place for place, sample in enumerate(series) if sample.at <= start), default=0)
    return [sample for sample in series[first:] if sample.at < end]


def mark(sample: Sample) -> str:
    """Return what a sample is that no value brought."""
    if sample.seen == GONE:
        return "disconnected"
    if sample.seen == NEVER:
        return "offline" if sample.value is None else "offline at dusk: asleep"
    if sample.seen == BLANK and sample.value is not None:
        return "nulls at dusk: asleep"
    return "" if sample.value is not None else "ended: the message had no usable value"


def opened(building: Building, start: datetime, rules: Rules) -> Building | None:
    """Return a household just before it closes the slot; None where it passes the slot over: nothing is known in it."""
    tick = Tick(now=start + rules.grace)
    state = replace(building, clock=None, last_received=None, backlog=None)
    while state.open_from is not None and state.open_from < start:
        before = state.open_from
        state, _ = reduce(state, tick, rules)
        if state.open_from == before:
            return None
    return state if state.open_from == start else None


def dissect(building: Building, start: datetime, rules: Rules) -> Slot:
    """Return the anatomy of a household's first open slot."""
    end = start + QUARTER
    _, everybody = present(building, end)
    roles_, _ = roles(everybody, rules)
    tracks = [track(device, start, end, rules) for device in everybody]
    counted: dict[str, float] = {}
    for one in tracks:
        if counts(one.device, rules):
            grown = count(one.device, start, end, rules, served=bool(one.pieces)).energy_wh
            if grown is not None:
                counted[name_of(one.device)] = grown

    who = members(tracks, roles_, rules)
    moved = flows(who)
    counter_mode = any(counts(one.device, rules) for one in who.grid)
    return Slot(
        start=start,
        building=building,
        rules=rules,
        tracks=tracks,
        roles=roles_,
        flows=moved,
        counted=counted,
        sums=energies(who, moved, counted, counter_mode=counter_mode),
        powers=powers(who),
        implausible=wrong_sign(moved),
    )


# ---- in words -------------------------------------------------------------------------------------------------------

_BALANCE: Final = "production + grid import - grid export - battery charging + battery discharging"
_FORMULAS: Final[Mapping[EventType, str]] = {
    EventType.POWER_GENERATION: "the sum of the inverters just before the end",
    EventType.ENERGY_GENERATION: "the sum of the inverters, integrated over the slot",
    EventType.GRID_POWER_CONSUMPTION: "the grid meters' import just before the end; 0 while they export",
    EventType.GRID_ENERGY_CONSUMPTION: "the grid meters' import at each instant, integrated over the slot",
    EventType.POWER_EXCESS: "the grid meters' export just before the end; 0 while they import",
    EventType.ENERGY_EXCESS: "the grid meters' export at each instant, integrated over the half hour",
    EventType.POWER_CONSUMPTION: f"{_BALANCE}, just before the end, at least 0",
    EventType.ENERGY_CONSUMPTION: f"{_BALANCE}, integrated over the slot, at least 0",
    EventType.SELF_CONSUMPTION_RATE: "100 · (production - export) / production, of the slot's energies, 0 to 100",
    EventType.SELF_SUFFICIENCY_RATE: "100 · (consumption - import) / consumption, of the slot's energies, 0 to 100",
}
_CONSUMPTIONS: Final = frozenset({EventType.POWER_CONSUMPTION, EventType.ENERGY_CONSUMPTION})
_COUNTED: Final = frozenset({EventType.GRID_ENERGY_CONSUMPTION, EventType.ENERGY_CONSUMPTION})
_PARTS: Final[Mapping[Part, str]] = {
    Part.ALL: "its power",
    Part.POSITIVE: "its power while it charges",
    Part.NEGATIVE: "its power while it discharges",
}


def formula(type_: EventType, source: DeviceType, slot: Slot | None) -> str:
    """Return in words how a value is made."""
    if type_.value.endswith("_YESTERDAY"):
        return "the sum of the quarter hours of the local day; a rate from the day's two sums"
    if EVENT_TYPES[type_].cadence is Cadence.CHANGE:
        return "the newest value, sent because it differs from the last one sent"
    counted = slot is not None and bool(slot.counted)
    if source is DeviceType.GATEWAY:
        return _of_household(type_, slot, counted=counted)
    row = next((row for row in BY_SOURCE[source] if row.type is type_), None)
    if row is None or not row.energy:
        return "its value just before the end of the slot"
    by_counter = counted and source is DeviceType.SMART_METER
    return "what it counted in the slot" if by_counter else f"{_PARTS[row.part]}, integrated over the slot"


def _of_household(type_: EventType, slot: Slot | None, *, counted: bool) -> str:
    """Return in words how a household's value is made."""
    if slot is not None and Role.GRID not in slot.roles.values() and type_ in _CONSUMPTIONS:
        energy = type_ is EventType.ENERGY_CONSUMPTION
        return "the sum of the load meters" + (", integrated over the slot" if energy else ", just before the end")
    meters = "; grid import is what the meters counted" if counted and type_ in _COUNTED else ""
    return _FORMULAS[type_] + meters


def day_sum(slot: Slot, type_: EventType, device: str | None) -> Sum | None:
    """Return what the local day sums up to with this slot, for a type that ends with _YESTERDAY; None for a rate."""
    base = type_.value.removesuffix("_YESTERDAY")
    if device is None:
        return _added(slot.building.days.get(base), slot.sums.get(base))
    one = next((one for one in slot.tracks if moost_id(one.device) == device), None)
    if one is None:
        return None
    row = next((row for rows in BY_SOURCE.values() for row in rows if row.type is type_), None)
    tally = Tally()
    for piece in one.pieces:
        negative = row is not None and row.part is Part.NEGATIVE
        tally.add(max(-piece.value if negative else piece.value, 0.0), piece.end - piece.start)
    own = Sum(slot.counted[name_of(one.device)], QUARTER_S) if name_of(one.device) in slot.counted else tally.sum
    return _added(one.device.days.get(type_), own)


def _added(one: Sum | None, other: Sum | None) -> Sum | None:
    if one is None or other is None:
        return one or other
    return Sum(one.energy_wh + other.energy_wh, one.known_s + other.known_s)
