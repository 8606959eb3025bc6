"""Slow and hostile clients beside a normal sender: they are cut off, and it is not delayed.

The sender's times are held against its own, in the same run, without the crowd. The machine may be busy with other
things, so the bound is wide; a door that waits for a slow client exceeds it by seconds, or never answers.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.life.stage import SUBSCRIPTION, Bridge, bridged, dump, signed, vehicle

CROWD: Final = 500
READERS: Final = 150  # who ask for long answers: the asking itself is work, and not what is tried here
POSTS: Final = 120
SPACE_S: Final = 0.015
TIMES: Final = 5.0  # of the quiet p99 …
SLACK_S: Final = 0.3  # … and this much, for a noisy machine
LONGEST_S: Final = 20.0  # until every hostile connection is cut: a body has 10 s

UPDATE: Final = f"/webhooks/{SUBSCRIPTION}.vehicle.update"
Attack = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
ASK: Final = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    """Return a daemon beside a MOOST that is not there."""
    with bridged(tmp_path_factory.mktemp("hostile"), "http://127.0.0.1:9") as started:
        started.start()
        yield started


# ---- the hostile ----------------------------------------------------------------------------------------------------


async def endless_header(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(f"POST {UPDATE} HTTP/1.1\r\nhost: x\r\nx-long: ".encode())
    while True:
        writer.write(b"x" * 1_000)
        await writer.drain()
        await asyncio.sleep(0.001)


async def half_a_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    body = dump(vehicle("user-1", "car-1", 1))
    head = "".join(f"{name}: {value}\r\n" for name, value in {**signed(body), "content-length": str(len(body))}.items())
    writer.write(f"POST {UPDATE} HTTP/1.1\r\nhost: x\r\n{head}\r\n".encode() + body[:100])
    await reader.read()


async def a_hundred_gigabytes(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(f"POST {UPDATE} HTTP/1.1\r\nhost: x\r\ncontent-length: {100 * 2**30}\r\n\r\n".encode())
    while True:
        writer.write(b"x" * 10_000)
        await writer.drain()
        await asyncio.sleep(0.01)


async def a_byte_a_second(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for byte in f"POST {UPDATE} HTTP/1.1\r\nhost: x\r\nx-slow: ".encode() + b"x" * 1_000:
        writer.write(bytes([byte]))
        await writer.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                if await reader.read(1_000) == b"":
                    return


async def slow_reader(bridge: Bridge) -> None:
    """Ask for long answers and read them byte by byte, until the connection is cut off."""
    place, loop = urlsplit(bridge.url), asyncio.get_running_loop()
    with socket.socket() as sock, contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        sock.settimeout(0)
        await loop.sock_connect(sock, (place.hostname, place.port))
        while True:
            with contextlib.suppress(BlockingIOError):
                sock.send(ASK * 4)
            await loop.sock_recv(sock, 1)
            await asyncio.sleep(0.5)


async def hostile(bridge: Bridge, attack: Attack) -> None:
    """Attack over one connection until it is cut off."""
    place = urlsplit(bridge.url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    try:
        with contextlib.suppress(OSError):
            await attack(reader, writer)
    finally:
        writer.transport.abort()


# ---- the normal sender ----------------------------------------------------------------------------------------------


async def normal(bridge: Bridge) -> float:
    """Post over two connections at a steady pace; return the p99 of the answer times [s]."""
    times: list[float] = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=2)) as http:
        for number in range(POSTS):
            body = dump(vehicle("user-1", "car-1", number % 100))
            began = time.perf_counter()
            async with http.post(bridge.url + UPDATE, data=body, headers=signed(body)) as answer:
                await answer.read()
            times.append(time.perf_counter() - began)
            assert 202 == answer.status
            await asyncio.sleep(SPACE_S)
    return sorted(times)[int(len(times) * 0.99)]


async def beside(bridge: Bridge, crowd: Sequence[Coroutine[None, None, None]]) -> tuple[float, float, int]:
    """Return the quiet p99, the p99 beside a crowd, and how many of the crowd were cut off."""
    quiet = await normal(bridge)
    tasks = [asyncio.create_task(each) for each in crowd]
    await asyncio.sleep(0.5)
    loud = await normal(bridge)
    done, waiting = await asyncio.wait(tasks, timeout=LONGEST_S)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    return quiet, loud, len(done)


def stood(bridge: Bridge, crowd: Sequence[Coroutine[None, None, None]]) -> None:
    """Check that a normal sender is as quick as without the crowd, and that the crowd is cut off."""
    quiet, loud, cut_off = asyncio.run(beside(bridge, crowd))
    assert len(crowd) == cut_off, "each of them is cut off in the end"
    assert loud <= TIMES * quiet + SLACK_S, f"p99 {loud * 1000:.0f} ms, quiet {quiet * 1000:.0f} ms"
    assert bridge.ready()


@pytest.mark.parametrize("attack", [endless_header, half_a_body, a_hundred_gigabytes, a_byte_a_second])
def test_a_hostile_crowd_does_not_delay_a_normal_sender(attack: Attack, bridge: Bridge) -> None:
    stood(bridge, [hostile(bridge, attack) for _ in range(CROWD)])


def test_a_crowd_that_hardly_reads_its_answers_does_not_delay_a_normal_sender(bridge: Bridge) -> None:
    stood(bridge, [slow_reader(bridge) for _ in range(READERS)])


def test_what_was_cut_off_is_counted_and_nothing_of_it_was_stored(bridge: Bridge) -> None:
    refused = dict(
        line.removeprefix("bridge_requests_refused_total").split()
        for line in bridge.metrics().splitlines()
        if line.startswith("bridge_requests_refused_total{")
    )
    assert {'{status="408"}', '{status="413"}', '{status="431"}'} <= set(refused)
    assert {} == bridge.health()["dead_letters"]
