"""Faults of the clocks: the world's steps at a restart, the system's under a running daemon.

Rules:
- A step has fired when the bridge says of a fresh message that it was received at the wrong time; a step of the system
  beyond the five minutes within which a signature is good, when signatures are refused.
- Where the store tells the time, a turned system has no effect but a line in the log: then that is what has fired.
- A step of the world stays until the next one. The system's clock is set right again: a step in the other direction.
"""

import json
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import TimeoutError as NotInTime
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Final

from tests.chaos.fault import Fault, Needs
from tests.chaos.scene import Scene, seen
from tests.chaos.town import UPDATE, Fate
from tests.life.stage import vehicle

FARTHEST_BACK: Final = timedelta(minutes=-100)  # what the town says stays in the past
FARTHEST_FORWARD: Final = timedelta(hours=5)  # steady homes become history, the sandbox's clock is not reached
LEAST: Final = timedelta(minutes=10)
NEAR: Final = timedelta(seconds=30)
TOLD_S: Final = 10.0  # some signs of life


def received(scene: Scene) -> datetime | None:
    """Return when the bridge says that it received a fresh message."""
    body = vehicle("stranger-probe", "car", 50, scene.world.now())
    message = scene.crowd.town.letter(UPDATE, body, Fate.PARKED)
    try:
        taken = scene.crowd.deliver(message).result(5)
    except NotInTime:
        return None
    if not taken.ids:
        return None
    code, told = scene.command("explain", taken.ids[0], "--json")
    return None if code else datetime.fromisoformat(json.loads(told)[0]["received"]).astimezone(UTC)


@contextmanager
def _turned(scene: Scene, by: timedelta) -> Iterator[Callable[[], bool]]:
    """Turn the system's clock; the result waits until a daemon has told that it is wrong, where one would."""

    def lines() -> int:
        return sum(replica.bridge.text().count("clock_differs") for replica in scene.replicas)

    before = lines()
    scene.clock.turn(by)
    try:
        yield lambda: not scene.keeping.tells_time or seen(lambda: lines() > before, TOLD_S)
    finally:
        scene.clock.turn(timedelta())


class WorldStep(Fault):
    """The daemon comes up with another idea of the time."""

    needs = frozenset({Needs.BRIDGE})

    def _step(self, scene: Scene, dice: random.Random, step: timedelta) -> int:
        scene.world.step = step
        for replica in scene.replicas:
            replica.restart(gently=dice.random() < 0.5, clock=scene.world.table())
        found = received(scene)
        return found is not None and abs(found - scene.world.now() - step) < NEAR


class WorldForward(WorldStep):
    """Forward: quarter hours end at once, what was live is history."""

    name = "clock stepped forward at a restart"

    def inject(self, scene: Scene, dice: random.Random) -> int:
        """Step forward, from the beginning again where there is no room; the clock's own room has to notice."""
        before = scene.world.step if scene.world.step < FARTHEST_FORWARD - LEAST else timedelta()
        step = before + dice.random() * (FARTHEST_FORWARD - before - LEAST) + LEAST
        ahead = step > scene.world.step
        fired = self._step(scene, dice, step)
        return fired and (not ahead or seen(lambda: "clock_resumed" in scene.replicas[0].bridge.text(), 5))


class WorldBack(WorldStep):
    """Back: what happened already has not happened yet."""

    name = "clock stepped back at a restart"

    def inject(self, scene: Scene, dice: random.Random) -> int:
        """Step back, from the middle again where there is no room."""
        before = scene.world.step if scene.world.step > FARTHEST_BACK + LEAST else timedelta()
        return self._step(scene, dice, before - dice.random() * (before - FARTHEST_BACK - LEAST) - LEAST)


class SystemStep(Fault):
    """The system's clock jumps under a running daemon, and is set right again."""

    needs = frozenset({Needs.BRIDGE})
    sign = 1

    def inject(self, scene: Scene, dice: random.Random) -> int:
        """Turn it by up to four minutes; signatures stay good."""
        by = self.sign * timedelta(seconds=dice.uniform(100, 240))
        with _turned(scene, by) as told:
            found = received(scene)
            off = timedelta() if scene.keeping.tells_time else by
            fired = found is not None and abs(found - scene.world.now() - scene.world.step - off) < NEAR
            return fired and told()


class SystemForward(SystemStep):
    """Forward: leases and waits end early."""

    name = "system clock jumps forward"


class SystemBack(SystemStep):
    """Back: leases and waits end late."""

    name = "system clock jumps back"
    sign = -1


class SystemFarOff(Fault):
    """The system's clock is so wrong that by it no signature is good."""

    name = "system clock far off"
    needs = frozenset({Needs.BRIDGE})

    def inject(self, scene: Scene, dice: random.Random) -> int:
        """Turn it by up to half an hour, until something is refused; where the store tells the time, nothing is."""
        statuses = scene.crowd.statuses
        before = statuses[401]
        with _turned(scene, dice.choice((-1, 1)) * timedelta(minutes=dice.uniform(6, 30))) as told:
            fired = told() if scene.keeping.tells_time else seen(lambda: statuses[401] > before, 3)
            time.sleep(dice.uniform(0, 1))
            return fired and (statuses[401] == before or not scene.keeping.tells_time)


FAULTS = (WorldForward, WorldBack, SystemForward, SystemBack, SystemFarOff)
