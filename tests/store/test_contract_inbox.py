"""What every keeper promises the door, the worker and the clock."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from bridge.core.effects import Note
from bridge.core.model import Device, Residence, key
from bridge.core.vocabulary import DeadReason, Kind
from bridge.store.desk import DeadFilter, Forgetting
from bridge.store.port import Home, Loaded, Settlement, Versioned, Work
from bridge.store.repeats import KNOWN_FOR
from tests.core.house import own
from tests.store.conftest import Keeper
from tests.store.values import DAY, HOLD, NOW, SECOND, arrival, events, house, out, stillborn

pytestmark = pytest.mark.anyio

Reopened = Callable[[Keeper], Awaitable[Keeper]]
TIGHT = 400_000  # bytes of room
ODD_BYTES = [b"", b"\0", b"\xff\xfe\0\x80", '{"a":"ü"}'.encode(), bytes(range(256)) * 500]


async def claimed(store: Keeper, limit: int = 100) -> list[int]:
    messages, _ = await store.claim(limit)
    return [message.id for message in messages]


# ---- the door -------------------------------------------------------------------------------------------------------


async def test_bodies_come_back_byte_by_byte_in_order_of_acceptance(store: Keeper) -> None:
    receipts = await store.accept([arrival(body) for body in ODD_BYTES])
    messages, _ = await store.claim(100)
    assert [1, 2, 3, 4, 5] == [receipt.id for receipt in receipts]
    assert ODD_BYTES == [message.body for message in messages]
    assert {("sub-1", "sub-1.vehicle.update", NOW)} == {(m.subscription, m.topic, m.received) for m in messages}


async def test_a_name_that_no_database_could_hold_does_not_stop_the_door(store: Keeper) -> None:
    odd = replace(arrival(message_id="a\0b\ud800"), topic="sub-1.\ud800\0", detail="\0\udfff")
    assert [1] == [receipt.id for receipt in await store.accept([odd])]
    assert [True] == [receipt.duplicate for receipt in await store.accept([odd])]


async def test_nothing_accepted_is_nothing_stored(store: Keeper) -> None:
    assert [] == list(await store.accept([]))
    assert 0 == (await store.census()).accepted


async def test_the_same_id_position_and_bytes_are_accepted_once(store: Keeper) -> None:
    first = await store.accept([arrival(b"1", message_id="m"), arrival(b"1", message_id="m")])
    second = await store.accept([arrival(b"1", message_id="m"), arrival(b"1", message_id="m", position=1)])
    assert [False, True, True, False] == [receipt.duplicate for receipt in (*first, *second)]
    assert [1, 0, 0, 2] == [receipt.id for receipt in (*first, *second)]
    assert 2 == (await store.census()).duplicates


async def test_the_same_id_of_another_subscription_is_no_repeat(store: Keeper) -> None:
    await store.accept([arrival(b"1", message_id="m")])
    (receipt,) = await store.accept([replace(arrival(b"1", message_id="m"), subscription="sub-2")])
    assert not receipt.duplicate
    assert 0 == (await store.census()).same_id_other_bytes


async def test_the_same_id_with_other_bytes_is_accepted_and_counted(store: Keeper) -> None:
    await store.accept([arrival(b"1", message_id="m"), arrival(b"2", message_id="m")])
    await store.accept([arrival(b"3", message_id="m")])
    census = await store.census()
    assert (3, 0, 2) == (census.accepted, census.duplicates, census.same_id_other_bytes)


async def test_without_an_id_every_copy_is_accepted(store: Keeper) -> None:
    await store.accept([arrival(b"1"), arrival(b"1")])
    assert [1, 2] == await claimed(store)


async def test_concurrent_repeats_are_accepted_once(store: Keeper) -> None:
    answers = await asyncio.gather(*(store.accept([arrival(b"1", message_id="m")]) for _ in range(50)))
    assert 49 == sum(receipt.duplicate for (receipt,) in answers)
    assert [1] == await claimed(store)


async def test_a_repeat_is_known_after_a_restart_and_ids_go_on(store: Keeper, reopened: Reopened) -> None:
    await store.accept([arrival(b"1", message_id="m")])
    store = await reopened(store)
    receipts = await store.accept([arrival(b"1", message_id="m"), arrival(b"2")])
    assert [(0, True), (2, False)] == [(receipt.id, receipt.duplicate) for receipt in receipts]


async def test_an_id_is_not_used_again_after_its_row_is_deleted(store: Keeper, reopened: Reopened) -> None:
    await store.accept([arrival()])
    await store.commit(Work(now=NOW, settled=[1]))
    assert 1 == await store.sweep(NOW + 2 * DAY, DAY, 1 << 40)
    store = await reopened(store)
    assert [2] == [receipt.id for receipt in await store.accept([arrival()])]


async def test_what_the_door_finds_unreadable_is_accepted_dead(store: Keeper) -> None:
    await store.accept([arrival(), stillborn(), arrival()])
    census = await store.census()
    assert [1, 3] == await claimed(store)
    assert (3, 2, 1, {"unreadable": 1}) == (census.accepted, census.pending, census.dead, census.dead_letters)


# ---- the worker -----------------------------------------------------------------------------------------------------


async def test_what_is_not_settled_is_claimed_again(store: Keeper) -> None:
    await store.accept([arrival(), arrival(), arrival()])
    assert [1, 2] == await claimed(store, 2)
    assert [1, 2] == await claimed(store, 2)
    await store.commit(Work(now=NOW, settled=[1]))
    assert [2, 3] == await claimed(store, 2)


async def test_messages_may_be_settled_out_of_order(store: Keeper) -> None:
    await store.accept([arrival() for _ in range(6)])
    await store.commit(Work(now=NOW, settled=[2, 5]))
    assert [1, 3, 4, 6] == await claimed(store)
    await store.commit(Work(now=NOW, settled=[1, 4]))
    assert [3, 6] == await claimed(store)
    await store.commit(Work(now=NOW, settled=[6, 3]))
    assert [] == await claimed(store)
    await store.accept([arrival()])
    assert [7] == await claimed(store)


async def test_settling_twice_counts_once(store: Keeper) -> None:
    await store.accept([arrival(), arrival()])
    await store.commit(Work(now=NOW, settled=[1, 99]))
    await store.commit(Work(now=NOW, settled=[1], dead=[(1, DeadReason.FAULT, "late")], parked=[(1, "u")]))
    census = await store.census()
    assert (1, 1, 0, 0) == (census.settled, census.pending, census.dead, census.parked)


async def test_progress_survives_a_restart(store: Keeper, reopened: Reopened) -> None:
    await store.accept([arrival() for _ in range(4)])
    await store.commit(Work(now=NOW, settled=[1, 3]))
    store = await reopened(store)
    assert [2, 4] == await claimed(store)


async def test_parked_messages_flow_again_in_order_when_their_user_changes(store: Keeper) -> None:
    await store.accept([arrival(bytes([n])) for n in range(5)])
    await store.commit(Work(now=NOW, parked=[(1, "u"), (2, "v"), (4, "u")], settled=[3]))
    assert ([5], 3) == (await claimed(store), (await store.census()).parked)
    await store.write_residences([Residence(user="u", location=None, building="b")])
    assert ["u"] == list((await store.claim(10))[1])
    await store.commit(Work(now=NOW, unparked=["u"]))
    assert [1, 4, 5] == await claimed(store)
    assert [] == list((await store.claim(10))[1])
    await store.commit(Work(now=NOW, settled=[1, 4, 5]))
    census = await store.census()
    assert (4, 0, 1) == (census.settled, census.pending, census.parked)


async def test_a_change_that_came_after_the_claim_is_shown_again(store: Keeper) -> None:
    await store.write_residences([Residence(user="u", location=None, building="b")])
    await store.claim(10)
    await store.write_residences([Residence(user="u", location=None, building="c")])
    await store.commit(Work(now=NOW, unparked=["u"]))
    assert ["u"] == list((await store.claim(10))[1])
    await store.commit(Work(now=NOW, unparked=["u"]))
    assert [] == list((await store.claim(10))[1])


async def test_load_returns_what_is_there(store: Keeper) -> None:
    far = Residence(user="u", location="home", building="b2", attributes={"zip": "8000", "geo": {"lat": 1.5}})
    near = Residence(user="u", location=None, building="b1")
    await store.write_residences([far, near])
    homes = {
        own(Kind.METER, "m"): Home(building="b3", user="w"),
        own(Kind.HVAC, "m"): Home(building="b1", user="u"),
    }
    await store.commit(Work(now=NOW, buildings=[house(name) for name in ("b1", "b2", "b3", "b4")], homes=homes))
    loaded = await store.load(
        ["u", "nobody"],
        [own(Kind.METER, "m"), own(Kind.METER, "none")],
        ["b4", "nowhere"],
    )
    assert {"u": (near, far)} == loaded.residences
    assert {own(Kind.METER, "m"): Home(building="b3", user="w")} == loaded.homes
    assert {name: house(name, 1) for name in ("b1", "b2", "b3", "b4")} == loaded.buildings
    assert Loaded(residences={}, homes={}, buildings={}) == await store.load([], [], [])


async def test_homes_are_moved_and_left(store: Keeper) -> None:
    meter, hvac = own(Kind.METER, "m"), own(Kind.HVAC, "h")
    await store.commit(Work(now=NOW, homes={meter: Home(building="b", user="u"), hvac: Home(building="b", user="u")}))
    await store.commit(Work(now=NOW, homes={meter: Home(building="c", user="u"), hvac: None}))
    assert {meter: "c"} == await store.homes_of("u")
    assert {} == await store.homes_of("nobody")


async def test_a_device_of_each_subscription_has_a_home_of_its_own(store: Keeper) -> None:
    mine, theirs = own(Kind.METER, "m"), own(Kind.METER, "m")._replace(subscription="sub-2")
    homes = {mine: Home(building="b", user="u"), theirs: Home(building="c", user="u")}
    await store.commit(Work(now=NOW, homes=homes))
    assert homes == (await store.load([], [mine, theirs], [])).homes
    assert {mine: "b", theirs: "c"} == await store.where_is(Kind.METER, "m")
    assert {} == await store.where_is(Kind.HVAC, "m")
    await store.commit(Work(now=NOW, homes={mine: None}))
    assert {theirs: "c"} == await store.homes_of("u")
    assert {theirs: "c"} == await store.where_is(Kind.METER, "m")


async def test_a_building_that_moved_stops_the_whole_step(store: Keeper) -> None:
    await store.accept([arrival()])
    await store.commit(Work(now=NOW, buildings=[house("a")]))
    stale = Work(
        now=NOW,
        settled=[1],
        buildings=[house("a"), house("b")],
        due={"a": NOW},
        calls=out(events("a", 1)),
        notes=[(1, Note(name="odd", detail="x"))],
    )
    before = await store.census()
    assert ["a"] == list(await store.commit(stale))
    assert before == replace(
        await store.census(),
        free_disk_bytes=before.free_disk_bytes,
        size_bytes=before.size_bytes,
        owed_bytes=before.owed_bytes,
    )
    assert {"a"} == set((await store.load([], [], ["a", "b"])).buildings)
    fresh = replace(stale, buildings=[house("a", 1), house("b")])
    assert [] == list(await store.commit(fresh))
    assert 2 == (await store.load([], [], ["a"])).buildings["a"].version


async def test_flags_are_counted_per_building(store: Keeper) -> None:
    await store.commit(Work(now=NOW, buildings=[house("a", flags=("x", "y")), house("b", flags=("x",))]))
    assert {"x": 2, "y": 1} == (await store.census()).flags
    await store.commit(Work(now=NOW, buildings=[house("a", 1, flags=("y",)), house("b", 1)]))
    assert {"y": 1} == (await store.census()).flags


async def test_notes_are_counted_and_kept_with_their_message(store: Keeper) -> None:
    await store.accept([arrival()])
    notes = [(1, Note(name="odd", detail="first")), (1, Note(name="odd")), (0, Note(name="late", detail="tick"))]
    await store.commit(Work(now=NOW, settled=[1], notes=notes))
    trip = await store.trip(1)
    assert {"odd": 2, "late": 1} == (await store.census()).notes
    assert trip is not None
    assert [Note(name="odd", detail="first")] == list(trip.notes)


# ---- the clock ------------------------------------------------------------------------------------------------------


async def test_buildings_are_due_longest_waiting_first(store: Keeper) -> None:
    due = {"a": NOW, "b": NOW - SECOND, "c": NOW + SECOND, "unknown": NOW}
    await store.commit(Work(now=NOW, buildings=[house(name) for name in "abc"], due=due))
    assert (NOW, ["b", "a"]) == await store.due(NOW, 10)
    assert (NOW, ["b"]) == await store.due(NOW, 1)
    await store.commit(Work(now=NOW, due={"b": None, "a": NOW + DAY}))
    assert (NOW + HOLD, ["c"]) == await store.due(NOW + HOLD, 10)


def housing(building: str, subscription: str) -> Versioned:
    """Return a building with a device of a subscription."""
    device = Device(kind=Kind.METER, id=building, user="u", subscription=subscription, since=NOW, stamp=NOW)
    new = house(building)
    return replace(new, state=replace(new.state, devices={key(subscription, Kind.METER, building): device}))


async def test_subscriptions_take_turns_at_the_clock(store: Keeper) -> None:
    mad, calm = [f"a{number}" for number in range(6)], [f"b{number}" for number in range(3)]
    buildings = [*(housing(name, "mad") for name in mad), *(housing(name, "calm") for name in calm)]
    due = {**dict.fromkeys(mad, NOW - DAY), **dict.fromkeys(calm, NOW)}
    await store.commit(Work(now=NOW, buildings=buildings, due=due))
    assert ["a0", "a1", "b0", "b1"] == list((await store.due(NOW, 4))[1])
    assert ["a0", "b0", "b1", "b2"] == list((await store.due(NOW, 4, {"mad": 0.05}))[1])
    assert ["b0"] == list((await store.due(NOW, 1, {"mad": 0.05, "gone": 0.0}))[1])
    assert [*mad, *calm] == list((await store.due(NOW, 10, {"mad": 0.05}))[1])
    await store.commit(Work(now=NOW, due=dict.fromkeys(calm)))
    assert mad[:4] == list((await store.due(NOW, 4, {"mad": 0.05}))[1])


async def test_writing_a_state_leaves_its_due_time_alone(store: Keeper) -> None:
    await store.commit(Work(now=NOW, buildings=[house("a")], due={"a": NOW}))
    await store.commit(Work(now=NOW, buildings=[house("a", 1)]))
    assert (NOW, ["a"]) == await store.due(NOW, 10)


async def test_the_horizon_is_the_receipt_of_the_oldest_pending_message(store: Keeper) -> None:
    await store.commit(Work(now=NOW, buildings=[house("a"), house("b")], due={"a": NOW - 3 * SECOND, "b": NOW}))
    await store.accept([arrival(at=NOW - 5 * SECOND), arrival(at=NOW - SECOND), arrival(at=NOW + HOLD)])
    assert (NOW - 5 * SECOND, []) == await store.due(NOW, 10)
    await store.commit(Work(now=NOW, parked=[(1, "u")]))
    assert (NOW - SECOND, ["a"]) == await store.due(NOW, 10)
    assert NOW - SECOND == (await store.census()).oldest_pending
    await store.commit(Work(now=NOW, dead=[(2, DeadReason.FAULT, "")]))
    assert (NOW, ["a", "b"]) == await store.due(NOW, 10)
    await store.commit(Work(now=NOW, unparked=["u"]))
    assert (NOW - 5 * SECOND, []) == await store.due(NOW, 10)


async def test_the_newest_tick_is_remembered(store: Keeper) -> None:
    assert None is (await store.census()).last_tick
    await store.commit(Work(now=NOW, ticked=NOW))
    await store.commit(Work(now=NOW, ticked=NOW - DAY))
    assert NOW == (await store.census()).last_tick


async def test_times_are_kept_to_the_millisecond(store: Keeper) -> None:
    await store.accept([arrival(at=NOW + timedelta(microseconds=999))])
    messages, _ = await store.claim(1)
    assert [NOW] == [message.received for message in messages]


# ---- retention ------------------------------------------------------------------------------------------------------


async def swept(store: Keeper, *, max_size: int = 1 << 40) -> int:
    total = 0
    while deleted := await store.sweep(NOW + 2 * DAY, DAY, max_size):
        total += deleted
    return total


async def test_only_settled_messages_past_retention_are_deleted(store: Keeper) -> None:
    await store.accept([arrival() for _ in range(6)] + [stillborn(), arrival(at=NOW + 2 * DAY), arrival()])
    await store.commit(Work(now=NOW, settled=[2, 4, 8], dead=[(1, DeadReason.FAULT, "")], parked=[(3, "u")]))
    await store.commit(Work(now=NOW, settled=[6]))
    assert 2 == await swept(store)
    left = [message.id async for message in store.raw(None, None)]
    assert [1, 3, 5, 6, 7, 8, 9] == left  # 6 waits until 5 is processed
    await store.commit(Work(now=NOW, settled=[5]))
    assert 2 == await swept(store)


async def test_what_flows_again_is_deleted_after_it_has_settled(store: Keeper) -> None:
    await store.accept([arrival(), stillborn(), stillborn(), arrival()])
    await store.commit(Work(now=NOW, parked=[(1, "u")], settled=[4]))
    assert 1 == await swept(store)
    letters = [letter.id for letter in await store.dead_letters(DeadFilter())]
    await store.retry(letters[:1], NOW)
    await store.discard(letters[1:], NOW)
    await store.commit(Work(now=NOW, unparked=["u"]))
    assert [1, 2] == await claimed(store)
    assert 1 == await swept(store)
    await store.commit(Work(now=NOW, settled=[1, 2]))
    assert 2 == await swept(store)
    assert [] == [message.id async for message in store.raw(None, None)]


async def test_a_repeat_is_known_as_long_as_its_original_is_kept(store: Keeper) -> None:
    await store.accept([arrival(message_id="a"), arrival(message_id="b")])
    await store.commit(Work(now=NOW, settled=[1], parked=[(2, "u")]))
    assert 1 == await swept(store)
    receipts = await store.accept([arrival(message_id="a"), arrival(message_id="b")])
    assert [False, True] == [receipt.duplicate for receipt in receipts]


async def test_a_message_from_the_future_keeps_none_that_came_after_it(store: Keeper) -> None:
    """The clock ran ahead for a moment when it was accepted."""
    await store.accept([arrival(b"1", at=NOW + 30 * DAY), arrival(b"2"), arrival(b"3")])
    await store.commit(Work(now=NOW, settled=[1, 2, 3]))
    while await store.sweep(NOW + 2 * DAY, DAY, 1 << 40):
        pass
    assert [] == [number for number in (2, 3) if await store.trip(number) is not None]


async def test_a_repeat_is_known_until_its_original_is_old_also_where_that_went_early(store: Keeper) -> None:
    rows = [arrival(b"x" * 100_000, message_id=name) for name in ("a", "b", None)]
    await store.accept(rows)
    await store.commit(Work(now=NOW, settled=[1, 2, 3]))
    assert 3 == await store.sweep(NOW, DAY, TIGHT)
    assert [] == [message.id async for message in store.raw(None, None)]
    assert [True, True, False] == [receipt.duplicate for receipt in await store.accept(rows)]
    await store.commit(Work(now=NOW, settled=[4]))
    assert 3 == await swept(store), "the third once more, and what knew the others"
    assert [False, False] == [receipt.duplicate for receipt in await store.accept(rows[:2])]
    assert [] == list(await store.verify())


async def test_what_knows_the_repeats_of_early_ones_takes_its_share_of_the_room_and_no_more(store: Keeper) -> None:
    rows = [arrival(b"x" * 1000, message_id=f"m-{n}") for n in range(600)]
    await store.accept(rows)
    await store.commit(Work(now=NOW, settled=range(1, 601)))
    while await store.sweep(NOW + KNOWN_FOR + SECOND, DAY, TIGHT):
        pass
    kept = [message.id async for message in store.raw(None, None)]
    known = [receipt.duplicate for receipt in await store.accept(rows)]
    assert known == sorted(known), "the oldest were forgotten first"
    assert known.count(True) - len(kept) in {TIGHT // 10 // 200, TIGHT // 10 // 400}  # in a file, in a database
    assert [] == list(await store.verify())


async def test_only_those_that_went_early_count_against_that_share(store: Keeper) -> None:
    """Want of room comes and goes: a million messages may lie between two that went early, and many have no id."""
    for name in ("a", "b"):
        receipts = await store.accept([arrival(b"x" * 300_000, message_id=name), *(arrival() for _ in range(400))])
        await store.commit(Work(now=NOW, settled=[receipt.id for receipt in receipts]))
        while await store.sweep(NOW, DAY, TIGHT):
            pass
    known = await store.accept([arrival(b"x" * 300_000, message_id=name) for name in ("a", "b")])
    assert [True, True] == [receipt.duplicate for receipt in known]


async def test_an_erased_message_may_come_again_at_once(store: Keeper) -> None:
    await store.accept([arrival(message_id="a")])
    await store.commit(Work(now=NOW, settled=[1]))
    async for _ in store.forget(Forgetting(messages=[1]), lambda: NOW):
        pass
    assert [False] == [receipt.duplicate for receipt in await store.accept([arrival(message_id="a")])]


async def test_settled_calls_are_deleted_after_retention(store: Keeper) -> None:
    await store.accept([arrival()])
    await store.commit(Work(now=NOW, settled=[1], calls=out(events("a", 1), events("b", 2), cause=1)))
    await store.lease(NOW, 10, 10, HOLD)
    await store.settle(NOW, [Settlement(call_id=1, delivered=1)], [], [])
    assert 2 == await swept(store)
    lanes = await store.lease(NOW + 2 * DAY, 10, 10, HOLD)
    assert {2} == {call.id for lane in lanes for call in lane.calls}


async def test_over_the_size_settled_rows_go_before_their_time(store: Keeper) -> None:
    await store.accept([arrival(b"x" * 1000) for _ in range(20)])
    await store.commit(Work(now=NOW, settled=range(1, 11)))
    assert 0 == await store.sweep(NOW, DAY, 1 << 40)
    assert 10 == await store.sweep(NOW, DAY, 20_000)
    assert list(range(11, 21)) == await claimed(store)


async def test_what_is_owed_shrinks_when_work_settles(store: Keeper) -> None:
    await store.accept([arrival(b"x" * 10_000) for _ in range(50)])
    before = await store.census()
    await store.commit(Work(now=NOW, settled=range(1, 41)))
    after = await store.census()
    assert before.owed_bytes - after.owed_bytes > 200_000
    assert 0 < after.owed_bytes <= after.size_bytes
