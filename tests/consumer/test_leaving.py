"""The last commit of partitions that go to somebody else."""

import math
from collections.abc import Iterator, Sequence

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from bridge.source import kafka
from bridge.source.kafka import Client, Record

TOPIC = "sub-1.vehicle.update"


class Group:
    """Answers commits with errors, as long as it has any."""

    def __init__(self, *errors: int) -> None:
        self.errors = list(errors)
        self.asked = 0
        self.committed: list[tuple[int, int]] = []

    def commit(self, *, offsets: Sequence[TopicPartition], asynchronous: bool) -> Sequence[TopicPartition]:
        assert not asynchronous
        self.asked += 1
        if self.errors:
            raise KafkaException(KafkaError(self.errors.pop(0)))
        self.committed += [(at.partition, at.offset) for at in offsets]
        return offsets


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """Return a member that has stored two records, and whose broker is never there."""
    monkeypatch.setattr(kafka, "LAST_COMMIT_AGAIN_S", 0)
    monkeypatch.setattr(kafka, "COMMIT_EVERY_S", math.inf)
    made = Client({"bootstrap.servers": "127.0.0.1:1", "group.id": "group"}, [TOPIC])
    made.owned = frozenset({(TOPIC, 0), (TOPIC, 1)})
    made.poll(1, 0, [Record(TOPIC, number, 6, 0, b"") for number in range(2)])
    yield made
    made.close()


def leave(client: Client, group: Group) -> None:
    client._on_revoke(group, [TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)])  # type: ignore[arg-type]
    assert frozenset() == client.owned


@pytest.mark.parametrize("busy", [KafkaError.REBALANCE_IN_PROGRESS, KafkaError.ILLEGAL_GENERATION])
def test_a_group_that_is_busy_with_itself_is_asked_again(client: Client, busy: int) -> None:
    group = Group(busy, busy)
    leave(client, group)
    assert [(0, 7), (1, 7)] == group.committed


def test_a_group_that_stays_busy_holds_nobody_up(client: Client) -> None:
    group = Group(*[KafkaError.REBALANCE_IN_PROGRESS] * 100)
    leave(client, group)
    assert kafka.LAST_COMMITS == group.asked


def test_a_broker_that_refuses_is_asked_once(client: Client) -> None:
    group = Group(KafkaError._ALL_BROKERS_DOWN, KafkaError._ALL_BROKERS_DOWN)
    leave(client, group)
    assert 1 == group.asked
