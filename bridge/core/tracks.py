"""What a device's power did in one slot, with the settings that decide what it means (mapping rules M4.2, M5.2).

Rules:
- A power that is 0 holds long; one that flows, as long as its kind of device may be silent.
- A device's own setting wins over its subscription's.
- A device counts from its first message to its delete (M4.1).
- The power of a vehicle is unknown while it is away from its building (M3.1).
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from bridge.core.intervals import QUARTER_S, Limit, Piece, pieces
from bridge.core.messages import Quantity, Value
from bridge.core.model import Building, Device, Series, name_of
from bridge.core.rules import MeterRule, Role, Rules
from bridge.core.vocabulary import Kind

HOLD_CONSUMER: Final = timedelta(hours=6)  # M5.2: a car, charger or heating may run on unchanged this long

_MINUTE_HOLDERS: Final = frozenset({Kind.PV_INVERTER, Kind.METER, Kind.BATTERY})

# ---- settings of a device -------------------------------------------------------------------------------------------


def limit_of(kind: Kind, rules: Rules) -> Limit:
    """Return how long a power of this kind of device holds after it was last seen (M5.2)."""
    active = rules.hold_active if kind in _MINUTE_HOLDERS else HOLD_CONSUMER

    def limit(value: Value) -> timedelta:
        return active if value else rules.hold

    return limit


def hold_always(rules: Rules) -> Limit:
    """Return the limit of temperatures, states and counters: the long one, whatever the value."""
    return lambda _: rules.hold


def meter_rule(device: Device, rules: Rules) -> MeterRule:
    """Return what is set for one device."""
    return rules.device(device.subscription, device.kind, device.id)


def is_ignored(device: Device, rules: Rules) -> bool:
    """Tell whether the operator has said that a device counts nowhere (M4.2)."""
    return meter_rule(device, rules).role is Role.IGNORE


def sign_of(device: Device, rules: Rules) -> int:
    """Return +1 where a meter counts import, a battery charging as positive, else -1; the own setting wins."""
    own = meter_rule(device, rules).sign
    if own is not None or device.kind is not Kind.METER:
        return own or 1
    return rules.subscription(device.subscription).meter_sign


def runs_backwards(device: Device, value: Value, rules: Rules) -> bool:
    """Tell whether a power comes from a meter that can only draw, yet says that it delivers (M0.9)."""
    if device.kind is not Kind.METER or not isinstance(value, float):
        return False
    return meter_rule(device, rules).role in {Role.LOAD, Role.SUB} and value * sign_of(device, rules) < 0


def counts(device: Device, rules: Rules) -> bool:
    """Tell whether a device is a meter whose counter counts import (M4.4)."""
    if device.kind is not Kind.METER:
        return False
    own = meter_rule(device, rules).counter
    return own if own is not None else rules.subscription(device.subscription).meter_counter


def roles(devices: Sequence[Device], rules: Rules) -> tuple[dict[str, Role], tuple[str, ...]]:
    """Return the role of each meter by its name, and the names of those that have none beside others (M4.2).

    A meter that takes the place of another within a slot is single as long as the two were never there at once.
    """
    meters = [device for device in devices if device.kind is Kind.METER]
    found: dict[str, Role] = {}
    unclear: list[str] = []
    for meter in meters:
        role = meter_rule(meter, rules).role
        if role is None:
            single = not any(_meet(meter, other) for other in meters if name_of(other) != name_of(meter))
            if not single:
                unclear.append(name_of(meter))
            role = Role.GRID if single else Role.IGNORE
        found[name_of(meter)] = role
    return found, tuple(unclear)


def _meet(one: Device, other: Device) -> bool:
    """Tell whether two devices were there at the same time."""
    return (one.until is None or other.since < one.until) and (other.until is None or one.since < other.until)


# ---- what a device's power did --------------------------------------------------------------------------------------


class Track(NamedTuple):
    """The power [W] of a device in one slot; times are seconds from the slot's start."""

    device: Device
    pieces: list[Piece]  # known stretches while it was there, with the meter's sign
    born: float
    gone: float

    @property
    def last(self) -> float | None:
        """Return the power just before the slot's end."""
        return self.pieces[-1].value if self.pieces and self.pieces[-1].end == QUARTER_S else None


def present(building: Building, end: datetime) -> tuple[dict[str, Device], tuple[Device, ...]]:
    """Return the devices that are there before a slot's end, by name, and all that take part: with those that left."""
    living = {name: d for name, d in sorted(building.devices.items()) if d.kind is not Kind.TARIFF and d.since < end}
    return living, (*living.values(), *(device for device in building.departed if device.since < end))


def track(device: Device, start: datetime, end: datetime, rules: Rules) -> Track:
    """Return what a device's power did in a slot."""
    found = pieces(device.series.get(Quantity.POWER, ()), start, end, limit_of(device.kind, rules))
    if device.kind is Kind.METER and sign_of(device, rules) < 0:  # a battery's is applied where it is read (M0.9)
        found = [Piece(piece.start, piece.end, -piece.value) for piece in found]
    born = (device.since - start).total_seconds() if device.since > start else 0.0
    gone = (device.until - start).total_seconds() if device.until is not None and device.until < end else QUARTER_S
    if born > 0.0 or gone < QUARTER_S:
        cut = (Piece(max(piece.start, born), min(piece.end, gone), piece.value) for piece in found)
        found = [piece for piece in cut if piece.start < piece.end]
    away = device.series.get(Quantity.AWAY)
    return Track(device, _at_home(found, away, start) if away else found, born, gone)


def _at_home(found: list[Piece], away: Series, start: datetime) -> list[Piece]:
    """Return the known stretches without those in which a vehicle is away from its building (M3.1)."""
    for index, sample in enumerate(away):
        if sample.value is True:
            left = (sample.at - start).total_seconds()
            back = (away[index + 1].at - start).total_seconds() if index + 1 < len(away) else QUARTER_S
            halves = (
                (Piece(p.start, min(p.end, left), p.value), Piece(max(p.start, back), p.end, p.value)) for p in found
            )
            found = [half for both in halves for half in both if half.start < half.end]
    return found
