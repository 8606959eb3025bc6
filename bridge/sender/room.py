"""The loop: takes lanes from the outbox, keeps calls on the wire, writes down what became of them.

Rules:
- One store transaction at a time: it settles everything that has ended and marks everything that begins next; only
  then do those calls start. Results that arrive meanwhile wait for the next one. That is the group commit.
- Where the store cannot serve, nothing begins; what has ended is kept until it can be written.
- On stop nothing begins; calls on the wire are awaited for `drain_timeout`; what is still open then is in doubt in the
  store, and the next start resolves it.

Theory of operation: a turn reads results, takes lanes if there is room, chooses the next calls, writes, starts them;
with nothing to write it sleeps until a result, a nudge of the worker, or the next time anything is due.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final, Protocol, cast

from bridge.config import Moost
from bridge.core.retry import LostPolicy, Outcome
from bridge.limits import Limit
from bridge.logs import logger
from bridge.metrics import Metrics
from bridge.repeated import Outage, store_outage
from bridge.sender.exchange import Caller, perform
from bridge.sender.hand import Hand
from bridge.sender.lanes import Job, Planner, Run
from bridge.sender.limits import CircuitState, Gate
from bridge.sender.results import Result, Results, chance
from bridge.sender.state import State
from bridge.sender.stuck import Stuck
from bridge.sink.token import Token, TokenKeeper, TokenSource
from bridge.store.desk import Desk
from bridge.store.port import Settlement, Store, StoreUnavailable, Work
from bridge.store.ranks import Line

LEASE: Final = timedelta(seconds=30)
TELL_EVERY: Final = timedelta(minutes=1)  # what keeps calls from MOOST, for commands in other processes
LOOK_SECONDS: Final = 0.05  # how often to look for new calls of whoever has none in hand, where enough lanes are
IDLE_SECONDS: Final = 1.0  # other processes queue calls too (replicas, `dead-letters retry`)
STORE_RETRY_SECONDS: Final = 0.5
SET_BACK_SECONDS: Final = 1.0  # the clock went slower than time by more than that: it was set, not trimmed
LANES_PER_CALL: Final = 2  # lanes in hand per call on the wire: the next ones are ready when a call ends
ROWS_PER_LEASE: Final = 2_000  # bounds memory and the length of the transaction
FEWEST_ROWS: Final = 16  # per lane
MOST_LANES: Final = ROWS_PER_LEASE // FEWEST_ROWS

_log = logger(__name__)


class Connection(Caller, TokenSource, Protocol):
    """What the sender needs of `sink.client`."""


class Sender:
    """The room."""

    def __init__(  # noqa: PLR0913 - everything it lives on, named
        self,
        *,
        store: Store,
        client: Connection,
        moost: Moost,
        metrics: Metrics,
        now: Callable[[], datetime],
        world: Callable[[], datetime] | None = None,
        dry_run: bool = False,
        drain_timeout: timedelta = timedelta(seconds=20),
        desk: Desk | None = None,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = chance,
        outage: Outage | None = None,
        subscriptions: int = 1,
        reached: Callable[[Limit, str, int], None] = lambda _limit, _payer, _count: None,
    ) -> None:
        """Prepare; `desk`, where given, is asked for stuck calls to try again; `clock` is monotonic [s].

        `now` is the wall time that leases and retries go by; `world`, where that is simulated, the time events live in.
        `subscriptions` is how many are configured, `reached` counts reached bounds.
        """
        self._store, self._client = store, client
        self._metrics, self._now, self._clock = metrics, now, clock
        self._dry_run, self.drain_timeout = dry_run, drain_timeout
        self._outage = outage or store_outage()
        self._timeout, self._max_concurrency = moost.timeout, moost.max_concurrency
        self._batch = moost.historical_batch
        on_lost = LostPolicy(moost.on_lost_reply.value)
        planner = Planner(
            customer=moost.customer_id,
            battery_soc=moost.battery_soc,
            live_max_age=moost.live_max_age,
            historical_batch=moost.historical_batch,
            on_lost=on_lost,
        )
        self._hand = Hand(planner, now, world or now, moost.timeout)
        self._gate = Gate(moost.max_concurrency, moost.requests_per_second, several=subscriptions > 1)
        self._reached = reached
        self._tokens = TokenKeeper(client, moost.customer_id, clock)
        self._stuck = Stuck(desk, now())
        self._results = Results(
            gate=self._gate, tokens=self._tokens, stuck=self._stuck, metrics=metrics, on_lost=on_lost, jitter=jitter
        )
        self.state = State(self._gate, self._tokens, clock)
        self.nudge = asyncio.Event()  # set by whoever queued calls

        self._wake = asyncio.Event()
        self._calls: dict[asyncio.Task[None], Run] = {}
        self._ended: list[Result] = []
        self._renewal: asyncio.Task[None] | None = None
        self._more = True  # calls may be due that are not leased
        self._nudged = False  # calls were queued since lanes were last taken
        self._took_at = 0.0  # when that was [s of the monotonic clock]
        self._due: datetime | None = None  # when the next one is
        self._ahead: float | None = None  # of the wall time before the monotonic clock [s]
        self._told: tuple[datetime, str] | None = None  # when the store was told what keeps calls from MOOST
        self._afresh = False  # the clock was set back, and the store does not know yet

    def reload(self, subscriptions: int) -> None:
        """Go by how many subscriptions there are now."""
        self._gate.concurrency.several = subscriptions > 1

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver until `stop` is set, then drain."""
        bells = [asyncio.create_task(self._ring_on_stop(stop)), asyncio.create_task(self._ring_on_nudge())]
        try:
            while not stop.is_set():
                await self._turn()
            await self._drain()
        finally:
            await _cancelled([*bells, *self._calls, *([self._renewal] if self._renewal else [])])

    async def _ring_on_stop(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._wake.set()

    async def _ring_on_nudge(self) -> None:
        while True:
            await self.nudge.wait()
            self.nudge.clear()
            self._more = self._nudged = True
            self._wake.set()

    # ---- one turn ----

    async def _turn(self) -> None:
        self._wake.clear()
        self._look_after_token()
        self._look_at_clock()
        self._read_results()
        try:
            await self._tell()
            self._more |= await self._stuck.retry(self._now())
            if self._wants_lanes():
                await self._take_lanes()
            chosen, token = self._choose()
            jobs: Sequence[Job] = ()
            if chosen or self._hand.unwritten:
                jobs = await self._write(chosen)
            else:
                await self._rest()
        except StoreUnavailable as error:
            await self._wait_for_store(error)
            return
        for job in jobs:
            self._start(job, token)

    def _look_at_clock(self) -> None:
        """Notice when the clock was set back: what waits by the old time would wait too long."""
        ahead = self._now().timestamp() - self._clock()
        if self._ahead is not None and ahead < self._ahead - SET_BACK_SECONDS:
            self._afresh = self._more = True
            _log.warning("clock_set_back", seconds=round(self._ahead - ahead, 1))
        self._ahead = ahead

    def _read_results(self) -> None:
        ended, self._ended = self._ended, []
        for result in ended:
            self._hand.read(result, self._results, self._clock())
        self._metrics.circuit_open.set(self._gate.circuit.state is not CircuitState.CLOSED)

    def _choose(self) -> tuple[list[Job], Token | None]:
        """Choose the calls that begin now, and the token that they carry."""
        if self._dry_run:
            for job in self._hand.choose(self._max_concurrency):
                self._hand.settle_dry(job)
            return [], None
        token = self._tokens.current()
        if token is None:
            return [], None
        room, most = self._room(), self._gate.concurrency.share if self._gate.concurrency.several else None
        chosen = self._hand.choose(room, most)
        if sum(job.requests for job in chosen) < room:
            for name in self._hand.full(most):
                if name in self._hand.ready:
                    self._reached(Limit.CALLS_ON_THE_WIRE, name, 1)
        return chosen, token

    def _room(self) -> int:
        room = self._gate.room(len(self._calls), self._clock())
        if self._tokens.unproven:  # a new token, not yet known to be good: one call tries it
            return min(room, 0 if self._calls else 1)
        return room

    # ---- the store ----

    def _wants_lanes(self) -> bool:
        if self._due is not None and self._now() >= self._due:
            self._more = True
        if not self._more or (self._tokens.current() is None and not self._dry_run):
            return False
        if self._gate.circuit.holds_back:
            return not self._hand.ready and self._clock() >= self._gate.circuit.probe_at
        return len(self._hand.ready) < self._gate.concurrency.limit or self._clock() >= self._looks_at

    @property
    def _looks_at(self) -> float:
        """Return when to look for lanes of whoever has less than its share in hand, though there are enough [s]."""
        return self._took_at + (LOOK_SECONDS if self._nudged else IDLE_SECONDS)

    async def _take_lanes(self) -> None:
        held = Counter[Line]() if self._gate.circuit.holds_back else self._hand.held
        most = 1 if self._gate.circuit.holds_back else self._max_concurrency * LANES_PER_CALL + len(self._calls)
        wanted = max(1, min(MOST_LANES, most - held.total()))
        rows = min(self._batch, max(FEWEST_ROWS, ROWS_PER_LEASE // wanted))
        hold = max(LEASE, 3 * self._timeout)
        lanes = held.total() + wanted
        leased = await self._store.lease(self._now(), lanes, rows, hold, held=held, afresh=self._afresh)
        self._afresh, self._nudged, self._took_at = False, False, self._clock()
        self._store_works()
        self._hand.take(leased)
        if len(leased) < wanted:
            self._more = False
            self._due = await self._store.next_due()

    async def _tell(self) -> None:
        """Let `explain` know what keeps calls from MOOST: when it begins, each minute, and when it ends."""
        now, cause = self._now(), self.state.cause or ""
        at, told = self._told or (now, "")
        if cause != told or (cause and not timedelta() <= now - at < TELL_EVERY):
            await self._store.commit(Work(now=now, trouble=cause))
            self._told = (now, cause)

    async def _write(self, jobs: Sequence[Job]) -> Sequence[Job]:
        """Settle, mark and give back in one transaction; if it fails, nothing has begun and nothing is forgotten.

        Returns the calls that may begin: of a lane from which something was erased (GDPR) nothing does.
        """
        hand = self._hand
        begun = [begin for job in jobs for begin in job.begins]
        touched = [Settlement(call_id=job.run.front.owed.id) for job in jobs if not job.begins]  # errands mark nothing
        try:
            gone = await self._store.settle(self._now(), [*hand.settlements, *touched], begun, hand.returns)
        except BaseException:
            hand.put_back(jobs)
            raise
        self._store_works()
        for each in hand.returns:
            self._due = each.at if self._due is None else min(self._due, each.at)
        self._metrics.dead_calls.extend(said.call_id for said in hand.settlements if said.buried is not None)
        hand.written()
        return hand.without(frozenset(gone), jobs) if gone else jobs

    def _store_works(self) -> None:
        self.state.store_unavailable = False
        self._outage.over("sender")

    async def _wait_for_store(self, error: StoreUnavailable) -> None:
        self._outage.met("sender", str(error))
        self.state.store_unavailable = True
        await asyncio.sleep(STORE_RETRY_SECONDS)

    # ---- the wire ----

    def _start(self, job: Job, token: Token | None) -> None:
        if token is None:
            return
        self._gate.begun(job.requests, self._clock())
        task = asyncio.create_task(self._call(job, token, len(self._calls) + 1))
        self._calls[task] = job.run

    async def _call(self, job: Job, token: Token, on_wire: int) -> None:
        started = self._clock()
        outcome: Outcome | Exception
        try:
            outcome = await perform(job, self._client, token.value, self._now, self._timeout)
        except Exception as error:  # noqa: BLE001 - one item, not the room
            outcome = error
        finally:
            self._calls.pop(cast("asyncio.Task[None]", asyncio.current_task()), None)  # before anybody counts again
        seconds = self._clock() - started
        self._ended.append(Result(job=job, token=token, outcome=outcome, seconds=seconds, on_wire=on_wire))
        self._wake.set()

    def _look_after_token(self) -> None:
        """Keep at most one token call on the wire."""
        self._metrics.token_expires_seconds.set(self._tokens.expires_in() or 0)
        if self._renewal is not None and self._renewal.done():
            self._renewal.result()  # a bug there is a bug of the room
            self._renewal = None
        if self._renewal is None and not self._dry_run and self._tokens.wants_renewal():
            self._renewal = asyncio.create_task(self._renew())

    async def _renew(self) -> None:
        before = self._tokens.trouble
        await self._tokens.renew()
        now = self._tokens.trouble
        if now is not before and now is not None:
            _log.error("sender_paused", problem=now.value, cause=self._tokens.cause)
        elif before is not None and now is None:
            _log.info("sender_resumed", after=before.value)
        self._wake.set()

    # ---- waiting ----

    async def _rest(self) -> None:
        """Sleep until something happens, or may be due."""
        try:
            async with asyncio.timeout(self._rest_seconds()):
                await self._wake.wait()
        except TimeoutError:
            if not self._more:
                self._due = await self._store.next_due()
                self._store_works()

    def _rest_seconds(self) -> float:
        at, waits = self._clock(), [IDLE_SECONDS]
        if self._due is not None and not self._more:
            waits.append((self._due - self._now()).total_seconds())
        if self._more and not self._gate.circuit.holds_back and (self._dry_run or self._tokens.current() is not None):
            waits.append(self._looks_at - at)
        if (opens := self._gate.opens_at(at)) is not None and opens > at:
            waits.append(opens - at)
        if self._renewal is None and self._tokens.current() is None and not self._dry_run:
            waits.append(self._tokens.next_try - at)
        return max(0.001, min(waits))

    async def _drain(self) -> None:
        """Await the calls on the wire, write what came of them, give back every lane that has none there.

        A lane with a call that did not end stays lent, so that the next start counts the call as in doubt.
        """
        ends = self._clock() + self.drain_timeout.total_seconds()
        while self._calls and self._clock() < ends:
            if not self._ended:
                await asyncio.wait(list(self._calls), timeout=ends - self._clock(), return_when=asyncio.FIRST_COMPLETED)
            self._read_results()
            await self._write_while_draining(ends)
        await _cancelled(list(self._calls))
        self._read_results()
        self._hand.give_all_back()
        await self._write_while_draining(ends + STORE_RETRY_SECONDS)

    async def _write_while_draining(self, ends: float) -> None:
        while self._hand.unwritten:
            try:
                await self._write(())
            except StoreUnavailable as error:
                if self._clock() >= ends:
                    return  # the calls stay in doubt, the lanes lent: the next start resolves both
                await self._wait_for_store(error)


async def _cancelled(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
