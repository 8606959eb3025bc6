"""The clock with a real keeper: slots close when they are due, whoever else is busy meanwhile (M5.4, R12)."""

import asyncio
import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import pytest
from structlog.testing import capture_logs

import bridge.clock
from bridge.clock import Clock
from bridge.core import slots
from bridge.core.effects import SendEvents
from bridge.core.messages import Message
from bridge.core.model import Building
from bridge.core.reduce import reduce
from bridge.core.rules import Rules
from bridge.core.vocabulary import EventType
from bridge.metrics import Metrics
from bridge.store.memory import MemoryStore
from bridge.store.port import Arrival, Versioned, Work
from bridge.worker import Worker
from tests.core.house import at, body

pytestmark = pytest.mark.anyio

RULES = Rules()


class Busy(MemoryStore):
    """A store in which a building changes each time before the clock's first attempt to write it."""

    def __init__(self, building: str, times: int) -> None:
        super().__init__()
        self.building_name = building
        self.times = times

    async def commit(self, work: Work) -> Sequence[str]:
        if work.tick is not None and self.times and self.building_name in work.due:
            self.times -= 1
            there = await self.building(self.building_name)
            assert there is not None
            await super().commit(Work(now=work.now, buildings=[there]))
        return await super().commit(work)


class Hall:
    """A clock, its store and the number of times that the sender was woken."""

    def __init__(self, store: MemoryStore, clock: str) -> None:
        self.store = store
        self.now = at(clock)
        self.wakes = 0
        self.stop = asyncio.Event()
        self.clock = self._clock()

    def _clock(self) -> Clock:
        return Clock(
            self.store,
            RULES,
            retention=timedelta(hours=72),
            max_size=2**30,
            now=lambda: self.now,
            queued=self._woken,
            looked=lambda _: None,
        )

    def restart(self) -> None:
        """Go on in another process."""
        self.clock = self._clock()

    async def turn(self, clock: str) -> None:
        """Let the room look at everything once, at a time of day."""
        self.now = at(clock)
        self.stop.set()
        for _ in range(8):  # a turn that is to stop makes one transaction
            await self.clock.turn(self.stop)
        self.stop.clear()

    async def sent(self, user: str) -> list[tuple[datetime, float]]:
        """Return the household's grid energies that were queued, in order."""
        calls = [trip.call for trip in await self.store.event_calls(user)]
        events = [event for call in calls if isinstance(call, SendEvents) for event in call.events]
        return [(event.at, event.value) for event in events if event.type is EventType.GRID_ENERGY_CONSUMPTION]

    def _woken(self) -> None:
        self.wakes += 1

    async def hear(self, *users: str, clock: str = "10:00", received: str | None = None) -> None:
        """Let each user's meter speak, at 10:00 if nothing else is said."""
        when = at(received or clock)
        for user in users:
            said = json.dumps(body("meter", clock, userId=user, id=f"meter-of-{user}")).encode()
            arrival = Arrival(subscription="sub-1", topic="sub-1.meter.update", body=said, received=when)
            await self.store.accept([arrival])
        worker = Worker(self.store, RULES, Metrics(), queued=lambda: None, now=lambda: when)
        while await worker.step():
            pass

    async def open_from(self, user: str) -> datetime | None:
        """Return the first open slot of a user's building."""
        found = await self.store.building(user)
        assert found is not None
        return found.state.open_from


async def test_a_building_that_changes_while_it_is_ticked_holds_up_no_other() -> None:
    hall = Hall(Busy("user-1", times=3), "10:25")
    await hall.hear("user-1", "user-2")
    assert await hall.clock.step()
    assert (at("10:00"), at("10:15")) == (await hall.open_from("user-1"), await hall.open_from("user-2"))
    assert 1 == hall.wakes
    for _ in range(3):
        assert await hall.clock.step()
    assert at("10:15") == await hall.open_from("user-1")
    assert not await hall.clock.step()


async def test_a_flag_is_one_line_when_it_is_set_and_one_when_it_is_cleared() -> None:
    hall = Hall(MemoryStore(), "10:00")

    async def hear(kind: str, clock: str, field: str, kilowatt: float) -> None:
        said = json.dumps(body(kind, clock, id=kind, powerState={field: kilowatt})).encode()
        await hall.store.accept(
            [Arrival(subscription="sub-1", topic=f"sub-1.{kind}.update", body=said, received=at(clock))]
        )
        worker = Worker(hall.store, RULES, Metrics(), queued=lambda: None, now=lambda: at(clock))
        while await worker.step():
            pass

    with capture_logs() as logged:
        for clock, grid in (("10:00", -5.0), ("10:21", -5.0), ("10:30", 1.0), ("10:51", 1.0)):
            await hear("pv-inverter", clock, "solarPower", 3.0)
            await hear("meter", clock, "power", grid)
            hall.now = at(clock)
            while await hall.clock.step():
                pass
    lines = [line for line in logged if line["event"].startswith("building_")]
    assert ["building_flagged", "building_cleared"] == [line["event"] for line in lines]
    assert {("user-1", "wrong-meter-sign")} == {(line["building"], line["flag"]) for line in lines}
    assert '[[devices]] kind = "meter", id = "meter", sign = "export-positive"' == lines[0]["setting"]


async def test_long_work_is_written_bit_by_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the buildings that take long change before they are written, again and again."""
    monkeypatch.setattr(bridge.clock, "TURN_S", 0.0)
    hall = Hall(MemoryStore(), "10:25")
    await hall.hear("user-1", "user-2", "user-3")
    for closed in (1, 2, 3):
        assert await hall.clock.step()
        assert closed == sum([await hall.open_from(f"user-{n}") == at("10:15") for n in (1, 2, 3)])
    assert not await hall.clock.step()


async def test_a_building_whose_tick_raises_is_set_aside_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(building: Building, message: Message, rules: Rules) -> object:
        if building.id == "user-1":
            raise ZeroDivisionError
        return reduce(building, message, rules)

    monkeypatch.setattr(bridge.clock, "reduce", broken)
    hall = Hall(MemoryStore(), "10:25")
    await hall.hear("user-1", "user-2")
    assert await hall.clock.step()
    assert (at("10:00"), at("10:15")) == (await hall.open_from("user-1"), await hall.open_from("user-2"))
    assert 1 == hall.clock.set_aside
    assert not await hall.clock.step()
    hall.now += bridge.clock.SET_ASIDE
    monkeypatch.setattr(bridge.clock, "reduce", reduce)
    while await hall.clock.step():
        pass
    assert at("11:15") == await hall.open_from("user-1")


async def test_readiness_is_looked_at_however_many_buildings_are_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge.clock, "LOOK_S", 0.0)
    monkeypatch.setattr(bridge.clock, "BATCH", 1)
    hall = Hall(MemoryStore(), "10:25")
    await hall.hear("user-1", "user-2", "user-3")
    closed: list[int] = []

    def look(_: object) -> None:
        states = [there.state for there in hall.store._rows.buildings.values()]
        closed.append(sum(state.open_from == at("10:15") for state in states))
        if len(closed) == 3:
            hall.stop.set()

    hall.clock._looked = look
    await hall.clock.run(hall.stop)
    assert [0, 1, 2] == closed


async def test_a_store_with_millions_of_rows_to_forget_still_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(MemoryStore):
        async def sweep(self, now: datetime, retention: timedelta, max_size: int) -> int:  # noqa: ARG002 - as the store
            return 1

    monkeypatch.setattr(bridge.clock, "LOOK_S", 0.0)
    monkeypatch.setattr(bridge.clock, "SWEEP_TURN_S", 0.0)
    hall = Hall(Endless(), "10:25")
    await hall.hear("user-1")
    async with asyncio.timeout(20):
        await hall.turn("10:25")
    assert at("10:15") == await hall.open_from("user-1")


async def test_what_is_not_due_is_left_alone() -> None:
    hall = Hall(MemoryStore(), "10:16")
    await hall.hear("user-1")
    there = await hall.store.building("user-1")
    assert isinstance(there, Versioned)
    assert at("10:17") <= (slots.due(there.state, RULES) or at("10:00")) < at("10:20")
    assert not await hall.clock.step()
    assert at("10:00") == await hall.open_from("user-1")
    assert 0 == hall.wakes


QUARTERS: Final = ("10:15", "10:30", "10:45")


@pytest.mark.parametrize("restarted", [False, True])
async def test_after_a_gap_slots_wait_for_the_retries_of_what_was_missed(restarted: bool) -> None:  # noqa: FBT001
    """The process slept, or ended and began anew behind a boundary; what was sent meanwhile is repeated only now."""
    hall = Hall(MemoryStore(), "10:01")
    await hall.hear("user-1")
    await hall.turn("10:01")
    if restarted:
        hall.restart()
    await hall.turn("10:50")
    assert at("10:00") == await hall.open_from("user-1")
    for clock in ("10:04", "10:08", "10:12", "10:16", "10:20", "10:24", "10:28", "10:32", "10:36", "10:40", "10:44"):
        await hall.hear("user-1", clock=clock, received="10:51")
    for minute in range(51, 60):
        await hall.turn(f"10:{minute:02}")
    assert [] == await hall.sent("user-1")
    await hall.turn("11:00")
    assert [at(clock) for clock in QUARTERS] == [when for when, _ in await hall.sent("user-1")]


async def test_without_a_gap_nothing_waits() -> None:
    hall = Hall(MemoryStore(), "10:01")
    await hall.hear("user-1")
    for minute in range(1, 21):
        await hall.turn(f"10:{minute:02}")
    assert [at("10:15")] == [when for when, _ in await hall.sent("user-1")]


@pytest.mark.parametrize("back", ["10:40", "10:05", "09:00"])
async def test_a_clock_that_is_set_back_sends_nothing_twice_and_goes_on(back: str) -> None:
    hall = Hall(MemoryStore(), "10:01")
    await hall.hear("user-1")
    for minute in range(1, 50):
        await hall.turn(f"10:{minute:02}")
        if not minute % 4:
            await hall.hear("user-1", clock=f"10:{minute:02}")
    before = await hall.sent("user-1")
    assert [at(clock) for clock in QUARTERS] == [when for when, _ in before]
    for _ in range(3):
        await hall.turn(back)
    assert before == await hall.sent("user-1")
    for minute in range(50, 60):
        await hall.turn(f"10:{minute:02}")
    for minute in range(20):
        await hall.turn(f"11:{minute:02}")
    after = await hall.sent("user-1")
    assert [*before, *after[len(before) :]] == after
    assert at("11:00") == after[len(before)][0]
    assert len({when for when, _ in after}) == len(after)


async def test_a_clock_that_is_set_forward_loses_no_slot() -> None:
    """It cannot be told from a sleep; when it is set right again, what had closed stays as it is."""
    hall = Hall(MemoryStore(), "10:01")
    await hall.hear("user-1")
    for minute in range(1, 13):
        await hall.turn(f"10:{minute:02}")
    await hall.turn("13:00")
    assert [] == await hall.sent("user-1")
    for minute in range(13, 50):
        await hall.turn(f"10:{minute:02}")
        if not minute % 4:
            await hall.hear("user-1", clock=f"10:{minute:02}")
    assert [at(clock) for clock in QUARTERS] == [when for when, _ in await hall.sent("user-1")]


async def test_a_long_past_to_close_holds_up_no_other_household(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backfill: a power of 0 of hours ago, then one of now, which says that it was 0 all the time (M5.2)."""
    monkeypatch.setattr(bridge.clock, "BATCH", 1)
    hall = Hall(MemoryStore(), "10:25")
    await hall.hear("user-0")
    for clock in ("02:00", "10:20"):
        for user in ("mad-1", "mad-2"):
            said = json.dumps(body("meter", clock, userId=user, id=user, powerState={"power": 0.0})).encode()
            arrival = Arrival(subscription="sub-1", topic="sub-1.meter.update", body=said, received=at("10:20"))
            await hall.store.accept([arrival])
    worker = Worker(hall.store, RULES, Metrics(), queued=lambda: None, now=lambda: at("10:20"))
    while await worker.step():
        pass
    for _ in range(3):
        assert await hall.clock.step()
    assert at("10:15") == await hall.open_from("user-0"), "each had one turn"
    assert [at("03:00")] * 2 == [await hall.open_from(name) for name in ("mad-1", "mad-2")]
    while await hall.clock.step():
        pass
    assert [at("10:15")] * 2 == [await hall.open_from(name) for name in ("mad-1", "mad-2")]


async def test_a_subscription_with_much_to_close_takes_turns_with_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge.clock, "BATCH", 2)
    hall = Hall(MemoryStore(), "10:45")
    await hall.hear(*(f"mad-{number}" for number in range(8)))
    said = json.dumps(body("meter", "10:20", userId="calm", id="calm")).encode()
    await hall.store.accept([Arrival(subscription="calm", topic="calm.meter.update", body=said, received=at("10:20"))])
    worker = Worker(hall.store, RULES, Metrics(), queued=lambda: None, now=lambda: at("10:20"))
    while await worker.step():
        pass
    assert await hall.clock.step()
    assert at("10:15") < (await hall.open_from("calm") or at("10:15")), "it was due last, and has the first turn"
    while await hall.clock.step():
        pass
    assert {at("10:30")} == {await hall.open_from(f"mad-{number}") for number in range(8)}
