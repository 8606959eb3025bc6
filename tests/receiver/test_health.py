"""What monitoring sees: ready or not, the ledgers, the metrics."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from bridge.core.vocabulary import DeadReason
from bridge.limits import Limit
from bridge.receiver.health import FRESH
from bridge.store.port import Census, StoreUnavailable
from tests.receiver.conftest import House, Store, house, settings

pytestmark = pytest.mark.anyio


async def get(built: House, path: str = "/health") -> dict[str, object]:
    got = await built.client.get(path)
    assert 200 == got.status_code
    content = got.json()
    assert isinstance(content, dict)
    return content


async def test_live_is_200_whatever_is_wrong(door: House) -> None:
    door.gate.shut = door.gate.store = door.gate.starting = True
    assert {"live": True} == await get(door, "/health/live")


async def test_ready_says_what_keeps_it_from_accepting_and_nothing_of_moost(door: House) -> None:
    door.words["circuit"], door.words["problems"] = "open", ["moost_auth"]
    assert {"ready": True, "failing": []} == await get(door, "/health/ready")
    door.gate.starting = door.gate.draining = door.gate.store = True
    door.gate.max_size = -1
    got = await door.client.get("/health/ready")
    assert (503, {"ready": False, "failing": ["store", "watermark", "draining", "starting"]}) == (
        got.status_code,
        got.json(),
    )


class Kept(Store):
    """A store with a census of its own."""

    def __init__(self, census: Census) -> None:
        super().__init__()
        self.kept = census
        self.asked = 0

    async def census(self) -> Census:
        self.asked += 1
        if self.broken:
            raise StoreUnavailable("gone")
        return self.kept


def kept(census: Census) -> tuple[House, Kept]:
    built, store = house(settings()), Kept(census)
    built.receiver.health._store = store
    return built, store


async def test_health_is_the_census_in_the_words_of_the_contract() -> None:
    now = datetime.now(UTC)
    census = Census(
        accepted=21, settled=1, pending=2, parked=3, dead=4, discarded=5, erased=6,
        queued=20, delivered=7, calls_pending=8, calls_dead=1, replaced=3, calls_discarded=1, in_doubt=2,
        oldest_pending=now - timedelta(seconds=90), oldest_owed=now - timedelta(hours=1),
        dead_letters={"rejected": 2, "unreadable": 3}, flags={"wrong-meter-sign": 4, "ambiguous-location": 1},
    )  # fmt: skip
    built, _ = kept(census)
    built.words["token"], built.words["cause"] = 1234.5, "name unknown"
    report = await get(built)
    assert {"accepted": 21, "settled": 1, "pending": 2, "parked": 3, "dead": 4, "discarded": 5, "erased": 6} == report[
        "ledger"
    ]
    assert {
        "queued": 20, "delivered": 7, "pending": 8, "dead": 1, "replaced": 3, "discarded": 1, "in_doubt": 2,
    } == report["calls"]  # fmt: skip
    cause = "name unknown"
    assert {"circuit": "closed", "token_expires_in_seconds": 1234.5, "cause": cause} == report["moost"]
    assert {"rejected": 2, "unreadable": 3} == report["dead_letters"]
    assert 4 == report["wrong_meter_sign"]
    assert ("ok", []) == (report["status"], report["problems"])
    assert report["version"]
    for name, age in (("oldest_inbox_seconds", 90), ("oldest_outbox_seconds", 3600)):
        seconds = report[name]
        assert isinstance(seconds, float)
        assert age <= seconds < age + 60
    uptime = report["uptime_seconds"]
    assert isinstance(uptime, float)
    assert uptime > 0


async def test_health_names_the_limits_that_were_reached_in_the_last_hour(door: House) -> None:
    assert {} == (await get(door))["limits"]
    door.limits.reached(Limit.CONNECTIONS, "192.0.2.1", 3)
    assert {"connections": 3} == (await get(door))["limits"]


async def test_nothing_waiting_is_zero_seconds_old(door: House) -> None:
    report = await get(door)
    assert (0, 0) == (report["oldest_inbox_seconds"], report["oldest_outbox_seconds"])


@pytest.mark.parametrize(
    ("switches", "words", "status", "problems"),
    [
        ({}, ["moost_auth"], "degraded", ["moost_auth"]),
        ({"store": True}, [], "degraded", ["store"]),
        ({"unwritable": True}, ["moost_auth"], "degraded", ["store", "moost_auth"]),
        ({"draining": True}, [], "draining", []),
        ({"starting": True}, [], "ok", []),
    ],
)
async def test_the_status_follows_the_gate_and_the_other_rooms(
    door: House, switches: Mapping[str, bool], words: list[str], status: str, problems: list[str]
) -> None:
    for name, value in switches.items():
        setattr(door.gate, name, value)
    door.words["problems"] = words
    report = await get(door)
    assert (status, problems) == (report["status"], report["problems"])


async def test_health_answers_with_the_last_known_counts_while_the_store_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built, store = kept(Census(accepted=5, settled=5))
    await get(built)
    store.broken = True
    monkeypatch.setattr("bridge.receiver.health.FRESH", -1.0)
    report = await get(built)
    assert {"accepted": 5, "settled": 5, "pending": 0, "parked": 0, "dead": 0, "discarded": 0, "erased": 0} == report[
        "ledger"
    ]
    assert ("degraded", ["store"]) == (report["status"], report["problems"])
    store.broken = False
    assert "ok" == (await get(built))["status"]


async def test_one_question_to_the_store_serves_everybody_who_asks_at_once() -> None:
    assert FRESH > 0
    built, store = kept(Census())
    for _ in range(3):
        await get(built)
        assert 200 == (await built.client.get("/metrics")).status_code
    assert store.asked <= 2  # a slow machine may let half a second pass


async def test_metrics_are_prometheus_text_with_the_durable_gauges() -> None:
    built, store = kept(Census(pending=3, calls_pending=4, dead_letters={"rejected": 2}))
    built.words["circuit"], built.words["token"] = "half-open", 60.0
    await built.post("/webhooks/other.x.y")
    got = await built.client.get("/metrics")
    assert got.headers["content-type"].startswith("text/plain; version=")
    for line in (
        "bridge_inbox_pending 3.0",
        "bridge_outbox_pending 4.0",
        'bridge_dead_letters{reason="rejected"} 2.0',
        "bridge_circuit_open 1.0",
        "bridge_token_expires_seconds 60.0",
        'bridge_requests_refused_total{status="404"} 1.0',
        "bridge_messages_accepted_total 0.0",
    ):
        assert line in got.text.splitlines()
    store.kept = Census()
    built.receiver.health._taken_at = None
    said = (await built.client.get("/metrics")).text.splitlines()
    assert set(DeadReason) == {
        reason for reason in DeadReason if f'bridge_dead_letters{{reason="{reason}"}} 0.0' in said
    }


# ---- the document ---------------------------------------------------------------------------------------------------


async def test_the_document_names_the_webhooks_with_every_answer_of_the_contract(door: House) -> None:
    document = (await door.client.get("/openapi.json")).json()
    for path in ("/webhooks/{topic}", "/webhooks"):
        assert {"202", "401", "403", "404", "413", "415", "429", "503"} <= set(
            document["paths"][path]["post"]["responses"]
        )
        assert "200" in document["paths"][path]["options"]["responses"]
    assert {"/health", "/health/live", "/health/ready", "/metrics"} <= set(document["paths"])
    assert {"Taken", "Error"} <= set(document["components"]["schemas"])
    assert document == (await door.client.get("/openapi.json")).json()


async def test_no_dead_letters_are_told_before_the_store_has_told_them() -> None:
    """Zeros at a start would make a burst of what has long been there."""
    built, store = kept(Census(dead_letters={DeadReason.REJECTED: 40}))
    built.gate.starting = True
    assert "bridge_dead_letters{" not in (await built.client.get("/metrics")).text
    built.gate.starting, store.broken = False, True
    assert "bridge_dead_letters{" not in (await built.client.get("/metrics")).text
    store.broken, built.receiver.health._taken_at = False, None
    said = (await built.client.get("/metrics")).text
    assert 'bridge_dead_letters{reason="rejected"} 40.0' in said
    assert 'bridge_dead_letters{reason="fault"} 0.0' in said


async def test_a_report_is_no_older_than_half_a_second_however_long_the_store_takes() -> None:
    """Its age counted from when the store had answered, not from when it was asked."""
    built = house(settings())
    asked, answered = asyncio.Event(), asyncio.Event()
    census = built.store.census

    async def slow() -> Census:
        found = await census()
        asked.set()
        await answered.wait()
        return found

    built.store.census = slow  # type: ignore[method-assign]
    first = asyncio.create_task(built.client.get("/health"))
    await asked.wait()
    await built.post()
    await asyncio.sleep(FRESH * 1.2)
    second = asyncio.create_task(built.client.get("/health"))
    await asyncio.sleep(0)
    answered.set()
    assert [0, 1] == [(await task).json()["ledger"]["accepted"] for task in (first, second)]
