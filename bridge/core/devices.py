"""A device as MOOST lists it (mapping rule M2), and what it is doing now (M3.3)."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from bridge.core.effects import DeviceEntry
from bridge.core.identity import HOUSEHOLD, device_id, device_ids, device_name, gateway_id, product_name
from bridge.core.mapping import DEVICE_TYPES, HVAC_OTHER, HVAC_TYPES
from bridge.core.messages import Quantity, Value
from bridge.core.model import Device
from bridge.core.vocabulary import DeviceKey, DeviceType, Kind

STATUS_WORDS = ("disconnected", "offline", "fault", "active", "online")
"""DEVICE_STATUS, the first that applies; what has no code of its own falls back as `STATUS_FALLBACK` says."""

STATUS_FALLBACK = {"disconnected": "offline", "fault": "online", "active": "online"}

_ACTIVE = frozenset({"CHARGING", "DISCHARGING", "PRODUCING"})


def device_type(device: Device) -> DeviceType | None:
    """Return MOOST's type of a device; None for a tariff, which is none."""
    if device.kind is Kind.TARIFF:
        return None
    if device.kind is Kind.HVAC:
        return HVAC_TYPES.get(device.facts.type or "", HVAC_OTHER)
    return DEVICE_TYPES[device.kind]


def moost_id(device: Device) -> str:
    """Return MOOST's deviceId of a device."""
    return device_id(device.kind, device.id) if device.moost_id is None else device.moost_id


def new_moost_id(new: DeviceKey, others: Iterable[Device]) -> str | None:
    """Return MOOST's deviceId of a device that joins others, for `Device.moost_id`; None = the usual one.

    It is another one if a device of the same kind and id is there, from another subscription, or one that has taken
    the id in this way (M0.6).
    """
    taken = {moost_id(other) for other in others}
    taken |= {device_id(new.kind, new.id) for other in others if (other.kind, other.id) == (new.kind, new.id)}
    if not taken:
        return None
    found = next(name for name in device_ids(*new) if name not in taken)
    return None if found == device_id(new.kind, new.id) else found


def entry_of(device: Device) -> DeviceEntry | None:
    """Return a device as the list carries it."""
    type_ = device_type(device)
    if type_ is None:
        return None
    return DeviceEntry(
        id=moost_id(device),
        type=type_,
        name=device_name(device.kind, device.id, device.facts),
        product_name=product_name(device.facts),
    )


def gateway_entry(building: str) -> DeviceEntry:
    """Return the household itself as the list carries it."""
    return DeviceEntry(id=gateway_id(building), type=DeviceType.GATEWAY, name=HOUSEHOLD)


def device_list(building: str, devices: Iterable[Device]) -> tuple[DeviceEntry, ...]:
    """Return the complete list: the household first, then by id."""
    entries = sorted(
        (entry for device in devices if (entry := entry_of(device)) is not None), key=lambda entry: entry.id
    )
    return (gateway_entry(building), *entries)


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A word that a device says of itself, and since when."""

    word: str
    at: datetime


def newest(device: Device, quantity: Quantity) -> Value | None:
    """Return the newest value of a series, whether it still holds or not."""
    series = device.series.get(quantity)
    return series[-1].value if series else None


def status(device: Device) -> str:
    """Return the word of `STATUS_WORDS` that describes a device."""
    if device.disconnected:
        return "disconnected"
    if device.offline:
        return "offline"
    state = newest(device, Quantity.STATE)
    if state == "FAULT":
        return "fault"
    if state in _ACTIVE or newest(device, Quantity.ACTIVE) is True:
        return "active"
    return "online"


def switch(device: Device) -> Said | None:
    """Return plugged or unplugged; None where neither flag nor word says (SWITCH_STATE, charger only)."""
    if device.kind is not Kind.CHARGER:
        return None
    for quantity, unplugged in ((Quantity.PLUGGED, False), (Quantity.STATE, "UNPLUGGED")):
        series = device.series.get(quantity)
        if series and series[-1].value is not None:
            return Said(word="unplugged" if series[-1].value == unplugged else "plugged", at=series[-1].at)
    return None


def mode(device: Device) -> Said | None:
    """Return the mode that a battery or hvac device runs in (CHARGING_MODE)."""
    series = device.series.get(Quantity.MODE)
    if not series or not isinstance(series[-1].value, str):
        return None
    return Said(word=series[-1].value, at=series[-1].at)
