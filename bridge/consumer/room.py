"""All subscriptions that come by Kafka, side by side, each with a group and credentials of its own.

Source: EHA developer portal, "Streaming introduction" (credentials are issued per subscription and open its topics and
no other).
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, Literal

from bridge.config import Settings
from bridge.consumer.feed import LOSS_TOLD_S, Feed, Parts
from bridge.errors import UsageError
from bridge.metrics import Metrics
from bridge.receiver.gate import Gate
from bridge.repeated import Outage, store_outage
from bridge.source.broker import properties, topics
from bridge.source.kafka import Trouble, UnusableSettingsError, strangers, tried
from bridge.source.topics import exists
from bridge.store.port import Store

TOPIC_GONE: Final = "kafka_topic_gone"
RECORDS_LOST: Final = "kafka_records_lost"
OTHER: Final = "other"  # stands for all topics whose names are nobody's promise


async def problems(settings: Settings) -> list[str]:
    """Ask the broker for each subscription; return one line per problem."""
    consumed = settings.consumed()
    ways = [properties(settings, each) for each in consumed]
    try:
        found = await asyncio.gather(*(asyncio.to_thread(tried, way) for way in ways))
        strange = await asyncio.gather(*(asyncio.to_thread(strangers, way) for way in ways if not any(found)))
    except UnusableSettingsError as why:
        return [f"kafka: {why}"]
    lines = []
    if Trouble.UNREACHABLE in found:
        lines.append(f"kafka.bootstrap_servers: no answer from {settings.kafka.bootstrap_servers}")
    refused = [each.id for each, trouble in zip(consumed, found, strict=True) if trouble is Trouble.AUTH]
    if refused:
        lines.append(f"kafka.client_secret: the credentials of {', '.join(refused)} are refused")
    lines += [f"kafka.group_id: {line}" for line in strange if line]
    return lines


class Consumer:
    """The room."""

    def __init__(  # noqa: PLR0913 - everything it lives on, named
        self,
        *,
        settings: Settings,
        store: Store,
        metrics: Metrics,
        gate: Gate,
        now: Callable[[], datetime],
        accepted: Callable[[], object],
        outage: Outage | None = None,
    ) -> None:
        """Join the groups; raises UsageError where the settings cannot be used."""
        self._settings = settings
        self._metrics = metrics
        self._counted: dict[str, int] = {}  # lost records, by topic, as far as the metrics know of them
        parts = Parts(
            store=store,
            metrics=metrics,
            gate=gate,
            now=now,
            accepted=accepted,
            max_body=settings.server.max_body,
            outage=outage or store_outage(),
        )
        try:
            self._feeds: Sequence[Feed] = [
                Feed(each.id, parts, properties(settings, each), topics(settings.kafka, each.id))
                for each in settings.consumed()
            ]
        except UnusableSettingsError as why:
            raise UsageError(f"kafka: {why}") from None

    async def run(self, stop: asyncio.Event) -> None:
        """Read until told to stop, then commit and leave the groups."""
        try:
            async with asyncio.TaskGroup() as group:
                for feed in self._feeds:
                    group.create_task(feed.run(stop), name=f"feed of {feed.subscription}")
        except ExceptionGroup as faults:
            raise faults.exceptions[0] from None  # one says why the room has ended

    def reload(self, settings: Settings) -> None:
        """Use other credentials; everything else stays as it was until the next start."""
        kafka = self._settings.kafka.model_copy(
            update={key: getattr(settings.kafka, key) for key in ("client_id", "client_secret")}
        )
        changed = settings.model_copy(update={"kafka": kafka})
        for feed in self._feeds:
            subscription = changed.subscription(feed.subscription)
            if subscription is not None:
                feed.change(properties(changed, subscription))

    def problems(self) -> list[str]:
        """Return what is wrong, in the words of `/health`."""
        found = {feed.state.trouble.value for feed in self._feeds if feed.state.trouble}
        if any(feed.state.gone for feed in self._feeds):
            found.add(TOPIC_GONE)
        now = time.monotonic()
        if any(feed.state.lost_at is not None and now - feed.state.lost_at < LOSS_TOLD_S for feed in self._feeds):
            found.add(RECORDS_LOST)
        return sorted(found)

    def report(self) -> dict[str, object]:
        """Return what `/health` says of Kafka."""
        return {
            "partitions": sum(feed.state.partitions for feed in self._feeds),
            "paused": sorted({feed.state.paused for feed in self._feeds if feed.state.paused}),
            "lag": {topic: count for topic, count in sorted(self._sum("lag").items()) if count},
            "causes": sorted({feed.state.reason for feed in self._feeds if feed.state.reason}),
            "gone": sorted({named(topic) for feed in self._feeds for topic in feed.state.gone}),
            "lost": dict(sorted(self._sum("lost").items())),
        }

    def gauge(self) -> None:
        """Bring the gauges up to date."""
        metrics = self._metrics
        metrics.kafka_partitions.set(sum(feed.state.partitions for feed in self._feeds))
        metrics.kafka_down.set(any(feed.state.trouble for feed in self._feeds))
        metrics.kafka_paused.set(any(feed.state.paused for feed in self._feeds))
        metrics.kafka_lag.clear()
        for topic, count in self._sum("lag").items():
            metrics.kafka_lag.labels(topic=topic).set(count)
        metrics.kafka_topics_gone.set(sum(len(feed.state.gone) for feed in self._feeds))
        for topic, count in self._sum("lost").items():
            metrics.kafka_records_lost.labels(topic=topic).inc(count - self._counted.get(topic, 0))
            self._counted[topic] = count

    def _sum(self, what: Literal["lag", "lost"]) -> dict[str, int]:
        """Return how many records wait, or are lost, by topic."""
        found: dict[str, int] = {}
        for feed in self._feeds:
            for topic, count in (feed.state.lag if what == "lag" else feed.state.lost).items():
                found[named(topic)] = found.get(named(topic), 0) + count
        return found


def named(topic: str) -> str:
    """Return the name of a topic for everybody to read."""
    return topic if exists(topic) else OTHER
