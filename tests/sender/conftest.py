"""The sender between a real store and MOOST's look-alike behind a real socket."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from bridge.config import Moost as MoostSettings
from bridge.core.effects import Call, CreateBuilding, DeviceEntry, Event, PutDevices, SendEvents
from bridge.core.vocabulary import DeviceType, EventType
from bridge.metrics import Metrics
from bridge.sandbox.moost import CLIENT_ID, CLIENT_SECRET, CUSTOMER_ID, Moost
from bridge.sandbox.server import serving
from bridge.sender import Sender
from bridge.sink.client import MoostClient
from bridge.store.desk import DeadFilter, DeadLetter
from bridge.store.memory import MemoryStore
from bridge.store.port import Outgoing, Work

PATIENCE = 15.0  # seconds until a condition that does not come true fails a test


class Time:
    """The wall clock, moved by hand where a test wants hours to pass."""

    def __init__(self) -> None:
        self.offset = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.offset


class Sandbox:
    """The look-alike and what it received."""

    def __init__(self, http: aiohttp.ClientSession, base_url: str) -> None:
        self._http = http
        self.base_url = base_url

    async def faults(self, *faults: dict[str, Any]) -> None:
        async with self._http.put(f"{self.base_url}/_sandbox/faults", json=list(faults)) as answer:
            assert answer.status == 200, await answer.text()

    async def fired(self) -> list[int]:
        async with self._http.get(f"{self.base_url}/_sandbox/faults") as answer:
            return [fault["fired"] for fault in await answer.json()]

    async def received(self) -> dict[str, Any]:
        async with self._http.get(f"{self.base_url}/_sandbox/received") as answer:
            return dict(await answer.json())

    async def values(self, building: str = "home-1", lane: str | None = None) -> list[float]:
        events = (await self.received())["events"]
        return [
            event["value"]
            for event in events
            if event["customerBuildingId"] == building and lane in (None, event["lane"])
        ]

    async def calls(self, path: str = "") -> list[dict[str, Any]]:
        return [call for call in (await self.received())["calls"] if path in call["path"]]


class Desk:
    """One sender, its store, and what a test does with them."""

    def __init__(self, sandbox: Sandbox, **settings: object) -> None:
        self.sandbox = sandbox
        self.store: Any = MemoryStore()
        self.time = Time()
        self.metrics = Metrics()
        self.settings = MoostSettings.model_validate(
            {
                "base_url": sandbox.base_url,
                "client_id": CLIENT_ID,
                "client_secret": CLIENT_SECRET,
                "customer_id": CUSTOMER_ID,
                "timeout": "2s",
                **settings,
            }
        )
        self.client: Any = None
        self.sender: Sender
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def queue(self, *calls: Call, subscription: str = "") -> None:
        outgoing = [Outgoing(call=call, subscription=subscription) for call in calls]
        await self.store.commit(Work(now=self.time.now(), calls=outgoing))
        if self._task is not None:
            self.sender.nudge.set()

    def start(self, **options: object) -> None:
        given: dict[str, Any] = {"desk": self.store, **options}
        self._stop = asyncio.Event()
        self.client = self.client or MoostClient(self.settings)
        self.sender = Sender(
            store=self.store,
            client=self.client,
            moost=self.settings,
            metrics=self.metrics,
            now=self.time.now,
            jitter=random.Random(1).random,  # noqa: S311
            **given,
        )
        self._task = asyncio.create_task(self.sender.run(self._stop))

    async def stop(self) -> None:
        if self._task is not None:
            self._stop.set()
            task, self._task = self._task, None
            await task

    async def kill(self) -> None:
        """End the room without its drain, as a crash would."""
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._task = None
        await self.store.open()  # what a restart does

    async def until(self, true: Callable[[], bool | Awaitable[bool]], seconds: float = PATIENCE) -> None:
        async with asyncio.timeout(seconds):
            while True:
                if self._task is not None and self._task.done():
                    self._task.result()
                found = true()
                if found if isinstance(found, bool) else await found:
                    return
                await asyncio.sleep(0.005)

    async def done(self, seconds: float = PATIENCE) -> None:
        """Wait until nothing is owed."""

        async def nothing_owed() -> bool:
            return bool((await self.store.census()).calls_pending == 0)

        await self.until(nothing_owed, seconds)

    async def dead(self) -> list[DeadLetter]:
        return list(await self.store.dead_letters(DeadFilter()))

    async def home(self, *names: str) -> None:
        """Let MOOST know buildings and their lists."""
        for name in names or ("home-1",):
            await self.queue(*sheet(name))
        await self.done()

    def sheet(self, building: str) -> tuple[Call, Call]:
        return sheet(building)

    def events(
        self, *values: float, building: str = "home-1", age: timedelta = timedelta(), replay: bool = False
    ) -> SendEvents:
        at = self.time.now() - age
        return SendEvents(
            building=building, events=tuple(an_event(value, building, at) for value in values), replay=replay
        )


def an_event(value: float, building: str, at: datetime) -> Event:
    return Event(
        device=f"gateway:{building}",
        name="Household",
        source=DeviceType.GATEWAY,
        type=EventType.ENERGY_CONSUMPTION,
        value=value,
        at=at,
    )


def sheet(building: str) -> tuple[Call, Call]:
    gateway = DeviceEntry(id=f"gateway:{building}", type=DeviceType.GATEWAY, name="Household")
    return (
        CreateBuilding(building=building, attributes={"countryCode": "DE", "timeZoneId": "Europe/Berlin"}),
        PutDevices(building=building, devices=(gateway,)),
    )


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with serving(Moost()) as base_url, aiohttp.ClientSession() as http:
        yield Sandbox(http, base_url)


@pytest.fixture
async def desk(sandbox: Sandbox) -> AsyncIterator[Callable[..., Desk]]:
    desks: list[Desk] = []

    def make(**settings: object) -> Desk:
        desks.append(Desk(sandbox, **settings))
        return desks[-1]

    yield make
    for each in desks:
        await each.stop()
        if each.client is not None:
            await each.client.close()
