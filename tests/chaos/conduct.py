"""Conducting a run: a few hands take one fault after the other, as many at once as do not need the same.

Rules:
- Every fault strikes once before any strikes twice; then chance decides, until the time is over.
- A fault that has not fired by then gets some more chances: a slow machine is no fault of the bridge.
- At the end everything is healed, the cloud gets rid of what it has begun, and the bridge delivers all it owes.

Theory of operation: what is chosen follows from the seed; when it strikes, and what it meets, also from the machine.
"""

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.chaos import clocks, desk, disk, door, judge, moost, processes, shared
from tests.chaos.fault import Fault, Needs
from tests.chaos.judge import Record
from tests.chaos.keeping import Embedded, Keeping, Shared
from tests.chaos.mad import DEEDS, Mad, calm
from tests.chaos.moost import Forgets
from tests.chaos.scene import Scene, seen, staged
from tests.chaos.town import STEADY_AGE
from tests.life.stage import vehicle

HANDS: Final = 4
GREEDY: Final = 0.1  # of the choices are followed by a fault that needs more than one thing
LONGEST_REST_S: Final = 30.0
CHANCES: Final = 3
FRESH_S: Final = 15.0
DRAINED_S: Final = 90.0  # for what is owed, once nothing is wrong any more
CLOUD: Final = (
    "sent twice at once", "sent again though taken", "out of order", "arrays", "poison", "of another subscription",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What a run can be made on."""

    keeping: Callable[[Path], Keeping]
    faults: Sequence[type[Fault]]  # of its own kind
    without: Sequence[str] = ()  # what another ground has and this one not, and why


STORES: Final[Mapping[str, Ground]] = {
    "sqlite": Ground(keeping=Embedded, faults=disk.FAULTS),
    "postgresql": Ground(
        keeping=Shared,
        faults=shared.FAULTS,
        without=(
            "disk full: the disk is the server's, which says so by an error like any other; the bridge looks at none",
            "store held by another writer: there is no such thing; see the locks of somebody idle in a transaction",
        ),
    ),
}
"""Another store is one more line."""

Tell = Callable[[str], object]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to happen."""

    seed: int
    seconds: float
    homes: int = 12
    pace_s: float = 0.35
    store: str = "sqlite"
    clocks: bool = True  # turn them too


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of it."""

    table: Sequence[tuple[str, int, int]]  # fault, injected, fired
    impossible: Sequence[str]  # faults that this machine does not let happen, and why
    without: Sequence[str]  # faults that make no sense on this store, and why
    wrong: Sequence[str]  # sentences; none = a good run
    told: Sequence[str]  # what a person wants to know besides

    @property
    def never(self) -> list[str]:
        """Return the faults that never fired."""
        return [name for name, _, fired in self.table if not fired]


@dataclass
class Conductor:
    """Hands out faults."""

    scene: Scene
    faults: Sequence[Fault]
    plan: Plan
    tell: Tell
    _free: set[Needs] = field(default_factory=lambda: set(Needs))
    _strikes: int = 0
    _chances: int = 0  # given to what has not fired in time
    _over: threading.Event = field(default_factory=threading.Event)

    def conduct(self) -> None:
        """Let everything happen."""
        self._began = time.monotonic()
        self._changed = threading.Condition()
        self._dice = random.Random(self.plan.seed)
        self._waiting = self._dice.sample(self.faults, len(self.faults))
        watch = threading.Thread(target=self._watch, name="watch")
        watch.start()
        try:
            with ThreadPoolExecutor(HANDS) as pool:
                hands = [pool.submit(self._hand) for _ in range(HANDS)]
                try:
                    for hand in hands:
                        hand.result()
                finally:
                    self._over.set()
        finally:
            watch.join()

    def _watch(self) -> None:
        """Look at the daemons at all times."""
        while not self._over.wait(0.5):
            for replica in self.scene.replicas:
                replica.look()

    def _hand(self) -> None:
        while (taken := self._take()) is not None:
            fault, dice = taken
            before, began = fault.fired, time.monotonic()
            try:
                fault.strike(self.scene, dice)
                when, lasted = began - self._began, time.monotonic() - began
                self._note(f"{when:6.1f} s, for {lasted:4.1f} s: {fault.name}, fired {fault.fired - before}")
                self._rest(fault, dice)
            except Exception as error:
                self._over.set()
                raise AssertionError(f"{fault.name}: {error!r}") from error
            finally:
                with self._changed:
                    self._free |= fault.needs
                    self._changed.notify_all()

    def _rest(self, fault: Fault, dice: random.Random) -> None:
        """Leave store and door alone for a while: they are two of four, and would trouble every start."""
        left = self.plan.seconds - (time.monotonic() - self._began)
        if left > LONGEST_REST_S and not fault.needs & {Needs.BRIDGE, Needs.MOOST}:
            self._over.wait(dice.uniform(0, LONGEST_REST_S))

    def _note(self, line: str) -> None:
        """Write down what struck when, for whoever wants to know how something came about."""
        with self._changed, (self.scene.folder / "strikes.log").open("a") as file:
            file.write(line + "\n")

    def _take(self) -> tuple[Fault, random.Random] | None:
        """Return the next fault whose needs are free; None = it is over."""
        with self._changed:
            while not self._over.is_set():
                fault = self._next()
                if fault is not None:
                    self._free -= fault.needs
                    self._strikes += 1
                    return fault, random.Random(f"{self.plan.seed} {self._strikes} {fault.name}")
                if not self._waiting and self._free == set(Needs) and not self._another_chance():
                    return None
                self._changed.wait(0.5)
        return None

    def _next(self) -> Fault | None:
        """Choose among those whose needs are free: first those that wait, then any, while there is time."""
        fitting = [fault for fault in self._waiting if fault.needs <= self._free]
        if fitting:
            self._waiting.remove(fitting[0])
            return fitting[0]
        if self._waiting or time.monotonic() - self._began > self.plan.seconds:
            return None
        fitting = [fault for fault in self.faults if fault.needs <= self._free]
        if fitting and self._dice.random() < GREEDY:  # what needs much for itself would else hardly ever find it free
            self._waiting = [self._dice.choice([fault for fault in self.faults if len(fault.needs) > 1])]
        return self._dice.choice(fitting) if fitting else None

    def _another_chance(self) -> bool:
        """Let those wait that never fired; return whether there are any, and it is not yet enough."""
        self._chances += 1
        self._waiting = [fault for fault in self.faults if not fault.fired] if self._chances <= CHANCES else []
        return bool(self._waiting)


# ---- a whole run ----------------------------------------------------------------------------------------------------


def chaos(folder: Path, plan: Plan, tell: Tell = lambda _: None, *, ground: Ground | None = None) -> Outcome:
    """Let a run happen in a folder of its own, and judge it; `ground` replaces that of the store."""
    dice = random.Random(plan.seed)
    ground = STORES[plan.store] if ground is None else ground
    with staged(folder, ground.keeping(folder), dice=dice, homes=plan.homes, pace_s=plan.pace_s) as scene:
        kinds: list[type[Fault]] = [
            *processes.FAULTS, *(clocks.FAULTS if plan.clocks else ()), *ground.faults, *desk.FAULTS, *door.FAULTS,
        ]  # fmt: skip
        faults = [*(kind() for kind in kinds), *moost.faults()]
        impossible = [f"{fault.name}: {why}" for fault in faults if (why := fault.possible(scene)) is not None]
        faults = [fault for fault in faults if fault.possible(scene) is None]
        began, mad, wrong = time.monotonic(), Mad(scene.crowd), list[str]()
        scene.crowd.others.append(mad.live)
        scene.crowd.start()
        try:
            Conductor(scene, faults, plan, tell).conduct()
            tell(f"over after {time.monotonic() - began:.0f} s; all is healed now")
            scene.heal()
            wrong += calm(scene, mad)
        finally:
            scene.crowd.finish(DRAINED_S)
        wrong += _drained(scene)
        record = _record(scene, faults)
        wrong += [*scene.troubles, *scene.crowd.troubles, *judge.verdict(record), *_afterwards(scene)]
        repeated = sum(sent.lost > 0 for sent in scene.crowd.book.values())
        table = [
            *((fault.name, fault.injected, fault.fired) for fault in faults),
            *((f"cloud: {name}", scene.crowd.did[name], scene.crowd.did[name]) for name in CLOUD),
            *((name, scene.crowd.did[name], scene.crowd.did[name]) for name in DEEDS),
            ("cloud: repeated after a lost answer", repeated, repeated),
        ]
        told = [*_remarks(scene, record)]
        return Outcome(table=table, impossible=impossible, without=ground.without, wrong=wrong, told=told)


def _drained(scene: Scene) -> Iterator[str]:
    """Wait until nothing is owed any more; yield what is."""

    def done() -> bool:
        health = scene.health()
        return not health["ledger"]["pending"] and not health["calls"]["pending"]

    if not seen(done, DRAINED_S):
        health = scene.health()
        owed = f"{health['ledger']} {health['calls']} {health['problems']}"
        yield f"still owed {DRAINED_S:.0f} s after all was healed: {owed}"


def _record(scene: Scene, faults: Sequence[Fault]) -> Record:
    _, listed = scene.command("dead-letters", "list", "--json")
    return Record(
        book=scene.crowd.book,
        town=scene.crowd.town,
        health=scene.health(),
        dead_letters=json.loads(listed),
        journal=judge.read(scene.platform.journal),
        refused=sum(fault.fired for fault in faults if isinstance(fault, Forgets)),
        unheard=scene.keeping.unheard,
    )


def _afterwards(scene: Scene) -> Iterator[str]:
    """Yield what is wrong with a fresh message, with the end of the daemons, with the store."""
    user = scene.crowd.town.steady[0].user
    replica = scene.replicas[0]
    fresh = vehicle(user, "car-fresh", 12.345, scene.world.now() - STEADY_AGE)
    if replica.bridge.post("vehicle.update", fresh).status_code != 202:
        yield "a fresh message is not taken"
    longest = FRESH_S + scene.keeping.takes_over_s
    if not seen(lambda: _arrived(scene, f"car-fresh-of-{user}"), longest):
        yield f"a fresh message does not pass within {longest:.0f} s"
    for one in scene.replicas:
        one.end()
    code, said = scene.command("store", "check", "--json")
    if code:
        yield f"the store is not in order: {said}"
    told = "".join(one.bridge.text() for one in scene.replicas)
    for word in ("Traceback", "room_failed", "effect_faulted", "building_set_aside"):
        if word in told:
            at = told.index(word)
            yield f"the log says {word}: {told[max(0, at - 300) : at + 700]}"


def _arrived(scene: Scene, car: str) -> bool:
    return any(event["deviceId"] == f"vehicle:{car}" for event in judge.events(scene.platform.journal))


def _remarks(scene: Scene, record: Record) -> Iterator[str]:
    """Yield what a person wants to know besides."""
    fates = judge.expected(record)
    again = sum(len(events) - 1 for events in judge.repeats(record).values())
    lanes = Counter(event["lane"] for event in record.said("event"))
    yield f"letters: {len(record.book)}; messages: {', '.join(f'{count} {fate}' for fate, count in fates.items())}"
    yield f"answers: {dict(sorted(scene.crowd.statuses.items()))}, and {scene.crowd.lost} never came"
    yield f"events: {dict(lanes)}; {again} came again, {judge.in_doubt(record)} calls were in doubt"
    if delays := scene.crowd.delays:
        middle, worst = delays[len(delays) // 2], delays[-1]
        yield f"beside the mad subscription {len(delays)} values took {middle:.2f} s to MOOST, at most {worst:.2f} s"
    else:
        yield "there was no calm in which only the mad subscription did wrong: what was owed took too long"
    starts, kills = sum(one.starts for one in scene.replicas), sum(one.kills for one in scene.replicas)
    refused = sum(one.refused for one in scene.replicas)
    yield f"the bridge was started {starts} times, killed {kills} times; {refused} starts found no store"
