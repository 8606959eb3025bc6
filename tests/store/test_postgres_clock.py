"""Whose clock counts where several replicas share a database: the server's, for leases, turns and slots."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from bridge.store.port import Begin, Return, Work
from bridge.store.postgres import PostgresStore, clock, keeper
from bridge.store.postgres.clock import DRIFT, ServerClock, steady
from tests.store.replicas import Opened, stop_heart, until
from tests.store.values import DAY, HOLD, NOW, SECOND, doubt, events, house, out

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)
NEAR = timedelta(seconds=5)


# ---- the clock between two answers ----------------------------------------------------------------------------------


class Times:
    """A steady clock and a server that a test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ours, self.server = 1_000.0, NOW.timestamp()
        self.clock = ServerClock()
        monkeypatch.setattr(clock, "steady", lambda: self.ours)

    def pass_(self, seconds: float) -> None:
        self.ours += seconds
        self.server += seconds

    def ask(self, there: float = 0.001, back: float = 0.001) -> float:
        """Ask the server; return by how much it seems to have been set."""
        asked = self.ours
        self.pass_(there)
        told = self.server
        self.pass_(back)
        return self.clock.learn(told, asked, self.ours)

    @property
    def error(self) -> float:
        return self.clock.now().timestamp() - self.server


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Times:
    return Times(monkeypatch)


def test_before_the_first_answer_the_clock_of_this_machine_is_all_there_is() -> None:
    assert abs(ServerClock().now() - datetime.now(UTC)) < NEAR


def test_after_a_quick_answer_it_tells_the_server_s_time(times: Times) -> None:
    assert 0 == times.ask()
    times.pass_(3)
    assert abs(times.error) < 0.002


def test_a_slow_answer_spoils_nothing(times: Times) -> None:
    times.ask()
    for there, back in ((9.0, 0.001), (0.001, 9.0), (20.0, 20.0)):
        assert 0 == times.ask(there, back)
        assert abs(times.error) < 0.1


def test_a_quick_answer_mends_a_slow_one(times: Times) -> None:
    times.ask(0.001, 4.0)
    assert abs(times.error) > 1
    times.ask()
    assert abs(times.error) < 0.002


def test_clocks_that_drift_apart_are_followed(times: Times) -> None:
    times.ask()
    for _ in range(1_000):
        times.pass_(3)
        times.server += 3 * DRIFT / 2
        assert 0 == times.ask()
        assert abs(times.error) < 0.02


@pytest.mark.parametrize("by", [-3_600.0, -2.0, 2.0, 3_600.0])
def test_a_server_whose_clock_is_set_or_that_is_another_is_believed(times: Times, by: float) -> None:
    times.ask()
    times.pass_(3)
    times.server += by
    assert times.ask() == pytest.approx(by, abs=0.01)
    assert abs(times.error) < 0.002


def test_no_step_of_the_system_s_clock_moves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = ServerClock()
    found.learn(time.time(), steady(), steady())
    before, real = found.now(), time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3_600)
    assert timedelta() <= found.now() - before < NEAR


# ---- replicas -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [HOUR, -HOUR, 60 * DAY])
async def test_a_replica_whose_clock_is_wrong_takes_no_lane_that_is_lent(opened: Opened, wrong: timedelta) -> None:
    one, two = await opened(told=False), await opened(told=False)
    now = datetime.now(UTC)
    await one.commit(Work(now=now, calls=out(events("a", 1))))
    assert ["a"] == [lane.building for lane in await one.lease(now, 1, 1, HOLD)]
    assert [] == await two.lease(now + wrong, 1, 1, HOLD)
    assert [] == await two.lease(now + wrong, 1, 1, HOLD, afresh=True)


@pytest.mark.parametrize("wrong", [HOUR, -HOUR, 60 * DAY])
async def test_what_a_replica_with_a_wrong_clock_queues_lends_and_gives_back_has_the_server_s_times(
    opened: Opened, wrong: timedelta
) -> None:
    one, two = await opened(told=False), await opened(told=False)
    now = datetime.now(UTC)
    await two.commit(Work(now=now + wrong, calls=out(events("a", 1))))
    (lane,) = await one.lease(now, 1, 1, HOLD)
    await one.settle(now, [], [], [Return(building="a", at=now)])
    (lane,) = await two.lease(now + wrong, 1, 1, HOLD)
    assert timedelta() < lane.until - (now + wrong) <= HOLD, "by its own clock"
    lent = await one.next_due()
    assert lent is not None
    assert abs(lent - now - HOLD) < NEAR
    await two.settle(now + wrong, [], [], [Return(building="a", at=now + wrong + 10 * SECOND)])
    due = await one.next_due()
    assert due is not None
    assert abs(due - now - 10 * SECOND) < NEAR


async def test_a_call_whose_lease_is_over_does_not_begin_though_nobody_has_taken_it_yet(opened: Opened) -> None:
    """Its replica may have slept, or go by a clock that was set back."""
    one = await opened()
    await one.commit(Work(now=NOW, calls=out(events("a", 1), events("b", 1))))
    await one.lease(NOW, 1, 1, HOLD)
    await one.lease(NOW + SECOND, 1, 1, HOLD)
    begun = [Begin(call_id=1, doubt=doubt()), Begin(call_id=2, doubt=doubt())]
    assert [1] == await one.settle(NOW + HOLD, [], begun, [])
    (lane,) = await one.lease(NOW + HOLD, 1, 1, HOLD)
    assert ("a", None) == (lane.building, lane.calls[0].doubt)


async def test_all_replicas_go_by_the_server_s_clock_whatever_theirs_says(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await opened(told=False), await opened(told=False)
    now, real = datetime.now(UTC), time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3_600)
    for each in (one, two):
        await each._look_around()
        assert abs(each.clock() - now) < NEAR


async def test_a_clock_that_turns_out_to_be_wrong_closes_nothing(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the steady clock of a machine may jump, where that is a guest that was moved."""
    one = await opened(told=False)
    stop_heart(one)
    at = one.clock() + timedelta(minutes=30)
    await one.commit(Work(now=one.clock(), buildings=[house("a")], due={"a": at}))
    jumped = steady()
    for module in (clock, keeper):
        monkeypatch.setattr(module, "steady", lambda: jumped + 3_600)
    assert one.clock() > at
    assert [] == list((await one.due(one.clock(), 1))[1])
    assert one.clock() < at
    assert [] == list((await one.due(one.clock(), 1))[1])
    assert ["a"] == list((await one.due(at, 1))[1])


async def test_after_a_step_back_of_the_server_s_clock_a_replica_that_is_gone_is_taken_over(opened: Opened) -> None:
    lease = timedelta(seconds=1)
    one, two = await opened(lease=lease), await opened(lease=lease)
    await one.claim(1)
    stop_heart(one)
    gone = one._share.replica

    async def ahead() -> None:
        await two._look(
            lambda con: con.execute("UPDATE replica SET until = until + interval '1 day' WHERE id = $1", gone)
        )

    await ahead()
    two._learn(time.time() - 86_400, steady())

    async def everything() -> bool:
        await two.claim(1)
        return 256 == len(two._share.buckets)

    await until(everything, "the other has all")


async def test_a_building_that_a_clock_took_before_the_server_s_was_set_back_is_free(opened: Opened) -> None:
    one, two = await opened(), await opened()
    await one.commit(Work(now=NOW, buildings=[house("a")], due={"a": NOW}))
    await until(lambda: _know_of_each_other(one, two), "they know of each other")
    assert ["a"] == list((await one.due(NOW, 1))[1])
    assert [] == list((await two.due(NOW, 1))[1])
    await two._look(lambda con: con.execute("UPDATE building SET taken_until = taken_until + interval '1 day'"))
    assert ["a"] == list((await two.due(NOW, 1))[1])


async def _know_of_each_other(*keepers: PostgresStore) -> bool:
    return not any(each._share.alone for each in keepers)
