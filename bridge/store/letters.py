"""Dead letters, whichever keeper holds them: how they are read, and what becomes of those that are retried or given up.

Rules:
- A letter is of a message, or of one item of a row of the outbox; that row then holds one dead item less.
- A message waits once more under its old id; an item becomes a row of its own, at the end of its lane.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from bridge.core.vocabulary import DeadReason
from bridge.store.codec import decode_call, from_ms
from bridge.store.desk import DeadLetter
from bridge.store.ledger import Ledger
from bridge.store.places import Planned

KEPT: Final = ("stuck", "erasure")
"""Reasons whose letters stay until somebody takes them: MOOST may still take a call, an erasure has to be done."""


def letter(row: Sequence[Any], body: bytes | None) -> DeadLetter:
    """Return a letter.

    `row` is id, reason, detail, time, subscription, topic, building, user, answer, message and call; `body` that of
    the message or the item of the call.
    """
    number, reason, detail, at, subscription, topic, building, user, answer, message, call = row
    return DeadLetter(
        id=number,
        reason=DeadReason(reason),
        detail=detail,
        at=from_ms(at),
        subscription=subscription,
        topic=topic,
        building=building,
        user=user,
        body=body or b"",
        answer=answer,
        message_id=message,
        call_id=call,
    )


class Taken(NamedTuple):
    """A letter that is taken away, as its columns stand."""

    id: int
    reason: str
    message: int | None
    call: int
    cause: int
    form: int
    item: bytes
    subscription: str | None


@dataclass(slots=True)
class Freed:
    """What letters that are taken away leave behind."""

    messages: list[int] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)  # rows of the outbox, each once for every dead item less
    items: list[Planned] = field(default_factory=list)  # of those that are retried


def revive(ledger: Ledger, letters: Iterable[Taken]) -> Freed:
    """Put letters back into the flow."""
    freed = Freed()
    for letter in letters:
        if letter.message is not None:
            ledger.revive_message(letter.reason)
            freed.messages.append(letter.message)
        else:
            ledger.revive_call(letter.reason)
            freed.calls.append(letter.call)
            freed.items.append(
                Planned.of(decode_call(letter.form, letter.item), letter.cause, letter.subscription or "")
            )
    return freed


def give_up(ledger: Ledger, letters: Iterable[Taken]) -> Freed:
    """Give letters up."""
    freed = Freed()
    for letter in letters:
        if letter.message is not None:
            ledger.discard_message(letter.reason)
            freed.messages.append(letter.message)
        else:
            ledger.discard_call(letter.reason)
            freed.calls.append(letter.call)
    return freed
