"""What a body may hold: every form of naming a topic, duplicates, and bad input with its documented answer."""

import asyncio
import hmac
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.vocabulary import DeadReason
from tests.receiver.conftest import OPEN, PATH, SIGNED, TOPIC, House, answer, house, settings, sign

pytestmark = pytest.mark.anyio

UNREADABLE, UNKNOWN, FOREIGN = DeadReason.UNREADABLE, DeadReason.UNKNOWN_TOPIC, DeadReason.FOREIGN_SUBSCRIPTION


def topics(built: House) -> list[str]:
    return [arrival.topic for arrival in built.store.taken]


# ---- the topic ------------------------------------------------------------------------------------------------------


async def test_the_topic_in_the_path_wins_over_headers_and_envelopes(door: House) -> None:
    body = b'{"topic": "sub-1.meter.update", "data": {}}'
    assert 202 == (await door.post(content=body, x_topic="other.hvac.update")).status_code
    assert ([TOPIC], [body]) == (topics(door), door.store.bodies())


async def test_the_first_topic_header_that_is_there_names_the_topic(door: House) -> None:
    assert 202 == (await door.post("/webhooks", x_topic="sub-1.meter.update", webhook_topic=TOPIC)).status_code
    assert 202 == (await door.post("/webhooks", x_topic="sub-1.meter.update", webhook_topic="")).status_code
    assert [TOPIC, "sub-1.meter.update"] == topics(door)


async def test_topic_headers_are_those_that_are_configured() -> None:
    built = house(settings(topic_headers=["X-My-Topic"]))
    assert 202 == (await built.post("/webhooks", x_my_topic=TOPIC)).status_code
    assert answer(1, dead=1, ids=[2]) == (await built.post("/webhooks", x_topic=TOPIC)).json()


async def test_an_array_of_envelopes_may_mix_topics(door: House) -> None:
    body = b'[{"topic": "sub-1.meter.update", "data": { "a": 1 }}, {"type": "sub-1.hvac.update", "data": {"b": NaN}}]'
    assert answer(2) == (await door.post("/webhooks", body)).json()
    assert ["sub-1.meter.update", "sub-1.hvac.update"] == topics(door)
    assert [b'{ "a": 1 }', b'{"b": NaN}'] == door.store.bodies()


async def test_a_binary_cloud_event_has_its_topic_and_id_in_headers(door: House) -> None:
    async def post(source: str) -> object:
        return (await door.post("/webhooks", b"{}", ce_type=TOPIC, ce_source=source, ce_id="7")).json()

    assert answer(1) == await post("/hub")
    assert answer(0, duplicates=1) == await post("/hub")
    assert answer(1, ids=[2]) == await post("/other")


async def test_a_structured_cloud_event_keeps_its_id_in_whatever_batch_it_comes(door: House) -> None:
    event = '{"specversion":"1.0","type":"%s","source":"/hub","id":"%d","data":{"n":%d}}'
    first = event % (TOPIC, 1, 1)
    batch = f"[{event % (TOPIC, 2, 2)},{first}]"
    media = "application/cloudevents-batch+json"
    assert answer(1) == (await door.post("/webhooks", first.encode(), webhook_id="a")).json()
    again = await door.post("/webhooks", batch.encode(), content_type=media, webhook_id="b")
    assert answer(1, duplicates=1, ids=[2]) == again.json()


@pytest.mark.parametrize(
    "topic", ["sub-1", "sub-1.", "sub-1.toaster.update", "sub-1.vehicle.fly", "sub-1.battery.command"]
)
async def test_an_unknown_topic_of_a_known_subscription_is_a_dead_letter(door: House, topic: str) -> None:
    got = await door.post(f"/webhooks/{topic}", b'{"id": 1}')
    assert (202, answer(1, dead=1)) == (got.status_code, got.json())
    assert ([UNKNOWN], [topic], ["sub-1"]) == (door.store.dead(), topics(door), [door.store.taken[0].subscription])
    assert 1 == door.count("bridge_messages_dead_total")


async def test_a_topic_that_no_store_could_hold_is_kept_as_its_hash(door: House) -> None:
    for name in ("sub-1.%00", "sub-1." + "x" * 500):
        assert 202 == (await door.post(f"/webhooks/{name}")).status_code
    assert [True, True] == [topic.startswith("sha256:") for topic in topics(door)]


async def test_a_message_that_names_no_topic_is_a_dead_letter_with_all_its_bytes(door: House) -> None:
    assert answer(1, dead=1) == (await door.post("/webhooks", b'{"id": "x"}')).json()
    assert ([UNKNOWN], [""], [b'{"id": "x"}']) == (door.store.dead(), topics(door), door.store.bodies())


# ---- duplicates -----------------------------------------------------------------------------------------------------


async def test_the_same_id_place_and_bytes_are_stored_once(door: House) -> None:
    body = b'[{"a": 1}, {"a": 1}]'
    assert answer(2) == (await door.post(content=body, webhook_id="m-1")).json()
    assert answer(0, duplicates=2) == (await door.post(content=body, webhook_id="m-1")).json()
    assert 2 == door.count("bridge_messages_duplicate_total")
    assert 2 == len(door.store.taken)


async def test_the_same_id_with_other_bytes_is_accepted_and_counted(door: House) -> None:
    await door.post(content=b'{"a": 1}', webhook_id="m-1")
    assert answer(1, ids=[2]) == (await door.post(content=b'{"a": 2}', webhook_id="m-1")).json()
    assert 1 == (await door.store.census()).same_id_other_bytes


async def test_without_an_id_every_copy_is_a_message(door: House) -> None:
    assert answer(1) == (await door.post()).json()
    assert answer(1, ids=[2]) == (await door.post()).json()


async def test_a_repeated_dead_letter_is_a_duplicate_and_not_dead_twice(door: House) -> None:
    assert answer(1, dead=1) == (await door.post(content=b"{", svix_id="m-1")).json()
    assert answer(0, duplicates=1) == (await door.post(content=b"{", svix_id="m-1")).json()


async def test_ids_of_any_length_and_spelling_serve(door: House) -> None:
    for name in ("x" * 5000, "\u00e9", "a\tb"):
        headers = {b"webhook-id": name.encode(), b"content-type": b"application/json"}
        first = await door.client.post(PATH, content=b"{}", headers=headers)
        again = await door.client.post(PATH, content=b"{}", headers=headers)
        assert ((1, 0), (0, 1)) == tuple((got.json()["accepted"], got.json()["duplicates"]) for got in (first, again))
    assert all(len(arrival.message_id or "") <= 200 for arrival in door.store.taken)


async def test_concurrent_copies_are_stored_once(door: House) -> None:
    answers = [got.json() for got in await asyncio.gather(*(door.post(webhook_id="m-1") for _ in range(20)))]
    assert (1, 19) == (sum(each["accepted"] for each in answers), sum(each["duplicates"] for each in answers))


# ---- bad input, each with its answer --------------------------------------------------------------------------------

DEEP = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"id": "x", ',
        b"\xff\xfe",
        b"\x00",
        DEEP,
        b'{"a":' + b"9" * 4301 + b"}",
        b"42",
        b'"text"',
        b"[{}, {]",
    ],
    ids=lambda body: body[:8].decode("latin-1"),
)
async def test_a_body_that_cannot_be_understood_is_one_dead_letter(door: House, body: bytes) -> None:
    got = await door.post(content=body)
    assert (202, answer(1, dead=1)) == (got.status_code, got.json())
    assert ([UNREADABLE], [body]) == (door.store.dead(), door.store.bodies())
    assert door.store.taken[0].detail


@pytest.mark.parametrize(
    "body", [b'{"a": NaN}', b'{"a": "\\ud800"}', b'{"a": 1e999}', b'{"a": 12345678901234567890123}', b"null"]
)
async def test_odd_numbers_and_lone_surrogates_are_left_to_the_worker(door: House, body: bytes) -> None:
    assert answer(1) == (await door.post(content=body)).json()
    assert ([None], [body]) == (door.store.dead(), door.store.bodies())


async def test_an_empty_array_is_all_zeros(door: House) -> None:
    got = await door.post(content=b" [ ] ")
    assert (202, answer(0)) == (got.status_code, got.json())
    assert [] == door.store.taken


@pytest.mark.parametrize("bad", [b"42", b'"x"', b"[]", b"true", DEEP])
async def test_one_bad_element_among_ten_is_dead_and_its_siblings_are_not(door: House, bad: bytes) -> None:
    elements = [b'{"id": "%d"}' % number for number in range(9)]
    elements.insert(3, bad)
    assert answer(10, dead=1) == (await door.post(content=b"[" + b",".join(elements) + b"]")).json()
    assert elements == door.store.bodies()
    assert [None] * 3 + [UNREADABLE] + [None] * 6 == door.store.dead()


async def test_one_bad_envelope_among_ten_is_dead_and_its_siblings_are_not(door: House) -> None:
    elements: list[object] = [{"topic": TOPIC, "data": {"id": str(number)}} for number in range(9)]
    elements.insert(5, {"topic": TOPIC})
    assert answer(10, dead=1) == (await door.post("/webhooks", json.dumps(elements).encode())).json()
    assert [None] * 5 + [UNREADABLE] + [None] * 4 == door.store.dead()


async def test_a_thousand_messages_are_taken_and_a_hundred_ids_named(door: House) -> None:
    got = await door.post(content=b"[" + b",".join([b"{}"] * 1000) + b"]")
    assert answer(1000, ids=range(1, 101)) == got.json()


async def test_more_than_a_thousand_messages_are_one_dead_letter_and_not_an_error(door: House) -> None:
    body = b"[" + b",".join([b"{}"] * 1001) + b"]"
    got = await door.post(content=body)
    assert (202, answer(1, dead=1)) == (got.status_code, got.json())
    assert [body] == door.store.bodies()


# ---- several subscriptions ------------------------------------------------------------------------------------------

OTHER = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
TWO = (SIGNED, {"id": "sub-2", "auth": "standard-webhooks", "secrets": [OTHER]})


def envelope(subscription: str) -> bytes:
    return b'{"topic": "%s.vehicle.update", "data": {}}' % subscription.encode()


async def test_the_caller_is_the_subscription_whose_credentials_verify_the_bytes() -> None:
    built = house(settings(*TWO))
    for name, secret in (("sub-1", TWO[0]["secrets"][0]), ("sub-2", OTHER)):
        body = envelope(name)
        got = await built.client.post("/webhooks", content=body, headers=sign(body, secret=secret, message_id=name))
        assert (202, 1, 0) == (got.status_code, got.json()["accepted"], got.json()["dead"])
    assert ["sub-1", "sub-2"] == [arrival.subscription for arrival in built.store.taken]


async def test_a_message_of_another_subscription_is_a_dead_letter_of_the_caller() -> None:
    built = house(settings(*TWO))
    body = b"[" + envelope("sub-2") + b"," + envelope("sub-1") + b"," + envelope("sub-3") + b"]"
    got = await built.client.post("/webhooks", content=body, headers=sign(body))
    assert answer(3, dead=2) == got.json()
    assert [FOREIGN, None, FOREIGN] == built.store.dead()
    assert {"sub-1"} == {arrival.subscription for arrival in built.store.taken}


async def test_the_secret_of_one_subscription_opens_no_other() -> None:
    built = house(settings(*TWO))
    body = b"{}"
    assert (
        401 == (await built.client.post("/webhooks/sub-2.vehicle.update", content=body, headers=sign(body))).status_code
    )
    assert [] == built.store.taken


async def test_a_topic_of_another_subscription_is_as_foreign_in_a_header_as_in_the_body() -> None:
    built = house(settings(*TWO))
    for name in ("x-topic", "ce-type"):
        headers = sign(b"{}", message_id=name) | {name: "sub-2.vehicle.update"}
        got = await built.client.post("/webhooks", content=b"{}", headers=headers)
        assert (202, 1, 1) == (got.status_code, got.json()["accepted"], got.json()["dead"])
    assert [FOREIGN, FOREIGN] == built.store.dead()
    assert {"sub-1"} == {arrival.subscription for arrival in built.store.taken}
    unsigned = {"content-type": "application/json", "x-topic": "sub-2.vehicle.update"}
    assert 401 == (await built.client.post("/webhooks", content=b"{}", headers=unsigned)).status_code


async def test_blanks_around_a_header_are_no_part_of_it() -> None:
    built = house(settings(SIGNED))
    headers = sign(b"{}") | {"x-topic": "\t sub-1.vehicle.update \t"}
    assert answer(1) == (await built.client.post("/webhooks", content=b"{}", headers=headers)).json()
    headers["webhook-id"] += " "
    again = await built.client.post("/webhooks", content=b"{}", headers=headers)
    assert 1 == again.json()["duplicates"], "the same id"


THREE = (*TWO, {"id": "sub-3", "auth": "hmac", "secrets": ["made-up key"], "header": "x-sig"})
NAMES = ["sub-1", "sub-2", "sub-3", "sub-4", "", "sub-1 ", "SUB-1", "sub-2\u0000", "sub-1.sub-2", "sub-2/"]
KINDS = ["vehicle.update", "meter.update", "toaster.update", "sub-2.vehicle.update", ""]
names_of_topics = st.builds("{}.{}".format, st.sampled_from(NAMES), st.sampled_from(KINDS)) | st.sampled_from(NAMES)
envelopes = st.one_of(
    st.builds(lambda topic: {"topic": topic, "data": {}}, names_of_topics),
    st.builds(lambda topic: {"type": topic, "source": "/hub", "id": "1", "data": {}}, names_of_topics),
    st.builds(lambda one, other: {"topic": one, "type": other, "data": {"topic": other}}, *[names_of_topics] * 2),
    st.sampled_from([{}, None, 42]),
)


@given(
    path=st.none() | names_of_topics.filter(lambda name: name and "/" not in name and "\u0000" not in name),
    named=st.dictionaries(
        st.sampled_from(["ce-type", "webhook-topic", "x-topic"]), names_of_topics.filter(str.isprintable), max_size=2
    ),
    content=envelopes | st.lists(envelopes, max_size=4),
    caller=st.sampled_from(["sub-1", "sub-2", "sub-3"]),
)
async def test_whatever_a_caller_writes_is_its_own_or_a_dead_letter(
    path: str | None, named: dict[str, str], content: object, caller: str
) -> None:
    built, body = house(settings(*THREE)), json.dumps(content).encode()
    if caller == "sub-3":
        headers = {"content-type": "application/json", "x-sig": hmac.new(b"made-up key", body, "sha256").hexdigest()}
    else:
        headers = sign(body, secret=TWO[0]["secrets"][0] if caller == "sub-1" else OTHER)
    address = "/webhooks" if path is None else f"/webhooks/{quote(path, safe='')}"
    got = await built.client.post(address, content=body, headers=headers | named)
    assert got.status_code in (202, 401, 404)
    for arrival in built.store.taken:
        assert caller == arrival.subscription
        assert arrival.dead or arrival.topic.startswith(f"{caller}.")


async def test_a_secret_that_two_subscriptions_share_opens_both() -> None:
    built = house(settings(SIGNED, SIGNED | {"id": "sub-2"}))
    body = b"[" + envelope("sub-2") + b"," + envelope("sub-1") + b"]"
    assert answer(2) == (await built.client.post("/webhooks", content=body, headers=sign(body))).json()
    assert ["sub-2", "sub-1"] == [arrival.subscription for arrival in built.store.taken]


async def test_an_open_subscription_is_no_way_around_the_others() -> None:
    built = house(settings(SIGNED, OPEN | {"id": "open"}))
    assert 401 == (await built.post("/webhooks", envelope("open"))).status_code
    assert 401 == (await built.post("/webhooks", envelope("sub-1"))).status_code
    assert 401 == (await built.post("/webhooks", x_topic="open.vehicle.update")).status_code
    assert 202 == (await built.post("/webhooks/open.vehicle.update")).status_code


async def test_where_nothing_is_signed_every_message_goes_to_its_own_subscription() -> None:
    built = house(settings(OPEN, OPEN | {"id": "sub-2"}))
    body = b"[" + envelope("sub-2") + b"," + envelope("sub-1") + b"," + envelope("sub-3") + b"]"
    assert answer(3, dead=1) == (await built.post("/webhooks", body)).json()
    assert ["sub-2", "sub-1", "sub-1"] == [arrival.subscription for arrival in built.store.taken]


# ---- anything -------------------------------------------------------------------------------------------------------

PIECES = [
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    '"topic"',
    '"data"',
    '"type"',
    f'"{TOPIC}"',
    '"sub-2.x"',
    "null",
    "1",
    "NaN",
    '"\\ud800"',
]


@given(
    body=st.binary(max_size=200) | st.lists(st.sampled_from(PIECES), max_size=25).map("".join).map(str.encode),
    path=st.sampled_from(["/webhooks", PATH, "/webhooks/sub-1.%ff%00"]),
    headers=st.dictionaries(
        st.sampled_from([b"x-topic", b"ce-id", b"ce-source", b"webhook-id", b"content-type", b"x-forwarded-for"]),
        st.binary(max_size=30).map(lambda raw: raw.replace(b"\n", b"").replace(b"\r", b"").replace(b"\0", b"")),
        max_size=3,
    ),
)
async def test_any_bytes_get_a_clear_answer_and_the_counts_agree(
    body: bytes, path: str, headers: dict[bytes, bytes]
) -> None:
    built = house(settings())
    got = await built.client.post(path, content=body, headers=headers)
    assert got.status_code in (202, 404, 415)
    if got.status_code == 202:
        report = got.json()
        assert len(built.store.taken) == report["accepted"] == len(report["ids"])
        assert report["dead"] == sum(arrival.dead is not None for arrival in built.store.taken)
        assert 0 == report["duplicates"]
