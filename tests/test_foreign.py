"""No subscription writes a device of another one, whatever it says of user, place and id (M0.6)."""

import json
from collections.abc import Mapping
from typing import Any, Final

import pytest

from bridge.core.effects import ChangeBuilding, SendEvents
from bridge.core.model import Building, Residence
from bridge.core.rules import Rules, SubscriptionRule
from bridge.core.vocabulary import DeviceKey, Kind
from bridge.metrics import Metrics
from bridge.store.desk import DeadFilter
from bridge.store.memory import MemoryStore
from bridge.store.port import Arrival
from bridge.worker import Worker
from tests.core.house import NOON, at, body, prices

pytestmark = pytest.mark.anyio

MINE: Final = "mine"
THEIRS: Final = "theirs"
PREFIXED: Final = Rules(
    subscriptions={MINE: SubscriptionRule(user_prefix="m-"), THEIRS: SubscriptionRule(user_prefix="t-")}
)
HEIR: Final = Rules(heirs={MINE: "new"}, subscriptions={"new": SubscriptionRule()})

WAYS: Final[Mapping[str, tuple[str, dict[str, Any]]]] = {
    "its charge is set": ("vehicle.update", body("vehicle", "11:00", chargeState={"stateOfCharge": 99})),
    "its prices are replaced": ("tariff.price.update", prices(("13:00", 666))),
    "it is deleted": ("meter.delete", body("meter", "11:00")),
    "it is ended as offline": ("battery.offline", body("battery", "11:00", isOnline=False)),
    "it is moved away": ("pv-inverter.connect", body("pv-inverter", "11:00", locationId="elsewhere")),
}
"""The five ways to write a device, and what says so."""


class Post:
    """A worker and its store, which two subscriptions write to."""

    def __init__(self, rules: Rules) -> None:
        self.store = MemoryStore()
        self.rules = rules

    async def hear(self, subscription: str, topic: str, content: Mapping[str, Any]) -> None:
        """Accept one message and work it off."""
        raw = json.dumps(content).encode()
        arrival = Arrival(subscription=subscription, topic=f"{subscription}.{topic}", body=raw, received=at(NOON))
        await self.store.accept([arrival])
        worker = Worker(self.store, self.rules, Metrics(), queued=lambda: None, now=lambda: at(NOON))
        while await worker.step():
            pass

    async def household(self) -> None:
        """Let one subscription tell of a household with one device of each kind that is attacked."""
        for kind in ("vehicle", "meter", "battery", "pv-inverter"):
            await self.hear(MINE, f"{kind}.update", body(kind, "10:00"))
        await self.hear(MINE, "tariff.connect", body("tariff"))
        await self.hear(MINE, "tariff.price.update", prices(("13:00", 0.25)))

    async def mine(self) -> Building | None:
        """Return the building of the household."""
        home = (await self.store.load([], [DeviceKey(MINE, Kind.METER, "d-1")], [])).homes.get(
            DeviceKey(MINE, Kind.METER, "d-1")
        )
        found = await self.store.building(home.building) if home is not None else None
        return found.state if found is not None else None

    async def dead(self) -> list[str]:
        """Return the reasons of the dead letters."""
        return [str(letter.reason) for letter in await self.store.dead_letters(DeadFilter())]


def own(building: Building | None) -> tuple[object, ...]:
    """Return what a building knows of the household's own devices."""
    assert building is not None

    def part(of: Mapping[str, object]) -> dict[str, object]:
        return {name: value for name, value in of.items() if name.startswith(f"{MINE}/")}

    return part(building.devices), part(building.prices), part(building.gone)


@pytest.mark.parametrize("rules", [Rules(), PREFIXED], ids=["one namespace of users", "prefixes"])
@pytest.mark.parametrize("user", [None, "user-9", "user-1"], ids=["no user", "a user of its own", "the same user"])
@pytest.mark.parametrize("way", WAYS)
async def test_another_subscription_writes_no_device_of_ours(way: str, user: str | None, rules: Rules) -> None:
    post = Post(rules)
    await post.household()
    before = own(await post.mine())
    topic, content = WAYS[way]
    await post.hear(THEIRS, topic, {**content, "userId": user})
    assert before == own(await post.mine())
    assert (["unreadable"] if user is None else []) == await post.dead()


async def test_a_delete_of_a_device_that_nobody_has_is_settled_without_effect() -> None:
    post = Post(PREFIXED)
    await post.household()
    queued = (await post.store.census()).queued
    await post.hear(THEIRS, "meter.delete", body("meter", "11:00", userId="user-9"))
    census = await post.store.census()
    assert (queued, 0, 0) == (census.queued, census.dead, census.pending)


async def test_a_message_without_a_user_goes_where_its_own_subscription_has_the_device() -> None:
    post = Post(PREFIXED)
    await post.household()
    await post.hear(THEIRS, "vehicle.update", body("vehicle", "10:00", userId="user-9"))
    changed = body("vehicle", "11:00", chargeState={"stateOfCharge": 33})
    await post.hear(THEIRS, "vehicle.update", {**changed, "userId": None})
    lanes = await post.store.lease(at(NOON), 10, 100, at(NOON) - at(NOON))
    said = {
        (lane.building, event.device, event.value)
        for lane in lanes
        for owed in lane.calls
        if isinstance(owed.call, SendEvents)
        for event in owed.call.events
    }
    assert ("t-user-9", "vehicle:d-1", 33.0) in said
    assert ("m-user-1", "vehicle:d-1", 33.0) not in said


async def test_a_price_of_another_subscription_is_not_told_for_our_tariff() -> None:
    post = Post(Rules())
    await post.household()
    topic, content = WAYS["its prices are replaced"]
    await post.hear(THEIRS, topic, content)
    (lane,) = await post.store.lease(at(NOON), 10, 100, at(NOON) - at(NOON))
    told = [owed.call.tariff for owed in lane.calls if isinstance(owed.call, ChangeBuilding) and owed.call.tariff_set]
    assert ["0.2500"] == [tariff["maxPrice"] for tariff in told if tariff is not None]


# ---- a subscription with a new id -----------------------------------------------------------------------------------


async def test_an_heirs_message_without_a_user_finds_the_device_and_takes_it_over() -> None:
    post = Post(Rules())
    await post.household()
    post.rules = HEIR
    content = body("vehicle", "11:00", chargeState={"stateOfCharge": 33})
    await post.hear("new", "vehicle.update", {**content, "userId": None})
    old, new = DeviceKey(MINE, Kind.VEHICLE, "d-1"), DeviceKey("new", Kind.VEHICLE, "d-1")
    assert {new: "user-1"} == dict(await post.store.where_is(Kind.VEHICLE, "d-1"))
    assert {"user-1"} == set((await post.store.homes_of("user-1")).values())
    loaded = await post.store.load([], [old, new], [])
    assert {"new"} == {one.subscription for one in loaded.buildings["user-1"].state.devices.values()}
    await post.hear("new", "vehicle.delete", body("vehicle", "11:05"))
    assert {} == dict(await post.store.where_is(Kind.VEHICLE, "d-1"))


async def test_the_directory_moves_devices_of_a_former_id() -> None:
    post = Post(Rules())
    await post.household()
    post.rules = HEIR
    await post.store.write_residences([Residence(user="user-1", location=None, building="b-1")])
    worker = Worker(post.store, HEIR, Metrics(), queued=lambda: None, now=lambda: at(NOON))
    while await worker.step():
        pass
    homes = await post.store.homes_of("user-1")
    assert ({"new"}, {"b-1"}) == ({device.subscription for device in homes}, set(homes.values()))


async def test_an_older_message_of_the_former_id_moves_nothing() -> None:
    post = Post(Rules())
    await post.household()
    post.rules = HEIR
    await post.hear("new", "vehicle.update", body("vehicle", "09:00", userId="user-2"))
    homes = {device.subscription: home for device, home in (await post.store.where_is(Kind.VEHICLE, "d-1")).items()}
    assert {"new": "user-1"} == homes
