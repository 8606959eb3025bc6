"""The body of a request, read within bounds, and the identity of its delivery.

Rules:
- A body is read piece by piece and given up as soon as it is too large.
- Where id and time are signed, only they tell a delivery: whoever has caught a request can add any header to it.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from starlette.types import Receive

from bridge.intake import Delivery, kept
from bridge.receiver.addresses import is_proxy
from bridge.receiver.checks import TOO_LARGE, TOO_SLOW, Guard, Policy, Refusal
from bridge.receiver.fields import attribute
from bridge.receiver.gate import FULL_HANDS
from bridge.receiver.hands import SMALL_BODY, Hands, Place, Room
from bridge.source.envelope import event_id
from bridge.source.signature import Headers


class Reading:
    """Reads one body and answers for the room that it takes."""

    def __init__(self, hands: Hands, most: int) -> None:
        """Read at most `most` bytes."""
        self._hands = hands
        self._most = most
        self._room: Room | None = None
        self._place: Place | None = None
        self.ended = False  # nothing of the body is left on the way

    async def read(self, receive: Receive, who: str, proved: Callable[[], str | None]) -> bytes | Refusal | None:
        """Return the body, or why it is refused; None = the sender has gone.

        The address `who` pays for its room, or the subscription that is `proved` already.
        """
        message = await receive()
        if message["type"] != "http.request":
            return None
        piece: bytes = message.get("body", b"")
        self.ended = not message.get("more_body", False)
        if len(piece) > self._most:
            return TOO_LARGE
        if self.ended and len(piece) <= SMALL_BODY:
            return piece
        subscription = proved()
        if subscription is None:
            self._room = self._hands.unverified
            self._place = self._room.place(who, fixed=is_proxy(who))
        else:
            self._room = self._hands.verified
            self._place = self._room.place(subscription)
        return await self._read_on(self._room, self._place, piece, receive)

    async def _read_on(self, room: Room, place: Place, piece: bytes, receive: Receive) -> bytes | Refusal | None:
        """Read a body to its end, as fast as there is room for it."""
        pieces: list[bytes] = []
        size = 0
        while True:
            if not await room.take(place, len(piece)):
                return replace(busy(), closing=not self.ended)
            size += len(piece)
            pieces.append(piece)
            if self.ended:
                room.read(place)
                return b"".join(pieces)
            room.reading(place)
            try:
                message = await receive()
            except asyncio.CancelledError:
                if not place.is_cut:
                    raise
                message = None
            if place.is_cut:
                if message is None and (task := asyncio.current_task()) is not None:
                    task.uncancel()
                return TOO_SLOW
            if message is None or message["type"] != "http.request":
                return None
            piece = message.get("body", b"")
            self.ended = not message.get("more_body", False)
            if size + len(piece) > self._most:
                return TOO_LARGE

    def keep_now(self, subscription: str, size: int) -> bool:
        """Do what `keep` does if it can be done at once, and the body needed no room so far."""
        if self._place is not None:
            return False
        self._place = self._hands.verified.take_now(subscription, size)
        self._room = self._hands.verified
        return self._place is not None

    async def keep(self, subscription: str, size: int) -> bool:
        """Let the subscription pay that a body turned out to be from; returns False where there is no room for it."""
        room, place = self._room, self._place
        verified = self._hands.verified
        if place is not None and room is verified and place.payer == subscription:
            return True
        kept = verified.place(subscription)
        if not await verified.take(kept, size):
            return False
        self.let_go()
        self._room, self._place = verified, kept
        return True

    def let_go(self) -> None:
        """Give the room back."""
        if self._room is not None and self._place is not None:
            self._room.give_back(self._place)
            self._room = self._place = None


def busy() -> Refusal:
    """Return the refusal of one body too many."""
    return Refusal(status=503, error=FULL_HANDS.reason, retry_after=FULL_HANDS.retry_after)


def delivery(policy: Policy, guard: Guard, headers: Headers) -> Delivery:
    """Return what tells a verified delivery.

    That is what its sender signed, and nothing else. Where no id is signed it is the id of a binary CloudEvent, else
    that of the delivery.
    """
    if guard.signed is not None:
        message_id, at = guard.signed(headers)
        return Delivery(kept(message_id), datetime.fromtimestamp(at, UTC))
    own = None
    if b"ce-id" in headers:
        own = event_id(attribute(headers.get(b"ce-source", b"")), attribute(headers[b"ce-id"]))
    found = own or policy.delivery_id(headers)
    return Delivery(None if found is None else kept(found))
