"""Faults of the bridge's process: kills at the worst moments, ends in order, sleep."""

import random
import signal
import time

from tests.chaos.fault import Fault, Needs
from tests.chaos.scene import DRAIN_TIMEOUT_S, LOOK_S, Scene, seen


class KilledUnderLoad(Fault):
    """kill -9 while requests are in its hands: some of them stay without an answer."""

    name = "kill -9 under load"
    needs = frozenset({Needs.BRIDGE})

    def inject(self, scene: Scene, dice: random.Random) -> int:
        """Kill it at a random moment with a request on the way."""
        replica, crowd = dice.choice(scene.replicas), scene.crowd
        time.sleep(dice.uniform(0, 0.5))
        seen(lambda: crowd.on_the_way, LOOK_S)
        before = crowd.lost
        killed = replica.kill()
        fired = killed and seen(lambda: crowd.lost > before, 2)
        replica.start()
        return fired


class KilledOnTheWire(Fault):
    """kill -9 with calls on their way to MOOST, which takes them all the same: they are in doubt, and go again."""

    name = "kill -9 with calls on the wire"
    needs = frozenset({Needs.BRIDGE, Needs.MOOST})

    def inject(self, scene: Scene, dice: random.Random) -> int:
        """Kill it while MOOST thinks."""
        replica = dice.choice(scene.replicas)
        before = scene.health()["calls"]["in_doubt"]
        scene.platform.faults({"kind": "latency", "seconds": 1.2, "path": "/events"})
        seen(lambda: sum(scene.platform.fires()) >= 2 * len(scene.replicas), 3)
        replica.kill()
        scene.platform.faults()
        replica.start()
        return seen(lambda: scene.health()["calls"]["in_doubt"] > before, scene.keeping.takes_over_s)


class KilledAtStart(Fault):
    """kill -9 somewhere between its start and its first steps."""

    name = "kill -9 right after start"
    needs = frozenset({Needs.BRIDGE})

    def inject(self, scene: Scene, dice: random.Random) -> int:
        """Kill it, and kill the next one while it comes up."""
        replica = dice.choice(scene.replicas)
        replica.kill()
        replica.launch()
        if dice.random() < 0.5:
            seen(lambda: '"serving"' in replica.process.text(), 5)
            time.sleep(dice.uniform(0, 0.2))
        else:
            time.sleep(dice.uniform(0.05, 1.0))
        killed = replica.kill()
        replica.start()
        return killed


class KilledWhileDraining(Fault):
    """kill -9 after it was told to end, and before it has."""

    name = "kill -9 while draining"
    needs = frozenset({Needs.BRIDGE})

    def inject(self, scene: Scene, dice: random.Random) -> int:
        """Tell it to end, and do not wait."""
        replica = dice.choice(scene.replicas)
        replica.wanted = False
        replica.process.send(signal.SIGTERM)
        draining = seen(lambda: '"draining"' in replica.process.text(), 2)
        time.sleep(dice.uniform(0, 0.2))
        fired = replica.kill() and draining
        replica.start()
        return fired


class ToldToEnd(Fault):
    """SIGTERM: it ends in order and in time."""

    name = "SIGTERM and restart"
    needs = frozenset({Needs.BRIDGE})

    def inject(self, scene: Scene, dice: random.Random) -> int:
        """End and start it."""
        replica = dice.choice(scene.replicas)
        fired = replica.end()
        replica.start()
        return fired


class EndedWithCallsHanging(Fault):
    """SIGTERM while MOOST does not answer: it does not wait longer than it may, and what hangs is in doubt."""

    name = "SIGTERM with calls hanging"
    needs = frozenset({Needs.BRIDGE, Needs.MOOST})

    def inject(self, scene: Scene, dice: random.Random) -> int:
        """Let MOOST hang, and end it meanwhile."""
        replica = dice.choice(scene.replicas)
        replica.bridge.configure(moost={"timeout": f"{4 * DRAIN_TIMEOUT_S:.0f}s"})
        replica.restart(gently=True)
        scene.platform.faults({"kind": "latency", "seconds": 2 * DRAIN_TIMEOUT_S, "path": "/events"})
        hanging = seen(lambda: sum(scene.platform.fires()), 5)
        fired = replica.end() and hanging
        scene.platform.faults()
        replica.bridge.configure(moost={"timeout": f"{DRAIN_TIMEOUT_S:.0f}s"})
        replica.start()
        return fired


class Asleep(Fault):
    """SIGSTOP and SIGCONT: the machine sleeps, and nobody is answered."""

    name = "asleep (SIGSTOP)"
    needs = frozenset({Needs.BRIDGE})

    def inject(self, scene: Scene, dice: random.Random) -> int:
        """Stop it for some seconds."""
        replica = dice.choice(scene.replicas)
        replica.process.send(signal.SIGSTOP)
        silent = not replica.answers()
        time.sleep(dice.uniform(0.5, 3))
        replica.process.send(signal.SIGCONT)
        return silent and seen(replica.answers, 10)


class Reloaded(Fault):
    """SIGHUP in the middle of requests."""

    name = "SIGHUP under load"
    needs = frozenset({Needs.BRIDGE})

    def inject(self, scene: Scene, dice: random.Random) -> int:
        """Let it read its file again, several times."""
        replica = dice.choice(scene.replicas)
        before = replica.process.text().count('"reloaded"')
        for _ in range(3):
            replica.process.send(signal.SIGHUP)
            time.sleep(0.02)
        return seen(lambda: replica.process.text().count('"reloaded"') > before, 5)


FAULTS = (
    KilledUnderLoad, KilledOnTheWire, KilledAtStart, KilledWhileDraining, ToldToEnd, EndedWithCallsHanging, Asleep,
    Reloaded,
)  # fmt: skip
