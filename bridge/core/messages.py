"""Everything that can happen: what the core reads.

Rules:
- Values are in W, Wh, %, °C; times are aware UTC datetimes. `source.decode` has converted them.
- A field that says nothing usable is a `Reading` with value None: it *ends* the held value at the block's time.
  A block that is missing as a whole has no readings: it changes nothing (mapping rule M0.1).
- Every message knows when it was accepted (`received`) and its place in the order of acceptance (`number`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from bridge.core.order import Time
from bridge.core.vocabulary import Action, DeadReason, DeviceKey, Kind


class Quantity(StrEnum):
    """What a device's series holds; one series per quantity and device."""

    POWER = "power"  # [W] sign: meter + = as the meter counts, battery + = charging, others >= 0
    STATE_OF_CHARGE = "soc"  # [%]
    TEMPERATURE = "temperature"  # [°C]
    COUNTER = "counter"  # [Wh]
    STATE = "state"  # upper-case word of chargingState / powerState.state
    PLUGGED = "plugged"  # bool
    MODE = "mode"  # upper-case word
    ACTIVE = "active"  # bool
    AWAY = "away"  # bool: a vehicle is not where its building is; of no field, but of its position


Value = float | bool | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One value of one block at the block's time; None = known to be unknown from then on."""

    quantity: Quantity
    at: datetime
    value: Value | None
    sent: datetime | None = None  # the time as sent, where it was later than the receipt
    beyond: float | None = None  # a power that is unknown because it is outside its limits [W] (mapping rule M0.11)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Static data of a device or tariff; None = not said (what is known is kept)."""

    vendor: str | None = None
    model: str | None = None
    name: str | None = None
    type: str | None = None  # hvac: AC, HEATPUMP, DHW, THERMOSTAT
    engine: str | None = None  # vehicle: BEV, PHEV, HEV, ICEV
    currency: str | None = None  # tariff: ISO 4217
    updated: datetime | None = None
    updated_sent: datetime | None = None  # as sent, where that was later than the receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What every message from the device cloud has in common."""

    number: int  # place in the order of acceptance
    received: datetime
    subscription: str
    kind: Kind
    action: Action
    id: str  # device, tariff or (command) command id, as the device cloud spells it
    user: str | None  # with the subscription's prefix; None = not said
    raw_user: str | None = None  # as the device cloud spells it


@dataclass(frozen=True, slots=True, kw_only=True)
class Report(Envelope):
    """connect, update, offline, disconnect or delete of a device or tariff."""

    stamp: datetime  # newest lastUpdated anywhere in it, else received
    stamp_sent: datetime | None = None  # as sent, where that was later than the receipt
    undated: bool = False  # its times were there and could not be read: it is newer than nothing
    updated: datetime | None = None  # the object's own lastUpdated
    updated_sent: datetime | None = None  # as sent, where that was later than the receipt
    location: str | None = None
    online: bool | None = None
    connected: bool | None = None
    facts: Facts = Facts()
    readings: tuple[Reading, ...] = ()
    position: tuple[float, float] | None = field(
        default=None, repr=False
    )  # latitude, longitude [°]; compared in passing, never kept
    positioned: Time | None = None  # the time of the position
    odd: tuple[str, ...] = ()  # what was unusual, for the counters: "chargeState.chargingState: unknown word"
    odd_times: tuple[str, ...] = ()  # the same of its times: "unreadable"
    arrived: datetime | None = None  # the device counted in another building until then (mapping rule M1.6)

    @property
    def time(self) -> Time:
        """Return the stamp."""
        return Time(self.stamp, self.stamp_sent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices(Envelope):
    """price.update: entries as sent; a price of None only ends its predecessor (mapping rule M6.1)."""

    location: str | None = None
    entries: tuple[tuple[datetime, Decimal | None], ...] = ()  # start, price [currency/kWh]
    odd_times: tuple[str, ...] = ()  # what was unusual about the starts of entries that are not used


@dataclass(frozen=True, slots=True, kw_only=True)
class Command(Envelope):
    """A command was created or changed state; `id` is the command's, `device` the device's."""

    device: str
    type: str | None
    state: str | None
    failed_reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedules(Envelope):
    """The weekly schedule of an hvac device, kept as sent."""

    time_zone: str | None
    entries: tuple[Mapping[str, object], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstone:
    """A record without a value: settled and counted."""

    number: int
    received: datetime
    subscription: str
    kind: Kind
    action: Action


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A message that cannot be understood; it becomes a dead letter with this sentence."""

    number: int
    detail: str
    reason: DeadReason = DeadReason.UNREADABLE
    limit: str = ""  # the bound that it is over


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Time has passed: `now` by the wall clock; every message accepted before it has been processed."""

    now: datetime
    catching_up: bool = False  # the process resumed a short while ago (mapping rule M5.4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """A device's newest message or directory row names another building (mapping rule M1.6)."""

    subscription: str
    kind: Kind
    id: str
    stamp: datetime
    received: datetime
    stamp_sent: datetime | None = None  # as sent, where that was later than the receipt

    @property
    def time(self) -> Time:
        """Return the stamp."""
        return Time(self.stamp, self.stamp_sent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Readdressed:
    """The directory rows of a building were changed; what it is told with it is what all of them say together."""

    received: datetime
    left: str | None = None  # a user who has no row here any more, with the subscription's prefix
    whole: bool = True  # it is what all rows say; where there are too many of them, what they do not say is not known


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """A user of a building in which others live too is to be forgotten (GDPR, article 17)."""

    user: str  # with the subscription's prefix
    raw_users: frozenset[str]  # as the device cloud may spell it
    devices: frozenset[DeviceKey]  # all that the user's messages were about, also what is gone by now
    received: datetime


Inbound = Report | Prices | Command | Schedules
"""What the device cloud sent and the core understood."""

Message = Inbound | Tick | Moved | Readdressed | Forgotten
"""Everything `reduce` accepts."""
