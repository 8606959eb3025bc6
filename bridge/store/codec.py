"""How the memory writes down what the core hands it, and reads it back after the next release.

Rules:
- Generic over the dataclasses of the core: no list of fields here. A field that a newer release added takes its
  default in an old row, a field that it dropped is passed over; a new field therefore needs a default, and a new
  member of a NamedTuple belongs at its end.
- States are MessagePack: read and written ten thousand times a second, by nobody but the bridge. Measured on a
  building of 5 devices with 3 series of 3 samples each: 0.52 of the bytes of JSON and 0.62 of its time.
- Calls, directory rows and notes are JSON: an operator reads them in a dead letter or in the file itself.
- A time outside such a document is whole milliseconds since 1970, UTC, rounded down.
"""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Final, assert_never, cast

import msgspec

from bridge.core.copying import replace
from bridge.core.effects import Call, ChangeBuilding, CreateBuilding, PutDevices, SendEvents
from bridge.core.model import Building, Device

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


def to_ms(at: datetime) -> int:
    """Return a time as milliseconds since 1970."""
    return (at - _EPOCH) // _MILLISECOND


def from_ms(ms: int) -> datetime:
    """Return the time of milliseconds since 1970, in UTC."""
    return _EPOCH + ms * _MILLISECOND


def maybe_ms(at: datetime | None) -> int | None:
    """Return a time that may be missing as milliseconds."""
    return None if at is None else to_ms(at)


def maybe_from_ms(ms: int | None) -> datetime | None:
    """Return the time of milliseconds that may be missing."""
    return None if ms is None else from_ms(ms)


# ---- states ---------------------------------------------------------------------------------------------------------

_state_encoder: Final = msgspec.msgpack.Encoder()
_state_decoder: Final = msgspec.msgpack.Decoder(Building)


Pieces = dict[str, tuple[Device, msgspec.Raw]]
"""The devices of a building as they were last written."""


def encode_state(state: Building, pieces: Pieces | None = None) -> bytes:
    """Write a building's state; `pieces`, where given, saves writing devices anew and is brought up to date.

    A message changes one device of a building: the others are copied.
    """
    if pieces is None:
        return _state_encoder.encode(state)
    for name in pieces.keys() - state.devices.keys():
        del pieces[name]
    for name, device in state.devices.items():
        known = pieces.get(name)
        if known is None or known[0] is not device:
            pieces[name] = (device, msgspec.Raw(_state_encoder.encode(device)))
    devices = {name: pieces[name][1] for name in state.devices}
    return _state_encoder.encode(replace(state, devices=cast("Mapping[str, Device]", devices)))


def decode_state(data: bytes) -> Building:
    """Read a building's state, also one of an older release."""
    return _state_decoder.decode(data)


def names_user(state: bytes, user: str, raw_users: Collection[str]) -> bool:
    """Tell whether a state knows a user."""
    known = decode_state(state)
    living = (*known.devices.values(), *known.departed)
    return any(device.user == user for device in living) or any(name in raw_users for name in known.users)


# ---- calls ----------------------------------------------------------------------------------------------------------


class Form(IntEnum):
    """Which call a row holds; also the slot in which a newer whole state takes an older one's place."""

    EVENTS = 0
    CREATE = 1
    CHANGE = 2
    DEVICES = 3


_json_encoder: Final = msgspec.json.Encoder()
_call_decoders: Final[Mapping[Form, msgspec.json.Decoder[Call]]] = {
    Form.EVENTS: msgspec.json.Decoder(SendEvents),
    Form.CREATE: msgspec.json.Decoder(CreateBuilding),
    Form.CHANGE: msgspec.json.Decoder(ChangeBuilding),
    Form.DEVICES: msgspec.json.Decoder(PutDevices),
}


def form(call: Call) -> Form:
    """Return the form of a call."""
    match call:
        case SendEvents():
            return Form.EVENTS
        case CreateBuilding():
            return Form.CREATE
        case ChangeBuilding():
            return Form.CHANGE
        case PutDevices():
            return Form.DEVICES
        case _:
            assert_never(call)


def encode_call(call: Call) -> bytes:
    """Write a call as JSON."""
    return _json_encoder.encode(call)


def decode_call(kind: int, data: bytes) -> Call:
    """Read a call of the given form."""
    return _call_decoders[Form(kind)].decode(data)


# ---- everything else ------------------------------------------------------------------------------------------------


def to_json(value: object) -> str:
    """Write a value as JSON, to be bound as one parameter and taken apart by the database.

    Raises ValueError on a NUL character: SQLite's JSON ends a text there, and two names would become one.
    """
    data = _json_encoder.encode(value)
    if b"\\u0000" in data:
        raise ValueError("a NUL character cannot be part of a name")
    return data.decode()


def plain(text: str) -> str:
    """Return a text that any database can hold: NUL and lone surrogates spelled out."""
    if "\0" in text:
        text = text.replace("\0", "\\x00")
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="backslashreplace").decode()
    return text
