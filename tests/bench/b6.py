"""B6, slot close: 100,000 buildings of 5 devices close one quarter hour, while the door goes on accepting.

A store full of households whose slot is over (see `street`) is served by a daemon whose simulated clock shows a moment
before that slot is due; the sender is off, because what counts is "closed and queued". Beside it an open-loop client
sends messages of devices that make no calls, so that every call in the outbox is the slot's. Afterwards the outbox is
compared, building by building and value by value, with what the law says of the states that were written.
A second run does the same with `spread` = 0, where everything is due at once: what the bridge can do at all.
"""

import asyncio
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

from bridge import times
from bridge.config import Settings
from bridge.core.effects import SendEvents
from bridge.core.messages import Tick
from bridge.core.reduce import reduce
from bridge.core.rules import Rules
from bridge.store.codec import Form, decode_call
from tests.bench.load import Client
from tests.bench.process import BrokenError
from tests.bench.report import Result
from tests.bench.setting import Setting
from tests.bench.street import NOON, Street, Talk, lived
from tests.bench.subject import Bridge, bridge

BUILDINGS: Final = 100_000
GOAL_S: Final = 240.0
GOAL_P99_MS: Final = 50.0
GOAL_MB: Final = 300.0
RATE: Final = 100.0  # msg/s at the door meanwhile
CONNECTIONS: Final = 16
ROOMS: Final = "receiver,worker,clock"
LEAD_S: Final = 16.0  # from the start of the process to boundary + grace; in a smoke run just enough to start
PATIENCE_S: Final = 600.0
_SMOKE_BUILDINGS: Final = 2_000
_SMOKE_SPREAD: Final = timedelta(seconds=5)
_LOOK_S: Final = 0.25

Values = tuple[tuple[str, str, float], ...]
"""Source, type and value of the events that one building's slot is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """What one slot close took."""

    seconds: float  # from boundary + grace to the last building
    cpu_us: float  # per building, accepts included
    share: float  # of the core
    foreign: float
    p50_ms: float  # of the accepts meanwhile
    p99_ms: float
    calm_p99_ms: float  # of the accepts before: what the door takes on this machine while nothing closes
    accepted: int
    events: int
    peak_mb: float


async def run(setting: Setting) -> list[Result]:
    """Return the results of B6."""
    rules = Settings().rules()
    if setting.smoke:
        rules = replace(rules, spread=_SMOKE_SPREAD)
    models = await lived(rules, NOON)
    street = Street(models=models, count=_SMOKE_BUILDINGS if setting.smoke else BUILDINGS)
    spread = await _closing(setting, street, rules)
    at_once = await _closing(setting, street, replace(rules, spread=timedelta()))
    return [
        Result(
            name="B6 slot close",
            goal=f"≤ {GOAL_S:.0f} s",
            measured=f"{spread.seconds:.0f} s",
            ratio=GOAL_S / spread.seconds,
            detail=f"{_said(spread)}; {street.count:,} buildings × 5 devices, {spread.events:,} events queued, each "
            f"building's once and as expected; spread {rules.spread.total_seconds():.0f} s",
        ),
        Result(
            name="B6 accepts meanwhile",
            goal=f"p99 ≤ {GOAL_P99_MS:.0f} ms",
            measured=f"p99 {spread.p99_ms:.1f} ms",
            ratio=GOAL_P99_MS / spread.p99_ms,
            detail=f"p50 {spread.p50_ms:.1f} ms, open loop at {RATE:.0f} msg/s, from the scheduled send time; "
            f"just before the close p99 {spread.calm_p99_ms:.1f} ms",
        ),
        Result(
            name="B6 memory",
            goal=f"≤ {GOAL_MB:.0f} MB",
            measured=f"{spread.peak_mb:.0f} MB",
            ratio=GOAL_MB / spread.peak_mb,
            detail="peak of the resident memory",
        ),
        Result(
            name="B6 without spread",
            goal=f"≤ {GOAL_S:.0f} s",
            measured=f"{at_once.seconds:.0f} s",
            ratio=GOAL_S / at_once.seconds,
            detail=f"{_said(at_once)}; accepts p50 {at_once.p50_ms:.1f} ms, p99 {at_once.p99_ms:.1f} ms, "
            f"just before {at_once.calm_p99_ms:.1f} ms",
        ),
    ]


def _said(closing: Closing) -> str:
    return (
        f"{closing.cpu_us:.0f} µs CPU per building, {closing.share:.0%} of the core (others {closing.foreign:.0%}), "
        f"{closing.peak_mb:.0f} MB; {closing.accepted:,} messages accepted meanwhile"
    )


async def _closing(setting: Setting, street: Street, rules: Rules) -> Closing:
    """Serve the street over the boundary; raises BrokenError if anything is missing or twice."""
    folder = setting.folder("b6")
    await street.write(folder / "bridge.db", rules)
    expected = _expected(street, rules)
    anchor = times.wall() + timedelta(seconds=setting.seconds(LEAD_S))
    more = (
        f'[intervals]\nspread = "{rules.spread.total_seconds():.0f}s"\n'
        f"[clock]\nstart = {(NOON + rules.grace).isoformat()}\nanchor = {anchor.isoformat()}\n"
    )
    now = times.simulated(NOON + rules.grace, 1, anchor)
    with bridge(folder, setting.cores, ROOMS, more=more) as subject:
        due = time.perf_counter() + (anchor - times.wall()).total_seconds()
        client = await Client.connected(subject.port, CONNECTIONS)
        done = asyncio.Event()
        talk = Talk(street, now)
        load = asyncio.create_task(client.offer(RATE, PATIENCE_S, talk.next, patient=True, until=done.is_set))
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        watch = subject.process.watch()
        try:
            seconds = await _closed(subject, sum(len(values) for values in expected.values()), due)
        finally:
            done.set()
        use = watch.stop()
        await load
        await subject.idle()
        health = await subject.audit(client.tally)
        peak = subject.process.peak_mb
        client.close()
    if health["calls"]["queued"] != sum(len(values) for values in expected.values()):
        msg = f"more is queued than the slot: {health['calls']}"
        raise BrokenError(msg)
    _compare(folder / "bridge.db", expected)
    shutil.rmtree(folder)
    lead = due - min(client.due)
    return Closing(
        seconds=seconds,
        cpu_us=use.us_per(street.count),
        share=use.share,
        foreign=use.foreign,
        calm_p99_ms=client.percentile(0.99, before=lead) * 1000,
        p50_ms=client.percentile(0.5, after=lead) * 1000,
        p99_ms=client.percentile(0.99, after=lead) * 1000,
        accepted=client.tally.accepted,
        events=health["calls"]["queued"],
        peak_mb=peak,
    )


async def _closed(subject: Bridge, events: int, due: float) -> float:
    """Wait until that many events are queued; return how long after `due` that was [s]."""
    queued, ends = 0, time.perf_counter() + PATIENCE_S
    while queued < events:
        if time.perf_counter() > ends:
            msg = f"{queued:,} of {events:,} events were queued within {PATIENCE_S:.0f} s"
            raise BrokenError(msg)
        await asyncio.sleep(_LOOK_S)
        queued = (await subject.health())["calls"]["queued"]
    return time.perf_counter() - due


def _expected(street: Street, rules: Rules) -> Mapping[str, Values]:
    """Return what every building's slot is, by the law."""
    tick = Tick(now=NOON + rules.grace + rules.spread, catching_up=False)
    of_model = [_values(reduce(model.state, tick, rules)[1]) for model in street.models]
    return {street.id(number): of_model[number % len(of_model)] for number in range(street.count)}


def _values(effects: Any) -> Values:  # noqa: ANN401 - effects, or one call
    return tuple(
        (str(event.source), str(event.type), event.value)
        for effect in effects
        if isinstance(effect, SendEvents)
        for event in effect.events
    )


def _compare(path: Path, expected: Mapping[str, Values]) -> None:
    """Hold the outbox against what was expected; raises BrokenError for the first difference."""
    con = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    found: Counter[str] = Counter()
    try:
        for building, form, call in con.execute("SELECT building, form, call FROM outbox"):
            found[building] += 1
            values = _values([decode_call(form, call)])
            if form != Form.EVENTS or values != expected.get(building) or found[building] > 1:
                msg = f"row {found[building]} of {building}: {msgspec.to_builtins(values)}"
                raise BrokenError(msg)
    finally:
        con.close()
    missing = [building for building, values in expected.items() if values and building not in found]
    if missing:
        msg = f"{len(missing)} buildings have no slot, such as {missing[0]}"
        raise BrokenError(msg)
