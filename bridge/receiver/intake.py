"""The body of a request: read within bounds, then taken apart into arrivals.

Rules:
- A body is read piece by piece and given up as soon as it is too large.
- A message of another subscription than the caller's is a dead letter of the caller.
- A message keeps the id of its own (CloudEvents) before that of its delivery.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final, NamedTuple

from starlette.types import Receive

from bridge.core.vocabulary import DeadReason
from bridge.receiver.checks import TOO_LARGE, Policy, Refusal
from bridge.receiver.gate import FULL_HANDS, Hands
from bridge.source.envelope import Item, event_id, split, unwrap
from bridge.source.signature import Headers
from bridge.source.topics import UnknownTopic, exists, parse, subscription_of
from bridge.store.port import Arrival

LONGEST_NAME: Final = 200  # characters of an id or topic that are kept as they came


class Reading:
    """Reads one body and answers for the room that it takes."""

    def __init__(self, hands: Hands, most: int) -> None:
        """Read at most `most` bytes."""
        self._hands = hands
        self._most = most
        self._size = 0
        self.ended = False  # nothing of the body is left on the way

    async def read(self, receive: Receive) -> bytes | Refusal | None:
        """Return the body, or why it is refused; None = the sender has gone."""
        pieces: list[bytes] = []
        while not self.ended:
            message = await receive()
            if message["type"] != "http.request":
                return None
            piece = message.get("body", b"")
            self.ended = not message.get("more_body", False)
            if self._size + len(piece) > self._most:
                return TOO_LARGE
            if not self._hands.has_room(self._size, len(piece)):
                return replace(busy(), closing=not self.ended)
            self._size += len(piece)
            self._hands.held += len(piece)
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def let_go(self) -> None:
        """Give the room back."""
        self._hands.held -= self._size
        self._size = 0


def busy() -> Refusal:
    """Return the refusal of one body too many."""
    return Refusal(status=503, error=FULL_HANDS.reason, retry_after=FULL_HANDS.retry_after)


def arrivals(
    body: bytes, *, topic: str | None, callers: Sequence[str], policy: Policy, headers: Headers, received: datetime
) -> list[Arrival]:
    """Return the messages of a body; `topic` is that of all of them, None = each names its own."""
    items = split(body)
    if topic is None:
        items = [unwrap(item) for item in items]
    delivery_id = _delivery_id(policy, headers)
    fates: dict[str | None, _Fate] = {}
    found: list[Arrival] = []
    for place, item in enumerate(items):
        name = item.topic if topic is None else topic
        fate = fates.get(name)
        if fate is None:
            fate = fates[name] = _fate(name, callers)
        found.append(_arrival(item, place, fate, delivery_id, received))
    return found


def _delivery_id(policy: Policy, headers: Headers) -> str | None:
    """Return the id of a binary CloudEvent, else that of the delivery."""
    own = None
    if b"ce-id" in headers:
        own = event_id(
            headers.get(b"ce-source", b"").decode(errors="replace"), headers[b"ce-id"].decode(errors="replace")
        )
    found = own or policy.delivery_id(headers)
    return None if found is None else _kept(found)


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
        return _Fate(_kept(name), callers[0], DeadReason.FOREIGN_SUBSCRIPTION, detail)
    topic = parse(name)
    detail = topic.detail if isinstance(topic, UnknownTopic) else ""
    return _Fate(_kept(name), owner if known else callers[0], DeadReason.UNKNOWN_TOPIC, detail)


def _arrival(item: Item, place: int, fate: _Fate, delivery_id: str | None, received: datetime) -> Arrival:
    return Arrival(
        subscription=fate.owner,
        topic=fate.topic,
        body=item.body,
        received=received,
        message_id=item.message_id or delivery_id,
        position=0 if item.message_id else place,
        dead=item.dead or fate.dead,
        detail=item.detail or fate.detail,
    )


def _kept(name: str) -> str:
    """Return a name that any store can hold: as it is, or its hash where it is long or not printable."""
    if len(name) <= LONGEST_NAME and name.isprintable():
        return name
    return f"sha256:{hashlib.sha256(name.encode(errors='replace')).hexdigest()}"
