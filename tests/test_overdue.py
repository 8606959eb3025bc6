"""Dead letters are given up when they are old or too many, told and counted, and written to a file before."""

import json
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
from structlog.testing import capture_logs

from bridge import overdue as room
from bridge.config.models import StoreSettings
from bridge.core.vocabulary import DeadReason
from bridge.limits import LimitCounts
from bridge.metrics import Metrics
from bridge.overdue import Overdue
from bridge.store.desk import DeadFilter
from bridge.store.memory import MemoryStore
from bridge.store.port import Burial, Return, Settlement, Work
from bridge.store.shares import MESSAGE_BYTES
from tests.store.values import DAY, HOLD, NOW, arrival, events, out

pytestmark = pytest.mark.anyio

SIZE: Final = MESSAGE_BYTES + 100


class World:
    """A store with dead letters, and who gives them up."""

    def __init__(self, **settings: object) -> None:
        self.now = NOW
        self.store = MemoryStore()
        self.metrics = Metrics()
        self.limits = LimitCounts(self.metrics)
        chosen = StoreSettings.model_validate({"max_size": 100 * SIZE, **settings})
        self.overdue = Overdue(
            self.store, self.store, chosen, self.metrics, self.limits, (lambda: self.now, lambda: self.now + 99 * DAY)
        )

    async def die(self, count: int, subscription: str = "sub-1", at: datetime = NOW) -> None:
        """Let messages die at a time."""
        bodies = [replace(arrival(b"x" * 100, at=at), subscription=subscription) for _ in range(count)]
        receipts = await self.store.accept(bodies)
        await self.store.commit(Work(now=at, dead=[(each.id, DeadReason.FAULT, "why") for each in receipts]))

    async def look(self) -> None:
        self.overdue._look_at = 0.0
        await self.overdue.look()

    async def left(self) -> list[tuple[str | None, DeadReason]]:
        return [(each.subscription, each.reason) for each in await self.store.dead_letters(DeadFilter(), limit=1_000)]

    def given_up(self, cause: str) -> float:
        return self.metrics.registry.get_sample_value("bridge_dead_letters_given_up_total", {"cause": cause}) or 0.0


async def test_letters_go_after_their_time_told_and_counted() -> None:
    world = World(dead_retention="30d", dead_share=1)
    await world.die(room.PAGE + 10, at=NOW)
    await world.die(1, at=NOW + DAY)
    world.now = NOW + 30 * DAY
    await world.look()
    assert room.PAGE + 11 == len(await world.left())
    world.now += timedelta(milliseconds=1)
    with capture_logs() as lines:
        await world.look()
    assert [("dead_letters_given_up", "retention", "sub-1")] == [
        (line["event"], line["cause"], line["subscription"]) for line in lines
    ]
    assert (1, room.PAGE + 10) == (len(await world.left()), world.given_up("retention"))
    census = await world.store.census()
    assert (1, room.PAGE + 10, 0) == (census.dead, census.discarded, census.settled)
    assert [] == await world.store.verify()


async def test_beyond_their_share_the_oldest_of_the_subscription_with_most_go() -> None:
    world = World(dead_share=0.2)
    await world.die(8, "sub-2")
    await world.die(12, "sub-1", NOW + DAY)
    await world.look()
    assert 20 == len(await world.left()), "that much may be dead"
    await world.die(3, "sub-2")
    await world.look()
    assert {"sub-2": 11, "sub-1": 9} == {
        name: sum(one == name for one, _ in await world.left()) for name in ("sub-2", "sub-1")
    }
    assert (3, {"dead_share": 3}) == (world.given_up("share"), world.limits.of_last_hour())
    assert [] == await world.store.verify()


async def test_a_stuck_call_stays_however_old_it_is() -> None:
    world = World()
    await world.store.commit(Work(now=NOW, calls=out(events("a", 1))))
    ((lane),) = await world.store.lease(NOW, 1, 1, HOLD)
    buried = Settlement(call_id=lane.calls[0].id, buried=Burial(reason=DeadReason.STUCK, detail="5xx"))
    await world.store.settle(NOW, [buried], [], [Return(building="a", at=NOW)])
    await world.die(1)
    world.now += 31 * DAY
    await world.look()
    assert [(None, DeadReason.STUCK)] == await world.left()


async def test_a_letter_stands_in_the_file_before_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "dead.jsonl"
    world = World(dead_export=str(path))
    await world.die(1)
    receipts = await world.store.accept([arrival(bytes([255]))])
    await world.store.commit(Work(now=NOW, dead=[(receipts[0].id, DeadReason.FAULT, "why")], users={2: "u"}))
    world.now += 31 * DAY
    await world.look()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(1, "fault", "x" * 100, None), (2, "fault", None, "/w==")] == [
        (line["message_id"], line["reason"], line.get("body"), line.get("body_base64")) for line in lines
    ]
    assert (0o600, []) == (path.stat().st_mode & 0o777, await world.left())
    await world.die(1)
    await world.look()
    assert 3 == len(path.read_text().splitlines()), "it is never begun anew"


async def test_nothing_goes_while_the_file_cannot_be_written(tmp_path: Path) -> None:
    world = World(dead_export=str(tmp_path / "gone" / "dead.jsonl"))
    await world.die(2)
    world.now += 31 * DAY
    with capture_logs() as lines:
        await world.look()
        await world.look()
    assert (["dead_export_failed"], 2) == ([line["event"] for line in lines], len(await world.left()))
    (tmp_path / "gone").mkdir()
    await world.look()
    assert [] == await world.left()
