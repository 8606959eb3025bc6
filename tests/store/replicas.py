"""Several keepers on one database, and what a test does to one of them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Final

from bridge.store.port import Arrival, Pending
from bridge.store.postgres import PostgresStore
from bridge.store.postgres.connection import leave
from bridge.store.postgres.replicas import BUCKETS
from tests.store.values import arrival

SOON: Final = timedelta(milliseconds=20)
LONG: Final = timedelta(minutes=10)
PATIENCE_S: Final = 30.0

Opened = Callable[..., Awaitable[PostgresStore]]
"""Opens one more keeper on a test's database."""


def named(arrival_: Arrival) -> tuple[str | None, str | None]:
    """Read a test's body: user, device, number; "-" names nobody."""
    user, device, _ = arrival_.body.decode().split()
    return (None if user == "-" else user), (None if device == "-" else device)


def of(user: str, number: int, device: str = "-") -> Arrival:
    return arrival(f"{user} {device} {number}".encode())


def bodies(messages: Sequence[Pending]) -> list[str]:
    return [message.body.decode() for message in messages]


async def until(condition: Callable[[], Awaitable[object]], what: str) -> None:
    """Wait for a condition, asked again and again."""
    ends = asyncio.get_running_loop().time() + PATIENCE_S
    while not await condition():
        assert asyncio.get_running_loop().time() < ends, f"not within {PATIENCE_S} s: {what}"
        await asyncio.sleep(0.01)


async def shared_out(*keepers: PostgresStore) -> list[set[int]]:
    """Let replicas claim until each has its share; return their buckets."""
    fair = -(-BUCKETS // len(keepers))

    async def fairly() -> bool:
        for keeper in keepers:
            await keeper.claim(1)
        sizes = [len(keeper._share.buckets) for keeper in keepers]
        return sum(sizes) == BUCKETS and max(sizes) <= fair

    await until(fairly, "fair shares")
    return [set(keeper._share.buckets) for keeper in keepers]


def stop_heart(keeper: PostgresStore) -> None:
    """Let a replica live on without a sign of life, as one whose process was stopped."""
    assert keeper._pulse
    for task in keeper._pulse:
        task.cancel()


async def dead(keeper: PostgresStore) -> None:
    """End a replica as kill -9 does: its connections close, nothing is given back."""
    stop_heart(keeper)
    for line in keeper._lines.values():
        await line.close()


async def forget_soon(keeper: PostgresStore) -> None:
    """Let the lease of a replica that has ended run out at once."""
    con = await keeper._servers.connect(statement_s=None)
    await con.execute("UPDATE replica SET until = statement_timestamp() - interval '1 second'")
    await leave(con)
