"""Attacks of somebody who has no secret: lines 1 to 6 of the promise."""

import asyncio
import base64
import contextlib
import os
from collections.abc import Iterator
from typing import Final

from tests.isolation.row import Attack, Row
from tests.isolation.wire import STRANGER, Line, request, signature

PIPELINED: Final = 60
PIPELINES_AT_THE_END: Final = 100
BURST: Final = 15_000_000
TRAILERS: Final = 6
TRAILER: Final = b"a:\r\n" * 2_000_000
SIGNATURES: Final = 3_900
HELD: Final = 4_200
HOLDERS: Final = 12  # addresses
GUESSES_PER_S: Final = 25.0  # compared at most, over all addresses, and some for the machine
ADDRESSES: Final = tuple(f"127.0.{number}.7" for number in range(1, HOLDERS + 1))


# ---- 1 --------------------------------------------------------------------------------------------------------------


async def _pipelines(attack: Attack, count: int) -> None:
    """Write small requests without end over many connections, half of which read the answers."""
    get, post = request("/health/live"), request("/webhooks/mad.vehicle.update", b"{}")
    block = (get + post) * 400

    async def one(number: int) -> None:
        while True:
            async with attack.lines.line() as line:
                if number % 2:
                    line.forget_answers()
                left = BURST
                while left > 0:
                    await line.send(block)
                    left -= len(block)
                await asyncio.sleep(3600)
            await asyncio.sleep(0.1)

    await attack.together(*(one(number) for number in range(count)))


async def pipelining(attack: Attack) -> None:
    """Pipeline over 60 connections."""
    await _pipelines(attack, PIPELINED)


async def pipelining_at_the_end(attack: Attack) -> None:
    """Pipeline over 100 connections, also while the daemon has to end."""
    await _pipelines(attack, PIPELINES_AT_THE_END)


# ---- 2 --------------------------------------------------------------------------------------------------------------


async def trailers(attack: Attack) -> None:
    """Send megabytes of trailers behind a chunked body."""
    head = request("/webhooks/mad.vehicle.update", headers={"transfer-encoding": "chunked"}, method="POST")

    async def one() -> None:
        while True:
            async with attack.lines.line() as line:
                line.forget_answers()
                await line.send(head + b"2\r\n{}\r\n0\r\n" + TRAILER)
            await asyncio.sleep(0.05)

    await attack.together(*(one() for _ in range(TRAILERS)))


async def chunks(attack: Attack) -> None:
    """Send a body in chunks of one byte, whose marks are five times as large."""
    head = request("/webhooks/mad.vehicle.update", headers={"transfer-encoding": "chunked"}, method="POST")

    async def one() -> None:
        while True:
            async with attack.lines.line() as line:
                line.forget_answers()
                await line.send(head + b"1\r\n \r\n" * 1_000_000)
            await asyncio.sleep(0.05)

    await attack.together(*(one() for _ in range(TRAILERS)))


# ---- 3 --------------------------------------------------------------------------------------------------------------


async def signatures(attack: Attack) -> None:
    """Offer thousands of signatures where every subscription has to be tried."""
    proof = signature("mad", b"{}") | {"webhook-signature": " ".join(["v1,AAAA"] * SIGNATURES)}
    await _ask_again(attack, request("/webhooks", b"{}", proof), 4)


async def large_bodies(attack: Attack) -> None:
    """Send large bodies with a wrong signature where every subscription has to be tried."""
    body = b"[" + b" " * 1_000_000 + b"]"
    proof = signature("mad", b"another") | {"webhook-id": "msg_1"}
    await _ask_again(attack, request("/webhooks", body, proof), 4)


async def _ask_again(attack: Attack, raw: bytes, connections: int, source: str = STRANGER) -> None:
    def again() -> Iterator[bytes]:
        while attack.left > 0:
            yield raw

    await attack.together(*(attack.lines.post(again(), source) for _ in range(connections)))


# ---- 4 --------------------------------------------------------------------------------------------------------------


async def connections(attack: Attack) -> None:
    """Hold more connections than there are places, refreshed now and then."""

    async def one(number: int) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with attack.lines.line(ADDRESSES[number % HOLDERS]) as line:
                    while True:
                        async with asyncio.timeout(5):
                            await line.ask(request("/health/live"))
                        await asyncio.sleep(3)
            await asyncio.sleep(1)

    await attack.together(*(one(number) for number in range(HELD)))


async def unfinished_bodies(attack: Attack) -> None:
    """Hold over a thousand bodies that lack one byte each: the bytes in hand are all taken."""
    body = b" " * 63_000
    raw = request("/webhooks/canary.vehicle.update", body, signature("mad", body))[:-1]

    async def one(number: int) -> None:
        while True:
            async with attack.lines.line(ADDRESSES[number % HOLDERS]) as line:
                await line.send(raw)
                await line.answer()
            await asyncio.sleep(0.2)

    await attack.together(*(one(number) for number in range(1_065)))


# ---- 5, 6 -----------------------------------------------------------------------------------------------------------


async def admin_guesses(attack: Attack) -> None:
    """Guess the operator's token over several connections."""

    def guesses() -> Iterator[bytes]:
        while attack.left > 0:
            guess = base64.b64encode(b"admin:" + os.urandom(9)).decode()
            yield request("/api/health", headers={"authorization": f"Basic {guess}"})

    await attack.together(*(attack.lines.post(guesses()) for _ in range(4)))


def guesses_are_slow(attack: Attack) -> None:
    """Hold against the bound what was compared."""
    compared, seconds = attack.lines.statuses.get(401, 0), 10.0
    if compared > GUESSES_PER_S * seconds:
        attack.wrong.append(f"{compared} guesses were compared")
    if not attack.lines.statuses.get(429):
        attack.wrong.append("no guess was told to wait")


async def unknown_addresses(attack: Attack) -> None:
    """Ask for addresses that do not exist, as fast as they are answered."""
    await _ask_again(attack, request("/wp-login.php"), 20)


async def unread_answers(attack: Attack) -> None:
    """Ask for long answers and read none."""

    async def one() -> None:
        while True:
            async with attack.lines.line() as line:
                await _endless(line, request("/openapi.json") * 20)
            await asyncio.sleep(0.1)

    await attack.together(*(one() for _ in range(PIPELINED)))


async def _endless(line: Line, raw: bytes) -> None:
    while True:
        await line.send(raw)


ROWS: Final = (
    Row(name="1a", what=f"{PIPELINED} connections pipeline small requests", attack=pipelining),
    Row(
        name="1b",
        what=f"SIGTERM while {PIPELINES_AT_THE_END} connections pipeline",
        attack=pipelining_at_the_end,
        stops_under_attack=True,
    ),
    Row(name="1c", what="long answers asked for, none read", attack=unread_answers),
    Row(name="2a", what="megabytes of trailers", attack=trailers),
    Row(name="2b", what="chunks of one byte", attack=chunks),
    Row(name="3a", what=f"{SIGNATURES:,} signatures in a header, 100 subscriptions", attack=signatures),
    Row(name="3b", what="1 MB wrongly signed, 100 subscriptions", attack=large_bodies),
    Row(name="4a", what=f"{HELD:,} connections held", attack=connections),
    Row(name="4b", what="1,065 bodies that lack a byte", attack=unfinished_bodies),
    Row(name="5", what="guesses of the admin token", attack=admin_guesses, after=guesses_are_slow),
    Row(name="6", what="GET on unknown addresses", attack=unknown_addresses),
)
