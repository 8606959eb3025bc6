"""Reached limits: counted, told once a minute with the payer who is most in it, remembered for an hour."""

from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from bridge import limits as limits_room
from bridge.limits import Limit, LimitCounts
from bridge.metrics import Metrics

ONE = Limit.CONNECTIONS


class World:
    """Counts on a clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.metrics = Metrics()
        self.counts = LimitCounts(self.metrics, clock=lambda: self.now)

    def metric(self, limit: Limit = ONE) -> float | None:
        return self.metrics.registry.get_sample_value("bridge_limit_reached_total", {"limit": limit.value})


@pytest.fixture
def world() -> World:
    return World()


def lines(logs: list[Any]) -> list[tuple[str, str, int, int]]:
    return [
        (line["limit"], line["payer"], line["count"], line["payers"])
        for line in logs
        if line["event"] == "limit_reached"
    ]


@pytest.fixture(autouse=True)
def _plain_structlog() -> None:
    structlog.reset_defaults()


@pytest.mark.parametrize("limit", list(Limit))
def test_every_limit_is_exported_as_zero_before_it_is_reached(world: World, limit: Limit) -> None:
    assert world.metric(limit) == 0
    assert {} == world.counts.of_last_hour()


def test_what_is_reached_is_counted_in_the_metric_and_for_an_hour_in_health(world: World) -> None:
    world.counts.reached(ONE, "192.0.2.1")
    world.now += 1_800
    world.counts.reached(ONE, "192.0.2.1", 4)
    assert {"connections": 5} == world.counts.of_last_hour()
    world.now += 1_860
    assert {"connections": 4} == world.counts.of_last_hour()
    world.now += 3_600
    assert {} == world.counts.of_last_hour()
    assert world.metric() == 5


def test_the_first_time_is_one_line_at_once_and_then_one_a_minute_names_the_most_frequent(world: World) -> None:
    with capture_logs() as logs:
        world.counts.reached(ONE, "192.0.2.1")
        assert [("connections", "192.0.2.1", 1, 1)] == lines(logs)
        for payer, times in (("192.0.2.2", 2), ("192.0.2.3", 7)):
            for _ in range(times):
                world.counts.reached(ONE, payer)
        world.counts.tell()
        assert 1 == len(lines(logs))
        world.now += 61
        world.counts.tell()
        assert ("connections", "192.0.2.3", 9, 2) == lines(logs)[-1]
        world.now += 61
        world.counts.tell()
    assert 2 == len(lines(logs))


def test_a_million_payers_are_counted_but_not_all_remembered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits_room, "MOST_PAYERS", 10)
    with capture_logs() as logs:
        for number in range(1_001):
            world.counts.reached(ONE, f"192.0.2.{number}")
        world.now += 61
        world.counts.tell()
    assert 1_000 == lines(logs)[-1][2]
    assert lines(logs)[-1][3] <= 11


def test_while_a_subscription_is_refused_health_has_a_problem(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.counts.reached(ONE, "192.0.2.1")
    assert [] == world.counts.problems()
    monkeypatch.setattr(limits_room, "REFUSING", frozenset({ONE}))
    assert ["subscription_limited"] == world.counts.problems()
    world.now += 61
    assert [] == world.counts.problems()
