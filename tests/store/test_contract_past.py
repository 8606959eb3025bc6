"""What every keeper promises those who map the past again."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from bridge.core.messages import Tick
from bridge.core.vocabulary import DeadReason
from bridge.store.desk import DeadFilter, Reach, Ticked
from bridge.store.port import Return, Settlement, Work
from tests.store.conftest import Keeper
from tests.store.values import DAY, HOLD, NOW, SECOND, arrival, devices, events, house, out, stillborn

pytestmark = pytest.mark.anyio

HUGE = 1 << 40


async def test_only_settled_messages_are_mapped_again(store: Keeper) -> None:
    await store.accept([arrival(b"1"), stillborn(), arrival(b"3"), arrival(b"4"), arrival(b"5"), arrival(b"6")])
    await store.commit(Work(now=NOW, settled=[1, 3], parked=[(4, "u")], dead=[(5, DeadReason.FAULT, "")]))
    assert [1, 3] == [row.id for row in await store.settled(0)]
    assert [b"3"] == [row.body for row in await store.settled(1)]
    assert [1] == [row.id for row in await store.settled(0, 1)]
    assert Reach(processed=5) == await store.reach()
    letters = await store.dead_letters(DeadFilter(reason=DeadReason.FAULT))
    await store.retry([letters[0].id], NOW)
    assert [1, 3] == [row.id for row in await store.settled(0)]
    await store.commit(Work(now=NOW, settled=[5, 6]))
    assert [1, 3, 5, 6] == [row.id for row in await store.settled(0)]


async def test_a_message_that_was_given_up_is_not_mapped_again(store: Keeper) -> None:
    await store.accept([arrival(b"1"), arrival(b"2")])
    await store.commit(Work(now=NOW, settled=[2], dead=[(1, DeadReason.FAULT, "")]))
    await store.discard([1], NOW)
    assert [2] == [row.id for row in await store.settled(0)]


async def test_messages_are_read_by_their_ids(store: Keeper) -> None:
    await store.accept([arrival(str(n).encode()) for n in range(250)])
    asked = [250, 3, 3, 999, *range(100, 220)]
    assert [3, *range(100, 220), 250] == [row.id for row in await store.messages(asked)]
    assert [] == await store.messages([])


async def test_settled_messages_are_found_by_their_users(store: Keeper) -> None:
    await store.accept([arrival(str(n).encode()) for n in range(6)])
    await store.commit(Work(now=NOW, settled=[1, 2], users={1: "u", 2: "v"}))
    parked, dead = [(4, "u")], [(5, DeadReason.FAULT, "")]
    await store.commit(Work(now=NOW, settled=[3], parked=parked, dead=dead, users={3: "u", 4: "u", 5: "u"}))
    assert [1, 3] == list(await store.of_users(["u", "w"]))
    assert [1, 2, 3] == list(await store.of_users({"u", "v"}))
    assert [] == list(await store.of_users([]))


async def test_ticks_are_remembered_with_what_was_processed_before(
    store: Keeper, reopened: Callable[[Keeper], Awaitable[Keeper]]
) -> None:
    await store.accept([arrival(), arrival()])
    await store.commit(Work(now=NOW, buildings=[house("a"), house("b")]))
    first, second = Tick(now=NOW, catching_up=True), Tick(now=NOW + SECOND)
    await store.commit(Work(now=NOW, buildings=[house("a", 1), house("b", 1)], tick=first))
    await store.commit(Work(now=NOW, settled=[1, 2]))
    await store.commit(Work(now=NOW, buildings=[house("a", 2)], tick=second))
    again = await reopened(store)
    assert [Ticked(after=0, tick=first), Ticked(after=2, tick=second)] == list(await again.ticks("a"))
    assert [Ticked(after=0, tick=first)] == list(await again.ticks("b"))
    assert [] == list(await again.ticks("c"))


async def test_a_copy_of_the_state_is_kept_beside_a_tick(
    store: Keeper, reopened: Callable[[Keeper], Awaitable[Keeper]]
) -> None:
    await store.commit(Work(now=NOW, buildings=[house("a"), house("b")]))
    tick = Tick(now=NOW)
    await store.commit(Work(now=NOW, buildings=[house("a", 1), house("b", 1)], tick=tick, copied=["b"]))
    again = await reopened(store)
    assert [Ticked(after=0, tick=tick)] == list(await again.ticks("a"))
    assert [Ticked(after=0, tick=tick, state=house("b").state)] == list(await again.ticks("b"))


async def test_a_change_by_the_directory_is_remembered_with_what_came_of_it(
    store: Keeper, reopened: Callable[[Keeper], Awaitable[Keeper]]
) -> None:
    await store.accept([arrival()])
    await store.commit(Work(now=NOW, settled=[1], buildings=[house("a"), house("b")]))
    await store.commit(Work(now=NOW, buildings=[house("a", 1), house("b", 1)], unparked=["u"], moved=["a"]))
    again = await reopened(store)
    assert [Ticked(after=1, tick=None, state=house("a").state)] == list(await again.ticks("a"))
    assert [] == list(await again.ticks("b"))


async def test_a_copy_without_a_message_from_before_it_is_dropped(store: Keeper) -> None:
    await store.accept([arrival(b"1"), arrival(b"2")])
    tick = Tick(now=NOW)
    await store.commit(Work(now=NOW, settled=[1], buildings=[house("a"), house("b")]))
    for version in (1, 2):
        there = [house("a", version), house("b", version)]
        await store.commit(Work(now=NOW, buildings=there, tick=tick, copied=["a", "b"]))
        if version == 1:
            await store.commit(Work(now=NOW, dead=[(2, DeadReason.FAULT, "")]))
    letters = await store.dead_letters(DeadFilter())
    await store.retry([letter.id for letter in letters], NOW)
    await store.commit(Work(now=NOW, settled=[2], buildings=[house("a", 3)]))
    kept = house("a").state
    assert [(1, kept), (2, None)] == [(one.after, one.state) for one in await store.ticks("a")]
    assert [1, 2] == [one.after for one in await store.ticks("b") if one.state is not None]


async def test_a_tick_that_was_not_written_is_not_remembered(store: Keeper) -> None:
    await store.commit(Work(now=NOW, buildings=[house("a")]))
    assert ["a"] == list(await store.commit(Work(now=NOW, buildings=[house("a")], tick=Tick(now=NOW))))
    assert [] == list(await store.ticks("a"))


async def test_calls_with_events_are_read_by_building(store: Keeper) -> None:
    await store.commit(Work(now=NOW, calls=out(events("a", 1), devices("a", "x"), events("b", 2), cause=7)))
    await store.commit(Work(now=NOW, calls=out(events("a", 3, 4))))
    found = await store.event_calls("a")
    assert [(1, events("a", 1), 7), (4, events("a", 3, 4), 0)] == [(one.id, one.call, one.cause) for one in found]
    assert [4] == [one.id for one in await store.event_calls("a", 1)]
    assert [1] == [one.id for one in await store.event_calls("a", 0, 1)]
    assert [] == list(await store.event_calls("c"))


async def test_the_reach_is_that_of_what_was_deleted(store: Keeper) -> None:
    await store.accept([arrival(at=NOW), arrival(at=NOW + SECOND), arrival(at=NOW + DAY)])
    last = Tick(now=NOW + 2 * SECOND)
    await store.commit(Work(now=NOW, settled=[1], buildings=[house("a")]))
    await store.commit(Work(now=NOW, buildings=[house("a", 1)], tick=Tick(now=NOW)))
    await store.commit(Work(now=NOW, settled=[2, 3]))
    await store.commit(Work(now=NOW, buildings=[house("a", 2)], tick=last))
    await store.commit(Work(now=NOW, calls=out(events("a", 1))))
    await store.lease(NOW, 1, 1, HOLD)
    done = NOW + timedelta(hours=1)
    await store.settle(done, [Settlement(call_id=1, delivered=1)], [], [Return(building="a", at=NOW)])
    assert Reach(processed=3) == await store.reach()
    while await store.sweep(NOW + DAY + timedelta(hours=2), DAY, HUGE):
        pass
    assert Reach(processed=3, messages=NOW + SECOND, calls=done, forgotten=2) == await store.reach()
    assert [Ticked(after=3, tick=last)] == list(await store.ticks("a"))
    assert [3] == [row.id for row in await store.settled(0)]
    assert [] == list(await store.event_calls("a"))
