"""B2, worker and door together: the highest offered rate that one core follows, message by message and in arrays.

Open loop: the load offers so many messages per second whatever the bridge does. It follows if what is offered and not
yet settled does not grow. The rate is searched in short trials and then held for a minute by a fresh process.
Default settings, sender off, 1,000 buildings, every message with a new value, a fifth of them a vehicle's new state of
charge, which makes an event that leaves at once.
"""

import asyncio
import contextlib
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tests.bench.homes import Homes
from tests.bench.load import Client, Request
from tests.bench.process import BrokenError, running
from tests.bench.report import Result
from tests.bench.setting import Setting
from tests.bench.subject import Bridge, bridge, sandbox

CONNECTIONS: Final = 64
CONNECTIONS_ARRAYS: Final = 8  # few requests: a connection that waits for long would be closed
ROOMS: Final = "receiver,worker,clock"
GOAL: Final = 2_500.0  # msg/s
GOAL_NAIVE: Final = 10.0
GOAL_ARRAYS: Final = 1.6
FIRST_RATE: Final = 1_500.0
TRIAL_S: Final = 5.0
HOLD_S: Final = 60.0
HOLD_ARRAYS_S: Final = 30.0
NAIVE_S: Final = 4.0
NAIVE_REPEATS: Final = 5
GROWS_S: Final = 0.2  # of load more in hand at the end than near the begin: it grows
CLOSE_ENOUGH: Final = 1.06  # between the highest rate that held and the lowest that did not
TRIES: Final = 8  # the search takes seconds, and a state grows while it is held: what held there may not hold here
LEAST: Final = 50.0  # msg/s; a bridge that does not follow that is broken
_LOOK_S: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of load."""

    make: Callable[[], Request]
    connections: int
    hold_s: float
    start: float  # where the search begins [msg/s]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One offered rate and what it did."""

    rate: float  # messages per second
    held: bool
    cpu_us: float  # per message
    share: float  # of the core that the bridge had
    foreign: float  # of the core that others had
    events: float  # per message
    in_hand: float  # offered and not yet settled, at the end [s of load]
    peak_mb: float


async def run(setting: Setting) -> list[Result]:
    """Return the results of B2 and B2b."""
    homes = setting.homes()
    single = await highest(setting, one_by_one(homes))
    naive = await _naive(setting, homes)
    hundreds = Kind(
        make=homes.next_hundred, connections=CONNECTIONS_ARRAYS, hold_s=HOLD_ARRAYS_S, start=1.5 * single.rate
    )
    arrays = await highest(setting, hundreds)
    return [
        _result("B2 worker and door", f"≥ {GOAL:,.0f} msg/s", single, single.rate / GOAL, setting.seconds(HOLD_S)),
        Result(
            name="B2 against naive",
            goal=f"≥ {GOAL_NAIVE:.0f} × naive",
            measured=f"{single.rate / naive:.1f} × naive",
            ratio=single.rate / naive / GOAL_NAIVE,
            detail=f"naive: {naive:,.0f} msg/s, median of {setting.repeats(NAIVE_REPEATS)}; answered and forgotten",
        ),
        _result(
            "B2b arrays of 100",
            f"≥ {GOAL_ARRAYS} × B2",
            arrays,
            arrays.rate / single.rate / GOAL_ARRAYS,
            setting.seconds(HOLD_ARRAYS_S),
        ),
    ]


def _result(name: str, goal: str, trial: Trial, ratio: float, seconds: float) -> Result:
    detail = (
        f"held {seconds:.0f} s with {trial.in_hand:.2f} s of load in hand; {trial.cpu_us:.0f} µs CPU per message, "
        f"{trial.share:.0%} of the core (others {trial.foreign:.0%}), {trial.events:.2f} events per message, "
        f"{trial.peak_mb:.0f} MB"
    )
    return Result(
        name=name, goal=goal, measured=f"{trial.rate:,.0f} msg/s", ratio=ratio if trial.held else 0.0, detail=detail
    )


def one_by_one(homes: Homes) -> Kind:
    """Return the load of B2."""
    return Kind(make=homes.next, connections=CONNECTIONS, hold_s=HOLD_S, start=FIRST_RATE)


async def highest(setting: Setting, kind: Kind) -> Trial:
    """Return the long trial at the highest rate that held."""
    async with _ready(setting) as subject:
        rate = await _search(setting, subject, kind)
    for _ in range(TRIES):
        async with _ready(setting) as subject:
            trial = await _trial(subject, kind, rate, setting.seconds(kind.hold_s))
        if trial.held:
            break
        rate *= 0.94
    return trial


@contextlib.asynccontextmanager
async def _ready(setting: Setting) -> AsyncIterator[Bridge]:
    """Serve on a fresh store that knows every device."""
    with bridge(setting.folder("b2"), setting.cores, ROOMS) as subject:
        client = await Client.connected(subject.port, CONNECTIONS)
        firsts = setting.homes().firsts()
        await client.flood(lambda: next(firsts, None))
        client.close()
        await subject.idle()
        yield subject


async def _search(setting: Setting, subject: Bridge, kind: Kind) -> float:
    """Return the highest rate that held for a few seconds; one that misses has a second chance, for the noise."""
    held, missed, rate = 0.0, float("inf"), kind.start
    while missed > CLOSE_ENOUGH * held and rate > LEAST:
        for _ in range(2):
            trial = await _trial(subject, kind, rate, setting.seconds(TRIAL_S))
            if trial.held:
                break
        held, missed = (rate, missed) if trial.held else (held, rate)
        if missed == float("inf"):
            rate = max(1.2 * held, min(1e6 / trial.cpu_us, 1.5 * held))
        else:
            rate = (held * missed) ** 0.5 if held else missed / 1.3
    return held


async def _trial(subject: Bridge, kind: Kind, rate: float, seconds: float) -> Trial:
    """Offer a rate for some seconds, drain, hold the accounts against each other; raises BrokenError."""
    before = await subject.idle()
    client = await Client.connected(subject.port, kind.connections)
    watch, began = subject.process.watch(), time.perf_counter()
    offering = asyncio.create_task(client.offer(rate, seconds, kind.make))
    looks: list[float] = []
    while not offering.done():
        await asyncio.sleep(_LOOK_S)
        settled = (await subject.health())["ledger"]["settled"] - before["ledger"]["settled"]
        since = time.perf_counter() - began
        if since <= seconds or not looks:  # what is worked off after the offer's end would hide that it grew
            looks.append(since * rate - settled)
    use = watch.stop()
    follows = await offering
    await subject.idle()
    after = await subject.audit(client.tally, before=before["ledger"]["accepted"])
    client.close()
    sent = client.tally.sent
    settled = after["ledger"]["settled"] - before["ledger"]["settled"]
    if settled != sent:
        msg = f"{sent} were sent, {settled} settled"
        raise BrokenError(msg)
    trial = Trial(
        rate=rate,
        held=follows and not _grows(looks, rate),
        cpu_us=use.us_per(sent),
        share=use.share,
        foreign=use.foreign,
        events=(after["calls"]["queued"] - before["calls"]["queued"]) / sent,
        in_hand=looks[-1] / rate,
        peak_mb=subject.process.peak_mb,
    )
    print(f"{rate:,.0f} msg/s {'held' if trial.held else 'missed'}: {trial}", file=sys.stderr, flush=True)
    return trial


def _grows(looks: Sequence[float], rate: float) -> bool:
    """Tell whether what is in hand grows: its mean in the last fifth against that in the second."""
    fifth = max(1, len(looks) // 5)
    return statistics.mean(looks[-fifth:]) - statistics.mean(looks[fifth : 2 * fifth]) > GROWS_S * rate


async def _naive(setting: Setting, homes: Homes) -> float:
    """Return the messages per second of the naive bridge, all connections always busy."""
    folder = setting.folder("naive")
    with sandbox(folder, setting.cores) as moost:
        command = [sys.executable, "-m", "tests.bench.naive", f"http://127.0.0.1:{moost.port}"]
        with running(command, core=setting.cores.server, log=folder / "naive.log", address=r"127.0.0.1:(\d+)") as naive:
            client = await Client.connected(naive.port, CONNECTIONS)
            firsts = homes.firsts()
            await client.flood(lambda: next(firsts, None))
            rates: list[float] = []
            for _ in range(setting.repeats(NAIVE_REPEATS)):
                began, accepted = time.perf_counter(), client.tally.accepted
                ends = began + setting.seconds(NAIVE_S)
                await client.flood(lambda: homes.next() if time.perf_counter() < ends else None)  # noqa: B023
                rates.append((client.tally.accepted - accepted) / (time.perf_counter() - began))
            client.close()
    if not client.tally.balanced or client.tally.refused:
        raise BrokenError(str(client.tally))
    return statistics.median(rates)
