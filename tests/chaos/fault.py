"""What a fault is: something that is done to the scene, and a look whether it had its effect.

Rules:
- `injected` counts what was done, `fired` what was seen to have come of it; one that never fired has tested nothing.
- A fault names what it needs for itself; two faults that need the same never strike at once.
"""

import random
from abc import ABC, abstractmethod
from enum import StrEnum

from tests.chaos.scene import Scene


class Needs(StrEnum):
    """What a fault wants for itself."""

    BRIDGE = "bridge"
    MOOST = "moost"
    STORE = "store"
    DOOR = "door"


class Fault(ABC):
    """One kind of fault."""

    name: str
    needs: frozenset[Needs]

    def __init__(self) -> None:
        """Start counting."""
        self.injected = 0
        self.fired = 0

    def strike(self, scene: Scene, dice: random.Random) -> None:
        """Do it once."""
        self.injected += 1
        self.fired += self.inject(scene, dice)

    @abstractmethod
    def inject(self, scene: Scene, dice: random.Random) -> int:
        """Do it, look, and make it good again; return how often it was seen to have an effect."""

    def possible(self, scene: Scene) -> str | None:
        """Return why this machine does not let it happen; None = it does."""
        return None
