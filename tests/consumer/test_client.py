"""What the client makes of the library's words: where a partition ends, where it begins, who keeps us out."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, KafkaError, KafkaException, TopicPartition

from bridge.source import kafka
from bridge.source.kafka import BrokenClientError, Client, Moved, Place, Record, Trouble
from bridge.source.positions import Change, Start

TOPIC = "sub-1.vehicle.update"
PLACE: Place = (TOPIC, 0)


@dataclass
class Said:
    """A message of the library that is an error, or a record."""

    code: int | None = None
    at: int | None = None
    of: str | None = TOPIC

    def error(self) -> KafkaError | None:
        return None if self.code is None else KafkaError(self.code)

    def topic(self) -> str | None:
        return self.of

    def partition(self) -> int:
        return 0

    def offset(self) -> int | None:
        return self.at

    def timestamp(self) -> tuple[int, int]:
        return 1, 0

    def headers(self) -> None:
        return None

    def value(self) -> bytes:
        return b"{}"


@dataclass
class Library:
    """A consumer whose broker knows one partition."""

    first: int = 0
    end: int = 0
    committed_at: int = -1001
    mark: str = ""
    away: bool = False
    said: list[Said] = field(default_factory=list)
    begun: list[int] = field(default_factory=list)
    paused: int = 0

    def poll(self, _wait: float) -> Said | None:
        return self.said.pop(0) if self.said else None

    def consume(self, _most: int, _wait: float) -> list[Said]:
        found, self.said = self.said, []
        return found

    def offsets_for_times(self, places: Sequence[TopicPartition], timeout: float) -> list[TopicPartition]:
        assert timeout > 0
        if self.away:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        known = {OFFSET_BEGINNING: self.first, OFFSET_END: self.end}
        return [TopicPartition(at.topic, at.partition, known[at.offset]) for at in places]

    def committed(self, places: Sequence[TopicPartition], _timeout: float) -> list[TopicPartition]:
        return [TopicPartition(at.topic, at.partition, self.committed_at, self.mark) for at in places]

    def incremental_unassign(self, places: Sequence[TopicPartition]) -> None:
        assert [PLACE] == [(at.topic, at.partition) for at in places]

    def incremental_assign(self, places: Sequence[TopicPartition]) -> None:
        self.begun += [at.offset for at in places]

    def pause(self, places: Sequence[TopicPartition]) -> None:
        self.paused += len(places)

    def commit(self, **_: object) -> None:
        """Take it."""

    def close(self) -> None:
        """Go."""


@pytest.fixture
def library() -> Library:
    return Library()


@pytest.fixture
def client(library: Library, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """Return a member that owns the partition and reads it by the library."""
    monkeypatch.setattr(kafka, "ASTRAY_AGAIN_S", 0)
    settings = {"bootstrap.servers": "127.0.0.1:1", "group.id": "group", "auto.offset.reset": "latest"}
    made = Client(settings, [TOPIC])
    made._consumer.close()
    made._consumer = library  # type: ignore[assignment]
    made.owned, made.ever, made._suspected = frozenset({PLACE}), False, None
    yield made
    made.close()


def heard(client: Client, library: Library, *said: Said, stored: Sequence[Record] = ()) -> list[Record]:
    library.said = list(said)
    return client.poll(100, 0, stored)


def test_the_end_of_a_partition_is_stored_after_what_stands_before_it(client: Client, library: Library) -> None:
    end = Said(KafkaError._PARTITION_EOF, 9)
    records = heard(client, library, Said(at=5), Said(at=6), end)
    assert {} == client._stored, "nothing is stored yet"
    heard(client, library, stored=records[:1])
    assert {PLACE: 6} == client._stored
    heard(client, library, stored=records[1:])
    assert {PLACE: 9} == client._stored, "marks of transactions are nothing that will ever come"
    heard(client, library, Said(at=9))
    assert {PLACE: 9} == client._stored


def test_an_end_with_nothing_before_it_is_stored_at_once(client: Client, library: Library) -> None:
    heard(client, library, Said(KafkaError._PARTITION_EOF, 9))
    assert {PLACE: 9} == client._stored


@pytest.mark.parametrize(
    ("stood", "committed", "first", "end", "ever", "expected"),
    [
        (None, -1001, 3, 9, False, Start(offset=9)),
        (None, -1001, 3, 9, True, Start(offset=3, change=Change.EXPIRED)),
        (None, 7, 3, 9, True, Start(offset=7)),
        (1, 1, 3, 9, True, Start(offset=3, lost=2, change=Change.DELETED)),
        (12, 12, 0, 9, True, Start(offset=0, change=Change.RENEWED)),
    ],
)
def test_where_the_library_cannot_read_it_is_decided_where_to_begin(  # noqa: PLR0913 - the case
    client: Client, library: Library, stood: int | None, committed: int, first: int, end: int, *, ever: bool,
    expected: Start,
) -> None:  # fmt: skip
    client.ever = ever
    library.committed_at, library.first, library.end = committed, first, end
    heard(client, library, Said(KafkaError._AUTO_OFFSET_RESET, stood))
    assert [expected.offset] == library.begun
    assert {PLACE: expected.offset} == client._stored, "that is committed, so that it is decided once"
    assert ([expected] if expected.change else []) == [moved.start for moved in client.moved]


def test_nothing_is_begun_before_it_is_known_whether_the_group_has_read(client: Client, library: Library) -> None:
    client.ever = None
    heard(client, library, Said(KafkaError._AUTO_OFFSET_RESET))
    assert [] == library.begun
    client.ever = True
    heard(client, library)
    assert [0] == library.begun


def test_a_broker_that_does_not_answer_is_asked_again(client: Client, library: Library) -> None:
    library.away = True
    heard(client, library, Said(KafkaError._AUTO_OFFSET_RESET, 3))
    assert [] == library.begun
    library.away = False
    heard(client, library)
    assert [0] == library.begun


def test_a_partition_that_begins_while_all_are_paused_is_paused_too(client: Client, library: Library) -> None:
    client.pause()
    before = library.paused
    heard(client, library, Said(KafkaError._AUTO_OFFSET_RESET))
    assert before + 1 == library.paused


def test_a_partition_that_has_gone_meanwhile_is_left_alone(client: Client, library: Library) -> None:
    client.owned = frozenset()
    heard(client, library, Said(KafkaError._AUTO_OFFSET_RESET))
    assert ([], {}) == (library.begun, client._astray)


def test_a_topic_with_another_identity_is_begun_anew_and_a_record_of_the_old_one_commits_nothing(
    client: Client, library: Library
) -> None:
    library.end = 20
    records = heard(client, library, Said(at=5))
    client._compare({TOPIC: "one"})
    assert [] == library.begun, "it is met for the first time"
    client._compare({TOPIC: "other"})
    assert ([0], {PLACE: 0}) == (library.begun, client._stored)
    assert [Moved(PLACE, 0, Start(offset=0, change=Change.RENEWED))] == client.moved
    heard(client, library, stored=records)
    assert {PLACE: 0} == client._stored


def test_a_commit_that_carries_another_identity_is_of_a_former_topic(client: Client, library: Library) -> None:
    library.committed_at, library.mark, library.end = 5, "former", 20
    client._compare({TOPIC: "one"})
    assert [0] == library.begun
    client._stored[PLACE] = 3
    assert ["one"] == [at.metadata for at in client._uncommitted([PLACE])]


@pytest.mark.parametrize("code", [*kafka._HINTS, KafkaError.UNSUPPORTED_VERSION, KafkaError.FENCED_INSTANCE_ID])
def test_what_keeps_us_out_of_the_group_is_trouble_until_it_lets_us_in(
    client: Client, library: Library, code: int
) -> None:
    heard(client, library, Said(code, of=None))
    assert [Trouble.GROUP] == [client.suspected]
    assert f"the group group keeps this process out ({KafkaError(code).name()}): " in client.reason
    client._on_assign(library, [])  # type: ignore[arg-type]
    assert [None, ""] == [client.suspected, client.reason]


def test_what_the_group_has_not_said_for_a_while_is_over(client: Client, library: Library) -> None:
    heard(client, library, Said(KafkaError.GROUP_MAX_SIZE_REACHED, of=None))
    client._barred = client._barred[0], time.monotonic() - kafka.BARRED_S
    assert client.suspected is None


@pytest.mark.parametrize("code", sorted(kafka._PASSING))
def test_what_a_group_mends_by_itself_is_no_trouble(client: Client, library: Library, code: int) -> None:
    heard(client, library, Said(code, of=None))
    assert client.suspected is None


def test_a_library_that_gives_up_is_told(client: Client, library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    fatal = Said()
    monkeypatch.setattr(fatal, "error", lambda: KafkaError(KafkaError._FATAL, "given up", True))  # noqa: FBT003
    with pytest.raises(BrokenClientError):
        heard(client, library, fatal)


def test_a_topic_that_was_read_and_is_unknown_has_gone(client: Client, library: Library) -> None:
    heard(client, library, Said(KafkaError.UNKNOWN_TOPIC_OR_PART, of="sub-1.meter.update"))
    assert frozenset() == client.gone, "it was never there"
    client._on_assign(library, [TopicPartition(*PLACE)])  # type: ignore[arg-type]
    heard(client, library, Said(KafkaError.UNKNOWN_TOPIC_OR_PART))
    assert {TOPIC} == client.gone
    assert client.suspected is None
