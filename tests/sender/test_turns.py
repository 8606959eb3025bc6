"""Nobody waits for what another subscription, or a lower rank, has to send (R13)."""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.effects import CreateBuilding
from bridge.sender.lanes import Run
from bridge.sender.limits import Gate
from bridge.sender.ready import Ready
from bridge.store.port import Lane, Owed
from bridge.store.ranks import Line, Rank, lent
from tests.sender.conftest import Desk, Sandbox, sheet

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


def run_of(building: str) -> Run:
    owed = Owed(id=1, call=CreateBuilding(building=building, attributes={}), subscription="s", queued=NOW)
    return Run.of(Lane(building=building, calls=(owed,), until=NOW))


def order(ready: Ready, turns: int, full: Sequence[str] = ()) -> str:
    """Let each lane that has its turn make one call and wait again; return whose turns those were."""
    names = ""
    for _ in range(turns):
        taken = ready.take(full)
        if taken is None:
            break
        run, line = taken
        names += run.lane.building
        ready.use(line, 1)
        ready.add(run, line)
    return names


# ---- lanes in hand --------------------------------------------------------------------------------------------------


def test_subscriptions_take_turns_however_many_lanes_they_have() -> None:
    ready = Ready()
    for building in "abcde":
        ready.add(run_of(building), Line("mad", Rank.STATE))
    ready.add(run_of("z"), Line("calm", Rank.HISTORY))
    assert "azbzczdz" == order(ready, 8)


def test_a_rank_has_three_turns_for_each_of_the_one_below() -> None:
    ready = Ready()
    for rank, building in zip(Rank, "lsh", strict=True):
        ready.add(run_of(building), Line("one", rank))
        ready.add(run_of(building), Line("one", rank))
    assert {"l": 27, "s": 9, "h": 3} == Counter(order(ready, 39))


def test_whoever_comes_late_waits_for_one_call_at_most() -> None:
    ready = Ready()
    ready.add(run_of("s"), Line("one", Rank.STATE))
    order(ready, 1_000)
    ready.add(run_of("l"), Line("one", Rank.LIVE))
    assert "l" in order(ready, 2)
    ready.add(run_of("z"), Line("two", Rank.STATE))
    assert "z" in order(ready, 2)


def test_who_has_its_part_of_the_wire_is_passed_over() -> None:
    ready = Ready()
    ready.add(run_of("a"), Line("mad", Rank.LIVE))
    ready.add(run_of("b"), Line("calm", Rank.LIVE))
    assert "bbb" == order(ready, 3, full=["mad"])
    assert "" == order(ready, 3, full=["mad", "calm"])


def test_a_lane_that_could_not_use_its_turn_has_the_next_one() -> None:
    ready, line = Ready(), Line("one", Rank.LIVE)
    for building in "ab":
        ready.add(run_of(building), line)
    run, _ = ready.take() or (None, None)
    assert run is not None
    ready.use(line, 1)
    ready.add(run, line, first=True)
    assert "ab" == order(ready, 2)


def test_lanes_that_are_taken_out_have_no_turn() -> None:
    ready = Ready()
    for building in "abc":
        ready.add(run_of(building), Line(building, Rank.LIVE))
    ready.add(run_of("d"), Line("a", Rank.LIVE))
    gone = ready.remove(lambda run: run.lane.building in "ab")
    assert ["a", "b"] == [run.lane.building for run in gone]
    assert (2, {Line("c", Rank.LIVE): 1, Line("a", Rank.LIVE): 1}) == (len(ready), ready.lines)
    assert "b" not in ready
    assert "dc" == order(ready, 2)
    ready.remove(lambda _: True)
    assert None is ready.take()


# ---- lanes that are lent --------------------------------------------------------------------------------------------

lines = st.builds(Line, st.sampled_from("abc"), st.sampled_from(Rank))


@given(st.dictionaries(lines, st.integers(0, 40)), st.dictionaries(lines, st.integers(0, 40)), st.integers(0, 60))
def test_who_has_no_more_than_its_part_gets_all_that_it_asks_for(
    due: dict[Line, int], held: dict[Line, int], lanes: int
) -> None:
    found = lent(due, held, lanes)
    assert all(0 < count <= due[line] for line, count in found.items())
    names = {line.subscription for line in [*due, *held]}
    for name in names:
        wanted = sum(count for part in (due, held) for line, count in part.items() if line.subscription == name)
        if wanted <= lanes // len(names):
            mine = {line: count for line, count in due.items() if line.subscription == name and count}
            assert mine == {line: count for line, count in found.items() if line.subscription == name}
    if not any(held.values()):
        assert sum(found.values()) == min(lanes, sum(due.values()))


# ---- the wire -------------------------------------------------------------------------------------------------------


def test_one_of_several_has_three_quarters_of_the_wire() -> None:
    gate = Gate(8, 0, several=True)
    assert (4, 3) == (gate.concurrency.limit, gate.concurrency.share)
    gate.concurrency.limit = 1
    assert 1 == gate.concurrency.share
    assert 4 == Gate(8, 0).concurrency.share


def test_the_wire_grows_though_one_of_several_has_but_a_part_of_it() -> None:
    gate, at = Gate(8, 0, several=True), 0.0
    for _ in range(200):
        at += 0.1
        gate.worked(0.1, gate.concurrency.share, at)
    assert 8 == gate.concurrency.limit


async def test_calls_that_hang_leave_a_quarter_of_the_wire_to_the_others(
    desk: Callable[..., Desk], sandbox: Sandbox
) -> None:
    d = desk(max_concurrency=4, timeout="20s")
    reached: Counter[str] = Counter()
    d.start(subscriptions=2, reached=lambda limit, payer, count: reached.update({f"{limit} {payer}": count}))
    await d.home("calm")
    await sandbox.faults({"kind": "latency", "seconds": 10, "path": "/buildings/v1"})
    await d.queue(*(sheet(f"mad-{number}")[0] for number in range(20)), subscription="mad")
    await d.until(lambda: reached["calls_on_the_wire mad"] > 0)
    await d.queue(d.events(7, building="calm"), subscription="calm")

    async def served() -> bool:
        return [7] == await sandbox.values("calm")

    await d.until(served, seconds=5)
    await d.kill()


async def test_six_hundred_new_buildings_hold_up_nobodys_event(desk: Callable[..., Desk], sandbox: Sandbox) -> None:
    d = desk(max_concurrency=4)
    await d.queue(*sheet("same"), *sheet("other"))
    d.start(subscriptions=2)
    await d.done()
    await sandbox.faults({"kind": "latency", "seconds": 0.05})
    burst: list[Any] = [call for number in range(150) for call in sheet(f"new-{number}")]
    await d.queue(*burst, subscription="mad")
    await d.until(lambda: len(d.sender._hand.ready) > 0)
    before = len(await sandbox.calls())
    await d.queue(d.events(1, building="same"), subscription="mad")
    await d.queue(d.events(2, building="other"), subscription="calm")

    async def served() -> bool:
        return [[1], [2]] == [await sandbox.values("same"), await sandbox.values("other")]

    await d.until(served)
    assert len(await sandbox.calls()) - before < 100, "they did not wait for all the new buildings"
    await d.kill()


async def test_old_events_of_one_household_hold_up_no_live_one(desk: Callable[..., Desk], sandbox: Sandbox) -> None:
    d = desk(max_concurrency=1, historical_batch=1)
    await d.queue(*sheet("late"), *sheet("live"))
    d.start()
    await d.done()
    await sandbox.faults({"kind": "latency", "seconds": 0.02})
    old = [d.events(number, building="late", age=timedelta(hours=2)) for number in range(60)]
    await d.queue(*old)
    await d.queue(*(d.events(number, building="live") for number in range(9)))

    async def served() -> bool:
        return 9 == len(await sandbox.values("live"))

    await d.until(served)
    assert len(await sandbox.values("late")) < 20
    await d.kill()
