"""Bytes of bodies: who pays for them, who waits, and who is cut where others need the room."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bridge.limits import SUBSCRIPTION_LIMITED, Limit
from bridge.receiver import hands as rules
from bridge.receiver.hands import MOST_IN_HAND, SMALL_BODY, Hands, Place, Room
from tests.receiver.conftest import (
    JSON,
    OPEN,
    PATH,
    SIGNED,
    House,
    Served,
    Wire,
    answer,
    house,
    request,
    served,
    settings,
    sign,
    until,
)

pytestmark = pytest.mark.anyio

HUGE = 40 * 2**20


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "WANT_S", 0.05)
    monkeypatch.setattr(rules, "CUT_EVERY_S", 0.05)
    monkeypatch.setattr(rules, "LONGEST_WANT_S", 0.3)


def bearer(name: str = "sub-1") -> dict[str, Any]:
    return {"id": name, "auth": "bearer", "secrets": [f"the-token-of-{name}"]}


class Rooms:
    """A room whose clock stands still until it is told."""

    def __init__(self, most: int = 100, each: int = 60, **more: int) -> None:
        self.now = 0.0
        self.told: list[tuple[Limit, str]] = []
        self.room = Room(
            Limit.UNVERIFIED_BYTES,
            most,
            each,
            reached=lambda limit, payer: self.told.append((limit, payer)),
            clock=lambda: self.now,
            **more,
        )

    async def body(self, payer: str, size: int, *, fixed: bool = False) -> tuple[Place, "asyncio.Task[str]"]:
        """Read a body whose rest does not come; returns its place, and how it ends."""
        place = self.room.place(payer, fixed=fixed)

        async def read() -> str:
            try:
                if not await self.room.take(place, size):
                    return "no room"
                self.room.reading(place)
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return "cut" if place.is_cut else "ended"
            finally:
                self.room.give_back(place)
            return ""

        task = asyncio.create_task(read())
        await asyncio.sleep(0)
        return place, task


# ---- the rule -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("hurry")
async def test_the_slowest_gives_way_to_who_has_waited() -> None:
    rooms = Rooms()
    _, slow = await rooms.body("a", 10)
    _, fast = await rooms.body("b", 50)
    rooms.now = 10
    _, new = await rooms.body("c", 45)
    assert "cut" == await slow
    assert not fast.done()
    assert not new.done()
    assert 95 == rooms.room.held
    assert [(Limit.UNVERIFIED_BYTES, "c")] == rooms.told
    for task in (fast, new):
        task.cancel()
        await task
    assert 0 == rooms.room.held


@pytest.mark.usefixtures("hurry")
async def test_as_many_give_way_as_it_takes() -> None:
    rooms = Rooms()
    bodies = [await rooms.body(f"a{number}", 10) for number in range(10)]
    rooms.now = 10
    _, new = await rooms.body("new", 35)
    await until(lambda: rooms.room.held == 95)
    assert ["cut"] * 4 == [await task for _, task in bodies[:4]]
    for _, task in bodies[4:]:
        assert not task.done()
        task.cancel()
    new.cancel()


@pytest.mark.usefixtures("hurry")
async def test_who_has_used_up_its_own_share_takes_nobody_else_s() -> None:
    rooms = Rooms()
    _, other = await rooms.body("b", 1)
    _, own = await rooms.body("a", 50)
    rooms.now = 10
    _, new = await rooms.body("a", 20)
    assert "cut" == await own
    assert not other.done()
    assert 21 == rooms.room.held
    other.cancel()
    new.cancel()


@pytest.mark.usefixtures("hurry")
async def test_where_nobody_can_be_cut_it_is_over_after_a_while() -> None:
    rooms = Rooms()
    _, fixed = await rooms.body("proxy", 50, fixed=True)
    whole = rooms.room.place("b")
    assert await rooms.room.take(whole, 50)
    _, new = await rooms.body("c", 20)
    assert "no room" == await new
    assert not fixed.done()
    fixed.cancel()


async def test_room_that_is_given_back_goes_to_who_waits_in_their_order() -> None:
    rooms = Rooms()
    first = rooms.room.place("a")
    assert await rooms.room.take(first, 60)
    _, second = await rooms.body("b", 50)
    place, third = await rooms.body("c", 30)
    assert 30 == place.size, "it fits, and takes nothing from who waits for more"
    rooms.room.give_back(first)
    await until(lambda: rooms.room.held == 80)
    second.cancel()
    third.cancel()


async def test_small_bodies_keep_half_of_the_room_to_themselves() -> None:
    hands = Hands(2**20, lambda _limit, _payer: None)
    place = hands.verified.place("sub-1")
    assert await hands.verified.take(place, MOST_IN_HAND // 2)
    large = asyncio.create_task(hands.verified.take(hands.verified.place("sub-2"), SMALL_BODY + 1))
    assert await hands.verified.take(hands.verified.place("sub-2"), SMALL_BODY)
    assert not large.done()
    large.cancel()


async def test_whoever_is_alone_may_have_all_the_room() -> None:
    room = Rooms().room
    place = room.place("a")
    assert await room.take(place, 1_000)
    assert await room.take(place, 1_000)


# ---- at the door ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("hurry")
async def test_bodies_in_hand_are_counted_while_the_store_works_and_given_back() -> None:
    built = house(settings(max_body=HUGE))
    built.store.go_on.clear()
    large = b'{"a":"' + b"x" * (33 * 2**20) + b'"}'
    posting = asyncio.create_task(built.post(content=large))
    await until(lambda: built.store.waiting)
    got = await built.post(content=large)
    assert (503, {"error": "too many bodies in hand"}) == (got.status_code, got.json())
    assert "1" == got.headers["retry-after"]
    assert {"bytes_in_hand": 1} == built.limits.of_last_hour()
    assert [SUBSCRIPTION_LIMITED] == built.limits.problems()
    built.store.go_on.set()
    assert 202 == (await posting).status_code
    assert 202 == (await built.post(content=large)).status_code
    assert 0 == built.hands.verified.held


async def test_a_body_waits_for_room_and_is_taken() -> None:
    built = house(settings(max_body=HUGE))
    built.store.go_on.clear()
    large = b'{"a":"' + b"x" * (33 * 2**20) + b'"}'
    first = asyncio.create_task(built.post(content=large))
    await until(lambda: built.store.waiting)
    second = asyncio.create_task(built.post(content=large))
    await until(built.limits.of_last_hour)
    built.store.go_on.set()
    assert [202, 202] == [(await first).status_code, (await second).status_code]


async def test_one_subscription_leaves_room_for_another() -> None:
    built = house(settings(OPEN, OPEN | {"id": "sub-2"}, max_body=HUGE))
    built.store.go_on.clear()
    posts = [asyncio.create_task(built.post(content=b'{"a":"' + b"x" * 60_000 + b'"}')) for _ in range(700)]
    await until(built.limits.of_last_hour)
    other = asyncio.create_task(built.post(PATH.replace("sub-1", "sub-2"), content=b'{"a":"' + b"x" * 60_000 + b'"}'))
    waiting = built.store.waiting
    await until(lambda: built.store.waiting == waiting + 1)
    built.store.go_on.set()
    assert 202 == (await other).status_code
    assert {202} == {(await post).status_code for post in posts}


@pytest.mark.usefixtures("hurry")
async def test_a_body_that_grows_without_saying_so_is_counted_too() -> None:
    built = house(settings(max_body=60 * 2**20))
    built.store.go_on.clear()
    posting = asyncio.create_task(built.post(content=b"[" + b" " * (31 * 2**20) + b"{}]"))
    await until(lambda: built.store.waiting)

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b" " * 2**20

    got = await built.client.post(PATH, content=pieces(), headers=JSON)
    assert 503 == got.status_code
    built.store.go_on.set()
    assert 202 == (await posting).status_code
    assert answer(1, ids=[2]) == (await built.post()).json()


# ---- unfinished bodies ----------------------------------------------------------------------------------------------


async def half(bridge: Served, size: int, *headers: str) -> Wire:
    """Send a body that lacks its last byte."""
    wire = await bridge.connect()
    await wire.send(request(b'{"a":"' + b"x" * (size - 8) + b'"', *headers, length=size))
    return wire


def held(built: House) -> int:
    return built.hands.unverified.held


def signed_headers(body: bytes) -> list[str]:
    return [f"{name}: {value}" for name, value in sign(body).items() if name != "content-type"]


async def test_unfinished_bodies_of_strangers_keep_nobody_out() -> None:
    """1,065 bodies that each lacked their last byte held all the room, and every other sender heard 503."""
    async with served(settings(SIGNED)) as bridge:
        built = bridge.house
        wires = [await half(bridge, 60_000) for _ in range(150)]
        await until(lambda: held(built) > 3_900_000)
        assert held(built) <= 4 * 2**20, "a quarter of the room for one address"
        body = b'{"a":"' + b"x" * 60_000 + b'"}'
        for _ in range(5):
            wire = await bridge.connect()
            await wire.send(request(body, *signed_headers(body)))
            assert 202 == (await wire.answer())[0]
        assert 0 == built.hands.verified.held
        assert len(wires) == 150


async def test_a_large_body_of_a_stranger_goes_before_slow_ones_after_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "WANT_S", 0.3)
    async with served(settings(SIGNED, trusted_proxies=["127.0.0.1"])) as bridge:
        built = bridge.house
        built.hands.unverified._most = built.hands.unverified._most_of_large = 1_000_000
        built.hands.unverified._most_each = 250_000
        slow = [await half(bridge, 60_000, f"x-forwarded-for: 198.51.100.{number}") for number in range(16)]
        await until(lambda: held(built) >= 959_000)
        body = b'{"a":"' + b"x" * 500_000 + b'"}'
        wire = await bridge.connect()
        await wire.send(request(body, *signed_headers(body), "x-forwarded-for: 203.0.113.1"))
        assert 202 == (await wire.answer())[0]
        assert {"unverified_bytes"} == set(built.limits.of_last_hour())
        status, headers, content = await slow[0].answer()
        assert (408, {"error": "the body took too long"}, "close") == (status, content, headers["connection"])


async def test_who_proved_itself_lately_needs_no_room_among_strangers() -> None:
    async with served(settings(SIGNED, trusted_proxies=["127.0.0.1"])) as bridge:
        built = bridge.house
        wire = await bridge.connect()
        await wire.send(request(b"{}", *signed_headers(b"{}"), "x-forwarded-for: 203.0.113.1"))
        assert 202 == (await wire.answer())[0]
        await half(bridge, 60_000, "x-forwarded-for: 203.0.113.1")
        await until(lambda: built.hands.verified.held == 59_999)
        assert 0 == held(built)
        await half(bridge, 60_000, "x-forwarded-for: 203.0.113.2")
        await until(lambda: held(built) == 59_999)


async def test_who_is_known_by_its_header_needs_no_room_among_strangers() -> None:
    async with served(settings(bearer())) as bridge:
        built = bridge.house
        await half(bridge, 60_000, "authorization: Bearer the-token-of-sub-1")
        await until(lambda: built.hands.verified.held == 59_999)
        await half(bridge, 60_000, "authorization: Bearer another")
        await until(lambda: held(built) == 59_999)


async def test_a_body_behind_a_proxy_that_does_not_tell_its_sender_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "WANT_S", 0.1)
    monkeypatch.setattr(rules, "LONGEST_WANT_S", 0.5)
    async with served(settings(SIGNED, trusted_proxies=["127.0.0.1"])) as bridge:
        built = bridge.house
        built.hands.unverified._most_each = 100_000
        first = await half(bridge, 60_000)
        await until(lambda: held(built) == 59_999)
        second = await half(bridge, 60_000)
        assert 503 == (await second.answer())[0]
        await first.send(b"}")
        assert 401 == (await first.answer())[0]
