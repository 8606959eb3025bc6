"""What an answer means: a table from (call, status) to an outcome.

Rules:
- Delivered is MOOST's own success: 2xx and a body that is empty or JSON. A web page comes from something in between.
- Only what MOOST would refuse again is `Refused`: a 400 about the data, a 404 about the building, not a web page.
- What speaks of the address or of the platform (404 on a path without a name in it, redirects, 5xx) is trouble: it is
  retried, nothing is lost to a wrong base_url.
- Trouble has a cause in a few words, without an address: the operator reads it in `explain`, `/health` and the log.
- MOOST's answer is kept for the operator, without secrets, cut, with everything unprintable left out.

Source: MOOST documentation, "Common integration" (201/400 live; 200/400/500 historical, "none or only part of the data
could be written"; 201/409 and 200/404 buildings); RFC 9110, sections 10.2.3 (Retry-After) and 15.
"""

import json
import math
from collections.abc import Callable, Mapping
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
_SEARCHED_LENGTH: Final = 16_384  # bytes of it that are looked at: a secret is masked before anything is cut

_PLATFORM: Final = frozenset({404, 405, 407, 408, 421, 425, 426, 431})
"""Client errors that speak of the address, the time or the connection, not of the data."""


class End(Enum):
    """How a call ended without an answer."""

    NOT_SENT = "not-sent"
    LOST = "lost-reply"
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """There is no answer."""

    end: End
    cause: str = ""  # in a few words


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer as it came; header names in lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    flaw: str = ""  # why the body cannot be read, where it cannot


Mask = Callable[[str], str]
"""Takes secrets out of a text."""


def classify(  # noqa: PLR0911 - one line per row
    kind: CallKind, reply: Reply | Failure, now: datetime, mask: Mask = str
) -> Outcome:
    """Return what an answer, or the lack of one, means; `now` turns a date in Retry-After into a delay."""
    if isinstance(reply, Failure):
        return _unanswered(reply)
    status = reply.status
    if Http.OK <= status < Http.MULTIPLE_CHOICES:
        return Delivered(status=status) if not oddity(reply) else _trouble(reply, now, mask)
    if status == Http.UNAUTHORIZED:
        return Unauthorized()
    if status == Http.FORBIDDEN:
        return Forbidden(answer=answer(reply, mask))
    if status == Http.TOO_MANY_REQUESTS:
        return Throttled(delay=retry_after(reply, now))
    if status == Http.CONFLICT and kind is CallKind.CREATE:
        return AlreadyThere(status=status)
    if status == Http.INTERNAL_SERVER_ERROR and kind is CallKind.HISTORICAL:
        return PartlyWritten(status=status, answer=answer(reply, mask))
    if Http.BAD_REQUEST <= status < Http.INTERNAL_SERVER_ERROR and not _platform(kind, reply):
        return Refused(status=status, answer=answer(reply, mask))
    return _trouble(reply, now, mask)


def _unanswered(failure: Failure) -> Outcome:
    if failure.end is End.NOT_SENT:
        return NotSent(cause=failure.cause)
    return LostReply(timeout=failure.end is End.TIMEOUT, cause=failure.cause)


def _trouble(reply: Reply, now: datetime, mask: Mask) -> Outcome:
    return ServerTrouble(
        status=reply.status, delay=retry_after(reply, now), answer=answer(reply, mask), cause=cause(reply)
    )


def _platform(kind: CallKind, reply: Reply) -> bool:
    """Return whether a client error speaks of the platform; a 404 may also mean the building named in the call."""
    if reply.status != Http.REQUEST_ENTITY_TOO_LARGE and is_page(reply):
        return True  # a 413 of whatever stands in between is about the array all the same
    if reply.status == Http.NOT_FOUND and kind in {CallKind.DEVICES, CallKind.CHANGE}:
        return False
    return reply.status in _PLATFORM


# ---- what a body says -----------------------------------------------------------------------------------------------


def oddity(reply: Reply) -> str:
    """Return what a body is where it is neither empty nor JSON; empty = nothing odd."""
    if not reply.body and not reply.flaw:
        return ""
    if reply.flaw:
        return reply.flaw
    text = _text(reply.body).strip()
    if not text or _is_json(text):
        return ""
    return "a web page instead of JSON" if is_page(reply) else "a body that is not JSON"


def is_page(reply: Reply) -> bool:
    """Return whether a body is a web page (or XML): not MOOST's, but of something in between."""
    return reply.body[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")


def _is_json(text: str) -> bool:
    try:
        json.loads(text, parse_int=len, parse_float=len)  # however long its numbers are
    except RecursionError:
        return True  # too deep to be read, but no web page
    except ValueError:
        return False
    return True


def _text(body: bytes) -> str:
    return body.decode("utf-8", "replace").removeprefix("\ufeff")


def cause(reply: Reply) -> str:
    """Return in a few words why an answer is trouble."""
    status = reply.status
    if Http.OK <= status < Http.MULTIPLE_CHOICES:
        return f"status {status} with {oddity(reply)}"
    if Http.MULTIPLE_CHOICES <= status < Http.BAD_REQUEST:
        return f"status {status}: a redirect to another address"
    if status == Http.PROXY_AUTHENTICATION_REQUIRED:
        return "the proxy says 407: it wants other credentials"
    if status < Http.INTERNAL_SERVER_ERROR and is_page(reply):
        return f"status {status} with a web page"
    return "status 404: there is nothing at this address" if status == Http.NOT_FOUND else f"status {status}"


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


def answer(reply: Reply, mask: Mask = str) -> str:
    """Return what MOOST said, readable, without secrets, cut."""
    if reply.flaw:
        return ""
    text = mask(_text(reply.body[:_SEARCHED_LENGTH]))
    return "".join(letter if letter.isprintable() else " " for letter in text)[:ANSWER_LENGTH].strip()
