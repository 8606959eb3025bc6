"""Faults of the embedded store: its disk is full, somebody else writes to it."""

import random
import time
from typing import cast

from bridge.store.sqlite.files import BUSY_TIMEOUT_S
from tests.chaos.fault import Fault, Needs
from tests.chaos.keeping import Embedded
from tests.chaos.scene import Scene, seen


class DiskFull(Fault):
    """Not a page is left: the door says 503, what is owed goes on, and all heals by itself."""

    name = "disk full"
    needs = frozenset({Needs.STORE})

    def possible(self, scene: Scene) -> str | None:
        """Return why there is no disk to fill."""
        return None if _keeping(scene).small else "no disk of its own can be mounted here"

    def inject(self, scene: Scene, dice: random.Random) -> int:
        """Fill the disk until senders are turned away, and a little longer."""
        keeping, statuses = _keeping(scene), scene.crowd.statuses
        before = statuses[503]
        keeping.fill()
        fired = seen(lambda: statuses[503] > before, 6)
        time.sleep(dice.uniform(0.5, 3))
        keeping.heal()
        return fired


class HeldStore(Fault):
    """Another writer holds the store: nothing is acknowledged meanwhile."""

    name = "store held by another writer"
    needs = frozenset({Needs.STORE})

    def inject(self, scene: Scene, dice: random.Random) -> int:
        """Hold it; the first time, and every third, longer than the daemon waits."""
        statuses = scene.crowd.statuses
        with _keeping(scene).held():
            time.sleep(0.3)  # for the answers to what was committed before
            before = statuses[202]
            time.sleep(BUSY_TIMEOUT_S + 1.5 if self.injected % 3 == 1 else dice.uniform(0.5, 2))
            return statuses[202] == before


def _keeping(scene: Scene) -> Embedded:
    return cast("Embedded", scene.keeping)


FAULTS = (DiskFull, HeldStore)
