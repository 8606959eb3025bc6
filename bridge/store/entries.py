"""How a keeper writes a message down, whichever keeper it is.

Rules:
- What can be done before the transaction is done before it, on the caller's side.
- Of the bytes, which tell a repeat together with id, subscription, topic and position, a digest is kept.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from bridge.core.vocabulary import DeadReason
from bridge.store.codec import from_ms, plain, to_ms
from bridge.store.port import Arrival, Pending
from bridge.store.repeats import REPLAYED, Heard, digest_of, written
from bridge.store.shares import Held, message_bytes

CLAIM_BYTES: Final = 4 * 1024 * 1024
"""No claim holds more bodies than this, one message aside."""

Key = tuple[str, str, int, bytes]
"""What tells a repeat: id, subscription, position, digest of body and topic."""


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
    signed: int | None  # [ms]
    dead: DeadReason | None
    detail: str

    @classmethod
    def of(cls, arrival: Arrival) -> Self:
        """Prepare an arrival."""
        message_id = None if arrival.message_id is None else plain(arrival.message_id)
        topic = plain(arrival.topic)
        key = signed = None
        if message_id is not None:
            signed = None if arrival.signed is None else to_ms(arrival.signed)
            digest = digest_of(arrival.body, topic if signed is None else None)
            key = (message_id, arrival.subscription, arrival.position, digest)
        return cls(
            subscription=arrival.subscription,
            topic=topic,
            received=to_ms(arrival.received),
            message_id=message_id,
            position=arrival.position,
            body=arrival.body,
            key=key,
            signed=signed,
            dead=arrival.dead,
            detail=plain(arrival.detail) if arrival.dead is not None else "",
        )

    @property
    def heard(self) -> Heard | None:
        """Return what is remembered of a signed delivery that is heard for the first time."""
        return None if self.signed is None else Heard(self.signed, [self.topic])

    @property
    def first_heard(self) -> str:
        """Return the same as a row holds it."""
        return written(Heard(self.signed or 0, [self.topic]))

    def replayed(self) -> Self:
        """Return the dead letter that it is where it was replayed."""
        return replace(self, dead=DeadReason.REPLAYED, detail=REPLAYED)


def pending(row: Sequence[Any], ends: int = 0) -> Pending:
    """Return a row of the log as the worker sees it."""
    number, subscription, topic, received, body = row
    return Pending(id=number, subscription=subscription, topic=topic, received=from_ms(received), body=body, ends=ends)


def claimed(messages: Iterable[Pending]) -> dict[int, Held]:
    """Return whose messages are that the worker is shown, and what they count [bytes]."""
    return {message.id: (message.subscription, message_bytes(len(message.body))) for message in messages}


def ages(received: Sequence[int]) -> list[int]:
    """Return since when messages are there at the latest, in the order of their acceptance; times in [ms].

    None is newer than one that came after it, though the clock may have run ahead when it was accepted.
    """
    found = list(received)
    for place in range(len(found) - 2, -1, -1):
        found[place] = min(found[place], found[place + 1])
    return found
