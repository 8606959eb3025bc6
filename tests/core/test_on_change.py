"""What leaves when a message is processed (M3.2 to M3.4), and what charging words say of the power (M3.1)."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.core.effects import Event
from bridge.core.mapping import BATTERY_MODES, BATTERY_WORDS, CHARGING_WORDS, HVAC_MODES, INVERTER_WORDS
from bridge.core.messages import Quantity, Tick
from bridge.core.model import Residence
from bridge.core.rules import Rules
from bridge.core.vocabulary import DeviceType, EventType
from tests.core.house import House, at, body, events, iso

SOC = EventType.STATE_OF_CHARGE_RATE
Codes = Mapping[tuple[EventType, DeviceType], Mapping[str, int]]


def values(effects: tuple[Any, ...]) -> list[float]:
    """Return the values of the events among effects."""
    return [event.value for event in events(effects)]


def car(clock: str, charge: float | None, **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever JSON holds
    """Return a car's message with a state of charge [%]."""
    return body("vehicle", clock, chargeState={"stateOfCharge": charge, **changes})


# ---- state of charge (M3.2, M3.4) ------------------------------------------------------------------------------------


def test_the_first_known_value_leaves_with_the_time_of_its_block() -> None:
    content = body("vehicle", "10:05", chargeState={"stateOfCharge": 56.4, "lastUpdated": iso("10:00")})
    expected = Event(
        device="vehicle:d-1", name="Thing", source=DeviceType.CAR, type=SOC, value=56.4, at=at("10:00")
    )  # fmt: skip
    assert (expected,) == events(House().hear("vehicle.update", content))


def test_a_value_leaves_again_only_when_it_differs_after_rounding() -> None:
    house = House()
    assert [56.4] == values(house.hear("vehicle.update", car("10:00", 56.4)))
    assert [] == values(house.hear("vehicle.update", car("10:01", 56.4)))
    assert [] == values(house.hear("vehicle.update", car("10:02", 56.4004)))
    assert [56.401] == values(house.hear("vehicle.update", car("10:03", 56.4006)))


def test_what_was_sent_is_remembered_over_unknown_and_offline() -> None:
    house = House()
    house.hear("vehicle.update", car("10:00", 56.4))
    assert [] == values(house.hear("vehicle.update", car("10:01", None)))
    assert [] == values(house.hear("vehicle.offline", car("10:02", 60)))
    assert [] == values(house.hear("vehicle.update", car("10:03", 56.4)))
    assert [57] == values(house.hear("vehicle.update", car("10:04", 57)))


def test_what_was_sent_is_forgotten_on_delete() -> None:
    house = House()
    house.hear("vehicle.update", car("10:00", 56.4))
    house.hear("vehicle.delete", car("10:01", 56.4))
    assert [56.4] == values(house.hear("vehicle.connect", car("10:02", 56.4)))


def test_a_sample_older_than_the_newest_does_not_leave() -> None:
    house = House()
    house.hear("vehicle.update", car("10:10", 56.4))
    assert [] == values(house.hear("vehicle.update", car("10:05", 50)))


def test_a_sample_older_than_an_absence_does_not_leave() -> None:
    house = House()
    house.hear("vehicle.offline", car("10:10", 56.4))
    assert [] == values(house.hear("vehicle.update", car("10:05", 50)))


def test_an_old_value_still_leaves_when_it_is_the_newest() -> None:
    content = car("10:00", 40)
    content["chargeState"]["lastUpdated"] = content["lastUpdated"] = "2025-01-01T00:00:00Z"
    assert [40] == values(House().hear("vehicle.update", content))


@settings(max_examples=60, deadline=None)
@given(st.permutations([(minute, minute % 4) for minute in range(10)]))
def test_whatever_the_order_the_last_event_holds_the_newest_value(order: list[tuple[int, int]]) -> None:
    house = House()
    for minute, charge in order:
        house.hear("vehicle.update", car(f"10:0{minute}", charge))
    sent = events(tuple(house.effects))
    assert 9 % 4 == sent[-1].value
    assert [event.at for event in sent] == sorted(event.at for event in sent)
    assert all(one.value != other.value for one, other in pairwise(sent))


@pytest.mark.parametrize("engine", ["HEV", "ICEV", "hev"])
def test_a_car_without_plug_reports_no_charge(engine: str) -> None:
    assert [] == values(House().hear("vehicle.update", body("vehicle", staticData={"engineType": engine})))


@pytest.mark.parametrize("engine", ["BEV", "PHEV", None, "FUSION"])
def test_any_other_car_does(engine: str | None) -> None:
    assert [50] == values(House().hear("vehicle.update", body("vehicle", staticData={"engineType": engine})))


def test_a_home_battery_reports_its_charge_only_if_the_operator_wants_it() -> None:
    assert () == events(House().hear("battery.update", body("battery")))
    (event,) = events(House(Rules(battery_soc=True)).hear("battery.update", body("battery")))
    assert (SOC, DeviceType.BATTERY, 50) == (event.type, event.source, event.value)


# ---- codes (M3.3) ----------------------------------------------------------------------------------------------------

WORDS = {"online": 1, "offline": 0, "active": 2, "fault": 3, "disconnected": 4}


def status(device_type: DeviceType, table: Mapping[str, int] | None = None) -> Rules:
    """Return rules with a DEVICE_STATUS table for one type."""
    return Rules(codes={(EventType.DEVICE_STATUS, device_type): table if table is not None else WORDS})


def test_no_code_leaves_unless_the_operator_has_configured_it() -> None:
    house = House()
    for kind in ("charger", "battery", "hvac", "meter", "pv-inverter"):
        assert () == events(house.hear(f"{kind}.update", body(kind)))


STATUS = [
    ("vehicle", DeviceType.CAR, {"chargeState": {"chargingState": "CHARGING"}}, "active"),
    ("vehicle", DeviceType.CAR, {"chargeState": {"chargingState": "FAULT"}}, "fault"),
    ("vehicle", DeviceType.CAR, {"chargeState": {"chargingState": "PLUGGED"}}, "online"),
    ("vehicle", DeviceType.CAR, {"chargeState": {"chargingState": None}}, "online"),
    ("charger", DeviceType.CAR_CHARGER, {}, "active"),
    ("battery", DeviceType.BATTERY, {"chargeState": {"chargingState": "DISCHARGING"}}, "active"),
    ("battery", DeviceType.BATTERY, {"chargeState": {"chargingState": "IDLE"}}, "online"),
    ("pv-inverter", DeviceType.INVERTER, {}, "active"),
    ("pv-inverter", DeviceType.INVERTER, {"powerState": {"state": "FAULT"}}, "fault"),
    ("meter", DeviceType.SMART_METER, {}, "online"),
    ("hvac", DeviceType.HEAT_PUMP, {}, "active"),
    ("hvac", DeviceType.HEAT_PUMP, {"climateState": {"isActive": False}}, "online"),
    ("hvac", DeviceType.HEAT_PUMP, {"isOnline": False}, "offline"),
    ("hvac", DeviceType.HEAT_PUMP, {"isConnected": False}, "disconnected"),
    ("hvac", DeviceType.HEAT_PUMP, {"isConnected": False, "isOnline": False}, "disconnected"),
]


@pytest.mark.parametrize(("kind", "type_", "change", "word"), STATUS)
def test_the_status_is_the_first_that_applies(kind: str, type_: DeviceType, change: dict[str, Any], word: str) -> None:
    effects = House(status(type_)).hear(f"{kind}.update", body(kind, **change))
    found = [event.value for event in events(effects) if event.type is EventType.DEVICE_STATUS]
    assert [float(WORDS[word])] == found


@pytest.mark.parametrize(
    ("table", "topic", "change", "expected"),
    [
        ({"online": 1, "offline": 0}, "hvac.disconnect", {}, [0]),
        ({"online": 1}, "hvac.disconnect", {}, []),
        ({"online": 1}, "hvac.update", {}, [1]),
        ({"online": 1}, "battery.update", {"chargeState": {"chargingState": "FAULT"}}, [1]),
        ({"offline": 0}, "hvac.update", {}, []),
    ],
)
def test_a_word_without_code_falls_back(
    table: Mapping[str, int], topic: str, change: dict[str, Any], expected: list[float]
) -> None:
    kind = topic.partition(".")[0]
    type_ = {"hvac": DeviceType.HEAT_PUMP, "battery": DeviceType.BATTERY}[kind]
    assert expected == values(House(status(type_, table)).hear(topic, body(kind, **change)))


def test_the_status_follows_a_device_through_its_day() -> None:
    house = House(status(DeviceType.BATTERY))
    idle = {"chargingState": "IDLE", "chargeRate": 0}
    day = [
        ("battery.connect", body("battery", "10:00", chargeState=idle), [1]),
        ("battery.update", body("battery", "10:01"), [2]),
        ("battery.update", body("battery", "10:02"), []),
        ("battery.offline", body("battery", "10:03"), [0]),
        ("battery.disconnect", body("battery", "10:04"), [4]),
        ("battery.offline", body("battery", "10:05"), []),
        ("battery.connect", body("battery", "10:06", chargeState=idle), [1]),
        ("battery.update", body("battery", "10:07", chargeState={"chargingState": "FAULT"}), [3]),
    ]
    for topic, content, expected in day:
        assert expected == values(house.hear(topic, content)), content["lastUpdated"]


def test_an_absence_that_takes_effect_at_its_receipt_is_told_with_that_time() -> None:
    house = House(status(DeviceType.BATTERY))
    house.hear("battery.update", body("battery", "10:30"))
    effects = house.hear("battery.offline", body("battery", "10:00"), received="11:00")
    assert [(0, at("11:00"))] == [(event.value, event.at) for event in events(effects)]


PLUG = [
    (True, "UNPLUGGED", "plugged"),
    (False, "CHARGING", "unplugged"),
    (None, "UNPLUGGED", "unplugged"),
    (None, "CHARGING", "plugged"),
    (None, None, None),
    (None, "WHO_KNOWS", None),
]


@pytest.mark.parametrize(("plugged", "state", "word"), PLUG)
def test_the_switch_says_what_the_flag_says_else_what_the_word_says(
    *, plugged: bool | None, state: str | None, word: str | None
) -> None:
    rules = Rules(codes={(EventType.SWITCH_STATE, DeviceType.CAR_CHARGER): {"plugged": 1, "unplugged": 0}})
    content = body("charger", "10:00", chargeState={"isPlugged": plugged, "chargingState": state})
    expected = [] if word is None else [{"plugged": 1, "unplugged": 0}[word]]
    assert expected == values(House(rules).hear("charger.update", content))


def test_only_a_charger_has_a_switch() -> None:
    rules = Rules(codes={(EventType.SWITCH_STATE, DeviceType.CAR): {"plugged": 1, "unplugged": 0}})
    effects = House(rules).hear("vehicle.update", body("vehicle", chargeState={"isPlugged": True}))
    assert [SOC] == [event.type for event in events(effects)]


MODES = [
    ("battery", DeviceType.BATTERY, "chargeState", BATTERY_MODES),
    ("hvac", DeviceType.HEAT_PUMP, "climateState", HVAC_MODES),
]


@pytest.mark.parametrize(("kind", "type_", "block", "words"), MODES)
def test_every_mode_leaves_with_its_code_and_the_time_of_its_block(
    kind: str, type_: DeviceType, block: str, words: frozenset[str]
) -> None:
    table = {word: code for code, word in enumerate(sorted(words))}
    for word in words:
        house = House(Rules(codes={(EventType.CHARGING_MODE, type_): table}))
        content = body(kind, "10:05", **{block: {"mode": word.lower(), "lastUpdated": iso("10:00")}})
        found = [(event.type, event.value, event.at) for event in events(house.hear(f"{kind}.update", content))]
        assert [(EventType.CHARGING_MODE, table[word], at("10:00"))] == found


def test_a_mode_without_code_does_not_leave_and_the_next_one_does() -> None:
    house = House(Rules(codes={(EventType.CHARGING_MODE, DeviceType.BATTERY): {"MANUAL": 1}}))
    assert [] == values(house.hear("battery.update", body("battery", "10:00")))
    assert [1] == values(house.hear("battery.update", body("battery", "10:01", chargeState={"mode": "MANUAL"})))
    assert [] == values(house.hear("battery.update", body("battery", "10:02", chargeState={"mode": None})))
    assert [] == values(house.hear("battery.update", body("battery", "10:03", chargeState={"mode": "MANUAL"})))


def test_the_vendor_s_words_are_all_there() -> None:
    assert {"UNPLUGGED", "PREPARING", "CHARGING", "FINISHED", "STOPPED", "FAULT", "PLUGGED"} == CHARGING_WORDS
    assert {"CHARGING", "DISCHARGING", "IDLE", "FAULT"} == BATTERY_WORDS
    assert {"PRODUCING", "IDLE", "FAULT"} == INVERTER_WORDS
    assert {"AUTO", "SELF_CONSUMPTION", "EXPORT_FOCUS", "MANUAL"} == BATTERY_MODES
    assert {"HEAT", "COOL", "DRY", "AUTO", "REDUCED", "OFF"} == HVAC_MODES


# ---- charging power (M3.1) -------------------------------------------------------------------------------------------

GATES = [
    ("CHARGING", 7, 7000.0),
    ("charging", 7, 7000.0),
    ("CHARGING", None, None),
    *[(word, 7, 0.0) for word in ("UNPLUGGED", "PREPARING", "PLUGGED", "FINISHED", "STOPPED", "FAULT")],
    *[(word, None, 0.0) for word in ("Unplugged", "FAULT")],
    ("UNKNOWN", 7, None),
    (None, 7, None),
    ("null", 7, None),
]


@pytest.mark.parametrize("kind", ["vehicle", "charger"])
@pytest.mark.parametrize("plugged", [True, False, None])
@pytest.mark.parametrize(("word", "rate", "watt"), GATES)
def test_the_word_decides_what_a_charging_rate_means(
    *, kind: str, plugged: bool | None, word: str | None, rate: float | None, watt: float | None
) -> None:
    house = House()
    block = {"chargingState": word, "chargeRate": rate, "isPlugged": plugged}
    house.hear(f"{kind}.update", body(kind, chargeState=block))
    assert [(at("10:00"), watt)] == house.series(f"{kind}:d-1", Quantity.POWER)


# 0.009 degrees of latitude are 1,001 m, 0.00899 are 999.6 m.
PLACES = [
    ({"latitude": 52.0, "longitude": 8.0}, 7000.0),
    ({"latitude": 52.00899, "longitude": 8.0}, 7000.0),
    ({"latitude": 52.009, "longitude": 8.0}, None),
    ({"latitude": 52.0, "longitude": 8.0146}, 7000.0),
    ({"latitude": 52.0, "longitude": 8.0147}, None),
    ({"latitude": -52.0, "longitude": -172.0}, None),
    ({"latitude": None, "longitude": 8.0}, 7000.0),
    ({"latitude": 91, "longitude": 8.0}, 7000.0),
    (None, 7000.0),
]


@pytest.mark.parametrize(("place", "watt"), PLACES)
def test_the_power_of_a_car_over_a_kilometre_away_is_unknown(
    place: dict[str, float] | None, watt: float | None
) -> None:
    house = House(residence=HOME)
    effects = house.hear("vehicle.update", body("vehicle", location=place), "10:00")
    assert [50] == values(effects)  # its charge is known wherever it is
    assert ({} if watt is None else {"10:15": 1750.0}) == charged(house, "10:17")


@pytest.mark.parametrize("attributes", [{}, {"geolocation": None}, {"geolocation": {"lat": "x", "lon": 8}}])
def test_a_car_charges_at_home_where_nobody_knows_where_home_is(attributes: dict[str, object]) -> None:
    house = House(residence=Residence(user="user-1", location=None, building="b", attributes=attributes))
    house.hear("vehicle.update", body("vehicle", location=THERE), "10:00")
    assert {"10:15": 1750.0} == charged(house, "10:17")


HOME = Residence(user="user-1", location=None, building="b", attributes={"geolocation": {"lat": 52.0, "lon": 8.0}})
HERE, THERE = {"latitude": 52.0, "longitude": 8.0}, {"latitude": 53.0, "longitude": 8.0}


def charged(house: House, *ticks: str) -> dict[str, float]:
    """Let time pass; return the energies [Wh] of the car by the end of their slots."""
    sent = [event for clock in ticks for event in events(house.feed(Tick(now=at(clock))))]
    return {f"{event.at:%H:%M}": event.value for event in sent if event.type is EventType.ENERGY_CONSUMPTION}


def test_a_car_that_drives_off_ends_its_power() -> None:
    house = House(Rules(min_coverage=0.5), residence=HOME)
    house.hear("vehicle.update", body("vehicle", "10:00", location=HERE), "10:00")
    house.hear("vehicle.update", body("vehicle", "10:10", location=THERE), "10:10")
    assert {"10:15": 1166.667} == charged(house, "10:17", "10:32")  # ten minutes of 7 kW


@pytest.mark.parametrize("nowhere", ["left out", None, {"latitude": None, "longitude": None}, {"latitude": 52.0},
    {"latitude": 0, "longitude": 0}, {"latitude": 91, "longitude": 8}, "somewhere"])  # fmt: skip
def test_a_car_that_is_away_stays_away_until_a_position_says_otherwise(nowhere: Any) -> None:  # noqa: ANN401 - whatever JSON holds
    house = House(residence=HOME)
    house.hear("vehicle.update", body("vehicle", "10:00", location=THERE), "10:00")
    for clock in ("10:05", "10:15", "10:31"):
        content = body("vehicle", clock)
        if nowhere != "left out":
            content["location"] = {**nowhere, "lastUpdated": iso(clock)} if isinstance(nowhere, dict) else nowhere
        house.hear("vehicle.update", content, clock)
    house.hear("vehicle.offline", body("vehicle", "10:40"), "10:40")
    house.hear("vehicle.update", body("vehicle", "10:44"), "10:44")
    assert {} == charged(house, "10:47", "11:02")
    house.hear("vehicle.update", body("vehicle", "11:15", location=HERE), "11:15")
    assert {"11:30": 1750.0} == charged(house, "11:17", "11:32")


def test_power_told_while_away_counts_again_from_the_return_and_a_position_alone_is_enough() -> None:
    house = House(Rules(min_coverage=0.1), residence=HOME)
    house.hear("vehicle.update", body("vehicle", "10:00", location=THERE), "10:00")
    house.hear("vehicle.update", body("vehicle", "10:05", chargeState={"chargeRate": 3}, location=None), "10:05")
    back = body("vehicle", "10:09", chargeState=None, location=HERE)
    house.hear("vehicle.update", back, "10:09")
    assert {"10:15": 300.0} == charged(house, "10:17")  # 3 kW for six minutes


def test_the_newest_position_counts_whatever_the_order_of_arrival() -> None:
    house = House(residence=HOME)
    house.hear("vehicle.update", body("vehicle", "10:10", location=THERE), "10:10")
    house.hear("vehicle.update", body("vehicle", "10:05", location=HERE), "10:05")
    assert [(at("10:05"), False), (at("10:10"), True)] == house.series("vehicle:d-1", Quantity.AWAY)
    late = body("vehicle", "10:20", location={**HERE, "lastUpdated": iso("10:06")})
    house.hear("vehicle.update", late)
    assert True is house.device("vehicle:d-1").series[Quantity.AWAY][-1].value


def test_a_car_that_was_deleted_is_not_away_any_more() -> None:
    house = House(residence=HOME)
    house.hear("vehicle.update", body("vehicle", "10:00", location=THERE), "10:00")
    house.hear("vehicle.delete", body("vehicle", "10:01"), "10:01")
    house.hear("vehicle.connect", body("vehicle", "10:15"), "10:15")
    assert {"10:30": 1750.0} == charged(house, "10:17", "10:32")


def test_positions_of_an_unreachable_car_are_not_looked_at() -> None:
    house = House(residence=HOME)
    house.hear("vehicle.update", body("vehicle", "10:00", location=THERE), "10:00")
    house.hear("vehicle.offline", body("vehicle", "10:01", location=HERE), "10:01")
    assert [True] == [value for _, value in house.series("vehicle:d-1", Quantity.AWAY)]


def test_of_many_positions_that_say_the_same_two_are_kept() -> None:
    house = House(residence=HOME)
    for minute in range(9):
        house.hear("vehicle.update", body("vehicle", f"10:0{minute}", location=THERE), f"10:0{minute}")
    assert [(at("10:00"), True), (at("10:08"), True)] == house.series("vehicle:d-1", Quantity.AWAY)
    assert "53" not in repr(house.state)
