"""Holding and ends of values (mapping rules M0.4, M0.5, M4.3, M5.2), and the step functions beneath."""

from datetime import timedelta

import pytest

from bridge.core.intervals import Piece, insert, merged, pieces, slot_of, trim, value_before
from bridge.core.messages import Facts, Quantity, Value
from bridge.core.model import Sample
from bridge.core.rules import Rules
from bridge.core.vocabulary import Action, DeviceType, EventType, Kind
from tests.core.homes import BATTERY, CAR, CHARGER, METER, PUMP, PV, Home, at

GENERATION = EventType.POWER_GENERATION
CONSUMPTION = EventType.POWER_CONSUMPTION

HOUR = timedelta(hours=1)


def last_power(home: Home, source: DeviceType = DeviceType.GATEWAY, type_: EventType = GENERATION) -> str:
    return list(home.of(type_, source))[-1]


# ---- how long a value holds (M5.2) ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "type_", "source", "until"),
    [
        (PV, GENERATION, DeviceType.GATEWAY, "13:00"),
        (METER, EventType.GRID_POWER_CONSUMPTION, DeviceType.GATEWAY, "13:00"),
        (CHARGER, CONSUMPTION, DeviceType.CAR_CHARGER, "18:00"),
        (CAR, CONSUMPTION, DeviceType.CAR, "18:00"),
        (PUMP, CONSUMPTION, DeviceType.APPLIANCE, "18:00"),
    ],
)
def test_a_power_that_flows_holds_as_long_as_its_kind_may_be_silent(
    device: tuple[Kind, str], type_: EventType, source: DeviceType, until: str
) -> None:
    home = Home()
    home.say(device, "12:00", 500.0)
    home.run("12:15", "2 15:00")
    assert until == last_power(home, source, type_)


@pytest.mark.parametrize(
    ("device", "type_", "source"),
    [
        (METER, EventType.GRID_POWER_CONSUMPTION, DeviceType.GATEWAY),
        (CHARGER, CONSUMPTION, DeviceType.CAR_CHARGER),
        (PUMP, CONSUMPTION, DeviceType.APPLIANCE),
    ],
)
def test_zero_power_holds_a_day(device: tuple[Kind, str], type_: EventType, source: DeviceType) -> None:
    home = Home()
    home.say(device, "12:00", 0.0)
    home.run("12:15", "3 15:00")
    assert "2 12:00" == last_power(home, source, type_)
    assert 96 == len(home.of(type_, source))


def test_a_battery_that_works_holds_an_hour() -> None:
    home = Home()
    home.say(BATTERY, "12:00", -500.0)
    home.run("12:15", "2 15:00")
    assert {f"{clock}": 125.0 for clock in ("12:15", "12:30", "12:45", "13:00")} == home.of(
        EventType.ENERGY_EXPORT, DeviceType.BATTERY
    )


def test_temperatures_hold_a_day() -> None:
    home = Home()
    home.say(PUMP, "12:00", values=[(Quantity.TEMPERATURE, 21.5)], facts=Facts(type="THERMOSTAT"))
    home.run("12:15", "3 15:00")
    assert "2 12:00" == last_power(home, DeviceType.THERMOSTAT, EventType.TEMPERATURE)


def test_the_limits_are_settings() -> None:
    home = Home(Rules(hold=timedelta(hours=2), hold_active=timedelta(minutes=30)))
    home.say(PV, "12:00", 500.0)
    home.say(METER, "12:00", 0.0)
    home.run("12:15", "18:00")
    assert "12:30" == last_power(home)
    assert "14:00" == last_power(home, type_=EventType.GRID_POWER_CONSUMPTION)


def test_a_limit_counts_from_the_newest_stamp_that_still_carries_the_value() -> None:
    home = Home()
    home.say(PV, "12:00", 500.0)
    home.say(PV, "12:00", 500.0, stamp="12:40")
    home.run("12:15", "18:00")
    assert "13:30" == last_power(home)  # known until 13:40: not at 13:45


def test_an_older_message_that_comes_later_does_not_shorten_a_limit() -> None:
    home = Home()
    home.say(PV, "12:00", 500.0, stamp="12:40", updated="12:00")
    home.say(PV, "12:00", 500.0, stamp="12:20", updated="12:00", received="12:41")
    home.run("12:15", "18:00")
    assert "13:30" == last_power(home)


def test_a_value_that_comes_again_with_a_newer_block_counts_anew() -> None:
    home = Home()
    home.say(PV, "12:00", 500.0)
    home.say(PV, "12:50", 500.0)
    home.run("12:15", "18:00")
    assert "13:45" == last_power(home)


# ---- what ends a value (M0.1, M0.5, M4.3) ---------------------------------------------------------------------------


def test_a_null_ends_the_value_at_the_time_of_its_block() -> None:
    home = Home()
    home.say(PV, "12:00", 400.0)
    home.say(PV, "12:29", None)
    home.run("12:15", "13:00")
    assert {"12:15": 400.0} == home.of(GENERATION)
    assert {"12:15": 100.0, "12:30": 93.333} == home.of(EventType.ENERGY_GENERATION)  # 14 of 15 minutes, not scaled


def test_a_block_that_is_missing_changes_nothing() -> None:
    home = Home()
    home.say(PV, "12:00", 400.0)
    home.say(PV, "12:10", silent=True)
    home.run("12:15", "12:30")
    assert {"12:15": 400.0, "12:30": 400.0} == home.of(GENERATION)


@pytest.mark.parametrize("action", [Action.OFFLINE, Action.DISCONNECT])
def test_a_device_that_leaves_ends_its_value_at_the_stamp(action: Action) -> None:
    home = Home()
    home.say(PV, "12:00", 400.0)
    home.leave(PV, "12:29", action, received="12:31")
    home.run("12:15", "13:00")
    assert {"12:15": 100.0, "12:30": 93.333} == home.of(EventType.ENERGY_GENERATION)


def test_a_stamp_that_is_no_news_ends_the_value_at_the_receipt() -> None:
    home = Home()
    home.say(PV, "12:00", 400.0)
    home.leave(PV, "12:00", received="12:29")
    home.run("12:15", "13:00")
    assert {"12:15": 100.0, "12:30": 93.333} == home.of(EventType.ENERGY_GENERATION)


def test_a_body_that_says_it_is_offline_brings_no_values() -> None:
    home = Home()
    home.say(PUMP, "12:00", 400.0)
    home.say(PUMP, "12:14:30", 900.0, online=False)
    home.run("12:15", "12:45")
    assert {} == home.of(CONSUMPTION, DeviceType.APPLIANCE)
    assert {"12:15": 96.667} == home.of(EventType.ENERGY_CONSUMPTION, DeviceType.APPLIANCE)


def test_a_device_that_is_back_is_known_again_although_nothing_changed_meanwhile() -> None:
    """The block's own time is older than the absence: what it still carries counts from the message's stamp."""
    home = Home()
    home.say(CHARGER, "12:00", 0.0)
    home.leave(CHARGER, "12:20")
    home.say(CHARGER, "12:00", 0.0, stamp="12:40")
    home.say(CHARGER, "12:00", 0.0, stamp="13:40")
    home.run("12:15", "2 15:00")
    found = list(home.of(CONSUMPTION, DeviceType.CAR_CHARGER))
    assert ["12:15", "12:45", "13:00"] == found[:3]
    assert "2 13:30" == found[-1]  # a day after the newest stamp that carries it
    assert [] == home.notes


def test_only_a_message_that_says_online_brings_a_device_back() -> None:
    home = Home()
    home.say(CHARGER, "12:00", 0.0)
    home.leave(CHARGER, "12:20")
    home.say(CHARGER, "12:00", 0.0, stamp="12:40", online=None)
    home.run("12:15", "13:00")
    assert {"12:15": 0.0} == home.of(CONSUMPTION, DeviceType.CAR_CHARGER)


def test_a_disconnected_device_that_is_back_is_known_again() -> None:
    home = Home()
    home.say(CHARGER, "12:00", 0.0)
    home.leave(CHARGER, "12:20", Action.DISCONNECT)
    home.say(CHARGER, "12:00", 0.0, stamp="12:40", action=Action.CONNECT)
    home.run("12:15", "13:00")
    assert {"12:15": 0.0, "12:45": 0.0, "13:00": 0.0} == home.of(CONSUMPTION, DeviceType.CAR_CHARGER)


def test_a_null_that_came_before_does_not_end_with_an_older_value() -> None:
    home = Home()
    home.say(PUMP, "12:00", 400.0)
    home.say(PUMP, "12:05", None)
    home.say(PUMP, "12:01", 500.0, stamp="12:06")
    home.run("12:15", "12:30")
    assert {} == home.of(CONSUMPTION, DeviceType.APPLIANCE)


def test_an_inverter_that_goes_offline_at_zero_sleeps_without_limit() -> None:
    home = Home()
    home.say(PV, "12:00", 0.0)
    home.leave(PV, "13:00")
    home.run("12:15", "4 12:00")
    assert 3 * 96 == len(home.of(GENERATION))


def test_a_sleeping_inverter_sleeps_on_when_it_is_said_to_be_offline_again() -> None:
    home = Home()
    home.say(PV, "12:00", 0.0)
    home.leave(PV, "13:00")
    home.leave(PV, "2 11:00")
    home.run("12:15", "4 12:00")
    assert 3 * 96 == len(home.of(GENERATION))


def test_a_sleeping_inverter_wakes_with_its_next_message() -> None:
    home = Home()
    home.say(PV, "12:00", 0.0)
    home.leave(PV, "13:00")
    home.run("12:15", "2 06:00")
    home.say(PV, "2 06:14", silent=True)
    home.run("2 06:15", "2 08:00")
    assert "2 06:00" == last_power(home)
    assert "2 06:15" == list(home.of(EventType.ENERGY_GENERATION))[-1]


def test_an_inverter_that_wakes_and_still_says_zero_stays_known() -> None:
    home = Home()
    home.say(PV, "12:00", 0.0)
    home.leave(PV, "13:00")
    home.run("12:15", "2 06:00")
    home.say(PV, "12:00", 0.0, stamp="2 06:14")
    home.run("2 06:15", "4 06:00")
    assert "4 06:00" == last_power(home)
    assert [] == home.notes


def test_the_zero_of_a_sleeping_inverter_ends_with_its_first_power() -> None:
    home = Home()
    home.say(PV, "12:00", 0.0)
    home.leave(PV, "13:00")
    home.run("12:15", "2 06:00")
    home.say(PV, "2 06:05", 600.0, stamp="2 06:05")
    home.run("2 06:15", "2 06:15")
    assert 100.0 == home.of(EventType.ENERGY_GENERATION)["2 06:15"]


def test_disconnect_ends_the_sleep() -> None:
    home = Home()
    home.say(PV, "12:00", 0.0)
    home.leave(PV, "13:00")
    home.leave(PV, "13:29", Action.DISCONNECT)
    home.run("12:15", "15:00")
    assert "13:15" == last_power(home)


def test_an_inverter_that_goes_offline_while_it_produces_is_unknown() -> None:
    home = Home()
    home.say(PV, "12:00", 51.0)
    home.leave(PV, "12:16")
    home.run("12:15", "15:00")
    assert {"12:15": 51.0} == home.of(GENERATION)


# ---- dusk (M4.3) ----------------------------------------------------------------------------------------------------

STATE = Quantity.STATE
NULLS = ((Quantity.POWER, None), (STATE, None))
IDLE = ((Quantity.POWER, 0.0), (STATE, "IDLE"))  # what a null beside IDLE becomes


def energies(home: Home) -> dict[str, float]:
    """Return the energies that the inverters generated."""
    return home.of(EventType.ENERGY_GENERATION)


@pytest.mark.parametrize("watt", [0.0, 12.0, 50.0])
@pytest.mark.parametrize("how", ["offline", "idle", "nulls", "silent"])
def test_the_last_watts_at_dusk_become_night_without_limit(how: str, watt: float) -> None:
    home = Home()
    home.say(PV, "18:00", 900.0)
    home.say(PV, "18:30", watt)
    if how == "offline":
        home.leave(PV, "19:00")
    elif how != "silent":
        home.say(PV, "19:00", values=IDLE if how == "idle" else NULLS)
    home.run("18:15", "4 06:00")
    ends = "19:30" if how == "silent" else "19:00"  # up to then they were told
    told = [when for when in energies(home) if when <= ends and " " not in when and when > "18:30"]
    assert {watt / 4} == {energies(home)[when] for when in told}
    night = [when for when in energies(home) if when not in {*told, "18:15", "18:30"}]
    assert ({0.0}, 4 * 60 - 2 - len(told)) == ({energies(home)[when] for when in night}, len(night))
    assert "4 06:00" == last_power(home)
    home.say(PV, "4 06:20", 300.0)
    home.run("4 06:15", "4 06:30")
    assert 50.0 == energies(home)["4 06:30"]


@pytest.mark.parametrize(("largest", "watt", "night"), [(3000.0, 50.0, True), (3000.0, 50.1, False),
    (9000.0, 90.0, True), (9000.0, 90.1, False), (60.0, 50.0, True)])  # fmt: skip
def test_at_dusk_a_hundredth_of_the_largest_power_is_as_good_as_nothing(
    largest: float,
    watt: float,
    night: bool,  # noqa: FBT001
) -> None:
    home = Home()
    home.say(PV, "12:00", largest)
    home.say(PV, "12:20", watt)
    home.leave(PV, "12:30")
    home.run("12:15", "18:00")
    assert ("18:00" if night else "12:30") == last_power(home)


@pytest.mark.parametrize("state", ["PRODUCING", "FAULT"])
def test_a_null_beside_a_word_is_no_night(state: str) -> None:
    home = Home()
    home.say(PV, "12:00", 12.0)
    home.say(PV, "12:20", values=[(Quantity.POWER, None), (STATE, state)])
    home.run("12:15", "15:00")
    assert "12:15" == last_power(home)


def test_a_power_outside_its_limits_is_no_night() -> None:
    home = Home()
    home.say(PV, "12:00", 12.0)
    home.say(PV, "12:20", beyond=2e6)
    home.run("12:15", "15:00")
    assert "12:15" == last_power(home)


def test_a_power_that_comes_with_idle_counts_as_told() -> None:
    home = Home()
    home.say(PV, "12:00", values=[(Quantity.POWER, 40.0), (STATE, "IDLE")])
    home.tick("12:18")
    assert {"12:15": 10.0} == energies(home)


def test_nulls_after_a_day_at_work_are_no_night() -> None:
    home = Home()
    home.say(PV, "12:05", values=NULLS)
    home.say(PV, "12:00", 900.0)
    home.run("12:15", "15:00")
    assert set() == home.types()


def test_nulls_that_arrive_before_the_last_watts_are_night_all_the_same() -> None:
    home = Home()
    home.say(PV, "12:05", values=NULLS)
    home.say(PV, "12:00", 12.0)
    home.run("12:15", "15:00")
    assert "15:00" == last_power(home)


def test_watts_that_are_repeated_after_their_slot_has_closed_make_no_night_of_a_later_null() -> None:
    home = Home()
    home.say(PV, "12:00", 12.0)
    home.say(PV, "12:33", 1062.0)
    home.say(PV, "12:42", values=NULLS)
    home.tick("12:47")
    home.say(PV, "12:00", 12.0, received="12:48")
    home.run("13:00", "15:00")
    assert "12:30" == last_power(home)


def test_night_goes_on_while_an_inverter_says_nothing_but_nulls() -> None:
    home = Home()
    home.say(PV, "12:00", 12.0)
    home.say(PV, "12:20", values=NULLS)
    home.say(PV, "12:20", values=NULLS, stamp="13:00")
    home.say(PV, "14:00", values=NULLS)
    home.leave(PV, "14:30")
    home.say(PV, "14:00", values=NULLS, stamp="15:00")
    home.run("12:15", "16:00")
    assert "16:00" == last_power(home)


def test_the_night_of_a_silent_inverter_ends_with_a_message_that_tells_no_power() -> None:
    home = Home()
    home.say(PV, "12:00", 12.0)
    home.say(PV, "12:50", silent=True)  # while it still held
    home.run("12:15", "14:00")
    home.say(PV, "14:05", silent=True)
    home.run("14:15", "15:00")
    assert "14:00" == last_power(home)


def test_watts_that_are_told_again_at_night_hold_from_then_on() -> None:
    home = Home()
    home.say(PV, "12:00", 40.0)
    home.say(PV, "12:00", 40.0, stamp="14:05")
    home.say(PV, "12:00", 40.0, stamp="14:35")
    assert 2 == len(home.state.devices["sub-1/pv-inverter:pv"].series[Quantity.POWER])
    home.run("12:15", "16:00")
    assert (10.0, 0.0, 6.667, 10.0, 3.333, 0.0) == tuple(
        energies(home)[when] for when in ("13:00", "13:15", "14:15", "15:00", "15:45", "16:00")
    )


def test_disconnect_at_dusk_is_no_night() -> None:
    home = Home()
    home.say(PV, "12:00", 12.0)
    home.leave(PV, "12:16", Action.DISCONNECT)
    home.run("12:15", "15:00")
    assert "12:15" == last_power(home)


def test_another_device_s_few_watts_are_no_night() -> None:
    home = Home()
    home.say(METER, "12:00", 12.0)
    home.leave(METER, "12:16")
    home.run("12:15", "15:00")
    assert "12:15" == last_power(home, type_=EventType.GRID_POWER_CONSUMPTION)


def test_another_device_that_goes_offline_at_zero_is_unknown() -> None:
    home = Home()
    home.say(METER, "12:00", 0.0)
    home.leave(METER, "12:16")
    home.run("12:15", "15:00")
    assert {"12:15": 0.0} == home.of(EventType.GRID_POWER_CONSUMPTION)


def test_repeated_absence_does_not_fill_the_state() -> None:
    home = Home()
    home.say(CHARGER, "12:00", values=[(Quantity.POWER, 0.0), (Quantity.STATE, "UNPLUGGED")])
    for minute in range(1, 30):
        home.leave(CHARGER, f"12:{minute:02}")
    assert all(3 >= len(series) for series in home.state.devices["sub-1/charger:charger"].series.values())


# ---- order (M0.4) ---------------------------------------------------------------------------------------------------


def test_the_greater_object_time_wins_at_one_instant() -> None:
    home = Home()
    home.say(PUMP, "12:00", 100.0, stamp="12:03", updated="12:02")
    home.say(PUMP, "12:00", 200.0, stamp="12:03", updated="12:01")
    home.tick("12:18")
    assert {"12:15": 100.0} == home.of(CONSUMPTION, DeviceType.APPLIANCE)


def test_the_later_accepted_wins_where_all_times_are_equal() -> None:
    home = Home()
    home.say(PUMP, "12:00", 100.0)
    home.say(PUMP, "12:00", 200.0)
    home.tick("12:18")
    assert {"12:15": 200.0} == home.of(CONSUMPTION, DeviceType.APPLIANCE)


# ---- the step functions ---------------------------------------------------------------------------------------------


def sample(when: str, value: Value | None, seen: str | None = None, number: int = 0) -> Sample:
    return Sample(at(when), value, at(seen or when), at(when), number)


def an_hour(_: Value) -> timedelta:
    return HOUR


def test_a_slot_begins_on_the_quarter_of_utc() -> None:
    assert at("12:15") == slot_of(at("12:15"))
    assert at("12:15") == slot_of(at("12:29:59.999999"))


def test_samples_stand_in_order_of_time_whatever_their_arrival() -> None:
    one, two, three, four = (sample(f"12:0{minute}", float(minute)) for minute in range(1, 5))
    assert (one, two, three, four) == insert(insert(insert((two,), four, None), one, None), three, None)


def test_a_series_forgets_what_lies_before_the_sample_that_counts_at_its_first_open_slot() -> None:
    one, two, three = (sample(f"12:{minute}", 1.0) for minute in (10, 20, 30))
    assert (two, three) == trim((one, two, three), at("12:29"))
    assert (three,) == trim((one, two, three), at("12:30"))
    assert (one, two, three) == trim((one, two, three), at("12:00"))
    assert () == trim((), at("12:00"))


def test_a_value_is_known_before_an_instant_until_its_limit_ends() -> None:
    series = (sample("12:00", 5.0),)
    assert value_before(series, at("12:00"), an_hour) is None
    assert 5.0 == value_before(series, at("13:00"), an_hour)
    assert value_before(series, at("13:00:00.000001"), an_hour) is None


def test_words_have_no_pieces() -> None:
    assert [] == pieces((sample("12:00", "IDLE"),), at("12:00"), at("12:15"), an_hour)


def test_pieces_end_with_the_slot_the_limit_or_the_next_sample() -> None:
    series = (sample("11:20", 1.0), sample("12:05", 2.0), sample("12:10", None), sample("12:20", 3.0))
    assert [Piece(0.0, 300.0, 1.0), Piece(300.0, 600.0, 2.0)] == pieces(series, at("12:00"), at("12:15"), an_hour)
    expired = (sample("11:01", 1.0),)
    assert [Piece(0.0, 60.0, 1.0)] == pieces(expired, at("12:00"), at("12:15"), an_hour)


def test_common_stretches_end_where_any_track_changes() -> None:
    tracks = [[Piece(0.0, 300.0, 1.0), Piece(300.0, 900.0, 2.0)], [Piece(60.0, 600.0, 3.0)]]
    ends = [
        (0.0, 60.0, [1.0, None]),
        (60.0, 300.0, [1.0, 3.0]),
        (300.0, 600.0, [2.0, 3.0]),
        (600.0, 900.0, [2.0, None]),
    ]
    assert ends == list(merged(tracks))
