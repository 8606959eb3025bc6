"""A household of one subscription, and what another one sends to write its devices."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from bridge.core.model import Building
from bridge.store.sqlite import SqliteStore
from tests.life.stage import SUBSCRIPTION, Bridge, stamp, vehicle

TARIFF: Final = "t-1"
METER: Final = "m-1"
BATTERY: Final = "b-1"
INVERTER: Final = "i-1"


def device(id_: str, user: str | None, at: datetime, /, **blocks: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message of a device; each block gets the time."""
    when = stamp(at)
    return {
        "id": id_,
        "userId": user,
        "isOnline": True,
        "lastUpdated": when,
        **{name: {**block, "lastUpdated": when} for name, block in blocks.items()},
    }


def household(user: str | None, at: datetime, price: float) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield messages of one of each kind; with a user of its own they are another household's."""
    yield "vehicle.update", {**vehicle("user-1", "car", 40, at), "userId": user}
    yield "tariff.connect", device(TARIFF, user, at, staticData={"currency": "EUR", "vendor": "TIBBER"})
    entries = [{"startDate": stamp(at + timedelta(hours=hour)), "totalPrice": price} for hour in (1, 2)]
    yield "tariff.price.update", {"id": TARIFF, "userId": user, "prices": entries}
    yield "meter.update", device(METER, user, at, powerState={"power": 1.5})
    yield "battery.update", device(BATTERY, user, at, chargeState={"chargingState": "IDLE", "chargeRate": 0})
    yield "pv-inverter.update", device(INVERTER, user, at, powerState={"solarPower": 2.0, "state": "PRODUCING"})


def attacks(user: str | None, at: datetime) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the five ways to write another's device."""
    yield "vehicle.update", {**vehicle("user-1", "car", 99, at), "userId": user}
    entries = [{"startDate": stamp(at + timedelta(hours=hour)), "totalPrice": 666} for hour in (1, 2)]
    yield "tariff.price.update", {"id": TARIFF, "userId": user, "prices": entries}
    yield "meter.delete", device(METER, user, at, powerState={"power": 1.5})
    yield "battery.offline", {**device(BATTERY, user, at), "isOnline": False}
    yield "pv-inverter.connect", {**device(INVERTER, user, at), "locationId": "elsewhere"}


async def remembered(bridge: Bridge, home: str) -> Building:
    """Return the state of a building, read beside the daemon."""
    store = SqliteStore(str(bridge.store))
    await store.open()
    try:
        found = await store.building(home)
    finally:
        await store.close()
    assert found is not None
    return found.state


def newest(state: Building) -> dict[str, Any]:
    """Return what a state knows of the household's own devices: newest values, absence, prices."""
    return {
        name: (
            {quantity: series[-1].value for quantity, series in device.series.items()},
            device.offline,
            state.prices.get(name),
        )
        for name, device in state.devices.items()
        if device.subscription == SUBSCRIPTION
    }
