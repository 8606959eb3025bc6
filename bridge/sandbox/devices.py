"""The devices of a simulated home and how the device cloud shows them.

Rules:
- Physics is in whole watts and exact milliseconds; a message shows a power as kW with three decimals, so what a
  message says is exactly what the device does until its next message.
- A message is the full data model, in the shape of the vendor's examples; every block carries the time of its own
  last change.
- A device reports when something it shows has changed, and only then.

Source: EHA developer portal, "Streaming examples" and reference pages (shapes, units, signs); vendor demo application
(enum words, charger).
"""

import random
from abc import abstractmethod
from typing import Any, Final

from bridge.core.vocabulary import Kind
from bridge.sandbox.sky import HOUR_MS, roof_irradiance

Block = dict[str, Any]
Body = dict[str, Any]
_WH_PER_WMS: Final = 1 / HOUR_MS
_FULL: Final = 95.0
_EMPTY: Final = 10.0
_DUSK_MS: Final = 600_000
_DUSK_W: Final = 50  # as good as nothing, where it is the last word of the day
_HOLD_ZERO_MS: Final = 24 * HOUR_MS
_HOLD_MS: Final = {
    Kind.PV_INVERTER: HOUR_MS,
    Kind.METER: HOUR_MS,
    Kind.BATTERY: HOUR_MS,
    Kind.VEHICLE: 6 * HOUR_MS,
    Kind.CHARGER: 6 * HOUR_MS,
    Kind.HVAC: 6 * HOUR_MS,
    Kind.TARIFF: HOUR_MS,
}
"""How long silence means "unchanged" by the receiver's defaults (mapping rule M5.2)."""


class Device:
    """One device as the cloud knows it; subclasses add the physics."""

    kind: Kind

    def __init__(self, *, device_id: str, user: str, location: str | None, static: Block) -> None:
        """Give the device its identity; `static` is its staticData with `lastUpdated` in ms."""
        self.id = device_id
        self.user = user
        self.location = location
        self.static = static
        self.online = True
        self.connected = True
        self.present = True
        self.power_w = 0
        self.said_at = 0
        self._shown: dict[str, Block] = {}
        self._stamps: dict[str, int | None] = {}

    @property
    def working(self) -> bool:
        """Say whether the device does anything: it is there, reachable and authorised."""
        return self.present and self.online and self.connected

    @property
    def held_until(self) -> int:
        """Return until when a receiver may believe the last message [epoch ms]."""
        return self.said_at + (_HOLD_ZERO_MS if self.power_w == 0 else _HOLD_MS[self.kind])

    @abstractmethod
    def blocks(self) -> dict[str, Block]:
        """Return the state as the cloud shows it now."""

    def report(self, at: int) -> Body | None:
        """Return a full message if anything changed."""
        new = self.blocks()
        changed = [name for name, block in new.items() if self._shown.get(name) != block]
        if not changed:
            return None
        for name in changed:
            self._stamps[name] = at
        self._shown = new
        self.said_at = at
        return self._body(at)

    def first(self, at: int) -> Body:
        """Return what is known right after linking: blocks are there, every field is null."""
        self.static["lastUpdated"] = at
        self._shown = {name: _nulled(block) for name, block in self.blocks().items()}
        self._stamps = dict.fromkeys(self._shown)
        return self._body(at)

    def farewell(self, at: int) -> Body:
        """Return the body of offline, disconnect or delete: the last known state without powers."""
        self._shown = {name: _silenced(block) for name, block in self.blocks().items()}
        self._stamps = dict.fromkeys(self._shown, at)
        return self._body(at)

    def lose(self) -> None:
        """Become unreachable."""
        self.online = False

    def forget(self) -> None:
        """Make the next report a full one."""
        self._shown = {}

    def _body(self, at: int) -> Body:
        """Return the full data model; times are still ms."""
        return {
            "id": self.id,
            "userId": self.user,
            **self._where(),
            "isOnline": self.online and self.connected,
            "staticData": dict(self.static),
            **{name: {**block, "lastUpdated": self._stamps[name]} for name, block in self._shown.items()},
            "lastUpdated": at,
        }

    def _where(self) -> Block:
        """Return the location as this kind spells it."""
        return {"locationId": self.location}


class Inverter(Device):
    """Photovoltaics: the sun, and a cloud that drifts by; some sleep (are offline) at night."""

    kind = Kind.PV_INVERTER

    def __init__(self, *, peak_w: int, dice: random.Random, sleeps: bool, null_at_night: bool, **identity: Any) -> None:  # noqa: ANN401
        """Give it a peak power [W]; some show null instead of 0 at night."""
        super().__init__(**identity)
        self._night_when_lost = False
        self._largest_w = 0
        self._peak_w = peak_w
        self._dice = dice
        self._sleeps = sleeps
        self._null_at_night = null_at_night
        self._sky = dice.uniform(0.4, 1.0)
        self._asleep = False
        self._dark_since: int | None = None

    def decide(self, at: int) -> None:
        """Set the power from now on [W]."""
        self._sky = min(1.0, max(0.08, self._sky + self._dice.gauss(0.02, 0.12)))
        light_w = int(self._peak_w * roof_irradiance(at) / 1000 * 0.85 * self._sky)
        if self._asleep and light_w:
            self._asleep, self.online = False, True
            self.forget()
        self.power_w = light_w if self.working else 0
        self._largest_w = max(self._largest_w, self.power_w)
        if light_w:
            self._dark_since = None
        elif self._dark_since is None:
            self._dark_since = at

    def drowsy(self, at: int) -> bool:
        """Say whether it is about to fall asleep."""
        dark = self._dark_since is not None and at - self._dark_since >= _DUSK_MS
        return self._sleeps and self.working and dark

    def sleep(self) -> None:
        """Go offline until there is light."""
        self._asleep = True
        self.lose()

    def lose(self) -> None:
        """Become unreachable; whether it stood at next to nothing is remembered."""
        super().lose()
        self._night_when_lost = self._is_low

    @property
    def is_night(self) -> bool:
        """Say whether a receiver takes its silence for night: the last it said was next to nothing."""
        return self._is_low if self.working else self._night_when_lost and not self.online

    @property
    def _is_low(self) -> bool:
        return self.power_w <= max(_DUSK_W, self._largest_w / 100)

    def blocks(self) -> dict[str, Block]:
        """Return powerState."""
        if self.power_w:
            return {"powerState": {"solarPower": self.power_w / 1000, "state": "PRODUCING"}}
        return {"powerState": {"solarPower": None if self._null_at_night else 0, "state": "IDLE"}}


class Battery(Device):
    """Takes what is left over and gives it back when it is missing."""

    kind = Kind.BATTERY

    def __init__(self, *, capacity_wh: int, most_w: int, level: float, **identity: Any) -> None:  # noqa: ANN401
        """Give it a capacity [Wh], the greatest power [W] and a level 0..1 to start with."""
        super().__init__(**identity)
        self._capacity_wh = capacity_wh
        self._most_w = most_w
        self._held_wh = capacity_wh * level

    def decide(self, surplus_w: int, duration_ms: int) -> None:
        """Charge from a surplus, discharge into a deficit; what it does it can do for the whole time [W]."""
        if not self.working:
            self.power_w = 0
            return
        room = self._capacity_wh * _FULL / 100 - self._held_wh
        rest = self._held_wh - self._capacity_wh * _EMPTY / 100
        highest = min(self._most_w, int(max(room, 0.0) * HOUR_MS / duration_ms))
        lowest = -min(self._most_w, int(max(rest, 0.0) * HOUR_MS / duration_ms))
        self.power_w = max(lowest, min(highest, surplus_w))

    def evolve(self, duration_ms: int) -> None:
        """Let time pass."""
        self._held_wh += self.power_w * duration_ms * _WH_PER_WMS

    def blocks(self) -> dict[str, Block]:
        """Return chargeState; charging is positive."""
        word = "CHARGING" if self.power_w > 0 else "DISCHARGING" if self.power_w < 0 else "IDLE"
        return {
            "chargeState": {
                "mode": "SELF_CONSUMPTION",
                "stateOfCharge": round(100 * self._held_wh / self._capacity_wh, 1),
                "maxChargeRate": self._most_w / 1000,
                "maxDischargeRate": self._most_w / 1000,
                "chargeLimitMin": _EMPTY,
                "chargeLimitMax": _FULL,
                "chargeRate": self.power_w / 1000,
                "chargingState": word,
            },
        }


class Meter(Device):
    """The grid connection: import is positive, the counter counts import."""

    kind = Kind.METER

    def __init__(self, *, counter_wh: float, **identity: Any) -> None:  # noqa: ANN401
        """Start the import counter somewhere [Wh]."""
        super().__init__(**identity)
        self._counter_wh = counter_wh

    def decide(self, balance_w: int) -> None:
        """Show the balance of the home [W]."""
        self.power_w = balance_w

    def evolve(self, duration_ms: int) -> None:
        """Count."""
        self._counter_wh += max(self.power_w, 0) * duration_ms * _WH_PER_WMS

    def blocks(self) -> dict[str, Block]:
        """Return powerState."""
        return {"powerState": {"power": self.power_w / 1000, "meterValue": round(self._counter_wh / 1000, 2)}}


class Tariff(Device):
    """A contract: no state, only facts."""

    kind = Kind.TARIFF

    def blocks(self) -> dict[str, Block]:
        """Return nothing: a tariff has no state block."""
        return {}

    def first(self, at: int) -> Body:
        """Return the tariff; its only time is that of its facts."""
        self.static["lastUpdated"] = at
        return self._body(at)

    def farewell(self, at: int) -> Body:
        """Return the tariff as it leaves."""
        return self.first(at)

    def _body(self, at: int) -> Body:
        """Leave out the object's own time, as the cloud does."""
        body = super()._body(at)
        del body["lastUpdated"]
        return body


def _nulled(block: Block) -> Block:
    """Return a block of nulls; lists are empty."""
    return {name: [] if isinstance(value, list) else None for name, value in block.items()}


def _silenced(block: Block) -> Block:
    """Return a block whose powers are gone."""
    return {name: None if name in _POWERS else value for name, value in block.items()}


_POWERS: Final = frozenset({"solarPower", "power", "powerConsumption", "chargeRate"})
