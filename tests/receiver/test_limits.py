"""How much the door takes: messages per second, a full store."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.limits import SUBSCRIPTION_LIMITED, Limit
from bridge.receiver.checks import Bucket
from bridge.receiver.gate import ASK_EVERY_S, STORE_SHARE, WATERMARK, Gate
from bridge.store.port import Census, StoreUnavailable
from bridge.store.shares import Share
from tests.receiver.conftest import OPEN, PATH, SIGNED, House, house, settings, sign

pytestmark = pytest.mark.anyio

# ---- messages per second --------------------------------------------------------------------------------------------


async def test_messages_beyond_the_rate_are_429_until_the_time_it_names_has_passed() -> None:
    built = house(settings(OPEN | {"rate_limit": 2}))
    assert [202, 202, 429] == [(await built.post()).status_code for _ in range(3)]
    got = await built.post(content=b"[{},{},{}]")
    assert (429, {"error": "too many messages for this subscription"}) == (got.status_code, got.json())
    built.clock[0] += timedelta(seconds=int(got.headers["retry-after"]))
    assert 202 == (await built.post()).status_code
    assert 3 == len(built.store.taken)


async def test_messages_are_counted_and_not_requests_and_a_large_array_is_paid_for_afterwards() -> None:
    built = house(settings(OPEN | {"rate_limit": 10}))
    assert 202 == (await built.post(content=array(40))).status_code
    got = await built.post()
    assert (429, 4) == (got.status_code, int(got.headers["retry-after"]))


@pytest.mark.parametrize(("count", "wait"), [(5, 1), (3, 1), (2, 0), (1_000, 1)])
async def test_an_array_passes_when_as_many_may_as_a_second_allows(count: int, wait: int) -> None:
    """An array of 1,000 passed at 5 a second while one message was left, again and again."""
    built = house(settings(OPEN | {"rate_limit": 5}))
    assert 202 == (await built.post(content=array(3))).status_code
    got = await built.post(content=array(count))
    assert (429 if wait else 202) == got.status_code
    if wait:
        assert wait == int(got.headers["retry-after"])
        assert {"rate_limit": 1} == built.limits.of_last_hour()
        assert [SUBSCRIPTION_LIMITED] == built.limits.problems()
        built.clock[0] += timedelta(seconds=wait)
        assert 202 == (await built.post(content=array(count))).status_code


async def test_who_may_send_nothing_now_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body of commas cost a second before the limit was looked at."""
    built = house(settings(OPEN | {"rate_limit": 1}))
    assert 202 == (await built.post()).status_code
    monkeypatch.setattr("bridge.receiver.door.arrivals", None)
    assert 429 == (await built.post(content=b"[" + b"," * 100_000)).status_code


async def test_an_empty_array_uses_up_nothing() -> None:
    built = house(settings(OPEN | {"rate_limit": 1}))
    assert 202 == (await built.post(content=b"[]")).status_code
    assert 202 == (await built.post()).status_code


def array(count: int) -> bytes:
    return b"[" + b",".join([b"{}"] * count) + b"]"


async def test_the_limit_of_one_subscription_is_not_that_of_another() -> None:
    built = house(settings(OPEN | {"rate_limit": 1}, OPEN | {"id": "sub-2", "rate_limit": 1}, OPEN | {"id": "sub-3"}))
    paths = [PATH, PATH, PATH.replace("sub-1", "sub-2"), *[PATH.replace("sub-1", "sub-3")] * 3]
    assert [202, 429, 202, 202, 202, 202] == [(await built.post(path)).status_code for path in paths]


async def test_who_is_not_verified_uses_up_nothing() -> None:
    built = house(settings(SIGNED | {"rate_limit": 1}))
    assert [401] * 5 == [(await built.post()).status_code for _ in range(5)]
    assert 202 == (await built.client.post(PATH, content=b"{}", headers=sign(b"{}"))).status_code


async def test_reload_keeps_the_count_of_an_unchanged_limit_and_takes_a_new_one() -> None:
    built = house(settings(OPEN | {"rate_limit": 1}))
    assert 202 == (await built.post()).status_code
    built.receiver.reload(settings(OPEN | {"rate_limit": 1}))
    assert 429 == (await built.post()).status_code
    built.receiver.reload(settings(OPEN | {"rate_limit": 5}))
    assert 202 == (await built.post()).status_code
    built.receiver.reload(settings(OPEN))
    assert [202] * 9 == [(await built.post()).status_code for _ in range(9)]


@given(st.floats(0.01, 1000), st.lists(st.tuples(st.floats(0, 20), st.integers(1, 50)), max_size=60))
def test_over_any_time_no_more_than_the_rate_passes(rate: float, tries: list[tuple[float, int]]) -> None:
    bucket, now, passed, largest = Bucket(rate), 1e9, 0, 0
    for pause, count in tries:
        now += pause
        if bucket.wait(now, count) == 0:
            bucket.take(count)
            passed += count
            largest = max(largest, count)
    assert passed <= max(rate, 1) + largest + (now - 1e9) * rate + 1e-3


@given(st.floats(0.01, 1000), st.integers(1, 1000), st.integers(1, 1000))
def test_after_the_time_it_names_the_messages_pass(rate: float, count: int, more: int) -> None:
    bucket = Bucket(rate)
    bucket.wait(0)
    bucket.take(count)
    wait = bucket.wait(0, more)
    assert wait == 0 or bucket.wait(wait + 1e-6, more) == 0


# ---- a full store ---------------------------------------------------------------------------------------------------


def gate(*, draining: bool = False, ask: Callable[[], Awaitable[Census]] | None = None) -> Gate:
    return Gate(max_size=1000, disk_bytes=1000, starting=False, draining=draining, ask=ask)


@pytest.mark.parametrize(
    ("owed", "free", "failing"), [(800, 100, []), (801, 100, ["watermark"]), (0, 99, ["watermark"])]
)
def test_the_watermark_is_80_percent_owed_or_under_10_percent_of_the_disk_free(
    owed: int, free: int, failing: list[str]
) -> None:
    built = gate()
    built.refresh(Census(owed_bytes=owed, free_disk_bytes=free, size_bytes=10_000))
    assert bool(failing) == (built.closed() is not None)
    assert failing == built.failing()


def test_what_was_taken_since_the_store_was_asked_counts() -> None:
    built = gate()
    built.refresh(Census(owed_bytes=700))
    built.took(100)
    assert built.closed() is None
    built.took(1)
    assert ["watermark"] == built.failing()
    built.refresh(Census(owed_bytes=700))
    assert built.closed() is None


async def test_what_was_taken_and_is_settled_by_now_closes_nothing() -> None:
    built, answers = gate(), [Census(owed_bytes=10), Census(owed_bytes=801)]

    async def ask() -> Census:
        built.took(5)  # by another request, while the store is asked
        return answers.pop(0)

    built.ask = ask
    built.refresh(Census(owed_bytes=700))
    built.took(101)
    assert [] == built.failing(), "nobody knows yet"
    assert {None} == set(await asyncio.gather(built.judged(), built.judged()))
    assert 1 == len(answers), "whoever comes meanwhile waits for the same answer"
    built.took(785)
    assert built.closed() is None, "5 + 785 + 10 are 800"
    built.took(1)
    assert WATERMARK is await built.judged(), "asked just now"
    await asyncio.sleep(ASK_EVERY_S)
    assert WATERMARK is await built.judged()
    assert (["watermark"], []) == (built.failing(), answers), "that much is owed"


async def test_what_was_taken_counts_on_the_disk_however_often_the_store_is_asked() -> None:
    """It stands in the log, and is written once more: into the database."""
    built = gate()

    async def ask() -> Census:
        return Census(owed_bytes=10, free_disk_bytes=190)

    built.ask = ask
    built.refresh(Census(owed_bytes=700, free_disk_bytes=300))
    built.took(101)
    assert WATERMARK is await built.judged(), "300 - 2 * 101 are less than a tenth"
    built.refresh(Census(owed_bytes=700, free_disk_bytes=300))
    built.took(100)
    assert built.closed() is None
    built.refresh(Census(owed_bytes=750, free_disk_bytes=300))
    built.took(60)
    assert await built.judged() is None, "owed 10 of 1000"
    built.took(40)
    assert built.closed() is None
    built.took(1)
    assert WATERMARK is await built.judged(), "the store says 190, but it was asked in the middle of it"


async def test_a_store_that_cannot_say_how_full_it_is_keeps_the_door_closed() -> None:
    async def ask() -> Census:
        raise StoreUnavailable("gone")

    built = gate(ask=ask)
    built.refresh(Census(owed_bytes=700))
    built.took(101)
    assert WATERMARK is await built.judged()


# ---- shares of the store --------------------------------------------------------------------------------------------


def shared(share: float = 0.75, ask: Callable[[], Awaitable[Census]] | None = None) -> Gate:
    built = gate(ask=ask)
    built.store_share, built.alone = share, False
    return built


def holding(owed: int, **held: int) -> Census:
    return Census(owed_bytes=owed, shares={name: Share(pending=size) for name, size in held.items()})


async def test_a_subscription_holds_no_more_than_its_share_of_its_own_and_of_what_is_left() -> None:
    built, told = shared(), list[str]()
    built.limited = told.append
    built.refresh(holding(600, a=400, b=200))
    assert built._exceeds("a", 51, guessing=True), "0.75 of 400 + 200 are 450"
    assert [None, STORE_SHARE, None, STORE_SHARE, None, STORE_SHARE] == [
        await built.judged(name, more)
        for name, more in [("a", 50), ("a", 51), ("b", 100), ("b", 101), ("c", 150), ("c", 151)]
    ]
    assert (["a", "b", "c"], [], None) == (told, built.failing(), await built.judged()), "nobody else hears of it"


async def test_whoever_is_alone_may_fill_the_store() -> None:
    built = shared()
    built.alone = True
    built.refresh(holding(799, a=799))
    assert await built.judged("a", 100) is None


async def test_what_was_taken_counts_for_the_share_of_its_subscription_until_the_store_is_asked() -> None:
    answers = [holding(0)]

    async def ask() -> Census:
        return answers.pop()

    built = shared(ask=ask)
    built.refresh(holding(0))
    built.took(600, "a")
    assert await built.judged("b", 150) is None, "0.75 of the 200 that are left"
    assert await built.judged("a", 1) is None, "it is settled by now"
    assert [] == answers
    built.took(600, "a")
    assert STORE_SHARE is await built.judged("a", 1), "asked just now"


async def test_only_the_subscription_that_has_used_up_its_share_is_refused() -> None:
    built = house(settings(OPEN, OPEN | {"id": "sub-2"}))
    built.gate.store_share, built.gate.alone = 0.75, False
    built.gate.limited = partial(built.limits.reached, Limit.STORE_SHARE)
    built.gate.refresh(Census(owed_bytes=610_000_000, shares={"sub-1": Share(dead=600_000_000)}))
    assert 202 == (await built.post(PATH.replace("sub-1", "sub-2"))).status_code
    got = await built.post()
    assert (503, {"error": "store_share"}) == (got.status_code, got.json())
    assert int(got.headers["retry-after"]) >= 1
    named = await built.post("/webhooks", b'[{"topic": "sub-2.vehicle.update", "data": {}}]')
    assert 202 == named.status_code
    assert 503 == (await built.post("/webhooks", b'[{"topic": "sub-1.vehicle.update", "data": {}}]')).status_code
    assert 2 == len(built.store.taken)
    health = (await built.client.get("/health")).json()
    assert (["subscription_limited"], {"store_share": 2}) == (health["problems"], health["limits"])
    assert 200 == (await built.client.get("/health/ready")).status_code
    assert 2 == built.count("bridge_limit_reached_total", limit="store_share")


def test_a_full_disk_fails_readiness_until_the_store_takes_messages_again() -> None:
    built = gate()
    built.refresh(Census(full=True))
    assert ["store"] == built.failing()
    assert built.closed() is None, "each message is a try"
    built.refresh(Census())
    assert [] == built.failing()


def test_what_was_taken_counts_twice_on_the_disk() -> None:
    built = gate()
    built.refresh(Census(free_disk_bytes=150))
    built.took(25)
    assert built.closed() is None
    built.took(1)
    assert ["watermark"] == built.failing()


async def test_a_full_store_is_503_long_before_it_is_asked(door: House) -> None:
    door.gate.refresh(Census(owed_bytes=door.gate.max_size))
    got = await door.post()
    assert (503, {"error": "watermark"}) == (got.status_code, got.json())
    assert int(got.headers["retry-after"]) >= 1
    assert [] == door.store.taken


def test_a_store_that_cannot_be_asked_closes_the_door_until_it_can() -> None:
    built = gate()
    built.refresh(None)
    assert ["store"] == built.failing()
    built.refresh(Census())
    assert [] == built.failing()
    assert built.closed() is None


def test_draining_fails_readiness_before_it_shuts_the_door() -> None:
    built = gate(draining=True)
    assert built.closed() is None
    assert ["draining"] == built.failing()
    built.shut = True
    assert built.closed() is not None
