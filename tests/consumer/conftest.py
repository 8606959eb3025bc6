"""A feed between a group member made of plain Python and a store in memory."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from bridge.consumer import feed as room
from bridge.consumer.feed import Feed, Parts
from bridge.metrics import Metrics
from bridge.receiver.gate import Gate
from bridge.source.kafka import BrokenClientError, Moved, Place, Record, Trouble, UnansweredError
from bridge.store.memory import MemoryStore
from bridge.store.port import Arrival, Receipt, StoreBroken, StoreUnavailable

TOPIC = "sub-1.vehicle.update"
PLACE: Place = (TOPIC, 0)
PATIENCE_S = 10.0


class Store(MemoryStore):
    """A store that a test can look into, break and hold up."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[Arrival] = []
        self.waiting = 0
        self.refused = 0
        self.trouble: StoreUnavailable | None = None
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def accept(self, arrivals: Sequence[Arrival]) -> Sequence[Receipt]:
        self.waiting += 1
        await self.go_on.wait()
        if self.trouble is not None:
            self.refused += 1
            raise self.trouble
        receipts = await super().accept(arrivals)
        self.taken += [arrival for arrival, receipt in zip(arrivals, receipts, strict=True) if not receipt.duplicate]
        return receipts

    def bodies(self) -> list[bytes]:
        return [arrival.body for arrival in self.taken]


@dataclass
class Topic:
    """A partition that outlives the members that read it."""

    records: list[Record] = field(default_factory=list)
    committed: int = 0

    def write(self, *values: bytes | None) -> None:
        for value in values:
            self.records.append(Record(TOPIC, 0, len(self.records), 1_700_000_000_000, value))


class Member:
    """Reads a partition as a group member does."""

    def __init__(self, topic: Topic) -> None:
        self.topic = topic
        self.owned: frozenset[Place] = frozenset({PLACE})
        self.missing: frozenset[str] = frozenset()
        self.suspected: Trouble | None = None
        self.reason = ""
        self.ever: bool | None = None
        self.moved: list[Moved] = []
        self.gone: frozenset[str] = frozenset()
        self.inspected = 0
        self.away = False
        self.broken = False
        self.deaf = threading.Event()  # while it is clear, nobody hears the goodbye
        self.deaf.set()
        self.paused = False
        self.polls = 0
        self.asked = 0
        self.closed = False
        self._next = topic.committed

    def poll(self, most: int, wait_s: float, stored: Sequence[Record] = ()) -> list[Record]:  # noqa: ARG002 - never waits
        self.polls += 1
        self._keep(stored)
        if self.broken:
            raise BrokenClientError("planted")
        if self.paused or PLACE not in self.owned:
            return []
        found = self.topic.records[self._next : self._next + most]
        self._next += len(found)
        return found

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def ask(self) -> str:
        self.asked += 1
        if self.away:
            raise UnansweredError("nobody there")
        return "cluster-1"

    def lag(self) -> dict[str, int]:
        return {TOPIC: len(self.topic.records) - self.topic.committed}

    @property
    def confirmed(self) -> bool:
        return self.topic.committed > 0

    def inspect(self) -> None:
        self.inspected += 1

    def close(self, stored: Sequence[Record] = ()) -> None:
        self.deaf.wait(PATIENCE_S)
        self._keep(stored)
        self.closed = True

    def _keep(self, stored: Sequence[Record]) -> None:
        for record in stored:
            self.topic.committed = record.offset + 1


@dataclass
class House:
    """The parts that a test turns."""

    store: Store = field(default_factory=Store)
    metrics: Metrics = field(default_factory=Metrics)
    gate: Gate = field(default_factory=lambda: Gate(max_size=10**9, starting=False))
    topic: Topic = field(default_factory=Topic)
    members: list[Member] = field(default_factory=list)
    wakes: list[None] = field(default_factory=list)
    prepare: Callable[[Member], None] = lambda _: None
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    running: asyncio.Task[None] | None = None

    @property
    def member(self) -> Member:
        return self.members[-1]

    def feed(self) -> Feed:
        def connect(_properties: object, _wanted: object) -> Member:
            self.members.append(Member(self.topic))
            self.prepare(self.member)
            return self.member

        parts = Parts(
            store=self.store,
            metrics=self.metrics,
            gate=self.gate,
            now=lambda: datetime.now(UTC),
            accepted=lambda: self.wakes.append(None),
            max_body=1024,
        )
        return Feed("sub-1", parts, {"sasl.password": "old"}, [TOPIC], connect)

    def count(self, name: str) -> float:
        return self.metrics.registry.get_sample_value(name) or 0.0


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - any condition, not an event
            await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def running(house: House) -> AsyncIterator[Feed]:
    """Run a feed, and end it as the daemon does."""
    feed = house.feed()
    house.running = asyncio.create_task(feed.run(house.stop))
    try:
        yield feed
        house.stop.set()
        async with asyncio.timeout(PATIENCE_S):
            await house.running
    finally:
        house.running.cancel()
        with contextlib.suppress(asyncio.CancelledError, StoreBroken):
            await house.running


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for nothing longer than it takes to notice."""
    for name in ("LOOK_S", "LOOK_IN_TROUBLE_S", "RETRY_S", "REOPEN_S"):
        monkeypatch.setattr(room, name, 0.01)


@pytest.fixture
async def house() -> House:
    """Return all parts, nothing running."""
    return House()


@pytest.fixture
def letters() -> Iterator[bytes]:
    """Return values of which no two are the same."""
    return (b'{"id": "%d"}' % number for number in range(10**6))
