"""`bridge forget` beside a running daemon: no trace of a household is left in the files, the others notice nothing."""

import json
import threading
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

from tests.life.stage import Bridge, Sandbox, assert_identities, run, until, vehicle

VIN: Final = "CANARYVIN00000042"
STREET: Final = "Canary Street"
USER: Final = "canary-user"
TRACES: Final = (USER, VIN, STREET, "52.279112", "car-of-canary")


def canary(level: float, at: datetime) -> dict[str, Any]:
    """Return a message with everything that names a household."""
    car = vehicle(USER, "car", level, at)
    car["staticData"] |= {"vin": VIN, "name": f"{VIN} of {USER}"}
    return car | {
        "id": "car-of-canary",
        "location": {"latitude": 52.279112, "longitude": 8.047179, "lastUpdated": car["lastUpdated"]},
        "address": {"street": STREET},
    }


def traces(bridge: Bridge) -> dict[str, list[str]]:
    """Return which traces stand in which file of the store."""
    files = sorted(bridge.folder.glob("bridge.db*"))
    assert {"bridge.db", "bridge.db-wal", "bridge.db-reserve"} <= {file.name for file in files}
    found = {file.name: [word for word in TRACES if word.encode() in file.read_bytes()] for file in files}
    return {name: words for name, words in found.items() if words}


class Neighbour(threading.Thread):
    """Somebody else, whose messages come all the time."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__()
        self._bridge = bridge
        self._leaves = threading.Event()
        self.accepted = 0

    def run(self) -> None:
        """Post until told to stop."""
        while not self._leaves.is_set():
            self._bridge.take("vehicle.update", vehicle("neighbour", "car", self.accepted % 100))
            self.accepted += 1

    def __enter__(self) -> Self:
        """Begin."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._leaves.set()
        self.join()


def test_a_household_is_erased_beside_a_running_daemon(bridge: Bridge, sandbox: Sandbox) -> None:
    bridge.configure(logs={"level": "debug"})
    bridge.start()
    begin = datetime.now(UTC) - timedelta(seconds=400)
    sandbox.faults({"kind": "status", "status": 400, "building": f"^{USER}$", "body": '"value":7[,.}]'})
    bridge.take("vehicle.update", [canary(level, begin + timedelta(seconds=level)) for level in range(20)])
    bridge.take("vehicle.update", b'{"userId": "%s", "vin": "%s"' % (USER.encode(), VIN.encode()))
    health = bridge.settled()
    assert {"rejected": 1, "unreadable": 1} == health["dead_letters"]
    sandbox.faults({"kind": "latency", "seconds": 2, "path": "/events", "building": f"^{USER}$"})
    cars = [canary(level % 100, begin + timedelta(seconds=20 + level)) for level in range(300)]
    bridge.take("vehicle.update", cars)
    until(lambda: sandbox.fired() >= 1, "a call is on the wire")
    assert traces(bridge)
    before = bridge.health()
    with Neighbour(bridge) as neighbour:
        until(lambda: neighbour.accepted >= 5, "the neighbour is there")
        began = neighbour.accepted
        done = run("forget", USER, "--json", "--config", bridge.config)
        assert {} == traces(bridge)
        during = neighbour.accepted
    assert 0 == done.returncode, done.stderr
    [erased] = json.loads(done.stdout)
    assert (321, 1, True) == (erased["messages"], erased["buildings"], erased["file_rewritten"])
    assert done.stderr.startswith("forget: 321 messages, ")
    assert during > began, "accepts were answered meanwhile"

    sandbox.faults()
    after = bridge.settled()
    assert (321, {}) == (after["ledger"]["erased"], after["dead_letters"])
    assert after["calls"]["discarded"] > before["calls"]["discarded"] + 200
    assert neighbour.accepted == len(sandbox.received("neighbour")["events"])
    bridge.kill()
    bridge.start()
    assert_identities(bridge.settled())
    assert {} == traces(bridge)
    assert (0, "no problems found\n") == _said("store", "check", "--config", bridge.config)
    assert (2, f"there is no user '{USER}' in this store\n") == _said("forget", USER, "--config", bridge.config)
    assert 2 == run("explain", 1, "--config", bridge.config).returncode
    assert not [word for word in TRACES if word in bridge.text()]

    bridge.take("vehicle.update", canary(33, datetime.now(UTC)))
    bridge.settled()
    assert 33 == sandbox.received(USER)["events"][-1]["value"], "what comes later is new"


def _said(*words: object) -> tuple[int, str]:
    done = run(*words)
    return done.returncode, done.stderr


def test_what_waits_is_erased_without_a_daemon(bridge: Bridge) -> None:
    bridge.start("--rooms", "receiver")
    bridge.take("vehicle.update", [canary(level, datetime.now(UTC)) for level in range(150)])
    bridge.take("vehicle.update", vehicle("neighbour", "car", 1))
    assert 0 == bridge.stop()
    assert (0, 151) == (run("forget", USER, "--config", bridge.config).returncode, bridge.accepted)
    assert not [word for word in TRACES if word.encode() in bridge.store.read_bytes()]
    bridge.start()
    health = bridge.settled()
    assert (150, 1) == (health["ledger"]["erased"], health["ledger"]["settled"])
