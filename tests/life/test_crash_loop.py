"""A message that ends the process, as one does that needs more memory than there is: it takes nobody along."""

import signal
from typing import Any, Final

import pytest

from tests.life.stage import Bridge, Sandbox, run, until, vehicle

POISON: Final = "poison"

MORTAL: Final = f"""
import os, signal
from bridge import cli
from bridge.worker import room

read = room.read

def mortal(row, rules):
    if b"{POISON}" in row.body:
        os.kill(os.getpid(), signal.SIGKILL)  # as the system does when there is no memory left
    return read(row, rules)

room.read = mortal
cli.main()
"""


def poison() -> dict[str, Any]:
    return {**vehicle("user-9", "car-9", 50), "padding": POISON}


def ends(bridge: Bridge) -> None:
    assert bridge.process is not None
    assert -signal.SIGKILL == bridge.process.ended()


@pytest.mark.parametrize("backlog", [10, 600])
def test_a_message_that_ends_the_process_is_a_dead_letter_at_the_third_start(
    bridge: Bridge, sandbox: Sandbox, backlog: int
) -> None:
    bridge.start("--rooms", "receiver")
    half = [vehicle("user-1", "car-1", 20 + number % 60) for number in range(backlog // 2)]
    bridge.take("vehicle.update", half)
    bridge.take("vehicle.update", poison())
    bridge.take("vehicle.update", [vehicle("user-2", f"car-{number % 100}", 50) for number in range(backlog // 2)])
    assert 0 == bridge.stop()

    bridge.launch(program=("-c", MORTAL))
    ends(bridge)
    bridge.launch(program=("-c", MORTAL))
    until(lambda: bridge.post("vehicle.update", vehicle("user-3", "car-3", 51)).status_code == 202, "the door is open")
    ends(bridge)
    bridge.start(program=("-c", MORTAL))
    health = bridge.settled()
    assert {"fault": 1} == health["dead_letters"]
    assert (1, bridge.accepted - 1) == (health["ledger"]["dead"], health["ledger"]["settled"])
    listed = run("dead-letters", "list", "--config", bridge.config)
    assert "the process ended twice with this message in hand" in listed.stdout
    told = [event["value"] for event in sandbox.events() if event["deviceId"] == "vehicle:car-1-of-user-1"]
    levels = [float(message["chargeState"]["stateOfCharge"]) for message in half]
    assert told, "the others are delivered"
    assert [level for level in levels if level in told][-1] == told[-1], "in their order"


def test_a_message_that_happened_to_be_in_hand_at_two_kills_is_no_letter(bridge: Bridge) -> None:
    """Somebody kills the process whenever a certain message is in hand, but the message is not why."""
    bridge.start("--dry-run", "--rooms", "receiver")
    bridge.take("vehicle.update", [*[vehicle("user-1", f"car-{number}", 50) for number in range(20)], poison()])
    assert 0 == bridge.stop()
    for _ in range(2):
        bridge.launch("--dry-run", program=("-c", MORTAL))
        ends(bridge)
    bridge.start("--dry-run")
    health = bridge.settled(owed=True)
    assert {} == health["dead_letters"]
    assert 21 == health["ledger"]["settled"]
    assert "one_by_one_ended" in bridge.text()
