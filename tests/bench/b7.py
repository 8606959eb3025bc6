"""B7, the shared store: the bridge's CPU time per message on PostgreSQL against that on SQLite, and two replicas.

The load of B2, default settings, sender off; what is compared takes turns in one run. The database server runs on the
load's core: its own time is not the bridge's, and is told beside it.

SQLite against PostgreSQL: open loop, at a rate that both follow; so is the third kind, SQLite fed by a Kafka broker on
the load's core. Two replicas against one: all connections always busy, so that whoever has the core has as much in hand
as it takes; two that are half idle would write half as much in each of their rounds. They share the core of the one.
Throughput is what it says: messages over the time from the first until all are settled. CPU time per message, told
beside it, is no measure of it: one process leaves a part of its core idle while it waits for the server, two fill that,
and one falls behind with working off what it accepts, which makes its batches full and cheap.
"""

import asyncio
import contextlib
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tests.bench.homes import Homes, stamp
from tests.bench.load import Client, Request
from tests.bench.process import BrokenError
from tests.bench.report import Result, void
from tests.bench.setting import Setting
from tests.bench.subject import Bridge, bridge
from tests.kafka.broker import missing
from tests.kafka.broker import running as broker_of
from tests.kafka.stage import PARTITIONS
from tests.kafka.tokens import issuing
from tests.postgres import MISSING, Server, binaries
from tests.postgres import running as served

ROOMS: Final = "receiver,worker,clock"
CONNECTIONS: Final = 64  # of the open loop
BUSY: Final = 128  # connections that are always busy, over all replicas
RATE: Final = 1_000.0  # msg/s; SQLite against PostgreSQL
HOLD_S: Final = 15.0
PATIENCE_S: Final = 120.0
REPEATS: Final = 5
GOAL: Final = 1.7
GOAL_TWO: Final = 0.95
_TICK_S: Final = 0.005


Load = Callable[[Setting, Sequence[Client], Homes], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a message took."""

    bridge_us: float
    rate: float = 0.0  # messages a second, from the first until all are settled
    server_us: float = 0.0
    log_bytes: float = 0.0  # of the server's write-ahead log


async def run(setting: Setting) -> list[Result]:
    """Return the results of B7."""
    if binaries() is None:
        return [void("B7", MISSING)]
    records = [] if missing() else [await _kafka(setting) for _ in range(setting.repeats(REPEATS))]
    costs: dict[str, list[Cost]] = {"sqlite": [], "postgres": [], "single": [], "two": []}
    with served() as server:
        for _ in range(setting.repeats(REPEATS)):
            costs["sqlite"].append(await _cost(setting, [""], None, CONNECTIONS, _offer))
            costs["postgres"].append(await _cost(setting, [server.fresh()], server, CONNECTIONS, _offer))
            costs["single"].append(await _cost(setting, [server.fresh()], server, BUSY, _flood))
            costs["two"].append(await _cost(setting, [server.fresh()] * 2, server, BUSY, _flood))
    sqlite, one, single, two = (statistics.median(cost.bridge_us for cost in found) for found in costs.values())
    of_one, of_two = (statistics.median(cost.rate for cost in costs[name]) for name in ("single", "two"))
    server_us = statistics.median(cost.server_us for cost in costs["postgres"])
    log_kb = statistics.median(cost.log_bytes for cost in costs["postgres"]) / 1_000
    return [
        Result(
            name="B7 PostgreSQL store",
            goal=f"≤ {GOAL} × SQLite's CPU",
            measured=f"{one / sqlite:.2f} × SQLite's",
            ratio=GOAL * sqlite / one,
            detail=f"{one:.0f} µs against {sqlite:.0f} µs per message at {RATE:,.0f} msg/s; the server "
            f"{server_us:.0f} µs and {log_kb:.1f} KB of log",
        ),
        Result(
            name="B7 two replicas",
            goal=f"≥ {GOAL_TWO} × the throughput of one",
            measured=f"{of_two / of_one:.2f} × one",
            ratio=of_two / of_one / GOAL_TWO,
            detail=f"{of_two:,.0f} against {of_one:,.0f} msg/s accepted and settled, on the same core, as many as it "
            f"takes; {two:.0f} µs against {single:.0f} µs CPU per message",
        ),
        _told(records, sqlite),
    ]


def _told(records: Sequence[float], sqlite: float) -> Result:
    """Return what a message costs that comes by Kafka; there is no goal for it."""
    if not records:
        return void("B7 Kafka source", missing())
    cost = statistics.median(records)
    detail = f"{cost:.0f} µs against {sqlite:.0f} µs per message by webhook, both on SQLite at {RATE:,.0f} msg/s"
    return Result(
        name="B7 Kafka source", goal="told", measured=f"{cost / sqlite:.2f} × webhooks", ratio=1.0, detail=detail
    )


async def _cost(setting: Setting, urls: Sequence[str], server: Server | None, connections: int, load: Load) -> Cost:
    """Serve with one replica per address, send a load through all of them; raises BrokenError."""
    homes = setting.homes()
    with contextlib.ExitStack() as stack:
        named = [{"BRIDGE_STORE__URL": url} if url else None for url in urls]
        subjects = [
            stack.enter_context(bridge(setting.folder("b7"), setting.cores, ROOMS, environ=one)) for one in named
        ]
        first, firsts = await Client.connected(subjects[0].port, CONNECTIONS), homes.firsts()
        await first.flood(lambda: next(firsts, None))
        first.close()
        before = await _settled(subjects)
        clients = [await Client.connected(subject.port, connections // len(urls)) for subject in subjects]
        watches, began = [subject.process.watch() for subject in subjects], time.perf_counter()
        server_before, log_before = (0.0, 0) if server is None else (server.cpu_s(), server.log_bytes())
        await load(setting, clients, homes)
        after = await _settled(subjects)
        took = time.perf_counter() - began
        sent = sum(client.tally.sent for client in clients)
        cost = Cost(
            bridge_us=sum(watch.stop().us_per(sent) for watch in watches),
            rate=sent / took,
            server_us=0.0 if server is None else (server.cpu_s() - server_before) / sent * 1e6,
            log_bytes=0.0 if server is None else (server.log_bytes() - log_before) / sent,
        )
        for client in clients:
            client.close()
        if after - before != sent or not all(client.tally.balanced for client in clients):
            msg = f"{sent} were sent, {after - before} settled; {[client.tally for client in clients]}"
            raise BrokenError(msg)
    print(f"{len(urls)} on {'postgres' if server else 'sqlite'}: {cost}", file=sys.stderr, flush=True)
    return cost


async def _offer(setting: Setting, clients: Sequence[Client], homes: Homes) -> None:
    """Send so many a second."""
    seconds = setting.seconds(HOLD_S)
    await asyncio.gather(*(client.offer(RATE / len(clients), seconds, homes.next) for client in clients))


async def _flood(setting: Setting, clients: Sequence[Client], homes: Homes) -> None:
    """Send as fast as it is taken."""
    ends = time.perf_counter() + setting.seconds(HOLD_S)

    def next_one() -> Request | None:
        return homes.next() if time.perf_counter() < ends else None

    await asyncio.gather(*(client.flood(next_one) for client in clients))


async def _kafka(setting: Setting) -> float:
    """Return the bridge's CPU time per message that it reads from Kafka [µs]; raises BrokenError."""
    homes, folder = setting.homes(), setting.folder("b7-kafka")
    with issuing() as issuer, broker_of(folder, issuer) as broker:
        broker.create(sorted({device.topic for device in homes.devices}), PARTITIONS)
        producer = broker.producer()
        for device in homes.devices:
            producer.produce(device.topic, device.body(stamp()))
            producer.poll(0)
        more = f'[kafka]\nbootstrap_servers = "{broker.address}"\nsecurity = "plaintext"\n'
        with bridge(folder, setting.cores, ROOMS, more=more) as subject:
            await _heard(subject, len(homes.devices))
            watch, began = subject.process.watch(), time.perf_counter()
            sent, count = 0, round(RATE * setting.seconds(HOLD_S))
            while sent < count:
                while sent < min(count, (time.perf_counter() - began) * RATE):
                    producer.produce(*homes.next_record())
                    producer.poll(0)
                    sent += 1
                await asyncio.sleep(_TICK_S)
            producer.flush()
            await _heard(subject, len(homes.devices) + count)
            cost = watch.stop().us_per(count)
    print(f"by Kafka: {cost:.0f} µs", file=sys.stderr, flush=True)
    return cost


async def _heard(subject: Bridge, count: int) -> None:
    """Wait until so many messages are settled, and no more."""
    ends = time.perf_counter() + PATIENCE_S
    while (settled := (await subject.health())["ledger"]["settled"]) < count:
        if time.perf_counter() > ends:
            msg = f"{settled} of {count} records were settled"
            raise BrokenError(msg)
        await asyncio.sleep(0.1)
    if settled != count:
        msg = f"{settled} were settled, {count} written"
        raise BrokenError(msg)


async def _settled(subjects: Sequence[Bridge]) -> int:
    """Wait until nothing waits; return how many messages have been settled, by whichever replica."""
    health = [await subject.idle() for subject in subjects][-1]
    return int(health["ledger"]["settled"])
