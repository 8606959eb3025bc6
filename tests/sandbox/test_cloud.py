"""The device cloud posts over real sockets: signed, repeated with the same id, counted exactly."""

import asyncio
import base64
import json
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import formatdate
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from bridge.sandbox import cloud
from bridge.sandbox.call import Answer, Receive, Scope, Send, read, reply
from bridge.sandbox.delivery import Signer, Tally
from bridge.sandbox.moost import Moost
from bridge.sandbox.server import drop, serving
from bridge.sandbox.sky import HOUR_MS

pytestmark = pytest.mark.anyio

SECRET = "whsec_" + base64.b64encode(bytes(range(24))).decode()
TAKEN = Answer(status=202, body={"accepted": 1, "duplicates": 0, "dead": 0, "ids": []})


@dataclass
class Receiver:
    """Takes webhooks; `say` may answer otherwise, None drops the connection."""

    say: Callable[[int, str], Answer | None]
    paths: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = await read(scope, receive, 0)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        again = self.ids.count(headers["webhook-id"])
        self.paths.append(call.path)
        self.ids.append(headers["webhook-id"])
        self.headers.append(headers)
        self.bodies.append(call.raw)
        answer = self.say(again, call.path)
        if answer is None:
            drop(scope)
        else:
            await reply(send, answer)


@asynccontextmanager
async def listening(say: Callable[[int, str], Answer | None]) -> AsyncIterator[tuple[Receiver, str]]:
    receiver = Receiver(say)
    async with serving(receiver) as address:
        yield receiver, address


async def run(
    target: str,
    *,
    homes: int = 2,
    hours: float = 1,
    truth: Path | None = None,
    speed: float = 0,
    anchor: float | None = None,
) -> cloud.Summary:
    told: list[str] = []
    summary = await cloud.simulate(
        target=target,
        homes=homes,
        hours=hours,
        speed=speed,
        seed=1,
        subscription="acme",
        secret=SECRET,
        truth=truth,
        anchor=anchor,
        echo=told.append,
    )
    assert [f"sent={summary.sent}"] == [word for word in "".join(told).split() if word.startswith("sent=")]
    return summary


async def test_every_message_is_signed_as_the_standard_says() -> None:
    async with listening(lambda _again, _path: TAKEN) as (receiver, address):
        summary = await run(address + "/")
    judge = Webhook(SECRET)
    for headers, body in zip(receiver.headers, receiver.bodies, strict=True):
        judge.verify(body, headers)
        assert "application/json" == headers["content-type"]
    assert summary.sent == summary.accepted == len(receiver.bodies) > 50
    assert all(path.startswith("/webhooks/acme.") for path in receiver.paths)


async def test_without_a_secret_nothing_is_signed_and_a_broken_secret_is_refused() -> None:
    assert "webhook-signature" not in Signer(None).headers("msg_1", b"{}", 0)
    for secret in ("whsec_", "whsec_abcde"):
        with pytest.raises(ValueError, match=r"."):
            Signer(secret)


async def test_a_message_is_repeated_with_its_id_until_it_is_taken() -> None:
    trouble = [
        Answer(status=503, headers=((b"retry-after", b"0"),)),
        Answer(status=429, headers=((b"retry-after", formatdate(0, usegmt=True).encode()),)),
        None,
        TAKEN,
    ]

    def say(again: int, path: str) -> Answer | None:
        return trouble[min(again, 3)] if path.endswith("hvac.schedules.update") else TAKEN

    async with listening(say) as (receiver, address):
        summary = await run(address)
    attempts = Counter(receiver.ids)
    patient = {one for one, path in zip(receiver.ids, receiver.paths, strict=True) if path.endswith("schedules.update")}
    assert patient
    assert {4} == {attempts[one] for one in patient}
    assert 3 * len(patient) == summary.retried
    assert (0, summary.sent) == (summary.refused, summary.accepted)
    bodies = {(one, body) for one, body in zip(receiver.ids, receiver.bodies, strict=True)}
    assert len(bodies) == len(attempts)


async def test_what_is_kept_while_nobody_takes_it_leaves_home_by_home_in_the_order_it_was_due() -> None:
    seen = 0

    def say(_again: int, _path: str) -> Answer | None:
        nonlocal seen
        seen += 1
        return None if 40 < seen <= 70 else TAKEN  # nobody listens for a while, as at a restart

    anchor = float(int(time.time()))
    async with listening(say) as (receiver, address):
        summary = await run(address, homes=4, hours=2, speed=7200, anchor=anchor)
    assert (30, 0, summary.sent) == (summary.retried, summary.refused, summary.accepted)
    end = int((anchor + 1) * 1000)
    expected: dict[str, list[str]] = defaultdict(list)
    for post in cloud.posts(4, seed=1, start=end - 2 * HOUR_MS, end=end):
        expected[post.user].append(post.id)
    arrived: dict[str, list[str]] = defaultdict(list)
    attempts = [*zip(receiver.ids, receiver.bodies, strict=True)]
    for one, body in attempts[:40] + attempts[70:]:
        arrived[json.loads(body)["userId"]].append(one)
    assert expected == arrived


async def test_a_refusal_is_final_and_the_ledger_is_exact() -> None:
    def say(_again: int, path: str) -> Answer | None:
        if path.endswith("meter.update"):
            return Answer(status=401)
        if path.endswith("pv-inverter.update"):
            return Answer(status=202, body={"accepted": 0, "duplicates": 1, "dead": 0, "ids": []})
        if path.endswith("tariff.price.update"):
            return Answer(status=202, body={"accepted": 1, "duplicates": 0, "dead": 1, "ids": []})
        return Answer(status=200)

    async with listening(say) as (receiver, address):
        summary = await run(address)
    paths = Counter(path.partition("acme.")[2] for path in receiver.paths)
    assert paths["meter.update"] == summary.refused > 0
    assert paths["pv-inverter.update"] == summary.duplicates > 0
    assert paths["tariff.price.update"] == summary.dead > 0
    assert summary.sent == summary.accepted + summary.duplicates + summary.refused == len(receiver.ids)
    assert 0 == summary.retried


async def test_what_is_posted_is_never_from_the_future_and_keeps_its_pace(tmp_path: Path) -> None:
    async with listening(lambda _again, _path: TAKEN) as (receiver, address):
        summary = await run(address, hours=2, speed=3600, truth=tmp_path / "truth.jsonl")
    assert summary.seconds >= 1.5
    assert [json.loads(line) for line in (tmp_path / "truth.jsonl").read_text().splitlines()]
    for headers, body in zip(receiver.headers, receiver.bodies, strict=True):
        updated = json.loads(body).get("lastUpdated")
        if updated and "createdAt" not in json.loads(body):
            assert cloud_time(updated) <= int(headers["webhook-timestamp"]) + 1


def cloud_time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


async def test_progress_is_told() -> None:
    shares: list[float] = []

    def progress(share: float, tally: Tally) -> None:
        assert tally.sent >= 0
        shares.append(share)

    async with listening(lambda _again, _path: TAKEN) as (_, address):
        async with asyncio.timeout(30):
            await cloud.simulate(
                target=address, homes=1, hours=1, speed=0, seed=1, echo=lambda _: None, progress=progress
            )
    assert sorted(shares) == shares
    assert 0 <= shares[0] < shares[-1] == 1


async def test_a_verified_simulation_counts_the_slots_that_never_arrived() -> None:
    told: list[str] = []
    async with listening(lambda _again, _path: TAKEN) as (_, address), serving(Moost()) as sandbox:
        summary = await cloud.simulate(
            target=address,
            homes=1,
            hours=2,
            speed=0,
            seed=1,
            verify=sandbox,
            verify_patience_s=0,
            echo=told.append,
        )
    assert summary.missing
    assert "ENERGY_GENERATION" in told[0]
    assert f"missing={summary.missing}" in told[-1]
