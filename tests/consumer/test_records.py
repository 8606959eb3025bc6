"""From records to arrivals: as at the door, with the few things that only a record can be."""

from datetime import UTC, datetime

import pytest

from bridge.consumer.records import MOST_BYTES, slices, taken
from bridge.core.vocabulary import DeadReason
from bridge.source.kafka import Record
from bridge.store.port import Arrival

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
UPDATE = "sub-1.vehicle.update"


def read(value: bytes | None, topic: str = UPDATE) -> list[Arrival]:
    record = Record(topic, 2, 41, 1_700_000_000_000, value)
    return taken(record, subscription="sub-1", cluster="c", max_body=100, received=NOW)


def test_a_record_is_one_message_with_its_place_as_its_id() -> None:
    expected = Arrival(
        subscription="sub-1",
        topic=UPDATE,
        body=b'{"id": "1"}',
        received=NOW,
        message_id=f"kafka c {UPDATE} 2 41 1700000000000",
    )
    assert [expected] == read(b'{"id": "1"}')


def test_a_record_without_a_value_is_the_message_null() -> None:
    assert [(b"null", None)] == [(arrival.body, arrival.dead) for arrival in read(None)]


@pytest.mark.parametrize(
    ("value", "topic", "dead"),
    [
        (b"", UPDATE, DeadReason.UNREADABLE),
        (b"{", UPDATE, DeadReason.UNREADABLE),
        (b"\xff", UPDATE, DeadReason.UNREADABLE),
        (b"{}", "sub-1.vehicle.fly", DeadReason.UNKNOWN_TOPIC),
        (b"{}", "nonsense", DeadReason.UNKNOWN_TOPIC),
        (b"{}", "sub-2.vehicle.update", DeadReason.FOREIGN_SUBSCRIPTION),
    ],
)
def test_a_poison_record_is_a_dead_letter_of_its_feed(value: bytes, topic: str, dead: DeadReason) -> None:
    [arrival] = read(value, topic)
    assert ("sub-1", topic, value, dead) == (arrival.subscription, arrival.topic, arrival.body, arrival.dead)
    assert arrival.detail


def test_a_record_that_is_too_large_is_kept_whole_as_a_dead_letter() -> None:
    value = b'{"id": "%s"}' % (b"x" * 100)
    [arrival] = read(value)
    assert (value, DeadReason.UNREADABLE) == (arrival.body, arrival.dead)
    assert "the record is larger than server.max_body" == arrival.detail


def test_each_element_of_an_array_is_a_message_and_none_of_an_empty_one_is() -> None:
    assert [(0, b"{}"), (1, b'{"id":"2"}')] == [
        (arrival.position, arrival.body) for arrival in read(b'[{},{"id":"2"}]')
    ]
    assert [] == read(b"[]")


def test_a_record_whose_headers_say_so_is_an_envelope() -> None:
    value = b'{"type": "any", "source": "/hub", "id": "e-1", "data": {"id": "1"}}'
    record = Record(UPDATE, 2, 41, 0, value, wrapped=True)
    [arrival] = taken(record, subscription="sub-1", cluster="c", max_body=100, received=NOW)
    assert (b'{"id": "1"}', UPDATE, "/hub e-1") == (arrival.body, arrival.topic, arrival.message_id)


def test_a_record_is_read_past_a_byte_order_mark() -> None:
    assert [b"{}"] == [arrival.body for arrival in read(b"\xef\xbb\xbf{}")]


def test_a_long_topic_still_makes_an_id_that_a_store_can_hold() -> None:
    first, second = (read(b"{}", f"sub-1.{'x' * 240}{end}")[0] for end in "ab")
    assert first.message_id is not None
    assert 71 == len(first.message_id)
    assert first.message_id != second.message_id


def test_what_comes_together_is_cut_by_size_and_at_arrays() -> None:
    half = b"x" * (MOST_BYTES // 2)
    records = [Record(UPDATE, 0, n, 0, value) for n, value in enumerate([half, half, half, b"[{}]", b"{}", None])]
    assert [[0, 1], [2], [3], [4, 5]] == [[record.offset for record in part] for part in slices(records)]
    assert [] == list(slices([]))
    large = [Record(UPDATE, 0, n, 0, b"x" * 2 * MOST_BYTES) for n in range(2)]
    assert [[0], [1]] == [[record.offset for record in part] for part in slices(large)]
