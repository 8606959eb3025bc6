"""The past once more: what a replay finds, what it queues, and what it leaves alone (M5.10, issue 3)."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bridge.core.messages import Report
from bridge.core.model import Residence
from bridge.core.rules import MeterRule, Role, Rules, Unknown
from bridge.core.vocabulary import DeadReason, DeviceType, EventType, Kind
from bridge.replay import Span
from bridge.replay.differences import beginning
from bridge.replay.world import Made, World
from bridge.store.desk import DeadFilter
from bridge.store.memory import MemoryStore
from bridge.store.port import Pending, Work
from bridge.store.sqlite import SqliteStore
from bridge.worker.step import Decoded, read
from tests.deeds import Deed, deeds, happen
from tests.past import ALWAYS, DAY, MINUTE, START, Keeper, Past, car, device, inverter, meter

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


_BEAT: Final = 2 * MINUTE
_BY_DESIGN: Final = frozenset({"die", "retry"})  # a message retried late is mapped again in its place


def undisturbed(done: list[Deed]) -> list[Deed]:
    """Return deeds without those after which a replay has something to say."""
    return [deed for deed in done if deed[0] not in _BY_DESIGN]


@settings(max_examples=150, deadline=None)
@given(done=deeds().map(undisturbed))
async def test_whatever_happened_an_untouched_store_is_remade_without_a_difference(done: list[Deed]) -> None:
    past = Past(MemoryStore(), beat=_BEAT)
    await happen(past, done)
    found, tally = await past.again(dry=True)
    assert [] == found
    assert 0 == tally.uncertain or any(what == "settle in" for what, _ in done)


async def _truncate(past: Past, age: int) -> None:
    past.now += MINUTE
    await past.work()
    await past.deliver()
    await past.forget(timedelta(minutes=age))


def _update(kind: str, number: str, value: float | None = 0.0, age: int = 0) -> Deed:
    return ("hear", ((kind, number), "update", ("user-1", None), value, age))


@example(  # that a state of charge is null says nothing of the one that was sent
    done=[_update("vehicle", "car-1", 1.0), ("work", None)],
    more=[_update("meter", "m-1"), _update("vehicle", "car-1", None), _update("vehicle", "car-1", 1.0), ("live", 1.0)],
    age=0,
)
@example(  # nothing had been closed before the oldest message that is kept, and the last deleted one was late
    done=[("live", 1.0), _update("meter", "m-1"), ("work", None), _update("meter", "m-1", 0.0, 400), ("work", None)],
    more=[_update("meter", "m-1"), ("sleep", 1_000.0), ("live", 1.0), _update("meter", "m-1"), ("live", 1.0)],
    age=0,
)
@example(  # the directory moved the household after the oldest message that is kept
    done=[*[_update("meter", "m-1")] * 5, _update("pv-inverter", "pv-1"), ("live", 1.0), _update("meter", "m-1")],
    more=[
        *[_update("meter", "m-1"), ("live", 1.0), ("live", 1.0), ("settle in", (None, "house-1"))],
        *[_update("meter", "m-1"), ("sleep", 130.0), _update("meter", "m-1"), ("live", 1.0)],
    ],
    age=4,
)
@example(  # the directory moved a household of which a device had been deleted
    done=[
        *[("work", None), _update("pv-inverter", "pv-1"), ("work", None)],
        *[("hear", (("pv-inverter", "pv-1"), "delete", ("user-1", None), None, 0)), ("work", None)],
        *[("settle in", (None, "house-1")), _update("meter", "m-1")],
    ],
    more=[_update("meter", "m-1"), ("live", 1.0), ("live", 1.0), ("live", 15.0), _update("meter", "m-1")],
    age=2,
)
@settings(max_examples=100, deadline=None)
@given(done=deeds(8, 25).map(undisturbed), more=deeds(8, 25).map(undisturbed), age=st.integers(0, 60))
async def test_what_is_left_of_an_untouched_store_is_remade_without_a_difference(
    done: list[Deed], more: list[Deed], age: int
) -> None:
    """Whatever is deleted for its age: what cannot be made as it was is left alone."""
    past = Past(MemoryStore(), copies=30 * MINUTE, beat=_BEAT)
    await happen(past, done)
    await _truncate(past, age)
    await happen(past, more)
    assert [] == (await past.again(dry=True))[0]


_OTHER_RULES: Final = st.sampled_from(
    [
        Rules(devices={(Kind.METER, "m-1"): MeterRule(sign=-1), (Kind.METER, "m-2"): MeterRule(role=Role.SUB)}),
        Rules(devices=TWO_METERS, battery_soc=True, min_coverage=0.1),
        Rules(
            devices={(Kind.METER, "m-1"): MeterRule(role=Role.LOAD), (Kind.METER, "m-2"): MeterRule(role=Role.LOAD)},
            codes={
                (EventType.DEVICE_STATUS, DeviceType.CAR): {"active": 2, "online": 1, "offline": 0},
                (EventType.SWITCH_STATE, DeviceType.CAR_CHARGER): {"plugged": 1, "unplugged": 0},
            },
        ),
    ]
)
_NO_MOVES: Final = frozenset({"die", "retry", "settle in"})


@settings(max_examples=60, deadline=None)
@given(done=deeds(8, 25), more=deeds(8, 25), age=st.integers(0, 60), rules=_OTHER_RULES)
async def test_what_is_left_says_nothing_that_the_whole_past_does_not_say(
    done: list[Deed], more: list[Deed], age: int, rules: Rules
) -> None:
    """With other settings too: of two stores with the same past the one that has forgotten makes no other value."""
    whole, cut = Past(MemoryStore(), beat=_BEAT), Past(MemoryStore(), copies=30 * MINUTE, beat=_BEAT)
    for past in (whole, cut):
        await happen(past, [deed for deed in done if deed[0] not in _NO_MOVES])
        await _truncate(past, age if past is cut else 10**6)
        await happen(past, [deed for deed in more if deed[0] not in _NO_MOVES])
    said = {(one.building, one.event) for one in (await whole.again(rules, dry=True))[0]}
    assert [] == [one for one in (await cut.again(rules, dry=True))[0] if (one.building, one.event) not in said]


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
    after = await store.building("user-1")
    assert before is not None
    assert after is not None
    assert before.state == after.state

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
    before = replace(await store.census(), size_bytes=0, log_bytes=0, owed_bytes=0, free_disk_bytes=0)
    found, _ = await past.again(Rules(devices=TWO_METERS), dry=True)
    assert found
    assert before == replace(await store.census(), size_bytes=0, log_bytes=0, owed_bytes=0, free_disk_bytes=0)
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
    assert [] == (await past.again())[0]
    assert sent == (await past.events())[: len(sent)]
    await day_of_meter(past, hours=1)
    found, _ = await past.again(Rules(devices={(Kind.METER, "m-1"): MeterRule(sign=-1)}), dry=True)
    assert {"house-2"} == {one.building for one in found}
    assert START + 60 * MINUTE == min(one.event.at for one in found) - 15 * MINUTE


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


FLIPPED: Final = Rules(devices={(Kind.METER, "m-1"): MeterRule(sign=-1)})


async def two_hours(past: Past, *, retry: bool = False) -> None:
    """Let an inverter speak once, and a meter go on; with `retry` one message fails after an hour, and waits half."""
    for turn in range(12):
        if turn == 4:
            await past.hear("pv-inverter.update", inverter(past.now, 20.0))
        number = await past.hear("meter.update", meter(past.now, 1.0 + turn))
        if retry and turn == 6:
            await past.store.commit(Work(now=past.now, dead=[(number, DeadReason.FAULT, "a bug")]))
        if retry and turn == 9:
            await past.store.retry([one.id for one in await past.store.dead_letters(DeadFilter())], past.now)
        await past.live(10)
    await past.deliver()


async def test_what_is_forgotten_is_made_up_for_by_a_copy_of_the_state(store: Keeper) -> None:
    """The first copy after the newest deleted message: from there on all is as if nothing had been deleted."""
    whole, cut = Past(MemoryStore()), Past(store, copies=30 * MINUTE)
    await two_hours(whole)
    await two_hours(cut)
    await cut.forget(timedelta(minutes=75))
    since = beginning(await store.reach())
    assert since is not None
    assert START < since < cut.now
    assert [] == (await cut.again(dry=True))[0]
    found, tally = await cut.again(FLIPPED, dry=True)
    assert since == tally.since
    known = min(one.event.at for one in found) - 15 * MINUTE
    assert since - 15 * MINUTE < known <= since + 30 * MINUTE
    every, _ = await whole.again(FLIPPED, dry=True)
    assert [one for one in every if one.event.at > known and one.event.at - 15 * MINUTE >= known] == found
    assert EventType.ENERGY_CONSUMPTION in {one.event.type for one in found}  # needs the inverter, long silent
    lost = [event for event in await cut.events() if since <= event[3] <= known]
    assert len(lost) == tally.uncertain


async def test_without_a_copy_nothing_is_relied_on(store: Keeper) -> None:
    past = Past(store, copies=DAY)
    await two_hours(past)
    await past.forget(timedelta(minutes=75))
    found, tally = await past.again(FLIPPED, dry=True)
    assert [] == found
    assert 0 < tally.uncertain <= len(await past.events())


async def test_a_copy_that_lacks_a_message_retried_later_is_passed_over(store: Keeper) -> None:
    past = Past(store, copies=30 * MINUTE)
    await two_hours(past, retry=True)
    await past.forget(timedelta(minutes=55))  # all up to the dead one, which is kept
    assert [] == (await past.again(dry=True))[0]
    found, _ = await past.again(FLIPPED, dry=True)
    assert START + 90 * MINUTE < min(one.event.at for one in found)


async def test_the_first_on_change_value_after_a_copy_is_left_alone(store: Keeper) -> None:
    """Whether it is news, the settings of that time have decided."""
    past = Past(store, copies=30 * MINUTE)
    for turn in range(8):
        await past.hear("vehicle.update", car(past.now, 50 + turn // 4))
        await past.live(15)
    await past.deliver()
    await past.forget(timedelta(minutes=80))
    codes = Rules(codes={(EventType.DEVICE_STATUS, DeviceType.CAR): {"online": 1, "offline": 0}})
    found, tally = await past.again(codes, dry=True)
    assert [] == found
    assert tally.uncertain > 0
    await past.hear("vehicle.offline", device("car-1", past.now))
    await past.work()
    found, _ = await past.again(codes, dry=True)
    assert [(EventType.DEVICE_STATUS, 0.0)] == [(one.event.type, one.event.value) for one in found]


# ---- several at a time ----------------------------------------------------------------------------------------------


async def test_two_replays_at_the_same_time_queue_an_event_once(store: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    past = Past(store)
    await two_meters(past)
    rules = Rules(devices=TWO_METERS)
    commit = store.commit
    others: list[int] = []

    async def overtaken(work: Work) -> Sequence[str]:
        monkeypatch.setattr(store, "commit", commit)
        others.append(len((await past.again(rules))[0]))
        return await commit(work)

    monkeypatch.setattr(store, "commit", overtaken)
    found, tally = await past.again(rules)
    queued = await past.events()
    assert [len(queued)] == others
    assert len({event[1:4] for event in queued}) == len(queued) > 0
    assert ([], len(queued)) == (found, tally.same)


# ---- never ticked ---------------------------------------------------------------------------------------------------


async def test_a_household_of_which_nothing_was_understood_gets_its_slots(
    store: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It never had a tick, because there was nothing to close."""

    def failing(row: Pending, rules: Rules) -> Decoded:
        message = read(row, rules)
        return replace(message, readings=()) if isinstance(message, Report) else message

    past = Past(store)
    with monkeypatch.context() as broken:
        broken.setattr("bridge.worker.room.read", failing)
        await day_of_meter(past, hours=1)
    assert ([], []) == (await past.events(), list(await store.ticks("user-1")))
    found, _ = await past.again()
    energies = [one.event for one in found if one.event.type is EventType.GRID_ENERGY_CONSUMPTION]
    slots = [START + n * 15 * MINUTE for n in range(1, 4)]
    assert slots == [event.at for event in energies]
    assert 333.333 == energies[0].value  # 10 minutes at 1 kW, 5 at 2 kW
    assert [] == (await past.again())[0]
