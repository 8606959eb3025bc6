"""What each subscription holds of the room of a store: counted by whatever changes it, in every keeper."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from bridge.core.effects import PutDevices, SendEvents
from bridge.core.vocabulary import DeadReason
from bridge.store.codec import encode_call
from bridge.store.desk import DeadFilter, Forgetting
from bridge.store.port import Arrival, Outgoing, Return, Settlement, Work
from bridge.store.shares import CALL_BYTES, MESSAGE_BYTES, Share
from tests.store.conftest import Keeper
from tests.store.values import HOLD, NOW, SECOND, arrival, burial, devices, events, out, stillborn

pytestmark = pytest.mark.anyio

OTHER = "sub-2"
SIZE = MESSAGE_BYTES + 100


def message(subscription: str = "sub-1", size: int = 100) -> Arrival:
    return replace(arrival(b"x" * size), subscription=subscription, topic=f"{subscription}.vehicle.update")


async def shares(store: Keeper) -> dict[str, Share]:
    return dict((await store.census()).shares)


async def test_a_message_counts_with_its_bytes_and_its_place_until_it_is_settled(store: Keeper) -> None:
    await store.accept([message(), message(OTHER, 50), message()])
    assert {"sub-1": Share(pending=2 * SIZE), OTHER: Share(pending=SIZE - 50)} == await shares(store)
    await store.claim(10)
    await store.commit(Work(now=NOW, settled=[1, 2]))
    await store.commit(Work(now=NOW, settled=[1, 2]))
    assert {"sub-1": Share(pending=SIZE)} == await shares(store), "who holds nothing is not named"


async def test_a_repeat_holds_nothing(store: Keeper) -> None:
    await store.accept([arrival(message_id="a")] * 2)
    await store.accept([arrival(message_id="a")])
    assert {"sub-1": Share(pending=MESSAGE_BYTES + 2)} == await shares(store)


async def test_what_is_dead_or_parked_is_held_as_that(store: Keeper) -> None:
    await store.accept([message(), message(OTHER), message(), replace(stillborn(b"x" * 100), subscription=OTHER)])
    work = Work(now=NOW, settled=[3], dead=[(1, DeadReason.UNREADABLE, "")], parked=[(2, "u")])
    await store.commit(work)
    assert {"sub-1": Share(dead=SIZE), OTHER: Share(parked=SIZE, dead=SIZE)} == await shares(store)
    await store.commit(Work(now=NOW, unparked=["u"]))
    assert Share(pending=SIZE, dead=SIZE) == (await shares(store))[OTHER]


async def test_a_dead_letter_is_held_until_it_is_retried_or_given_up(store: Keeper) -> None:
    await store.accept([message(), message()])
    await store.commit(Work(now=NOW, dead=[(1, DeadReason.FAULT, ""), (2, DeadReason.FAULT, "")]))
    first, second = [letter.id for letter in await store.dead_letters(DeadFilter(subscription="sub-1"))]
    assert 1 == await store.retry([first], NOW)
    assert {"sub-1": Share(pending=SIZE, dead=SIZE)} == await shares(store)
    assert 1 == await store.discard([second], NOW)
    assert {"sub-1": Share(pending=SIZE)} == await shares(store)


async def test_what_is_erased_is_held_by_nobody(store: Keeper) -> None:
    await store.accept([message() for _ in range(4)])
    await store.commit(Work(now=NOW, settled=[1], dead=[(2, DeadReason.FAULT, "")], parked=[(3, "u")]))
    async for _ in store.forget(Forgetting(messages=[1, 2, 3, 4]), lambda: NOW):
        pass
    assert {} == await shares(store)


async def test_what_is_held_outlives_the_process(
    store: Keeper, reopened: Callable[[Keeper], Awaitable[Keeper]]
) -> None:
    await store.accept([message(), message(OTHER)])
    again = await reopened(store)
    assert {"sub-1": Share(pending=SIZE), OTHER: Share(pending=SIZE)} == await shares(again)
    await again.commit(Work(now=NOW, settled=[1, 2]))
    assert ({}, []) == (await shares(again), list(await again.verify()))


async def test_the_oldest_letters_come_first_and_what_may_still_be_wanted_never(store: Keeper) -> None:
    late, early = replace(message(), received=NOW + SECOND), message(OTHER)
    await store.accept([late, early, message()])
    await store.commit(Work(now=NOW + SECOND, dead=[(1, DeadReason.FAULT, "")]))
    await store.commit(Work(now=NOW, dead=[(2, DeadReason.FAULT, "")]))
    await store.commit(Work(now=NOW, dead=[(3, DeadReason.STUCK, "")], calls=out(events("a", 1))))
    (lane,) = await store.lease(NOW, 1, 1, HOLD)
    gone = Settlement(call_id=lane.calls[0].id, buried=burial())
    await store.settle(NOW - SECOND, [gone], [], [Return(building="a", at=NOW)])
    old = await store.oldest_letters(before=NOW + 2 * SECOND)
    assert [None, 2, 1] == [letter.message_id for letter in old]
    assert [None] == [letter.message_id for letter in await store.oldest_letters(before=NOW + SECOND, limit=1)]
    assert [None, 2] == [letter.message_id for letter in await store.oldest_letters(before=NOW + SECOND)]
    assert [] == list(await store.oldest_letters(before=NOW - SECOND))
    (found,) = await store.oldest_letters(subscription=OTHER)
    assert (2, OTHER, b"x" * 100) == (found.message_id, found.subscription, found.body)
    assert [1] == [letter.message_id for letter in await store.oldest_letters(subscription="sub-1")]


def owing(call: SendEvents | PutDevices, subscription: str = "sub-1") -> Outgoing:
    return Outgoing(call=call, subscription=subscription)


def counts(*calls: SendEvents | PutDevices) -> int:
    return sum(CALL_BYTES + len(encode_call(call)) for call in calls)


async def test_a_call_is_held_until_it_is_settled_whole(store: Keeper) -> None:
    first, second = events("a", 1, 2), events("b", 1)
    await store.commit(Work(now=NOW, calls=[owing(first), owing(second, OTHER)]))
    assert {"sub-1": Share(owed=counts(first)), OTHER: Share(owed=counts(second))} == await shares(store)
    lanes = await store.lease(NOW, 2, 5, HOLD)
    one = next(lane.calls[0].id for lane in lanes if lane.building == "a")
    back = [Return(building="a", at=NOW)]
    await store.settle(NOW, [Settlement(call_id=one, delivered=1)], [], back)
    assert Share(owed=counts(first)) == (await shares(store))["sub-1"]
    await store.settle(NOW, [Settlement(call_id=one, delivered=1)], [], back)
    assert {OTHER: Share(owed=counts(second))} == await shares(store)


async def test_a_whole_state_that_takes_an_older_ones_place_counts_instead_of_it(store: Keeper) -> None:
    older, newer = devices("a", "car"), devices("a", "car", "another-car")
    await store.commit(Work(now=NOW, calls=[owing(older)]))
    await store.commit(Work(now=NOW, calls=[owing(newer)]))
    assert {"sub-1": Share(owed=counts(newer))} == await shares(store)
    await store.commit(Work(now=NOW, calls=[owing(older), owing(newer), owing(events("a", 1))]))
    assert {"sub-1": Share(owed=counts(newer, events("a", 1)))} == await shares(store)


async def test_a_dead_call_owes_nothing_until_it_is_retried_and_an_erased_one_never(store: Keeper) -> None:
    call = events("a", 1.5)
    await store.commit(Work(now=NOW, calls=[owing(call)]))
    (lane,) = await store.lease(NOW, 1, 1, HOLD)
    gone = Settlement(call_id=lane.calls[0].id, buried=burial())
    await store.settle(NOW, [gone], [], [Return(building="a", at=NOW)])
    assert {} == await shares(store)
    (letter,) = await store.dead_letters(DeadFilter())
    assert 1 == await store.retry([letter.id], NOW)
    assert {"sub-1": Share(owed=counts(call))} == await shares(store)
    async for _ in store.forget(Forgetting(messages=[], building="a"), lambda: NOW):
        pass
    assert {} == await shares(store)
