"""From the bytes of one message to what the core reads.

Rules:
- `decode` is total: any bytes give a message, a `Tombstone` or an `Unreadable` with one sentence.
- Units are converted, words upper-cased, limits checked here by the table `core.mapping.READINGS` (M0.1, M0.2, M0.9).
- Times follow M0.3: a value has its block's time, else the object's, else the receipt; the future is placed at the
  receipt. A block whose time is there and cannot be read says nothing.
- What a message may hold is bounded before anything is built of it (`bounds`); texts are cut before they are cleaned.
- VIN and addresses end here; a position goes on to be compared in passing (M0.8).

Source: EHA developer portal, "Streaming examples" (the string "null" in an enum field; three spellings of the
location; tariffs named after an address); EHA demo application (units, enum words, price and command messages).
"""

import math
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, TypedDict, assert_never, get_args

from pydantic.alias_generators import to_snake

from bridge.core.mapping import READINGS, Gate, NumberRow, WordRow
from bridge.core.messages import (
    Command,
    Facts,
    Inbound,
    Prices,
    Quantity,
    Reading,
    Report,
    Schedules,
    Tombstone,
    Unreadable,
    Value,
)
from bridge.core.order import Time
from bridge.core.rules import PowerUnit, Rules
from bridge.core.units import W_PER_KW
from bridge.core.vocabulary import Action, Kind
from bridge.source import wire
from bridge.source.bounds import (
    PRICES_AHEAD_DAYS,
    TEXT_LENGTH,
    WORD_LENGTH,
    NotUnderstood,
    check_entries,
    check_id,
    check_values,
)
from bridge.source.repair import parse
from bridge.source.times import NoTime, Times, instant
from bridge.source.topics import Topic

if TYPE_CHECKING:
    from decimal import Decimal

PRICES_AHEAD: Final = timedelta(days=PRICES_AHEAD_DAYS)
_LARGEST: Final = 2**63 - 1  # integer that is kept of what is kept as sent


def decode(
    topic: Topic, body: bytes, *, number: int, received: datetime, rules: Rules
) -> Inbound | Tombstone | Unreadable:
    """Return what one message says.

    `number` is its place in the order of acceptance, `received` its time of acceptance.
    """
    if body.strip() == b"null":
        return Tombstone(
            number=number, received=received, subscription=topic.subscription, kind=topic.kind, action=topic.action
        )
    try:
        check_values(body, rules.values_per_message)
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
    except NotUnderstood as why:
        return Unreadable(number=number, detail=str(why), reason=why.reason, limit=why.limit)


def _named(raw: str | None) -> str | None:
    """Return an id; None where it names nothing (a NUL character is one that no database keeps).

    Raises NotUnderstood where it is too long to be one.
    """
    return check_id(raw) if raw and not raw.isspace() and "\x00" not in raw else None


def _id(raw: str) -> str:
    """Return the id of a message; raises NotUnderstood."""
    if _named(raw) is None:
        raise NotUnderstood("the message has no usable id")
    return raw


class _Envelope(TypedDict):
    """What `core.messages.Envelope` holds."""

    number: int
    received: datetime
    subscription: str
    kind: Kind
    action: Action
    id: str
    user: str | None
    raw_user: str | None


def _envelope(
    topic: Topic, number: int, received: datetime, rules: Rules, raw_id: str, raw_user: str | None
) -> _Envelope:
    """Return what every message says: its user within the one namespace of all subscriptions (M0.6)."""
    user = _named(raw_user)
    return {
        "number": number,
        "received": received,
        "subscription": rules.heir(topic.subscription),
        "kind": topic.kind,
        "action": topic.action,
        "id": _id(raw_id),
        "user": rules.subscription(topic.subscription).user_prefix + user if user else None,
        "raw_user": user,
    }


def _is_block(annotation: object) -> bool:
    """Tell whether a field of a wire model holds a block."""
    return isinstance(annotation, type) and issubclass(annotation, wire.Block)


def _report(topic: Topic, body: bytes, number: int, received: datetime, rules: Rules) -> Report:
    """Read connect, update, offline, disconnect or delete."""
    device, odd = parse(wire.BODIES[topic.kind], body)
    times = Times(received)
    updated = _time(times, device.last_updated, None)
    rest = None if times.unread else updated or Time(received)  # of blocks without a time of their own
    blocks: dict[str, wire.Block] = {}
    at: dict[str, Time] = {}
    for name in _BLOCKS[topic.kind]:
        block = getattr(device, name)
        time = _time(times, block.last_updated, rest) if block is not None else None
        if time is not None:  # else the block says nothing
            blocks[name] = block
            at[name] = time
    if device.__pydantic_extra__:
        for raw in _times_within(device.__pydantic_extra__):
            _time(times, raw, None)
    found: list[str] = []
    readings = tuple(_readings(topic.kind, blocks, at, _scale(topic, device.id, rules), found))
    stamp = times.newest or Time(received)
    static, place = blocks.get("static_data"), blocks.get("location")
    return Report(
        **_envelope(topic, number, received, rules, device.id, device.user_id),
        stamp=stamp.at,
        stamp_sent=stamp.sent,
        undated=times.newest is None and times.unread,
        updated=updated.at if updated is not None else None,
        updated_sent=updated.sent if updated is not None else None,
        location=_location(device),
        online=device.is_online,
        connected=device.is_connected,
        facts=_facts(topic.kind, static, at["static_data"]) if isinstance(static, wire.StaticData) else _NO_FACTS,
        readings=readings,
        position=_position(place, found) if isinstance(place, wire.Location) else None,
        positioned=at.get("location"),
        odd=(*odd, *found),
        odd_times=tuple(dict.fromkeys(times.odd)) if times.odd else (),
    )


_BLOCKS: Final[Mapping[Kind, tuple[str, ...]]] = {
    kind: tuple(
        name for name, field in body.model_fields.items() if any(_is_block(part) for part in get_args(field.annotation))
    )
    for kind, body in wire.BODIES.items()
}
"""The attributes of the wire models that hold blocks, in order."""


def _time(times: Times, raw: object, missing: Time | None) -> Time | None:
    """Return the time that is there, or what stands for a missing one; None where it cannot be read."""
    try:
        return times.read(raw) or missing
    except NoTime:
        return None


def _times_within(unknown: object) -> Iterator[object]:
    """Yield each `lastUpdated` in blocks that nobody knows yet."""
    waiting = [unknown]
    while waiting:
        content = waiting.pop()
        if isinstance(content, dict):
            yield content.get("lastUpdated")
            waiting += content.values()
        elif isinstance(content, list):
            waiting += content


def _location(device: wire.DeviceBody) -> str | None:
    """Return the location id from any of its spellings; a vehicle has none (M1.2)."""
    if isinstance(device, wire.VehicleBody):
        return None
    if isinstance(device, wire.ChargerBody):
        return _named(device.location) or _named(device.location_id)
    return _named(device.location_id)


def _position(place: wire.Location, odd: list[str]) -> tuple[float, float] | None:
    """Return where a vehicle is [°]; 0, 0 is what a device without a fix says (M0.9)."""
    if place.latitude is None or place.longitude is None:
        return None
    if not (abs(place.latitude) <= 90 and abs(place.longitude) <= 180):  # noqa: PLR2004 - degrees; false for NaN too
        return None
    if place.latitude == 0 and place.longitude == 0:
        odd.append("location: 0, 0 is no position")
        return None
    return place.latitude, place.longitude


def _facts(kind: Kind, static: wire.StaticData, at: Time) -> Facts:
    """Return the static data that names the device; a text that holds the VIN counts as missing (M0.7, M0.8).

    A tariff's name is not read: the portal's own examples are named after the street of the customer.
    """
    vin = static.vin[:WORD_LENGTH].strip().casefold() if static.vin else ""
    return Facts(
        vendor=_text(static.vendor, vin),
        model=_text(static.model, vin),
        name=_text(static.name, vin) if kind is not Kind.TARIFF else None,
        type=_word(static.type),
        engine=_word(static.engine_type),
        currency=_word(static.currency),
        updated=at.at,
        updated_sent=at.sent,
    )


_NO_FACTS: Final = Facts()


def _text(raw: str | None, vin: str = "") -> str | None:
    """Return a text that says something, and not the VIN."""
    if not raw or raw == "null":
        return None
    seen = raw[: TEXT_LENGTH + len(vin)]  # so that no part of the VIN is left at the end
    if seen.isspace() or (vin and vin in seen.casefold()):
        return None
    return raw[:TEXT_LENGTH]


def _word(raw: str | None) -> str | None:
    """Return an enum word in upper case; the four letters "null" mean nothing."""
    word = raw[:WORD_LENGTH].strip().upper() if raw else ""
    return word if word and word != "NULL" else None


_ATTRIBUTES: Final[Mapping[Kind, tuple[tuple[str, str, str | None, NumberRow | WordRow], ...]]] = {
    kind: tuple(
        (
            to_snake(row.block),
            to_snake(row.field),
            to_snake(row.state) if isinstance(row, NumberRow) and row.state else None,
            row,
        )
        for row in rows
    )
    for kind, rows in READINGS.items()
}
"""The rows of `READINGS` with the names of the wire models' attributes."""


def _scale(topic: Topic, device: str, rules: Rules) -> float:
    """Return what a power is multiplied by to be in W, a battery's with + = charging (M0.11, M4.2)."""
    scale = 1.0 if rules.unit(topic.subscription, topic.kind, device) is PowerUnit.WATT else W_PER_KW
    if topic.kind is Kind.BATTERY:
        scale *= rules.device(topic.subscription, topic.kind, device).sign or 1
    return scale


def _readings(
    kind: Kind, blocks: Mapping[str, wire.Block], at: Mapping[str, Time], scale: float, odd: list[str]
) -> Iterator[Reading]:
    """Yield the readings of all blocks that are there."""
    for block_name, field_name, state_name, row in _ATTRIBUTES[kind]:
        block = blocks.get(block_name)
        if block is None:
            continue
        raw = getattr(block, field_name)
        value: Value | None
        beyond: float | None = None
        if isinstance(row, NumberRow):
            state = _word(getattr(block, state_name)) if state_name else None
            number = _gated(row, raw, state)
            if number is not None:
                number *= scale if row.quantity is Quantity.POWER else row.factor
            value = _within(row, number, state, odd)
            if value is None and number is not None and row.quantity is Quantity.POWER and math.isfinite(number):
                beyond = number
        elif row.words is None:
            value = raw
        else:
            value = _word(raw)
            if value is not None and value not in row.words:
                odd.append(f"{row.block}.{row.field}: unknown word")
                value = None
        time = at[block_name]
        yield Reading(quantity=row.quantity, at=time.at, value=value, sent=time.sent, beyond=beyond)


def _gated(row: NumberRow, raw: float | None, state: str | None) -> float | None:
    """Return a number as the word beside it asks; None = unknown."""
    if row.gates is None:
        return raw
    gate = row.gates.get(state, row.otherwise) if state is not None else row.otherwise
    if gate is Gate.ZERO or (gate is Gate.ZERO_IF_NULL and raw is None):
        return 0.0
    return None if gate is Gate.UNKNOWN else raw


def _within(row: NumberRow, value: float | None, state: str | None, odd: list[str]) -> float | None:
    """Return a number in the core's unit if it is within its limits, with the sign that it must have (M0.9)."""
    if value is None:
        return None
    if not (math.isfinite(value) and row.lowest <= value <= row.highest):
        odd.append(f"{row.block}.{row.field}: outside its limits")
        return None
    if value < 0 and row.negative_is_zero:
        odd.append(f"{row.block}.{row.field}: negative, taken as 0")
        return 0.0
    if row.signs is not None and state is not None and value * row.signs.get(state, 0) < 0:
        odd.append(f"{row.block}.{row.field}: its sign contradicts {row.state}, which counts")
        return -value
    return value


def _command(topic: Topic, body: bytes, number: int, received: datetime, rules: Rules) -> Command:
    """Read a command; its device is `deviceId`."""
    command, _ = parse(wire.CommandBody, body)
    device = _named(command.device_id)
    if device is None:
        raise NotUnderstood("the command has no usable deviceId")
    return Command(
        **_envelope(topic, number, received, rules, command.id, command.user_id),
        device=device,
        type=_word(command.type),
        state=_word(command.state),
        failed_reason=_text(command.failed_reason),
    )


def _prices(topic: Topic, body: bytes, number: int, received: datetime, rules: Rules) -> Prices:
    """Read prices; an entry without a start that can be read is counted, one without a price ends its predecessor."""
    prices, _ = parse(wire.PricesBody, body)
    check_entries("prices", len(prices.prices or ()))
    entries: list[tuple[datetime, Decimal | None]] = []
    odd: dict[str, None] = {}  # in order, each once
    for entry in prices.prices or ():
        start = _start(entry, received) if entry is not None else "missing"
        if entry is None or isinstance(start, str):
            odd[f"prices.startDate: {start}"] = None
            continue
        price = entry.total_price
        entries.append((start, price if price is not None and price.is_finite() else None))
    return Prices(
        **_envelope(topic, number, received, rules, prices.id, prices.user_id),
        location=_named(prices.location_id),
        entries=tuple(entries),
        odd_times=tuple(odd),
    )


def _start(entry: wire.PriceEntry, received: datetime) -> datetime | str:
    """Return when a price begins, or what is wrong with its start."""
    raw = entry.starts_at if entry.start_date is None else entry.start_date
    try:
        start = instant(raw)
    except NoTime:
        return "unreadable"
    if start is None:
        return "missing" if raw in (None, "null") else "before 2015"
    return start if start - received <= PRICES_AHEAD else f"over {PRICES_AHEAD_DAYS} days ahead"


def _schedules(topic: Topic, body: bytes, number: int, received: datetime, rules: Rules) -> Schedules:
    """Read a weekly schedule."""
    schedules, _ = parse(wire.SchedulesBody, body)
    check_entries("schedule entries", len(schedules.schedules or ()))
    return Schedules(
        **_envelope(topic, number, received, rules, schedules.id, schedules.user_id),
        time_zone=_text(schedules.time_zone),
        entries=tuple(
            {name: _storable(value) for name, value in entry.items()}
            for entry in schedules.schedules or ()
            if entry is not None
        ),
    )


def _storable(value: object) -> object:
    """Return what is kept as sent, without numbers that no state can hold."""
    match value:
        case dict():
            return {name: _storable(part) for name, part in value.items()}
        case list():
            return [_storable(part) for part in value]
        case float() if not math.isfinite(value):
            return None
        case int() if abs(value) > _LARGEST:
            return None
        case _:
            return value
