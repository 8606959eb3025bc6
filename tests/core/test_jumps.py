"""A vendor that changes from kW to W overnight (M0.11)."""

from datetime import timedelta
from typing import Any

import pytest

from bridge.core.jumps import judge
from bridge.core.messages import Forgotten, Quantity
from bridge.core.model import Flag, Shown
from bridge.core.rules import MeterRule, PowerUnit, Rules, SubscriptionRule
from bridge.core.vocabulary import Action, EventType, Kind
from tests.core.homes import METER, PV, Home
from tests.core.house import House, at, body, notes, own

START = at("10:00")
POWER = Quantity.POWER
KINDS = [
    ("pv-inverter", "powerState", "solarPower"),
    ("meter", "powerState", "power"),
    ("battery", "chargeState", "chargeRate"),
    ("hvac", "powerState", "powerConsumption"),
    ("vehicle", "chargeState", "chargeRate"),
    ("charger", "chargeState", "chargeRate"),
]


def hear(house: House, clock: str, power: float | None, kind: str = "meter") -> list[str]:
    """Report a power as it is sent; return the notes."""
    _, block, field = next(row for row in KINDS if row[0] == kind)
    content: dict[str, Any] = body(kind, clock, **{block: {field: power}})
    if kind == "battery":
        content["chargeState"]["chargingState"] = "IDLE"
    return notes(house.hear(f"{kind}.update", content, received=f"{clock}:01"))


def newest(house: House, kind: str = "meter") -> object:
    """Return the newest power of a device."""
    return house.device(f"{kind}:d-1").series[POWER][-1].value


@pytest.mark.parametrize("kind", [kind for kind, _, _ in KINDS])
def test_a_power_over_a_hundred_times_the_largest_so_far_is_withheld_counted_and_told(kind: str) -> None:
    house = House()
    hear(house, "10:00", 0.4, kind)
    assert ["unit_jump", "absent_value"] == hear(house, "10:05", 40.001, kind)
    assert [(at("10:00"), 400.0), (at("10:05"), None)] == house.series(f"{kind}:d-1", POWER)
    assert (Flag.UNIT_JUMP,) == house.state.flags
    assert {Flag.UNIT_JUMP: (f"sub-1/{kind}:d-1",)} == house.state.about


@pytest.mark.parametrize(("first", "second", "jumps"), [
    (0.4, 40.0, False), (0.4, 40.001, True), (0.4, -40.001, True), (-0.4, 40.001, True), (0.2, 30.0, False),
    (0.2, 30.001, True), (0.0, 999.0, False), (None, 999.0, False), (0.001, 0.2, False),
])  # fmt: skip
def test_it_must_be_over_thirty_kilowatt_and_after_a_power_that_was_not_zero(
    first: float | None,
    second: float,
    jumps: bool,  # noqa: FBT001
) -> None:
    house = House()
    hear(house, "10:00", first)
    hear(house, "10:05", second)
    assert (None if jumps else second * 1000) == newest(house)
    assert jumps == bool(house.state.flags)


def test_the_largest_so_far_is_that_in_order_of_acceptance_and_never_a_withheld_one() -> None:
    house = House()
    hear(house, "10:00", 0.4)
    hear(house, "10:05", 1.0)
    hear(house, "10:10", 0.1)
    hear(house, "10:15", 90.0)  # 90 times what it showed at 10:05
    assert 90_000.0 == newest(house)
    hear(house, "10:04", 100.0)  # late, and no jump any more
    assert (at("10:04"), 100_000.0) in house.series("meter:d-1", POWER)
    house = House()
    for clock, power in (("10:00", 0.4), ("10:05", 80.0), ("10:10", 80.0)):
        hear(house, clock, power)
    assert None is newest(house)


def test_a_power_outside_its_limits_is_no_less_a_jump() -> None:
    house = House()
    hear(house, "10:00", 1.75, "hvac")
    assert ["odd_value", "unit_jump", "absent_value"] == hear(house, "10:05", 1750, "hvac")
    assert (Flag.UNIT_JUMP,) == house.state.flags
    hear(house, "10:10", 60, "hvac")  # beyond the limits, but no jump
    assert None is newest(house, "hvac")


# ---- what ends it ----------------------------------------------------------------------------------------------------


def jumping(rules: Rules | None = None) -> Home:
    """Return a home whose meter has shown 400 W, and 50 kW at 11:00."""
    home = Home(rules)
    home.say(METER, "10:00", 400.0)
    home.say(METER, "11:00", 50_000.0)
    return home


def known(home: Home) -> object:
    """Return the meter's newest power."""
    return home.state.devices["sub-1/meter:meter"].series[POWER][-1].value


def test_what_a_device_shows_for_a_day_on_end_is_believed_whatever_nulls_come_between() -> None:
    home = jumping()
    for hour in range(12, 24):
        home.say(METER, f"{hour}:00", 60_000.0)
        home.say(METER, f"{hour}:30", None)
    home.say(METER, "2 10:59", 50_000.0)
    assert (None, (Flag.UNIT_JUMP,)) == (known(home), home.state.flags)
    home.say(METER, "2 11:00", 45_000.0)
    assert (45_000.0, ()) == (known(home), home.state.flags)
    home.say(METER, "2 11:05", 4_000_000.0)
    assert 4_000_000.0 == known(home)  # 89 times as much


@pytest.mark.parametrize("other", [500.0, 0.0, 29_000.0])
def test_another_power_begins_the_day_anew(other: float) -> None:
    home = jumping()
    home.say(METER, "15:00", other)
    assert other == known(home)
    home.say(METER, "15:05", 3_000_000.0)
    home.say(METER, "2 11:00", 3_000_000.0)
    assert None is known(home)
    home.say(METER, "2 15:05", 3_000_000.0)
    assert 3_000_000.0 == known(home)


def test_the_flag_goes_a_day_after_the_last_jump() -> None:
    home = jumping()
    home.say(METER, "11:05", 400.0)
    home.say(METER, "2 10:59", 400.0)
    assert (Flag.UNIT_JUMP,) == home.state.flags
    home.say(METER, "2 11:00", 400.0)
    assert [] == list(home.state.flags)


def test_what_is_outside_its_limits_is_never_believed() -> None:
    shown = Shown(1750.0)
    for hours in range(0, 60, 6):
        shown, jump = judge(shown, START + timedelta(hours=hours), 1_750_000.0, possible=False, checked=True)
        assert jump
    assert 1750.0 == shown.largest_w
    assert (shown, False) == judge(shown, START, 60_000.0, possible=False, checked=True)


@pytest.mark.parametrize("rules", [
    Rules(subscriptions={"sub-1": SubscriptionRule(unit=PowerUnit.KILOWATT)}),
    Rules(subscriptions={"sub-1": SubscriptionRule(unit=PowerUnit.WATT)}),
    Rules(devices={METER: MeterRule(unit=PowerUnit.KILOWATT)}),
])  # fmt: skip
def test_a_unit_that_is_set_switches_the_check_off(rules: Rules) -> None:
    home = jumping(rules)
    assert (50_000.0, ()) == (known(home), home.state.flags)


def test_once_a_unit_is_set_the_flag_goes_with_the_next_power() -> None:
    home = jumping()
    home.rules = Rules(devices={METER: MeterRule(unit=PowerUnit.WATT)})
    home.say(METER, "11:05", 50.0)
    assert (50.0, ()) == (known(home), home.state.flags)


def test_the_flag_names_all_that_jump_and_goes_with_the_last_of_them() -> None:
    home = jumping()
    home.say(PV, "11:00", 100.0)
    home.say(PV, "11:05", 90_000.0)
    assert ("sub-1/meter:meter", "sub-1/pv-inverter:pv") == home.state.about[Flag.UNIT_JUMP]
    home.leave(METER, "11:06", Action.DELETE)
    assert ("sub-1/pv-inverter:pv",) == home.state.about[Flag.UNIT_JUMP]
    gone = Forgotten(user="user", raw_users=frozenset({"user"}), devices=frozenset({own(*PV)}), received=START)
    home.feed(gone)
    assert ((), {}) == (home.state.flags, home.state.about)


def test_the_time_in_which_a_power_is_withheld_is_no_known_time_of_slot_or_day() -> None:
    home = Home(Rules(default_time_zone="UTC", hold_active=timedelta(days=2)))
    home.say(METER, "00:00", 100.0)
    home.say(METER, "12:00", 50_000.0)
    home.run("00:15", "2 00:00")
    assert "12:00" in home.of(EventType.GRID_ENERGY_CONSUMPTION)
    assert "12:15" not in home.of(EventType.GRID_ENERGY_CONSUMPTION)
    assert {} == home.of(EventType.GRID_ENERGY_CONSUMPTION_YESTERDAY)


# ---- units ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind, _, _ in KINDS])
@pytest.mark.parametrize("of", ["subscription", "device"])
def test_powers_in_watts_are_taken_as_watts(kind: str, of: str) -> None:
    rule = (
        Rules(subscriptions={"sub-1": SubscriptionRule(unit=PowerUnit.WATT)})
        if of == "subscription"
        else Rules(devices={(Kind(kind), "d-1"): MeterRule(unit=PowerUnit.WATT)})
    )
    house = House(rule)
    assert [] == hear(house, "10:00", 5312, kind)
    assert 5312.0 == newest(house, kind)
    limit = {"hvac": 50_000, "vehicle": 400_000, "charger": 400_000}.get(kind, 1_000_000)
    assert ["odd_value", "absent_value"] == hear(house, "10:05", limit + 1, kind)


def test_a_device_s_unit_wins_over_its_subscription_s_and_counters_stay_in_kilowatt_hours() -> None:
    rules = Rules(
        subscriptions={"sub-1": SubscriptionRule(unit=PowerUnit.WATT)},
        devices={(Kind.METER, "d-1"): MeterRule(unit=PowerUnit.KILOWATT)},
    )
    house = House(rules)
    hear(house, "10:00", 2)
    assert 2000.0 == newest(house)
    assert [(at("10:00"), 100_000.0)] == house.series("meter:d-1", Quantity.COUNTER)
