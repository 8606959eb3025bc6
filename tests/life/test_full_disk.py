"""A disk that fills up under the real daemon, and one that has room again (R9)."""

import contextlib
import os
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.life.crowd import Letter, send
from tests.life.stage import Bridge, Sandbox, ask, bridged, dump, run, until, vehicle

if TYPE_CHECKING:
    from tests.postgres import Server

MIB: Final = 2**20
PADDING: Final = "x" * 60_000
PACE_S: Final = 0.03  # between messages of 0.8 MB: deleting begins at 0.6 of the size, and looks every second


def padded(number: int) -> dict[str, Any]:
    """Return a message of 60 KB that makes one event."""
    return {**vehicle(f"user-{number % 20}", f"car-{number}", number % 100), "padding": PADDING}


def free(folder: Path) -> float:
    """Return the share of a disk that is free."""
    disk = os.statvfs(folder)
    return disk.f_bavail / disk.f_blocks


def fill_up(file: Path) -> None:
    """Let another program take what is left of a disk."""
    with file.open("wb", buffering=0) as sink:
        for piece in (MIB, 4096):
            try:
                while sink.write(bytes(piece)) == piece:
                    pass
            except OSError:
                continue


def refused(bridge: Bridge) -> tuple[str, int] | None:
    """Post a message; return why it was refused, and when to come again [s]."""
    answer = bridge.post("vehicle.update", padded(999))
    if answer.status_code == 202:
        return None
    assert 503 == answer.status_code, answer.text
    return answer.json()["error"], int(answer.headers["retry-after"])


def test_a_full_disk_closes_the_door_in_time_and_work_and_deleting_go_on_until_it_opens(
    sandbox: Sandbox, small_disk: Path, tmp_path: Path
) -> None:
    with bridged(tmp_path, sandbox.url, store={"url": f"sqlite:///{small_disk / 'bridge.db'}"}) as bridge:
        # Nothing is worked off, so that everything accepted is owed: the door closes while there is room.
        bridge.start("--rooms", "receiver,clock")
        letters = (Letter(id=f"m-{n}", topic="vehicle.update", body=dump(padded(n))) for n in range(1_000))
        tally = send(bridge, letters)
        bridge.accepted = len(tally.of(202))
        assert {202, 503} == {status for status, _ in tally.answered.values()}
        assert ("watermark", 30) == until(lambda: refused(bridge), "the door is closed")
        assert free(small_disk) > 0.05, "long before the disk is full"
        assert {"ready": False, "failing": ["watermark"]} == ask("GET", f"{bridge.url}/health/ready").json()

        # Another program takes the rest, and the power goes.
        fill_up(small_disk / "ballast")
        assert free(small_disk) < 0.001
        assert refused(bridge) is not None
        bridge.kill()

        # On the full disk it starts, works everything off, delivers it, and forgets early what is settled.
        bridge.launch()
        health = bridge.settled()
        assert bridge.accepted == health["ledger"]["accepted"] == health["ledger"]["settled"]
        taken = {f"vehicle:{padded(int(name.removeprefix('m-')))['id']}" for name in tally.of(202)}
        assert set() == taken - {event["deviceId"] for event in sandbox.events()}

        # So there is room again, though nobody cleaned up: the door opens by itself.
        until(bridge.ready, "the door opens without a restart")
        assert refused(bridge) is None
        until(lambda: free(small_disk) > 0.1, "there is room, whatever the log takes for a moment")
        bridge.settled()
        checked = run("store", "check", "--config", bridge.config)
        assert (0, "no problems found\n") == (checked.returncode, checked.stderr)


def test_settled_messages_never_close_the_door_and_the_store_keeps_within_its_size(tmp_path: Path) -> None:
    """Twice the greatest size passes through a store that would remember everything for three days."""
    size, body = 96 * MIB, {**padded(1), "padding": "x" * 800_000}
    with bridged(tmp_path, "http://127.0.0.1:9", store={"max_size": size}) as bridge:
        bridge.start("--dry-run")
        count = 2 * size // len(body["padding"])
        for number in range(count):
            assert 202 == bridge.post("vehicle.update", body).status_code, f"message {number} of {count}"
            time.sleep(PACE_S)
        bridge.settled(owed=True)
        until(lambda: bridge.store.stat().st_size < size, "the file is within its size")
        with contextlib.closing(sqlite3.connect(bridge.store)) as con:
            assert con.execute("SELECT count(*) FROM inbox").fetchone()[0] < count, "they went before their time"


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_a_fast_sender_is_never_refused_by_the_smallest_store_as_long_as_next_to_nothing_is_owed(
    engine: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """What has come since the store was last looked at is settled by now; twice the size passes within some looks."""
    size = 4 * MIB
    store: dict[str, Any] = {"max_size": size}
    if engine == "postgresql":
        server: Server = request.getfixturevalue("server")
        store["url"] = server.fresh()
    with bridged(tmp_path, "http://127.0.0.1:9", store=store) as bridge:
        bridge.start("--dry-run")
        count = 2 * size // len(PADDING)
        # One after the other, so that the worker keeps up on any machine: then nothing is owed in truth.
        answers = [bridge.post("vehicle.update", padded(number)).status_code for number in range(count)]
        assert [202] * count == answers
