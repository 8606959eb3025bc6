"""MOOST down, slow, confused or unwilling: nothing is lost, order holds, deliveries resume (R3, R4, R6, R7)."""

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from tests.life.crowd import Letter, send
from tests.life.stage import Bridge, Sandbox, bridged, dump, run, sandboxed, until, vehicle

BACK_S: Final = 10.0  # deliveries flow so soon after MOOST answers again
HOMES: Final = 20
CARS: Final = 10  # updates of each home's car
HOUR: Final = timedelta(hours=1)


def updates(street: str) -> list[Letter]:
    """Return the updates of the homes of a street, mixed; in each home they count upwards."""
    start = datetime.now(UTC) - timedelta(seconds=CARS)
    return [
        Letter(
            id=f"{street}-{home}-{number}",
            topic="vehicle.update",
            body=dump(vehicle(f"{street}-{home}", "car", number, start + timedelta(seconds=number))),
        )
        for number in range(CARS)
        for home in range(HOMES)
    ]


def posted(bridge: Bridge, letters: Sequence[Letter]) -> None:
    """Post letters in the order in which they are; each home's updates keep theirs."""
    for start in range(0, len(letters), HOMES):
        tally = send(bridge, letters[start : start + HOMES])
        assert HOMES == len(tally.of(202))
        bridge.accepted += HOMES


def by_home(events: Sequence[dict[str, Any]], street: str) -> dict[str, list[float]]:
    """Return the values that each building of a street got, in order of arrival."""
    found: dict[str, list[float]] = {}
    for event in events:
        if event["customerBuildingId"].startswith(f"{street}-"):
            found.setdefault(event["customerBuildingId"], []).append(event["value"])
    return found


def in_order(street: str, first: int = 0) -> dict[str, list[float]]:
    """Return what each building of a street should get."""
    return {f"{street}-{home}": [float(number) for number in range(first, CARS)] for home in range(HOMES)}


def without_repeats(values: Sequence[float]) -> list[float]:
    """Return values without those that repeat their predecessor: at least once is the promise."""
    return [value for place, value in enumerate(values) if place == 0 or value != values[place - 1]]


# ---- down and up again ----------------------------------------------------------------------------------------------


def test_deliveries_flow_soon_after_moost_is_back(bridge: Bridge, sandbox: Sandbox) -> None:
    bridge.start()
    letters = updates("home")
    posted(bridge, letters[:HOMES])
    bridge.settled()
    sandbox.kill()
    posted(bridge, letters[HOMES:])
    health = bridge.settled(owed=True)
    assert HOMES * (CARS - 1) == health["calls"]["pending"]
    until(lambda: bridge.health()["moost"]["circuit"] == "open", "the circuit opens")
    assert bridge.ready(), "trouble with MOOST never fails readiness"
    assert "degraded" == bridge.health()["status"]
    sandbox.start()
    began = time.monotonic()
    until(sandbox.events, "the first delivery")
    assert time.monotonic() - began < BACK_S
    assert 0 == bridge.settled()["calls"]["dead"]
    # The look-alike lost its buildings with its life: a 400 makes the bridge send building and list again, once.
    assert in_order("home", first=1) == by_home(sandbox.events(), "home")
    assert {} == sandbox.counts()["violations"]
    assert ([], "closed") == (bridge.health()["problems"], bridge.health()["moost"]["circuit"])


# ---- faults with a life of their own --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bridge, Sandbox]]:
    folder = tmp_path_factory.mktemp("outages")
    with sandboxed(folder) as sandbox, bridged(folder, sandbox.url, moost={"timeout": "1s"}) as bridge:
        bridge.start()
        yield bridge, sandbox


@pytest.fixture
def shared(running: tuple[Bridge, Sandbox]) -> Iterator[tuple[Bridge, Sandbox]]:
    """Return daemon and look-alike, without faults before and after the test."""
    bridge, sandbox = running
    bridge.settled()
    yield bridge, sandbox
    sandbox.faults()


FAULTS: Final[dict[str, list[dict[str, object]]]] = {
    "500 now and then": [{"kind": "status", "status": 500, "path": "/events", "times": 40, "probability": 0.5}],
    "503 with Retry-After": [{"kind": "status", "status": 503, "retry_after": 1, "path": "/events", "times": 3}],
    "429 with a time": [{"kind": "status", "status": 429, "retry_after": 1, "path": "/events", "times": 2}],
    "429 with a date": [
        {"kind": "status", "status": 429, "retry_after": 1, "as_date": True, "path": "/events", "times": 2}
    ],
    "429 without a time": [{"kind": "status", "status": 429, "path": "/events", "times": 2}],
    "tokens revoked under load": [{"kind": "revoke_tokens", "probability": 0.1, "times": 6}],
    "tokens that live for 2 s": [{"kind": "revoke_tokens", "times": 1}, {"kind": "expires_in", "expires_in": 2}],
    "no token for a while": [
        {"kind": "revoke_tokens", "times": 1},
        {"kind": "status", "status": 500, "path": "/auth", "times": 2},
    ],
    "an outage window": [{"kind": "outage", "starts_in": 0.0, "lasts": 1.5}],
    "an unknown building": [{"kind": "status", "status": 400, "path": "/events", "body": '"value":5[,.}]', "times": 1}],
}


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_what_passes_costs_no_event_and_keeps_the_order(name: str, shared: tuple[Bridge, Sandbox]) -> None:
    bridge, sandbox = shared
    street = name.replace(" ", "-")
    before = bridge.health()["calls"]
    sandbox.faults(*FAULTS[name])
    posted(bridge, updates(street))
    until(sandbox.fired, "the fault fires")
    calls = bridge.settled()["calls"]
    assert before["dead"] == calls["dead"]
    events = by_home(sandbox.events(), street)
    if "outage" in name:  # what was on the wire when it began may arrive twice
        events = {home: without_repeats(values) for home, values in events.items()}
    else:
        assert before["in_doubt"] == calls["in_doubt"]
    assert in_order(street) == events
    assert {} == sandbox.counts()["violations"]


def test_refused_credentials_pause_the_sender_and_it_resumes_by_itself(shared: tuple[Bridge, Sandbox]) -> None:
    bridge, sandbox = shared
    dead = bridge.health()["calls"]["dead"]
    sandbox.faults({"kind": "revoke_tokens"}, {"kind": "status", "status": 401})
    posted(bridge, updates("paused"))
    until(lambda: "moost_auth" in bridge.health()["problems"], "health names it")
    assert bridge.ready()
    health = bridge.settled(owed=True)
    assert ("degraded", dead) == (health["status"], health["calls"]["dead"])
    assert {} == by_home(sandbox.events(), "paused")
    sandbox.faults()
    health = bridge.settled()
    assert in_order("paused") == by_home(sandbox.events(), "paused")
    assert ([], dead) == (health["problems"], health["calls"]["dead"])


def test_a_refused_building_does_not_delay_the_others(shared: tuple[Bridge, Sandbox]) -> None:
    bridge, sandbox = shared
    sandbox.faults({"kind": "status", "status": 500, "building": "^slow-0$"})
    posted(bridge, updates("slow"))
    others = {home: values for home, values in in_order("slow").items() if home != "slow-0"}
    until(lambda: others == by_home(sandbox.events(), "slow"), "all the others")
    health = bridge.settled(owed=True)
    assert "closed" == health["moost"]["circuit"], "one building is not the platform"
    assert CARS + 2 == health["calls"]["pending"], "building, list and events, in their order"
    sandbox.faults()
    bridge.settled()
    assert in_order("slow") == by_home(sandbox.events(), "slow")


# ---- the historical lane --------------------------------------------------------------------------------------------


def test_old_events_leave_in_arrays_on_the_historical_lane(shared: tuple[Bridge, Sandbox]) -> None:
    bridge, sandbox = shared
    cars = [vehicle("user-old", f"car-{number}", number, datetime.now(UTC) - HOUR) for number in range(50)]
    bridge.take("vehicle.update", cars)
    bridge.settled()
    received = sandbox.received("user-old")
    assert [float(number) for number in range(50)] == [event["value"] for event in received["events"]]
    assert {"historical"} == {event["lane"] for event in received["events"]}
    arrays = [call for call in received["calls"] if call["path"] == "/events/historical/v1"]
    assert len(arrays) <= 3, "not one call per event"


def test_a_partial_write_is_repeated_until_all_is_written(shared: tuple[Bridge, Sandbox]) -> None:
    bridge, sandbox = shared
    sandbox.faults({"kind": "partial", "keep": 2, "times": 3})
    cars = [vehicle("user-partial", f"car-{number}", number, datetime.now(UTC) - HOUR) for number in range(20)]
    bridge.take("vehicle.update", cars)
    until(lambda: sandbox.fired() == 3, "three partial writes")
    health = bridge.settled()
    events = sandbox.received("user-partial")["events"]
    assert set(range(20)) == {int(event["value"]) for event in events}
    payloads = {(event["deviceId"], event["value"], event["timestamp"]) for event in events}
    assert 20 == len(payloads), "a repeat is identical"
    assert health["calls"]["in_doubt"] > 0


def test_one_bad_event_of_a_hundred_takes_no_other_along(shared: tuple[Bridge, Sandbox]) -> None:
    bridge, sandbox = shared
    before = bridge.settled()["dead_letters"].get("rejected", 0)
    sandbox.faults(
        {"kind": "status", "status": 400, "path": "/events/historical", "body": '"vehicle:car-42-of-user-hundred"'}
    )
    cars = [vehicle("user-hundred", f"car-{number}", number % 90, datetime.now(UTC) - HOUR) for number in range(100)]
    bridge.take("vehicle.update", cars)
    health = bridge.settled()
    assert before + 1 == health["dead_letters"]["rejected"]
    arrived = [event["deviceId"] for event in sandbox.received("user-hundred")["events"]]
    assert [f"vehicle:car-{number}-of-user-hundred" for number in range(100) if number != 42] == arrived


# ---- lost replies ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("close", ["close_before", "close_after"])
@pytest.mark.parametrize("policy", ["resend", "historical", "hold"])
def test_a_lost_reply_is_resolved_as_the_operator_says(
    policy: str, close: str, bridge: Bridge, sandbox: Sandbox
) -> None:
    bridge.configure(moost={"on_lost_reply": policy})
    bridge.start()
    bridge.take("vehicle.update", vehicle("user-1", "car", 10))
    bridge.settled()
    sandbox.faults({"kind": close, "path": "/events", "times": 1})
    bridge.take("vehicle.update", vehicle("user-1", "car", 20))
    until(sandbox.fired, "the reply is lost")
    bridge.take("vehicle.update", vehicle("user-1", "car", 30))
    health = bridge.settled()
    assert 1 == health["calls"]["in_doubt"]
    again = {"resend": ["live"], "historical": ["historical"], "hold": []}[policy]
    stored = ["live"] if close == "close_after" else []
    assert [("live", 10), *((lane, 20) for lane in (*stored, *again)), ("live", 30)] == [
        (event["lane"], event["value"]) for event in sandbox.events()
    ]
    assert ({"in-doubt": 1} if policy == "hold" else {}) == health["dead_letters"]
    repeated = [
        {name: event[name] for name in event if name not in ("lane", "received_at", "index")}
        for event in sandbox.events()
        if event["value"] == 20
    ]
    assert all(repeated[0] == event for event in repeated)
    if policy == "hold":
        assert 0 == run("dead-letters", "retry", "--reason", "in-doubt", "--config", bridge.config).returncode
        until(lambda: [20] == [event["value"] for event in sandbox.events()[-1:]], "the operator has decided")


def test_a_lost_reply_about_a_whole_state_is_repeated_whatever_the_policy(bridge: Bridge, sandbox: Sandbox) -> None:
    bridge.configure(moost={"on_lost_reply": "hold"})
    bridge.start()
    sandbox.faults({"kind": "close_after", "path": "/buildings", "times": 3})
    bridge.take("vehicle.update", vehicle("user-1", "car", 10))
    until(lambda: sandbox.fired() == 3, "the replies are lost")
    health = bridge.settled()
    assert {} == health["dead_letters"]
    assert [10] == [event["value"] for event in sandbox.events()]
