"""Want of room in all its forms is a full disk (R9): a quota, a limit on a file's size, no inodes, a mapped page."""

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import anyio
import pytest

from bridge.store.port import Return, Settlement, StoreUnavailable, Work
from bridge.store.refusal import StoreRefused
from bridge.store.sqlite import SqliteStore, files, room, rounds
from tests.store.test_upkeep import KILLED
from tests.store.values import DAY, HOLD, NOW, arrival, events, out

pytestmark = pytest.mark.anyio

MIB: Final = 2**20
ROOT: Final = Path(__file__).parents[2]

LIFE: Final = """
import asyncio, os, sys
from bridge.store.sqlite import SqliteStore, rounds
from tests.store.test_room import filled, worked_off, accepted_at_last

async def life():
    rounds.RESERVE_LOOK_S = 0.0
    store = SqliteStore(sys.argv[1], exclusive=True)
    await store.open()
    count, why = await filled(store, int(sys.argv[2]))
    print("refused:", why, flush=True)
    await worked_off(store, count)
    print("worked off", flush=True)
    await accepted_at_last(store)
    print("accepted again, problems:", await store.verify())
    await store.close()

asyncio.run(life())
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bridge.db"


async def filled(store: SqliteStore, size: int) -> tuple[int, str]:
    """Owe a hundred calls, then accept until the door is refused; return how many messages, and why no more."""
    await store.commit(Work(now=NOW, calls=out(*(events("a", n) for n in range(100)))))
    accepted = 0
    while True:
        try:
            accepted += len(await store.accept([arrival(os.urandom(size)) for _ in range(max(1, 200_000 // size))]))
        except StoreUnavailable as why:
            return accepted, str(why)


async def worked_off(store: SqliteStore, accepted: int) -> None:
    """Settle every message and every call, one by one, and delete them: on a disk that is full."""
    for first in range(1, accepted + 1, 20):
        await store.commit(Work(now=NOW, settled=range(first, min(first + 20, accepted + 1))))
    for _ in range(100):
        (lane,) = await store.lease(NOW, 1, 1, HOLD)
        ends = [Settlement(call_id=row.id, delivered=1) for row in lane.calls]
        await store.settle(NOW, ends, [], [Return(building="a", at=NOW)])
    census = await store.census()
    assert (100, accepted, 0) == (census.delivered, census.settled, census.pending)
    while await store.sweep(NOW + 2 * DAY, DAY, 1 << 40):
        pass


async def accepted_at_last(store: SqliteStore) -> None:
    """Wait until a message is accepted."""
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(StoreUnavailable):
                await store.accept([arrival()])
                return
            await asyncio.sleep(0.05)


async def lived(path: Path, *arguments: object, before: Sequence[str] = (), **more: str) -> list[str]:
    """Let a process fill a store and work it off; return what it says."""
    command = [*before, sys.executable, "-c", LIFE, str(path), *map(str, arguments)]
    environment = {**os.environ, **more}
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert 0 == done.returncode, f"ended with {done.returncode}: {done.stdout} {done.stderr[-3000:]}"
    return done.stdout.splitlines()


EXPECTED: Final = ["refused: the disk is full (Disk quota exceeded)", "worked off", "accepted again, problems: []"]


# ---- a quota --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def quota(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a library that puts a quota on a folder."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler is installed (Debian: apt-get install gcc libc6-dev)")
    library = tmp_path_factory.mktemp("quota") / "quota.so"
    source = Path(__file__).with_name("quota.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library


@pytest.mark.parametrize("size", [20_000, 700_000])
async def test_at_the_end_of_a_quota_what_is_owed_is_worked_off_and_the_cause_is_named(
    path: Path, quota: Path, tmp_path_factory: pytest.TempPathFactory, size: int
) -> None:
    limit = tmp_path_factory.mktemp("limit") / "limit"
    limit.write_text(str(40 * MIB))
    said = await lived(path, size, FOLDER=str(path.parent), LIMIT=str(limit), LD_PRELOAD=str(quota))
    assert EXPECTED == said


async def test_a_store_whose_daemon_was_killed_at_the_end_of_a_quota_opens_and_settles(
    path: Path, quota: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    limit = tmp_path_factory.mktemp("limit") / "limit"
    limit.write_text(str(100 * MIB))
    environment = {**os.environ, "FOLDER": str(path.parent), "LIMIT": str(limit), "LD_PRELOAD": str(quota)}
    killed = await anyio.run_process([sys.executable, "-c", KILLED, str(path), "50000"], check=False, env=environment)
    assert -signal.SIGKILL == killed.returncode
    limit.write_text(str(sum(file.stat().st_size for file in path.parent.iterdir())))  # not a byte is left
    done = await anyio.run_process([sys.executable, "-c", AFTER, str(path)], check=False, env=environment)
    assert b"settled\n" == done.stdout, done.stderr.decode()


AFTER: Final = """
import asyncio, sys
from bridge.store.port import Work
from bridge.store.sqlite import SqliteStore
from tests.store.values import NOW

async def life():
    store = SqliteStore(sys.argv[1], exclusive=True)
    await store.open()
    count = (await store.census()).pending
    await store.commit(Work(now=NOW, settled=range(1, count + 1)))
    assert count == 20 and not (await store.census()).pending
    print("settled")
    await store.close()

asyncio.run(life())
"""


# ---- a file system that copies what is written ----------------------------------------------------------------------


@pytest.fixture
def small_btrfs(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system with a quota of 50 MiB on one of its folders, which only root can do."""
    if shutil.which("mkfs.btrfs") is None:
        pytest.skip("btrfs is not installed (Debian: apt-get install btrfs-progs)")
    image, top = tmp_path / "image", tmp_path / "btrfs"
    folder = top / "limited"
    top.mkdir()
    with image.open("wb") as file:
        file.truncate(400 * MIB)
    made = subprocess.run(["mkfs.btrfs", "-q", image], check=False).returncode  # noqa: S607
    if made or subprocess.run(["mount", "-o", "loop", image, top], check=False, capture_output=True).returncode:  # noqa: S607
        pytest.skip("mounting a file system needs root and a loop device")
    try:
        for words in (
            ["btrfs", "quota", "enable", top],
            ["btrfs", "subvolume", "create", folder],
            ["btrfs", "qgroup", "limit", "50M", folder],
        ):
            subprocess.run([str(word) for word in words], check=True, capture_output=True)
        yield folder
    finally:
        subprocess.run(["umount", "-l", top], check=True)  # noqa: S607


@pytest.mark.parametrize("size", [50_000, 400_000])
async def test_at_the_end_of_a_quota_on_btrfs_no_bus_error_ends_the_daemon(small_btrfs: Path, size: int) -> None:
    path = small_btrfs / "bridge.db"
    assert EXPECTED == await lived(path, size)


async def test_a_store_that_comes_to_btrfs_leaves_its_log_and_one_that_goes_away_takes_it_up(
    small_btrfs: Path, path: Path
) -> None:
    there = small_btrfs / "bridge.db"
    for number, (here, log) in enumerate([(path, True), (there, False), (path, True)], 1):
        store = SqliteStore(str(here), exclusive=True)
        await store.open()
        await store.accept([arrival()])
        assert number == (await store.census()).accepted
        assert log == files.has_log(here)
        desk = SqliteStore(str(here))
        await desk.open()
        assert number == len([message async for message in desk.raw(None, None)])
        await desk.close()
        await store.close()
        shutil.move(here, there if log else path)


# ---- a limit on the size of a file ----------------------------------------------------------------------------------


async def test_a_limit_on_the_size_of_a_file_is_a_full_disk_seen_in_time(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "RESERVE_LOOK_S", 0.0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50 * MIB, before[1]))
    try:
        store = SqliteStore(str(path), exclusive=True)
        await store.open()
        assert room.disk_bytes(path) == 50 * MIB - room.RESERVE_BYTES
        accepted, why = await filled(store, 50_000)
        assert "the disk is full" == why
        census = await store.census()
        assert census.free_disk_bytes is not None
        assert census.free_disk_bytes < 5 * MIB
        await worked_off(store, accepted)
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        await accepted_at_last(store)
        assert [] == list(await store.verify())
        await store.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# ---- inodes ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def few_files(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system for 12 files, which only root can do."""
    folder = tmp_path / "few"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64m,nr_inodes=12", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)  # noqa: S607


def _use_up_inodes(folder: Path) -> None:
    with contextlib.suppress(OSError):
        for number in range(20):
            (folder / f"file-{number}").touch()


async def test_without_inodes_a_daemon_goes_on_and_starts_again(few_files: Path) -> None:
    path = few_files / "bridge.db"
    store = SqliteStore(str(path), exclusive=True)
    await store.open()
    _use_up_inodes(few_files)
    await store.accept([arrival()])
    await store.close()
    _use_up_inodes(few_files)
    again = SqliteStore(str(path), exclusive=True)
    await again.open()
    await again.commit(Work(now=NOW, settled=[1]))
    with pytest.raises(StoreUnavailable, match="full"):
        await again.accept([arrival()])
    await again.close()


async def test_a_first_start_without_inodes_says_so(few_files: Path) -> None:
    _use_up_inodes(few_files)
    with pytest.raises(StoreUnavailable, match="No space left on device"):
        await SqliteStore(str(few_files / "bridge.db"), exclusive=True).open()


# ---- shared memory --------------------------------------------------------------------------------------------------


@pytest.fixture
def unmappable(tmp_path: Path) -> Iterator[Path]:
    """Mount a folder whose files cannot be mapped, as network file systems in user space do."""
    if shutil.which("bindfs") is None:
        pytest.skip("bindfs is not installed (Debian: apt-get install bindfs)")
    below, folder = tmp_path / "below", tmp_path / "mapped"
    below.mkdir()
    folder.mkdir()
    command = ["bindfs", "-o", "direct_io", str(below), str(folder)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("mounting a file system in user space needs root and /dev/fuse")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)  # noqa: S607


async def test_a_file_system_without_shared_memory_is_refused_and_named(unmappable: Path) -> None:
    with pytest.raises(StoreRefused, match=r"gives the log of the store no shared memory .*: put the store on a local"):
        await SqliteStore(str(unmappable / "bridge.db"), exclusive=True).open()


async def test_the_answer_to_what_is_asked_for_is_checked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "copies", lambda _: False)
    con = files.connect(path, write=True)
    con.close()

    class Deaf:
        def execute(self, _: str) -> "Deaf":
            return self

        def fetchone(self) -> tuple[str]:
            return ("delete",)

    with pytest.raises(StoreRefused, match="journal mode delete"):
        files._set_journal(Deaf(), path)  # type: ignore[arg-type]


# ---- a file written anew --------------------------------------------------------------------------------------------


async def _deleted(path: Path, size: int) -> SqliteStore:
    """Leave a store of many pages, of which few are in use, and the log of it written back."""
    store = SqliteStore(str(path))
    await store.open()
    for first in range(1, size // 10_000, 100):
        await store.accept([arrival(os.urandom(10_000)) for _ in range(100)])
        await store.commit(Work(now=NOW, settled=range(first, first + 100)))
    await store.close()
    store = SqliteStore(str(path))
    await store.open()
    return store


async def test_a_large_file_is_written_anew_beside_itself_and_not_in_the_folder_for_temporary_files(
    small_disk: Path, path: Path
) -> None:
    """The disk that takes temporary files is too small for a copy, as in a container with a small /tmp."""
    (small_disk / "ballast").write_bytes(bytes(50 * MIB))
    store = await _deleted(path, 40 * MIB)
    await store.close()
    done = await anyio.run_process(
        [sys.executable, "-c", COMPACT, str(path)], check=False, env={**os.environ, "SQLITE_TMPDIR": str(small_disk)}
    )
    assert b"True\n" == done.stdout, done.stderr.decode()
    assert {"bridge.db"} == {file.name for file in _listed(path.parent)} - {"disk"}


COMPACT: Final = """
import asyncio, sys
from bridge.store.sqlite import SqliteStore

async def main():
    store = SqliteStore(sys.argv[1])
    await store.open()
    print(await store.compact(gently=False))
    await store.close()

asyncio.run(main())
"""


async def test_without_room_for_a_copy_it_says_so_before_it_begins(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await _deleted(path, 5 * MIB)
    monkeypatch.setattr(room, "free_bytes", lambda _: 6 * MIB)
    with pytest.raises(StoreUnavailable, match=r"^writing the file anew takes \d+ MiB .* 6 MiB are free: make room"):
        await store.compact(gently=False)
    assert not await store.compact(gently=True), "erasing goes on all the same"
    assert [] == list(await store.verify())
    await store.close()


def _listed(folder: Path) -> list[Path]:
    return list(folder.iterdir())
