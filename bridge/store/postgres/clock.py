"""The server's clock: what decides over leases and turns, and what time it is for everybody who shares the store.

Rules:
- Leases and turns are decided by the server within the statement that writes them. Of the times that a caller tells
  only differences count; a replica whose clock is wrong, or steps, takes nothing that is not its own.
- What a replica does between two statements (dates a message, closes a slot) it does by `ServerClock.now`, which goes
  on by a clock of this machine that nobody sets, and is compared with the server's every few seconds.
- A test that plays with time tells the times itself (`told`).

Theory of operation: an answer that said T, asked for at A and heard at H (by our steady clock), proves that the
server's clock is ahead of ours by something between T-H and T-A. The bounds of all answers so far, widened by what two
clocks may drift apart meanwhile, are cut with the new ones; so one quick answer serves for a long time, and a slow one
spoils nothing. Where they do not meet, the server's clock was set, or it is another server: the new ones hold.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Final

DRIFT: Final = 0.001
"""Seconds that two clocks may drift apart within a second; NTP corrects by at most half of that, each of them."""

NOW: Final = "extract(epoch FROM clock_timestamp())::float8"
"""The SQL for the server's time [epoch s]."""


def server_ms(place: int) -> str:
    """Return the SQL for the time [ms]: as told in a parameter of the statement, else the server's."""
    return f"coalesce(${place}::bigint, (extract(epoch FROM statement_timestamp()) * 1000)::bigint)"


def steady() -> float:
    """Return the seconds of a clock that nobody sets; where the system has one, it goes on while the machine sleeps."""
    return _steady()


_steady: Final[Callable[[], float]] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
)


class ServerClock:
    """Tells the server's time between two answers of it."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._least = self._most = 0.0  # bounds of how far the server's clock is ahead of the steady one [s]
        self._ahead: float | None = None  # what is taken for it; None = not yet compared
        self._compared_at = 0.0

    def now(self) -> datetime:
        """Return the time of the server; before the first answer that of this machine."""
        return datetime.now(UTC) if self._ahead is None else datetime.fromtimestamp(steady() + self._ahead, UTC)

    def learn(self, told: float, asked: float, heard: float) -> float:
        """Take in what the server said [epoch s] between two times of the steady clock.

        Returns by how much its clock was set [s]; 0 = it went on.
        """
        least, most, known = told - heard, told - asked, self._ahead
        drift = DRIFT * (heard - self._compared_at)
        self._compared_at = heard
        if known is not None and self._least - drift <= most and least <= self._most + drift:
            least, most = max(least, self._least - drift), min(most, self._most + drift)
            known = min(max(known, least), most)
        self._least, self._most = least, most
        self._ahead = (least + most) / 2 if known is None or not least <= known <= most else known
        return 0.0 if known is None else self._ahead - known
