"""The device cloud's messages as they arrive: every field that is read, nothing required but an id.

Rules:
- A documented field that nobody reads is not here: to look at it costs time, and a flaw in it is nobody's concern.
- Unknown keys are ignored; a missing key is the same as null (the portal's examples hold null in "mandatory" fields).
- A field of the wrong type is treated as null and reported as odd (`repair`); it never costs the rest of the message.
  So everything may be null, also within an array.
- Numbers and flags are strict here: what a string means is `repair`'s. Times stay as sent; `decode` reads them.

Source: EHA developer portal, "Streaming examples" and the data model of its API reference (which fields exist);
EHA demo application, model classes (units, enum words, price, schedule and command messages). New keys have been
added to existing objects without notice.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from bridge.core.vocabulary import Kind

Number = Annotated[float, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Text = Annotated[str, Field(coerce_numbers_to_str=True)]
Time = Any  # whatever stands there: a time of the wrong type is one that cannot be read, not a missing one


class _Wire(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="ignore", frozen=True)


class Block(_Wire):
    """A part of a device's data with its own time."""

    last_updated: Time | None = None


class StaticData(Block):
    """What a device or tariff is; the fields of all kinds together. `vin` is only looked for in the other texts."""

    vendor: str | None = None
    model: str | None = None
    name: str | None = None
    type: str | None = None  # hvac
    engine_type: str | None = None  # vehicle
    vin: str | None = Field(default=None, repr=False)
    currency: str | None = None  # tariff, ISO 4217


class ChargeState(Block):
    """Charging of a vehicle, charger or battery."""

    charging_state: str | None = None
    charge_rate: Number | None = None  # [kW] battery: + charging, - discharging
    state_of_charge: Number | None = None  # [%]
    mode: str | None = None  # battery
    is_plugged: Flag | None = None


class PowerState(Block):
    """Power of an inverter, meter or hvac [kW], counter of a meter [kWh]."""

    solar_power: Number | None = None
    state: str | None = None
    power: Number | None = None
    meter_value: Number | None = None
    power_consumption: Number | None = None


class ClimateState(Block):
    """Climate of a vehicle or hvac; of a vehicle only its time counts."""

    is_active: Flag | None = None
    mode: str | None = None
    temperature_current: Number | None = None  # [°C]


class Location(Block):
    """Where a vehicle is [°]: personal data, compared in passing, never kept."""

    latitude: Number | None = Field(default=None, repr=False)
    longitude: Number | None = Field(default=None, repr=False)


class _Body(_Wire):
    id: Text
    user_id: Text | None = None


class DeviceBody(_Body):
    """The common head of all devices; blocks that a kind does not have stay None."""

    # Unknown blocks are kept, because the stamp of a message is the newest time anywhere in it (M0.3).
    model_config = ConfigDict(alias_generator=to_camel, extra="allow", frozen=True)

    last_updated: Time | None = None
    is_online: Flag | None = None
    is_connected: Flag | None = None
    location_id: Text | None = None
    static_data: StaticData | None = None


class VehicleBody(DeviceBody):
    """`location` is an object with coordinates; there is no location id."""

    charge_state: ChargeState | None = None
    climate_state: ClimateState | None = None
    odometer: Block | None = None  # for its time
    location: Location | None = None


class ChargerBody(DeviceBody):
    """`location` is the location id."""

    charge_state: ChargeState | None = None
    location: Text | None = None


class BatteryBody(DeviceBody):
    """A home battery."""

    charge_state: ChargeState | None = None


class PowerBody(DeviceBody):
    """A solar inverter or a meter."""

    power_state: PowerState | None = None


class HvacBody(DeviceBody):
    """A heat pump, hot water, thermostat or air conditioner."""

    power_state: PowerState | None = None
    climate_state: ClimateState | None = None


class TariffBody(DeviceBody):
    """A tariff: no state block, no time of its own but that of its static data."""


BODIES: Final[Mapping[Kind, type[DeviceBody]]] = {
    Kind.VEHICLE: VehicleBody,
    Kind.CHARGER: ChargerBody,
    Kind.BATTERY: BatteryBody,
    Kind.PV_INVERTER: PowerBody,
    Kind.METER: PowerBody,
    Kind.HVAC: HvacBody,
    Kind.TARIFF: TariffBody,
}


class CommandBody(_Body):
    """`id` is the command's, `deviceId` the device's."""

    device_id: Text | None = None
    type: str | None = None
    state: str | None = None
    failed_reason: str | None = None


class PriceEntry(_Wire):
    """One price from its start on; there is no end. `startsAt` is the older spelling."""

    start_date: Time | None = None
    starts_at: Time | None = None
    total_price: Decimal | None = None  # [currency/kWh]


def _flat(value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Flatten one level: the REST example shows an array inside an array.

    In place, so that the positions of errors are those of the list that the caller has.
    """
    if isinstance(value, list) and any(isinstance(item, list) for item in value):
        value[:] = [entry for item in value for entry in (item if isinstance(item, list) else [item])]
    return value


class PricesBody(_Body):
    """New prices of a tariff."""

    location_id: Text | None = None
    prices: Annotated[list[PriceEntry | None] | None, BeforeValidator(_flat)] = None


class SchedulesBody(_Body):
    """The weekly schedule of an hvac device."""

    time_zone: str | None = None
    schedules: list[dict[str, Any] | None] | None = None
