"""A store that the real worker and the real clock room fill; only time is the test's own."""

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from bridge.clock import COPIES, Clock
from bridge.core.effects import SendEvents
from bridge.core.rules import Rules
from bridge.metrics import Metrics
from bridge.replay import Difference, Span, Tally, replay
from bridge.store.desk import Desk
from bridge.store.port import Arrival, Return, Settlement, Store
from bridge.worker import Worker

START: Final = datetime(2026, 6, 15, 8, 0, tzinfo=UTC)
MINUTE: Final = timedelta(minutes=1)
DAY: Final = timedelta(days=1)
ALWAYS: Final = Span(since=START - 30 * DAY, until=START + 30 * DAY)


class Keeper(Store, Desk, Protocol):
    """What every keeper is."""


class Past:
    """A store, and the time in which it is filled."""

    def __init__(
        self, store: Keeper, rules: Rules | None = None, copies: timedelta = COPIES, beat: timedelta = MINUTE / 2
    ) -> None:
        self.store = store
        self.copies = copies
        self.beat = beat
        self.rules = rules or Rules()
        self.now = START
        self._stopped = asyncio.Event()
        self._stopped.set()
        self.worker = Worker(store, self.rules, Metrics(), queued=_nobody, now=lambda: self.now)
        self.clock = self._clock()

    def _clock(self) -> Clock:
        return Clock(
            self.store, self.rules, retention=DAY, max_size=1 << 40, now=lambda: self.now, queued=_nobody,
            looked=lambda _: None, copies=self.copies,
        )  # fmt: skip

    # ---- what happens ----

    async def hear(self, topic: str, body: object, after: timedelta = timedelta()) -> int:
        """Let time pass and accept a message; it is not worked off yet."""
        self.now += after
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        arrival = Arrival(subscription="sub-1", topic=f"sub-1.{topic}", body=raw, received=self.now)
        return (await self.store.accept([arrival]))[0].id

    async def work(self) -> None:
        """Work off what waits."""
        while await self.worker.step():
            pass

    async def turn(self) -> None:
        """Let the clock room take its turn: it looks, ticks who is due once, and stops."""
        await self.clock.turn(self._stopped)

    async def live(self, minutes: float) -> None:
        """Let time pass, with the worker and the clock at work at every beat."""
        end = self.now + timedelta(minutes=minutes)
        while self.now < end:
            self.now += self.beat
            await self.work()
            await self.turn()

    def restart(self) -> None:
        """Begin a new clock room, as after a crash."""
        self.clock = self._clock()

    async def deliver(self) -> None:
        """Let MOOST take everything."""
        while lanes := await self.store.lease(self.now, 100, 100, timedelta(seconds=30)):
            for lane in lanes:
                done = [Settlement(call_id=owed.id, delivered=_size(owed.call)) for owed in lane.calls]
                await self.store.settle(self.now, done, [], [Return(building=lane.building, at=self.now)])

    async def forget(self, older: timedelta) -> None:
        """Let the store delete what is past its age."""
        while await self.store.sweep(self.now, older, 1 << 40):
            pass

    # ---- the replay ----

    async def again(
        self, rules: Rules | None = None, span: Span = ALWAYS, *, dry: bool = False
    ) -> tuple[list[Difference], Tally]:
        """Replay; return what differs."""
        tally = Tally()
        now = None if dry else (lambda: self.now)
        found = [one async for one in replay(self.store, rules or self.rules, span, tally, now=now)]
        return found, tally

    async def events(self) -> list[tuple[bool, str, str, datetime, float]]:
        """Return all queued events as (replay, device, type, time, value)."""
        found = []
        for building in ("user-1", "user-2", "house-1", "house-2"):
            for call in await self.store.event_calls(building, 0, 10_000):
                assert isinstance(call.call, SendEvents)
                found += [(call.call.replay, e.device, e.type.value, e.at, e.value) for e in call.call.events]
        return found


def _nobody() -> None:
    """Nobody waits."""


def _size(call: object) -> int:
    return len(call.events) if isinstance(call, SendEvents) else 1


def iso(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def device(number: str, at: datetime, user: str = "user-1", **blocks: Mapping[str, object]) -> dict[str, Any]:
    """Return a device's message whose blocks all have one time."""
    found: dict[str, Any] = {"id": number, "userId": user, "isOnline": True, "lastUpdated": iso(at)}
    return found | {name: {**block, "lastUpdated": iso(at)} for name, block in blocks.items()}


def meter(at: datetime, power_kw: float, number: str = "m-1", user: str = "user-1") -> dict[str, Any]:
    return device(number, at, user, powerState={"power": power_kw})


def inverter(at: datetime, power_kw: float, number: str = "pv-1", user: str = "user-1") -> dict[str, Any]:
    return device(number, at, user, powerState={"solarPower": power_kw, "state": "PRODUCING"})


def car(at: datetime, charge: float, user: str = "user-1") -> dict[str, Any]:
    return device("car-1", at, user, chargeState={"stateOfCharge": charge, "chargingState": "UNPLUGGED"})
