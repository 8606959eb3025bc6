"""The actions (M7): what makes a device come and go, and what commands and schedules do."""

from typing import Any

import pytest

from bridge.core.effects import CreateBuilding, Note
from bridge.core.messages import Command, Quantity, Report, Schedules
from bridge.core.vocabulary import ACTIONS, Action, Kind
from tests.core.house import House, at, body, calls, events, notes, read

KINDS = [kind for kind in Kind if kind is not Kind.TARIFF]


def command(**changes: object) -> dict[str, Any]:
    """Return a command for the device d-1."""
    content = {"id": "c-1", "userId": "user-1", "deviceId": "d-1", "type": "CHARGING_STOP", "state": "PENDING"}
    return {**content, **changes}


def schedule(**changes: object) -> dict[str, Any]:
    """Return a weekly schedule of the device d-1."""
    week = [{"start": {"day": "MONDAY", "time": "06:00"}, "end": None, "mode": "HEAT", "temperature": 21.5}]
    return {"id": "d-1", "userId": "user-1", "timeZone": "Europe/Berlin", "schedules": week, **changes}


def test_every_kind_lives_and_some_can_do_more() -> None:
    life = {Action.CONNECT, Action.UPDATE, Action.DELETE, Action.OFFLINE, Action.DISCONNECT}
    more = {
        Kind.VEHICLE: {Action.COMMAND},
        Kind.CHARGER: {Action.COMMAND},
        Kind.HVAC: {Action.COMMAND, Action.SCHEDULES_UPDATE},
        Kind.TARIFF: {Action.PRICE_UPDATE},
    }
    assert {kind: life | more.get(kind, set()) for kind in Kind} == ACTIONS


# ---- going and coming (M0.5, M7) -------------------------------------------------------------------------------------


def state(house: House, kind: Kind) -> tuple[bool, bool]:
    """Return (offline, disconnected)."""
    device = house.device(f"{kind}:d-1")
    return device.offline, device.disconnected


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("action", ["update", "connect", "offline"])
def test_not_online_in_any_message_acts_as_offline(kind: Kind, action: str) -> None:
    house = House()
    house.hear(f"{kind}.{action}", body(kind, isOnline=False))
    assert (True, False) == state(house, kind)


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("action", ["update", "connect", "offline", "disconnect"])
def test_not_connected_in_any_message_acts_as_disconnect(kind: Kind, action: str) -> None:
    house = House()
    house.hear(f"{kind}.{action}", body(kind, isConnected=False))
    assert (False, True) == state(house, kind)


@pytest.mark.parametrize("change", [{"isOnline": False}, {"isConnected": False}])
def test_values_of_an_absent_device_are_not_used_but_its_static_data_is(change: dict[str, bool]) -> None:
    house = House()
    effects = house.hear("vehicle.update", body("vehicle", **change))
    assert () == events(effects)
    assert [(at("10:00"), None)] == house.series("vehicle:d-1", Quantity.STATE_OF_CHARGE)
    assert "Thing" == house.device("vehicle:d-1").facts.name


BACK = [
    ("offline", "10:01", {}, False),
    ("offline", "10:00", {}, True),
    ("offline", "09:59", {}, True),
    ("offline", "10:01", {"isOnline": None}, True),
    ("disconnect", "10:01", {}, False),
    ("disconnect", "10:01", {"isConnected": True}, False),
    ("disconnect", "10:00", {}, True),
    ("disconnect", "10:01", {"isOnline": None}, True),
]


@pytest.mark.parametrize(("action", "stamp", "change", "absent"), BACK)
@pytest.mark.parametrize("back", ["update", "connect"])
def test_the_next_message_that_says_online_with_a_newer_stamp_ends_an_absence(
    back: str,
    action: str,
    stamp: str,
    change: dict[str, Any],
    absent: bool,  # noqa: FBT001
) -> None:
    house = House()
    house.hear("hvac.update", body("hvac", "09:00"))
    house.hear(f"hvac.{action}", body("hvac", "10:00"))
    house.hear(f"hvac.{back}", body("hvac", stamp, **change))
    assert absent == any(state(house, Kind.HVAC))


def test_a_repeat_of_what_was_known_before_an_absence_does_not_end_it() -> None:
    house = House()
    house.hear("hvac.update", body("hvac", "10:30"))
    house.hear("hvac.offline", body("hvac", "10:00"), received="11:00")
    house.hear("hvac.update", body("hvac", "10:30"), received="11:01")
    assert (True, False) == state(house, Kind.HVAC)
    assert (at("11:00"), None) == house.series("hvac:d-1", Quantity.POWER)[-1]


def test_one_message_ends_both_absences() -> None:
    house = House()
    house.hear("hvac.offline", body("hvac", "10:00"))
    house.hear("hvac.disconnect", body("hvac", "10:01"))
    assert (True, True) == state(house, Kind.HVAC)
    house.hear("hvac.update", body("hvac", "10:02"))
    assert (False, False) == state(house, Kind.HVAC)


def test_a_device_that_says_nothing_of_online_is_present() -> None:
    house = House()
    house.hear("meter.update", body("meter", isOnline=None))
    assert (False, False) == state(house, Kind.METER)
    assert [(at("10:00"), 1000.0)] == house.series("meter:d-1", Quantity.POWER)


# ---- commands and schedules (M7) -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["vehicle", "charger", "hvac"])
@pytest.mark.parametrize(
    ("word", "name"), [("PENDING", "command"), ("EXECUTED", "command"), ("FAILED", "command_failed")]
)
def test_a_command_does_nothing_but_is_kept_for_explain_and_failed_ones_are_counted(
    kind: str, word: str, name: str
) -> None:
    house = House()
    house.hear(f"{kind}.update", body(kind))
    before = house.state
    effects = house.hear(f"{kind}.command", command(state=word))
    assert (Note(name=name, detail=f"CHARGING_STOP {word} for {kind}:d-1"),) == effects
    assert before is house.state


def test_a_command_for_something_unknown_changes_nothing() -> None:
    house = House()
    before = house.state
    assert ["command"] == notes(house.hear("vehicle.command", command()))
    assert before is house.state


def test_a_schedule_is_kept_for_its_device_and_sends_nothing() -> None:
    house = House()
    house.hear("hvac.update", body("hvac"))
    assert () == house.hear("hvac.schedules.update", schedule())
    assert () == house.hear("hvac.schedules.update", schedule(timeZone="UTC"))
    kept = house.state.schedules["sub-1/hvac:d-1"]
    assert ("UTC", tuple(schedule()["schedules"])) == (kept.time_zone, kept.entries)


def test_a_schedule_of_something_unknown_changes_nothing() -> None:
    house = House()
    before = house.state
    assert () == house.hear("hvac.schedules.update", schedule())
    assert before is house.state


# ---- of something unknown (M1.4) -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("action", "creates"),
    [("connect", True), ("update", True), ("offline", True), ("disconnect", True), ("delete", False)],
)
def test_what_a_device_says_first_creates_its_building_unless_it_is_a_delete(
    kind: Kind,
    action: str,
    creates: bool,  # noqa: FBT001
) -> None:
    effects = House().hear(f"{kind}.{action}", body(kind))
    assert creates == any(isinstance(effect, CreateBuilding) for effect in effects)
    assert creates or () == effects


@pytest.mark.parametrize(
    ("action", "creates"),
    [("connect", True), ("update", True), ("offline", False), ("disconnect", False), ("delete", False)],
)
def test_a_tariff_creates_a_building_only_when_it_is_there(action: str, creates: bool) -> None:  # noqa: FBT001
    effects = House().hear(f"tariff.{action}", body("tariff"))
    assert creates == any(isinstance(effect, CreateBuilding) for effect in effects)


def test_a_deleted_tariff_s_price_creates_nothing() -> None:
    house = House()
    house.hear("tariff.delete", body("tariff"))
    content = {"id": "d-1", "userId": "user-1", "prices": [{"startDate": "2026-06-15T13:00:00Z", "totalPrice": 1}]}
    assert () == calls(house.hear("tariff.price.update", content))


def test_a_report_without_user_about_something_unknown_is_ignored() -> None:
    house = House()
    before = house.state
    assert ["unknown_device_ignored"] == notes(house.hear("meter.update", body("meter", userId=None)))
    assert before is house.state


def test_what_is_read_is_what_was_sent() -> None:
    assert isinstance(read("vehicle.disconnect", body("vehicle")), Report)
    assert isinstance(read("hvac.schedules.update", schedule()), Schedules)
    assert isinstance(read("charger.command", command()), Command)
