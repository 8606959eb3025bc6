"""What a device's power did in one slot, with the settings that decide what it means (mapping rules M4.2, M5.2).

Rules:
- A power that is 0 holds long; one that flows, as long as its kind of device may be silent.
- A device's own setting wins over its subscription's.
- A device counts from its first message to its delete, the power of an inverter from its first sample on (M4.1).
- The power of a vehicle is unknown while it is away from its building (M3.1).
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

from bridge.core.intervals import QUARTER, QUARTER_S, Limit, Piece, pieces
from bridge.core.messages import Quantity, Value
from bridge.core.model import Building, Device, Level, Series, Sum, name_of
from bridge.core.rules import MeterRule, Role, Rules
from bridge.core.vocabulary import Kind

ROUNDING_S: Final = 1e-6  # what adding up known stretches may lose
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


def setting_of(device: Device, rules: Rules) -> str:
    """Return what the settings say of a meter's part in a balance."""
    return f"{meter_rule(device, rules).role or ''}{sign_of(device, rules):+d}"


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


def enough_of(length: timedelta, rules: Rules) -> Callable[[float], bool]:
    """Return the test whether a known time [s] is enough of an interval (M5.3)."""
    least_s = rules.min_coverage * length.total_seconds() - ROUNDING_S
    return lambda known_s: known_s >= least_s


def seconds(known: Sequence[Piece]) -> float:
    """Return for how long something is known [s]."""
    return sum(end - start for start, end, _ in known)


class Why(StrEnum):
    """Why a value does not leave."""

    UNKNOWN = "unknown"  # too little of what it needs is known, or nothing just before the end
    NEW_BASE = "new base"  # the counter has begun anew, and the power does not serve (M4.4)
    UNPLACED = "unplaced"  # the counter has grown in a time too long for a slot (M4.4)
    SURPLUS = "surplus"  # what was drawn has been sent before (M4.4)
    IMPLAUSIBLE = "implausible"  # the balance cannot be (M4.5)
    APART = "apart"  # the devices name two places (M1.3)
    SMALL = "small"  # what a rate is one of is less than 1 Wh


class Measured(NamedTuple):
    """One value of a slot."""

    value: float
    known_s: float | None = None  # for how long what it needs is known [s]; None = it is that of an instant
    why: Why | None = None  # why it does not leave; None = it does


class Count(NamedTuple):
    """What a meter's counter says of a slot (M4.4)."""

    energy_wh: float
    known: list[Piece]  # the time of which it says so; the values mean nothing
    day: list[Piece]  # the same for the day, where the time after the last reading waits for the next one
    filled_s: float = 0.0  # time of closed slots that a reading has made known for the day
    why: Why | None = None  # why it is not sent
    against: bool = False  # the power was wrong or the counter stood still: over 1 kWh is not taken back
    read: bool = False  # a reading has come
    lost: bool = False  # there is time of which nothing will ever be known
    level: Level | None = None  # where the next slot goes on

    @property
    def of_slot(self) -> Sum:
        """Return the slot's energy."""
        return Sum(self.energy_wh, seconds(self.known))

    @property
    def of_day(self) -> Sum:
        """Return what the day gains."""
        return Sum(self.energy_wh, seconds(self.day) + self.filled_s)


class Track(NamedTuple):
    """The power [W] of a device in one slot; times are seconds from the slot's start."""

    device: Device
    pieces: list[Piece]  # known stretches while it was there, with the meter's sign
    born: float
    gone: float
    counted: Count | None = None  # of a meter whose counter counts
    mute_until: float = 0.0  # of an inverter: before then it has said nothing of its power

    @property
    def last(self) -> float | None:
        """Return the power just before the slot's end."""
        return self.pieces[-1].value if self.pieces and self.pieces[-1].end == QUARTER_S else None


def present(building: Building, end: datetime) -> tuple[dict[str, Device], tuple[Device, ...]]:
    """Return the devices that are there before a slot's end, by name, and all that take part: with those that left."""
    living = {name: d for name, d in sorted(building.devices.items()) if d.kind is not Kind.TARIFF and d.since < end}
    start = end - QUARTER
    left = (one for one in building.departed if one.since < end and (one.until is None or one.until > start))
    return living, (*living.values(), *left)


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
    mute_until = (device.mute_until - start).total_seconds() if device.mute_until is not None else 0.0
    return Track(device, _at_home(found, away, start) if away else found, born, gone, mute_until=max(mute_until, born))


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
