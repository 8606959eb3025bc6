"""The words of both sides: kinds and actions of the device cloud, types of MOOST.

Rules:
- A word is spelled here once; every other room imports it.
- `EVENT_TYPES` is the table of what a customer may send: the unit and the sources that each type allows.
  The outgoing check, the mapping and the sandbox all look it up.

Source: EHA developer portal, "Streaming events" (kinds and actions) and the vendor's demo application (charger);
MOOST documentation, "Common integration" (device types, customer-provided event types).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple


class Kind(StrEnum):
    """What a topic is about."""

    VEHICLE = "vehicle"
    CHARGER = "charger"
    BATTERY = "battery"
    PV_INVERTER = "pv-inverter"
    METER = "meter"
    HVAC = "hvac"
    TARIFF = "tariff"


class DeviceKey(NamedTuple):
    """What a device is: the subscription that it comes from, its kind, and its id there (mapping rule M0.6)."""

    subscription: str
    kind: Kind
    id: str


class Action(StrEnum):
    """What happened to it."""

    CONNECT = "connect"
    UPDATE = "update"
    DELETE = "delete"
    OFFLINE = "offline"
    DISCONNECT = "disconnect"
    COMMAND = "command"
    PRICE_UPDATE = "price.update"
    SCHEDULES_UPDATE = "schedules.update"


_LIFE: Final = frozenset({Action.CONNECT, Action.UPDATE, Action.DELETE, Action.OFFLINE, Action.DISCONNECT})

ACTIONS: Final[Mapping[Kind, frozenset[Action]]] = {
    Kind.VEHICLE: _LIFE | {Action.COMMAND},
    Kind.CHARGER: _LIFE | {Action.COMMAND},
    Kind.BATTERY: _LIFE,
    Kind.PV_INVERTER: _LIFE,
    Kind.METER: _LIFE,
    Kind.HVAC: _LIFE | {Action.COMMAND, Action.SCHEDULES_UPDATE},
    Kind.TARIFF: _LIFE | {Action.PRICE_UPDATE},
}
"""The topics that exist (mapping rule M7); any other is a dead letter `unknown-topic`."""


class DeviceType(StrEnum):
    """MOOST's device types (24); the same words are the sources of events."""

    GATEWAY = "GATEWAY"
    SMART_METER = "SMART_METER"
    INVERTER = "INVERTER"
    BATTERY = "BATTERY"
    CAR = "CAR"
    CAR_CHARGER = "CAR_CHARGER"
    HEAT_PUMP = "HEAT_PUMP"
    SMART_PLUG = "SMART_PLUG"
    SOLAR_PANEL = "SOLAR_PANEL"
    WATER_HEATER = "WATER_HEATER"
    THERMOSTAT = "THERMOSTAT"
    SWITCH = "SWITCH"
    ENERGY_MEASUREMENT = "ENERGY_MEASUREMENT"
    APPLIANCE = "APPLIANCE"
    WALL_TABLET = "WALL_TABLET"
    THERMAL_ZONE = "THERMAL_ZONE"
    THERMAL_STORAGE = "THERMAL_STORAGE"
    DISHWASHER = "DISHWASHER"
    DRYER = "DRYER"
    WASHING_MACHINE = "WASHING_MACHINE"
    OVEN = "OVEN"
    REFRIGERATION = "REFRIGERATION"
    LIGHTING = "LIGHTING"
    ENTERTAINMENT = "ENTERTAINMENT"


class Unit(StrEnum):
    """The unit that goes with an event type; it never travels, MOOST infers it from the type."""

    WATT = "W"
    WATT_HOUR = "Wh"
    PERCENT = "%"
    CELSIUS = "°C"
    CODE = "code"


class Cadence(StrEnum):
    """When an event type is sent."""

    CHANGE = "on change"
    QUARTER = "15 min"
    HALF_HOUR = "30 min"
    DAY = "day"


class EventType(StrEnum):
    """The 26 event types that a customer may send; MOOST makes the rest of its enum itself."""

    ENERGY_CONSUMPTION = "ENERGY_CONSUMPTION"
    ENERGY_CONSUMPTION_YESTERDAY = "ENERGY_CONSUMPTION_YESTERDAY"
    ENERGY_GENERATION = "ENERGY_GENERATION"
    ENERGY_GENERATION_YESTERDAY = "ENERGY_GENERATION_YESTERDAY"
    GRID_ENERGY_CONSUMPTION = "GRID_ENERGY_CONSUMPTION"
    GRID_ENERGY_CONSUMPTION_YESTERDAY = "GRID_ENERGY_CONSUMPTION_YESTERDAY"
    POWER_CONSUMPTION = "POWER_CONSUMPTION"
    POWER_GENERATION = "POWER_GENERATION"
    POWER_EXCESS = "POWER_EXCESS"
    GRID_POWER_CONSUMPTION = "GRID_POWER_CONSUMPTION"
    ENERGY_IMPORT = "ENERGY_IMPORT"
    ENERGY_IMPORT_YESTERDAY = "ENERGY_IMPORT_YESTERDAY"
    ENERGY_EXPORT = "ENERGY_EXPORT"
    ENERGY_EXPORT_YESTERDAY = "ENERGY_EXPORT_YESTERDAY"
    ENERGY_EXCESS = "ENERGY_EXCESS"
    ENERGY_EXCESS_YESTERDAY = "ENERGY_EXCESS_YESTERDAY"
    SELF_CONSUMPTION_RATE = "SELF_CONSUMPTION_RATE"
    SELF_CONSUMPTION_RATE_YESTERDAY = "SELF_CONSUMPTION_RATE_YESTERDAY"
    SELF_SUFFICIENCY_RATE = "SELF_SUFFICIENCY_RATE"
    SELF_SUFFICIENCY_RATE_YESTERDAY = "SELF_SUFFICIENCY_RATE_YESTERDAY"
    STATE_OF_CHARGE_RATE = "STATE_OF_CHARGE_RATE"
    CHARGING_MODE = "CHARGING_MODE"
    DEVICE_STATUS = "DEVICE_STATUS"
    SWITCH_STATE = "SWITCH_STATE"
    TEMPERATURE = "TEMPERATURE"
    WATER_TEMPERATURE = "WATER_TEMPERATURE"


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRule:
    """What MOOST's table says of one event type."""

    unit: Unit
    cadence: Cadence
    sources: frozenset[DeviceType]
    lowest: float | None = None
    highest: float | None = None


def _rule(
    unit: Unit, cadence: Cadence, *sources: DeviceType, lowest: float | None = None, highest: float | None = None
) -> EventRule:
    """Return a row of the table; no source named means any."""
    return EventRule(
        unit=unit, cadence=cadence, sources=frozenset(sources or DeviceType), lowest=lowest, highest=highest
    )


_G: Final = DeviceType.GATEWAY
_W, _WH, _PCT = Unit.WATT, Unit.WATT_HOUR, Unit.PERCENT
_Q, _D, _C = Cadence.QUARTER, Cadence.DAY, Cadence.CHANGE

EVENT_TYPES: Final[Mapping[EventType, EventRule]] = {
    EventType.ENERGY_CONSUMPTION: _rule(_WH, _Q, lowest=0),
    EventType.ENERGY_CONSUMPTION_YESTERDAY: _rule(_WH, _D, lowest=0),
    EventType.ENERGY_GENERATION: _rule(_WH, _Q, _G, lowest=0),
    EventType.ENERGY_GENERATION_YESTERDAY: _rule(_WH, _D, _G, lowest=0),
    EventType.GRID_ENERGY_CONSUMPTION: _rule(_WH, _Q, _G, lowest=0),
    EventType.GRID_ENERGY_CONSUMPTION_YESTERDAY: _rule(_WH, _D, _G, lowest=0),
    EventType.POWER_CONSUMPTION: _rule(_W, _Q, lowest=0),
    EventType.POWER_GENERATION: _rule(_W, _Q, _G, lowest=0),
    EventType.POWER_EXCESS: _rule(_W, _Q, _G, lowest=0),
    EventType.GRID_POWER_CONSUMPTION: _rule(_W, _Q, _G, lowest=0),
    EventType.ENERGY_IMPORT: _rule(_WH, _Q, DeviceType.BATTERY, lowest=0),
    EventType.ENERGY_IMPORT_YESTERDAY: _rule(_WH, _D, DeviceType.BATTERY, lowest=0),
    EventType.ENERGY_EXPORT: _rule(_WH, _Q, DeviceType.BATTERY, lowest=0),
    EventType.ENERGY_EXPORT_YESTERDAY: _rule(_WH, _D, DeviceType.BATTERY, lowest=0),
    EventType.ENERGY_EXCESS: _rule(_WH, Cadence.HALF_HOUR, _G, lowest=0),
    EventType.ENERGY_EXCESS_YESTERDAY: _rule(_WH, _D, _G, lowest=0),
    EventType.SELF_CONSUMPTION_RATE: _rule(_PCT, _Q, _G, lowest=0, highest=100),
    EventType.SELF_CONSUMPTION_RATE_YESTERDAY: _rule(_PCT, _D, _G, lowest=0, highest=100),
    EventType.SELF_SUFFICIENCY_RATE: _rule(_PCT, _Q, _G, lowest=0, highest=100),
    EventType.SELF_SUFFICIENCY_RATE_YESTERDAY: _rule(_PCT, _D, _G, lowest=0, highest=100),
    # BATTERY is not in MOOST's table; it leaves only with `[moost] battery_soc = true` (mapping rule M3.4).
    EventType.STATE_OF_CHARGE_RATE: _rule(_PCT, _C, DeviceType.CAR, lowest=0, highest=100),
    EventType.CHARGING_MODE: _rule(
        Unit.CODE,
        _C,
        DeviceType.CAR_CHARGER,
        DeviceType.HEAT_PUMP,
        DeviceType.BATTERY,
        DeviceType.SMART_PLUG,
        lowest=0,
        highest=7,
    ),
    EventType.DEVICE_STATUS: _rule(Unit.CODE, _C, lowest=-1, highest=4),
    EventType.SWITCH_STATE: _rule(Unit.CODE, _C, DeviceType.SMART_PLUG, DeviceType.CAR_CHARGER, DeviceType.SWITCH),
    EventType.TEMPERATURE: _rule(Unit.CELSIUS, _Q, DeviceType.THERMOSTAT, lowest=-60, highest=120),
    EventType.WATER_TEMPERATURE: _rule(
        Unit.CELSIUS, _Q, DeviceType.HEAT_PUMP, DeviceType.WATER_HEATER, lowest=-60, highest=120
    ),
}


class DeadReason(StrEnum):
    """Why a message or a call was taken out of the flow and kept."""

    UNREADABLE = "unreadable"
    UNKNOWN_TOPIC = "unknown-topic"
    FOREIGN_SUBSCRIPTION = "foreign-subscription"
    RULE = "rule"
    REJECTED = "rejected"
    STUCK = "stuck"
    FAULT = "fault"
    UNKNOWN_BUILDING = "unknown-building"
    TOO_LARGE = "too-large"  # more in one message than a bound allows; the detail names the bound
    TOO_MANY = "too-many"  # more of its kind than one building may have
    REPLAYED = "replayed"  # a signed delivery that was heard before, on another topic
    IN_DOUBT = (
        "in-doubt"  # nobody knows whether MOOST took it, and the operator wants to decide (`on_lost_reply = "hold"`)
    )
