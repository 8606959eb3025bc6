"""From a body to arrivals, whichever way it came: by a webhook or as a record of Kafka.

Rules:
- A message of another subscription than the caller's is a dead letter of the caller.
- A message keeps the id of its own (CloudEvents) before that of its delivery.
- What cannot be read becomes a dead letter here, by whichever way it came: never an error for the sender to repeat.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from bridge.core.vocabulary import DeadReason
from bridge.metrics import Metrics
from bridge.source.envelope import Item, split, unwrap
from bridge.source.topics import UnknownTopic, exists, parse, subscription_of
from bridge.store.port import Arrival, Receipt

LONGEST_NAME: Final = 200  # characters of an id or topic that are kept as they came


class Delivery(NamedTuple):
    """What tells a delivery from every other one."""

    id: str | None
    signed: datetime | None = None  # when its sender signed id and bytes; None = not


def arrivals(
    body: bytes, *, topic: str | None, wrapped: bool, callers: Sequence[str], delivery: Delivery, received: datetime
) -> list[Arrival]:
    """Return the messages of a body; `topic` is that of all of them, None = each names its own.

    `wrapped` says that each message lies in an envelope, whatever names its topic. `callers` are the subscriptions
    whose message it may be.
    """
    items = split(body)
    if wrapped or topic is None:
        items = [unwrap(item, named=topic is None) for item in items]
    fates: dict[str | None, _Fate] = {}
    found: list[Arrival] = []
    for place, item in enumerate(items):
        name = item.topic if topic is None else topic
        fate = fates.get(name)
        if fate is None:
            fate = fates[name] = _fate(name, callers)
        found.append(_arrival(item, place, fate, delivery, received))
    return found


def buried(
    body: bytes, detail: str, *, topic: str, callers: Sequence[str], delivery: Delivery, received: datetime
) -> Arrival:
    """Return a body that is dead as a whole, for a reason that nobody has to read it for."""
    item = Item(body=body, dead=DeadReason.UNREADABLE, detail=detail)
    return _arrival(item, 0, _fate(topic, callers), delivery, received)


def tally(messages: Sequence[Arrival], receipts: Sequence[Receipt], metrics: Metrics) -> tuple[list[int], int]:
    """Count what was stored; return the ids of the new rows, and how many of them are dead."""
    rows: list[int] = []
    dead: list[int] = []
    quoted = 0
    for message, receipt in zip(messages, receipts, strict=True):
        metrics.heard(message.subscription)
        if not receipt.duplicate:
            rows.append(receipt.id)
            quoted += message.quoted
            if message.dead is not None or receipt.replayed:
                dead.append(receipt.id)
    metrics.messages_accepted.inc(len(rows))
    if len(rows) < len(receipts):
        metrics.messages_duplicate.inc(len(receipts) - len(rows))
    if dead:
        metrics.messages_dead.inc(len(dead))
        metrics.dead_messages.extend(dead)
    if quoted:
        metrics.messages_quoted.inc(quoted)
    return rows, len(dead)


class _Fate(NamedTuple):
    """What a topic means for its message."""

    topic: str
    owner: str  # subscription
    dead: DeadReason | None = None
    detail: str = ""


def _fate(name: str | None, callers: Sequence[str]) -> _Fate:
    """Return whose a message is, and why it is dead if its topic says so."""
    if name is None:
        return _Fate("", callers[0])  # the item knows why it names none
    owner = subscription_of(name)
    known = owner in callers
    if known and exists(name):
        return _Fate(name, owner)
    if not known and "." in name:
        detail = "the topic belongs to another subscription than the caller's"
        return _Fate(kept(name), callers[0], DeadReason.FOREIGN_SUBSCRIPTION, detail)
    topic = parse(name)
    detail = topic.detail if isinstance(topic, UnknownTopic) else ""
    return _Fate(kept(name), owner if known else callers[0], DeadReason.UNKNOWN_TOPIC, detail)


def _arrival(item: Item, place: int, fate: _Fate, delivery: Delivery, received: datetime) -> Arrival:
    return Arrival(
        subscription=fate.owner,
        topic=fate.topic,
        body=item.body,
        received=received,
        message_id=item.message_id or delivery.id,
        position=0 if item.message_id else place,
        dead=item.dead or fate.dead,
        detail=item.detail or fate.detail,
        signed=delivery.signed,
        quoted=item.quoted,
    )


def kept(name: str) -> str:
    """Return a name that any store can hold: as it is, or its hash where it is long or not printable."""
    if len(name) <= LONGEST_NAME and name.isprintable():
        return name
    return f"sha256:{hashlib.sha256(name.encode(errors='replace')).hexdigest()}"
