"""One daemon per file, by whatever name: the locks of a store, on real file systems and on those that know none."""

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import anyio
import pytest

from bridge.store.refusal import StoreRefused
from bridge.store.sqlite import SqliteStore
from tests.life import trace
from tests.store.test_upkeep import KILLED
from tests.store.values import arrival

pytestmark = pytest.mark.anyio

ROOT: Final = Path(__file__).parents[2]

OPEN: Final = """
import asyncio, sys
from bridge.store.port import StoreUnavailable
from bridge.store.sqlite import SqliteStore

async def main():
    store = SqliteStore(sys.argv[1], exclusive=sys.argv[2] == "daemon")
    try:
        await store.open()
    except StoreUnavailable as why:
        print(type(why).__name__, why, sep=": ")
    else:
        print("open")
        await store.close()

asyncio.run(main())
"""


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


@pytest.fixture(params=["hard link", "hard link elsewhere", "bind mount"])
def other(request: pytest.FixtureRequest, store: SqliteStore, path: Path) -> Iterator[Path]:  # noqa: ARG001 - the file
    """Return another name of the file of an open store."""
    name = path.parent / ("elsewhere" if request.param == "hard link elsewhere" else "") / "other.db"
    name.parent.mkdir(exist_ok=True)
    if "link" in request.param:
        name.hardlink_to(path)
        yield name
        return
    name.touch()
    if os.geteuid() != 0 or subprocess.run(["mount", "--bind", path, name], check=False).returncode != 0:  # noqa: S607
        pytest.skip("mounting a file a second time needs root")
    yield name
    subprocess.run(["umount", name], check=True)  # noqa: S607 - from the system


async def opened(name: Path, as_: str, *before: str) -> str:
    """Let another process open a store; return what it says."""
    command = [*before, sys.executable, "-c", OPEN, str(name), as_]
    done = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert not done.returncode, done.stderr
    return done.stdout.strip()


async def test_a_second_daemon_is_refused_whatever_name_the_file_has(store: SqliteStore, other: Path) -> None:
    said = "StoreServed: another bridge already serves this store, by another name of its file"
    assert said == await opened(other, "daemon")
    assert [1] == [receipt.id for receipt in await store.accept([arrival()])]
    assert not other.with_name("other.db-wal").exists(), "no second log was begun"


async def test_a_command_by_another_name_is_refused_and_touches_nothing(store: SqliteStore, other: Path) -> None:
    said = "StoreServed: a bridge serves this store by another name of its file: use that name"
    assert said == await opened(other, "command")
    assert [1] == [receipt.id for receipt in await store.accept([arrival()])]
    assert not other.with_name("other.db-wal").exists(), "no second log was begun"


async def test_a_command_by_the_same_name_works_beside_the_daemon(store: SqliteStore, path: Path) -> None:
    assert "open" == await opened(path, "command")
    assert [1] == [receipt.id for receipt in await store.accept([arrival()])]


async def test_a_store_that_was_closed_is_served_by_any_name(path: Path) -> None:
    keeper = SqliteStore(str(path), exclusive=True)
    await keeper.open()
    await keeper.accept([arrival()])
    await keeper.close()
    other = path.with_name("other.db")
    other.hardlink_to(path)
    again = SqliteStore(str(other), exclusive=True)
    await again.open()
    assert 1 == (await again.census()).accepted
    await again.close()


async def test_a_command_makes_no_file_for_the_lock(path: Path) -> None:
    desk = SqliteStore(str(path))
    await desk.open()
    await desk.close()
    assert not path.with_name("bridge.db-lock").exists(), "it may run as another user than the daemon"


async def test_a_command_that_asks_for_the_lock_keeps_no_daemon_from_starting(path: Path) -> None:
    await asyncio.to_thread(path.touch)
    asks = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLD_FOR_A_MOMENT, str(path), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert asks.stdout is not None
    await asks.stdout.readline()
    keeper = SqliteStore(str(path), exclusive=True)
    await keeper.open()
    await keeper.close()
    await asks.wait()


HOLD_FOR_A_MOMENT: Final = """
import sys, time
from pathlib import Path
from bridge.store.sqlite.lock import Lock
lock = Lock(Path(sys.argv[1]))
lock.take()
print("held", flush=True)
time.sleep(0.1)
lock.release()
"""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("ENOLCK", "StoreRefused: the file system of the store knows no locks (No locks available)"),
        ("EOPNOTSUPP", "StoreRefused: the file system of the store knows no locks (Operation not supported)"),
        ("EIO", "StoreUnavailable: the store cannot be locked (Input/output error)"),
        ("EAGAIN", "StoreServed: another bridge already serves this store"),
    ],
)
async def test_only_a_lock_that_is_held_means_another_bridge(error: str, said: str, path: Path) -> None:
    if why := trace.untraceable():
        pytest.skip(why)
    before = ("strace", "-f", "-o", "/dev/null", "-e", "trace=flock", "-e", f"inject=flock:error={error}")
    answer = await opened(path, "daemon", *before)
    assert said == answer.removesuffix(": put the store on a local disk")


# ---- the log stands beside one name ---------------------------------------------------------------------------------


async def test_a_killed_daemon_s_store_is_served_by_its_name_alone(path: Path, tmp_path: Path) -> None:
    """By another name its log would be missing: what was accepted last would be gone, and the log destroy the store."""
    killed = await anyio.run_process([sys.executable, "-c", KILLED, str(path), "100"], check=False)
    assert -signal.SIGKILL == killed.returncode
    (tmp_path / "elsewhere").mkdir()
    other = tmp_path / "elsewhere" / "other.db"
    other.hardlink_to(path)
    with pytest.raises(StoreRefused, match=f"was served as {path} at last, and its log stands there: use that name"):
        await SqliteStore(str(other), exclusive=True).open()
    store = SqliteStore(str(path), exclusive=True)
    await store.open()
    assert 20 == (await store.census()).accepted
    await store.close()
    again = SqliteStore(str(other), exclusive=True)
    await again.open()
    assert 20 == (await again.census()).accepted
    await again.close()


async def test_a_copy_of_a_running_store_is_put_back_without_its_log(store: SqliteStore, path: Path) -> None:
    await store.accept([arrival()])
    copied = path.with_name("copy.db")
    with contextlib.closing(sqlite3.connect(path)) as con:
        con.execute("VACUUM INTO ?", (str(copied),))
    back = SqliteStore(str(copied), exclusive=True)
    await back.open()
    assert 1 == (await back.census()).accepted
    assert [1] == [message.ends for message in (await back.claim(1))[0]], "whose daemon may have died"
    await back.close()
    own = path.with_name("own.db")
    await store.backup(own)
    kept = SqliteStore(str(own), exclusive=True)
    await kept.open()
    assert [0] == [message.ends for message in (await kept.claim(1))[0]]
    await kept.close()
