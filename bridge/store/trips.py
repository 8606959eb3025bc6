"""What has happened to messages, calls and buildings, as the commands are told it by whichever keeper."""

from collections.abc import Iterable, Sequence
from typing import Any

from bridge.core.effects import Note
from bridge.core.messages import Tick
from bridge.store.codec import decode_call, decode_state, from_ms, maybe_from_ms
from bridge.store.desk import CallTrip, DeadLetter, MessageTrip, Ticked
from bridge.store.port import Attempt, Pending


def call_trip(row: Sequence[Any], call: bytes, attempts: Iterable[tuple[int, str, str]]) -> CallTrip:
    """Return the trip of one call.

    `row` is id, form, state, time of queueing and of settlement, then time, outcome and answer of the try that ended
    it, then its cause; `attempts` are the tries before.
    """
    number, form, state, queued, settled, tried, outcome, answer, cause = row
    tries = [Attempt(at=from_ms(at), outcome=said, detail=detail) for at, said, detail in attempts]
    if tried is not None:
        tries.append(Attempt(at=from_ms(tried), outcome=outcome or "", detail=answer or ""))
    return CallTrip(
        id=number,
        call=decode_call(form, call),
        state=state,
        queued=from_ms(queued),
        settled=maybe_from_ms(settled),
        attempts=tuple(tries),
        cause=cause,
    )


def message_trip(
    message: Pending, state: str, calls: Sequence[CallTrip], dead: DeadLetter | None, notes: Iterable[tuple[str, str]]
) -> MessageTrip:
    """Return the trip of one message; `notes` are names and details."""
    return MessageTrip(
        id=message.id,
        subscription=message.subscription,
        topic=message.topic,
        body=message.body,
        received=message.received,
        state=state,
        building=calls[0].call.building if calls else None,
        notes=[Note(name=name, detail=detail) for name, detail in notes],
        calls=calls,
        dead=dead,
    )


def ticked(row: Sequence[Any]) -> Ticked:
    """Return a row of the ticks: the last message before, time, whether it caught up, whether it is none, copy."""
    after, at, catching_up, moved, state = row
    return Ticked(
        after=after,
        tick=None if moved else Tick(now=from_ms(at), catching_up=bool(catching_up)),
        state=None if state is None else decode_state(state),
    )
