"""A user is forgotten (GDPR, article 17) while worker, clock and replay are at work on the same store."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from bridge import forget
from bridge.core.model import Residence
from bridge.core.rules import Rules, SubscriptionRule, Unknown
from bridge.forget import Tally
from bridge.store.desk import DeadFilter
from bridge.store.port import Census, Settlement, Work
from bridge.store.sqlite import SqliteStore
from tests.past import MINUTE, Past, car, device, inverter, iso, meter

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)
CANARIES = ("user-1", "CANARYVIN0000001", "52.279112", "Canary Street", "car-1", "m-1", "pv-1")


class Busy(SqliteStore):
    """A store in which something happens right before a step of work is written."""

    before: Callable[[], Awaitable[object]] | None = None

    async def commit(self, work: Work) -> Sequence[str]:
        if self.before is not None and (work.settled or work.tick or work.dead):
            happens, self.before = self.before, None
            await happens()
        return await super().commit(work)


@dataclass
class Scene:
    """A store of a daemon, and the command beside it."""

    store: Busy
    past: Past
    file: Path

    async def forget(self, user: str = "user-1", rules: Rules | None = None) -> Tally | None:
        """Forget a user on a connection of its own, as the command does; None = there is none."""
        rules = rules or self.past.rules
        beside = SqliteStore(str(self.file))
        await beside.open()
        try:
            found = await forget.find(beside, rules, user, _nobody)
            if not found:
                return None
            tally = await forget.erase(beside, rules, found, lambda: self.past.now, _nobody)
            assert await beside.compact(gently=True)
            return tally
        finally:
            await beside.close()

    async def census(self) -> Census:
        """Return the counts; both identities hold, and the ledger agrees with the rows."""
        assert [] == list(await self.store.verify())
        return await self.store.census()

    def said(self, *words: str) -> list[str]:
        """Return which of some words stand in any file of the store."""
        kept = b"".join(file.read_bytes() for file in sorted(self.file.parent.glob("bridge.db*")))
        return [word for word in words if word.encode() in kept]


def _nobody(_: float) -> None:
    """Nobody looks."""


@pytest.fixture
async def scene(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Scene]:
    file = tmp_path / "bridge.db"
    store = Busy(str(file), exclusive=True)
    await store.open()
    yield Scene(store, Past(store, getattr(request, "param", None)), file)
    assert [] == list(await store.verify())
    await store.close()


def secret_car(past: Past, charge: float, user: str = "user-1") -> dict[str, object]:
    """Return a car's message with everything that names a person."""
    return car(past.now, charge, user) | {
        "staticData": {"name": "Car of user-1", "vin": "CANARYVIN0000001", "lastUpdated": iso(past.now)},
        "location": {"latitude": 52.279112, "longitude": 8.047179, "lastUpdated": iso(past.now)},
        "address": "1 Canary Street",
    }


async def lived(scene: Scene) -> None:
    """Let two homes live for an hour, with every fate that a message and a call can have."""
    past = scene.past
    for minute in range(60):
        await past.hear("vehicle.update", secret_car(past, minute), after=MINUTE)
        await past.hear("meter.update", meter(past.now, 1.0))
        await past.hear("pv-inverter.update", inverter(past.now, 2.0))
        await past.hear("vehicle.update", device("car-2", past.now, "user-2", chargeState={"stateOfCharge": minute}))
        await past.live(0.5)
        if minute == 30:
            await past.deliver()
    for broken in (b'{"userId":"user-1","vin":"CANARYVIN0000001"', b'{"id":"x","userId":"user-2"'):
        await past.hear("vehicle.update", broken)
    await past.work()
    [lane] = [lane for lane in await scene.store.lease(past.now, 9, 9, HOUR) if lane.building == "user-1"]
    attempts = [Settlement(call_id=call.id, failed=True) for call in lane.calls[1:]]
    await scene.store.settle(past.now, attempts, [], [])
    await past.hear("vehicle.update", secret_car(past, 99))  # and this one waits


async def test_nothing_of_a_user_is_left_in_the_files_and_the_others_live_on(scene: Scene) -> None:
    await scene.store.write_residences([Residence(user="user-9", location="user-1", building="b", attributes={})])
    await lived(scene)
    assert list(CANARIES) == scene.said(*CANARIES)
    before = await scene.census()
    await scene.store.write_residences((), [("user-9", "user-1")])

    tally = await scene.forget()
    assert tally is not None
    after = await scene.census()
    assert [] == scene.said(*CANARIES)
    assert (182, 182, 1, 0) == (tally.erased.messages, after.erased, tally.alone, tally.shared)
    assert (before.accepted, before.queued, before.delivered) == (after.accepted, after.queued, after.delivered)
    assert (0, 1) == (after.pending, after.dead)
    assert after.calls_discarded > 0
    assert ["car-2", "user-2"] == scene.said("car-2", "user-2")
    await scene.past.hear("vehicle.update", car(scene.past.now, 12.0))
    await scene.past.live(1)
    assert await scene.store.building("user-1") is not None, "what comes later is new"
    assert await scene.store.building("user-2") is not None


async def test_a_message_in_the_hand_of_the_worker_brings_nothing_back(scene: Scene) -> None:
    await scene.past.hear("vehicle.update", secret_car(scene.past, 50))
    await scene.past.hear("vehicle.update", device("car-2", scene.past.now, "user-2", chargeState={"stateOfCharge": 1}))
    scene.store.before = scene.forget
    await scene.past.work()
    census = await scene.census()
    assert None is scene.store.before, "it happened"
    assert (1, 1, 0) == (census.erased, census.settled, census.pending)
    assert [] == scene.said(*CANARIES)
    assert await scene.store.building("user-2") is not None


async def test_a_dead_message_in_the_hand_of_the_worker_brings_nothing_back(scene: Scene) -> None:
    await scene.past.hear("vehicle.update", b'{"userId":"user-1","vin":"CANARYVIN0000001"')
    scene.store.before = scene.forget
    await scene.past.work()
    assert (1, 0) == ((await scene.census()).erased, (await scene.census()).dead)
    assert [] == scene.said(*CANARIES)


async def test_a_building_in_the_hand_of_the_clock_does_not_come_back(scene: Scene) -> None:
    past = scene.past
    for _ in range(16):
        await past.hear("meter.update", meter(past.now, 1.0), after=MINUTE)
        await past.work()
    past.now += 10 * MINUTE
    scene.store.before = scene.forget
    await past.turn()
    assert None is scene.store.before, "it happened"
    assert None is await scene.store.building("user-1")
    assert [] == scene.said(*CANARIES)


@pytest.mark.parametrize("scene", [Rules(unknown=Unknown.PARK)], indirect=True)
async def test_parked_messages_and_the_directory_go_too(scene: Scene) -> None:
    await scene.past.hear("vehicle.update", secret_car(scene.past, 50))
    await scene.past.work()
    assert 1 == (await scene.census()).parked
    await scene.store.write_residences([Residence(user="user-1", location="Canary Street", building="b")])
    tally = await scene.forget()
    assert tally is not None
    assert (0, 1, []) == (
        (await scene.census()).parked, (await scene.census()).erased, list(await scene.store.residences()),
    )  # fmt: skip
    assert [] == scene.said(*CANARIES)
    await scene.past.work()


async def test_in_a_shared_building_the_others_keep_their_devices_and_their_calls(scene: Scene) -> None:
    past = scene.past
    rows = [Residence(user=user, location=None, building="house-1") for user in ("user-1", "user-2")]
    await scene.store.write_residences(rows)
    await past.work()
    for minute in range(40):
        await past.hear("vehicle.update", secret_car(past, minute), after=MINUTE)
        await past.hear("meter.update", meter(past.now, 1.0, number="meter-2", user="user-2"))
        await past.hear("pv-inverter.update", inverter(past.now, 2.0))
        await past.live(0.5)
    theirs = [event for event in await past.events() if "meter-2" in event[1]]
    tally = await scene.forget()
    assert tally is not None
    assert (0, 1) == (tally.alone, tally.shared)
    assert [] == scene.said(*CANARIES)
    events = await past.events()
    assert theirs == [event for event in events if "meter-2" in event[1]]
    assert not any("car-1" in event[1] for event in events)
    state = await scene.store.building("house-1")
    assert state is not None
    assert (["sub-1/meter:meter-2"], ("user-2",)) == (list(state.state.devices), state.state.users)

    found, replayed = await past.again()
    assert [] == found, "a past without its messages is not made again"
    assert replayed.uncertain > 0
    await past.hear("meter.update", meter(past.now, 3.0, number="meter-2", user="user-2"), after=MINUTE)
    await past.live(30)
    assert len(await past.events()) > len(events)


async def test_a_message_that_names_no_user_is_that_of_its_devices_owner(scene: Scene) -> None:
    await scene.past.hear("vehicle.update", secret_car(scene.past, 50))
    await scene.past.work()
    nameless = {name: value for name, value in car(scene.past.now, 51.0).items() if name != "userId"}
    await scene.past.hear("vehicle.update", nameless, after=MINUTE)
    await scene.forget()
    assert 2 == (await scene.census()).erased
    assert [] == scene.said(*CANARIES)


async def test_a_user_is_named_with_the_prefix_of_its_subscription(scene: Scene) -> None:
    rules = Rules(subscriptions={"sub-1": SubscriptionRule(user_prefix="a/")})
    scene.past.worker._rules = rules
    await scene.past.hear("vehicle.update", secret_car(scene.past, 50))
    await scene.past.work()
    await scene.past.hear("vehicle.update", b'{"userId": "user-1", broken')
    assert None is await scene.forget("user-1", rules), "spelled the same, but of no subscription that there is"
    both = Rules(subscriptions={**rules.subscriptions, "sub-2": SubscriptionRule()})
    assert None is await scene.forget("user-1", both), "somebody else, who is spelled the same"
    assert await scene.forget("a/user-1", rules) is not None
    assert 2 == (await scene.census()).erased
    assert [] == scene.said(*CANARIES)


async def test_who_is_not_there_is_not_found(scene: Scene) -> None:
    await scene.past.hear("vehicle.update", car(scene.past.now, 50.0, user="user-11"))
    await scene.past.work()
    await scene.past.hear("vehicle.update", json.dumps({"userId": "user-12"}).encode()[:-1])
    await scene.past.work()
    assert None is await scene.forget("user-1")
    assert (0, 1) == ((await scene.census()).erased, len(await scene.store.dead_letters(DeadFilter())))


async def test_a_step_that_broke_off_is_finished_by_the_next(scene: Scene) -> None:
    await lived(scene)
    found = await forget.find(scene.store, scene.past.rules, "user-1", _nobody)
    rest = 3

    def breaks(_: float) -> None:
        nonlocal rest
        rest -= 1
        if not rest:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await forget.erase(scene.store, scene.past.rules, found, lambda: scene.past.now, breaks)
    await scene.census()
    assert await scene.forget() is not None
    assert [] == scene.said(*CANARIES)
    assert None is await scene.forget()
