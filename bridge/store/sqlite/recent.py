"""States as they were last read or written, so that a building in use is not decoded with every message.

Rules:
- A state counts only with the version that the row has now: whoever else writes the row makes it read anew.
- States are frozen, so they can be handed out as often as they are asked for.
- Bounded: the building unused for longest goes first.

Measured: decoding takes 40 µs of a message's 390 where a slot holds few samples, and 190 where it holds a hundred.
"""

from collections import OrderedDict
from typing import Final

from bridge.core.model import Building
from bridge.store.port import Versioned

MOST: Final = 2_048
"""Buildings kept, some 20 KB each."""


class Recent:
    """What a keeper remembers of the newest states."""

    def __init__(self, most: int = MOST) -> None:
        """Start empty."""
        self._most = most
        self._known: OrderedDict[str, Versioned] = OrderedDict()

    def get(self, building: str, version: int) -> Versioned | None:
        """Return a state if it is known as of this version."""
        known = self._known.get(building)
        if known is None or known.version != version:
            return None
        self._known.move_to_end(building)
        return known

    def keep(self, state: Building, version: int) -> Versioned:
        """Remember a state as of a version."""
        kept = self._known[state.id] = Versioned(state=state, version=version)
        self._known.move_to_end(state.id)
        if len(self._known) > self._most:
            self._known.popitem(last=False)
        return kept
