"""A user is forgotten in a building in which others live (GDPR, article 17)."""

from bridge.core.effects import ChangeBuilding, PutDevices
from bridge.core.messages import Forgotten
from bridge.core.vocabulary import DeviceKey, Kind
from tests.core.house import House, at, body, calls, listed, own, prices


def forgotten(*devices: DeviceKey, user: str = "user-1") -> Forgotten:
    return Forgotten(user=user, raw_users=frozenset({user}), devices=frozenset(devices), received=at("12:00"))


def shared() -> House:
    """Return a house of user-1 (a car, a deleted car, a tariff) and user-2 (a meter, a deleted car, a tariff)."""
    house = House(name="home")
    for number in ("1", "2"):
        user = {"userId": f"user-{number}"}
        house.hear("vehicle.update", body("vehicle", "10:00", id=f"gone-{number}", **user))
        house.hear("vehicle.delete", body("vehicle", "10:05", id=f"gone-{number}", **user))
        house.hear("tariff.connect", body("tariff", id=f"tariff-{number}", **user))
        house.hear("tariff.price.update", prices(("13:00", 0.3), id=f"tariff-{number}", **user))
    house.hear("vehicle.update", body("vehicle", "10:10", id="car-1", userId="user-1"))
    house.hear("meter.update", body("meter", "10:10", id="meter-2", userId="user-2"))
    return house


MINE = (
    own(Kind.VEHICLE, "gone-1"),
    own(Kind.VEHICLE, "car-1"),
    own(Kind.TARIFF, "tariff-1"),
)


def test_what_others_have_stays_and_nothing_else() -> None:
    house = shared()
    house.feed(forgotten(*MINE))
    state = house.state
    assert {"sub-1/meter:meter-2", "sub-1/tariff:tariff-2"} == set(state.devices)
    assert {"gone-2"} == {device.id for device in state.departed}
    assert {"sub-1/vehicle:gone-2"} == set(state.gone)
    assert {"sub-1/tariff:tariff-2"} == set(state.prices)
    assert (("user-2",), at("12:00")) == (state.users, state.forgotten)
    assert not [word for word in ("user-1", "car-1", "gone-1", "tariff-1") if word in repr(state)]


def test_moost_hears_of_the_shorter_list_and_of_the_other_users() -> None:
    effects = calls(shared().feed(forgotten(*MINE)))
    assert [["gateway:home", "meter:meter-2"]] == listed(effects)
    changes = [effect for effect in effects if isinstance(effect, ChangeBuilding)]
    assert ["user-2"] == changes[0].attributes["userIds"]


def test_a_device_that_somebody_else_has_by_now_is_theirs() -> None:
    house = shared()
    house.hear("vehicle.update", body("vehicle", "11:00", id="car-1", userId="user-2"))
    effects = house.feed(forgotten(*MINE))
    assert "sub-1/vehicle:car-1" in house.state.devices
    assert not any(isinstance(effect, PutDevices) for effect in effects)
