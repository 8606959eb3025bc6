"""The HTTP table of the contract, answer for answer, and the order in which the door asks."""

import asyncio
import base64
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from tests.receiver.conftest import JSON, OPEN, PATH, SECRET, SIGNED, House, answer, house, settings, sign, until

pytestmark = pytest.mark.anyio

NETWORK = {"allowed_networks": ["10.0.0.0/8"]}


async def test_a_stored_message_is_answered_with_202_and_its_row(door: House) -> None:
    got = await door.post(content=b' {"id": "x"}')
    assert (202, answer(1)) == (got.status_code, got.json())
    assert "application/json" == got.headers["content-type"]
    assert [b' {"id": "x"}'] == door.store.bodies()
    assert 1 == door.count("bridge_messages_accepted_total")


async def test_the_answer_comes_only_after_the_store_has_said_so(door: House) -> None:
    door.store.go_on.clear()
    posting = asyncio.create_task(door.post())
    await until(lambda: door.store.waiting)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not posting.done()
    door.store.go_on.set()
    assert 202 == (await posting).status_code


@pytest.mark.parametrize("path", ["/webhooks/other.vehicle.update", "/webhooks/other", "/webhooks/.vehicle.update"])
async def test_an_unknown_subscription_in_the_path_is_404(door: House, path: str) -> None:
    got = await door.post(path)
    assert (404, {"error": "no such subscription"}) == (got.status_code, got.json())
    assert 1 == door.count("bridge_requests_refused_total", status="404")
    assert [] == door.store.taken


async def test_an_unknown_subscription_in_a_header_is_404(door: House) -> None:
    assert 404 == (await door.post("/webhooks", x_topic="other.vehicle.update")).status_code


@pytest.mark.parametrize("path", ["/webhooks/", "/webhooks/a/b", "/webhook", "/nothing", "/health/", "/health/x"])
async def test_what_is_not_there_is_404_and_never_a_redirect(door: House, path: str) -> None:
    for method in ("GET", "POST"):
        got = await door.client.request(method, path)
        assert (404, {"error": "not found"}) == (got.status_code, got.json())


@pytest.mark.parametrize(
    ("method", "path"), [("DELETE", PATH), ("PUT", "/webhooks"), ("POST", "/health"), ("DELETE", "/metrics")]
)
async def test_a_wrong_method_is_405(door: House, method: str, path: str) -> None:
    got = await door.client.request(method, path)
    assert (405, {"error": "method not allowed"}) == (got.status_code, got.json())
    assert got.headers["allow"]


async def test_a_body_of_exactly_the_limit_passes_and_one_byte_more_is_413() -> None:
    built = house(settings(max_body=2048))
    body = b'{"a": "' + b"x" * 2039 + b'"}'
    assert 202 == (await built.post(content=body)).status_code
    got = await built.post(content=body + b" ")
    assert (413, {"error": "the body is too large"}) == (got.status_code, got.json())
    assert "close" == got.headers["connection"]


async def test_a_body_that_is_too_large_without_saying_so_is_413() -> None:
    built = house(settings(max_body=2048))

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield b" " * 100

    got = await built.client.post(PATH, content=pieces(), headers=JSON)
    assert 413 == got.status_code
    assert [] == built.store.taken


@pytest.mark.parametrize(
    "media",
    [
        None,
        "",
        "application/json",
        "Application/JSON; charset=utf-8",
        "application/cloudevents+json",
        "application/a+JSON;b=c",
    ],
)
async def test_json_by_any_of_its_names_is_taken(door: House, media: str | None) -> None:
    headers = {} if media is None else {"content-type": media}
    assert 202 == (await door.client.post(PATH, content=b"{}", headers=headers)).status_code


@pytest.mark.parametrize(
    "media",
    ["text/plain", "application/xml", "text/json", "json", "application/jsonp", "application/x-www-form-urlencoded"],
)
async def test_another_media_type_is_415(door: House, media: str) -> None:
    assert 415 == (await door.post(content_type=media)).status_code


@pytest.mark.parametrize("encoding", ["gzip", "identity", "br", ""])
async def test_any_content_encoding_is_415(door: House, encoding: str) -> None:
    assert 415 == (await door.post(content_encoding=encoding)).status_code


async def test_an_address_outside_the_networks_is_403() -> None:
    assert 403 == (await house(settings(OPEN | NETWORK)).post()).status_code
    assert 202 == (await house(settings(OPEN | NETWORK), address="10.1.2.3").post()).status_code


@pytest.mark.parametrize(
    ("switch", "reason"),
    [({"starting": True}, "starting"), ({"shut": True}, "draining"), ({"store": True}, "store")],
)
async def test_a_closed_door_is_503_and_says_when_to_come_again(
    door: House, switch: dict[str, bool], reason: str
) -> None:
    for name, value in switch.items():
        setattr(door.gate, name, value)
    got = await door.post()
    assert (503, {"error": reason}) == (got.status_code, got.json())
    assert int(got.headers["retry-after"]) >= 1
    assert [] == door.store.taken


async def test_a_store_that_cannot_serve_is_503_and_the_next_try_may_pass(door: House) -> None:
    door.store.broken = True
    got = await door.post()
    assert (503, {"error": "store"}) == (got.status_code, got.json())
    assert int(got.headers["retry-after"]) >= 1
    assert ["store"] == door.gate.failing()
    door.store.broken = False
    assert 202 == (await door.post()).status_code
    assert [] == door.gate.failing()


async def test_what_is_not_signed_rightly_is_401_and_not_stored() -> None:
    built = house(settings(SIGNED))
    body = b'{"id": 1}'
    late = datetime.now(UTC) - timedelta(minutes=6)
    for headers in (
        JSON,
        sign(b'{"id": 2}'),
        sign(body, secret="whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"),
        sign(body, at=late),
        sign(body) | {"webhook-signature": "v1,garbage"},
        JSON | {"authorization": f"Basic {base64.b64encode(b'a:b').decode()}"},
    ):
        got = await built.client.post(PATH, content=body, headers=headers)
        assert (401, {"error": "the request could not be verified"}) == (got.status_code, got.json())
    assert [] == built.store.taken
    assert 202 == (await built.client.post(PATH, content=body, headers=sign(body))).status_code


async def test_an_unsigned_body_is_not_read_for_what_it_says() -> None:
    built = house(settings(SIGNED))
    assert 401 == (await built.post(content=b"{ broken")).status_code
    got = await built.client.post(PATH, content=b"{ broken", headers=sign(b"{ broken"))
    assert (202, answer(1, dead=1)) == (got.status_code, got.json())


# ---- the order ------------------------------------------------------------------------------------------------------

WRONG: list[tuple[int, str]] = [
    (404, "path"),
    (413, "length"),
    (415, "media"),
    (403, "address"),
    (503, "gate"),
    (401, "signature"),
    (429, "rate"),
]


@pytest.mark.parametrize("place", range(len(WRONG)), ids=[str(status) for status, _ in WRONG])
async def test_of_all_that_is_wrong_the_first_in_the_order_of_the_contract_is_answered(place: int) -> None:
    wrong = {what for _, what in WRONG[place:]}
    subscription = SIGNED | {"rate_limit": 1} | (NETWORK if "address" in wrong else {})
    built = house(settings(subscription, max_body=2048))
    if "rate" in wrong and "address" not in wrong:  # the bucket can only be emptied by somebody who is let in
        assert 202 == (await built.client.post(PATH, content=b"{}", headers=sign(b"{}"))).status_code
    built.gate.shut = "gate" in wrong
    body = b" " * 3000 if "length" in wrong else b"{}"
    headers = JSON if "signature" in wrong else sign(body, message_id="msg_2")
    if "media" in wrong:
        headers = headers | {"content-type": "text/plain"}
    path = "/webhooks/other.vehicle.update" if "path" in wrong else PATH
    got = await built.client.post(path, content=body, headers=headers)
    assert WRONG[place][0] == got.status_code
    assert ["error"] == list(got.json())
    assert (got.status_code in (429, 503)) == ("retry-after" in got.headers)


# ---- the handshake --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/webhooks", PATH, "/webhooks/other.vehicle.update"])
async def test_the_cloud_events_handshake_is_granted(door: House, path: str) -> None:
    got = await door.client.options(path, headers={"WebHook-Request-Origin": "hub.example.com"})
    assert 200 == got.status_code
    assert "POST, OPTIONS" == got.headers["allow"]
    assert "hub.example.com" == got.headers["webhook-allowed-origin"]
    assert "*" == got.headers["webhook-allowed-rate"]


async def test_the_handshake_names_the_rate_of_the_subscription_per_minute() -> None:
    built = house(settings(OPEN | {"rate_limit": 0.5}))
    assert "30" == (await built.client.options(PATH)).headers["webhook-allowed-rate"]


async def test_the_handshake_repeats_no_origin_that_is_none(door: House) -> None:
    got = await door.client.options("/webhooks", headers={"WebHook-Request-Origin": "a b\x7f"})
    assert (200, "*") == (got.status_code, got.headers["webhook-allowed-origin"])


# ---- reload ---------------------------------------------------------------------------------------------------------


async def test_reload_takes_new_secrets_at_once_and_keeps_the_old_where_the_new_are_unusable() -> None:
    built = house(settings(SIGNED))
    new = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"

    async def status(secret: str) -> int:
        return (await built.client.post(PATH, content=b"{}", headers=sign(b"{}", secret=secret))).status_code

    assert (202, 401) == (await status(SECRET), await status(new))
    built.receiver.reload(settings(SIGNED | {"secrets": [SECRET, new]}))
    assert (202, 202) == (await status(SECRET), await status(new))
    built.receiver.reload(settings(SIGNED | {"secrets": [new]}))
    assert (401, 202) == (await status(SECRET), await status(new))
    with pytest.raises(Exception, match="base64"):
        built.receiver.reload(settings(SIGNED | {"secrets": ["whsec_!"]}))
    assert (401, 202) == (await status(SECRET), await status(new))


async def test_the_shortcut_past_the_framework_and_the_routes_in_it_are_the_same_door() -> None:
    built = house(settings(SIGNED))
    pages = httpx.AsyncClient(transport=httpx.ASGITransport(built.receiver.pages), base_url="http://bridge")
    for client in (built.client, pages):
        assert 401 == (await client.post(PATH, content=b"{}")).status_code
        assert 401 == (await client.post("/webhooks", content=b"{}")).status_code
        assert 202 == (await client.post(PATH, content=b"{}", headers=sign(b"{}"))).status_code
