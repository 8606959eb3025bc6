"""B5, many buildings: CPU per message from the door to MOOST with 1,000 and with 100,000 buildings.

Two daemons, each with its look-alike of MOOST, have the same core in turns and the same load per turn: the ratio of
neighbours is what counts, for the machine is noisy. The load is spread over all buildings, so that of 100,000 nearly
none is met twice. The small daemon is a fresh one in each turn: its few households speak so often that their open slot
would soon hold more values than any in life. Every turn is run until everything is delivered; what the look-alike
received is counted then.
"""

import contextlib
import random
import shutil
import statistics
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from bridge import times
from bridge.config import Settings
from tests.bench.homes import SEED
from tests.bench.load import Client, get
from tests.bench.process import BrokenError, Process
from tests.bench.report import Result
from tests.bench.setting import Setting
from tests.bench.street import NOON, Street, Talk, lived
from tests.bench.subject import Bridge, bridge, sandbox

FEW: Final = 1_000
MANY: Final = 100_000
GOAL_GROWTH: Final = 0.35
GOAL_MB: Final = 300.0
RATE: Final = 1_000.0  # msg/s
TURN_S: Final = 10.0
WARM_UP_S: Final = 4.0
TURNS: Final = 5
CONNECTIONS: Final = 64
ROOMS: Final = "receiver,worker,sender,clock"
STARTS: Final = timedelta(minutes=6)  # after the boundary: all slots are closed, the next is far away
VEHICLES: Final = 10_000  # of as many buildings the vehicle speaks
_SMOKE_MANY: Final = 5_000


@dataclass(slots=True, kw_only=True)
class Town:
    """A daemon with a street to serve, and its MOOST."""

    subject: Bridge
    moost: Process
    talk: Talk


async def run(setting: Setting) -> list[Result]:
    """Return the results of B5."""
    rules, many = Settings().rules(), _SMOKE_MANY if setting.smoke else MANY
    models = await lived(rules, NOON + rules.grace + rules.spread)
    pairs = []
    async with _town(setting, Street(models=models, count=many)) as large:
        await _turn(large, setting.seconds(WARM_UP_S))
        for _ in range(setting.repeats(TURNS)):
            async with _town(setting, Street(models=models, count=FEW)) as small:
                await _turn(small, setting.seconds(WARM_UP_S))
                seconds = setting.seconds(TURN_S)
                pairs.append((await _turn(small, seconds), await _turn(large, seconds)))
                await _all_delivered(small)
        await _all_delivered(large)
        peak = large.subject.process.peak_mb
    growth = statistics.median(large / small for small, large in pairs) - 1
    of_few, of_many = (statistics.median(side) for side in zip(*pairs, strict=True))
    return [
        Result(
            name="B5 many buildings",
            goal=f"grows ≤ {GOAL_GROWTH:.0%}",
            measured=f"{growth:+.0%}",
            ratio=(1 + GOAL_GROWTH) / (1 + growth),
            detail=f"{of_few:.0f} µs CPU per message with {FEW:,} buildings, {of_many:.0f} µs with {many:,}, median of "
            f"{len(pairs)} turns at {RATE:,.0f} msg/s, a fifth of them events that leave at once",
        ),
        Result(
            name="B5 memory",
            goal=f"≤ {GOAL_MB:.0f} MB",
            measured=f"{peak:.0f} MB",
            ratio=GOAL_MB / peak,
            detail=f"peak of the resident memory with {many:,} buildings",
        ),
    ]


@contextlib.asynccontextmanager
async def _town(setting: Setting, street: Street) -> AsyncIterator[Town]:
    """Serve a street whose speaking vehicles MOOST knows."""
    folder = setting.folder("b5")
    vehicles = random.Random(SEED).sample(range(street.count), min(VEHICLES, street.count))
    await street.write(folder / "bridge.db", Settings().rules(), announced=vehicles)
    anchor = times.wall()
    more = f"[clock]\nstart = {(NOON + STARTS).isoformat()}\nanchor = {anchor.isoformat()}\n"
    talk = Talk(street, times.simulated(NOON + STARTS, 1, anchor), vehicles=vehicles)
    with (
        sandbox(folder, setting.cores) as moost,
        bridge(folder, setting.cores, ROOMS, moost=f"http://127.0.0.1:{moost.port}", more=more) as subject,
    ):
        await subject.idle(calls=True)
        yield Town(subject=subject, moost=moost, talk=talk)
    shutil.rmtree(folder)


async def _turn(town: Town, seconds: float) -> float:
    """Offer the load for some seconds and let everything be delivered; return the CPU per message [µs]."""
    before = (await town.subject.idle(calls=True))["ledger"]["accepted"]
    client = await Client.connected(town.subject.port, CONNECTIONS)
    watch = town.subject.process.watch()
    await client.offer(RATE, seconds, town.talk.next, patient=True)
    await town.subject.idle(calls=True)
    use = watch.stop()
    client.close()
    await town.subject.audit(client.tally, before=before)
    return use.us_per(client.tally.sent)


async def _all_delivered(town: Town) -> None:
    """Compare what MOOST received with what was queued; raises BrokenError where they differ."""
    calls = (await town.subject.health())["calls"]
    received = await get(town.moost.port, "/_sandbox/counts")
    events = received["events"]["live"] + received["events"]["historical"]
    if calls["delivered"] != calls["queued"] or events != town.talk.calls or received["violations"]:
        msg = f"{town.talk.calls} events were due, MOOST has {received}, the ledger says {calls}"
        raise BrokenError(msg)
