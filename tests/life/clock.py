"""The fast clock that the bridge, the simulated cloud and the tests share."""

from dataclasses import dataclass
from datetime import UTC, datetime

from tests.life.stage import Table


@dataclass(frozen=True, kw_only=True)
class Clock:
    """Shows `start` at the wall time `anchor`, runs `speed` times as fast, and stays with the wall clock once there."""

    start: datetime
    anchor: datetime
    speed: float

    def at(self, wall: float) -> datetime:
        """Return what it shows at a wall time [epoch s]."""
        real = datetime.fromtimestamp(wall, UTC)
        return min(self.start + (real - self.anchor) * self.speed, real)

    def table(self) -> Table:
        """Return the bridge's settings for it."""
        return {"start": self.start.isoformat(), "anchor": self.anchor.isoformat(), "speed": self.speed}
