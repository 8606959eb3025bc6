"""Each fault does what it says, over a real socket, and says how often."""

from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import pytest

from tests.sandbox.conftest import Client, Clock, building, event

pytestmark = pytest.mark.anyio


async def fired(client: Client) -> list[int]:
    return [one["fired"] for one in (await client.call("GET", "/_sandbox/faults"))[1]]


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500, 503])
async def test_a_status_is_answered_so_many_times_and_nothing_is_stored(home: Client, status: int) -> None:
    await home.faults({"kind": "status", "status": status, "times": 2, "path": "^/events"})
    answers = [(await home.call("POST", "/events/v1", event()))[0] for _ in range(3)]
    assert [status, status, 201] == answers
    assert 1 == (await home.received())["counts"]["events"]["live"]
    assert [2] == await fired(home)


async def test_retry_after_is_seconds_or_a_date(home: Client, clock: Clock) -> None:
    for fault, expected in (
        ({"retry_after": 7}, "7"),
        ({"retry_after": "Wed, 21 Oct 2026 07:28:00 GMT"}, "Wed, 21 Oct 2026 07:28:00 GMT"),
    ):
        await home.faults({"kind": "status", "status": 429, **fault})
        async with home.http.get(home.base + "/buildings/v1") as answer:
            assert (429, expected) == (answer.status, answer.headers["retry-after"])
    await home.faults({"kind": "status", "status": 503, "retry_after": 90, "as_date": True})
    async with home.http.get(home.base + "/buildings/v1") as answer:
        assert clock.now + 90 == parsedate_to_datetime(answer.headers["retry-after"]).timestamp()


@pytest.mark.parametrize(("kind", "stored"), [("close_before", 0), ("close_after", 1)])
async def test_a_dropped_connection_gives_no_answer(home: Client, kind: str, stored: int) -> None:
    await home.faults({"kind": kind, "times": 1, "method": "post"})
    with pytest.raises(aiohttp.ClientConnectionError):
        await home.call("POST", "/events/v1", event())
    received = await home.received()
    assert stored == received["counts"]["events"]["live"]
    assert [None] == [one["status"] for one in received["calls"] if one["path"] == "/events/v1"]
    assert (await home.call("POST", "/events/v1", event()))[0] == 201


async def test_an_outage_drops_everything_for_its_time_but_the_sandboxs_own_paths(home: Client, clock: Clock) -> None:
    await home.faults({"kind": "outage", "starts_in": 10, "lasts": 20})
    outcomes = []
    for second in (9, 1, 19, 1):
        clock.now += second
        try:
            outcomes.append((await home.call("GET", "/buildings/v1"))[0])
        except aiohttp.ClientConnectionError:
            outcomes.append(0)
    assert [200, 0, 0, 200] == outcomes
    assert (await home.call("GET", "/_sandbox/counts"))[0] == 200


async def test_latency_delays_the_answer(home: Client) -> None:
    await home.faults({"kind": "latency", "seconds": 30, "times": 1})
    with pytest.raises(TimeoutError):
        await home.call("GET", "/buildings/v1", seconds=0.1)
    assert (await home.call("GET", "/buildings/v1"))[0] == 200


async def test_latency_and_a_status_go_together(home: Client) -> None:
    await home.faults({"kind": "latency", "seconds": 0.001}, {"kind": "status", "status": 503}, {"kind": "outage"})
    assert (await home.call("GET", "/buildings/v1"))[0] == 503
    assert [1, 1, 0] == await fired(home)


async def test_partial_stores_the_first_of_an_array_and_answers_500(home: Client) -> None:
    await home.faults({"kind": "partial", "keep": 2, "times": 1})
    assert (await home.call("POST", "/events/v1", event(value=9)))[0] == 201
    batch = [event(value=number) for number in range(5)]
    assert (await home.call("POST", "/events/historical/v1", batch))[0] == 500
    assert [9, 0, 1] == [one["value"] for one in (await home.received())["events"]]
    assert (await home.call("POST", "/events/historical/v1", batch))[0] == 200


async def test_tokens_are_revoked_in_the_middle(home: Client) -> None:
    await home.faults({"kind": "revoke_tokens", "times": 1})
    assert (await home.call("GET", "/buildings/v1"))[0] == 401
    assert (await home.login())[0] == 200
    assert (await home.call("GET", "/buildings/v1"))[0] == 200
    assert [1] == await fired(home)


async def test_the_lifetime_of_tokens_can_be_cut(home: Client, clock: Clock) -> None:
    await home.faults({"kind": "expires_in", "expires_in": 3})
    assert (await home.login())[1]["expires_in"] == 3
    assert (await home.call("GET", "/buildings/v1"))[0] == 200
    clock.now += 3
    assert (await home.call("GET", "/buildings/v1"))[0] == 401


async def test_a_fault_can_be_for_one_building_or_for_one_body(home: Client) -> None:
    await home.call("POST", "/buildings/v1", building("home-2"))
    await home.faults(
        {"kind": "status", "status": 500, "building": "^home-2$"},
        {"kind": "status", "status": 400, "body": '"value":\\s*13[,.}]'},
    )
    calls: list[tuple[str, str, Any]] = [
        ("POST", "/events/v1", event()),
        ("POST", "/events/v1", event(customerBuildingId="home-2")),
        ("POST", "/events/historical/v1", [event(), event(customerBuildingId="home-2")]),
        ("GET", "/buildings/home-2/v1", None),
        ("POST", "/events/v1", event(value=13)),
        ("POST", "/events/historical/v1", [event(), event(value=13)]),
    ]
    assert [201, 500, 500, 500, 400, 400] == [(await home.call(*one))[0] for one in calls]


async def test_chance_is_repeatable_and_roughly_kept(home: Client) -> None:
    await home.faults({"kind": "status", "status": 503, "probability": 0.3})
    answers = [(await home.call("GET", "/buildings/v1"))[0] for _ in range(200)]
    assert 30 < answers.count(503) < 90
    assert [answers.count(503)] == await fired(home)


@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b"null", b'"outage"', b"{", b"\xff", b"[[]]", b"[null]", b'{"fault": []}', b'{"faults": [], "more": 1}'),
        *(b'{"faults": {}}', b'[{"kind": "latency", "seconds": "long"}]', b'[{"kind": "status", "status": 1e999}]'),
    ],
)
async def test_the_form_of_faults_is_a_list_or_an_object_with_a_list(home: Client, raw: bytes) -> None:
    await home.call("PUT", "/_sandbox/faults", {"faults": [{"kind": "latency", "seconds": 0}]})
    assert ["latency"] == [one["kind"] for one in (await home.call("GET", "/_sandbox/faults"))[1]]
    async with home.http.put(home.base + "/_sandbox/faults", data=raw) as answer:
        if not raw:
            assert (200, []) == (answer.status, await answer.json()), "no list is an empty one"
            return
        assert answer.status == 400
        assert (await answer.json())["message"]
    assert ["latency"] == [one["kind"] for one in (await home.call("GET", "/_sandbox/faults"))[1]]


async def test_faults_that_make_no_sense_are_refused_and_change_nothing(home: Client) -> None:
    await home.faults({"kind": "latency", "seconds": 0})
    for wrong in ([{"kind": "earthquake"}], [{"kind": "status", "colour": 1}], [{"kind": "outage", "path": "("}], 7):
        status, body = await home.call("PUT", "/_sandbox/faults", wrong)
        assert status == 400
        assert body["message"]
    assert ["latency"] == [one["kind"] for one in (await home.call("GET", "/_sandbox/faults"))[1]]
    assert (await home.call("PUT", "/_sandbox/faults", {"faults": []}))[1] == []
