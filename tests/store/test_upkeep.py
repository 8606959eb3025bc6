"""What keeps the file small and sound: early deleting where room is short, pages given back, the inspection."""

import asyncio
import contextlib
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import anyio
import pytest

from bridge.store.port import StoreBroken, StoreUnavailable, Work
from bridge.store.sqlite import SqliteStore, files, inspection, room, upkeep
from tests.store.values import DAY, HOLD, NOW, arrival, devices, events, house, out, stillborn

pytestmark = pytest.mark.anyio

PAGE: Final = 4096
HUGE: Final = 1 << 40


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bridge.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    keeper = SqliteStore(str(path), exclusive=True)
    await keeper.open()
    yield keeper
    assert [] == list(await keeper.verify())
    await keeper.close()


# ---- room -----------------------------------------------------------------------------------------------------------


async def _settled(store: SqliteStore, messages: int) -> None:
    await store.accept([arrival(os.urandom(20_000)) for _ in range(messages)])
    await store.commit(Work(now=NOW, settled=range(1, messages + 1)))


def _pages(path: Path) -> tuple[int, int]:
    """Return how many pages a file has, and how many of them are free."""
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as con:
        (pages,), (free,) = con.execute("PRAGMA page_count").fetchone(), con.execute("PRAGMA freelist_count").fetchone()
        return int(pages), int(free)


async def test_the_size_is_that_of_pages_in_use_not_of_the_file(store: SqliteStore, path: Path) -> None:
    await _settled(store, 300)
    before = (await store.census()).size_bytes - files.log_bytes(path)
    while await store.sweep(NOW + 2 * DAY, DAY, HUGE):
        pass
    after = (await store.census()).size_bytes - files.log_bytes(path)
    pages, free = _pages(path)
    assert free > pages // 2, "the file is as large as before, but for a little"
    assert (pages - free) * PAGE == after
    assert before - after > 300 * 20_000


async def test_a_long_log_is_nothing_that_is_owed(store: SqliteStore, path: Path) -> None:
    await _settled(store, 300)
    assert files.log_bytes(path) > 300 * 20_000
    assert (await store.census()).owed_bytes < 20_000 * 50


async def test_on_a_low_disk_settled_rows_go_before_their_time_and_their_room_is_given_back(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _settled(store, 300)
    assert 0 == await store.sweep(NOW, DAY, HUGE)
    monkeypatch.setattr(room, "LOW_SHARE", 2.0)
    before, _ = _pages(path)
    assert 300 == sum([await store.sweep(NOW, DAY, HUGE) for _ in range(300 // upkeep.STEP_ROWS)])
    for _ in range(4):
        assert 0 == await store.sweep(NOW, DAY, HUGE)
    assert 0 == _pages(path)[1], "a few looks are enough"
    assert before - _pages(path)[0] > 300 * 20_000 // PAGE


async def test_nothing_that_is_owed_goes_for_want_of_room(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "LOW_SHARE", 2.0)
    await store.accept([arrival(), arrival(), stillborn(), arrival()])
    await store.commit(Work(now=NOW, settled=[1], parked=[(2, "u")], calls=out(events("a", 1))))
    assert 1 == await store.sweep(NOW, DAY, 1)
    assert [2, 3, 4] == [message.id async for message in store.raw(None, None)]
    assert 1 == len(await store.lease(NOW, 1, 1, HOLD))


# ---- a start on a full disk -----------------------------------------------------------------------------------------


KILLED = """
import asyncio, os, signal, sys
from bridge.store.sqlite import SqliteStore
from tests.store.values import arrival

async def life():
    store = SqliteStore(sys.argv[1], exclusive=True)
    await store.open()
    for _ in range(20):
        await store.accept([arrival(os.urandom(int(sys.argv[2])))])
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(life())
"""


@pytest.mark.parametrize("size", [20_000, 500_000])
@pytest.mark.parametrize("left", [0, 1, 3, 9])  # pages; a start needs some of its own for the index of the log
async def test_a_store_whose_daemon_was_killed_on_a_full_disk_opens_and_settles(
    small_disk: Path, size: int, left: int
) -> None:
    path = small_disk / "bridge.db"
    killed = await anyio.run_process([sys.executable, "-c", KILLED, str(path), str(size)], check=False)
    assert -signal.SIGKILL == killed.returncode
    spare = small_disk / "spare"
    spare.write_bytes(bytes(left * PAGE))
    _fill_up(small_disk / "ballast")
    spare.unlink()
    store = SqliteStore(str(path), exclusive=True)
    await store.open()
    assert 20 == len([message async for message in store.raw(None, None)])
    await store.commit(Work(now=NOW, settled=range(1, 21)))
    with pytest.raises(StoreUnavailable, match="full"):
        await store.accept([arrival(os.urandom(500_000)) for _ in range(100)])
    assert (await store.census()).full
    assert 20 <= (await store.census()).settled
    await store.close()


def _fill_up(file: Path) -> None:
    with file.open("wb", buffering=0) as sink, contextlib.suppress(OSError):
        while sink.write(bytes(PAGE)) == PAGE:
            pass


async def test_a_first_start_without_room_for_the_reserve_takes_nothing(small_disk: Path) -> None:
    (small_disk / "ballast").write_bytes(bytes(40 * 2**20))
    store = SqliteStore(str(small_disk / "bridge.db"), exclusive=True)
    await store.open()
    with pytest.raises(StoreUnavailable, match="full"):
        await store.accept([arrival()])
    assert (await store.census()).full
    (small_disk / "ballast").unlink()
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(StoreUnavailable):
                await store.accept([arrival()])
                break
            await asyncio.sleep(0.05)
    assert not (await store.census()).full
    await store.close()


# ---- the inspection -------------------------------------------------------------------------------------------------


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "HEAD_START_S", 0.0)
    monkeypatch.setattr(inspection, "PAUSE", 0.0)


@pytest.fixture
def as_large(monkeypatch: pytest.MonkeyPatch, at_once: None) -> None:  # noqa: ARG001 - a fixture
    monkeypatch.setattr(inspection, "SMALL_BYTES", 0)


async def _lived(path: Path) -> None:
    """Leave a store with rows in its tables."""
    store = SqliteStore(str(path), exclusive=True)
    await store.open()
    await store.accept([arrival(b"%04d" % n, message_id=f"m-{n}") for n in range(1_200)])
    work = Work(now=NOW, settled=[1], parked=[(2, "u")], buildings=[house("a")], due={"a": NOW}, users={1: "u"})
    await store.commit(work)
    await store.commit(Work(now=NOW, calls=out(events("a", 1), devices("a", "car"))))
    await store.close()


def _tables(path: Path) -> dict[str, int]:
    """Return the tables of a store, and where each begins [page]."""
    with contextlib.closing(sqlite3.connect(path)) as con:
        return dict(con.execute("SELECT name, rootpage FROM sqlite_schema WHERE type = 'table'").fetchall())


def _damage(path: Path, page: int) -> None:
    with path.open("r+b") as file:
        file.seek((page - 1) * PAGE)
        file.write(b"\xff" * PAGE)


async def _inspected(path: Path) -> str | None:
    """Open a store, and wait until all of it has been looked at; return what the census says."""
    store = SqliteStore(str(path), exclusive=True)
    await store.open()
    try:
        assert store._inspection is not None
        assert await asyncio.to_thread(store._inspection.done.wait, 20)
        await store.census()
    except StoreBroken as why:
        return str(why)
    finally:
        await store.close()
    return None


@pytest.mark.usefixtures("as_large")
async def test_a_sound_store_passes_the_inspection(path: Path) -> None:
    await _lived(path)
    assert await _inspected(path) is None


@pytest.mark.usefixtures("as_large")
@pytest.mark.parametrize("table", ["inbox", "seen", "parked", "owner", "building", "sheet", "letter", "note"])
async def test_a_damaged_page_of_any_table_is_found_beside_serving(table: str, path: Path) -> None:
    await _lived(path)
    _damage(path, _tables(path)[table])
    assert "the store is damaged (database disk image is malformed)" == await _inspected(path)


@pytest.mark.usefixtures("at_once")
async def test_a_small_store_is_checked_as_a_whole(path: Path) -> None:
    await _lived(path)
    with contextlib.closing(sqlite3.connect(path)) as con:
        (index,) = con.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'parked_user'").fetchone()
    _damage(path, index)
    assert (await _inspected(path) or "").startswith("the store is damaged (")


async def test_a_large_table_is_read_in_short_reads(path: Path) -> None:
    await _lived(path)
    con = files.connect(path, write=False)
    rows: dict[str, int] = {}
    for table, keys in inspection._tables(con):
        for _ in inspection._read(con, table, keys):
            rows[table] = rows.get(table, 0) + 1
    con.close()
    assert (3, 3, 1) == (rows["inbox"], rows["seen"], rows["building"])
