"""What only a file can promise: durability, one daemon, commands beside it, a damaged or full disk."""

import asyncio
import contextlib
import importlib.resources
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from bridge.core.model import Residence
from bridge.store.desk import DeadFilter, Forgetting
from bridge.store.port import Receipt, Settlement, StoreBroken, StoreUnavailable, Work
from bridge.store.refusal import StoreRefused
from bridge.store.sqlite import SqliteStore, checkpoint, files, rounds
from tests.store.values import DAY, HOLD, NOW, arrival, events, house, out, stillborn

pytestmark = pytest.mark.anyio

ROOT: Final = Path(__file__).parents[2]

BURST: Final = """
import asyncio, itertools, sys
from bridge.store.sqlite import SqliteStore
from tests.store.values import NOW, arrival

async def caller(store, name):
    for n in itertools.count():
        body = f"{name}-{n}".encode().ljust(1000)
        (receipt,) = await store.accept([arrival(body, message_id=f"{name}-{n}")])
        sys.stdout.write(f"{receipt.id} {name}-{n}\\n")
        sys.stdout.flush()

async def main():
    store = SqliteStore(sys.argv[1], exclusive=True)
    await store.open()
    await asyncio.gather(*(caller(store, name) for name in range(32)))

asyncio.run(main())
"""

IMPORT: Final = """
import asyncio, sys
from bridge.core.model import Residence
from bridge.store.sqlite import SqliteStore

async def main():
    desk = SqliteStore(sys.argv[1])
    await desk.open()
    rows = [Residence(user=f"u{n}", location=None, building=f"b{n}") for n in range(int(sys.argv[2]))]
    print(await desk.write_residences(rows))
    await desk.close()

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
    await keeper.close()


def child(script: str, *arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def killed_in_a_burst(path: Path, after: int) -> dict[str, int]:
    """Run a child that accepts until it has reported many messages, kill it; return name -> id as reported."""
    with child(BURST, path) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(after)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
    assert -signal.SIGKILL == process.returncode
    whole = [line.split() for line in lines if line.endswith("\n")]
    return {name: int(number) for number, name in whole}


def _listed(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def _read(path: Path) -> bytes:
    return path.read_bytes()


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _delete(path: Path) -> None:
    path.unlink()


# ---- durability -----------------------------------------------------------------------------------------------------


async def test_whatever_was_reported_accepted_is_there_after_kill_9(path: Path) -> None:
    reported: dict[str, int] = {}
    for _ in range(3):
        reported |= await asyncio.to_thread(killed_in_a_burst, path, 700)
        store = SqliteStore(str(path), exclusive=True)
        await store.open()
        kept = {message.id: message.body.decode().strip() async for message in store.raw(None, None)}
        census = await store.census()
        assert [] == await store.verify()
        await store.close()
        assert {number: name for name, number in reported.items() if number} == {
            number: kept.get(number) for number in reported.values() if number
        }
        assert census.accepted == len(kept) >= 700


async def test_commits_are_fsynced(store: SqliteStore) -> None:
    await store.accept([arrival()])
    assert store._rounds is not None
    con = store._rounds._writer._con
    assert con is not None
    assert ("wal", 2) == (
        con.execute("PRAGMA journal_mode").fetchone()[0],
        con.execute("PRAGMA synchronous").fetchone()[0],
    )


async def test_each_transaction_is_timed(path: Path) -> None:
    heard: list[float] = []
    store = SqliteStore(str(path), exclusive=True, committed=heard.append)
    await store.open()
    before = len(heard)
    await store.accept([arrival()])
    await store.commit(Work(now=NOW, settled=[1]))
    assert before + 2 == len(heard)
    await store.close()
    assert all(0 < seconds < 60 for seconds in heard)


class TestGathering:
    """With a time to gather that no test would survive."""

    @pytest.fixture(autouse=True)
    def _long(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rounds, "GATHER_S", 3_600.0)

    async def test_a_sender_that_waits_for_each_answer_is_not_kept_waiting(self, store: SqliteStore) -> None:
        for _ in range(3 * rounds.GATHER_FROM):
            await store.accept([arrival()])
        assert 3 * rounds.GATHER_FROM == (await store.census()).accepted

    async def test_under_load_messages_gather_for_a_round_but_nobody_else_does(self, store: SqliteStore) -> None:
        await asyncio.gather(*(store.accept([arrival()]) for _ in range(2 * rounds.GATHER_FROM)))
        gathering = asyncio.gather(*(store.accept([arrival()]) for _ in range(rounds.GATHER_FROM)))
        done, _ = await asyncio.wait([gathering], timeout=0.1)
        assert not done, "it waits for more"
        await store.commit(Work(now=NOW))
        assert rounds.GATHER_FROM == len(await gathering), "it left with the work"

    async def test_as_many_as_are_worth_a_round_wait_for_no_more(self, store: SqliteStore) -> None:
        await asyncio.gather(*(store.accept([arrival()]) for _ in range(rounds.GATHER_FROM)))
        async with asyncio.timeout(10):
            await asyncio.gather(*(store.accept([arrival()]) for _ in range(rounds.GATHER_PARTS)))
        assert rounds.GATHER_FROM + rounds.GATHER_PARTS == (await store.census()).accepted

    async def test_the_end_does_not_come_before_what_gathers(
        self, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rounds, "GATHER_S", 0.2)
        await asyncio.gather(*(store.accept([arrival()]) for _ in range(rounds.GATHER_FROM)))
        gathering = asyncio.gather(store.accept([arrival()]))
        await asyncio.sleep(0)
        await store.close()
        assert 1 == len(await gathering)


async def test_nobody_else_can_read_the_files(store: SqliteStore, path: Path) -> None:
    await store.accept([arrival()])
    modes = {file.name: file.stat().st_mode & 0o077 for file in _listed(path.parent)}
    beside = ("-wal", "-shm", "-lock", "-reserve", "-reserve-2")
    assert {"bridge.db", *(f"bridge.db{ending}" for ending in beside)} == set(modes)
    assert {0} == set(modes.values())


async def test_a_clean_stop_leaves_no_log(store: SqliteStore, path: Path) -> None:
    await store.accept([arrival()])
    await store.close()
    assert not path.with_name("bridge.db-wal").exists()


async def test_the_log_stays_short_under_load(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "INTERVAL_S", 0.01)
    monkeypatch.setattr(checkpoint, "LONG_PAGES", 200)
    store = SqliteStore(str(path), exclusive=True)
    await store.open()
    body, sizes, written = os.urandom(20_000), [], 0
    until = time.monotonic() + 30
    while written < 40_000_000 and time.monotonic() < until:
        await asyncio.gather(*(store.accept([arrival(body)]) for _ in range(20)))
        written += 20 * len(body)
        sizes.append(path.with_name("bridge.db-wal").stat().st_size)
    await store.close()
    assert max(sizes) < written / 2


async def test_closing_finishes_what_was_begun(store: SqliteStore, path: Path) -> None:
    waiting = [asyncio.ensure_future(store.accept([arrival()])) for _ in range(10)]
    await asyncio.sleep(0)
    await store.close()
    assert 10 == sum(len(receipts) for receipts in await asyncio.gather(*waiting))
    with pytest.raises(StoreUnavailable):
        await store.accept([arrival()])
    with pytest.raises(StoreUnavailable):
        await store.census()
    again = SqliteStore(str(path))
    await again.open()
    assert 10 == (await again.census()).accepted
    await again.close()


# ---- who may open it ------------------------------------------------------------------------------------------------


async def test_a_second_daemon_is_refused(store: SqliteStore, path: Path) -> None:
    with pytest.raises(StoreRefused, match="already serves"):
        await SqliteStore(str(path), exclusive=True).open()
    await store.accept([arrival()])


async def test_a_second_daemon_is_refused_by_whatever_name_it_calls_the_file(store: SqliteStore, path: Path) -> None:
    link = path.with_name("link.db")
    link.symlink_to(path)
    with pytest.raises(StoreRefused, match="already serves"):
        await SqliteStore(str(link), exclusive=True).open()
    await store.accept([arrival()])


async def test_a_killed_daemon_holds_no_store(path: Path) -> None:
    await asyncio.to_thread(killed_in_a_burst, path, 1)
    store = SqliteStore(str(path), exclusive=True)
    await store.open()
    await store.close()


async def test_a_command_does_not_free_the_leases_of_the_daemon(store: SqliteStore, path: Path) -> None:
    await store.commit(Work(now=NOW, calls=out(events("a", 1))))
    await store.lease(NOW, 1, 1, HOLD)
    desk = SqliteStore(str(path))
    await desk.open()
    await desk.close()
    assert [] == list(await store.lease(NOW, 1, 1, HOLD))


@pytest.mark.parametrize("dry", [True, False])
async def test_a_dry_run_needs_a_store_of_its_own(path: Path, dry: bool) -> None:  # noqa: FBT001 - a parameter
    desk = SqliteStore(str(path))  # a command may come first: it decides nothing
    await desk.open()
    await desk.close()
    for _ in range(2):
        store = SqliteStore(str(path), exclusive=True, dry=dry)
        await store.open()
        await store.close()
    with pytest.raises(StoreRefused, match="of its own"):
        await SqliteStore(str(path), exclusive=True, dry=not dry).open()


async def test_a_file_of_another_program_is_refused(path: Path) -> None:
    con = sqlite3.connect(path)
    con.execute("CREATE TABLE foreign_table (a)")
    con.close()
    with pytest.raises(StoreRefused, match="another program"):
        await SqliteStore(str(path)).open()


async def test_a_store_of_a_newer_release_is_refused(store: SqliteStore, path: Path) -> None:
    await store.close()
    con = sqlite3.connect(path)
    con.execute("PRAGMA user_version = 99")
    con.close()
    with pytest.raises(StoreRefused, match="newer"):
        await SqliteStore(str(path)).open()


async def test_a_file_that_is_no_store_is_unavailable_and_left_alone(path: Path) -> None:
    _write(path, b"not a database" * 1000)
    with pytest.raises(StoreUnavailable, match="not a store"):
        await SqliteStore(str(path), exclusive=True).open()
    assert b"not a database" * 1000 == _read(path)


async def test_a_folder_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        await SqliteStore(str(tmp_path / "nowhere" / "bridge.db"), exclusive=True).open()


# ---- commands beside it ---------------------------------------------------------------------------------------------


async def test_a_command_in_another_process_writes_beside_a_busy_daemon(store: SqliteStore, path: Path) -> None:
    process = child(IMPORT, path, 450)
    accepted = 0
    while process.poll() is None:
        receipts = await asyncio.gather(*(store.accept([arrival()]) for _ in range(10)))
        accepted += len(receipts)
    printed, _ = process.communicate()
    assert ("450", 0) == (printed.strip(), process.returncode)
    assert 450 == len(await store.residences())
    assert accepted == (await store.census()).accepted
    assert 100 == len((await store.claim(1))[1])
    assert [] == await store.verify()


async def test_what_a_command_retries_reaches_the_running_daemon(store: SqliteStore, path: Path) -> None:
    await store.accept([stillborn(), arrival()])
    desk = SqliteStore(str(path))
    await desk.open()
    assert 1 == await desk.retry([letter.id for letter in await desk.dead_letters(DeadFilter())], NOW)
    await desk.close()
    assert [1, 2] == [message.id for message in (await store.claim(10))[0]]
    await store.commit(Work(now=NOW, settled=[1, 2]))
    assert [] == await store.verify()


@pytest.mark.parametrize("verb", ["retry", "discard", "forget"])
async def test_letters_are_worked_on_in_small_transactions(path: Path, verb: str) -> None:
    """A command beside a running daemon writes at most 100 rows a transaction: accepts get their turn in between."""
    transactions: list[float] = []
    desk = SqliteStore(str(path), committed=transactions.append)
    await desk.open()
    await desk.accept([stillborn() for _ in range(250)])
    letters = await desk.dead_letters(DeadFilter(), limit=1_000)
    transactions.clear()
    match verb:
        case "retry":
            await desk.retry([letter.id for letter in letters], NOW)
        case "discard":
            await desk.discard([letter.id for letter in letters], NOW)
        case _:
            ids = [letter.message_id for letter in letters if letter.message_id is not None]
            assert 250 == sum([step.messages async for step in desk.forget(Forgetting(messages=ids), lambda: NOW)])
    assert 3 == len(transactions)
    assert {} == (await desk.census()).dead_letters
    await desk.close()


async def test_a_compacted_file_holds_no_fragment_of_what_was_deleted(store: SqliteStore, path: Path) -> None:
    """Rows that move to another page when theirs is split leave fragments behind, which no deletion reaches."""
    dice = random.Random(1)  # noqa: S311
    for _ in range(60):
        rows = []
        for _ in range(50):
            who = dice.choice(["canary", "other"])
            attributes = {"city": who * dice.randint(1, 150)}
            rows.append(
                Residence(user=f"{who}-{dice.randint(0, 200)}", location=None, building="b", attributes=attributes)
            )
        await store.write_residences(rows)
    for number in range(201):
        async for _ in store.forget(Forgetting(user=f"canary-{number}"), lambda: NOW):
            pass
    beside = files.connect(path, write=True)
    files.empty_log(beside)
    beside.close()
    assert "canary" in _said_in(path), "the canary is alive"
    assert await store.compact(gently=True)
    assert {"other"} == _said_in(path)


def _said_in(path: Path) -> set[str]:
    kept = b"".join(file.read_bytes() for file in path.parent.glob("bridge.db*"))
    return {word for word in ("canary", "other") if word.encode() in kept}


async def test_a_store_held_by_another_process_is_unavailable_and_recovers(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BUSY_TIMEOUT_S", 0.05)
    store = SqliteStore(str(path), exclusive=True)
    await store.open()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    answers = await asyncio.gather(*(store.accept([arrival()]) for _ in range(3)), return_exceptions=True)
    assert ["another process holds the store (database is locked)"] * 3 == [str(answer) for answer in answers]
    other.execute("ROLLBACK")
    other.close()
    assert [1] == [receipt.id for receipt in await store.accept([arrival()])]
    await store.close()


# ---- faults ---------------------------------------------------------------------------------------------------------


async def test_a_part_that_raises_takes_no_other_along(store: SqliteStore) -> None:
    unwritable = Work(now=NOW, settled=[1], users={1: "\ud800"})  # a lone surrogate fits no JSON
    await store.accept([arrival()])
    good, bad, worse, also = await asyncio.gather(
        store.accept([arrival()]),
        store.commit(unwritable),
        store.settle(NOW, [Settlement(call_id=1)], [], [None]),  # type: ignore[list-item]  # the bug to isolate
        store.commit(Work(now=NOW, buildings=[house("b")])),
        return_exceptions=True,
    )
    assert [2] == [receipt.id for receipt in good]  # type: ignore[union-attr]
    assert isinstance(bad, UnicodeEncodeError)
    assert isinstance(worse, AttributeError)
    assert [] == also
    assert 1 == (await store.census()).accepted - 1
    assert [] == await store.verify()


async def test_a_round_that_fails_as_a_whole_is_answered_and_the_next_one_works(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*_: object) -> None:
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(rounds, "accept", damaged)
        with pytest.raises(StoreBroken, match="damaged"):
            await store.accept([arrival()])
    assert [1] == [receipt.id for receipt in await store.accept([arrival()])]


@pytest.mark.parametrize("replaced", [True, False])
async def test_a_store_that_was_deleted_accepts_nothing(
    store: SqliteStore,
    path: Path,
    replaced: bool,  # noqa: FBT001 - a parameter
) -> None:
    await store.accept([arrival()])
    _delete(path)
    if replaced:
        _write(path, b"")
    with pytest.raises(StoreBroken):
        await store.accept([arrival()])


async def test_a_caller_who_has_gone_disturbs_nobody(store: SqliteStore) -> None:
    gone = asyncio.ensure_future(store.accept([arrival()]))
    stays = asyncio.ensure_future(store.accept([arrival()]))
    await asyncio.sleep(0)
    gone.cancel()
    assert 1 == len(await stays)
    assert [] == await store.verify()


async def test_verify_names_a_count_that_the_rows_contradict(store: SqliteStore, path: Path) -> None:
    await store.accept([arrival(), arrival()])
    con = sqlite3.connect(path, isolation_level=None)
    con.execute("UPDATE bridge SET ledger = json_set(ledger, '$.pending', 1)")
    con.close()
    assert [
        "2 messages were accepted, but 1 are accounted for",
        "the ledger says pending = 1, the rows say 2",
    ] == list(await store.verify())


async def test_verify_finds_a_damaged_page(store: SqliteStore, path: Path) -> None:
    await store.accept([arrival(os.urandom(3000)) for _ in range(200)])
    await store.close()
    whole = _read(path)
    middle = len(whole) // 2 // 4096 * 4096
    _write(path, whole[:middle] + b"\xff" * 4096 + whole[middle + 4096 :])
    hurt = SqliteStore(str(path))
    await hurt.open()
    assert any("damaged" in problem for problem in await hurt.verify())
    await hurt.close()


# ---- a full disk ----------------------------------------------------------------------------------------------------


async def _fill(store: SqliteStore) -> int:
    """Accept until the store refuses; return how many messages were accepted."""
    body, accepted = os.urandom(50_000), 0
    for _ in range(1_000):
        try:
            accepted += len(await store.accept([arrival(body) for _ in range(5)]))
        except StoreUnavailable:
            return accepted
    pytest.fail("the disk did not fill")


async def test_on_a_full_disk_settling_and_deleting_go_on_until_accepting_does(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "RESERVE_LOOK_S", 0.0)
    store = SqliteStore(str(small_disk / "bridge.db"), exclusive=True)
    await store.open()
    await store.commit(Work(now=NOW, calls=out(*(events("a", n) for n in range(100)))))
    accepted = await _fill(store)
    assert accepted > 20
    with pytest.raises(StoreUnavailable, match="full"):
        await store.accept([arrival()])
    (lane,) = await store.lease(NOW, 1, 100, HOLD)
    await store.settle(NOW, [Settlement(call_id=row.id, delivered=1) for row in lane.calls], [], [])
    for first in range(1, accepted + 1, 100):
        await store.commit(Work(now=NOW, settled=range(first, min(first + 100, accepted + 1))))
    while await store.sweep(NOW + 2 * DAY, DAY, 1 << 40):
        pass
    census = await store.census()
    assert (100, accepted, 0) == (census.delivered, census.settled, census.pending)
    assert 1 == len(await _accepted_at_last(store))
    assert [] == await store.verify()
    await store.close()


async def _accepted_at_last(store: SqliteStore) -> Sequence[Receipt]:
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(StoreUnavailable):
                return await store.accept([arrival()])


# ---- no scan --------------------------------------------------------------------------------------------------------


async def test_nothing_that_runs_all_the_time_reads_a_whole_table(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trace every statement of a whole day's work, then ask for its plan."""
    seen: set[str] = set()
    connect = files.connect

    def traced(*arguments: Path, write: bool) -> sqlite3.Connection:
        con = connect(*arguments, write=write)
        con.set_trace_callback(seen.add)
        return con

    await store.close()
    monkeypatch.setattr(files, "connect", traced)
    busy = SqliteStore(str(path), exclusive=True)
    await busy.open()
    await _day(busy)
    await busy.close()
    con = sqlite3.connect(path)
    plans = {text: _plan(con, text) for text in seen if text.lstrip().split()[0] in _PLANNED}
    con.close()
    large = ("inbox", "outbox", "seen", "building", "home", "lane", "sheet", "note", "attempt", "letter")
    scans = {text: line for text, plan in plans.items() for line in plan if line.split()[:1] == ["SCAN"]}
    assert {} == {text: line for text, line in scans.items() if line in [f"SCAN {table}" for table in large]}
    sorts = {text: line for text, plan in plans.items() for line in plan if "TEMP B-TREE" in line}
    assert {} == sorts, "where ten thousand rows are due at once, none of them is sorted to find the first"
    assert len(plans) > 30


_PLANNED: Final = ("SELECT", "WITH", "UPDATE", "DELETE", "INSERT")


def _plan(con: sqlite3.Connection, statement: str) -> list[str]:
    return [row[3] for row in con.execute("EXPLAIN QUERY PLAN " + statement)]


async def _day(store: SqliteStore) -> None:
    await store.accept([arrival(message_id="m"), arrival(), arrival(), stillborn()])
    await store.write_residences([Residence(user="u", location=None, building="a")])
    await store.claim(10)
    await store.load(["u"], [], ["a"])
    await store.commit(Work(now=NOW, settled=[1], parked=[(2, "u")], buildings=[house("a")], due={"a": NOW}))
    await store.commit(Work(now=NOW, unparked=["u"], calls=out(events("a", 1), cause=1)))
    await store.commit(Work(now=NOW, settled=[2, 3], due={"a": None}, calls=out(events("a", 1), cause=1)))
    await store.due(NOW, 10)
    lanes = await store.lease(NOW, 10, 10, HOLD)
    ends = [Settlement(call_id=row.id, delivered=1) for lane in lanes for row in lane.calls]
    await store.settle(NOW, ends, [], [])
    await store.next_due()
    await store.census()
    while await store.sweep(NOW + 2 * DAY, DAY, 1 << 40):
        pass


async def test_a_store_of_the_first_schema_is_brought_up_to_date(path: Path) -> None:
    con = sqlite3.connect(path)
    con.executescript(importlib.resources.files("bridge.store").joinpath("sql", "sqlite_1.sql").read_text())
    con.execute("INSERT INTO bridge (one, dry, ledger) VALUES (1, 0, '{}')")
    con.execute(f"PRAGMA application_id = {files.APPLICATION}")
    con.execute("PRAGMA user_version = 1")
    con.commit()
    con.close()
    store = SqliteStore(str(path), exclusive=True)
    await store.open()
    await store.accept([arrival()])
    assert [] == list(await store.ticks("a"))
    assert [] == list(await store.verify())
    await store.close()


def test_no_statement_has_numbered_placeholders() -> None:
    """Python 3.12.0 to 3.12.3 take them for named ones, and warn; our warnings are errors."""
    sources = (ROOT / "bridge" / "store" / "sqlite").glob("*.py")
    assert [] == [(path.name, found) for path in sources for found in re.findall(r"\?\d+", path.read_text())]
