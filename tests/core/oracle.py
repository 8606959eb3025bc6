"""What must leave a building, worked out moment by moment from the rules with whole numbers (M3-M5).

It shares nothing with the core but the words: every moment (`STEP` seconds) of every slot is looked at, a device's
value is found by going through all that had been accepted when the slot closed, energies are sums of watt seconds, and
rates are fractions. All times are whole seconds from `MONTH`; blocks and stamps fall on whole steps.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, auto
from fractions import Fraction
from functools import cache, cached_property

from bridge.core.effects import Event
from bridge.core.rules import Role, Rules
from bridge.core.vocabulary import Kind
from tests.core.homes import MONTH

SLOT = 900
STEP = 10
GRACE = 120
HOURS = 3600
DUSK = 50  # no inverter here shows so much that a hundredth of it is more

Name = tuple[str, str, str]  # source, type, "HH:MM" of the end
Values = dict[Name, Fraction]


class Says(Enum):
    """What a message does to a device's power."""

    VALUE = auto()  # a new block
    CARRY = auto()  # the newest block again, in a message with a newer stamp
    AWAY = auto()  # offline
    DELETE = auto()


@dataclass(frozen=True)
class Said:
    """A message about the power of one device."""

    says: Says
    at: int  # of the block
    stamp: int
    received: int
    watt: int | None = None


@dataclass(frozen=True)
class Thing:
    """A device and all that is ever said about it, by stamp."""

    kind: Kind
    id: str
    source: str
    said: tuple[Said, ...]
    role: Role | None = None
    sign: int = 1


def _limit(thing: Thing, watt: int, rules: Rules) -> int:
    """Return how long a power holds."""
    if watt == 0:
        return int(rules.hold.total_seconds())
    short = thing.kind in {Kind.PV_INVERTER, Kind.METER, Kind.BATTERY}
    return int(rules.hold_active.total_seconds()) if short else 6 * HOURS


def _meant(thing: Thing, watt: int | None) -> int | None:
    """Return what a power means: at a meter that only draws, a negative one is 0."""
    draws = thing.role in {Role.LOAD, Role.SUB}
    return 0 if draws and watt is not None and watt * thing.sign < 0 else watt


def powers_of(thing: Thing, start: int, known: list[Said], rules: Rules) -> list[int | None]:
    """Return the power of a device in each moment of a slot, as known from some messages."""
    found: list[int | None] = [None] * (SLOT // STEP)
    block: Said | None = None
    watt: int | None = None
    until = 0
    low = asleep = away = False  # low = what was told last may be an inverter's last word of the day

    def fill(since: int) -> None:
        """Let what is known now hold from a second on; what comes later overwrites it."""
        for moment in range(SLOT // STEP):
            second = start + moment * STEP
            if second >= since:
                holds = watt if asleep or second < until else 0 if low else None
                found[moment] = holds if watt is not None else None

    for said in known:
        if said.says is Says.AWAY:
            low, asleep = False, low or asleep
            away, watt = not asleep, 0 if asleep else None
        elif said.says is Says.VALUE or (block is not None and (away or asleep or said.stamp > until)):
            block = said if said.says is Says.VALUE or block is None else block
            asleep = thing.kind is Kind.PV_INVERTER and block.watt is None and (low or asleep)
            watt, away = 0 if asleep else _meant(thing, block.watt), False
            low = thing.kind is Kind.PV_INVERTER and not asleep and watt is not None and watt <= DUSK
        if watt is not None and not asleep:
            until = said.stamp + _limit(thing, watt, rules)
        fill(said.at if said.says is Says.VALUE else said.stamp)
    return [watt * thing.sign if watt is not None else None for watt in found]


@cache
def _life(thing: Thing) -> tuple[int, int]:
    """Return from when to when a device counts."""
    born = min(min(said.stamp, said.at if said.watt is not None else said.stamp) for said in thing.said)
    gone = [said.stamp for said in thing.said if said.says is Says.DELETE]
    return born, gone[0] if gone else 10**9


def _sum(group: list[tuple[Thing, int | None]]) -> int | None:
    """Return the sum of powers, unknown as soon as one is."""
    total = 0
    for _, watt in group:
        if watt is None:
            return None
        total += watt
    return total


class _Energy:
    """Watt seconds, and the seconds in which they were known."""

    def __init__(self) -> None:
        self.total = 0
        self.known = 0

    def add(self, watt: int) -> None:
        self.total += watt * STEP
        self.known += STEP

    def more(self, other: "_Energy") -> None:
        self.total += other.total
        self.known += other.known


def _roles(things: list[Thing], start: int) -> dict[str, Role]:
    """Return the role of each meter in a slot."""
    here = [t for t in things if t.kind is Kind.METER and _life(t)[0] < start + SLOT and _life(t)[1] > start]
    roles: dict[str, Role] = {}
    for meter in here:
        others = [o for o in here if o is not meter and _life(o)[0] < _life(meter)[1] and _life(meter)[0] < _life(o)[1]]
        roles[meter.id] = meter.role or (Role.IGNORE if others else Role.GRID)
    return roles


class Slot:
    """One slot, moment by moment."""

    def __init__(self, things: list[Thing], start: int, rules: Rules) -> None:
        self.things, self.start, self.rules = things, start, rules
        self.roles = _roles(things, start)
        self.close = start + SLOT + GRACE
        self.powers: dict[str, list[int | None]] = {}
        self.energies: dict[str, _Energy] = {}
        known = {thing.id: [said for said in thing.said if said.received <= self.close] for thing in things}
        for thing in things:
            born, gone = _life(thing)
            found = powers_of(thing, start, known[thing.id], rules)
            seconds = range(start, start + SLOT, STEP)
            self.powers[thing.id] = [
                watt if born <= at < gone else None for at, watt in zip(seconds, found, strict=True)
            ]

    def there(self, second: int, wanted: Callable[[Thing], bool]) -> list[tuple[Thing, int | None]]:
        """Return who is there in a second, of those wanted, and what is known of it."""
        found = []
        for thing in self.things:
            born, gone = _life(thing)
            if wanted(thing) and born <= second < gone:
                found.append((thing, self.powers[thing.id][(second - self.start) // STEP]))
        return found

    def member(self, wanted: Callable[[Thing], bool]) -> bool:
        """Tell whether someone of those wanted was there in this slot."""
        return any(self.there(second, wanted) for second in (self.start, self.start + SLOT - STEP)) or any(
            self.start <= _life(thing)[0] < self.start + SLOT for thing in self.things if wanted(thing)
        )

    def energy(self, name: str) -> _Energy:
        return self.energies.setdefault(name, _Energy())

    def is_pv(self, thing: Thing) -> bool:
        return thing.kind is Kind.PV_INVERTER

    def is_battery(self, thing: Thing) -> bool:
        return thing.kind is Kind.BATTERY

    def is_grid(self, thing: Thing) -> bool:
        return self.roles.get(thing.id) is Role.GRID and thing.kind is Kind.METER

    def is_load(self, thing: Thing) -> bool:
        return self.roles.get(thing.id) is Role.LOAD and thing.kind is Kind.METER

    def household(self) -> tuple[dict[str, Fraction], bool]:
        """Fill the energies; return the powers at the end, and whether the balance cannot be."""
        for second in range(self.start, self.start + SLOT, STEP):
            self.moment(second)
        moved = self.energies.pop("MOVED", _Energy())
        wrong = 10 * self.energies.get("NET", _Energy()).total < -(10 * 10 * HOURS + moved.total)
        for name in ("NET", "NET_BEHIND", "LOAD"):
            if name in self.energies:
                self.energies[name].total = max(self.energies[name].total, 0)
        return self.last_powers(), wrong

    @cached_property
    def has_grid(self) -> bool:
        return self.member(self.is_grid)

    def is_source(self, thing: Thing) -> bool:
        return self.is_pv(thing) or self.is_battery(thing)

    @cached_property
    def begins(self) -> int:
        """Return from when on there is excess to speak of: with the first inverter or battery."""
        here = [_life(thing) for thing in self.things if self.is_source(thing)]
        return min((born for born, gone in here if born < self.start + SLOT and gone > self.start), default=10**9)

    @cached_property
    def sunrise(self) -> int:
        """Return from when on something can be said of the generation."""
        here = [thing for thing in self.things if self.is_pv(thing) and _life(thing)[1] > self.start]
        known = any(watt is not None for thing in here for watt in self.powers[thing.id])
        return min(_life(thing)[0] for thing in here) if known else 10**9

    def known_at(self, second: int) -> tuple[int | None, int | None, int | None, int | None]:
        """Return generation, grid, battery and load in one second; what is not there is 0, but for the meters."""
        pv, bat = (_sum(self.there(second, wanted)) for wanted in (self.is_pv, self.is_battery))
        meters, loads = (self.there(second, wanted) for wanted in (self.is_grid, self.is_load))
        return pv, _sum(meters) if meters else None, bat, _sum(loads) if loads and not meters else None

    def moment(self, second: int) -> None:
        """Add up one moment."""
        pv, grid, bat, load = self.known_at(second)
        sun = pv if second >= self.sunrise else None
        if sun is not None:
            self.energy("GENERATION").add(sun)
        if load is not None and not self.has_grid:
            self.energy("LOAD").add(load)
        if grid is None:
            return
        self.energy("DRAW").add(max(grid, 0))
        if second >= self.begins:
            self.energy("EXCESS").add(max(-grid, 0))
        if sun is not None:
            self.energy("PAIR_GENERATION").add(sun)
            self.energy("PAIR_EXCESS").add(max(-grid, 0))
        if pv is not None and bat is not None:
            self.energy("NET").add(pv + grid - bat)
            if second >= self.begins:
                self.energy("NET_BEHIND").add(pv + grid - bat)
                self.energy("NET_DRAW").add(max(grid, 0))
            self.energy("MOVED").add(abs(pv) + abs(grid) + abs(bat))

    def last_powers(self) -> dict[str, Fraction]:
        """Return the powers of the slot's last moment."""
        second = self.start + SLOT - STEP
        pv, grid, bat, load = self.known_at(second)
        found: dict[str, int] = {}
        if pv is not None and self.there(second, self.is_pv):
            found["POWER_GENERATION"] = pv
        if load is not None:
            found["POWER_CONSUMPTION"] = max(load, 0)
        if grid is not None:
            found["GRID_POWER_CONSUMPTION"] = max(grid, 0)
            if self.there(second, self.is_source):
                found["POWER_EXCESS"] = max(-grid, 0)
            if pv is not None and bat is not None:
                found["POWER_CONSUMPTION"] = max(pv + grid - bat, 0)
        return {name: Fraction(watt) for name, watt in found.items()}


SENT = {
    "GENERATION": "ENERGY_GENERATION",
    "DRAW": "GRID_ENERGY_CONSUMPTION",
    "NET": "ENERGY_CONSUMPTION",
    "LOAD": "ENERGY_CONSUMPTION",
}
RATES = {
    "SELF_CONSUMPTION_RATE": ("PAIR_GENERATION", "PAIR_EXCESS"),
    "SELF_SUFFICIENCY_RATE": ("NET_BEHIND", "NET_DRAW"),
}


def _rates(energies: dict[str, _Energy], least: Fraction) -> Iterable[tuple[str, Fraction]]:
    for name, (whole, less) in RATES.items():
        if whole in energies and less in energies and energies[whole].known >= least and energies[whole].total >= HOURS:
            rate = Fraction(100 * (energies[whole].total - energies[less].total), energies[whole].total)
            yield name, min(max(rate, Fraction(0)), Fraction(100))


def _own(slot: Slot, thing: Thing, *, has_charger: bool) -> tuple[dict[str, _Energy], int | None]:
    """Return the energies of a device itself in a slot, and its power at the end."""
    quiet = thing.kind is Kind.PV_INVERTER or (thing.kind is Kind.VEHICLE and has_charger)
    if quiet or (thing.kind is Kind.METER and slot.roles.get(thing.id) not in {Role.LOAD, Role.SUB}):
        return {}, None
    names = {"ENERGY_IMPORT": 1, "ENERGY_EXPORT": -1} if thing.kind is Kind.BATTERY else {"ENERGY_CONSUMPTION": 1}
    energies = {name: _Energy() for name in names}
    for watt in slot.powers[thing.id]:
        for name, sign in names.items():
            if watt is not None:
                energies[name].add(max(sign * watt, 0))
    return energies, slot.powers[thing.id][-1] if thing.kind is not Kind.BATTERY else None


class _Book:
    """What leaves, and the sums of the day and of the half hour."""

    def __init__(self, things: list[Thing], rules: Rules) -> None:
        self.things = things
        self.rules = rules
        self.coverage = Fraction(rules.min_coverage).limit_denominator(1000)
        self.found: Values = {}
        self.days: dict[tuple[str, str], _Energy] = {}  # device (household: empty), name
        self.half, self.half_wrong = _Energy(), False
        self.end = 0

    def put(self, source: str, type_: str, value: Fraction) -> None:
        assert (source, type_, label(self.end)) not in self.found
        self.found[source, type_, label(self.end)] = value

    def put_energy(self, source: str, type_: str, energy: _Energy, seconds: int = SLOT) -> None:
        """Let an energy leave if enough of its interval is known."""
        if energy.known >= self.coverage * seconds:
            self.put(source, type_, Fraction(energy.total, HOURS))

    def close(self, start: int) -> None:
        """Write down what leaves with one slot."""
        self.end = start + SLOT
        slot = Slot(self.things, start, self.rules)
        self.close_household(slot)
        has_charger = slot.member(lambda thing: thing.kind is Kind.CHARGER)
        for thing in self.things:
            if any(said.says is Says.DELETE and said.stamp < self.end for said in thing.said):
                self.days = {name: energy for name, energy in self.days.items() if name[0] != thing.id}
                continue
            own, power = _own(slot, thing, has_charger=has_charger)
            if power is not None:
                self.put(thing.source, "POWER_CONSUMPTION", Fraction(max(power, 0)))
            for name, energy in own.items():
                self.put_energy(thing.source, name, energy)
                self.days.setdefault((thing.id, name), _Energy()).more(energy)

    def close_household(self, slot: Slot) -> None:
        """Write down what leaves of the household with one slot."""
        powers, wrong = slot.household()
        energies = slot.energies
        if wrong:
            powers = {name: value for name, value in powers.items() if name == "POWER_GENERATION"}
            energies = {name: energy for name, energy in energies.items() if name == "GENERATION"}
        for name, value in (*powers.items(), *_rates(energies, self.coverage * SLOT)):
            self.put("GATEWAY", name, value)
        for name, energy in energies.items():
            self.days.setdefault(("", name), _Energy()).more(energy)
            if name in SENT:
                self.put_energy("GATEWAY", SENT[name], energy)
        if slot.start % (2 * SLOT) == 0:
            self.half, self.half_wrong = _Energy(), False
        self.half.more(energies.get("EXCESS", _Energy()))
        self.half_wrong = self.half_wrong or wrong
        if self.end % (2 * SLOT) == 0 and not self.half_wrong:
            self.put_energy("GATEWAY", "ENERGY_EXCESS", self.half, 2 * SLOT)

    def close_day(self) -> None:
        """Write down what leaves with the day."""
        house = {name: energy for (thing, name), energy in self.days.items() if thing == ""}
        for name, value in _rates(house, self.coverage * 96 * SLOT):
            self.put("GATEWAY", f"{name}_YESTERDAY", value)
        whole: dict[str, _Energy] = {}
        for name, energy in house.items():
            type_ = "ENERGY_EXCESS" if name == "EXCESS" else SENT.get(name)
            if type_ is not None:
                whole.setdefault(type_, _Energy()).more(energy)
        for type_, energy in whole.items():
            self.put_energy("GATEWAY", f"{type_}_YESTERDAY", energy, 96 * SLOT)
        sources = {thing.id: thing.source for thing in self.things}
        for (thing, name), energy in self.days.items():
            if thing:
                self.put_energy(sources[thing], f"{name}_YESTERDAY", energy, 96 * SLOT)
        self.days = {}


def expected(things: list[Thing], first: int, slots: int, midnight: int, rules: Rules) -> Values:
    """Return everything that must leave in some slots from `first` on; a day of 24 h ends at `midnight`."""
    book = _Book(things, rules)
    for start in range(first, first + slots * SLOT, SLOT):
        book.close(start)
        if book.end == midnight:
            book.close_day()
    return book.found


def label(second: int) -> str:
    """Return the short text of an instant."""
    return f"{MONTH + timedelta(seconds=second):%d %H:%M}"


def left(events: Iterable[Event], sources: dict[str, str]) -> dict[Name, float]:
    """Return events in the shape of the oracle; `sources` names the devices that share a type."""
    found: dict[Name, float] = {}
    for event in events:
        name = (sources.get(event.device, event.source.value), event.type.value, f"{event.at:%d %H:%M}")
        assert name not in found, f"{name} left twice"
        found[name] = event.value
    return found
