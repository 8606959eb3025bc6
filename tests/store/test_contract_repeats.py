"""What every keeper knows of repeats (R11): by topic, and of signed deliveries that are sent again on another topic."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from bridge.core.vocabulary import DeadReason
from bridge.store.desk import DeadFilter
from bridge.store.port import Arrival, Receipt, Work
from bridge.store.repeats import KNOWN_FOR, REPLAYED
from tests.store.conftest import Keeper
from tests.store.values import DAY, NOW, SECOND, arrival

pytestmark = pytest.mark.anyio

Reopened = Callable[[Keeper], Awaitable[Keeper]]
UPDATE, DELETE, OTHER = "sub-1.meter.update", "sub-1.meter.delete", "sub-1.meter.offline"
TIGHT = 100_000


def plain(topic: str = UPDATE, body: bytes = b"1", position: int = 0) -> Arrival:
    return replace(arrival(body, message_id="m", position=position), topic=topic)


def signed(topic: str = UPDATE, at: datetime = NOW, body: bytes = b"1", position: int = 0) -> Arrival:
    return replace(plain(topic, body, position), signed=at)


def told(receipts: Sequence[Receipt]) -> list[str]:
    return ["repeat" if each.duplicate else "replayed" if each.replayed else "new" for each in receipts]


async def said(store: Keeper, *arrivals: Arrival) -> list[str]:
    """Accept messages one by one; what each of them is."""
    return [told(await store.accept([each]))[0] for each in arrivals]


async def buried(store: Keeper) -> list[tuple[DeadReason, str, str | None]]:
    return [(letter.reason, letter.detail, letter.topic) for letter in await store.dead_letters(DeadFilter())]


@pytest.mark.parametrize("at_once", [True, False])
async def test_the_same_id_and_bytes_on_another_topic_are_another_message(store: Keeper, at_once: bool) -> None:  # noqa: FBT001
    sent = [plain(), plain(DELETE), plain(), plain(DELETE)]
    found = told(await store.accept(sent)) if at_once else await said(store, *sent)
    assert ["new", "new", "repeat", "repeat"] == found
    census = await store.census()
    assert (2, 2, 0) == (census.accepted, census.duplicates, census.same_id_other_bytes)


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_signed_delivery_on_another_topic_is_one_dead_letter_and_then_repeats(
    store: Keeper,
    at_once: bool,  # noqa: FBT001
) -> None:
    sent = [signed(), signed(DELETE), signed(DELETE), signed(OTHER), signed()]
    found = told(await store.accept(sent)) if at_once else await said(store, *sent)
    assert ["new", "replayed", "repeat", "repeat", "repeat"] == found
    assert [(DeadReason.REPLAYED, REPLAYED, DELETE)] == await buried(store)
    census = await store.census()
    assert (2, 1, 3, 1) == (census.accepted, census.pending, census.duplicates, census.dead)
    messages, _ = await store.claim(10)
    assert [UPDATE] == [message.topic for message in messages]


async def test_one_signed_before_it_was_heard_is_replayed_too(store: Keeper) -> None:
    assert ["new", "replayed"] == await said(store, signed(at=NOW), signed(DELETE, at=NOW - SECOND))


async def test_one_signed_later_is_a_new_message_of_its_sender(store: Keeper) -> None:
    later = NOW + SECOND
    assert ["new", "new", "repeat"] == await said(store, signed(), signed(DELETE, at=later), signed(DELETE, at=later))
    assert ["repeat", "replayed", "repeat"] == await said(store, signed(at=later), signed(OTHER, at=later), signed())


async def test_a_repeat_that_was_signed_later_moves_the_time_on(store: Keeper, reopened: Reopened) -> None:
    later = NOW + SECOND
    assert ["new", "repeat"] == await said(store, signed(), signed(at=later))
    store = await reopened(store)
    assert ["replayed"] == await said(store, signed(DELETE, at=later))


async def test_a_replay_does_not_keep_the_sender_from_sending_it_later(store: Keeper) -> None:
    later = NOW + SECOND
    assert ["new", "replayed", "new"] == await said(store, signed(), signed(DELETE), signed(DELETE, at=later))


async def test_other_bytes_another_place_another_id_are_not_replayed(store: Keeper) -> None:
    other = replace(signed(DELETE), message_id="n")
    elsewhere = replace(signed(DELETE), subscription="sub-2")
    found = await said(store, signed(), signed(DELETE, body=b"2"), signed(DELETE, position=1), other, elsewhere)
    assert ["new"] * 5 == found


async def test_what_was_not_signed_is_never_replayed(store: Keeper) -> None:
    assert ["new", "new", "new"] == await said(store, plain(), signed(DELETE), plain(OTHER))


async def test_of_concurrent_copies_on_many_topics_exactly_one_is_accepted(store: Keeper) -> None:
    topics = [UPDATE, DELETE, OTHER] * 10
    answers = await asyncio.gather(*(store.accept([signed(topic)]) for topic in topics))
    found = [told(answer)[0] for answer in answers]
    assert (1, 1, 28) == tuple(found.count(what) for what in ("new", "replayed", "repeat"))
    assert 1 == (await store.census()).pending


async def test_a_replay_is_known_after_a_restart(store: Keeper, reopened: Reopened) -> None:
    assert ["new"] == await said(store, signed())
    store = await reopened(store)
    assert ["replayed", "repeat"] == await said(store, signed(DELETE), signed(OTHER))


@pytest.mark.parametrize("retention", [SECOND, DAY])
async def test_however_little_room_or_time_a_replay_is_known_while_its_signature_is_good(
    store: Keeper, retention: timedelta
) -> None:
    rows = [replace(signed(body=b"x" * 1000), message_id=f"m-{number}") for number in range(300)]
    await store.accept(rows)
    await store.commit(Work(now=NOW, settled=range(1, 301)))
    while await store.sweep(NOW + KNOWN_FOR - SECOND, retention, TIGHT):
        pass
    assert not [message.id async for message in store.raw(None, None)][:200]
    moved = [replace(row, topic=DELETE) for row in rows]
    assert ["replayed"] * 300 == told(await store.accept(moved))
    assert [] == list(await store.verify())


async def test_what_knows_repeats_of_messages_that_are_gone_is_not_owed(store: Keeper) -> None:
    rows = [replace(signed(body=b"x" * 1000), message_id=f"m-{number}") for number in range(2_000)]
    for start in range(0, 2_000, 500):
        await store.accept(rows[start : start + 500])
    before = (await store.census()).owed_bytes
    await store.commit(Work(now=NOW, settled=range(1, 2_001)))
    while await store.sweep(NOW + SECOND, SECOND, TIGHT):
        pass
    assert (await store.census()).owed_bytes < before / 4


async def test_when_the_letter_of_a_replay_goes_the_original_is_still_known(store: Keeper) -> None:
    assert ["new", "replayed"] == await said(store, signed(), signed(DELETE))
    await store.commit(Work(now=NOW, parked=[(1, "u")]))
    [letter] = await store.dead_letters(DeadFilter())
    await store.discard([letter.id], NOW)
    while await store.sweep(NOW + 3 * DAY, DAY, 1 << 40):
        pass
    assert ["repeat", "repeat"] == await said(store, signed(), signed(DELETE))
