"""All feeds together: what they tell of themselves, and how they end."""

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bridge.config import Settings
from bridge.consumer import room
from bridge.consumer.feed import Feed, State
from bridge.consumer.room import Consumer
from bridge.errors import UsageError
from bridge.metrics import Metrics
from bridge.receiver.gate import Gate
from bridge.source.kafka import Trouble
from bridge.store.memory import MemoryStore
from bridge.store.port import StoreBroken

pytestmark = pytest.mark.anyio

NOWHERE = "127.0.0.1:9"  # nobody listens there


def settings(**kafka: object) -> Settings:
    subscriptions = [{"id": name, "auth": "kafka"} for name in ("a", "b")]
    section = {"bootstrap_servers": NOWHERE, "security": "plaintext", **kafka}
    return Settings.model_validate({"subscriptions": subscriptions, "kafka": section})


def consumer(chosen: Settings, metrics: Metrics | None = None) -> Consumer:
    return Consumer(
        settings=chosen,
        store=MemoryStore(),
        metrics=metrics or Metrics(),
        gate=Gate(max_size=10**9, starting=False),
        now=lambda: datetime.now(UTC),
        accepted=lambda: None,
    )


async def test_what_the_feeds_say_is_added_up_and_strange_topics_have_one_name() -> None:
    metrics = Metrics()
    rooms = consumer(settings(), metrics)
    one, other = rooms._feeds
    one.state = State(trouble=Trouble.AUTH, paused="store", partitions=2, lag={"a.vehicle.update": 3, "a.b": 1, "x": 4})
    other.state = State(trouble=Trouble.AUTH, partitions=1, lag={"b.meter.update": 0})
    rooms.gauge()
    assert ["kafka_auth"] == rooms.problems()
    assert {
        "partitions": 3,
        "paused": ["store"],
        "lag": {"a.vehicle.update": 3, "other": 5},
        "causes": [],
        "gone": [],
        "lost": {},
    } == rooms.report()
    read = metrics.registry.get_sample_value
    numbers = [read(f"bridge_kafka_{name}") for name in ("partitions", "paused", "down")]
    assert [3, 1, 1] == numbers
    lags = [
        read("bridge_kafka_lag", {"topic": topic}) for topic in ("a.vehicle.update", "b.meter.update", "other", "x")
    ]
    assert [3, 0, 5, None] == lags


async def test_losses_and_topics_that_have_gone_are_problems_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = Metrics()
    rooms = consumer(settings(), metrics)
    one, other = rooms._feeds
    one.state = State(lost={"a.vehicle.update": 7, "strange": 1}, lost_at=time.monotonic())
    other.state = State(gone=frozenset({"b.meter.update", "strange"}), trouble=Trouble.GROUP, reason="it is full")
    rooms.gauge()
    rooms.gauge()
    one.state.lost["a.vehicle.update"] += 2
    rooms.gauge()
    assert ["kafka_group", "kafka_records_lost", "kafka_topic_gone"] == rooms.problems()
    told = {"causes": ["it is full"], "gone": ["b.meter.update", "other"], "lost": {"a.vehicle.update": 9, "other": 1}}
    assert told == {key: rooms.report()[key] for key in told}
    read = metrics.registry.get_sample_value
    lost = [read("bridge_kafka_records_lost_total", {"topic": topic}) for topic in ("a.vehicle.update", "other")]
    assert ([9, 1], 2, 1) == (lost, read("bridge_kafka_topics_gone"), read("bridge_kafka_down"))
    monkeypatch.setattr(room, "LOSS_TOLD_S", 0)
    assert ["kafka_group", "kafka_topic_gone"] == rooms.problems(), "a loss is told for a while"


async def test_settings_that_the_client_cannot_use_are_a_mistake_of_usage(tmp_path: Path) -> None:
    broken = tmp_path / "ca.pem"
    broken.write_text("no certificate")
    with pytest.raises(UsageError, match=r"^kafka: "):
        consumer(settings(security="ssl", ca_file=str(broken)))


async def test_a_broken_store_ends_all_feeds_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []

    async def run(self: Feed, stop: asyncio.Event) -> None:
        if self.subscription == "a":
            raise StoreBroken("the file is damaged")
        try:
            await stop.wait()
        finally:
            ended.append(self.subscription)

    monkeypatch.setattr(Feed, "run", run)
    with pytest.raises(StoreBroken, match="the file is damaged"):
        await consumer(settings()).run(asyncio.Event())
    assert ["b"] == ended


async def test_only_credentials_change_while_running() -> None:
    first = settings(security="sasl_plaintext", mechanism="plain", client_id="u", client_secret="old")
    rooms = consumer(first)
    changes: list[object] = []
    for feed in rooms._feeds:
        feed.change = changes.append  # type: ignore[method-assign, assignment]
    expected = [{**feed._properties, "sasl.password": "new"} for feed in rooms._feeds]
    rooms.reload(
        settings(security="sasl_plaintext", mechanism="plain", client_id="u", client_secret="new", group_id="other")
    )
    assert expected == changes
