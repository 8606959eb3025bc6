"""States as they were last read or written, so that a building in use is not decoded and encoded with every message.

Rules:
- A state counts only with the version that the row has now: whoever else writes the row makes it read anew.
- States are frozen, so they can be handed out as often as they are asked for.
- A device that is the same object as when it was last written is the same bytes.
- Bounded by count and by size, for a state grows with the samples of its open slot: the building unused for longest
  goes first.

Measured on states of 30 and 120 samples: decoding takes 40 and 190 µs; encoding 24 and 104 µs, with the devices that
are as they were 23 and 55 µs. A message costs some 390 µs in all.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from bridge.core.model import Building
from bridge.store.codec import Pieces, decode_state, encode_state
from bridge.store.port import Versioned

MOST: Final = 2_048
"""Buildings kept, some 30 KB each as they usually are."""

MOST_BYTES: Final = 16 * 1024 * 1024
"""Their states as they are written; in memory a state takes some six times as much."""


@dataclass(slots=True)
class _Known:
    newest: Versioned
    size: int = 0  # as it was last written or read [bytes]; 0 = neither yet
    pieces: Pieces = field(default_factory=dict)


class Recent:
    """What a keeper remembers of the newest states."""

    def __init__(self, most: int = MOST, most_bytes: int = MOST_BYTES) -> None:
        """Start empty."""
        self._most, self._most_bytes = most, most_bytes
        self._bytes = 0
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

    def read(self, data: bytes, version: int) -> Versioned:
        """Read a state and remember it as of a version."""
        return self.keep(decode_state(data), version, len(data))

    def keep(self, state: Building, version: int, size: int | None = None) -> Versioned:
        """Remember a state as of a version; `size` as it is written [bytes], if it is not written by `encoded`."""
        newest = Versioned(state=state, version=version)
        known = self._known.get(state.id)
        if known is None:
            known = self._known[state.id] = _Known(newest)
        known.newest = newest
        self._known.move_to_end(state.id)
        if size is not None:
            self._resize(known, size)
        while len(self._known) > 1 and (len(self._known) > self._most or self._bytes > self._most_bytes):
            _, gone = self._known.popitem(last=False)
            self._bytes -= gone.size
        return newest

    def encoded(self, state: Building) -> bytes:
        """Write a state down."""
        known = self._known.get(state.id)
        if known is None:
            return encode_state(state)
        data = encode_state(state, known.pieces)
        self._resize(known, len(data))
        return data

    def _resize(self, known: _Known, size: int) -> None:
        self._bytes += size - known.size
        known.size = size
