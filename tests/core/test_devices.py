"""Devices (M2): their type, the complete list, and when it is sent."""

import pytest

from bridge.core.devices import STATUS_FALLBACK, STATUS_WORDS
from bridge.core.effects import CreateBuilding, DeviceEntry, PutDevices
from bridge.core.mapping import BY_SOURCE, DEVICE_TYPES, EVENTS, HVAC_TYPES
from bridge.core.messages import Quantity
from bridge.core.vocabulary import EVENT_TYPES, DeviceType, Kind
from tests.core.house import House, at, body, calls, events, iso, listed, notes, prices

TYPES = [
    ("vehicle", {}, DeviceType.CAR),
    ("vehicle", {"engineType": "ICEV"}, DeviceType.CAR),
    ("charger", {}, DeviceType.CAR_CHARGER),
    ("battery", {}, DeviceType.BATTERY),
    ("pv-inverter", {}, DeviceType.INVERTER),
    ("meter", {}, DeviceType.SMART_METER),
    ("hvac", {"type": "HEATPUMP"}, DeviceType.HEAT_PUMP),
    ("hvac", {"type": "DHW"}, DeviceType.WATER_HEATER),
    ("hvac", {"type": "THERMOSTAT"}, DeviceType.THERMOSTAT),
    ("hvac", {"type": "AC"}, DeviceType.APPLIANCE),
    ("hvac", {"type": "heatpump"}, DeviceType.HEAT_PUMP),
    ("hvac", {"type": "SAUNA"}, DeviceType.APPLIANCE),
    ("hvac", {"type": "null"}, DeviceType.APPLIANCE),
    ("hvac", {"type": None}, DeviceType.APPLIANCE),
]


@pytest.mark.parametrize(("kind", "static", "type_"), TYPES)
def test_a_kind_is_listed_with_its_moost_type(kind: str, static: dict[str, object], type_: DeviceType) -> None:
    effects = House().hear(f"{kind}.update", body(kind, staticData=static))
    gateway = DeviceEntry(id="gateway:user-1", type=DeviceType.GATEWAY, name="Household")
    device = DeviceEntry(id=f"{kind}:d-1", type=type_, name="Thing", product_name="ACME One")
    assert [PutDevices(building="user-1", devices=(gateway, device))] == [
        effect for effect in effects if isinstance(effect, PutDevices)
    ]


def test_every_kind_but_the_tariff_has_a_type() -> None:
    assert set(Kind) == {*DEVICE_TYPES, Kind.HVAC, Kind.TARIFF}
    assert {"HEATPUMP", "DHW", "THERMOSTAT", "AC"} == set(HVAC_TYPES)


def test_every_event_of_a_device_is_one_that_moost_allows_from_it() -> None:
    soc = {row for row in EVENTS if row.source is DeviceType.BATTERY and row.quantity is Quantity.STATE_OF_CHARGE}
    assert 1 == len(soc)  # M3.4 is the one exception, off by default
    for row in set(EVENTS) - soc:
        assert row.source in EVENT_TYPES[row.type].sources, row
    assert set(DeviceType) == set(BY_SOURCE)


def test_every_status_leads_to_a_word_that_a_table_can_hold() -> None:
    assert set(STATUS_FALLBACK) | set(STATUS_FALLBACK.values()) <= set(STATUS_WORDS)


def test_a_tariff_is_no_device() -> None:
    effects = House().hear("tariff.update", body("tariff"))
    assert [["gateway:user-1"]] == listed(effects)


def test_the_list_is_complete_with_the_gateway_first_and_then_by_id() -> None:
    house = House()
    for kind in ("vehicle", "meter", "battery", "pv-inverter"):
        house.hear(f"{kind}.update", body(kind))
    assert ["gateway:user-1", "battery:d-1", "meter:d-1", "pv-inverter:d-1", "vehicle:d-1"] == listed(
        tuple(house.effects)
    )[-1]


def test_the_list_leaves_only_when_its_content_changed() -> None:
    house = House()
    house.hear("battery.update", body("battery", "10:00"))
    same = house.hear("battery.update", body("battery", "10:01", staticData={"lastUpdated": iso("10:01")}))
    renamed = house.hear(
        "battery.update", body("battery", "10:02", staticData={"name": "Other", "lastUpdated": iso("10:02")})
    )
    assert [] == listed(same)
    assert [["gateway:user-1", "battery:d-1"]] == listed(renamed)


def test_delete_removes_a_device_and_the_list_is_never_empty() -> None:
    house = House()
    house.hear("battery.update", body("battery", "10:00"))
    assert [["gateway:user-1"]] == listed(house.hear("battery.delete", body("battery", "10:01")))


@pytest.mark.parametrize("action", ["offline", "disconnect"])
def test_going_away_does_not_remove_a_device(action: str) -> None:
    house = House()
    house.hear("battery.update", body("battery", "10:00"))
    assert () == calls(house.hear(f"battery.{action}", body("battery", "10:01")))
    assert {"sub-1/battery:d-1"} == set(house.state.devices)


@pytest.mark.parametrize("missing", [None, {"name": None, "vendor": None, "model": "", "type": "null"}, {}])
def test_missing_static_data_keeps_what_is_known(missing: dict[str, object] | None) -> None:
    house = House()
    house.hear("hvac.update", body("hvac", "10:00"))
    content = body("hvac", "10:01")
    content["staticData"] = missing
    assert () == calls(house.hear("hvac.update", content))
    assert "Thing" == house.device("hvac:d-1").facts.name


def test_older_static_data_does_not_replace_newer() -> None:
    house = House()
    house.hear("battery.update", body("battery", "10:01", staticData={"name": "New", "lastUpdated": iso("09:00")}))
    house.hear("battery.update", body("battery", "10:00", staticData={"name": "Old", "lastUpdated": iso("08:00")}))
    assert "New" == house.device("battery:d-1").facts.name


def test_older_static_data_fills_what_the_newer_left_out() -> None:
    house = House()
    house.hear("battery.update", body("battery", "10:01", staticData={"name": None, "lastUpdated": iso("09:00")}))
    house.hear("battery.update", body("battery", "10:00", staticData={"name": "Cellar", "lastUpdated": iso("08:00")}))
    assert "Cellar" == house.device("battery:d-1").facts.name


def test_a_changed_hvac_type_replaces_the_entry_and_starts_fresh_series() -> None:
    house = House()
    house.hear("hvac.update", body("hvac", "10:00"))
    effects = house.hear("hvac.update", body("hvac", "10:05", staticData={"type": "DHW"}))
    entries = next(effect for effect in effects if isinstance(effect, PutDevices)).devices
    assert [DeviceType.GATEWAY, DeviceType.WATER_HEATER] == [entry.type for entry in entries]
    assert [(at("10:05"), 1000.0)] == house.series("hvac:d-1", Quantity.POWER)
    assert at("10:05") == house.device("hvac:d-1").since


def test_building_then_list_then_events() -> None:
    effects = House().hear("vehicle.update", body("vehicle"))
    assert [CreateBuilding, PutDevices] == [type(effect) for effect in effects[:2]]
    assert 1 == len(events(effects[2:]))


def test_nothing_is_listed_for_messages_that_are_not_about_devices() -> None:
    house = House()
    house.hear("hvac.update", body("hvac"))
    command = {"id": "c", "userId": "user-1", "deviceId": "d-1", "type": "SET_MODE", "state": "EXECUTED"}
    schedule = {"id": "d-1", "userId": "user-1", "timeZone": "Europe/Berlin", "schedules": []}
    for topic, content in (("hvac.command", command), ("hvac.schedules.update", schedule)):
        assert () == calls(house.hear(topic, content))
    assert [] == listed(house.hear("tariff.price.update", prices(("13:00", 0.3))))
    assert [] == [name for name in notes(tuple(house.effects)) if name == "odd_value"]
