"""Heat pumps, hot-water tanks, air conditioners and thermostats: on and off by hysteresis.

Rules:
- The power of a cycle is fixed when it starts; a thermostat shows no power at all.

Source: EHA developer portal, hvac reference pages (types, modes, one target per mode).
"""

import random
from typing import Any, Final

from bridge.core.vocabulary import Kind
from bridge.sandbox.devices import Block, Device
from bridge.sandbox.sky import HOUR_MS, outside, solar_hour

_LEAST_INSIDE: Final = 17.0  # [°C] something else heats a little


class Climate(Device):
    """An hvac device: heat pump, hot water, air conditioner or thermostat."""

    kind = Kind.HVAC

    def __init__(self, *, rated_w: int, target: float, dice: random.Random, **identity: Any) -> None:  # noqa: ANN401
        """Give it the power it takes when active [W] and the temperature it aims at [°C]."""
        super().__init__(**identity)
        self.target = target
        self._rated_w = rated_w
        self._dice = dice
        self._active = False
        self._inside = target + dice.uniform(-0.5, 0.5)
        self._outside = target

    def decide(self, at: int) -> None:
        """Switch on or off by hysteresis and set the power [W]."""
        self._outside = outside(at)
        gap = (self._inside - self.target) * (-1 if self._cools else 1)
        band = 3.0 if self._heats_water else 0.4
        if not self.working or self._idle_season():
            self._active = False
        elif gap < -band:
            self._start()
        elif gap > band:
            self._active = False
        self.power_w = self._now_w if self._active else 0

    def evolve(self, at: int, duration_ms: int) -> None:
        """Let the room or the tank warm up and cool down."""
        hours = duration_ms / HOUR_MS
        drive = (9.0 if self._heats_water else 2.4) if self._active else 0.0
        loss = self._draw(at) if self._heats_water else 0.03 * (self._inside - self._outside)
        self._inside = max(self._inside + ((-drive if self._cools else drive) - loss) * hours, _LEAST_INSIDE)

    def blocks(self) -> dict[str, Block]:
        """Return climateState and powerState; a thermostat knows no power."""
        mode = "COOL" if self._cools else "HEAT"
        targets = [] if self._heats_water else [{"mode": mode, "temperature": self.target}]
        return {
            "climateState": {
                "isActive": self._active,
                "mode": mode,
                "temperatureCurrent": round(self._inside, 1),
                "temperatureOutside": None if self._heats_water else round(self._outside),
                "temperatureTargets": targets,
            },
            "powerState": {"powerConsumption": self.power_w / 1000 if self._rated_w else None},
        }

    @property
    def consumes(self) -> bool:
        """Say whether it shows a power at all."""
        return bool(self._rated_w)

    @property
    def _cools(self) -> bool:
        """Say whether it is an air conditioner."""
        return bool(self.static["type"] == "AC")

    @property
    def _heats_water(self) -> bool:
        """Say whether it is a hot-water tank."""
        return bool(self.static["type"] == "DHW")

    def _idle_season(self) -> bool:
        """Say whether the weather asks for nothing."""
        if self._heats_water:
            return False
        return self._outside < self.target if self._cools else self._outside > self.target - 5

    def _start(self) -> None:
        """Begin a cycle; its power is fixed until it ends."""
        if not self._active:
            self._active = True
            self._now_w = int(self._rated_w * self._dice.uniform(0.85, 1.1))

    def _draw(self, at: int) -> float:
        """Return how fast a tank loses heat [K/h]; people shower in the morning and wash up in the evening."""
        return self._dice.uniform(3, 9) if int(solar_hour(at)) in {6, 7, 19, 20} else 0.5
