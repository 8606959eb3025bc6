"""Counter mode: the counter says how much, the power says when (mapping rule M4.4)."""

from datetime import timedelta

import pytest

from bridge.core.messages import Facts, Quantity, Value
from bridge.core.model import Flag
from bridge.core.rules import MeterRule, Role, Rules, SubscriptionRule
from bridge.core.vocabulary import Action, DeviceType, EventType, Kind
from tests.core.homes import BATTERY, METER, PUMP, PV, Home, at

GRID = EventType.GRID_ENERGY_CONSUMPTION
CONSUMPTION = EventType.ENERGY_CONSUMPTION
YESTERDAY = EventType.GRID_ENERGY_CONSUMPTION_YESTERDAY
METER2 = (Kind.METER, "meter-2")

COUNTING = Rules(subscriptions={"sub-1": SubscriptionRule(meter_counter=True)}, default_time_zone="UTC")


def counter(*readings: tuple[str, float | None], power: float | None = None, rules: Rules = COUNTING) -> Home:
    """Return a home whose meter counts [kWh] and, where given, measures a constant power [W]."""
    home = Home(rules)
    for when, kwh in readings:
        read(home, when, kwh, power=power)
    return home


def read(  # noqa: PLR0913 - a message has that many parts
    home: Home,
    when: str,
    kwh: float | None,
    power: float | None = None,
    *,
    received: str | None = None,
    stamp: str | None = None,
    meter: tuple[Kind, str] = METER,
) -> None:
    values: list[tuple[Quantity, Value | None]] = [(Quantity.COUNTER, kwh * 1000.0 if kwh is not None else None)]
    values.append((Quantity.POWER, power))
    home.say(meter, when, values=values, received=received, stamp=stamp)


def draw(home: Home, when: str, power: float | None) -> None:
    """Let the meter say a power only."""
    home.say(METER, when, power)


# ---- how much, and when ---------------------------------------------------------------------------------------------


def test_the_energy_of_a_slot_is_what_the_counter_grew() -> None:
    home = counter(("11:59", 100.0), ("12:10", 100.3), ("12:20", 100.5))
    home.run("12:15", "12:30")
    assert {"12:15": 300.0, "12:30": 200.0} == home.of(GRID)


def test_a_reading_on_the_boundary_ends_one_slot_and_begins_the_next() -> None:
    """Else a meter that reports on the quarter hour would never have consumed anything."""
    home = counter(("12:00", 100.0), ("12:15", 100.3), ("12:30", 100.5), ("12:45", 101.0))
    home.run("12:15", "13:00")
    assert {"12:15": 300.0, "12:30": 200.0, "12:45": 500.0} == home.of(GRID), "and none in which nothing came"


def test_after_the_last_reading_the_power_goes_on() -> None:
    """A boundary between two readings is placed by the power, not by the clock of the readings."""
    home = Home(COUNTING)
    read(home, "12:00", 100.0, power=2400.0)
    read(home, "12:10", 100.4, power=1200.0)
    read(home, "12:20", 100.6, power=1200.0)
    home.run("12:15", "12:30")
    assert {"12:15": 500.0, "12:30": 300.0} == home.of(GRID)


def test_a_counter_that_is_silent_for_hours_leaves_the_slots_to_the_power() -> None:
    """0 Wh for each quarter hour and then 2,800 Wh in one would be wrong twice."""
    home = Home(COUNTING)
    read(home, "12:00", 100.0, power=800.0)
    for quarter in range(1, 12):
        draw(home, f"{12 + quarter // 4}:{quarter % 4 * 15:02}", 800.0)
    read(home, "15:00", 102.8, power=800.0)
    home.run("12:15", "15:15")
    found = home.of(GRID)
    assert [200.0] * 11 == list(found.values())[:11]
    assert "15:00" not in found, "400 Wh of three hours belong to no quarter hour"
    assert 200.0 == found["15:15"]


def test_a_null_between_two_readings_loses_no_energy() -> None:
    home = counter(("12:00", 100.0), ("12:10", 100.2), ("12:20", None), ("12:50", 100.6))
    home.run("12:15", "13:15")
    assert {"12:15": 200.0, "13:00": 400.0} == home.of(GRID)


def test_a_null_ends_the_power_and_not_the_counter() -> None:
    home = Home(COUNTING)
    read(home, "12:00", 100.0, power=1200.0)
    read(home, "12:10", None, power=None)
    read(home, "12:25", 100.5, power=1200.0)
    home.run("12:15", "12:30")
    assert {"12:30": 400.0} == home.of(GRID), "200 Wh by the power are known of 10 minutes only, and count later"


@pytest.mark.parametrize("action", [Action.OFFLINE, Action.DISCONNECT])
def test_a_meter_that_was_away_gives_what_it_counted_meanwhile(action: Action) -> None:
    home = counter(("12:00", 100.0))
    home.leave(METER, "12:10", action)
    home.run("12:15", "12:30")
    read(home, "12:50", 100.7)
    home.run("12:45", "13:00")
    assert {"13:00": 700.0} == home.of(GRID)


def test_the_first_reading_begins_the_counter() -> None:
    home = counter(("12:01", 100.0), ("12:14", 100.5), ("12:29", 101.0))
    home.run("12:15", "12:30")
    assert {"12:15": 500.0, "12:30": 500.0} == home.of(GRID)


@pytest.mark.parametrize(("first", "sent"), [("12:01:30", True), ("12:01:31", False)])
def test_before_the_first_reading_without_power_nothing_is_known(first: str, sent: bool) -> None:  # noqa: FBT001
    home = counter((first, 100.0), ("12:14", 100.5))
    home.run("12:15", "12:15")
    assert sent is ("12:15" in home.of(GRID))


def test_one_reading_alone_says_nothing_of_its_slot() -> None:
    home = counter(("12:01", 100.0))
    home.run("12:15", "12:30")
    assert {} == home.of(GRID)


def test_before_the_first_reading_the_power_alone_counts() -> None:
    home = Home(COUNTING)
    draw(home, "12:00", 1200.0)
    read(home, "12:05", 100.0, power=1200.0)
    read(home, "12:10", 100.3, power=1200.0)
    home.run("12:15", "12:15")
    assert {"12:15": 500.0} == home.of(GRID)  # 100 Wh by the power, 300 by the counter, 100 by the power


def test_what_a_meter_gives_back_is_no_import() -> None:
    home = Home(COUNTING)
    read(home, "12:00", 100.0, power=1200.0)
    draw(home, "12:05", -60.0)
    home.run("12:15", "12:15")
    assert {"12:15": 100.0} == home.of(GRID)


def test_the_sign_of_the_meter_counts_for_its_power() -> None:
    rules = Rules(devices={METER: MeterRule(counter=True, sign=-1)})
    home = counter(("12:00", 100.0), power=-1200.0, rules=rules)
    home.run("12:15", "12:15")
    assert {"12:15": 300.0} == home.of(GRID)


# ---- a reading that shows less --------------------------------------------------------------------------------------


def test_a_surplus_is_taken_from_the_slots_that_follow() -> None:
    home = Home(COUNTING)
    read(home, "12:00", 100.0, power=1200.0)
    read(home, "12:20", 100.1, power=1200.0)  # 300 Wh were sent by the power, and it has not drawn as much
    read(home, "12:44", 100.6, power=1200.0)
    home.run("12:15", "12:45")
    assert {"12:15": 300.0, "12:45": 320.0} == home.of(GRID)
    assert () == home.state.flags


def test_a_surplus_of_more_than_a_slot_is_taken_from_the_next_ones_too() -> None:
    """M4.4: over all slots it is the counter's energy, 100.0 kWh to 100.0 kWh and half an hour of 1.2 kW."""
    home = Home(COUNTING)
    read(home, "12:00", 100.0, power=1200.0)
    read(home, "12:20", 100.0, power=1200.0)
    home.run("12:15", "13:00")
    assert {"12:15": 300.0, "12:45": 200.0, "13:00": 300.0} == home.of(GRID)
    assert 800.0 == home.state.days[GRID].energy_wh


def test_a_slot_that_a_surplus_has_used_up_is_not_sent_while_power_flows() -> None:
    home = Home(COUNTING)
    read(home, "12:00", 100.0, power=1200.0)
    home.run("12:15", "12:15")
    read(home, "12:20", 100.05, power=1200.0)
    draw(home, "12:24", 0.0)
    home.run("12:30", "12:45")
    assert {"12:15": 300.0, "12:45": 0.0} == home.of(GRID), "in the last one nothing flows"
    assert 0.0 <= min(event.value for event in home.events)


def test_a_deficit_of_less_than_a_watt_hour_is_rounding() -> None:
    home = Home(COUNTING)
    read(home, "12:00", 100.0, power=3.0)
    home.run("12:15", "12:15")
    read(home, "12:20", 100.0, power=3.0)
    home.run("12:30", "12:30")
    assert {"12:15": 0.75, "12:30": 0.0} == home.of(GRID)


@pytest.mark.parametrize(("shown", "flagged"), [(101.0, False), (100.999, True)])
def test_more_than_a_kilowatt_hour_is_not_taken_back_and_told(shown: float, flagged: bool) -> None:  # noqa: FBT001
    home = Home(COUNTING)
    for quarter in range(4):
        draw(home, f"12:{quarter * 15:02}", 2000.0)
        read(home, "12:00", 100.0, power=2000.0) if quarter == 0 else None
    draw(home, "13:00", 0.0)
    home.run("12:15", "13:00")
    read(home, "13:01", shown, power=0.0)
    read(home, "13:14", shown + 0.2, power=0.0)
    home.run("13:15", "13:15")
    assert [500.0] * 4 == list(home.of(GRID).values())[:4]
    assert (0.0, 200.0)[flagged] == home.of(GRID)["13:15"]
    assert flagged is (Flag.COUNTER_AGAINST_POWER in home.state.flags)
    assert ({Flag.COUNTER_AGAINST_POWER: ("sub-1/meter:meter",)} if flagged else {}) == home.state.about


def test_the_flag_goes_once_the_counter_counts_again() -> None:
    home = Home(COUNTING)
    read(home, "12:00", 100.0, power=8000.0)
    home.run("12:15", "12:45")
    read(home, "12:50", 100.0, power=8000.0)
    home.run("13:00", "13:00")
    assert Flag.COUNTER_AGAINST_POWER in home.state.flags
    draw(home, "13:05", 8000.0)
    home.run("13:15", "13:15")
    assert Flag.COUNTER_AGAINST_POWER in home.state.flags, "no reading has come"
    read(home, "13:20", 104.0, power=8000.0)
    home.run("13:30", "13:30")
    assert Flag.COUNTER_AGAINST_POWER not in home.state.flags


def test_the_flag_goes_with_its_meter() -> None:
    home = Home(COUNTING)
    read(home, "12:00", 100.0, power=8000.0)
    home.run("12:15", "12:45")
    read(home, "12:50", 100.0, power=8000.0)
    home.say(PUMP, "12:50", 0.0)
    home.run("13:00", "13:00")
    home.leave(METER, "13:05", Action.DELETE)
    home.run("13:15", "13:15")
    assert () == home.state.flags


# ---- a reading that shows more --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("second", "expected"), [("13:00", {"13:00": 1000.0}), ("13:00:01", {})])
def test_what_grew_within_the_longest_hold_counts_in_the_slot_at_hand(second: str, expected: dict[str, float]) -> None:
    home = counter(("12:00", 100.0), (second, 101.0))
    home.run("12:15", "13:15")
    assert expected == home.of(GRID)


def test_what_grew_for_longer_counts_in_the_day_alone() -> None:
    home = Home(COUNTING)
    for hour in range(0, 24, 2):
        read(home, f"2 {hour:02}:07", 100.0 + hour)
    read(home, "3 00:00", 125.0)
    home.tick("3 00:02")
    assert {} == home.of(GRID)
    assert {"3 00:00": 25_000.0} == home.of(YESTERDAY)


def test_less_than_a_watt_hour_more_is_rounding() -> None:
    home = Home(COUNTING)
    read(home, "12:00", 100.0, power=400.0)
    for quarter in range(1, 9):
        draw(home, f"{12 + quarter // 4}:{quarter % 4 * 15:02}", 400.0)
    read(home, "14:00", 100.8009, power=400.0)
    home.run("12:15", "14:00")
    assert 100.9 == home.of(GRID)["14:00"]


def test_a_sudden_growth_within_an_hour_is_no_gap() -> None:
    home = Home(COUNTING)
    read(home, "12:00", 100.0, power=400.0)
    read(home, "12:50", 103.0, power=400.0)
    home.run("12:15", "13:00")
    assert {"12:15": 100.0, "12:30": 100.0, "12:45": 100.0, "13:00": 2766.667} == home.of(GRID)


# ---- what is known --------------------------------------------------------------------------------------------------


def test_a_slot_without_a_reading_needs_the_power() -> None:
    home = Home(COUNTING)
    read(home, "12:00", 100.0, power=400.0)
    draw(home, "12:43:30", None)
    draw(home, "12:58", 400.0)
    home.run("12:15", "13:15")
    assert {"12:15": 100.0, "12:30": 100.0, "12:45": 90.0, "13:15": 100.0} == home.of(GRID)


def test_a_meter_that_never_sends_power_repeats_its_reading_for_a_while() -> None:
    home = Home(COUNTING)
    read(home, "12:05", 100.0)
    for minute in (20, 22, 35, 50):
        read(home, "12:05", 100.0, stamp=f"12:{minute}")
    read(home, "12:05", 100.0, stamp="13:04:59")
    read(home, "12:05", 100.0, stamp="13:16")
    home.run("12:15", "13:30")
    assert {"12:30": 0.0, "12:45": 0.0, "13:00": 0.0, "13:15": 0.0} == home.of(GRID)


@pytest.mark.parametrize("late", [False, True])
def test_each_message_that_repeats_counts_for_its_own_slot(late: bool) -> None:  # noqa: FBT001
    """Also in a backlog, in which the last one is known when the first slot closes."""
    home = Home(COUNTING)
    received = "20:00" if late else None
    read(home, "12:05", 100.0, received=received)
    for minute in (20, 50):
        read(home, "12:05", 100.0, stamp=f"12:{minute}", received=received)
        if not late:
            home.run(f"12:{minute - 5}", f"12:{minute - 5}")
    home.tick("21:00")
    assert {"12:30": 0.0, "13:00": 0.0} == home.of(GRID)


def test_a_meter_that_sends_power_is_not_known_by_a_repeated_reading() -> None:
    home = Home(COUNTING)
    read(home, "12:05", 100.0, power=400.0)
    read(home, "12:06", 100.0, power=None)
    read(home, "12:06", 100.0, stamp="12:20")
    home.run("12:15", "12:30")
    assert "12:30" not in home.of(GRID)


def test_a_repeat_after_a_reading_on_the_boundary_counts() -> None:
    home = counter(("12:00", 100.0), ("12:15", 100.3))
    read(home, "12:15", 100.3, stamp="12:20")
    read(home, "12:15", 100.3, stamp="12:21")
    home.run("12:15", "12:30")
    assert {"12:15": 300.0, "12:30": 0.0} == home.of(GRID)


def test_a_meter_that_begins_to_send_power_was_silent_before() -> None:
    """Whoever heard of it in time has sent the slots before."""
    home = Home(COUNTING)
    read(home, "12:00", 100.0, received="20:00")
    read(home, "12:00", 100.0, stamp="12:05", received="20:00")
    read(home, "12:20", 100.2, power=400.0, received="20:00")
    home.tick("21:00")
    assert {"12:15": 0.0} == {when: wh for when, wh in home.of(GRID).items() if when < "12:30"}


def test_the_day_is_known_from_reading_to_reading() -> None:
    home = Home(COUNTING)
    for hour in range(24):
        read(home, f"2 {hour:02}:00", 100.0 + hour)
    read(home, "2 23:50", 123.5)
    home.tick("3 00:02")
    assert {"3 00:00": 23_500.0} == home.of(YESTERDAY)
    assert {"3 00:00": 23_500.0} == home.of(EventType.ENERGY_CONSUMPTION_YESTERDAY)


@pytest.mark.parametrize(("last", "sent"), [("21:36", True), ("21:35:59", False)])
def test_after_the_last_reading_of_a_day_nothing_is_known(last: str, sent: bool) -> None:  # noqa: FBT001
    home = counter(("2 00:00", 100.0), ("2 12:00", 101.0), (f"2 {last}", 102.0))
    home.say(PUMP, "2 21:40", 0.0)
    home.tick("3 00:02")
    assert sent is ("3 00:00" in home.of(YESTERDAY))


def test_what_a_reading_after_midnight_fills_is_of_the_new_day_only() -> None:
    """Readings at 18:00 and at 06:00: of the old day 18 h are known, of the new one all, with all the energy."""
    home = counter(("2 00:00", 100.0), ("2 18:00", 110.0))
    home.tick("3 00:02")
    read(home, "3 06:00", 114.0)
    read(home, "3 21:35", 116.0)
    home.tick("4 00:02")
    assert {} == home.of(YESTERDAY), "75 % of the one, 89.9 % of the other"
    read(home, "4 21:36", 118.0)
    home.tick("5 00:02")
    assert {"5 00:00": 2000.0} == home.of(YESTERDAY)


def test_a_day_in_which_nothing_was_known_at_first_counts_from_its_start() -> None:
    home = counter(("2 00:00", 100.0), ("2 00:30", 100.2))
    home.run("2 00:15", "3 01:00")
    read(home, "4 12:00", 130.0)
    read(home, "4 23:00", 131.0)
    home.run("4 12:15", "5 00:00")
    assert {"5 00:00": 30_800.0} == home.of(YESTERDAY)


# ---- another base ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dip", [99.9, 99.001])
def test_a_dip_is_ignored(dip: float) -> None:
    home = counter(("12:00", 100.0), ("12:05", dip), ("12:10", 100.2), ("12:20", dip), ("12:25", 100.3))
    home.run("12:15", "12:30")
    assert {"12:15": 200.0, "12:30": 100.0} == home.of(GRID)


def test_a_dip_over_the_boundary_is_ignored() -> None:
    home = counter(("12:00", 100.0), ("12:10", 100.4), ("12:14", 99.9), ("12:20", 99.95), ("12:25", 100.6))
    home.run("12:15", "12:45")
    assert {"12:15": 400.0, "12:30": 200.0} == home.of(GRID)


@pytest.mark.parametrize("new", [99.0, 0.0])
def test_another_base_is_one_once_a_second_reading_confirms_it(new: float) -> None:
    home = counter(("12:00", 100.0), ("12:10", new), ("12:20", new + 0.25), ("12:35", new + 0.4))
    home.run("12:15", "12:45")
    assert {"12:45": 150.0} == home.of(GRID), "with another base the power serves the slot, else none"


def test_the_power_serves_the_slot_of_another_base() -> None:
    home = counter(("12:00", 100.0), ("12:10", 0.0), ("12:20", 0.25), ("12:35", 0.4), power=800.0)
    home.run("12:15", "12:45")
    assert {"12:15": 200.0, "12:30": 200.0, "12:45": 150.0} == home.of(GRID)


def test_another_base_within_one_slot() -> None:
    home = counter(("12:00", 100.0), ("12:05", 0.0), ("12:10", 0.1), ("12:20", 0.4), power=600.0)
    home.run("12:15", "12:30")
    assert {"12:15": 150.0, "12:30": 350.0} == home.of(GRID)


def test_one_reading_never_founds_another_base() -> None:
    home = counter(("12:00", 100.0), ("12:10", 0.0), power=800.0)
    home.run("12:15", "12:45")
    read(home, "12:50", 100.7, power=800.0)
    home.run("13:00", "13:00")
    assert {"12:15": 200.0, "12:30": 200.0, "12:45": 200.0, "13:00": 233.333} == home.of(GRID)


def test_a_counter_that_returns_was_never_away() -> None:
    home = counter(("12:00", 100.0), ("12:05", 500.0), ("12:10", 100.1), ("12:20", 100.2))
    home.run("12:15", "12:30")
    assert {"12:15": 100.0, "12:30": 100.0} == home.of(GRID)


def test_a_counter_that_returns_above_loses_nothing() -> None:
    home = counter(("12:00", 100.0), ("12:10", 50.0), ("12:25", 100.6))
    home.run("12:15", "12:30")
    assert {"12:30": 600.0} == home.of(GRID)


def test_a_reading_that_is_too_far_from_another_base_confirms_nothing() -> None:
    """0 was a glitch, and 99.9 is the old counter: nobody draws 99.9 kWh in five minutes."""
    home = counter(("12:00", 100.0), ("12:05", 0.0), ("12:10", 99.9), ("12:14", 100.1))
    home.run("12:15", "12:15")
    assert {"12:15": 100.0} == home.of(GRID)


def test_a_lower_reading_is_another_candidate() -> None:
    home = counter(("12:00", 100.0), ("12:05", 50.0), ("12:10", 0.0), ("12:20", 0.1), ("12:35", 0.3))
    home.run("12:15", "12:45")
    assert {"12:45": 200.0} == home.of(GRID)


@pytest.mark.parametrize(("step", "expected"), [(10.0, {"12:15": 10_000.0}), (10.001, {})])
def test_more_than_60_kw_is_another_meter(step: float, expected: dict[str, float]) -> None:
    home = counter(("12:00", 100.0), ("12:10", 100.0 + step))
    home.run("12:15", "12:30")
    assert expected == home.of(GRID)


def test_a_higher_base_is_confirmed_as_well() -> None:
    home = counter(("12:00", 100.0), ("12:10", 500.0), ("12:20", 500.2), ("12:35", 500.3))
    home.run("12:15", "12:45")
    assert {"12:45": 100.0} == home.of(GRID)


def test_the_day_counts_what_another_base_has_counted() -> None:
    home = Home(COUNTING)
    for hour in range(12):
        read(home, f"2 {hour:02}:00", 100.0 + hour)
    for hour in range(12, 24):
        read(home, f"2 {hour:02}:00", float(hour))
    read(home, "2 23:50", 23.5)
    home.tick("3 00:02")
    assert {"3 00:00": 11_000.0 + 11_500.0} == home.of(YESTERDAY), "nobody knows what was drawn from 11:00 to 12:00"


def test_the_day_counts_what_the_old_base_is_owed() -> None:
    rules = Rules(subscriptions={"sub-1": SubscriptionRule(meter_counter=True)}, min_coverage=0.01)
    home = Home(rules)
    read(home, "12:00", 100.0, power=1200.0)
    draw(home, "12:05", None)
    read(home, "12:06", 0.0)
    read(home, "12:14", 0.2)
    strict = Home(COUNTING)
    read(strict, "2 12:00", 100.0, power=1200.0)
    draw(strict, "2 12:05", None)
    read(strict, "2 12:06", 0.0)
    read(strict, "2 12:14", 0.2)
    home.run("12:15", "12:15")
    strict.run("2 12:15", "2 12:15")
    assert {"12:15": 100.0} == home.of(GRID), "the power is known for long enough to serve"
    assert {} == strict.of(GRID)
    assert 300.0 == strict.state.days[GRID].energy_wh
    assert 5 * 60.0 + 8 * 60.0 == strict.state.days[GRID].known_s


# ---- late readings --------------------------------------------------------------------------------------------------


def test_what_a_late_reading_counted_is_in_the_first_open_slot() -> None:
    home = counter(("12:00", 100.0))
    home.tick("12:18")
    read(home, "12:14", 100.4, received="12:19")
    read(home, "12:20", 100.5)
    home.run("12:30", "12:30")
    assert {"12:30": 500.0} == home.of(GRID)


def test_a_late_reading_is_held_against_what_the_power_had_made_of_its_time() -> None:
    """At 12:10 the power had drawn 200 Wh, the counter shows 250: the slot that is open gets the other 50."""
    home = Home(COUNTING)
    read(home, "12:00", 100.0, power=1200.0)
    home.tick("12:18")
    read(home, "12:10", 100.25, power=1200.0, received="12:19")
    home.run("12:30", "12:30")
    assert {"12:15": 300.0, "12:30": 350.0} == home.of(GRID)


def test_a_late_reading_over_two_slots() -> None:
    home = Home(COUNTING)
    read(home, "12:00", 100.0, power=1200.0)
    home.run("12:15", "12:30")
    read(home, "12:10", 100.15, power=1200.0, received="12:33")
    home.run("12:45", "12:45")
    assert {"12:15": 300.0, "12:30": 300.0, "12:45": 250.0} == home.of(GRID)


def test_a_late_reading_before_the_last_one_says_nothing() -> None:
    home = counter(("12:00", 100.0), ("12:14", 100.3))
    home.tick("12:18")
    read(home, "12:10", 100.9, received="12:19")
    read(home, "12:20", 100.4)
    home.run("12:30", "12:30")
    assert {"12:15": 300.0, "12:30": 100.0} == home.of(GRID)


def test_a_late_reading_far_below_what_was_sent_is_told_too() -> None:
    home = Home(COUNTING)
    read(home, "12:00", 100.0, power=9000.0)
    home.run("12:15", "12:30")
    read(home, "12:20", 100.5, power=9000.0, received="12:33")
    home.run("12:45", "12:45")
    assert (Flag.COUNTER_AGAINST_POWER,) == home.state.flags
    assert 2250.0 == home.of(GRID)["12:45"], "nothing is taken back, and the power goes on"


# ---- the household --------------------------------------------------------------------------------------------------


def test_rates_and_consumption_use_the_power() -> None:
    home = Home(COUNTING)
    home.say(PV, "12:00", 1000.0)
    read(home, "12:00", 100.0, power=400.0)
    read(home, "12:15", 100.3, power=400.0)
    home.tick("12:18")
    assert {"12:15": 300.0} == home.of(GRID)
    assert {"12:15": 350.0} == home.of(CONSUMPTION)
    assert {"12:15": 71.429} == home.of(EventType.SELF_SUFFICIENCY_RATE)


def test_without_inverter_and_battery_consumption_copies_the_grid_value_that_is_sent() -> None:
    home = counter(("12:00", 100.0), ("12:15", 100.3), ("12:29", 100.3), ("14:05", 101.9), power=400.0)
    home.run("12:15", "14:15")
    assert {"12:15": 300.0, "12:30": 6.667, "12:45": 100.0} == dict(list(home.of(GRID).items())[:3])
    assert "14:15" not in home.of(GRID)
    assert home.of(GRID) == home.of(CONSUMPTION)


def test_with_a_battery_consumption_does_not_copy() -> None:
    home = counter(("12:00", 100.0), ("12:15", 100.3), power=400.0)
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
    home = counter(("12:00", 100.0), ("12:15", 100.3), power=400.0, rules=rules)
    home.tick("12:18")
    assert {"12:15": expected} == home.of(GRID)


@pytest.mark.parametrize("role", [Role.LOAD, Role.SUB])
def test_the_counter_of_a_load_counts_for_its_own_events(role: Role) -> None:
    home = counter(("12:00", 100.0), ("12:10", 100.3), rules=Rules(devices={METER: MeterRule(role=role, counter=True)}))
    home.tick("12:18")
    assert {"12:15": 300.0} == home.of(CONSUMPTION, DeviceType.SMART_METER)
    assert ({"12:15": 300.0} if role is Role.LOAD else {}) == home.of(CONSUMPTION)


def test_a_load_meter_that_is_deleted_sends_what_its_counter_said() -> None:
    rules = Rules(devices={METER: MeterRule(role=Role.LOAD, counter=True)})
    home = counter(("12:00", 100.0), ("12:10", 100.3), ("12:25", 100.4), rules=rules)
    home.leave(METER, "12:31", Action.DELETE)
    assert {"12:15": 300.0, "12:30": 100.0} == home.of(CONSUMPTION, DeviceType.SMART_METER)
    home.run("12:15", "12:45")
    assert {"12:15": 300.0, "12:30": 100.0} == home.of(CONSUMPTION)


def test_a_load_meter_with_a_new_name_counts_on() -> None:
    rules = Rules(devices={METER: MeterRule(role=Role.LOAD, counter=True)})
    home = counter(("12:00", 100.0), ("12:14", 100.3), rules=rules)
    home.say(METER, "12:16", values=[(Quantity.COUNTER, 100_400.0)], facts=Facts(name="new", updated=at("12:16")))
    home.run("12:15", "12:30")
    assert {"12:15": 300.0, "12:30": 100.0} == home.of(CONSUMPTION, DeviceType.SMART_METER)
    assert {"12:15": 300.0, "12:30": 100.0} == home.of(CONSUMPTION)


TWO = Rules(
    devices={
        METER: MeterRule(role=Role.GRID, counter=True),
        METER2: MeterRule(role=Role.GRID, counter=True),
    },
    default_time_zone="UTC",
)


def test_two_grid_meters_count_together() -> None:
    home = counter(("12:00", 100.0), ("12:15", 100.3), power=400.0, rules=TWO)
    read(home, "12:00", 5.0, power=200.0, meter=METER2)
    read(home, "12:15", 5.1, power=200.0, meter=METER2)
    home.run("12:15", "12:30")
    assert {"12:15": 400.0, "12:30": 150.0} == home.of(GRID)


def test_two_grid_meters_say_nothing_while_one_of_them_is_withheld() -> None:
    home = counter(("12:00", 100.0), ("12:14", 100.3), rules=TWO)
    read(home, "12:00", 5.0, meter=METER2)
    home.run("12:15", "12:15")
    assert {} == home.of(GRID)


def test_two_grid_meters_of_which_one_does_not_count_go_by_their_powers() -> None:
    rules = Rules(devices={METER: MeterRule(role=Role.GRID, counter=True), METER2: MeterRule(role=Role.GRID)})
    home = counter(("12:00", 100.0), ("12:15", 100.3), power=400.0, rules=rules)
    read(home, "12:00", 5.0, power=200.0, meter=METER2)
    home.run("12:15", "12:15")
    assert {"12:15": 150.0} == home.of(GRID)


def test_the_day_of_two_grid_meters_is_known_as_far_as_that_of_either() -> None:
    home = Home(TWO)
    for hour in range(24):
        read(home, f"2 {hour:02}:00", 100.0 + hour)
        read(home, f"2 {hour:02}:05", 10.0 + hour, meter=METER2)
    read(home, "3 00:00", 124.0)
    read(home, "3 00:00", 34.0, meter=METER2)
    home.tick("3 00:02")
    assert {"3 00:00": 48_000.0} == home.of(YESTERDAY)


def test_a_meter_that_is_deleted_counts_to_its_end() -> None:
    home = counter(("12:00", 100.0), ("12:10", 100.3), power=400.0)
    home.leave(METER, "12:14", Action.DELETE)
    home.tick("12:18")
    assert {"12:15": 326.667} == home.of(GRID)


def test_a_meter_that_takes_the_place_of_another_counts_on() -> None:
    home = counter(("12:00", 100.0), ("12:05", 100.1))
    home.leave(METER, "12:05:01", Action.DELETE)
    read(home, "12:05:01", 7.0, meter=METER2)
    read(home, "12:15", 7.3, meter=METER2)
    home.run("12:15", "12:15")
    assert {"12:15": 400.0} == home.of(GRID)


def test_a_counter_that_is_not_looked_at_any_more_begins_anew() -> None:
    home = counter(("12:00", 100.0), ("12:10", 100.3))
    home.run("12:15", "12:15")
    home.rules = Rules()
    draw(home, "12:16", 400.0)
    home.run("12:30", "12:30")
    assert home.state.devices["sub-1/meter:meter"].level is None


def test_a_counter_that_waits_for_its_first_reading_holds_nothing_up() -> None:
    home = Home(Rules(devices={METER: MeterRule(counter=True)}, hold=timedelta(hours=1)))
    draw(home, "12:00", 400.0)
    home.run("12:15", "12:15")
    assert {"12:15": 100.0} == home.of(GRID)
    assert home.state.devices["sub-1/meter:meter"].level is None
