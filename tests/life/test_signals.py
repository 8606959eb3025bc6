"""Starting, stopping, reloading (R10): exit codes, the drain, and what a daemon refuses to start on."""

import contextlib
import http.client
import json
import signal
import socket
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import pytest

from tests.life.stage import (
    ADMIN,
    SECRET,
    SUBSCRIPTION,
    Bridge,
    Process,
    Sandbox,
    ask,
    bridged,
    dump,
    run,
    signed,
    until,
    vehicle,
)

OTHER_SECRET: Final = "whsec_" + "bmV3LXNlY3JldC1hZnRlci10aGUtcm90YXRpb24="
UPDATE: Final = f"/webhooks/{SUBSCRIPTION}.vehicle.update"


@contextlib.contextmanager
def connected(bridge: Bridge) -> Iterator[http.client.HTTPConnection]:
    place = urlsplit(bridge.url)
    with contextlib.closing(http.client.HTTPConnection(str(place.hostname), place.port, timeout=30)) as open_:
        yield open_


@contextlib.contextmanager
def half_sent(bridge: Bridge, body: bytes) -> Iterator[http.client.HTTPConnection]:
    """Send a request but for the second half of its body."""
    with connected(bridge) as open_:
        open_.putrequest("POST", UPDATE)
        for name, value in {**signed(body), "content-length": str(len(body))}.items():
            open_.putheader(name, value)
        open_.endheaders(body[: len(body) // 2])
        yield open_


# ---- the drain ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_drain_answers_what_is_in_hand_and_ends_with_0(number: signal.Signals, bridge: Bridge) -> None:
    bridge.configure(server={"drain_delay": "1s"})
    bridge.start()
    assert bridge.process is not None
    body = dump(vehicle("user-1", "car-1", 50))
    with half_sent(bridge, body) as open_:
        bridge.process.send(number)
        until(lambda: ask("GET", f"{bridge.url}/health/ready").status_code == 503, "readiness fails")
        assert {"ready": False, "failing": ["draining"]} == ask("GET", f"{bridge.url}/health/ready").json()
        assert 200 == ask("GET", f"{bridge.url}/health/live").status_code
        assert "draining" == bridge.health()["status"]
        assert 202 == bridge.post("vehicle.update", body).status_code, "accepts go on for drain_delay"
        open_.send(body[len(body) // 2 :])
        assert 202 == open_.getresponse().status
    assert 0 == bridge.process.ended()
    assert '"event": "drained"' in bridge.text()


def test_a_request_that_began_before_the_listener_closed_is_answered_after(bridge: Bridge) -> None:
    bridge.start()
    assert bridge.process is not None
    body = dump(vehicle("user-1", "car-1", 50))
    with half_sent(bridge, body) as open_:
        bridge.process.send(signal.SIGTERM)
        until(lambda: not listens(bridge), "the listener closes")
        open_.send(body[len(body) // 2 :])
        answer = open_.getresponse()
        assert (202, 1) == (answer.status, json.loads(answer.read())["accepted"])
    assert 0 == bridge.process.ended()


def listens(bridge: Bridge) -> bool:
    place = urlsplit(bridge.url)
    with socket.socket() as sock:
        return sock.connect_ex((str(place.hostname), place.port)) == 0


def test_a_new_request_on_an_open_connection_is_told_to_come_again(bridge: Bridge) -> None:
    bridge.start()
    assert bridge.process is not None
    body = dump(vehicle("user-1", "car-1", 50))
    answers: list[tuple[int, str | None]] = []

    def ask(open_: http.client.HTTPConnection) -> None:
        open_.request("POST", UPDATE, body, signed(body))
        answer = open_.getresponse()
        answer.read()
        answers.append((answer.status, answer.getheader("retry-after")))

    with connected(bridge) as open_:
        ask(open_)
        bridge.process.send(signal.SIGTERM)
        with contextlib.suppress(OSError, http.client.HTTPException):  # at last the connection is closed
            while True:
                ask(open_)
    assert 0 == bridge.process.ended()
    assert {(202, None), (503, "5")} == set(answers)


def test_what_is_owed_at_the_end_is_delivered_by_the_next_start(bridge: Bridge, sandbox: Sandbox) -> None:
    sandbox.faults({"kind": "status", "status": 503})
    bridge.start()
    bridge.take("vehicle.update", vehicle("user-1", "car-1", 50))
    until(lambda: bridge.health()["calls"]["pending"], "something is owed")
    assert 0 == bridge.stop()
    assert [] == sandbox.events()
    sandbox.faults()
    bridge.start()
    until(sandbox.events, "the event")


def test_a_call_on_the_wire_is_awaited(bridge: Bridge, sandbox: Sandbox) -> None:
    bridge.start()
    bridge.take("vehicle.update", vehicle("user-1", "car-1", 50))
    bridge.settled()
    sandbox.faults({"kind": "latency", "seconds": 1.5, "path": "/events"})
    bridge.take("vehicle.update", vehicle("user-1", "car-1", 60))
    until(sandbox.fired, "the call is on the wire")
    assert 0 == bridge.stop()
    assert [50, 60] == [event["value"] for event in sandbox.events()]
    sandbox.faults()
    bridge.start()
    assert 0 == bridge.settled()["calls"]["in_doubt"]
    assert 2 == len(sandbox.events())


def test_a_platform_that_hangs_does_not_hold_up_the_end(bridge: Bridge, sandbox: Sandbox) -> None:
    bridge.configure(server={"drain_timeout": "1s"})
    bridge.start()
    bridge.take("vehicle.update", vehicle("user-1", "car-1", 50))
    bridge.settled()
    sandbox.faults({"kind": "latency", "seconds": 60, "path": "/events"})
    bridge.take("vehicle.update", vehicle("user-1", "car-1", 60))
    until(sandbox.fired, "the call is on the wire")
    assert bridge.process is not None
    bridge.process.send(signal.SIGTERM)
    assert 0 == bridge.process.ended(15)


# ---- what it refuses to start on ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    """Return a daemon beside a MOOST that is not there."""
    with bridged(tmp_path_factory.mktemp("running"), "http://127.0.0.1:9") as bridge:
        bridge.start()
        yield bridge


def test_a_second_daemon_on_one_store_ends_with_2(running: Bridge) -> None:
    second = run("serve", "--config", running.config)
    assert (2, 1) == (second.returncode, len(second.stderr.splitlines())), second.stderr
    assert second.stderr.startswith("store.url: ")
    assert running.ready()


def test_a_second_daemon_by_a_hard_link_ends_with_2_and_takes_nothing_from_the_first(
    running: Bridge, tmp_path: Path
) -> None:
    other = tmp_path / "other.db"
    other.hardlink_to(running.store)
    config = tmp_path / "bridge.toml"
    config.write_text(running.config.read_text().replace(str(running.store), str(other)))
    before = [running.take("vehicle.update", vehicle("user-1", "car-1", 50))["accepted"] for _ in range(20)]
    second = run("serve", "--config", config)
    said = "store.url: another bridge already serves this store, by another name of its file\n"
    assert (2, said) == (second.returncode, second.stderr)
    after = [running.take("vehicle.update", vehicle("user-1", "car-1", 51))["accepted"] for _ in range(20)]
    assert sum(before + after) == running.settled(owed=True)["ledger"]["accepted"]
    checked = run("store", "check", "--config", running.config)
    assert (0, "no problems found\n") == (checked.returncode, checked.stderr)
    refused = run("store", "check", "--config", config)
    assert (1, "use that name") == (refused.returncode, refused.stderr.strip()[-13:]), "nor does a command"


def test_a_port_in_use_ends_with_2(running: Bridge, tmp_path: Path) -> None:
    config = tmp_path / "bridge.toml"
    port = urlsplit(running.url).port
    text = running.config.read_text().replace("port = 0", f"port = {port}").replace("bridge.db", "other.db")
    config.write_text(text)
    second = run("serve", "--config", config)
    assert (2, 1) == (second.returncode, len(second.stderr.splitlines())), second.stderr
    assert second.stderr.startswith("server.port: ")
    assert running.ready()


def test_a_dry_run_does_everything_but_call_and_keeps_its_store(bridge: Bridge, sandbox: Sandbox) -> None:
    bridge.start("--dry-run")
    answer = bridge.take("vehicle.update", vehicle("user-1", "car-1", 50))
    health = bridge.settled()
    assert (3, 3) == (health["calls"]["queued"], health["calls"]["delivered"])
    assert 0 == sandbox.counts()["next"], "no call at all, not even for a token"
    trip = json.loads(run("explain", answer["ids"][0], "--json", "--config", bridge.config).stdout)[0]
    assert {"dry"} == {call["state"] for call in trip["calls"]}
    assert 0 == bridge.stop()
    assert_refused("serve", "--config", bridge.config)


def test_a_real_run_does_not_give_its_store_to_a_dry_one(bridge: Bridge) -> None:
    bridge.start()
    assert 0 == bridge.stop()
    assert_refused("serve", "--config", bridge.config, "--dry-run")


def assert_refused(*command: object) -> None:
    done = run(*command)
    assert (2, 1) == (done.returncode, len(done.stderr.splitlines())), done.stderr
    assert "dry run" in done.stderr


def test_rooms_can_run_apart(bridge: Bridge, sandbox: Sandbox) -> None:
    bridge.start("--rooms", "receiver")
    bridge.take("vehicle.update", vehicle("user-1", "car-1", 50))
    assert 1 == bridge.health()["ledger"]["pending"]
    assert 0 == bridge.stop()
    bridge.start("--rooms", "receiver,worker")
    assert 3 == bridge.settled(owed=True)["calls"]["pending"]
    assert 0 == bridge.stop()
    assert 0 == sandbox.counts()["next"]
    bridge.start("--rooms", "receiver,sender")
    bridge.settled()
    assert [50] == [event["value"] for event in sandbox.events()]
    assert 0 == bridge.stop()
    strange = run("serve", "--config", bridge.config, "--rooms", "receiver,kitchen")
    assert (2, 1) == (strange.returncode, len(strange.stderr.splitlines()))
    assert "kitchen" in strange.stderr


# ---- both families of addresses -------------------------------------------------------------------------------------


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as sock:
        sock.bind(("::1", 0))
        return True
    return False


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 address")
def test_a_socket_for_both_families_knows_an_ipv4_caller_for_one(tmp_path: Path) -> None:
    with bridged(tmp_path, "http://127.0.0.1:9", server={"host": "::"}) as bridge:
        bridge.others = ({"id": "near", "auth": "none", "allowed_networks": ["127.0.0.0/8"]},)
        bridge.start("--rooms", "receiver")
        place = urlsplit(bridge.url)
        assert "::" == place.hostname
        for address, expected in ((f"127.0.0.1:{place.port}", 202), (f"[::1]:{place.port}", 403)):
            assert expected == ask("POST", f"http://{address}/webhooks/near.vehicle.update", content=b"[]").status_code
        assert 0 == bridge.stop()


# ---- SIGHUP ---------------------------------------------------------------------------------------------------------


def status(bridge: Bridge, secret: str) -> int:
    body = dump(vehicle("user-1", "car-1", 50))
    return ask("POST", bridge.url + UPDATE, content=body, headers=signed(body, secret=secret)).status_code


def test_a_hangup_takes_new_secrets_and_limits_and_a_broken_file_keeps_them(running: Bridge) -> None:
    assert running.process is not None
    assert (202, 401) == (status(running, SECRET), status(running, OTHER_SECRET))
    running.secrets = (OTHER_SECRET, SECRET)
    running.configure(server={"max_body": 2048, "admin_token": "another-canary-admin"})
    running.process.send(signal.SIGHUP)
    until(lambda: status(running, OTHER_SECRET) == 202, "the new secret")
    assert 202 == status(running, SECRET), "rotation: any of them is accepted"
    assert 413 == ask("POST", running.url + UPDATE, content=b" " * 3000).status_code
    asked = {
        token: ask("GET", f"{running.url}/", headers={"authorization": f"Bearer {token}"}).status_code
        for token in (ADMIN, "another-canary-admin")
    }
    assert {ADMIN: 401, "another-canary-admin": 200} == asked

    running.config.write_text(running.config.read_text().replace("max_body = 2048", 'max_body = "much"'))
    running.process.send(signal.SIGHUP)
    until(lambda: "reload_refused" in running.text(), "the broken file is named")
    assert "server.max_body: " in running.text()
    assert (202, 202) == (status(running, OTHER_SECRET), status(running, SECRET))
    assert 413 == ask("POST", running.url + UPDATE, content=b" " * 3000).status_code

    running.secrets = (OTHER_SECRET,)
    running.configure()
    running.process.send(signal.SIGHUP)
    until(lambda: status(running, SECRET) == 401, "the old secret is gone")
    assert 202 == status(running, OTHER_SECRET)


def test_a_hangup_reads_files_of_secrets_again_and_a_missing_one_keeps_what_was_in_it(running: Bridge) -> None:
    assert running.process is not None
    path = running.folder / "rotated"

    def opened(token: str) -> bool:
        address = running.url + UPDATE.replace(SUBSCRIPTION, "filed")
        headers = {"authorization": f"Bearer {token}"}
        return ask("POST", address, content=b"[]", headers=headers).status_code == 202

    path.write_text("canary-first-token\n")
    running.others = ({"id": "filed", "auth": "bearer", "secrets_file": str(path)},)
    running.configure()
    running.process.send(signal.SIGHUP)
    until(lambda: opened("canary-first-token"), "the first")
    path.write_text("canary-first-token\ncanary-second-token\n")
    running.process.send(signal.SIGHUP)
    until(lambda: opened("canary-second-token"), "both")
    assert opened("canary-first-token")
    path.write_text("canary-second-token\n")
    running.process.send(signal.SIGHUP)
    until(lambda: not opened("canary-first-token"), "the second alone")
    path.unlink()
    refused = running.text().count("reload_refused")
    running.process.send(signal.SIGHUP)
    until(lambda: running.text().count("reload_refused") > refused, "the missing file is named")
    assert opened("canary-second-token")
    assert "canary-" not in running.text()
    running.others = ()
    running.configure()


def told(bridge: Bridge, event: str) -> list[dict[str, Any]]:
    """Return the lines of an event."""
    lines = (json.loads(line) for line in bridge.text().splitlines() if line.startswith("{"))
    return [line for line in lines if line["event"] == event]


def test_a_hangup_applies_what_can_be_applied_and_names_in_one_line_what_needs_a_restart(
    bridge: Bridge, sandbox: Sandbox
) -> None:
    bridge.own = {"user_prefix": "first-"}
    bridge.configure(logs={"level": "error"})
    log = bridge.folder / "bridge-quiet.log"
    bridge.process = process = Process(("serve", "--config", str(bridge.configure(server={"port": free_port()}))), log)
    process.start()
    bridge.url = f"http://127.0.0.1:{bridge.settings['server']['port']}"
    until(bridge.ready, "it accepts")
    assert "" == process.text(), "nothing is said below the level"

    bridge.others = ({"id": "later", "auth": "bearer", "secrets": ["canary-later"], "user_prefix": "later-"},)
    bridge.configure(logs={"level": "info"}, intervals={"grace": "5m"}, moost={"max_concurrency": 7})
    process.send(signal.SIGHUP)
    (line,) = until(lambda: told(bridge, "reloaded"), "it reads its configuration again")
    assert ["subscriptions.later", "logs.level"] == line["applied"]
    assert ["moost.max_concurrency", "intervals.grace"] == line["needs_restart"]
    assert "warning" == line["level"]

    body = dump(vehicle("user-9", "car-9", 50))
    headers = {"authorization": "Bearer canary-later"}
    path = UPDATE.replace(SUBSCRIPTION, "later")
    assert 202 == ask("POST", bridge.url + path, content=body, headers=headers).status_code
    until(lambda: sandbox.received("later-user-9")["events"], "the prefix of the new subscription counts")

    bridge.configure(logs={"level": "warning"}, intervals={"grace": "2m"}, moost={"max_concurrency": 32})
    process.send(signal.SIGHUP)
    until(lambda: status(bridge, "whsec_" + "b3RoZXI=") == 401, "it answers")
    assert 0 == bridge.stop()
    assert 1 == len(told(bridge, "reloaded")), "that it is back is below the new level"
    assert [] == told(bridge, "drained")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_a_hangup_in_the_middle_of_requests_loses_none(running: Bridge) -> None:
    assert running.process is not None
    running.configure()
    stop = threading.Event()

    def hang_up() -> None:
        while not stop.wait(0.01):
            assert running.process is not None
            running.process.send(signal.SIGHUP)

    thread = threading.Thread(target=hang_up)
    thread.start()
    try:
        statuses = {status(running, running.secrets[0]) for _ in range(50)}
    finally:
        stop.set()
        thread.join()
    assert {202} == statuses


# ---- what breaks ----------------------------------------------------------------------------------------------------

PLANTED: Final = """
import importlib
from bridge import cli
async def broken(*_args, **_more):
    raise RuntimeError("planted: canary-value")
setattr(importlib.import_module("bridge.{module}").{name}, "{method}", broken)
cli.main()
"""
ROOMS: Final = [
    ("worker", "Worker", "step"),
    ("clock", "Clock", "step"),
    ("sender.room", "Sender", "_turn"),
    ("receiver.server", "DoorServer", "on_tick"),
]


@pytest.mark.parametrize(("module", "name", "method"), ROOMS)
def test_a_room_that_fails_ends_the_process_with_1(module: str, name: str, method: str, bridge: Bridge) -> None:
    code = PLANTED.format(module=module, name=name, method=method)
    log = bridge.folder / "bridge-planted.log"
    process = Process(("serve", "--config", str(bridge.configure())), log, ("-c", code))
    process.start()
    assert 1 == process.ended()
    assert "room_failed" in process.text()
    assert "RuntimeError in broken" in process.text()
    assert "canary-value" not in process.text()
    assert "Traceback" not in process.text()


def test_a_damaged_store_ends_the_process_with_1(bridge: Bridge) -> None:
    bridge.start()
    assert bridge.process is not None
    bridge.take("vehicle.update", vehicle("user-1", "car-1", 50))
    bridge.settled()
    for ending in ("", "-wal"):
        file = bridge.store.with_name(bridge.store.name + ending)
        if file.exists():
            file.write_bytes(b"this is no database " * 10_000)
    with contextlib.suppress(httpx.HTTPError):
        bridge.post("vehicle.update", vehicle("user-1", "car-1", 60))
    assert 1 == bridge.process.ended()


def test_a_store_that_vanished_ends_the_process_with_1(bridge: Bridge) -> None:
    bridge.start()
    assert bridge.process is not None
    for file in bridge.folder.glob("bridge.db*"):
        file.unlink()
    assert 1 == bridge.process.ended()


def test_damage_that_nobody_meets_is_found_after_a_start_and_ends_the_process_with_1(bridge: Bridge) -> None:
    bridge.start()
    bridge.take("vehicle.update", vehicle("user-1", "car-1", 50))
    bridge.settled()
    assert 0 == bridge.stop()
    with contextlib.closing(sqlite3.connect(bridge.store)) as con:
        (page,) = con.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'residence'").fetchone()
    with bridge.store.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 4096)
    bridge.launch()  # it serves at first
    assert bridge.process is not None
    assert 1 == bridge.process.ended()
    assert "the store is damaged" in bridge.process.text()
