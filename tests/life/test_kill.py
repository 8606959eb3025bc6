"""kill -9 in the middle of a burst: what was acknowledged is delivered or a dead letter (R2, R11)."""

import json
import os
import signal
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from tests.life.crowd import Letter, Tally, send
from tests.life.stage import Bridge, Sandbox, dump, run, until, vehicle

BURST: Final = 2_000
KILL_AT: Final = 900  # answers
HOMES: Final = 100
BROKEN_EVERY: Final = 50
MOST_TWICE: Final = 32  # moost.max_concurrency: only calls on the wire at the kill may arrive twice


def burst() -> Iterator[Letter]:
    """Yield messages of which each makes an event of its own, or is a dead letter."""
    now = datetime.now(UTC)
    for number in range(BURST):
        body = dump(vehicle(f"user-{number % HOMES}", f"car-{number}", number % 1000 / 10, now))
        broken = number % BROKEN_EVERY == 0
        yield Letter(id=f"burst-{number}", topic="vehicle.update", body=body[:-9] if broken else body)


BROKEN: Final = {f"burst-{number}" for number in range(0, BURST, BROKEN_EVERY)}


def device(letter: str) -> str:
    number = int(letter.removeprefix("burst-"))
    return f"vehicle:car-{number}-of-user-{number % HOMES}"


def kill_after(bridge: Bridge, letters: Sequence[Letter], count: int) -> Tally:
    """Send letters; kill the daemon once so many messages are answered."""
    assert bridge.process is not None
    assert bridge.process.popen is not None
    number = bridge.process.popen.pid

    def watch(answered: int) -> None:
        if answered == count:
            os.kill(number, signal.SIGKILL)

    tally = send(bridge, letters, answered=watch)
    assert -signal.SIGKILL == bridge.process.ended()
    return tally


def test_no_acknowledged_message_is_lost_by_a_kill_in_the_middle_of_a_burst(bridge: Bridge, sandbox: Sandbox) -> None:
    letters = list(burst())
    bridge.start()
    first = kill_after(bridge, letters, KILL_AT)
    taken = first.of(202)
    assert KILL_AT <= len(taken) < BURST, "the kill hit within the burst"
    assert first.lost, "some were under way or never sent"
    owed = len(set(taken) - BROKEN) - sandbox.counts()["events"]["live"]
    assert owed > 0, "some were still owed at the kill"

    bridge.start()
    bridge.accepted = len(taken)
    health = bridge.settled()
    arrived = {event["deviceId"] for event in sandbox.events()}
    assert set() == {device(letter) for letter in taken if letter not in BROKEN} - arrived
    assert health["dead_letters"].get("unreadable", 0) >= len(set(taken) & BROKEN)

    # A real cloud sends again what was not answered, under the same ids.
    again = send(bridge, (letter for letter in letters if letter.id in set(first.lost)))
    assert len(first.lost) == len(again.of(202))
    accepted = sum(json.loads(text)["accepted"] for _, text in (*first.answered.values(), *again.answered.values()))
    duplicates = sum(json.loads(text)["duplicates"] for _, text in again.answered.values())
    assert BURST == accepted + duplicates
    bridge.accepted = BURST
    health = bridge.settled()
    assert BURST == health["ledger"]["accepted"], "stored but not answered is recognised when it comes again"
    assert {"unreadable": len(BROKEN)} == health["dead_letters"]
    assert BURST - len(BROKEN) == health["ledger"]["settled"]

    events = sandbox.events()
    assert {device(letter.id) for letter in letters if letter.id not in BROKEN} == {
        event["deviceId"] for event in events
    }
    twice = len(events) - (BURST - len(BROKEN))
    assert 0 <= twice <= MOST_TWICE
    assert {} == sandbox.counts()["violations"]

    bridge.take("vehicle.update", vehicle("user-fresh", "car-fresh", 12.5))
    until(lambda: sandbox.received("user-fresh")["events"], "a fresh message passes")
    checked = run("store", "check", "--config", bridge.config)
    assert (0, "no problems found\n") == (checked.returncode, checked.stderr)


def test_the_counts_survive_a_kill(bridge: Bridge, sandbox: Sandbox) -> None:
    bridge.start()
    for number in range(20):
        bridge.take("vehicle.update", vehicle("user-1", "car-1", number))
    bridge.take("vehicle.update", b"{")
    before = bridge.settled()
    bridge.kill()
    bridge.start()
    after = bridge.health()
    assert (before["ledger"], before["calls"], before["dead_letters"]) == (
        after["ledger"],
        after["calls"],
        after["dead_letters"],
    )
    assert 20 == len(sandbox.events())
