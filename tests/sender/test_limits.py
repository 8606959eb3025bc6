"""How many calls may be on the wire (R6), in made-up time."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.sender.limits import Budget, Circuit, CircuitState, Concurrency, Failed, Gate, Served, Throttle

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def answers(limit: Concurrency, seconds: float, rounds: int, *, at: float = 0.0, pressed: bool = False) -> float:
    """Answer a full wire for some rounds; return when the last one ended."""
    for _ in range(rounds):
        at += seconds + 0.001
        limit.observe(seconds, limit.limit, at, pressed=pressed)
        limit.observe(seconds, limit.limit, at, pressed=pressed)
    return at


class TestConcurrency:
    def test_it_grows_one_by_one_to_the_highest_while_answers_stay_quick(self) -> None:
        limit = Concurrency(10)
        seen = []
        at = 0.0
        for _ in range(30):
            at = answers(limit, 0.1, 1, at=at)
            seen.append(limit.limit)

        assert 10 == limit.limit
        assert all(later - earlier in {0, 1} for earlier, later in itertools.pairwise(seen))

    def test_differences_of_milliseconds_do_not_hold_it_back(self) -> None:
        limit = Concurrency(32)
        at = 0.0
        for step in range(200):
            at = answers(limit, 0.001 + 0.004 * (step % 3), 1, at=at)

        assert 32 == limit.limit

    def test_it_does_not_grow_while_the_wire_is_not_full(self) -> None:
        limit = Concurrency(10)
        first = limit.limit
        for step in range(50):
            limit.observe(0.1, 1, step * 0.1, pressed=False)

        assert first == limit.limit

    def test_trouble_takes_a_tenth_down_to_one(self) -> None:
        limit = Concurrency(100)
        at = answers(limit, 0.1, 200)
        full = limit.limit
        at = answers(limit, 0.1, 1, at=at, pressed=True)

        assert int(full * 0.9) == limit.limit
        answers(limit, 0.1, 100, at=at, pressed=True)
        assert 1 == limit.limit

    def test_answers_that_become_slower_lower_it(self) -> None:
        limit = Concurrency(32)
        at = answers(limit, 0.1, 60)
        at = answers(limit, 0.11, 5, at=at)
        full = limit.limit
        answers(limit, 1.0, 3, at=at)

        assert limit.limit < full

    @given(st.integers(1, 1000), st.lists(st.tuples(st.floats(0, 30), st.booleans()), max_size=200))
    def test_it_stays_between_one_and_the_highest(self, highest: int, seen: list[tuple[float, bool]]) -> None:
        limit = Concurrency(highest)
        at = 0.0
        for seconds, pressed in seen:
            at += seconds
            limit.observe(seconds, limit.limit, at, pressed=pressed)

            assert 1 <= limit.limit <= highest


def failed(building: str = "home", *, connected: bool = True, cause: str = "status 500") -> Failed:
    return Failed(building=building, connected=connected, cause=cause)


class TestCircuit:
    def test_failures_of_several_buildings_in_a_row_open_it(self) -> None:
        circuit = Circuit()
        opened = [circuit.failed(failed(f"home-{number % 2}"), 0.0) for number in range(5)]

        assert [False] * 4 + [True] == opened
        assert CircuitState.OPEN is circuit.state
        assert circuit.holds_back

    def test_failures_of_the_only_building_on_its_way_are_told_and_hold_back_no_other(self) -> None:
        gate = Gate(32, 0)
        opened = [gate.circuit.failed(failed(), 0.0) for _ in range(100)]

        assert [False] * 4 + [True] + [False] * 95 == opened
        assert CircuitState.OPEN is gate.circuit.state
        assert gate.room(0, 0.0) > 1

    def test_once_another_building_fails_too_only_probes_go(self) -> None:
        gate = Gate(32, 0)
        for _ in range(5):
            gate.circuit.failed(failed(), 0.0)
        told_again = gate.circuit.failed(failed("another"), 100.0)

        assert not told_again
        assert 0 == gate.room(0, 100.0)
        assert 1 == gate.room(0, gate.circuit.probe_at)
        assert 100.0 < gate.circuit.probe_at <= 105.0

    def test_without_a_connection_one_building_is_enough(self) -> None:
        circuit = Circuit()

        assert [False] * 4 + [True] == [circuit.failed(failed(connected=False), 0.0) for _ in range(5)]
        assert circuit.holds_back

    def test_an_answer_in_between_starts_the_count_again(self) -> None:
        circuit = Circuit()
        for number in range(4):
            circuit.failed(failed(str(number), connected=False), 0.0)
        circuit.worked()

        assert not circuit.failed(failed(connected=False), 0.0)

    def test_it_knows_the_last_cause_until_an_answer_comes(self) -> None:
        circuit = Circuit()
        circuit.failed(failed(cause="name unknown"), 0.0)
        circuit.failed(failed(cause="connection refused"), 0.0)

        assert "connection refused" == circuit.cause
        circuit.worked()
        assert "" == circuit.cause

    def test_probes_are_at_most_5_s_apart_and_a_hanging_one_does_not_hold_up_the_next(self) -> None:
        gate = Gate(32, 0)
        for number in range(5):
            gate.circuit.failed(failed(str(number)), 0.0)
        at, gaps = 0.0, []
        for _ in range(10):
            last, at = at, max(at, gate.circuit.probe_at)
            gaps.append(at - last)
            assert 1 == gate.room(0, at)
            gate.begun(1, at)
            assert CircuitState.HALF_OPEN is gate.circuit.state
            assert 0 == gate.room(1, at)

        assert max(gaps) <= 5

    def test_an_answer_closes_it(self) -> None:
        gate = Gate(32, 0)
        for number in range(5):
            gate.circuit.failed(failed(str(number)), 0.0)

        assert gate.worked(0.1, 1, 1.0)
        assert not gate.worked(0.1, 1, 1.0)
        assert gate.room(0, 1.0) > 1


class TestThrottle:
    def test_it_stops_everything_as_long_as_it_was_asked(self) -> None:
        gate = Gate(32, 0)
        gate.throttled(17.0, 0.1, 1, 100.0)

        assert 0 == gate.room(0, 116.9)
        assert gate.room(0, 117.0) > 0
        assert 117.0 == gate.opens_at(100.0)

    def test_without_a_time_the_wait_doubles_to_30_s_once_per_wait(self) -> None:
        throttle = Throttle()
        at, waits = 0.0, []
        for _ in range(7):
            throttle.throttled(None, at)
            throttle.throttled(None, at)  # another call that was on the wire
            waits.append(throttle.until - at)
            at = throttle.until

        assert [1, 2, 4, 8, 16, 30, 30] == waits

    def test_a_short_wait_that_the_platform_asks_for_doubles_all_the_same(self) -> None:
        throttle = Throttle()
        at, waits = 0.0, []
        for _ in range(4):
            throttle.throttled(0.01, at)
            waits.append(throttle.until - at)
            at = throttle.until

        assert [1, 2, 4, 8] == waits

    def test_after_a_429_one_call_tries_it_and_the_others_follow(self) -> None:
        gate = Gate(32, 0)
        gate.throttled(None, 0.1, 1, 0.0)

        assert (1, 0) == (gate.room(0, 1.0), gate.room(1, 1.0))
        gate.worked(0.1, 1, 1.1)
        assert gate.room(0, 1.1) > 1

    def test_a_shorter_wait_does_not_end_a_longer_one(self) -> None:
        throttle = Throttle()
        throttle.throttled(60.0, 0.0)
        throttle.throttled(1.0, 0.0)

        assert 60.0 == throttle.until


class TestBudget:
    @pytest.mark.parametrize("rate", [0.5, 3, 20, 500])
    def test_no_second_sees_more_than_the_rate_and_the_whole_rate_is_used(self, rate: float) -> None:
        budget, at, begun = Budget(rate), 100.0, []
        while at < 110.0:
            free = budget.free(at)
            assert free is not None
            for _ in range(free):
                budget.use(1, at)
                begun.append(at)
            at += 0.003

        assert rate * 10 * 0.95 <= len(begun) <= rate * 10 * 1.05 + 2
        window = int(rate) + 1
        for first, last in zip(begun, begun[window:], strict=False):
            assert last - first >= 0.9

    def test_no_rate_is_no_limit(self) -> None:
        budget = Budget(0)
        budget.use(1000, 0.0)

        assert budget.free(0.0) is None


def test_who_else_was_served_is_known() -> None:
    served = Served()
    later = NOW + timedelta(minutes=1)

    assert served.other_than("a") is None
    served.note("a", NOW)
    assert served.other_than("a") is None
    served.note("b", later)
    served.note("b", later)
    assert (NOW, later, later) == (served.other_than("b"), served.other_than("a"), served.other_than("c"))
