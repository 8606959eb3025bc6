"""The commands as an operator uses them: beside a running daemon, or with nothing at all."""

import json
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from bridge.sandbox.database import MISSING, binaries
from tests.life.stage import (
    ROOT,
    SECRET,
    SUBSCRIPTION,
    Bridge,
    Process,
    Sandbox,
    ask,
    assert_identities,
    bridged,
    run,
    sandboxed,
    until,
    vehicle,
)

MESSAGES: Final = ROOT / "tests" / "examples" / "messages"
CHARGING: Final = MESSAGES / "vehicle" / "update.charging.json"
Pair = tuple[Bridge, Sandbox]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("commands")
    with sandboxed(folder) as sandbox, bridged(folder, sandbox.url) as bridge:
        bridge.start()
        yield bridge, sandbox


def rows(bridge: Bridge, *words: object, code: int = 0) -> list[Any]:
    """Return the JSON array that a command prints."""
    done = run(*words, "--json", "--config", bridge.config)
    assert code == done.returncode, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, list)
    return found


# ---- map ------------------------------------------------------------------------------------------------------------


def test_map_prints_the_calls_of_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("map", f"{SUBSCRIPTION}.vehicle.update", CHARGING)
    assert 0 == done.returncode, done.stderr
    assert [
        {
            "method": "POST",
            "path": "/buildings/v1",
            "body": {
                "customerBuildingId": "user-4711",
                "countryCode": "DE",
                "timeZoneId": "Europe/Berlin",
                "userIds": ["user-4711"],
            },
        },
        {
            "method": "PUT",
            "path": "/buildings/user-4711/devices/v1",
            "body": [
                {"id": "gateway:user-4711", "type": "GATEWAY", "name": "Household"},
                {
                    "id": "vehicle:c3d94f10-0005-4c1e-9a10-000000000005",
                    "type": "CAR",
                    "name": "Family car",
                    "product_name": "VW ID.3",
                },
            ],
        },
        {
            "method": "POST",
            "path": "/events/v1",
            "body": {
                "customerId": "0" * 24,
                "customerBuildingId": "user-4711",
                "deviceId": "vehicle:c3d94f10-0005-4c1e-9a10-000000000005",
                "deviceName": "Family car",
                "source": "CAR",
                "type": "STATE_OF_CHARGE_RATE",
                "value": 56.4,
                "timestamp": 1781517630,
            },
        },
    ] == json.loads(done.stdout)
    assert max(map(len, done.stdout.splitlines())) < 100, "a person reads it too"
    assert [] == list(tmp_path.iterdir()), "it needs no store and leaves none"


@pytest.mark.parametrize(
    "file", ["battery/offline.json", "hvac/command.json", "tariff/price.update.json", "vehicle/command.json"]
)
def test_map_explains_what_follows_or_why_nothing_does(file: str) -> None:
    action = file.partition("/")[2].removesuffix(".json")
    done = run("map", f"{SUBSCRIPTION}.{file.partition('/')[0]}.{action}", MESSAGES / file)
    assert 0 == done.returncode
    calls = json.loads(done.stdout)
    assert calls or done.stderr.strip()
    assert all({"method", "path", "body"} == set(call) for call in calls)
    assert ("command" in file) == (calls == [])


@pytest.mark.parametrize(
    ("topic", "text", "reason"),
    [
        ("acme.vehicle.update", '{"id": "car-1"', "unreadable: "),
        ("acme.vehicle.update", '{"userId": "user-1"}', "unreadable: "),
        ("acme.vehicle.explode", "{}", "unknown-topic: "),
        ("vehicle", "{}", "unknown-topic: "),
    ],
)
def test_map_ends_with_3_for_what_would_be_a_dead_letter(topic: str, text: str, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "message.json"
    file.write_text(text)
    done = run("map", topic, file)
    assert (3, []) == (done.returncode, json.loads(done.stdout))
    assert done.stderr.startswith(reason)


# ---- the configuration ----------------------------------------------------------------------------------------------

MISTAKES: Final = """
[server]
prt = 8080
max_body = "much"
[[subscriptions]]
id = "acme"
auth = "magic"
[moost]
client_id = "abc"
client_secret = "not a secret"
customer_id = "656730be2bc9719e6e5ed51d"
[intervals]
grace = "two minutes"
"""
PLACES: Final = ["server.max_body", "server.prt", "subscriptions.0.auth", "moost.client_secret", "intervals.grace"]


@pytest.mark.parametrize("command", ["check", "serve"])
def test_five_mistakes_are_five_lines_that_name_the_keys(command: str, tmp_path: Path) -> None:
    config = tmp_path / "bridge.toml"
    config.write_text(MISTAKES)
    done = run(command, "--config", config)
    assert (2, "") == (done.returncode, done.stdout)
    lines = done.stderr.splitlines()
    assert sorted(PLACES) == sorted(line.partition(": ")[0] for line in lines)
    assert all(line.partition(": ")[2] for line in lines)
    assert "not a secret" not in done.stderr
    assert [config] == list(tmp_path.iterdir())


def test_check_online_compares_the_token_and_opens_the_store(pair: Pair) -> None:
    bridge, _ = pair
    assert 0 == run("check", "--online", "--config", bridge.config).returncode
    other = run("check", "--online", "--config", bridge.config, BRIDGE_MOOST__CUSTOMER_ID="a" * 24)
    assert 2 == other.returncode
    assert other.stderr.startswith("moost.customer_id: ")
    wrong = run("check", "--online", "--config", bridge.config, BRIDGE_MOOST__CLIENT_SECRET="wrong-canary")
    assert 2 == wrong.returncode
    assert wrong.stderr.startswith("moost.client_secret: ")
    assert "wrong-canary" not in wrong.stderr


# ---- dead letters ---------------------------------------------------------------------------------------------------


def test_a_dead_letter_is_listed_shown_retried_and_discarded_beside_the_daemon(pair: Pair) -> None:
    bridge, _ = pair
    bridge.take("vehicle.update", b'{"id": "truncat')
    bridge.take("vehicle.explode", {})
    before = bridge.settled()
    listed = rows(bridge, "dead-letters", "list")
    assert ["unreadable", "unknown-topic"] == [letter["reason"] for letter in listed[-2:]]
    first, second = (letter["id"] for letter in listed[-2:])
    assert [first] == [letter["id"] for letter in rows(bridge, "dead-letters", "list", "--reason", "unreadable")][-1:]
    shown = rows(bridge, "dead-letters", "show", first)[0]
    assert '{"id": "truncat' == shown["body"]
    assert "unreadable" in run("dead-letters", "list", "--config", bridge.config).stdout

    assert 2 == run("dead-letters", "discard", "--config", bridge.config).returncode, "of what?"
    assert 2 == run("dead-letters", "show", 999_999, "--config", bridge.config).returncode
    assert [second] == rows(bridge, "dead-letters", "discard", second)
    health = bridge.settled()
    assert before["ledger"]["discarded"] + 1 == health["ledger"]["discarded"]

    assert [first] == rows(bridge, "dead-letters", "retry", first)
    assert [] == rows(bridge, "dead-letters", "list", "--until", "2020-01-01")
    again = until(lambda: bridge.settled()["dead_letters"].get("unreadable"), "it is as unreadable as before")
    assert before["dead_letters"]["unreadable"] == again
    assert_identities(bridge.health())


def test_a_retried_call_is_delivered_once_moost_takes_it(pair: Pair) -> None:
    bridge, sandbox = pair
    bridge.take("vehicle.update", vehicle("user-retry", "car-1", 10))
    bridge.settled()
    sandbox.faults({"kind": "status", "status": 400, "path": "/events", "building": "user-retry"})
    number = bridge.take("vehicle.update", vehicle("user-retry", "car-1", 20))["ids"][0]
    until(lambda: bridge.health()["dead_letters"].get("rejected"), "it is refused for good")
    sandbox.faults()
    letter = rows(bridge, "dead-letters", "list", "--building", "user-retry")[0]
    assert ("rejected", "user-retry") == (letter["reason"], letter["building"])
    assert "fault" in rows(bridge, "dead-letters", "show", letter["id"])[0]["answer"], "MOOST's answer is kept"
    rows(bridge, "dead-letters", "retry", "--reason", "rejected")
    until(lambda: [10, 20] == [event["value"] for event in sandbox.received("user-retry")["events"]], "the delivery")
    bridge.settled()
    calls = rows(bridge, "explain", number)[0]["calls"]
    assert [("retried", {"refused 400"}), ("delivered", {"201"})] == [
        (call["state"], {attempt["outcome"] for attempt in call["attempts"]}) for call in calls
    ]


# ---- explain --------------------------------------------------------------------------------------------------------


def test_explain_tells_the_trip_of_a_message(pair: Pair) -> None:
    bridge, _ = pair
    number = bridge.take("vehicle.update", vehicle("user-trip", "car-1", 33))["ids"][0]
    bridge.settled()
    trip = rows(bridge, "explain", number)[0]
    assert ("settled", "user-trip", f"{SUBSCRIPTION}.vehicle.update") == (
        trip["state"],
        trip["building"],
        trip["topic"],
    )
    assert [("CreateBuilding", "delivered"), ("PutDevices", "delivered"), ("SendEvents", "delivered")] == [
        (call["call"], call["state"]) for call in trip["calls"]
    ]
    assert ["201", "200", "201"] == [call["attempts"][-1]["outcome"] for call in trip["calls"]]
    told = run("explain", number, "--config", bridge.config).stdout
    assert all(word in told for word in ("user-trip", "CreateBuilding", "delivered", "201", '"stateOfCharge": 33'))
    assert 2 == run("explain", 999_999, "--config", bridge.config).returncode


# ---- the directory --------------------------------------------------------------------------------------------------


def test_the_directory_is_imported_listed_and_shown_beside_the_daemon(pair: Pair, tmp_path: Path) -> None:
    bridge, sandbox = pair
    file = tmp_path / "buildings.csv"
    head = "user_id,location_id,customer_building_id,zip,city,country_code,time_zone,lat,lon,registered_at\n"
    file.write_text(head + "user-known,,house-1,49074,Osnabrück,DE,Europe/Berlin,52.28,8.05,2024-01-31T00:00:00Z\n")
    assert 0 == run("buildings", "import", file, "--config", bridge.config).returncode
    bridge.take("vehicle.update", vehicle("user-known", "car-1", 44))
    until(lambda: sandbox.received("house-1")["events"], "the event in the building of the directory")
    made = sandbox.received("house-1")["buildings"]["house-1"]
    assert ("49074", "Osnabrück", {"lat": 52.28, "lon": 8.05}) == (made["zip"], made["city"], made["geolocation"])
    assert [("user-known", "house-1")] == [
        (row["user_id"], row["building"]["customerBuildingId"]) for row in rows(bridge, "buildings", "list")
    ]
    shown = rows(bridge, "buildings", "show", "house-1")[0]
    assert ["vehicle"] == [device["kind"] for device in shown["devices"]]

    file.write_text(head + "user-known,,house-1,49076,Osnabrück,DE,Europe/Berlin,52.28,8.05,2024-01-31T00:00:00Z\n")
    assert 0 == run("buildings", "import", file, "--config", bridge.config).returncode
    until(lambda: sandbox.received("house-1")["buildings"]["house-1"]["zip"] == "49076", "the changed row")
    assert {} == sandbox.counts()["violations"], "what the bridge does not know is carried through"

    file.write_text(head + "user-known,,house-1,,,,Nowhere/Land,,,\nuser-x,,,,,,,,,\n")
    broken = run("buildings", "import", file, "--config", bridge.config)
    assert (2, 2) == (broken.returncode, len(broken.stderr.splitlines())), broken.stderr


# ---- the store ------------------------------------------------------------------------------------------------------


def test_the_store_is_checked_and_exported_beside_the_daemon(pair: Pair, tmp_path: Path) -> None:
    bridge, _ = pair
    number = bridge.take("vehicle.update", vehicle("user-export", "car-1", 55))["ids"][0]
    bridge.take("vehicle.update", b"\xff\xfe")
    bridge.settled()
    assert 0 == run("store", "check", "--config", bridge.config).returncode
    file = tmp_path / "messages.jsonl"
    assert 0 == run("store", "export", "--output", file, "--config", bridge.config).returncode
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert bridge.health()["ledger"]["accepted"] == len(lines)
    assert (
        55 == json.loads(next(line["body"] for line in lines if line["id"] == number))["chargeState"]["stateOfCharge"]
    )
    assert "//4=" == lines[-1]["body_base64"]
    assert 0 == run("store", "check", "--config", bridge.config).returncode


# ---- the device cloud -----------------------------------------------------------------------------------------------


def test_simulate_posts_households_and_tells_what_became_of_them(pair: Pair) -> None:
    bridge, sandbox = pair
    before = bridge.settled()["ledger"]["accepted"]
    done = run(
        "simulate",
        "--target",
        bridge.url,
        "--homes",
        3,
        "--hours",
        1,
        "--seed",
        3,
        "--subscription",
        SUBSCRIPTION,
        BRIDGE_SIMULATE_SECRET=SECRET,
    )
    assert 0 == done.returncode, done.stderr
    told = {name: float(value) for name, value in re.findall(r"(\w+)=([\d.]+)", done.stdout.splitlines()[-1])}
    assert told["sent"] == told["accepted"] + told["duplicates"] + told["refused"]
    assert (0, 0) == (told["refused"], told["dead"])
    bridge.accepted = before + int(told["accepted"])
    health = bridge.settled()
    assert before + told["accepted"] == health["ledger"]["accepted"]
    assert told["accepted"] > 50
    assert {} == sandbox.counts()["violations"]
    again = run(
        "simulate",
        "--target",
        bridge.url,
        "--homes",
        1,
        "--hours",
        1,
        "--subscription",
        SUBSCRIPTION,
        "--secret",
        "whsec_" + "b3RoZXI=",
    )
    refused = {name: float(value) for name, value in re.findall(r"(\w+)=([\d.]+)", again.stdout.splitlines()[-1])}
    assert refused["sent"] == refused["refused"] > 0


# ---- the demo -------------------------------------------------------------------------------------------------------


SHARED: Final = pytest.mark.skipif(binaries() is None, reason=MISSING)


@pytest.mark.parametrize("replicas", [1, pytest.param(2, marks=SHARED)])
def test_the_demo_shows_what_flows_and_ends_with_the_ledger(replicas: int, tmp_path: Path) -> None:
    options = ("--homes", "3", "--speed", "3000", "--replicas", str(replicas))
    process = Process(("demo", *options), tmp_path / "demo.log")
    process.start()
    try:
        bridge = process.said(r"(?m)^bridge (http://127\.0\.0\.1:\d+)$")
        sandbox = process.said(r"(?m)^sandbox (http://127\.0\.0\.1:\d+)$")
        until(lambda: sum(ask("GET", f"{sandbox}/_sandbox/counts").json()["events"].values()), "events arrive")
        process.said(r"messages (\d+) accepted")
        for number in range(1, replicas + 1 if replicas > 1 else 1):
            process.said(rf"replica-{number} +([1-9]\d*) taken in")
        assert ask("GET", f"{bridge}/health").json()["ledger"]["accepted"] > 0
        counts = ask("GET", f"{sandbox}/_sandbox/counts").json()
        assert {} == counts["violations"]
        assert 0 == process.stop(signal.SIGINT)
    finally:
        process.kill()
    last = json.loads(process.text().splitlines()[-1])
    assert_identities(last)
    assert last["ledger"]["accepted"] > 0
    assert {} == last["dead_letters"]
    assert sys.executable not in process.text()
