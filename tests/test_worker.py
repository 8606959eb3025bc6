"""The worker with a real keeper: from accepted messages to states, homes, calls and dead letters (M1, M7, R2, R12)."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from bridge.core import messages
from bridge.core.effects import Call, ChangeBuilding, CreateBuilding, PutDevices, SendEvents
from bridge.core.model import Building, Flag, Residence
from bridge.core.reduce import reduce
from bridge.core.rules import Rules, Unknown
from bridge.core.vocabulary import EventType, Kind
from bridge.limits import Limit
from bridge.metrics import Metrics
from bridge.store.desk import DeadFilter
from bridge.store.memory import MemoryStore
from bridge.store.port import Arrival, Home, Settlement, StoreBroken, StoreUnavailable, Versioned, Work
from bridge.worker import Worker, room, step
from tests.core.house import BLOCKS, NOON, at, body, iso, own, prices

pytestmark = pytest.mark.anyio

PARK = Rules(unknown=Unknown.PARK)
ADDRESS = {"zip": "49074", "timeZoneId": "Europe/Vienna"}


class Desk:
    """A worker, its store, and what it has queued."""

    def __init__(self, rules: Rules | None = None, store: MemoryStore | None = None) -> None:
        self.reached: list[tuple[Limit, str, int]] = []
        self.store = store or MemoryStore()
        self.metrics = Metrics()
        self.wakes = 0
        self.worker = Worker(
            self.store,
            rules or Rules(),
            self.metrics,
            queued=self._woken,
            now=lambda: at(NOON),
            reached=lambda *limit: self.reached.append(limit),
        )

    def _woken(self) -> None:
        self.wakes += 1

    async def accept(self, *said: tuple[str, Any], received: str = NOON) -> list[int]:
        """Accept messages without working; content is JSON or raw bytes."""
        arrivals = [
            Arrival(
                subscription="sub-1",
                topic=f"sub-1.{topic}",
                body=content if isinstance(content, bytes) else json.dumps(content).encode(),
                received=at(received),
            )
            for topic, content in said
        ]
        return [receipt.id for receipt in await self.store.accept(arrivals)]

    async def hear(self, *said: tuple[str, Any], received: str = NOON) -> list[int]:
        """Accept messages and work until nothing is left."""
        ids = await self.accept(*said, received=received)
        await self.work()
        return ids

    async def know(self, *rows: Residence) -> None:
        """Write directory rows and work until nothing is left."""
        await self.store.write_residences(rows)
        await self.work()

    async def work(self) -> None:
        """Work until nothing is left; the two identities of the ledger hold."""
        while await self.worker.step():
            pass
        c = await self.store.census()
        assert c.accepted == c.settled + c.pending + c.parked + c.dead + c.discarded + c.erased
        assert c.queued == c.delivered + c.calls_pending + c.calls_dead + c.replaced + c.calls_discarded
        assert [] == list(await self.store.verify())

    async def owed(self, building: str) -> list[Call]:
        """Return what is owed to one building, in order; it counts as delivered."""
        now = at(NOON) + timedelta(days=1)
        lanes = {lane.building: lane for lane in await self.store.lease(now, 1000, 1000, timedelta(0))}
        if building not in lanes:
            return []
        settled = [
            Settlement(call_id=owed.id, delivered=len(values([owed.call])) or 1) for owed in lanes[building].calls
        ]
        await self.store.settle(now, settled, (), ())
        return [owed.call for owed in lanes[building].calls]

    async def state(self, building: str) -> Building:
        """Return a building's state."""
        found = await self.store.building(building)
        assert found is not None
        return found.state

    async def home(self, kind: Kind, device: str = "d-1") -> Home | None:
        """Return where a device lives."""
        me = own(kind, device)
        return (await self.store.load([], [me], [])).homes.get(me)

    async def dead(self) -> list[tuple[str, str, str | None]]:
        """Return (reason, detail, user) of each dead letter."""
        return [
            (str(letter.reason), letter.detail, letter.user) for letter in await self.store.dead_letters(DeadFilter())
        ]


def row(building: str, location: str | None = None, user: str = "user-1", /, **attributes: object) -> Residence:
    """Return a directory row."""
    return Residence(user=user, location=location, building=building, attributes=attributes)


def car(clock: str, charge: float, **changes: Any) -> tuple[str, dict[str, Any]]:  # noqa: ANN401 - whatever JSON holds
    """Return a car's update with a state of charge [%]."""
    return "vehicle.update", body("vehicle", clock, chargeState={"stateOfCharge": charge}, **changes)


def values(calls: Sequence[Call]) -> list[float]:
    """Return the values of all events among calls."""
    return [event.value for call in calls if isinstance(call, SendEvents) for event in call.events]


def lists(calls: Sequence[Call]) -> list[list[str]]:
    """Return the ids of each device list among calls, without the household's."""
    return [[entry.id for entry in call.devices[1:]] for call in calls if isinstance(call, PutDevices)]


# ---- parking ---------------------------------------------------------------------------------------------------------


async def test_a_message_waits_until_the_directory_knows_its_user_and_then_flows_in_order() -> None:
    desk = Desk(PARK)
    await desk.know(row("b-2", None, "user-2"))
    await desk.hear(car("10:00", 10), car("10:01", 20), car("10:00", 77, userId="user-2", id="d-2"), car("10:02", 30))
    assert (3, 1) == ((await desk.store.census()).parked, (await desk.store.census()).settled)
    assert [77] == values(await desk.owed("b-2"))
    await desk.accept(car("10:03", 40))
    await desk.know(row("b-1"))
    calls = await desk.owed("b-1")
    assert [CreateBuilding, PutDevices, *[SendEvents] * 4] == [type(call) for call in calls]
    assert [10, 20, 30, 40] == values(calls)
    assert 0 == (await desk.store.census()).parked


async def test_a_parked_delete_still_follows_the_update_that_was_parked_before_it() -> None:
    desk = Desk(PARK)
    await desk.hear(car("10:00", 10), ("vehicle.delete", body("vehicle", "10:01")))
    await desk.know(row("b-1"))
    assert {} == (await desk.state("b-1")).devices
    assert [["vehicle:d-1"], []] == lists(await desk.owed("b-1")), "its event is told of a device that MOOST knows"


async def test_a_message_whose_place_the_directory_does_not_know_is_parked_again() -> None:
    desk = Desk(PARK)
    content = body("battery", locationId="loc-2")
    await desk.hear(("battery.update", content))
    await desk.know(row("b-1", "loc-1"))
    assert 1 == (await desk.store.census()).parked
    await desk.know(row("b-2", "loc-2"))
    assert [["battery:d-1"]] == lists(await desk.owed("b-2"))


# ---- without user ----------------------------------------------------------------------------------------------------


async def test_a_message_without_user_is_about_the_device_as_it_is_known() -> None:
    desk = Desk(PARK)
    await desk.know(row("b-1", None, **ADDRESS))
    await desk.hear(car("10:00", 10))
    await desk.owed("b-1")
    before = await desk.state("b-1")
    await desk.hear(car("10:01", 20, userId=None))
    after = await desk.state("b-1")
    assert [SendEvents] == [type(call) for call in await desk.owed("b-1")]
    assert ("Europe/Vienna", True, ("user-1",)) == (after.time_zone, after.known, after.users)
    assert before.sheet == after.sheet
    assert Home(building="b-1", user="user-1") == await desk.home(Kind.VEHICLE)


async def test_a_message_without_user_about_something_unknown_is_dead() -> None:
    desk = Desk()
    await desk.hear(car("10:00", 10, userId=None))
    detail = "the message names no user and its device is not known"
    assert [("unreadable", detail, None)] == await desk.dead()


# ---- moves -----------------------------------------------------------------------------------------------------------

TWO = (row("city", "loc-1", zip="10115"), row("lake", "loc-2", zip="78462"))


def charger(action: str, clock: str, location: str | None) -> tuple[str, dict[str, Any]]:
    """Return a charger's message from a place."""
    return f"charger.{action}", body("charger", clock, location=location)


async def test_a_device_that_names_another_place_moves() -> None:
    desk = Desk()
    await desk.know(*TWO)
    await desk.hear(charger("update", "10:00", "loc-1"))
    assert [["charger:d-1"]] == lists(await desk.owed("city"))
    await desk.hear(charger("update", "10:10", "loc-2"))
    assert [[]] == lists(await desk.owed("city"))
    assert [["charger:d-1"]] == lists(await desk.owed("lake"))
    assert Home(building="lake", user="user-1") == await desk.home(Kind.CHARGER)
    assert {Flag.LEFT_BEHIND: 1} == dict((await desk.store.census()).flags)


async def test_what_a_message_finds_wrong_with_a_building_is_one_line() -> None:
    desk = Desk()
    with capture_logs() as logged:
        for name, place in (("c-1", "loc-1"), ("c-2", "loc-2"), ("c-2", "loc-2"), ("c-2", "loc-1")):
            await desk.hear(("charger.update", body("charger", f"10:0{len(logged)}", id=name, location=place)))
    assert [("building_flagged", "user-1"), ("building_cleared", "user-1")] == [
        (line["event"], line["building"]) for line in logged
    ]
    assert "ambiguous-location" == logged[0]["flag"]


def generation(building: Building, until: str) -> dict[str, float]:
    """Let time pass over a building; return the energies [Wh] that its household generates, by slot end."""
    rules, found = Rules(spread=timedelta(0)), dict[str, float]()
    while True:
        after, effects = reduce(building, messages.Tick(now=at(until), catching_up=False), rules)
        sent = [event for effect in effects if isinstance(effect, SendEvents) for event in effect.events]
        found |= {f"{one.at:%H:%M}": one.value for one in sent if one.type is EventType.ENERGY_GENERATION}
        if after.open_from == building.open_from:
            return found
        building = after


def inverter(clock: str, location: str, since: str = "10:02") -> tuple[str, dict[str, Any]]:
    """Return the message of an inverter that has made 4 kW for a while."""
    return "pv-inverter.update", body("pv-inverter", clock, locationId=location, powerState={"lastUpdated": iso(since)})


async def test_a_device_that_moves_counts_in_one_place_at_a_time() -> None:
    desk = Desk()
    await desk.know(*TWO)
    await desk.hear(inverter("10:02", "loc-1"), received="10:02")
    await desk.hear(inverter("10:40", "loc-2"), inverter("10:05", "loc-1"), received="10:40")
    city, lake = await desk.state("city"), await desk.state("lake")
    assert city.departed[0].until == at("10:40") == lake.devices["sub-1/pv-inverter:d-1"].since
    assert {"10:30": 1000.0, "10:45": 666.667} == generation(city, "11:02")
    assert {"11:00": 1000.0} == generation(lake, "11:02")


async def test_a_device_that_the_directory_moves_counts_in_one_place_at_a_time() -> None:
    desk = Desk()
    await desk.hear(inverter("11:32", "loc-1", "11:32"), received="11:32")
    await desk.know(row("lake"))  # it is noon then
    await desk.hear(inverter("12:01", "loc-1", "11:32"), received="12:01")
    former, lake = await desk.state("user-1"), await desk.state("lake")
    assert former.departed[0].until == at(NOON) == lake.devices["sub-1/pv-inverter:d-1"].since
    assert {"12:00": 1000.0} == generation(former, "12:32")
    assert {"12:15": 1000.0, "12:30": 1000.0} == generation(lake, "12:32")


async def test_a_late_message_from_the_former_place_does_not_move_it_back() -> None:
    desk = Desk()
    await desk.know(*TWO)
    await desk.hear(charger("update", "10:00", "loc-1"), charger("update", "10:10", "loc-2"))
    await desk.owed("lake")
    await desk.hear(charger("update", "10:05", "loc-1"))
    assert [] == await desk.owed("lake")
    assert "78462" not in repr(await desk.state("lake"))
    assert Home(building="lake", user="user-1") == await desk.home(Kind.CHARGER)


async def test_offline_without_a_place_and_delete_from_the_wrong_one_reach_it_where_it_lives() -> None:
    desk = Desk()
    await desk.know(*TWO)
    await desk.hear(charger("update", "10:00", "loc-2"), charger("offline", "10:01", None))
    assert (await desk.state("lake")).devices["sub-1/charger:d-1"].offline
    await desk.owed("lake")
    await desk.hear(charger("delete", "10:02", "loc-1"))
    assert [[]] == lists(await desk.owed("lake"))
    assert await desk.home(Kind.CHARGER) is None
    assert [] == await desk.owed("city")


async def test_a_device_of_another_user_moves_to_that_user() -> None:
    desk = Desk()
    await desk.hear(car("10:00", 10), car("10:05", 20, userId="user-2"))
    assert [["vehicle:d-1"], []] == lists(await desk.owed("user-1")), "its event is told of a device that MOOST knows"
    assert [["vehicle:d-1"]] == lists(await desk.owed("user-2"))
    assert Home(building="user-2", user="user-2") == await desk.home(Kind.VEHICLE)


async def test_prices_follow_their_tariff_whatever_place_they_name() -> None:
    desk = Desk()
    await desk.know(*TWO)
    await desk.hear(("tariff.update", body("tariff", locationId="loc-2")))
    await desk.owed("lake")
    await desk.hear(("tariff.price.update", prices(("13:00", 0.3), locationId=None)))
    (change,) = await desk.owed("lake")
    assert isinstance(change, ChangeBuilding)
    assert change.tariff_set
    assert {} == change.attributes


# ---- the directory changes -------------------------------------------------------------------------------------------


async def test_a_changed_row_sends_what_changed() -> None:
    desk = Desk()
    await desk.know(row("b-1", None, **ADDRESS))
    await desk.hear(car("10:00", 10))
    await desk.owed("b-1")
    await desk.know(row("b-1", None, **{**ADDRESS, "zip": "49076"}))
    (change,) = await desk.owed("b-1")
    assert isinstance(change, ChangeBuilding)
    assert {"zip": "49076"} == change.attributes


async def test_a_row_for_a_user_who_has_a_building_already_moves_all_its_devices() -> None:
    desk = Desk()
    await desk.hear(
        car("10:00", 10),
        ("battery.update", body("battery", "10:00")),
        ("battery.offline", body("battery", "10:01")),
        ("hvac.disconnect", body("hvac", "10:01")),
        ("tariff.update", body("tariff")),
        ("tariff.price.update", prices(("13:00", 0.3), ("14:00", 0.2))),
    )
    await desk.owed("user-1")
    await desk.know(row("b-1", None, zip="49074"))
    assert [] == lists(await desk.owed("user-1"))[-1]
    calls = await desk.owed("b-1")
    assert isinstance(calls[0], CreateBuilding)
    assert {"zip": "49074", "userIds": ["user-1"]}.items() <= calls[0].attributes.items()
    assert ["battery:d-1", "hvac:d-1", "vehicle:d-1"] == lists(calls)[-1]
    assert [] == values(calls)  # past events are not sent again
    state = await desk.state("b-1")
    away = {name: (device.offline, device.disconnected) for name, device in state.devices.items()}
    assert {
        "sub-1/vehicle:d-1": (False, False),
        "sub-1/battery:d-1": (True, False),
        "sub-1/hvac:d-1": (False, True),
        "sub-1/tariff:d-1": (False, False),
    } == away
    tariffs = [call.tariff for call in calls if isinstance(call, ChangeBuilding) and call.tariff_set]
    assert tariffs[-1] is not None
    assert ["0.3000", "0.2000"] == [each["price"] for each in tariffs[-1]["dynamic"]["tariffs"]]  # type: ignore[index]
    assert {Flag.LEFT_BEHIND: 1} == dict((await desk.store.census()).flags)
    await desk.hear(car("10:10", 11))
    assert [11] == values(await desk.owed("b-1"))


async def test_a_row_without_devices_sends_nothing() -> None:
    desk = Desk()
    await desk.know(row("b-1", None, zip="49074"))
    assert [] == await desk.owed("b-1")


# ---- what is no message ----------------------------------------------------------------------------------------------


async def test_what_cannot_be_read_is_dead_and_its_siblings_flow() -> None:
    desk = Desk()
    await desk.hear(
        car("10:00", 10), ("vehicle.update", b"{"), ("boiler.update", {}), ("meter.update", b"null"), car("10:01", 20)
    )
    assert [10, 20] == values(await desk.owed("user-1"))
    assert [
        ("unreadable", "the body is not valid JSON", None),
        ("unknown-topic", "the topic names no kind of device that exists", None),
    ] == await desk.dead()
    assert 1 == (await desk.store.census()).notes["tombstone"]


# ---- faults ----------------------------------------------------------------------------------------------------------


def break_for(monkeypatch: pytest.MonkeyPatch, culprit: Callable[[messages.Message], bool]) -> None:
    """Plant a bug in the core: it raises for some messages."""
    whole = reduce

    def broken(building: Building, message: messages.Message, *rest: Any) -> Any:  # noqa: ANN401 - handed on
        if culprit(message):
            raise ZeroDivisionError("secret value 4711")
        return whole(building, message, *rest)

    monkeypatch.setattr(step, "reduce", broken)


def is_car(message: messages.Message, device: str) -> bool:
    """Tell whether a message is about one car."""
    return isinstance(message, messages.Report) and message.id == device


async def test_a_message_that_the_core_breaks_on_is_dead_and_its_siblings_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    break_for(monkeypatch, lambda message: is_car(message, "bad"))
    desk = Desk()
    await desk.hear(car("10:00", 10), car("10:00", 66, id="bad"), car("10:01", 20))
    assert [10, 20] == values(await desk.owed("user-1"))
    ((reason, detail, user),) = await desk.dead()
    assert ("fault", "user-1") == (reason, user)
    assert detail.startswith("ZeroDivisionError in ")
    assert "4711" not in detail
    assert b"bridge_messages_dead_total 1.0" in desk.metrics.render()


async def test_a_fault_heals_with_a_retry_once_the_bug_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    with monkeypatch.context() as planted:
        break_for(planted, lambda message: is_car(message, "d-1"))
        await desk.hear(car("10:00", 10))
    letters = await desk.store.dead_letters(DeadFilter())
    await desk.store.retry([letter.id for letter in letters], at(NOON))
    await desk.work()
    assert [10] == values(await desk.owed("user-1"))


class Shown(MemoryStore):
    """Shows few changed users at a time, as the real stores do, and counts what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.commits = 0

    async def claim(self, limit: int) -> Any:  # noqa: ANN401 - as the store
        rows, changed = await super().claim(limit)
        return rows, changed[:100]

    async def commit(self, work: Work) -> Sequence[str]:
        self.commits += 1
        return await super().commit(work)


async def test_an_import_of_many_rows_keeps_the_messages_of_others_waiting_for_a_batch_only() -> None:
    store = Shown()
    desk = Desk(store=store)
    await store.write_residences([row(f"b-{n}", None, f"other-{n}") for n in range(1_000)])
    await desk.accept(car("10:00", 10))
    assert 1 == await desk.worker.step()
    assert [10] == values(await desk.owed("user-1")), "it does not wait for the other users' rows"
    assert 2 == store.commits
    await desk.work()
    assert 11 == store.commits, "a hundred users are one transaction"


@pytest.mark.parametrize("named", [True, False])
async def test_a_message_does_not_overtake_those_of_its_user_that_the_directory_frees(*, named: bool) -> None:
    store = Shown()
    desk = Desk(PARK, store=store)
    await desk.know(row("b-1"))
    await desk.hear(car("09:00", 5))
    await desk.know()
    await store.write_residences((), [("user-1", None)])
    await desk.work()
    await desk.hear(car("10:00", 10, id="d-2"))
    assert 1 == (await store.census()).parked
    await store.write_residences([row(f"b-{n}", None, f"other-{n}") for n in range(1_000)])
    await store.write_residences([row("b-1")])
    topic, later = car("10:05", 20, id="d-2" if named else "d-1")
    await desk.accept((topic, later if named else {name: value for name, value in later.items() if name != "userId"}))
    while (await store.census()).pending:
        await desk.worker.step()
    assert [5, 10, 20] == values(await desk.owed("b-1"))


async def test_a_directory_change_that_the_core_breaks_on_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(PARK)
    await desk.hear(car("10:00", 10))
    await desk.know(row("b-1"))
    await desk.hear(car("10:00", 10, userId="user-2", id="d-2"))
    break_for(monkeypatch, lambda message: isinstance(message, messages.Readdressed))
    await desk.know(row("b-1", None, zip="49074"), row("b-2", None, "user-2"))
    assert [10] == values(await desk.owed("b-2"))
    assert 1 == (await desk.store.census()).notes["directory_fault"]


# ---- conflicts -------------------------------------------------------------------------------------------------------


class Contended(MemoryStore):
    """Somebody else changes a building between the worker's reading and writing, some times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    async def commit(self, work: Work) -> Sequence[str]:
        if self.times and work.buildings:
            self.times -= 1
            for mine in work.buildings:
                there = await self.building(mine.state.id)
                state = there.state if there is not None else Building(id=mine.state.id)
                version = there.version if there is not None else 0
                assert not await super().commit(Work(now=work.now, buildings=[Versioned(state=state, version=version)]))
        return await super().commit(work)


@pytest.mark.parametrize("times", [1, 5])
async def test_a_building_that_changed_meanwhile_makes_the_batch_start_over(times: int) -> None:
    desk = Desk(store=Contended(times))
    await desk.hear(car("10:00", 10), car("10:01", 20))
    assert [CreateBuilding, PutDevices, SendEvents, SendEvents] == [type(call) for call in await desk.owed("user-1")]
    assert 2 == (await desk.store.census()).settled


async def test_a_building_that_changes_again_and_again_is_waited_for_and_nothing_is_buried() -> None:
    store = Contended(room.MOST_CONFLICTS)
    desk = Desk(store=store)
    await desk.accept(car("10:00", 10))
    with pytest.raises(StoreUnavailable):
        await desk.worker.step()
    assert 1 == (await store.census()).pending
    await desk.work()
    assert [10] == values(await desk.owed("user-1"))


async def test_a_directory_change_starts_over_too() -> None:
    store = Contended(0)
    desk = Desk(store=store)
    await desk.hear(car("10:00", 10))
    store.times = room.MOST_CONFLICTS + 3
    await store.write_residences([row("b-1")])
    with pytest.raises(StoreUnavailable):
        await desk.worker.step()
    await desk.work()
    assert Home(building="b-1", user="user-1") == await desk.home(Kind.VEHICLE)


# ---- the room --------------------------------------------------------------------------------------------------------


async def test_a_batch_ends_after_a_while_and_what_is_left_comes_with_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "TURN_S", 0.0)
    monkeypatch.setattr(room, "SLICE_S", 0.0)
    desk, whole = Desk(), Desk()
    said = [car(f"10:{minute:02}", minute) for minute in range(5)]
    await desk.accept(*said)
    assert [1] * 5 == [await desk.worker.step() for _ in range(5)]
    monkeypatch.undo()
    await whole.accept(*said)
    assert 5 == await whole.worker.step()
    one, other = await whole.store.building("user-1"), await desk.store.building("user-1")
    assert one is not None
    assert other is not None
    assert one.state == other.state


async def run_until(desk: Desk, done: Callable[[], Awaitable[bool]]) -> None:
    """Run the room until something is true, with a deadline."""
    stop = asyncio.Event()
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(desk.worker.run(stop))
        while not await done():  # noqa: ASYNC110 - the condition is in the store, which tells nobody
            await asyncio.sleep(0)
        stop.set()
        desk.worker.wake.set()


async def test_the_room_works_off_what_is_accepted_and_wakes_the_sender() -> None:
    desk = Desk()
    await desk.accept(*[car(f"1{n // 60}:{n % 60:02}", n % 100) for n in range(3 * room.BATCH // 2)], received="13:30")

    async def done() -> bool:
        return (await desk.store.census()).pending == 0

    await run_until(desk, done)
    assert 3 * room.BATCH // 2 == (await desk.store.census()).settled
    assert desk.wakes >= 2


async def test_messages_that_come_fast_gather_for_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "PACE_S", 0.2)
    desk = Desk()
    stop = asyncio.Event()
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        await desk.accept(*[car("11:00", n) for n in range(room.PACE_FROM)])
        tasks.create_task(desk.worker.run(stop))
        while (await desk.store.census()).pending:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
        await desk.accept(car("11:01", 50))
        desk.worker.wake.set()
        for _ in range(20):
            await asyncio.sleep(0)
        assert 1 == (await desk.store.census()).pending, "the next batch waits"
        while (await desk.store.census()).pending:  # noqa: ASYNC110
            await asyncio.sleep(0)
        stop.set()
        desk.worker.wake.set()


async def test_the_room_waits_for_a_store_that_cannot_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    class Sulking(MemoryStore):
        sulks = 3

        async def claim(self, limit: int) -> Any:  # noqa: ANN401 - as the store
            if self.sulks:
                self.sulks -= 1
                raise StoreUnavailable("not now")
            return await super().claim(limit)

    monkeypatch.setattr(room, "WAIT_S", 0.001)
    desk = Desk(store=Sulking())
    await desk.accept(car("10:00", 10))

    async def done() -> bool:
        return (await desk.store.census()).settled == 1

    await run_until(desk, done)
    assert [10] == values(await desk.owed("user-1"))


async def test_a_broken_store_ends_the_room() -> None:
    class Broken(MemoryStore):
        async def claim(self, limit: int) -> Any:  # noqa: ANN401, ARG002 - as the store
            raise StoreBroken("the disk is gone")

    with pytest.raises(StoreBroken):
        await Desk(store=Broken()).worker.run(asyncio.Event())


async def test_a_message_is_settled_only_together_with_its_effects() -> None:
    class Forgetful(MemoryStore):
        async def commit(self, work: Work) -> Sequence[str]:
            if work.calls:
                raise StoreUnavailable("not now")
            return await super().commit(work)

    store = Forgetful()
    desk = Desk(store=store)
    await desk.accept(car("10:00", 10))
    with pytest.raises(StoreUnavailable):
        await desk.worker.step()
    assert (1, 0) == ((await store.census()).pending, (await store.census()).settled)


@pytest.mark.parametrize("during", ["claim", "commit", "readdress", "one by one"])
async def test_trouble_of_the_store_is_never_taken_for_a_fault_of_a_message(
    during: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Sulking(MemoryStore):
        sulks = False

        async def commit(self, work: Work) -> Sequence[str]:
            if self.sulks:
                raise StoreUnavailable("not now")
            return await super().commit(work)

        async def claim(self, limit: int) -> Any:  # noqa: ANN401 - as the store
            if self.sulks and during == "claim":
                raise StoreUnavailable("not now")
            return await super().claim(limit)

    store = Sulking()
    desk = Desk(store=store)
    if during == "readdress":
        await store.write_residences([row("b-1")])
    await desk.accept(car("10:00", 10), car("10:00", 20, id="bad"))
    store.sulks = True
    with monkeypatch.context() as planted:
        if during == "one by one":
            break_for(planted, lambda message: is_car(message, "bad"))
        with pytest.raises(StoreUnavailable):
            await desk.worker.step()
    store.sulks = False
    assert 2 == (await store.census()).pending
    await desk.work()
    assert 2 == (await store.census()).settled


async def test_a_message_that_cannot_even_be_decoded_without_a_fault_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(step, "decode", broken)
    desk = Desk()
    await desk.hear(car("10:00", 10))
    ((reason, _, user),) = await desk.dead()
    assert ("fault", None) == (reason, user)


async def test_a_command_of_someone_unknown_is_settled_where_only_known_users_are_welcome() -> None:
    desk = Desk(PARK)
    await desk.hear(("hvac.command", {"id": "c-1", "userId": "user-1", "deviceId": "d-1", "state": "PENDING"}))
    assert 1 == (await desk.store.census()).settled
    assert 1 == (await desk.store.census()).notes["unknown_device_ignored"]


async def test_a_late_sample_is_counted() -> None:
    desk = Desk()
    await desk.hear(("battery.update", body("battery", "10:00")))
    found = await desk.store.building("user-1")
    assert found is not None
    closed = replace(found.state, closed=True, open_from=at("11:00"))
    await desk.store.commit(Work(now=at(NOON), buildings=[Versioned(state=closed, version=found.version)]))
    late = body("battery", "10:30", chargeState={"chargeRate": 1, "lastUpdated": iso("10:30")})
    await desk.hear(("battery.update", late))
    assert b"bridge_late_samples_total 1.0" in desk.metrics.render()


# ---- bounds ----------------------------------------------------------------------------------------------------------

FEW = Rules(devices_per_building=2)


async def test_a_device_too_many_is_a_dead_letter_and_the_building_flagged() -> None:
    desk = Desk(FEW)
    await desk.hear(*(car("10:00", 50, id=f"v-{number}") for number in range(4)))
    named = "the building has 2 devices, the most it may have (limits.devices_per_building)"
    assert [("too-many", named, "user-1")] * 2 == await desk.dead()
    assert [(Limit.DEVICES_PER_BUILDING, "sub-1", 2)] == desk.reached
    census = await desk.store.census()
    assert ({Flag.TOO_MANY: 1}, {"too-many": 2}) == (dict(census.flags), dict(census.dead_letters))
    assert ["user-1"] == list(await desk.store.flagged(Flag.TOO_MANY))
    assert [["vehicle:v-0", "vehicle:v-1"]] == lists(await desk.owed("user-1"))
    await desk.hear(("vehicle.delete", body("vehicle", "10:30", id="v-0")))
    assert {} == dict((await desk.store.census()).flags)
    await desk.store.retry([letter.id for letter in await desk.store.dead_letters(DeadFilter())], at(NOON))
    await desk.work()
    assert ["too-many"] == [reason for reason, _, _ in await desk.dead()]
    assert ["sub-1/vehicle:v-1", "sub-1/vehicle:v-2"] == sorted((await desk.state("user-1")).devices)


async def test_what_is_older_than_a_delete_is_settled_also_where_there_is_no_room() -> None:
    desk = Desk(FEW)
    await desk.hear(car("10:00", 50, id="v-0"), ("vehicle.delete", body("vehicle", "10:30", id="v-0")))
    await desk.hear(car("10:00", 50, id="v-1"), car("10:00", 50, id="v-2"), car("10:10", 50, id="v-0"))
    assert [] == await desk.dead()


async def test_a_device_that_moves_into_a_full_building_stays_where_it_is() -> None:
    desk = Desk(FEW)
    await desk.hear(car("10:00", 50, id="v-0"), car("10:00", 50, id="v-1"), car("10:00", 50, userId="user-2"))
    await desk.hear(car("10:10", 60))
    assert ["too-many"] == [reason for reason, _, _ in await desk.dead()]
    assert Home(building="user-2", user="user-2") == await desk.home(Kind.VEHICLE)
    assert {"sub-1/vehicle:d-1"} == set((await desk.state("user-2")).devices)


async def test_the_directory_moves_no_device_into_a_full_building() -> None:
    desk = Desk(FEW)
    await desk.hear(*(car("10:00", 50, id=f"v-{number}") for number in range(2)))
    await desk.hear(*(car("10:00", 50, id=f"w-{number}", userId="user-2") for number in range(2)))
    await desk.know(row("user-1", None, "user-2"))
    assert {"user-2"} == set((await desk.store.homes_of("user-2")).values())
    assert {Flag.TOO_MANY: 1} == dict((await desk.store.census()).flags)
    assert ["user-1"] == list(await desk.store.flagged(Flag.TOO_MANY))


async def test_a_tariff_too_many_is_a_dead_letter_too() -> None:
    desk = Desk()
    await desk.hear(*(("tariff.price.update", prices(("13:00", 1), id=f"t-{number}")) for number in range(21)))
    assert [("too-many", "the building has 20 tariffs, the most it may have", "user-1")] == await desk.dead()


async def test_a_message_over_a_bound_is_a_dead_letter_that_names_it() -> None:
    desk = Desk()
    many = {"id": "d-1", "userId": "user-1", "prices": [{"startDate": iso("13:00")}] * 1_001}
    await desk.hear(("tariff.price.update", many), ("vehicle.update", body("vehicle", id="x" * 257)))
    assert [
        ("too-large", "the message has 1,001 prices, the most is 1,000", None),
        ("too-large", "an id has 257 characters, the most is 256", None),
    ] == await desk.dead()
    assert {(Limit.ENTRIES_PER_MESSAGE, "sub-1", 1), (Limit.ID_LENGTH, "sub-1", 1)} == set(desk.reached)


async def test_what_a_building_does_not_keep_is_counted() -> None:
    desk = Desk()
    pump = {"id": "d-1", "userId": "user-1", "schedules": [{"pad": "x" * 70_000}]}
    await desk.hear(("hvac.update", body("hvac")), ("hvac.schedules.update", pump))
    assert [(Limit.SCHEDULES_SIZE, "sub-1", 1)] == desk.reached
    assert [] == await desk.dead()


async def test_a_building_that_gets_many_devices_at_once_is_listed_once() -> None:
    desk = Desk()
    await desk.accept(*(car("10:00", number, id=f"v-{number}") for number in range(20)))
    assert 20 == await desk.worker.step()
    census = await desk.store.census()
    assert (0, 22) == (census.replaced, census.queued)
    calls = await desk.owed("user-1")
    assert [CreateBuilding, PutDevices, *[SendEvents] * 20] == [type(call) for call in calls]
    assert 20 == len(lists(calls)[0])


async def test_a_list_that_lacks_a_device_stays_behind_its_events() -> None:
    desk = Desk()
    await desk.accept(
        car("10:00", 1, id="v-0"), ("vehicle.delete", body("vehicle", "10:30", id="v-0")), car("10:40", 2, id="v-1")
    )
    await desk.worker.step()
    assert [["vehicle:v-0"], ["vehicle:v-1"]] == lists(await desk.owed("user-1"))


# ---- laws ------------------------------------------------------------------------------------------------------------


@st.composite
def sayings(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """Draw a message of one of a few devices of two users, between whom it may move; some come late."""
    kind, name = draw(
        st.sampled_from([("vehicle", "chargeState"), ("meter", "powerState"), ("battery", "chargeState")])
    )
    minute, value = draw(st.integers(0, 40)), draw(st.integers(0, 100))
    fields = {"stateOfCharge": value, "power": value, "chargeRate": value}
    block = {field: fields[field] for field in BLOCKS[kind][name] if field in fields}
    said = body(
        kind,
        f"10:{minute:02}",
        id=draw(st.sampled_from(["d-1", "d-2"])),
        userId=draw(st.sampled_from(["user-1", "user-1", "user-2"])),
        isOnline=draw(st.sampled_from([True, True, None])),
        **{name: block},
    )
    return f"{kind}.{draw(st.sampled_from(['connect', 'update', 'update', 'delete']))}", said


@settings(max_examples=150, deadline=None)
@given(said=st.lists(sayings(), max_size=20), cuts=st.sets(st.integers(1, 19)))
async def test_splitting_a_batch_anywhere_changes_nothing(
    said: list[tuple[str, dict[str, Any]]], cuts: set[int]
) -> None:
    whole, parts = Desk(), Desk()
    await whole.accept(*said)
    assert len(said) == await whole.worker.step(), "one batch"
    for start, end in pairwise([0, *sorted(cuts), len(said) + 20]):
        await parts.hear(*said[start:end])
    for building in ("user-1", "user-2"):
        one, other = await whole.store.building(building), await parts.store.building(building)
        assert (one and one.state) == (other and other.state)
        assert told(await whole.owed(building)) == told(await parts.owed(building))


def told(calls: Sequence[Call]) -> tuple[list[Call], Call | None]:
    """Return what MOOST hears of a building, and the list that it has in the end: the cuts decide what others say.

    Whatever they say, MOOST knows the device of each event when that comes (M2).
    """
    found: list[Call] = []
    listed: PutDevices | None = None
    for call in calls:
        if isinstance(call, PutDevices):
            listed = call
            continue
        if isinstance(call, SendEvents):
            assert listed is not None
            assert {event.device for event in call.events} <= {entry.id for entry in listed.devices}
        found.append(call)
    return found, listed


# ---- who left, and what a row does not say any more ------------------------------------------------------------------


def changes(calls: Sequence[Call]) -> list[tuple[dict[str, object], tuple[str, ...]]]:
    """Return what each change among calls sets and removes."""
    return [(dict(call.attributes), call.removed) for call in calls if isinstance(call, ChangeBuilding)]


async def test_a_building_loses_a_user_once_the_row_and_the_last_device_are_gone() -> None:
    desk = Desk()
    await desk.know(row("home"), row("home", None, "user-2"))
    await desk.hear(car("10:00", 10), car("10:01", 20, userId="user-2", id="d-2"))
    assert ("user-1", "user-2") == (await desk.state("home")).users
    await desk.owed("home")
    await desk.store.write_residences([], [("user-2", None)])
    await desk.work()
    assert ("user-1", "user-2") == (await desk.state("home")).users, "its car is still there"
    await desk.hear(car("10:02", 30, userId="user-2", id="d-2"))
    assert ("user-1",) == (await desk.state("home")).users
    assert [({"userIds": ["user-1"]}, ())] == changes(await desk.owed("home"))


async def test_a_building_loses_a_user_without_devices_with_the_row() -> None:
    desk = Desk()
    await desk.know(row("home"), row("home", None, "user-2"))
    await desk.hear(car("10:00", 10), car("10:01", 20, userId="user-2", id="d-2"))
    await desk.hear(("vehicle.delete", body("vehicle", "10:02", userId="user-2", id="d-2")))
    assert ("user-1", "user-2") == (await desk.state("home")).users, "it has a row"
    await desk.owed("home")
    await desk.know(row("elsewhere", None, "user-2"))
    assert ("user-1",) == (await desk.state("home")).users
    assert [({"userIds": ["user-1"]}, ())] == changes(await desk.owed("home"))


async def test_an_attribute_that_no_row_says_any_more_goes_and_one_that_another_row_says_stays() -> None:
    desk = Desk()
    await desk.know(row("home", zip="1", city="Bern"), row("home", None, "user-2", city="Bern"))
    await desk.hear(car("10:00", 10), car("10:01", 20, userId="user-2", id="d-2"))
    await desk.owed("home")
    await desk.know(row("home"))
    assert [({}, ("zip",))] == changes(await desk.owed("home")), "the other row says where it is"
    await desk.know(row("home", None, "user-2"))
    assert [({}, ("city",))] == changes(await desk.owed("home"))
    await desk.know(row("home"), row("home", None, "user-2"))
    assert [] == changes(await desk.owed("home"))


async def test_what_a_row_that_goes_has_said_goes_with_it_where_another_row_stays() -> None:
    desk = Desk()
    await desk.know(row("home"), row("home", None, "user-2", city="Bern"))
    await desk.hear(car("10:00", 10), car("10:01", 20, userId="user-2", id="d-2"))
    await desk.owed("home")
    await desk.store.write_residences([], [("user-2", None)])
    await desk.work()
    assert [({}, ("city",))] == changes(await desk.owed("home"))
