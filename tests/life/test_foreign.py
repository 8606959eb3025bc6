"""Other programs on the file of a store, such as a backup or a browser for SQLite: what is said of them."""

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx

from bridge.store.sqlite.files import BUSY_TIMEOUT_S
from tests.life.stage import Bridge, Sandbox, bridged, run, until, vehicle

HELD_S: Final = 16.0  # longer than the daemon waits, three times over


@contextlib.contextmanager
def held(store: Path) -> Iterator[None]:
    """Let somebody hold the file for himself."""
    with contextlib.closing(sqlite3.connect(store, isolation_level=None, timeout=30)) as con:
        con.execute("BEGIN EXCLUSIVE")
        yield
        con.execute("ROLLBACK")


class Watch(threading.Thread):
    """Asks for readiness and problems, ten times a second."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__()
        self.bridge = bridge
        self.over = threading.Event()
        self.seen: list[tuple[float, bool, list[str]]] = []

    def run(self) -> None:
        with httpx.Client(base_url=self.bridge.url, trust_env=False) as client:
            while not self.over.wait(0.1):
                ready = client.get("/health/ready").status_code == 200
                self.seen.append((time.monotonic(), ready, client.get("/health").json()["problems"]))


def test_while_another_process_holds_the_file_the_bridge_is_not_ready_and_does_not_flap(bridge: Bridge) -> None:
    bridge.start("--dry-run")
    before = bridge.take("vehicle.update", vehicle("user-1", "car-1", 50))["accepted"]
    watch = Watch(bridge)
    watch.start()
    answers: list[float] = []
    with held(bridge.store):
        ends = time.monotonic() + HELD_S
        while time.monotonic() < ends:
            answer = bridge.post("vehicle.update", vehicle("user-1", "car-1", 51))
            answers.append(time.monotonic())
            assert (503, "store") == (answer.status_code, answer.json()["error"])
            assert int(answer.headers["retry-after"]) > 0
            time.sleep(0.2)
        released = time.monotonic()
    until(lambda: bridge.post("vehicle.update", vehicle("user-1", "car-1", 52)).status_code == 202, "it goes on")
    until(lambda: watch.seen[-1][1], "it is ready again")
    watch.over.set()
    watch.join()

    first = answers[0]
    during = [(ready, problems) for at, ready, problems in watch.seen if first + 0.5 < at < released]
    assert {False} == {ready for ready, _ in during}, "from the first 503 on nothing can be accepted"
    assert all("store" in problems for _, problems in during)
    assert any("store_locked" in problems for _, problems in during), "and why"
    assert len(answers) > 2 * HELD_S / BUSY_TIMEOUT_S, "once it is known nobody waits for the answer"
    changes = sum(a != b for (_, a, _), (_, b, _) in zip(watch.seen, watch.seen[1:], strict=False))
    assert 2 == changes, "once down and once up"
    assert [] == bridge.health()["problems"]
    assert before + 1 <= bridge.settled(owed=True)["ledger"]["accepted"]
    told = [line for line in bridge.text().splitlines() if "store_locked" in line]
    assert 2 == len(told), "one line when it begins and one when it ends"


def test_a_log_that_a_reader_keeps_from_shrinking_is_told_and_shrinks_when_he_has_gone(
    tmp_path: Path, sandbox: Sandbox
) -> None:
    with bridged(tmp_path, sandbox.url, server={"max_body": 4_000_000}) as bridge:
        bridge.start("--rooms", "receiver")
        bridge.take("vehicle.update", vehicle("user-1", "car-1", 50))
        body = {**vehicle("user-1", "car-1", 51), "padding": "x" * 3_000_000}
        with contextlib.closing(sqlite3.connect(bridge.store, isolation_level=None)) as con:
            con.execute("BEGIN")
            con.execute("SELECT count(*) FROM inbox").fetchone()
            for _ in range(25):
                bridge.take("vehicle.update", body)
            until(lambda: "store_log" in bridge.health()["problems"], "the log is a problem")
            assert bridge.ready(), "which refuses nobody"
            metrics = bridge.metrics()
            assert float(_metric(metrics, "bridge_store_log_bytes")) > 64 * 2**20
            assert float(_metric(metrics, "bridge_store_bytes")) > 64 * 2**20
            con.execute("ROLLBACK")

        def shrunk() -> bool:
            bridge.take("vehicle.update", vehicle("user-1", "car-1", 52))
            return "store_log" not in bridge.health()["problems"]

        until(shrunk, "the log has shrunk")
        assert float(_metric(bridge.metrics(), "bridge_store_log_bytes")) < 32 * 2**20
        assert ["store_log_began", "store_log_ended"] == [
            word for word in ("store_log_began", "store_log_ended") if word in bridge.text()
        ]


def _metric(text: str, name: str) -> str:
    return next(line.split()[1] for line in text.splitlines() if line.startswith(name + " "))


def test_a_running_store_is_copied_as_of_one_moment_and_the_copy_serves(bridge: Bridge, tmp_path: Path) -> None:
    bridge.start("--dry-run")
    over = threading.Event()

    def go_on() -> None:
        while not over.is_set():
            bridge.take("vehicle.update", vehicle("user-1", "car-1", 50))

    sender = threading.Thread(target=go_on)
    sender.start()
    try:
        until(lambda: bridge.accepted > 20, "messages come")
        copy = tmp_path / "copy.db"
        done = run("store", "backup", copy, "--config", bridge.config)
        assert (0, "", f"copied to {copy}\n") == (done.returncode, done.stdout, done.stderr)
        before = bridge.accepted
        until(lambda: bridge.accepted > before, "they still come")
    finally:
        over.set()
        sender.join()
    assert 0o600 == copy.stat().st_mode & 0o777
    twice = run("store", "backup", copy, "--config", bridge.config)
    assert (2, f"{copy} is there already: name a file that is not\n") == (twice.returncode, twice.stderr)
    assert 0 == bridge.stop()

    bridge.configure(store={"url": f"sqlite:///{copy}"})
    checked = run("store", "check", "--config", bridge.config)
    assert (0, "no problems found\n") == (checked.returncode, checked.stderr)
    bridge.accepted = 0
    bridge.start("--dry-run")
    assert 20 < bridge.settled(owed=True)["ledger"]["accepted"] <= before


def test_a_copy_that_cannot_be_written_leaves_nothing_behind(bridge: Bridge, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    missing = run("store", "backup", nowhere / "copy.db", "--config", bridge.configure())
    assert (2, f"there is no store at {bridge.store}\n") == (missing.returncode, missing.stderr)
    assert 0 == run("store", "migrate", "--config", bridge.config).returncode
    refused = run("store", "backup", nowhere / "copy.db", "--config", bridge.config)
    assert (1, f"{nowhere / 'copy.db'} cannot be written (No such file or directory)\n") == (
        refused.returncode,
        refused.stderr,
    )
    assert not nowhere.exists()


def test_a_shared_store_is_copied_by_its_own_tools(bridge: Bridge, tmp_path: Path) -> None:
    config = bridge.configure(store={"url": "postgresql://nobody@127.0.0.1/none"})
    refused = run("store", "backup", tmp_path / "copy.db", "--config", config)
    assert (2, True) == (refused.returncode, "pg_dump" in refused.stderr)
