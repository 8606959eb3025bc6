"""Honest traffic of every size stays untouched by every limit (R13): nothing is refused, dropped or told of."""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import aiohttp
import pytest

from tests.life.crowd import Letter, send
from tests.life.stage import (
    SUBSCRIPTION,
    Bridge,
    Sandbox,
    bridged,
    dump,
    sandboxed,
    signed,
    stamp,
    until,
    vehicle,
)

DEVICES: Final = 60  # of the largest household
ALL_AT_ONCE: Final = 150  # messages of one building
HOMES: Final = 1_000  # one message each, in one array
LARGE: Final = 900 * 1024  # bytes of an array
PRICES: Final = 2 * 96  # quarter hours of two days
WRONG: Final = 400  # requests with a wrong secret beside …
RIGHT: Final = 60  # … these from the same address
SECOND: Final = timedelta(seconds=1)
BLOCKS: Final[dict[str, dict[str, Any]]] = {
    "meter": {"powerState": {"power": 0.4, "meterValue": 1200.5}},
    "pv-inverter": {"powerState": {"solarPower": 1.5, "state": "PRODUCING"}},
    "battery": {"chargeState": {"stateOfCharge": 55, "chargingState": "CHARGING", "chargeRate": 1.0, "mode": "AUTO"}},
    "hvac": {"powerState": {"powerConsumption": 0.8}, "climateState": {"temperatureCurrent": 21.5, "isActive": True}},
    "charger": {"chargeState": {"isPlugged": True, "chargingState": "CHARGING", "chargeRate": 11}},
}


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with sandboxed(tmp_path_factory.mktemp("moost")) as started:
        yield started


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory, sandbox: Sandbox) -> Iterator[Bridge]:
    """Run a daemon with the default limits for all these senders."""
    with bridged(tmp_path_factory.mktemp("honest"), sandbox.url) as started:
        started.start()
        yield started


@pytest.fixture(autouse=True)
def untouched(bridge: Bridge) -> Iterator[None]:
    """Hold after each test that no limit was reached and nothing is dead."""
    yield
    health = bridge.settled()
    assert {} == health["limits"], health["limits"]
    assert {} == {reason: count for reason, count in health["dead_letters"].items() if count}
    reached = [line for line in bridge.metrics().splitlines() if line.startswith("bridge_limit_reached_total{")]
    assert [] == [line for line in reached if not line.endswith(" 0.0")]
    assert "too-many" not in json.dumps(health.get("flags", {}))


def said(kind: str, user: str, number: str) -> dict[str, Any]:
    """Return what a device of a user says now, with every field."""
    when = stamp()
    body: dict[str, Any] = {"id": number, "userId": user, "isOnline": True, "lastUpdated": when}
    body["staticData"] = {"vendor": "ACME", "model": "One", "name": f"A {kind}", "lastUpdated": when}
    return body | {name: block | {"lastUpdated": when} for name, block in BLOCKS[kind].items()}


def test_a_household_with_sixty_devices(bridge: Bridge, sandbox: Sandbox) -> None:
    for kind in BLOCKS:
        many = [said(kind, "large", f"{kind}-{number}") for number in range(DEVICES // len(BLOCKS))]
        assert len(many) == bridge.take(f"{kind}.connect", many)["accepted"]
    bridge.settled()
    listed = sandbox.received("large")["devices"]["large"]
    assert DEVICES + 1 == len(listed), "the household itself is one"


def test_a_hundred_and_fifty_messages_of_one_building_at_once(bridge: Bridge, sandbox: Sandbox) -> None:
    begin = datetime.now(UTC) - timedelta(minutes=5)
    letters = [
        Letter(f"at-once-{n}", "vehicle.update", dump(vehicle("busy", "car", n / 2, begin + n * SECOND)))
        for n in range(1, ALL_AT_ONCE + 1)
    ]
    tally = send(bridge, letters)
    assert ALL_AT_ONCE == len(tally.of(202)), tally
    bridge.accepted += ALL_AT_ONCE
    bridge.settled()
    assert ALL_AT_ONCE / 2 == sandbox.received("busy")["events"][-1]["value"]


def test_two_days_of_prices_in_quarter_hours(bridge: Bridge, sandbox: Sandbox) -> None:
    first = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    static = {"name": "Power", "currency": "EUR", "lastUpdated": stamp()}
    tariff = {"id": "tariff-1", "userId": "priced", "staticData": static}
    bridge.take("tariff.connect", tariff)
    prices = [
        {
            "startDate": stamp(first + number * timedelta(minutes=15)),
            "totalPrice": 0.2 + number / 10_000,
            "energyPrice": 0.1,
            "taxPrice": 0.1,
        }
        for number in range(PRICES)
    ]
    bridge.take("tariff.price.update", {"id": "tariff-1", "userId": "priced", "prices": prices})
    bridge.settled()
    building = sandbox.received("priced")["buildings"]["priced"]
    assert PRICES == len(building["settings"]["tariff"]["dynamic"]["tariffs"])


def test_arrays_of_a_thousand_messages(bridge: Bridge, sandbox: Sandbox) -> None:
    for level in (40, 41):
        cars = [vehicle(f"home-{number}", "car", level) for number in range(HOMES)]
        assert HOMES == bridge.take("vehicle.update", cars)["accepted"]
    bridge.settled()
    assert [40, 41] == [event["value"] for event in sandbox.received(f"home-{HOMES - 1}")["events"]]


def test_an_array_of_nearly_the_largest_body(bridge: Bridge) -> None:
    cars = [vehicle(f"wide-{number}", "car", 50) for number in range(HOMES)]
    spare = LARGE - len(dump(cars))
    for car in cars:
        car["note"] = "x" * (spare // HOMES)  # a key that nobody knows yet
    assert HOMES == bridge.take("vehicle.update", cars)["accepted"]


def test_a_right_secret_from_an_address_that_sends_wrong_ones_too(bridge: Bridge) -> None:
    """Such as a proxy, or a network of which one sender has an old secret."""
    address = f"{bridge.url}/webhooks/{SUBSCRIPTION}.vehicle.update"
    wrong = dump([vehicle("nobody", "car", 1) for _ in range(20)])
    unsigned = signed(wrong) | {"webhook-signature": "v1,AAAA"}

    async def both() -> tuple[set[int], list[int]]:
        async with aiohttp.ClientSession() as http:

            async def post(body: bytes, fields: dict[str, str]) -> int:
                async with http.post(address, data=body, headers=fields) as answer:
                    return answer.status

            async def guess() -> set[int]:
                return {await post(wrong, unsigned) for _ in range(WRONG // 8)}

            async def prove() -> list[int]:
                bodies = [dump(vehicle(f"right-{number}", "car", number)) for number in range(RIGHT - 1)]
                bodies.insert(RIGHT // 2, dump([vehicle(f"right-{number}", "other", number) for number in range(300)]))
                return [await post(body, signed(body)) for body in bodies]

            *guessed, proved = await asyncio.gather(*(guess() for _ in range(8)), prove())
            return {status for found in guessed for status in found}, list(proved)

    refused, answered = asyncio.run(both())
    bridge.accepted += RIGHT - 1 + 300
    assert [202] * RIGHT == answered
    assert refused <= {401, 429}
    until(lambda: bridge.health()["ledger"]["pending"] == 0, "all worked off")
