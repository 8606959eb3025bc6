"""What the bridge counts.

Rules:
- One `Metrics` object per process, built in `run`, with a registry of its own: nothing is global.
- An attribute is the name of its metric without `bridge_` and `_total`.
- No label ever carries the name of a household, a device or a secret: labels are words of the bridge, and the ids of
  the configured subscriptions.
- Counters start at 0 with the process; the durable counts are the ledger in the store, see `/health`.

Source: Prometheus documentation, "Metric and label naming" (base units, `_total`), "Histograms and summaries".
"""

import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

# One fsync takes 0.1 ms on a good SSD and 10 ms on a disk; beyond a second the store is in trouble.
_COMMIT_BUCKETS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
# One call takes a few ms on loopback, 50 to 300 ms over the internet; the default timeout is 10 s.
_CALL_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


_REFUSALS: Final = (400, 401, 403, 404, 408, 413, 415, 429, 431, 503)


MOST_NOTED: Final = 1_000


@dataclass(slots=True)
class _Heard:
    """When a subscription was last heard."""

    messages: Counter
    at: float  # [s of the monotonic clock]


class Metrics:
    """All metrics of one process."""

    def __init__(self) -> None:
        """Register every metric in a new registry."""
        disable_created_metrics()  # type: ignore[no-untyped-call]  # else a second series each, of birthdays
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)  # memory, CPU time, open files of this process
        self._heard: dict[str, _Heard] = {}  # by subscription
        self.dead_messages: deque[int] = deque(maxlen=MOST_NOTED)  # ids of what died here and was not told yet
        self.dead_calls: deque[int] = deque(maxlen=MOST_NOTED)
        self._door()
        self._backlog()
        self._kafka()
        self._delivery()
        self.log_lines_lost = self._counter("log_lines_lost", "Lines of the log that could not be written.")

    def _door(self) -> None:
        counter, histogram = self._counter, self._histogram
        self.messages_accepted = counter("messages_accepted", "Messages stored before their 202, the dead among them.")
        self.messages_duplicate = counter("messages_duplicate", "Messages recognised as repeats of a stored one.")
        self.messages_quoted = counter("messages_quoted", "Messages read that came as JSON within a JSON string.")
        self.messages_settled = counter("messages_settled", "Messages whose effects are queued, or that have none.")
        self.messages_dead = counter("messages_dead", "Messages taken out of the flow as dead letters.")
        self.pings = counter("pings", "Verified webhook requests that were only a test of the address.")
        self.requests_refused = counter("requests_refused", "Webhook requests refused, by status.", "status")
        for status in _REFUSALS:  # from the start, so that the first burst is a rise
            self.requests_refused.labels(status=str(status))
        self.subscription_messages = counter(
            "subscription_messages", "Messages heard from a subscription, repeats among them.", "subscription"
        )
        self.subscription_refused = counter(
            "subscription_refused", "Webhook requests of a subscription refused, by status.", "subscription", "status"
        )
        self.subscription_silent_seconds = self._gauge(
            "subscription_silent_seconds", "Time since this process last heard a message of it [s].", "subscription"
        )
        self.limit_reached = counter("limit_reached", "How often a bound was reached, by its name.", "limit")
        self.late_samples = counter("late_samples", "Samples that came after their slot was closed.")
        self.commit_seconds = histogram(
            "commit_seconds", "Time of one transaction, fsync included [s].", _COMMIT_BUCKETS
        )

    def _backlog(self) -> None:
        gauge = self._gauge
        self.inbox_pending = gauge("inbox_pending", "Accepted messages that wait for the worker.")
        self.outbox_pending = gauge("outbox_pending", "Calls owed to MOOST; events count one each.")
        self.oldest_inbox_seconds = gauge("oldest_inbox_seconds", "Age of the oldest waiting message, 0 if none [s].")
        self.oldest_outbox_seconds = gauge("oldest_outbox_seconds", "Age of the oldest owed call, 0 if none [s].")
        self.store_bytes = gauge("store_bytes", "Size of the store: what is in use, and the log of SQLite [bytes].")
        self.store_log_bytes = gauge("store_log_bytes", "Of that, the log of SQLite, which shrinks by itself [bytes].")
        self.store_unwritable = gauge("store_unwritable", "1 from a write that failed until one has gone through.")
        self.subscription_store_bytes = gauge(
            "subscription_store_bytes",
            "What a subscription holds of the store: messages not settled, calls owed [bytes].",
            "subscription",
        )
        self.dead_letters = gauge("dead_letters", "Dead letters kept in the store, by reason.", "reason")

        self.dead_letters_given_up = self._counter(
            "dead_letters_given_up", "Dead letters given up because they are old, or too many.", "cause"
        )
        for cause in ("retention", "share"):
            self.dead_letters_given_up.labels(cause=cause)

    def _kafka(self) -> None:
        counter, gauge = self._counter, self._gauge
        self.kafka_lag = gauge("kafka_lag", "Records of Kafka not yet stored, in this process's partitions.", "topic")
        self.kafka_partitions = gauge("kafka_partitions", "Partitions of Kafka that this process reads.")
        self.kafka_down = gauge("kafka_down", "1 while nothing can be read: no answer, refused, or out of the group.")
        self.kafka_topics_gone = gauge("kafka_topics_gone", "Topics that were read and do not exist any more.")
        self.kafka_records_lost = counter(
            "kafka_records_lost", "Records that Kafka deleted before they were read.", "topic"
        )
        self.kafka_paused = gauge("kafka_paused", "1 while no records are taken, as the door would answer 503.")

    def _delivery(self) -> None:
        counter, gauge = self._counter, self._gauge
        self.calls_delivered = counter("calls_delivered", "Calls MOOST took; events count one each.", "call", "lane")
        self.call_attempts = counter("call_attempts", "Requests to MOOST, by what came of them.", "call", "outcome")
        self.in_doubt = counter("in_doubt", "Calls whose reply was lost.")
        self.call_seconds = self._histogram("call_seconds", "Time of one request to MOOST [s].", _CALL_BUCKETS)
        self.circuit_open = gauge("circuit_open", "1 while MOOST is unreachable or failing and only probes are sent.")
        self.token_expires_seconds = gauge("token_expires_seconds", "Time until the token ends, 0 without one [s].")

    # ---- subscriptions ----

    def know(self, subscriptions: Iterable[str]) -> None:
        """Export what is counted by subscription from now on, so that its first message is a rise."""
        for name in subscriptions:
            if name not in self._heard:
                self._heard[name] = _Heard(self.subscription_messages.labels(subscription=name), time.monotonic())

    def heard(self, subscription: str, count: int = 1) -> None:
        """Count messages of a subscription; one that is not known has no series."""
        found = self._heard.get(subscription)
        if found is not None:
            found.messages.inc(count)
            found.at = time.monotonic()

    def held(self, sizes: Mapping[str, int]) -> None:
        """Take in what subscriptions hold of the store [bytes]; one that is not known has no series."""
        for name in self._heard:
            self.subscription_store_bytes.labels(subscription=name).set(sizes.get(name, 0))

    def render(self) -> bytes:
        """Return all metrics in the Prometheus text format; the media type is `CONTENT_TYPE`."""
        now = time.monotonic()
        for name, heard in self._heard.items():
            self.subscription_silent_seconds.labels(subscription=name).set(round(now - heard.at, 1))
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"bridge_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"bridge_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"bridge_{name}", text, registry=self.registry, buckets=buckets)
