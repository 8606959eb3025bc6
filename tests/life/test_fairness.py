"""One building with thousands of calls does not delay the others (R8)."""

from datetime import UTC, datetime, timedelta
from typing import Final

from tests.life.stage import Bridge, Sandbox, until, vehicle

BIG: Final = 3_000
OTHERS: Final = 20
SHARE: Final = 4  # calls of the big one for each of the others' at most; they take turns, so it is about 1 in the end


def test_a_building_with_thousands_of_calls_takes_turns_with_the_others(bridge: Bridge, sandbox: Sandbox) -> None:
    bridge.configure(moost={"max_concurrency": 1})  # so that a lane can delay another at all
    bridge.start()
    small = [f"small-{number}" for number in range(OTHERS)]
    bridge.take("vehicle.update", [vehicle(home, "car", 10) for home in small])
    bridge.settled()  # MOOST knows the small ones, so all that is to come are live events: one rank
    sandbox.faults({"kind": "latency", "seconds": 0.005, "path": "/events"})
    begin = datetime.now(UTC) - timedelta(seconds=BIG / 10)
    for start in range(0, BIG, 1_000):
        numbers = range(start, start + 1_000)
        cars = [vehicle("big", "car", number % 100, begin + timedelta(seconds=number / 10)) for number in numbers]
        bridge.take("vehicle.update", cars)
    until(lambda: sandbox.counts()["events"]["live"] >= 50, "the big one is under way")
    began = len(sandbox.events())
    bridge.take("vehicle.update", [vehicle(home, "car", 20) for home in small])

    def served() -> list[str] | None:
        homes = [event["customerBuildingId"] for event in sandbox.events()[began:]]
        return homes if OTHERS == sum(home != "big" for home in homes) else None

    homes = until(served, "all the others are served")
    last = max(place for place, home in enumerate(homes) if home != "big")
    assert bridge.health()["calls"]["pending"] > BIG / 3, "the big one still owes"
    assert homes[:last].count("big") <= SHARE * OTHERS
