"""What is written down today is read by the next release."""

from dataclasses import MISSING, fields, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.effects import Call, ChangeBuilding, CreateBuilding, PutDevices, SendEvents
from bridge.core.messages import Facts, Quantity, Value
from bridge.core.model import Building, Device, Half, Level, Sample, Schedule, Slice, Sum, key
from bridge.core.vocabulary import EventType, Kind
from bridge.store.codec import (
    decode_call,
    decode_state,
    encode_call,
    encode_state,
    form,
    from_ms,
    plain,
    to_json,
    to_ms,
)
from tests.store.values import NOW, change, create, devices, events

SERIES: Final = {
    Quantity.POWER: (
        Sample(at=NOW, value=12.5, seen=NOW, updated=NOW, number=1),
        Sample(at=NOW, value=None, seen=NOW, updated=NOW, number=2),
    ),
    Quantity.STATE: (Sample(at=NOW, value="CHARGING", seen=NOW, updated=NOW, number=3),),
    Quantity.PLUGGED: (Sample(at=NOW, value=True, seen=NOW, updated=NOW, number=4),),
}
DEVICE: Final = Device(
    kind=Kind.HVAC,
    id="h-1",
    user="u",
    subscription="s",
    since=NOW,
    stamp=NOW + timedelta(microseconds=7),
    until=NOW,
    location="home",
    facts=Facts(vendor="V", type="DHW", updated=NOW),
    offline=True,
    disconnected=True,
    offline_stamp=NOW,
    disconnect_stamp=NOW,
    series=SERIES,
    sent={EventType.STATE_OF_CHARGE_RATE: 55.5},
    days={EventType.ENERGY_IMPORT: Sum(1.5, 900.0)},
    level=Level(at=NOW, energy_wh=12.0, heard=NOW, since_wh=1.0, booked_wh=13.0, lately=(1.0,), other=(NOW, 3.0)),
    power_from=NOW,
    mute_until=NOW,
    own_from=NOW,
    own_level=Level(at=NOW, energy_wh=12.0, heard=NOW, since_wh=1.0, booked_wh=13.0),
)
BUILDING: Final = Building(
    id="b",
    created=True,
    users=("u", "v"),
    time_zone="Asia/Kathmandu",
    devices={key("s", Kind.HVAC, "h-1"): DEVICE},
    departed=(DEVICE,),
    gone={"meter:m": NOW},
    newest_stamp=NOW,
    prices={"t": (Slice(start=NOW, end=NOW, price=Decimal("-0.0100")),)},
    schedules={"s/hvac:h-1": Schedule("Europe/Berlin", ({"day": 1, "slots": [{"from": "08:00"}]},), 42)},
    flags=("x",),
    half=Half(1.0, 900.0, wrong=True),
    apart=((NOW, NOW), (NOW, None)),
    meters={"s/meter:m": "grid+1"},
)


def test_a_full_state_comes_back_equal() -> None:
    assert BUILDING == decode_state(encode_state(BUILDING))


def test_times_come_back_in_utc() -> None:
    state = decode_state(encode_state(BUILDING))
    assert state.newest_stamp is not None
    assert timedelta(0) == state.newest_stamp.utcoffset()


def _optional(kind: type[Any], value: Any) -> list[str]:  # noqa: ANN401 - any of the core's dataclasses
    """Return the fields that have a default and say something."""
    defaults = [field for field in fields(kind) if (field.default, field.default_factory) != (MISSING, MISSING)]
    return [field.name for field in defaults if getattr(value, field.name)]


def _default(kind: type[Any], name: str) -> Any:  # noqa: ANN401 - whatever the field holds
    (field,) = [field for field in fields(kind) if field.name == name]
    made: Any = field.default_factory
    return made() if field.default is MISSING else field.default


@pytest.mark.parametrize("name", _optional(Building, BUILDING))
def test_a_building_of_an_older_release_takes_the_default_of_a_new_field(name: str) -> None:
    written = msgspec.msgpack.decode(encode_state(BUILDING))
    del written[name]
    expected = replace(BUILDING, **{name: _default(Building, name)})
    assert expected == decode_state(msgspec.msgpack.encode(written))


@pytest.mark.parametrize("name", _optional(Device, DEVICE))
def test_a_device_of_an_older_release_takes_the_default_of_a_new_field(name: str) -> None:
    written = msgspec.msgpack.decode(encode_state(BUILDING))
    for device in (*written["devices"].values(), *written["departed"]):
        del device[name]
    older = replace(DEVICE, **{name: _default(Device, name)})
    expected = replace(BUILDING, devices={"s/hvac:h-1": older}, departed=(older,))
    assert expected == decode_state(msgspec.msgpack.encode(written))


def test_a_field_that_this_release_does_not_know_is_passed_over() -> None:
    written = msgspec.msgpack.decode(encode_state(BUILDING))
    written["colour"] = "green"
    written["devices"]["s/hvac:h-1"]["mood"] = {"a": 1}
    assert BUILDING == decode_state(msgspec.msgpack.encode(written))


_values: st.SearchStrategy[Value | None] = st.one_of(
    st.none(), st.booleans(), st.text(max_size=9), st.floats(allow_nan=False, allow_infinity=False)
)


@given(value=_values, at=st.datetimes(datetime(1980, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_a_sample_keeps_value_type_and_time(value: Value | None, at: datetime) -> None:
    sample = Sample(at=at, value=value, seen=at, updated=at, number=1)
    state = replace(BUILDING, devices={"a": replace(DEVICE, series={Quantity.POWER: (sample,)})})
    (back,) = decode_state(encode_state(state)).devices["a"].series[Quantity.POWER]
    assert (sample, type(sample.value)) == (back, type(back.value))


@pytest.mark.parametrize(
    "call",
    [
        create("b"),
        change("b", geolocation={"lat": 47.5, "lon": None}),
        ChangeBuilding(building="b", tariff=None, tariff_set=True, create={"x": ["y"]}),
        devices("b", "x", "y"),
        events("b", 1.0, -0.5),
        replace(events("b", 1.0), replay=True),
    ],
)
def test_a_call_comes_back_equal(call: Call) -> None:
    assert call == decode_call(form(call), encode_call(call))


def test_every_call_has_a_form_of_its_own() -> None:
    calls: list[Call] = [create("b"), change("b"), devices("b"), events("b")]
    assert {CreateBuilding, ChangeBuilding, PutDevices, SendEvents} == {type(call) for call in calls}
    assert 4 == len({form(call) for call in calls})


@given(st.integers(-(10**12), 4 * 10**12))
def test_milliseconds_come_back_equal(ms: int) -> None:
    assert ms == to_ms(from_ms(ms))


def test_a_name_with_a_nul_is_refused_where_the_database_would_cut_it() -> None:
    with pytest.raises(ValueError, match="NUL"):
        to_json(["a\0b"])


@given(st.text(st.characters()))
def test_a_plain_text_can_be_written_by_any_database(text: str) -> None:
    written = plain(text).encode()
    assert b"\0" not in written
    assert plain(plain(text)) == plain(text)
