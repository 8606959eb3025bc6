"""The last check before the wire: what fails it becomes a dead letter that names the rule, never a call.

Rules:
- Everything that passes is valid by MOOST's document; a test compares both over generated events.
- MOOST's schema does not tie a type to its sources; the table of the vocabulary does.
- Names are judged by MOOST's patterns, whole: a line break at the end does not slip through.
- A result is the rule that failed, one sentence without the value; None = it may leave.

Source: MOOST documentation, "Common integration" (Event schema, traps "seconds, not milliseconds" and "`.` does not
match a line break"; customer-provided event types; building attributes; tariff).
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Final

from bridge.core.effects import Attributes, ChangeBuilding, CreateBuilding, DeviceEntry, PutDevices
from bridge.core.vocabulary import EVENT_TYPES, DeviceType, EventType
from bridge.sink.encode import JsonObject, new_building

_is_customer: Final = re.compile(r"[a-zA-Z0-9]{24}").fullmatch
_is_building: Final = re.compile(r"[a-zA-Z0-9:._-]{1,100}").fullmatch
_is_device: Final = re.compile(r"[a-zA-Z0-9:._-]{3,64}").fullmatch
# Lone surrogates cannot be written as UTF-8.
_is_name: Final = re.compile("[^\n\r\u2028\u2029\ud800-\udfff]{1,100}").fullmatch
_is_user: Final = re.compile(r"[a-zA-Z0-9:._@-]{1,100}").fullmatch
_is_country: Final = re.compile(r"[A-Z]{2}").fullmatch
_is_currency: Final = re.compile(r"[A-Z]{3}").fullmatch
_is_price: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?").fullmatch

_LAST_SECOND: Final = 10**11  # an epoch number above it is milliseconds
_TARIFFS: Final = frozenset({"SINGLE", "DUAL", "DYNAMIC"})
# Legal by the pattern, but as part of a path they name something else.
_RESERVED: Final = frozenset({"core-data", ".", ".."})


# ---- events ---------------------------------------------------------------------------------------------------------


def event(body: JsonObject, *, battery_soc: bool = False) -> str | None:
    """Return the rule that an encoded event breaks."""
    if not _text(_is_customer, body["customerId"]):
        return "customerId is not 24 letters or digits"
    if not _text(_is_building, body["customerBuildingId"]):
        return "customerBuildingId does not fit MOOST's pattern"
    if not _text(_is_device, body["deviceId"]):
        return "deviceId does not fit MOOST's pattern"
    if not _text(_is_name, body["deviceName"]):
        return "deviceName is not one line of 1 to 100 characters"
    timestamp = body["timestamp"]
    if type(timestamp) is not int or not 0 < timestamp <= _LAST_SECOND:
        return "timestamp is not in epoch seconds"
    return _value(body["type"], body["source"], body["value"], battery_soc=battery_soc)


def _value(kind: object, source: object, value: object, *, battery_soc: bool) -> str | None:
    rule = EVENT_TYPES.get(kind) if isinstance(kind, EventType) else None
    if rule is None:
        return "the type is not one that a customer may send"
    if source not in rule.sources and not (
        battery_soc and kind is EventType.STATE_OF_CHARGE_RATE and source is DeviceType.BATTERY
    ):
        return f"{kind} may not come from {source}"
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return "the value is not a finite number"
    if rule.lowest is not None and value < rule.lowest:
        return f"{kind} is below {rule.lowest:.15g} {rule.unit}"
    if rule.highest is not None and value > rule.highest:
        return f"{kind} is above {rule.highest:.15g} {rule.unit}"
    return None


def _text(fits: object, value: object) -> bool:
    return isinstance(value, str) and callable(fits) and fits(value) is not None


# ---- buildings ------------------------------------------------------------------------------------------------------


def building(effect: CreateBuilding | ChangeBuilding) -> str | None:
    """Return the rule that a building breaks, looking at what we set ourselves only."""
    if isinstance(effect, CreateBuilding):
        return _building(new_building(effect.building, effect.attributes))
    fallback = _building(new_building(effect.building, effect.create))
    return fallback or _building(new_building(effect.building, effect.attributes, effect.tariff))


def _building(body: JsonObject) -> str | None:
    name = body["customerBuildingId"]
    if not _text(_is_building, name) or name in _RESERVED:
        return "customerBuildingId does not fit MOOST's pattern"
    if "countryCode" in body and not _text(_is_country, body["countryCode"]):
        return "countryCode is not two capital letters"
    for key in ("zip", "city", "timeZoneId"):
        if key in body and not _clean(body[key]):
            return f"{key} is not a text"
    users = body.get("userIds", ())
    if not isinstance(users, list | tuple) or not all(_text(_is_user, user) for user in users):
        return "userIds do not fit MOOST's pattern"
    registered = body.get("registrationTimestamp", 1)
    if type(registered) is not int or not 0 < registered <= _LAST_SECOND:
        return "registrationTimestamp is not in epoch seconds"
    return _geolocation(body.get("geolocation")) or _settings(body.get("settings"))


def _clean(value: object) -> bool:
    """Return whether a value is a text that can be written as UTF-8."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def _geolocation(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, Mapping) and _within(value.get("lat"), 90) and _within(value.get("lon"), 180):
        return None
    return "geolocation is not a latitude and a longitude in degrees"


def _within(value: object, limit: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -limit <= value <= limit


def _settings(value: object) -> str | None:
    tariff = value.get("tariff") if isinstance(value, Mapping) else None
    return None if tariff is None else _tariff(tariff)


def _tariff(tariff: Attributes) -> str | None:
    if tariff.get("type") not in _TARIFFS:
        return "the tariff's type is none of SINGLE, DUAL, DYNAMIC"
    if not all(_text(_is_price, tariff[key]) for key in ("minPrice", "maxPrice") if key in tariff):
        return "a tariff's price is not a decimal string"
    if "currency" in tariff and not _text(_is_currency, tariff["currency"]):
        return "the tariff's currency is not a three-letter code"
    dynamic = tariff.get("dynamic")
    slices = dynamic.get("tariffs") if isinstance(dynamic, Mapping) else ()
    if not isinstance(slices, list | tuple) or not all(_slice(each) for each in slices):
        return "a tariff slice is not a price with a beginning and a later end in epoch seconds"
    return None


def _slice(value: object) -> bool:
    if not isinstance(value, Mapping) or not _text(_is_price, value.get("price")):
        return False
    begin, end = value.get("from"), value.get("to")
    return type(begin) is int and type(end) is int and 0 < begin < end <= _LAST_SECOND


# ---- device lists ---------------------------------------------------------------------------------------------------


def devices(effect: PutDevices) -> str | None:
    """Return the rule that a device list breaks."""
    if not _text(_is_building, effect.building) or effect.building in _RESERVED:
        return "customerBuildingId does not fit MOOST's pattern"
    if not effect.devices or effect.devices[0].type is not DeviceType.GATEWAY:
        return "the device list does not begin with GATEWAY"
    if len({entry.id for entry in effect.devices}) < len(effect.devices):
        return "two devices of the list have the same id"
    return _entries(effect.devices)


def _entries(entries: Sequence[DeviceEntry]) -> str | None:
    for entry in entries:
        if not _text(_is_device, entry.id):
            return "a device's id does not fit MOOST's pattern"
        if not _text(_is_name, entry.name):
            return "a device's name is not one line of 1 to 100 characters"
        if entry.product_name is not None and not _clean(entry.product_name):
            return "a device's product_name is not a text"
    return None
