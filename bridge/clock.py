"""The clock: ticks for due buildings, retention, the gauges behind readiness.

Rules:
- A tick is processed only after every message accepted before it: its time is the store's horizon (M5.4).
- Correctness never depends on a tick coming in time; a late one closes what is ripe, an early one nothing.
- Subscriptions take turns: next are the buildings of the one that has used least of the clock's time lately.
- A building that has a long past to close takes turns with the others: a tick closes a few slots, then it stands behind
  all that are due by then.
- A building whose tick raises is set aside for an hour and counted; the others go on (R12).
- A building that a message changes while it is ticked is left out and ticked again; it holds up no other.
- After a gap (restart, sleep, pause) buildings catch up for a while, so that retries land in their slots.
- Four times a day the state that a tick leaves is kept as a copy, each building's at times of its own: `replay` begins
  with one where older messages are deleted.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from bridge import errors, logs
from bridge.core.effects import ChangeBuilding, CreateBuilding, Effect, Note, PutDevices, SendEvents
from bridge.core.messages import Tick
from bridge.core.model import Building
from bridge.core.reduce import reduce
from bridge.core.rules import Rules
from bridge.core.slots import LOOK_AGAIN, due, passes
from bridge.findings import Findings
from bridge.repeated import Outage, store_outage
from bridge.store.port import Census, Outgoing, Store, StoreBroken, StoreUnavailable, Versioned, Work

EVERY_S: Final = 0.1  # how often to look for due buildings: few at a time, or the door waits for all of a second's
FASTEST_S: Final = 0.02  # the same where time runs faster
BATCH: Final = 8  # buildings a transaction; more would keep the door waiting: 0.25 ms each of the writer
TURN_S: Final = 0.05  # longest computing for a transaction: the longer it takes, the more buildings change meanwhile
SLICE_S: Final = 0.002  # longest computing without letting the door breathe
BREATH_S: Final = 0.001  # how long it breathes: time for the store's thread to write down what came in meanwhile
BEAT: Final = timedelta(seconds=10)  # how often the store is told that the clock is alive
LOOK_S: Final = 1.0  # how often readiness and retention are looked at, however many buildings are due
SWEEP_TURN_S: Final = 0.25  # longest deleting at a look: a store that has to forget millions of rows still ticks
KEPT: Final = 0.9  # of the time that a subscription has used, from one look to the next: after a minute it is forgotten
FORGOTTEN_S: Final = 0.001
SET_ASIDE: Final = timedelta(hours=1)  # a building whose tick raises
COPIES: Final = timedelta(hours=6)  # from one copy of a state to the next; with less kept a replay reaches less far

_log = logs.logger("clock")


class Clock:
    """The room that owns time."""

    def __init__(  # noqa: PLR0913 - everything it lives on, named
        self,
        store: Store,
        rules: Rules,
        *,
        retention: timedelta,
        max_size: int,
        now: Callable[[], datetime],
        turns: Callable[[], datetime] | None = None,
        queued: Callable[[], None],
        looked: Callable[[Census | None], None],
        speed: float = 1.0,
        copies: timedelta = COPIES,
        outage: Outage | None = None,
    ) -> None:
        """Prepare; `speed` is that of a simulated clock, `copies` how far the copies of a state are apart.

        `turns` is the clock that the sender goes by, where `now` is a simulated one.
        """
        self._store = store
        self._changed: tuple[Rules, timedelta, int] | None = None  # settings to be used from the next turn on
        self._rules = rules
        self._retention = retention
        self._max_size = max_size
        self._copies = copies
        self._now = now
        self._turns = turns or now
        self._queued = queued  # tells the sender that there is something to deliver
        self._looked = looked  # hands the newest counts to whoever judges readiness
        self._every_s = max(EVERY_S / speed, FASTEST_S)
        self._findings = Findings(rules)
        self._outage = outage or store_outage()
        self._beaten: datetime | None = None
        self._unsure = False  # whether the store can be written: reading alone does not show it
        self._resumed: datetime | None = None
        self._last_tick: datetime | None = None  # as the store knew at the last look
        self._look_at = 0.0  # when to look next [s of the monotonic clock]
        self._used: dict[str, float] = {}  # subscription -> time for its buildings lately [s]
        self.set_aside = 0  # buildings whose tick raised, since the start

    def reload(self, rules: Rules, retention: timedelta, max_size: int) -> None:
        """Use other settings from the next tick on."""
        self._changed = (rules, retention, max_size)

    async def run(self, stop: asyncio.Event) -> None:
        """Tick until told to stop; a store that cannot serve is waited for."""
        while not stop.is_set():
            pause = self._every_s
            if self._changed is not None:
                (self._rules, self._retention, self._max_size), self._changed = self._changed, None
                self._findings = Findings(self._rules)
            try:
                await self.turn(stop)
            except StoreBroken:
                raise  # ends the process (R10)
            except StoreUnavailable as why:
                self._looked(None)
                self._look_at, pause = 0.0, LOOK_S
                self._unsure = True
                self._outage.met("clock", str(why))
            else:
                if not self._unsure:
                    self._outage.over("clock")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await stop.wait()

    async def turn(self, stop: asyncio.Event) -> None:
        """Look where that is due, then tick until nobody is; once told to stop, one transaction's worth."""
        await self._look()
        self._notice_gap()
        while await self.step() and not stop.is_set():
            await self._look()

    async def _look(self) -> None:
        """Once in a while tell how full the store is, and delete what is past retention."""
        if time.monotonic() < self._look_at:
            return
        self._used = {name: left for name, used in self._used.items() if (left := used * KEPT) > FORGOTTEN_S}
        census = await self._store.census()
        self._looked(census)
        self._last_tick = census.last_tick
        await self._sweep()
        self._look_at = time.monotonic() + LOOK_S

    def _notice_gap(self) -> None:
        """Remember when the process resumed after more than `grace` without ticks; a first start is no gap."""
        earlier = self._beaten or self._last_tick
        now = self._now()
        if earlier is not None and now - earlier > self._rules.grace + BEAT:
            self._resumed = now
            _log.info("clock_resumed", gap_seconds=round((now - earlier).total_seconds()))

    async def step(self) -> bool:
        """Tick the buildings that are due; return whether there may be more."""
        now = self._now()
        horizon, names = await self._store.due(now, BATCH, self._used)
        if not names:
            await self._beat(now)
            return False
        catching_up = self._resumed is not None and timedelta() <= now - self._resumed < self._rules.catch_up
        loaded = await self._store.load((), (), names)
        tick = Tick(now=horizon, catching_up=catching_up)
        buildings = [loaded.buildings[name] for name in names if name in loaded.buildings]
        await self._commit(await self._tick_all(buildings, tick, now), tick, now)
        return True

    async def _tick_all(self, buildings: Sequence[Versioned], tick: Tick, now: datetime) -> "list[_Ticked]":
        """Return what the ticks of the first buildings change, as many as fit into a turn."""
        done: list[_Ticked] = []
        began = since = time.perf_counter()
        for building in buildings:
            cpu = time.thread_time()
            done.append(self._tick(building, tick, now))
            payer = building.state.payer
            self._used[payer] = self._used.get(payer, 0.0) + time.thread_time() - cpu
            at = time.perf_counter()
            if at - began > TURN_S:
                break
            if at - since > SLICE_S:
                await asyncio.sleep(BREATH_S)
                since = time.perf_counter()
        return done

    def _tick(self, building: Versioned, tick: Tick, now: datetime) -> "_Ticked":
        """Return what a tick changes in one building."""
        name = building.state.id
        try:
            state, effects = reduce(building.state, tick, self._rules)
            at = due(state, self._rules)
        except Exception as fault:  # noqa: BLE001 - one building must not hold up the others (R12)
            _log.error("building_set_aside", building=name, fault=errors.place_of(fault))
            self.set_aside += 1
            return _Ticked(name=name, due=now + SET_ASIDE)
        if at is not None and at <= tick.now:
            stuck = state.open_from == building.state.open_from
            at = now + LOOK_AGAIN if stuck else max(at, tick.now)
        return _Ticked(
            name=name,
            before=building.state,
            due=at,
            states=(Versioned(state=state, version=building.version),),
            effects=effects,
            copied=passes(building.state, state, self._copies),
        )

    async def _commit(self, ticked: "Sequence[_Ticked]", tick: Tick, now: datetime) -> None:
        """Write what ticks change; a building that has moved meanwhile is left out, and stays due."""
        while True:
            work = _work(ticked, tick, now, self._turns())
            moved = frozenset(await self._store.commit(work))
            if not moved:
                break
            ticked = [one for one in ticked if one.name not in moved]
        self._beaten, self._unsure = now, False
        if logs.debugging():
            _log.debug("ticked", buildings=len(ticked), calls=len(work.calls), horizon=tick.now.isoformat())
        for one in ticked:
            for state in one.states:
                self._findings.tell(one.before, state.state)
        if work.calls:
            self._queued()

    async def _beat(self, now: datetime) -> None:
        """Tell the store now and then that the clock is alive."""
        if self._unsure or self._beaten is None or now - self._beaten >= BEAT or now < self._beaten:
            await self._store.commit(Work(now=now, ticked=now))
            self._beaten, self._unsure = now, False

    async def _sweep(self) -> None:
        """Delete what is past retention, in small steps; what is left is the next look's."""
        until = time.monotonic() + SWEEP_TURN_S
        while await self._store.sweep(self._now(), self._retention, self._max_size) and time.monotonic() < until:  # noqa: ASYNC110 - not a wait
            await asyncio.sleep(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ticked:
    """What a tick changes in one building; no state = it was set aside."""

    name: str
    due: datetime | None
    before: Building | None = None
    states: tuple[Versioned, ...] = ()
    effects: tuple[Effect, ...] = ()
    copied: bool = False

    @property
    def payer(self) -> str:
        """Return the subscription that pays for its calls."""
        return "" if self.before is None else self.before.payer


def _work(ticked: Sequence[_Ticked], tick: Tick, now: datetime, turn: datetime) -> Work:
    """Return what ticks change, for one transaction; their calls are due at `turn`."""
    effects = [(effect, one.payer) for one in ticked for effect in one.effects]
    calls = (CreateBuilding, ChangeBuilding, PutDevices, SendEvents)
    return Work(
        now=now,
        buildings=[state for one in ticked for state in one.states],
        due={one.name: one.due for one in ticked},
        calls=[Outgoing(call=effect, subscription=payer) for effect, payer in effects if isinstance(effect, calls)],
        turn=turn,
        notes=[(0, effect) for effect, _ in effects if isinstance(effect, Note)],
        ticked=now,
        tick=tick,
        copied=frozenset(one.name for one in ticked if one.copied),
    )
