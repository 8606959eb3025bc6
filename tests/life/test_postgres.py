"""Several daemons on one database, as real processes: servers and replicas go, the ledger stays exact."""

import json
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from tests.life.crowd import SENDERS, Letter, Tally, send
from tests.life.stage import Bridge, Process, Sandbox, assert_identities, bridged, dump, run, until, vehicle
from tests.postgres import MISSING, PASSWORD, Server, Standby, binaries, running

HOMES: Final = 40
BURST: Final = 600
FEW: Final = 100  # each may have to wait for the server
DRAIN_S: Final = 1
LEASE_S: Final = 30.0  # see bridge.store.postgres.replicas
WRONG_CLOCK: Final = """
import time
from datetime import timedelta
from bridge import cli, times
wall, seconds = times.wall, time.time
times.wall = lambda: wall() + timedelta(hours={hours})
time.time = lambda: seconds() + {hours} * 3600
cli.main()
"""


@pytest.fixture
def replicas(tmp_path: Path, sandbox: Sandbox, own: Server) -> Iterator[list[Bridge]]:
    """Run two daemons on one new database, started at the same time."""
    url = own.fresh()
    with ExitStack() as stack:
        found: list[Bridge] = []
        for number in range(2):
            folder = tmp_path / f"replica-{number}"
            folder.mkdir()
            store = {"url": url}
            found.append(stack.enter_context(bridged(folder, sandbox.url, store=store, logs={"level": "debug"})))
        starts = [threading.Thread(target=bridge.start) for bridge in found]
        for start in starts:
            start.start()
        for start in starts:
            start.join()
        yield found
        for bridge in found:
            assert PASSWORD not in bridge.text()
            assert '"level": "critical"' not in bridge.text()


def letters(name: str, count: int = BURST) -> list[Letter]:
    """Return messages of which each makes one event of its own."""
    now = datetime.now(UTC)
    bodies = [vehicle(f"{name}-user-{n % HOMES}", f"{name}-car-{n}", n % 1000 / 10, now) for n in range(count)]
    return [Letter(id=f"{name}-{n}", topic="vehicle.update", body=dump(body)) for n, body in enumerate(bodies)]


def devices(sent: Sequence[Letter]) -> set[str]:
    return {f"vehicle:{json.loads(letter.body)['id']}" for letter in sent}


def idle(bridge: Bridge, accepted: int) -> dict[str, Any]:
    """Wait until everything that was accepted is worked off and delivered."""

    def look() -> dict[str, Any] | None:
        health = bridge.health()
        done = health["ledger"]["accepted"] >= accepted and not health["ledger"]["pending"]
        return health if done and not health["calls"]["pending"] else None

    health = until(look, "everything delivered", LEASE_S + 60)
    assert_identities(health)
    return health


def persist(bridges: Sequence[Bridge], burst: Sequence[Letter]) -> int:
    """Send through all doors like a cloud that repeats what was not answered; return how many were stored."""
    stored, left = 0, {letter.id: letter for letter in burst}

    def once() -> bool:
        nonlocal stored
        for number, bridge in enumerate(bridges):
            part = list(left.values())[number :: len(bridges)]
            tally = send(bridge, part)
            for letter in tally.of(202):
                answer = json.loads(tally.answered[letter][1])
                stored += answer["accepted"]
                del left[letter]
        return not left

    until(once, "everything acknowledged")
    return stored


def checked(bridge: Bridge) -> str:
    return run("store", "check", "--config", bridge.config).stderr


def test_a_replica_that_is_killed_in_a_burst_is_taken_over(replicas: list[Bridge], sandbox: Sandbox) -> None:
    burst = letters("kill")
    parts = [burst[::2], burst[1::2]]
    tallies: list[Tally] = [Tally(), Tally()]

    def pour(number: int) -> None:
        def watch(answered: int) -> None:
            if number == 1 and answered == BURST // 5:
                assert replicas[1].process is not None
                replicas[1].process.send(signal.SIGKILL)

        tallies[number] = send(replicas[number], parts[number], answered=watch)

    pours = [threading.Thread(target=pour, args=(number,)) for number in range(2)]
    for one in pours:
        one.start()
    for one in pours:
        one.join()
    assert replicas[1].process is not None
    assert -signal.SIGKILL == replicas[1].process.ended()
    assert tallies[1].lost, "the kill hit within the burst"
    known = {letter: json.loads(text) for tally in tallies for letter, (status, text) in tally.answered.items()}
    stored = sum(answer["accepted"] for answer in known.values())
    missing = [letter for letter in burst if letter.id not in known]
    living = replicas[0]

    stored += persist([living], missing)
    assert BURST - 24 <= stored <= BURST, "only what was under way may have been stored without an answer"
    health = idle(living, BURST)
    assert (BURST, BURST) == (health["ledger"]["accepted"], health["ledger"]["settled"])
    assert set() == devices(burst) - {event["deviceId"] for event in sandbox.events()}
    assert "no problems found\n" == checked(living)


def test_a_server_that_crashes_in_a_burst_costs_nothing(replicas: list[Bridge], sandbox: Sandbox, own: Server) -> None:
    burst = letters("crash")

    def go_and_come_back() -> None:
        own.stop("immediate")
        own.start()

    crash = threading.Thread(target=go_and_come_back)

    def watch(answered: int) -> None:
        if answered == BURST // 3:
            crash.start()

    first = send(replicas[0], burst, answered=watch)
    crash.join()
    assert first.of(503), "the crash hit within the burst"
    assert not first.lost, "every sender has got an answer"
    stored = sum(json.loads(first.answered[letter][1])["accepted"] for letter in first.of(202))
    again = [letter for letter in burst if letter.id in set(first.of(503))]

    stored += persist(replicas, again)
    health = idle(replicas[1], BURST)
    assert (BURST, BURST) == (health["ledger"]["accepted"], health["ledger"]["settled"])
    assert stored + sum(duplicates(replica) for replica in replicas) >= BURST
    assert set() == devices(burst) - {event["deviceId"] for event in sandbox.events()}
    assert [0, 0] == [bridge.stop() for bridge in replicas], "they drain and end as always"
    assert "no problems found\n" == checked(replicas[0])


@pytest.mark.skipif(binaries() is None, reason=MISSING)
def test_a_failover_to_a_synchronous_standby_costs_nothing(tmp_path: Path, sandbox: Sandbox) -> None:
    burst = letters("failover")
    with running() as primary, ExitStack() as stack:
        name = primary.fresh().rpartition("=")[2]
        standby = stack.enter_context(Standby.of(primary))
        bridge = stack.enter_context(bridged(tmp_path, sandbox.url, store={"url": standby.address(name)}))
        bridge.start()

        def fail_over() -> None:
            primary.kill()
            standby.promote()

        crash = threading.Thread(target=fail_over)

        def watch(answered: int) -> None:
            if answered == BURST // 3:
                crash.start()

        first = send(bridge, burst, answered=watch)
        crash.join()
        assert first.of(503), "the crash hit within the burst"
        assert not first.lost, "every sender has got an answer"
        persist([bridge], [letter for letter in burst if letter.id in set(first.of(503))])
        health = idle(bridge, BURST)
        assert (BURST, BURST) == (health["ledger"]["accepted"], health["ledger"]["settled"])
        assert set() == devices(burst) - {event["deviceId"] for event in sandbox.events()}
        assert "no problems found\n" == checked(bridge)
        assert 0 == bridge.stop()


@pytest.mark.skipif(binaries() is None, reason=MISSING)
def test_a_synchronous_standby_that_is_killed_is_waited_for_and_holds_everything_acknowledged(
    tmp_path: Path, sandbox: Sandbox
) -> None:
    """Nothing is acknowledged without it; whoever gives up waiting for a COMMIT must not take it for done."""
    burst = letters("standby", FEW)
    with running() as primary, ExitStack() as stack:
        name = primary.fresh().rpartition("=")[2]
        standby = stack.enter_context(Standby.of(primary))
        bridge = stack.enter_context(bridged(tmp_path, sandbox.url, store={"url": standby.address(name)}))
        bridge.start()
        killed: list[int] = []

        def watch(answered: int) -> None:
            if answered == FEW // 3:
                standby.stop()
                killed.append(answered)

        first = send(bridge, burst, answered=watch)
        assert killed
        assert first.of(503), "the kill hit within the burst"
        assert not first.lost, "every sender has got an answer"
        on_the_wire = SENDERS - 1  # may have been committed on both when the standby went, and answered after that
        assert len(first.of(202)) <= killed[0] + on_the_wire, "nothing is acknowledged that the standby does not have"
        standby.start()
        persist([bridge], [letter for letter in burst if letter.id in set(first.of(503))])
        primary.kill()
        standby.promote()
        health = idle(bridge, FEW)
        assert (FEW, FEW) == (health["ledger"]["accepted"], health["ledger"]["settled"]), (
            "nothing was acknowledged that the standby does not have"
        )
        assert set() == devices(burst) - {event["deviceId"] for event in sandbox.events()}
        assert "no problems found\n" == checked(bridge)
        assert 0 == bridge.stop()


@pytest.mark.parametrize("hours", [1, -1])
def test_a_daemon_on_a_machine_with_a_wrong_clock_goes_by_the_database_s(
    tmp_path: Path, sandbox: Sandbox, own: Server, hours: int
) -> None:
    """By its own no signature would be good, and a quarter hour would be closed before its time or an hour late."""
    with bridged(tmp_path, sandbox.url, store={"url": own.fresh()}) as bridge:
        bridge.start(program=("-c", WRONG_CLOCK.format(hours=hours)))
        now = datetime.now(UTC)
        assert 202 == bridge.post("vehicle.update", vehicle("user", "car", 50, now)).status_code
        until(sandbox.events, "the event is delivered")
        (told,) = json.loads(run("explain", 1, "--json", "--config", bridge.config).stdout)
        assert abs(datetime.fromisoformat(told["received"]) - now) < timedelta(seconds=30)
        until(lambda: '"clock_differs"' in bridge.text(), "the wrong clock is told")
        assert 0 == bridge.stop()


def duplicates(bridge: Bridge) -> int:
    """Return how many repeats a replica has recognised."""
    line = next(line for line in bridge.metrics().splitlines() if line.startswith("bridge_messages_duplicate_total"))
    return int(float(line.split()[-1]))


def test_told_to_end_while_the_database_hangs_it_answers_and_ends_in_time(
    tmp_path: Path, sandbox: Sandbox, own: Server
) -> None:
    url = own.fresh()
    name = url.rpartition("=")[2]
    waits = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'moost-bridge' AND wait_event_type = 'Lock'"
    with bridged(tmp_path, sandbox.url, store={"url": url}, server={"drain_timeout": f"{DRAIN_S}s"}) as bridge:
        bridge.start()
        lock = "LOCK TABLE inbox, lane, building IN ACCESS EXCLUSIVE MODE"
        with ThreadPoolExecutor() as pool, own.holding(lock, schema=name):
            answer = pool.submit(bridge.post, "vehicle.update", vehicle("user", "car", 50))
            until(lambda: own.execute(waits)[0][0] > 1, "the door waits, and a room")
            began = time.monotonic()
            assert 0 == bridge.stop()
            took = time.monotonic() - began
    assert 503 == answer.result().status_code
    assert took < DRAIN_S + 2, "whatever waits is given up"
    assert "Traceback" not in bridge.text()


def test_told_to_end_while_the_database_is_away_it_ends_in_order(tmp_path: Path, sandbox: Sandbox, own: Server) -> None:
    with bridged(tmp_path, sandbox.url, store={"url": own.fresh()}) as bridge:
        bridge.start()
        own.stop("immediate")
        try:
            assert 0 == bridge.stop()
        finally:
            own.start()
    assert '"drained"' in bridge.text()
    assert "Traceback" not in bridge.text()


def test_check_online_says_what_is_wrong_with_a_database(tmp_path: Path, sandbox: Sandbox, own: Server) -> None:
    with bridged(tmp_path, sandbox.url, store={"url": own.fresh()}) as bridge:
        good = run("check", "--online", "--config", bridge.configure())
        wrong = own.fresh().replace(PASSWORD, "canary-wrong-9b")
        bad = run("check", "--online", "--config", bridge.configure(store={"url": wrong}))
    assert (0, "") == (good.returncode, good.stderr)
    sentence = "store.url: the server refuses user or password (28P01)\n"
    assert (2, sentence) == (bad.returncode, bad.stderr)


def test_without_the_driver_a_sentence_says_what_to_install(tmp_path: Path) -> None:
    with bridged(tmp_path, "http://127.0.0.1:9", store={"url": "postgresql://bridge:pw@127.0.0.1:1/bridge"}) as bridge:
        missing = "import sys; sys.modules['asyncpg'] = None; from bridge.cli import main; main()"
        process = Process(("serve", "--config", str(bridge.configure())), tmp_path / "log", ("-c", missing))
        process.start()
        assert 2 == process.ended()
    assert (
        "needs the package asyncpg, which is not installed: the bridge's requirements.lock names it" in process.text()
    )
    assert "Traceback" not in process.text()
