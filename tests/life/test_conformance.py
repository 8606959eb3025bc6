"""What a sender may rely on, scenario by scenario, over real HTTP to the real process: the table of answers in
docs/reference/http.md.

Each scenario is one that receivers of webhooks get wrong. `tests/mutants` holds a flawed bridge for each of them.
"""

import asyncio
import json
import signal
import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import pytest
from standardwebhooks import Webhook

from tests.life.stage import (
    ADMIN,
    SECRET,
    SUBSCRIPTION,
    Bridge,
    Sandbox,
    ask,
    assert_identities,
    bridged,
    dump,
    run,
    sandboxed,
    signed,
    until,
    vehicle,
)

UPDATE: Final = f"/webhooks/{SUBSCRIPTION}.vehicle.update"
OTHER_KEY: Final = "whsec_" + "YW5vdGhlciBrZXkgb2Ygc29tZWJvZHkgZWxzZQ=="
CROWD: Final = 20
VIN: Final = "WVWZZZCANARY00042"
PLACE: Final = 50.9375312
Pair = tuple[Bridge, Sandbox]


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """Run one look-alike for all: each test has users of its own."""
    with sandboxed(tmp_path_factory.mktemp("moost")) as started:
        yield started


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, sandbox: Sandbox) -> Iterator[Pair]:
    with bridged(tmp_path_factory.mktemp("conformance"), sandbox.url) as bridge:
        bridge.start()
        yield bridge, sandbox


def values(sandbox: Sandbox, user: str) -> list[float]:
    """Return what MOOST has heard of a user, in order."""
    return [event["value"] for event in sandbox.received(user)["events"]]


def accepted(bridge: Bridge) -> int:
    return int(bridge.health()["ledger"]["accepted"])


def counts(answer: Any) -> tuple[int, int, int, int]:  # noqa: ANN401 - whatever made the request
    """Return status, accepted, duplicates and dead."""
    said = answer.json()
    return answer.status_code, said["accepted"], said["duplicates"], said["dead"]


# ---- duplicates -----------------------------------------------------------------------------------------------------


def test_a_duplicate_in_sequence_is_said_to_be_one_and_changes_nothing(pair: Pair) -> None:
    bridge, sandbox = pair
    body = vehicle("user-sequence", "car", 41)
    assert (202, 1, 0, 0) == counts(bridge.post("vehicle.update", body, message_id="sequence"))
    bridge.settled()
    for _ in range(3):
        assert (202, 0, 1, 0) == counts(bridge.post("vehicle.update", body, message_id="sequence"))
    bridge.settled()
    assert [41] == values(sandbox, "user-sequence")


def test_of_concurrent_duplicates_exactly_one_is_accepted(pair: Pair) -> None:
    bridge, sandbox = pair
    body = dump(vehicle("user-concurrent", "car", 42))
    headers = signed(body, "concurrent")

    async def crowd() -> list[tuple[int, int]]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CROWD)) as http:

            async def post() -> tuple[int, int]:
                async with http.post(bridge.url + UPDATE, data=body, headers=headers) as answer:
                    assert 202 == answer.status
                    said = await answer.json()
                    return said["accepted"], said["duplicates"]

            return await asyncio.gather(*(post() for _ in range(CROWD)))

    said = Counter(asyncio.run(crowd()))
    bridge.accepted += 1
    assert {(1, 0): 1, (0, 1): CROWD - 1} == said
    bridge.settled()
    assert [42] == values(sandbox, "user-concurrent")


def test_the_same_id_with_other_bytes_is_another_message(pair: Pair) -> None:
    bridge, sandbox = pair
    for level in (43, 44):
        answer = bridge.post("vehicle.update", vehicle("user-bytes", "car", level), message_id="bytes")
        assert (202, 1, 0, 0) == counts(answer)
        bridge.settled()
    assert [43, 44] == values(sandbox, "user-bytes")


# ---- the answer that never came -------------------------------------------------------------------------------------


def hang_up(bridge: Bridge, body: bytes, headers: Mapping[str, str]) -> None:
    """Post, and go without waiting for the answer, as a sender does whose time is up."""
    place = urlsplit(bridge.url)
    fields = "".join(f"{name}: {value}\r\n" for name, value in {**headers, "content-length": str(len(body))}.items())
    with socket.create_connection((str(place.hostname), place.port), timeout=20) as sock:
        sock.sendall(f"POST {UPDATE} HTTP/1.1\r\nhost: bridge\r\n{fields}\r\n".encode() + body)


def test_a_retry_after_a_timeout_is_a_duplicate_of_what_was_stored(pair: Pair) -> None:
    bridge, sandbox = pair
    body = dump(vehicle("user-timeout", "car", 45))
    before = accepted(bridge)
    hang_up(bridge, body, signed(body, "timeout"))
    until(lambda: accepted(bridge) == before + 1, "it is stored all the same")
    bridge.accepted += 1
    assert (202, 0, 1, 0) == counts(bridge.post("vehicle.update", body, message_id="timeout"))
    bridge.settled()
    assert [45] == values(sandbox, "user-timeout")


# ---- signatures -----------------------------------------------------------------------------------------------------


def refused(bridge: Bridge, body: bytes, headers: Mapping[str, str]) -> None:
    """Check for a 401 that leaves nothing behind."""
    before = accepted(bridge)
    answer = ask("POST", bridge.url + UPDATE, content=body, headers=headers)
    assert (401, {"error": "the request could not be verified"}) == (answer.status_code, answer.json())
    assert before == accepted(bridge)


def test_a_missing_signature_is_401(pair: Pair) -> None:
    body = dump(vehicle("user-unsigned", "car", 1))
    good = signed(body)
    refused(pair[0], body, {"content-type": "application/json"})
    for name in ("webhook-id", "webhook-timestamp", "webhook-signature"):
        refused(pair[0], body, {key: value for key, value in good.items() if key != name})


@pytest.mark.parametrize(
    "damage",
    [
        {"webhook-signature": "v1"},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "v1,not base64 at all"},
        {"webhook-signature": "v2,{}"},
        {"webhook-timestamp": "yesterday"},
        {"webhook-timestamp": "1e9"},
        {"webhook-timestamp": "9" * 400},
    ],
    ids=str,
)
def test_a_malformed_signature_is_401(damage: dict[str, str], pair: Pair) -> None:
    body = dump(vehicle("user-malformed", "car", 1))
    good = signed(body)
    refused(pair[0], body, good | {name: text.format(good[name][3:]) for name, text in damage.items()})


def test_a_signature_with_another_key_is_401(pair: Pair) -> None:
    body = dump(vehicle("user-wrong-key", "car", 1))
    refused(pair[0], body, signed(body, secret=OTHER_KEY))


@pytest.mark.parametrize("apart", [timedelta(minutes=-6), timedelta(minutes=6)], ids=["stale", "ahead"])
def test_a_signature_of_another_time_is_401(apart: timedelta, pair: Pair) -> None:
    body = dump(vehicle("user-stale", "car", 1))
    then = datetime.now(UTC) + apart
    signature = Webhook(SECRET).sign("stale", then, body.decode())
    refused(
        pair[0],
        body,
        signed(body, "stale") | {"webhook-timestamp": str(int(then.timestamp())), "webhook-signature": signature},
    )


@pytest.mark.parametrize("what", ["a value", "a blank behind it", "the same JSON in another spelling"])
def test_a_body_altered_after_signing_is_401(what: str, pair: Pair) -> None:
    content = vehicle("user-altered", "car", 50)
    body = dump(content)
    altered = {
        "a value": body.replace(b"50", b"99", 1),
        "a blank behind it": body + b"\n",
        "the same JSON in another spelling": json.dumps(content, indent=1).encode(),
    }[what]
    assert altered != body
    refused(pair[0], altered, signed(body))


# ---- bodies ---------------------------------------------------------------------------------------------------------


def test_a_malformed_body_is_202_and_a_dead_letter_with_its_bytes_once(pair: Pair) -> None:
    bridge, _ = pair
    body = b'{"id": "car-of-user-malformed", "userId": '
    before = bridge.settled()["dead_letters"].get("unreadable", 0)
    first = bridge.post("vehicle.update", body, message_id="malformed")
    assert (202, 1, 0, 1) == counts(first)
    assert (202, 0, 1, 0) == counts(bridge.post("vehicle.update", body, message_id="malformed"))
    assert before + 1 == bridge.settled()["dead_letters"]["unreadable"]
    (trip,) = json.loads(run("explain", first.json()["ids"][0], "--config", bridge.config, "--json").stdout)
    assert ("unreadable", body.decode()) == (trip["reason"], trip["body"])


def test_one_bad_element_of_an_array_takes_no_sibling_along(pair: Pair) -> None:
    bridge, sandbox = pair
    elements = [dump(vehicle("user-siblings", f"car-{number}", number)) for number in range(10)]
    elements[6] = b'{"id": {"no": "text"}, "userId": "user-siblings"}'
    body = b"[" + b",".join(elements) + b"]"
    before = bridge.settled()["dead_letters"].get("unreadable", 0)
    assert (202, 10, 0, 0) == counts(bridge.post("vehicle.update", body, message_id="siblings"))
    assert before + 1 == bridge.settled()["dead_letters"]["unreadable"]
    assert (202, 0, 10, 0) == counts(bridge.post("vehicle.update", body, message_id="siblings"))
    bridge.settled()
    assert [number for number in range(10) if number != 6] == values(sandbox, "user-siblings")


def test_nothing_of_what_was_sent_is_said_again(pair: Pair) -> None:
    bridge, _ = pair
    content = vehicle("user-redacted", "car", 51) | {"location": {"latitude": PLACE, "longitude": 6.9602}}
    content["staticData"]["vin"] = VIN
    body = dump(content)
    said = [
        bridge.post("vehicle.update", body).text,
        bridge.post("vehicle.update", body[:-20]).text,
        bridge.post("vehicle.explode", body).text,
        bridge.post("", {"topic": "other.vehicle.update", "data": content}).text,
        ask("POST", bridge.url + UPDATE, content=body, headers=signed(body) | {"webhook-signature": SECRET}).text,
        ask("POST", f"{bridge.url}/webhooks/{VIN}.vehicle.update", content=body, headers=signed(body)).text,
        ask("POST", bridge.url + UPDATE, content=body, headers=signed(body) | {"content-type": VIN}).text,
    ]
    bridge.settled()
    said += [json.dumps(bridge.health()), bridge.metrics(), bridge.text()]
    for canary in (VIN, str(PLACE), "user-redacted", SECRET.removeprefix("whsec_"), ADMIN):
        assert [] == [text for text in said if canary in text]


# ---- restarts and crashes -------------------------------------------------------------------------------------------

CRASHING: Final = """
import asyncio, os, signal
from bridge import cli
from bridge.store.sqlite import SqliteStore
kept = SqliteStore.{method}
async def planted(self, given):
    fatal = {when}
    if fatal and {before}:
        await end({after_s})
    found = await kept(self, given)
    if fatal:
        await end({after_s})
    return found
async def end(after_s):
    await asyncio.sleep(after_s)
    os.kill(os.getpid(), signal.SIGKILL)
SqliteStore.{method} = planted
cli.main()
"""


def start_crashing(bridge: Bridge, method: str, when: str, *options: str, before: bool = False, after_s: float) -> None:
    """Start a daemon that ends as by a power cut, before or after what its store does."""
    code = CRASHING.format(method=method, when=when, before=before, after_s=after_s)
    bridge.start(*options, program=("-c", code))


def test_an_attempt_after_a_restart_is_a_duplicate_of_the_one_before(bridge: Bridge, sandbox: Sandbox) -> None:
    body = vehicle("user-restart", "car", 46)
    bridge.start()
    assert (202, 1, 0, 0) == counts(bridge.post("vehicle.update", body, message_id="restart"))
    bridge.kill()
    bridge.start()
    assert (202, 0, 1, 0) == counts(bridge.post("vehicle.update", body, message_id="restart"))
    bridge.settled()
    assert [46] == values(sandbox, "user-restart")


def test_what_was_stored_before_a_crash_but_not_answered_is_not_stored_again(bridge: Bridge, sandbox: Sandbox) -> None:
    body = dump(vehicle("user-crash", "car", 47))
    start_crashing(bridge, "accept", "True", after_s=0)
    with pytest.raises(aiohttp.ClientError):
        asyncio.run(_post(bridge, body, signed(body, "crash")))
    assert bridge.process is not None
    assert -signal.SIGKILL == bridge.process.ended()
    bridge.start()
    assert 1 == accepted(bridge)
    assert (202, 0, 1, 0) == counts(bridge.post("vehicle.update", body, message_id="crash"))
    bridge.accepted = 1
    bridge.settled()
    assert [47] == values(sandbox, "user-crash")


async def _post(bridge: Bridge, body: bytes, headers: Mapping[str, str]) -> None:
    async with aiohttp.ClientSession() as http, http.post(bridge.url + UPDATE, data=body, headers=headers) as answer:
        await answer.read()


def test_what_was_sent_to_moost_before_a_crash_is_sent_again_and_counted_in_doubt(
    bridge: Bridge, sandbox: Sandbox
) -> None:
    bridge.start()
    bridge.take("vehicle.update", vehicle("user-sent", "car", 48))
    bridge.settled()
    fired = sandbox.fired()
    sandbox.faults({"kind": "latency", "seconds": 30, "path": "/events", "building": "user-sent", "times": 1})
    bridge.take("vehicle.update", vehicle("user-sent", "car", 49))
    until(lambda: sandbox.fired() > fired, "the call is on the wire")
    bridge.kill()
    bridge.start()
    health = bridge.settled()
    assert 1 == health["calls"]["in_doubt"]
    assert 49 == values(sandbox, "user-sent")[-1], "at least once"
    assert len(values(sandbox, "user-sent")) <= 3


@pytest.mark.parametrize("before", [True, False], ids=["before the commit", "after the commit"])
def test_an_array_that_was_half_processed_at_a_crash_takes_effect_once(
    before: bool,  # noqa: FBT001 - a variant of the test
    bridge: Bridge,
    sandbox: Sandbox,
) -> None:
    start_crashing(bridge, "commit", "given.settled", "--rooms", "receiver,worker", before=before, after_s=0.2)
    user = f"user-half-{before}"
    elements = [vehicle(user, f"car-{number}", number) for number in range(10)]
    assert (202, 10, 0, 0) == counts(bridge.post("vehicle.update", elements, message_id="half"))
    assert bridge.process is not None
    assert -signal.SIGKILL == bridge.process.ended()
    bridge.start()
    assert (202, 0, 10, 0) == counts(bridge.post("vehicle.update", elements, message_id="half"))
    health = bridge.settled()
    assert (10, 10) == (health["ledger"]["accepted"], health["ledger"]["settled"])
    assert list(range(10)) == values(sandbox, user)
    calls = health["calls"]["delivered"]
    assert 12 <= calls <= 21, "building, ten events, and a list a batch: one by one after a crash, so up to ten"


FAULTY: Final = """
from bridge import cli
from bridge.worker import room
kept = room.read
def planted(row, rules):
    if b'"Car car-3"' in row.body:
        raise ZeroDivisionError("planted")
    return kept(row, rules)
room.read = planted
cli.main()
"""


def test_a_bug_of_ours_takes_one_message_and_no_sibling_along(bridge: Bridge, sandbox: Sandbox) -> None:
    bridge.start(program=("-c", FAULTY))
    elements = [vehicle("user-bug", f"car-{number}", number) for number in range(10)]
    assert (202, 10, 0, 0) == counts(bridge.post("vehicle.update", elements))
    health = bridge.settled()
    assert_identities(health)
    assert {"fault": 1} == health["dead_letters"]
    assert [number for number in range(10) if number != 3] == values(sandbox, "user-bug")
    assert "ZeroDivisionError in planted" in bridge.text()
    assert "Traceback" not in bridge.text()
