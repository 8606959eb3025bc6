"""What an answer means: a table from (call, status) to an outcome.

Rules:
- Only what MOOST would refuse again is `Refused`: a 400 about the data, a 404 about the building.
- What speaks of the address or of the platform (404 on a path without a name in it, redirects, 5xx) is trouble: it is
  retried, nothing is lost to a wrong base_url.
- MOOST's answer is kept for the operator, cut, with everything unprintable left out.

Source: MOOST documentation, "Common integration" (201/400 live; 200/400/500 historical, "none or only part of the data
could be written"; 201/409 and 200/404 buildings); RFC 9110, sections 10.2.3 (Retry-After) and 15.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import Enum
from http import HTTPStatus as Http
from typing import Final

from bridge.core.retry import (
    LONGEST_DELAY,
    AlreadyThere,
    CallKind,
    Delivered,
    Forbidden,
    LostReply,
    NotSent,
    Outcome,
    PartlyWritten,
    Refused,
    ServerTrouble,
    Throttled,
    Unauthorized,
)

ANSWER_LENGTH: Final = 500  # characters of MOOST's answer that are kept

_PLATFORM: Final = frozenset({404, 405, 407, 408, 421, 425, 426, 431})
"""Client errors that speak of the address, the time or the connection, not of the data."""


class Failure(Enum):
    """Why there is no answer."""

    NOT_SENT = "not-sent"
    LOST = "lost-reply"
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer as it came; header names in lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)


def classify(kind: CallKind, reply: Reply | Failure, now: datetime) -> Outcome:  # noqa: PLR0911 - one line per row
    """Return what an answer, or the lack of one, means; `now` turns a date in Retry-After into a delay."""
    if isinstance(reply, Failure):
        return NotSent() if reply is Failure.NOT_SENT else LostReply(timeout=reply is Failure.TIMEOUT)
    status = reply.status
    if Http.OK <= status < Http.MULTIPLE_CHOICES:
        return Delivered(status=status)
    if status == Http.UNAUTHORIZED:
        return Unauthorized()
    if status == Http.FORBIDDEN:
        return Forbidden(answer=answer(reply))
    if status == Http.TOO_MANY_REQUESTS:
        return Throttled(delay=retry_after(reply, now))
    if status == Http.CONFLICT and kind is CallKind.CREATE:
        return AlreadyThere(status=status)
    if status == Http.INTERNAL_SERVER_ERROR and kind is CallKind.HISTORICAL:
        return PartlyWritten(status=status, answer=answer(reply))
    if Http.BAD_REQUEST <= status < Http.INTERNAL_SERVER_ERROR and not _platform(kind, status):
        return Refused(status=status, answer=answer(reply))
    return ServerTrouble(status=status, delay=retry_after(reply, now), answer=answer(reply))


def _platform(kind: CallKind, status: int) -> bool:
    """Return whether a client error speaks of the platform; a 404 may also mean the building named in the call."""
    if status == Http.NOT_FOUND and kind in {CallKind.DEVICES, CallKind.CHANGE}:
        return False
    return status in _PLATFORM


def retry_after(reply: Reply, now: datetime) -> timedelta | None:
    """Return the delay that a Retry-After asks for, in seconds or as a date; None without a usable one.

    0 or a date that has passed says nothing: a limiter that rounds down, or a clock that is wrong.
    """
    text = reply.headers.get("retry-after", "").strip()
    seconds = _seconds(text)
    if seconds is None:
        seconds = _seconds_until(text, now)
    return min(timedelta(seconds=seconds), LONGEST_DELAY) if seconds is not None and seconds > 0 else None


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return min(seconds, LONGEST_DELAY.total_seconds()) if math.isfinite(seconds) else None


def _seconds_until(text: str, now: datetime) -> float | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return ((date if date.tzinfo else date.replace(tzinfo=UTC)) - now).total_seconds()


def answer(reply: Reply) -> str:
    """Return what MOOST said, readable and cut."""
    text = reply.body[: 4 * ANSWER_LENGTH].decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else " " for letter in text)[:ANSWER_LENGTH].strip()
