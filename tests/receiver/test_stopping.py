"""The end of a server: what is in hand is answered, nothing new is taken, nobody holds it up."""

import asyncio
import signal
from datetime import timedelta

import pytest

from bridge.receiver.state import Limits
from tests.receiver.conftest import PATIENCE, request, served, until

pytestmark = pytest.mark.anyio


async def test_a_request_in_hand_is_answered_and_the_listener_is_closed() -> None:
    async with served() as bridge:
        bridge.house.store.go_on.clear()
        wire, idle = await bridge.connect(), await bridge.connect()
        await wire.send(request(b'{"id": "in hand"}'))
        await until(lambda: bridge.house.store.waiting)
        bridge.server.should_exit = True
        assert b"" == await idle.ended()
        with pytest.raises(ConnectionRefusedError):
            await bridge.connect()
        bridge.house.store.go_on.set()
        status, headers, _ = await wire.answer()
        assert (202, "close") == (status, headers["connection"])
        assert [b'{"id": "in hand"}'] == bridge.house.store.bodies()


async def test_after_the_door_is_shut_an_open_connection_hears_503() -> None:
    async with served() as bridge:
        wire = await bridge.connect()
        await wire.send(request())
        assert 202 == (await wire.answer())[0]
        bridge.house.gate.shut = True
        await wire.send(request())
        status, headers, content = await wire.answer()
        assert (503, {"error": "draining"}) == (status, content)
        assert int(headers["retry-after"]) >= 1


async def test_half_sent_requests_do_not_hold_up_the_end() -> None:
    limits = Limits(
        header_time=timedelta(seconds=0.3), body_time=timedelta(seconds=0.3), linger_time=timedelta(seconds=0.3)
    )
    async with asyncio.timeout(PATIENCE), served(limits=limits) as bridge:
        body, header = await bridge.connect(), await bridge.connect()
        await body.send(request(b"{", length=100))
        await header.send(b"POST / HTTP/1.1\r\n")
        await until(lambda: len(bridge.server.server_state.connections) == 2)
        bridge.server.should_exit = True
        await until(lambda: not bridge.server.server_state.connections)
    assert [] == bridge.house.store.taken


async def test_the_server_leaves_signals_to_the_owner_of_the_process() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    async with served():
        assert before == (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))
