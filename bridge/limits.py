"""Which bounds were reached, and by whom: counted, told once a minute, remembered for an hour.

Rules:
- Every bound has one word, a `Limit`. The metric, `/health`, the log and the detail of a dead letter use that word.
- One `LimitCounts` per process, built in `run`. Rooms are given it and call `reached` on the event loop.
- The log has at most one line per limit and minute. It names the payer that reached the limit most often since the last
  line. Health and metrics name no payer.
- What is remembered is bounded, whatever a sender does.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final

from bridge import logs
from bridge.metrics import Metrics

SUBSCRIPTION_LIMITED: Final = "subscription_limited"  # a problem in /health
LINE_EVERY_S: Final = 60.0
REFUSED_FOR_S: Final = 60.0  # a subscription counts as refused this long after its last refusal
MINUTE_S: Final = 60.0
MINUTES: Final = 60  # that /health looks back
MOST_PAYERS: Final = 1_000  # told apart between two lines of one limit


class Limit(StrEnum):
    """The bounds: first those that an address pays, then those of a subscription, then those of a building."""

    CONNECTIONS = "connections"
    CONNECTIONS_PER_ADDRESS = "connections_per_address"
    PARSED_AHEAD = "parsed_ahead"
    HEADER = "header"
    CHUNK_MARKS = "chunk_marks"
    SIGNATURES = "signatures"
    FAILED_WORK = "failed_work"
    ADMIN_GUESSES = "admin_guesses"
    UNVERIFIED_BYTES = "unverified_bytes"

    RATE_LIMIT = "rate_limit"
    BYTES_IN_HAND = "bytes_in_hand"

    VALUES_PER_BODY = "values_per_body"
    VALUES_PER_MESSAGE = "values_per_message"
    ENTRIES_PER_MESSAGE = "entries_per_message"
    ID_LENGTH = "id_length"
    STORE_SHARE = "store_share"
    DEAD_SHARE = "dead_share"

    CALLS_ON_THE_WIRE = "calls_on_the_wire"

    DEVICES_PER_BUILDING = "devices_per_building"
    DELETES_PER_BUILDING = "deletes_per_building"
    SAMPLES_PER_SLOT = "samples_per_slot"
    PRICES_PER_TARIFF = "prices_per_tariff"
    SCHEDULES_SIZE = "schedules_size"


REFUSING: Final = frozenset({Limit.BYTES_IN_HAND, Limit.RATE_LIMIT, Limit.STORE_SHARE})
"""Limits at which a subscription is refused: while one is reached `/health` has the problem `subscription_limited`."""

_log = logs.logger("limits")


class _Record:
    """What is known of one limit."""

    def __init__(self) -> None:
        self.minutes: deque[tuple[int, int]] = deque(maxlen=MINUTES + 1)  # minute, how often
        self.untold = Counter[str]()  # payer -> how often since the last line
        self.told_at: float | None = None
        self.reached_at = 0.0

    def count(self, payer: str, count: int, now: float) -> None:
        self.reached_at = now
        minute = int(now // MINUTE_S)
        if self.minutes and self.minutes[-1][0] == minute:
            count_before = self.minutes.pop()[1]
            self.minutes.append((minute, count_before + count))
        else:
            self.minutes.append((minute, count))
        if payer in self.untold or len(self.untold) < MOST_PAYERS:
            self.untold[payer] += count
        else:
            self.untold[""] += count

    def of_last_hour(self, now: float) -> int:
        since = int(now // MINUTE_S) - MINUTES
        return sum(count for minute, count in self.minutes if minute > since)


class LimitCounts:
    """What the rooms tell of reached limits, and what operators are told."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with nothing reached; `clock` returns seconds of any origin."""
        self._clock = clock
        self._counters = {limit: metrics.limit_reached.labels(limit=limit.value) for limit in Limit}
        self._records: dict[Limit, _Record] = {}

    def reached(self, limit: Limit, payer: str = "", count: int = 1) -> None:
        """Count that a limit was reached; `payer` is an address or a subscription, never a household."""
        self._counters[limit].inc(count)
        record = self._records.get(limit)
        if record is None:
            record = self._records[limit] = _Record()
        now = self._clock()
        record.count(payer, count, now)
        self._tell(limit, record, now)

    def tell(self) -> None:
        """Write the lines that are due: of limits reached since their last line, a minute or longer ago."""
        now = self._clock()
        for limit, record in self._records.items():
            self._tell(limit, record, now)

    def of_last_hour(self) -> Mapping[str, int]:
        """Return how often each limit was reached in the last hour; those that were not are left out."""
        now = self._clock()
        found = {limit.value: record.of_last_hour(now) for limit, record in self._records.items()}
        return {name: count for name, count in sorted(found.items()) if count}

    def problems(self) -> list[str]:
        """Return the problem of `/health`, while a subscription is refused."""
        now = self._clock()
        refused = any(
            limit in REFUSING and now - record.reached_at < REFUSED_FOR_S for limit, record in self._records.items()
        )
        return [SUBSCRIPTION_LIMITED] if refused else []

    def _tell(self, limit: Limit, record: _Record, now: float) -> None:
        if not record.untold or (record.told_at is not None and now - record.told_at < LINE_EVERY_S):
            return
        payer, _ = record.untold.most_common(1)[0]
        _log.warning(
            "limit_reached", limit=limit.value, payer=payer, count=record.untold.total(), payers=len(record.untold)
        )
        record.untold.clear()
        record.told_at = now
