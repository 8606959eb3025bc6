"""What an outcome does: to the lane, to the limits, to the token, to the counters.

Rules:
- The law is `core.retry.decide`; this file only carries out its decisions.
- Frequent things are counted, rare things logged; neither names a household or shows a token.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, assert_never

from bridge.core import retry
from bridge.core.effects import CreateBuilding
from bridge.core.retry import (
    AlreadyThere,
    Bisect,
    Bury,
    CallKind,
    Case,
    Decision,
    Delivered,
    Forbidden,
    LostPolicy,
    LostReply,
    NotSent,
    Outcome,
    PartlyWritten,
    Pause,
    Refused,
    RenewToken,
    Repair,
    RetryAt,
    ServerTrouble,
    Settle,
    Throttled,
    Unauthorized,
)
from bridge.logs import debugging, logger
from bridge.metrics import Metrics
from bridge.sender import lanes
from bridge.sender.lanes import Job
from bridge.sender.limits import Failed, Gate, Served
from bridge.sender.stuck import Stuck
from bridge.sink.token import Token, TokenKeeper
from bridge.store.port import Attempt, Burial, Settlement

_log = logger(__name__)

Trouble = ServerTrouble | PartlyWritten | LostReply | NotSent
"""Outcomes that speak of the platform or of the way to it."""

_LABELS: Final[Mapping[type[Outcome], str]] = {
    Delivered: "delivered",
    AlreadyThere: "already-there",
    Refused: "refused",
    Unauthorized: "unauthorized",
    Forbidden: "forbidden",
    Throttled: "throttled",
    ServerTrouble: "server-trouble",
    PartlyWritten: "partly-written",
    NotSent: "not-sent",
    LostReply: "lost-reply",
}
"""Outcome -> label of `bridge_call_attempts_total`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A call that has ended."""

    job: Job
    token: Token = field(repr=False)
    outcome: Outcome | Exception  # an exception is a bug of ours
    seconds: float
    on_wire: int  # calls on the wire when it began


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What follows: what to write, and when the lane is due again (None = it goes on at once)."""

    settlements: list[Settlement]
    back_at: datetime | None = None


class Results:
    """Carries out what follows from outcomes."""

    def __init__(
        self,
        *,
        gate: Gate,
        tokens: TokenKeeper,
        stuck: Stuck,
        metrics: Metrics,
        on_lost: LostPolicy,
        jitter: Callable[[], float],
    ) -> None:
        """Start knowing nothing of the platform."""
        self._gate = gate
        self._tokens = tokens
        self._stuck = stuck
        self._metrics = metrics
        self._on_lost = on_lost
        self._jitter = jitter
        self._served = Served()
        self._working_since: datetime | None = None
        self._attempts = {
            (kind, outcome): metrics.call_attempts.labels(call=_call(kind), outcome=label)
            for kind in CallKind
            for outcome, label in _LABELS.items()
        }
        self._delivered = {
            kind: metrics.calls_delivered.labels(call=_call(kind), lane=_lane(kind)) for kind in CallKind
        }

    # ---- one result ----

    def conclude(self, result: Result, now: datetime, at: float) -> Verdict:
        """Return what follows from a call that has ended; `at` is the monotonic clock [s]."""
        job, outcome = result.job, result.outcome
        if isinstance(outcome, Exception):
            raise outcome
        self._attempts[job.kind, type(outcome)].inc()
        self._metrics.call_seconds.observe(result.seconds)
        if debugging():
            _log.debug(
                "call_made", call=job.kind.value, outcome=_LABELS[type(outcome)], items=job.count,
                seconds=round(result.seconds, 4),
            )  # fmt: skip
        self._feel(result, outcome, now, at)
        decision = retry.decide(outcome, self._case(job, now))
        return self._carry_out(decision, result, outcome, now)

    def _case(self, job: Job, now: datetime) -> Case:
        run, owed = job.run, job.run.front.owed
        return Case(
            kind=job.kind,
            now=now,
            jitter=self._jitter(),
            count=job.count,
            attempts=owed.attempts,
            first_failed=owed.first_failed,
            renewed=run.renewed,
            repaired=not job.parts or run.suspect > 0 or run.is_repaired,
            others_served=self._served.other_than(run.lane.building),
            working_since=self._working_since,
            second_chance=self._stuck.is_second_chance(owed, run.lane.building),
            on_lost=self._on_lost,
        )

    def _feel(self, result: Result, outcome: Outcome, now: datetime, at: float) -> None:
        """Let the limits know."""
        gate, seconds, on_wire = self._gate, result.seconds, result.on_wire
        match outcome:
            case ServerTrouble() | PartlyWritten() | LostReply() | NotSent():
                gate.troubled(seconds, on_wire, at)
                trouble = self._trouble(result.job, outcome, now)
                if trouble is not None and gate.circuit.failed(trouble, at):
                    _log.warning("circuit_opened", cause=trouble.cause)
            case Throttled():
                delay = None if outcome.delay is None else outcome.delay.total_seconds()
                gate.throttled(delay, seconds, on_wire, at)
            case _:
                failures, opened = gate.circuit.failures, gate.circuit.opened_at
                if gate.worked(seconds, on_wire, at):
                    self._working_since = now
                    _log.info("circuit_closed", after_seconds=round(at - opened, 1), failures=failures)
                if not isinstance(outcome, Unauthorized | Forbidden):
                    self._accepted()

    def _trouble(self, job: Job, outcome: Trouble, now: datetime) -> Failed | None:
        """Return what the circuit hears of a failure; None = nothing: others were served while this building failed."""
        building, since = job.run.lane.building, job.run.front.owed.first_failed
        others = self._served.other_than(building)
        connected = not isinstance(outcome, NotSent)
        served = since is not None and others is not None and since < others and now - others <= retry.OTHERS_WITHIN
        if connected and served:
            return None
        return Failed(building=building, connected=connected, cause=retry.cause(outcome))

    def _accepted(self) -> None:
        """Note that MOOST took the token."""
        before = self._tokens.trouble
        self._tokens.accepted()
        if before is not None and self._tokens.trouble is None:
            _log.info("sender_resumed", after=before.value)

    # ---- decisions ----

    def _carry_out(  # noqa: PLR0911 - one line per decision
        self, decision: Decision, result: Result, outcome: Outcome, now: datetime
    ) -> Verdict:
        job, attempt = result.job, _attempt(outcome, now)
        match decision:
            case Settle():
                return self._settle(job, outcome, attempt, now)
            case RetryAt():
                return self._retry(job, attempt, decision, lost=_is_lost(job, outcome))
            case Bury():
                return self._bury(job, attempt, decision, lost=_is_lost(job, outcome))
            case RenewToken():
                if self._tokens.reject(result.token):
                    job.run.renewed = True  # an older token than the current one was no proof
                return Verdict(settlements=lanes.still_owed(job, attempt))
            case Pause():
                return self._pause(result, attempt, decision)
            case Repair():
                lanes.repair(job.run)
                return Verdict(settlements=lanes.still_owed(job, attempt))
            case Bisect():
                job.run.suspect = job.count
                return Verdict(settlements=lanes.still_owed(job, attempt))
            case _:
                assert_never(decision)

    def _settle(self, job: Job, outcome: Outcome, attempt: Attempt, now: datetime) -> Verdict:
        self._served.note(job.run.lane.building, now)
        if not job.parts:
            if isinstance(job.call, CreateBuilding) and isinstance(outcome, Delivered):
                job.run.made = True
                _log.warning("building_made_again")
            return self._errand_done(job, now)
        self._delivered[job.kind].inc(job.count)
        return Verdict(settlements=lanes.delivered(job, attempt))

    def _errand_done(self, job: Job, now: datetime) -> Verdict:
        settlements = lanes.errand_done(
            job.run, Attempt(at=now, outcome="201", detail="the building was made again, with this change")
        )
        self._delivered[CallKind.CHANGE].inc(sum(said.delivered for said in settlements))
        return Verdict(settlements=settlements)

    def _retry(self, job: Job, attempt: Attempt, decision: RetryAt, *, lost: bool) -> Verdict:
        if lost:
            self._metrics.in_doubt.inc(len(job.parts))
        if decision.smaller:
            job.run.suspect = job.count
        throttled = decision.throttled
        settlements = lanes.still_owed(job, attempt, failed=not throttled, throttled=throttled, lost=lost)
        return Verdict(settlements=settlements, back_at=decision.at)

    def _bury(self, job: Job, attempt: Attempt, decision: Bury, *, lost: bool) -> Verdict:
        if not job.parts:  # a refused sheet: the calls behind it are judged on their own merits
            return self._errand_done(job, attempt.at)
        settlements: list[Settlement] = []
        if lost:
            self._metrics.in_doubt.inc(len(job.parts))
            settlements += lanes.still_owed(job, attempt, lost=True)
        burial = Burial(reason=decision.reason, detail=decision.detail, answer=decision.answer)
        settlements += lanes.buried(job.run, job.parts, burial, None if lost else attempt)
        return Verdict(settlements=settlements)

    def _pause(self, result: Result, attempt: Attempt, decision: Pause) -> Verdict:
        before = self._tokens.trouble
        if self._tokens.refuse(result.token, attempt.outcome) and before is not self._tokens.trouble:
            _log.error("sender_paused", problem="moost_auth", cause=attempt.outcome)
        settlements = lanes.still_owed(result.job, attempt, failed=decision.failed)
        return Verdict(settlements=settlements, back_at=decision.at)


def _is_lost(job: Job, outcome: Outcome) -> bool:
    """Return whether nobody knows what became of a call; an errand has no row to doubt."""
    return isinstance(outcome, LostReply | PartlyWritten) and bool(job.parts)


def _call(kind: CallKind) -> str:
    return CallKind.LIVE.value if kind is CallKind.HISTORICAL else kind.value


def _lane(kind: CallKind) -> str:
    return {CallKind.LIVE: "live", CallKind.HISTORICAL: "historical"}.get(kind, "state")


def _attempt(outcome: Outcome, now: datetime) -> Attempt:  # noqa: PLR0911 - one line per outcome
    """Return a try and its answer in the words of `explain`."""
    match outcome:
        case Delivered():
            return Attempt(at=now, outcome=str(outcome.status))
        case AlreadyThere():
            return Attempt(at=now, outcome=str(outcome.status), detail="it exists already")
        case Refused():
            return Attempt(at=now, outcome=f"refused {outcome.status}", detail=outcome.why or outcome.answer)
        case Unauthorized():
            return Attempt(at=now, outcome="unauthorized 401")
        case Forbidden():
            return Attempt(at=now, outcome="forbidden 403", detail=outcome.answer)
        case Throttled():
            return Attempt(at=now, outcome="throttled 429")
        case ServerTrouble() | PartlyWritten():
            return Attempt(at=now, outcome=f"trouble {outcome.status}", detail=_told(outcome))
        case NotSent():
            return Attempt(at=now, outcome="no connection", detail=outcome.cause)
        case LostReply():
            return Attempt(at=now, outcome="timeout" if outcome.timeout else "lost reply", detail=outcome.cause)
        case _:
            assert_never(outcome)


def _told(outcome: ServerTrouble | PartlyWritten) -> str:
    """Return the cause of trouble where the status alone does not say it, and MOOST's answer."""
    why = retry.cause(outcome)
    return ": ".join(part for part in ("" if why == f"status {outcome.status}" else why, outcome.answer) if part)


def chance() -> float:
    """Return a jitter of 0..1."""
    return random.random()  # noqa: S311 - spreads retries, hides nothing
