"""The log at night: what nobody reads, what cannot be written, and trouble that lasts."""

import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.life.stage import Bridge, Sandbox, ask, bridged, environ, run, until, vehicle
from tests.postgres import Server

F_SETPIPE_SZ: Final = 1031
FULL: Final = Path("/dev/full")


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


@dataclass
class Speaking:
    """A daemon whose stderr is the test's."""

    bridge: Bridge
    popen: "subprocess.Popen[bytes]"

    def ready(self) -> bool:
        assert self.popen.poll() is None, "it ended"
        with contextlib.suppress(httpx.HTTPError):
            return ask("GET", f"{self.bridge.url}/health/ready").status_code == 200
        return False

    def works(self) -> None:
        """Take a message, deliver it, answer health, refuse a caller."""
        until(self.ready, "it accepts")
        self.bridge.take("vehicle.update", vehicle("user-1", "car-1", 50))
        self.bridge.settled()
        assert 404 == ask("POST", f"{self.bridge.url}/webhooks/nobody.vehicle.update", content=b"{}").status_code

    def lost(self) -> float:
        """Return how many lines it has lost."""
        (line,) = (
            line for line in self.bridge.metrics().splitlines() if line.startswith("bridge_log_lines_lost_total")
        )
        return float(line.split()[-1])

    def stop(self) -> int:
        self.popen.terminate()
        return self.popen.wait(60)


@contextlib.contextmanager
def speaking(bridge: Bridge, stderr: Any, *, closed: bool = False, waiting: int = 2**20) -> Iterator[Speaking]:  # noqa: ANN401 - what Popen takes
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    config = bridge.configure(server={"port": port, "drain_timeout": "3s"}, logs={"level": "debug"})
    program = f"from bridge import logs; logs.MOST_WAITING = {waiting}; from bridge.__main__ import main; main()"
    command = [sys.executable, "-c", program, "serve", "--config", str(config)]
    if closed:
        command = ["bash", "-c", 'exec "$@" 2>&-', "bash", *command]
    bridge.url = f"http://127.0.0.1:{port}"
    popen = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr, env=environ())
    try:
        yield Speaking(bridge, popen)
    finally:
        if popen.poll() is None:
            popen.kill()
            popen.wait()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Return a pipe of one page: a reader that stands still fills it after a few lines."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, F_SETPIPE_SZ, 4096)
    yield reader, writer
    for end in (reader, writer):
        with contextlib.suppress(OSError):
            os.close(end)


def stuff(writer: int) -> None:
    """Fill a pipe."""
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"\n")
    os.set_blocking(writer, True)


def read_all(reader: int, seconds: float) -> str:
    """Read what comes within a time."""
    os.set_blocking(reader, False)
    got, end = b"", time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(BlockingIOError):
            got += os.read(reader, 2**16)
        time.sleep(0.01)
    return got.decode()


def test_a_reader_that_stands_still_costs_lines_and_never_service(bridge: Bridge, pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    stuff(writer)
    with speaking(bridge, writer, waiting=1_000) as daemon:
        daemon.works()
        for number in range(10):
            bridge.take("vehicle.update", vehicle("user-1", "car-1", number))
        bridge.settled()
        assert daemon.lost() > 10
        said = read_all(reader, 3)
        assert "log_lines_lost" in said
        assert [] == [line for line in said.splitlines() if line and not line.startswith("{")], "no line is torn"
        lines(said)
        stuff(writer)
        assert 0 == daemon.stop(), "not even the end waits for the reader"


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_a_full_disk_under_the_log_costs_lines_and_never_service(bridge: Bridge) -> None:
    with FULL.open("wb") as full, speaking(bridge, full) as daemon:
        daemon.works()
        assert daemon.lost() > 0
        assert 0 == daemon.stop()


def test_a_log_whose_reader_has_left_costs_lines_and_never_service(bridge: Bridge, pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.close(reader)
    with speaking(bridge, writer) as daemon:
        daemon.works()
        assert daemon.lost() > 0
        assert 0 == daemon.stop()


def test_a_closed_stderr_costs_lines_and_never_service(bridge: Bridge) -> None:
    with speaking(bridge, subprocess.DEVNULL, closed=True) as daemon:
        daemon.works()
        assert 0 == daemon.stop()


def test_a_pipe_that_was_told_not_to_wait_loses_nothing_that_is_read(bridge: Bridge, pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.set_blocking(writer, False)
    with speaking(bridge, writer) as daemon:
        daemon.works()
        assert 0 == daemon.stop()
    os.close(writer)
    said = read_all(reader, 0.2)
    assert ["serving", "drained"] == [line["event"] for line in lines(said) if line["event"] in ("serving", "drained")]


# ---- trouble that lasts ---------------------------------------------------------------------------------------------


def test_a_database_that_is_away_is_one_line_when_it_goes_and_one_when_it_is_back(
    tmp_path: Path, sandbox: Sandbox, own: Server
) -> None:
    with bridged(tmp_path, sandbox.url, store={"url": own.fresh()}) as bridge:
        bridge.start()
        bridge.take("vehicle.update", vehicle("user-1", "car-1", 50))
        bridge.settled()
        own.stop("immediate")
        try:
            until(lambda: not bridge.ready(), "it is not ready")
            time.sleep(8)
        finally:
            own.start()
        until(lambda: bridge.post("vehicle.update", vehicle("user-1", "car-1", 60)).status_code == 202, "it accepts")
        bridge.settled()
        until(lambda: "store_available" in bridge.text(), "the end is told")
        told = [line for line in lines(bridge.text()) if line["logger"] == "store"]
        assert ["store_unavailable", "store_available"] == [line["event"] for line in told]
        assert told[0]["reason"]
        assert told[1]["seconds"] >= 8
        assert told[1]["times"] > 4
        others = [line["event"] for line in lines(bridge.text()) if line["level"] in ("warning", "error")]
        assert len(others) <= 4, others
        assert 0 == bridge.stop()


# ---- what happens often ---------------------------------------------------------------------------------------------


def test_refused_requests_and_dead_letters_are_told_once_and_counted(bridge: Bridge, sandbox: Sandbox) -> None:
    sandbox.faults({"kind": "status", "status": 400, "path": "/events"})
    bridge.start()
    for _ in range(30):
        assert 401 == ask("POST", f"{bridge.url}/webhooks/acme.vehicle.update", content=b"{}").status_code
        assert 404 == ask("POST", f"{bridge.url}/webhooks/nobody.vehicle.update", content=b"{}").status_code
    bridge.take("vehicle.update", b'{"id": "truncat')
    bridge.take("vehicle.update", vehicle("user-1", "car-1", 50))
    told = until(lambda: [line for line in lines(bridge.text()) if line["event"] == "dead_letter"][1:], "both letters")
    letters = [line for line in lines(bridge.text()) if line["event"] == "dead_letter"]
    assert [("unreadable", None), ("rejected", 400)] == [(each["reason"], each.get("moost_status")) for each in letters]
    assert told
    refused = [line for line in lines(bridge.text()) if line["event"] == "request_refused"]
    assert [("acme", 401, "no header webhook-signature"), (None, 404, "no such subscription")] == [
        (line.get("subscription"), line["status"], line["check"]) for line in refused
    ]
    metrics = bridge.metrics()
    assert 'bridge_subscription_refused_total{status="401",subscription="acme"} 30.0' in metrics
    assert 'bridge_dead_letters{reason="stuck"} 0.0' in metrics
    shown = run("dead-letters", "show", letters[1]["number"], "--json", "--config", bridge.config)
    assert "400" in json.loads(shown.stdout)[0]["detail"]
    assert 0 == bridge.stop()


def test_debug_tells_of_each_step_and_info_of_none(bridge: Bridge) -> None:
    bridge.configure(logs={"level": "debug"})
    bridge.start()
    bridge.take("vehicle.update", vehicle("user-1", "car-1", 50))
    bridge.settled()
    told = {line["event"] for line in lines(bridge.text()) if line["level"] == "debug"}
    assert {"messages_accepted", "batch_committed", "call_made"} <= told
    assert "user-1" not in bridge.text()
    assert 0 == bridge.stop()
