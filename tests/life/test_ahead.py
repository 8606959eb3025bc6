"""A simulated clock that starts in the future works like one in the past: everything leaves, nothing waits for it."""

from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from tests.life.stage import Bridge, Sandbox, until, vehicle

AWAY: Final = timedelta(days=400)
SPEED: Final = 600


@pytest.mark.parametrize("away", [AWAY, -AWAY], ids=["future", "past"])
def test_a_clock_that_starts_elsewhere_delivers_all_the_same(bridge: Bridge, sandbox: Sandbox, away: timedelta) -> None:
    start = datetime.now(UTC) + away
    bridge.configure(clock={"start": start.isoformat(), "speed": SPEED})
    bridge.start()
    power = {"powerState": {"power": 0.4, "lastUpdated": start.isoformat()}}
    meter = {"id": "m-1", "userId": "user-1", "isOnline": True, "lastUpdated": start.isoformat(), **power}
    bridge.take("meter.update", meter)
    bridge.take("vehicle.update", vehicle("user-1", "car", 50, start))
    until(lambda: [50] == [event["value"] for event in sandbox.events() if event["source"] == "CAR"], "the charge")
    until(lambda: 100.0 in energies(sandbox), "a whole quarter hour")
    bridge.kill()
    bridge.start()
    bridge.take("vehicle.update", vehicle("user-1", "car", 60, start + timedelta(hours=1)))
    until(lambda: 60 in [event["value"] for event in sandbox.events()], "what comes after a restart")
    assert "ok" == bridge.health()["status"]


def energies(sandbox: Sandbox) -> set[float]:
    return {event["value"] for event in sandbox.events() if event["type"] == "GRID_ENERGY_CONSUMPTION"}
