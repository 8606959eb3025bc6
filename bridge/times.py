"""What time it is: the wall clock, or simulated time for tests and the demo."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Now = Callable[[], datetime]
"""Tells the time as aware UTC datetime."""


def wall() -> datetime:
    """Return the time of the system clock."""
    return datetime.now(UTC)


def simulated(start: datetime, speed: float, anchor: datetime | None = None) -> Now:
    """Return a clock that shows `start` at the wall time `anchor` (default: now) and runs `speed` times as fast."""
    if anchor is None:
        since = time.monotonic()
        return lambda: start + timedelta(seconds=(time.monotonic() - since) * speed)
    return lambda: start + (wall() - anchor) * speed
