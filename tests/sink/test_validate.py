"""The last check (M0.10), compared with MOOST's own document."""

import math
import string
from importlib.resources import files
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.effects import ChangeBuilding, CreateBuilding, DeviceEntry, PutDevices
from bridge.core.vocabulary import EVENT_TYPES, DeviceType, EventType
from bridge.sink import encode, validate

Schemas = dict[str, Any]
CUSTOMER = "656730be2bc9719e6e5ed51d"


@pytest.fixture(scope="module")
def schemas() -> Schemas:
    raw = files("bridge.sandbox").joinpath("moost-openapi.json").read_bytes()
    return dict(msgspec.json.decode(raw)["components"]["schemas"])


@pytest.fixture(scope="module")
def event_schema(schemas: Schemas) -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for(schemas["Event"])


def good(**changes: object) -> dict[str, Any]:
    return {
        "customerId": CUSTOMER,
        "customerBuildingId": "home-1",
        "deviceId": "gateway:home-1",
        "deviceName": "Household",
        "source": DeviceType.GATEWAY,
        "type": EventType.ENERGY_CONSUMPTION,
        "value": 12.5,
        "timestamp": 1_727_992_800,
        **changes,
    }


ids = st.text(string.ascii_letters + string.digits + ":._- /@ü\n", max_size=104)
names = st.text(st.characters(), max_size=104) | st.sampled_from(["", "a\n", "\u2028", "x" * 101, "\ud800", "\x85"])
events = st.builds(
    good,
    customerId=st.just(CUSTOMER) | ids,
    customerBuildingId=ids,
    deviceId=ids,
    deviceName=names,
    source=st.sampled_from([*DeviceType, "MOOST", "INPUT_DEVICE", "NOBODY"]),
    type=st.sampled_from([*EventType, "ENERGY_BASE_CONSUMPTION", "CAR_CHARGING_MODE"]),
    value=st.floats() | st.integers(-10, 200) | st.booleans() | st.none() | st.just("1"),
    timestamp=st.integers(-10, 10**13) | st.floats(0, 10**10) | st.none() | st.booleans(),
)


@given(events)
def test_what_passes_is_valid_by_moosts_document(event_schema: jsonschema_rs.Validator, body: dict[str, Any]) -> None:
    if validate.event(body) is None:
        assert event_schema.is_valid({key: str(v) if isinstance(v, str) else v for key, v in body.items()})


@given(
    st.builds(
        good,
        customerBuildingId=st.from_regex(r"\A[a-zA-Z0-9:._-]{1,100}\Z"),
        deviceId=st.from_regex(r"\A[a-zA-Z0-9:._-]{3,64}\Z"),
        deviceName=st.from_regex(r"\A[^\n\r\u2028\u2029\ud800-\udfff]{1,100}\Z"),
        value=st.floats(0, 1e9),
        timestamp=st.integers(1, 10**11),
    )
)
def test_what_the_document_allows_of_an_allowed_type_passes(body: dict[str, Any]) -> None:
    assert validate.event(body) is None


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"customerId": "short"}, "customerId is not 24 letters or digits"),
        ({"customerBuildingId": "a b"}, "customerBuildingId does not fit MOOST's pattern"),
        ({"customerBuildingId": "home\n"}, "customerBuildingId does not fit MOOST's pattern"),
        ({"deviceId": "ab"}, "deviceId does not fit MOOST's pattern"),
        ({"deviceId": "d" * 65}, "deviceId does not fit MOOST's pattern"),
        ({"deviceName": ""}, "deviceName is not one line of 1 to 100 characters"),
        ({"deviceName": "two\nlines"}, "deviceName is not one line of 1 to 100 characters"),
        ({"deviceName": "half \ud800"}, "deviceName is not one line of 1 to 100 characters"),
        ({"value": math.nan}, "the value is not a finite number"),
        ({"value": math.inf}, "the value is not a finite number"),
        ({"value": True}, "the value is not a finite number"),
        ({"value": -0.001}, "ENERGY_CONSUMPTION is below 0 Wh"),
        ({"type": EventType.SELF_CONSUMPTION_RATE, "value": 100.001}, "SELF_CONSUMPTION_RATE is above 100 %"),
        ({"type": "ENERGY_BASE_CONSUMPTION"}, "the type is not one that a customer may send"),
        ({"timestamp": 1_727_992_800_000}, "timestamp is not in epoch seconds"),
        ({"timestamp": 1_727_992_800.5}, "timestamp is not in epoch seconds"),
        ({"timestamp": 0}, "timestamp is not in epoch seconds"),
    ],
)
def test_a_broken_rule_is_named(changes: dict[str, Any], rule: str) -> None:
    assert rule == validate.event(good(**changes))


@pytest.mark.parametrize("kind", EventType)
def test_every_type_leaves_from_its_sources_only(kind: EventType) -> None:
    allowed = {source for source in DeviceType if validate.event(good(type=kind, source=source, value=1)) is None}

    assert EVENT_TYPES[kind].sources == allowed


def test_a_batterys_state_of_charge_leaves_only_when_switched_on() -> None:
    body = good(type=EventType.STATE_OF_CHARGE_RATE, source=DeviceType.BATTERY, value=50)

    assert "STATE_OF_CHARGE_RATE may not come from BATTERY" == validate.event(body)
    assert validate.event(body, battery_soc=True) is None
    assert validate.event(good(source=DeviceType.BATTERY, type=EventType.POWER_EXCESS), battery_soc=True) is not None


TARIFF = {"type": "DYNAMIC", "currency": "EUR", "dynamic": {"tariffs": [{"price": "-0.0100", "from": 1, "to": 2}]}}


@pytest.mark.parametrize(
    ("name", "attributes", "rule"),
    [
        ("b", {"countryCode": "DE", "zip": "1", "userIds": ["u@x"], "tariff": TARIFF}, None),
        ("b", {"geolocation": {"lat": 47, "lon": 8.5}, "registrationTimestamp": 1_645_630_735}, None),
        ("core-data", {}, "customerBuildingId does not fit MOOST's pattern"),
        ("..", {}, "customerBuildingId does not fit MOOST's pattern"),
        ("a/b", {}, "customerBuildingId does not fit MOOST's pattern"),
        ("b", {"countryCode": "de"}, "countryCode is not two capital letters"),
        ("b", {"zip": 1067}, "zip is not a text"),
        ("b", {"userIds": ["a b"]}, "userIds do not fit MOOST's pattern"),
        ("b", {"geolocation": {"lat": 91, "lon": 0}}, "geolocation is not a latitude and a longitude in degrees"),
        ("b", {"registrationTimestamp": 1_645_630_735_000}, "registrationTimestamp is not in epoch seconds"),
        ("b", {"tariff": {"type": "FLAT"}}, "the tariff's type is none of SINGLE, DUAL, DYNAMIC"),
        ("b", {"tariff": {"type": "SINGLE", "minPrice": 0.3}}, "a tariff's price is not a decimal string"),
        ("b", {"tariff": {"type": "SINGLE", "currency": "eur"}}, "the tariff's currency is not a three-letter code"),
        (
            "b",
            {"tariff": {"type": "DYNAMIC", "dynamic": {"tariffs": [{"price": "1", "from": 2, "to": 2}]}}},
            "a tariff slice is not a price with a beginning and a later end in epoch seconds",
        ),
    ],
)
def test_buildings_are_checked(schemas: Schemas, name: str, attributes: dict[str, Any], rule: str | None) -> None:
    assert rule == validate.building(CreateBuilding(building=name, attributes=attributes))
    assert rule == validate.building(ChangeBuilding(building=name, attributes=attributes))
    assert rule == validate.building(ChangeBuilding(building=name, create=attributes))
    if rule is None:
        schema = {"$ref": "#/components/schemas/Building", "components": {"schemas": schemas}}
        body = encode.new_building(name, attributes)
        assert jsonschema_rs.validator_for(schema).is_valid(body)


GATEWAY = DeviceEntry(id="gateway:b", type=DeviceType.GATEWAY, name="Household")
CAR = DeviceEntry(id="vehicle:1", type=DeviceType.CAR, name="Car")


@pytest.mark.parametrize(
    ("devices", "rule"),
    [
        ((GATEWAY, CAR), None),
        ((), "the device list does not begin with GATEWAY"),
        ((CAR, GATEWAY), "the device list does not begin with GATEWAY"),
        ((GATEWAY, CAR, CAR), "two devices of the list have the same id"),
        (
            (GATEWAY, DeviceEntry(id="no", type=DeviceType.CAR, name="x")),
            "a device's id does not fit MOOST's pattern",
        ),
        (
            (GATEWAY, DeviceEntry(id="yes", type=DeviceType.CAR, name="")),
            "a device's name is not one line of 1 to 100 characters",
        ),
    ],
)
def test_device_lists_are_checked(devices: tuple[DeviceEntry, ...], rule: str | None) -> None:
    assert rule == validate.devices(PutDevices(building="b", devices=devices))
