"""Whatever arrives: the documented answer, and the good siblings reach MOOST (R12)."""

from collections.abc import Iterator
from typing import Any, Final

import httpx
import pytest

from tests.life.stage import SUBSCRIPTION, Bridge, Sandbox, ask, bridged, dump, sandboxed, signed, until, vehicle

NONE: Final = {"accepted": 0, "duplicates": 0, "dead": 0, "ids": []}
Pair = tuple[Bridge, Sandbox]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("bad-input")
    with sandboxed(folder) as sandbox, bridged(folder, sandbox.url) as bridge:
        bridge.start()
        yield bridge, sandbox


def levels(sandbox: Sandbox, user: str) -> list[tuple[str, float]]:
    """Return what MOOST has heard of a user's cars."""
    ids = [
        (event["deviceId"].removesuffix(f"-of-{user}"), event["value"]) for event in sandbox.received(user)["events"]
    ]
    return [(name.removeprefix("vehicle:"), value) for name, value in ids]


def with_level(level: str, user: str) -> bytes:
    """Return an update whose state of charge is written as given."""
    return dump(vehicle(user, "car-1", -4711)).replace(b"-4711", level.encode())


# ---- bodies that cannot be understood are dead letters, not 4xx -----------------------------------------------------

GOOD: Final = dump(vehicle("user-dead", "car-1", 50))
DEAD: Final = {
    "empty": b"",
    "blank": b"  \n",
    "truncated": GOOD[:-7],
    "truncated array": b"[" + GOOD,
    "trailing bytes": GOOD + b"x",
    "two values": GOOD + GOOD,
    "not UTF-8": GOOD.replace(b"ID.3", b"\xff\xfe"),
    "a zero byte": GOOD + b"\x00",
    "a number": b"42",
    "a string": b'"vehicle"',
    "true": b"true",
    "no id": b'{"userId": "user-dead"}',
    "an id that is no string": b'{"id": {}, "userId": "user-dead"}',
    "no user": b'{"id": "car-of-nobody"}',
    "brackets only": b"[" * 50_000,
    "deep nesting": b'{"id":"car-1","userId":"user-dead","x":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "deep nesting in an array": b"[" * 200_000 + b"]" * 200_000,
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "an endless number": b'{"id":"car-1","userId":"user-dead","x":' + b"9" * 20_000 + b"}",
    "more than a thousand": b"[" + b",".join([b"{}"] * 1_001) + b"]",
}
TOO_LARGE: Final = {"deep nesting", "deep nesting in an array"}  # by R13, before anything is built of them


@pytest.mark.parametrize("what", sorted(DEAD))
def test_a_body_that_cannot_be_understood_is_one_dead_letter(what: str, pair: Pair) -> None:
    bridge, sandbox = pair
    before = bridge.settled()
    answer = bridge.take("vehicle.update", DEAD[what])
    assert (1, 0) == (answer["accepted"], answer["duplicates"])
    after = bridge.settled()
    assert before["ledger"]["dead"] + 1 == after["ledger"]["dead"]
    reason = "too-large" if what in TOO_LARGE else "unreadable"
    assert before["dead_letters"].get(reason, 0) + 1 == after["dead_letters"][reason]
    assert {} == sandbox.received("user-dead")["buildings"]


@pytest.mark.parametrize(
    "topic", ["vehicle.explode", "toaster.update", "vehicle", "vehicle.update.now", "%00", "vehicle.üpdate"]
)
def test_an_unknown_topic_is_a_dead_letter(topic: str, pair: Pair) -> None:
    bridge, _ = pair
    before = bridge.settled()["dead_letters"].get("unknown-topic", 0)
    answer = bridge.take(topic, vehicle("user-dead", "car-1", 50))
    assert (1, 0, 1) == (answer["accepted"], answer["duplicates"], answer["dead"])
    assert before + 1 == bridge.settled()["dead_letters"]["unknown-topic"]


def test_an_empty_array_is_all_zeros(pair: Pair) -> None:
    assert NONE == pair[0].take("vehicle.update", b"[]")
    assert NONE == pair[0].take("vehicle.update", b" [ ] ")


# ---- what the door refuses ------------------------------------------------------------------------------------------


def refused(answer: httpx.Response, status: int) -> None:
    assert status == answer.status_code, answer.text
    assert "application/json" == answer.headers["content-type"].split(";")[0]
    assert ["error"] == list(answer.json())


@pytest.mark.parametrize(
    "media", ["text/plain", "application/xml", "application/jsonx", "application/x-www-form-urlencoded", "json"]
)
def test_another_media_type_is_415(media: str, pair: Pair) -> None:
    refused(pair[0].post("vehicle.update", GOOD, headers={"content-type": media}), 415)


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity", "deflate, gzip"])
def test_any_content_encoding_is_415(encoding: str, pair: Pair) -> None:
    refused(pair[0].post("vehicle.update", GOOD, headers={"content-encoding": encoding}), 415)


@pytest.mark.parametrize(
    "media", ["", "application/json", "Application/JSON; charset=utf-8", "application/cloudevents+json"]
)
def test_json_by_any_name_is_taken(media: str, pair: Pair) -> None:
    bridge, _ = pair
    body = dump(vehicle("user-media", "car-1", 50))
    headers = signed(body)
    if media:
        headers["content-type"] = media
    else:
        del headers["content-type"]
    answer = ask("POST", f"{bridge.url}/webhooks/{SUBSCRIPTION}.vehicle.update", content=body, headers=headers)
    assert 202 == answer.status_code
    bridge.accepted += 1


def test_a_body_of_two_megabytes_is_413_and_ends_the_connection(pair: Pair) -> None:
    body = GOOD + b" " * 2 * 2**20
    answer = pair[0].post("vehicle.update", body)
    refused(answer, 413)
    assert "close" == answer.headers["connection"]


def test_two_megabytes_without_a_declared_length_are_413_too(pair: Pair) -> None:
    body = GOOD + b" " * 2 * 2**20
    pieces = (body[start : start + 65_536] for start in range(0, len(body), 65_536))
    address = f"{pair[0].url}/webhooks/{SUBSCRIPTION}.vehicle.update"
    answer = ask("POST", address, content=pieces, headers=signed(body))
    refused(answer, 413)
    assert "close" == answer.headers["connection"]


def test_a_body_just_small_enough_is_taken(pair: Pair) -> None:
    body = dump(vehicle("user-large", "car-1", 61))
    pair[0].take("vehicle.update", body + b" " * (2**20 - len(body)))
    until(lambda: levels(pair[1], "user-large") == [("car-1", 61)], "its event")


def test_an_unknown_subscription_is_404_whatever_else_is_wrong(pair: Pair) -> None:
    for content in (GOOD, b" " * 2 * 2**20):
        address = f"{pair[0].url}/webhooks/nobody.vehicle.update"
        refused(ask("POST", address, content=content, headers={"content-type": "text/plain"}), 404)


def test_what_is_no_webhook_is_a_clear_4xx(pair: Pair) -> None:
    url = pair[0].url
    for method, path, status in (
        ("DELETE", f"/webhooks/{SUBSCRIPTION}.vehicle.update", 405),
        ("PUT", "/webhooks", 405),
        ("POST", "/nothing", 404),
        ("POST", f"/webhooks/{SUBSCRIPTION}.vehicle.update/", 404),
        ("POST", "//webhooks", 404),
        ("GET", "/health/", 404),
    ):
        answer = ask(method, url + path, headers=signed(GOOD), content=GOOD if method != "GET" else None)
        refused(answer, status)


# ---- odd values: the value is missing, the rest is taken ------------------------------------------------------------


@pytest.mark.parametrize(
    "level",
    [
        "NaN",
        "Infinity",
        "-Infinity",
        "1e400",
        "-1e400",
        "1" + "0" * 300,
        "100.001",
        "-1",
        "null",
        '"null"',
        "{}",
        "[]",
        '"x"',
        "true",
    ],
)
def test_a_value_that_is_none_makes_no_event_and_no_dead_letter(level: str, pair: Pair) -> None:
    bridge, sandbox = pair
    user = f"user-odd-{abs(hash(level))}"
    dead = bridge.settled()["ledger"]["dead"]
    assert 0 == bridge.take("vehicle.update", with_level(level, user))["dead"]
    assert dead == bridge.settled()["ledger"]["dead"]
    received = sandbox.received(user)
    assert [f"gateway:{user}", f"vehicle:car-1-of-{user}"] == [device["id"] for device in received["devices"][user]]
    assert [] == received["events"]
    bridge.take("vehicle.update", with_level("77", user))
    until(lambda: levels(sandbox, user) == [("car-1", 77)], "the next good value")


def with_half_a_character(place: str) -> bytes:
    """Return an update with a lone surrogate, as it is written in JSON, in one place."""
    body = vehicle(f"user-half-{place}", "car-1", 42)
    target = body["staticData"] if place == "name" else body
    target[place] = f"{target.get(place, '')}\ud800x"
    return dump(body)


@pytest.mark.parametrize("place", ["name", "unknown"])
def test_a_lone_surrogate_spoils_nothing_around_it(place: str, pair: Pair) -> None:
    bridge, sandbox = pair
    assert b"\\ud800" in with_half_a_character(place)
    assert 0 == bridge.take("vehicle.update", with_half_a_character(place))["dead"]
    until(lambda: levels(sandbox, f"user-half-{place}") == [("car-1", 42)], "its event")


@pytest.mark.parametrize("place", ["id", "userId"])
def test_a_name_with_a_lone_surrogate_is_none(place: str, pair: Pair) -> None:
    bridge, _ = pair
    before = bridge.settled()["dead_letters"].get("unreadable", 0)
    bridge.take("vehicle.update", with_half_a_character(place))
    assert before + 1 == bridge.settled()["dead_letters"]["unreadable"]


def test_keys_said_twice_and_keys_unknown_do_no_harm(pair: Pair) -> None:
    body = dump(vehicle("user-twice", "car-1", 30))[:-1] + b', "isOnline": true, "\\u0000": 1, "__class__": {"x": []}}'
    assert 0 == pair[0].take("vehicle.update", body)["dead"]
    until(lambda: levels(pair[1], "user-twice") == [("car-1", 30)], "its event")


# ---- arrays ---------------------------------------------------------------------------------------------------------

BAD: Final = {
    "a number": b"42",
    "a string": b'"x"',
    "an array": b"[1]",
    "an object without id": b"{}",
    "an endless number": b'{"id":"car-x","userId":"u","x":' + b"9" * 20_000 + b"}",
    "deep nesting": b'{"id":"car-x","userId":"u","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "another id": b'{"id": 7, "userId": []}',
}


@pytest.mark.parametrize("what", sorted(BAD))
def test_one_bad_element_among_ten_takes_no_sibling_along(what: str, pair: Pair) -> None:
    bridge, sandbox = pair
    user = "user-array-" + what.replace(" ", "-")
    elements = [dump(vehicle(user, f"car-{number}", number + 1)) for number in range(10)]
    elements[4] = BAD[what]
    dead = bridge.settled()["dead_letters"].get("unreadable", 0)
    answer = bridge.take("vehicle.update", b"[" + b",".join(elements) + b"]")
    assert (10, 0, 10) == (answer["accepted"], answer["duplicates"], len(answer["ids"]))
    assert dead + 1 == bridge.settled()["dead_letters"]["unreadable"]
    assert [(f"car-{number}", number + 1) for number in range(10) if number != 4] == levels(sandbox, user)


def test_siblings_of_an_odd_value_are_mapped(pair: Pair) -> None:
    bridge, sandbox = pair
    elements = [dump(vehicle("user-mixed", f"car-{number}", number + 1)) for number in range(10)]
    elements[3] = with_level("NaN", "user-mixed-nan")
    elements[6] = dump(vehicle("user-mixed", "car-6", 7)).replace(b"Car car-6", b"Car \\ud83d")
    assert 0 == bridge.take("vehicle.update", b"[" + b",".join(elements) + b"]")["dead"]
    bridge.settled()
    assert [(f"car-{number}", number + 1) for number in range(10) if number != 3] == levels(sandbox, "user-mixed")
    assert [] == levels(sandbox, "user-mixed-nan")


def test_every_form_of_naming_the_topic_leads_to_the_same(pair: Pair) -> None:
    bridge, sandbox = pair
    name = f"{SUBSCRIPTION}.vehicle.update"

    def body(number: int) -> dict[str, Any]:
        return vehicle("user-forms", f"car-{number}", number)

    bridge.take("vehicle.update", body(1))
    for number, header in enumerate(("ce-type", "webhook-topic", "x-topic"), start=2):
        assert 202 == bridge.post("", body(number), headers={header: name}).status_code
    bridge.take("", {"topic": name, "data": body(5)})
    bridge.take("", {"specversion": "1.0", "type": name, "source": "/hub", "id": "1", "data": body(6)})
    bridge.take(
        "",
        [
            {"topic": name, "data": body(7)},
            {"topic": "other.vehicle.update", "data": body(0)},
            {"specversion": "1.0", "type": name, "source": "/hub", "id": "2", "data": body(8)},
            body(0),
        ],
    )
    health = bridge.settled()
    assert [(f"car-{number}", number) for number in range(1, 9)] == levels(sandbox, "user-forms")
    assert 1 == health["dead_letters"]["foreign-subscription"]


def test_after_all_this_nothing_is_a_fault_and_moost_saw_nothing_odd(pair: Pair) -> None:
    bridge, sandbox = pair
    health = bridge.settled()
    assert "fault" not in health["dead_letters"]
    assert {} == sandbox.counts()["violations"]
    assert {200, 201} == {call["status"] for call in sandbox.received()["calls"]}
    assert "Traceback" not in bridge.text()
    assert "worker_faulted" not in bridge.text()
