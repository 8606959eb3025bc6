"""How a keeper writes a message down, whichever keeper it is.

Rules:
- What can be done before the transaction is done before it, on the caller's side.
- A repeat is a message of the same subscription, id and position with the same bytes; of the bytes a digest is kept.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from bridge.core.vocabulary import DeadReason
from bridge.store.codec import from_ms, plain, to_ms
from bridge.store.port import Arrival, Pending

CLAIM_BYTES: Final = 4 * 1024 * 1024
"""No claim holds more bodies than this, one message aside."""

Key = tuple[str, str, int, bytes]
"""What tells a repeat: id, subscription, position, digest of the body."""


@dataclass(slots=True, kw_only=True)  # not frozen: one is made of every message, and frozen ones cost 1 µs more
class Entry:
    """An arrival, prepared so that the transaction has little to do."""

    subscription: str
    topic: str
    received: int  # [ms]
    message_id: str | None
    position: int
    body: bytes
    key: Key | None
    dead: DeadReason | None
    detail: str

    @classmethod
    def of(cls, arrival: Arrival) -> Self:
        """Prepare an arrival."""
        message_id = None if arrival.message_id is None else plain(arrival.message_id)
        key = None
        if message_id is not None:
            digest = hashlib.blake2b(arrival.body, digest_size=16).digest()
            key = (message_id, arrival.subscription, arrival.position, digest)
        return cls(
            subscription=arrival.subscription,
            topic=plain(arrival.topic),
            received=to_ms(arrival.received),
            message_id=message_id,
            position=arrival.position,
            body=arrival.body,
            key=key,
            dead=arrival.dead,
            detail=plain(arrival.detail) if arrival.dead is not None else "",
        )


def pending(row: tuple[int, str, str, int, bytes]) -> Pending:
    """Return a row of the log as the worker sees it."""
    number, subscription, topic, received, body = row
    return Pending(id=number, subscription=subscription, topic=topic, received=from_ms(received), body=body)


def ages(received: Sequence[int]) -> list[int]:
    """Return since when messages are there at the latest, in the order of their acceptance; times in [ms].

    None is newer than one that came after it, though the clock may have run ahead when it was accepted.
    """
    found = list(received)
    for place in range(len(found) - 2, -1, -1):
        found[place] = min(found[place], found[place + 1])
    return found
