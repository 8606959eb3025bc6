"""The lanes in hand, and what is still to be written about them.

Rules:
- Ready lanes take turns (see `ready`). Where there are several subscriptions, each has a bounded part of the wire.
- No call begins with less lease left than it may take.
- A lane is in hand once: where its lease ran out early because the clock jumped ahead, the store may lend it again, and
  that is no second call of one building.
- A bug in one lane becomes a dead letter `fault` of its front item (exception type and place, no values).
- What was found out is kept until it is written, however long the store cannot serve.
- Of a lane from which something was erased nothing more is sent as it is: it is given back, and leased as it is now.
"""

import traceback
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import PurePath
from typing import Final

from bridge.core.vocabulary import DeadReason
from bridge.logs import logger
from bridge.sender import lanes
from bridge.sender.lanes import Job, Planner, Run
from bridge.sender.ready import Ready
from bridge.sender.results import Result, Results, Verdict
from bridge.store.port import Attempt, Burial, Lane, Return, Settlement
from bridge.store.ranks import Line

WRITE_MARGIN: Final = timedelta(seconds=5)  # of the lease, for the transaction before a call
SUSPECTS: Final = 10_000  # lanes that went back in the middle of a halving, remembered

_log = logger(__name__)


class Hand:
    """Leased lanes that are not on the wire."""

    def __init__(
        self, planner: Planner, now: Callable[[], datetime], world: Callable[[], datetime], timeout: timedelta
    ) -> None:
        """Start empty; `world` is the time that events live in, `timeout` how long a call may take."""
        self._world = world
        self._planner = planner
        self._now = now
        self._needed = timeout + WRITE_MARGIN
        self._suspects: OrderedDict[str, int] = OrderedDict()
        self._held: set[str] = set()  # buildings whose lanes are in hand or on the wire
        self._on_wire: dict[str, Line] = {}  # building -> the line in which its turn came
        self.ready = Ready()
        self.settlements: list[Settlement] = []
        self.returns: list[Return] = []

    # ---- lanes come and go ----

    def take(self, leased: Iterable[Lane]) -> None:
        """Add lanes as leased; one that is in hand already goes on as it is, and then back."""
        new = [lane for lane in leased if lane.building not in self._held]
        self._held.update(lane.building for lane in new)
        for lane in new:
            self._add(Run.of(lane, self._suspects.pop(lane.building, 0)))

    def _add(self, run: Run) -> None:
        self.ready.add(run, self._planner.line(run, self._world()))

    @property
    def held(self) -> Counter[Line]:
        """Return how many lanes of each line are in hand, those on the wire included."""
        return self.ready.lines + Counter(self._on_wire.values())

    def give_back(self, run: Run, at: datetime) -> None:
        """Give a lane back, due again at `at`."""
        self._held.discard(run.lane.building)
        if run.suspect:
            self._suspects[run.lane.building] = run.suspect
            if len(self._suspects) > SUSPECTS:
                self._suspects.popitem(last=False)
        self.returns.append(Return(building=run.lane.building, at=at))

    def put_back(self, jobs: Sequence[Job]) -> None:
        """Take calls that did not begin back to the front."""
        for job in reversed(jobs):
            self.ready.add(job.run, self._on_wire.pop(job.run.lane.building), first=True)

    # ---- what comes next ----

    def choose(self, room: int, most: int | None = None) -> list[Job]:
        """Choose the next call of ready lanes, for about `room` requests; lanes that are done are given back.

        `most` is how many calls of one subscription may be on the wire; None = any number.
        """
        jobs: list[Job] = []
        while room > 0 and (taken := self.ready.take(self.full(most))) is not None:
            (run, line), now = taken, self._now()
            job = self._next(run, self._world()) if run.lane.until - now >= self._needed else None
            self.ready.use(line, 0 if job is None else job.requests)
            if job is None:
                self.give_back(run, now)
                continue
            jobs.append(job)
            room -= job.requests
            self._on_wire[run.lane.building] = line
        return jobs

    def full(self, most: int | None) -> frozenset[str]:
        """Return the subscriptions that have as many calls on the wire as they may."""
        if most is None:
            return frozenset()
        calls = Counter(line.subscription for line in self._on_wire.values())
        return frozenset(name for name, count in calls.items() if count >= most)

    def _next(self, run: Run, now: datetime) -> Job | None:
        """Return the next call of a lane; what may not leave is buried on the way. None = the lane is done."""
        while run.rows:
            try:
                step = self._planner.next(run, now)
            except Exception as error:  # noqa: BLE001 - one item, not the room
                step = self._fault(run, error)
            if isinstance(step, Job):
                return step
            self.settlements += self._explained(step)
        return None

    def _explained(self, step: Sequence[Settlement]) -> Iterator[Settlement]:
        """Yield what is buried unsent, with its reason where `explain` looks for it: once for each call."""
        told: set[int] = set()
        for said in step:
            if said.buried is None or said.attempt is not None or said.call_id in told:
                yield said
                continue
            told.add(said.call_id)
            attempt = Attempt(at=self._now(), outcome=said.buried.reason.value, detail=said.buried.detail)
            yield replace(said, attempt=attempt)

    def without(self, gone: frozenset[int], jobs: Sequence[Job]) -> list[Job]:
        """Give lanes back that hold calls which are not there any more; return the jobs of the others."""
        for run in self.ready.remove(lambda run: run.holds(gone)):
            self.give_back(run, self._now())
        for job in jobs:
            if job.run.holds(gone):
                self._on_wire.pop(job.run.lane.building)
                self.give_back(job.run, self._now())
        return [job for job in jobs if not job.run.holds(gone)]

    def give_all_back(self) -> None:
        """Give back every lane that is not on the wire."""
        for run in self.ready.remove(lambda _: True):
            self.give_back(run, self._now())

    # ---- what has happened ----

    def read(self, result: Result, results: Results, at: float) -> None:
        """Note what came of a call; its lane goes on, or back to the store."""
        run = result.job.run
        self._on_wire.pop(run.lane.building)
        try:
            verdict = results.conclude(result, self._now(), at)
        except Exception as error:  # noqa: BLE001 - one item, not the room
            verdict = Verdict(settlements=self._fault(run, error))
        self.settlements += verdict.settlements
        if verdict.back_at is None:
            self._go_on(run)
        else:
            self.give_back(run, verdict.back_at)

    def settle_dry(self, job: Job) -> None:
        """Note a call as done without making it."""
        attempt = Attempt(at=self._now(), outcome="dry")
        self.settlements += [
            Settlement(call_id=row, delivered=count, attempt=attempt, dry=True) for row, count in job.parts
        ]
        job.run.advance(job.parts)
        self._on_wire.pop(job.run.lane.building)
        self._go_on(job.run)

    def _go_on(self, run: Run) -> None:
        """Let a lane wait for its next turn, if it owes anything yet."""
        if run.rows:
            self._add(run)
        else:
            self.give_back(run, self._now())

    def _fault(self, run: Run, error: Exception) -> list[Settlement]:
        """Take the front item of a lane out of the flow."""
        detail = f"{type(error).__name__} at {_place(error)}"
        _log.error("effect_faulted", error=detail)
        run.errands.clear()
        burial = Burial(reason=DeadReason.FAULT, detail=detail)
        return lanes.buried_front(run, burial, Attempt(at=self._now(), outcome="fault", detail=detail))

    @property
    def unwritten(self) -> bool:
        """Return whether there is anything to write."""
        return bool(self.settlements or self.returns)

    def written(self) -> None:
        """Forget what is written."""
        self.settlements, self.returns = [], []


def _place(error: Exception) -> str:
    """Return file and line of an exception, without any value."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{PurePath(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "an unknown place"
