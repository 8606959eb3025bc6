"""What happens again and again: told when it begins and when it ends, or once a minute."""

from typing import Any

import pytest

from bridge import repeated
from bridge.repeated import Digest, Outage


class Log:
    """Keeps lines."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def warning(self, event: str, **fields: Any) -> None:  # noqa: ANN401
        self.lines.append(("warning", event, fields))

    def info(self, event: str, **fields: Any) -> None:  # noqa: ANN401
        self.lines.append(("info", event, fields))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_trouble_is_one_line_when_it_begins_and_one_when_the_last_room_is_rid_of_it(log: Log, clock: Clock) -> None:
    outage = Outage(log, "store_unavailable", "store_available_again", clock=clock)  # type: ignore[arg-type]
    outage.over("worker")
    for second in range(20):
        clock.now = float(second)
        outage.met("worker", "it is away")
        outage.met("clock", "it is away" if second < 10 else "it refuses us")
    clock.now = 21.0
    outage.over("worker")
    assert outage.lasts
    assert [("warning", "store_unavailable", {"room": "worker", "reason": "it is away"})] == log.lines
    outage.over("clock")
    outage.over("worker")
    assert not outage.lasts
    told = {"seconds": 21.0, "times": 40, "last_reason": "it refuses us"}
    assert [("info", "store_available_again", told)] == log.lines[1:]


def test_trouble_that_flaps_is_one(log: Log, clock: Clock) -> None:
    outage = Outage(log, "began", "ended", clock=clock)  # type: ignore[arg-type]
    for tenth in range(100):
        clock.now = tenth / 10
        outage.met("sender", "no")
        outage.over("sender")
    clock.now += repeated.QUIET_S
    outage.over("sender")
    assert ["began", "ended"] == [event for _, event, _ in log.lines]
    outage.met("sender", "again")
    assert 3 == len(log.lines)


def test_the_first_of_a_kind_is_told_at_once_and_then_one_line_a_minute(log: Log, clock: Clock) -> None:
    digest = Digest(log, "request_refused", "subscription", "status", clock=clock)  # type: ignore[arg-type]
    for second in range(150):
        clock.now = float(second)
        digest.note("acme", 401)
        if second < 2:
            digest.note(None, 404)
        digest.tell()
    counts = [(fields.get("subscription"), fields["status"], fields["count"]) for _, _, fields in log.lines]
    assert [("acme", 401, 1), (None, 404, 1), ("acme", 401, 60), (None, 404, 1), ("acme", 401, 60)] == counts
    clock.now += 1000
    digest.tell()
    assert 29 == log.lines[-1][2]["count"], "nothing is left untold"
    digest.tell()
    assert 6 == len(log.lines)


def test_kinds_are_bounded(log: Log, clock: Clock) -> None:
    digest = Digest(log, "refused", "who", clock=clock)  # type: ignore[arg-type]
    for number in range(5_000):
        digest.note(f"stranger-{number}")
    assert repeated.MOST_KINDS + 1 == len(log.lines)
    clock.now = 61
    digest.tell()
    assert 5_000 == sum(fields["count"] for _, _, fields in log.lines)
    digest.tell()
    clock.now = 200
    digest.tell()
    assert {} == digest._told
