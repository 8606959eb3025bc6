"""Messages that are not about a device's state: commands, prices, schedules.

Source: EHA developer portal, "Control mechanism" (command object); vendor demo application (price and schedule
objects; the older price shape with `startsAt`).
"""

import random
import uuid
from typing import Final

from bridge.core.vocabulary import Kind
from bridge.sandbox.devices import Body, Device
from bridge.sandbox.quirks import text
from bridge.sandbox.sky import HOUR_MS, energy_price

_TYPES: Final = {
    Kind.VEHICLE: ("CHARGING_START", "CHARGING_STOP"),
    Kind.CHARGER: ("CHARGING_START", "CHARGING_STOP", "SET_CHARGING_CURRENT", "SET_CHARGING_PHASES"),
    Kind.HVAC: ("SET_TEMPERATURE", "SET_MODE", "SET_SCHEDULE"),
}
_TAXES: Final = 0.17
_DONE_MS: Final = 2_125


def command(device: Device, at: int, dice: random.Random) -> list[Body]:
    """Return a command that is created and then carried out, or not."""
    failed = dice.random() < 0.2  # noqa: PLR2004 - one in five
    pending = {
        "id": str(uuid.UUID(int=dice.getrandbits(128), version=4)),
        "userId": device.user,
        "deviceId": device.id,
        "type": dice.choice(_TYPES[device.kind]),
        "state": "PENDING",
        "failedReason": None,
        "createdAt": text(at),
        "lastUpdated": None,
    }
    outcome = {
        "state": "FAILED" if failed else "EXECUTED",
        "failedReason": "vendor timeout" if failed else None,
        "lastUpdated": text(at + _DONE_MS),
    }
    return [pending, {**pending, **outcome}]


def prices(tariff: Device, begin: int, end: int) -> Body:
    """Return hourly prices from begin to end [epoch ms]; one vendor still writes the older shape."""
    old = tariff.static["vendor"] == "LUOX"
    return {
        "id": tariff.id,
        "userId": tariff.user,
        "locationId": tariff.location,
        "prices": [_old_price(at) if old else _price(at) for at in range(begin, end, HOUR_MS)],
    }


def _price(at: int) -> Body:
    """Return the price of the hour that starts here."""
    energy = energy_price(at)
    return {
        "startDate": text(at),
        "totalPrice": round(energy + _TAXES, 4),
        "energyPrice": energy,
        "taxAndLevies": _TAXES,
    }


def _old_price(at: int) -> Body:
    """Return the same in the older shape."""
    total = round(energy_price(at) + _TAXES, 4)
    return {"startsAt": text(at), "totalPrice": total, "vat": round(total * 0.19 / 1.19, 4)}


def schedules(device: Device, dice: random.Random) -> Body:
    """Return a weekly schedule with a warm day and a cool night that wraps over the weekend."""
    warm = 20 + dice.randrange(5) / 2
    return {
        "id": device.id,
        "userId": device.user,
        "timeZone": "Europe/Berlin",
        "schedules": [
            {
                "start": {"day": "MONDAY", "time": "06:00"},
                "end": {"day": "MONDAY", "time": "22:00"},
                "mode": "HEAT",
                "temperature": warm,
            },
            {
                "start": {"day": "SUNDAY", "time": "22:00"},
                "end": {"day": "MONDAY", "time": "06:00"},
                "mode": "REDUCED",
                "temperature": 18,
            },
        ],
    }
