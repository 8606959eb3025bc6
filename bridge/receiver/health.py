"""What monitoring may know: ready, the ledgers, the metrics. No names of households here.

Rules:
- `/health` always answers, also while the store cannot be asked: then with the last known counts.
- The counts are the store's; one question to the store serves everybody who asks within half a second.
- Trouble with MOOST is a problem of `/health`, never of readiness: the door can still accept.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from bridge import logs
from bridge.core.vocabulary import DeadReason
from bridge.limits import LimitCounts
from bridge.metrics import Metrics
from bridge.receiver.gate import Gate
from bridge.store.port import Census, Store, StoreUnavailable

FRESH: Final = 0.5  # s that a census serves
WRONG_SIGN: Final = "wrong-meter-sign"  # flag of a building (mapping rule M4.5)


def _no_problems() -> Sequence[str]:
    return ()


def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthSources:
    """Where the other rooms say how they are; each is asked at the moment of the question."""

    circuit: Callable[[], str] = field(default=lambda: "closed")  # "closed", "open" or "half-open"
    cause: Callable[[], str | None] = _nothing  # what keeps calls from MOOST, in a few words; None = nothing
    token_expires_in: Callable[[], float | None] = _nothing  # s; None = there is no token
    problems: Callable[[], Sequence[str]] = _no_problems  # words such as "moost_auth"
    kafka: Callable[[], Mapping[str, object] | None] = _nothing  # partitions, lag; None = Kafka is not read here
    gauge: Callable[[], object] = _nothing  # brings the gauges of other rooms up to date


class Health:
    """Answers for the whole process."""

    def __init__(  # noqa: PLR0913 - one argument per source
        self,
        *,
        store: Store,
        metrics: Metrics,
        gate: Gate,
        sources: HealthSources,
        limits: LimitCounts,
        now: Callable[[], datetime],
        version: str,
    ) -> None:
        """Count the uptime from here."""
        self._store = store
        self._metrics = metrics
        self._gate = gate
        self._sources = sources
        self._limits = limits
        self._now = now
        self._version = version
        self._started = time.monotonic()
        self._asked = asyncio.Lock()
        self._census = Census()
        self._taken_at: float | None = None
        self._counted = False  # the store has told its counts, at some time
        self._lines_lost = 0  # of the log, as counted so far
        self._silent = False  # the store did not answer
        self._cause: str | None = None  # why not

    def failing(self) -> list[str]:
        """Return what keeps this process from accepting."""
        return self._gate.failing()

    async def report(self) -> dict[str, object]:
        """Return the content of `/health`."""
        census = await self.census()
        failing = self._gate.failing()
        troubles = [name for name in failing if name not in ("draining", "starting")]
        silent = ["store"] if self._silent else []
        others = (*census.problems, *self._sources.problems(), *self._limits.problems())
        problems = list(dict.fromkeys([*troubles, *silent, *others]))
        draining = "draining" in failing
        kafka = self._sources.kafka()
        return {
            "status": "draining" if draining else "degraded" if problems else "ok",
            "problems": problems,
            "version": self._version,
            "uptime_seconds": round(time.monotonic() - self._started, 3),
            "ledger": _ledger(census),
            "calls": _calls(census),
            "oldest_inbox_seconds": self._age(census.oldest_pending),
            "oldest_outbox_seconds": self._age(census.oldest_owed),
            "store": {"cause": self._gate.store_cause or self._cause},
            "moost": {
                "circuit": self._sources.circuit(),
                "token_expires_in_seconds": self._sources.token_expires_in(),
                "cause": self._sources.cause(),
            },
            "dead_letters": dict(census.dead_letters),
            "wrong_meter_sign": census.flags.get(WRONG_SIGN, 0),
            "flags": dict(census.flags),
            "limits": self._limits.of_last_hour(),
            **({} if kafka is None else {"kafka": kafka}),
        }

    async def metrics(self) -> bytes:
        """Return all metrics as Prometheus text."""
        census, metrics = await self.census(), self._metrics
        metrics.inbox_pending.set(census.pending)
        metrics.outbox_pending.set(census.calls_pending)
        metrics.oldest_inbox_seconds.set(self._age(census.oldest_pending))
        metrics.oldest_outbox_seconds.set(self._age(census.oldest_owed))
        metrics.store_bytes.set(census.size_bytes)
        metrics.store_log_bytes.set(census.log_bytes)
        metrics.held({name: share.total for name, share in census.shares.items()})
        metrics.store_unwritable.set(self._silent or self._gate.store or census.full or not census.writable)
        for reason in DeadReason if self._counted else ():  # each from the start, so that the first burst is a rise
            metrics.dead_letters.labels(reason=reason.value).set(census.dead_letters.get(reason, 0))
        lost = logs.lost()
        metrics.log_lines_lost.inc(lost - self._lines_lost)
        self._lines_lost = lost
        self._sources.gauge()
        metrics.circuit_open.set(self._sources.circuit() != "closed")
        metrics.token_expires_seconds.set(self._sources.token_expires_in() or 0)
        return metrics.render()

    async def census(self) -> Census:
        """Return the counts of the store, at most half a second old; the last known ones while it cannot be asked."""
        if self._gate.starting:
            return self._census  # the store is not open yet
        asked = time.monotonic()
        async with self._asked:
            if self._taken_at is None or asked - self._taken_at > FRESH:
                self._taken_at = time.monotonic()  # what it says is no older than the question
                try:
                    self._census = await self._store.census()
                    self._silent, self._cause, self._counted = False, None, True
                except StoreUnavailable as why:
                    self._silent, self._cause = True, str(why)
        return self._census

    def _age(self, since: datetime | None) -> float:
        """Return the age of an instant [s]; 0 for none."""
        return 0.0 if since is None else max(0.0, round((self._now() - since).total_seconds(), 3))


def _ledger(census: Census) -> dict[str, int]:
    """Return the fate of the messages: accepted is the sum of the others."""
    names = ("accepted", "settled", "pending", "parked", "dead", "discarded", "erased")
    return {name: getattr(census, name) for name in names}


def _calls(census: Census) -> dict[str, int]:
    """Return the fate of the calls: queued is the sum of the others, in_doubt aside."""
    return {
        "queued": census.queued,
        "delivered": census.delivered,
        "pending": census.calls_pending,
        "dead": census.calls_dead,
        "replaced": census.replaced,
        "discarded": census.calls_discarded,
        "in_doubt": census.in_doubt,
    }
