"""States as they were last read or written, so that a building in use is not decoded and encoded with every message.

Rules:
- A state counts only with the version that the row has now: whoever else writes the row makes it read anew.
- States are frozen, so they can be handed out as often as they are asked for.
- A device that is the same object as when it was last written is the same bytes.
- Bounded: the building unused for longest goes first.

Measured on states of 30 and 120 samples: decoding takes 40 and 190 µs; encoding 24 and 104 µs, with the devices that
are as they were 23 and 55 µs. A message costs some 390 µs in all.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from bridge.core.model import Building
from bridge.store.codec import Pieces, encode_state
from bridge.store.port import Versioned

MOST: Final = 2_048
"""Buildings kept, some 30 KB each."""


@dataclass(slots=True)
class _Known:
    newest: Versioned
    pieces: Pieces = field(default_factory=dict)


class Recent:
    """What a keeper remembers of the newest states."""

    def __init__(self, most: int = MOST) -> None:
        """Start empty."""
        self._most = most
        self._known: OrderedDict[str, _Known] = OrderedDict()

    def get(self, building: str, version: int) -> Versioned | None:
        """Return a state if it is known as of this version."""
        known = self._known.get(building)
        if known is None or known.newest.version != version:
            return None
        self._known.move_to_end(building)
        return known.newest

    def version(self, building: str) -> int:
        """Return the version of a state as it is known; 0 = it is not."""
        known = self._known.get(building)
        return 0 if known is None else known.newest.version

    def keep(self, state: Building, version: int) -> Versioned:
        """Remember a state as of a version."""
        newest = Versioned(state=state, version=version)
        known = self._known.get(state.id)
        if known is None:
            self._known[state.id] = _Known(newest)
            if len(self._known) > self._most:
                self._known.popitem(last=False)
        else:
            known.newest = newest
            self._known.move_to_end(state.id)
        return newest

    def encoded(self, state: Building) -> bytes:
        """Write a state down."""
        known = self._known.get(state.id)
        return encode_state(state, known.pieces if known is not None else {})
