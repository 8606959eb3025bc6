"""What can go wrong on request: faults that a test or a person switches on.

Rules:
- The list of faults is replaced as a whole; every fault counts how often it fired.
- Faults are asked in the order of the list. Latencies add up; the first fault that decides the answer ends the search.
- A fault applies to MOOST's paths only: `/_sandbox` and `/` always answer, also in an outage.
"""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, Final, Literal

import msgspec

from bridge.sandbox.call import Answer, Call, Nothing, Text

Kind = Literal[
    "latency",
    "status",
    "close_before",
    "close_after",
    "outage",
    "partial",
    "revoke_tokens",
    "expires_in",
]

TOKEN_PATH: Final = "/auth/token/v1"  # noqa: S105 - a path, not a secret
HISTORICAL_PATH: Final = "/events/historical/v1"


class Fault(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One fault as it is switched on; every match that is left out matches all."""

    kind: Kind
    method: str | None = None
    path: str | None = None  # regular expression, searched
    building: str | None = None  # regular expression, searched in each building id the call names
    body: str | None = None  # regular expression, searched in the raw body
    probability: float = 1.0
    times: int | None = None  # fires at most so often
    starts_in: float = 0.0  # [s] after it was switched on
    lasts: float | None = None  # [s] from then
    seconds: float = 0.0  # latency
    status: int = 500
    answer: str | None = None  # the body of the answer as it is, where it is not the JSON of the look-alike
    media_type: str = "text/html"  # of that body
    retry_after: int | str | None = None  # seconds, or any text (an HTTP date)
    as_date: bool = False  # turn the seconds into an HTTP date
    keep: int = 0  # partial: how many elements of the array are stored
    expires_in: int = 60  # [s] lifetime of tokens


@dataclass(slots=True, kw_only=True)
class Verdict:
    """What the faults do to one call."""

    delay_s: float = 0.0
    answer: Answer | None = None
    close: Literal["before", "after"] | None = None
    keep: int | None = None
    revoke: bool = False
    lifetime_s: int | None = None

    @property
    def decided(self) -> bool:
        """Say whether no further fault can matter."""
        return self.answer is not None or self.close == "before"


class _Armed:
    """A fault that is switched on, its expressions compiled."""

    def __init__(self, fault: Fault, since: float) -> None:
        self.fault = fault
        self.fired = 0
        self._start = since + fault.starts_in
        self._end = None if fault.lasts is None else self._start + fault.lasts
        self._path = re.compile(fault.path or "")
        self._building = None if fault.building is None else re.compile(fault.building)
        self._body = None if fault.body is None else re.compile(fault.body)

    def active(self, now: float) -> bool:
        """Say whether it may fire at this time."""
        spent = self.fault.times is not None and self.fired >= self.fault.times
        return not spent and self._start <= now and (self._end is None or now < self._end)

    def matches(self, call: Call, now: float) -> bool:
        """Say whether it may fire on this call; chance is not asked here."""
        fault = self.fault
        if not self.active(now) or (fault.method is not None and fault.method.upper() != call.method):
            return False
        if not self._path.search(call.path) or not _concerns(fault.kind, call.path):
            return False
        if self._body is not None and not self._body.search(call.raw.decode("utf-8", "replace")):
            return False
        return self._building is None or any(self._building.search(name) for name in buildings(call))


class Faults:
    """The faults that are switched on."""

    def __init__(self, *, now: Callable[[], float], dice: random.Random) -> None:
        """Start without faults; `now` returns epoch seconds."""
        self._now = now
        self._dice = dice
        self._armed: list[_Armed] = []

    def __bool__(self) -> bool:
        """Say whether any fault is switched on."""
        return bool(self._armed)

    def replace(self, raw: bytes) -> None:
        """Switch on exactly the faults of a JSON list, or of `{"faults": [...]}`.

        Raises ValueError with a sentence when the list cannot be understood.
        """
        given = msgspec.json.decode(raw or b"[]")
        if isinstance(given, dict) and given.keys() != {"faults"}:
            raise ValueError('faults come as a list, or as {"faults": [...]}')
        listed = given["faults"] if isinstance(given, dict) else given
        faults = msgspec.convert(listed, list[Fault])
        try:
            self._armed = [_Armed(fault, self._now()) for fault in faults]
        except re.error as error:
            message = f"not a regular expression: {error}"
            raise ValueError(message) from error

    def listed(self) -> list[dict[str, Any]]:
        """Return each fault with `fired` and `active`."""
        now = self._now()
        return [
            {**msgspec.to_builtins(one.fault), "fired": one.fired, "active": one.active(now)} for one in self._armed
        ]

    def judge(self, call: Call) -> Verdict:
        """Return what happens to a call, and count it."""
        verdict = Verdict()
        for one in self._armed:
            if one.matches(call, self._now()) and self._dice.random() < one.fault.probability:
                one.fired += 1
                _apply(one.fault, verdict, self._now())
                if verdict.decided:
                    break
        return verdict


def _apply(fault: Fault, verdict: Verdict, now: float) -> None:
    """Write one fault that fires into the verdict."""
    match fault.kind:
        case "latency":
            verdict.delay_s += fault.seconds
        case "status":
            body = {"message": "fault"} if fault.answer is None else Text(fault.answer, fault.media_type)
            verdict.answer = Answer(status=fault.status, body=body, headers=_retry_after(fault, now))
        case "close_before" | "outage":
            verdict.close = "before"
        case "close_after":
            verdict.close = "after"
        case "partial":
            verdict.keep = fault.keep
        case "revoke_tokens":
            verdict.revoke = True
        case "expires_in":
            verdict.lifetime_s = fault.expires_in


def _concerns(kind: Kind, path: str) -> bool:
    """Say whether a kind of fault makes sense on a path."""
    match kind:
        case "expires_in":
            return path == TOKEN_PATH
        case "revoke_tokens":
            return path != TOKEN_PATH
        case "partial":
            return path == HISTORICAL_PATH
        case _:
            return True


def _retry_after(fault: Fault, now: float) -> tuple[tuple[bytes, bytes], ...]:
    """Return the Retry-After header of a fault, if it has one."""
    if fault.retry_after is None:
        return ()
    text = str(fault.retry_after)
    if fault.as_date and isinstance(fault.retry_after, int):
        text = formatdate(now + fault.retry_after, usegmt=True)
    return ((b"retry-after", text.encode("latin-1")),)


def buildings(call: Call) -> Sequence[str]:
    """Return the building ids a call names, in its path or its body."""
    parts = call.path.split("/")
    if len(parts) > 3 and parts[1] == "buildings":  # noqa: PLR2004 - /buildings/{id}/v1
        return (parts[2],)
    match call.body:
        case Nothing():
            return ()
        case {"customerBuildingId": str(name)}:
            return (name,)
        case list(items):
            return [str(item.get("customerBuildingId")) for item in items if isinstance(item, dict)]
        case _:
            return ()
