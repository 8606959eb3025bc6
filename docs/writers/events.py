"""What is read of the device cloud's messages and what leaves for MOOST, from the core's tables."""

from collections.abc import Mapping
from typing import Final

from bridge.core.mapping import EVENTS, READINGS, EventRow, NumberRow, Part, ReadingRow
from bridge.core.messages import Quantity
from bridge.core.vocabulary import EVENT_TYPES, Cadence, DeadReason, DeviceType, EventType
from docs.writers.tables import code, table

HOUSEHOLD: Final[Mapping[EventType, str]] = {
    EventType.POWER_GENERATION: "sum of the inverters just before the end",
    EventType.ENERGY_GENERATION: "energy of the inverters",
    EventType.ENERGY_GENERATION_YESTERDAY: "the same, of the previous day",
    EventType.GRID_POWER_CONSUMPTION: "power drawn from the grid just before the end",
    EventType.GRID_ENERGY_CONSUMPTION: "energy drawn from the grid",
    EventType.GRID_ENERGY_CONSUMPTION_YESTERDAY: "the same, of the previous day",
    EventType.POWER_EXCESS: "power fed into the grid just before the end; with inverter or battery",
    EventType.ENERGY_EXCESS: "energy fed into the grid",
    EventType.ENERGY_EXCESS_YESTERDAY: "the same, of the previous day",
    EventType.POWER_CONSUMPTION: "inverters + grid − batteries just before the end; or the load meters",
    EventType.ENERGY_CONSUMPTION: "energy of inverters + grid − batteries; or of the load meters",
    EventType.ENERGY_CONSUMPTION_YESTERDAY: "the same, of the previous day",
    EventType.SELF_CONSUMPTION_RATE: "share of the generation used at home",
    EventType.SELF_CONSUMPTION_RATE_YESTERDAY: "the same, of the previous day",
    EventType.SELF_SUFFICIENCY_RATE: "share of the consumption not drawn from the grid",
    EventType.SELF_SUFFICIENCY_RATE_YESTERDAY: "the same, of the previous day",
}
"""The values of the household; their source is GATEWAY."""

CODES: Final[Mapping[EventType, str]] = {
    EventType.DEVICE_STATUS: "any device with `codes`",
    EventType.SWITCH_STATE: "CAR_CHARGER with `codes`",
    EventType.CHARGING_MODE: "BATTERY, HEAT_PUMP with `codes`",
}
"""What leaves only where the operator has filled in MOOST's codes."""

CONDITIONS: Final[Mapping[tuple[EventType | None, DeviceType], str]] = {
    (None, DeviceType.SMART_METER): "role `load` or `sub`",
    (EventType.POWER_CONSUMPTION, DeviceType.CAR): "while the building has no charger",
    (EventType.ENERGY_CONSUMPTION, DeviceType.CAR): "while the building has no charger",
    (EventType.ENERGY_CONSUMPTION_YESTERDAY, DeviceType.CAR): "while the building has no charger",
    (EventType.STATE_OF_CHARGE_RATE, DeviceType.BATTERY): "only with `moost.battery_soc`",
}

_PARTS: Final = {Part.ALL: "energy", Part.POSITIVE: "energy charged", Part.NEGATIVE: "energy discharged"}
_INSTANTS: Final = {
    Quantity.POWER: "power just before the end",
    Quantity.TEMPERATURE: "temperature just before the end",
    Quantity.STATE_OF_CHARGE: "state of charge",
}


def event_types() -> str:
    """Return a table of the event types that leave, in the order of the vocabulary."""
    rows = [row for type_ in EventType for row in _rows(type_)]
    return table(("event type", "source", "value", "unit", "when"), rows)


def _rows(type_: EventType) -> list[tuple[str, ...]]:
    """Return the rows of one type: one for the devices, one for the household, one for codes."""
    rule = EVENT_TYPES[type_]
    tail = (rule.unit.value, rule.cadence.value)
    found: list[tuple[str, ...]] = []
    of_devices = [row for row in EVENTS if row.type is type_]
    if of_devices:
        sources = ", ".join(_source(row) for row in of_devices)
        found.append((code(type_.value), sources, _value(of_devices[0]), *tail))
    if type_ in HOUSEHOLD:
        found.append((code(type_.value), DeviceType.GATEWAY.value, HOUSEHOLD[type_], *tail))
    if type_ in CODES:
        found.append((code(type_.value), CODES[type_], "the operator's code", *tail))
    return found


def _source(row: EventRow) -> str:
    condition = CONDITIONS.get((row.type, row.source)) or CONDITIONS.get((None, row.source))
    return row.source.value + (f" ({condition})" if condition else "")


def _value(row: EventRow) -> str:
    if not row.energy:
        return _INSTANTS[row.quantity]
    return _PARTS[row.part] + (" on the previous local calendar day" if row.cadence is Cadence.DAY else "")


def readings() -> str:
    """Return a table of the fields that are read."""
    rows = [
        (kind.value, code(f"{row.block}.{row.field}"), row.quantity.value, _limits(row))
        for kind, readings_ in READINGS.items()
        for row in readings_
    ]
    return table(("kind", "field", "series", "unit and limits"), rows)


def _limits(row: ReadingRow) -> str:
    if not isinstance(row, NumberRow):
        return "true or false" if row.words is None else "one of " + ", ".join(sorted(row.words))
    unit = {
        Quantity.POWER: "W",
        Quantity.COUNTER: "Wh",
        Quantity.STATE_OF_CHARGE: "%",
        Quantity.TEMPERATURE: "°C",
    }[row.quantity]
    most = f" … {row.highest:,.0f}" if row.highest != float("inf") else " or more"
    parts = [f"{row.lowest:,.0f}{most} {unit}"]
    if row.negative_is_zero:
        parts.append("negative is 0")
    if row.state:
        parts.append(f"by `{row.state}`")
    return ", ".join(parts)


REASONS: Final[Mapping[DeadReason, str]] = {
    DeadReason.UNREADABLE: "The message is not JSON, or not of the form that its topic asks for.",
    DeadReason.UNKNOWN_TOPIC: "The topic names no kind and action that exist.",
    DeadReason.FOREIGN_SUBSCRIPTION: "The topic names a subscription whose secret did not sign the request.",
    DeadReason.RULE: "The bridge's own check before sending found that MOOST's rules forbid the call.",
    DeadReason.REJECTED: "MOOST refused the call; the letter holds its answer.",
    DeadReason.STUCK: "The call failed for an hour while MOOST served others.",
    DeadReason.FAULT: "A fault of the bridge; report it, and retry after the update.",
    DeadReason.UNKNOWN_BUILDING: "There is no building for the message.",
    DeadReason.TOO_LARGE: "One message holds more than a bound allows; the letter names the bound.",
    DeadReason.TOO_MANY: "The building has as many of the kind as it may have.",
    DeadReason.REPLAYED: "A signed delivery was heard before, on another topic.",
    DeadReason.IN_DOUBT: 'The reply was lost, and `moost.on_lost_reply = "hold"` leaves the decision to the operator.',
}


def dead_letter_reasons() -> str:
    """Return a table of the reasons."""
    return table(("reason", "what happened"), [(code(reason.value), REASONS[reason]) for reason in DeadReason])
