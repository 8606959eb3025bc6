"""kill -9 with calls on the wire: what is in doubt (R3) is known, counted, explained, resolved as the operator says."""

import json
from datetime import UTC, datetime
from typing import Any, Final

import pytest

from tests.life.stage import Bridge, Sandbox, assert_identities, run, until, vehicle

HOMES: Final = 4  # as many calls as the sender makes at first
LANES: Final = {"resend": ["live", "live"], "historical": ["live", "historical"], "hold": ["live"]}


def calls_of(bridge: Bridge, message: int) -> list[dict[str, Any]]:
    """Return what `explain` says of the calls of a message."""
    done = run("explain", message, "--json", "--config", bridge.config)
    assert 0 == done.returncode, done.stderr
    return list(json.loads(done.stdout)[0]["calls"])


@pytest.mark.parametrize("policy", sorted(LANES))
def test_what_was_on_the_wire_at_a_kill_is_resolved_as_the_operator_says(
    policy: str, bridge: Bridge, sandbox: Sandbox
) -> None:
    bridge.configure(moost={"on_lost_reply": policy, "timeout": "30s"})
    bridge.start()
    users = [f"user-{number}" for number in range(HOMES)]
    for user in users:
        bridge.take("vehicle.update", vehicle(user, "car", 10))
    before = bridge.settled()["calls"]
    sandbox.faults({"kind": "latency", "seconds": 4, "path": "/events", "times": HOMES})
    cars = [vehicle(user, "car", 20, datetime.now(UTC)) for user in users]
    messages = [bridge.take("vehicle.update", car)["ids"][0] for car in cars]
    until(lambda: sandbox.fired() == HOMES, "all are on the wire")
    bridge.kill()

    for message in messages:
        [call] = calls_of(bridge, message)
        assert ("in doubt", []) == (call["state"], call["attempts"]), "marked before it was sent"
    until(lambda: sandbox.counts()["events"]["live"] == 2 * HOMES, "MOOST had taken them")
    bridge.start()
    health = bridge.settled()
    assert_identities(health)
    assert before["in_doubt"] + HOMES == health["calls"]["in_doubt"]
    assert ({"in-doubt": HOMES} if policy == "hold" else {}) == health["dead_letters"]
    for user, message in zip(users, messages, strict=True):
        events = [event for event in sandbox.received(user)["events"] if event["value"] == 20]
        assert LANES[policy] == [event["lane"] for event in events]
        said = [
            {name: event[name] for name in event if name not in ("lane", "received_at", "index")} for event in events
        ]
        assert all(each == said[0] for each in said), "a repeat is identical"
        [call] = calls_of(bridge, message)
        last = {"resend": "201", "historical": "200", "hold": "in-doubt"}[policy]
        assert ["lost reply", last] == [attempt["outcome"] for attempt in call["attempts"]]
        assert ("dead" if policy == "hold" else "delivered") == call["state"]
    assert {} == sandbox.counts()["violations"]
    assert 0 == run("store", "check", "--config", bridge.config).returncode
