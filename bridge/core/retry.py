"""What follows from one try at MOOST: a table from the outcome to the next step.

Rules:
- Nothing is dropped by age or by attempts: a call ends delivered, or as a dead letter with a reason.
- A wait is max(backoff, the platform's own delay). The first retry comes within 1 s; the wait doubles to 30 s, to 5 s
  while nothing else gets through either, so that deliveries flow soon after the platform is back.
- What the platform refuses may be for want of the building: it is sent again first, with its list, once. What is then
  refused for good is dead; of an array only the one bad event, found by halving.
- A 429 makes the waits longer as a failure does, and is none: no call steps aside because the platform was busy.
- A call that fails for 1 h while other buildings are served steps aside as `stuck`; tried again later it gets one try.
- A lost reply is resolved as the operator said; repeating a whole state (building, list, tariff) is always harmless.

Source: MOOST documentation, "Common integration" (status codes; "none or only part of the data could be written");
OpenTelemetry `exporterhelper` (wait = max(backoff, server's delay)).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, assert_never

from bridge.core.vocabulary import DeadReason

FIRST_WAIT: Final = timedelta(seconds=1)
LONGEST_WAIT: Final = timedelta(seconds=30)
LONGEST_WAIT_ALONE: Final = timedelta(seconds=5)  # nothing else gets through: the try is a probe of the platform
STUCK_AFTER: Final = timedelta(hours=1)
STUCK_ATTEMPTS: Final = 10  # a call that was not tried for an hour has not failed for an hour
OTHERS_WITHIN: Final = timedelta(minutes=30)  # events come in a burst each quarter hour: two without any is silence
LONGEST_DELAY: Final = timedelta(hours=1)  # a Retry-After beyond it is taken for a mistake

_DOUBLINGS: Final = 10  # more would only overflow


class CallKind(StrEnum):
    """What kind of call was tried."""

    CREATE = "building"
    CHANGE = "building-change"
    DEVICES = "devices"
    LIVE = "event"
    HISTORICAL = "events"


class LostPolicy(StrEnum):
    """What to do about events whose reply was lost (`moost.on_lost_reply`)."""

    RESEND = "resend"
    HISTORICAL = "historical"
    HOLD = "hold"


# ---- outcomes: what came of one try ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """The platform took it."""

    status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AlreadyThere:
    """The building exists: as good as delivered."""

    status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The platform will never take it as it is."""

    status: int
    answer: str
    why: str = ""  # where it is we who refuse: MOOST's own record is such that nothing can be made of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Unauthorized:
    """The token is not, or no longer, good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forbidden:
    """The token is good, and this is not allowed with it."""

    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttled:
    """The platform asks for fewer calls; None = it did not say for how long."""

    delay: timedelta | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTrouble:
    """The platform could not; asking again may help."""

    status: int
    delay: timedelta | None = None
    answer: str = ""
    cause: str = ""  # in a few words


@dataclass(frozen=True, slots=True, kw_only=True)
class PartlyWritten:
    """Of an array none or only a part was stored, nobody knows which."""

    status: int
    answer: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotSent:
    """No connection came about: nothing was sent."""

    cause: str = ""  # in a few words


@dataclass(frozen=True, slots=True, kw_only=True)
class LostReply:
    """It may have been sent and taken, or not."""

    timeout: bool = False
    cause: str = ""  # in a few words


Outcome = (
    Delivered
    | AlreadyThere
    | Refused
    | Unauthorized
    | Forbidden
    | Throttled
    | ServerTrouble
    | PartlyWritten
    | NotSent
    | LostReply
)


# ---- decisions: what to do next -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Settle:
    """It is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryAt:
    """Try again at `at`. `throttled` = the platform was busy: no failure of the call; `smaller` = in half the array."""

    at: datetime
    throttled: bool = False
    smaller: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Bury:
    """Take it out of the flow."""

    reason: DeadReason
    detail: str
    answer: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewToken:
    """Get a new token, then try again at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """The credentials are refused: nothing may be sent until they work; this one is due again at `at`."""

    at: datetime
    failed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """Send the building and its device list once more, then this again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bisect:
    """One of the array is bad: send it in halves."""


Decision = Settle | RetryAt | Bury | RenewToken | Pause | Repair | Bisect


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is known of the call that was tried, before this try counts."""

    kind: CallKind
    now: datetime
    jitter: float  # 0..1
    count: int = 1  # events in the call
    attempts: int = 0  # failed tries so far
    first_failed: datetime | None = None
    renewed: bool = False  # the token was renewed for this call already
    repaired: bool = False  # building and list were sent again for it, or there are none
    others_served: datetime | None = None  # when another building was last served
    working_since: datetime | None = None  # when the platform last came back from an outage
    second_chance: bool = False  # it was stuck before
    on_lost: LostPolicy = LostPolicy.RESEND

    @property
    def idempotent(self) -> bool:
        """A whole state may be sent twice."""
        return self.kind not in {CallKind.LIVE, CallKind.HISTORICAL}


def decide(outcome: Outcome, case: Case) -> Decision:  # noqa: C901, PLR0911 - one line per row
    """Return what follows from the outcome of one try."""
    match outcome:
        case Delivered() | AlreadyThere():
            return Settle()
        case Refused():
            return _refused(outcome, case)
        case Unauthorized():
            return _pause(case, failed=False) if case.renewed else RenewToken()
        case Forbidden():
            return _pause(case, failed=True)
        case Throttled():
            return RetryAt(at=case.now + max(backoff(case), outcome.delay or timedelta()), throttled=True)
        case ServerTrouble():
            return _failed(case, cause(outcome), outcome.delay, outcome.answer)
        case PartlyWritten():
            if case.on_lost is LostPolicy.HOLD:
                return _held(case, outcome.answer)
            return _failed(case, cause(outcome), None, outcome.answer, smaller=case.count > 1)
        case NotSent():
            return RetryAt(at=case.now + backoff(case))
        case LostReply():
            if case.on_lost is LostPolicy.HOLD and not case.idempotent:
                return _held(case, "")
            return _failed(case, cause(outcome), None, "")
        case _:
            assert_never(outcome)


def cause(outcome: ServerTrouble | PartlyWritten | NotSent | LostReply) -> str:
    """Return in a few words why a call failed."""
    match outcome:
        case ServerTrouble():
            return outcome.cause or f"status {outcome.status}"
        case PartlyWritten():
            return f"status {outcome.status}"
        case NotSent():
            return outcome.cause or "no connection"
        case LostReply():
            return outcome.cause or ("timeout while answering" if outcome.timeout else "the reply was lost")
        case _:
            assert_never(outcome)


def backoff(case: Case) -> timedelta:
    """Return the wait before the next try: half of it fixed, half by chance."""
    others = case.first_failed and case.others_served and case.others_served > case.first_failed
    longest = LONGEST_WAIT if others else LONGEST_WAIT_ALONE
    step = min(longest, FIRST_WAIT * (1 << min(case.attempts, _DOUBLINGS)))
    return step * (0.5 + 0.5 * case.jitter)


def _refused(outcome: Refused, case: Case) -> Decision:
    if outcome.why:
        return Bury(reason=DeadReason.REJECTED, detail=outcome.why)
    if not case.repaired and case.kind is not CallKind.CREATE:
        return Repair()  # "400 invalid, for example unknown customerBuildingId"; 404 for a building that MOOST lost
    if case.count > 1:
        return Bisect()
    return Bury(reason=DeadReason.REJECTED, detail=f"MOOST answered {outcome.status}", answer=outcome.answer)


def _pause(case: Case, *, failed: bool) -> Pause:
    return Pause(at=case.now + backoff(case), failed=failed)


def _held(case: Case, answer: str) -> Bury:
    what = "this event" if case.count == 1 else f"the array of {case.count} events with this one"
    return Bury(reason=DeadReason.IN_DOUBT, detail=f"nobody knows whether MOOST took {what}", answer=answer)


def _failed(case: Case, what: str, delay: timedelta | None, answer: str, *, smaller: bool = False) -> RetryAt | Bury:
    if stuck(case):
        return Bury(reason=DeadReason.STUCK, detail=f"{what}, for an hour, while others were served", answer=answer)
    return RetryAt(at=case.now + max(backoff(case), delay or timedelta()), smaller=smaller)


def stuck(case: Case) -> bool:
    """Return whether a call has failed for an hour while others got through, and so should step aside."""
    if case.others_served is None or case.now - case.others_served > OTHERS_WITHIN:
        return False
    if case.second_chance:
        return True
    if case.first_failed is None or case.attempts < STUCK_ATTEMPTS:
        return False
    return case.now - max(case.first_failed, case.working_since or case.first_failed) >= STUCK_AFTER
