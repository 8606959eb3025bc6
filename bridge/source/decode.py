"""From the bytes of one message to what the core reads.

Rules:
- `decode` is total: any bytes give a message, a `Tombstone` or an `Unreadable` with one sentence.
- Units are converted, words upper-cased, limits checked here by the table `core.mapping.READINGS` (M0.1, M0.2, M0.9).
- Times follow M0.3: a value has its block's time, else the object's, else the receipt; the future is the receipt.

Source: EHA developer portal "Streaming examples" (times: ISO 8601 with 0-9 fractional digits, Z or an offset; the
string "null" in an enum field); EHA demo application (epoch milliseconds nowhere, but cheap to accept).
"""

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, TypeVar, assert_never

import pydantic_core
from pydantic import BaseModel, ValidationError
from pydantic.alias_generators import to_snake

from bridge.core.mapping import READINGS, Gate, NumberRow, WordRow
from bridge.core.messages import Command, Facts, Inbound, Prices, Reading, Report, Schedules, Tombstone, Unreadable, Value
from bridge.core.rules import Rules
from bridge.core.vocabulary import Action, Kind
from bridge.source import wire
from bridge.source.topics import Topic

EARLIEST: Final = datetime(2015, 1, 1, tzinfo=UTC)  # M0.3: an earlier time counts as missing
FAR_AHEAD: Final = timedelta(minutes=10)  # a clock further ahead than this is counted
MILLISECONDS_FROM: Final = 10**11  # an epoch number above is in milliseconds
MOST_REPAIRS: Final = 50  # fields of one message that may be of the wrong type

_T = TypeVar("_T", bound=BaseModel)


class _Times:
    """Reads the times of one message and remembers the newest and what was odd."""

    __slots__ = ("newest", "odd", "received")

    def __init__(self, received: datetime) -> None:
        self.received = received
        self.newest: datetime | None = None
        self.odd: list[str] = []

    def read(self, raw: object) -> datetime | None:
        """Return a usable time, clamped to the receipt; None = as good as missing."""
        at = instant(raw)
        if at is None:
            if raw is not None:
                self.odd.append("time: unreadable or before 2015")
            return None
        if at > self.received:
            if at - self.received > FAR_AHEAD:
                self.odd.append("time: ahead of the receipt")
            at = self.received
        if self.newest is None or at > self.newest:
            self.newest = at
        return at


def instant(raw: object) -> datetime | None:
    """Return the UTC time that an ISO 8601 text or an epoch number names; None where it names none since 2015."""
    try:
        if isinstance(raw, str):
            at = datetime.fromisoformat(raw.strip())
            at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
        elif isinstance(raw, int | float) and not isinstance(raw, bool):
            at = datetime.fromtimestamp(raw / 1000 if raw > MILLISECONDS_FROM else raw, UTC)
        else:
            return None
    except (ValueError, OverflowError, OSError):
        return None
    return at if at >= EARLIEST else None


def decode(topic: Topic, body: bytes, *, number: int, received: datetime, rules: Rules) -> Inbound | Tombstone | Unreadable:
    """Return what one message says.

    `number` is its place in the order of acceptance, `received` its time of acceptance.
    """
    if body.strip() in (b"", b"null"):
        return Tombstone(number=number, received=received, subscription=topic.subscription, kind=topic.kind, action=topic.action)
    try:
        match topic.action:
            case Action.COMMAND:
                return _command(topic, body, number, received, rules)
            case Action.PRICE_UPDATE:
                return _prices(topic, body, number, received, rules)
            case Action.SCHEDULES_UPDATE:
                return _schedules(topic, body, number, received, rules)
            case Action.CONNECT | Action.UPDATE | Action.DELETE | Action.OFFLINE | Action.DISCONNECT:
                return _report(topic, body, number, received, rules)
            case _:
                assert_never(topic.action)
    except _NotUnderstood as why:
        return Unreadable(number=number, detail=str(why))


class _NotUnderstood(Exception):
    """Why a body cannot be read, in one sentence without its values."""


def _parse(model: type[_T], body: bytes) -> tuple[_T, list[str]]:
    """Read a body; fields of the wrong type become null and are named."""
    try:
        return model.model_validate_json(body), []
    except ValidationError as error:
        return _repaired(model, body, error)


def _repaired(model: type[_T], body: bytes, error: ValidationError) -> tuple[_T, list[str]]:
    """Set the fields that do not fit to null and read again."""
    try:
        content = pydantic_core.from_json(body)
    except ValueError:
        raise _NotUnderstood("the body is not valid JSON") from None
    if not isinstance(content, dict):
        raise _NotUnderstood("the body is not a JSON object") from None
    odd: list[str] = []
    for _ in range(MOST_REPAIRS):
        places = {_within(content, place["loc"]) for place in error.errors(include_url=False, include_context=False, include_input=False)}
        for place in places:
            if place in (("id",), ()):
                raise _NotUnderstood("the message has no usable id") from None
            odd.append(f"{_spelled(place)}: wrong type")
            _blank(content, place)
        try:
            return model.model_validate(content), odd
        except ValidationError as again:
            error = again
    raise _NotUnderstood("too many fields are of the wrong type")


def _within(content: object, place: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Return the part of an error's place that exists in the content (union errors append the tried type)."""
    found: list[int | str] = []
    for step in place:
        if isinstance(content, dict) and isinstance(step, str) and step in content:
            content = content[step]
        elif isinstance(content, list) and isinstance(step, int) and step < len(content):
            content = content[step]
        else:
            return tuple(found) or (place[0],)
        found.append(step)
    return tuple(found)


def _spelled(place: tuple[int | str, ...]) -> str:
    """Return a place for people; positions in arrays are left out, so that the counters stay few."""
    return ".".join(str(step) for step in place if isinstance(step, str))


def _blank(content: Any, place: tuple[int | str, ...]) -> None:  # noqa: ANN401 - whatever JSON holds
    """Set one place to null."""
    for step in place[:-1]:
        content = content[step]
    if isinstance(content, list):
        content[int(place[-1])] = {}
    else:
        content[place[-1]] = None


def _user(raw: str | None, topic: Topic, rules: Rules) -> str | None:
    """Return the user within the one namespace of all subscriptions (M0.6)."""
    return rules.subscription(topic.subscription).user_prefix + raw if raw else None


def _id(raw: str) -> str:
    """Return the id, or say that there is none."""
    if not raw:
        raise _NotUnderstood("the message has no usable id")
    return raw


def _report(topic: Topic, body: bytes, number: int, received: datetime, rules: Rules) -> Report:
    """Read connect, update, offline, disconnect or delete."""
    device, odd = _parse(wire.BODIES[topic.kind], body)
    times = _Times(received)
    updated = times.read(device.last_updated)
    blocks = {name: block for name, block in _blocks(device)}
    at = {name: times.read(block.last_updated) or updated or received for name, block in blocks.items()}
    for extra in (device.__pydantic_extra__ or {}).values():
        if isinstance(extra, dict):
            times.read(extra.get("lastUpdated"))
    readings = tuple(_readings(topic.kind, blocks, at, odd))
    return Report(
        number=number, received=received, subscription=topic.subscription, kind=topic.kind, action=topic.action,
        id=_id(device.id), user=_user(device.user_id, topic, rules), raw_user=device.user_id or None,
        stamp=times.newest or received, updated=updated, location=_location(device),
        online=device.is_online, connected=device.is_connected, facts=_facts(device, at.get("static_data")),
        readings=readings, position=_position(device), odd=(*odd, *times.odd),
    )  # fmt: skip


def _blocks(device: wire.DeviceBody) -> Iterator[tuple[str, wire.Block]]:
    """Yield the blocks that are there, by attribute name."""
    for name, value in device.__dict__.items():
        if isinstance(value, wire.Block):
            yield name, value


def _location(device: wire.DeviceBody) -> str | None:
    """Return the location id from any of its three spellings."""
    if isinstance(device, wire.ChargerBody):
        return device.location or device.location_id
    return device.location_id or None


def _position(device: wire.DeviceBody) -> tuple[float, float] | None:
    """Return where a vehicle is [°]."""
    place = device.location if isinstance(device, wire.VehicleBody) else None
    if place is None or place.latitude is None or place.longitude is None:
        return None
    if not (abs(place.latitude) <= 90 and abs(place.longitude) <= 180):  # noqa: PLR2004 - degrees; false for NaN too
        return None
    return place.latitude, place.longitude


def _facts(device: wire.DeviceBody, at: datetime | None) -> Facts:
    """Return the static data that names the device; a name that holds the VIN counts as missing (M0.7)."""
    static = device.static_data
    if static is None:
        return Facts()
    name = static.name
    if name and static.vin and static.vin.casefold() in name.casefold():
        name = None
    return Facts(
        vendor=_text(static.vendor), model=_text(static.model), name=_text(name), type=_word(static.type),
        engine=_word(static.engine_type), currency=_word(static.currency), updated=at,
    )  # fmt: skip


def _text(raw: str | None) -> str | None:
    """Return a text that says something."""
    return raw if raw and raw.strip() and raw != "null" else None


def _word(raw: str | None) -> str | None:
    """Return an enum word in upper case; the four letters "null" mean nothing."""
    word = raw.strip().upper() if raw else ""
    return word if word and word != "NULL" else None


_ATTRIBUTES: Final[Mapping[Kind, tuple[tuple[str, str, str | None, NumberRow | WordRow], ...]]] = {
    kind: tuple(
        (to_snake(row.block), to_snake(row.field), to_snake(row.state) if isinstance(row, NumberRow) and row.state else None, row)
        for row in rows
    )
    for kind, rows in READINGS.items()
}
"""The rows of `READINGS` with the names of the wire models' attributes."""


def _readings(kind: Kind, blocks: Mapping[str, wire.Block], at: Mapping[str, datetime], odd: list[str]) -> Iterator[Reading]:
    """Yield the readings of all blocks that are there."""
    for block_name, field_name, state_name, row in _ATTRIBUTES[kind]:
        block = blocks.get(block_name)
        if block is None:
            continue
        raw = getattr(block, field_name)
        value: Value | None
        if isinstance(row, NumberRow):
            value = _number(row, raw, _word(getattr(block, state_name)) if state_name else None, odd)
        elif row.words is None:
            value = raw
        else:
            value = _word(raw)
            if value is not None and value not in row.words:
                odd.append(f"{row.block}.{row.field}: unknown word")
                value = None
        yield Reading(quantity=row.quantity, at=at[block_name], value=value)


def _number(row: NumberRow, raw: float | None, state: str | None, odd: list[str]) -> float | None:
    """Return a number in the core's unit as its row asks; None = unknown."""
    if row.gates is not None:
        gate = row.gates.get(state, row.otherwise) if state is not None else row.otherwise
        if gate is Gate.ZERO or (gate is Gate.ZERO_IF_NULL and raw is None):
            return 0.0
        if gate is Gate.UNKNOWN:
            return None
    if raw is None:
        return None
    value = row.convert(raw)
    if not (math.isfinite(value) and row.lowest <= value <= row.highest):
        odd.append(f"{row.block}.{row.field}: outside its limits")
        return None
    if value < 0 and row.negative_is_zero:
        odd.append(f"{row.block}.{row.field}: negative, taken as 0")
        return 0.0
    return value


def _command(topic: Topic, body: bytes, number: int, received: datetime, rules: Rules) -> Command:
    """Read a command; its device is `deviceId`."""
    command, _ = _parse(wire.CommandBody, body)
    if not command.device_id:
        raise _NotUnderstood("the command has no usable deviceId")
    return Command(
        number=number, received=received, subscription=topic.subscription, kind=topic.kind, action=topic.action,
        id=_id(command.id), user=_user(command.user_id, topic, rules), raw_user=command.user_id or None,
        device=command.device_id, type=_word(command.type), state=_word(command.state), failed_reason=_text(command.failed_reason),
    )  # fmt: skip


def _prices(topic: Topic, body: bytes, number: int, received: datetime, rules: Rules) -> Prices:
    """Read prices; an entry without a start says nothing, one without a finite price ends its predecessor."""
    prices, _ = _parse(wire.PricesBody, body)
    entries: list[tuple[datetime, Decimal | None]] = []
    for entry in prices.prices or ():
        start = instant(entry.start_date if entry.start_date is not None else entry.starts_at)
        if start is not None:
            price = entry.total_price
            entries.append((start, price if price is not None and price.is_finite() else None))
    return Prices(
        number=number, received=received, subscription=topic.subscription, kind=topic.kind, action=topic.action,
        id=_id(prices.id), user=_user(prices.user_id, topic, rules), raw_user=prices.user_id or None,
        location=prices.location_id or None, entries=tuple(entries),
    )  # fmt: skip


def _schedules(topic: Topic, body: bytes, number: int, received: datetime, rules: Rules) -> Schedules:
    """Read a weekly schedule."""
    schedules, _ = _parse(wire.SchedulesBody, body)
    return Schedules(
        number=number, received=received, subscription=topic.subscription, kind=topic.kind, action=topic.action,
        id=_id(schedules.id), user=_user(schedules.user_id, topic, rules), raw_user=schedules.user_id or None,
        time_zone=_text(schedules.time_zone), entries=tuple(schedules.schedules or ()),
    )  # fmt: skip
