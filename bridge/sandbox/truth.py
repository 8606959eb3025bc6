"""What really happened: the energies of every slot, integrated exactly while the homes run.

Rules:
- Powers are whole watts that hold over whole milliseconds, so sums are integers; rounding happens once, on the way out.
- A slot's value is the integral over the time in which a receiver can know everything it needs: the devices are
  online and their last message is not older than the receiver's default hold; `known` is that share of the slot.
  Whether a receiver sends a slot below its own coverage is the receiver's business.
- Only slots that lie whole in the simulated span are written.

The file is JSON lines: `{"user", "device", "type", "slot_start", "seconds", "value_wh", "known"}`; device is
`GATEWAY` or `<kind>:<id>`, slot_start epoch seconds.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from bridge.core.vocabulary import EventType

GATEWAY: Final = "GATEWAY"
QUARTER_MS: Final = 900_000
_HALF_HOUR_MS: Final = 1_800_000
_WMS_PER_WH: Final = 3_600_000
_DIGITS: Final = 6


@dataclass(frozen=True, slots=True)
class Flow:
    """A known power of one device or of the household [W]."""

    device: str
    type: EventType
    watts: int


class Ledger:
    """The energies of one home."""

    def __init__(self, user: str, start: int) -> None:
        """Count from here [epoch ms]."""
        self._user = user
        self._start = start
        self._open: dict[tuple[str, EventType, int], list[int]] = {}

    def add(self, flows: list[Flow], begin: int, end: int) -> None:
        """Add powers that held from begin to end [epoch ms]."""
        for flow in flows:
            length = _length(flow.type)
            at = begin
            while at < end:
                slot = at - at % length
                until = min(end, slot + length)
                sums = self._open.setdefault((flow.device, flow.type, slot), [0, 0])
                sums[0] += flow.watts * (until - at)
                sums[1] += until - at
                at = until

    def close(self, until: int) -> Iterator[dict[str, Any]]:
        """Yield and forget the slots that have ended [epoch ms]."""
        ended = [key for key in self._open if key[2] + _length(key[1]) <= until]
        for key in sorted(ended, key=lambda key: (key[2], key[0], key[1])):
            energy, known = self._open.pop(key)
            device, kind, slot = key
            if slot < self._start:
                continue
            yield {
                "user": self._user,
                "device": device,
                "type": str(kind),
                "slot_start": slot // 1000,
                "seconds": _length(kind) // 1000,
                "value_wh": round(energy / _WMS_PER_WH, _DIGITS),
                "known": round(known / _length(kind), _DIGITS),
            }


def _length(kind: EventType) -> int:
    """Return the slot length of a type [ms]; excess energy has half hours."""
    return _HALF_HOUR_MS if kind is EventType.ENERGY_EXCESS else QUARTER_MS
