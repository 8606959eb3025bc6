"""Times as the device cloud writes them (M0.3).

Rules:
- ISO 8601 with 0-9 fractional digits, Z or an offset, no zone meaning UTC; or epoch seconds, above 10^11 milliseconds.
- Other spellings are read as long as an instant stands in them: small letters, a zone in brackets or as UTC behind,
  24:00, a leap second, an epoch number in quotes.
- A time before 2015 counts as missing. One after the receipt is placed at the receipt and keeps its order.
- A time that is there and cannot be read is neither missing nor now: `NoTime` says so.

Source: EHA developer portal, "Streaming examples" (three fractional digits, none in generated ones); EHA demo
application (`Z` or a numeric offset); Java's `ZonedDateTime` and RFC 9557 (the zone in brackets); Go's `time.Time`
(`+0000 UTC`).
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from bridge.core.order import Time

EARLIEST: Final = datetime(2015, 1, 1, tzinfo=UTC)
FAR_AHEAD: Final = timedelta(minutes=10)  # a clock further ahead than this is counted
MILLISECONDS_FROM: Final = 10**11  # an epoch number above is in milliseconds

_LONGEST: Final = 100  # characters; no spelling of a time is longer
_DASH: Final = 4  # where an ISO date has its first dash
_NUMBER: Final = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?")
_COMPACT: Final = re.compile(r"[0-9]{14}")  # as a number it would be after the year 2286
_ZONES: Final = re.compile(r"\s*((?:\[[^\[\]]*\])+)$")
_NAMED_UTC: Final = re.compile(r"\s*(?:UTC|GMT)$")
_BLANK: Final = re.compile(r"\s+(?=(?:Z|[+-][0-9:]+)$)")
_OFFSET: Final = re.compile(r"[0-9]\s*(?:Z|[+-][0-9]{2}(?::?[0-9]{2}){0,2})$")
_MIDNIGHT: Final = re.compile(r"(?<=[T ])24(?=:?00(?::?00(?:[.,]0+)?)?(?:Z|\s*[+-]|$))")
_LEAP: Final = re.compile(r"(?<=[0-9]:[0-9]{2}:)60")


class NoTime(ValueError):  # noqa: N818 - a condition, not a fault of ours
    """A time is there and cannot be read."""


def instant(raw: object) -> datetime | None:
    """Return the UTC time that a text or an epoch number names; None = none is there, or one before 2015.

    Raises NoTime.
    """
    if raw is None:
        return None
    try:
        at = _read(raw)
    except (ValueError, OverflowError, OSError, LookupError):
        raise NoTime from None
    return at if at is not None and at >= EARLIEST else None


def _read(raw: object) -> datetime | None:
    """Return the UTC time that a text or a number names; None where it is the text "null"."""
    if isinstance(raw, str):
        if raw[_DASH : _DASH + 1] == "-":
            try:
                return _utc(datetime.fromisoformat(raw))
            except ValueError:
                pass
        return _spelled(raw.strip())
    if isinstance(raw, int | float) and not isinstance(raw, bool):
        return datetime.fromtimestamp(raw / 1000 if raw > MILLISECONDS_FROM else raw, UTC)
    raise NoTime


def _utc(at: datetime, zone: ZoneInfo | None = None) -> datetime:
    """Return a time in UTC; one without a zone of its own is in the one given, else in UTC."""
    if at.tzinfo is UTC:
        return at
    return (at if at.tzinfo is not None else at.replace(tzinfo=zone or UTC)).astimezone(UTC)


def _spelled(text: str) -> datetime | None:
    """Return the UTC time of a text that is not spelled in the usual way; None where it is the text "null"."""
    if text == "null":
        return None
    if len(text) > _LONGEST:
        raise NoTime
    if _COMPACT.fullmatch(text):
        return datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    if _NUMBER.fullmatch(text):
        return _read(float(text))
    zone: ZoneInfo | None = None
    brackets = _ZONES.search(text)
    if brackets is not None:
        text = text[: brackets.start()]
        if not _OFFSET.search(text.upper()):
            zone = ZoneInfo(brackets[1][1:].partition("]")[0].removeprefix("!"))
    text = text.upper()
    named = _NAMED_UTC.search(text)
    if named is not None:
        text = text[: named.start()]
        if not _OFFSET.search(text):
            text += "Z"
    text, midnights = _MIDNIGHT.subn("00", _BLANK.sub("", text))
    text, leaps = _LEAP.subn("59", text)
    return _utc(datetime.fromisoformat(text) + timedelta(days=midnights, seconds=leaps), zone)


class Times:
    """Reads the times of one message and remembers the newest and what was odd."""

    __slots__ = ("_known", "_latest", "newest", "odd", "received", "unread")

    def __init__(self, received: datetime) -> None:
        """Place what is read at the receipt at the latest."""
        self.received = received
        self.newest: Time | None = None
        self.odd: list[str] = []
        self.unread = False  # a time was there that could not be read
        self._latest: datetime | None = None  # the same as sent
        self._known: dict[str, Time | None] = {}  # most blocks of a message have the same time

    def read(self, raw: object) -> Time | None:
        """Return a usable time; None = as good as missing. Raises NoTime."""
        if not isinstance(raw, str):
            return self._read(raw) if raw is not None else None
        if raw not in self._known:
            self._known[raw] = self._read(raw)
        return self._known[raw]

    def _read(self, raw: object) -> Time | None:
        try:
            at = instant(raw)
        except NoTime:
            self.unread = True
            self.odd.append("unreadable")
            raise
        if at is None:
            if raw != "null":
                self.odd.append("before 2015")
            return None
        time = Time(at)
        if at > self.received:
            if at - self.received > FAR_AHEAD:
                self.odd.append("ahead of the receipt")
            time = Time(self.received, at)
        if self._latest is None or at > self._latest:
            self._latest, self.newest = at, time
        return time
