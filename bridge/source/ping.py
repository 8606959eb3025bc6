"""What is plainly a ping: the test message that a sender offers where a webhook's address is entered.

Rules:
- A ping is an object that names itself a test or ping, or a short array of such, or a body without content where no
  topic is named: with one, an empty body is a delivery that lost its content, and somebody should see it.
- An object that holds anything of a device is a message, whatever it calls itself: nothing may be lost by its name.
- A ping is answered like a message, counted, and stored nowhere. Who has not proved himself is 401 with it too.

Source: webhook documentation of Enode (`[{"event": "enode:webhook:test"}]`), GitHub (`zen`, `hook_id`), Svix and Stripe
(`type` of the event), and senders that test with an empty post.
"""

import re
from collections.abc import Mapping
from typing import Final

import msgspec
from pydantic import BaseModel

from bridge.files import without_mark
from bridge.source import wire

LONGEST: Final = 8 * 2**10  # bytes; pings have some hundred
MOST: Final = 3  # in an array

_NAMING: Final = ("type", "event", "eventType", "event_type", "eventName", "event_name", "action", "kind", "topic")
_WORD: Final = re.compile(r"(?:.*[^a-z0-9])?(?:test|ping)(?:[^a-z0-9](?:event|message|webhook|hook))?", re.IGNORECASE)
_FLAGS: Final = ("test", "ping", "zen")
_OF_ANYTHING: Final = {"id", "type", "createdAt"}
_BODIES: Final[tuple[type[BaseModel], ...]] = (
    *wire.BODIES.values(), wire.CommandBody, wire.PricesBody, wire.SchedulesBody,
)  # fmt: skip
_OF_A_DEVICE: Final = {str(member.alias) for body in _BODIES for member in body.model_fields.values()} - _OF_ANYTHING
_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ARRAY: Final = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_TEXT: Final = msgspec.json.Decoder(str)
_REFUSED: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def is_ping(body: bytes, *, has_topic: bool) -> bool:
    """Return whether a body is plainly a ping; `has_topic`: its address or headers name a topic."""
    if len(body) > LONGEST or b'"userId"' in body:
        return False
    text = without_mark(body).strip()
    if not text:
        return not has_topic
    try:
        found = _ARRAY.decode(text) if text.startswith(b"[") else [_OBJECT.decode(text)]
    except _REFUSED:
        return False
    return 0 < len(found) <= MOST and all(map(_is_named_so, found))


def _is_named_so(members: Mapping[str, msgspec.Raw]) -> bool:
    """Return whether an object names itself a test or ping and holds nothing of a device."""
    if _OF_A_DEVICE & members.keys():
        return False
    if any(name in members for name in _FLAGS):
        return True
    return any(name in members and _names_a_ping(members[name]) for name in _NAMING)


def _names_a_ping(raw: msgspec.Raw) -> bool:
    try:
        return _WORD.fullmatch(_TEXT.decode(raw)) is not None
    except _REFUSED:
        return False
