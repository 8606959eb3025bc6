"""From the body of a request to its messages, each with exactly the bytes that arrived.

Rules:
- An object is one message; an array is one message per element; anything broken as a whole is one dead message.
- An element that cannot be read is dead by itself, its siblings are not.
- `null` is a message: a record without a value (mapping rule M7).
- NaN, Infinity and lone surrogate escapes pass: the values around them are good.
- One byte order mark before a body is passed over. A JSON string that holds a JSON object is that object, one level
  deep: the commonest mistake of forwarders.
- Any bytes give messages, never an exception. An array of more than `MOST_MESSAGES` is one dead message and not an
  error answer: the sender would repeat an error, then give up, and the bytes would be gone; a dead letter keeps them.

Theory of operation: msgspec checks the syntax and hands out slices in one pass, over ten times faster than `json`.
What it refuses (NaN, lone surrogates, deep nesting) or would let pass (bad UTF-8, endless numbers) takes the slow way:
cut by brackets, then read each piece with `json`. That is bounded: 1 MB of `[,,,,` would hold up the door for 0.4 s.

Source: CloudEvents 1.0 "JSON event format" (structured and batched mode: `type`, `source`, `id`, `data`,
`data_base64`); EHA developer portal, "Streaming introduction" (a record is the bare object, the topic is its only
type).
"""

import base64
import binascii
import json
import re
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from bridge.core.vocabulary import DeadReason
from bridge.files import without_mark
from bridge.source.bounds import SLOW_VALUES, is_crowded

MOST_MESSAGES: Final = 1_000

_CLOUD_EVENTS: Final = b"application/cloudevents"  # structured: "+json", batched: "-batch+json"
_BLANK: Final = b" \t\n\r"
_MOST_DIGITS: Final = 4_300  # Python reads no longer integer
_DIGIT_RUN: Final = b"0" * (_MOST_DIGITS + 1)
_DIGITS_TO_0: Final = bytes.maketrans(b"123456789", b"000000000")
_LONGEST_NAME: Final = 200  # characters of a topic or id
_TOKENS: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{},]', re.DOTALL)
_MEMBER: Final = re.compile(rb'[ \t\n\r]*("(?:[^"\\]++|\\.)*+")[ \t\n\r]*:', re.DOTALL)
_BROKEN: Final = "the body is not valid JSON"
_NO_OBJECT: Final = "the message is not a JSON object"
_NO_DATA: Final = "the envelope has no data"
_NO_TOPIC: Final = "the message names no topic"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One message found in a body."""

    body: bytes = field(repr=False)
    topic: str | None = None  # as the message itself names it
    message_id: str | None = None  # of the message itself
    dead: DeadReason | None = None
    detail: str = ""  # why dead
    quoted: bool = False  # it came as JSON within a JSON string


class _Members(msgspec.Struct):
    """The members of an envelope that say something, each as raw JSON."""

    topic: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    data_base64: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    type: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    source: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    id: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_VALUE: Final = msgspec.json.Decoder(msgspec.Raw)
_ARRAY: Final = msgspec.json.Decoder(list[msgspec.Raw])
_ENVELOPE: Final = msgspec.json.Decoder(_Members)
_REFUSED: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)  # what the quick way does not take


def split(body: bytes) -> list[Item]:
    """Return the messages of a body, in order; a body that is no array is one message as it stands."""
    text = without_mark(body)
    if not text.lstrip(_BLANK).startswith(b"["):
        item = _judged(text)
        return [item if item.dead is None else replace(item, body=body)]
    elements = _fast_elements(text)
    if elements is None and is_crowded(text, SLOW_VALUES):
        return [_crowded(body)]
    if elements is None:
        elements = _slow_elements(text)
    if elements is None:
        return [_unreadable(body, _BROKEN)]
    if len(elements) > MOST_MESSAGES:
        return [_unreadable(body, f"the array holds more than {MOST_MESSAGES} messages")]
    return elements


def unwrap(item: Item, *, named: bool = True) -> Item:
    """Return the message inside an envelope, with the topic that the envelope names.

    Envelopes are `{"topic", "data"}` and structured CloudEvents (`type`, `data` or `data_base64`). `named` says that
    the topic has to stand in the envelope; otherwise it is known from elsewhere.
    """
    if item.dead is not None:
        return item
    members = _members(item.body)
    name = members.get("topic", members.get("type"))
    topic = None if name is None else _text(name)
    content = members.get("data", members.get("data_base64"))
    if named and (topic is None or (content is None and "topic" not in members)):
        return replace(item, dead=DeadReason.UNKNOWN_TOPIC, detail=_NO_TOPIC)
    if content is None:
        return replace(item, topic=topic, dead=DeadReason.UNREADABLE, detail=_NO_DATA)
    message_id = None
    if "type" in members:
        message_id = event_id(_text(members.get("source", b"")), _text(members.get("id", b"")))
    found = _shaped(content, string=not item.quoted) if "data" in members else _from_base64(content, item)
    return replace(found, topic=topic, message_id=message_id, quoted=found.quoted or item.quoted)


def is_wrapped(media: bytes) -> bool:
    """Return whether a media type says that each message lies in an envelope: a CloudEvent, structured or batched."""
    return media[: len(_CLOUD_EVENTS)].lower() == _CLOUD_EVENTS


def event_id(source: str | None, identifier: str | None) -> str | None:
    """Return what makes a CloudEvent unique: its source and id together."""
    return f"{source} {identifier}" if source and identifier else None


# ---- one value ------------------------------------------------------------------------------------------------------


def _judged(raw: bytes) -> Item:
    """Return one value as a message: readable, or dead with the reason."""
    plain = _is_plain(raw)
    if not plain and is_crowded(raw, SLOW_VALUES):
        return _crowded(raw)
    problem = "" if plain else _problem(raw)
    return _unreadable(raw, problem) if problem else _shaped(raw)


def _shaped(raw: bytes, *, string: bool = True) -> Item:
    """Return a readable value as a message; only objects and null are messages.

    `string` says that it may be a string that holds an object.
    """
    first = raw.lstrip(_BLANK)[:1]
    if first in (b"{", b"n"):
        return Item(body=raw)
    if string and first == b'"':
        return _unquoted(raw)
    return _unreadable(raw, _NO_OBJECT)


def _unquoted(raw: bytes) -> Item:
    """Return the object that a JSON string holds as a message."""
    try:
        inner = without_mark(json.loads(raw).encode())
    except UnicodeEncodeError:
        return _unreadable(raw, _NO_OBJECT)
    if not inner.lstrip(_BLANK).startswith(b"{"):
        return _unreadable(raw, _NO_OBJECT)
    item = _judged(inner)
    return _unreadable(raw, item.detail) if item.dead is not None else replace(item, quoted=True)


def _from_base64(raw: bytes, item: Item) -> Item:
    """Return the message whose bytes an envelope holds in base64."""
    try:
        inner = without_mark(base64.b64decode("".join(str(json.loads(raw)).split()), validate=True))
    except (binascii.Error, ValueError):
        return replace(item, dead=DeadReason.UNREADABLE, detail="data_base64 of the envelope is not base64")
    found = _judged(inner)
    return found if found.dead is None else replace(item, dead=found.dead, detail=found.detail)


def _crowded(raw: bytes) -> Item:
    """Return a body that would cost too much to be read the slow way."""
    detail = f"over {SLOW_VALUES:,} values, and not to be read the quick way (values_per_body)"
    return Item(body=raw, dead=DeadReason.TOO_LARGE, detail=detail)


def _unreadable(raw: bytes, detail: str) -> Item:
    return Item(body=raw, dead=DeadReason.UNREADABLE, detail=detail)


def _is_plain(raw: bytes) -> bool:
    """Return whether a value is JSON beyond doubt, quickly."""
    try:
        raw.decode()
        _VALUE.decode(raw)
    except _REFUSED:
        return False
    return not _has_endless_number(raw)


def _has_endless_number(raw: bytes) -> bool:
    """Return whether there may be a number of more digits than Python reads."""
    return len(raw) > _MOST_DIGITS and _DIGIT_RUN in raw.translate(_DIGITS_TO_0)


def _problem(raw: bytes) -> str:
    """Return why a value cannot be read; empty if it can."""
    try:
        json.loads(raw.decode())
    except UnicodeDecodeError:
        return "the body is not UTF-8"
    except json.JSONDecodeError:
        return _BROKEN
    except ValueError:
        return f"a number has more than {_MOST_DIGITS} digits"
    except RecursionError:
        return "the message is nested too deeply"
    return ""


# ---- arrays and envelopes -------------------------------------------------------------------------------------------


def _fast_elements(body: bytes) -> list[Item] | None:
    """Return the elements of an array that is JSON beyond doubt."""
    try:
        body.decode()
        found = _ARRAY.decode(body)
    except _REFUSED:
        return None
    if _has_endless_number(body):
        return None
    return [_shaped(bytes(raw)) for raw in found[: MOST_MESSAGES + 1]]  # one more tells that there are too many


def _slow_elements(body: bytes) -> list[Item] | None:
    """Return the elements of an array one by one; None = the array is broken as a whole."""
    pieces = _cut(body)
    if pieces is None:
        return None
    found = [_judged(piece) for piece in pieces[: MOST_MESSAGES + 1]]
    return None if any(item.detail == _BROKEN for item in found) else found


def _members(raw: bytes) -> dict[str, bytes]:
    """Return the telling members of a readable object as raw JSON; of anything else none."""
    try:
        known = _ENVELOPE.decode(raw)
    except _REFUSED:
        return _slow_members(raw)
    return {
        name: bytes(value)
        for name in _Members.__struct_fields__
        if isinstance(value := getattr(known, name), msgspec.Raw)
    }  # fmt: skip


def _slow_members(raw: bytes) -> dict[str, bytes]:
    """Return the members of a readable object by cutting at its commas."""
    if not raw.lstrip(_BLANK).startswith(b"{"):
        return {}
    members: dict[str, bytes] = {}
    for piece in _cut(raw) or []:
        key = _MEMBER.match(piece)
        if key is not None:
            members[str(_text(key[1]))] = piece[key.end() :].strip(_BLANK)
    return members


def _cut(body: bytes) -> list[bytes] | None:
    """Cut an array or object at the commas of its first level; None = its brackets do not add up."""
    closing = b"]" if body.lstrip(_BLANK).startswith(b"[") else b"}"
    depth = begin = 0
    pieces: list[bytes] = []
    for token in _TOKENS.finditer(body):
        mark = token[0]
        if mark in (b"[", b"{"):
            depth += 1
            if depth == 1:
                begin = token.end()
        elif mark in (b"]", b"}"):
            depth -= 1
        if depth == 0 or (depth == 1 and mark == b","):
            pieces.append(body[begin : token.start()].strip(_BLANK))
            begin = token.end()
        if depth == 0:
            break
    if depth or not pieces or mark != closing or body[begin:].strip(_BLANK):
        return None
    return [] if pieces == [b""] else pieces


def _text(raw: bytes) -> str | None:
    """Return a JSON string that can be a name; None for any other value."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, str) and value.isprintable() and len(value) <= _LONGEST_NAME else None
