"""The household's balance: from the step functions of its devices to GATEWAY values (mapping rules M4, M5.3).

Rules:
- pv = sum of solar power, grid = signed sum of the grid meters (+ = import), bat = sum of the batteries (+ = charging).
- At each instant a device that exists must be known; it exists from its first message to its delete.
- A kind that the building lacks counts as 0 in a balance, but absence is not zero (M0.1): generation begins with the
  first inverter, after the delete of the last one it is 0 only to complete a slot of which something was known, and
  while there is no grid meter the grid is unknown. An inverter counts from the first message that says anything of its
  power, be it null (M4.1).
- Excess and self-sufficiency begin with the first inverter or battery: the time before it is not known (M4.1).
- Energies are exact over the time for which all they need is known. Nothing is scaled.
- A slot whose balance says that more is consumed than can be is withheld: the meter's sign is wrong (M4.5).

Source: MOOST "Common integration", event type table; standard energy accounting
(consumption = generation + import - export + discharge - charge).
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Final, NamedTuple

from bridge.core.copying import replace
from bridge.core.intervals import QUARTER_S, SECONDS_PER_HOUR, Piece, merged
from bridge.core.model import Sum, name_of
from bridge.core.rules import Role, Rules
from bridge.core.tracks import Measured, Track, Why, is_ignored, seconds
from bridge.core.vocabulary import EventType, Kind

MOST_SUSPECTS: Final = 16  # devices whose signs are tried; each costs a balance
LEAST_WH: Final = 1.0  # M4: below this a rate says nothing
SIGN_MARGIN_WH: Final = 10.0  # M4.5: what measuring errors may make of a balance: a fixed part …
SIGN_SHARE: Final = 0.1  # … and a share of all energy that moved


class Exact:
    """A sum of floats to which others are added and from which they are taken away, without any rounding on the way.

    Source: Shewchuk, "Adaptive Precision Floating-Point Arithmetic": partial sums that do not overlap.
    """

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        """Begin with 0."""
        self._parts: list[float] = []

    def add(self, number: float) -> None:
        """Add a number, or take it away with its sign turned."""
        left: list[float] = []
        for part in self._parts:
            great, small = (number, part) if abs(number) >= abs(part) else (part, number)
            number = great + small
            rest = small - (number - great)
            if rest:
                left.append(rest)
        if number:
            left.append(number)
        self._parts = left

    @property
    def value(self) -> float:
        """Return the sum."""
        return math.fsum(self._parts)


_WHEN: Final = itemgetter(0)


def _total(group: Sequence[Track], *, absent: float | None = None) -> list[Piece]:
    """Return the summed power of a group, where every device that is there is known: in one sweep over all changes.

    `absent` is what the group counts while none of it is there; None = unknown.
    """
    if len(group) == 1:
        return group[0].pieces if absent is None else _filled(group[0], absent)
    if not group:
        return [] if absent is None else [Piece(0.0, QUARTER_S, absent)]
    changes: list[tuple[float, float, int, int]] = []  # when, by how much, how many are known, and there
    for one in group:
        for start, end, power_w in _filled(one, 0.0):
            changes += (start, power_w, 1, 0), (end, -power_w, -1, 0)
        if one.born < one.gone:
            changes += (one.born, 0.0, 0, 1), (one.gone, 0.0, 0, -1)
    changes.sort(key=_WHEN)
    found: list[Piece] = []
    power, known, there, since = Exact(), 0, 0, 0.0
    for at, more_w, more_known, more_there in changes:
        if at > since:
            if known == len(group) and (absent is not None or there):
                found.append(Piece(since, at, power.value))
            since = at
        power.add(more_w)
        known += more_known
        there += more_there
    return found


def _filled(one: Track, absent: float) -> list[Piece]:
    """Return the pieces of a device, with a value for the time when it was not there."""
    if one.born >= one.gone:
        return [Piece(0.0, QUARTER_S, absent)]
    before = [Piece(0.0, one.born, absent)] if one.born > 0.0 else []
    after = [Piece(one.gone, QUARTER_S, absent)] if one.gone < QUARTER_S else []
    return [*before, *one.pieces, *after]


# ---- the balance ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Members:
    """What the devices of a household did, by their part in the balance."""

    inverters: tuple[Track, ...]
    batteries: tuple[Track, ...]
    grid: tuple[Track, ...]
    load: tuple[Track, ...]
    sources: tuple[Track, ...] = ()  # inverters, also those that have said nothing of their power yet, and batteries

    @property
    def begins(self) -> float:
        """Return from when on there is excess to speak of: with the first inverter or battery [s]."""
        return min((one.born for one in self.sources), default=QUARTER_S)


def members(tracks: Sequence[Track], roles_: Mapping[str, Role], rules: Rules) -> Members:
    """Return who takes part in the balance."""
    if rules.devices:
        tracks = [one for one in tracks if not is_ignored(one.device, rules)]
    meters = [one for one in tracks if one.device.kind is Kind.METER]
    inverters = [one for one in tracks if one.device.kind is Kind.PV_INVERTER]
    batteries = tuple(one for one in tracks if one.device.kind is Kind.BATTERY)
    return Members(
        inverters=tuple(
            one._replace(born=one.mute_until) for one in inverters if one.mute_until < min(one.gone, QUARTER_S)
        ),
        batteries=batteries,
        grid=tuple(one for one in meters if roles_[name_of(one.device)] is Role.GRID),
        load=tuple(one for one in meters if roles_[name_of(one.device)] is Role.LOAD),
        sources=(*inverters, *batteries),
    )


class Tally:
    """An energy that is being added up, and the time for which it is known."""

    __slots__ = ("joule", "known_s")

    def __init__(self) -> None:
        """Begin with nothing."""
        self.joule = 0.0
        self.known_s = 0.0

    def add(self, power_w: float, seconds: float) -> None:
        """Add a stretch of constant power."""
        self.joule += power_w * seconds
        self.known_s += seconds

    @property
    def sum(self) -> Sum:
        """Return what was added up [Wh]."""
        return Sum(self.joule / SECONDS_PER_HOUR, self.known_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flows:
    """What moved in one slot, each over the time for which what it needs is known."""

    generation: Tally = field(default_factory=Tally)
    draw: Tally = field(default_factory=Tally)  # from the grid
    excess: Tally = field(default_factory=Tally)  # into the grid
    net: Tally = field(default_factory=Tally)  # pv + grid - battery, signed
    gross: Tally = field(default_factory=Tally)  # |pv| + |grid| + |battery|, over the same time
    all_net: Tally = field(default_factory=Tally)  # net, from the first inverter or battery on
    all_draw: Tally = field(default_factory=Tally)  # draw, over the same time
    pair_generation: Tally = field(default_factory=Tally)  # generation, while inverters and grid meters are known
    pair_excess: Tally = field(default_factory=Tally)  # excess, over the same time


def flows(who: Members) -> Flows:
    """Integrate one slot over the merged breakpoints of everybody who takes part."""
    found = Flows()
    begun = min(one.born for one in who.inverters) if any(one.pieces for one in who.inverters) else QUARTER_S
    power = [_total(who.inverters, absent=0.0), _total(who.grid, absent=None), _total(who.batteries, absent=0.0)]
    begins = who.begins
    if 0.0 < begins < QUARTER_S:
        power.append([Piece(begins, QUARTER_S, 0.0)])  # only for its breakpoint
    for start, end, (pv, grid, bat, *_) in merged(power):
        seconds = end - start
        sun = pv is not None and start >= begun
        if pv is not None and sun:
            found.generation.add(pv, seconds)
        if grid is None:
            continue
        draw, excess = max(grid, 0.0), max(-grid, 0.0)
        found.draw.add(draw, seconds)
        if start >= begins:
            found.excess.add(excess, seconds)
        if pv is not None and sun:
            found.pair_generation.add(pv, seconds)
            found.pair_excess.add(excess, seconds)
        if pv is not None and bat is not None:
            found.net.add(pv + grid - bat, seconds)
            found.gross.add(abs(pv) + abs(grid) + abs(bat), seconds)
            if start >= begins:
                found.all_net.add(pv + grid - bat, seconds)
                found.all_draw.add(draw, seconds)
    return found


def load(who: Members) -> Sum:
    """Return what the load meters measured [Wh]."""
    tally = Tally()
    for start, end, power_w in _total(who.load, absent=None):
        tally.add(power_w, end - start)
    return Sum(max(tally.sum.energy_wh, 0.0), tally.known_s)


def wrong_sign(found: Flows) -> bool:
    """Tell whether a slot's balance cannot be: the sign of a meter is wrong (M4.5)."""
    return found.net.sum.energy_wh < -(SIGN_MARGIN_WH + SIGN_SHARE * found.gross.sum.energy_wh)


def suspects(who: Members) -> list[Track]:
    """Return the meters and batteries of which a sign the other way round would make the balance right (M4.5)."""
    if len(who.grid) + len(who.batteries) > MOST_SUSPECTS:
        return []
    return [one for one in (*who.grid, *who.batteries) if not wrong_sign(flows(turned(who, one)))]


def turned(who: Members, one: Track) -> Members:
    """Return who takes part in the balance, with the sign of one of them the other way round."""
    other = one._replace(pieces=[piece._replace(value=-piece.value) for piece in one.pieces])
    return replace(
        who,
        grid=tuple(other if each is one else each for each in who.grid),
        batteries=tuple(other if each is one else each for each in who.batteries),
    )


def lacking(who: Members, enough: Callable[[float], bool]) -> list[Track]:
    """Return the devices of which too little is known for a value of the household that needs them (M4.5)."""
    needed = (*who.inverters, *who.grid, *who.batteries) if who.grid else (*who.inverters, *who.load)
    return [
        one
        for one in needed
        if not enough(QUARTER_S - (one.gone - one.born) + sum(piece.end - piece.start for piece in one.pieces))
    ]


def powers(who: Members) -> dict[EventType, float]:
    """Return the household's powers [W] just before a slot's end, those that are known."""
    pv, grid, bat, load_ = (_instant(group) for group in (who.inverters, who.grid, who.batteries, who.load))
    found: dict[EventType, float] = {}
    if pv is not None and _there(who.inverters):
        found[EventType.POWER_GENERATION] = pv
    if _there(who.grid):
        if grid is not None:
            found[EventType.GRID_POWER_CONSUMPTION] = max(grid, 0.0)
            if _there(who.sources):
                found[EventType.POWER_EXCESS] = max(-grid, 0.0)
            if pv is not None and bat is not None:
                found[EventType.POWER_CONSUMPTION] = max(pv + grid - bat, 0.0)
    elif load_ is not None and _there(who.load):
        found[EventType.POWER_CONSUMPTION] = max(load_, 0.0)
    return found


def _there(group: Sequence[Track]) -> bool:
    """Tell whether any of a group is there just before the slot's end."""
    return any(one.gone == QUARTER_S for one in group)


def _instant(group: Sequence[Track]) -> float | None:
    """Return the sum of a group just before the slot's end [W]; None as soon as one that is there is unknown."""
    total = 0.0
    for one in group:
        if one.gone == QUARTER_S:
            if one.last is None:
                return None
            total += one.last
    return total


# ---- energies and rates ---------------------------------------------------------------------------------------------

# Sums that only the rates need; like the event types they are keys of `Building.days`.
_PAIR_GENERATION: Final = "pair-generation"
_PAIR_EXCESS: Final = "pair-excess"
_ALL_CONSUMPTION: Final = "all-consumption"
_ALL_DRAW: Final = "all-draw"


class GroupCount(NamedTuple):
    """What the counters of a group of meters say of a slot (M4.4)."""

    of_slot: Sum
    of_day: Sum
    why: Why | None  # why it is not sent
    spare_s: tuple[float, ...] = ()  # of each meter what the day knows of it, but not of all others


def together(meters: Sequence[Track]) -> GroupCount | None:
    """Return what the counters of all these meters say; None where one does not count."""
    found = [meter.counted for meter in meters if meter.counted is not None]
    if not found or len(found) < len(meters):
        return None
    why = next((one.why for one in found if one.why is not None), None)
    if len(found) == 1:
        return GroupCount(found[0].of_slot, found[0].of_day, why)
    energy_wh = sum(one.energy_wh for one in found)
    slot_s = seconds(_total([meter._replace(pieces=one.known) for meter, one in zip(meters, found, strict=True)]))
    if any(one.lost or meter.born > 0.0 or meter.gone < QUARTER_S for meter, one in zip(meters, found, strict=True)):
        day_s = seconds(_total([meter._replace(pieces=one.day) for meter, one in zip(meters, found, strict=True)]))
        return GroupCount(Sum(energy_wh, slot_s), Sum(energy_wh, day_s), why, tuple(0.0 for _ in found))
    # The readings of one meter fill its gaps at other times than those of another: known is what all of them know.
    known_s = [one.of_day.known_s + (one.level.spare_s if one.level is not None else 0.0) for one in found]
    spare_s = tuple(mine_s - min(known_s) for mine_s in known_s)
    return GroupCount(Sum(energy_wh, slot_s), Sum(energy_wh, min(known_s)), why, spare_s)


def energies(who: Members, found: Flows) -> dict[str, Sum]:
    """Return the household's energies [Wh] of a slot by the powers, each with the time for which it is known."""
    energies_: dict[str, Sum] = {}
    if who.inverters:
        energies_[EventType.ENERGY_GENERATION] = found.generation.sum
    if who.grid:
        energies_[EventType.GRID_ENERGY_CONSUMPTION] = found.draw.sum
        energies_[EventType.ENERGY_CONSUMPTION] = _drawn(found.net)
        if who.sources:
            energies_[EventType.ENERGY_EXCESS] = found.excess.sum
            energies_[_ALL_CONSUMPTION] = _drawn(found.all_net)
            energies_[_ALL_DRAW] = found.all_draw.sum
        if who.inverters:
            energies_[_PAIR_GENERATION] = found.pair_generation.sum
            energies_[_PAIR_EXCESS] = found.pair_excess.sum
    elif who.load:
        energies_[EventType.ENERGY_CONSUMPTION] = load(who)
    return energies_


def _drawn(net: Tally) -> Sum:
    """Return what a household has consumed by its balance [Wh], which is never below 0."""
    return Sum(max(net.sum.energy_wh, 0.0), net.known_s)


def rates(energies_: Mapping[str, Sum], enough: Callable[[float], bool]) -> Iterator[tuple[EventType, Measured]]:
    """Yield self-consumption and self-sufficiency [%] from the energies of a slot or a day."""
    for type_, whole_name, less_name in (
        (EventType.SELF_CONSUMPTION_RATE, _PAIR_GENERATION, _PAIR_EXCESS),
        (EventType.SELF_SUFFICIENCY_RATE, _ALL_CONSUMPTION, _ALL_DRAW),
    ):
        whole, less = energies_.get(whole_name), energies_.get(less_name)
        if whole is None or less is None:
            continue
        if whole.energy_wh < LEAST_WH:
            yield type_, Measured(0.0, whole.known_s, Why.SMALL if enough(whole.known_s) else Why.UNKNOWN)
            continue
        rate = min(max(100.0 * (whole.energy_wh - less.energy_wh) / whole.energy_wh, 0.0), 100.0)
        yield type_, Measured(rate, whole.known_s, None if enough(whole.known_s) else Why.UNKNOWN)
