"""A captured request sent again: with other headers, on another topic, in another form. It takes effect once."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from bridge.core.vocabulary import DeadReason
from bridge.store.desk import DeadFilter
from tests.receiver.conftest import JSON, OPEN, SECRET, SIGNED, House, answer, house, settings, sign

pytestmark = pytest.mark.anyio

UPDATE, DELETE = "/webhooks/sub-1.meter.update", "/webhooks/sub-1.meter.delete"
BODY = b'{"id": "meter-1", "userId": "user-1"}'


@pytest.fixture
def guarded() -> House:
    return house(settings(SIGNED))


async def post(built: House, path: str, headers: dict[str, str], body: bytes = BODY) -> dict[str, object]:
    got = await built.client.post(path, content=body, headers=headers)
    assert 202 == got.status_code
    found: dict[str, object] = got.json()
    return found


def svix(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("webhook-", "svix-"): value for name, value in headers.items()}


async def test_no_header_that_is_not_signed_makes_it_another_delivery(guarded: House) -> None:
    captured = sign(BODY)
    assert answer(1) == await post(guarded, UPDATE, captured)
    for number in range(50):
        for added in ("ce-id", "svix-id", "x-id"):
            forged = {added: f"other-{number}", "ce-source": f"/{number}"}
            assert answer(0, duplicates=1) == await post(guarded, UPDATE, captured | forged)
    assert 1 == len(guarded.store.taken)


async def test_beside_a_signed_svix_id_no_webhook_id_counts(guarded: House) -> None:
    captured = svix(sign(BODY))
    assert answer(1) == await post(guarded, UPDATE, captured)
    assert answer(0, duplicates=1) == await post(guarded, UPDATE, captured | {"webhook-id": "other"})
    assert "msg_1" == guarded.store.taken[0].message_id


async def test_the_configured_id_headers_do_not_count_either() -> None:
    built = house(settings(SIGNED, id_headers=["x-id"]))
    captured = sign(BODY)
    assert answer(1) == await post(built, UPDATE, captured | {"x-id": "a"})
    assert answer(0, duplicates=1) == await post(built, UPDATE, captured | {"x-id": "b"})


async def test_on_another_topic_it_is_one_dead_letter_and_then_a_duplicate(guarded: House) -> None:
    captured = sign(BODY)
    assert answer(1) == await post(guarded, UPDATE, captured)
    assert answer(1, dead=1, ids=[2]) == await post(guarded, DELETE, captured)
    for path in (DELETE, "/webhooks/sub-1.meter.offline", "/webhooks/sub-1.nonsense"):
        assert answer(0, duplicates=1) == await post(guarded, path, captured)
    got = await post(guarded, "/webhooks", captured | {"x-topic": "sub-1.meter.delete"})
    assert answer(0, duplicates=1) == got
    [letter] = await guarded.store.dead_letters(DeadFilter())
    assert (DeadReason.REPLAYED, "sub-1.meter.delete") == (letter.reason, letter.topic)
    assert {"replayed": 1} == (await guarded.client.get("/health")).json()["dead_letters"]
    assert 1 == guarded.count("bridge_messages_dead_total")
    messages, _ = await guarded.store.claim(10)
    assert ["sub-1.meter.update"] == [message.topic for message in messages]


async def test_each_message_of_a_captured_array_is_replayed_by_itself(guarded: House) -> None:
    body = json.dumps([{"id": "a"}, {"id": "b"}]).encode()
    captured = sign(body)
    assert answer(2) == await post(guarded, UPDATE, captured, body)
    assert answer(2, dead=2, ids=[3, 4]) == await post(guarded, DELETE, captured, body)


async def test_the_data_of_a_captured_envelope_is_not_processed_on_another_topic(guarded: House) -> None:
    event = {"specversion": "1.0", "type": "sub-1.meter.update", "source": "/hub", "id": "e-1", "data": {"id": "m"}}
    body = json.dumps(event).encode()
    captured = sign(body)
    assert answer(1) == await post(guarded, "/webhooks", captured, body)
    wrapped = captured | {"content-type": "application/cloudevents+json"}
    assert answer(1, dead=1, ids=[2]) == await post(guarded, DELETE, wrapped, body)


async def test_a_sender_that_signs_anew_may_use_its_id_on_another_topic(guarded: House) -> None:
    now = datetime.now(UTC)
    assert answer(1) == await post(guarded, UPDATE, sign(BODY, at=now - timedelta(seconds=20)))
    assert answer(1, ids=[2]) == await post(guarded, DELETE, sign(BODY, at=now))
    assert answer(0, duplicates=1) == await post(guarded, UPDATE, sign(BODY, at=now))


async def test_another_signed_id_on_another_topic_is_another_message(guarded: House) -> None:
    assert answer(1) == await post(guarded, UPDATE, sign(BODY))
    assert answer(1, ids=[2]) == await post(guarded, DELETE, sign(BODY, message_id="msg_2"))


@pytest.mark.parametrize(
    "auth",
    [
        {"auth": "none"},
        {"auth": "bearer", "secrets": [SECRET]},
    ],
)
async def test_where_no_id_is_signed_the_topic_tells_messages_apart(auth: dict[str, object]) -> None:
    built = house(settings(OPEN | auth))
    headers = JSON | {"authorization": f"Bearer {SECRET}", "webhook-id": "m-1"}
    assert answer(1) == await post(built, UPDATE, headers)
    assert answer(1, ids=[2]) == await post(built, DELETE, headers)
    assert answer(0, duplicates=1) == await post(built, DELETE, headers)
    assert answer(1, ids=[3]) == await post(built, DELETE, headers | {"ce-id": "1", "ce-source": "/hub"})
