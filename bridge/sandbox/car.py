"""A car and the charger it stands at: one battery, seen by two devices.

Rules:
- The car leaves and comes back once a day, plugs in and charges to its limit; both devices show the same power.
- A car without a charger charges at a socket and is then the only one that shows a power.

Source: EHA developer portal, reference pages of vehicle and charger; words of `chargingState` from the vendor's demo.
"""

import random
from typing import Any, Final

from bridge.core.vocabulary import Kind
from bridge.sandbox.devices import Block, Device
from bridge.sandbox.sky import DAY_MS, HOUR_MS, LATITUDE, LONGITUDE, solar_hour

_KM_PER_WH: Final = 1 / 170
_LIMIT: Final = 80
_SOCKET_W: Final = 2_300
_AWAY: Final = (51.52, 7.46)


class Charger(Device):
    """The box on the wall; the car decides."""

    kind = Kind.CHARGER

    def __init__(self, *, most_w: int, **identity: Any) -> None:  # noqa: ANN401
        """Give it the power it can deliver [W]."""
        super().__init__(**identity)
        self.most_w = most_w
        self.word = "UNPLUGGED"

    def blocks(self) -> dict[str, Block]:
        """Return chargeState."""
        return {
            "chargeState": {
                "isPlugged": self.word != "UNPLUGGED",
                "chargingState": self.word,
                "activePhases": 3 if self.most_w > _SOCKET_W * 2 else 1,
                "chargeRate": self.power_w / 1000,
                "chargeCurrentMax": 16,
            },
        }

    def _where(self) -> Block:
        """Return the location under the name that only chargers use."""
        return {"location": self.location}


class Car(Device):
    """An electric car with a daily habit."""

    kind = Kind.VEHICLE

    def __init__(self, *, capacity_wh: int, dice: random.Random, charger: Charger | None, **identity: Any) -> None:  # noqa: ANN401
        """Give it a battery [Wh] and, in most homes, a charger."""
        super().__init__(**identity)
        self.charger = charger
        self._dice = dice
        self._capacity_wh = capacity_wh
        self._held_wh = capacity_wh * dice.uniform(0.35, 0.75)
        self._habit = (dice.uniform(6.5, 9.0), dice.uniform(15.0, 18.5))
        self._km = dice.randrange(2_000, 90_000)
        self._home = True
        self._word = "PREPARING"
        self._rate: tuple[int, int] = (0, 0)

    def decide(self, at: int, duration_ms: int) -> None:
        """Come and go, and set the power of car and charger [W]."""
        home = not self._habit[0] <= solar_hour(at) < self._habit[1] or at // DAY_MS % 7 in {2, 3}
        if home and not self._home:
            self._return()
        self._home = home
        able = self.working and (self.charger is None or self.charger.working)
        room_w = int(max(self._capacity_wh * _LIMIT / 100 - self._held_wh, 0.0) * HOUR_MS / duration_ms)
        self.power_w = min(self._offered(at), room_w) if home and able and self._word != "UNPLUGGED" else 0
        self._word = self._next_word(home)
        if self.charger is not None:
            self.charger.word, self.charger.power_w = self._word, self.power_w

    def evolve(self, duration_ms: int) -> None:
        """Fill the battery."""
        self._held_wh += self.power_w * duration_ms / HOUR_MS

    def blocks(self) -> dict[str, Block]:
        """Return all blocks; the position is that of home or of work."""
        level = round(100 * self._held_wh / self._capacity_wh, 1)
        plugged = self._word != "UNPLUGGED"
        return {
            "location": dict(
                zip(("latitude", "longitude"), (LATITUDE, LONGITUDE) if self._home else _AWAY, strict=True),
            ),
            "odometer": {"odometer": self._km},
            "chargeState": {
                "stateOfCharge": level,
                "chargingState": self._word,
                "chargeRate": self.power_w / 1000 if plugged else None,
                "chargingTimeRemaining": self._minutes_left(),
                "chargeLimitMin": 20,
                "chargeLimitMax": _LIMIT,
                "estimatedRange": int(self._held_wh * _KM_PER_WH),
                "scheduledChargingStartTime": None,
                "scheduledDepartureTime": None,
                "isPlugged": plugged,
                "remoteChargingAllowed": True,
                "chargeCurrentMax": 16,
            },
            "climateState": {
                "isClimateOn": False,
                "isBatteryHeaterOn": False,
                "temperatureCurrent": 19.5,
                "temperatureTarget": 20,
            },
        }

    def _where(self) -> Block:
        """Return nothing: a vehicle has coordinates, no location id."""
        return {}

    def _offered(self, at: int) -> int:
        """Return what charger or socket gives [W]; it wanders a little every now and then."""
        watts, until = self._rate
        if at >= until:
            most_w = _SOCKET_W if self.charger is None else self.charger.most_w
            watts = most_w - self._dice.randrange(60)
            self._rate = (watts, at + self._dice.randrange(HOUR_MS // 2, 2 * HOUR_MS))
        return watts

    def _return(self) -> None:
        """Come home after a day's drive."""
        used = min(self._dice.uniform(4_000, 16_000), self._held_wh - self._capacity_wh * 0.15)
        self._held_wh -= max(used, 0.0)
        self._km += int(max(used, 0.0) * _KM_PER_WH)

    def _next_word(self, home: bool) -> str:  # noqa: FBT001 - one private caller
        """Return what the car shows; it says PREPARING once between arriving and charging."""
        if not home:
            return "UNPLUGGED"
        if self.power_w:
            return "CHARGING"
        return "PREPARING" if self._word == "UNPLUGGED" else "FINISHED"

    def _minutes_left(self) -> int | None:
        """Return the time to the limit [min]."""
        if not self.power_w:
            return None
        return int(max(self._capacity_wh * _LIMIT / 100 - self._held_wh, 0.0) / self.power_w * 60)
