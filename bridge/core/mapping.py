"""Mapping rule M3 as tables: which field becomes which series, and which series leaves as which event.

Rules:
- `READINGS` says what a block's fields mean; `source.decode` looks it up. Field names are the device cloud's.
- `EVENTS` says what leaves; `reduce` and `household` look it up. The allowed sources are MOOST's, in `vocabulary`.
- A value outside its limits (M0.9) is unknown, never clipped; a negative one where only positive makes sense is 0.

Source: EHA demo application (fields, units, enum words); MOOST "Common integration" (event types, device types).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from bridge.core.messages import Quantity
from bridge.core.units import W_PER_KW, WH_PER_KWH
from bridge.core.vocabulary import Cadence, DeviceType, EventType, Kind


class Gate(Enum):
    """What a state word of the same block does to a value."""

    AS_SENT = auto()
    ZERO = auto()  # 0 whatever the field says
    ZERO_IF_NULL = auto()
    UNKNOWN = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberRow:
    """A number of a block that becomes a series."""

    block: str
    field: str
    quantity: Quantity
    factor: float  # to the core's unit; of a power unless `unit` or `sign` says otherwise
    lowest: float  # in the core's unit
    highest: float
    negative_is_zero: bool = False
    state: str | None = None  # the field whose word gates this one
    gates: Mapping[str, Gate] | None = None
    otherwise: Gate = Gate.AS_SENT  # for words not in `gates`
    signs: Mapping[str, int] | None = None  # word -> the only sign that a value can have beside it


@dataclass(frozen=True, slots=True, kw_only=True)
class WordRow:
    """An enum word or a flag of a block that becomes a series; `words` None = a flag."""

    block: str
    field: str
    quantity: Quantity
    words: frozenset[str] | None = None


ReadingRow = NumberRow | WordRow

CHARGING_WORDS: Final = frozenset({"UNPLUGGED", "PREPARING", "CHARGING", "FINISHED", "STOPPED", "FAULT", "PLUGGED"})
BATTERY_WORDS: Final = frozenset({"CHARGING", "DISCHARGING", "IDLE", "FAULT"})
INVERTER_WORDS: Final = frozenset({"PRODUCING", "IDLE", "FAULT"})
BATTERY_MODES: Final = frozenset({"AUTO", "SELF_CONSUMPTION", "EXPORT_FOCUS", "MANUAL"})
HVAC_MODES: Final = frozenset({"HEAT", "COOL", "DRY", "AUTO", "REDUCED", "OFF"})

# M3.1: the word decides, because a rate is left standing when charging ends; `isPlugged` plays no part.
_CHARGING_GATES: Final[Mapping[str, Gate]] = {
    "CHARGING": Gate.AS_SENT,
    **dict.fromkeys(sorted(CHARGING_WORDS - {"CHARGING"}), Gate.ZERO),
}
# M4.3: the one exception to "absence is not zero": an idle inverter or battery sends no number.
_IDLE_GATES: Final[Mapping[str, Gate]] = {"IDLE": Gate.ZERO_IF_NULL}

_HVAC_W: Final = 50 * W_PER_KW
_CHARGE_W: Final = 400 * W_PER_KW
_POWER_W: Final = 1000 * W_PER_KW
_ENDLESS: Final = float("inf")


def _charging(block: str = "chargeState") -> tuple[ReadingRow, ...]:
    """Return what vehicle and charger share."""
    return (
        NumberRow(
            block=block,
            field="chargeRate",
            quantity=Quantity.POWER,
            factor=W_PER_KW,
            lowest=-_CHARGE_W,
            highest=_CHARGE_W,
            negative_is_zero=True,
            state="chargingState",
            gates=_CHARGING_GATES,
            otherwise=Gate.UNKNOWN,
        ),
        WordRow(block=block, field="chargingState", quantity=Quantity.STATE, words=CHARGING_WORDS),
    )


def _percent(block: str, field: str) -> NumberRow:
    """Return a row for a state of charge."""
    return NumberRow(block=block, field=field, quantity=Quantity.STATE_OF_CHARGE, factor=1.0, lowest=0, highest=100)


READINGS: Final[Mapping[Kind, tuple[ReadingRow, ...]]] = {
    Kind.VEHICLE: (_percent("chargeState", "stateOfCharge"), *_charging()),
    Kind.CHARGER: (*_charging(), WordRow(block="chargeState", field="isPlugged", quantity=Quantity.PLUGGED)),
    Kind.BATTERY: (
        NumberRow(
            block="chargeState",
            field="chargeRate",
            quantity=Quantity.POWER,
            factor=W_PER_KW,
            lowest=-_POWER_W,
            highest=_POWER_W,
            state="chargingState",
            gates=_IDLE_GATES,
            signs={"CHARGING": 1, "DISCHARGING": -1},
        ),
        _percent("chargeState", "stateOfCharge"),
        WordRow(block="chargeState", field="chargingState", quantity=Quantity.STATE, words=BATTERY_WORDS),
        WordRow(block="chargeState", field="mode", quantity=Quantity.MODE, words=BATTERY_MODES),
    ),
    Kind.PV_INVERTER: (
        NumberRow(
            block="powerState",
            field="solarPower",
            quantity=Quantity.POWER,
            factor=W_PER_KW,
            lowest=-_POWER_W,
            highest=_POWER_W,
            negative_is_zero=True,
            state="state",
            gates=_IDLE_GATES,
        ),
        WordRow(block="powerState", field="state", quantity=Quantity.STATE, words=INVERTER_WORDS),
    ),
    Kind.METER: (
        # The sign and the role of a meter are settings; they are applied where the value is used.
        NumberRow(
            block="powerState",
            field="power",
            quantity=Quantity.POWER,
            factor=W_PER_KW,
            lowest=-_POWER_W,
            highest=_POWER_W,
        ),
        NumberRow(
            block="powerState",
            field="meterValue",
            quantity=Quantity.COUNTER,
            factor=WH_PER_KWH,
            lowest=0,
            highest=_ENDLESS,
        ),
    ),
    Kind.HVAC: (
        NumberRow(
            block="powerState",
            field="powerConsumption",
            quantity=Quantity.POWER,
            factor=W_PER_KW,
            lowest=-_HVAC_W,
            highest=_HVAC_W,
            negative_is_zero=True,
        ),
        NumberRow(
            block="climateState",
            field="temperatureCurrent",
            quantity=Quantity.TEMPERATURE,
            factor=1.0,
            lowest=-60,
            highest=120,
        ),
        WordRow(block="climateState", field="mode", quantity=Quantity.MODE, words=HVAC_MODES),
        WordRow(block="climateState", field="isActive", quantity=Quantity.ACTIVE),
    ),
    Kind.TARIFF: (),
}

QUANTITIES: Final[Mapping[Kind, tuple[Quantity, ...]]] = {
    kind: tuple(row.quantity for row in rows) for kind, rows in READINGS.items()
}
"""The series that a device of a kind can have."""

DEVICE_TYPES: Final[Mapping[Kind, DeviceType]] = {
    Kind.VEHICLE: DeviceType.CAR,
    Kind.CHARGER: DeviceType.CAR_CHARGER,
    Kind.BATTERY: DeviceType.BATTERY,
    Kind.PV_INVERTER: DeviceType.INVERTER,
    Kind.METER: DeviceType.SMART_METER,
}
"""M2; an hvac's type depends on its static data, a tariff is no device."""

HVAC_TYPES: Final[Mapping[str, DeviceType]] = {
    "HEATPUMP": DeviceType.HEAT_PUMP,
    "DHW": DeviceType.WATER_HEATER,
    "THERMOSTAT": DeviceType.THERMOSTAT,
    "AC": DeviceType.APPLIANCE,
}
HVAC_OTHER: Final = DeviceType.APPLIANCE

ENGINES_WITHOUT_PLUG: Final = frozenset({"HEV", "ICEV"})
"""M2: such a vehicle is listed and reports its status only."""


class Part(Enum):
    """Which part of a power an energy counts."""

    ALL = auto()
    POSITIVE = auto()
    NEGATIVE = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRow:
    """One series of one device type that leaves as one event type."""

    source: DeviceType
    quantity: Quantity
    type: EventType
    part: Part = Part.ALL
    energy: bool = False  # the integral over the interval, not the value at its end
    cadence: Cadence = Cadence.QUARTER


def _consumer(source: DeviceType) -> tuple[EventRow, ...]:
    """Return the three rows of a device that consumes."""
    return (
        EventRow(source=source, quantity=Quantity.POWER, type=EventType.POWER_CONSUMPTION),
        EventRow(source=source, quantity=Quantity.POWER, type=EventType.ENERGY_CONSUMPTION, energy=True),
        EventRow(
            source=source,
            quantity=Quantity.POWER,
            type=EventType.ENERGY_CONSUMPTION_YESTERDAY,
            energy=True,
            cadence=Cadence.DAY,
        ),
    )


def _battery(type_: EventType, yesterday: EventType, part: Part) -> tuple[EventRow, ...]:
    """Return the rows of one direction of a battery."""
    source = DeviceType.BATTERY
    return (
        EventRow(source=source, quantity=Quantity.POWER, type=type_, part=part, energy=True),
        EventRow(source=source, quantity=Quantity.POWER, type=yesterday, part=part, energy=True, cadence=Cadence.DAY),
    )


def _change(source: DeviceType) -> EventRow:
    """Return the row of a state of charge, the one measured value that leaves on change."""
    return EventRow(
        source=source, quantity=Quantity.STATE_OF_CHARGE, type=EventType.STATE_OF_CHARGE_RATE, cadence=Cadence.CHANGE
    )


EVENTS: Final[tuple[EventRow, ...]] = (
    _change(DeviceType.CAR),
    _change(DeviceType.BATTERY),  # M3.4: only with `[moost] battery_soc`
    *_consumer(DeviceType.CAR),  # only while the building has no charger
    *_consumer(DeviceType.CAR_CHARGER),
    *_battery(EventType.ENERGY_IMPORT, EventType.ENERGY_IMPORT_YESTERDAY, Part.POSITIVE),
    *_battery(EventType.ENERGY_EXPORT, EventType.ENERGY_EXPORT_YESTERDAY, Part.NEGATIVE),
    *_consumer(DeviceType.HEAT_PUMP),
    *_consumer(DeviceType.WATER_HEATER),
    *_consumer(DeviceType.THERMOSTAT),
    *_consumer(DeviceType.APPLIANCE),
    EventRow(source=DeviceType.THERMOSTAT, quantity=Quantity.TEMPERATURE, type=EventType.TEMPERATURE),
    EventRow(source=DeviceType.WATER_HEATER, quantity=Quantity.TEMPERATURE, type=EventType.WATER_TEMPERATURE),
    *_consumer(DeviceType.SMART_METER),  # only with the role `load` or `sub`
)

BY_SOURCE: Final[Mapping[DeviceType, tuple[EventRow, ...]]] = {
    source: tuple(row for row in EVENTS if row.source is source) for source in DeviceType
}

ON_CHANGE: Final[Mapping[DeviceType, tuple[EventRow, ...]]] = {
    source: tuple(row for row in rows if row.cadence is Cadence.CHANGE) for source, rows in BY_SOURCE.items()
}
"""The rows whose values leave at once."""
