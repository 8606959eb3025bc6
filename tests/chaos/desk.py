"""What an operator does beside the daemons, whatever the store."""

import random

from tests.chaos.fault import Fault, Needs
from tests.chaos.scene import Scene, directory


class CommandBeside(Fault):
    """Commands beside the daemon: somebody moves in, and whose messages waited has them delivered."""

    name = "commands beside the daemon"
    needs = frozenset({Needs.DOOR})

    def inject(self, scene: Scene, dice: random.Random) -> int:
        """Let the next newcomers move in."""
        town = scene.crowd.town
        here = len(town.newcomers)
        users = [home.user for home in town.newcomers[town.moved_in : here]]
        done = directory(scene, users or ["nobody"])
        if done:
            town.moved_in = here
        listed, _ = scene.command("dead-letters", "list", "--json")
        return done and listed == 0


FAULTS = (CommandBeside,)
