"""The stage on which everything goes wrong: the bridge's replicas, MOOST, the cloud, and two clocks to turn.

Rules:
- A daemon that could not start because its store cannot be had is started again, as a supervisor does; one that ends
  for any other reason, or by itself, is trouble.
- The world's clock is what the daemons are told by `[clock]`, and moves at a restart. The system's clock is what
  `bridge.times.wall` says, and moves under a running daemon.
- The world is half a day behind, so that no step makes it pass real time.
"""

import mmap
import random
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx

from tests.chaos.crowd import Crowd
from tests.chaos.keeping import Keeping
from tests.chaos.town import LIVE_MAX_AGE, MAD, MAD_PREFIX, MAD_USER, PREFIX, SECRETS, Town
from tests.life.stage import (
    PATIENCE_S,
    Bridge,
    Process,
    Sandbox,
    Table,
    ask,
    assert_identities,
    run,
    sandboxed,
    until,
)

LAG: Final = timedelta(hours=12)
MOOST_TIMEOUT_S: Final = 2.0
CONCURRENCY: Final = 8
DRAIN_TIMEOUT_S: Final = 2.0
TOLD_TO_END_S: Final = DRAIN_TIMEOUT_S + 8  # beyond it a drain is too long, whatever the machine does
LOOK_S: Final = 0.25
ANSWER_S: Final = 5.0  # one that sleeps holds up nobody who asks others

TURNED: Final = """
import mmap, struct
from datetime import timedelta
from bridge import cli, times
with open({path!r}, "rb") as file:
    held = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
def turned():
    return struct.unpack_from("d", held)[0]
real = times.wall
times.wall = lambda: real() + timedelta(seconds=turned())
{more}
cli.main()
"""
"""The daemon, on a system whose clock can be turned; `more` is what the store wants of it."""


def seen(condition: Callable[[], object], seconds: float) -> bool:
    """Return whether a condition comes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


class SystemClock:
    """How far the clock of the daemons' system is wrong."""

    def __init__(self, path: Path, more: str = "") -> None:
        """Start right; the daemons look into the file. `more` is said to them before they start."""
        path.write_bytes(bytes(8))
        self.path = path
        self.more = more
        with path.open("r+b") as file:
            self._held = mmap.mmap(file.fileno(), 8)

    @property
    def program(self) -> Sequence[str]:
        """Return what a daemon is started with."""
        return ("-c", TURNED.format(path=str(self.path), more=self.more))

    def turn(self, by: timedelta) -> None:
        """Set how far it is wrong."""
        struct.pack_into("d", self._held, 0, by.total_seconds())


@dataclass
class World:
    """The time in which the town lives, and how far the bridge's idea of it is wrong."""

    anchor: datetime = field(default_factory=lambda: datetime.now(UTC))
    step: timedelta = timedelta()

    def now(self) -> datetime:
        """Return what time it really is."""
        return datetime.now(UTC) - LAG

    def table(self) -> Table:
        """Return the bridge's settings."""
        return {"start": (self.anchor - LAG + self.step).isoformat(), "anchor": self.anchor.isoformat()}


@dataclass
class Replica:
    """A daemon under supervision."""

    bridge: Bridge
    clock: SystemClock
    troubled: Callable[[float], bool]  # whether the store could not be had at some time since [monotonic s]
    troubles: list[str]
    name: str = ""
    starts: int = 0
    refused: int = 0  # starts that ended because the store could not be had
    kills: int = 0
    wanted: bool = False  # it should be running
    ended: set[Path] = field(default_factory=set)

    def launch(self) -> None:
        """Start it, and wait for nothing."""
        self.starts += 1
        log = self.bridge.folder / f"bridge-{self.starts:04}.log"
        arguments = ("serve", "--config", str(self.bridge.config))
        self.bridge.process = Process(arguments, log, self.clock.program)
        self.bridge.process.start()

    def start(self, **sections: Table) -> None:
        """Start it as often as it takes until it serves; `sections` are other settings."""
        self.bridge.configure(**sections)
        end = time.monotonic() + PATIENCE_S
        while True:
            began = time.monotonic()
            self.launch()
            code = self._served()
            if code is None:
                self.wanted = True
                return
            self.refused += 1
            if code != 2 or not self.troubled(began):
                self.troubles.append(f"{self.name} did not start ({code}): {self.process.text()[-600:]}")
            assert time.monotonic() < end, f"{self.name} does not come up: {self.process.text()[-600:]}"
            time.sleep(0.2)

    def _served(self) -> int | None:
        """Wait for its address; return its exit code if it ended before."""
        process = self.process

        def look() -> tuple[int | None] | None:
            if '"event": "serving"' in process.text():
                self.bridge.url = process.said(r'"url": ?"(http://[^"]+)"')
                return (None,)
            return None if process.running else (process.ended(),)

        return until(look, f"{self.name} serves or ends")[0]

    @property
    def process(self) -> Process:
        """Return the process of its present or last life."""
        assert self.bridge.process is not None
        return self.bridge.process

    def kill(self) -> bool:
        """End it as the power does; return whether it was running."""
        self.wanted = False
        alive = self.process.running
        self.bridge.kill()
        self.kills += alive
        return alive

    def end(self) -> bool:
        """Ask it to end; return whether it did so in time and in order."""
        self.wanted = False
        began = time.monotonic()
        code = self.bridge.stop()
        took = time.monotonic() - began
        good = code == 0 and '"event": "drained"' in self.process.text()
        if not good or took > TOLD_TO_END_S:
            told = self.process.text()[-600:]
            self.troubles.append(f"{self.name}, told to end, ended with {code} after {took:.1f} s: {told}")
        return good

    def restart(self, *, gently: bool, **sections: Table) -> None:
        """End it one way or the other, and start it again."""
        if gently:
            self.end()
        else:
            self.kill()
        self.start(**sections)

    def health(self) -> dict[str, Any] | None:
        """Return what it says of itself, if it does."""
        try:
            return dict(self._get("/health", ANSWER_S).json())
        except (httpx.HTTPError, ValueError):
            return None

    def metrics(self) -> str:
        """Return its metrics, if it tells them."""
        try:
            return self._get("/metrics", ANSWER_S).text
        except httpx.HTTPError:
            return ""

    def answers(self, seconds: float = 0.5) -> bool:
        """Return whether it answers anything."""
        try:
            return self._get("/health/live", seconds).status_code == 200
        except httpx.HTTPError:
            return False

    def _get(self, path: str, seconds: float) -> httpx.Response:
        return httpx.get(f"{self.bridge.url}{path}", timeout=seconds, trust_env=False, verify=False)  # noqa: S501 - no TLS is spoken here

    def _still_wanted(self, process: Process) -> bool:
        """Return whether nobody ended it just now."""
        return self.wanted and self.process is process

    def look(self) -> None:
        """Check what holds at every moment; one that ended by itself is trouble, and started again."""
        process = self.process
        gone = self.wanted and not process.running
        if gone and self._still_wanted(process):
            self.troubles.append(f"{self.name} ended by itself with {process.ended()}: {process.text()[-600:]}")
            self.start()
        health = self.health()
        if health is not None:
            try:
                assert_identities(health)
            except AssertionError as why:
                self.troubles.append(f"the accounts do not add up: {why}")


@dataclass
class Platform:
    """MOOST, which forgets nothing when it is killed."""

    sandbox: Sandbox
    journal: Path
    fired: dict[str, int] = field(default_factory=dict)

    def faults(self, *faults: Table) -> None:
        """Switch on exactly these faults."""
        self.sandbox.faults(*faults)

    def fires(self) -> list[int]:
        """Return how often each fault that is switched on has fired."""
        listed = ask("GET", f"{self.sandbox.url}/_sandbox/faults").json()
        return [int(fault["fired"]) for fault in listed]

    def kill(self) -> None:
        """End it without a word."""
        self.sandbox.kill()

    def start(self) -> None:
        """Start it again; its port may be somebody else's for a moment."""
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                self.sandbox.start()
            except AssertionError:
                assert time.monotonic() < end, "MOOST does not come up"
            else:
                return


@dataclass
class Scene:
    """Everything that a fault may touch."""

    replicas: Sequence[Replica]
    keeping: Keeping
    platform: Platform
    crowd: Crowd
    clock: SystemClock
    world: World
    folder: Path
    troubles: list[str]

    def command(self, *words: object) -> "tuple[int, str]":
        """Run a command beside the daemons; return its exit code and what it printed."""
        done = run(*words, "--config", self.replicas[0].bridge.config)
        return done.returncode, done.stdout

    def health(self) -> Mapping[str, Any]:
        """Return what the first replica that answers says."""
        return until(lambda: next((said for one in self.replicas if (said := one.health())), None), "an answer")

    def heal(self) -> None:
        """Make everything right again."""
        self.keeping.heal()
        self.clock.turn(timedelta())
        if self.platform.sandbox.process is None or not self.platform.sandbox.process.running:
            self.platform.start()
        self.platform.faults()
        for replica in self.replicas:
            if not replica.process.running:
                replica.start()


@contextmanager
def staged(folder: Path, keeping: Keeping, *, dice: random.Random, homes: int, pace_s: float) -> Iterator[Scene]:
    """Set the stage: MOOST, the directory, the daemons, and the cloud, which does not send yet."""
    with ExitStack() as held:
        journal = folder / "moost.jsonl"
        sandbox = held.enter_context(sandboxed(folder, "--journal", str(journal)))
        held.enter_context(keeping)
        clock, world, troubles = SystemClock(folder / "system-clock", keeping.program), World(), list[str]()
        town = Town(dice, world.now, homes)
        replicas = [
            Replica(
                _bridge(folder / f"replica-{number}", sandbox, keeping, world),
                clock,
                keeping.troubled,
                troubles,
                f"replica {number}",
            )
            for number in range(keeping.replicas)
        ]
        for replica in replicas:
            held.callback(replica.bridge.kill)
        crowd = Crowd(town, lambda: [one.bridge.url for one in replicas], dice, pace_s)
        scene = Scene(replicas, keeping, Platform(sandbox, journal), crowd, clock, world, folder, troubles)
        directory(scene, [home.user for home in town.known])
        for replica in replicas:
            replica.start()
        yield scene


def _bridge(folder: Path, sandbox: Sandbox, keeping: Keeping, world: World) -> Bridge:
    """Return a daemon that is not started yet."""
    folder.mkdir()
    settings: dict[str, Table] = {
        "server": {"port": 0, "drain_timeout": f"{DRAIN_TIMEOUT_S:.0f}s"},
        "moost": {
            "timeout": f"{MOOST_TIMEOUT_S:.0f}s",
            "max_concurrency": CONCURRENCY,
            "historical_batch": 20,
            "live_max_age": f"{LIVE_MAX_AGE.total_seconds():.0f}s",
        },
        "store": keeping.settings,
        "buildings": {"unknown": "park"},
        "clock": world.table(),
    }
    mad = {"id": MAD, "secrets": [SECRETS[MAD]], "user_prefix": MAD_PREFIX}
    bridge = Bridge(folder, sandbox.url, settings, own={"user_prefix": PREFIX}, others=(mad,))
    bridge.configure()
    return bridge


def directory(scene: Scene, users: Sequence[str]) -> bool:
    """Tell the bridge's directory of users; return whether it took them."""
    rows = scene.folder / "directory.csv"
    known = [f"{PREFIX}{user},{user}\n" for user in users]
    rows.write_text("".join(("user_id,customer_building_id\n", f"{MAD_PREFIX}{MAD_USER},the-mad-one\n", *known)))
    code, _ = scene.command("buildings", "import", rows)
    return code == 0
