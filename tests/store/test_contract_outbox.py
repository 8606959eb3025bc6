"""What every keeper promises the sender."""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from bridge.core.effects import ChangeBuilding, CreateBuilding, DeviceEntry, PutDevices, SendEvents
from bridge.core.vocabulary import DeadReason, DeviceType
from bridge.store import codec
from bridge.store.desk import DeadFilter
from bridge.store.port import Begin, Lane, Owed, Return, Settlement, Work
from bridge.store.ranks import Line, Rank
from tests.store.conftest import Keeper
from tests.store.values import DAY, HOLD, NOW, SECOND, burial, change, create, devices, doubt, events, out, said, tariff

pytestmark = pytest.mark.anyio

Reopened = Callable[[Keeper], Awaitable[Keeper]]
Call = CreateBuilding | ChangeBuilding | PutDevices | SendEvents


async def queued(store: Keeper, *calls: Call) -> None:
    await store.commit(Work(now=NOW, calls=out(*calls)))


async def leased(store: Keeper, *, now_after: timedelta = timedelta(0), lanes: int = 10, calls: int = 10) -> list[Lane]:
    return list(await store.lease(NOW + now_after, lanes, calls, HOLD))


async def owed(store: Keeper, building: str = "a") -> list[Owed]:
    """Lend a lane, look, and give it back."""
    lanes = await leased(store, now_after=DAY)
    await store.settle(NOW, [], [], [Return(building=lane.building, at=NOW) for lane in lanes])
    return [call for lane in lanes if lane.building == building for call in lane.calls]


# ---- lanes ----------------------------------------------------------------------------------------------------------


async def test_a_lane_lends_its_oldest_calls_in_order(store: Keeper) -> None:
    calls: list[Call] = [create("a"), devices("a", "x"), events("a", 1), events("a", 2)]
    await queued(store, *calls, events("b", 3))
    lanes = await leased(store, calls=3)
    assert ["a", "b"] == [lane.building for lane in lanes]
    assert calls[:3] == [row.call for row in lanes[0].calls]
    assert [NOW + HOLD] * 2 == [lane.until for lane in lanes]
    assert [(NOW, 0, 0, None, False, None)] * 3 == [
        (row.queued, row.done, row.attempts, row.first_failed, row.repaired, row.doubt) for row in lanes[0].calls
    ]


async def test_a_lane_that_is_lent_is_not_lent_again(store: Keeper) -> None:
    await queued(store, events("a", 1))
    assert 1 == len(await leased(store))
    await queued(store, events("a", 2))
    assert [] == await leased(store)
    assert NOW + HOLD == await store.next_due()


async def test_a_lease_runs_out(store: Keeper) -> None:
    await queued(store, events("a", 1))
    await leased(store)
    assert [] == await leased(store, now_after=HOLD - SECOND)
    assert ["a"] == [lane.building for lane in await leased(store, now_after=HOLD)]


async def test_a_returned_lane_waits_until_it_is_due_though_new_calls_come(store: Keeper) -> None:
    await queued(store, events("a", 1))
    await leased(store)
    await store.settle(NOW, [], [], [Return(building="a", at=NOW + 5 * SECOND)])
    await queued(store, events("a", 2))
    assert [] == await leased(store, now_after=4 * SECOND)
    assert NOW + 5 * SECOND == await store.next_due()
    (lane,) = await leased(store, now_after=5 * SECOND)
    assert [1, 2] == [row.id for row in lane.calls]


async def test_calls_queued_by_a_clock_that_is_ahead_are_due_by_that_of_the_sender(store: Keeper) -> None:
    far = NOW + timedelta(days=400)
    await store.commit(Work(now=far, turn=NOW, calls=out(events("a", 1))))
    (lane,) = await leased(store)
    assert far == lane.calls[0].queued


async def test_asked_afresh_no_lane_waits_longer(store: Keeper) -> None:
    await queued(store, events("a", 1), events("b", 1), events("c", 1))
    await leased(store, lanes=2)
    await store.settle(NOW, [], [], [Return(building="a", at=NOW + DAY)])
    assert ["c"] == [lane.building for lane in await leased(store)]
    lanes = await store.lease(NOW, 10, 10, HOLD, afresh=True)
    assert ["a"] == [lane.building for lane in lanes], "what is lent stays lent"


async def test_after_opening_no_lane_waits(store: Keeper, reopened: Reopened) -> None:
    await queued(store, events("a", 1))
    await leased(store)
    await store.settle(NOW, [], [], [Return(building="a", at=NOW + DAY)])
    again = await reopened(store)
    assert ["a"] == [lane.building for lane in await leased(again)]


async def test_a_lane_whose_calls_were_settled_by_someone_else_takes_no_place(store: Keeper) -> None:
    await queued(store, events("a", 1), events("b", 1))
    await leased(store, lanes=1)
    await leased(store, now_after=HOLD, lanes=0)  # the lease of "a" runs out
    await store.settle(NOW, [Settlement(call_id=1, delivered=1)], [], [])
    lent = [lane.building for _ in range(2) for lane in await leased(store, now_after=HOLD, lanes=2)]
    assert ["b"] == lent
    assert NOW + 2 * HOLD == await store.next_due()


async def test_a_returned_lane_that_owes_nothing_is_not_due(store: Keeper) -> None:
    await queued(store, events("a", 1))
    await leased(store)
    await store.settle(NOW, [Settlement(call_id=1, delivered=1)], [], [Return(building="a", at=NOW)])
    assert None is await store.next_due()
    assert [] == await leased(store, now_after=DAY)
    await queued(store, events("a", 2))
    assert ["a"] == [lane.building for lane in await leased(store)]


async def test_after_a_turn_a_lane_stands_behind_the_others(store: Keeper) -> None:
    await queued(store, *(events(name, n) for name in "abc" for n in range(2)))
    order = []
    for turn in range(6):
        (lane,) = await leased(store, now_after=(turn + 1) * SECOND, lanes=1, calls=1)
        order.append(lane.building)
        done = Settlement(call_id=lane.calls[0].id, delivered=1)
        await store.settle(NOW, [done], [], [Return(building=lane.building, at=NOW + (turn + 1) * SECOND)])
    assert ["a", "b", "c", "a", "b", "c"] == order


async def test_a_return_by_someone_whose_lease_ran_out_changes_nothing(store: Keeper) -> None:
    await queued(store, events("a", 1))
    await store.settle(NOW, [], [], [Return(building="a", at=NOW + DAY), Return(building="nowhere", at=NOW)])
    assert NOW == await store.next_due()


async def test_opening_frees_all_leases_and_counts_what_was_on_the_wire(store: Keeper, reopened: Reopened) -> None:
    await queued(store, events("a", 1), events("b", 2))
    await leased(store)
    await store.settle(NOW, [], [Begin(call_id=1, doubt=doubt())], [])
    store = await reopened(store)
    lanes = await leased(store)
    assert [doubt(), None] == [row.doubt for lane in lanes for row in lane.calls]
    assert 1 == (await store.census()).in_doubt
    store = await reopened(store)
    assert 1 == (await store.census()).in_doubt
    assert ["lost reply"] == [tried.outcome for call in await store.event_calls("a") for tried in call.attempts]
    assert [] == [tried.outcome for call in await store.event_calls("b") for tried in call.attempts]


async def test_a_lane_carries_all_that_its_building_shall_be(store: Keeper) -> None:
    await queued(store, create("a"), devices("a", "x"), events("a", 1))
    (lane,) = await leased(store)
    assert (create("a"), devices("a", "x")) == lane.sheet
    ends = [Settlement(call_id=row.id, delivered=1) for row in lane.calls[:2]]
    await store.settle(NOW, ends, [], [Return(building="a", at=NOW)])
    await queued(store, change("a", zip="1"), devices("a", "y"), tariff("a", {"type": "SINGLE"}))
    await queued(store, change("a", city="Basel"))
    (lane,) = await leased(store)
    attributes = {"city": "Basel", "zip": "1", "settings": {"tariff": {"type": "SINGLE"}}}
    assert (CreateBuilding(building="a", attributes=attributes), devices("a", "y")) == lane.sheet


async def test_what_was_removed_is_no_part_of_what_a_building_shall_be(store: Keeper) -> None:
    directory = {"zip": "1", "city": "Bern", "settings": {"tariff": {"type": "SINGLE"}, "x": 1}}
    await queued(store, CreateBuilding(building="a", attributes=directory))
    await queued(store, ChangeBuilding(building="a", removed=("zip",)), tariff("a", None))
    await queued(store, ChangeBuilding(building="a", attributes={"zip": "2"}, removed=("city",)))
    (lane,) = await leased(store)
    assert [CreateBuilding(building="a", attributes={"zip": "2", "settings": {"x": 1}})] == list(lane.sheet)
    assert (
        ChangeBuilding(building="a", attributes={"zip": "2"}, removed=("city",), tariff_set=True) == lane.calls[1].call
    )


async def test_a_lane_of_events_alone_has_no_sheet(store: Keeper) -> None:
    await queued(store, events("a", 1), devices("b", "x"))
    assert [(), (devices("b", "x"),)] == [lane.sheet for lane in await leased(store)]


# ---- turns over subscriptions and ranks -----------------------------------------------------------------------------


def past(building: str) -> SendEvents:
    return replace(events(building, 1), replay=True)


async def queued_by(store: Keeper, subscription: str, *calls: Call) -> None:
    await store.commit(Work(now=NOW, calls=[replace(one, subscription=subscription) for one in out(*calls)]))


async def test_a_row_says_who_pays_for_it(store: Keeper) -> None:
    await queued_by(store, "one", create("a"))
    await queued_by(store, "two", events("a", 1))
    (lane,) = await leased(store)
    assert ["one", "two"] == [row.subscription for row in lane.calls]


async def test_subscriptions_take_turns_for_lanes(store: Keeper) -> None:
    await queued_by(store, "mad", *(events(f"a{number}", 1) for number in range(8)))
    await queued_by(store, "calm", events("b0", 1), events("b1", 1))
    assert ["a0", "a1", "b0", "b1"] == [lane.building for lane in await leased(store, lanes=4)]
    assert ["a2", "a3", "a4", "a5"] == [lane.building for lane in await leased(store, lanes=4)]


async def test_lanes_that_the_asker_has_already_count(store: Keeper) -> None:
    await queued_by(store, "mad", *(events(f"a{number}", 1) for number in range(8)))
    await queued_by(store, "calm", *(events(f"b{number}", 1) for number in range(8)))
    lanes = await store.lease(NOW, 6, 10, HOLD, held={Line("mad", Rank.LIVE): 6})
    assert ["b0", "b1", "b2"] == [lane.building for lane in lanes]


async def test_live_events_stand_before_new_buildings_and_these_before_history_but_nothing_is_held_up_for_ever(
    store: Keeper,
) -> None:
    await queued_by(store, "one", *(past(f"old{number}") for number in range(20)))
    await queued_by(store, "one", *(create(f"new{number}") for number in range(20)))
    await queued_by(store, "one", *(events(f"live{number}", 1) for number in range(20)))
    lanes = Counter(lane.building.rstrip("0123456789") for lane in await leased(store, lanes=13))
    assert {"live": 9, "new": 3, "old": 1} == lanes


async def test_a_lane_stands_where_its_first_owed_call_belongs(store: Keeper) -> None:
    await queued_by(store, "one", create("a"), events("a", 1))
    await queued_by(store, "one", *(create(f"b{number}") for number in range(3)))
    (lane, *_) = await leased(store)
    await store.settle(
        NOW,
        [Settlement(call_id=lane.calls[0].id, delivered=1)],
        [],
        [Return(building=name, at=NOW + SECOND) for name in ("a", "b0", "b1", "b2")],
    )
    await store.settle(NOW, [], [], [])
    lanes = await store.lease(NOW + SECOND, 5, 10, HOLD, held={Line("one", Rank.STATE): 4})
    assert ["a"] == [lane.building for lane in lanes]


async def test_a_lane_whose_lease_ran_out_stands_where_its_first_owed_call_belongs(store: Keeper) -> None:
    await queued_by(store, "one", create("a"))
    await queued_by(store, "two", events("a", 1))
    (lane,) = await leased(store)
    await store.settle(NOW, [Settlement(call_id=lane.calls[0].id, delivered=1)], [], [])
    await queued_by(store, "one", *(events(f"b{number}", 1) for number in range(9)))
    lanes = await store.lease(NOW + HOLD, 2, 10, HOLD)
    assert ["a", "b0"] == sorted(lane.building for lane in lanes)


async def test_a_dead_call_is_tried_again_at_the_cost_of_who_queued_it(store: Keeper) -> None:
    await queued_by(store, "one", events("a", 1))
    (lane,) = await leased(store)
    await store.settle(NOW, [Settlement(call_id=lane.calls[0].id, buried=burial())], [], [Return(building="a", at=NOW)])
    (letter,) = await store.dead_letters(DeadFilter())
    await store.retry([letter.id], NOW)
    (lane,) = await leased(store)
    assert ["one"] == [row.subscription for row in lane.calls]


async def test_the_next_lane_is_due_whichever_line_it_stands_in(store: Keeper) -> None:
    await queued_by(store, "one", events("a", 1))
    await queued_by(store, "two", create("b"))
    await queued_by(store, "three", past("c"))
    await leased(store)
    returned = [Return(building=name, at=NOW + place * SECOND) for place, name in enumerate("bca", 3)]
    await store.settle(NOW, [], [], returned)
    assert NOW + 3 * SECOND == await store.next_due()
    assert ["b", "c"] == [lane.building for lane in await leased(store, now_after=4 * SECOND)]


# ---- whole states ---------------------------------------------------------------------------------------------------


async def test_a_newer_list_takes_the_place_of_an_unsent_older_one(store: Keeper) -> None:
    await queued(store, devices("a", "x"), events("a", 1))
    await queued(store, devices("a", "x", "y"), devices("b", "z"))
    assert [devices("a", "x", "y"), events("a", 1)] == [row.call for row in await owed(store)]
    census = await store.census()
    assert (4, 3, 1) == (census.queued, census.calls_pending, census.replaced)


async def test_within_one_step_the_newest_whole_state_counts(store: Keeper) -> None:
    await queued(store, devices("a", "x"), events("a", 1), devices("a", "y"), devices("a", "z"))
    assert [devices("a", "z"), events("a", 1)] == [row.call for row in await owed(store)]
    assert 2 == (await store.census()).replaced


async def test_an_older_list_stays_while_events_of_a_device_that_the_newer_lacks_wait_behind_it(store: Keeper) -> None:
    first, last = devices("a", "x", "vehicle_1"), devices("a", "x")
    await queued(store, first, events("a", 1))
    await queued(store, last)
    await queued(store, devices("a", "x", "y"))
    assert [first, events("a", 1), devices("a", "x", "y")] == [row.call for row in await owed(store)]
    census = await store.census()
    assert (4, 3, 1) == (census.queued, census.calls_pending, census.replaced)


async def test_within_one_step_too_a_device_is_told_before_its_events(store: Keeper) -> None:
    first, last = devices("a", "x", "vehicle_1"), devices("a", "x")
    await queued(store, devices("a", "x"), first, events("a", 1), last, events("b", 1))
    assert [first, events("a", 1), last] == [row.call for row in await owed(store)]


async def test_a_list_that_came_to_name_a_device_keeps_its_place_too(store: Keeper) -> None:
    await queued(store, devices("a", "x"), events("a", 1))
    await queued(store, devices("a", "vehicle_1"), devices("a", "x"))
    assert [devices("a", "vehicle_1"), events("a", 1), devices("a", "x")] == [row.call for row in await owed(store)]


async def test_a_device_that_becomes_another_is_told_as_what_its_events_say(store: Keeper) -> None:
    pump = DeviceEntry(id="vehicle_1", type=DeviceType.HEAT_PUMP, name="vehicle_1")
    now_a_pump = PutDevices(building="a", devices=(pump,))
    await queued(store, devices("a", "vehicle_1"), events("a", 1))
    await queued(store, now_a_pump)
    assert [devices("a", "vehicle_1"), events("a", 1), now_a_pump] == [row.call for row in await owed(store)]


async def test_an_older_list_goes_where_no_events_of_its_devices_wait_behind_it(store: Keeper) -> None:
    await queued(store, events("a", 1), devices("a", "x", "vehicle_1"), events("b", 1))
    await queued(store, devices("a", "x"))
    assert [events("a", 1), devices("a", "x")] == [row.call for row in await owed(store)]


async def test_a_newer_change_is_laid_over_an_unsent_older_one(store: Keeper) -> None:
    older = ChangeBuilding(
        building="a", attributes={"zip": "1", "city": "x"}, create={"k": 1}, tariff={"t": 1}, tariff_set=True
    )
    await queued(store, older)
    await queued(store, change("a", city="y"))
    (row,) = await owed(store)
    assert row.call == ChangeBuilding(
        building="a", attributes={"zip": "1", "city": "y"}, create={"k": 1}, tariff={"t": 1}, tariff_set=True
    )
    await queued(store, ChangeBuilding(building="a", create={"k": 2}, tariff=None, tariff_set=True))
    (row,) = await owed(store)
    assert row.call == ChangeBuilding(
        building="a", attributes={"zip": "1", "city": "y"}, create={"k": 2}, tariff=None, tariff_set=True
    )


async def test_creation_and_change_share_no_place(store: Keeper) -> None:
    await queued(store, create("a", "x"), change("a", city="y"), create("a", "z"))
    assert [create("a", "z"), change("a", city="y")] == [row.call for row in await owed(store)]


async def test_what_is_lent_is_not_replaced(store: Keeper) -> None:
    await queued(store, devices("a", "x"))
    await leased(store)
    await queued(store, devices("a", "y"))
    await queued(store, devices("a", "z"))
    await store.settle(NOW, [], [], [Return(building="a", at=NOW)])
    assert [devices("a", "x"), devices("a", "z")] == [row.call for row in await owed(store)]


async def test_what_stands_behind_the_lent_calls_is_replaced(store: Keeper) -> None:
    await queued(store, events("a", 1), devices("a", "x"))
    await leased(store, calls=1)
    await queued(store, devices("a", "y"))
    await store.settle(NOW, [], [], [Return(building="a", at=NOW)])
    assert [events("a", 1), devices("a", "y")] == [row.call for row in await owed(store)]


async def test_what_is_in_doubt_is_not_replaced(store: Keeper) -> None:
    await queued(store, devices("a", "x"))
    await leased(store)
    await store.settle(NOW, [], [Begin(call_id=1, doubt=doubt())], [])
    await store.settle(NOW, [Settlement(call_id=1, lost=True)], [], [Return(building="a", at=NOW)])
    await queued(store, devices("a", "y"))
    assert [devices("a", "x"), devices("a", "y")] == [row.call for row in await owed(store)]


async def test_events_are_never_merged(store: Keeper) -> None:
    await queued(store, events("a", 1))
    await queued(store, events("a", 1))
    assert [events("a", 1), events("a", 1)] == [row.call for row in await owed(store)]


# ---- settling -------------------------------------------------------------------------------------------------------


async def test_events_count_one_each_and_are_worked_off_from_the_front(store: Keeper) -> None:
    await queued(store, events("a", 1, 2, 3, 4))
    await leased(store)
    failed = Settlement(call_id=1, failed=True)
    await store.settle(NOW, [failed, Settlement(call_id=1, delivered=2)], [], [Return(building="a", at=NOW)])
    (row,) = await owed(store)
    assert (events("a", 3, 4), 2, 0, None) == (row.call, row.done, row.attempts, row.first_failed)
    census = await store.census()
    assert (4, 2, 2) == (census.queued, census.delivered, census.calls_pending)
    await store.settle(NOW, [Settlement(call_id=1, delivered=9)], [], [])
    assert [] == await owed(store)
    assert 4 == (await store.census()).delivered


async def test_a_failed_call_stays_owed_with_its_attempts(store: Keeper) -> None:
    await queued(store, events("a", 1))
    await leased(store)
    await store.settle(NOW, [Settlement(call_id=1, failed=True, attempt=said("503"))], [], [])
    await store.settle(NOW + SECOND, [Settlement(call_id=1, failed=True, repaired=True)], [], [])
    await store.settle(NOW + SECOND, [Settlement(call_id=1, attempt=said("401"))], [], [Return(building="a", at=NOW)])
    (row,) = await owed(store)
    assert (2, NOW, True) == (row.attempts, row.first_failed, row.repaired)


async def test_a_throttled_call_was_tried_and_has_not_failed(store: Keeper) -> None:
    await queued(store, events("a", 1))
    await leased(store)
    said_so = [Settlement(call_id=1, throttled=True)] * 2
    await store.settle(NOW, said_so, [], [Return(building="a", at=NOW)])
    (row,) = await owed(store)
    assert (2, None) == (row.attempts, row.first_failed)


async def test_a_lost_reply_keeps_its_payload_and_is_counted(store: Keeper) -> None:
    await queued(store, events("a", 1))
    await leased(store)
    await store.settle(NOW, [], [Begin(call_id=1, doubt=doubt(b"\x00\xff"))], [])
    await store.settle(NOW, [Settlement(call_id=1, lost=True)], [], [Return(building="a", at=NOW)])
    (row,) = await owed(store)
    assert (doubt(b"\x00\xff"), 1) == (row.doubt, (await store.census()).in_doubt)
    await store.settle(NOW, [], [Begin(call_id=1, doubt=doubt(b"2"))], [])
    await store.settle(NOW, [Settlement(call_id=1, failed=True)], [], [])
    (row,) = await owed(store)
    assert (None, 1) == (row.doubt, (await store.census()).in_doubt)


async def test_a_refused_event_dies_alone(store: Keeper) -> None:
    await queued(store, events("a", 1, 2, 3))
    await leased(store)
    await store.settle(NOW, [Settlement(call_id=1, delivered=1, buried=burial())], [], [Return(building="a", at=NOW)])
    (row,) = await owed(store)
    (letter,) = await store.dead_letters(DeadFilter())
    assert (events("a", 3), 2) == (row.call, row.done)
    assert (DeadReason.REJECTED, "HTTP 400", '{"error":"no"}', "a", 1) == (
        letter.reason,
        letter.detail,
        letter.answer,
        letter.building,
        letter.call_id,
    )
    assert b'"value":2' in letter.body
    census = await store.census()
    assert (1, 1, 1, {"rejected": 1}) == (
        census.delivered,
        census.calls_dead,
        census.calls_pending,
        census.dead_letters,
    )


async def test_a_whole_row_may_be_buried(store: Keeper) -> None:
    await queued(store, events("a", 1, 2, 3), events("a", 4))
    await leased(store)
    end = Settlement(call_id=1, buried=burial(DeadReason.STUCK), bury_all=True)
    await store.settle(NOW, [end], [], [Return(building="a", at=NOW)])
    assert [events("a", 4)] == [row.call for row in await owed(store)]
    assert 3 == len(await store.dead_letters(DeadFilter(reason=DeadReason.STUCK)))


async def test_a_dry_row_is_settled_without_a_call(store: Keeper) -> None:
    await queued(store, events("a", 1, 2), create("a"))
    await leased(store)
    await store.settle(NOW, [Settlement(call_id=1, dry=True), Settlement(call_id=2, delivered=1, dry=True)], [], [])
    census = await store.census()
    assert (3, 0) == (census.delivered, census.calls_pending)


async def test_settling_what_is_not_owed_changes_nothing(store: Keeper) -> None:
    await queued(store, events("a", 1))
    await leased(store)
    twice = [
        Settlement(call_id=1, delivered=1),
        Settlement(call_id=1, delivered=1),
        Settlement(call_id=77, delivered=1),
    ]
    await store.settle(NOW, twice, [Begin(call_id=1, doubt=doubt()), Begin(call_id=78, doubt=doubt())], [])
    await store.settle(NOW, [Settlement(call_id=1, buried=burial())], [], [])
    census = await store.census()
    assert (1, 0, 0) == (census.delivered, census.calls_pending, census.calls_dead)


async def test_the_oldest_owed_call_tells_its_age(store: Keeper) -> None:
    await queued(store, events("a", 1))
    await store.commit(Work(now=NOW + SECOND, calls=out(events("b", 1))))
    assert NOW == (await store.census()).oldest_owed
    await leased(store, now_after=DAY)
    await store.settle(NOW, [Settlement(call_id=1, delivered=1)], [], [])
    assert NOW + SECOND == (await store.census()).oldest_owed


async def test_what_keeps_calls_from_moost_is_remembered_with_its_time(store: Keeper, reopened: Reopened) -> None:
    assert None is (await store.census()).trouble
    await store.commit(Work(now=NOW, trouble="name unknown"))
    await store.commit(Work(now=NOW + SECOND))
    again = await reopened(store)
    assert (codec.from_ms(codec.to_ms(NOW)), "name unknown") == (await again.census()).trouble
    await again.commit(Work(now=NOW + SECOND, trouble=""))
    assert "" == ((await again.census()).trouble or (NOW, "?"))[1]


async def test_many_lanes_and_rows_at_once(store: Keeper) -> None:
    names = [f"house-{n:03}" for n in range(150)]
    await queued(store, *(events(name, 1, 2) for name in names for _ in range(2)))
    lanes = await leased(store, lanes=200)
    assert names == [lane.building for lane in lanes]
    rows = [row.id for lane in lanes for row in lane.calls]
    await store.settle(NOW, [], [Begin(call_id=row, doubt=doubt()) for row in rows], [])
    ends = [Settlement(call_id=row, delivered=2, attempt=said()) for row in rows]
    await store.settle(NOW, ends, [], [Return(building=name, at=NOW) for name in names])
    census = await store.census()
    assert (600, 600, None) == (census.queued, census.delivered, await store.next_due())
