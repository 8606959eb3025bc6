"""A day in the life of some homes, through the real processes: cloud, bridge, sandbox, all in simulated time.

Rules:
- The cloud writes down what really happened and compares it with what the sandbox received (`simulate --verify`); what
  that comparison does not look at is left to `judge`.
- The homes lie where a span of 26 hours holds a whole local day, whatever the time is: so its sums leave too.
- With an outage the sandbox drops every call for some hours, and the bridge is killed twice, each time a minute before
  a quarter hour ends: once within the outage with calls that it owes, once later.
- What arrives must be the same with and without it. An event may then come twice, but not with two values.
- A backlog is a day that is over before the bridge hears of it: no machine is too slow for it, at any speed.

Theory of operation: cloud and bridge share one fast clock, which has caught up with real time when the day is over.
The bridge has to be up when the day begins, so the lead grows until it is.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from bridge.config import load
from bridge.sandbox import cloud
from bridge.sandbox.sky import HOUR_MS
from tests.life import judge
from tests.life.clock import Clock
from tests.life.ideal import Ideal, ideal
from tests.life.judge import Event, Record
from tests.life.replicas import replicated
from tests.life.stage import (
    SECRET,
    SUBSCRIPTION,
    Bridge,
    Process,
    Sandbox,
    Table,
    bridged,
    sandboxed,
    until,
)

LEADS_S: Final = (8.0, 20.0, 60.0)  # for the processes to come up before the day begins
CLOUD_S: Final = 3.0  # of that for the cloud
MARGIN_S: Final = 4.0  # real time that nothing may move for without a value being late
LONGEST_GRACE: Final = timedelta(minutes=14)  # it must be shorter than a slot
PATIENCE_S: Final = 150.0  # beyond the day itself: for what is under way, and for the comparison
BEFORE_A_SLOT_ENDS: Final = timedelta(minutes=1)
QUARTER: Final = timedelta(minutes=15)
LAG: Final = timedelta(hours=3)  # half of it the age of a backlog's newest message, by the bridge's clock
BACKLOG_SPEED: Final = 20.0  # no home is silent for as long as it takes to be taken to have caught up
PAGE: Final = 50_000

Tell = Callable[[str], object]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to happen."""

    homes: int
    hours: float
    speed: float
    seed: int = 1
    outage: bool = False
    replicas: int = 1  # more share a PostgreSQL database
    backlog: bool = False

    @property
    def lag(self) -> timedelta:
        """Return how long the day is over when the cloud begins: it says everything at once."""
        return LAG if self.backlog else timedelta()

    @property
    def span(self) -> timedelta:
        """Return how long the homes live."""
        return timedelta(hours=self.hours)

    def zone(self, now: datetime) -> str:
        """Return where a span of 26 hours holds a whole local day: midnight is an hour or two before its end."""
        end = now - self.lag + self.span / self.speed
        east = (1 - end.hour + 11) % 24 - 11
        return f"Etc/GMT{-east:+d}"

    @property
    def patience(self) -> timedelta:
        """Return what the machine may stand still in simulated time, lest the cloud is taken to be late."""
        return min(timedelta(seconds=self.speed * MARGIN_S), LONGEST_GRACE)

    def intervals(self) -> Table:
        """Return the bridge's settings: the defaults, as long as they are no shorter than the patience."""
        waits = {"grace": timedelta(minutes=2), "catch_up": timedelta(minutes=10)}
        return {name: f"{max(wait, self.patience).total_seconds():.0f}s" for name, wait in waits.items()}

    @property
    def down(self) -> tuple[timedelta, timedelta]:
        """Return from when to when nobody answers the bridge: three hours of a day."""
        begin = self.span * 0.3
        return begin, begin + min(timedelta(hours=3), self.span * 0.4)

    @property
    def kills(self) -> tuple[timedelta, timedelta]:
        """Return about when the bridge is killed: within the outage, and later."""
        begin, end = self.down
        return begin + (end - begin) * 0.6, self.span * 0.7


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of it."""

    compared: str  # the cloud's own table and summary
    counts: Mapping[str, Any]  # the sandbox's
    faults: Sequence[str]  # sentences; none = a good day
    told: Sequence[str]  # what a person wants to know besides
    events: Sequence[Event]  # as the sandbox received them


@dataclass
class Day:
    """One day on a stage of its own."""

    plan: Plan
    sandbox: Sandbox
    bridge: Bridge
    clock: Clock
    cloud: Process
    deadline: float  # [monotonic s]
    tell: Tell
    outage: tuple[datetime, datetime] | None = None  # as it really was

    def live(self) -> Outcome:
        """Let it happen, and judge."""
        if self.plan.outage:
            self._wait(self._time(self.plan.down[0]))
            self.sandbox.faults({"kind": "outage"})
            began = self.clock.at(time.time())
            self._kill(self.plan.kills[0], owing=True)
            self._wait(self._time(self.plan.down[1]))
            assert self.sandbox.fired(), "no call met the outage"
            ended = self.clock.at(time.time())
            self.sandbox.faults()
            self.outage = began, ended
            self.tell(f"{ended - began} without MOOST")
            self._kill(self.plan.kills[1], owing=False)
        while self.cloud.running:
            self._look(self.clock.start + self.plan.span + timedelta(hours=1))
        code = self.cloud.ended()
        health = self.bridge.settled()
        counts = self.sandbox.counts()
        record = Record(
            events=list(self._events()), counts=counts, health=health, clock=self.clock, outage=self.outage,
            ideal=self._ideal(),
        )  # fmt: skip
        assert 0 == self.bridge.stop()
        faults = [] if code == 0 else [f"the comparison with the truth ended with {code}"]
        faults += judge.faults(record)
        return Outcome(
            compared=self.cloud.text(), counts=counts, faults=faults, told=[*judge.remarks(record)],
            events=record.events,
        )  # fmt: skip

    # ---- what happens ----

    def _time(self, since: timedelta) -> datetime:
        """Return a simulated time by its distance from the beginning."""
        return self.clock.start + since

    def _wait(self, when: datetime) -> None:
        """Wait for a simulated time."""
        while self.clock.at(time.time()) < when:
            self._look(when)

    def _look(self, when: datetime) -> None:
        """Wait for a moment of real time, or for a simulated time that is sooner; everything must be alive."""
        assert time.monotonic() < self.deadline, f"not in time:\n{self.cloud.text()[-2000:]}"
        for process in (self.sandbox.process, self.bridge.process):
            assert process is not None
            assert process.running, f"it ended:\n{process.text()[-4000:]}"
        soon = time.time() + 0.25
        until(lambda: time.time() >= soon or self.clock.at(time.time()) >= when or not self.cloud.running, "a moment")

    def _kill(self, about: timedelta, *, owing: bool) -> None:
        """Kill the bridge shortly before a slot ends, and start it again at once."""
        at = self._time(about)
        self._wait(at - (at - datetime.min.replace(tzinfo=UTC)) % QUARTER + QUARTER - BEFORE_A_SLOT_ENDS)
        owed = self.bridge.health()["calls"]["pending"]
        assert owed or not owing, "nothing was owed at the kill"
        dead = self.clock.at(time.time())
        self.bridge.kill()
        self.bridge.start()
        up = self.clock.at(time.time())
        self.tell(f"killed with {owed} calls owed, back after {(up - dead).total_seconds() / 60:.1f} simulated minutes")

    # ---- what is left of it ----

    def _events(self) -> Iterator[Event]:
        """Yield everything that the sandbox received."""
        since = 0
        while True:
            page = self.sandbox.received(since=since, limit=PAGE)
            yield from page["events"]
            since = page["next"]
            if since >= page["counts"]["next"]:
                return

    def _ideal(self) -> Ideal:
        """Return what the cloud's messages should lead to, by the bridge's own settings."""
        anchor = self.clock.anchor - self.plan.lag
        end = int((anchor.timestamp() + self.plan.span.total_seconds() / self.plan.speed) * 1000)
        start = end - int(self.plan.hours * HOUR_MS)
        posts = cloud.posts(self.plan.homes, seed=self.plan.seed, start=start, end=end)
        rules = load(self.bridge.config).rules()
        return ideal(posts, SUBSCRIPTION, rules, datetime.fromtimestamp(end / 1000, UTC))


# ---- setting the stage ----------------------------------------------------------------------------------------------


def live(
    folder: Path, plan: Plan, tell: Tell = lambda _: None, begins: Callable[[], datetime] | None = None
) -> Outcome:
    """Live a day in a folder of its own.

    `begins` is asked when it begins, once only the bridge is not up yet; without it, as soon as that is.

    Raises AssertionError where a process fails or time runs out.
    """
    with ExitStack() as held:
        sandbox = held.enter_context(sandboxed(folder))
        bridge = held.enter_context(_bridge(folder, sandbox.url, plan))
        clock = _up(bridge, plan, begins and begins())
        truth = folder / "truth.jsonl"
        options = {
            "target": bridge.url, "homes": plan.homes, "hours": plan.hours, "speed": plan.speed, "seed": plan.seed,
            "subscription": SUBSCRIPTION, "secret": SECRET, "anchor": (clock.anchor - plan.lag).isoformat(),
            "truth": truth, "verify": sandbox.url, "config": bridge.config,
        }  # fmt: skip
        words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        process = Process(("simulate", *words), folder / "cloud.log")
        held.callback(process.kill)
        process.start()
        told = ", ".join(f"{name} {value}" for name, value in plan.intervals().items())
        tell(f"{plan.homes} homes live {plan.hours:g} hours at {plan.speed:g} times the speed; {told}")
        deadline = time.monotonic() + LEADS_S[-1] + plan.hours * 3600 / plan.speed + PATIENCE_S
        day = Day(plan, sandbox, bridge, clock, process, deadline, tell)
        return day.live()


def _bridge(folder: Path, moost: str, plan: Plan) -> AbstractContextManager[Bridge]:
    """Prepare the bridge that the plan asks for."""
    if plan.replicas == 1:
        return bridged(folder, moost, intervals=plan.intervals())
    return replicated(folder, moost, plan.replicas, intervals=plan.intervals())


def _clock(plan: Plan, anchor: datetime) -> Clock:
    """Return the bridge's clock: the cloud's own, or one that is ahead of all that the cloud says."""
    if plan.backlog:
        return Clock(start=anchor - plan.lag / 2, anchor=anchor, speed=BACKLOG_SPEED)
    return Clock(start=anchor + plan.span / plan.speed - plan.span, anchor=anchor, speed=plan.speed)


def _up(bridge: Bridge, plan: Plan, given: datetime | None) -> Clock:
    """Start the bridge well before the day begins; returns the clock. On a slow machine it gets a longer lead."""
    for lead_s in LEADS_S:
        anchor = given or datetime.now(UTC) + timedelta(seconds=lead_s)
        clock = _clock(plan, anchor)
        zone = plan.zone(datetime.now(UTC))
        bridge.configure(clock=clock.table(), server={"port": 0}, buildings={"default_time_zone": zone})
        bridge.start()
        if datetime.now(UTC) < anchor - timedelta(seconds=CLOUD_S):
            bridge.configure(server={"port": int(bridge.url.rpartition(":")[2])})  # the address survives a kill
            return clock
        assert given is None, "the bridge was not up in time"
        bridge.kill()
        for file in bridge.folder.glob(f"{bridge.store.name}*"):
            file.unlink()
    raise AssertionError("the bridge takes too long to start")
