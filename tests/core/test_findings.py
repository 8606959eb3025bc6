"""What is wrong with a household is told: which device, and the setting that would mend it (M4.2, M4.5)."""

from datetime import timedelta

from bridge.core.findings import FLAGS, changes, finding, marked
from bridge.core.model import Building, Flag
from bridge.core.rules import MeterRule, Role, Rules, SubscriptionRule
from bridge.core.vocabulary import Action, Kind
from tests.core.homes import BATTERY, METER, PV, Home
from tests.core.house import House, body

PV2 = (Kind.PV_INVERTER, "pv-2")
METER2 = (Kind.METER, "meter-2")
SIGN, WAITS = Flag.WRONG_METER_SIGN, Flag.WAITS_FOR_DEVICE


def told(home: Home, flag: str) -> tuple[str, str]:
    """Return what is said of a flag that a home has."""
    assert flag in home.state.flags
    found = finding(home.state, flag, home.rules)
    assert (home.state.id, flag) == (found.building, found.flag)
    return found.problem, found.setting


# ---- flags ----------------------------------------------------------------------------------------------------------


def test_every_flag_has_its_sentences() -> None:
    words = {value for name, value in vars(Flag).items() if name.isupper()}
    assert words == set(FLAGS)
    for flag in words:
        found = finding(Building(id="b", flags=(flag,), about={flag: ("s/meter:m-1",)}), flag, Rules())
        assert found.problem
        assert found.setting


def test_a_flag_of_another_release_is_shown_as_it_is() -> None:
    assert "meter:m-1" == finding(Building(id="b", about={"new": ("s/meter:m-1",)}), "new", Rules()).problem


def test_a_device_is_named_with_its_subscription_where_another_one_has_such_a_device() -> None:
    house = House()
    for subscription in ("sub-1", "sub-2"):
        house.hear("meter.update", body("meter"), subscription=subscription)
    building = marked(house.state, Flag.AMBIGUOUS_METERS, on=True, about=tuple(house.state.devices))
    found = finding(building, Flag.AMBIGUOUS_METERS, Rules())
    assert found.problem.endswith(": sub-1/meter:d-1, sub-2/meter:d-1")
    assert found.setting.startswith('[[devices]] kind = "meter", id = "d-1", subscription = "sub-1", role = "grid"')


def test_marking_twice_changes_nothing() -> None:
    once = marked(Building(id="b"), "x", on=True, about=("s/meter:m-1",))
    assert once is marked(once, "x", on=True, about=("s/meter:m-1",))
    cleared = marked(once, "x", on=False)
    assert ((), {}) == (cleared.flags, cleared.about)
    assert cleared is marked(cleared, "x", on=False, about=("s/meter:m-1",))


def test_changes_are_what_was_set_what_is_about_another_device_and_what_was_cleared() -> None:
    none = Building(id="b")
    one = marked(none, "x", on=True, about=("s/meter:m-1",))
    other = marked(one, "x", on=True, about=("s/meter:m-2",))
    both = marked(one, "y", on=True)
    assert (("x", True),) == changes(None, one) == changes(none, one) == changes(one, other)
    assert (("y", True),) == changes(one, both)
    assert (("x", False),) == changes(one, none)
    assert () == changes(both, both) == changes(None, none)


def test_of_many_devices_a_few_are_named() -> None:
    names = tuple(f"s/meter:m-{number}" for number in range(8))
    building = marked(Building(id="b"), Flag.AMBIGUOUS_METERS, on=True, about=names)
    assert finding(building, Flag.AMBIGUOUS_METERS, Rules()).problem.endswith("meter:m-4 and 3 more")


# ---- meters without a role ------------------------------------------------------------------------------------------


def test_meters_without_a_role_are_named_with_the_setting() -> None:
    home = Home(Rules(devices={METER: MeterRule(role=Role.GRID)}))
    home.say(METER, "12:00", 400.0)
    home.say(METER2, "12:00", 300.0)
    home.tick("12:18")
    problem, setting = told(home, Flag.AMBIGUOUS_METERS)
    assert problem.endswith(": meter:meter-2")
    assert '[[devices]] kind = "meter", id = "meter-2", role = "grid"' in setting


# ---- a wrong sign (M4.5) --------------------------------------------------------------------------------------------


def balance(*said: tuple[tuple[Kind, str], float], rules: Rules | None = None) -> Home:
    """Return a home after a quarter hour with these powers."""
    home = Home(rules)
    for device, watt in said:
        home.say(device, "12:00", watt)
    home.tick("12:18")
    return home


def test_a_meter_whose_sign_would_explain_it_is_named_with_the_setting() -> None:
    _, setting = told(balance((PV, 3000.0), (METER, -5000.0)), SIGN)
    assert '[[devices]] kind = "meter", id = "meter", sign = "export-positive"' == setting


def test_the_setting_is_the_other_one_of_what_is_set() -> None:
    rules = Rules(subscriptions={"sub-1": SubscriptionRule(meter_sign=-1)})
    _, setting = told(balance((PV, 3000.0), (METER, 5000.0), rules=rules), SIGN)
    assert setting.endswith('sign = "import-positive"')


def test_a_battery_whose_sign_would_explain_it_is_named_with_the_setting() -> None:
    """The sun gives 1 kW, of which nothing goes out; a battery that charges with 3 kW must discharge."""
    problem, setting = told(balance((PV, 1000.0), (METER, 0.0), (BATTERY, 3000.0)), SIGN)
    assert "battery:battery" in problem
    assert '[[devices]] kind = "battery", id = "battery", sign = "discharge-positive"' == setting


def test_where_two_signs_would_explain_it_none_is_named() -> None:
    home = balance((PV, 100.0), (METER, -1500.0), (BATTERY, 1500.0))
    assert () == home.state.about.get(SIGN, ())
    _, setting = told(home, SIGN)
    assert "[[devices]] sign, or meter_sign" in setting


def test_who_has_been_named_stays_named_while_another_slot_tells_less() -> None:
    home = balance((PV, 3000.0), (METER, -5000.0), (BATTERY, 0.0))
    assert ("sub-1/meter:meter",) == home.state.about[SIGN]
    for device, watt in ((PV, 100.0), (METER, -1500.0), (BATTERY, 1500.0)):
        home.say(device, "12:15", watt)
    home.tick("12:33")
    assert ("sub-1/meter:meter",) == home.state.about[SIGN]


def test_of_very_many_devices_no_sign_is_tried() -> None:
    batteries = [((Kind.BATTERY, f"b-{number}"), 0.0) for number in range(16)]
    home = balance((PV, 3000.0), (METER, -5000.0), *batteries)
    assert () == home.state.about.get(SIGN, ())
    assert SIGN in home.state.flags


def test_the_flag_goes_in_a_night_in_which_the_other_sign_could_not_be() -> None:
    home = balance((PV, 3000.0), (METER, -5000.0))
    home.say(PV, "12:15", 0.0)
    home.say(METER, "12:15", 400.0)
    home.tick("12:33")
    assert () == home.state.flags
    assert {} == home.state.about


# ---- a device that the household waits for --------------------------------------------------------------------------


def waiting(hours: float, *, rules: Rules | None = None, other: bool = True) -> Home:
    """Return a home with an inverter that has said nothing since 06:00, after some hours of a meter and another one."""
    home = Home(rules or Rules(hold_active=timedelta(days=1)))
    home.say(PV2, "6:00", None, action=Action.CONNECT)
    if other:
        home.say(PV, "6:00", 1000.0)
    home.say(METER, "6:00", -500.0)
    end = timedelta(hours=6 + hours)
    home.run("6:15", f"{end // timedelta(hours=1)}:{end // timedelta(minutes=1) % 60:02}")
    return home


def test_a_household_that_waits_for_one_device_for_over_six_hours_is_told_which() -> None:
    assert () == waiting(6.0).state.flags
    home = waiting(6.25)
    problem, setting = told(home, WAITS)
    assert "pv-inverter:pv-2" in problem
    assert setting.startswith('[[devices]] kind = "pv-inverter", id = "pv-2", role = "ignore"')


def test_the_flag_goes_when_the_device_speaks_or_is_deleted() -> None:
    for gone in (False, True):
        home = waiting(6.25)
        if gone:
            home.leave(PV2, "12:16", Action.DELETE)
        else:
            home.say(PV2, "12:16", 0.0)
        home.run("12:30", "12:45")
        assert () == home.state.flags
        assert {} == home.state.waits


def test_a_household_in_which_nothing_speaks_waits_for_no_one_device() -> None:
    home = Home()
    home.say(PV, "6:00", 1000.0)
    home.say(METER, "6:00", None)
    home.say(BATTERY, "6:00", None)
    for hour in range(6, 15):
        home.say(PV, f"{hour}:30", 1000.0)
    home.run("6:15", "14:00")
    assert () == home.state.flags


def test_a_second_device_that_fails_for_a_while_does_not_hide_the_first() -> None:
    home = waiting(6.25)
    home.say(METER, "12:16", None)
    home.run("12:30", "13:30")
    assert ("sub-1/pv-inverter:pv-2",) == home.state.about[WAITS]
    home.say(PV2, "13:31", 0.0)
    home.run("13:45", "14:00")
    assert () == home.state.flags
    home.run("14:15", "18:45")
    assert ("sub-1/meter:meter",) == home.state.about[WAITS]


def test_a_battery_keeps_nobody_waiting_where_no_meter_tells_the_grid() -> None:
    home = Home(Rules(hold_active=timedelta(days=1), devices={METER: MeterRule(role=Role.LOAD)}))
    home.say(METER, "6:00", 500.0)
    home.say(BATTERY, "6:00", None)
    home.run("6:15", "13:00")
    assert () == home.state.flags
