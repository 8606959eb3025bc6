"""One body through decode and core without store, network or secret: what `moost-bridge map` shows.

Rules:
- The body is read as the door reads it, by the same code: an array is several messages, one after the other.
- The building is as if nothing had been heard of it before; the directory is empty.
- The time of receipt is the newest time in the body, so that an old sample maps as it would have then.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import pydantic_core

from bridge.config import Settings
from bridge.core.effects import Call, SendEvents
from bridge.core.rules import Rules
from bridge.core.vocabulary import Action, DeviceType, EventType
from bridge.sink import encode, validate
from bridge.source.decode import decode
from bridge.source.envelope import is_wrapped, split, unwrap
from bridge.source.ping import is_ping
from bridge.source.times import NoTime, instant
from bridge.source.topics import Topic, parse
from bridge.store.port import Loaded, Pending
from bridge.worker import Step

NO_CUSTOMER: Final = "0" * 24
"""Stands for the customer where no configuration names one."""

_TIMES: Final = frozenset({"lastUpdated", "createdAt"})
_STARTS: Final = frozenset({"startDate", "startsAt"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """What the messages of one body lead to."""

    calls: list[dict[str, Any]]  # {"method", "path", "body"} in sending order
    reasons: list[str]  # why nothing, or why not more
    dead: bool  # one of them would be a dead letter


def map_message(
    topic: str, body: bytes, settings: Settings | None = None, *, content_type: str = "application/json"
) -> Mapped:
    """Return the calls that one body leads to; without settings by the defaults."""
    if is_ping(body, has_topic=True):
        return Mapped(calls=[], reasons=["a ping: it is answered and stored nowhere"], dead=False)
    named = parse(topic)
    if not isinstance(named, Topic):
        return Mapped(calls=[], reasons=[f"unknown-topic: {named.detail}"], dead=True)
    rules = settings.rules() if settings is not None else Rules()
    items = split(body)
    if is_wrapped(content_type.encode()):
        items = [unwrap(item, named=False) for item in items]
    received = _receipt([item.body for item in items], named.action)
    step = Step(Loaded(residences={}, homes={}, buildings={}), rules, received)
    for number, item in enumerate(items, start=1):
        if item.dead is None:
            row = Pending(id=number, subscription=named.subscription, topic=topic, body=item.body, received=received)
            step.take(row, decode(named, item.body, number=number, received=received, rules=rules))
    customer = settings.moost.customer_id if settings is not None and settings.moost.customer_id else NO_CUSTOMER
    shown = _Shown(customer=customer, battery_soc=rules.battery_soc)
    for outgoing in step.calls:
        call = outgoing.call
        old = isinstance(call, SendEvents) and all(received - event.at > rules.live_max_age for event in call.events)
        shown.show(
            SendEvents(building=call.building, events=call.events, replay=True)
            if isinstance(call, SendEvents) and old
            else call
        )
    unread = [(item.dead, item.detail) for item in items if item.dead is not None]
    dead = [*unread, *((reason, detail) for _, reason, detail in step.dead)]
    reasons = [f"{reason.value}: {detail}" for reason, detail in dead]
    reasons += [f"parked: the directory does not know the user {user!r}" for _, user in step.parked]
    reasons += [f"{note.name}: {note.detail}" if note.detail else note.name for _, note in step.notes]
    reasons += shown.refused
    if not shown.calls and not reasons:
        reasons.append("nothing that MOOST takes has changed")
    return Mapped(calls=shown.calls, reasons=reasons, dead=bool(dead or shown.refused))


class _Shown:
    """Collects the wire calls of effects, without those that our own check refuses."""

    def __init__(self, *, customer: str, battery_soc: bool) -> None:
        self.calls: list[dict[str, Any]] = []
        self.refused: list[str] = []
        self._customer = customer
        self._battery_soc = battery_soc

    def show(self, call: Call) -> None:
        """Add the calls of one effect."""
        for wire in encode.calls(call, self._customer):
            body: Any = pydantic_core.from_json(wire.body) if wire.body is not None else None
            events = (body if isinstance(body, list) else [body]) if isinstance(call, SendEvents) else []
            broken = [validate.event(_with_words(event), battery_soc=self._battery_soc) for event in events]
            refused = [f"rule: {rule}" for rule in broken if rule is not None]
            self.refused += refused
            if not refused:
                self.calls.append({"method": wire.method, "path": wire.path, "body": body})


def _with_words(event: dict[str, Any]) -> dict[str, Any]:
    """Return an event that was read from JSON as the check wants it: type and source as words of the vocabulary."""
    return {**event, "type": EventType(event["type"]), "source": DeviceType(event["source"])}


def _receipt(bodies: Sequence[bytes], action: Action) -> datetime:
    """Return the newest time in the bodies; of prices the oldest, so that none has ended; else now."""
    prices = action is Action.PRICE_UPDATE
    found = [at for body in bodies for at in _times(_content(body), _STARTS if prices else _TIMES)]
    return (min if prices else max)(found, default=datetime.now(UTC))


def _content(body: bytes) -> object:
    try:
        return pydantic_core.from_json(body)
    except ValueError:
        return None


def _times(content: object, names: frozenset[str]) -> Iterator[datetime]:
    """Yield the times under some keys, at any depth."""
    if isinstance(content, dict):
        for name, value in content.items():
            if name in names:
                with suppress(NoTime):
                    at = instant(value)
                    if at is not None:
                        yield at
            yield from _times(value, names)
    elif isinstance(content, list):
        for value in content:
            yield from _times(value, names)
