"""The settings of the law: what an operator may turn about the mapping, with the documented defaults.

`config` fills it; the core only reads it. Source: mapping rules M0 to M6; each field names its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from bridge.core.vocabulary import DeviceKey, DeviceType, EventType, Kind


class Role(StrEnum):
    """What a meter measures (M4.2)."""

    GRID = "grid"
    LOAD = "load"
    SUB = "sub"
    IGNORE = "ignore"


class PowerUnit(StrEnum):
    """In which unit powers are sent (M0.11)."""

    KILOWATT = "kW"
    WATT = "W"


class Stamp(StrEnum):
    """Which instant of its slot an interval event carries (M5.1)."""

    END = "end"
    INSIDE = "inside"
    START = "start"


class Unknown(StrEnum):
    """What to do with a user the directory does not know (M1.1)."""

    CREATE = "create"
    PARK = "park"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterRule:
    """Exceptions for one device; None = as its subscription says."""

    role: Role | None = None
    sign: int | None = None  # +1 import or charging is positive, -1 export or discharging
    counter: bool | None = None  # meterValue counts import
    unit: PowerUnit | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionRule:
    """What one subscription says of all its devices."""

    user_prefix: str = ""
    meter_sign: int = 1
    meter_counter: bool = False
    unit: PowerUnit | None = None  # None = kW, and a jump to W is noticed


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """All settings of the law."""

    subscriptions: Mapping[str, SubscriptionRule] = field(default_factory=dict)
    heirs: Mapping[str, str] = field(default_factory=dict)  # former subscription -> the one whose its devices are now
    devices: Mapping[tuple[Kind, str], MeterRule] = field(default_factory=dict)  # of whichever subscription
    own_devices: Mapping[DeviceKey, MeterRule] = field(default_factory=dict)  # of one: these count alone
    codes: Mapping[tuple[EventType, DeviceType], Mapping[str, int]] = field(default_factory=dict)
    unknown: Unknown = Unknown.CREATE
    default_time_zone: str = "Europe/Berlin"
    default_country: str = "DE"
    battery_soc: bool = False
    live_max_age: timedelta = timedelta(minutes=30)
    grace: timedelta = timedelta(minutes=2)
    hold: timedelta = timedelta(hours=24)
    hold_active: timedelta = timedelta(hours=1)
    min_coverage: float = 0.9
    spread: timedelta = timedelta(minutes=3)
    stamp: Stamp = Stamp.END
    catch_up: timedelta = timedelta(minutes=10)
    max_backfill: timedelta = timedelta(hours=48)
    values_per_message: int = 5_000
    devices_per_building: int = 200

    def subscription(self, name: str) -> SubscriptionRule:
        """Return what is set for a subscription, or the defaults."""
        return self.subscriptions.get(self.heir(name), _DEFAULT)

    def heir(self, subscription: str) -> str:
        """Return the subscription whose the devices of another are now; nearly always that is itself."""
        return self.heirs.get(subscription, subscription)

    def present(self, device: DeviceKey) -> DeviceKey:
        """Return what a device of a former subscription is now."""
        return device._replace(subscription=self.heir(device.subscription)) if self.heirs else device

    def former(self, device: DeviceKey) -> tuple[DeviceKey, ...]:
        """Return what a device may have been under former subscriptions."""
        return tuple(device._replace(subscription=old) for old, new in self.heirs.items() if new == device.subscription)

    def device(self, subscription: str, kind: Kind, device: str) -> MeterRule:
        """Return what is set for one device, or the defaults."""
        if self.own_devices:
            own = self.own_devices.get(DeviceKey(self.heir(subscription), kind, device))
            if own is not None:
                return own
        return self.devices.get((kind, device), _NO_EXCEPTION) if self.devices else _NO_EXCEPTION

    def unit(self, subscription: str, kind: Kind, device: str) -> PowerUnit | None:
        """Return the unit that is set for the powers of a device; its own setting wins over its subscription's."""
        return self.device(subscription, kind, device).unit or self.subscription(subscription).unit


_DEFAULT = SubscriptionRule()
_NO_EXCEPTION = MeterRule()
