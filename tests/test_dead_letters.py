"""New dead letters in the log: number, reason, MOOST's status; a burst is a few lines."""

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog

from bridge import dead_letters, logs
from bridge.core.effects import CreateBuilding
from bridge.core.vocabulary import DeadReason
from bridge.dead_letters import DeadLetterLog
from bridge.metrics import Metrics
from bridge.store.memory import MemoryStore
from bridge.store.port import Arrival, Attempt, Burial, Outgoing, Settlement, Work

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root = logging.getLogger()
    level = root.level
    yield
    root.handlers.clear()  # pytest brings its own for each phase
    root.setLevel(level)
    structlog.reset_defaults()


def told(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


async def buried(store: MemoryStore, count: int, at: datetime = NOW) -> list[int]:
    """Accept unreadable messages; return their ids."""
    arrivals = [
        Arrival(
            subscription="acme", topic="acme.vehicle.update", body=b"canary", received=at,
            dead=DeadReason.UNREADABLE, detail="canary is not JSON",
        )
        for _ in range(count)
    ]  # fmt: skip
    return [receipt.id for receipt in await store.accept(arrivals)]


async def refused(store: MemoryStore) -> int:
    """Let MOOST refuse a call; return its id."""
    await store.commit(Work(now=NOW, calls=[Outgoing(call=CreateBuilding(building="canary-home", attributes={}))]))
    [lane] = await store.lease(NOW, 1, 1, timedelta(seconds=30))
    burial = Burial(reason=DeadReason.REJECTED, detail="MOOST answered 400", answer="canary: bad zip")
    attempt = Attempt(at=NOW, outcome="400")
    await store.settle(NOW, [Settlement(call_id=lane.calls[0].id, buried=burial, attempt=attempt)], [], [])
    return lane.calls[0].id


async def test_a_dead_letter_is_told_with_its_number_its_reason_and_the_status_of_moost(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure("info", json=True)
    store, metrics = MemoryStore(), Metrics()
    log = DeadLetterLog(store, metrics, lambda: NOW)
    [message] = await buried(store, 1)
    call = await refused(store)
    metrics.dead_messages.append(message)
    metrics.dead_calls.append(call)
    await log.look()
    await log.look()
    first, second = told(capsys)
    assert ("dead_letter", 1, "unreadable", "acme", message) == (
        *(first[name] for name in ("event", "number", "reason", "subscription", "message")),
    )
    assert (2, "rejected", 400, call) == (*(second[name] for name in ("number", "reason", "moost_status", "call")),)
    assert "canary" not in json.dumps([first, second])
    assert [] == [*metrics.dead_messages, *metrics.dead_calls]


async def test_what_died_in_another_process_or_before_is_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", json=True)
    store, metrics = MemoryStore(), Metrics()
    [old] = await buried(store, 1, NOW - timedelta(days=1))
    log = DeadLetterLog(store, metrics, lambda: NOW)
    foreign, mine = await buried(store, 2)
    metrics.dead_messages.extend([old, mine])
    await log.look()
    assert [mine] == [line["message"] for line in told(capsys)]
    assert foreign != mine


async def test_a_burst_is_a_few_lines(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", json=True)
    store, metrics = MemoryStore(), Metrics()
    log = DeadLetterLog(store, metrics, lambda: NOW)
    metrics.dead_messages.extend(await buried(store, 500))
    await log.look()
    lines = told(capsys)
    assert dead_letters.MOST_LINES == sum(line["event"] == "dead_letter" for line in lines)
    assert [("dead_letters_more", "unreadable", 1)] == [
        (line["event"], line["reason"], line["count"]) for line in lines[dead_letters.MOST_LINES :]
    ], "the rest is counted, and told within a minute"
