"""B4, a backlog: a million queued messages are no reason to start late, to grow or to work slower.

The backlog is written straight into the store: `BUILDINGS` households said a hundred messages each within a quarter
hour, ten times as many as in life, where a million messages are nearly three hours of them. The daemon is started on it
several times, each time until its first 202; then it drains it with nobody at the door. At the end a million settled
messages are past their retention: they are deleted beside a steady load, whose answers are timed.
"""

import asyncio
import contextlib
import itertools
import shutil
import sqlite3
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from bridge.store.port import Arrival
from bridge.store.sqlite import SqliteStore
from tests.bench import b2
from tests.bench.homes import SUBSCRIPTION, Homes, stamp
from tests.bench.load import Client
from tests.bench.process import BrokenError
from tests.bench.report import Result
from tests.bench.setting import Setting
from tests.bench.subject import bridge

BUILDINGS: Final = 10_000
SMOKE_BUILDINGS: Final = 1_000
MESSAGES: Final = 1_000_000
SMOKE_MESSAGES: Final = 50_000
FILL_ROWS: Final = 1_000  # messages a transaction
STARTS: Final = 5
ROOMS: Final = "receiver,worker,clock"  # as B2
GOAL_START_S: Final = 2.0
GOAL_MB: Final = 300.0
GOAL_DRAIN: Final = 0.8
GOAL_SWEEP_P99_MS: Final = 50.0
CALM_S: Final = 20.0
SWEEP_RATE: Final = 200.0  # msg/s beside the sweep
CONNECTIONS: Final = 16
DRAIN_S: Final = 3_600.0  # longest
SWEEP_S: Final = 600.0
_LOOK_S: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """How a backlog went."""

    rate: float  # messages per second
    cpu_us: float  # per message
    share: float  # of the core that the bridge had
    peak_mb: float


async def run(setting: Setting) -> list[Result]:
    """Return the results of B4."""
    count, folder = SMOKE_MESSAGES if setting.smoke else MESSAGES, setting.folder("b4")
    await _fill(folder / "bridge.db", Homes(SMOKE_BUILDINGS if setting.smoke else BUILDINGS), count)
    starts = [await _start(setting, folder) for _ in range(setting.repeats(STARTS))]
    drain = await _drain(setting, folder)
    sweep = await _sweep(setting, folder, count)
    shutil.rmtree(folder)
    beside = await b2.highest(setting, b2.one_by_one(setting.homes()))
    return [
        Result(
            name="B4 first 202",
            goal=f"≤ {GOAL_START_S:.0f} s",
            measured=f"{statistics.median(starts):.2f} s",
            ratio=GOAL_START_S / statistics.median(starts),
            detail=f"median of {len(starts)} starts with {count:,} queued messages, longest {max(starts):.2f} s",
        ),
        Result(
            name="B4 memory",
            goal=f"≤ {GOAL_MB:.0f} MB",
            measured=f"{drain.peak_mb:.0f} MB",
            ratio=GOAL_MB / drain.peak_mb,
            detail=f"peak of the resident memory while {count:,} messages drain",
        ),
        Result(
            name="B4 drain",
            goal=f"≥ {GOAL_DRAIN} × B2",
            measured=f"{drain.rate:,.0f} msg/s",
            ratio=drain.rate / beside.rate / GOAL_DRAIN,
            detail=f"{drain.cpu_us:.0f} µs CPU per message, {drain.share:.0%} of the core; B2 in the same run: "
            f"{beside.rate:,.0f} msg/s, {beside.cpu_us:.0f} µs",
        ),
        sweep,
    ]


async def _fill(path: Path, homes: Homes, count: int) -> None:
    """Queue messages as the door does, without the door."""
    store = SqliteStore(str(path), exclusive=True)
    await store.open()
    arrivals = _arrivals(homes)
    for _ in range(0, count, FILL_ROWS):
        await store.accept(list(itertools.islice(arrivals, FILL_ROWS)))
    await store.close()


def _arrivals(homes: Homes) -> Iterator[Arrival]:
    """Yield messages of all devices in turn, each new."""
    for number in itertools.count():
        device = homes.devices[number % len(homes.devices)]
        yield Arrival(
            subscription=SUBSCRIPTION,
            topic=device.topic,
            body=device.body(stamp()),
            received=datetime.now(UTC),
            message_id=f"backlog-{number:09}",
        )


async def _start(setting: Setting, folder: Path) -> float:
    """Start the daemon; return how long it takes to its first 202 [s]."""
    began = time.perf_counter()
    with bridge(folder, setting.cores, ROOMS) as subject:
        client = await Client.connected(subject.port, 1)
        while not client.tally.accepted:
            requests = iter([setting.homes().next()])
            await client.flood(lambda: next(requests, None))  # noqa: B023 - run at once
        took = time.perf_counter() - began
        client.close()
    return took


async def _drain(setting: Setting, folder: Path) -> Drain:
    """Let the backlog drain."""
    with bridge(folder, setting.cores, ROOMS) as subject:
        watch, began = subject.process.watch(), time.perf_counter()
        first = last = (await subject.health())["ledger"]
        while last["pending"]:
            if time.perf_counter() - began > DRAIN_S:
                msg = f"{last['pending']:,} messages still wait after {DRAIN_S:.0f} s"
                raise BrokenError(msg)
            await asyncio.sleep(_LOOK_S)
            last = (await subject.health())["ledger"]
        seconds, use = time.perf_counter() - began, watch.stop()
        settled = last["settled"] - first["settled"]
        if settled != first["pending"]:
            msg = f"{first['pending']:,} messages waited, {settled:,} settled: {last}"
            raise BrokenError(msg)
        return Drain(
            rate=settled / seconds, cpu_us=use.us_per(settled), share=use.share, peak_mb=subject.process.peak_mb
        )


async def _sweep(setting: Setting, folder: Path, count: int) -> Result:
    """Serve a steady load without and with a million messages to delete."""
    async with _loaded(setting, folder, {}) as calm:
        await asyncio.sleep(setting.seconds(CALM_S))
    async with _loaded(setting, folder, {"BRIDGE_STORE__RETENTION": "1s"}) as client:
        began = time.perf_counter()
        while (swept := _swept(folder / "bridge.db")) < count:
            if time.perf_counter() - began > SWEEP_S:
                msg = f"{swept:,} of {count:,} messages were deleted within {SWEEP_S:.0f} s"
                raise BrokenError(msg)
            await asyncio.sleep(_LOOK_S)
        seconds = time.perf_counter() - began
    p99_ms = client.percentile(0.99) * 1000
    return Result(
        name="B4 sweep",
        goal=f"p99 ≤ {GOAL_SWEEP_P99_MS:.0f} ms",
        measured=f"p99 {p99_ms:.1f} ms",
        ratio=GOAL_SWEEP_P99_MS / p99_ms,
        detail=f"accepts while {count:,} messages are deleted in {seconds:.0f} s: {_times(client)}; before: "
        f"{_times(calm)}; {SWEEP_RATE:.0f} msg/s",
    )


def _times(client: Client) -> str:
    return f"p50 {client.percentile(0.5) * 1000:.1f} ms, longest {client.percentile(1.0) * 1000:.0f} ms"


@contextlib.asynccontextmanager
async def _loaded(setting: Setting, folder: Path, environ: dict[str, str]) -> AsyncIterator[Client]:
    """Serve, and offer a steady load while the block runs; raises BrokenError where the accounts do not balance."""
    with bridge(folder, setting.cores, ROOMS, environ=environ) as subject:
        before: dict[str, Any] = await subject.idle()
        client = await Client.connected(subject.port, CONNECTIONS)
        done = asyncio.Event()
        load = asyncio.create_task(
            client.offer(SWEEP_RATE, SWEEP_S, setting.homes().next, patient=True, until=done.is_set)
        )
        try:
            yield client
        finally:
            done.set()
            await load
        await subject.idle()
        await subject.audit(client.tally, before=before["ledger"]["accepted"])
        client.close()


def _swept(path: Path) -> int:
    """Return up to which message everything is deleted."""
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as con:
        return int(con.execute("SELECT ledger ->> 'swept' FROM bridge").fetchone()[0])
