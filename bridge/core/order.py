"""Which of two times of the device cloud is the later one (mapping rule M0.3).

Rules:
- Placing is not ordering. A time later than its receipt is placed at its receipt, but keeps what was sent.
- Two times that were both later than their receipts stand in the order in which they were sent: a clock that is ahead
  keeps its own order.
- Any other two stand in the order of their places: a clock that was mended is believed at once.
- This order is not transitive, so nothing is ever sorted by it: a new time is compared with the held one only.
"""

from datetime import datetime
from typing import NamedTuple


class Time(NamedTuple):
    """A time: where it is placed, and as it was sent where that was later than its receipt."""

    at: datetime
    sent: datetime | None = None

    def is_before(self, other: "Time") -> bool:
        """Tell whether this time is older than another one."""
        return is_before(self.at, self.sent, other.at, other.sent)


def is_before(at: datetime, sent: datetime | None, other_at: datetime, other_sent: datetime | None) -> bool:
    """Tell whether the first time is older than the second one."""
    if sent is not None and other_sent is not None:
        return sent < other_sent
    return at < other_at


def later(one: Time | None, other: Time) -> Time:
    """Return the later of two times, of which the first may be missing; of equal ones the first."""
    return other if one is None or one.is_before(other) else one
