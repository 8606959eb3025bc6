"""Counter mode (mapping rule M4.4)."""

from datetime import timedelta

import pytest

from bridge.core.messages import Quantity, Value
from bridge.core.rules import MeterRule, Role, Rules, SubscriptionRule
from bridge.core.vocabulary import Action, DeviceType, EventType, Kind
from tests.core.homes import BATTERY, METER, PV, Home

GRID = EventType.GRID_ENERGY_CONSUMPTION
CONSUMPTION = EventType.ENERGY_CONSUMPTION
METER2 = (Kind.METER, "meter-2")

COUNTING = Rules(subscriptions={"sub-1": SubscriptionRule(meter_counter=True)})


def counter(*readings: tuple[str, float | None], power: float | None = None, rules: Rules = COUNTING) -> Home:
    """Return a home whose meter counts [kWh] and, where given, measures a constant power [W]."""
    home = Home(rules)
    for when, kwh in readings:
        read(home, when, kwh, power=power)
    return home


def read(home: Home, when: str, kwh: float | None, power: float | None = None, received: str | None = None) -> None:
    values: list[tuple[Quantity, Value | None]] = [(Quantity.COUNTER, kwh * 1000.0 if kwh is not None else None)]
    if power is not None:
        values.append((Quantity.POWER, power))
    home.say(METER, when, values=values, received=received)


def test_the_energy_of_a_slot_is_what_the_counter_grew() -> None:
    home = counter(("11:59", 100.0), ("12:10", 100.3), ("12:20", 100.5))
    home.run("12:15", "12:30")
    assert {"12:15": 300.0, "12:30": 200.0} == home.of(GRID)


def test_a_reading_on_the_boundary_ends_one_slot_and_begins_the_next() -> None:
    """Else a meter that reports on the quarter hour would never have consumed anything."""
    home = counter(("12:00", 100.0), ("12:15", 100.3), ("12:30", 100.5), ("12:45", 101.0))
    home.run("12:15", "12:45")
    assert {"12:15": 300.0, "12:30": 200.0, "12:45": 500.0} == home.of(GRID)


def test_a_counter_that_stands_still_has_counted_nothing() -> None:
    home = counter(("12:00", 100.0))
    home.run("12:15", "12:30")
    assert {"12:15": 0.0, "12:30": 0.0} == home.of(GRID)


def test_the_first_slot_needs_a_reading_at_or_before_its_start() -> None:
    home = counter(("12:01", 100.0), ("12:14", 100.5), ("12:29", 101.0))
    home.run("12:15", "12:30")
    assert {"12:30": 500.0} == home.of(GRID)


def test_the_power_serves_a_slot_that_the_counter_cannot() -> None:
    home = counter(("12:00:01", 100.0), ("12:20", 100.5), power=800.0)
    home.run("12:15", "12:30")
    assert {"12:15": 199.778, "12:30": 500.0} == home.of(GRID)


@pytest.mark.parametrize("dip", [99.9, 99.25])
def test_a_dip_is_ignored(dip: float) -> None:
    home = counter(("12:00", 100.0), ("12:05", dip), ("12:10", 100.2), ("12:20", dip), ("12:25", 100.3))
    home.run("12:15", "12:30")
    assert {"12:15": 200.0, "12:30": 100.0} == home.of(GRID)


def test_a_dip_over_the_boundary_is_ignored() -> None:
    home = counter(("12:00", 100.0), ("12:10", 100.4), ("12:14", 99.9), ("12:20", 99.95), ("12:25", 100.6))
    home.run("12:15", "12:45")
    assert {"12:15": 400.0, "12:30": 200.0, "12:45": 0.0} == home.of(GRID)


@pytest.mark.parametrize("new", [99.0, 0.0])
def test_a_reset_is_a_new_base(new: float) -> None:
    home = counter(("12:00", 100.0), ("12:10", new), ("12:20", new + 0.25))
    home.run("12:15", "12:30")
    assert {"12:30": 250.0} == home.of(GRID)


def test_the_power_serves_the_slot_of_a_reset() -> None:
    home = counter(("12:00", 100.0), ("12:10", 0.0), ("12:20", 0.25), power=800.0)
    home.run("12:15", "12:30")
    assert {"12:15": 200.0, "12:30": 250.0} == home.of(GRID)


@pytest.mark.parametrize(("step", "expected"), [(10.0, {"12:15": 10000.0, "12:30": 0.0}), (10.001, {"12:30": 0.0})])
def test_more_than_60_kw_is_another_meter(step: float, expected: dict[str, float]) -> None:
    home = counter(("12:00", 100.0), ("12:10", 100.0 + step))
    home.run("12:15", "12:30")
    assert expected == home.of(GRID)


def test_a_swap_and_back_within_a_slot_is_no_energy() -> None:
    home = counter(("12:00", 100.0), ("12:05", 500.0), ("12:10", 100.1), ("12:20", 100.2))
    home.run("12:15", "12:30")
    assert {"12:30": 100.0} == home.of(GRID)


def test_a_counter_without_news_for_a_day_is_unknown() -> None:
    home = counter(("12:00", 100.0))
    home.run("12:15", "3 12:00")
    assert 96 == len(home.of(GRID))


def test_a_counter_that_ended_is_unknown_until_it_counts_again() -> None:
    home = counter(("12:00", 100.0), ("12:10", 100.2), ("12:20", None), ("12:50", 100.6))
    home.run("12:15", "13:15")
    assert {"12:15": 200.0, "13:00": 400.0, "13:15": 0.0} == home.of(GRID)


def test_a_meter_that_was_offline_gives_what_it_counted_meanwhile() -> None:
    home = counter(("12:00", 100.0))
    home.leave(METER, "12:20")
    home.run("12:15", "13:00")
    read(home, "13:10", 101.0)
    home.run("13:15", "13:15")
    assert {"12:15": 0.0, "13:15": 1000.0} == home.of(GRID)


def test_what_the_power_served_is_not_counted_again() -> None:
    home = counter(("12:00", 100.0), ("12:14", 100.1), power=400.0)
    for minute in (15, 25, 35):
        read(home, f"12:{minute}", None, power=400.0)
    home.run("12:15", "12:45")
    read(home, "12:46", 100.3, power=400.0)
    read(home, "13:01", 100.4, power=400.0)
    home.run("13:00", "13:15")
    assert {"12:15": 100.0, "12:30": 100.0, "12:45": 100.0, "13:00": 100.0, "13:15": 100.0} == home.of(GRID)


def test_what_a_late_reading_counted_is_in_the_first_open_slot() -> None:
    home = counter(("12:00", 100.0))
    home.tick("12:18")
    read(home, "12:14", 100.4, received="12:19")
    read(home, "12:20", 100.5)
    home.run("12:30", "12:30")
    assert {"12:15": 0.0, "12:30": 500.0} == home.of(GRID)


def test_rates_and_consumption_use_the_power() -> None:
    home = Home(COUNTING)
    home.say(PV, "12:00", 1000.0)
    read(home, "12:00", 100.0, power=400.0)
    read(home, "12:10", 100.3, power=400.0)
    home.tick("12:18")
    assert {"12:15": 300.0} == home.of(GRID)
    assert {"12:15": 350.0} == home.of(CONSUMPTION)
    assert {"12:15": 71.429} == home.of(EventType.SELF_SUFFICIENCY_RATE)


def test_without_inverter_and_battery_consumption_copies_the_grid_value() -> None:
    home = counter(("12:00", 100.0), ("12:10", 100.3), ("12:20", 0.0), power=400.0)
    home.run("12:15", "12:30")
    assert {"12:15": 300.0, "12:30": 100.0} == home.of(GRID)
    assert home.of(GRID) == home.of(CONSUMPTION)


def test_with_a_battery_consumption_does_not_copy() -> None:
    home = counter(("12:00", 100.0), ("12:10", 100.3), power=400.0)
    home.say(BATTERY, "12:00", 100.0)
    home.tick("12:18")
    assert {"12:15": 75.0} == home.of(CONSUMPTION)


@pytest.mark.parametrize(
    ("subscription", "own", "expected"), [(False, True, 300.0), (True, False, 100.0), (True, None, 300.0)]
)
def test_the_device_decides_before_its_subscription(subscription: bool, own: bool | None, expected: float) -> None:  # noqa: FBT001
    rules = Rules(
        subscriptions={"sub-1": SubscriptionRule(meter_counter=subscription)}, devices={METER: MeterRule(counter=own)}
    )
    home = counter(("12:00", 100.0), ("12:10", 100.3), power=400.0, rules=rules)
    home.tick("12:18")
    assert {"12:15": expected} == home.of(GRID)


@pytest.mark.parametrize("role", [Role.LOAD, Role.SUB])
def test_the_counter_of_a_load_counts_for_its_own_events(role: Role) -> None:
    home = counter(("12:00", 100.0), ("12:10", 100.3), rules=Rules(devices={METER: MeterRule(role=role, counter=True)}))
    home.tick("12:18")
    assert {"12:15": 300.0} == home.of(CONSUMPTION, DeviceType.SMART_METER)
    assert ({"12:15": 300.0} if role is Role.LOAD else {}) == home.of(CONSUMPTION)


def test_two_grid_meters_count_together_or_not_at_all() -> None:
    grid = MeterRule(role=Role.GRID, counter=True)
    home = counter(("12:00", 100.0), ("12:10", 100.3), power=400.0, rules=Rules(devices={METER: grid, METER2: grid}))
    home.say(METER2, "12:00", values=[(Quantity.COUNTER, 5000.0), (Quantity.POWER, 200.0)])
    home.say(METER2, "12:14", values=[(Quantity.COUNTER, 5100.0), (Quantity.POWER, 200.0)])
    home.say(METER2, "12:20", values=[(Quantity.COUNTER, None), (Quantity.POWER, 200.0)])
    home.run("12:15", "12:30")
    assert {"12:15": 400.0, "12:30": 150.0} == home.of(GRID)


def test_a_meter_that_is_deleted_gives_what_its_power_says() -> None:
    home = counter(("12:00", 100.0), ("12:10", 100.3), power=400.0)
    home.leave(METER, "12:14", Action.DELETE)
    home.tick("12:18")
    assert {"12:15": 93.333} == home.of(GRID)


def test_the_day_of_a_counter_is_what_it_counted() -> None:
    home = Home(Rules(devices={METER: MeterRule(counter=True)}, default_time_zone="UTC", hold=timedelta(days=2)))
    read(home, "2 00:00", 100.0)
    read(home, "2 11:11", 103.0)
    read(home, "2 23:59", 107.5)
    home.tick("3 00:02")
    assert {"3 00:00": 7500.0} == home.of(EventType.GRID_ENERGY_CONSUMPTION_YESTERDAY)
    assert {"3 00:00": 7500.0} == home.of(EventType.ENERGY_CONSUMPTION_YESTERDAY)
