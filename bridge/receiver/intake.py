"""The body of a request, read within bounds, and the identity of its delivery.

Rules:
- A body is read piece by piece and given up as soon as it is too large.
- Where id and time are signed, only they tell a delivery: whoever has caught a request can add any header to it.
"""

from dataclasses import replace
from datetime import UTC, datetime

from starlette.types import Receive

from bridge.intake import Delivery, kept
from bridge.receiver.checks import TOO_LARGE, Guard, Policy, Refusal
from bridge.receiver.fields import attribute
from bridge.receiver.gate import FULL_HANDS, Hands
from bridge.source.envelope import event_id
from bridge.source.signature import Headers


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
