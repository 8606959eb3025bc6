"""Interval events of devices, and when a slot closes (mapping rules M3, M5.1, M5.3-M5.7)."""

import functools
import operator
import random
from datetime import timedelta
from itertools import pairwise

import pytest

from bridge.core.messages import Facts, Quantity, Tick
from bridge.core.model import Building
from bridge.core.rules import MeterRule, Role, Rules, Stamp
from bridge.core.slots import MOST_AT_ONCE, due, passes
from bridge.core.vocabulary import Action, DeviceType, EventType, Kind
from tests.core.homes import BATTERY, CAR, CHARGER, METER, PUMP, PV, Home, at

POWER = EventType.POWER_CONSUMPTION
ENERGY = EventType.ENERGY_CONSUMPTION
GENERATION = EventType.ENERGY_GENERATION
PUMPS = DeviceType.APPLIANCE

MINUTE = timedelta(minutes=1)


# ---- which device sends what (M3) -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "facts", "source"),
    [
        (CHARGER, None, DeviceType.CAR_CHARGER),
        (CAR, None, DeviceType.CAR),
        (PUMP, Facts(type="HEATPUMP"), DeviceType.HEAT_PUMP),
        (PUMP, Facts(type="DHW"), DeviceType.WATER_HEATER),
        (PUMP, Facts(type="THERMOSTAT"), DeviceType.THERMOSTAT),
        (PUMP, Facts(type="AC"), DeviceType.APPLIANCE),
        (PUMP, None, DeviceType.APPLIANCE),
    ],
)
def test_a_consumer_sends_power_and_energy_of_each_slot(
    device: tuple[Kind, str], facts: Facts | None, source: DeviceType
) -> None:
    home = Home()
    home.say(device, "12:00", 1000.0, facts=facts)
    home.say(device, "12:05", 4000.0)
    home.tick("12:18")
    assert {"12:15": 4000.0} == home.of(POWER, source)
    assert {"12:15": 750.0} == home.of(ENERGY, source)
    assert {"POWER_CONSUMPTION", "ENERGY_CONSUMPTION"} == home.types()


def test_a_battery_sends_what_goes_in_and_what_goes_out() -> None:
    home = Home()
    home.say(BATTERY, "12:00", 1200.0)
    home.say(BATTERY, "12:05", -600.0)
    home.tick("12:18")
    assert {"12:15": 100.0} == home.of(EventType.ENERGY_IMPORT, DeviceType.BATTERY)
    assert {"12:15": 100.0} == home.of(EventType.ENERGY_EXPORT, DeviceType.BATTERY)
    assert {"ENERGY_IMPORT", "ENERGY_EXPORT"} == home.types()


@pytest.mark.parametrize(
    ("type_", "source", "event"),
    [
        ("THERMOSTAT", DeviceType.THERMOSTAT, EventType.TEMPERATURE),
        ("DHW", DeviceType.WATER_HEATER, EventType.WATER_TEMPERATURE),
    ],
)
def test_a_temperature_is_the_value_just_before_the_end_of_the_slot(
    type_: str, source: DeviceType, event: EventType
) -> None:
    home = Home()
    home.say(PUMP, "12:00", values=[(Quantity.TEMPERATURE, -3.5)], facts=Facts(type=type_))
    home.say(PUMP, "12:14:59", values=[(Quantity.TEMPERATURE, 48.0004)])
    home.say(PUMP, "12:15", values=[(Quantity.TEMPERATURE, 50.0)])
    home.tick("12:18")
    assert {"12:15": 48.0} == home.of(event, source)
    assert {event.value} == home.types()


def test_a_heat_pump_sends_no_temperature() -> None:
    home = Home()
    home.say(PUMP, "12:00", values=[(Quantity.TEMPERATURE, 48.0)], facts=Facts(type="HEATPUMP"))
    home.tick("12:18")
    assert set() == home.types()


@pytest.mark.parametrize("role", [Role.LOAD, Role.SUB])
def test_a_meter_of_a_load_sends_its_own_events(role: Role) -> None:
    home = Home(Rules(devices={METER: MeterRule(role=role, sign=-1)}))
    home.say(METER, "12:00", -800.0)
    home.tick("12:18")
    assert {"12:15": 800.0} == home.of(POWER, DeviceType.SMART_METER)
    assert {"12:15": 200.0} == home.of(ENERGY, DeviceType.SMART_METER)


@pytest.mark.parametrize("role", [Role.GRID, Role.IGNORE, None])
def test_another_meter_sends_no_events_of_its_own(role: Role | None) -> None:
    home = Home(Rules(devices={METER: MeterRule(role=role)}))
    home.say(METER, "12:00", 800.0)
    home.tick("12:18")
    assert set() == home.types(DeviceType.SMART_METER)


def test_what_a_consumer_gives_back_is_no_consumption() -> None:
    home = Home(Rules(devices={METER: MeterRule(role=Role.SUB)}))
    home.say(METER, "12:00", 800.0)
    home.say(METER, "12:10", -800.0)
    home.tick("12:18")
    assert {"12:15": 0.0} == home.of(POWER, DeviceType.SMART_METER)
    assert {"12:15": 133.333} == home.of(ENERGY, DeviceType.SMART_METER)


def test_a_car_consumes_only_while_there_is_no_charger() -> None:
    home = Home()
    home.say(CAR, "12:00", 7000.0)
    home.run("12:15", "12:15")
    home.say(CHARGER, "12:20", 7000.0)
    home.run("12:30", "12:45")
    home.leave(CHARGER, "12:50", Action.DELETE)
    home.run("13:00", "13:15")
    assert ["12:15", "13:15"] == list(home.of(POWER, DeviceType.CAR))
    assert ["12:15", "13:15"] == list(home.of(ENERGY, DeviceType.CAR))


@pytest.mark.parametrize("engine", ["HEV", "ICEV"])
def test_a_car_without_plug_has_no_interval_events(engine: str) -> None:
    home = Home(Rules(codes={(EventType.DEVICE_STATUS, DeviceType.CAR): {"online": 1, "offline": 0}}))
    home.say(CAR, "12:00", values=[(Quantity.POWER, 0.0), (Quantity.STATE_OF_CHARGE, 50.0)], facts=Facts(engine=engine))
    home.tick("12:18")
    assert {"DEVICE_STATUS"} == home.types()


def test_a_tariff_has_no_slots() -> None:
    home = Home()
    home.say((Kind.TARIFF, "t"), "12:00", silent=True)
    assert due(home.state, home.rules) is None
    home.say(PV, "12:00", 100.0)
    home.tick("12:18")
    assert {"12:15": 100.0} == home.of(EventType.POWER_GENERATION)


def test_a_changed_type_of_hvac_starts_fresh_series() -> None:
    home = Home()
    home.say(PUMP, "12:00", 1000.0, facts=Facts(type="AC", updated=at("11:00")))
    home.say(PUMP, "12:00:30", 2000.0, stamp="12:01", facts=Facts(type="HEATPUMP", updated=at("12:01")))
    home.tick("12:18")
    assert {} == home.of(ENERGY, DeviceType.APPLIANCE)
    assert {"12:15": 2000.0} == home.of(POWER, DeviceType.HEAT_PUMP)


# ---- slots and stamps (M5.1, M5.3) ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stamp", "instant"), [(Stamp.END, "12:15"), (Stamp.INSIDE, "12:14:59"), (Stamp.START, "12:00")]
)
def test_a_slot_is_stamped_as_set(stamp: Stamp, instant: str) -> None:
    home = Home(Rules(stamp=stamp))
    home.say(PUMP, "12:00", 1000.0)
    home.tick("12:18")
    assert {instant: 1000.0} == home.of(POWER, PUMPS)
    assert {instant: 250.0} == home.of(ENERGY, PUMPS)


@pytest.mark.parametrize(
    ("stamp", "instant"), [(Stamp.END, "12:30"), (Stamp.INSIDE, "12:29:59"), (Stamp.START, "12:00")]
)
def test_a_half_hour_is_stamped_as_set_by_its_own_ends(stamp: Stamp, instant: str) -> None:
    home = Home(Rules(stamp=stamp))
    home.say(PV, "12:00", 1000.0)
    home.say(METER, "12:00", -1000.0)
    home.run("12:15", "12:30")
    assert {instant: 500.0} == home.of(EventType.ENERGY_EXCESS)


def test_the_power_of_a_slot_is_the_value_just_before_its_end() -> None:
    home = Home()
    home.say(PUMP, "12:00", 1000.0)
    home.say(PUMP, "12:15", 2000.0)
    home.run("12:15", "12:30")
    assert {"12:15": 1000.0, "12:30": 2000.0} == home.of(POWER, PUMPS)


def test_a_power_that_is_unknown_at_the_end_is_not_sent() -> None:
    home = Home()
    home.say(PUMP, "12:00", 1000.0)
    home.say(PUMP, "12:14:59", None)
    home.tick("12:18")
    assert {} == home.of(POWER, PUMPS)


@pytest.mark.parametrize(("first", "expected"), [("12:01:30", {"12:15": 225.0}), ("12:01:31", {})])
def test_an_energy_is_sent_if_enough_of_the_slot_is_known(first: str, expected: dict[str, float]) -> None:
    home = Home()
    home.say(PUMP, first, 1000.0)
    home.tick("12:18")
    assert expected == home.of(ENERGY, PUMPS)


@pytest.mark.parametrize(("coverage", "expected"), [(0.5, {"12:15": 125.0}), (0.51, {})])
def test_the_coverage_is_a_setting(coverage: float, expected: dict[str, float]) -> None:
    home = Home(Rules(min_coverage=coverage))
    home.say(PUMP, "12:07:30", 1000.0)
    home.tick("12:18")
    assert expected == home.of(ENERGY, PUMPS)


def test_a_full_coverage_can_be_asked_for() -> None:
    """Adding up stretches of microseconds may lose a little of the 900 s; a slot wholly known is so all the same."""
    home = Home(Rules(min_coverage=1.0))
    dice = random.Random(132)  # noqa: S311 - these stretches add up to 899.9999999999999 s
    seconds = [0.0, *sorted(round(dice.uniform(0, 900), 6) for _ in range(40))]
    lengths = (after - before for before, after in pairwise([*seconds, 900.0]))
    assert 900.0 > functools.reduce(operator.add, lengths), "added one by one; `sum` is exact since Python 3.12"
    for second in seconds:
        home.say(PV, at("12:00") + timedelta(seconds=second), 1000.0)
    home.tick("12:18")
    assert {"12:15": 250.0} == home.of(GENERATION)


def test_the_excess_of_half_an_hour_is_sent_if_enough_of_it_is_known() -> None:
    home = Home()
    home.say(PV, "12:00", 2000.0)
    home.say(METER, "12:00", -1000.0)
    home.say(METER, "12:27:10", None)  # 81 % of the quarter, but 90.6 % of the half hour
    home.say(METER, "12:30", -1000.0)
    home.say(METER, "12:56:50", None)  # 89.4 %
    home.run("12:15", "13:00")
    assert {"12:30": 452.778} == home.of(EventType.ENERGY_EXCESS)


@pytest.mark.parametrize(("known", "gone"), [("12:15", "12:30"), ("12:00", "12:15")])
def test_a_half_hour_of_which_one_quarter_is_unknown_follows_the_same_rule(known: str, gone: str) -> None:
    home = Home(Rules(min_coverage=0.5))
    home.say(PV, known, 1000.0)
    home.say(METER, known, -1000.0)
    home.say(METER, gone, None)
    home.say(PV, gone, None)
    home.say(PUMP, "12:00", 1.0)
    home.run("12:15", "13:00")
    assert {"12:30": 250.0} == home.of(EventType.ENERGY_EXCESS)


@pytest.mark.parametrize(("known", "gone"), [("12:15", "12:30"), ("12:00", "12:15")])
def test_a_half_hour_closes_though_nothing_else_is_known(known: str, gone: str) -> None:
    home = Home(Rules(min_coverage=0.5))
    home.say(PV, known, 1000.0)
    home.say(METER, known, -1000.0)
    home.say(METER, gone, None)
    home.say(PV, gone, None)
    home.run("12:15", "13:00")
    assert {"12:30": 250.0} == home.of(EventType.ENERGY_EXCESS)


# ---- when a slot closes (M5.4, M5.5) --------------------------------------------------------------------------------


def test_a_slot_closes_when_the_grace_is_over() -> None:
    home = Home()
    home.say(PUMP, "12:00", 1000.0)
    home.tick("12:16:59.999")
    assert [] == home.events
    home.tick("12:17")
    assert {"12:15": 1000.0} == home.of(POWER, PUMPS)


def test_slots_close_when_nobody_sends() -> None:
    home = Home()
    home.say(PUMP, "12:00", 0.0)
    home.run("12:15", "2 15:00")
    assert 96 == len(home.of(POWER, PUMPS))
    assert {0.0} == set(home.of(ENERGY, PUMPS).values())


def test_a_single_reading_of_zero_is_reported_until_its_hold_ends() -> None:
    home = Home()
    home.say(METER, "2 00:00", 0.0)
    home.run("2 00:15", "4 00:00")
    assert 96 == len(home.of(EventType.GRID_POWER_CONSUMPTION))
    assert 96 == len(home.of(EventType.GRID_ENERGY_CONSUMPTION))
    assert {0.0} == {event.value for event in home.events}
    assert due(home.state, home.rules) is None


def test_a_silent_building_is_due_when_its_next_slot_can_close() -> None:
    home = Home(Rules(spread=timedelta(0)))
    assert due(home.state, home.rules) is None
    home.say(PUMP, "12:05", 1000.0)
    assert at("12:17") == due(home.state, home.rules)
    home.tick("12:17")
    assert at("12:32") == due(home.state, home.rules)


def test_buildings_are_spread_over_the_time_allowed() -> None:
    home = Home(Rules(spread=timedelta(minutes=3)))
    home.say(PUMP, "12:05", 1000.0)
    found = due(home.state, home.rules)
    assert found is not None
    assert at("12:17") < found < at("12:20")


def test_a_building_in_which_nothing_is_known_sleeps_until_its_day_is_over() -> None:
    home = Home(Rules(default_time_zone="UTC", spread=timedelta(0)))
    home.say(PUMP, "12:00", 1000.0)
    home.leave(PUMP, "12:20")
    home.run("12:15", "12:30")
    assert at("2 00:02") == due(home.state, home.rules)
    home.tick("2 00:02")
    assert due(home.state, home.rules) is None


def test_one_tick_closes_a_handful_of_slots() -> None:
    home = Home()
    home.say(PUMP, "12:00", 0.0)
    home.feed(Tick(now=at("2 12:00")))
    assert MOST_AT_ONCE == len(home.of(POWER, PUMPS))
    home.tick("2 12:00")
    assert 95 == len(home.of(POWER, PUMPS))


def test_stretches_in_which_nothing_is_known_cost_nothing() -> None:
    home = Home()
    home.say(PUMP, "12:00", 1000.0)
    home.say(PUMP, "12:20", None)
    home.run("12:15", "12:30")
    home.say(PUMP, "28 12:00", 1000.0)
    home.tick("28 12:18")
    assert ["12:15", "28 12:15"] == list(home.of(POWER, PUMPS))


def test_the_clock_of_a_building_that_catches_up_stays_an_hour_behind_its_newest_stamp() -> None:
    home = Home()
    home.say(PUMP, "12:00", 1000.0, received="15:00")
    home.say(PUMP, "13:20", 2000.0, received="15:00:10")
    home.tick("15:01:09")
    assert ["12:15"] == list(home.of(POWER, PUMPS))  # 13:20 - 1 h = 12:20
    home.tick("15:01:10")  # 60 s after the last message it is up to date
    assert "14:45" == list(home.of(POWER, PUMPS))[-1]


def test_late_messages_of_a_building_that_catches_up_land_in_their_slots() -> None:
    home = Home()
    home.say(PUMP, "12:00", 1000.0, received="15:00")
    home.tick("15:00:05")
    home.say(PUMP, "12:30", 2000.0, received="15:00:10")
    home.tick("15:00:15")
    home.say(PUMP, "12:45", 3000.0, received="15:00:20")
    home.tick("15:10")
    assert [250.0, 250.0, 500.0, 750.0] == list(home.of(ENERGY, PUMPS).values())[:4]
    assert [] == home.notes


def test_the_last_message_decides_whether_a_building_catches_up() -> None:
    """Another device of the building may well be up to date already."""
    home = Home()
    home.say(PV, "15:00", 0.0)
    home.say(PUMP, "13:00", 1000.0, received="15:00:10")
    home.tick("15:00:20")  # 15:00 - 1 h = 14:00
    assert "13:45" == list(home.of(POWER, PUMPS))[-1]
    home.say(PV, "15:00:30", 0.0)
    home.tick("15:00:40")
    assert "14:45" == list(home.of(POWER, PUMPS))[-1]


def test_a_message_as_old_as_the_live_lane_allows_is_no_backlog() -> None:
    home = Home()
    home.say(PUMP, "12:00", 1000.0, received="12:30")
    home.tick("12:30:01")
    assert ["12:15"] == list(home.of(POWER, PUMPS))


def test_the_end_of_a_backlog_lands_in_its_slots_though_it_is_not_old() -> None:
    home = Home()
    for minute in range(60):
        home.say(PUMP, f"12:{minute:02}", 60.0 * minute, received=f"13:00:{minute / 6:04.1f}")
        home.tick(f"13:00:{minute / 6 + 0.1:04.1f}")
    assert {} == home.of(ENERGY, PUMPS), "the last old message came five seconds ago"
    home.tick("13:00:20")
    energies = {f"12:{end}": sum(range(end - 15, end)) * 1.0 for end in (15, 30, 45)}
    assert energies == home.of(ENERGY, PUMPS)
    assert [] == home.notes


def test_one_device_that_lags_behind_the_others_is_no_backlog() -> None:
    home = Home()
    home.say(PV, "12:00", 100.0)
    home.say(PUMP, "11:00", 1000.0, received="12:16")
    home.say(PV, "12:16", 100.0, received="12:17:30")
    home.tick("12:17:31")
    assert "12:15" in home.of(POWER, PUMPS)


def test_a_process_that_has_just_resumed_waits_for_the_retries() -> None:
    home = Home()
    home.say(PUMP, "12:00", 1000.0)
    home.tick("15:00", catching_up=True)
    assert [] == home.events
    home.say(PUMP, "12:05", 4000.0, received="15:05")
    home.tick("15:09", catching_up=True)
    home.tick("15:10")
    assert 750.0 == home.of(ENERGY, PUMPS)["12:15"]


def test_the_clock_never_goes_back() -> None:
    home = Home()
    home.say(PUMP, "12:00", 1000.0)
    home.tick("12:47")
    home.tick("12:20")
    assert at("12:47") == home.state.clock
    home.tick("12:50", catching_up=True)
    assert at("12:47") == home.state.clock
    assert ["12:15", "12:30", "12:45"] == list(home.of(POWER, PUMPS))


def test_a_clock_without_any_stamp_stays_an_hour_behind_while_it_resumes() -> None:
    home = Home()
    home.tick("12:00", catching_up=True)
    assert at("11:00") == home.state.clock


def test_a_delete_is_a_message_too() -> None:
    home = Home()
    home.say(PUMP, "12:00", 1000.0)
    home.say(PV, "12:00", 100.0)
    home.leave(PV, "13:00", Action.DELETE, received="15:00")
    home.tick("15:00:59")  # 13:00 - 1 h
    assert [] == home.events


def test_a_slot_stays_open_until_its_close_is_processed() -> None:
    home = Home()
    home.say(PUMP, "12:00", 1000.0)
    home.say(PUMP, "12:05", 4000.0, received="12:19")
    home.tick("12:19:30")
    assert {"12:15": 750.0} == home.of(ENERGY, PUMPS)
    assert [] == home.notes


def test_a_late_sample_changes_no_closed_slot_and_counts_from_the_first_open_one() -> None:
    home = Home()
    home.say(PUMP, "12:00", 1000.0)
    home.tick("12:18")
    home.say(PUMP, "12:10", 4000.0, received="12:19")
    home.say(PUMP, "12:20", 1000.0)
    home.tick("12:33")
    assert {"12:15": 250.0, "12:30": 500.0} == home.of(ENERGY, PUMPS)
    assert ["late_sample"] == [note.name for note in home.notes]


def test_a_late_sample_that_is_older_than_what_is_known_is_counted_and_forgotten() -> None:
    home = Home()
    home.say(PUMP, "12:10", 1000.0)
    home.tick("12:18")
    home.say(PUMP, "12:05", 4000.0, received="12:19")
    home.tick("12:33")
    assert {"12:30": 250.0} == home.of(ENERGY, PUMPS)
    assert ["late_sample"] == [note.name for note in home.notes]


def test_a_value_that_is_only_carried_along_is_not_late() -> None:
    home = Home()
    home.say(PUMP, "12:00", 1000.0)
    home.run("12:15", "12:30")
    home.say(PUMP, "12:00", 1000.0, stamp="12:35")
    assert [] == home.notes


# ---- where slots begin and end (M5.6, M5.7) -------------------------------------------------------------------------


def test_slots_begin_with_the_earliest_sample() -> None:
    home = Home()
    home.say(PUMP, "12:31", 1000.0, received="12:46:20")
    home.say(PUMP, "12:15", 2000.0, received="12:46:30")
    home.tick("12:48")
    assert {"12:30": 2000.0, "12:45": 1000.0} == home.of(POWER, PUMPS)


def test_samples_older_than_the_longest_backfill_make_no_slots() -> None:
    home = Home()
    home.say(PUMP, "1 12:00", 0.0, stamp="4 12:05", received="4 12:05")
    home.run("4 12:15", "4 12:30")
    assert ["4 12:15", "4 12:30"] == list(home.of(POWER, PUMPS))


def test_a_sample_as_old_as_the_longest_backfill_makes_slots() -> None:
    home = Home()
    home.say(PUMP, "1 12:00", 0.0, stamp="3 12:00", received="3 12:00")
    home.tick("3 12:20")
    assert "12:15" == next(iter(home.of(POWER, PUMPS)))
    assert 2 * 96 + 1 == len(home.of(POWER, PUMPS))


def test_an_old_sample_makes_no_slots_in_a_building_that_fell_silent() -> None:
    home = Home()
    home.say(PUMP, "1 12:00", 500.0)
    home.run("12:15", "2 15:00")
    seen = len(home.events)
    home.say(CHARGER, "3 12:00", 0.0, stamp="8 12:05", received="8 12:05")
    home.tick("8 12:18")
    assert ["8 12:15", "8 12:15"] == [f"{event.at:%-d %H:%M}" for event in home.events[seen:]]


def test_an_old_sample_cuts_no_slots_that_are_still_open() -> None:
    home = Home()
    home.say(PUMP, "1 12:00", 500.0, received="3 11:59")
    home.say(CHARGER, "1 12:10", 0.0, stamp="3 12:20", received="3 12:20")
    home.tick("3 12:35")
    assert "12:15" == next(iter(home.of(POWER, PUMPS)))


def test_a_backfill_into_a_building_that_fell_silent_makes_its_slots() -> None:
    home = Home()
    home.say(PUMP, "1 12:00", 500.0)
    home.say(PUMP, "1 12:30", None)
    home.run("12:15", "2 03:00")
    home.say(PUMP, "2 10:00", 500.0, received="3 09:00")
    home.tick("3 09:05")
    assert ["12:15", "12:30", "2 10:15"] == list(home.of(POWER, PUMPS))[:3]


def test_after_a_delete_no_event_of_the_device_leaves() -> None:
    home = Home()
    home.say(PUMP, "12:00", 1000.0)
    home.leave(PUMP, "12:14", Action.DELETE)
    home.run("12:15", "2 12:00")
    assert set() == home.types()


def test_the_household_counts_a_device_up_to_its_delete() -> None:
    home = Home()
    home.say(PV, "12:00", 1200.0)
    home.say((Kind.PV_INVERTER, "other"), "12:00", 600.0)
    home.leave(PV, "12:05", Action.DELETE)
    home.run("12:15", "12:30")
    assert {"12:15": 250.0, "12:30": 150.0} == home.of(GENERATION)
    assert {"12:15": 600.0, "12:30": 600.0} == home.of(EventType.POWER_GENERATION)


def test_a_device_that_comes_back_is_not_counted_while_it_was_deleted() -> None:
    home = Home()
    home.say(PV, "12:00", 1200.0)
    home.leave(PV, "12:05", Action.DELETE)
    home.say(PV, "12:00", 1200.0, action=Action.CONNECT, stamp="12:06")
    home.say(PV, "12:00", 1200.0, stamp="12:07")
    home.run("12:15", "12:30")
    assert {"12:15": 280.0, "12:30": 300.0} == home.of(GENERATION)


def test_a_device_that_comes_back_long_after_its_delete_counts_from_its_return() -> None:
    home = Home()
    home.say(PUMP, "12:00", 1200.0)
    home.leave(PUMP, "12:05", Action.DELETE)
    home.run("12:15", "13:00")
    home.say(PUMP, "12:00", 1200.0, action=Action.CONNECT, stamp="13:10")
    home.say(PUMP, "12:00", 1200.0, stamp="13:11")
    home.run("13:15", "13:30")
    assert {"13:30": 300.0} == home.of(EventType.ENERGY_CONSUMPTION, DeviceType.APPLIANCE)
    assert {"13:15": 1200.0, "13:30": 1200.0} == home.of(EventType.POWER_CONSUMPTION, DeviceType.APPLIANCE)


# ---- which states are worth a copy -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (None, None, False),
        (None, "10:00", False),  # nothing has closed yet
        ("10:00", "10:15", True),  # its first close
    ],
)
def test_a_first_close_passes_a_mark(before: str | None, after: str | None, *, expected: bool) -> None:
    old = Building(id="home", open_from=None if before is None else at(before))
    new = Building(id="home", open_from=None if after is None else at(after), closed=before is not None)
    assert expected == passes(old, new, timedelta(hours=6))


def test_each_building_passes_four_marks_a_day_at_times_of_its_own() -> None:
    marks = []
    for name in ("home-1", "home-2"):
        days = [Building(id=name, open_from=at("00:00") + n * 15 * MINUTE, closed=True) for n in range(97)]
        marks.append([n for n in range(96) if passes(days[n], days[n + 1], timedelta(hours=6))])
    assert [4, 4] == [len(found) for found in marks]
    assert {24} == {later - sooner for found in marks for sooner, later in pairwise(found)}
    assert marks[0] != marks[1]
