"""B1, durable accept: 1 KB vehicle updates, signed, on the disk before the 202, over 64 connections.

Beside the bridge stands the same written bare (`bare`). Both have the same core in turns, five times each: the ratio
of neighbours is what counts, for the machine is noisy. Then the latency of the bridge at half its throughput.
"""

import itertools
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.bench import wrk
from tests.bench.homes import Homes, kilobytes
from tests.bench.load import Client, Request
from tests.bench.process import BrokenError, Process, running
from tests.bench.report import Result
from tests.bench.setting import Setting
from tests.bench.subject import Bridge, bridge

CONNECTIONS: Final = 64
FASTEST: Final = 20_000  # requests per second to prepare
GOAL_RATIO: Final = 0.5
GOAL_P99_MS: Final = 25.0
WARM_UP_S: Final = 2.0


async def run(setting: Setting) -> list[Result]:
    """Return the results of B1."""
    homes = setting.homes()
    requests = kilobytes(homes.vehicles)
    folder = setting.folder("b1")
    bare = [sys.executable, "-m", "tests.bench.bare", str(folder / "bare.db")]
    with (
        running(bare, core=setting.cores.server, log=folder / "bare.log", address=r"127.0.0.1:(\d+)") as reference,
        bridge(folder, setting.cores, "receiver") as subject,
    ):
        pairs = await _pairs(setting, reference, subject, requests, folder)
        ratio = statistics.median(ours / theirs for ours, theirs, _ in pairs)
        ours = statistics.median(pair[0] for pair in pairs)
        theirs = statistics.median(pair[1] for pair in pairs)
        cpu = statistics.median(pair[2] for pair in pairs)
        p50, p99 = await _latency(setting, subject, homes, ours / 2)
    load = "wrk" if wrk.found() else "a client of ours"
    return [
        Result(
            name="B1 durable accept",
            goal=f"≥ {GOAL_RATIO} × bare",
            measured=f"{ours:,.0f} msg/s",
            ratio=ratio / GOAL_RATIO,
            detail=f"{ratio:.2f} × bare ({theirs:,.0f} msg/s), median of {len(pairs)}; "
            f"{cpu:.0f} µs CPU per message; load: {load}",
        ),
        Result(
            name="B1 latency",
            goal=f"p99 ≤ {GOAL_P99_MS:.0f} ms",
            measured=f"p99 {p99:.1f} ms",
            ratio=GOAL_P99_MS / p99,
            detail=f"p50 {p50:.1f} ms, open loop at {ours / 2:,.0f} msg/s, from the scheduled send time",
        ),
    ]


async def _pairs(
    setting: Setting, reference: Process, subject: Bridge, requests: Iterator[Request], folder: Path
) -> list[tuple[float, float, float]]:
    """Return throughput of bridge and reference, and CPU per message of the bridge [µs], turn by turn."""
    seconds = setting.seconds(4)
    pairs, stored = [], 0
    for turn in range(setting.repeats(5) + 1):
        theirs, _, _ = await _load(reference, seconds, requests, folder)
        ours, new, cpu = await _load(subject.process, seconds, requests, folder)
        stored += new
        health = await subject.health()
        if health["ledger"]["accepted"] != stored:
            msg = f"{stored} different messages were sent, {health['ledger']['accepted']} accepted"
            raise BrokenError(msg)
        if turn:  # the first turn warms up
            pairs.append((ours, theirs, cpu))
    return pairs


async def _load(
    process: Process, seconds: float, requests: Iterator[Request], folder: Path
) -> tuple[float, int, float]:
    """Return messages per second, how many were sent, and the CPU time of one [µs]; raises BrokenError."""
    batch = list(itertools.islice(requests, int(FASTEST * seconds)))
    watch = process.watch()
    if not wrk.found():
        return await _own_load(process, seconds, batch)
    done = await wrk.load(process.port, seconds, batch, CONNECTIONS, folder)
    cpu = watch.stop().us_per(done.answered)
    tally = await wrk.again(process.port, batch, done)
    if not tally.balanced or tally.refused:
        raise BrokenError(str(tally))
    return done.rate, done.sent, cpu


async def _own_load(process: Process, seconds: float, batch: list[Request]) -> tuple[float, int, float]:
    """Do the same without wrk, which costs the load's core a multiple."""
    client = await Client.connected(process.port, CONNECTIONS)
    watch, began = process.watch(), time.perf_counter()
    source = iter(batch)
    await client.flood(lambda: next(source, None) if time.perf_counter() - began < seconds else None)
    took = time.perf_counter() - began
    client.close()
    tally = client.tally
    if not tally.balanced or tally.refused:
        raise BrokenError(str(tally))
    return tally.accepted / took, tally.sent, watch.stop().us_per(tally.accepted)


async def _latency(setting: Setting, subject: Bridge, homes: Homes, rate: float) -> tuple[float, float]:
    """Return the median and the 99th percentile of the time to answer [ms]."""
    before = (await subject.health())["ledger"]["accepted"]
    requests = kilobytes(homes.vehicles)
    client = await Client.connected(subject.port, CONNECTIONS)
    await client.offer(rate, setting.seconds(12), lambda: next(requests), patient=True)
    await subject.audit(client.tally, before=before)
    client.close()
    return client.percentile(0.5, after=WARM_UP_S) * 1000, client.percentile(0.99, after=WARM_UP_S) * 1000
