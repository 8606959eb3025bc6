"""What takes long is done beside the loop: one thing after the other, in turns.

Rules:
- Hashing lets the interpreter's lock go, so one thread leaves the loop its core; more than one would take another's.
- Those that proved themselves lately come first, then the others; among each, whoever has used least of the time.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from bridge.turns import Turns

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Job:
    """What somebody waits for."""

    run: Callable[[], object]
    done: asyncio.Future[Any]


class _Line:
    """Who waits, and for what."""

    def __init__(self) -> None:
        self.turns = Turns[str]()
        self._jobs: dict[str, deque[_Job]] = {}

    def put(self, who: str, job: _Job) -> None:
        self._jobs.setdefault(who, deque()).append(job)
        self.turns.wait(who)

    def take(self) -> tuple[str, _Job] | None:
        """Return the next job that somebody still waits for, and whose it is."""
        while (who := self.turns.next()) is not None:
            jobs = self._jobs[who]
            job = jobs.popleft()
            if not jobs:
                del self._jobs[who]
                self.turns.rest(who)
            if not job.done.cancelled():
                return who, job
        return None


class Aside:
    """One thread and who waits for it."""

    def __init__(self) -> None:
        """Start the thread when it is needed."""
        self._thread = ThreadPoolExecutor(1, "aside")
        self._known, self._others = _Line(), _Line()
        self._busy = False

    async def do(self, who: str, run: Callable[[], T], *, known: bool) -> T:
        """Return what `run` returns, when it was its turn; `who` is charged with the time that it takes."""
        job = _Job(run, asyncio.get_running_loop().create_future())
        (self._known if known else self._others).put(who, job)
        self._next()
        return await job.done  # type: ignore[no-any-return]  # what run returned

    def _next(self) -> None:
        if self._busy:
            return
        for line in (self._known, self._others):
            if (found := line.take()) is not None:
                self._busy = True
                who, job = found
                running = asyncio.get_running_loop().run_in_executor(self._thread, job.run)
                running.add_done_callback(partial(self._finished, line, who, job, time.monotonic()))
                return

    def _finished(self, line: _Line, who: str, job: _Job, began: float, ran: asyncio.Future[object]) -> None:
        self._busy = False
        line.turns.use(who, time.monotonic() - began)
        fault = None if ran.cancelled() else ran.exception()
        if job.done.done():
            pass  # nobody waits any more
        elif ran.cancelled():
            job.done.cancel()
        elif fault is not None:
            job.done.set_exception(fault)
        else:
            job.done.set_result(ran.result())
        self._next()
