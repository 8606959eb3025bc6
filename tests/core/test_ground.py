"""Ground rules (M0): absence, units, newest wins, deletes, identity, names, privacy, limits."""

import math
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.core.effects import Note, PutDevices
from bridge.core.identity import building_id, device_id, device_name, gateway_id, one_line, product_name, safe
from bridge.core.mapping import READINGS, NumberRow
from bridge.core.messages import Facts, Quantity
from bridge.core.model import Residence
from bridge.core.rules import MeterRule, Rules
from bridge.core.units import tidy
from bridge.core.vocabulary import EVENT_TYPES, EventType, Kind
from tests.core.house import House, at, body, calls, events, iso, listed, notes, prices, read, without_places

POWER, SOC = Quantity.POWER, Quantity.STATE_OF_CHARGE
VIN = "WVWZZZE1ZMP000001"

# ---- absence (M0.1) --------------------------------------------------------------------------------------------------

USELESS: list[tuple[str, dict[str, Any], str, Quantity]] = [
    ("vehicle", {"chargeState": {"stateOfCharge": None}}, "absent_value", SOC),
    ("vehicle", {"chargeState": {"stateOfCharge": "null"}}, "odd_value", SOC),
    ("vehicle", {"chargeState": {"stateOfCharge": "72,25"}}, "odd_value", SOC),
    ("vehicle", {"chargeState": {"stateOfCharge": "-"}}, "odd_value", SOC),
    ("meter", {"powerState": {"power": "unavailable"}}, "odd_value", POWER),
    ("vehicle", {"chargeState": {"stateOfCharge": math.nan}}, "odd_value", SOC),
    ("vehicle", {"chargeState": {"stateOfCharge": math.inf}}, "odd_value", SOC),
    ("vehicle", {"chargeState": {"stateOfCharge": 100.01}}, "odd_value", SOC),
    ("vehicle", {"chargeState": {"chargingState": "null"}}, "absent_value", POWER),
    ("vehicle", {"chargeState": {"chargingState": "TELEPORTING"}}, "odd_value", POWER),
    ("vehicle", {"chargeState": {"chargeRate": None}}, "absent_value", POWER),
    ("battery", {"chargeState": {"chargeRate": None}}, "absent_value", POWER),
    ("meter", {"powerState": {"power": None}}, "absent_value", POWER),
    ("pv-inverter", {"powerState": {"solarPower": None}}, "absent_value", POWER),
    ("hvac", {"climateState": {"temperatureCurrent": None}}, "absent_value", Quantity.TEMPERATURE),
    ("hvac", {"climateState": {"mode": "TURBO"}}, "odd_value", Quantity.MODE),
    ("hvac", {"climateState": {"isActive": "yes"}}, "odd_value", Quantity.ACTIVE),
]


@pytest.mark.parametrize(("kind", "change", "note", "quantity"), USELESS)
def test_what_says_nothing_usable_yields_no_event_is_counted_and_ends_the_held_value(
    kind: str, change: dict[str, Any], note: str, quantity: Quantity
) -> None:
    house = House()
    house.hear(f"{kind}.update", body(kind, "10:00"))
    known = house.series(f"{kind}:d-1", quantity)
    effects = house.hear(f"{kind}.update", body(kind, "10:05", **change))
    after = house.series(f"{kind}:d-1", quantity)
    assert () == events(effects)
    assert note in notes(effects)
    assert (at("10:05"), None) == after[-1]
    assert known == after[:-1] or known[0][1] is not None  # slots keep the history, words do not


def test_nothing_is_counted_in_a_message_without_flaw() -> None:
    for kind in Kind:
        assert [] == notes(House().hear(f"{kind}.update", body(kind)))


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.TARIFF])
@pytest.mark.parametrize("missing", ["left out", "null"])
def test_a_block_that_is_missing_as_a_whole_changes_nothing(kind: Kind, missing: str) -> None:
    house = House()
    house.hear(f"{kind}.update", body(kind, "10:00"))
    known = house.device(f"{kind}:d-1").series
    sparse = body(kind, "10:05")
    for block in {row.block for row in READINGS[kind]}:
        if missing == "null":
            sparse[block] = None
        else:
            del sparse[block]
    effects = house.hear(f"{kind}.update", sparse)
    assert known == house.device(f"{kind}:d-1").series
    assert () == effects


def test_nothing_usable_in_an_older_block_leaves_the_newer_value_alone() -> None:
    house = House()
    house.hear("vehicle.update", body("vehicle", "10:05"))
    house.hear("vehicle.update", body("vehicle", "10:00", chargeState={"stateOfCharge": None}))
    assert [(at("10:05"), 50.0)] == house.series("vehicle:d-1", SOC)


def test_nothing_usable_counts_even_if_it_arrives_before_the_value_it_ends() -> None:
    house = House()
    house.hear("battery.update", body("battery", "10:05", chargeState={"chargeRate": None}))
    house.hear("battery.update", body("battery", "10:00"))
    assert [(at("10:00"), 2000.0), (at("10:05"), None)] == house.series("battery:d-1", POWER)


# ---- units (M0.2) ----------------------------------------------------------------------------------------------------

UNITS = {
    ("chargeState", "stateOfCharge"): 1,
    ("chargeState", "chargeRate"): 1000,
    ("powerState", "solarPower"): 1000,
    ("powerState", "power"): 1000,
    ("powerState", "meterValue"): 1000,
    ("powerState", "powerConsumption"): 1000,
    ("climateState", "temperatureCurrent"): 1,
}
NUMBERS = [(kind, row) for kind, rows in READINGS.items() for row in rows if isinstance(row, NumberRow)]


@pytest.mark.parametrize(("kind", "row"), NUMBERS)
def test_every_number_enters_in_watt_watt_hours_percent_or_degrees(kind: Kind, row: NumberRow) -> None:
    house = House()
    house.hear(f"{kind}.update", body(kind, **{row.block: {row.field: 12.5}}))
    assert [(at("10:00"), 12.5 * UNITS[row.block, row.field])] == house.series(f"{kind}:d-1", row.quantity)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_value_leaves_with_three_decimals_and_never_as_minus_zero(value: float) -> None:
    left = tidy(value)
    assert round(value, 3) == left
    assert math.copysign(1, left) == 1 or left < 0


# ---- newest wins (M0.4) ----------------------------------------------------------------------------------------------


def updates(times: list[int]) -> list[dict[str, Any]]:
    """Return one vehicle update per minute named, each with values of its own; every third has a null."""
    return [
        body(
            "vehicle",
            f"10:{minute:02}",
            chargeState={
                "stateOfCharge": minute,
                "chargeRate": None if minute % 3 == 0 else minute / 10,
                "chargingState": ["CHARGING", "FINISHED", "FAULT"][minute % 5 % 3],
            },
        )
        for minute in times
    ]


@settings(max_examples=60, deadline=None)
@given(st.permutations([*range(0, 30, 3), 1, 2, 17, 29]))
def test_the_order_of_arrival_does_not_matter(order: list[int]) -> None:
    straight, shuffled = House(), House()
    for content in updates(sorted(order)):
        straight.hear("vehicle.update", content)
    for content in updates(order):
        shuffled.hear("vehicle.update", content)
    assert without_places(straight.state) == without_places(shuffled.state)


PLAY: list[tuple[str, dict[str, Any]]] = [
    ("battery.connect", body("battery", "10:00")),
    ("battery.update", body("battery", "10:05", chargeState={"chargeRate": -1})),
    ("battery.update", body("battery", "10:06", chargeState={"chargeRate": None, "stateOfCharge": 51})),
    ("battery.offline", body("battery", "10:07", isOnline=False)),
    ("battery.update", body("battery", "10:08")),
    ("battery.offline", body("battery", "10:08", isOnline=False)),
    ("vehicle.update", body("vehicle", "10:09")),
    ("battery.update", body("battery", "10:10", staticData={"name": "Renamed", "lastUpdated": iso("10:10")})),
    ("battery.disconnect", body("battery", "10:11")),
    ("battery.connect", body("battery", "10:12")),
    ("battery.delete", body("battery", "10:13")),
    ("battery.update", body("battery", "10:14", chargeState={"chargeRate": 3})),
    ("tariff.update", body("tariff")),
    ("tariff.price.update", prices(("12:00", 0.3), ("13:00", 0.2))),
    ("hvac.update", body("hvac", "10:15")),
    ("hvac.schedules.update", {"id": "d-1", "userId": "user-1", "timeZone": "Europe/Berlin", "schedules": []}),
]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(PLAY) - 1), st.data())
def test_a_repeat_changes_nothing_whenever_it_comes(upto: int, data: st.DataObject) -> None:
    house = House()
    for topic, content in PLAY[: upto + 1]:
        house.hear(topic, content)
    before = without_places(house.state)
    topic, content = data.draw(st.sampled_from(PLAY[: upto + 1]))
    effects = house.hear(topic, content)
    assert () == calls(effects), topic
    assert before == without_places(house.state), topic


def test_of_equal_times_the_greater_object_time_wins() -> None:
    block = {"lastUpdated": iso("10:00")}
    newer = body("vehicle", "10:05", chargeState={**block, "stateOfCharge": 60})
    older = body("vehicle", "10:04", chargeState={**block, "stateOfCharge": 40})
    for order in ([newer, older], [older, newer]):
        house = House()
        for content in order:
            house.hear("vehicle.update", content)
        assert [(at("10:00"), 60.0)] == house.series("vehicle:d-1", SOC)


def test_of_equal_times_and_object_times_the_later_accepted_wins() -> None:
    house = House()
    house.hear("vehicle.update", body("vehicle", "10:00", chargeState={"stateOfCharge": 60}))
    house.hear("vehicle.update", body("vehicle", "10:00", chargeState={"stateOfCharge": 40}))
    assert [(at("10:00"), 40.0)] == house.series("vehicle:d-1", SOC)


# ---- offline, disconnect, delete (M0.5) ------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["offline", "disconnect"])
@pytest.mark.parametrize("quantity", [POWER, SOC, Quantity.STATE, Quantity.MODE])
def test_going_away_ends_every_value_at_the_stamp(action: str, quantity: Quantity) -> None:
    house = House()
    house.hear("battery.update", body("battery", "10:00"))
    house.hear(f"battery.{action}", body("battery", "10:30"))
    assert (at("10:30"), None) == house.series("battery:d-1", quantity)[-1]


@pytest.mark.parametrize("action", ["offline", "disconnect"])
@pytest.mark.parametrize("stamp", ["10:00", "09:00"])
def test_going_away_with_an_old_stamp_ends_the_values_at_the_receipt(action: str, stamp: str) -> None:
    house = House()
    house.hear("battery.update", body("battery", "10:00"))
    house.hear(f"battery.{action}", body("battery", stamp), received="11:00")
    assert [(at("10:00"), 2000.0), (at("11:00"), None)] == house.series("battery:d-1", POWER)


def test_a_value_older_than_the_absence_that_arrives_after_it_is_ended_by_it() -> None:
    house = House()
    house.hear("battery.offline", body("battery", "10:30", isOnline=False))
    house.hear("battery.update", body("battery", "10:00"))
    assert [(at("10:00"), 2000.0), (at("10:30"), None)] == house.series("battery:d-1", POWER)


@pytest.mark.parametrize("last", ["10:00", "10:30"])
def test_delete_ends_the_values_at_its_stamp_or_else_its_receipt(last: str) -> None:
    house = House()
    house.hear("battery.update", body("battery", "10:00"))
    house.hear("battery.delete", body("battery", last), received="11:00")
    departed = house.state.departed
    assert [at("10:30" if last == "10:30" else "11:00")] == [device.until for device in departed]


BACK = [
    ("update", "10:29", False),
    ("update", "10:30", False),
    ("update", "10:31", True),
    ("connect", "10:29", False),
    ("connect", "10:30", True),
    ("connect", "10:31", True),
    ("offline", "10:31", False),
    ("disconnect", "10:31", False),
    ("delete", "10:31", False),
]


@pytest.mark.parametrize(("action", "stamp", "back"), BACK)
def test_only_a_newer_update_or_a_connect_brings_a_deleted_device_back(action: str, stamp: str, back: bool) -> None:  # noqa: FBT001
    house = House()
    house.hear("battery.update", body("battery", "10:00"))
    house.hear("battery.delete", body("battery", "10:30"))
    effects = house.hear(f"battery.{action}", body("battery", stamp))
    assert back == ("sub-1/battery:d-1" in house.state.devices)
    assert ([["gateway:user-1", "battery:d-1"]] if back else []) == listed(effects)


def test_a_delete_that_arrives_before_the_update_it_follows_keeps_the_device_out() -> None:
    house = House()
    assert () == house.hear("battery.delete", body("battery", "10:30"))
    effects = house.hear("battery.update", body("battery", "10:00"))
    assert {} == house.state.devices
    assert () == calls(effects)


def test_prices_schedules_and_commands_never_bring_anything_back() -> None:
    house = House()
    house.hear("tariff.connect", body("tariff"))
    house.hear("tariff.delete", body("tariff", staticData={"lastUpdated": iso("11:00")}))
    house.hear("hvac.update", body("hvac", "10:00"))
    house.hear("hvac.delete", body("hvac", "10:30"))
    for topic, content in (
        ("tariff.price.update", prices(("13:00", 0.3))),
        ("hvac.schedules.update", {"id": "d-1", "userId": "user-1", "timeZone": None, "schedules": []}),
        ("hvac.command", {"id": "c-1", "userId": "user-1", "deviceId": "d-1", "type": "SET_MODE", "state": "PENDING"}),
    ):
        assert () == calls(house.hear(topic, content)), topic
    assert {} == house.state.devices
    assert {} == house.state.prices


def test_a_device_that_came_back_begins_afresh() -> None:
    house = House()
    house.hear("vehicle.update", body("vehicle", "10:00"))
    house.hear("vehicle.delete", body("vehicle", "10:30"))
    effects = house.hear("vehicle.connect", body("vehicle", "10:40"))
    assert [50.0] == [event.value for event in events(effects)]
    assert [(at("10:40"), 50.0)] == house.series("vehicle:d-1", SOC)


# ---- identity (M0.6) -------------------------------------------------------------------------------------------------


def test_two_kinds_with_one_id_are_two_devices() -> None:
    house = House()
    house.hear("battery.update", body("battery"))
    effects = house.hear("meter.update", body("meter"))
    assert [["gateway:user-1", "battery:d-1", "meter:d-1"]] == listed(effects)


def test_safe_names_are_as_the_rule_spells_them() -> None:
    assert "vehicle:6eb5497d-c6bb-4290-84ef-4409fe9501f1" == device_id(
        Kind.VEHICLE, "6eb5497d-c6bb-4290-84ef-4409fe9501f1"
    )
    assert "a_b_c-de9b0b851ef1" == safe("a b@c", 100)  # the digits are those of sha256sum
    assert 64 == len(device_id(Kind.PV_INVERTER, "x" * 100))
    assert device_id(Kind.PV_INVERTER, "x" * 100).startswith("pv-inverter:" + "x" * 39 + "-")
    assert "x" * 87 + "-" == building_id("x" * 101)[:88]
    for reserved in ("core-data", ".", ".."):  # each means something else in a path
        assert re.fullmatch(rf"{re.escape(reserved)}-[0-9a-f]{{12}}", building_id(reserved))
    assert "gateway:user-1" == gateway_id("user-1")
    assert building_id("").startswith("-")


@given(st.lists(st.text(max_size=200), min_size=2, max_size=8, unique=True), st.sampled_from([64, 100]))
def test_safe_names_never_meet_and_always_fit(texts: list[str], longest: int) -> None:
    made = {safe(text, longest) for text in texts}
    texts = list({*texts, *made, *(safe(text, longest) for text in made)})  # somebody may be called like that
    names = [safe(text, longest) for text in texts]
    assert len(texts) == len(set(names))
    for name in names:
        assert 1 <= len(name) <= longest
        assert not set(name) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:._-")


@pytest.mark.parametrize(
    "text",
    [
        "alice@example.com",
        "x" * 60,
        "x" * 101,
        "core-data",
        "..",
        "",
        "meter:x@y",
        "6eb5497d-c6bb-4290-84ef-4409fe9501f1@home",
    ],
)
def test_a_name_that_looks_hashed_is_hashed(text: str) -> None:
    hashed = safe(text, 59)
    assert re.fullmatch(r".*-[0-9a-f]{12}", hashed)
    again = safe(hashed, 59)
    assert again != hashed
    assert re.fullmatch(rf"{re.escape(hashed[:46])}-[0-9a-f]{{12}}", again)


@pytest.mark.parametrize(
    "text",
    [
        "6eb5497d-c6bb-4290-84ef-4409fe9501f1",  # a UUID ends like a hash
        "vehicle:6eb5497d-c6bb-4290-84ef-4409fe9501f1",
        "user-ff8d9819fc0e",
        "a_b-ff8d9819fc0",
        "a_b-FF8D9819FC0E",
    ],
)
def test_a_name_that_nothing_is_made_into_stays(text: str) -> None:
    assert text == safe(text, 100)


@given(st.sampled_from(list(Kind)), st.text(min_size=1, max_size=100))
def test_a_device_id_has_at_least_three_characters(kind: Kind, device: str) -> None:
    assert 3 <= len(device_id(kind, device)) <= 64


# ---- names (M0.7) ----------------------------------------------------------------------------------------------------

NAMES = [
    (Facts(name="Wallbox", vendor="EASEE", model="Home"), "Wallbox"),
    (Facts(vendor="EASEE", model="Home"), "EASEE Home"),
    (Facts(vendor="EASEE"), "EASEE"),
    (Facts(model="Home"), "Home"),
    (Facts(), "charger 4567"),
    (Facts(name="  \n\t "), "charger 4567"),
    (Facts(name=" two\r\nlines\u2028three "), "two lines three"),
    (Facts(name="x" * 300), "x" * 100),
    (Facts(name="Büro 🚗"), "Büro 🚗"),
]


@pytest.mark.parametrize(("facts", "name"), NAMES)
def test_a_device_is_named_by_its_name_else_vendor_and_model_else_kind_and_end_of_id(facts: Facts, name: str) -> None:
    assert name == device_name(Kind.CHARGER, "0123-4567", facts)


def test_the_product_name_is_vendor_and_model() -> None:
    assert "EASEE Home" == product_name(Facts(vendor="EASEE", model="Home", name="Wallbox"))
    assert product_name(Facts(name="Wallbox")) is None


@given(st.text())
def test_a_name_is_one_line_of_at_most_a_hundred_characters_or_nothing(text: str) -> None:
    line = one_line(text)
    assert line is None or (1 <= len(line) <= 100 and line == line.strip() and len(line.splitlines()) == 1)


@given(st.text(max_size=12), st.text(max_size=12))
def test_a_name_never_holds_a_line_break_even_from_the_id(vendor: str, device: str) -> None:
    name = device_name(Kind.METER, device, Facts(vendor=vendor))
    assert 1 <= len(name) <= 100
    assert 1 == len(name.splitlines())


# ---- privacy (M0.8) --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["name", "model", "vendor"])
@pytest.mark.parametrize("text", [VIN, f"My {VIN.lower()} car"])
def test_a_text_with_the_vin_counts_as_missing(field: str, text: str) -> None:
    house = House()
    house.hear("vehicle.update", body("vehicle", staticData={field: text}))
    entry = next(effect for effect in house.effects if isinstance(effect, PutDevices)).devices[1]
    assert VIN.casefold() not in f"{entry.name} {entry.product_name}".casefold()
    assert {"name": "ACME One", "model": "Thing", "vendor": "Thing"}[field] == entry.name


def test_neither_vin_nor_place_nor_address_is_in_state_effects_or_repr() -> None:
    home = {
        "geolocation": {"lat": 52.27, "lon": 8.04},
        "zip": "49074",
        "city": "Osnabrück",
        "timeZoneId": "Europe/Berlin",
    }
    house = House(residence=Residence(user="user-1", location=None, building="home", attributes=home), name="home")
    place = {"latitude": 52.123456, "longitude": 8.654321, "lastUpdated": iso("10:00")}
    content = body("vehicle", staticData={"name": f"Car {VIN}", "siteName": "Secret Street 5"}, location=place)
    message = read("vehicle.update", content)
    house.hear("vehicle.update", content)
    house.hear("tariff.update", body("tariff", staticData={"name": "Ostrom Feldstraße 22"}))
    house.hear(
        "vehicle.command", {"id": "c", "userId": "u", "deviceId": "d-1", "type": "CHARGING_STOP", "state": "FAILED"}
    )
    from_cloud = [VIN, "52.123456", "8.654321", "Secret Street", "Feldstraße"]
    from_directory = ["52.27", "49074", "Osnabrück"]
    for text in (repr(message), repr(house.effects)):
        assert [] == [secret for secret in from_cloud if secret in text]
    assert [] == [secret for secret in from_cloud + from_directory if secret in repr(house.state)]


# ---- limits (M0.9) ---------------------------------------------------------------------------------------------------

LIMITS = [
    ("hvac", "powerState", "powerConsumption", POWER, 50, 1000),
    ("vehicle", "chargeState", "chargeRate", POWER, 400, 1000),
    ("charger", "chargeState", "chargeRate", POWER, 400, 1000),
    ("battery", "chargeState", "chargeRate", POWER, 1000, 1000),
    ("battery", "chargeState", "chargeRate", POWER, -1000, 1000),
    ("pv-inverter", "powerState", "solarPower", POWER, 1000, 1000),
    ("meter", "powerState", "power", POWER, 1000, 1000),
    ("meter", "powerState", "power", POWER, -1000, 1000),
    ("vehicle", "chargeState", "stateOfCharge", SOC, 100, 1),
    ("battery", "chargeState", "stateOfCharge", SOC, 0, 1),
    ("hvac", "climateState", "temperatureCurrent", Quantity.TEMPERATURE, 120, 1),
    ("hvac", "climateState", "temperatureCurrent", Quantity.TEMPERATURE, -60, 1),
    ("meter", "powerState", "meterValue", Quantity.COUNTER, 0, 1000),
]


@pytest.mark.parametrize(("kind", "block", "field", "quantity", "limit", "unit"), LIMITS)
def test_a_value_at_its_limit_counts_and_one_beyond_is_unknown(
    kind: str, block: str, field: str, quantity: Quantity, limit: float, unit: float
) -> None:
    house = House()
    stateless = {"chargingState": "IDLE"} if kind == "battery" else {}  # which has a say in the sign
    assert [] == notes(house.hear(f"{kind}.update", body(kind, "10:00", **{block: {field: limit, **stateless}})))
    assert (at("10:00"), limit * unit) == house.series(f"{kind}:d-1", quantity)[-1]
    beyond = limit + (0.001 if limit > 0 else -0.001)
    assert "odd_value" in notes(house.hear(f"{kind}.update", body(kind, "10:01", **{block: {field: beyond}})))
    after = (at("10:00"), limit * unit) if quantity is Quantity.COUNTER else (at("10:01"), None)
    assert after == house.series(f"{kind}:d-1", quantity)[-1]


@pytest.mark.parametrize(("value", "note"), [(None, "absent_value"), (-0.001, "odd_value"), ("-", "odd_value")])
def test_a_counter_that_says_nothing_usable_still_stands_where_it_stood(value: object, note: str) -> None:
    house = House()
    assert [] == notes(house.hear("meter.update", body("meter", "10:00", powerState={"meterValue": 0})))
    assert note in notes(house.hear("meter.update", body("meter", "10:01", powerState={"meterValue": value})))
    assert [(at("10:00"), 0.0)] == house.series("meter:d-1", Quantity.COUNTER)


@pytest.mark.parametrize(
    ("kind", "block", "field"),
    [
        ("pv-inverter", "powerState", "solarPower"),
        ("vehicle", "chargeState", "chargeRate"),
        ("charger", "chargeState", "chargeRate"),
        ("hvac", "powerState", "powerConsumption"),
    ],
)
def test_a_negative_power_of_what_only_takes_or_gives_is_zero_and_counted(kind: str, block: str, field: str) -> None:
    house = House()
    effects = house.hear(f"{kind}.update", body(kind, **{block: {field: -0.004}}))
    assert ["odd_value"] == notes(effects)
    assert [(at("10:00"), 0.0)] == house.series(f"{kind}:d-1", POWER)


# ---- what vendors write beside numbers (M0.9) ------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["12.5", " 12.5\n", "+12.5", "1.25e1", "12.50"])
@pytest.mark.parametrize(("kind", "row"), NUMBERS)
def test_a_decimal_in_a_string_is_that_number_and_counted(kind: Kind, row: NumberRow, text: str) -> None:
    house = House()
    effects = house.hear(f"{kind}.update", body(kind, **{row.block: {row.field: text}}))
    assert [(at("10:00"), 12.5 * UNITS[row.block, row.field])] == house.series(f"{kind}:d-1", row.quantity)
    assert [f"{row.block}.{row.field}: a number in a string"] == [
        effect.detail for effect in effects if isinstance(effect, Note)
    ]


@pytest.mark.parametrize(
    "text", ["", " ", "1_0", "0x10", "1,5", "1 0", "nan", "inf", "-Infinity", "1e999", "٣", "1" * 101]
)
def test_what_spells_no_finite_decimal_is_unknown(text: str) -> None:
    house = House()
    house.hear("battery.update", body("battery", "10:00"))
    effects = house.hear("battery.update", body("battery", "10:05", chargeState={"chargeRate": text}))
    assert (at("10:05"), None) == house.series("battery:d-1", POWER)[-1]
    assert "odd_value" in notes(effects)


@pytest.mark.parametrize(
    ("text", "flag"), [("false", False), (" FALSE", False), ("true", True), ("no", None), ("0", None)]
)
def test_a_flag_in_a_string_is_that_flag_and_counted(text: str, flag: bool | None) -> None:  # noqa: FBT001
    house = House()
    effects = house.hear("charger.update", body("charger", chargeState={"isPlugged": text}))
    assert [(at("10:00"), flag)] == house.series("charger:d-1", Quantity.PLUGGED)
    assert "odd_value" in notes(effects)


def test_values_of_a_device_that_says_in_words_that_it_is_offline_are_not_used() -> None:
    house = House()
    assert () == events(house.hear("vehicle.update", body("vehicle", isOnline="false")))
    assert house.device("vehicle:d-1").offline
    house.hear("vehicle.update", body("vehicle", "10:05", isOnline="true"))
    assert not house.device("vehicle:d-1").offline


@pytest.mark.parametrize(
    ("word", "kilowatt", "watt", "odd"),
    [
        ("CHARGING", 2, 2000.0, False),
        ("CHARGING", -2, 2000.0, True),
        ("DISCHARGING", -2, -2000.0, False),
        ("DISCHARGING", 2, -2000.0, True),
        ("discharging", 2, -2000.0, True),
        ("DISCHARGING", 0, 0.0, False),
        ("IDLE", -2, -2000.0, False),
        ("FAULT", 2, 2000.0, False),
        (None, 2, 2000.0, False),
        ("DISCHARGING", None, None, False),
        ("DISCHARGING", 1001, None, True),
    ],
)
def test_a_battery_s_rate_has_the_sign_of_its_state(
    word: str | None,
    kilowatt: float | None,
    watt: float | None,
    odd: bool,  # noqa: FBT001
) -> None:
    house = House()
    effects = house.hear("battery.update", body("battery", chargeState={"chargingState": word, "chargeRate": kilowatt}))
    assert [(at("10:00"), watt)] == house.series("battery:d-1", POWER)
    assert odd == ("odd_value" in notes(effects))


@pytest.mark.parametrize(
    ("word", "kilowatt", "watt"),
    [
        ("IDLE", 2, -2000.0),
        (None, -2, 2000.0),
        ("CHARGING", -2, 2000.0),
        ("DISCHARGING", 2, -2000.0),
        ("DISCHARGING", -2, -2000.0),
    ],
)
def test_the_sign_of_a_battery_is_a_setting_that_its_state_overrules(
    word: str | None, kilowatt: float, watt: float
) -> None:
    house = House(Rules(devices={(Kind.BATTERY, "d-1"): MeterRule(sign=-1)}))
    house.hear("battery.update", body("battery", chargeState={"chargingState": word, "chargeRate": kilowatt}))
    assert [(at("10:00"), watt)] == house.series("battery:d-1", POWER)


def test_every_number_row_has_a_limit_test() -> None:
    tested = {(kind, block, field) for kind, block, field, *_ in LIMITS}
    assert {(kind.value, row.block, row.field) for kind, row in NUMBERS} == tested


def test_every_kind_has_its_readings_and_every_event_type_its_rule() -> None:
    assert set(Kind) == set(READINGS)
    assert set(EventType) == set(EVENT_TYPES)
    assert 26 == len(EVENT_TYPES)
