"""What is sent, byte by byte."""

import json
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.effects import Call, ChangeBuilding, CreateBuilding, DeviceEntry, Event, PutDevices, SendEvents
from bridge.core.vocabulary import DeviceType, EventType
from bridge.sink import encode

CUSTOMER = "656730be2bc9719e6e5ed51d"
AT = datetime(2024, 10, 3, 22, tzinfo=UTC)


def an_event(value: float = 858.71, at: datetime = AT, device: str = "c8f09e83046c") -> Event:
    return Event(
        device=device,
        name="Sinemaa main meter",
        source=DeviceType.GATEWAY,
        type=EventType.ENERGY_CONSUMPTION,
        value=value,
        at=at,
    )


def test_an_event_has_exactly_the_fields_of_moosts_example() -> None:
    body = encode.body_of(encode.event(an_event(), "99900000C048ADA6", CUSTOMER))

    expected = (
        b'{"customerId":"656730be2bc9719e6e5ed51d","customerBuildingId":"99900000C048ADA6","deviceId":"c8f09e83046c",'
        b'"deviceName":"Sinemaa main meter","source":"GATEWAY","type":"ENERGY_CONSUMPTION","value":858.71,'
        b'"timestamp":1727992800}'
    )
    assert expected == body


@pytest.mark.parametrize(
    ("value", "expected"),
    [(-0.0, "0"), (-0.0004, "0"), (0.0005, "0.001"), (11000.0, "11000"), (1.23456, "1.235"), (2, "2")],
)
def test_values_are_rounded_whole_ones_without_a_point_and_never_minus_zero(value: float, expected: str) -> None:
    assert expected == json.dumps(encode.number(value))


def test_a_local_time_leaves_as_epoch_seconds_without_fraction() -> None:
    local = (AT + timedelta(milliseconds=999)).astimezone(timezone(timedelta(hours=2)))

    assert encode.event(an_event(at=local), "b", CUSTOMER)["timestamp"] == 1_727_992_800


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_no_json(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        encode.body_of(encode.event(an_event(value), "b", CUSTOMER))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_the_same_effect_always_gives_the_same_bytes(value: float) -> None:
    bodies = [encode.body_of(encode.event(an_event(value), "b", CUSTOMER)) for _ in range(2)]

    assert bodies[0] == bodies[1]
    assert abs(json.loads(bodies[0])["value"] - value) <= 0.000501


BROKEN = [
    b"",
    b"[]",
    b"{",
    b'{"a"',
    b'{"a":',
    b'{"a": 1',
    b'{"a": 1,',
    b'{"a": 1,}',
    b'{"a": 1} x',
    b"{a: 1}",
    b'{"a" 1}',
    b'{"a": }',
    b'{"a": "x\ny"}',
    b'{"a": 01}',
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


class TestBuildings:
    record: dict[str, Any] = {  # noqa: RUF012 - only read
        "id": "66d07a7fd51e3528aa5673ba",
        "customerId": CUSTOMER,
        "customerBuildingId": "b",
        "zip": "01067",
        "activationTimestamp": 1_645_640_000,
        "profile": {"x": 1},
        "devices": [{"id": "d", "type": "CAR"}],
        "settings": {"tariff": {"type": "SINGLE"}, "theirs": 1},
        "something": {"new": True},
    }

    def test_a_change_strips_what_moost_sets_and_carries_the_rest_through(self) -> None:
        changed = encode.changed_building(self.record, ChangeBuilding(building="b", attributes={"zip": "8000"}))

        expected = {
            "customerBuildingId": "b",
            "zip": "8000",
            "devices": [{"id": "d", "type": "CAR"}],
            "settings": {"tariff": {"type": "SINGLE"}, "theirs": 1},
            "something": {"new": True},
        }
        assert expected == changed

    def test_a_tariff_changes_settings_tariff_only(self) -> None:
        effect = ChangeBuilding(building="b", tariff={"type": "DYNAMIC"}, tariff_set=True)

        changed = encode.changed_building(self.record, effect)

        assert {"tariff": {"type": "DYNAMIC"}, "theirs": 1} == changed["settings"]

    def test_no_tariff_removes_it_and_leaves_the_other_settings(self) -> None:
        changed = encode.changed_building(self.record, ChangeBuilding(building="b", tariff_set=True))

        assert {"theirs": 1} == changed["settings"]

    def test_a_tariff_of_the_directory_travels_as_settings_tariff(self) -> None:
        body = encode.new_building("b", {"zip": "1", "tariff": {"type": "SINGLE"}, "id": "not ours"})

        assert {"customerBuildingId": "b", "zip": "1", "settings": {"tariff": {"type": "SINGLE"}}} == body

    @pytest.mark.parametrize(
        "value",
        [
            "9" * 5000,
            "1.10",
            "1e999",
            "-0.0",
            '"\\ud800"',
            '"Z\u00fcrich \\u00fc \\n"',
            "[" * 500 + "]" * 500,
            '{ "a" : [1, {"b": null}] }',
            "true",
            "[]",
            "{}",
        ],
    )
    @pytest.mark.parametrize("blank", ["", " \n\t"])
    def test_what_moost_wrote_goes_back_as_it_was_written(self, value: str, blank: str) -> None:
        text = f'{blank}{{{blank}"zip"{blank}:{blank}"1"{blank},{blank}"theirs":{blank}{value}{blank}}}{blank}'
        changed = encode.changed_building(
            encode.record(text.encode()), ChangeBuilding(building="b", attributes={"zip": "2"})
        )

        expected = f'{{"zip":"2","theirs":{value},"customerBuildingId":"b"}}'
        assert expected.encode() == encode.update(changed).body

    def test_what_moost_wrote_of_other_settings_goes_back_too(self) -> None:
        text = b'{"settings": {"tariff": {"type": "SINGLE"}, "theirs": 1.10}}'
        effect = ChangeBuilding(building="b", tariff={"type": "DYNAMIC"}, tariff_set=True)

        expected = b'{"settings":{"theirs":1.10,"tariff":{"type":"DYNAMIC"}},"customerBuildingId":"b"}'
        assert expected == encode.update(encode.changed_building(encode.record(text), effect)).body

    @pytest.mark.parametrize("settings", ["null", "[]", '"x"'])
    def test_settings_that_are_no_object_are_replaced(self, settings: str) -> None:
        effect = ChangeBuilding(building="b", tariff={"type": "DYNAMIC"}, tariff_set=True)
        changed = encode.changed_building(encode.record(f'{{"settings": {settings}}}'.encode()), effect)

        assert {"tariff": {"type": "DYNAMIC"}} == changed["settings"]

    def test_an_attribute_that_a_row_no_longer_has_goes(self) -> None:
        effect = ChangeBuilding(building="b", removed=("zip", "city"))

        assert {"zip", "city"}.isdisjoint(encode.changed_building(self.record, effect))

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            (b'{"a": NaN}', "it holds NaN, which is no number of JSON"),
            (b'{"a": [-Infinity]}', "it holds -Infinity, which is no number of JSON"),
            (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "it has too many levels"),
            (b'{"a": "\xfc"}', "it is not text in UTF-8"),
            (b'{"\\ud800": 1}', "one of its names is no text"),
            *((text, "it is not whole, or not JSON") for text in BROKEN),
        ],
    )
    def test_a_record_that_cannot_be_taken_apart_says_why(self, text: bytes, why: str) -> None:
        with pytest.raises(encode.UnreadableRecordError) as caught:
            encode.record(text)

        assert why == str(caught.value)

    @given(st.dictionaries(st.text(), JSON, max_size=5), st.sampled_from([None, 1]))
    def test_every_object_is_taken_apart_as_json_does(self, value: dict[str, Any], indent: int | None) -> None:
        written = json.dumps(value, indent=indent, ensure_ascii=False).encode("utf-8", "surrogatepass")
        try:
            written.decode()
        except UnicodeDecodeError:
            return
        found = encode.record(written)

        assert value == {name: json.loads(bytes(raw)) for name, raw in found.items()}

    def test_the_record_of_moost_is_not_changed_in_place(self) -> None:
        before = json.dumps(self.record)

        encode.changed_building(self.record, ChangeBuilding(building="b", attributes={"zip": "1"}, tariff_set=True))

        assert before == json.dumps(self.record)


class TestCalls:
    """What `bridge map` shows."""

    def shown(self, effect: Call) -> list[tuple[str, str, Any]]:
        return [
            (call.method, call.path, json.loads(call.body) if call.body else None)
            for call in encode.calls(effect, CUSTOMER)
        ]

    def test_a_building_is_one_post(self) -> None:
        expected = [("POST", "/buildings/v1", {"customerBuildingId": "b", "countryCode": "DE"})]

        assert expected == self.shown(CreateBuilding(building="b", attributes={"countryCode": "DE"}))

    def test_a_change_is_read_and_written(self) -> None:
        expected = [
            ("GET", "/buildings/b/v1", None),
            ("PUT", "/buildings/v1", {"customerBuildingId": "b", "zip": "1"}),
        ]

        assert expected == self.shown(ChangeBuilding(building="b", attributes={"zip": "1"}))

    def test_a_device_list_is_an_array_in_snake_case(self) -> None:
        devices = (
            DeviceEntry(id="gateway:b", type=DeviceType.GATEWAY, name="Household"),
            DeviceEntry(id="vehicle:1", type=DeviceType.CAR, name="Car", product_name="Tesla 3"),
        )
        expected = [
            (
                "PUT",
                "/buildings/b/devices/v1",
                [
                    {"id": "gateway:b", "type": "GATEWAY", "name": "Household"},
                    {"id": "vehicle:1", "type": "CAR", "name": "Car", "product_name": "Tesla 3"},
                ],
            ),
        ]

        assert expected == self.shown(PutDevices(building="b", devices=devices))

    def test_live_events_leave_one_by_one_and_a_replay_as_one_array(self) -> None:
        events = (an_event(1), an_event(2))

        live = self.shown(SendEvents(building="b", events=events))
        replay = self.shown(SendEvents(building="b", events=events, replay=True))

        assert [("POST", "/events/v1")] * 2 == [call[:2] for call in live]
        assert [("POST", "/events/historical/v1", [call[2] for call in live])] == replay
