"""One message costs a bounded time and memory, whatever stands in it (R13)."""

import json
import tracemalloc
from typing import Any

import pytest

from bridge.core.messages import Inbound, Prices, Report, Schedules, Tombstone, Unreadable
from bridge.core.rules import Rules
from bridge.core.vocabulary import DeadReason
from bridge.limits import Limit
from bridge.source import decode as decoding
from bridge.source.bounds import ENTRIES, FLAWS, ID_LENGTH, TEXT_LENGTH, is_crowded
from bridge.source.hint import finder
from tests.core.house import at, body, iso, prices, read

MIB = 2**20


def refused(message: Inbound | Tombstone | Unreadable) -> tuple[DeadReason, str]:
    """Return why a message is a dead letter, and the bound that it is over."""
    assert isinstance(message, Unreadable)
    assert not message.limit or Limit(message.limit)
    return message.reason, message.limit


def filled(start: str, item: str, end: str, size: int = MIB) -> bytes:
    """Return a body of about a size, filled with one item again and again."""
    room = size - len(start) - len(end)
    return (start + ",".join([item] * (room // (len(item) + 1))) + end).encode()


CLIMATE = '{"id":"d","userId":"u","climateState":{"lastUpdated":"2026-06-15T10:00:00Z","temperatureTargets":['
HEAVY = {
    "hvac.update, targets": ("hvac.update", filled(CLIMATE, "1", "]}}")),
    "hvac.update, modes": ("hvac.update", filled('{"id":"d","userId":"u","staticData":{"capableModes":[', "1", "]}}")),
    "hvac.schedules.update": ("hvac.schedules.update", filled('{"id":"d","userId":"u","schedules":[', "1", "]}")),
    "tariff.price.update": (
        "tariff.price.update",
        filled('{"id":"d","userId":"u","prices":[', '{"totalPrice":"x"}', "]}"),
    ),
    "vehicle.update, unknown": ("vehicle.update", filled('{"id":"d","userId":"u","new":[', "[]", "]}")),
    "vehicle.update, commas": ("vehicle.update", b"[" + b"," * MIB + b"]"),
    "battery.update, fields": ("battery.update", filled('{"id":"d","userId":"u","chargeState":{', '"a":{}', "}}")),
}


@pytest.mark.parametrize("heavy", HEAVY)
def test_a_message_of_too_many_values_is_refused_before_anything_is_built(
    heavy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, content = HEAVY[heavy]
    monkeypatch.delattr(decoding, "parse")
    tracemalloc.start()
    found = read(topic, content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (DeadReason.TOO_LARGE, "values_per_message") == refused(found)
    assert isinstance(found, Unreadable)
    assert "the message has over 5,000 values (limits.values_per_message)" == found.detail
    assert peak < 2 * MIB
    assert (None, None) == finder(Rules())(f"sub-1.{topic}", content)


def test_how_many_values_is_a_setting() -> None:
    topic, content = "vehicle.update", filled('{"id":"d","userId":"u","new":[', "1", "]}", 12_000)
    assert isinstance(read(topic, content, rules=Rules(values_per_message=6_000)), Report)
    assert isinstance(read(topic, content, rules=Rules(values_per_message=5_900)), Unreadable)


def test_a_short_message_is_not_counted() -> None:
    content = b'{"id":"d","userId":"u","new":[' + b"[]," * 3_000 + b"1]}"
    assert len(content) < 10_000
    assert isinstance(read("vehicle.update", content), Report)
    assert not is_crowded(content, 0)


def test_two_days_of_prices_in_quarter_hours_are_read_with_all_their_fields() -> None:
    listed = [
        {
            "startDate": f"2026-06-{15 + n // 96}T{n % 96 // 4:02}:{n % 4 * 15:02}:00.000Z",
            "totalPrice": 0.3201,
            "energyPrice": 0.1,
            "taxAndLevies": 0.2,
        }
        for n in range(192)
    ] * 5  # 960 of them, though each start five times
    message = read("tariff.price.update", {"id": "d-1", "userId": "user-1", "prices": listed})
    assert isinstance(message, Prices)
    assert 960 == len(message.entries)


@pytest.mark.parametrize(("topic", "name"), [("tariff.price.update", "prices"), ("hvac.schedules.update", "schedules")])
def test_the_entries_of_a_message_are_bounded(topic: str, name: str) -> None:
    def many(count: int) -> dict[str, Any]:
        return {"id": "d", "userId": "u", name: [{"startDate": iso("12:00")}] * count}

    assert isinstance(read(topic, many(ENTRIES)), Prices | Schedules)
    assert (DeadReason.TOO_LARGE, "entries_per_message") == refused(read(topic, many(ENTRIES + 1)))


def test_the_entries_within_entries_count_as_well() -> None:
    nested = {"id": "d", "userId": "u", "prices": [[{"startDate": iso("12:00")}] * 600] * 2}
    assert (DeadReason.TOO_LARGE, "entries_per_message") == refused(read("tariff.price.update", nested))


@pytest.mark.parametrize(
    ("topic", "field"),
    [
        ("vehicle.update", "id"),
        ("vehicle.update", "userId"),
        ("battery.update", "locationId"),
        ("charger.update", "location"),
        ("hvac.command", "deviceId"),
        ("tariff.price.update", "locationId"),
    ],
)
def test_an_id_is_bounded(topic: str, field: str) -> None:
    content = {"id": "d", "userId": "u", "deviceId": "d", field: "x" * ID_LENGTH}
    assert not isinstance(read(topic, content), Unreadable)
    longer = read(topic, {**content, field: "x" * (ID_LENGTH + 1)})
    assert (DeadReason.TOO_LARGE, "id_length") == refused(longer)


def test_texts_are_cut_before_they_are_cleaned() -> None:
    static = {"name": "N" * 345_000, "vendor": "\n V" * 100, "model": "M" * 101, "type": "  dhw" + " " * 90_000 + "x"}
    message = read("hvac.update", body("hvac", staticData=static))
    assert isinstance(message, Report)
    facts = message.facts
    assert ["N" * TEXT_LENGTH, TEXT_LENGTH, "M" * TEXT_LENGTH] == [facts.name, len(facts.vendor or ""), facts.model]
    assert "DHW" == facts.type


@pytest.mark.parametrize("before", [0, 90, 100, 101])
def test_no_part_of_a_vin_is_left_where_a_name_is_cut(before: int) -> None:
    vin = "WVWZZZE1ZMP000001"
    message = read("vehicle.update", body("vehicle", staticData={"vin": vin, "name": "x" * before + vin.lower()}))
    assert isinstance(message, Report)
    assert (None if before <= TEXT_LENGTH else "x" * TEXT_LENGTH) == message.facts.name


def test_a_word_without_end_is_unknown() -> None:
    message = read("battery.update", body("battery", chargeState={"mode": "AUTO" + "O" * 100_000}))
    assert isinstance(message, Report)
    assert "chargeState.mode: unknown word" in message.odd


def test_what_is_nearly_all_wrong_is_given_up() -> None:
    listed = [{"startDate": iso("13:00"), "totalPrice": {}}] * (FLAWS + 1)
    found = read("tariff.price.update", prices() | {"prices": listed})
    assert (DeadReason.UNREADABLE, "") == refused(found)
    assert isinstance(found, Unreadable)
    assert "over 100 fields are of the wrong type" == found.detail
    fewer = read("tariff.price.update", prices() | {"prices": listed[1:]})
    assert isinstance(fewer, Prices)


def test_a_flaw_in_a_field_that_nobody_reads_is_none() -> None:
    content = body(
        "vehicle", staticData={"batteryCapacity": "x", "capableModes": 1}, climateState={"temperatureTargets": 1}
    )
    message = read("vehicle.update", content)
    assert isinstance(message, Report)
    assert () == message.odd


def test_a_price_far_ahead_is_not_used_and_counted() -> None:
    entries = [{"startDate": f"2026-06-{day}T12:00:00.000Z", "totalPrice": 0.1} for day in (22, 23, 24)]
    message = read("tariff.price.update", prices() | {"prices": entries})
    assert isinstance(message, Prices)
    assert [22, 23] == [start.day for start, _ in message.entries]
    assert ("prices.startDate: over 8 days ahead",) == message.odd_times
    assert at("12:00") == message.received


def test_a_body_of_blanks_is_cheap() -> None:
    assert isinstance(read("vehicle.update", b" " * MIB), Unreadable)
    assert isinstance(read("vehicle.update", b" " * MIB + b"null"), Tombstone)
    assert isinstance(read("vehicle.update", json.dumps({"id": "d", "userId": " " * 1_000}).encode()), Report)
