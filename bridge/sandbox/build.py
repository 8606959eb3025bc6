"""What stands in a simulated home: drawn from its dice, so that all kinds and combinations occur.

Rules:
- Home 0 has everything; every fifth home has two kinds of devices that share an id, as the vendor's examples do.
- User ids come in the spellings partners use: UUIDs, plain words, and some that fit no pattern.
- Names, sites and vehicle numbers are made up.

Source: EHA developer portal (vendors, models, identifiers; the examples' shared ids).
"""

import random
import uuid
from dataclasses import dataclass, field
from typing import Any, Final

from bridge.sandbox.car import Car, Charger
from bridge.sandbox.climate import Climate
from bridge.sandbox.devices import Battery, Device, Inverter, Meter, Tariff

_CURRENCY: Final = "EUR"
_TARGETS: Final = {"HEATPUMP": 21.0, "DHW": 50.0, "AC": 23.5, "THERMOSTAT": 20.5}
_RATED_W: Final = {"HEATPUMP": 1_900, "DHW": 1_200, "AC": 900, "THERMOSTAT": 0}
_NAMES: Final = {
    "HEATPUMP": "Wärmepumpe Keller",
    "DHW": "Warmwasser",
    "AC": "Klimaanlage Büro",
    "THERMOSTAT": "Thermostat Wohnzimmer",
}


@dataclass(slots=True, kw_only=True)
class Equipment:
    """One home's devices."""

    number: int
    user: str
    inverters: list[Inverter] = field(default_factory=list)
    battery: Battery | None = None
    meter: Meter | None = None
    climates: list[Climate] = field(default_factory=list)
    charger: Charger | None = None
    car: Car | None = None
    tariff: Tariff | None = None

    @property
    def devices(self) -> list[Device]:
        """Return all devices, the tariff last."""
        others = (self.battery, self.meter, self.charger, self.car, self.tariff)
        return [*self.inverters, *self.climates, *(one for one in others if one is not None)]


def equip(number: int, dice: random.Random) -> Equipment:
    """Return the devices of home `number`."""
    return _Builder(number, dice).home()


class _Builder:
    """Draws one home."""

    def __init__(self, number: int, dice: random.Random) -> None:
        """Prepare for home `number`."""
        self._number = number
        self._dice = dice
        self._everything = number == 0
        self._collide = number % 5 == 0
        self._user = _user(number, dice)
        self._location = None if number % 4 == 3 else self._uuid()  # noqa: PLR2004 - every fourth has none

    def home(self) -> Equipment:
        """Build it."""
        home = Equipment(number=self._number, user=self._user)
        if self._has(0.8):
            home.inverters = [self._inverter() for _ in range(2 if self._number % 6 == 4 else 1)]  # noqa: PLR2004
        home.climates = [self._climate(word) for word in _TARGETS if self._has(0.35)]
        self._share_ids(home)
        if self._has(0.95):
            home.meter = self._meter()
        if home.inverters and self._has(0.7):
            home.battery = self._battery(home.meter)
        if self._has(0.6):
            home.charger = self._charger() if self._has(0.75) else None
            home.car = self._car(home.charger)
        if self._has(0.6):
            home.tariff = self._tariff()
        return home

    def _has(self, share: float) -> bool:
        """Draw whether the home has something."""
        return self._dice.random() < share or self._everything

    def _share_ids(self, home: Equipment) -> None:
        """Give an hvac device the id of the inverter, in some homes."""
        if self._collide and home.inverters and home.climates:
            home.climates[0].id = home.inverters[0].id

    def _uuid(self) -> str:
        """Draw a UUID."""
        return str(uuid.UUID(int=self._dice.getrandbits(128), version=4))

    def _identity(self, **static: object) -> dict[str, Any]:
        """Return what every device has."""
        return {"device_id": self._uuid(), "user": self._user, "location": self._location, "static": static}

    def _inverter(self) -> Inverter:
        """Build a roof."""
        return Inverter(
            peak_w=self._dice.randrange(4_000, 12_000, 100),
            dice=self._dice,
            sleeps=self._number % 3 == 1,
            null_at_night=self._number % 4 == 2,  # noqa: PLR2004 - every fourth
            **self._identity(vendor="FRONIUS", model="Symo GEN24", name="Dach Süd", siteName="Home"),
        )

    def _battery(self, meter: Meter | None) -> Battery:
        """Build a battery; it may share its id with the meter."""
        identity = self._identity(vendor="SMA", model="Sunny Boy Storage", name="Keller", siteName="Home")
        capacity_wh = self._dice.randrange(5_000, 15_000, 500)
        identity["static"]["batteryCapacity"] = capacity_wh / 1000
        if self._collide and meter is not None:
            identity["device_id"] = meter.id
        return Battery(capacity_wh=capacity_wh, most_w=5_000, level=self._dice.uniform(0.2, 0.8), **identity)

    def _meter(self) -> Meter:
        """Build the meter at the grid connection."""
        identity = self._identity(vendor="FRONIUS", model="Smart Meter 63A", name="Grid meter", siteName="Home")
        return Meter(counter_wh=self._dice.uniform(1e6, 3e7), **identity)

    def _climate(self, word: str) -> Climate:
        """Build an hvac device."""
        static = {
            "type": word,
            "room": "Living room" if word in {"AC", "THERMOSTAT"} else None,
            "vendor": "VIESSMANN",
            "model": "Vitocal 250",
            "name": _NAMES[word],
            "capableModes": ["HEAT", "COOL", "OFF"],
        }
        return Climate(
            rated_w=_RATED_W[word],
            target=_TARGETS[word],
            dice=self._dice,
            **self._identity(**static),
        )

    def _charger(self) -> Charger:
        """Build a wallbox."""
        identity = self._identity(vendor="EASEE", model="Home", name="Wallbox")
        return Charger(most_w=self._dice.choice((3_700, 11_000)), **identity)

    def _car(self, charger: Charger | None) -> Car:
        """Build a car."""
        capacity_wh = self._dice.choice((42_000, 58_000, 77_000))
        static = {
            "vendor": "VW",
            "vin": f"SANDBOX{self._number:010d}",
            "model": "ID.3",
            "name": self._dice.choice(("Family car", None, f"SANDBOX{self._number:010d}")),
            "engineType": "BEV",
            "batteryCapacity": capacity_wh / 1000,
            "vehicleVariant": None,
        }
        return Car(capacity_wh=capacity_wh, dice=self._dice, charger=charger, **self._identity(**static))

    def _tariff(self) -> Tariff:
        """Sign a contract."""
        vendor = self._dice.choice(("TIBBER", "OSTROM", "LUOX"))
        name = f"{vendor.capitalize()} Bürgerfelder Straße"
        return Tariff(**self._identity(vendor=vendor, name=name, currency=_CURRENCY, countryCode="DE"))


def _user(number: int, dice: random.Random) -> str:
    """Return a user id in one of the spellings partners use."""
    drawn = str(uuid.UUID(int=dice.getrandbits(128), version=4))
    if number % 7 == 5:  # noqa: PLR2004 - every seventh
        return f"jörg müller/{number}"
    return f"user-{number:05d}" if number % 3 == 1 else drawn
