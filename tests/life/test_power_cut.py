"""What a 202 is worth (R1): the order of the system calls behind it, and what is left when the power goes.

A real daemon takes, works off and delivers a crowd's messages under strace. The trace shows the order of write, fsync
and 202; replayed up to some point, without what was not yet fsynced, it is the disk after a power cut.
"""

import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from bridge.store.sqlite import SqliteStore
from tests.life import trace
from tests.life.crowd import Letter, send
from tests.life.disk import Disk
from tests.life.stage import bridged, dump, sandboxed, until, vehicle
from tests.store.values import arrival

LETTERS: Final = 240
HOMES: Final = 40
CUTS: Final = 300
FILES: Final = frozenset({"bridge.db", "bridge.db-wal", "bridge.db-journal"})


@dataclass(frozen=True)
class Recording:
    """What was seen of one life of the daemon."""

    folder: Path
    calls: list[trace.Call]
    trips: dict[bytes, trace.Trip]  # by a word of the body


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recording]:
    """Let a daemon live under strace, from its first file to its clean end."""
    folder = tmp_path_factory.mktemp("traced")
    output = folder / "trace"
    program = trace.program(output)
    words = [f"word-{number:05}-end" for number in range(LETTERS)]
    letters = [
        Letter(
            id=f"id-{word}", topic="vehicle.update", body=dump(vehicle(f"user-{number % HOMES}", word, number % 100))
        )
        for number, word in enumerate(words)
    ]
    with sandboxed(folder) as sandbox, bridged(folder, sandbox.url) as bridge:
        bridge.start(program=program)
        for letter in letters[:20]:
            assert 202 == bridge.post(letter.topic, letter.body, message_id=letter.id).status_code
        tally = send(bridge, letters[20:])
        assert LETTERS - 20 == len(tally.of(202))
        bridge.settled()
        assert 0 == bridge.stop()
        until(lambda: trace.is_complete(output), "strace has written everything down")
    calls = trace.read(output)
    output.unlink()
    named = [word.encode() for word in words]
    trips = trace.trips(calls, named, str(bridge.store) + "-wal")
    yield Recording(folder=folder, calls=calls, trips=dict(zip(named, trips, strict=True)))
    shutil.rmtree(folder)


def test_the_bytes_are_in_the_log_and_the_log_is_fsynced_before_the_202_is_sent(recording: Recording) -> None:
    for word, trip in recording.trips.items():
        assert trip.written is not None, f"{word!r} was never written to the log"
        assert trip.synced is not None, f"the log was never fsynced after {word!r}"
        steps = [trip.came.begun, trip.written.begun, trip.synced.begun, trip.synced.ended, trip.answered.begun]
        assert sorted(steps) == steps, f"{word!r}: read, written, fsync begun, fsync ended, answered"
    assert len({trip.synced.begun for trip in recording.trips.values() if trip.synced}) > 20, "a sample of commits"


def test_the_model_of_the_disk_ends_with_the_file_that_is_really_there(recording: Recording) -> None:
    disk = Disk(recording.folder, FILES)
    for call in recording.calls:
        disk.follow(call)
    disk.at(recording.calls[-1].begun + 1)
    assert {"bridge.db": (recording.folder / "bridge.db").read_bytes()} == disk.certain()


@pytest.mark.anyio
async def test_after_a_power_cut_at_any_moment_every_202_is_there(recording: Recording, tmp_path: Path) -> None:
    """Half of the cuts come right after a 202, before the disk has done anything else."""
    chance = random.Random(20)  # noqa: S311 - the same cuts each time
    first, last = recording.calls[0].begun, recording.calls[-1].begun
    cuts = [chance.randint(first, last) for _ in range(CUTS // 2)]
    cuts += [trip.answered.begun + 1 for trip in chance.sample(sorted(recording.trips.values(), key=str), CUTS // 2)]
    disk, calls = Disk(recording.folder, FILES), iter(recording.calls)
    call = next(calls, None)
    most = unsafe = 0
    for cut in sorted(cuts):
        while call is not None and call.begun < cut:
            disk.follow(call)
            call = next(calls, None)
        disk.at(cut)
        answered = {word for word, trip in recording.trips.items() if trip.answered.begun < cut}
        unsafe += disk.unsafe
        disk.cut(chance, tmp_path / "left")
        lost = answered - await _left(tmp_path / "left")
        assert set() == lost, f"a power cut at line {cut} lost acknowledged messages"
        shutil.rmtree(tmp_path / "left")
        most = max(most, len(answered))
    assert LETTERS // 2 < most, "the cuts reach into the burst"
    assert CUTS // 10 < unsafe, "many of them come while there is something to lose"
    assert {"pwrite64", "fdatasync", "openat", "unlink"} <= disk.seen


async def _left(folder: Path) -> set[bytes]:
    """Open what a power cut left, check it, go on with it; return the words of the messages that are there."""
    store = SqliteStore(str(folder / "bridge.db"), exclusive=True)
    await store.open()
    assert [] == list(await store.verify())
    bodies = [message.body async for message in store.raw(None, None)]
    (receipt,) = await store.accept([arrival()])
    assert len(bodies) + 1 == receipt.id == (await store.census()).accepted
    await store.close()
    return {body[at : at + 14] for body in bodies if (at := body.find(b"word-")) >= 0}
