"""The local day and its sums (mapping rule M5.8)."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from bridge.core.days import day_end, day_start
from bridge.core.messages import Facts, Readdressed
from bridge.core.model import Residence
from bridge.core.rules import Rules, Stamp
from bridge.core.slots import due
from bridge.core.vocabulary import Action, DeviceType, EventType
from tests.core.homes import BATTERY, CHARGER, METER, PUMP, PV, Home, at

QUARTER = timedelta(minutes=15)
UTC_RULES = Rules(default_time_zone="UTC")
STEADY = timedelta(days=3)


def day_of(zone: str, year: int, month: int, day: int) -> tuple[datetime, datetime]:
    """Return the first instants of a local day and of the next, found by looking at every quarter hour."""
    quarters = (datetime(year, month, day, tzinfo=UTC) - timedelta(days=1) + QUARTER * n for n in range(96 * 3))
    wanted = date(year, month, day)
    inside = [quarter for quarter in quarters if quarter.astimezone(ZoneInfo(zone)).date() == wanted]
    return inside[0], inside[-1] + QUARTER


# ---- calendars (M5.8) -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "day", "slots"),
    [
        ("Europe/Berlin", (2025, 3, 30), 92),
        ("Europe/Berlin", (2025, 10, 26), 100),
        ("Europe/Berlin", (2025, 12, 31), 96),
        ("Asia/Kathmandu", (2025, 6, 15), 96),
        ("Australia/Lord_Howe", (2025, 10, 5), 94),
        ("Australia/Lord_Howe", (2025, 4, 6), 98),
        ("America/St_Johns", (2025, 3, 9), 92),
        ("Africa/Cairo", (2025, 4, 25), 92),  # the day begins at 01:00
        ("America/Havana", (2025, 11, 2), 100),  # 00:00 comes twice
        ("UTC", (2025, 2, 28), 96),
    ],
)
def test_a_day_has_as_many_slots_as_quarters_between_its_ends(zone: str, day: tuple[int, int, int], slots: int) -> None:
    start, end = day_of(zone, *day)
    assert slots == (end - start) // QUARTER
    home = Home(Rules(default_time_zone=zone, hold=STEADY, hold_active=STEADY))
    home.say(PV, start - QUARTER, 400.0)
    tick = end + timedelta(minutes=2)
    home.tick(tick)
    days = {event.at: event.value for event in home.events if event.type is EventType.ENERGY_GENERATION_YESTERDAY}
    assert 400.0 * slots / 4 == days[end]
    assert slots == len([e for e in home.events if e.type is EventType.ENERGY_GENERATION and start < e.at <= end])


@pytest.mark.parametrize(
    "zone", ["Europe/Berlin", "Asia/Kathmandu", "Australia/Lord_Howe", "Africa/Cairo", "America/Havana"]
)
def test_every_instant_of_a_year_has_its_day(zone: str) -> None:
    info = ZoneInfo(zone)
    quarter = datetime(2024, 12, 31, tzinfo=UTC)
    start, end = day_start(quarter, info), day_end(quarter, info)
    while quarter < datetime(2026, 1, 2, tzinfo=UTC):
        if quarter == end:
            start, end = end, day_end(quarter, info)
        assert (start, end) == (day_start(quarter, info), day_end(quarter, info))
        quarter += QUARTER


@pytest.mark.parametrize(("day", "known", "sent"), [((2025, 3, 30), 92, True), ((2025, 10, 26), 97, False)])
def test_the_share_of_known_time_is_one_of_the_day_s_own_length(
    day: tuple[int, int, int],
    known: int,
    sent: bool,  # noqa: FBT001
) -> None:
    """98 % of a day of 23 h are less than of one of 24 h, of one of 25 h more."""
    start, end = day_of("Europe/Berlin", *day)
    home = Home(Rules(default_time_zone="Europe/Berlin", min_coverage=0.98, hold_active=STEADY))
    home.say(PV, start, 400.0)
    home.say(PV, start + QUARTER * known, None)
    home.tick(end + timedelta(minutes=2))
    assert sent is (EventType.ENERGY_GENERATION_YESTERDAY in home.types())


def test_the_last_day_of_the_year_ends_with_the_year() -> None:
    home = Home(Rules(default_time_zone="Europe/Berlin", hold=STEADY))
    midnight = datetime(2025, 12, 31, 23, 0, tzinfo=UTC)
    home.say(PV, midnight - timedelta(days=1), 0.0)
    home.tick(midnight + timedelta(minutes=2))
    days = [event for event in home.events if event.type is EventType.ENERGY_GENERATION_YESTERDAY]
    assert [(midnight, 0.0)] == [(event.at, event.value) for event in days]


# ---- values (M5.8) --------------------------------------------------------------------------------------------------


def full_day(rules: Rules = UTC_RULES) -> Home:
    """Return a home after the second of the month, with every slot of it known."""
    home = Home(rules)
    for hour in range(24):
        sun = 2000.0 if 8 <= hour < 16 else 0.0
        home.say(PV, f"2 {hour}:00", sun)
        home.say(BATTERY, f"2 {hour}:00", 500.0 if sun else -200.0)
        home.say(METER, f"2 {hour}:00", -1000.0 if sun else 300.0)
        home.say(PUMP, f"2 {hour}:00", 100.0, facts=Facts(type="HEATPUMP"))
        home.say(CHARGER, f"2 {hour}:00", 50.0)
    home.tick("3 00:02")
    return home


def yesterday(home: Home) -> dict[tuple[str, str], float]:
    return {(e.source.value, e.type.value): e.value for e in home.events if e.type.value.endswith("_YESTERDAY")}


def test_a_day_sends_every_yesterday_that_moost_has() -> None:
    home = full_day()
    assert {
        ("GATEWAY", "ENERGY_GENERATION_YESTERDAY"): 16000.0,
        ("GATEWAY", "GRID_ENERGY_CONSUMPTION_YESTERDAY"): 4800.0,
        ("GATEWAY", "ENERGY_EXCESS_YESTERDAY"): 8000.0,
        ("GATEWAY", "ENERGY_CONSUMPTION_YESTERDAY"): 12000.0,
        ("GATEWAY", "SELF_CONSUMPTION_RATE_YESTERDAY"): 50.0,
        ("GATEWAY", "SELF_SUFFICIENCY_RATE_YESTERDAY"): 60.0,
        ("BATTERY", "ENERGY_IMPORT_YESTERDAY"): 4000.0,
        ("BATTERY", "ENERGY_EXPORT_YESTERDAY"): 3200.0,
        ("HEAT_PUMP", "ENERGY_CONSUMPTION_YESTERDAY"): 2400.0,
        ("CAR_CHARGER", "ENERGY_CONSUMPTION_YESTERDAY"): 1200.0,
    } == yesterday(home)


@pytest.mark.parametrize("stamp", list(Stamp))
def test_a_day_carries_the_first_instant_of_the_new_day_however_slots_are_stamped(stamp: Stamp) -> None:
    home = full_day(Rules(default_time_zone="UTC", stamp=stamp))
    assert {at("3 00:00")} == {event.at for event in home.events if event.type.value.endswith("_YESTERDAY")}


def test_a_day_leaves_with_the_close_of_its_last_slot() -> None:
    home = Home(UTC_RULES)
    home.say(PUMP, "2 00:00", 0.0)
    home.tick("3 00:01:59")
    assert {} == yesterday(home)
    home.tick("3 00:02")
    assert [("APPLIANCE", "ENERGY_CONSUMPTION_YESTERDAY")] == list(yesterday(home))


def test_a_day_sums_slots_that_were_not_sent() -> None:
    home = Home(Rules(default_time_zone="UTC", hold_active=STEADY))
    home.say(PV, "2 00:00", 400.0)
    home.say(PV, "2 12:05", None)
    home.say(PV, "2 12:10", 400.0)
    home.tick("3 00:02")
    assert "2 12:15" not in home.of(EventType.ENERGY_GENERATION)
    assert {"3 00:00": 9566.667} == home.of(EventType.ENERGY_GENERATION_YESTERDAY)


def test_a_day_sums_unrounded_values() -> None:
    home = Home(Rules(default_time_zone="UTC", hold_active=STEADY))
    home.say(PV, "2 00:00", 0.0016)  # 0.0004 Wh a slot: each leaves as 0
    home.tick("3 00:02")
    assert {0.0} == set(home.of(EventType.ENERGY_GENERATION).values())
    assert {"3 00:00": 0.038} == home.of(EventType.ENERGY_GENERATION_YESTERDAY)


@pytest.mark.parametrize(("first", "sent"), [("2 02:24", True), ("2 02:24:01", False)])
def test_a_day_needs_the_same_share_of_known_time(first: str, sent: bool) -> None:  # noqa: FBT001
    home = Home(Rules(default_time_zone="UTC", hold_active=STEADY))
    home.say(PV, first, 400.0)
    home.say(CHARGER, first, 0.0)
    home.tick("3 00:02")
    assert sent is bool(home.of(EventType.ENERGY_GENERATION_YESTERDAY))
    assert sent is bool(home.of(EventType.ENERGY_CONSUMPTION_YESTERDAY, DeviceType.CAR_CHARGER))


def test_a_day_of_less_than_a_watt_hour_has_no_rates() -> None:
    home = Home(UTC_RULES)
    home.say(PV, "2 00:00", 0.0)
    home.say(METER, "2 00:00", 0.0)
    home.tick("3 00:02")
    assert {type_ for _, type_ in yesterday(home) if "RATE" in type_} == set()


def test_a_new_day_begins_with_nothing() -> None:
    home = full_day()
    home.say(PUMP, "3 00:00", 0.0)
    home.leave(PV, "3 00:00", Action.DELETE)
    home.leave(BATTERY, "3 00:00", Action.DELETE)
    home.leave(METER, "3 00:00", Action.DELETE)
    home.leave(CHARGER, "3 00:00", Action.DELETE)
    home.events.clear()
    home.tick("4 00:02")
    assert {("HEAT_PUMP", "ENERGY_CONSUMPTION_YESTERDAY"): 0.0} == yesterday(home)


def test_a_device_that_is_deleted_has_no_yesterday() -> None:
    home = Home(UTC_RULES)
    home.say(PUMP, "2 00:00", 0.0)
    home.leave(PUMP, "2 23:59", Action.DELETE)
    home.tick("3 00:02")
    assert {} == yesterday(home)


@pytest.mark.parametrize(
    ("zone", "expected"),
    [
        ("Africa/Abidjan", {"3 00:00": 9600.0}),  # on UTC as well: the same days
        ("Asia/Tokyo", {}),  # of the day that ends there nine hours were summed up on another calendar
        ("America/New_York", {}),
    ],
)
def test_a_day_on_two_calendars_has_no_sums(zone: str, expected: dict[str, float]) -> None:
    home = Home(UTC_RULES)
    for hour in range(30):
        if hour == 10:
            home.residence = Residence(user="user", location=None, building="home", attributes={"timeZoneId": zone})
            home.feed(Readdressed(received=at("2 10:00")))
        home.say(PUMP, f"2 {hour}:00", 400.0)
        home.run(f"2 {hour}:00", f"2 {hour}:45")
    assert expected == home.of(EventType.ENERGY_CONSUMPTION_YESTERDAY, DeviceType.APPLIANCE)


def test_a_day_closes_though_nothing_is_known_any_more() -> None:
    home = Home(Rules(default_time_zone="UTC", min_coverage=0.5, hold=timedelta(hours=13), spread=timedelta(0)))
    home.say(PUMP, "2 00:00", 0.0)
    home.run("2 00:15", "2 23:45")
    assert "2 13:00" == list(home.of(EventType.ENERGY_CONSUMPTION, DeviceType.APPLIANCE))[-1]
    assert at("3 00:02") == due(home.state, home.rules)
    home.tick("3 00:02")
    assert {("APPLIANCE", "ENERGY_CONSUMPTION_YESTERDAY"): 0.0} == yesterday(home)
    assert due(home.state, home.rules) is None


def test_a_day_whose_building_named_two_places_in_the_end_sends_nothing_of_the_household() -> None:
    home = Home(UTC_RULES)
    home.say(PV, "2 00:00", 0.0, location="here")
    home.say(PUMP, "2 00:00", 0.0, location="here")
    home.run("2 00:15", "2 23:45")
    home.say(CHARGER, "2 23:46", 0.0, location="there")
    home.tick("3 00:02")
    assert {("APPLIANCE", "ENERGY_CONSUMPTION_YESTERDAY"): 0.0} == yesterday(home)
