"""What the sender does when MOOST, the network, the store or its own code does not work."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from bridge.core.vocabulary import DeadReason
from bridge.logs import MASK
from bridge.sink import validate
from bridge.sink.classify import Failure, Reply
from bridge.sink.encode import JsonObject, WireCall
from bridge.store.desk import DeadFilter
from bridge.store.memory import MemoryStore
from bridge.store.memory.rows import CallRow
from bridge.store.port import NO_LINES, Begin, Lane, Return, Settlement, StoreUnavailable
from bridge.store.ranks import Line

pytestmark = pytest.mark.anyio
Desk = Any
Make = Callable[..., Desk]
HOUR = timedelta(hours=1)
TOKEN = "/auth/token/v1"


def spoken(logged: Sequence[EventDict]) -> list[str]:
    return [line["event"] for line in logged if line["event"].startswith("sender_")]


async def attempts(d: Desk) -> list[str]:
    rows = sorted(d.store._rows.outbox.values(), key=lambda row: row.id)
    return [attempt.outcome for row in rows for attempt in row.attempts]


class TestToken:
    async def test_many_calls_share_one_token(self, desk: Make) -> None:
        d = desk()
        d.start()
        await d.home(*[f"home-{number}" for number in range(20)])

        assert 1 == len(await d.sandbox.calls(TOKEN))

    async def test_a_revoked_token_is_renewed_once_however_many_calls_met_it(self, desk: Make) -> None:
        d = desk(max_concurrency=16)
        names = [f"home-{number}" for number in range(16)]
        d.start()
        await d.home(*names)
        await d.sandbox.faults(
            {"kind": "revoke_tokens", "times": 1},
            {"kind": "latency", "seconds": 0.05, "path": "/events"},
        )
        for name in names:
            await d.queue(d.events(1, 2, building=name))
        await d.done()

        received = await d.sandbox.received()
        assert 2 == len(await d.sandbox.calls(TOKEN))
        assert 32 == received["counts"]["events"]["live"]
        assert "POST /events/v1 401" in received["counts"]["calls"]
        assert [] == await d.dead()
        assert set() == d.sender.state.problems

    async def test_tokens_that_expire_all_the_time_are_renewed_before_they_end(self, desk: Make) -> None:
        d = desk()
        await d.sandbox.faults({"kind": "expires_in", "expires_in": 1})
        d.start()
        await d.home()
        ends = time.monotonic() + 2.5
        value = 0
        while time.monotonic() < ends:
            await d.queue(d.events(value := value + 1))
            await d.done()

        tokens = await d.sandbox.calls(TOKEN)
        assert list(range(1, value + 1)) == await d.sandbox.values()
        assert 3 <= len(tokens) <= 5
        assert "POST /events/v1 401" not in (await d.sandbox.received())["counts"]["calls"]

    async def test_refused_credentials_pause_and_heal_by_themselves(self, desk: Make) -> None:
        d = desk()
        await d.sandbox.faults({"kind": "status", "status": 401, "path": TOKEN})
        with capture_logs() as logged:
            d.start()
            await d.queue(*(await _home_calls(d)))
            await d.until(lambda: d.sender.state.problems == {"moost_auth"})
            assert d.sender.state.token_expires_in_seconds is None
            await d.sandbox.faults()
            await d.done()
        assert ["sender_paused", "sender_resumed"] == spoken(logged)

        assert [1] == await d.sandbox.values()
        assert set() == d.sender.state.problems
        assert [] == await d.dead()

    async def test_a_pause_without_a_token_ends_as_visibly_as_it_began(self, desk: Make) -> None:
        d = desk()
        await d.sandbox.faults({"kind": "status", "status": 500, "path": TOKEN, "times": 1})
        with capture_logs() as logged:
            d.start()
            await d.queue(*(await _home_calls(d)))
            await d.done()
        assert ["sender_paused", "sender_resumed"] == spoken(logged)

    @pytest.mark.parametrize("status", [401, 403])
    async def test_calls_refused_with_a_fresh_token_pause_and_heal_by_themselves(self, desk: Make, status: int) -> None:
        d = desk()
        d.start()
        await d.home()
        await d.sandbox.faults({"kind": "status", "status": status, "path": "/events"})
        with capture_logs() as logged:
            await d.queue(d.events(1))
            await d.until(lambda: "moost_auth" in d.sender.state.problems)
            tried = len(await d.sandbox.calls("/events"))
            await d.sandbox.faults()
            await d.done()
        assert ["sender_paused", "sender_resumed"] == spoken(logged)

        assert [1] == await d.sandbox.values()
        assert set() == d.sender.state.problems
        assert tried <= 4
        assert [] == await d.dead()

    async def test_while_paused_few_calls_are_tried(self, desk: Make) -> None:
        d = desk()
        names = [f"home-{number}" for number in range(30)]
        d.start()
        await d.home(*names)
        await d.sandbox.faults({"kind": "status", "status": 403, "path": "/events"})
        for name in names:
            await d.queue(d.events(1, building=name))
        await d.until(lambda: "moost_auth" in d.sender.state.problems)
        await asyncio.sleep(2)  # what is counted is what does not happen
        tried = len(await d.sandbox.calls("/events"))
        await d.sandbox.faults()
        await d.done(40)

        assert tried <= 36
        assert 30 == (await d.sandbox.received())["counts"]["events"]["live"]

    async def test_another_customers_token_pauses(self, desk: Make) -> None:
        d = desk(customer_id="f" * 24)
        d.start()
        await d.queue(d.events(1))
        await d.until(lambda: d.sender.state.problems == {"moost_customer"})

        assert [] == await d.sandbox.calls("/events")


async def _home_calls(d: Desk) -> Sequence[Any]:
    name = "home-1"
    from_conftest = d.sheet(name)
    return (*from_conftest, d.events(1))


PAGE = "<!DOCTYPE html><html><body>We will be back soon</body></html>"


class TestInBetween:
    """What something between the bridge and MOOST answers is no answer of MOOST."""

    @pytest.mark.parametrize("status", [200, 201, 203, 302, 400, 404])
    async def test_a_web_page_delivers_nothing_and_is_told_with_one_household_on_its_way(
        self, desk: Make, status: int
    ) -> None:
        d = desk()
        await d.sandbox.faults({"kind": "status", "status": status, "answer": PAGE, "path": "^/(buildings|events)"})
        with capture_logs() as logged:
            d.start()
            await d.queue(*(await _home_calls(d)))
            await d.until(lambda: "moost_unreachable" in d.sender.state.problems)
            told = d.sender.state.cause
            delivered = (await d.store.census()).delivered
            await d.sandbox.faults()
            await d.done()

        assert 0 == delivered
        assert told.startswith(f"status {status}")
        assert [("circuit_opened", told), ("circuit_closed", None)] == [
            (line["event"], line.get("cause")) for line in logged if line["event"].startswith("circuit_")
        ]
        assert [1] == await d.sandbox.values()
        assert [] == await d.dead()
        assert (set(), None) == (d.sender.state.problems, d.sender.state.cause)
        assert any("web page" in each.detail for row in d.store._rows.outbox.values() for each in row.attempts) or (
            status == 302
        )

    async def test_a_token_call_that_gets_a_web_page_says_so(self, desk: Make) -> None:
        d = desk()
        await d.sandbox.faults({"kind": "status", "status": 200, "answer": PAGE, "path": TOKEN})
        d.start()
        await d.until(lambda: d.sender.state.problems == {"moost_unreachable"})

        assert "status 200 with a web page instead of JSON" == d.sender.state.cause

    async def test_a_token_call_that_gets_an_error_with_200_is_refused(self, desk: Make) -> None:
        d = desk()
        error = {"answer": '{"error": "invalid_client"}', "media_type": "application/json"}
        await d.sandbox.faults({"kind": "status", "status": 200, "path": TOKEN, **error})
        with capture_logs() as logged:
            d.start()
            await d.until(lambda: d.sender.state.problems == {"moost_auth"})
            await d.sandbox.faults()
            await d.until(lambda: d.sender.state.problems == set())

        assert ["sender_paused", "sender_resumed"] == spoken(logged)

    @pytest.mark.parametrize("path", ["/events", "/devices/"])
    async def test_what_moost_echoes_of_secrets_and_tokens_is_kept_masked(self, desk: Make, path: str) -> None:
        d = desk()
        d.start()
        await d.home()
        (token,) = d.client._tokens
        secret = d.settings.client_secret.get_secret_value()
        echo = {"answer": f'{{"error": "{secret} may not, nor may {token}"}}', "media_type": "application/json"}
        await d.sandbox.faults({"kind": "status", "status": 400, "path": path, **echo})
        await d.queue(*(await _home_calls(d)))
        await d.done()
        (letter,) = await d.dead()
        kept = [letter.answer, *(each.detail for row in d.store._rows.outbox.values() for each in row.attempts)]

        assert f'{{"error": "{MASK} may not, nor may {MASK}"}}' == letter.answer
        assert not [text for text in kept if secret in text or token in text or token.split(".")[0] in text]


class TestOverload:
    async def test_a_429_stops_everything_for_as_long_as_it_says(self, desk: Make) -> None:
        d = desk()
        names = [f"home-{number}" for number in range(10)]
        d.start()
        await d.home(*names)
        await d.sandbox.faults({"kind": "status", "status": 429, "retry_after": 2, "path": "/events", "times": 1})
        before = len(await d.sandbox.calls())
        for name in names:
            await d.queue(d.events(1, 2, 3, building=name))
        await d.until(lambda: "moost_throttled" in d.sender.state.problems)
        await d.done()

        calls = (await d.sandbox.calls())[before:]
        refused = next(call["at"] for call in calls if call["status"] == 429)
        later = [call["at"] for call in calls if call["at"] > refused + 0.3]
        assert min(later) >= refused + 1.9
        assert 30 == (await d.sandbox.received())["counts"]["events"]["live"]

    @pytest.mark.parametrize("as_date", [False, True], ids=["0", "a date that is now"])
    async def test_a_429_with_a_retry_after_of_nothing_makes_no_flood(self, desk: Make, *, as_date: bool) -> None:
        d = desk()
        names = [f"home-{number}" for number in range(50)]
        d.start()
        await d.home(*names)
        await d.sandbox.faults({"kind": "status", "status": 429, "retry_after": 0, "as_date": as_date})
        before = len(await d.sandbox.calls())
        await d.queue(*(d.events(1, building=name) for name in names))
        await asyncio.sleep(5)  # what is counted is what does not happen
        refused = len(await d.sandbox.calls()) - before
        await d.sandbox.faults()
        await d.done(30)

        assert 2 <= refused <= 50
        assert 50 == (await d.sandbox.received())["counts"]["events"]["live"]

    async def test_a_date_in_retry_after_is_honoured(self, desk: Make) -> None:
        d = desk()
        d.start()
        await d.home()
        await d.sandbox.faults(
            {"kind": "status", "status": 503, "retry_after": 3, "as_date": True, "path": "/events", "times": 1}
        )
        await d.queue(d.events(1))
        await d.done()

        first, second = (call["at"] for call in await d.sandbox.calls("/events"))
        assert 1.9 <= second - first <= 6

    async def test_the_budget_is_kept(self, desk: Make) -> None:
        d = desk(requests_per_second=20)
        names = [f"home-{number}" for number in range(10)]
        d.start()
        await d.home(*names)
        for name in names:
            await d.queue(d.events(1, 2, building=name))
        await d.done()

        times = sorted(call["at"] for call in await d.sandbox.calls() if call["path"] != TOKEN)
        assert 40 == len(times)
        for first, last in zip(times, times[20:], strict=False):
            assert last - first >= 0.85

    async def test_concurrency_follows_the_platform_down_and_up_again(self, desk: Make) -> None:
        d = desk(max_concurrency=12)
        names = [f"home-{number}" for number in range(40)]
        d.start()
        await d.home(*names)
        limit = d.sender._gate.concurrency

        async def under_load(true: Callable[[], bool]) -> None:
            async def look() -> bool:
                if (await d.store.census()).calls_pending < 40:
                    await d.queue(*(d.events(1, 2, building=name) for name in names))
                return true()

            await d.until(look)

        await under_load(lambda: limit.limit == 12)
        await d.sandbox.faults({"kind": "latency", "seconds": 0.2, "path": "/events"})
        await under_load(lambda: limit.limit < 12)
        await d.sandbox.faults()
        await under_load(lambda: limit.limit == 12)
        await d.sandbox.faults({"kind": "status", "status": 500, "path": "/events", "probability": 0.2})
        await under_load(lambda: limit.limit < 12)
        await d.sandbox.faults()
        await under_load(lambda: limit.limit == 12)
        assert "closed" == d.sender.state.circuit

    async def test_never_more_than_max_concurrency_calls_are_on_the_wire(self, desk: Make) -> None:
        d = desk(max_concurrency=3)
        names = [f"home-{number}" for number in range(12)]
        d.start()
        await d.home(*names)
        await d.sandbox.faults({"kind": "latency", "seconds": 0.05})
        most = 0

        async def watched() -> bool:
            nonlocal most
            most = max(most, len(d.sender._calls))
            return bool((await d.store.census()).calls_pending == 0)

        for name in names:
            await d.queue(d.events(1, 2, building=name))
        await d.until(watched)

        assert 3 == most


class TestOutage:
    async def test_deliveries_flow_within_10_s_after_an_outage(self, desk: Make) -> None:
        d = desk()
        names = [f"home-{number}" for number in range(20)]
        d.start()
        await d.home(*names)
        await d.sandbox.faults({"kind": "outage"})
        for name in names:
            await d.queue(d.events(1, 2, building=name))
        await d.until(lambda: d.sender.state.circuit != "closed")
        assert "moost_unreachable" in d.sender.state.problems
        await asyncio.sleep(4)  # an outage has to last
        during = len(await d.sandbox.calls("/events"))
        await d.sandbox.faults()
        await d.done(seconds=10)

        assert during <= 40  # a closed circuit would have tried far more
        assert "closed" == d.sender.state.circuit
        assert 40 == (await d.sandbox.received())["counts"]["events"]["live"]

    async def test_one_building_that_fails_does_not_open_the_circuit_and_delays_nobody(self, desk: Make) -> None:
        d = desk()
        names = [f"home-{number}" for number in range(5)]
        d.start()
        await d.home("bad", *names)
        await d.sandbox.faults({"kind": "status", "status": 500, "building": "^bad$"})
        await d.queue(d.events(1, building="bad"))
        await d.until(lambda: _owed(d)[0].progress.attempts >= 1)
        started = time.monotonic()
        for name in names:
            await d.queue(d.events(*range(20), building=name))

        async def served() -> bool:
            return bool((await d.sandbox.received())["counts"]["events"]["live"] == 100)

        await d.until(served)
        assert time.monotonic() - started < 5
        assert "closed" == d.sender.state.circuit

    async def test_an_outage_with_one_household_on_its_way_is_told_and_its_end_too(self, desk: Make) -> None:
        d = desk()
        d.start()
        await d.home()
        await d.sandbox.faults({"kind": "status", "status": 503, "path": "/events"})
        with capture_logs() as logged:
            await d.queue(d.events(1))
            await d.until(lambda: d.sender.state.problems == {"moost_unreachable"})
            cause, circuit = d.sender.state.cause, d.sender.state.circuit
            assert "bridge_circuit_open 1.0" in d.metrics.render().decode()
            await d.sandbox.faults()
            await d.done()

        assert ("status 503", "open") == (cause, circuit)
        lines = [line for line in logged if line["event"].startswith("circuit_")]
        assert ["circuit_opened", "circuit_closed"] == [line["event"] for line in lines]
        assert lines[1]["failures"] >= 5
        assert lines[1]["after_seconds"] >= 0
        assert set() == d.sender.state.problems

    async def test_a_building_that_fails_while_others_are_served_is_no_outage(self, desk: Make) -> None:
        d = desk()
        d.start()
        await d.home("bad", "good")
        await d.sandbox.faults({"kind": "status", "status": 500, "building": "^bad$"})
        await d.queue(d.events(1, building="bad"))
        await d.until(lambda: _owed(d)[0].progress.attempts >= 1)
        await d.queue(d.events(1, building="good"))

        async def served() -> bool:
            return bool(await d.sandbox.values("good") == [1])

        await d.until(served)
        tried = _owed(d)[0].progress.attempts
        await d.until(lambda: _owed(d)[0].progress.attempts >= tried + 6, seconds=60)

        assert "closed" == d.sender.state.circuit
        assert set() == d.sender.state.problems

    async def test_a_building_that_hangs_delays_nobody(self, desk: Make) -> None:
        d = desk(max_concurrency=4)
        d.start()
        await d.home("slow", "home-1")
        await d.sandbox.faults({"kind": "latency", "seconds": 5, "building": "^slow$"})
        await d.queue(d.events(1, building="slow"), d.events(*range(50)))

        async def served() -> bool:
            return len(await d.sandbox.values()) == 50

        await d.until(served, seconds=4)

    async def test_a_call_that_fails_for_an_hour_while_others_succeed_steps_aside_and_is_tried_again(
        self, desk: Make
    ) -> None:
        d = desk()
        d.start()
        await d.home("bad", "home-1")
        await d.sandbox.faults({"kind": "status", "status": 500, "building": "^bad$", "body": '"value":1,'})
        await d.queue(d.events(1, 2, building="bad"))
        for value in range(11):  # eleven tries over an hour
            assert [] == await d.dead()
            await d.until(lambda tries=value: not _owed(d) or _owed(d)[0].progress.attempts > tries)
            await d.queue(d.events(value))
            await d.until(lambda: len(_owed(d)) <= 1)
            d.time.offset += timedelta(minutes=6)
            d.sender.nudge.set()
        await d.done()

        assert [DeadReason.STUCK] == [letter.reason for letter in await d.dead()]
        assert [2] == await d.sandbox.values("bad")

        d.time.offset += timedelta(minutes=61)
        await d.queue(d.events(100))
        first = len(await d.sandbox.calls("/events"))

        async def tried_again() -> bool:
            return len(await d.sandbox.calls("/events")) >= first + 2

        await d.until(tried_again)
        await d.done()
        assert [DeadReason.STUCK] == [letter.reason for letter in await d.dead()]

        await d.sandbox.faults()
        d.time.offset += timedelta(minutes=62)
        await d.until(lambda: not d.store._rows.letters)
        await d.done()
        assert [1, 2] == sorted(await d.sandbox.values("bad"))


def _owed(d: Desk) -> list[Any]:
    return [row for _, row in sorted(d.store._rows.outbox.items()) if row.owed]


class TestLostReplies:
    @pytest.mark.parametrize(("policy", "live", "historical"), [("resend", [1, 1, 2], []), ("historical", [1, 2], [1])])
    async def test_an_event_whose_reply_was_lost_is_sent_again(
        self, desk: Make, policy: str, live: list[float], historical: list[float]
    ) -> None:
        d = desk(on_lost_reply=policy)
        d.start()
        await d.home()
        await d.sandbox.faults({"kind": "close_after", "path": "/events", "times": 1})
        await d.queue(d.events(1, 2))
        await d.done()

        assert live == await d.sandbox.values(lane="live")
        assert historical == await d.sandbox.values(lane="historical")
        bodies = [call["body"] for call in await d.sandbox.calls("/events")]
        again = bodies[1] if policy == "resend" else bodies[1][0]
        assert bodies[0] == again
        assert 1 == (await d.store.census()).in_doubt
        assert [] == await d.dead()

    async def test_an_event_whose_reply_was_lost_is_held_for_the_operator(self, desk: Make) -> None:
        d = desk(on_lost_reply="hold")
        d.start()
        await d.home()
        await d.sandbox.faults({"kind": "close_after", "path": "/events", "times": 1})
        await d.queue(d.events(1, 2), d.events(3))
        await d.done()

        assert [1, 2, 3] == await d.sandbox.values()
        assert [DeadReason.IN_DOUBT] == [letter.reason for letter in await d.dead()]
        assert 1 == (await d.store.census()).in_doubt

    async def test_what_is_buried_unsent_tells_its_reason_once(self, desk: Make) -> None:
        d = desk(on_lost_reply="hold", timeout="30s")
        d.start(drain_timeout=timedelta())
        await d.home()
        await d.sandbox.faults({"kind": "latency", "seconds": 1, "path": "/events", "times": 1})
        await d.queue(d.events(1, 2, 3, age=HOUR))
        await d.until(lambda: bool(d.sender._calls))
        await d.kill()
        d.start()
        await d.done()

        assert ["lost reply", "in-doubt"] == (await attempts(d))[-2:]
        assert [DeadReason.IN_DOUBT] * 3 == [letter.reason for letter in await d.dead()]

    async def test_of_a_lost_array_every_event_is_held(self, desk: Make) -> None:
        d = desk(on_lost_reply="hold", historical_batch=3)
        d.start()
        await d.home()
        await d.sandbox.faults({"kind": "close_before", "path": "/events", "times": 1})
        await d.queue(d.events(1, 2, age=HOUR), d.events(3, 4, 5, age=HOUR))
        await d.done()

        assert [4, 5] == await d.sandbox.values()
        assert [DeadReason.IN_DOUBT] * 3 == [letter.reason for letter in await d.dead()]

    @pytest.mark.parametrize("policy", ["resend", "historical", "hold"])
    async def test_a_whole_state_is_always_sent_again(self, desk: Make, policy: str) -> None:
        d = desk(on_lost_reply=policy)
        await d.sandbox.faults({"kind": "close_after", "path": "/buildings", "times": 2})
        d.start()
        await d.home()

        assert [] == await d.dead()
        assert ["gateway:home-1"] == [device["id"] for device in (await d.sandbox.received())["devices"]["home-1"]]

    @pytest.mark.parametrize(
        ("policy", "values", "dead"),
        [("resend", [1, 1, 2], []), ("historical", [1, 1, 2], []), ("hold", [1, 2], [DeadReason.IN_DOUBT])],
    )
    async def test_a_crash_during_a_call_is_resolved_like_a_lost_reply(
        self, desk: Make, policy: str, values: list[float], dead: list[DeadReason]
    ) -> None:
        d = desk(on_lost_reply=policy)
        d.start()
        await d.home()
        await d.sandbox.faults({"kind": "latency", "seconds": 0.3, "path": "/events", "times": 1})
        await d.queue(d.events(1, 2))

        async def on_the_wire() -> bool:
            return bool(await d.sandbox.fired() == [1])

        await d.until(on_the_wire)
        await d.kill()

        async def stored() -> bool:
            return bool(await d.sandbox.values() == [1])

        await d.until(stored)
        d.start()
        await d.done()

        assert values == await d.sandbox.values()
        assert dead == [letter.reason for letter in await d.dead()]
        if policy == "historical":
            assert [1] == await d.sandbox.values(lane="historical")
        bodies = [call["body"] for call in await d.sandbox.calls("/events")]
        flat = [event for body in bodies for event in (body if isinstance(body, list) else [body])]
        assert 1 == len({str(event) for event in flat if event["value"] == 1})


class TestFaults:
    async def test_a_bug_in_one_item_is_a_dead_letter_and_the_others_go_on(
        self, desk: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        check = validate.event

        def buggy(body: JsonObject, *, battery_soc: bool = False) -> str | None:
            if body["value"] == 2:
                raise KeyError("a value that nobody may see: 2")
            return check(body, battery_soc=battery_soc)

        monkeypatch.setattr(validate, "event", buggy)
        d = desk()
        d.start()
        await d.home("home-1", "home-2")
        await d.queue(d.events(1, 2, 3), d.events(2, 4, age=HOUR), d.events(1, building="home-2"))
        await d.done()

        letters = await d.dead()
        assert [1, 3, 4] == await d.sandbox.values()
        assert [1] == await d.sandbox.values("home-2")
        assert [DeadReason.FAULT] * 2 == [letter.reason for letter in letters]
        assert all("KeyError at test_trouble.py:" in letter.detail for letter in letters)
        assert not any("nobody may see" in letter.detail for letter in letters)

    async def test_a_bug_on_the_wire_is_a_dead_letter_and_the_others_go_on(
        self, desk: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        d = desk()
        d.start()
        await d.home()
        real: Callable[..., Awaitable[Reply | Failure]] = d.client.call

        async def buggy(wire: WireCall, token: str) -> Reply | Failure:
            if b'"value":2,' in (wire.body or b""):
                raise RuntimeError(token)
            return await real(wire, token)

        monkeypatch.setattr(d.client, "call", buggy)
        await d.queue(d.events(1, 2, 3))
        await d.done()

        letters = await d.dead()
        assert [1, 3] == await d.sandbox.values()
        assert [DeadReason.FAULT] == [letter.reason for letter in letters]


class Moody(MemoryStore):
    """A store that cannot always serve."""

    def __init__(self) -> None:
        super().__init__()
        self.refuses: set[str] = set()
        self.refused = 0
        self.in_flight = 0
        self.most_in_flight = 0

    def _may(self, name: str) -> None:
        if name in self.refuses:
            self.refused += 1
            raise StoreUnavailable("the disk is on strike")

    async def lease(
        self,
        now: datetime,
        lanes: int,
        calls: int,
        hold: timedelta,
        *,
        held: Mapping[Line, int] = NO_LINES,
        afresh: bool = False,
    ) -> Sequence[Lane]:
        self._may("lease")
        return await super().lease(now, lanes, calls, hold, held=held, afresh=afresh)

    async def next_due(self) -> datetime | None:
        self._may("next_due")
        return await super().next_due()

    async def settle(
        self, now: datetime, settlements: Sequence[Settlement], begun: Sequence[Begin], returned: Sequence[Return]
    ) -> Sequence[int]:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(0)
        self.in_flight -= 1
        self._may("settle")
        return await super().settle(now, settlements, begun, returned)


class TestStore:
    @pytest.mark.parametrize("method", ["lease", "settle", "next_due"])
    async def test_where_the_store_cannot_serve_the_sender_waits_and_goes_on(self, desk: Make, method: str) -> None:
        d = desk()
        d.store = Moody()
        d.start()
        await d.home()
        d.store.refuses = {method}
        await d.queue(d.events(1, 2, 3))
        await d.until(lambda: d.store.refused >= 2)
        assert "store" in d.sender.state.problems
        d.store.refuses = set()
        await d.done()

        assert [1, 2, 3] == await d.sandbox.values()
        await d.until(lambda: d.sender.state.problems == set())

    async def test_a_result_that_cannot_be_written_is_kept(self, desk: Make) -> None:
        d = desk()
        d.store = Moody()
        d.start()
        await d.home()
        await d.sandbox.faults({"kind": "latency", "seconds": 0.2, "path": "/events", "times": 1})
        await d.queue(d.events(1))
        await d.until(lambda: bool(d.sender._calls))
        d.store.refuses = {"settle"}
        await d.until(lambda: d.store.refused >= 2)
        d.store.refuses = set()
        await d.done()

        assert [1] == await d.sandbox.values()
        assert 1 == (await d.store.census()).delivered - 2

    async def test_one_transaction_is_in_flight_at_a_time(self, desk: Make) -> None:
        d = desk()
        d.store = Moody()
        d.start()
        names = [f"home-{number}" for number in range(10)]
        await d.home(*names)
        for name in names:
            await d.queue(d.events(1, 2, 3, building=name))
        await d.done()

        assert 1 == d.store.most_in_flight


class TestClock:
    async def test_what_waits_by_a_clock_that_was_ahead_goes_on_when_it_is_set_back(self, desk: Make) -> None:
        d = desk()
        d.start()
        await d.home()
        await d.sandbox.faults({"kind": "status", "status": 500, "path": "/events", "times": 1})
        d.time.offset = HOUR
        await d.queue(d.events(1))

        async def refused() -> bool:
            return bool(await d.sandbox.fired() == [1] and (await d.store.next_due()) > d.time.now())

        await d.until(refused)
        d.time.offset = timedelta()
        await d.done()

        assert [1.0] == await d.sandbox.values()

    async def test_a_jump_ahead_puts_no_second_call_of_a_building_on_the_wire(self, desk: Make) -> None:
        d = desk()
        d.start()
        await d.home()
        await d.sandbox.faults({"kind": "latency", "seconds": 1.0, "path": "/events", "times": 1})
        await d.queue(d.events(1))

        async def on_the_wire() -> bool:
            return bool(await d.sandbox.fired() == [1])

        await d.until(on_the_wire)
        d.time.offset = HOUR
        await d.queue(d.events(2))
        await d.done()
        await d.until(lambda: not d.sender._calls)

        assert [1.0, 2.0] == await d.sandbox.values()


class TestDrain:
    async def test_a_call_on_the_wire_is_awaited_and_settled_and_nothing_new_begins(self, desk: Make) -> None:
        d = desk()
        d.start()
        await d.home()
        await d.sandbox.faults({"kind": "latency", "seconds": 0.5, "path": "/events"})
        await d.queue(d.events(1, 2, 3))
        await d.until(lambda: bool(d.sender._calls))
        await d.stop()

        assert [1] == await d.sandbox.values()
        assert 3 == (await d.store.census()).delivered
        assert "in doubt" not in [_state(row) for row in d.store._rows.outbox.values()]
        assert all(lane.lent_until is None for lane in d.store._rows.lanes.values())
        d.start()
        await d.done()
        assert [1, 2, 3] == await d.sandbox.values()

    async def test_a_call_that_does_not_end_is_left_in_doubt_in_time(self, desk: Make) -> None:
        d = desk(timeout="30s")
        d.start(drain_timeout=timedelta(seconds=0.5))
        await d.home()
        await d.sandbox.faults({"kind": "latency", "seconds": 3, "path": "/events", "times": 1})
        await d.queue(d.events(1))
        await d.until(lambda: bool(d.sender._calls))
        started = time.monotonic()
        await d.stop()

        assert time.monotonic() - started < 2
        assert ["in doubt"] == [_state(row) for row in d.store._rows.outbox.values() if row.owed]
        await d.store.open()
        assert 1 == (await d.store.census()).in_doubt, "nobody knows what became of it, and that is counted"


def _state(row: CallRow) -> str:
    return "in doubt" if row.doubt is not None else row.progress.state.value


async def test_a_long_lane_does_not_delay_the_others(desk: Make) -> None:
    d = desk(max_concurrency=1)
    d.start()
    await d.home("long", "short")
    await d.sandbox.faults({"kind": "latency", "seconds": 0.005, "path": "/events"})
    await d.queue(d.events(*range(200), building="long"))
    await d.until(lambda: d.store._rows.ledger.delivered > 10)
    await d.queue(d.events(1, building="short"))

    async def served() -> bool:
        return bool(await d.sandbox.values("short") == [1])

    await d.until(served)
    assert len(await d.sandbox.values("long")) < 100


async def test_metrics_count_what_happened(desk: Make) -> None:
    d = desk()
    d.start()
    await d.home()
    await d.sandbox.faults({"kind": "status", "status": 503, "path": "/events/v1", "times": 1})
    await d.queue(d.events(1, 2), d.events(3, 4, age=HOUR))
    await d.done()

    text = d.metrics.render().decode()
    assert 'bridge_calls_delivered_total{call="event",lane="live"} 2.0' in text
    assert 'bridge_calls_delivered_total{call="event",lane="historical"} 2.0' in text
    assert 'bridge_calls_delivered_total{call="building",lane="state"} 1.0' in text
    assert 'bridge_call_attempts_total{call="event",outcome="server-trouble"} 1.0' in text
    assert "bridge_circuit_open 0.0" in text
    assert "bridge_token_expires_seconds 86" in text


async def test_no_log_line_of_a_whole_day_of_trouble_holds_a_secret(
    desk: Make, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    d = desk(client_secret="canary-secret-0123456789")
    d.start()
    await d.queue(d.events(1))
    await d.until(lambda: "moost_auth" in d.sender.state.problems)
    await d.stop()
    d.settings = d.settings.model_copy(update={"client_secret": desk().settings.client_secret})
    await d.client.close()
    d.client = None
    d.start()
    await d.home()
    await d.sandbox.faults(
        {"kind": "revoke_tokens", "times": 1},
        {"kind": "status", "status": 403, "times": 1, "path": "/events"},
        {"kind": "close_before", "times": 1, "path": "/events"},
        {"kind": "status", "status": 500, "times": 1, "path": "/events"},
    )
    await d.queue(d.events(1, 2, 3))
    await d.done()

    tokens = [d.sender._tokens.current().value]
    letters = await d.store.dead_letters(DeadFilter())
    out, err = capfd.readouterr()
    ours = [record for record in caplog.records if not record.name.startswith("uvicorn")]  # the sandbox's own server
    logged = "\n".join(logging.Formatter().format(record) for record in ours)
    said = "\n".join([logged, out, err, repr(vars(d.sender)), repr(letters), repr(await attempts(d))])
    for secret in ["canary-secret-0123456789", "sandbox-secret", *tokens]:
        assert secret not in said
