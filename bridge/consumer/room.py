"""All subscriptions that come by Kafka, side by side, each with a group and credentials of its own.

Source: EHA developer portal, "Streaming introduction" (credentials are issued per subscription and open its topics and
no other).
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from bridge.config import Settings
from bridge.consumer.feed import Feed, Parts
from bridge.errors import UsageError
from bridge.metrics import Metrics
from bridge.receiver.gate import Gate
from bridge.repeated import Outage, store_outage
from bridge.source.kafka import Trouble, UnusableSettingsError, properties, topics, tried
from bridge.source.topics import exists
from bridge.store.port import Store

OTHER: Final = "other"  # stands for all topics whose names are nobody's promise


async def problems(settings: Settings) -> list[str]:
    """Ask the broker for each subscription; return one line per problem."""
    consumed = settings.consumed()
    try:
        found = await asyncio.gather(*(asyncio.to_thread(tried, properties(settings, each)) for each in consumed))
    except UnusableSettingsError as why:
        return [f"kafka: {why}"]
    lines = []
    if Trouble.UNREACHABLE in found:
        lines.append(f"kafka.bootstrap_servers: no answer from {settings.kafka.bootstrap_servers}")
    refused = [each.id for each, trouble in zip(consumed, found, strict=True) if trouble is Trouble.AUTH]
    if refused:
        lines.append(f"kafka.client_secret: the credentials of {', '.join(refused)} are refused")
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
        return sorted({feed.state.trouble.value for feed in self._feeds if feed.state.trouble})

    def report(self) -> dict[str, object]:
        """Return what `/health` says of Kafka."""
        return {
            "partitions": sum(feed.state.partitions for feed in self._feeds),
            "paused": sorted({feed.state.paused for feed in self._feeds if feed.state.paused}),
            "lag": {topic: count for topic, count in sorted(self._lags().items()) if count},
        }

    def gauge(self) -> None:
        """Bring the gauges up to date."""
        metrics = self._metrics
        metrics.kafka_partitions.set(sum(feed.state.partitions for feed in self._feeds))
        metrics.kafka_down.set(any(feed.state.trouble for feed in self._feeds))
        metrics.kafka_paused.set(any(feed.state.paused for feed in self._feeds))
        metrics.kafka_lag.clear()
        for topic, count in self._lags().items():
            metrics.kafka_lag.labels(topic=topic).set(count)

    def _lags(self) -> dict[str, int]:
        """Return how many records wait, by topic."""
        lags: dict[str, int] = {}
        for feed in self._feeds:
            for topic, count in feed.state.lag.items():
                name = topic if exists(topic) else OTHER
                lags[name] = lags.get(name, 0) + count
        return lags
