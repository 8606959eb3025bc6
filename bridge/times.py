"""What time it is: the wall clock, or simulated time for tests and the demo."""

from collections.abc import Callable
from datetime import UTC, datetime

Now = Callable[[], datetime]
"""Tells the time as aware UTC datetime."""


def wall() -> datetime:
    """Return the time of the system clock."""
    return datetime.now(UTC)


def simulated(start: datetime, speed: float, anchor: datetime) -> Now:
    """Return a clock that shows `start` at the wall time `anchor` and runs `speed` times as fast.

    A fast clock that starts in the past stays with the wall clock once it has caught up.
    """

    def now() -> datetime:
        real = wall()
        shown = start + (real - anchor) * speed
        return min(shown, real) if start < anchor and speed > 1 else shown

    return now
