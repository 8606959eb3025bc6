"""The look-alike behaves as MOOST's documentation says, over a real socket."""

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema_rs
import pytest

from bridge.sandbox.document import Document
from bridge.sandbox.moost import CUSTOMER_ID, Moost
from bridge.sandbox.server import serving
from tests.sandbox.conftest import Client, Clock, building, event

pytestmark = pytest.mark.anyio


async def test_the_token_is_a_long_dotted_jwt_that_names_the_customer(moost: Client, clock: Clock) -> None:
    status, body = await moost.login()
    claims = json.loads(base64.urlsafe_b64decode(body["access_token"].split(".")[1] + "=="))
    assert status == 200
    assert len(body["access_token"]) > 500
    assert "-" in body["access_token"]
    assert {"token_type": "Bearer", "expires_in": 86400} == {key: body[key] for key in ("token_type", "expires_in")}
    assert (CUSTOMER_ID, int(clock.now), int(clock.now) + 86400) == (
        claims["customerId"],
        claims["iat"],
        claims["exp"],
    )
    assert "write:events" in claims["scope"]


async def test_wrong_credentials_are_401(moost: Client) -> None:
    assert (await moost.login("sandbox", "wrong"))[0] == 401
    assert (await moost.login("wrong", "sandbox-secret"))[0] == 401
    assert (await moost.call("GET", "/auth/token/v1"))[0] == 401


async def test_every_operation_of_the_document_wants_a_good_token(home: Client) -> None:
    home.token = "invented"
    for one in Document().operations:
        if one.id != "tokenV1":
            path = one.template.replace("{customerBuildingId}", "home-1")
            assert (one.id, 401) == (one.id, (await home.call(one.method, path, event()))[0])


async def test_every_operation_of_the_document_answers_something_it_documents(home: Client) -> None:
    bodies: dict[str, Any] = {
        "addEventV1": event(),
        "insertHistoricalEventsV1": [event()],
        "derivedCreateBuilding": building("home-2"),
        "derivedUpdateBuilding": building(),
        "derivedAttachDevices": [{"id": "gateway:home-1", "type": "GATEWAY"}],
    }
    document = Document().raw
    for one in sorted(Document().operations, key=lambda one: one.method == "DELETE"):
        path = one.template.replace("{customerBuildingId}", "home-1")
        query = "?clientId=sandbox&clientSecret=sandbox-secret" if one.id == "tokenV1" else ""
        status, _ = await home.call(one.method, path + query, bodies.get(one.id))
        documented = document["paths"][one.template][one.method.lower()]["responses"]
        success = {code for code in documented if code.startswith("2")} or {"200"}
        assert (one.id, True) == (one.id, str(status) in success)


async def test_a_token_expires(moost: Client, clock: Clock) -> None:
    clock.now += 86_399
    assert (await moost.call("GET", "/buildings/v1"))[0] == 200
    clock.now += 1
    assert (await moost.call("GET", "/buildings/v1"))[0] == 401


async def test_unknown_paths_are_404_and_wrong_methods_405(moost: Client) -> None:
    assert (await moost.call("GET", "/events/v2"))[0] == 404
    assert (await moost.call("PUT", "/events/v1", event()))[0] == 405


@pytest.mark.parametrize(
    "wrong",
    [
        {"deviceId": "a/b"},
        {"deviceId": "ab"},
        {"deviceName": ""},
        {"deviceName": "two\nlines"},
        {"type": "CAR_CHARGING_MODE"},
        {"value": "858.71"},
        {"value": None},
        {"source": "CLOUD"},
        {"timestamp": "2026-06-15T10:00:00Z"},
        {"customerId": "short"},
        {"customerBuildingId": "nobody-knows"},
    ],
)
async def test_an_invalid_event_is_400_in_both_lanes_and_not_stored(home: Client, wrong: dict[str, Any]) -> None:
    assert (await home.call("POST", "/events/v1", event(**wrong)))[0] == 400
    status, detail = await home.call("POST", "/events/historical/v1", [event(), event(**wrong)])
    assert status == 400
    assert all(key.startswith("[1]") and isinstance(value, str) for key, value in detail.items())
    assert (await home.received())["events"] == []


async def test_a_body_that_is_no_json_or_missing_is_400(home: Client) -> None:
    for raw in (b"", b"{", b"\xff", b"[" * 100_000):
        headers = {"authorization": f"Bearer {home.token}", "content-type": "application/json"}
        async with home.http.post(home.base + "/events/v1", data=raw, headers=headers) as answer:
            assert answer.status == 400


async def test_historical_events_must_be_of_the_tokens_customer_and_live_ones_need_not(home: Client) -> None:
    foreign = event(customerId="f" * 24)
    assert (await home.call("POST", "/events/historical/v1", [event(), foreign]))[0] == 400
    assert (await home.call("POST", "/events/v1", foreign))[0] == 201
    received = await home.received()
    assert ["customer"] == [one["rule"] for one in received["violations"]]
    assert ["live"] == [one["lane"] for one in received["events"]]


async def test_events_are_kept_in_order_with_their_lane(home: Client, clock: Clock) -> None:
    await home.call("POST", "/events/v1", event(value=1))
    await home.call("POST", "/events/historical/v1", [event(value=2), event(value=3)])
    await home.call("POST", "/events/v1", event(value=4))
    received = await home.received()
    assert [(1, "live"), (2, "historical"), (3, "historical"), (4, "live")] == [
        (one["value"], one["lane"]) for one in received["events"]
    ]
    assert {clock.now} == {one["received_at"] for one in received["events"]}
    assert {"live": 2, "historical": 2} == received["counts"]["events"]
    assert [] == received["violations"]


async def test_a_building_exists_once_and_an_unknown_one_cannot_be_changed(moost: Client) -> None:
    assert (await moost.call("PUT", "/buildings/v1", building()))[0] == 404
    assert (await moost.call("GET", "/buildings/home-1/v1"))[0] == 404
    assert (await moost.call("PUT", "/buildings/home-1/devices/v1", []))[0] == 404
    assert (await moost.call("DELETE", "/buildings/home-1/v1"))[0] == 404
    assert (await moost.call("POST", "/buildings/v1", building()))[0] == 201
    assert (await moost.call("POST", "/buildings/v1", building(zip="1")))[0] == 409
    assert "zip" not in (await moost.call("GET", "/buildings/home-1/v1"))[1]
    assert (await moost.call("DELETE", "/buildings/home-1/v1"))[0] == 200
    assert (await moost.call("GET", "/buildings/home-1/v1"))[0] == 404


@pytest.mark.parametrize(
    "wrong",
    [
        {"customerBuildingId": "with space"},
        {"countryCode": "Germany"},
        {"timeZoneId": "Europe/Nowhere"},
        {"geolocation": {"lat": 91, "lon": 0}},
        {"userIds": ["Müller"]},
        {"settings": {"tariff": {"type": "DYNAMIC", "minPrice": 0.3}}},
        {"settings": {"tariff": {"type": "DYNAMIC", "dynamic": {"tariffs": [{"price": "0.3", "from": 1}]}}}},
    ],
)
async def test_an_invalid_building_is_400(home: Client, wrong: dict[str, Any]) -> None:
    assert (await home.call("POST", "/buildings/v1", {**building("home-3"), **wrong}))[0] == 400
    if "customerBuildingId" not in wrong:
        assert (await home.call("PUT", "/buildings/v1", {**building("home-1"), **wrong}))[0] == 400


async def test_nullable_attributes_may_be_null(moost: Client) -> None:
    assert (await moost.call("POST", "/buildings/v1", building(deactivatedTimestamp=None)))[0] == 201
    assert (await moost.call("POST", "/buildings/v1", building("b", registrationTimestamp=None)))[0] == 400


async def test_a_building_put_replaces_all_but_what_moost_sets(home: Client, clock: Clock) -> None:
    before = (await home.call("GET", "/buildings/home-1/v1"))[1]
    clock.now += 5
    changed = {key: value for key, value in before.items() if key not in {"id", "activationTimestamp", "profile"}}
    assert (await home.call("PUT", "/buildings/v1", {**changed, "zip": "01067"}))[0] == 200
    assert {**before, "zip": "01067"} == (await home.call("GET", "/buildings/home-1/v1"))[1]
    assert [] == (await home.received())["violations"]
    assert (await home.call("PUT", "/buildings/v1", building(profile={"a": 1}, id="x")))[0] == 200
    after = (await home.call("GET", "/buildings/home-1/v1"))[1]
    kept = {key: before[key] for key in ("id", "customerId", "activationTimestamp", "profile")}
    assert {**building(), **kept} == after
    rules = [(one["rule"], one["detail"].split()[0]) for one in (await home.received())["violations"]]
    assert {
        ("read-only", "id"),
        ("read-only", "profile"),
        ("attribute-lost", "mode"),
        ("attribute-lost", "settings"),
        ("attribute-lost", "devices"),
        ("attribute-lost", "zip"),
        ("attribute-lost", "settings.language"),
    } == set(rules)


async def test_a_device_list_is_replaced(home: Client) -> None:
    assert (await home.call("PUT", "/buildings/home-1/devices/v1", [{"id": "abc", "type": "CAR"}]))[0] == 200
    assert [{"id": "abc", "type": "CAR"}] == (await home.call("GET", "/buildings/home-1/v1"))[1]["devices"]
    assert {"home-1": [{"id": "abc", "type": "CAR"}]} == (await home.received())["devices"]
    assert (await home.call("PUT", "/buildings/home-1/devices/v1", [{"id": "abc"}]))[0] == 400
    assert (await home.call("PUT", "/buildings/home-1/devices/v1", {"devices": []}))[0] == 400
    assert (await home.call("PUT", "/buildings/home%201/devices/v1", []))[0] == 400


async def test_lists_can_leave_out_deactivated_buildings_and_core_data_leaves_out_devices(home: Client) -> None:
    await home.call("POST", "/buildings/v1", building("gone", deactivatedTimestamp=1))
    ids = [one["customerBuildingId"] for one in (await home.call("GET", "/buildings/v1?activeOnly=true"))[1]]
    core = (await home.call("GET", "/buildings/core-data/v1?activeOnly=false"))[1]
    assert ["home-1"] == ids
    assert ["home-1", "gone"] == [one["customerBuildingId"] for one in core]
    assert all({"devices", "settings", "profile"}.isdisjoint(one) for one in core)
    assert (await home.call("GET", "/buildings/v1?activeOnly=maybe"))[0] == 400


@pytest.mark.parametrize(
    ("rule", "odd"),
    [
        ("event-type", {"type": "ENERGY_CONSUMPTION_LAST_24H"}),
        ("source", {"type": "ENERGY_GENERATION", "source": "INVERTER"}),
        ("source", {"source": "MOOST"}),
        ("value", {"value": -1}),
        ("value", {"type": "SELF_CONSUMPTION_RATE", "value": 100.5}),
        ("timestamp", {"timestamp": 1_779_999_900_000}),
        ("timestamp", {"timestamp": 1_780_000_601}),
        ("device-unlisted", {"deviceId": "meter:9"}),
    ],
)
async def test_what_the_schema_lets_through_and_is_wrong_is_recorded(
    home: Client,
    rule: str,
    odd: dict[str, Any],
) -> None:
    assert (await home.call("POST", "/events/v1", event(**odd)))[0] == 201
    received = await home.received()
    assert [rule] == [one["rule"] for one in received["violations"]]
    assert {rule: 1} == received["counts"]["violations"]


async def test_missing_source_and_timestamp_are_recorded(home: Client) -> None:
    short = {key: value for key, value in event().items() if key not in {"source", "timestamp"}}
    assert (await home.call("POST", "/events/v1", short))[0] == 201
    assert ["source", "timestamp"] == [one["rule"] for one in (await home.received())["violations"]]


@pytest.mark.parametrize("raw", ["NaN", "Infinity", "1e999"])
async def test_a_number_that_is_not_finite_is_recorded(home: Client, raw: str) -> None:
    text = json.dumps(event(value=0.125)).replace("0.125", raw)
    headers = {"authorization": f"Bearer {home.token}", "content-type": "application/json"}
    async with home.http.post(home.base + "/events/v1", data=text, headers=headers) as answer:
        assert answer.status == 201
    received = await home.received()
    assert ["value"] == [one["rule"] for one in received["violations"]]
    assert [None] == [one["value"] for one in received["events"]]


async def test_calls_are_recorded_in_order_without_their_query(home: Client) -> None:
    await home.call("POST", "/events/v1", event(deviceId="a"))
    calls = (await home.received())["calls"]
    assert [
        ("GET", "/auth/token/v1", 200),
        ("POST", "/buildings/v1", 201),
        ("PUT", "/buildings/home-1/devices/v1", 200),
        ("POST", "/events/v1", 400),
    ] == [(one["method"], one["path"], one["status"]) for one in calls]
    assert building() == calls[1]["body"]
    assert "sandbox-secret" not in json.dumps(calls)


async def test_received_can_be_paged_filtered_and_emptied(home: Client) -> None:
    await home.call("POST", "/buildings/v1", building("home-2"))
    for number in range(5):
        await home.call("POST", "/events/v1", event(value=number, customerBuildingId=f"home-{number % 2 + 1}"))
    values, since = [], 0
    while since < (page := await home.received(f"?since={since}&limit=3"))["counts"]["next"]:
        values += [one["value"] for one in page["events"]]
        since = page["next"]
    assert list(range(5)) == values
    second = await home.received("?building=home-2")
    assert [1, 3] == [one["value"] for one in second["events"]]
    assert ["home-2"] == list(second["buildings"])
    assert [201, 201, 201] == [one["status"] for one in second["calls"]]
    assert (await home.call("GET", "/_sandbox/received?since=x"))[0] == 400
    assert (await home.call("DELETE", "/_sandbox/received"))[0] == 200
    empty = await home.received()
    assert ({}, [], [], 0) == (empty["buildings"], empty["events"], empty["calls"], empty["counts"]["next"])


async def test_counts_stay_exact_when_only_the_last_are_kept() -> None:
    async with serving(Moost(keep=3)) as base, aiohttp.ClientSession() as http:
        client = Client(http, base)
        await client.login()
        await client.call("POST", "/buildings/v1", building())
        for number in range(10):
            await client.call("POST", "/events/v1", event(value=number))
        received = await client.received()
        counts = (await client.call("GET", "/_sandbox/counts"))[1]
    assert [7, 8, 9] == [one["value"] for one in received["events"]]
    assert 10 == counts["events"]["live"]
    assert 10 == counts["calls"]["POST /events/v1 201"]
    assert {"device-unlisted": 10} == counts["violations"]


async def test_the_page_shows_events_and_faults_and_escapes_them(home: Client) -> None:
    await home.call("POST", "/events/v1", event(deviceName="<script>alert(1)</script>"))
    await home.faults({"kind": "latency", "seconds": 0})
    async with home.http.get(home.base + "/") as answer:
        html = await answer.text()
    assert "&lt;script&gt;" in html
    assert "<script>" not in html
    assert "latency" in html
    assert 'http-equiv="refresh"' in html


@pytest.mark.parametrize("path", ["/favicon.ico", "/apple-touch-icon.png", "/robots.txt", "/.well-known/x.json"])
async def test_what_a_browser_asks_by_itself_is_no_call_and_no_fault_meets_it(path: str, home: Client) -> None:
    await home.faults({"kind": "status", "status": 500})
    before = (await home.call("GET", "/_sandbox/counts"))[1]
    async with home.http.get(home.base + path) as answer:
        assert answer.status == 404
    assert before == (await home.call("GET", "/_sandbox/counts"))[1]
    async with home.http.get(home.base + "/") as answer:
        assert 'rel="icon" href="data:,"' in await answer.text()


async def test_what_it_returns_fits_its_own_document(home: Client) -> None:
    document = Document().raw
    schema = {"$ref": "#/components/schemas/Building", "components": document["components"]}
    jsonschema_rs.Draft4Validator(schema).validate((await home.call("GET", "/buildings/home-1/v1"))[1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_process_says_its_address_and_ends_with_0(number: signal.Signals) -> None:
    code = "from bridge.sandbox.moost import run; run('127.0.0.1', 0, 'me', 'mine', 'c' * 24, 5)"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=subprocess.PIPE, env=os.environ)
    assert process.stdout is not None
    line = (await asyncio.wait_for(process.stdout.readline(), 30)).decode()
    word, address = line.split()
    async with aiohttp.ClientSession() as http:
        assert (await Client(http, address).login("me", "mine"))[0] == 200
    process.send_signal(number)
    assert ("sandbox", 0) == (word, await asyncio.wait_for(process.wait(), 10))


# ---- a journal ------------------------------------------------------------------------------------------------------


async def test_with_a_journal_a_restart_goes_on_with_what_was_received(clock: Clock, tmp_path: Path) -> None:
    journal = tmp_path / "moost.jsonl"
    async with serving(Moost(now=clock, journal=journal)) as base, aiohttp.ClientSession() as http:
        first = Client(http, base)
        await first.login()
        await first.call("POST", "/buildings/v1", building())
        await first.call("POST", "/buildings/v1", building("home-2"))
        await first.call("DELETE", "/buildings/home-2/v1")
        await first.call("PUT", "/buildings/home-1/devices/v1", [{"id": "gateway:home-1", "type": "GATEWAY"}])
        await first.call("POST", "/events/v1", event())
        await first.call("POST", "/events/v1", event(value=-5))
        await first.call("POST", "/events/historical/v1", [event(), event()])
        before = await first.received()
        assert {"live": 2, "historical": 2} == before["counts"]["events"]
        assert {"value": 1} == before["counts"]["violations"]
    with journal.open("ab") as cut:
        cut.write(b'["event",{"customerBuil')  # a kill in the middle of a line
    async with serving(Moost(now=clock, journal=journal)) as base, aiohttp.ClientSession() as http:
        again = Client(http, base)
        assert before == await again.received()
        await again.login()
        assert 201 == (await again.call("POST", "/events/v1", event()))[0]
        await again.call("DELETE", "/_sandbox/received")
    async with serving(Moost(now=clock, journal=journal)) as base, aiohttp.ClientSession() as http:
        assert [] == (await Client(http, base).received())["events"]
