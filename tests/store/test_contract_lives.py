"""What every keeper promises after a process has ended without a word: what it had in hand comes one by one."""

from collections.abc import Awaitable, Callable, Sequence

import pytest

from bridge.core.vocabulary import DeadReason
from bridge.store.desk import DeadFilter, Forgetting
from bridge.store.port import Work
from tests.store.conftest import Keeper
from tests.store.values import NOW, arrival

pytestmark = pytest.mark.anyio

Started = Callable[[Keeper], Awaitable[Keeper]]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for keeper in ("sqlite", "postgres"):
        monkeypatch.setattr(f"bridge.store.{keeper}.keeper.HEAD_START_S", 0.0)


async def claimed(store: Keeper) -> list[tuple[int, int]]:
    messages, _ = await store.claim(256)
    return [(message.id, message.ends) for message in messages]


async def settle(store: Keeper, *ids: int, hand: Sequence[int] = ()) -> None:
    assert [] == list(await store.commit(Work(now=NOW, settled=ids, hand=hand)))


async def test_after_an_end_in_order_nothing_comes_alone(store: Keeper, reopened: Started) -> None:
    await store.accept([arrival(), arrival()])
    await claimed(store)
    store = await reopened(store)
    assert [(1, 0), (2, 0)] == await claimed(store)


async def test_after_a_kill_what_waited_first_comes_one_by_one_and_then_all_else(
    make: Callable[[], Keeper], after_a_kill: Started
) -> None:
    store = make()
    await store.open()
    await store.accept([arrival() for _ in range(300)])
    await claimed(store)
    store = await after_a_kill(store)
    await store.accept([arrival()])
    for number in range(1, 257):
        assert [(number, 1)] == await claimed(store)
        assert [(number, 1)] == await claimed(store), "as long as it is not settled, in this life"
        await settle(store, number)
    assert [(number, 0) for number in range(257, 302)] == await claimed(store)
    assert [] == list(await store.verify())


async def test_after_a_kill_it_is_what_was_named_that_comes_one_by_one(
    make: Callable[[], Keeper], after_a_kill: Started
) -> None:
    store = make()
    await store.open()
    await store.accept([arrival() for _ in range(6)])
    await claimed(store)
    await settle(store, 1, hand=[4, 6])
    store = await after_a_kill(store)
    assert [(4, 1)] == await claimed(store)
    await settle(store, 4)
    assert [(6, 1)] == await claimed(store)
    await settle(store, 6)
    assert [(2, 0), (3, 0), (5, 0)] == await claimed(store)


async def test_what_was_named_counts_until_the_next_step_names_nothing(
    make: Callable[[], Keeper], after_a_kill: Started
) -> None:
    store = make()
    await store.open()
    await store.accept([arrival() for _ in range(6)])
    await claimed(store)
    await settle(store, 1, hand=[4, 6])
    await settle(store, 4, 6)
    store = await after_a_kill(store)
    assert [(2, 1)] == await claimed(store)


async def test_what_was_in_hand_alone_at_two_ends_says_so_and_no_other_does(
    make: Callable[[], Keeper], after_a_kill: Started
) -> None:
    store = make()
    await store.open()
    await store.accept([arrival() for _ in range(4)])
    await claimed(store)
    store = await after_a_kill(store)
    await claimed(store)
    await settle(store, 1)
    assert [(2, 1)] == await claimed(store)
    store = await after_a_kill(store)
    assert [(2, 2)] == await claimed(store)
    await store.commit(Work(now=NOW, dead=[(2, DeadReason.FAULT, "twice")]))
    assert [(3, 1)] == await claimed(store), "the others of the first end still come alone"
    await settle(store, 3)
    await claimed(store)
    await settle(store, 4)
    assert [] == await claimed(store)


async def test_a_message_that_was_let_go_of_in_order_was_in_hand_at_no_end(
    make: Callable[[], Keeper], after_a_kill: Started, reopened: Started
) -> None:
    store = make()
    await store.open()
    await store.accept([arrival(), arrival()])
    await claimed(store)
    store = await after_a_kill(store)
    assert [(1, 1)] == await claimed(store)
    store = await reopened(store)
    assert [(1, 1)] == await claimed(store)
    store = await after_a_kill(store)
    assert [(1, 2)] == await claimed(store)


async def test_a_retried_letter_has_both_ends_before_it_again(
    make: Callable[[], Keeper], after_a_kill: Started
) -> None:
    store = make()
    await store.open()
    await store.accept([arrival()])
    for _ in range(2):
        await claimed(store)
        store = await after_a_kill(store)
    assert [(1, 2)] == await claimed(store)
    await store.commit(Work(now=NOW, dead=[(1, DeadReason.FAULT, "twice")]))
    (letter,) = await store.dead_letters(DeadFilter())
    assert 1 == await store.retry([letter.id], NOW)
    assert [(1, 0)] == await claimed(store)
    store = await after_a_kill(store)
    assert [(1, 1)] == await claimed(store)


async def test_an_erased_message_is_no_longer_in_hand(make: Callable[[], Keeper], after_a_kill: Started) -> None:
    store = make()
    await store.open()
    await store.accept([arrival(), arrival()])
    await claimed(store)
    store = await after_a_kill(store)
    assert [(1, 1)] == await claimed(store)
    assert [1] == [erased.messages async for erased in store.forget(Forgetting(messages=[1]), lambda: NOW)]
    assert [(2, 1)] == await claimed(store)
