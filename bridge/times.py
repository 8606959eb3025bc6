"""What time it is: the wall clock, or simulated time for tests and the demo."""

from collections.abc import Callable
from datetime import UTC, datetime

Now = Callable[[], datetime]
"""Tells the time as aware UTC datetime."""


def wall() -> datetime:
    """Return the time of the system clock."""
    return datetime.now(UTC)


def simulated(start: datetime, speed: float, anchor: datetime, true: Now | None = None) -> Now:
    """Return a clock that shows `start` at the true time `anchor` and runs `speed` times as fast.

    A fast clock that starts in the past stays with the true time once it has caught up. The true time is that of the
    wall clock, unless `true` tells it.
    """

    def now() -> datetime:
        real = wall() if true is None else true()
        shown = start + (real - anchor) * speed
        return min(shown, real) if start < anchor and speed > 1 else shown

    return now
