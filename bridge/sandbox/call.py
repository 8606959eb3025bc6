"""One call to the look-alike and its answer, as plain values around ASGI.

Rules:
- A body is read whole. What is not JSON at all is `Nothing`; NaN and numbers beyond a float are read
  leniently, so that the sandbox can say that they were sent.
"""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

import msgspec

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Nothing(Enum):
    """The body of a call that has none, or none that is JSON."""

    EMPTY = "no body"
    BROKEN = "not JSON"


@dataclass(slots=True, kw_only=True)
class Call:
    """A request as the look-alike sees it; `at` is epoch seconds."""

    method: str
    path: str
    query: bytes
    authorization: str | None
    content_type: str
    raw: bytes
    body: Any
    at: float


@dataclass(frozen=True, slots=True)
class Text:
    """A body that is sent as it is."""

    text: str
    media_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the look-alike answers; a body of None is sent empty."""

    status: int
    body: object = None
    headers: tuple[tuple[bytes, bytes], ...] = field(default=())


_JSON: Final = (b"content-type", b"application/json")


async def read(scope: Scope, receive: Receive, now: float) -> Call:
    """Return the call with its whole body, parsed."""
    raw = await _body(receive)
    authorization, content_type = None, ""
    for name, value in scope["headers"]:
        if name == b"authorization":
            authorization = value.decode("latin-1")
        elif name == b"content-type":
            content_type = value.decode("latin-1")
    return Call(
        method=scope["method"],
        path=scope["path"],
        query=scope["query_string"],
        authorization=authorization,
        content_type=content_type,
        raw=raw,
        body=parse(raw),
        at=now,
    )


async def _body(receive: Receive) -> bytes:
    """Return all body bytes of a request."""
    message = await receive()
    raw: bytes = message.get("body", b"")
    while message.get("more_body", False):
        message = await receive()
        raw += message.get("body", b"")
    return raw


def parse(raw: bytes) -> object:
    """Return the JSON value of a body, or why there is none."""
    if not raw:
        return Nothing.EMPTY
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        pass
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return Nothing.BROKEN


async def reply(send: Send, answer: Answer) -> None:
    """Write an answer."""
    if isinstance(answer.body, Text):
        body, kind = answer.body.text.encode(), (b"content-type", answer.body.media_type.encode())
    else:
        body, kind = b"" if answer.body is None else msgspec.json.encode(answer.body), _JSON
    headers = [(b"content-length", str(len(body)).encode()), *answer.headers]
    if body:
        headers.append(kind)
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
