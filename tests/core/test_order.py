"""A clock that is ahead keeps its own order (M0.3): in series, static data, places, absences, deletes and tariffs.

The sender's clock is five minutes ahead: what is accepted at 12:00 says 12:05.
"""

from collections.abc import Iterable
from typing import Any

import pytest

from bridge.core.messages import Quantity, Tick
from bridge.core.order import Time, later
from bridge.core.vocabulary import EventType
from tests.core.house import House, at, body, calls, events, iso, listed, prices
from tests.core.test_tariffs import sent as tariffs_sent
from tests.core.test_tariffs import tariff

SOC = Quantity.STATE_OF_CHARGE


def second(clock: str) -> str:
    """Return an instant as the device cloud spells it, to the second."""
    return iso(clock) if len(clock) == len("12:05") else f"2026-06-15T{clock}.000Z"


def car(clock: str, charge: float | None, updated: str | None = None, **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever JSON holds
    """Return a car whose block has a time, and whose object has the same or another one."""
    block = {"stateOfCharge": charge, "chargingState": "UNPLUGGED", "lastUpdated": second(clock)}
    return body("vehicle", lastUpdated=second(updated or clock), chargeState=block, **changes)


def charges(said: Iterable[tuple[dict[str, Any], str]]) -> list[float]:
    """Return the states of charge that leave, of messages and their receipts."""
    house = House()
    for content, received in said:
        house.hear("vehicle.update", content, received)
    return [event.value for event in events(tuple(house.effects)) if event.type is EventType.STATE_OF_CHARGE_RATE]


# ---- the order itself -----------------------------------------------------------------------------------------------


def test_of_two_times_that_were_ahead_the_later_as_sent_is_the_later_one() -> None:
    early, late = Time(at("12:01"), at("12:05")), Time(at("12:00"), at("12:06"))
    assert early.is_before(late)
    assert not late.is_before(early)
    assert not early.is_before(early)
    assert late == later(early, late) == later(late, early) == later(None, late)


def test_in_any_other_pair_the_place_decides() -> None:
    ahead, right = Time(at("12:00"), at("12:09")), Time(at("12:01"))
    assert ahead.is_before(right)
    assert not right.is_before(ahead)
    assert not Time(at("12:00")).is_before(ahead)


# ---- values ---------------------------------------------------------------------------------------------------------


def test_a_retry_under_a_clock_that_is_ahead_does_not_win() -> None:
    said = [(car("12:05", 60), "12:00"), (car("12:05:22", 62), "12:00:01"), (car("12:05:21", 61), "12:00:02")]
    assert [60, 62] == charges(said)


def test_an_array_with_the_newest_first_leaves_the_newest_alone() -> None:
    said = [(car(clock, charge), "12:00") for clock, charge in (("12:05:22", 62), ("12:05:21", 61), ("12:05", 60))]
    assert [62] == charges(said)


def test_half_a_second_between_two_messages_is_enough() -> None:
    newer, older = car("12:00:02", 62), car("12:00:01", 61)
    newer["chargeState"]["lastUpdated"] = newer["lastUpdated"] = "2026-06-15T12:00:01.500Z"
    assert [62] == charges([(newer, "12:00"), (older, "12:00")])


def test_a_clock_that_was_mended_is_believed_at_once() -> None:
    assert [60, 61, 62] == charges(
        [(car("12:05", 60), "12:00"), (car("12:01", 61), "12:01:01"), (car("12:02", 62), "12:02:01")]
    )


def test_a_right_clock_s_older_value_stays_older() -> None:
    assert [60] == charges([(car("12:05", 60), "12:00"), (car("11:59", 61), "12:01")])


def test_the_same_value_again_stays_where_it_was() -> None:
    house = House()
    house.hear("battery.update", body("battery", "12:05"), "12:00")
    house.hear("battery.update", body("battery", "12:05", lastUpdated=iso("12:08")), "12:02")
    assert [(at("12:00"), 2000.0)] == house.series("battery:d-1", Quantity.POWER)
    assert at("12:02") == house.device("battery:d-1").series[Quantity.POWER][-1].seen


def test_of_equal_times_ahead_the_greater_object_time_as_sent_wins() -> None:
    newer, older = car("12:05", 62, updated="12:07"), car("12:05", 61, updated="12:06")
    assert [62] == charges([(newer, "12:00"), (older, "12:01")])
    assert [61, 62] == charges([(older, "12:00"), (newer, "12:01")])
    assert [62, 63] == charges([(newer, "12:00"), (car("12:05", 63, updated="12:07"), "12:01")])


def test_a_null_that_was_overtaken_ends_nothing() -> None:
    house = House()
    house.hear("battery.update", body("battery", "12:05"), "12:00")
    house.hear("battery.update", body("battery", "12:04", chargeState={"chargeRate": None}), "12:01")
    assert [(at("12:00"), 2000.0)] == house.series("battery:d-1", Quantity.POWER)


def test_energy_is_that_of_the_newest_power_from_its_receipt_on() -> None:
    house = House()
    for clock, received, kilowatt in (("12:05", "12:00", 1), ("12:12", "12:06", 3), ("12:11", "12:07", 2)):
        house.hear("hvac.update", body("hvac", clock, powerState={"powerConsumption": kilowatt}), received)
    sent = events(house.feed(Tick(now=at("12:18"))))
    assert [550.0] == [event.value for event in sent if event.type is EventType.ENERGY_CONSUMPTION]  # 6 min, 9 min


# ---- what it is, and where ------------------------------------------------------------------------------------------


def named(name: str, clock: str) -> dict[str, Any]:
    """Return a battery whose static data has a time."""
    return body("battery", clock, staticData={"name": name, "lastUpdated": iso(clock)})


def test_static_data_that_was_overtaken_does_not_come_back() -> None:
    house = House()
    for name, clock in (("old", "12:05"), ("new", "12:07"), ("older", "12:06")):
        house.hear("battery.update", named(name, clock), "12:00")
    assert "new" == house.device("battery:d-1").facts.name
    house.hear("battery.update", named("mended", "12:01"), "12:01")
    assert "mended" == house.device("battery:d-1").facts.name


def test_a_place_that_was_overtaken_does_not_come_back() -> None:
    house = House()
    for place, clock in (("here", "12:05"), ("there", "12:07"), ("elsewhere", "12:06")):
        house.hear("battery.update", body("battery", clock, locationId=place), "12:00")
    assert "there" == house.device("battery:d-1").location
    house.hear("battery.update", body("battery", "12:01", locationId="home"), "12:01")
    assert "home" == house.device("battery:d-1").location


# ---- gone and back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["offline", "disconnect"])
def test_a_message_from_before_an_absence_does_not_end_it(action: str) -> None:
    house = House()
    house.hear("battery.update", body("battery", "12:05"), "12:00")
    house.hear(f"battery.{action}", body("battery", "12:07"), "12:02")
    house.hear("battery.update", body("battery", "12:06", chargeState={"chargeRate": 1}), "12:03")
    device = house.device("battery:d-1")
    assert device.offline or device.disconnected
    assert [(at("12:00"), 2000.0), (at("12:02"), None)] == house.series("battery:d-1", Quantity.POWER)
    house.hear("battery.update", body("battery", "12:08", chargeState={"chargeRate": 1}), "12:04")
    device = house.device("battery:d-1")
    assert (False, False) == (device.offline, device.disconnected)
    assert (at("12:04"), 1000.0) == house.series("battery:d-1", Quantity.POWER)[-1]


def test_a_device_that_is_back_is_known_from_its_stamp_on_with_the_block_from_before() -> None:
    house = House()
    house.hear("battery.update", body("battery", "12:05"), "12:00")
    house.hear("battery.offline", body("battery", "12:06"), "12:01")
    house.hear("battery.update", body("battery", "12:05", lastUpdated=iso("12:09")), "12:03")
    assert [(at("12:00"), 2000.0), (at("12:01"), None), (at("12:03"), 2000.0)] == house.series(
        "battery:d-1", Quantity.POWER
    )
    house.hear("battery.update", body("battery", "12:05", lastUpdated=iso("12:08")), "12:04")
    assert 3 == len(house.series("battery:d-1", Quantity.POWER))


def test_an_offline_that_was_overtaken_ends_the_values_at_its_receipt() -> None:
    house = House()
    house.hear("battery.update", body("battery", "12:05"), "12:00")
    house.hear("battery.offline", body("battery", "12:04"), "12:03")
    assert [(at("12:00"), 2000.0), (at("12:03"), None)] == house.series("battery:d-1", Quantity.POWER)


@pytest.mark.parametrize(("action", "clock", "back"), [("update", "12:06", False), ("update", "12:07", False),
    ("update", "12:08", True), ("connect", "12:06", False), ("connect", "12:07", True)])  # fmt: skip
def test_only_what_was_sent_after_a_delete_brings_a_device_back(action: str, clock: str, back: bool) -> None:  # noqa: FBT001
    house = House()
    house.hear("battery.update", body("battery", "12:05"), "12:00")
    house.hear("battery.delete", body("battery", "12:07"), "12:02")
    effects = house.hear(f"battery.{action}", body("battery", clock), "12:03")
    assert back == ("sub-1/battery:d-1" in house.state.devices)
    assert ([["gateway:user-1", "battery:d-1"]] if back else []) == listed(effects)


def test_a_delete_that_was_overtaken_by_a_return_deletes_nothing() -> None:
    house = House()
    house.hear("battery.delete", body("battery", "12:07"), "12:02")
    house.hear("battery.connect", body("battery", "12:09"), "12:03")
    assert () == calls(house.hear("battery.delete", body("battery", "12:06"), "12:04"))
    assert [["gateway:user-1"]] == listed(house.hear("battery.delete", body("battery", "12:10"), "12:05"))
    house.hear("battery.update", body("battery", "12:06"), "12:06")
    assert "sub-1/battery:d-1" in house.state.devices  # the clock was mended: 12:06 is after 12:05, the receipt


def test_the_later_of_two_deletes_counts_whatever_their_order() -> None:
    house = House()
    house.hear("battery.delete", body("battery", "12:09"), "12:02")
    house.hear("battery.delete", body("battery", "12:07"), "12:03")
    assert () == calls(house.hear("battery.update", body("battery", "12:08"), "12:04"))
    house.hear("battery.delete", body("battery", "12:05"), "12:05")
    assert {} == house.state.gone_sent


# ---- tariffs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "second", "price"), [("12:05", "12:07", "0.2000"), ("12:07", "12:06", "0.1000"),
    ("12:07", "12:07", "0.1000"), ("12:07", "11:00", "0.1000")])  # fmt: skip
def test_of_two_tariffs_ahead_the_later_as_sent_counts(first: str, second: str, price: str) -> None:
    house = House()
    for name, clock, cost, received in (("t-1", first, 0.1, "12:00"), ("t-2", second, 0.2, "12:01")):
        house.hear("tariff.update", tariff(clock, id=name), received)
        house.hear("tariff.price.update", prices(("13:00", cost), id=name), received)
    assert price == tariffs_sent(tuple(house.effects))[-1]["minPrice"]


# ---- no time at all -------------------------------------------------------------------------------------------------


def undated(kind: str, **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever JSON holds
    """Return a device with a time in it that cannot be read, and no other."""
    content = body(kind, lastUpdated="yesterday", **changes)
    for block in content.values():
        if isinstance(block, dict):
            block["lastUpdated"] = None
    return content


def test_what_cannot_be_dated_brings_nothing_back_and_ends_no_absence() -> None:
    house = House()
    house.hear("battery.update", body("battery", "10:00", locationId="here"))
    house.hear("battery.offline", body("battery", "10:30"))
    before = house.device("battery:d-1")
    house.hear("battery.update", undated("battery", locationId="there"))
    assert before == house.device("battery:d-1")
    house.hear("battery.delete", body("battery", "10:40"))
    house.hear("battery.connect", undated("battery"))
    assert {} == house.state.devices


def test_a_delete_that_cannot_be_dated_deletes_at_its_receipt() -> None:
    house = House()
    house.hear("battery.update", body("battery", "10:00"))
    house.hear("battery.delete", undated("battery"), "11:00")
    assert [at("11:00")] == [device.until for device in house.state.departed]


def test_what_cannot_be_dated_makes_a_device_known_and_says_nothing_of_it() -> None:
    house = House()
    assert [["gateway:user-1", "battery:d-1"]] == listed(house.hear("battery.update", undated("battery")))
    assert {} == house.device("battery:d-1").series
