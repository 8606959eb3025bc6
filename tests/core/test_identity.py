"""A device is (subscription, kind, id) (M0.6): two subscriptions may share a building, never a device."""

from dataclasses import replace
from typing import Final

import pytest

from bridge.core.inheritance import inherited
from bridge.core.messages import Quantity
from bridge.core.model import Building
from bridge.core.rules import MeterRule, Role, Rules, SubscriptionRule
from bridge.core.vocabulary import DeviceKey, Kind
from tests.core.house import House, at, body, events, listed, notes, prices

OTHER: Final = "sub-2"
HEIRS: Final = Rules(subscriptions={OTHER: SubscriptionRule(meter_sign=-1)}, heirs={"sub-1": OTHER})


def charged(clock: str, percent: float) -> dict[str, object]:
    """Return a car's state of charge."""
    return body("vehicle", clock, chargeState={"stateOfCharge": percent})


def ids(house: House) -> list[str]:
    """Return MOOST's ids of the devices of the last list, without the household's."""
    return listed(tuple(house.effects))[-1][1:]


# ---- two of one kind and id -----------------------------------------------------------------------------------------


def test_two_subscriptions_with_one_device_id_have_two_devices() -> None:
    house = House()
    house.hear("vehicle.update", charged("10:00", 10))
    house.hear("vehicle.update", charged("10:05", 90), subscription=OTHER)
    charges = {name: one.series[Quantity.STATE_OF_CHARGE][-1].value for name, one in house.state.devices.items()}
    assert {"sub-1/vehicle:d-1": 10.0, "sub-2/vehicle:d-1": 90.0} == charges
    assert ["vehicle:d-1", "vehicle:d-1_sub-2-e43e357b003e"] == ids(house)


def test_the_id_of_the_later_one_stays_when_the_earlier_one_has_gone() -> None:
    house = House()
    house.hear("vehicle.update", body("vehicle", "10:00"))
    house.hear("vehicle.update", body("vehicle", "10:05"), subscription=OTHER)
    house.hear("vehicle.delete", body("vehicle", "10:10"))
    assert ["vehicle:d-1_sub-2-e43e357b003e"] == ids(house)
    later = house.hear("vehicle.update", charged("10:15", 7), subscription=OTHER)
    assert ["vehicle:d-1_sub-2-e43e357b003e"] == [event.device for event in events(later)]


def test_an_id_that_was_made_for_one_is_not_given_to_another() -> None:
    house = House()
    house.hear("vehicle.update", body("vehicle", "10:00"))
    house.hear("vehicle.update", body("vehicle", "10:05"), subscription=OTHER)
    for name in ("d-1@sub-2", "d-1_sub-2-e43e357b003e"):  # the text it was made of, and what was made
        house.hear("vehicle.update", body("vehicle", "10:05", id=name))
    assert 4 == len(set(ids(house)))


def test_a_hashed_device_id_is_another_one_than_the_id_that_was_hashed() -> None:
    house = House()
    house.hear("meter.update", body("meter", "10:00", id="x" * 60))
    (made,) = ids(house)
    house.hear("meter.update", body("meter", "10:00", id=made.removeprefix("meter:")))
    assert 2 == len(set(ids(house)))


@pytest.mark.parametrize("action", ["delete", "offline", "disconnect"])
def test_what_one_says_of_its_device_is_not_said_of_the_others(action: str) -> None:
    house = House()
    house.hear("battery.update", body("battery", "10:00"))
    before = house.state.devices
    house.hear(f"battery.{action}", body("battery", "10:05", isOnline=False), subscription=OTHER)
    assert before["sub-1/battery:d-1"] is house.state.devices["sub-1/battery:d-1"]


def test_prices_are_those_of_the_subscriptions_own_tariff() -> None:
    house = House()
    house.hear("tariff.connect", body("tariff"))
    house.hear("tariff.price.update", prices(("13:00", 0.25)))
    before = house.state.prices["sub-1/tariff:d-1"]
    house.hear("tariff.price.update", prices(("13:00", 666)), subscription=OTHER)
    assert before == house.state.prices["sub-1/tariff:d-1"]
    house.hear("tariff.delete", body("tariff", "10:10"), subscription=OTHER)
    assert {"sub-1/tariff:d-1"} == set(house.state.prices)


def test_a_role_may_be_for_one_subscription() -> None:
    rules = Rules(
        devices={(Kind.METER, "d-1"): MeterRule(role=Role.GRID)},
        own_devices={DeviceKey(OTHER, Kind.METER, "d-1"): MeterRule(role=Role.SUB)},
    )
    house = House(rules)
    house.hear("meter.update", body("meter", "10:00", powerState={"power": -1}))
    said = house.hear("meter.update", body("meter", "10:00", powerState={"power": -1}), subscription=OTHER)
    assert ["odd_value"] == notes(said), "a part of the house cannot deliver"
    assert [Role.GRID, Role.SUB] == [rules.device(name, Kind.METER, "d-1").role for name in ("sub-1", OTHER)]


# ---- a subscription with a new id -----------------------------------------------------------------------------------


def lived() -> House:
    """Return a house of a subscription that will have another id."""
    house = House(Rules(subscriptions={"sub-1": SubscriptionRule(meter_sign=-1)}))
    house.hear("meter.update", body("meter", "10:00", powerState={"power": -1}))
    house.hear("vehicle.update", body("vehicle", "10:00"))
    house.hear("tariff.connect", body("tariff"))
    house.hear("tariff.price.update", prices(("13:00", 0.25)))
    house.hear("hvac.update", body("hvac", "10:00"))
    house.hear("hvac.delete", body("hvac", "10:05"))
    return house


def test_an_heir_goes_on_with_the_devices_as_they_were() -> None:
    house = lived()
    old = house.state
    house.rules = HEIRS
    effects = house.hear("vehicle.update", charged("10:05", 51), subscription=OTHER)
    assert {"sub-2/meter:d-1", "sub-2/vehicle:d-1", "sub-2/tariff:d-1"} == set(house.state.devices)
    assert {"sub-2/hvac:d-1"} == set(house.state.gone)
    assert old.prices["sub-1/tariff:d-1"] == house.state.prices["sub-2/tariff:d-1"]
    assert [OTHER] == [one.subscription for one in house.state.departed]
    assert ([], ["vehicle:d-1"]) == (listed(effects), [event.device for event in events(effects)])
    assert old.devices["sub-1/meter:d-1"].series == house.state.devices["sub-2/meter:d-1"].series


def test_a_message_that_waited_under_the_former_id_is_the_heirs() -> None:
    house = lived()
    house.rules = HEIRS
    house.hear("vehicle.update", charged("10:05", 51), subscription=OTHER)
    house.hear("vehicle.update", charged("10:10", 52))
    assert {"sub-2/meter:d-1", "sub-2/vehicle:d-1", "sub-2/tariff:d-1"} == set(house.state.devices)
    assert 52.0 == house.state.devices["sub-2/vehicle:d-1"].series[Quantity.STATE_OF_CHARGE][-1].value


def test_where_both_have_spoken_the_newer_one_is_kept_under_the_older_ones_id() -> None:
    house = lived()
    house.hear("vehicle.update", charged("10:06", 60), subscription=OTHER)
    house.hear("vehicle.delete", body("vehicle", "10:07", id="gone"))
    house.hear("vehicle.delete", body("vehicle", "10:08", id="gone"), subscription=OTHER)
    assert 3 == len(ids(house))
    house.rules = HEIRS
    effects = house.hear("vehicle.update", charged("10:08", 61), subscription=OTHER)
    assert ["meter:d-1", "vehicle:d-1"] == ids(house)
    assert ["vehicle:d-1"] == [event.device for event in events(effects)]
    assert at("10:08") == house.state.gone["sub-2/vehicle:gone"]


def test_a_building_without_anything_of_a_former_subscription_stays_the_same_object() -> None:
    house = House()
    house.hear("vehicle.update", body("vehicle"), subscription=OTHER)
    assert house.state is inherited(house.state, HEIRS)
    assert house.state is inherited(house.state, Rules())
    assert Building(id="x") == inherited(Building(id="x"), HEIRS)


def test_one_that_has_just_left_is_the_heirs_too() -> None:
    house = lived()
    departed = replace(house.state, devices={}, gone={}, prices={})
    assert [OTHER] == [one.subscription for one in inherited(departed, HEIRS).departed]
