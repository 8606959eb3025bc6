"""Bodies taken apart: every message with its own bytes, every bad one alone."""

import base64
import json
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.core.vocabulary import DeadReason
from bridge.source import envelope
from bridge.source.bounds import SLOW_VALUES
from bridge.source.envelope import MOST_MESSAGES, Item, is_wrapped, split, unwrap

TOPIC = "sub-1.vehicle.update"
DEEP = b"[" * 100_000 + b"]" * 100_000
ENDLESS = b"1" * 4301

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def dead(items: list[Item]) -> list[DeadReason | None]:
    return [item.dead for item in items]


def test_an_object_is_one_message_with_the_bytes_that_arrived() -> None:
    body = b' \n{"b": 1.0, "a": "\\u00e9", "b": 2}\t'
    assert [Item(body=body)] == split(body)


def test_an_array_is_one_message_per_element_with_the_bytes_of_each() -> None:
    elements = [b'{"a":1}', b'{ "b" : [1, {"c": "],}"}] }', b'{"d": "\\"}"}', b"{}"]
    assert [Item(body=element) for element in elements] == split(b" [ " + b" ,\n".join(elements) + b"\t] ")


@pytest.mark.parametrize("body", [b"[]", b" [ ] ", b"\n[\t]\n"])
def test_an_empty_array_holds_no_message(body: bytes) -> None:
    assert [] == split(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  \n",
        b"{",
        b'{"a": 1',
        b'{"a": 1}}',
        b'{"a": 1,}',
        b'{"a": 01}',
        b'{"a": "\x01"}',
        b"{'a': 1}",
        b"\xef\xbb\xbf",
        b"\xef\xbb\xbf{",
        b"\xef\xbb\xbf\xef\xbb\xbf{}",
        b"\xef\xbb\xbf[{]",
        b'"{"',
        b'"[{}]"',
        b'"null"',
        b'"\\"{}\\""',
        b'"\\ud800{}"',
        b'{"a": "\xff"}',
        b'{"a": "\xed\xa0\x80"}',
        b'{"a": 1}'.decode().encode("utf-16"),
        b"\x00{}",
        b"null null",
        b"42",
        b'"text"',
        b"true",
        b"NaN",
        b'{"a":' + DEEP + b"}",
        b'{"a":' + ENDLESS + b"}",
        b"[",
        b'[{"a": 1}',
        b'[{"a": 1},]',
        b'[{"a": 1}, {"a": ]',
        b'[{"a": 1} {"a": 2}]',
        b'[{"a": 1}] x',
        b'[{"a": 1}]]',
        b"[,]",
        b'["',
        b'["\\"\\"\\"\\"',
        b"]",
        b"[}",
        b"[1}",
        b'[{"a": NaN}}',
        b"[{]}",
        DEEP[:100_000],
    ],
)
def test_a_body_that_cannot_be_understood_is_one_dead_message_with_all_its_bytes(body: bytes) -> None:
    items = split(body)
    assert [DeadReason.UNREADABLE] == dead(items)
    assert body == items[0].body
    assert items[0].detail


@pytest.mark.parametrize(
    "body",
    [
        b"null",
        b'{"a": NaN, "b": -Infinity}',
        b'{"a": "\\ud800", "b": "\\udc00\\ud800"}',
        b'{"a": 1e999, "b": -0.0}',
        b'{"a": ' + b"1" * 4300 + b"}",
        b'{"a": "' + ENDLESS + b'"}',
        b'{"a": ' + b"[" * 150 + b"]" * 150 + b"}",
        b'{"a": "\\u0000"}',
    ],
)
def test_odd_but_readable_bodies_are_messages(body: bytes) -> None:
    assert [Item(body=body)] == split(body)


@pytest.mark.parametrize(
    "bad",
    [
        b"42",
        b'"text"',
        b"true",
        b"NaN",
        b"[1]",
        b"[]",
        DEEP,
        b'{"a":' + DEEP + b"}",
        b'{"a":' + ENDLESS + b"}",
        b'{"a": "\xff"}',
    ],
    ids=lambda bad: bad[:12].decode(errors="replace"),
)
def test_one_bad_element_among_ten_dies_alone(bad: bytes) -> None:
    good = [b'{"id": "%d", "x": NaN}' % number if number == 7 else b'{"id": "%d"}' % number for number in range(9)]
    elements = [*good[:4], bad, *good[4:]]
    items = split(b"[" + b",".join(elements) + b"]")
    assert elements == [item.body for item in items]
    assert [None] * 4 + [DeadReason.UNREADABLE] + [None] * 5 == dead(items)


def test_a_thousand_messages_are_taken_apart_and_one_more_is_kept_whole() -> None:
    assert [None] * MOST_MESSAGES == dead(split(b"[" + b",".join([b"{}"] * MOST_MESSAGES) + b"]"))
    for filler in (b"{}", b'{"a":NaN}'):
        body = b"[" + b",".join([filler] * (MOST_MESSAGES + 1)) + b"]"
        assert [DeadReason.UNREADABLE] == dead(split(body))
        assert body == split(body)[0].body


@given(st.lists(json_values, max_size=6), st.sampled_from([None, 1]))
def test_the_elements_of_any_array_are_its_elements(values: list[object], indent: int | None) -> None:
    items = split(json.dumps(values, indent=indent).encode())
    assert json.dumps(values) == json.dumps([json.loads(item.body) for item in items])
    assert [value is None or isinstance(value, dict) for value in values] == [item.dead is None for item in items]


# ---- what programs and forwarders put around it ---------------------------------------------------------------------

MARK = b"\xef\xbb\xbf"


@pytest.mark.parametrize("body", [b'{"a": 1}', b" {}", b"null", b'{"a": NaN}'])
def test_one_byte_order_mark_before_a_body_is_passed_over(body: bytes) -> None:
    assert [Item(body=body)] == split(MARK + body)
    assert [Item(body=body.strip()), Item(body=b"{}")] == split(MARK + b" [" + body + b",{}]")


@pytest.mark.parametrize("inner", ['{"a": "\u00e9 [,"}', "{}", ' {"a": NaN}', '\ufeff{"a": 1}'])
def test_a_json_string_that_holds_an_object_is_that_object(inner: str) -> None:
    expected = Item(body=inner.removeprefix("\ufeff").encode(), quoted=True)
    for body in (json.dumps(inner), json.dumps(inner, ensure_ascii=False)):
        assert [expected] == split(body.encode())
        assert [expected] == split(MARK + body.encode())
        assert [Item(body=b"{}"), expected] == split(b"[{}," + body.encode() + b"]")


def test_a_string_within_a_string_is_not_read() -> None:
    twice = json.dumps(json.dumps("{}")).encode()
    assert [Item(body=twice, dead=DeadReason.UNREADABLE, detail="the message is not a JSON object")] == split(twice)


@given(st.binary(max_size=80) | st.text('[]{}",:\\ne1u0 ', max_size=60).map(str.encode))
@example(b'[{"a":1}\\,{"b":2}]')
@example(b'[{}"]')
def test_any_bytes_give_messages_and_only_json_gives_live_ones(body: bytes) -> None:
    for item in split(body):
        again = unwrap(item)
        assert isinstance(again, Item)
        if item.dead is None:
            assert isinstance(json.loads(item.body), dict | None)
    try:
        json.loads(body.decode())
    except ValueError:
        assert [DeadReason.UNREADABLE] == dead(split(body))


# ---- envelopes ------------------------------------------------------------------------------------------------------


def opened(body: bytes) -> Item:
    (item,) = split(body)
    return unwrap(item)


@pytest.mark.parametrize("data", [b'{ "a" : 1.50 }', b'{"a": NaN}', b'{"a": "\\ud800,\\""}', b"{}", b"null"])
def test_the_message_of_an_envelope_is_its_data_to_the_byte(data: bytes) -> None:
    assert Item(body=data, topic=TOPIC) == opened(b'{"x": 1, "topic": "sub-1.vehicle.update", "data": ' + data + b"}")
    assert Item(body=data, topic=TOPIC) == opened(b'{"data":' + data + b',"topic":"sub-1.vehicle.\\u0075pdate"}')


def test_a_cloud_event_is_known_by_its_source_and_id() -> None:
    event = b'{"specversion":"1.0","id":"e-1","source":"/hub","type":"sub-1.vehicle.update","data":{"a":%s}}'
    for value in (b"1", b"NaN"):
        assert Item(body=b'{"a":%s}' % value, topic=TOPIC, message_id="/hub e-1") == opened(event % value)


def test_a_cloud_event_without_source_or_id_has_no_id() -> None:
    assert Item(body=b"{}", topic=TOPIC) == opened(b'{"id":"e-1","type":"sub-1.vehicle.update","data":{}}')
    assert Item(body=b"{}", topic=TOPIC) == opened(b'{"source":"/hub","id":7,"type":"sub-1.vehicle.update","data":{}}')


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"null",
        b'{"id": "a device as it is", "type": "CHARGE"}',
        b'{"topic": 7, "data": {}}',
        b'{"topic": null, "data": {}}',
        b'{"topic": "\\ud800", "data": {}}',
        b'{"topic": "a\\u0000b", "data": {}}',
        b'{"topic": "' + b"x" * 201 + b'", "data": {}}',
        b'{"data": {"topic": "sub-1.vehicle.update"}}',
        b'{"data": NaN, "n": {"topic": "sub-1.vehicle.update"}}',
    ],
)
def test_a_message_that_names_no_topic_is_kept_whole_as_unknown_topic(body: bytes) -> None:
    item = opened(body)
    assert (body, None, DeadReason.UNKNOWN_TOPIC) == (item.body, item.topic, item.dead)


@pytest.mark.parametrize("data", [b"42", b'"text"', b"[]", b"NaN"])
def test_data_that_is_no_object_is_unreadable(data: bytes) -> None:
    item = opened(b'{"topic":"sub-1.vehicle.update","data":' + data + b"}")
    assert (data, TOPIC, DeadReason.UNREADABLE) == (item.body, item.topic, item.dead)


def test_an_envelope_without_data_is_unreadable_and_kept_whole() -> None:
    body = b'{"topic":"sub-1.vehicle.update"}'
    item = opened(body)
    assert (body, TOPIC, DeadReason.UNREADABLE) == (item.body, item.topic, item.dead)


@pytest.mark.parametrize("inner", ['{"a": 1}', '{"a": NaN}', "{}"])
def test_data_may_be_a_json_string_that_holds_the_message(inner: str) -> None:
    expected = Item(body=inner.encode(), topic=TOPIC, quoted=True)
    assert expected == opened(json.dumps({"topic": TOPIC, "data": inner}).encode())


def test_an_envelope_in_a_string_is_read_but_no_string_within_it() -> None:
    def sent(data: object) -> Item:
        return opened(json.dumps(json.dumps({"topic": TOPIC, "data": data})).encode())

    assert Item(body=b"{}", topic=TOPIC, quoted=True) == sent({})
    assert DeadReason.UNREADABLE == sent("{}").dead


def event(**members: object) -> bytes:
    return json.dumps({"specversion": "1.0", "id": "e-1", "source": "/hub", "type": TOPIC, **members}).encode()


@pytest.mark.parametrize("data", [b'{"a": 1}', b"null", b' {"a": NaN}', b'"{}"'])
@pytest.mark.parametrize("mark", [b"", MARK])
def test_the_data_of_an_event_may_be_base64(data: bytes, mark: bytes) -> None:
    body = event(data_base64=base64.b64encode(mark + data).decode())
    expected = replace(split(data)[0], topic=TOPIC, message_id="/hub e-1")
    assert expected == opened(body)
    assert None is expected.dead


@pytest.mark.parametrize("data", ["", "e", "{}", "e30=e30=", 7, None, "bnVsbA", base64.b64encode(b"{").decode()])
def test_what_is_no_base64_of_a_message_is_unreadable_and_kept_whole(data: object) -> None:
    body = event(data_base64=data)
    assert (body, DeadReason.UNREADABLE) == (opened(body).body, opened(body).dead)


def test_an_envelope_whose_topic_is_known_need_not_name_it() -> None:
    (item,) = split(b'{"id": "e-1", "source": "/hub", "type": "com.dapr.event.sent", "data": {"a":1}}')
    assert b'{"a":1}' == unwrap(item, named=False).body
    (item,) = split(b'{"data": {"a":1}}')
    assert Item(body=b'{"a":1}') == unwrap(item, named=False)
    (item,) = split(b'{"a":1}')
    assert DeadReason.UNREADABLE == unwrap(item, named=False).dead


def test_a_wrapped_event_that_also_names_a_topic_keeps_its_identity() -> None:
    found = opened(event(type="com.dapr.event.sent", topic="sub-1.meter.update", data={}))
    assert ("sub-1.meter.update", "/hub e-1") == (found.topic, found.message_id)


@pytest.mark.parametrize(
    ("media", "expected"),
    [
        (b"application/cloudevents+json", True),
        (b"application/cloudevents-batch+json; charset=utf-8", True),
        (b"Application/CloudEvents+JSON", True),
        (b"application/json", False),
        (b"application/vnd.cloudevents+json", False),
        (b"", False),
    ],
)
def test_the_media_type_says_that_a_message_is_wrapped(media: bytes, expected: bool) -> None:  # noqa: FBT001
    assert expected == is_wrapped(media)


# ---- what a body may cost -------------------------------------------------------------------------------------------

CROWDED = (
    b"[" + b"," * 1_000_000,
    b"[" * 500_000,
    b'{"a":[' + b"NaN," * SLOW_VALUES + b"1]}",
    b"[" + b'{"a":[NaN,[],[]]},' * 40_000 + b"{}]",
)


@pytest.mark.parametrize("body", CROWDED, ids=lambda body: body[:12].decode())
def test_a_body_that_would_cost_too_much_the_slow_way_is_dead_before_it_is_read(
    body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(_: bytes) -> None:
        pytest.fail("it is read")

    monkeypatch.setattr(envelope, "_cut", read)
    monkeypatch.setattr(envelope, "_problem", read)
    (item,) = split(body)
    assert (DeadReason.TOO_LARGE, body) == (item.dead, item.body)
    assert "values_per_body" in item.detail


def test_an_array_of_too_many_messages_is_dead_before_a_message_is_made_of_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[bytes] = []

    def shaped(raw: bytes) -> Item:
        made.append(raw)
        return Item(body=raw)

    monkeypatch.setattr(envelope, "_shaped", shaped)
    (item,) = split(b"[" + b"1," * 400_000 + b"1]")
    assert DeadReason.UNREADABLE is item.dead
    assert len(made) <= MOST_MESSAGES + 1


def test_an_array_of_a_thousand_honest_messages_with_nan_is_read_the_slow_way() -> None:
    message = b'{"a":NaN,"b":[' + b"1," * 39 + b"1]}"
    assert [Item(body=message)] * MOST_MESSAGES == split(b"[" + b",".join([message] * MOST_MESSAGES) + b"]")
