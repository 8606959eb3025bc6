"""Buildings (M1): where a message belongs, what MOOST hears of a building, moves."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.effects import Bury, ChangeBuilding, CreateBuilding, Effect, Note, Park, PutDevices
from bridge.core.identity import building_id
from bridge.core.messages import Inbound, Moved, Quantity, Readdressed, Tick
from bridge.core.model import Building, Flag, Residence
from bridge.core.routing import Place, device_of, home_of, place, residence
from bridge.core.rules import Rules, SubscriptionRule, Unknown
from bridge.core.vocabulary import DeadReason, EventType, Kind
from tests.core.house import House, at, body, calls, events, listed, own, prices, read

PARK = Rules(unknown=Unknown.PARK)
ADDRESS = {
    "zip": "49074",
    "city": "Osnabrück",
    "countryCode": "AT",
    "timeZoneId": "Europe/Vienna",
    "geolocation": {"lat": 52.28, "lon": 8.05},
    "registrationTimestamp": 1_700_000_000,
}


def row(building: str, location: str | None = None, /, **attributes: object) -> Residence:
    """Return a directory row of user-1."""
    return Residence(user="user-1", location=location, building=building, attributes=attributes)


def inbound(topic: str, content: dict[str, Any]) -> Inbound:
    """Return a message from the device cloud."""
    message = read(topic, content)
    assert isinstance(message, Inbound)
    return message


def command(**changes: object) -> dict[str, Any]:
    """Return a command for the device d-1."""
    return {"id": "c-1", "userId": "user-1", "deviceId": "d-1", "type": "SET_MODE", "state": "PENDING", **changes}


# ---- where it belongs (M1.1, M1.2) -----------------------------------------------------------------------------------

ROWS = (row("b-2", "loc-2"), row("b-9"), row("b-1", "loc-1"))
NOWHERE = (row("b-2", "loc-2"), row("b-1", "loc-1"))

CHOICES = [
    (ROWS, "loc-1", "b-1"),
    (ROWS, "loc-2", "b-2"),
    (ROWS, "loc-3", "b-9"),
    (ROWS, None, "b-9"),
    (NOWHERE, "loc-2", "b-2"),
    (NOWHERE, "loc-3", None),
    (NOWHERE, None, "b-1"),
    ((), "loc-1", None),
    ((), None, None),
]


@pytest.mark.parametrize(("rows", "location", "building"), CHOICES)
def test_the_row_for_the_place_counts_then_the_row_for_the_user(
    rows: tuple[Residence, ...], location: str | None, building: str | None
) -> None:
    found = residence(rows, location)
    assert building == (found.building if found is not None else None)


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.VEHICLE])
def test_a_message_belongs_to_the_row_of_its_location(kind: Kind) -> None:
    content = body(kind, **{"location" if kind is Kind.CHARGER else "locationId": "loc-2"})
    assert Place(building="b-2", residence=ROWS[0]) == place(inbound(f"{kind}.update", content), ROWS, None, Rules())


def test_a_vehicle_belongs_to_the_user_s_building_whatever_it_says() -> None:
    message = inbound("vehicle.update", body("vehicle", locationId="loc-2"))
    assert Place(building="b-9", residence=ROWS[1]) == place(message, ROWS, None, Rules())


@pytest.mark.parametrize("rules", [Rules(), PARK])
def test_an_unknown_user_gets_a_building_of_its_own_or_is_parked(rules: Rules) -> None:
    for topic, content in (
        ("battery.update", body("battery")),
        ("battery.delete", body("battery")),
        ("tariff.price.update", prices(("13:00", 1))),
        ("hvac.schedules.update", {"id": "d-1", "userId": "user-1"}),
    ):
        expected = Place(building="user-1") if rules.unknown is Unknown.CREATE else Park(user="user-1")
        assert expected == place(inbound(topic, content), (), None, rules)


def test_a_command_is_never_parked_because_it_does_nothing_anyway() -> None:
    assert Note(name="unknown_device_ignored") == place(inbound("hvac.command", command()), (), None, PARK)


def test_the_building_of_an_unknown_user_has_a_safe_name() -> None:
    message = inbound("battery.update", body("battery", userId="a b"))
    assert Place(building=building_id("a b")) == place(message, (), None, Rules())


def test_a_known_user_at_an_unknown_place_gets_a_building_or_is_parked_until_the_directory_knows_it() -> None:
    message = inbound("battery.update", body("battery", locationId="loc-3"))
    assert Place(building="user-1") == place(message, NOWHERE, None, Rules())
    assert Park(user="user-1") == place(message, NOWHERE, None, PARK)


@pytest.mark.parametrize(
    ("topic", "content"),
    [
        ("battery.update", body("battery", userId=None)),
        ("battery.delete", body("battery", userId=None)),
        ("hvac.command", command(userId=None)),
        ("tariff.price.update", prices(("13:00", 1), userId=None)),
        ("hvac.schedules.update", {"id": "d-1"}),
    ],
)
@pytest.mark.parametrize("rules", [Rules(), PARK])
def test_without_user_a_message_belongs_where_its_device_lives_and_is_dead_if_nobody_knows(
    topic: str, content: dict[str, Any], rules: Rules
) -> None:
    message = inbound(topic, content)
    home = home_of("b-2", ROWS)
    assert Place(building="b-2", residence=ROWS[0]) == place(message, (), home, rules)
    nobody = place(message, (), None, rules)
    assert isinstance(nobody, Bury)
    assert DeadReason.UNREADABLE is nobody.reason


MOVES = [
    ("battery.update", {"locationId": "loc-1"}, "b-1"),
    ("battery.connect", {"locationId": "loc-1"}, "b-1"),
    ("battery.offline", {"locationId": "loc-1"}, "b-1"),
    ("battery.update", {"locationId": None}, "b-9"),
    ("battery.offline", {"locationId": None}, "b-2"),
    ("battery.disconnect", {}, "b-2"),
    ("battery.delete", {"locationId": "loc-1"}, "b-2"),
]


@pytest.mark.parametrize(("topic", "change", "building"), MOVES)
def test_a_device_moves_when_a_message_says_where_it_is_now(topic: str, change: dict[str, Any], building: str) -> None:
    found = place(inbound(topic, body("battery", **change)), ROWS, home_of("b-2", ROWS), Rules())
    assert isinstance(found, Place)
    assert building == found.building


@pytest.mark.parametrize(
    ("topic", "content"),
    [
        ("hvac.command", command()),
        ("hvac.schedules.update", {"id": "d-1", "userId": "user-1"}),
        ("tariff.price.update", prices(("13:00", 1), locationId="loc-1")),
    ],
)
def test_commands_schedules_and_prices_go_where_their_device_lives(topic: str, content: dict[str, Any]) -> None:
    assert Place(building="b-2", residence=ROWS[0]) == place(inbound(topic, content), ROWS, home_of("b-2", ROWS), PARK)


def test_a_command_is_about_the_device_that_it_names() -> None:
    assert own(Kind.HVAC, "d-1") == device_of(inbound("hvac.command", command()))
    assert own(Kind.METER, "d-1") == device_of(inbound("meter.update", body("meter")))


@given(st.permutations(list(ROWS)), st.sampled_from(["loc-1", "loc-2", "loc-3", None]))
def test_the_order_of_the_directory_does_not_matter(rows: list[Residence], location: str | None) -> None:
    assert residence(ROWS, location) == residence(rows, location)


# ---- the body of a building (M1.5) -----------------------------------------------------------------------------------


def test_an_unknown_user_s_building_has_country_zone_and_user() -> None:
    (create, *_) = House(Rules(default_country="CH", default_time_zone="Europe/Zurich")).hear(
        "meter.update", body("meter")
    )
    attributes = {"countryCode": "CH", "timeZoneId": "Europe/Zurich", "userIds": ["user-1"]}
    assert CreateBuilding(building="user-1", attributes=attributes) == create


def test_a_known_user_s_building_has_what_the_directory_says() -> None:
    tariff = {"type": "SINGLE", "minPrice": "0.31", "maxPrice": "0.31", "currency": "EUR"}
    house = House(residence=row("b-1", **ADDRESS, tariff=tariff), name="b-1")
    (create, *_) = house.hear("meter.update", body("meter"))
    expected = {**ADDRESS, "userIds": ["user-1"], "settings": {"tariff": tariff}}
    assert CreateBuilding(building="b-1", attributes=expected) == create
    assert "Europe/Vienna" == house.state.time_zone


@pytest.mark.parametrize("user", ["a b", "ü", "x" * 101, "a/b"])
def test_a_user_that_moost_would_refuse_is_left_out(user: str) -> None:
    (create, *_) = House().hear("meter.update", body("meter", userId=user))
    assert isinstance(create, CreateBuilding)
    assert "userIds" not in create.attributes


def test_a_user_is_named_without_the_prefix() -> None:
    house = House(name="acme-user-1")
    message = inbound("meter.update", body("meter", userId="me@home"))
    (create, *_) = house.feed(message)
    assert isinstance(create, CreateBuilding)
    assert ["me@home"] == create.attributes["userIds"]


def test_a_second_user_of_a_building_is_added() -> None:
    house = House()
    house.hear("meter.update", body("meter"))
    (change, devices) = house.hear("battery.update", body("battery", userId="user-2"))
    assert isinstance(change, ChangeBuilding)
    assert {"userIds": ["user-1", "user-2"]} == change.attributes
    assert isinstance(devices, PutDevices)


def test_a_building_is_created_once() -> None:
    house = House()
    for minute in range(3):
        house.hear("meter.update", body("meter", f"10:0{minute}"))
        house.hear("tariff.price.update", prices(("13:00", minute)))
    assert 1 == sum(isinstance(effect, CreateBuilding) for effect in house.effects)


# ---- the directory changes (M1.5, M8.3) ------------------------------------------------------------------------------


def readdressed(house: House, found: Residence | None) -> tuple[Effect, ...]:
    """Tell a building that its directory row is another now."""
    house.residence = found
    return house.feed(Readdressed(received=at("12:00")))


def test_a_new_row_sends_what_it_says_and_only_that() -> None:
    house = House(name="b-1")
    house.hear("meter.update", body("meter"))
    (change,) = readdressed(house, row("b-1", **ADDRESS))
    assert isinstance(change, ChangeBuilding)
    assert ADDRESS == change.attributes
    assert {**ADDRESS, "userIds": ["user-1"]} == change.create
    assert not change.tariff_set
    assert "Europe/Vienna" == house.state.time_zone


def test_a_changed_field_leaves_alone_and_an_unchanged_row_sends_nothing() -> None:
    house = House(residence=row("b-1", **ADDRESS), name="b-1")
    house.hear("meter.update", body("meter"))
    assert () == readdressed(house, row("b-1", **ADDRESS))
    (change,) = readdressed(house, row("b-1", **{**ADDRESS, "zip": "49076"}))
    assert isinstance(change, ChangeBuilding)
    assert {"zip": "49076"} == change.attributes
    assert () == readdressed(house, row("b-1", **{**ADDRESS, "zip": "49076"}))


def test_what_a_row_said_before_and_does_not_any_more_goes() -> None:
    single = {"type": "SINGLE", "minPrice": "0.31", "maxPrice": "0.31", "currency": "EUR"}
    house = House(residence=row("b-1", **ADDRESS, tariff=single), name="b-1")
    house.hear("meter.update", body("meter"))
    (change,) = readdressed(house, row("b-1", zip=ADDRESS["zip"]))
    assert isinstance(change, ChangeBuilding)
    assert tuple(sorted(ADDRESS.keys() - {"zip", "countryCode", "timeZoneId"})) == change.removed
    assert {"countryCode": "DE", "timeZoneId": "Europe/Berlin"} == change.attributes, "as of a building that is new"
    assert (True, None) == (change.tariff_set, change.tariff)
    assert {"zip", "userIds", "countryCode", "timeZoneId"} == change.create.keys()
    assert () == readdressed(house, row("b-1", zip=ADDRESS["zip"]))


def test_what_no_row_has_said_is_left_as_moost_has_it() -> None:
    house = House(name="b-1")
    house.hear("meter.update", body("meter"))
    assert () == readdressed(house, row("b-1"))
    assert () == readdressed(house, None)


def test_where_not_all_rows_are_known_nothing_goes() -> None:
    house = House(residence=row("b-1", **ADDRESS), name="b-1")
    house.hear("meter.update", body("meter"))
    house.residence = row("b-1")
    assert () == house.feed(Readdressed(received=at("12:00"), whole=False))


def test_a_dynamic_tariff_stays_where_the_rows_tariff_goes() -> None:
    house = House(residence=row("b-1", tariff={"type": "SINGLE"}), name="b-1")
    house.hear("tariff.update", body("tariff"))
    house.hear("tariff.price.update", prices(("13:00", 0.3)))
    assert () == readdressed(house, row("b-1"))


class TestWhoLeft:
    """userIds lose whoever has neither a row nor a device there any more (M8.3)."""

    def shared(self, residence: Residence | None = None) -> House:
        house = House(residence=residence, name="b-1")
        house.hear("meter.update", body("meter"))
        house.hear("vehicle.update", body("vehicle", userId="user-2", id="car"))
        assert ("user-1", "user-2") == house.state.users
        return house

    def test_the_last_device_of_a_user_without_a_row_takes_the_user_along(self) -> None:
        house = self.shared()
        change = next(
            effect
            for effect in house.hear("vehicle.delete", body("vehicle", "11:00", userId="user-2", id="car"))
            if isinstance(effect, ChangeBuilding)
        )
        assert {"userIds": ["user-1"]} == change.attributes
        assert ["user-1"] == change.create["userIds"]

    def test_a_user_with_a_row_stays(self) -> None:
        house = self.shared(row("b-1"))
        house.hear("vehicle.delete", body("vehicle", "11:00", userId="user-2", id="car"))
        assert ("user-1", "user-2") == house.state.users

    def test_a_user_with_another_device_stays(self) -> None:
        house = self.shared()
        house.hear("charger.update", body("charger", userId="user-2", id="box"))
        house.hear("vehicle.delete", body("vehicle", "11:00", userId="user-2", id="car"))
        assert ("user-1", "user-2") == house.state.users

    def test_the_last_user_stays(self) -> None:
        house = House(name="b-1")
        house.hear("meter.update", body("meter"))
        house.hear("meter.delete", body("meter", "11:00"))
        assert ("user-1",) == house.state.users

    def test_a_row_that_goes_takes_a_user_without_devices_along(self) -> None:
        house = self.shared(row("b-1"))
        house.hear("vehicle.delete", body("vehicle", "11:00", userId="user-2", id="car"))
        (change,) = house.feed(Readdressed(received=at("12:00"), left="user-2"))
        assert isinstance(change, ChangeBuilding)
        assert {"userIds": ["user-1"]} == change.attributes
        assert () == house.feed(Readdressed(received=at("12:00"), left="user-1"))

    def test_a_prefix_is_not_part_of_the_user(self) -> None:
        house = self.shared(row("b-1"))
        house.rules = replace(house.rules, subscriptions={"sub-9": SubscriptionRule(user_prefix="p-")})
        house.hear("vehicle.delete", body("vehicle", "11:00", userId="user-2", id="car"))
        house.feed(Readdressed(received=at("12:00"), left="p-user-2"))
        assert ("user-1",) == house.state.users


def test_a_row_s_tariff_is_sent_unless_a_dynamic_one_counts() -> None:
    single = {"type": "SINGLE", "minPrice": "0.31", "maxPrice": "0.31", "currency": "EUR"}
    house = House(name="b-1")
    house.hear("tariff.update", body("tariff"))
    (change,) = readdressed(house, row("b-1", tariff=single))
    assert isinstance(change, ChangeBuilding)
    assert (single, True, {}) == (change.tariff, change.tariff_set, change.attributes)
    house.hear("tariff.price.update", prices(("13:00", 0.3)))
    assert () == readdressed(house, row("b-1", tariff={**single, "minPrice": "0.30"}))


def test_no_address_enters_the_state() -> None:
    house = House(residence=row("b-1", **ADDRESS), name="b-1")
    house.hear("meter.update", body("meter"))
    for secret in ("49074", "Osnabrück", "52.28"):
        assert secret not in repr(house.state)


# ---- two places (M1.3) -----------------------------------------------------------------------------------------------


def household_events(house: House) -> set[EventType]:
    """Return which events of the household leave in the next slots."""
    effects = house.feed(Tick(now=at("10:40")))
    return {event.type for event in events(effects) if event.device.startswith("gateway:")}


def test_devices_at_two_places_stop_the_household_s_events_until_the_directory_knows() -> None:
    house = House()
    house.hear("pv-inverter.update", body("pv-inverter", locationId="loc-1"), received="10:01")
    assert EventType.POWER_GENERATION in household_events(house)
    house.hear("meter.update", body("meter", "10:41", locationId="loc-2"), received="10:41")
    assert Flag.AMBIGUOUS_LOCATION in house.state.flags
    assert set() == {e.type for e in events(house.feed(Tick(now=at("11:00")))) if e.device.startswith("gateway:")}
    readdressed(house, row("user-1"))
    assert Flag.AMBIGUOUS_LOCATION not in house.state.flags
    house.hear("meter.update", body("meter", "11:01", locationId="loc-2"), received="11:01")
    assert EventType.GRID_POWER_CONSUMPTION in {e.type for e in events(house.feed(Tick(now=at("11:20"))))}


NOT_AMBIGUOUS = [
    (Rules(), None, {"locationId": "loc-1"}),
    (Rules(), None, {"locationId": None}),
    (PARK, None, {"locationId": "loc-2"}),
    (Rules(), row("user-1"), {"locationId": "loc-2"}),
]


@pytest.mark.parametrize(("rules", "found", "change"), NOT_AMBIGUOUS)
def test_only_two_named_places_of_an_unknown_user_are_ambiguous(
    rules: Rules, found: Residence | None, change: dict[str, Any]
) -> None:
    house = House(rules, found)
    house.hear("pv-inverter.update", body("pv-inverter", locationId="loc-1"))
    house.hear("meter.update", body("meter", **change))
    house.hear("vehicle.update", body("vehicle"))
    assert () == house.state.flags


def test_a_contract_at_another_place_is_no_device() -> None:
    house = House()
    house.hear("meter.update", body("meter", locationId="loc-1"))
    house.hear("tariff.update", body("tariff", locationId="loc-2"))
    assert () == house.state.flags


def test_a_charger_s_location_is_one() -> None:
    house = House()
    house.hear("meter.update", body("meter", locationId="loc-1"))
    house.hear("charger.update", body("charger", location="loc-2"))
    assert (Flag.AMBIGUOUS_LOCATION,) == house.state.flags


def test_a_known_device_that_names_another_place_raises_the_doubt() -> None:
    house = House()
    house.hear("meter.update", body("meter", locationId="loc-1"))
    house.hear("battery.update", body("battery", locationId="loc-1"))
    house.hear("battery.update", body("battery", "10:01", locationId="loc-2"), received="10:01")
    assert (Flag.AMBIGUOUS_LOCATION,) == house.state.flags


def test_the_doubt_goes_with_the_device_that_raised_it() -> None:
    house = House()
    house.hear("meter.update", body("meter", locationId="loc-1"))
    house.hear("battery.update", body("battery", locationId="loc-2"))
    house.hear("battery.delete", body("battery", "10:01", locationId="loc-2"))
    assert () == house.state.flags


# ---- moves (M1.6) ----------------------------------------------------------------------------------------------------


def moved(kind: Kind, clock: str) -> Moved:
    """Return that the device d-1 lives elsewhere now."""
    return Moved(subscription="sub-1", kind=kind, id="d-1", stamp=at(clock), received=at("12:00"))


def test_a_device_that_moves_out_leaves_the_list_and_its_building_to_the_operator() -> None:
    house = House()
    house.hear("battery.update", body("battery"))
    house.hear("meter.update", body("meter"))
    assert [["gateway:user-1", "meter:d-1"]] == listed(house.feed(moved(Kind.BATTERY, "10:30")))
    assert Flag.LEFT_BEHIND not in house.state.flags
    assert [["gateway:user-1"]] == listed(house.feed(moved(Kind.METER, "10:30")))
    assert Flag.LEFT_BEHIND in house.state.flags


def test_it_may_move_back_in_with_any_message_and_then_begins_afresh() -> None:
    house = House()
    house.hear("vehicle.update", body("vehicle", "10:00"))
    house.feed(moved(Kind.VEHICLE, "10:30"))
    effects = house.hear("vehicle.offline", body("vehicle", "10:30", isOnline=False))
    assert [["gateway:user-1", "vehicle:d-1"]] == listed(effects)
    assert () == house.state.flags
    assert [(at("10:30"), None)] == house.series("vehicle:d-1", Quantity.STATE_OF_CHARGE)


def test_moving_out_what_is_not_there_changes_nothing() -> None:
    house = House()
    before = house.state
    assert () == house.feed(moved(Kind.BATTERY, "10:30"))
    assert before is house.state


def test_a_tariff_that_moves_out_takes_its_prices_along() -> None:
    house = House()
    house.hear("tariff.update", body("tariff"))
    house.hear("tariff.price.update", prices(("13:00", 0.3)))
    effects = calls(house.feed(moved(Kind.TARIFF, "10:30")))
    assert [(None, True)] == [(e.tariff, e.tariff_set) for e in effects if isinstance(e, ChangeBuilding)]
    assert {} == house.state.prices


def test_a_building_nobody_asked_for_stays_as_it_was_made() -> None:
    assert Building(id="user-1") == House().state
    house = House()
    assert () == readdressed(house, row("user-1", zip="49074"))
