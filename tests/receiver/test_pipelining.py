"""Many requests at once on one connection: parsed as far ahead as is good for all, and answered in order."""

import asyncio
import logging

import pytest

from bridge.receiver.slices import AHEAD, AHEAD_BYTES, AHEAD_IN_ALL, FIRST_SLICE, SMALL_SLICE
from tests.receiver.conftest import Served, Wire, request, served, settings, until

pytestmark = pytest.mark.anyio

ASK = b"GET /health/live HTTP/1.1\r\nhost: a\r\n\r\n"
ODD = b"GET /x HTTP/1.1\r\n\r\n"


async def flood(bridge: Served, data: bytes) -> tuple[Wire, "asyncio.Task[None]"]:
    """Send all of it on a connection of its own, as fast as it is read."""
    wire = await bridge.connect()
    sending = asyncio.create_task(wire.send(data))
    await until(lambda: bridge.house.store.waiting)
    return wire, sending


async def test_few_requests_of_a_connection_are_parsed_ahead_and_reading_pauses() -> None:
    """60 connections that wrote 15 MB each took 1 GB, and others waited for half a minute."""
    async with served() as bridge:
        bridge.house.store.go_on.clear()
        wire, sending = await flood(bridge, request(b'{"n": 1}') + ASK * 50_000)
        connection = bridge.connection()
        await until(lambda: connection.flow.held)
        assert AHEAD <= len(connection.pipeline) <= AHEAD + FIRST_SLICE // len(ASK) + 1
        assert len(connection.pipeline) == bridge.server.server_state.ahead
        bridge.house.store.go_on.set()
        assert 202 == (await wire.answer())[0]
        for _ in range(2_000):
            assert 200 == (await wire.answer())[0]
            assert bridge.server.server_state.ahead <= AHEAD + FIRST_SLICE // len(ASK) + 1
        sending.cancel()
        wire.close()
        await until(lambda: not bridge.server.server_state.connections)
        assert 0 == bridge.server.server_state.ahead
        assert {"parsed_ahead"} == set(bridge.house.limits.of_last_hour())


async def test_bodies_that_wait_are_bounded_too() -> None:
    async with served() as bridge:
        bridge.house.store.go_on.clear()
        body = b'{"a": "' + b"x" * 30_000 + b'"}'
        wire, sending = await flood(bridge, request(body) * 40)
        connection = bridge.connection()
        await until(lambda: connection.flow.held)
        assert sum(len(cycle.body) for cycle, _ in connection.pipeline) <= AHEAD_BYTES + len(body)
        bridge.house.store.go_on.set()
        assert [202] * 40 == [(await wire.answer())[0] for _ in range(40)]
        await sending
        assert [body] * 40 == bridge.house.store.bodies()


async def test_where_many_wait_one_request_of_each_connection_is_parsed() -> None:
    async with served() as bridge:
        bridge.house.store.go_on.clear()
        state = bridge.server.server_state
        floods = [await flood(bridge, request() + ODD * 5_000) for _ in range(8)]
        await until(lambda: all(connection.flow.held for connection in state.connections))  # type: ignore[union-attr]
        state.ahead += AHEAD_IN_ALL
        wire, sending = await flood(bridge, request() + ODD * 5_000)
        await until(lambda: len(state.connections) == 9)
        await until(lambda: all(connection.flow.held for connection in state.connections))  # type: ignore[union-attr]
        least = min(len(connection.pipeline) for connection in state.connections)  # type: ignore[union-attr]
        assert 1 <= least <= SMALL_SLICE // len(ODD) + 1
        state.ahead -= AHEAD_IN_ALL
        bridge.house.store.go_on.set()
        assert [202, 404, 404] == [(await wire.answer())[0] for _ in range(3)]
        for each in [sending, *(one for _, one in floods)]:
            each.cancel()


@pytest.mark.parametrize("size", [100, 1_000, 30_000, 200_000])
async def test_requests_of_any_size_behind_each_other_are_answered_in_order(size: int) -> None:
    async with served() as bridge:
        wire = await bridge.connect()
        bodies = [b'{"n": %d, "x": "%b"}' % (number, b"y" * size) for number in range(20)]
        sending = asyncio.create_task(wire.send(b"".join(request(body) for body in bodies)))
        assert [202] * 20 == [(await wire.answer())[0] for _ in range(20)]
        await sending
        assert bodies == bridge.house.store.bodies()


async def test_half_a_request_behind_many_is_refused_in_its_turn() -> None:
    async with served() as bridge:
        bridge.house.store.go_on.clear()
        wire, sending = await flood(bridge, request() + ASK * 500 + b"no http\r\n\r\n")
        await until(lambda: bridge.connection().flow.held)
        bridge.house.store.go_on.set()
        assert [202] + [200] * 500 == [(await wire.answer())[0] for _ in range(501)]
        assert b"" == await wire.ended()
        await sending
        assert [400] == bridge.refused


async def test_what_waits_behind_a_request_does_not_hold_up_the_end(caplog: pytest.LogCaptureFixture) -> None:
    """A stop with 100 such connections took 31 s, and each of them logged a traceback."""
    with caplog.at_level(logging.ERROR):
        async with served(settings(drain_timeout="3s")) as bridge:
            bridge.house.store.go_on.clear()
            floods = [await flood(bridge, request() + ASK * 20_000) for _ in range(10)]
            await until(lambda: bridge.house.store.waiting == 10)
            bridge.house.gate.shut = True
            bridge.server.should_exit = True
            await until(lambda: not bridge.server.server_state.ahead)
            bridge.house.store.go_on.set()
            for wire, sending in floods:
                assert (await wire.ended())[:12] in (b"HTTP/1.1 202", b""), "who goes on writing may be reset"
                sending.cancel()
        assert 10 == len(bridge.house.store.taken)
    assert [] == [record.getMessage() for record in caplog.records]
