"""Dead letters as work: 10,000 of them beside a running daemon, and the lane that a retried event takes."""

import os
import pty
import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import Final

from tests.life.stage import Bridge, Sandbox, assert_identities, environ, run, until, vehicle

MANY: Final = 10_000
PAGE: Final = 1_000  # messages of one request
STEP: Final = 100  # letters of one transaction
AGE_S: Final = 3.0


class OnTerminal:
    """A command whose stderr is a terminal."""

    def __init__(self, *words: object) -> None:
        self._terminal, inner = pty.openpty()
        command = [sys.executable, "-m", "bridge", *map(str, words)]
        self._popen = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=inner, env=environ(TERM="xterm")
        )
        os.close(inner)
        self._shown = bytearray()
        os.set_blocking(self._terminal, False)

    def running(self) -> bool:
        """Take what it has shown since; tell whether it runs."""
        try:
            while piece := os.read(self._terminal, 65_536):
                self._shown += piece
        except (BlockingIOError, OSError):  # an end of the terminal is an error on Linux
            pass
        return self._popen.poll() is None

    def ended(self) -> tuple[int, str]:
        """Return its exit code and everything that it showed."""
        until(lambda: not self.running(), "it ends")
        self.running()
        os.close(self._terminal)
        return int(self._popen.returncode), self._shown.decode()


def test_ten_thousand_letters_are_retried_and_discarded_beside_a_daemon(bridge: Bridge) -> None:
    bridge.start()
    for start in range(0, MANY, PAGE):
        bridge.take("vehicle.update", list(range(start, start + PAGE)))
    assert {"unreadable": MANY} == bridge.settled()["dead_letters"]

    again = OnTerminal("dead-letters", "retry", "--all", "--config", bridge.config)
    accepted = 0
    while again.running():
        bridge.take("vehicle.update", vehicle("user-1", "car", accepted % 100))
        accepted += 1
    code, shown = again.ended()
    assert 0 == code, shown
    assert f"retry: {MANY} dead letters" in shown
    assert "100%" in shown
    assert accepted > 0, "accepts were answered meanwhile"
    health = bridge.settled()
    assert {"unreadable": MANY} == health["dead_letters"], "they are as unreadable as before, and none came twice"
    assert_identities(health)

    away = OnTerminal("dead-letters", "discard", "--reason", "unreadable", "--config", bridge.config)
    seen = {MANY}
    while away.running():
        seen.add(bridge.health()["ledger"]["dead"])
    code, shown = away.ended()
    assert (0, True) == (code, f"discard: {MANY} dead letters" in shown)
    until(lambda: not bridge.health()["dead_letters"], "they are gone; a report may be half a second old")
    health = bridge.settled()
    assert MANY == health["ledger"]["discarded"]
    assert {0} == {count % STEP for count in seen}, "in whole steps, whenever one looks"
    assert (0, "no problems found\n") == _check(bridge)


def _check(bridge: Bridge) -> tuple[int, str]:
    done = run("store", "check", "--config", bridge.config)
    return done.returncode, done.stderr


def test_a_retried_event_that_has_become_old_takes_the_historical_lane(bridge: Bridge, sandbox: Sandbox) -> None:
    bridge.configure(moost={"live_max_age": f"{AGE_S:.0f}s"})
    bridge.start()
    bridge.take("vehicle.update", vehicle("user-1", "car", 10))
    bridge.settled()
    sandbox.faults({"kind": "status", "status": 400, "path": "/events", "body": '"value":20[,.}]'})
    born = time.monotonic()
    message = bridge.take("vehicle.update", vehicle("user-1", "car", 20, datetime.now(UTC)))["ids"][0]
    assert {"rejected": 1} == bridge.settled()["dead_letters"]
    listed = run("dead-letters", "list", "--json", "--config", bridge.config).stdout
    number = int(re.findall(r'"id": (\d+)', listed)[0])
    shown = run("dead-letters", "show", number, "--config", bridge.config).stdout
    assert '"value":20' in shown.replace(" ", ""), "the call"
    assert "answer" in shown, "what MOOST said"
    sandbox.faults()
    until(lambda: time.monotonic() - born > AGE_S, "it has become old")
    assert 0 == run("dead-letters", "retry", number, "--config", bridge.config).returncode
    health = bridge.settled()
    until(lambda: len(sandbox.events()) == 2, "it has arrived")
    assert [("live", 10), ("historical", 20)] == [(event["lane"], event["value"]) for event in sandbox.events()]
    assert {} == health["dead_letters"]
    explained = run("explain", message, "--config", bridge.config).stdout
    assert "refused 400" in explained
    assert "retried" in explained
