"""Where connections run out: who is idle gives way, and health and who has proved itself are answered."""

from datetime import timedelta
from typing import Any

import pytest

from bridge.receiver import callers as rules
from bridge.receiver.addresses import block, payer
from bridge.receiver.callers import Callers
from bridge.receiver.places import PROBATION, Places
from bridge.receiver.server import SPARES_FILES, places
from bridge.receiver.state import Limits
from tests.receiver.conftest import OPEN, SIGNED, Served, Wire, request, served, settings, sign

pytestmark = pytest.mark.anyio

LIVE = b"GET /health/live HTTP/1.1\r\nhost: a\r\n\r\n"
HALF = b"GET /health/live HTTP/1.1\r\n"


async def connect(bridge: Served, count: int, first: bytes) -> list[Wire]:
    """Open connections that say something, one after the other."""
    wires = []
    for _ in range(count):
        wire = await bridge.connect()
        await wire.send(first)
        if first.endswith(b"\r\n\r\n"):
            await wire.answer()
        wires.append(wire)
    return wires


def signed_post(secret: str | None = None) -> bytes:
    headers = sign(b"{}") if secret is None else sign(b"{}", secret=secret)
    del headers["content-type"]
    return request(b"{}", *(f"{name}: {value}" for name, value in headers.items()))


@pytest.mark.parametrize("bound", ["connections", "connections_per_address"])
async def test_the_connection_that_has_been_idle_longest_gives_way(bound: str) -> None:
    """4,200 idle connections kept new senders out for minutes, and the probes of Kubernetes with them."""
    limits: Any = {bound: 3}
    async with served(limits=Limits(**limits)) as bridge:
        wires = await connect(bridge, 3, LIVE)
        await wires[0].send(request())
        assert 202 == (await wires[0].answer())[0]
        (late,) = await connect(bridge, 1, LIVE)
        assert b"" == await wires[1].ended()
        for wire in (wires[0], wires[2], late):
            await wire.send(request())
            assert 202 == (await wire.answer())[0]
        assert {bound: 1} == bridge.house.limits.of_last_hour()
        assert [] == bridge.refused


async def test_where_nobody_is_idle_health_is_answered_and_a_stranger_hears_503() -> None:
    async with served(limits=Limits(connections=3)) as bridge:
        held = await connect(bridge, 3, HALF)
        late = await bridge.connect()
        await late.send(LIVE)
        status, headers, content = await late.answer()
        assert (200, {"live": True}, "close") == (status, content, headers["connection"])
        assert b"" == await late.ended()
        stranger = await bridge.connect()
        await stranger.send(request())
        status, headers, content = await stranger.answer()
        assert (503, {"error": "too many connections"}) == (status, content)
        assert ("1", "close") == (headers["retry-after"], headers["connection"])
        assert b"" == await stranger.ended()
        await held[0].send(b"\r\n")
        assert 200 == (await held[0].answer())[0]
        assert [503] == bridge.refused
        assert [] == bridge.house.store.taken


async def test_where_nobody_is_idle_who_has_proved_itself_is_taken() -> None:
    async with served(settings(SIGNED), limits=Limits(connections=3)) as bridge:
        first = await bridge.connect()
        await first.send(signed_post())
        assert 202 == (await first.answer())[0]
        first.close()
        await connect(bridge, 3, HALF)
        for _ in range(3):
            late = await bridge.connect()
            await late.send(signed_post())
            status, headers, _ = await late.answer()
            assert (202, "close") == (status, headers["connection"])
            await late.ended()


async def test_who_was_let_in_without_a_proof_has_proved_nothing() -> None:
    async with served(settings(OPEN), limits=Limits(connections=3)) as bridge:
        (first,) = await connect(bridge, 1, request())
        first.close()
        await connect(bridge, 3, HALF)
        late = await bridge.connect()
        await late.send(request())
        assert 503 == (await late.answer())[0]


async def test_who_is_silent_without_a_place_hears_503_soon() -> None:
    async with served(limits=Limits(connections=3, header_time=timedelta(seconds=30))) as bridge:
        await connect(bridge, 3, HALF)
        silent = await bridge.connect()
        assert b"" == await silent.ended()
        slow = await bridge.connect()
        await slow.send(HALF)
        assert 408 == (await slow.answer())[0]


async def test_when_probation_is_full_who_has_been_silent_longest_goes() -> None:
    async with served(limits=Limits(connections=3, header_time=timedelta(seconds=30))) as bridge:
        await connect(bridge, 3, HALF)
        silent = [await bridge.connect() for _ in range(PROBATION)]
        late = await bridge.connect()
        await late.send(LIVE)
        assert 200 == (await late.answer())[0]
        assert 503 == (await silent[0].answer())[0]


async def test_a_trusted_proxy_has_no_bound_of_its_own() -> None:
    chosen = settings(trusted_proxies=["127.0.0.1"])
    async with served(chosen, limits=Limits(connections_per_address=2)) as bridge:
        wires = await connect(bridge, 5, LIVE)
        for wire in wires:
            await wire.send(request())
            assert 202 == (await wire.answer())[0]
        assert {} == bridge.house.limits.of_last_hour()


class Connection:
    """A connection that only knows how it ended."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.end = ""

    def give_way(self) -> None:
        self.end = "gave way"

    def turn_away(self) -> None:
        self.end = "turned away"


def crowd(rooms: Places, address: str, count: int, *, idle: bool, exempt: bool = False) -> list[Connection]:
    found = []
    for number in range(count):
        one = Connection(f"{address} {number}")
        party, _ = rooms.enter(one, address, exempt=exempt)
        if idle:
            party.idle[one] = None
        found.append(one)
    return found


def test_the_address_that_holds_most_gives_way_and_a_proxy_last() -> None:
    rooms = Places(20, 20)
    proxy = crowd(rooms, "proxy", 10, idle=True, exempt=True)
    many = crowd(rooms, "many", 6, idle=True)
    few = crowd(rooms, "few", 4, idle=True)
    crowd(rooms, "new", 3, idle=False)
    assert ["gave way"] * 2 == [one.end for one in many[:2]]
    crowd(rooms, "new", 7, idle=False)
    assert {"gave way"} == {one.end for one in many + few}
    assert {""} == {one.end for one in proxy}
    crowd(rooms, "new", 1, idle=False)
    assert "gave way" == proxy[0].end


def test_a_place_that_was_given_back_twice_is_one_place() -> None:
    rooms = Places(2, 2)
    first, _ = crowd(rooms, "a", 2, idle=False)
    rooms.leave(first)
    rooms.leave(first)
    crowd(rooms, "b", 1, idle=False)
    assert not rooms.silent
    crowd(rooms, "b", 1, idle=False)
    assert 1 == len(rooms.silent)


@pytest.mark.parametrize(("wanted", "files", "expected"), [(4096, 8192, 4096), (4096, 1024, 512), (4096, 100, 64)])
def test_there_are_no_more_places_than_open_files(wanted: int, files: int, expected: int) -> None:
    assert 512 == SPARES_FILES
    assert expected == places(wanted, files)


# ---- who pays, and who has proved itself ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("198.51.100.7", None, "198.51.100.7"),
        ("198.51.100.7", b"203.0.113.1", "198.51.100.7"),
        ("10.0.0.1", b"203.0.113.1", "203.0.113.1"),
        ("10.0.0.1", b"2001:db8::1", "2001:db8::/64"),
        ("10.0.0.1", b"nonsense", "proxy 10.0.0.1"),
        ("10.0.0.1", None, "proxy 10.0.0.1"),
        ("2001:db8::1:2:3:4", None, "2001:db8::/64"),
        ("::ffff:198.51.100.7", None, "198.51.100.7"),
        ("", None, ""),
    ],
)
def test_an_address_pays_or_the_proxy_that_does_not_tell_it(peer: str, forwarded: bytes | None, expected: str) -> None:
    trusted = settings(trusted_proxies=["10.0.0.0/8"]).server.trusted_proxies
    scope = {"client": (peer, 1), "headers": [] if forwarded is None else [(b"x-forwarded-for", forwarded)]}
    assert expected == payer(scope, trusted)
    if forwarded is None and "proxy" not in expected:
        assert expected == payer(scope, ()) == block(peer)


def test_what_an_address_has_proved_is_remembered_for_a_while() -> None:
    now = [0.0]
    known = Callers(lambda: now[0])
    known.proved("a", "sub-1")
    known.proved("a", "sub-2")
    known.proved("a", "sub-1")
    assert ("sub-1", None) == (known.last("a"), known.last("b"))
    now[0] = rules.RECENTLY - 1
    assert known.is_recent("a", "sub-1")
    assert not known.is_recent("a", "sub-3")
    assert not known.is_recent("b", "sub-1")
    now[0] = rules.RECENTLY
    assert not known.is_recent("a", "sub-1")
    now[0] = rules.KNOWN_FOR - 1
    assert known.is_known("a")
    now[0] = rules.KNOWN_FOR
    assert not known.is_known("a")


def test_what_is_remembered_of_addresses_is_bounded() -> None:
    now = [0.0]
    known = Callers(lambda: now[0])
    known.proved("first", "sub")
    for number in range(rules.MOST_ADDRESSES - 1):
        known.proved(str(number), "sub")
    now[0] = 2 * rules.MOVED_EVERY
    known.proved("first", "sub")
    known.proved("one more", "sub")
    assert known.is_known("first")
    assert not known.is_known("0")
    for number in range(2 * rules.MOST_SUBSCRIPTIONS):
        known.proved("first", f"sub-{number}")
    assert not known.is_recent("first", "sub-0")
    assert known.is_recent("first", f"sub-{2 * rules.MOST_SUBSCRIPTIONS - 1}")
