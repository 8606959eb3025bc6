"""Buildings, devices, series: the frozen values the core remembers.

Rules:
- State belongs to one building; it is replaced, never changed in place.
- A series keeps its samples from the last one before the first open slot on; what is older is forgotten.
- VIN, coordinates and addresses never enter a state (mapping rule M0.8).
- Every field has a default that an older row without it can live with.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Final, NamedTuple, TypeVar

from bridge.core.effects import Attributes
from bridge.core.messages import Envelope, Facts, Moved, Quantity, Value
from bridge.core.order import Time
from bridge.core.vocabulary import DeviceKey, EventType, Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Residence:
    """One directory row: where a user (at a location) lives in MOOST, and what the operator knows of the building."""

    user: str
    location: str | None  # None = the row for the user as such
    building: str  # customerBuildingId
    attributes: Attributes = field(default_factory=dict)  # in MOOST's spelling; may hold settings.tariff under "tariff"


class Sample(NamedTuple):
    """A value from an instant on; None = unknown from then on. A tuple, because a state holds many."""

    at: datetime
    value: Value | None
    seen: datetime  # newest message stamp that still carried it
    updated: datetime  # the object's lastUpdated: settles ties
    number: int  # place in the order of acceptance: settles the rest
    sent: datetime | None = None  # `at` as it was sent, where that was later than the receipt (M0.3)
    updated_sent: datetime | None = None  # the same of `updated`
    dusk: bool = False  # an inverter's power that is so small that night may follow (mapping rule M4.3)


class Shown(NamedTuple):
    """What powers a device has shown so far: by that a change of unit is told (mapping rule M0.11)."""

    largest_w: float = 0.0  # the largest magnitude that counted; 0 = none
    jumping_since: datetime | None = None  # when it began to show, on end, what would be a change of unit
    jumped: datetime | None = None  # when it last did; None = not within a day


_Name = TypeVar("_Name", bound=str)

NOTHING_SHOWN: Final = Shown()

Series = tuple[Sample, ...]
"""Samples in order of time, newest last."""


class Sum(NamedTuple):
    """An energy and the time over which it was known."""

    energy_wh: float = 0.0
    known_s: float = 0.0


class Half(NamedTuple):
    """The excess of the open half hour so far."""

    energy_wh: float
    known_s: float
    wrong: bool = False  # one of its quarters was withheld: the balance could not be (M4.5)


class Level(NamedTuple):
    """A meter's counter at the first open slot, on the counter's own scale (mapping rule M4.4)."""

    at: datetime  # of the last reading that counts
    energy_wh: float  # what it showed
    heard: datetime  # of the last reading at all
    since_wh: float  # what the power has drawn since
    booked_wh: float  # up to where the closed slots have its energy
    gap_s: float = 0.0  # of the closed slots of the local day: time since the reading in which nothing is known
    lately: tuple[float, ...] = ()  # what the power has drawn in each of the last slots since the reading [Wh]
    other: tuple[datetime, float] | None = None  # a reading of another base, which none has confirmed yet
    spare_s: float = 0.0  # what is known of the local day, but not of the other meters that count with it


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One device of a building; a tariff is one too, though it is never listed."""

    kind: Kind
    id: str
    user: str
    subscription: str
    since: datetime  # oldest message stamp, or the time of an older value: it counts from then on
    stamp: datetime  # newest message stamp
    until: datetime | None = None  # its delete: it counts up to then
    location: str | None = None
    facts: Facts = Facts()
    offline: bool = False
    disconnected: bool = False
    offline_stamp: datetime | None = None  # newest stamp that said offline: makes a repeat harmless
    disconnect_stamp: datetime | None = None
    stamp_sent: datetime | None = None  # this and the next two: as sent, where that was later than the receipt (M0.3)
    offline_sent: datetime | None = None
    disconnect_sent: datetime | None = None
    series: Mapping[Quantity, Series] = field(default_factory=dict)
    sent: Mapping[EventType, float] = field(default_factory=dict)  # last value queued, for on-change types
    days: Mapping[EventType, Sum] = field(default_factory=dict)  # the local day so far, for the _YESTERDAY types
    level: Level | None = None  # where the counter stood at the first open slot; None = it has shown nothing
    power_from: datetime | None = None  # of a meter: the earliest time of a power; None = it has never sent one
    mute_until: datetime | None = None  # of an inverter: when it first said something of its power; `NEVER` = not yet
    shown: Shown = NOTHING_SHOWN
    not_before: datetime | None = None  # deleted, or in another building, until then: it does not count before
    own_from: datetime | None = None  # its own slots before then are closed, those of the household may be open
    own_level: Level | None = None  # where the counter stood then
    moost_id: str | None = None  # MOOST's id, where another device's had to be avoided; None = `identity.device_id`

    @property
    def time(self) -> Time:
        """Return the newest message stamp."""
        return Time(self.stamp, self.stamp_sent)


class Slice(NamedTuple):
    """A price [currency/kWh] from start to end."""

    start: datetime
    end: datetime
    price: Decimal


class Schedule(NamedTuple):
    """The weekly schedule of a device, as sent."""

    time_zone: str | None
    entries: tuple[Mapping[str, object], ...]
    size: int  # as JSON [characters]


@dataclass(frozen=True, slots=True, kw_only=True)
class Building:
    """One household as MOOST knows it."""

    id: str  # customerBuildingId
    created: bool = False  # a CreateBuilding has been queued
    known: bool = False  # the directory has a row for it
    users: tuple[str, ...] = ()  # MOOST userIds
    sheet: Mapping[str, str] = field(default_factory=dict)  # directory attribute -> fingerprint of what was queued
    time_zone: str = "Europe/Berlin"
    devices: Mapping[str, Device] = field(default_factory=dict)  # see `key`
    departed: tuple[Device, ...] = ()  # deleted, but still counted in open slots
    gone: Mapping[str, datetime] = field(default_factory=dict)  # deleted devices -> stamp of the delete
    gone_sent: Mapping[str, datetime] = field(default_factory=dict)  # as sent, where that was later than the receipt
    early: Mapping[str, datetime] = field(default_factory=dict)  # those that were not there: when their delete came
    newest_stamp: datetime | None = None
    last_received: datetime | None = None
    last_stamp: datetime | None = None  # of the message last accepted: an old one means that a backlog is coming in
    open_from: datetime | None = None  # start of the first open slot; None = no sample yet
    closed: bool = False  # a slot has been closed: `open_from` only grows from now on
    clock: datetime | None = None  # the building's clock (M5.4); never goes back
    half: Half | None = None  # excess of the first quarter of the open half hour
    days: Mapping[str, Sum] = field(default_factory=dict)  # household sums of the local day so far
    meters: Mapping[str, str] = field(default_factory=dict)  # what the settings said of each meter at the last close
    prices: Mapping[str, tuple[Slice, ...]] = field(default_factory=dict)  # tariff -> what it costs from now on
    schedules: Mapping[str, Schedule] = field(default_factory=dict)  # device -> its weekly schedule, the newest last
    tariff: tuple[str, str] | None = None  # key and currency of the dynamic tariff that MOOST was told last
    flags: tuple[str, ...] = ()  # what an operator should look at: see `Flag`
    about: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # flag -> keys of the devices that it is about
    waits: Mapping[str, datetime] = field(default_factory=dict)  # key of a device -> since when its values are missing
    apart: tuple[tuple[datetime, datetime | None], ...] = ()  # when its devices named two places (M1.3); None = they do
    forgotten: datetime | None = None  # a user was forgotten then: what was before cannot be made again
    backlog: datetime | None = None  # acceptance of the last message that was old and yet newer than all before it

    @property
    def payer(self) -> str:
        """Return the subscription that pays for what no message asks for: of the device that is there longest."""
        return next((device.subscription for device in self.devices.values()), "")


class Flag:
    """Words of `Building.flags`; `/health` counts buildings per flag."""

    AMBIGUOUS_LOCATION = "ambiguous-location"  # M1.3
    AMBIGUOUS_METERS = "ambiguous-meters"  # M4.2
    WRONG_METER_SIGN = "wrong-meter-sign"  # M4.5
    LEFT_BEHIND = "left-behind"  # M1.6: its devices moved elsewhere
    UNIT_JUMP = "unit-jump"  # M0.11
    WAITS_FOR_DEVICE = "waits-for-device"  # M4.5
    TOO_MANY = "too-many"  # R13
    COUNTER_AGAINST_POWER = "counter-against-power"  # M4.4


def key(subscription: str, kind: Kind, device_id: str) -> str:
    """Return the name of a device within a state, "<subscription>/<kind>:<id>"; no subscription has a slash in it."""
    return f"{subscription}/{kind.value}:{device_id}"


def parted(name: str) -> DeviceKey:
    """Return what the device is that has a name within a state."""
    subscription, _, rest = name.partition("/")
    kind, _, device_id = rest.partition(":")
    return DeviceKey(subscription, Kind(kind), device_id)


def name_of(what: Device | Envelope | Moved) -> str:
    """Return the name of a device within a state; `what` is the device, or a message about it."""
    return f"{what.subscription}/{what.kind.value}:{what.id}"


def identity_of(device: Device) -> DeviceKey:
    """Return what a device is."""
    return DeviceKey(device.subscription, device.kind, device.id)


def label(kind: Kind, device_id: str) -> str:
    """Return a device for people: "<kind>:<id>"."""
    return f"{kind.value}:{device_id}"


def added(sums: Mapping[_Name, Sum], more: Mapping[_Name, Sum]) -> dict[_Name, Sum]:
    """Return a day's sums with those of another slot."""
    found = dict(sums)
    for name, sum_ in more.items():
        earlier = found.get(name)
        found[name] = (
            Sum(earlier.energy_wh + sum_.energy_wh, earlier.known_s + sum_.known_s) if earlier is not None else sum_
        )
    return found


def flagged(flags: tuple[str, ...], flag: str, *, on: bool) -> tuple[str, ...]:
    """Return flags with one of them set or cleared."""
    if on == (flag in flags):
        return flags
    return tuple(sorted({*flags, flag} if on else set(flags) - {flag}))
