"""What is sent: effects become method, path and JSON body.

Rules:
- The only place with epoch seconds. Values are finite, rounded to 3 decimals, whole ones without a point, -0 as 0.
- The same effect always gives the same bytes, so that a repeated call is an identical one.
- A changed building carries everything through that MOOST sent, known or not, except what MOOST alone may set: as it
  was written, byte for byte. A record that cannot be taken apart is not changed.
- A building's `tariff` travels as `settings.tariff`; the other settings are left alone.

Source: MOOST documentation, "Common integration" (Event schema; building and device attributes; a PUT is treated as a
replacement: read, change, strip `id`, `customerId`, `activationTimestamp`, `profile`, send everything else back).
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, assert_never

import msgspec

from bridge.core.effects import (
    Attributes,
    Call,
    ChangeBuilding,
    CreateBuilding,
    DeviceEntry,
    Event,
    PutDevices,
    SendEvents,
)

JsonObject = dict[str, object]

EVENTS: Final = "/events/v1"
HISTORICAL: Final = "/events/historical/v1"
BUILDINGS: Final = "/buildings/v1"

MOOST_ONLY: Final = frozenset({"id", "customerId", "activationTimestamp", "profile"})
"""Building attributes that MOOST sets and a customer never sends."""

_DECIMALS: Final = 3

_compact: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True, kw_only=True)
class WireCall:
    """One request to MOOST, without its token."""

    method: str
    path: str
    body: bytes | None = field(default=None, repr=False)


def body_of(value: object) -> bytes:
    """Return compact JSON; raises ValueError for what JSON cannot say (NaN, lone surrogates)."""
    return _compact(value).encode()


# ---- MOOST's own record ---------------------------------------------------------------------------------------------


class UnreadableRecordError(ValueError):
    """MOOST's record of a building cannot be taken apart; the sentence says why."""


def record(body: bytes) -> dict[str, msgspec.Raw]:
    """Return the attributes of a building as MOOST wrote them; raises UnreadableRecordError."""
    try:
        return dict(_members(body.decode().removeprefix("\ufeff")))
    except UnicodeDecodeError:
        why = "it is not text in UTF-8"
    except RecursionError:
        why = "it has too many levels"
    except ValueError as error:
        why = error.args[0] if isinstance(error, UnreadableRecordError) else _BROKEN
    raise UnreadableRecordError(why)


def _members(text: str) -> Iterator[tuple[str, msgspec.Raw]]:
    """Yield name and value of each member of an object, the value as it is written."""
    place = _after(text, 0, "{")
    if text[place : place + 1] == "}":
        return
    sign = ","
    while sign == ",":
        if text[place : place + 1] != '"':
            raise ValueError(_BROKEN)
        name, end = _values.raw_decode(text, place)
        if not _is_writable(name):
            raise UnreadableRecordError("one of its names is no text")
        begin = _after(text, end, ":")
        _, end = _values.raw_decode(text, begin)
        yield name, msgspec.Raw(text[begin:end].encode())
        place = _blanks_to(text, end)
        sign = text[place : place + 1]
        place = _after(text, place, "," if sign == "," else "}")
    if place < len(text):
        raise ValueError(_BROKEN)


def _after(text: str, place: int, sign: str) -> int:
    """Return the place behind a sign, and behind the blanks around it."""
    place = _blanks_to(text, place)
    if text[place : place + 1] != sign:
        raise ValueError(_BROKEN)
    return _blanks_to(text, place + 1)


def _blanks_to(text: str, place: int) -> int:
    """Return where the blanks end that stand at a place."""
    while text[place : place + 1] in _BLANKS:
        place += 1
    return place


def _no_number(word: str) -> object:
    raise UnreadableRecordError(f"it holds {word}, which is no number of JSON")


_BROKEN: Final = "it is not whole, or not JSON"
_is_writable: Final = re.compile("[^\ud800-\udfff]*").fullmatch
_BLANKS: Final = frozenset(" \t\n\r")
# Numbers are not converted: they may be longer than can be.
_values: Final = json.JSONDecoder(parse_int=len, parse_float=len, parse_constant=_no_number)


def number(value: float) -> float | int:
    """Return a value as it leaves: rounded, whole numbers as such, never -0."""
    rounded = round(float(value), _DECIMALS)
    return int(rounded) if rounded.is_integer() else rounded


# ---- events ---------------------------------------------------------------------------------------------------------


def event(item: Event, building: str, customer: str) -> JsonObject:
    """Return MOOST's Event object; the value of a NaN or an infinity stays as it is, for the check to see."""
    return {
        "customerId": customer,
        "customerBuildingId": building,
        "deviceId": item.device,
        "deviceName": item.name,
        "source": item.source,
        "type": item.type,
        "value": number(item.value),
        "timestamp": int(item.at.timestamp()),
    }


def array(items: Sequence[bytes]) -> bytes:
    """Return encoded events as one array."""
    return b"[" + b",".join(items) + b"]"


def live(body: bytes) -> WireCall:
    """Return the call that sends one encoded event live."""
    return WireCall(method="POST", path=EVENTS, body=body)


def historical(body: bytes) -> WireCall:
    """Return the call that stores an encoded array of events."""
    return WireCall(method="POST", path=HISTORICAL, body=body)


# ---- buildings and devices ------------------------------------------------------------------------------------------


def new_building(building: str, attributes: Attributes, tariff: Attributes | None = None) -> JsonObject:
    """Return the body that creates a building."""
    result: JsonObject = {"customerBuildingId": building}
    _write(result, attributes)
    if tariff is not None:
        _set_tariff(result, tariff)
    return result


def changed_building(current: Mapping[str, object], effect: ChangeBuilding) -> JsonObject:
    """Return MOOST's own record with the wanted changes and nothing else changed; raises UnreadableRecordError."""
    result = {key: value for key, value in current.items() if key not in MOOST_ONLY}
    result["customerBuildingId"] = effect.building
    for name in effect.removed:
        result.pop(name, None)
    _write(result, effect.attributes)
    if effect.tariff_set:
        _set_tariff(result, effect.tariff)
    return result


def _write(result: JsonObject, attributes: Attributes) -> None:
    result.update((key, value) for key, value in attributes.items() if key != "tariff" and key not in MOOST_ONLY)
    if "tariff" in attributes:
        tariff = attributes["tariff"]
        _set_tariff(result, tariff if isinstance(tariff, Mapping) else None)


def _set_tariff(result: JsonObject, tariff: Attributes | None) -> None:
    """Change `settings.tariff` only; None removes it."""
    settings = result.get("settings")
    if isinstance(settings, msgspec.Raw):
        settings = record(bytes(settings)) if bytes(settings).startswith(b"{") else None
    others = {key: value for key, value in settings.items() if key != "tariff"} if isinstance(settings, Mapping) else {}
    if tariff is not None:
        result["settings"] = {**others, "tariff": dict(tariff)}
    elif isinstance(settings, Mapping):
        result["settings"] = others


def device(entry: DeviceEntry) -> JsonObject:
    """Return one entry of the device list."""
    result: JsonObject = {"id": entry.id, "type": entry.type, "name": entry.name}
    if entry.product_name is not None:
        result["product_name"] = entry.product_name
    return result


def create(body: JsonObject) -> WireCall:
    """Return the call that creates a building."""
    return WireCall(method="POST", path=BUILDINGS, body=body_of(body))


def read(building: str) -> WireCall:
    """Return the call that reads a building."""
    return WireCall(method="GET", path=f"/buildings/{building}/v1")


def update(body: JsonObject) -> WireCall:
    """Return the call that replaces a building; what is `Raw` in it goes as it is."""
    return WireCall(method="PUT", path=BUILDINGS, body=msgspec.json.encode(body))


def devices(effect: PutDevices) -> WireCall:
    """Return the call that sends the complete device list."""
    path = f"/buildings/{effect.building}/devices/v1"
    return WireCall(method="PUT", path=path, body=body_of([device(entry) for entry in effect.devices]))


# ---- everything an effect leads to, for people ----------------------------------------------------------------------


def calls(effect: Call, customer: str) -> Sequence[WireCall]:
    """Return the calls of an effect in sending order, events live unless they are a replay.

    What a change of a building adds to MOOST's own record is shown as the body of its PUT.
    """
    match effect:
        case CreateBuilding():
            return (create(new_building(effect.building, effect.attributes)),)
        case ChangeBuilding():
            return (read(effect.building), update(changed_building({}, effect)))
        case PutDevices():
            return (devices(effect),)
        case SendEvents():
            bodies = [body_of(event(item, effect.building, customer)) for item in effect.events]
            return (historical(array(bodies)),) if effect.replay else tuple(live(body) for body in bodies)
        case _:
            assert_never(effect)
