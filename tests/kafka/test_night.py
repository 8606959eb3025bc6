"""What happens to a broker's records, topics and groups at night: each is told, and what is still there is read.

The broker of this file is one that looks at its retention all the time, and whose groups are small.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import Final

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from bridge.config import load
from bridge.source import broker as broker_settings
from bridge.source import kafka
from bridge.source.broker import properties
from bridge.source.kafka import Client, Trouble
from bridge.source.positions import Change
from tests.kafka.broker import Broker, running
from tests.kafka.inboxes import inbox, place
from tests.kafka.stage import Stream, cars, reading
from tests.kafka.tokens import Issuer
from tests.life.stage import Bridge, run, until

CAR: Final = "vehicle.update"
METER: Final = "meter.update"
SMALL: Final = {"retention.bytes": "1048576", "segment.bytes": "1048576"}
GROUP_SIZE: Final = 2


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory, issuer: Issuer) -> Iterator[Broker]:
    """Run a broker that is quick to delete and slow to let in."""
    more = {
        "log_retention_check_interval_ms": "300",
        "log_initial_task_delay_ms": "300",
        "group_max_size": str(GROUP_SIZE),
    }
    with running(tmp_path_factory.mktemp("night"), issuer, **more) as started:
        yield started


_names = iter(f"night-{number}" for number in range(1_000_000))


@pytest.fixture
def stream(broker: Broker) -> Stream:
    """Make the topics of a subscription that nobody else uses, of one partition each."""
    return Stream(broker, next(_names), names=(CAR, METER), partitions=1)


def group_of(stream: Stream) -> str:
    return f"moost-bridge-{stream.subscription}"


def topic_of(stream: Stream, name: str = CAR) -> str:
    return f"{stream.subscription}.{name}"


def edges(stream: Stream, name: str = CAR) -> tuple[int, int]:
    """Return the oldest offset and the next one."""
    consumer = Consumer({"bootstrap.servers": stream.broker.address, "group.id": "edges", "log_level": 0})
    try:
        found: tuple[int, int] = consumer.get_watermark_offsets(TopicPartition(topic_of(stream, name), 0), 10)
        return found
    finally:
        consumer.close()


def start(bridge: Bridge) -> None:
    bridge.start("--rooms", "receiver")


def problems(bridge: Bridge) -> list[str]:
    return list(bridge.health()["problems"])


def committed(stream: Stream, name: str = CAR) -> int:
    """Return what the group has committed."""
    consumer = Consumer({"bootstrap.servers": stream.broker.address, "group.id": group_of(stream), "log_level": 0})
    try:
        return int(consumer.committed([TopicPartition(topic_of(stream, name), 0)], 10)[0].offset)
    finally:
        consumer.close()


def inbox_ids(bridge: Bridge) -> list[str]:
    """Return the identities of all messages: of a topic made anew offsets come twice."""
    with closing(sqlite3.connect(bridge.store)) as connection:
        return [str(row[0]) for row in connection.execute("SELECT message_id FROM inbox")]


@contextmanager
def beside(stream: Stream, **settings: str) -> Iterator[Callable[[], bool]]:
    """Run another program in the bridge's group; yields a poll, which tells whether it has partitions."""
    common = {"bootstrap.servers": stream.broker.address, "group.id": group_of(stream), "log_level": 0}
    mine: list[TopicPartition] = []
    other = Consumer({**common, "auto.offset.reset": "latest", "enable.auto.commit": False, **settings})
    other.subscribe([topic_of(stream), topic_of(stream, METER)], on_assign=lambda _, places: mine.extend(places))

    def polled() -> bool:
        other.poll(0.05)
        return bool(mine)

    try:
        yield polled
    finally:
        other.close()


Join = Callable[..., Client]


@pytest.fixture
def join(bridge: Bridge, stream: Stream) -> Iterator[Join]:
    """Return what makes members of the bridge's group."""
    members: list[Client] = []

    def joined(*names: str, **more: str) -> Client:
        settings = load(reading(bridge, stream, **more).configure(), environ={})
        [subscription] = settings.consumed()
        members.append(Client(properties(settings, subscription), [topic_of(stream, name) for name in names or (CAR,)]))
        members[-1].ever = False
        return members[-1]

    yield joined
    for member in members:
        member.close()


class TestRecordsThatRetentionTook:
    """Records that the broker deleted before they were read."""

    @pytest.mark.parametrize("reset", ["earliest", "latest"])
    def test_they_are_counted_and_those_that_are_left_are_read(
        self, bridge: Bridge, broker: Broker, reset: str
    ) -> None:
        stream = Stream(broker, next(_names), names=(CAR,), partitions=1, settings=SMALL)
        reading(bridge, stream, offset_reset=reset)
        start(bridge)
        until(lambda: bridge.health()["kafka"]["partitions"] == 1, "it reads")
        until(lambda: committed(stream) == 0, "it has begun")
        stream.write(cars(3))
        until(lambda: committed(stream) == 3, "what came first is committed")
        assert 0 == bridge.stop()
        stream.write((CAR, b'{"id": "%d", "x": "%s"}' % (number, b"x" * 10_000)) for number in range(400))
        until(lambda: edges(stream)[0] > 3, "the broker has deleted records")

        start(bridge)
        until(lambda: committed(stream) == 403, "it has read to the end")
        first = min(offset for _, _, offset in inbox(bridge.store) if offset >= 3)
        assert first > 3
        assert {at for at in stream.written if at[2] < 3 or at[2] >= first} == set(inbox(bridge.store))
        assert ["kafka_records_lost"] == problems(bridge)
        assert {topic_of(stream): first - 3} == bridge.health()["kafka"]["lost"]
        assert f'bridge_kafka_records_lost_total{{topic="{topic_of(stream)}"}} {first - 3:.1f}' in bridge.metrics()
        [line] = [line for line in bridge.text().splitlines() if '"kafka_records_lost"' in line]
        assert f'"partition": 0, "count": {first - 3}, "why": "retention"' in line
        assert 0 == bridge.stop()
        start(bridge)
        until(lambda: bridge.health()["kafka"]["partitions"] == 1, "it reads again")
        stream.write(cars(1, 1_000))
        until(lambda: committed(stream) == 404, "it has read on")
        assert [] == problems(bridge), "a loss is told once"


class TestTopicMadeAnew:
    """A topic that is deleted and made again."""

    def test_it_is_named_while_it_is_gone_and_then_read_from_its_beginning(
        self, bridge: Bridge, stream: Stream
    ) -> None:
        reading(bridge, stream, offset_reset="latest")
        start(bridge)
        until(lambda: committed(stream) == 0 == committed(stream, METER), "it has begun")
        stream.write(cars(3))
        until(lambda: len(inbox(bridge.store)) == 3, "it reads")
        stream.broker.delete(topic_of(stream))
        until(lambda: problems(bridge) == ["kafka_topic_gone"], "it is named")
        assert [topic_of(stream)] == bridge.health()["kafka"]["gone"]
        assert "bridge_kafka_down 0.0" in bridge.metrics()
        stream.write([(METER, b'{"id": "1"}')])
        until(lambda: len(inbox(bridge.store)) == 4, "the others are read")
        stream.create(CAR)
        stream.write(cars(20, 100))
        until(lambda: len(inbox_ids(bridge)) == 24, "the new one is read from its beginning")
        until(lambda: problems(bridge) == [], "nothing is wrong any more")
        assert [1, 1] == [bridge.text().count(f'"{word}"') for word in ("kafka_topic_gone", "kafka_topic_back")]
        assert "kafka_unreachable" not in bridge.text()

    def test_one_that_has_more_records_than_were_read_of_the_old_one_is_noticed(
        self, stream: Stream, join: Join, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(kafka, "IDENTITY_S", 0)
        stream.write(cars(3))
        member, read = join(), list[kafka.Record]()

        def heard(count: int) -> bool:
            read.extend(member.poll(100, 0.1, read))
            member.inspect()
            return len(read) == count

        until(lambda: heard(3), "it reads")
        until(lambda: heard(3) and committed(stream) == 3, "that is committed")
        stream.broker.delete(topic_of(stream))
        stream.create(CAR)
        stream.write(cars(20, 100))
        until(lambda: heard(-1) or set(range(20)) <= {r.offset for r in read[3:]}, "the new one is read as a whole")
        assert [Change.RENEWED] == [moved.start.change for moved in member.moved][-1:]


class TestOffsetsThatExpired:
    """A group whose commits the broker has forgotten."""

    def test_what_came_meanwhile_is_read_though_a_new_group_would_begin_at_the_end(
        self, bridge: Bridge, stream: Stream
    ) -> None:
        stream.write(cars(2))
        reading(bridge, stream, offset_reset="latest")
        start(bridge)
        until(lambda: committed(stream) == 2, "a new group begins at the end")
        stream.write(cars(3, 10))
        until(lambda: committed(stream) == 5, "it reads")
        assert 0 == bridge.stop()
        stream.broker.forget(group_of(stream))
        stream.write(cars(4, 20))
        start(bridge)
        until(lambda: committed(stream) == 9, "it has read to the end")
        assert set(stream.written) == set(inbox(bridge.store)), "from the oldest record on"
        assert 9 == len(inbox_ids(bridge)), "and nothing twice"
        assert '"why": "no commit"' in bridge.text()
        assert [] == problems(bridge)


class TestKeptOutOfTheGroup:
    """Whatever keeps the bridge out of its group."""

    def test_another_strategy_is_named_and_the_bridge_reads_when_it_has_gone(
        self, bridge: Bridge, stream: Stream
    ) -> None:
        reading(bridge, stream)
        with beside(stream, **{"partition.assignment.strategy": "range"}) as poll:
            until(poll, "the other one reads")
            stream.write(cars(5))
            start(bridge)
            until(lambda: poll() and problems(bridge) == ["kafka_group"], "it is named")
            [cause] = bridge.health()["kafka"]["causes"]
            assert group_of(stream) in cause
            assert "INCONSISTENT_GROUP_PROTOCOL" in cause
            assert "bridge_kafka_down 1.0" in bridge.metrics()
            poll()
            checked = run("check", "--online", "--config", bridge.config).stderr
            assert f"kafka.group_id: another program reads in the group {group_of(stream)}" in checked
        until(lambda: len(inbox(bridge.store)) == 5, "it reads")
        until(lambda: problems(bridge) == [], "nothing is wrong any more")
        assert [1, 1] == [bridge.text().count(f'"event": "{word}"') for word in ("kafka_group", "kafka_connected")]

    def test_a_group_that_is_full_is_named(self, bridge: Bridge, stream: Stream) -> None:
        reading(bridge, stream)
        settings = {"partition.assignment.strategy": "cooperative-sticky"}
        with beside(stream, **settings) as one, beside(stream, **settings) as other:
            until(lambda: one() + other() == GROUP_SIZE, "the others read")
            start(bridge)
            until(lambda: one() and other() and problems(bridge) == ["kafka_group"], "it is named")
            assert "it is full" in bridge.health()["kafka"]["causes"][0]

    def test_a_session_timeout_that_the_broker_does_not_allow_is_named(
        self, stream: Stream, join: Join, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(broker_settings, "SESSION", timedelta(milliseconds=500))
        stream.write(cars(1))
        member = join()
        until(lambda: member.poll(1, 0.1) or member.suspected, "it is noticed")
        assert Trouble.GROUP is member.suspected
        assert "INVALID_SESSION_TIMEOUT" in member.reason

    def test_no_topic_for_long_is_trouble(self, join: Join, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(kafka, "IDLE_S", 0)
        alone = join("hvac.update")
        until(lambda: alone.poll(1, 0.1) or alone.missing, "the topic is missing")
        alone.inspect()
        assert (Trouble.GROUP, "none of the topics exists") == (alone.suspected, alone.reason)

    def test_no_partition_for_long_is_no_trouble_where_others_of_the_group_read(
        self, stream: Stream, join: Join, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(kafka, "IDLE_S", 0)
        one = join()
        until(lambda: one.poll(1, 0.1) is not None and one.owned, "it reads")
        other = join()

        def joined() -> bool:
            one.poll(1, 0.05)
            other.poll(1, 0.05)
            found = other._desk.group(group_of(stream))
            return found is not None and len(found.partitions) == GROUP_SIZE

        until(joined, "both are in the group")
        other.inspect()
        assert (frozenset(), None) == (other.owned, other.suspected)


class TestLag:
    """What is left to read."""

    def test_marks_of_transactions_and_aborted_records_are_nothing_to_read(
        self, bridge: Bridge, stream: Stream
    ) -> None:
        reading(bridge, stream)
        start(bridge)
        until(lambda: bridge.health()["kafka"]["partitions"], "it reads")
        about = {"bootstrap.servers": stream.broker.address, "transactional.id": stream.subscription, "log_level": 0}
        producer = Producer(about)
        producer.init_transactions(60)
        for number, end in enumerate((producer.commit_transaction, producer.abort_transaction)):
            producer.begin_transaction()
            producer.produce(topic_of(stream), b'{"id": "%d"}' % number)
            producer.flush(60)
            end()
        assert (0, 4) == edges(stream), "a record and a mark each"
        until(lambda: committed(stream) == 4, "it has read to the end")
        assert [(topic_of(stream), 0, 0)] == [place(each) for each in inbox_ids(bridge)]
        until(lambda: bridge.health()["kafka"]["lag"] == {}, "nothing waits")
