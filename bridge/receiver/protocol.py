"""One connection, and what uvicorn has not: how large a header, how slow a client.

Rules:
- A header has 32 KiB, 128 fields and 5 s, its trailers included; a body 10 s, an idle connection a little over a
  minute, an unread answer 10 s. What marks the pieces of a body has 64 KiB and an eighth of it.
- Who breaks a limit gets one sentence (408, 413, 431) and is cut off; nobody else notices.
- No timer per request: a connection knows its deadline, and the server looks at all of them twice a second.

Theory of operation: the parser calls back at the begin of a message, the end of its header and its end; each callback
only voids the deadline, and `data_received` sets a new one if the chunk ended in the middle of a message. A request
that arrives in one piece, as nearly all do, costs one look at the clock.

Source: uvicorn 0.54 `HttpToolsProtocol`, whose keep-alive timer is replaced and whose other behaviour stays.
"""

import asyncio
import json
from collections.abc import Sequence
from http import HTTPStatus
from math import inf
from typing import Final

import httptools

from bridge.limits import Limit
from bridge.receiver.addresses import block, is_within, read_address
from bridge.receiver.places import PROBATION_S
from bridge.receiver.slices import FIRST_SLICE, SlicedProtocol
from bridge.receiver.state import Phase

REFUSED_CONNECTION: Final = 503
RETRY_AFTER: Final = 1  # s
UNTAKEN: Final = 16 * 2**10  # bytes of a body that lie here while there is no room for them in hand
MARKS: Final = 64 * 2**10  # bytes of a body that say where its pieces begin, and this share of it; honest ones have 1 %
MARKS_SHARE: Final = 1 / 8
FULL: Final = "too many connections"


class _RefusedError(Exception):
    """Stops the parser within a chunk: the last word is said."""


class DoorProtocol(SlicedProtocol):
    """One connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Take a connection in, on probation where there is no place for it."""
        super().connection_made(transport)
        state = self.server_state
        self.limits = state.limits
        self.deadline = self.loop.time() + self.limits.header_time.total_seconds()
        self.stalled = inf  # when an answer that is not read becomes too old
        self.chunk = self.header_bytes = self.body_bytes = 0
        self.trailing = False
        self.silent = False  # on probation
        self.guest = False  # let in though there is no place
        host = self.client[0] if self.client else ""
        trusted = bool(state.trusted) and is_within(read_address(host), state.trusted)
        self.party, reached = state.places.enter(self, block(host), exempt=trusted)
        if reached is not None:
            state.reached(reached, self.party.address)
        if self in state.places.silent:
            self.silent = True
            self.deadline = self.loop.time() + PROBATION_S
        elif self.phase is Phase.BETWEEN:
            self.party.idle[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything."""
        if self.answering is not None and self.answering is not self.cycle:
            self.answering.disconnected = True
        self._drop_waiting()
        self.server_state.places.leave(self, guest=self.guest)
        super().connection_lost(exc)

    def give_way(self) -> None:
        """Close: the place is needed, and nothing is in hand."""
        self.transport.close()
        self.deadline = self.loop.time() + self.limits.linger_time.total_seconds()

    def turn_away(self) -> None:
        """Refuse and close: there is no place."""
        self.server_state.places.leave(self)
        self.refuse(REFUSED_CONNECTION, FULL)
        self.transport.close()

    def shutdown(self) -> None:
        """Begin to end: the request in hand is answered, those that wait behind it are not."""
        self._drop_waiting()
        if self.answering is None or self.answering.response_complete:
            self.transport.close()
            return
        self.answering.keep_alive = False
        if self.answering is not self.cycle:
            self.cycle = self.answering
            self.phase = Phase.REFUSED
            self.flow.let_go()
            self.deadline = inf

    def data_received(self, data: bytes) -> None:
        """Feed the parser and keep the deadline of what it is in the middle of."""
        if self.phase is Phase.REFUSED:
            return
        if self._rest:
            self._rest = bytes(self._rest) + data
            return  # somebody reads though it is paused; its turn comes
        if len(data) <= FIRST_SLICE and not self.pipeline:
            self._parse(data)
        else:
            self._rest = memoryview(data)
            self._go_on()
        if not self.deadline:
            self.deadline = self._next_deadline()

    def _parse(self, data: bytes | memoryview) -> None:
        """Feed the parser some bytes and count them."""
        before = self.phase
        self.chunk = len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError:
            if self.phase is not Phase.REFUSED:
                self.refuse(400, "this is not HTTP")
            return
        if before is self.phase:
            self._count(before)
        if self.headers and self.phase is Phase.BODY:
            self._weigh_trailers()
        if self.pipeline or self._ahead:
            self._count_waiting()

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
        self.header_bytes = 0
        if not self.silent:
            self.deadline = 0
        self.party.idle.pop(self, None)

    def on_headers_complete(self) -> None:
        """Start the request and the time of its body."""
        if self.parser.should_upgrade():
            return  # `_decline` lets it begin again
        heavy = self.header_bytes + self.chunk + FIRST_SLICE > self.limits.header_bytes
        if heavy or len(self.headers) > self.limits.header_fields:
            self._weigh_header()
        if self.silent:
            self._admit()
        super().on_headers_complete()
        if self.guest and self.cycle is not None:
            self.cycle.keep_alive = False
        self.headers = []  # trailers do not belong to the request
        self.phase = Phase.BODY
        self.deadline = self.body_bytes = self.taken = 0
        self.trailing = False

    def _admit(self) -> None:
        """Let the first request of a connection in that has no place, or turn it away."""
        path = self.url.partition(b"?")[0].decode("latin-1")
        if not self.server_state.is_welcome({"path": path, "client": self.client, "headers": self.headers}):
            self.turn_away()
            raise _RefusedError
        self.server_state.places.let_in(self)
        self.silent, self.guest = False, True

    def on_body(self, body: bytes) -> None:
        """Count what came, and let the sender wait where the door does not take it."""
        self.taken += len(body)
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > UNTAKEN:
            self.flow.pause_reading()
        cycle.message_event.set()

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
            self._count_waiting()
        elif self.phase is Phase.REFUSED:
            self._end(b"")
            return
        if self._rest:
            self._go_on()
            if not self.deadline:
                self.deadline = self._next_deadline()
        elif self.phase is Phase.BETWEEN and self.answering is not None and self.answering.response_complete:
            self.deadline = self.loop.time() + self.limits.idle_time.total_seconds()
            self.party.idle[self] = None

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
        elif self.phase is Phase.HEADER or self.trailing:
            self.server_state.reached(Limit.HEADER, self.party.address)
            self.refuse(408, "the header took too long")
        else:
            self.refuse(408, "the body took too long")

    def hurry(self) -> None:
        """End what is not finished, for the time to drain runs out."""
        if self.stalled < inf:
            self.transport.abort()
        elif self.phase in (Phase.HEADER, Phase.BODY) and not self.transport.is_closing():
            self.refuse(408, "the request took too long")

    def refuse(self, status: int, error: str) -> None:
        """Say one last sentence, if it is this request's turn, and let the connection end.

        Requests that came whole before are answered first; with the last of them the connection ends.
        """
        self.server_state.refused(status)
        in_body, cycle = self.phase is Phase.BODY, self.cycle
        self.phase = Phase.REFUSED
        self._rest = b""
        self.flow.let_go()
        if in_body and self.pipeline:
            self.pipeline.popleft()  # the half of a request that stands last in line
            self._count_waiting()
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
                self._refuse_header()
        elif phase is Phase.BODY:
            self.body_bytes += self.chunk
            if self.body_bytes > self.limits.body_bytes:
                self.refuse(413, "the body is too large")
            elif self.body_bytes - self.taken > MARKS + self.taken * MARKS_SHARE:
                self.server_state.reached(Limit.CHUNK_MARKS, self.party.address)
                self.refuse(413, "the body is in too small pieces")

    def _weigh_header(self) -> None:
        """Refuse a header that is too large; the chunk it came in may hold more than the header."""
        if self._is_too_large(self.headers):
            self._refuse_header()
            raise _RefusedError

    def _weigh_trailers(self) -> None:
        """Refuse trailers that are too large together with their header; from the first one on they have its time."""
        if not self.trailing:
            self.trailing = True
            self.deadline = min(self.deadline or inf, self.loop.time() + self.limits.header_time.total_seconds())
        if self._is_too_large([*self.scope["headers"], *self.headers]):
            self._refuse_header()

    def _is_too_large(self, fields: Sequence[tuple[bytes, bytes]]) -> bool:
        size = len(self.url) + sum(len(name) + len(value) + len(": \r\n") for name, value in fields)
        return size > self.limits.header_bytes or len(fields) > self.limits.header_fields

    def _refuse_header(self) -> None:
        self.server_state.reached(Limit.HEADER, self.party.address)
        self.refuse(431, "the header is too large")


def _answer(status: int, error: str) -> bytes:
    """Return a whole answer that ends the connection."""
    body = json.dumps({"error": error}).encode()
    waits = f"retry-after: {RETRY_AFTER}\r\n" if status == REFUSED_CONNECTION else ""
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n{waits}connection: close\r\n\r\n"
    )
    return head.encode() + body
