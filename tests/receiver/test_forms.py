"""Forms in which forwarders pass a message on: all of them are read, and `bridge map` reads them as the door does."""

import base64
import hmac
import json
from typing import Any
from urllib.parse import quote

import pytest

from bridge.core.vocabulary import DeadReason
from bridge.preview import map_message
from tests.receiver.conftest import OPEN, SECRET, SIGNED, House, answer, house, settings, sign

pytestmark = pytest.mark.anyio

METER = "sub-1.meter.update"
PATH = f"/webhooks/{METER}"
MARK = b"\xef\xbb\xbf"
STRUCTURED, BATCHED = "application/cloudevents+json", "application/cloudevents-batch+json"

MESSAGE: dict[str, Any] = {
    "id": "meter-1",
    "userId": "user-1",
    "isOnline": True,
    "locationId": "home-1",
    "staticData": {"vendor": "ACME", "model": "One", "name": "Meter", "lastUpdated": "2026-01-02T10:00:00.000Z"},
    "powerState": {"power": 0.5, "meterValue": None, "lastUpdated": "2026-06-15T11:59:00.000Z"},
    "lastUpdated": "2026-06-15T11:59:00.000Z",
}
PLAIN = json.dumps(MESSAGE).encode()


def event(**members: object) -> dict[str, object]:
    return {"specversion": "1.0", "id": "e-1", "source": "/hub", "type": METER, "data": MESSAGE, **members}


DAPR = event(
    type="com.dapr.event.sent", topic=METER, pubsubname="hub", traceid="00-0af7651916cd43dd8448eb211c80319c-01"
)
IN_BASE64 = {name: value for name, value in event().items() if name != "data"} | {
    "data_base64": base64.b64encode(PLAIN).decode()
}

FORMS: list[tuple[str, str, bytes]] = [
    ("plain", "application/json", PLAIN),
    ("marked", "application/json", MARK + PLAIN),
    ("marked array", "application/json", MARK + b"[" + PLAIN + b"]"),
    ("in a string", "application/json", json.dumps(PLAIN.decode()).encode()),
    ("in a string of an array", "application/json", json.dumps([PLAIN.decode()]).encode()),
    ("marked string", "application/json", MARK + json.dumps(PLAIN.decode()).encode()),
    ("event", STRUCTURED, json.dumps(event()).encode()),
    ("marked event", STRUCTURED, MARK + json.dumps(event()).encode()),
    ("event with parameters", f"{STRUCTURED}; charset=UTF-8", json.dumps(event()).encode()),
    ("event in other letters", "Application/CloudEvents+JSON", json.dumps(event()).encode()),
    ("event of Dapr", STRUCTURED, json.dumps(DAPR).encode()),
    ("event in base64", STRUCTURED, json.dumps(IN_BASE64).encode()),
    ("event with a string", STRUCTURED, json.dumps(event(data=PLAIN.decode())).encode()),
    ("batch", BATCHED, json.dumps([event()]).encode()),
    ("batch in base64", BATCHED, json.dumps([IN_BASE64]).encode()),
    ("one event as a batch", BATCHED, json.dumps(event()).encode()),
]
each_form = pytest.mark.parametrize(("media", "body"), [form[1:] for form in FORMS], ids=[form[0] for form in FORMS])


def wanted(body: bytes) -> bool:
    found: object = json.loads(body)
    return found == MESSAGE


@each_form
async def test_every_form_on_a_topic_path_is_the_message(door: House, media: str, body: bytes) -> None:
    got = await door.post(PATH, body, content_type=media)
    assert (202, answer(1)) == (got.status_code, got.json())
    [arrival] = door.store.taken
    assert (METER, None, True) == (arrival.topic, arrival.dead, wanted(arrival.body))


@each_form
async def test_map_shows_of_every_form_what_the_door_reads(media: str, body: bytes) -> None:
    plain = map_message(METER, PLAIN)
    assert plain.calls
    assert plain == map_message(METER, body, content_type=media)


@pytest.mark.parametrize("body", [event(), DAPR, IN_BASE64, [event()], event(data=PLAIN.decode())])
@pytest.mark.parametrize("headers", [{}, {"ce_type": METER}, {"x_topic": METER}])
async def test_an_event_without_a_topic_in_the_path_is_the_message_too(
    door: House, body: object, headers: dict[str, str]
) -> None:
    media = BATCHED if isinstance(body, list) else STRUCTURED
    got = await door.post("/webhooks", json.dumps(body).encode(), content_type=media, **headers)
    assert (202, answer(1)) == (got.status_code, got.json())
    [arrival] = door.store.taken
    assert (METER, "/hub e-1", True) == (arrival.topic, arrival.message_id, wanted(arrival.body))


async def test_a_batch_of_many_keeps_the_order_and_buries_only_what_is_no_event(door: House) -> None:
    batch = [event(id="a", data={"n": 1}), {"n": 2}, None, event(id="b", data=None), event(id="c", data=[])]
    got = await door.post(PATH, json.dumps(batch).encode(), content_type=BATCHED)
    assert answer(5, dead=3) == got.json()
    unreadable = DeadReason.UNREADABLE
    assert [None, unreadable, unreadable, None, unreadable] == door.store.dead()
    assert b"null" == door.store.bodies()[3]


async def test_a_bare_message_is_not_taken_for_an_envelope_by_its_members(door: House) -> None:
    body = json.dumps(MESSAGE | {"type": "x.y", "data": {}, "topic": "sub-1.hvac.update"}).encode()
    await door.post(PATH, body)
    assert [body] == door.store.bodies()


async def test_messages_in_strings_are_counted_once_stored(door: House) -> None:
    body = json.dumps([PLAIN.decode(), MESSAGE, "{}"]).encode()
    await door.post(PATH, body, webhook_id="m-1")
    await door.post(PATH, body, webhook_id="m-1")
    assert 2 == door.count("bridge_messages_quoted_total")


async def test_the_body_null_is_a_tombstone_also_as_the_data_of_an_event(door: House) -> None:
    assert answer(1) == (await door.post(PATH, b"null")).json()
    assert answer(1, ids=[2]) == (await door.post(PATH, MARK + b" null\n")).json()
    got = await door.post(PATH, json.dumps(event(data=None)).encode(), content_type=STRUCTURED)
    assert answer(1, ids=[3]) == got.json()
    mapped = map_message(METER, b"null")
    assert ([], False) == (mapped.calls, mapped.dead)


async def test_the_mark_is_passed_over_after_the_proof_which_covers_it() -> None:
    built = house(settings(SIGNED))
    body = MARK + PLAIN
    got = await built.client.post(PATH, content=body, headers=sign(body))
    assert answer(1) == got.json()
    got = await built.client.post(PATH, content=PLAIN, headers=sign(body))
    assert 401 == got.status_code


# ---- header fields --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spelt", [quote("sub-1.meter.update", safe=""), "sub-1%2Emeter.update", '"sub-1.meter.update"']
)
async def test_the_attributes_of_an_event_in_fields_are_percent_decoded(door: House, spelt: str) -> None:
    got = await door.post("/webhooks", PLAIN, ce_type=spelt, ce_id="%C3%BC%201", ce_source="/h%75b")
    assert answer(1) == got.json()
    assert (METER, "/hub ü 1") == (door.store.taken[0].topic, door.store.taken[0].message_id)
    again = await door.post("/webhooks", PLAIN, ce_type=METER, ce_id="%C3%BC%201", ce_source="/hub")
    assert answer(0, duplicates=1) == again.json()


async def test_fields_that_are_no_attributes_of_an_event_are_taken_as_they_are(door: House) -> None:
    await door.post(PATH, PLAIN, webhook_id="a%20b")
    assert ["a%20b"] == [arrival.message_id for arrival in door.store.taken]
    assert 404 == (await door.post("/webhooks", PLAIN, x_topic="sub-1%2Emeter.update")).status_code


@pytest.mark.parametrize("bad", ["%", "%zz", "%ff", '"', '"a\\"', "%25"])
async def test_a_badly_encoded_attribute_is_only_another_name(door: House, bad: str) -> None:
    got = await door.post(PATH, PLAIN, ce_id=bad, ce_source="/hub")
    assert answer(1) == got.json()


@pytest.mark.parametrize("wrong_first", [True, False])
async def test_a_signature_that_comes_in_two_lines_counts_as_both(wrong_first: bool) -> None:  # noqa: FBT001
    standard = sign(PLAIN)
    right, wrong = standard.pop("webhook-signature"), "v1," + base64.b64encode(b"x" * 32).decode()
    pairs = [("webhook-signature", wrong), ("webhook-signature", right)]
    built = house(settings(SIGNED))
    lines = [*standard.items(), *(pairs if wrong_first else pairs[::-1])]
    assert 202 == (await built.client.post(PATH, content=PLAIN, headers=lines)).status_code
    joined = ", ".join(value for _, value in pairs)
    for text in (joined, joined.replace(", ", ",")):
        got = await built.client.post(PATH, content=PLAIN, headers=[*standard.items(), ("webhook-signature", text)])
        assert answer(0, duplicates=1) == got.json()


@pytest.mark.parametrize("wrong_first", [True, False])
async def test_so_does_one_of_plain_hmac(wrong_first: bool) -> None:  # noqa: FBT001
    built = house(
        settings({"id": "sub-1", "auth": "hmac", "secrets": [SECRET], "header": "x-sig", "prefix": "sha256="})
    )
    right = "sha256=" + hmac.new(SECRET.encode(), PLAIN, "sha256").hexdigest()
    pairs = [("x-sig", "sha256=" + "0" * 64), ("x-sig", right)]
    lines = [("content-type", "application/json"), *(pairs if wrong_first else pairs[::-1])]
    assert 202 == (await built.client.post(PATH, content=PLAIN, headers=lines)).status_code
    assert 401 == (await built.client.post(PATH, content=PLAIN, headers=[lines[0], pairs[0], pairs[0]])).status_code


# ---- pings ----------------------------------------------------------------------------------------------------------

PINGS = [
    b'{"type":"test"}', b'{"event": "ping"}', b'{"test": true}', b'{"ping": 1, "id": "evt_1"}',
    b'[{"event": "enode:webhook:test", "createdAt": "2026-01-01T00:00:00Z", "version": "2024-01"}]',
    b'{"zen": "Keep it logically awesome.", "hook_id": 1, "hook": {"type": "Repository"}}',
    b'{"type": "webhook.test", "data": {}}', b'{"eventType": "TEST_EVENT"}', b'{"topic": "ping", "data": {}}',
]  # fmt: skip


@pytest.mark.parametrize("path", ["/webhooks", PATH])
@pytest.mark.parametrize("body", PINGS, ids=lambda body: body[:24].decode(errors="replace") or "empty")
async def test_a_ping_is_answered_and_stored_nowhere(door: House, path: str, body: bytes) -> None:
    got = await door.post(path, body)
    assert (202, answer(0)) == (got.status_code, got.json())
    assert [] == door.store.taken
    assert 1 == door.count("bridge_pings_total")
    assert ([], False) == ((mapped := map_message(METER, body)).calls, mapped.dead)


@pytest.mark.parametrize("body", [b"", b" \r\n", MARK])
async def test_an_empty_body_is_a_ping_only_where_no_topic_is_named(door: House, body: bytes) -> None:
    assert answer(0) == (await door.post("/webhooks", body)).json()
    assert 1 == door.count("bridge_pings_total")
    got = (await door.post(PATH, body)).json()
    assert (1, 1) == (got["accepted"], got["dead"])
    assert map_message(METER, body).dead


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"{",
        b'{"type": "testimony"}',
        b'{"type": "test", "userId": "u"}',
        b'{"type": "test", "deviceId": "d", "state": "PENDING"}',
        b'{"test": true, "powerState": {}}',
        b'{"type": {"test": 1}}',
        b'{"topic": "test.meter.update", "data": {"id": "x"}}',
        b"[" + b",".join([b'{"type":"test"}'] * 4) + b"]",
        b'[{"type": "test"}, {"id": "x", "isOnline": true}]',
        b'"test"',
        b'{"type": "test", "note": "' + b"x" * 9_000 + b'"}',
    ],
)
async def test_what_may_be_a_message_is_no_ping(door: House, body: bytes) -> None:
    got = await door.post(PATH, body)
    assert got.json()["accepted"] >= 1
    assert 0 == door.count("bridge_pings_total")


async def test_a_ping_is_proved_and_counts_against_the_rate() -> None:
    built = house(settings(SIGNED | {"rate_limit": 1}))
    assert 401 == (await built.post(PATH, b'{"type":"test"}')).status_code
    body = b'{"type":"test"}'
    asked = [(await built.client.post(PATH, content=body, headers=sign(body))).status_code for _ in range(3)]
    assert [202, 429, 429] == asked


@pytest.mark.parametrize("path", ["/webhooks", PATH])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_webhook_address_that_is_only_looked_at_says_what_it_is(door: House, method: str, path: str) -> None:
    got = await door.client.request(method, path)
    assert 200 == got.status_code
    if method == "GET":
        assert {"webhook": "messages are taken by POST"} == got.json()
    assert 404 == (await door.client.request(method, "/webhooks/other.meter.update")).status_code
    assert 0 == (await door.store.census()).accepted


# ---- asking without a body ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", "/metrics"])
@pytest.mark.parametrize("draining", [False, True])
async def test_head_works_where_monitoring_gets(door: House, path: str, draining: bool) -> None:  # noqa: FBT001
    door.gate.draining = draining
    asked, got = await door.client.head(path), await door.client.get(path)
    assert (got.status_code, b"") == (asked.status_code, asked.content)
    assert got.headers["content-type"] == asked.headers["content-type"]


async def test_no_page_loads_anything_from_elsewhere() -> None:
    built = house(settings(OPEN, admin_token="let me in"))
    assert 404 == (await built.client.get("/docs")).status_code
    assert 404 == (await built.client.get("/redoc")).status_code
    assert 200 == (await built.client.get("/openapi.json")).status_code
    page = await built.client.get("/", headers={"authorization": "Bearer let me in"})
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert "http" not in page.text.replace('http-equiv="refresh"', "")
