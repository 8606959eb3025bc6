"""One slot taken apart: who took part, which samples were in force, what is known and what comes of it.

Rules:
- `core.measure` says it, as it does for closing; nothing is computed in another way here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from bridge.core.counters import is_repeat
from bridge.core.days import is_apart
from bridge.core.devices import moost_id
from bridge.core.intervals import BLANK, GONE, NEVER
from bridge.core.mapping import BY_SOURCE, Part
from bridge.core.measure import NOTHING, Measure, Own, measure
from bridge.core.messages import Quantity, Tick
from bridge.core.model import Building, Device, Sample, Sum, added, name_of
from bridge.core.reduce import reduce
from bridge.core.rules import Role, Rules
from bridge.core.tracks import Measured, Track, Why, sign_of
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

    building: Building
    rules: Rules
    measure: Measure

    @property
    def start(self) -> datetime:
        """Return when it begins."""
        return self.measure.start

    @property
    def end(self) -> datetime:
        """Return when it ends."""
        return self.measure.end

    def measured(self, type_: EventType, device: str | None) -> Measured | None:
        """Return a value of the household or of a device; None where nothing is known of it."""
        return (self.measure.house if device is None else self._own(device).values).get(type_)

    def why(self, type_: EventType, device: str | None) -> Why | None:
        """Return why a value does not leave with the slot; None if it does."""
        if device is None and is_apart(self.building, self.end):
            return Why.APART
        found = self.measured(type_, device)
        return found.why if found is not None else Why.UNKNOWN

    def of_day(self, type_: EventType, device: str | None) -> Sum | None:
        """Return what the local day sums up to with this slot, for a type with _YESTERDAY; None for a rate."""
        if device is None:
            name: str = type_.value.removesuffix("_YESTERDAY")
            return added(self.building.days, self.measure.days).get(name)
        one = self._track(device)
        return added(one.device.days, self._own(device).days).get(type_) if one is not None else None

    def _track(self, device: str) -> Track | None:
        """Return what a device did, by MOOST's id."""
        found = (one for one in self.measure.living.values() if moost_id(one.device) == device)
        return next(found, None)

    def _own(self, device: str) -> Own:
        """Return what a device itself says, by MOOST's id."""
        for name, one in self.measure.living.items():
            if moost_id(one.device) == device:
                return self.measure.own[name]
        return NOTHING

    def taking(self, type_: EventType, device: str | None) -> list[Taking]:
        """Return the devices that a value is made of."""
        return [
            self._taking(one, Quantity.POWER if "TEMPERATURE" not in type_ else Quantity.TEMPERATURE)
            for one in self.measure.tracks
            if self._takes_part(one.device, type_, device)
        ]

    def _takes_part(self, one: Device, type_: EventType, device: str | None) -> bool:
        if device is not None:
            return moost_id(one) == device
        if one.kind not in _TAKES.get(type_, _ALL):
            return False
        if one.kind is not Kind.METER:
            return True
        grid = Role.GRID in self.measure.roles.values()
        return self.measure.roles[name_of(one)] is (Role.GRID if grid else Role.LOAD)

    def _taking(self, one: Track, quantity: Quantity) -> Taking:
        device = one.device
        counted = one.counted.energy_wh if one.counted is not None and one.counted.level is not None else None
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
        return f"{self.measure.roles[name_of(device)].value} meter, {sign} is positive"


def _in_force(series: Sequence[Sample], start: datetime, end: datetime) -> list[Sample]:
    """Return the sample in force at the start, and those within the slot."""
    first = max((place for place, sample in enumerate(series) if sample.at <= start), default=0)
    return [sample for sample in series[first:] if sample.at < end]


def mark(sample: Sample, quantity: Quantity) -> str:
    """Return what a sample is that no value brought."""
    if quantity is Quantity.COUNTER and is_repeat(sample):
        return f"the reading of {sample.seen.isoformat()} again"
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
    return Slot(building=building, rules=rules, measure=measure(building, start, rules))


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
    counted = slot is not None and any(one.counted is not None and one.counted.level for one in slot.measure.tracks)
    if source is DeviceType.GATEWAY:
        return _of_household(type_, slot, counted=counted)
    row = next((row for row in BY_SOURCE[source] if row.type is type_), None)
    if row is None or not row.energy:
        return "its value just before the end of the slot"
    by_counter = counted and source is DeviceType.SMART_METER
    return "what it counted in the slot" if by_counter else f"{_PARTS[row.part]}, integrated over the slot"


def _of_household(type_: EventType, slot: Slot | None, *, counted: bool) -> str:
    """Return in words how a household's value is made."""
    if slot is not None and Role.GRID not in slot.measure.roles.values() and type_ in _CONSUMPTIONS:
        energy = type_ is EventType.ENERGY_CONSUMPTION
        return "the sum of the load meters" + (", integrated over the slot" if energy else ", just before the end")
    meters = "; grid import is what the meters counted" if counted and type_ in _COUNTED else ""
    return _FORMULAS[type_] + meters


REASONS: Final[Mapping[Why, str]] = {
    Why.NEW_BASE: "it was withheld: the counter has begun anew, and the power is not known for long enough",
    Why.UNPLACED: "it was withheld: the counter grew in a time too long for a quarter hour; the day counts it",
    Why.SURPLUS: "it was withheld: what was drawn had been sent before, by the power",
    Why.IMPLAUSIBLE: "it was withheld: more is consumed than can be, the sign of a meter is wrong",
    Why.SMALL: "it did not leave: what it is a share of is less than 1 Wh",
    Why.APART: "it was withheld: the devices of the household name two places",
}
"""Why a value did not leave, but for what is not known."""
