"""Silence is normal and absence is not zero, through the real processes in simulated time (M0.1, M4, M5.2)."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from tests.life.clock import Clock
from tests.life.stage import Sandbox, bridged, sandboxed, stamp, until

SPEED: Final = 1440.0
START: Final = datetime(2026, 1, 7, 23, 30, tzinfo=UTC)  # no day ends where the homes are before all is over
SAID: Final = START + timedelta(minutes=5)
HOLD: Final = timedelta(hours=3)  # of a 0; what flows holds an hour
LONG_AFTER: Final = timedelta(minutes=45)
QUARTER: Final = timedelta(minutes=15)

Values = dict[str, dict[datetime, float]]


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """Return a sandbox that has all that one message of each of three inverters without a meter leads to."""
    folder = tmp_path_factory.mktemp("silence")
    clock = Clock(start=START, anchor=datetime.now(UTC) + timedelta(seconds=3), speed=SPEED)
    with sandboxed(folder) as moost, bridged(folder, moost.url) as bridge:
        bridge.configure(clock=clock.table(), intervals={"hold": "3h"})
        bridge.start()
        until(lambda: clock.at(time.time()) >= SAID, "the hour of the messages")
        for user, power_kw, state in (("night", 0, "IDLE"), ("null", None, "IDLE"), ("noon", 3.2, "PRODUCING")):
            bridge.take("pv-inverter.update", inverter(user, power_kw, state))
        last = int((SAID + HOLD - timedelta(minutes=5)).timestamp())
        until(lambda: {"night", "null"} <= {e["customerBuildingId"] for e in moost.events() if e["timestamp"] == last},
              "the last slot of the hold")  # fmt: skip
        seen = clock.at(time.time())
        until(lambda: clock.at(time.time()) >= seen + LONG_AFTER, "the end of the story")
        bridge.settled()
        yield moost


def inverter(user: str, power_kw: float | None, state: str) -> dict[str, Any]:
    return {
        "id": f"inverter-of-{user}",
        "userId": user,
        "isOnline": True,
        "lastUpdated": stamp(SAID),
        "staticData": {"vendor": "SMA", "model": "Tripower", "lastUpdated": stamp(SAID)},
        "powerState": {"solarPower": power_kw, "state": state, "lastUpdated": stamp(SAID)},
    }


def values(sandbox: Sandbox, user: str) -> Values:
    """Return what a household's events say, by type and time; none may come twice or from a device."""
    found: Values = {}
    for event in sandbox.received(user)["events"]:
        assert "GATEWAY" == event["source"]
        of_type = found.setdefault(event["type"], {})
        at = datetime.fromtimestamp(event["timestamp"], UTC)
        assert at not in of_type
        of_type[at] = event["value"]
    return found


def ends(first: datetime, until: datetime) -> list[datetime]:
    """Return the ends of quarter hours from one on, not after another time."""
    return [first + number * QUARTER for number in range((until - first) // QUARTER + 1)]


@pytest.mark.parametrize("user", ["night", "null"])
def test_a_single_zero_at_night_is_reported_each_slot_beyond_its_hold(user: str, sandbox: Sandbox) -> None:
    """A string inverter sleeps without a word, so its 0 lasts until its next message (M4.3)."""
    found = values(sandbox, user)
    last = max(found["POWER_GENERATION"])
    assert last >= SAID + HOLD + 2 * QUARTER
    assert {
        "POWER_GENERATION": dict.fromkeys(ends(START + QUARTER, last), 0.0),
        "ENERGY_GENERATION": dict.fromkeys(ends(START + 2 * QUARTER, last), 0.0),  # the first is known by half
    } == found


def test_a_building_with_pv_and_no_meter_reports_its_generation_and_nothing_invented(sandbox: Sandbox) -> None:
    hour = SAID + timedelta(hours=1)
    assert {
        "POWER_GENERATION": dict.fromkeys(ends(START + QUARTER, hour), 3200.0),
        "ENERGY_GENERATION": dict.fromkeys(ends(START + 2 * QUARTER, hour), 800.0),
    } == values(sandbox, "noon")
    assert {} == sandbox.counts()["violations"]
