"""The past once more: what a replay finds, what it queues, and what it leaves alone (M5.10, issue 3)."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.core.model import Residence
from bridge.core.rules import MeterRule, Role, Rules, Unknown
from bridge.core.vocabulary import DeadReason, DeviceType, EventType, Kind
from bridge.replay import Span
from bridge.replay.differences import beginning
from bridge.replay.world import Made, World
from bridge.store.memory import MemoryStore
from bridge.store.port import DeadFilter, Pending, Work
from bridge.store.sqlite import SqliteStore
from tests.past import ALWAYS, MINUTE, START, Keeper, Past, car, device, inverter, meter

pytestmark = pytest.mark.anyio

TWO_METERS: Final = {
    (Kind.METER, "m-1"): MeterRule(role=Role.GRID),
    (Kind.METER, "m-2"): MeterRule(role=Role.IGNORE),
}


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Keeper]:
    """Return an open store of each kind."""
    keeper: Keeper = MemoryStore() if request.param == "memory" else SqliteStore(str(tmp_path / "bridge.db"))
    await keeper.open()
    yield keeper
    assert [] == list(await keeper.verify())
    await keeper.close()


async def day_of_meter(past: Past, hours: float = 2, every: int = 10) -> None:
    """Let a meter and an inverter report for some time."""
    for turn in range(int(hours * 60 / every)):
        await past.hear("meter.update", meter(past.now, 1 + turn % 3))
        await past.hear("pv-inverter.update", inverter(past.now, 2 + turn % 2))
        await past.hear("vehicle.update", car(past.now, 50 + turn % 4))
        await past.live(every)


# ---- an untouched store ---------------------------------------------------------------------------------------------


async def test_an_untouched_store_is_remade_without_a_difference(store: Keeper) -> None:
    past = Past(store)
    await day_of_meter(past)
    found, tally = await past.again()
    assert [] == found
    assert (0, 0, 0) == (tally.missing, tally.changed, tally.uncertain)
    assert len(await past.events()) == tally.same > 50


Deed = tuple[str, Any]
_AGES: Final = st.sampled_from([0, 5, 60, 400, 1_000, 2_400, 8_000])  # seconds that a message is late
_WAITS: Final = st.sampled_from([0.0, 0.5, 3.0, 7.5, 14.0, 15.0, 16.0, 17.0, 17.5, 40.0, 130.0, 1_000.0])
_POWERS: Final = st.sampled_from([None, 0.0, 1.0, -2.0, 3.5])
_SAID: Final = st.one_of(
    st.tuples(st.just("meter.update"), st.sampled_from(["m-1", "m-2"]), _POWERS, _AGES),
    st.tuples(st.just("meter.offline"), st.just("m-1"), st.none(), _AGES),
    st.tuples(st.just("meter.delete"), st.just("m-1"), st.none(), _AGES),
    st.tuples(st.just("pv-inverter.update"), st.just("pv-1"), _POWERS, _AGES),
    st.tuples(st.just("pv-inverter.offline"), st.just("pv-1"), st.none(), _AGES),
    st.tuples(st.just("vehicle.update"), st.just("car-1"), _POWERS, _AGES),
    st.tuples(st.just("vehicle.disconnect"), st.just("car-1"), st.none(), _AGES),
)
_DEEDS: Final = st.lists(
    st.one_of(
        st.tuples(st.just("hear"), _SAID),
        st.tuples(st.just("live"), _WAITS),  # time passes, everything works
        st.tuples(st.just("sleep"), _WAITS),  # time passes, nothing works
        st.tuples(st.just("work"), st.none()),
        st.tuples(st.just("tick"), st.none()),
        st.tuples(st.just("crash"), _WAITS),
    ),
    max_size=30,
)


_OFTEN: Final = st.lists(
    st.one_of(
        st.tuples(
            st.just("hear"),
            st.tuples(
                st.sampled_from(["meter.update", "pv-inverter.update"]),
                st.just("x-1"),
                st.sampled_from([0.0, 1.0, 2.0, 4.0]),
                st.sampled_from([0, 5, 60, 400, 1_000]),
            ),
        ),
        st.tuples(st.just("live"), st.sampled_from([1.0, 2.0, 4.0, 8.0, 15.0])),
        st.tuples(st.just("live"), st.sampled_from([1.0, 2.0, 4.0, 8.0, 15.0])),
        st.tuples(st.just("hear"), _SAID),
    ),
    min_size=8,
    max_size=25,
)
"""Devices that report often, and slots that close."""


def _body(topic: str, number: str, power: float | None, at: datetime) -> dict[str, Any]:
    blocks: dict[str, dict[str, object]]
    if topic.startswith("meter"):
        blocks = {"powerState": {"power": power}}
    elif topic.startswith("pv"):
        blocks = {"powerState": {"solarPower": power, "state": "PRODUCING" if power else "IDLE"}}
    else:
        charging = "CHARGING" if power else "UNPLUGGED"
        blocks = {"chargeState": {"stateOfCharge": power, "chargingState": charging, "chargeRate": power}}
    return device(number, at, "user-1", **(blocks if topic.endswith("update") else {}))


async def _happen(past: Past, deeds: Sequence[Deed]) -> None:
    for what, how in deeds:
        match what:
            case "hear":
                topic, number, power, age = how
                await past.hear(topic, _body(topic, number, power, past.now - timedelta(seconds=age)))
                past.now += timedelta(seconds=1)
            case "live":
                await past.live(min(how, 20))
                past.now += timedelta(minutes=how)
                await past.work()
                await past.turn()
            case "sleep":
                past.now += timedelta(minutes=how)
            case "work":
                await past.worker.step()
            case "tick":
                await past.turn()
            case _:
                past.restart()
                past.now += timedelta(minutes=how)
                await past.turn()


@settings(max_examples=150, deadline=None)
@given(deeds=_DEEDS)
async def test_whatever_happened_an_untouched_store_is_remade_without_a_difference(deeds: list[Deed]) -> None:
    past = Past(MemoryStore())
    await _happen(past, deeds)
    found, tally = await past.again(dry=True)
    assert [] == found
    assert 0 == tally.uncertain


@settings(max_examples=150, deadline=None)
@given(deeds=_OFTEN, more=_OFTEN, age=st.integers(0, 60))
async def test_what_is_left_of_an_untouched_store_is_remade_without_a_difference(
    deeds: list[Deed], more: list[Deed], age: int
) -> None:
    """Whatever is deleted for its age: what cannot be made as it was is left alone."""
    past = Past(MemoryStore())
    await _happen(past, deeds)
    past.now += MINUTE
    await past.work()
    await past.deliver()
    await past.forget(timedelta(minutes=age))
    await _happen(past, more)
    assert [] == (await past.again(dry=True))[0]


# ---- what differs ---------------------------------------------------------------------------------------------------


async def two_meters(past: Past) -> None:
    """Let two meters without a role report: the household has no balance."""
    for turn in range(9):
        await past.hear("meter.update", meter(past.now, 1.0 + turn))
        await past.hear("meter.update", meter(past.now, 0.5, "m-2"))
        await past.live(10)


async def test_a_changed_setting_makes_what_was_never_queued_once_and_never_live(store: Keeper) -> None:
    past = Past(store)
    await two_meters(past)
    assert [] == await past.events()
    before = await store.building("user-1")
    rules = Rules(devices=TWO_METERS)

    found, tally = await past.again(rules)
    slots = [START + n * 15 * MINUTE for n in range(1, 6)]
    assert slots == [one.event.at for one in found if one.event.type is EventType.GRID_ENERGY_CONSUMPTION]
    first = next(one for one in found if one.event.type is EventType.GRID_ENERGY_CONSUMPTION)
    assert 333.333 == first.event.value  # 10 minutes at 1 kW, 5 at 2 kW
    assert {None} == {one.before for one in found}
    assert (len(found), 0, 0) == (tally.missing, tally.changed, tally.same)

    queued = await past.events()
    assert {True} == {event[0] for event in queued}
    assert len(found) == len(queued)
    assert before == await store.building("user-1")

    again, tally = await past.again(rules)
    assert [] == again
    assert len(found) == tally.same


async def test_a_changed_value_is_queued_beside_the_one_that_was_sent(store: Keeper) -> None:
    past = Past(store)
    await day_of_meter(past, hours=1)
    await past.deliver()
    rules = Rules(devices={(Kind.METER, "m-1"): MeterRule(sign=-1)})
    found, tally = await past.again(rules)
    assert tally.changed > 0
    old = {(e[1], e[2], e[3]): e[4] for e in await past.events() if not e[0]}
    for one in found:
        assert one.before == old.get((one.event.device, one.event.type.value, one.event.at))
        assert one.before != one.event.value
    assert [] == (await past.again(rules))[0]


async def test_a_dry_replay_writes_nothing(store: Keeper) -> None:
    past = Past(store)
    await two_meters(past)
    before = replace(await store.census(), size_bytes=0, owed_bytes=0, free_disk_bytes=0)
    found, _ = await past.again(Rules(devices=TWO_METERS), dry=True)
    assert found
    assert before == replace(await store.census(), size_bytes=0, owed_bytes=0, free_disk_bytes=0)
    assert [] == await past.events()


async def test_a_span_is_that_of_the_events_own_times(store: Keeper) -> None:
    past = Past(store)
    await two_meters(past)
    span = Span(since=START + 30 * MINUTE, until=START + 60 * MINUTE, building="user-1")
    found, _ = await past.again(Rules(devices=TWO_METERS), span)
    assert {START + 30 * MINUTE, START + 45 * MINUTE} == {one.event.at for one in found}


async def test_only_the_named_building_is_replayed(store: Keeper) -> None:
    past = Past(store)
    for user in ("user-1", "user-2"):
        for number in ("m-1", "m-2"):
            await past.hear("meter.update", meter(past.now, 1.0, f"{number}-{user}", user))
    await past.live(40)
    roles = {"m-1": Role.GRID, "m-2": Role.IGNORE}
    users = ("user-1", "user-2")
    rules = Rules(devices={(Kind.METER, f"{n}-{u}"): MeterRule(role=roles[n]) for n in roles for u in users})
    span = Span(since=ALWAYS.since, until=ALWAYS.until, building="user-2")
    assert {"user-2"} == {one.building for one in (await past.again(rules, span))[0]}
    assert {"user-1"} == {one.building for one in (await past.again(rules))[0]}


async def test_a_dead_message_is_left_out_until_it_is_retried(store: Keeper) -> None:
    past = Past(store)
    await past.hear("meter.update", meter(past.now, 1.0))
    await past.live(5)
    number = await past.hear("meter.update", meter(past.now, 3.0))
    await store.commit(Work(now=past.now, dead=[(number, DeadReason.FAULT, "a bug")]))
    await past.live(30)
    found, tally = await past.again(dry=True)
    assert ([], 1) == (found, tally.waiting)

    letters = await store.dead_letters(DeadFilter())
    await store.retry([letter.id for letter in letters], past.now)
    await past.work()
    found, _ = await past.again()
    energies = [one for one in found if one.event.type is EventType.GRID_ENERGY_CONSUMPTION]
    # The slot in which it was late closed at 1 kW; now 5 minutes at 1 kW and 10 at 3 kW.
    assert (250.0, 583.333) == (energies[0].before, energies[0].event.value)
    assert [] == (await past.again())[0]


async def test_what_waits_is_the_workers(store: Keeper) -> None:
    past = Past(store)
    await past.hear("vehicle.update", car(past.now, 40))
    found, tally = await past.again()
    assert ([], 1, 0) == (found, tally.waiting, tally.messages)
    await past.work()
    assert [40.0] == [event[4] for event in await past.events()]


async def test_parked_messages_wait_for_the_directory(store: Keeper) -> None:
    past = Past(store, Rules(unknown=Unknown.PARK))
    await past.hear("vehicle.update", car(past.now, 40))
    await past.live(1)
    assert ([], 0) == ((await past.again())[0], len(await past.events()))


async def test_nothing_leaves_for_a_device_that_is_gone(store: Keeper) -> None:
    past = Past(store)
    await past.hear("vehicle.update", car(past.now, 40))
    await past.live(20)
    await past.hear("vehicle.delete", device("car-1", past.now))
    await past.live(20)
    changed = Rules(codes={(EventType.DEVICE_STATUS, DeviceType.CAR): {"online": 1, "offline": 0}})
    found, tally = await past.again(changed)
    assert [] == [one for one in found if one.event.device == "vehicle:car-1"]
    assert tally.departed > 0


async def test_a_device_that_the_directory_moved_is_not_sent_again(store: Keeper) -> None:
    past = Past(store)
    rows = [Residence(user="user-1", location=None, building="house-1")]
    await store.write_residences(rows)
    await day_of_meter(past, hours=1)
    sent = await past.events()
    assert sent
    await store.write_residences([Residence(user="user-1", location=None, building="house-2")])
    await past.live(1)
    found, tally = await past.again()
    assert [] == found
    assert tally.uncertain > 0
    assert sent == (await past.events())[: len(sent)]


async def test_a_message_that_a_bug_fails_on_holds_no_other_household_up(
    store: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    past = Past(store)
    for user in ("user-1", "user-2"):
        await past.hear("vehicle.update", car(past.now, 40, user) | {"id": f"car-{user}"})
    await past.live(1)
    real = World.hear

    def failing(world: World, row: Pending, message: Any) -> list[Made]:  # noqa: ANN401 - as it comes
        if b"user-1" in row.body:
            raise ZeroDivisionError
        return real(world, row, message)

    monkeypatch.setattr(World, "hear", failing)
    _, tally = await past.again()
    assert ["user-1"] == list(tally.faulted)
    assert 1 == tally.same


# ---- what is forgotten ----------------------------------------------------------------------------------------------


async def test_a_silent_device_that_was_there_before_keeps_its_household_from_being_overwritten(store: Keeper) -> None:
    past = Past(store)
    await past.hear("pv-inverter.update", inverter(past.now, 2.0))
    for _ in range(6):
        await past.hear("meter.update", meter(past.now, 1.0))
        await past.live(10)
    await past.deliver()
    await past.forget(timedelta(minutes=30))
    for turn in range(6):
        await past.hear("meter.update", meter(past.now, 1.0 + turn))
        await past.live(10)
    since = beginning(await store.reach())
    assert since is not None
    assert START < since < past.now
    found, tally = await past.again()
    assert [] == found
    assert since == tally.since
    flipped, tally = await past.again(Rules(devices={(Kind.METER, "m-1"): MeterRule(sign=-1)}), dry=True)
    types = {one.event.type for one in flipped}
    assert EventType.ENERGY_CONSUMPTION not in types  # it would need the inverter
    assert tally.uncertain > 0
