"""The limits of a connection, which uvicorn has not: how large a header, how slow a client, how many of them.

Rules:
- A header has 32 KiB and 5 s, a body 10 s, an idle connection a little over a minute, an unread answer 10 s.
- Who breaks a limit gets one sentence (408, 413, 431) and is cut off; nobody else notices.
- No timer per request: a connection knows its deadline, and the server looks at all of them twice a second.

Theory of operation: the parser calls back at the begin of a message, the end of its header and its end; each callback
only voids the deadline, and `data_received` sets a new one if the chunk ended in the middle of a message. A request
that arrives in one piece, as nearly all do, costs one look at the clock.

Source: uvicorn 0.54 `HttpToolsProtocol`, whose keep-alive timer is replaced and whose other behaviour stays.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from http import HTTPStatus
from math import inf
from typing import Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from bridge.limits import Limit

REFUSED_CONNECTION: Final = 503
RETRY_AFTER: Final = 1  # s


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a connection may take."""

    header_bytes: int = 32 * 2**10
    header_time: timedelta = timedelta(seconds=5)
    body_bytes: int = 8 * 2**20 + 64 * 2**10  # on the wire, chunk marks included
    body_time: timedelta = timedelta(seconds=10)
    answer_time: timedelta = timedelta(seconds=10)  # for a client that does not read
    idle_time: timedelta = timedelta(seconds=75)  # longer than the 60 s of common proxies, so that they close first
    linger_time: timedelta = timedelta(seconds=2)  # from a refusal to the end
    connections: int = 4_096


class DoorState(ServerState):
    """What all connections of a server share."""

    def __init__(self, limits: Limits, refused: Callable[[int], None], reached: Callable[[Limit, str], None]) -> None:
        """`refused` is told the status of every refusal, `reached` each limit that was reached and by whom."""
        super().__init__()
        self.limits = limits
        self.refused = refused
        self.reached = reached


class Phase(IntEnum):
    """Where the parser is."""

    BETWEEN = 0  # no message has begun
    HEADER = 1
    BODY = 2
    REFUSED = 3  # the last word is said; what still comes is thrown away


class _HeaderTooLargeError(Exception):
    """Stops the parser within a chunk."""


class DoorProtocol(HttpToolsProtocol):
    """One connection."""

    server_state: DoorState
    cycle: RequestResponseCycle | None  # type: ignore[assignment]  # uvicorn leaves it None until the first request

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Take a connection in, or turn it away when there are too many."""
        super().connection_made(transport)
        self.limits = self.server_state.limits
        self.phase = Phase.BETWEEN
        self.deadline = self.loop.time() + self.limits.header_time.total_seconds()
        self.stalled = inf  # when an answer that is not read becomes too old
        self.chunk = self.header_bytes = self.body_bytes = 0
        if len(self.connections) > self.limits.connections:
            self.server_state.reached(Limit.CONNECTIONS, self.client[0] if self.client else "")
            self.refuse(REFUSED_CONNECTION, "too many connections")
            transport.close()

    def data_received(self, data: bytes) -> None:
        """Feed the parser and keep the deadline of what it is in the middle of."""
        before = self.phase
        if before is Phase.REFUSED:
            return
        self.chunk = len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError:
            if self.phase is not Phase.REFUSED:
                self.refuse(400, "this is not HTTP")
            return
        if before is self.phase:
            self._count(before)
        if not self.deadline:
            self.deadline = self._next_deadline()

    def _feed(self, data: bytes | memoryview) -> None:
        """Feed the parser, past any offers to upgrade."""
        while len(data) and self.phase is not Phase.REFUSED:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                data = memoryview(data)[offer.args[0] :]
                self._decline()
            else:
                return

    def _decline(self) -> None:
        """Begin a request again without its offer to upgrade.

        The parser believes that such a request has no body. But Java's client makes the offer with its first post on a
        connection, and expects it to be read all the same when nobody takes it up.
        """
        method, version = self.parser.get_method(), self.parser.get_http_version()
        if method == b"CONNECT":
            self.refuse(400, "this is not HTTP")
            return
        lines = [method + b" " + self.url + b" HTTP/" + version.encode()]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self.parser.feed_data(b"\r\n".join(lines) + b"\r\n\r\n")

    def on_message_begin(self) -> None:
        """Start the time of a header."""
        super().on_message_begin()
        self.phase = Phase.HEADER
        self.deadline = self.header_bytes = 0

    def on_headers_complete(self) -> None:
        """Start the request and the time of its body."""
        if self.parser.should_upgrade():
            return  # `_decline` lets it begin again
        if self.header_bytes + self.chunk > self.limits.header_bytes:
            self._weigh_header()
        super().on_headers_complete()
        self.headers = []  # trailers do not belong to the request
        self.phase = Phase.BODY
        self.deadline = self.body_bytes = 0

    def on_message_complete(self) -> None:
        """Let the parser rest."""
        if self.parser.should_upgrade():
            return
        super().on_message_complete()
        self.phase = Phase.BETWEEN
        self.deadline = 0

    def on_response_complete(self) -> None:
        """Go on with the next request, or wait for it; in place of uvicorn's timer there is the deadline."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self.deadline = self.loop.time() + self.limits.linger_time.total_seconds()
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        elif self.phase is Phase.REFUSED:
            self._end(b"")
        elif self.phase is Phase.BETWEEN:
            self.deadline = self.loop.time() + self.limits.idle_time.total_seconds()

    def pause_writing(self) -> None:
        """Note since when the client has not read its answer."""
        super().pause_writing()
        self.stalled = self.loop.time() + self.limits.answer_time.total_seconds()

    def resume_writing(self) -> None:
        """Forget that it had not."""
        super().resume_writing()
        self.stalled = inf

    def expire(self, now: float) -> None:
        """End the connection if it is past its deadline [s of the loop]."""
        if self.deadline > now and self.stalled > now:
            return
        if self.stalled <= now or self.transport.is_closing() or self.phase is Phase.REFUSED:
            self.transport.abort()
        elif self.flow.read_paused:
            self.deadline = self._next_deadline()  # its time does not run while it is we who do not read
        elif self.phase is Phase.BETWEEN:
            self.transport.close()
            self.deadline = now + self.limits.linger_time.total_seconds()
        else:
            self.refuse(408, "the header took too long" if self.phase is Phase.HEADER else "the body took too long")

    def refuse(self, status: int, error: str) -> None:
        """Say one last sentence, if it is this request's turn, and let the connection end.

        Requests that came whole before are answered first; with the last of them the connection ends.
        """
        self.server_state.refused(status)
        in_body, cycle = self.phase is Phase.BODY, self.cycle
        self.phase = Phase.REFUSED
        self.flow.resume_reading()
        if in_body and self.pipeline:
            self.pipeline.popleft()  # the half of a request that stands last in line
            self.deadline = inf
        elif not in_body and cycle is not None and not cycle.response_complete:
            cycle.keep_alive = False
            self.deadline = inf
        else:
            self._end(b"" if in_body and cycle is not None and cycle.response_started else _answer(status, error))

    def _end(self, last: bytes) -> None:
        """Send the last bytes, wake the request that waits for its body, and end.

        Only the sending half is closed: a connection closed under a client that is still writing is reset, and the
        answer may be lost with it.
        """
        self.transport.write(last)
        self.deadline = self.loop.time() + self.limits.linger_time.total_seconds()
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.waiting_for_100_continue = False  # nothing can be said after the last sentence
            self.cycle.message_event.set()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _next_deadline(self) -> float:
        """Return until when the other side must have done what it is doing."""
        match self.phase:
            case Phase.HEADER:
                return self.loop.time() + self.limits.header_time.total_seconds()
            case Phase.BODY:
                return self.loop.time() + self.limits.body_time.total_seconds()
            case _ if self.cycle is None or self.cycle.response_complete:
                return self.loop.time() + self.limits.idle_time.total_seconds()
            case _:
                return inf

    def _count(self, phase: Phase) -> None:
        """Count a chunk that began and ended in the same part of a message."""
        if phase is Phase.HEADER:
            self.header_bytes += self.chunk
            if self.header_bytes > self.limits.header_bytes:
                self.refuse(431, "the header is too large")
        elif phase is Phase.BODY:
            self.body_bytes += self.chunk
            if self.body_bytes > self.limits.body_bytes:
                self.refuse(413, "the body is too large")

    def _weigh_header(self) -> None:
        """Refuse a header that is too large; the chunk it came in may hold more than the header."""
        size = len(self.url) + sum(len(name) + len(value) + len(": \r\n") for name, value in self.headers)
        if size > self.limits.header_bytes:
            self.refuse(431, "the header is too large")
            raise _HeaderTooLargeError


def _answer(status: int, error: str) -> bytes:
    """Return a whole answer that ends the connection."""
    body = json.dumps({"error": error}).encode()
    waits = f"retry-after: {RETRY_AFTER}\r\n" if status == REFUSED_CONNECTION else ""
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n{waits}connection: close\r\n\r\n"
    )
    return head.encode() + body
