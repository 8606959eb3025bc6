"""The household's balance: from the step functions of its devices to GATEWAY values (mapping rules M4, M5.3).

Rules:
- pv = sum of solar power, grid = signed sum of the grid meters (+ = import), bat = sum of the batteries (+ = charging).
- At each instant a device that exists must be known; a kind that the building lacks counts as 0.
- A value is there only where everything it needs is known for `min_coverage` of its interval. Nothing is scaled.
- A slot whose balance says that more is consumed than can be is withheld: the meter's sign is wrong (M4.5).

Source: MOOST "Common integration", event type table; standard energy accounting
(consumption = generation + import - export + discharge - charge).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from bridge.core.intervals import QUARTER_S, Limit, Piece, energy_wh, merged, pieces, value_before
from bridge.core.messages import Quantity, Value
from bridge.core.model import Device, Sum
from bridge.core.rules import MeterRule, Role, Rules
from bridge.core.vocabulary import EventType, Kind

HOLD_CONSUMER: Final = timedelta(hours=6)  # M5.2: a car, charger or heating may run on unchanged this long
LEAST_WH: Final = 1.0  # M4: below this a rate says nothing
SIGN_MARGIN_WH: Final = 10.0  # M4.5: what measuring errors may make of a balance: a fixed part …
SIGN_SHARE: Final = 0.1  # … and a share of all energy that moved

_MINUTE_HOLDERS: Final = frozenset({Kind.PV_INVERTER, Kind.METER, Kind.BATTERY})
_NO_RULE: Final = MeterRule()


def limit_of(kind: Kind, rules: Rules) -> Limit:
    """Return how long a value of this kind of device holds after it was last seen (M5.2)."""
    active = rules.hold_active if kind in _MINUTE_HOLDERS else HOLD_CONSUMER

    def limit(value: Value) -> timedelta:
        return rules.hold if not isinstance(value, float) or value == 0 else active

    return limit


def hold_always(rules: Rules) -> Limit:
    """Return the limit of temperatures, states and counters: the long one, whatever the value."""
    return lambda _: rules.hold


def meter_rule(device: Device, rules: Rules) -> MeterRule:
    """Return what is set for one meter."""
    return rules.devices.get((device.kind, device.id), _NO_RULE)


def sign_of(device: Device, rules: Rules) -> int:
    """Return +1 where the meter counts import as positive, else -1; the device's own setting wins."""
    own = meter_rule(device, rules).sign
    return own if own is not None else rules.subscription(device.subscription).meter_sign


def counts(device: Device, rules: Rules) -> bool:
    """Tell whether the counter of a meter counts import (M4.4)."""
    own = meter_rule(device, rules).counter
    return own if own is not None else rules.subscription(device.subscription).meter_counter


def roles(devices: Iterable[Device], rules: Rules) -> tuple[dict[tuple[Kind, str], Role], bool]:
    """Return the role of each meter, and whether there are several of which some have none (M4.2)."""
    meters = [device for device in devices if device.kind is Kind.METER]
    if len({meter.id for meter in meters}) == 1 and meter_rule(meters[0], rules).role is None:
        return {(Kind.METER, meters[0].id): Role.GRID}, False
    found = {(meter.kind, meter.id): meter_rule(meter, rules).role for meter in meters}
    return {name: role or Role.IGNORE for name, role in found.items()}, any(role is None for role in found.values())


def power_track(device: Device, start: datetime, end: datetime, rules: Rules, *, absent: float | None) -> list[Piece]:
    """Return the known power [W] of a device in a slot; `absent` is what it counts where it does not exist."""
    track = pieces(device.series.get(Quantity.POWER, ()), start, end, limit_of(device.kind, rules))
    sign = sign_of(device, rules) if device.kind is Kind.METER else 1
    if sign < 0:
        track = [Piece(piece.start, piece.end, -piece.value) for piece in track]
    born = min(max((device.since - start).total_seconds(), 0.0), QUARTER_S)
    gone = QUARTER_S if device.until is None else min(max((device.until - start).total_seconds(), 0.0), QUARTER_S)
    track = [
        Piece(max(piece.start, born), min(piece.end, gone), piece.value)
        for piece in track
        if max(piece.start, born) < min(piece.end, gone)
    ]
    if absent is None:
        return track
    before = [Piece(0.0, born, absent)] if born > 0 else []
    after = [Piece(gone, QUARTER_S, absent)] if gone < QUARTER_S else []
    return [*before, *track, *after]


@dataclass(slots=True, kw_only=True)
class Flows:
    """What moved in one slot: energies [Wh] over the time [s] for which what they need was known."""

    generation: Sum = Sum()
    draw: Sum = Sum()  # from the grid
    excess: Sum = Sum()  # into the grid
    net: Sum = Sum()  # pv + grid - battery, signed
    gross: Sum = Sum()  # |pv| + |grid| + |battery|
    all_draw: Sum = Sum()  # draw, over the time of `net`
    pair_generation: Sum = Sum()  # generation, over the time when inverters and meters are known
    pair_excess: Sum = Sum()  # excess, over the same time
    load: Sum = Sum()  # the load meters


@dataclass(frozen=True, slots=True, kw_only=True)
class Members:
    """The devices of a household by what they do in the balance."""

    inverters: tuple[Device, ...]
    batteries: tuple[Device, ...]
    grid: tuple[Device, ...]
    load: tuple[Device, ...]


def members(devices: Sequence[Device], roles_: Mapping[tuple[Kind, str], Role]) -> Members:
    """Return who takes part in the balance."""
    return Members(
        inverters=tuple(d for d in devices if d.kind is Kind.PV_INVERTER),
        batteries=tuple(d for d in devices if d.kind is Kind.BATTERY),
        grid=tuple(d for d in devices if roles_.get((d.kind, d.id)) is Role.GRID),
        load=tuple(d for d in devices if roles_.get((d.kind, d.id)) is Role.LOAD),
    )


def flows(who: Members, start: datetime, end: datetime, rules: Rules) -> Flows:
    """Integrate one slot over the merged breakpoints of everybody who takes part."""
    groups = (who.inverters, who.grid, who.batteries, who.load)
    tracks = [power_track(device, start, end, rules, absent=0.0) for group in groups for device in group]
    cuts = [0]
    for group in groups:
        cuts.append(cuts[-1] + len(group))
    found = Flows()
    for seconds, values in merged(tracks):
        pv, grid, bat, load = (_total(values[a:b]) for a, b in zip(cuts, cuts[1:], strict=False))
        _add_stretch(found, seconds, pv, grid, bat, load)
    return found


def _total(values: Sequence[float | None]) -> float | None:
    """Return the sum of a group, unknown as soon as one of it is; an empty group is 0."""
    total = 0.0
    for value in values:
        if value is None:
            return None
        total += value
    return total


def _plus(sum_: Sum, power_w: float, seconds: float) -> Sum:
    """Return a sum with a stretch added."""
    return Sum(sum_.energy_wh + energy_wh(power_w, seconds), sum_.known_s + seconds)


def _add_stretch(f: Flows, seconds: float, pv: float | None, grid: float | None, bat: float | None, load: float | None) -> None:
    """Add a stretch in which nothing changes [W] to all flows whose inputs are known."""
    if pv is not None:
        f.generation = _plus(f.generation, pv, seconds)
    if load is not None:
        f.load = _plus(f.load, load, seconds)
    if grid is None:
        return
    draw, excess = max(grid, 0.0), max(-grid, 0.0)
    f.draw = _plus(f.draw, draw, seconds)
    f.excess = _plus(f.excess, excess, seconds)
    if pv is None:
        return
    f.pair_generation = _plus(f.pair_generation, pv, seconds)
    f.pair_excess = _plus(f.pair_excess, excess, seconds)
    if bat is None:
        return
    f.net = _plus(f.net, pv + grid - bat, seconds)
    f.gross = _plus(f.gross, abs(pv) + abs(grid) + abs(bat), seconds)
    f.all_draw = _plus(f.all_draw, draw, seconds)


def wrong_sign(found: Flows) -> bool:
    """Tell whether a slot's balance cannot be: the sign of a meter is wrong (M4.5)."""
    return found.net.energy_wh < -(SIGN_MARGIN_WH + SIGN_SHARE * found.gross.energy_wh)


def powers(who: Members, end: datetime, rules: Rules) -> dict[EventType, float]:
    """Return the household's powers [W] just before a slot's end, those that are known."""
    pv, grid, bat, load = (_instant(group, end, rules) for group in (who.inverters, who.grid, who.batteries, who.load))
    found: dict[EventType, float] = {}
    if who.inverters and pv is not None:
        found[EventType.POWER_GENERATION] = pv
    if who.grid and grid is not None:
        found[EventType.GRID_POWER_CONSUMPTION] = max(grid, 0.0)
        if who.inverters or who.batteries:
            found[EventType.POWER_EXCESS] = max(-grid, 0.0)
        if pv is not None and bat is not None:
            found[EventType.POWER_CONSUMPTION] = max(pv + grid - bat, 0.0)
    elif not who.grid and who.load and load is not None:
        found[EventType.POWER_CONSUMPTION] = max(load, 0.0)
    return found


def _instant(group: Sequence[Device], end: datetime, rules: Rules) -> float | None:
    """Return the sum of a group just before an instant [W]; None as soon as one that exists is unknown."""
    total = 0.0
    for device in group:
        if device.since >= end or (device.until is not None and device.until < end):
            continue
        value = value_before(device.series.get(Quantity.POWER, ()), end, limit_of(device.kind, rules))
        if not isinstance(value, float):
            return None
        total += value * (sign_of(device, rules) if device.kind is Kind.METER else 1)
    return total


def rate(part_wh: float, whole_wh: float) -> float | None:
    """Return 100 * part / whole [%], kept within 0..100; None where the whole is too small to say anything."""
    if whole_wh < LEAST_WH:
        return None
    return min(max(100.0 * part_wh / whole_wh, 0.0), 100.0)
