"""One row: an attack beside the canary, measured, and held against the goal.

Rules:
- The same daemon is measured idle and under attack; a percentile is that of the canary's requests due in that time.
- The delay of an event is from when its post was due until MOOST has it. One that never came counts as the whole wait.
- CPU is what the daemon used beyond what the canary costs when nothing else happens, until the attack is worked off or
  the wait is over.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from tests.isolation.canary import Sample
from tests.isolation.ground import Ground, Subject, subject, waited_s
from tests.isolation.wire import Lines

P99_TIMES: Final = 3.0  # of the idle p99
P99_MS: Final = 250.0
EVENT_S: Final = 2.0
MEMORY_MB: Final = 400.0
END_S: Final = 21.0  # server.drain_timeout and one more
SETTLE_S: Final = 8.0  # what is under way at the end may take so long


@dataclass
class Attack:
    """What an attack is given."""

    subject: Subject
    lines: Lines
    ends: float  # [s of the monotonic clock]
    wrong: list[str] = field(default_factory=list)  # beyond what every row is held against
    notes: list[str] = field(default_factory=list)
    down: list[tuple[float, float]] = field(default_factory=list)  # when there was no daemon [s of the monotonic clock]
    own: set[str] = field(default_factory=set)  # what it sends as the canary

    @property
    def left(self) -> float:
        """Return how much of its time is left [s]."""
        return self.ends - time.monotonic()

    async def together(self, *each: Awaitable[None]) -> None:
        """Do several things at once until the time is over."""
        tasks = [asyncio.ensure_future(one) for one in each]
        done, waiting = await asyncio.wait(tasks, timeout=max(0.0, self.left))
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for task in done:
            task.result()


@dataclass(frozen=True, kw_only=True)
class Row:
    """An attack: which line of the promise it tries, what it does, what else has to hold afterwards."""

    name: str  # the number of a line, and a letter where it has several
    what: str
    attack: Callable[[Attack], Awaitable[None]]
    after: Callable[[Attack], None] = lambda _: None
    store: str = ""  # more lines of [store]
    memory_mb: int | None = None
    stops_under_attack: bool = False  # SIGTERM comes while the attack goes on

    def wanted(self, chosen: Sequence[str]) -> bool:
        """Return whether it is meant by one of the names: 8 means 8a, 8b and so on."""
        number = self.name.rstrip("abcdefgh")
        return not chosen or self.name in chosen or number in chosen


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of a row on one store."""

    row: Row
    store: str
    p99_idle_ms: float = 0.0
    p99_ms: float = 0.0
    event_idle_s: float = 0.0
    event_s: float = 0.0
    memory_mb: float = 0.0
    cpu_us_per_byte: float = 0.0
    busy: float = 0.0  # share of the attack in which the daemon was ready to run and others had the cores
    sent_mb: float = 0.0
    wrong: Sequence[str] = ()
    notes: Sequence[str] = ()


def measure(row: Row, ground: Ground, *, idle_s: float, seconds: float) -> Result:
    """Let a row happen."""
    with subject(ground, store=row.store, memory_mb=row.memory_mb) as bridge, bridge.canary() as stop:
        time.sleep(1.0)  # its homes are made
        start, cpu = time.monotonic(), bridge.cpu_s()
        time.sleep(idle_s)
        idle_cpu = (bridge.cpu_s() - cpu) / idle_s
        begun, cpu, waited = time.monotonic(), bridge.cpu_s(), _waited_s(bridge)
        attack = Attack(bridge, Lines(bridge.port), begun + seconds)
        ended = asyncio.run(_attacked(row, attack))
        over = time.monotonic()
        busy = max(0.0, _waited_s(bridge) - waited) / (over - begun)
        if not row.stops_under_attack:
            _settle(bridge, over + SETTLE_S)
        cpu = bridge.cpu_s() - cpu - idle_cpu * (time.monotonic() - begun)
        samples = stop()
        seen = bridge.seen()
        if not row.stops_under_attack:
            with _told(attack):
                row.after(attack)
            ended = bridge.end()
        memory = bridge.peak_mb()
        asked_at = time.monotonic()
        quiet = [one for one in samples if start <= one.due < begun]
        loud = [
            one
            for one in samples
            if begun <= one.due < over - (1.0 if row.stops_under_attack else 0.0)
            and not any(since <= one.due <= until for since, until in attack.down)
        ]
        first = Result(
            row=row,
            store=ground.store,
            p99_idle_ms=_p99(quiet) * 1000,
            p99_ms=_p99(loud) * 1000,
            event_idle_s=_delay(quiet, seen["values"], asked_at),
            event_s=_delay(loud, seen["values"], asked_at),
            memory_mb=memory,
            cpu_us_per_byte=max(0.0, cpu) * 1e6 / max(attack.lines.sent, 1),
            busy=busy,
            sent_mb=attack.lines.sent / 1e6,
        )
        wrong = [
            *_missed(first),
            *_refused(loud),
            *_ended(ended, bridge),
            *_touched({one.value for one in samples} | attack.own, seen),
            *attack.wrong,
        ]
        statuses = " ".join(f"{status}×{count}" for status, count in sorted(attack.lines.statuses.items()))
        notes = [
            *attack.notes,
            *([statuses] if statuses else []),
            *([f"{attack.lines.cut} cut"] if attack.lines.cut else []),
        ]
        return replace(first, wrong=wrong, notes=notes)


async def _attacked(row: Row, attack: Attack) -> tuple[int, float] | None:
    """Attack until the time is over; return how the daemon ended, where it had to under attack."""
    task = asyncio.ensure_future(row.attack(attack))
    stopped = None
    try:
        if row.stops_under_attack:
            await asyncio.wait({task}, timeout=max(0.0, attack.left - 1.0))
            stopped = await asyncio.to_thread(attack.subject.end)
        else:
            await asyncio.wait({task}, timeout=max(0.0, attack.left))
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    return stopped


def _waited_s(bridge: Subject) -> float:
    return waited_s(bridge.process.popen.pid) if bridge.alive else 0.0


def _settle(bridge: Subject, ends: float) -> None:
    """Wait until nothing of the attack waits any more, or for as long as the others may wait."""
    while time.monotonic() < ends and bridge.alive:
        with contextlib.suppress(Exception):
            health = bridge.health()
            if health["ledger"]["pending"] + health["calls"]["pending"] < 20:
                return
        time.sleep(0.25)


@contextlib.contextmanager
def _told(attack: Attack) -> Iterator[None]:
    """Let what a row checks afterwards be a sentence of its verdict."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the row says it
        attack.wrong.append(f"afterwards: {type(error).__name__}: {error}"[:300])


def _p99(samples: Sequence[Sample]) -> float:
    took = sorted(one.took for one in samples if one.value)
    return took[min(len(took) - 1, int(len(took) * 0.99))] if took else 0.0


def _delay(samples: Sequence[Sample], values: Mapping[str, float], now: float) -> float:
    """Return the longest delay of an event whose message was taken [s]."""
    delays = [values.get(one.value, now) - one.due for one in samples if one.value and one.status == 202]
    return max(delays, default=0.0)


def _missed(result: Result) -> Iterator[str]:
    """Yield which goals a row misses."""
    bound = min(P99_TIMES * result.p99_idle_ms, P99_MS)
    if result.p99_ms > bound:
        yield f"p99 {result.p99_ms:.0f} ms > {bound:.0f}"
    if result.event_s > EVENT_S:
        yield f"event {result.event_s:.1f} s > {EVENT_S:.0f}"
    if result.memory_mb > MEMORY_MB:
        yield f"memory {result.memory_mb:.0f} MB > {MEMORY_MB:.0f}"


def _refused(samples: Sequence[Sample]) -> Iterator[str]:
    """Yield what the canary was answered that it should not have been."""
    posts = [one for one in samples if one.value and one.status != 202]
    if posts:
        yield f"canary: {len(posts)} × {sorted({one.status for one in posts})}"
    probes = [one for one in samples if not one.value and one.status != 200]
    if probes:
        yield f"liveness: {len(probes)} × {sorted({one.status for one in probes})}"


def _ended(ended: tuple[int, float] | None, bridge: Subject) -> Iterator[str]:
    code, took = ended or (0, 0.0)
    if code or took > END_S:
        yield f"SIGTERM: ended with {code} after {took:.0f} s"
    if count := bridge.log().count("Traceback"):
        yield f"{count} tracebacks in the log"


def _touched(own: set[str], seen: Mapping[str, object]) -> Iterator[str]:
    """Yield what the attacker changed at the canary's homes."""
    values, touched = seen["values"], seen["touched"]
    assert isinstance(values, dict)
    assert isinstance(touched, list)
    if foreign := set(values) - own:
        yield f"values of the canary that it never sent: {sorted(foreign)[:3]}"
    yield from map(str, touched[:3])
