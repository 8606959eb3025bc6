"""From bytes to what the core reads (M0.1 to M0.3, M0.8, M7): every quirk of the device cloud, and any bytes at all."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bridge.core.messages import Command, Facts, Prices, Quantity, Reading, Report, Schedules, Tombstone, Unreadable
from bridge.core.model import Building
from bridge.core.reduce import reduce
from bridge.core.rules import Rules, SubscriptionRule
from bridge.core.vocabulary import ACTIONS, Action, Kind
from bridge.source.decode import decode
from bridge.source.times import NoTime, instant
from bridge.source.topics import Topic, UnknownTopic, parse, subscription_of
from tests.core.house import at, body, iso, prices, read

TOPICS = [Topic(subscription="sub-1", kind=kind, action=action) for kind in Kind for action in sorted(ACTIONS[kind])]
NOON = at("12:00")


def report(topic: str, content: object, **more: Any) -> Report:  # noqa: ANN401 - handed on
    """Return a report that can be read."""
    message = read(topic, content, **more)
    assert isinstance(message, Report)
    return message


# ---- topics ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("topic", TOPICS, ids=str)
def test_every_topic_that_exists_is_read_back_as_it_is_written(topic: Topic) -> None:
    assert topic == parse(str(topic))
    assert "sub-1" == subscription_of(str(topic))


def test_twenty_topics_of_life_and_five_others_exist() -> None:
    assert 7 * 5 + 3 + 1 + 1 == len(TOPICS)
    assert {Kind.VEHICLE, Kind.HVAC, Kind.CHARGER} == {t.kind for t in TOPICS if t.action is Action.COMMAND}
    assert {Kind.TARIFF} == {t.kind for t in TOPICS if t.action is Action.PRICE_UPDATE}
    assert {Kind.HVAC} == {t.kind for t in TOPICS if t.action is Action.SCHEDULES_UPDATE}


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", "sub-1", "sub-1.vehicle", "sub-1.vehicle.", ".vehicle.update", "sub-1.boiler.update",
        "sub-1.vehicle.price.update", "sub-1.meter.command", "sub-1.battery.schedules.update", "sub-1.vehicle.update.x",
        "sub-1.Vehicle.update", "sub-1.vehicle.explode", "sub-1.tariff.price",
    ],
)  # fmt: skip
def test_a_topic_that_does_not_exist_is_told_in_one_sentence(name: str) -> None:
    unknown = parse(name)
    assert isinstance(unknown, UnknownTopic)
    assert unknown.detail


# ---- times (M0.3) ----------------------------------------------------------------------------------------------------

EXACT = datetime(2026, 6, 15, 10, 0, 30, tzinfo=UTC)
SPELLINGS = [
    ("2026-06-15T10:00:30Z", EXACT),
    *[(f"2026-06-15T10:00:30.{'9' * digits}Z", EXACT + timedelta(microseconds=int(f"{'9' * digits:0<6}"[:6])))
      for digits in range(1, 10)],
    ("2026-06-15T10:00:30.980+00:00", EXACT + timedelta(milliseconds=980)),
    ("2026-06-15T12:00:30+02:00", EXACT),
    ("2026-06-15T12:00:30.000+0200", EXACT),
    ("2026-06-15T10:00:30", EXACT),
    (" 2026-06-15T10:00:30Z\n", EXACT),
    (1781517630, EXACT),
    (1781517630.0, EXACT),
    (1781517630000, EXACT),
    (1781517630500, EXACT + timedelta(milliseconds=500)),
    ("2015-01-01T00:00:00Z", datetime(2015, 1, 1, tzinfo=UTC)),
    ("2014-12-31T23:59:59Z", None),
    (0, None), (-1, None), (None, None), ("null", None),
    ("2026-06-15t10:00:30z", EXACT), ("2026-06-15 10:00:30Z", EXACT), ("2026-06-15 10:00:30", EXACT),
    ("2026-06-15T10:00:30Z[UTC]", EXACT), ("2026-06-15T12:00:30+02:00[Europe/Berlin]", EXACT),
    ("2026-06-15T12:00:30[Europe/Berlin]", EXACT), ("2026-06-15t12:00:30+02:00 [Europe/Berlin][u-ca=iso8601]", EXACT),
    ("2026-06-15T10:00:30 UTC", EXACT), ("2026-06-15 10:00:30utc", EXACT), ("2026-06-15 10:00:30 GMT", EXACT),
    ("2026-06-15 10:00:30.5 +0000 UTC", EXACT + timedelta(milliseconds=500)),
    ("2026-06-15 12:00:30 +0200", EXACT), ("2026-06-15T10:00:30,000Z", EXACT), ("20260615T100030Z", EXACT),
    ("20260615100030", EXACT), ("2026-06-14T24:00:00Z", datetime(2026, 6, 15, tzinfo=UTC)),
    ("2026-06-14T24:00", datetime(2026, 6, 15, tzinfo=UTC)), ("2026-06-15 24:00:00.000+02:00", EXACT.replace(hour=22,
     minute=0, second=0)), ("2026-03-28T24:00:00[Europe/Berlin]", datetime(2026, 3, 28, 23, tzinfo=UTC)),
    ("2016-12-31T23:59:60Z", datetime(2017, 1, 1, tzinfo=UTC)), ("2026-06-15T10:00:60Z", EXACT + timedelta(seconds=30)),
    ("2026-06-15T10:00:60.250z", EXACT + timedelta(seconds=30.25)), ("1781517630", EXACT), (" 1781517630.0 ", EXACT),
    ("1781517630000", EXACT), ("1781011530000", datetime(2026, 6, 9, 13, 25, 30, tzinfo=UTC)), ("0", None),
]  # fmt: skip
UNREADABLE = [
    True, False, "", " ", "yesterday", "15.06.2026 10:00:30", "2026-06-15T24:00:01Z", "2026-06-15T25:00:00Z",
    "2026-06-15T10:00:61Z", "2026-02-30T10:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T24:00:00Z", "NaN",
    "2026-06-15 10:00:30 CEST", "2026-06-15T10:00:30[Europe/Nowhere]", "2026-06-15T10:00:30[]", "[UTC]",
    "2026-06-15T10:00:30[/etc/passwd]", "2026-06-15T10:00:30[Europe]", "1" * 50, "1" * 5000, float("nan"),
    float("inf"), 10**400, 1e300, [], {}, ["2026-06-15T10:00:30Z"],
]  # fmt: skip


@pytest.mark.parametrize(("raw", "expected"), SPELLINGS)
def test_a_time_is_read_in_every_spelling(raw: object, expected: datetime | None) -> None:
    assert expected == instant(raw)


@pytest.mark.parametrize("raw", UNREADABLE, ids=lambda raw: repr(raw)[:40])
def test_what_is_there_and_is_no_time_is_neither_missing_nor_now(raw: object) -> None:
    with pytest.raises(NoTime):
        instant(raw)
    message = report("hvac.update", body("hvac", "10:00", powerState={"lastUpdated": raw}))
    assert {Quantity.TEMPERATURE, Quantity.MODE, Quantity.ACTIVE} == {each.quantity for each in message.readings}
    assert ("unreadable",) == message.odd_times
    assert at("10:00") == message.stamp


@pytest.mark.parametrize("raw", ["yesterday", True, []])
def test_blocks_without_a_time_say_nothing_where_that_of_the_object_cannot_be_read(raw: object) -> None:
    content = body("hvac", lastUpdated=raw, powerState={"lastUpdated": None}, staticData={"lastUpdated": None})
    message = report("hvac.update", content)
    assert {at("10:00")} == {reading.at for reading in message.readings}  # of the block that has a time
    assert Quantity.POWER not in {reading.quantity for reading in message.readings}
    assert (Facts(), at("10:00"), False) == (message.facts, message.stamp, message.undated)


def test_a_message_of_which_no_time_can_be_read_is_newer_than_nothing() -> None:
    message = report("meter.update", {"id": "d-1", "lastUpdated": "soon", "powerState": {"power": 1}})
    assert ((), NOON, True) == (message.readings, message.stamp, message.undated)
    new = {"id": "d-1", "newBlock": {"lastUpdated": "soon"}}
    assert report("meter.update", new).undated
    assert not report("meter.update", {"id": "d-1", "powerState": {"power": 1}}).undated


def test_static_data_and_a_position_without_a_time_that_can_be_read_are_not_used() -> None:
    place = {"latitude": 52.5, "longitude": 8, "lastUpdated": "soon"}
    message = report("vehicle.update", body("vehicle", location=place, staticData={"lastUpdated": "soon"}))
    assert (None, Facts()) == (message.position, message.facts)
    assert ("unreadable",) == message.odd_times


def test_a_value_has_the_time_of_its_block_else_of_the_object_else_of_the_receipt() -> None:
    content = body("hvac", "10:00")
    content["powerState"]["lastUpdated"] = iso("09:50")
    assert {at("09:50"), at("10:00")} == {reading.at for reading in report("hvac.update", content).readings}
    content["powerState"]["lastUpdated"] = None
    assert {at("10:00")} == {reading.at for reading in report("hvac.update", content).readings}
    content["lastUpdated"], content["climateState"]["lastUpdated"] = None, "null"
    assert {NOON} == {reading.at for reading in report("hvac.update", content).readings}


@pytest.mark.parametrize(
    ("change", "stamp"),
    [
        ({}, "10:00"),
        ({"chargeState": {"lastUpdated": iso("10:10")}}, "10:10"),
        ({"staticData": {"lastUpdated": iso("10:11")}}, "10:11"),
        ({"odometer": {"lastUpdated": iso("10:12")}}, "10:12"),
        ({"location": {"lastUpdated": iso("10:13")}}, "10:13"),
        ({"somethingNew": {"lastUpdated": iso("10:14")}}, "10:14"),
        ({"somethingNew": {"inside": [{"lastUpdated": iso("10:15")}]}}, "10:15"),
        ({"lastUpdated": None, "chargeState": None, "staticData": None}, "12:00"),
    ],
)
def test_the_stamp_is_the_newest_time_anywhere_else_the_receipt(change: dict[str, Any], stamp: str) -> None:
    assert at(stamp) == report("vehicle.update", body("vehicle", "10:00", **change)).stamp


@pytest.mark.parametrize(("ahead", "counted"), [("12:05", False), ("12:10", False), ("12:11", True)])
def test_a_time_after_the_receipt_is_the_receipt(ahead: str, counted: bool) -> None:  # noqa: FBT001
    message = report("meter.update", body("meter", "10:00", powerState={"lastUpdated": iso(ahead)}))
    assert {NOON} == {reading.at for reading in message.readings}
    assert NOON == message.stamp
    assert counted == bool(message.odd_times)
    assert {at(ahead)} == {reading.sent for reading in message.readings}
    assert at(ahead) == message.stamp_sent


def test_a_time_before_2015_counts_as_missing_and_is_counted() -> None:
    message = report("meter.update", body("meter", "10:00", powerState={"lastUpdated": "2014-12-31T00:00:00Z"}))
    assert {at("10:00")} == {reading.at for reading in message.readings}
    assert ("before 2015",) == message.odd_times


# ---- the head --------------------------------------------------------------------------------------------------------

PLACES = [
    *[(kind, {"locationId": "loc-1"}, "loc-1") for kind in Kind if kind not in {Kind.VEHICLE, Kind.CHARGER}],
    *[(kind, {"locationId": None}, None) for kind in Kind],
    (Kind.CHARGER, {"location": "loc-1"}, "loc-1"),
    (Kind.CHARGER, {"location": None, "locationId": "loc-1"}, "loc-1"),
    (Kind.VEHICLE, {"location": {"latitude": 1, "longitude": 2}}, None),
    (Kind.VEHICLE, {"locationId": "loc-1"}, None),
]


@pytest.mark.parametrize(("kind", "change", "expected"), PLACES)
def test_where_is_read_in_its_three_spellings(kind: Kind, change: dict[str, Any], expected: str | None) -> None:
    assert expected == report(f"{kind}.update", body(kind, **change)).location


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ({"latitude": 52.5, "longitude": 8}, (52.5, 8.0)),
        ({"latitude": 52.5, "longitude": None}, None),
        ({"latitude": 90.1, "longitude": 8}, None),
        ({"latitude": 52.5, "longitude": -180.1}, None),
        ({"latitude": float("nan"), "longitude": 8}, None),
        ({"latitude": "52.5", "longitude": " 8 "}, (52.5, 8.0)),
        ({"latitude": 0, "longitude": 0.0}, None),
        ({"latitude": "0", "longitude": 0}, None),
        ({"latitude": 0, "longitude": 8}, (0.0, 8.0)),
        (None, None),
        ("somewhere", None),
    ],
)
def test_a_position_is_read_where_it_can_be_one(place: object, expected: tuple[float, float] | None) -> None:
    assert expected == report("vehicle.update", body("vehicle", location=place)).position


def test_a_charger_with_coordinates_keeps_its_place_to_itself() -> None:
    message = report("charger.update", body("charger", location={"latitude": 52.5, "longitude": 8.5}))
    assert message.location is None
    assert message.position is None
    assert "52.5" not in repr(message)


@pytest.mark.parametrize("user", [None, "", "  ", [], "a\x00b"])
def test_a_user_that_names_nobody_is_missing(user: object) -> None:
    message = report("meter.update", body("meter", userId=user))
    assert (None, None) == (message.user, message.raw_user)


def test_a_user_gets_the_prefix_of_the_subscription() -> None:
    rules = Rules(subscriptions={"sub-1": SubscriptionRule(user_prefix="acme/")})
    message = report("meter.update", body("meter", userId=12345), rules=rules)
    assert ("acme/12345", "12345") == (message.user, message.raw_user)


@pytest.mark.parametrize("key", ["isOnline", "isConnected"])
@pytest.mark.parametrize(("said", "expected"), [(True, True), (False, False), (None, None), ("false", False),
    ("True", True), ("yes", None), (0, None)])  # fmt: skip
def test_a_flag_is_true_false_or_not_said(*, key: str, said: object, expected: bool | None) -> None:
    message = report("meter.update", body("meter", **{key: said}))
    assert expected == (message.online if key == "isOnline" else message.connected)


def test_missing_keys_are_the_same_as_null() -> None:
    bare = report("battery.update", {"id": "d-1"})
    assert (None, None, None, (), Facts()) == (bare.user, bare.online, bare.location, bare.readings, bare.facts)
    assert NOON == bare.stamp


def test_unknown_keys_and_the_order_of_keys_mean_nothing() -> None:
    content = body("battery")
    content["chargeState"]["flux"] = content["brandNew"] = {"deep": [1, {"x": None}]}
    turned = dict(reversed(content.items()))
    assert report("battery.update", body("battery")) == report("battery.update", turned)


def test_static_data_is_read_and_private_or_useless_parts_are_not() -> None:
    static = {
        "type": "dhw", "room": "Bath", "siteName": "Street 5", "vendor": "null", "model": " ", "name": "Tank",
        "lastUpdated": iso("09:00"),
    }  # fmt: skip
    content = body("hvac", staticData=static)
    assert Facts(type="DHW", name="Tank", updated=at("09:00")) == report("hvac.update", content).facts


def test_the_name_of_a_tariff_is_not_read_because_it_is_an_address() -> None:
    message = report("tariff.update", body("tariff", staticData={"name": "Ostrom Feldstraße 22", "currency": "eur"}))
    assert (None, "EUR") == (message.facts.name, message.facts.currency)
    assert "Feldstraße" not in repr(message)


# ---- values (M0.1, M0.9) ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Kind.VEHICLE, {Quantity.STATE_OF_CHARGE: 50.0, Quantity.POWER: 7000.0, Quantity.STATE: "CHARGING"}),
        (Kind.CHARGER, {Quantity.POWER: 7000.0, Quantity.STATE: "CHARGING", Quantity.PLUGGED: True}),
        (
            Kind.BATTERY,
            {Quantity.POWER: 2000.0, Quantity.STATE_OF_CHARGE: 50.0, Quantity.STATE: "CHARGING", Quantity.MODE: "AUTO"},
        ),
        (Kind.PV_INVERTER, {Quantity.POWER: 4000.0, Quantity.STATE: "PRODUCING"}),
        (Kind.METER, {Quantity.POWER: 1000.0, Quantity.COUNTER: 100_000.0}),
        (
            Kind.HVAC,
            {Quantity.POWER: 1000.0, Quantity.TEMPERATURE: 21.0, Quantity.MODE: "HEAT", Quantity.ACTIVE: True},
        ),
        (Kind.TARIFF, {}),
    ],
)
def test_every_field_that_is_mapped_becomes_a_reading(kind: Kind, expected: dict[Quantity, object]) -> None:
    message = report(f"{kind}.update", body(kind))
    assert expected == {reading.quantity: reading.value for reading in message.readings}
    assert () == message.odd


@pytest.mark.parametrize(
    ("kind", "block", "word"), [("pv-inverter", "powerState", "IDLE"), ("battery", "chargeState", "idle")]
)
def test_an_idle_inverter_or_battery_without_number_is_at_zero(kind: str, block: str, word: str) -> None:
    field, state = {"powerState": ("solarPower", "state"), "chargeState": ("chargeRate", "chargingState")}[block]
    idle = report(f"{kind}.update", body(kind, **{block: {field: None, state: word}}))
    busy = report(f"{kind}.update", body(kind, **{block: {field: 0.3, state: word}}))
    assert Reading(quantity=Quantity.POWER, at=at("10:00"), value=0.0) in idle.readings
    assert Reading(quantity=Quantity.POWER, at=at("10:00"), value=300.0) in busy.readings


def test_a_field_of_the_wrong_type_costs_nothing_but_itself() -> None:
    wrong = {
        "chargeRate": "7 kW", "isPlugged": "yes", "chargeLimitMin": [], "mode": 3, "scheduledDepartureTime": {},
    }  # fmt: skip
    content = body("vehicle", chargeState=wrong, isOnline="on", odometer="far", locationId={"a": 1})
    message = report("vehicle.update", content)
    values = {reading.quantity: reading.value for reading in message.readings}
    assert {Quantity.STATE_OF_CHARGE: 50.0, Quantity.POWER: None, Quantity.STATE: "CHARGING"} == values
    assert len(set(message.odd)) == len(message.odd)
    assert "chargeState.chargeRate: wrong type" in message.odd


@pytest.mark.parametrize("number", [1e400, -1e400, float("nan")])
def test_a_number_that_is_none_is_unknown(number: float) -> None:
    message = report("meter.update", body("meter", powerState={"power": number}))
    assert None in [reading.value for reading in message.readings]
    assert message.odd


def test_two_flaws_of_which_one_hides_the_other_cost_two_fields() -> None:
    raw = json.dumps(body("meter", isOnline="yes")).replace('"power": 1', '"power": 1' + "0" * 1000).encode()
    message = report("meter.update", raw)
    assert ("isOnline: wrong type", "powerState.power: wrong type") == message.odd
    assert [None, 100_000.0] == [reading.value for reading in message.readings]


def test_a_huge_integer_is_outside_the_limits_and_not_an_error() -> None:
    raw = json.dumps(body("meter")).replace('"power": 1', '"power": 1' + "0" * 1000).encode()
    message = report("meter.update", raw)
    assert None in [reading.value for reading in message.readings]


# ---- what is no report -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [b"null", b" null ", b"null\n"])
@pytest.mark.parametrize("topic", TOPICS, ids=str)
def test_nothing_at_all_is_a_tombstone(topic: Topic, raw: bytes) -> None:
    expected = Tombstone(number=7, received=NOON, subscription="sub-1", kind=topic.kind, action=topic.action)
    assert expected == decode(topic, raw, number=7, received=NOON, rules=Rules())


@pytest.mark.parametrize("raw", [b"", b"  \n", b"{", b"[]", b"3", b'"x"', b"\xff", b"{}", b'{"id":null}', b'{"id":""}',
                                 b'{"id":" "}', b'{"id":{}}', b'{"id":true}', b'{"id":"a\\u0000b"}',
                                 b'{"id":"\\ud800"}', b"[" * 5000, b'{"a":' * 5000])  # fmt: skip
@pytest.mark.parametrize("topic", TOPICS, ids=str)
def test_what_cannot_be_read_says_why_without_its_values(topic: Topic, raw: bytes) -> None:
    message = decode(topic, raw, number=7, received=NOON, rules=Rules())
    assert isinstance(message, Unreadable)
    assert 7 == message.number
    assert message.detail


def test_a_command_is_about_its_device_not_its_id() -> None:
    content = {
        "id": "c-1", "userId": "user-1", "deviceId": "d-1", "type": "CHARGING_STOP", "state": "failed",
        "failedReason": "null", "createdAt": iso("10:00"), "lastUpdated": None,
    }  # fmt: skip
    command = read("vehicle.command", content)
    assert isinstance(command, Command)
    assert ("c-1", "d-1", "CHARGING_STOP", "FAILED", None) == (
        command.id, command.device, command.type, command.state, command.failed_reason,
    )  # fmt: skip


@pytest.mark.parametrize("device", [None, "", " ", 5.5, {}])
def test_a_command_for_no_device_is_unreadable(device: object) -> None:
    message = read("charger.command", {"id": "c-1", "userId": "user-1", "deviceId": device})
    assert isinstance(message, Unreadable) or device == 5.5  # a number is a strange id, but one


def test_prices_are_decimals_and_never_lose_a_place() -> None:
    raw = (
        b'{"id":"d-1","userId":"u","prices":[{"startDate":"2026-06-15T12:00:00Z","totalPrice":0.10000000000000000001}]}'
    )
    message = read("tariff.price.update", raw)
    assert isinstance(message, Prices)
    ((start, price),) = message.entries
    assert at("12:00") == start
    assert price is not None
    assert abs(price - Decimal("0.1")) < Decimal("1e-15")


PRICE_SHAPES: list[tuple[Any, list[tuple[str, str | None]]]] = [
    (None, []),
    ([], []),
    ("soon", []),
    ([{"startDate": iso("12:00"), "totalPrice": 0.3104}], [("12:00", "0.3104")]),
    ([{"startsAt": iso("12:00"), "totalPrice": 0.3, "vat": 0.05}], [("12:00", "0.3")]),
    ([[{"startDate": iso("12:00"), "totalPrice": 0.3}, {"startDate": iso("13:00"), "totalPrice": 0.2}]],
     [("12:00", "0.3"), ("13:00", "0.2")]),
    ([{"startDate": iso("12:00"), "totalPrice": -0.05}], [("12:00", "-0.05")]),
    ([{"startDate": iso("12:00"), "totalPrice": "0.25"}], [("12:00", "0.25")]),
    ([{"startDate": iso("12:00"), "totalPrice": None}], [("12:00", None)]),
    ([{"startDate": iso("12:00"), "totalPrice": "null"}], [("12:00", None)]),
    ([{"startDate": iso("12:00"), "totalPrice": float("nan")}], [("12:00", None)]),
    ([{"startDate": iso("12:00")}], [("12:00", None)]),
    ([{"totalPrice": 0.3}, None, 7, "x", [], {"startDate": iso("12:00"), "totalPrice": 0.3}], [("12:00", "0.3")]),
    ([[{"startDate": iso("12:00"), "totalPrice": 0.3}, {"startDate": iso("13:00"), "totalPrice": {}}],
      [{"startDate": iso("14:00"), "totalPrice": 0.2}]], [("12:00", "0.3"), ("13:00", None), ("14:00", "0.2")]),
    ([{"startDate": "9999-12-31T23:30:00Z", "totalPrice": 0.3}], []),
    ([{"startDate": "1999-01-01T00:00:00Z", "totalPrice": 0.3}], []),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "expected"), PRICE_SHAPES)
def test_prices_are_read_in_every_shape(shape: object, expected: list[tuple[str, str | None]]) -> None:
    message = read("tariff.price.update", prices(prices=shape))
    assert isinstance(message, Prices)
    assert [(at(clock), Decimal(text) if text is not None else None) for clock, text in expected] == list(
        message.entries
    )


@pytest.mark.parametrize(
    ("entry", "odd"),
    [
        ({"startDate": "soon"}, "unreadable"),
        ({"startDate": True}, "unreadable"),
        ({"startDate": "2014-12-31T00:00:00Z"}, "before 2015"),
        ({"startDate": "2100-01-01T00:00:00Z"}, "over 8 days ahead"),
        ({}, "missing"),
        ({"startDate": "null"}, "missing"),
        (None, "missing"),
    ],
)
def test_a_price_whose_start_cannot_be_used_is_counted(entry: object, odd: str) -> None:
    used = {"startDate": iso("12:00"), "totalPrice": 0.3}
    message = read("tariff.price.update", prices(prices=[entry, entry, used]))
    assert isinstance(message, Prices)
    assert (f"prices.startDate: {odd}",) == message.odd_times
    assert [at("12:00")] == [start for start, _ in message.entries]


def test_a_schedule_is_kept_as_sent() -> None:
    week = [{"start": {"day": "MONDAY", "time": "06:00"}, "end": None, "mode": "HEAT", "temperature": 21.5}]
    message = read(
        "hvac.schedules.update", {"id": "d-1", "userId": "u", "timeZone": "Europe/Berlin", "schedules": week}
    )
    assert isinstance(message, Schedules)
    assert ("d-1", "Europe/Berlin", tuple(week)) == (message.id, message.time_zone, message.entries)


def test_what_is_no_schedule_in_a_week_is_left_out() -> None:
    message = read(
        "hvac.schedules.update", {"id": "d-1", "userId": "u", "timeZone": 1, "schedules": [1, None, {"mode": "OFF"}]}
    )
    assert isinstance(message, Schedules)
    assert (None, ({"mode": "OFF"},)) == (message.time_zone, message.entries)


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999", "1" + "0" * 30, "-1" + "0" * 30])
def test_a_number_in_a_schedule_that_no_state_can_hold_is_left_out(number: str) -> None:
    body = '{"id": "d-1", "userId": "u", "schedules": [{"mode": {"at": [%s, 21.5, true]}, "temperature": %s}]}'
    message = read("hvac.schedules.update", (body % (number, number)).encode())
    assert isinstance(message, Schedules)
    assert ({"mode": {"at": [None, 21.5, True]}, "temperature": None},) == message.entries


# ---- any bytes -------------------------------------------------------------------------------------------------------

WORDS = [
    "null",
    "CHARGING",
    "IDLE",
    "FAULT",
    "UNPLUGGED",
    "2026-06-15T10:00:00Z",
    "9999-12-31T23:59:59Z",
    "NaN",
    "\ud800",
]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(WORDS)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=6,
)
BLOCK_KEYS = [
    "lastUpdated", "chargingState", "chargeRate", "stateOfCharge", "mode", "isPlugged", "solarPower", "state", "power",
    "meterValue", "powerConsumption", "isActive", "temperatureCurrent", "temperatureTargets", "latitude", "longitude",
    "vendor", "model", "name", "vin", "type", "engineType", "currency", "capableModes", "odometer", "other",
]  # fmt: skip
BLOCKS = st.dictionaries(st.sampled_from(BLOCK_KEYS), ANYTHING, max_size=8) | ANYTHING
PRICE_LISTS = st.lists(
    st.fixed_dictionaries({}, optional={"startDate": ANYTHING, "startsAt": ANYTHING, "totalPrice": ANYTHING})
    | ANYTHING,
    max_size=5,
)
BODIES = st.fixed_dictionaries(
    {"id": st.just("d-1") | ANYTHING, "userId": st.just("user-1") | ANYTHING},
    optional={
        "lastUpdated": ANYTHING,
        "isOnline": ANYTHING,
        "isConnected": ANYTHING,
        "locationId": ANYTHING,
        "location": BLOCKS,
        "staticData": BLOCKS,
        "chargeState": BLOCKS,
        "powerState": BLOCKS,
        "climateState": BLOCKS,
        "odometer": BLOCKS,
        "deviceId": ANYTHING,
        "state": ANYTHING,
        "type": ANYTHING,
        "failedReason": ANYTHING,
        "prices": PRICE_LISTS | ANYTHING,
        "timeZone": ANYTHING,
        "schedules": ANYTHING,
        "new": ANYTHING,
    },
)


def take(topic: Topic, raw: bytes) -> None:
    """Decode and reduce, which never raises; what comes out is finite and in its limits."""
    message = decode(topic, raw, number=1, received=NOON, rules=Rules())
    if isinstance(message, Unreadable | Tombstone):
        return
    building, _ = reduce(Building(id="b"), message, Rules())
    building, _ = reduce(building, message, Rules())
    if isinstance(message, Report):
        assert message.stamp <= NOON
        assert all(reading.at <= NOON for reading in message.readings)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(TOPICS), st.binary(max_size=60))
@example(TOPICS[0], b'{"id":"\xed\xa0\x80"}')
@example(TOPICS[0], b"\xef\xbb\xbf{}")
def test_any_bytes_can_be_decoded(topic: Topic, raw: bytes) -> None:
    take(topic, raw)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(TOPICS), BODIES | ANYTHING)
@example(TOPICS[0], {"id": "d", "staticData": {"capableModes": [[[]]] * 3}})
def test_any_json_can_be_decoded_under_every_topic(topic: Topic, content: object) -> None:
    take(topic, json.dumps(content).encode("utf-8", "surrogatepass"))
