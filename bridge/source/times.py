"""Times as the device cloud writes them (M0.3).

Rules:
- ISO 8601 with 0-9 fractional digits, Z or an offset, no zone meaning UTC; or epoch seconds, above 10^11 milliseconds.
- A time before 2015 counts as missing; one after the receipt is the receipt.

Source: EHA developer portal, "Streaming examples" (three fractional digits, none in generated ones); EHA demo
application (`Z` or a numeric offset; epoch numbers nowhere, but cheap to accept).
"""

from datetime import UTC, datetime, timedelta
from typing import Final

EARLIEST: Final = datetime(2015, 1, 1, tzinfo=UTC)
FAR_AHEAD: Final = timedelta(minutes=10)  # a clock further ahead than this is counted
MILLISECONDS_FROM: Final = 10**11  # an epoch number above is in milliseconds


def instant(raw: object) -> datetime | None:
    """Return the UTC time that an ISO 8601 text or an epoch number names; None where it names none since 2015."""
    try:
        if isinstance(raw, str):
            at = datetime.fromisoformat(raw.strip())
            if at.tzinfo is not UTC:
                at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
        elif isinstance(raw, int | float) and not isinstance(raw, bool):
            at = datetime.fromtimestamp(raw / 1000 if raw > MILLISECONDS_FROM else raw, UTC)
        else:
            return None
    except (ValueError, OverflowError, OSError):
        return None
    return at if at >= EARLIEST else None


class Times:
    """Reads the times of one message and remembers the newest and what was odd."""

    __slots__ = ("_known", "newest", "odd", "received")

    def __init__(self, received: datetime) -> None:
        """Clamp what is read to the receipt."""
        self.received = received
        self.newest: datetime | None = None
        self.odd: list[str] = []
        self._known: dict[str, datetime | None] = {}  # most blocks of a message have the same time

    def read(self, raw: object) -> datetime | None:
        """Return a usable time, clamped to the receipt; None = as good as missing."""
        if not isinstance(raw, str):
            return self._read(raw)
        if raw not in self._known:
            self._known[raw] = self._read(raw)
        return self._known[raw]

    def _read(self, raw: object) -> datetime | None:
        at = instant(raw)
        if at is None:
            if raw is not None:
                self.odd.append("time: unreadable or before 2015")
            return None
        if at > self.received:
            if at - self.received > FAR_AHEAD:
                self.odd.append("time: ahead of the receipt")
            at = self.received
        if self.newest is None or at > self.newest:
            self.newest = at
        return at
