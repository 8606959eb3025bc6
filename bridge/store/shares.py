"""How the room of a store is shared out, whichever keeper keeps it.

Rules:
- What a subscription holds is counted by the transaction that changes it: messages that wait, that are parked and that
  are dead, calls that are owed. States of buildings and dead calls are not counted yet. What is settled is nobody's: it
  goes as soon as room is wanted.
- Each row counts with its content and a constant for its place in the tables and indexes, the same in every keeper.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

FULL_SHARE: Final = 0.6
"""Above this share of the greatest size settled rows go before their time."""

EARLY_SHARE: Final = 0.1
"""Share of the greatest size for what still knows the repeats of messages that went before their time."""

EARLY_BYTES: Final = 200
"""What that is for one message in a file: its digest and the ids."""

MESSAGE_BYTES: Final = 400
"""What a message takes beside its body."""

CALL_BYTES: Final = 500
"""What a call takes beside its content."""

Held = tuple[str, int]
"""A subscription, and what it holds [bytes]."""


class Share(msgspec.Struct, array_like=True):
    """What one subscription holds [bytes]."""

    pending: int = 0
    parked: int = 0
    dead: int = 0
    owed: int = 0
    states: int = 0

    @property
    def total(self) -> int:
        """Return all of it."""
        return self.pending + self.parked + self.dead + self.owed + self.states


PARTS: Final = Share.__struct_fields__


def message_bytes(body: int) -> int:
    """Return what a message counts with a body of a size [bytes]."""
    return body + MESSAGE_BYTES


def call_bytes(content: int) -> int:
    """Return what a call counts with a content of a size [bytes]."""
    return content + CALL_BYTES


def summed(held: Iterable[Held]) -> Mapping[str, int]:
    """Return what each subscription holds of some rows [bytes]."""
    sums: dict[str, int] = {}
    for subscription, size in held:
        sums[subscription] = sums.get(subscription, 0) + size
    return sums


def grow(shares: dict[str, Share], subscription: str, part: str, size: int) -> None:
    """Count that a subscription holds more, or less [bytes]; who holds nothing is left out."""
    share = shares.setdefault(subscription, Share())
    setattr(share, part, getattr(share, part) + size)
    if not any(getattr(share, name) for name in PARTS):
        del shares[subscription]
