"""What one building holds is bounded, and so is what its next message costs (R13)."""

from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import pytest

from bridge.core import bounds, deletes
from bridge.core.bounds import SAMPLES, SAMPLES_A_SLOT, TARIFFS, is_full, refusal
from bridge.core.effects import Note
from bridge.core.findings import finding
from bridge.core.messages import Prices, Quantity, Report
from bridge.core.model import Building, Flag, Residence
from bridge.core.reduce import SCHEDULES_SIZE
from bridge.core.rules import Rules
from bridge.core.tariffs import MOST as MOST_SLICES
from bridge.core.vocabulary import DeadReason
from bridge.limits import Limit
from tests.core.house import House, at, body, events, iso, prices, read

FEW: Final = Rules(devices_per_building=3)
POWER: Final = Quantity.POWER


def limits(effects: tuple[object, ...]) -> list[Limit]:
    """Return the bounds that notes tell of."""
    told = [one.detail for one in effects if isinstance(one, Note) and one.name == bounds.LIMIT_REACHED]
    return [Limit(text.partition(":")[0]) for text in told]


def sampled(clock: str, second: int, **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever JSON holds
    """Return a meter's update some seconds after a time."""
    time = (at(clock) + timedelta(seconds=second)).isoformat()
    content = body("meter", clock, **changes)
    return {**content, "lastUpdated": time, "powerState": {**content["powerState"], "lastUpdated": time}}


# ---- devices --------------------------------------------------------------------------------------------------------


def full(rules: Rules = FEW, **more: int) -> House:
    """Return a house with all the devices that it may have."""
    house = House(rules)
    for number in range(rules.devices_per_building):
        house.hear("meter.update", body("meter", id=f"m-{number}"))
    for number in range(more.get("tariffs", 0)):
        house.hear("tariff.connect", body("tariff", id=f"t-{number}"))
    return house


def asked(house: House, topic: str, content: object) -> str | None:
    """Return why a message of a house is refused; None = it is not."""
    message = read(topic, content, rules=house.rules)
    assert isinstance(message, Report | Prices)
    found = refusal(house.state, message, house.rules)
    assert found is None or found.reason is DeadReason.TOO_MANY
    return found.detail if found is not None else None


def test_a_device_more_than_a_building_may_have_is_refused_and_the_bound_named() -> None:
    house = full()
    assert "the building has 3 devices, the most it may have (limits.devices_per_building)" == asked(
        house, "vehicle.update", body("vehicle")
    )
    assert None is asked(house, "meter.update", body("meter", id="m-0")), "it is there"
    assert None is asked(house, "vehicle.delete", body("vehicle")), "it adds nothing"
    assert None is asked(house, "tariff.connect", body("tariff")), "a tariff is no device"
    assert None is asked(full(Rules(devices_per_building=2), tariffs=5), "meter.update", body("meter", id="m-0"))
    assert None is asked(full(Rules()), "vehicle.delete", body("vehicle"))


def test_tariffs_do_not_take_the_places_of_devices() -> None:
    house = full(tariffs=5)
    house.hear("meter.delete", body("meter", "10:30", id="m-0"))
    assert not is_full(house.state, FEW)
    assert None is asked(house, "vehicle.update", body("vehicle"))


def test_a_device_that_left_takes_a_place_as_long_as_it_still_counts() -> None:
    house = House(FEW)
    for number in range(3):
        house.hear("battery.update", body("battery", id=f"b-{number}"))
        house.hear("battery.delete", body("battery", "10:30", id=f"b-{number}"))
    assert 3 == len(house.state.departed)
    assert asked(house, "vehicle.update", body("vehicle")) is not None


@pytest.mark.parametrize("known", ["tariff.connect", "tariff.price.update"])
@pytest.mark.parametrize("more", ["tariff.connect", "tariff.price.update"])
def test_a_tariff_more_than_a_building_may_have_is_refused(known: str, more: str) -> None:
    def content(topic: str, number: int) -> dict[str, Any]:
        return body("tariff", id=f"t-{number}") if topic == "tariff.connect" else prices(("13:00", 1), id=f"t-{number}")

    house = House()
    for number in range(TARIFFS):
        house.hear(known, content(known, number))
    assert "the building has 20 tariffs, the most it may have" == asked(house, more, content(more, TARIFFS))
    assert None is asked(house, more, content(more, 0))


def test_the_flag_stays_until_there_is_room_again() -> None:
    house = full()
    house.state = bounds.overflowed(house.state)
    assert house.state is bounds.overflowed(house.state)
    found = finding(house.state, Flag.TOO_MANY, FEW)
    assert found.setting.startswith("limits.devices_per_building; or the forwarder sends one user id")
    house.hear("meter.update", body("meter", "10:10", id="m-0"))
    assert (Flag.TOO_MANY,) == tuple(flag for flag in house.state.flags if flag == Flag.TOO_MANY)
    house.hear("meter.delete", body("meter", "10:30", id="m-0"))
    assert Flag.TOO_MANY not in house.state.flags


def test_the_flag_for_tariffs_goes_with_one_of_them() -> None:
    house = House()
    for number in range(TARIFFS):
        house.hear("tariff.connect", body("tariff", id=f"t-{number}"))
    house.state = bounds.overflowed(house.state)
    house.hear("tariff.connect", body("tariff", id="t-0"))
    assert Flag.TOO_MANY in house.state.flags
    house.hear("tariff.delete", body("tariff", id="t-0"))
    assert Flag.TOO_MANY not in house.state.flags


def test_a_building_has_no_more_users_than_devices() -> None:
    house = full()
    for number in range(5):
        house.hear("meter.delete", body("meter", "09:00", id="m-9", userId=f"user-{number}"))
    assert 3 == len(house.state.users)


# ---- deletes (M0.5, R13) --------------------------------------------------------------------------------------------


def test_deletes_of_devices_that_were_there_are_remembered_the_last_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletes, "OF_KNOWN", 3)
    house = House()
    told = []
    for number in range(5):
        house.hear("vehicle.update", body("vehicle", "10:00", id=f"v-{number}"))
        told += limits(house.hear("vehicle.delete", body("vehicle", "10:30", id=f"v-{number}")))
    assert ["sub-1/vehicle:v-2", "sub-1/vehicle:v-3", "sub-1/vehicle:v-4"] == list(house.state.gone)
    assert [Limit.DELETES_PER_BUILDING] * 2 == told
    house.hear("vehicle.delete", body("vehicle", "10:40", id="v-2"))
    assert ["sub-1/vehicle:v-3", "sub-1/vehicle:v-4", "sub-1/vehicle:v-2"] == list(house.state.gone)
    assert {} == house.state.early


def test_deletes_of_devices_that_were_not_there_are_remembered_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletes, "OF_UNKNOWN", 3)
    house = House()
    house.hear("vehicle.update", body("vehicle", "10:00"))
    house.hear("vehicle.delete", body("vehicle", "10:30"))
    told = [
        limit for n in range(5) for limit in limits(house.hear("meter.delete", body("meter", "10:30", id=f"m-{n}")))
    ]
    assert ["sub-1/vehicle:d-1", *(f"sub-1/meter:m-{number}" for number in (2, 3, 4))] == list(house.state.gone)
    assert [f"sub-1/meter:m-{number}" for number in (2, 3, 4)] == list(house.state.early)
    assert [Limit.DELETES_PER_BUILDING] * 2 == told


def test_a_delete_that_overtook_its_device_is_remembered_as_long_as_a_message_may_be_late() -> None:
    rules = Rules(max_backfill=timedelta(hours=2))

    def after(received: str) -> House:
        house = House(rules)
        house.hear("battery.delete", body("battery", "10:30"), received="10:31")
        house.hear("battery.update", body("battery", "10:00"), received=received)
        return house

    assert {} == after("12:31").state.devices
    assert {"sub-1/battery:d-1"} == set(after("12:32").state.devices)
    house = after("10:40")
    house.hear("meter.delete", body("meter", "12:00"), received="12:32")
    assert {"sub-1/meter:d-1"} == set(house.state.gone) == set(house.state.early)


def test_a_price_of_a_deleted_tariff_says_nothing_and_one_of_a_tariff_forgotten_since_does() -> None:
    rules = Rules(max_backfill=timedelta(hours=2))
    house = House(rules)
    house.hear("tariff.delete", body("tariff", "10:00"), received="10:01")
    house.hear("tariff.price.update", prices(("13:00", 1)), received="12:01")
    assert {} == house.state.prices
    house.hear("tariff.price.update", prices(("13:00", 1)), received="12:02")
    assert {"sub-1/tariff:d-1"} == set(house.state.prices)


def test_a_device_that_came_and_went_again_was_there() -> None:
    house = House()
    house.hear("battery.delete", body("battery", "10:00"))
    assert {"sub-1/battery:d-1"} == set(house.state.early)
    house.hear("battery.update", body("battery", "10:10"))
    house.hear("battery.delete", body("battery", "10:20"))
    assert {} == house.state.early
    house.hear("battery.delete", body("battery", "10:30"))
    assert {} == house.state.early


def test_a_delete_of_the_future_keeps_its_order_until_it_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletes, "OF_UNKNOWN", 1)
    house = House()
    house.hear("battery.delete", body("battery", "12:30"))  # received at noon
    assert {"sub-1/battery:d-1": at("12:30")} == house.state.gone_sent
    house.hear("meter.delete", body("meter", "10:00"))
    assert {} == house.state.gone_sent


# ---- samples --------------------------------------------------------------------------------------------------------


def test_a_quarter_hour_holds_so_many_samples_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "SAMPLES_A_SLOT", 10)
    house = House()
    said = [house.hear("meter.update", sampled("10:00", second)) for second in range(12)]
    assert 10 == len(house.series("meter:d-1", POWER))
    assert [[]] * 10 + [[Limit.SAMPLES_PER_SLOT]] * 2 == [limits(effects) for effects in said]
    assert {Flag.TOO_MANY: ("sub-1/meter:d-1",)} == house.state.about
    assert "meter:d-1" in finding(house.state, Flag.TOO_MANY, Rules()).problem
    house.hear("meter.update", sampled("10:15", 0))
    house.hear("meter.update", sampled("10:00", 5, powerState={"power": 7}))
    assert 11 == len(house.series("meter:d-1", POWER)), "the next quarter hour has its own, a known instant takes none"
    house.state = replace(house.state, devices={})
    house.hear("tariff.connect", body("tariff"))
    assert () == house.state.flags


def test_all_open_slots_together_hold_so_many_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "SAMPLES_A_SLOT", 3)
    monkeypatch.setattr(bounds, "SAMPLES", 6)
    house = House()
    for quarter in ("09:00", "09:15", "09:30", "09:45"):
        for second in range(2):
            house.hear("meter.update", sampled(quarter, second))
    assert 6 == len(house.series("meter:d-1", POWER))


def test_what_leaves_on_change_leaves_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "SAMPLES_A_SLOT", 2)
    house = House()
    for minute in range(5):
        content = body("vehicle", f"10:0{minute}", chargeState={"stateOfCharge": 50 + minute})
        effects = house.hear("vehicle.update", content)
        assert [50.0 + minute] == [event.value for event in events(effects)]
    assert 2 == len(house.series("vehicle:d-1", POWER))


def test_a_vehicle_that_is_here_and_there_again_and_again_is_remembered_so_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bounds, "SAMPLES_A_SLOT", 3)
    home = Residence(user="user-1", location=None, building="b", attributes={"geolocation": {"lat": 52.0, "lon": 8.0}})
    house = House(residence=home)
    for minute in range(10):
        place = {"latitude": 52.0 + minute % 2, "longitude": 8.0, "lastUpdated": iso(f"10:0{minute}")}
        house.hear("vehicle.update", body("vehicle", f"10:0{minute}", location=place))
    assert 3 == len(house.series("vehicle:d-1", Quantity.AWAY))


def test_an_honest_device_stays_far_below() -> None:
    assert SAMPLES_A_SLOT >= 5 * 180
    assert 14 * 3600 / 5 <= SAMPLES * 1.01
    house = House()
    for second in range(0, 900, 5):
        assert [] == limits(house.hear("meter.update", sampled("10:00", second)))


# ---- prices and schedules -------------------------------------------------------------------------------------------


def test_a_tariff_holds_so_many_slices_the_first_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.core.tariffs.MOST", 4)
    house = House()
    house.hear("tariff.connect", body("tariff"))
    assert [] == limits(house.hear("tariff.price.update", prices(*((f"1{n}:00", n) for n in range(3, 7)))))
    effects = house.hear("tariff.price.update", prices(("17:00", 7), ("18:00", 8)))
    assert [Limit.PRICES_PER_TARIFF] == limits(effects)
    assert [at(f"1{n}:00") for n in range(3, 7)] == [one.start for one in house.state.prices["sub-1/tariff:d-1"]]
    assert MOST_SLICES >= 8 * 96


def weekly(device: str, size: int) -> dict[str, Any]:
    """Return the schedule of a heat pump of about a size."""
    return {"id": device, "userId": "user-1", "schedules": [{"mode": "HEAT", "pad": "x" * size}], "timeZone": "UTC"}


def test_the_schedules_of_a_building_are_bounded_the_oldest_go() -> None:
    house = House()
    for number in range(4):
        house.hear("hvac.update", body("hvac", id=f"h-{number}"))
        effects = house.hear("hvac.schedules.update", weekly(f"h-{number}", SCHEDULES_SIZE // 3))
    assert ["sub-1/hvac:h-2", "sub-1/hvac:h-3"] == list(house.state.schedules)
    assert [Limit.SCHEDULES_SIZE] == limits(effects)
    effects = house.hear("hvac.schedules.update", weekly("h-2", SCHEDULES_SIZE))
    assert (["sub-1/hvac:h-3"], [Limit.SCHEDULES_SIZE]) == (list(house.state.schedules), limits(effects))
    house.hear("hvac.delete", body("hvac", "10:30", id="h-3"))
    assert {} == house.state.schedules


def test_the_times_apart_of_a_building_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.core.announce.MOST_APART", 3)
    house = House()
    house.hear("meter.update", body("meter", "09:00", id="m-1", locationId="a"))
    for minute in range(10, 30):
        place = "b" if minute % 2 else "a"
        clock = f"10:{minute}"
        house.hear("meter.update", body("meter", clock, id="m-2", locationId=place), received=clock)
    assert 3 == len(house.state.apart)
    assert house.state.apart[0][0] == at("10:11")


def test_a_state_that_nothing_is_wrong_with_stays_the_same_object() -> None:
    building = Building(id="b")
    assert building is bounds.relieved(building, Rules())
    assert iso("10:00") == body("meter")["lastUpdated"]
