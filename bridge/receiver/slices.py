"""How far a connection is parsed ahead of its answers.

Rules:
- While an answer is owed at most 16 further requests of the connection are parsed, with 64 KiB of bodies; then reading
  pauses. Where many requests of all connections wait, one of each is parsed.
- The parser cannot be stopped, so it is fed in slices: what is beyond the bound is at most what a slice holds.

Theory of operation: what is read and not parsed yet waits in `_rest`, at most what the system keeps for a connection
(see `server`). Each answer that is given makes room for more of it. A request that arrives alone is fed as it comes.
"""

import asyncio
from typing import Final

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from bridge.limits import Limit
from bridge.receiver.places import Party
from bridge.receiver.state import DoorState, Flow, Phase

AHEAD: Final = 16  # requests of a connection that are parsed while one before them is answered
AHEAD_BYTES: Final = 64 * 2**10  # of their bodies
AHEAD_IN_ALL: Final = 1_024  # requests; beyond that one of each connection
FIRST_SLICE: Final = 2 * 2**10  # bytes that an idle connection's parser takes at once: nearly every request
SLICE: Final = 2**10  # bytes while an answer is owed
SMALL_SLICE: Final = 128  # bytes while many requests of all connections wait


class SlicedProtocol(HttpToolsProtocol):
    """Reads one connection in slices."""

    server_state: DoorState
    flow: Flow
    cycle: RequestResponseCycle | None  # type: ignore[assignment]  # uvicorn leaves it None until the first request
    party: Party  # of its address

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin with nothing read."""
        super().connection_made(transport)
        self.flow = Flow(transport)
        self.phase = Phase.BETWEEN
        self.taken = 0  # bytes of the body
        self.answering: RequestResponseCycle | None = None  # the request whose answer is owed; `cycle` is the last one
        self._rest: bytes | memoryview = b""  # read, and not parsed yet
        self._ahead = 0  # requests that wait behind the one that is answered, as they count in `state.ahead`

    def _parse(self, data: bytes | memoryview) -> None:
        raise NotImplementedError

    def _go_on(self) -> None:
        """Parse what was read, as far as there is room for the requests in it; the rest waits, and reading pauses."""
        rest = self._rest
        at = 0
        while at < len(rest) and self.phase is not Phase.REFUSED and self._has_room():
            piece = rest[at : at + self._slice()]
            self._parse(piece)
            at += len(piece)
        if at < len(rest) and self.phase is not Phase.REFUSED:
            if not self.flow.held:
                self.server_state.reached(Limit.PARSED_AHEAD, self.party.address)
                self.flow.hold()
            self._rest = rest[at:]
        else:
            self._rest = b""
            if self.flow.held:
                self.flow.let_go()

    def _has_room(self) -> bool:
        """Return whether more may be parsed before the answers that are owed are given."""
        waiting = len(self.pipeline)
        if not waiting:
            return True
        if waiting >= AHEAD or self.server_state.ahead >= AHEAD_IN_ALL:
            return False
        return sum(len(cycle.body) for cycle, _ in self.pipeline) < AHEAD_BYTES

    def _slice(self) -> int:
        """Return how many bytes the parser may take at once."""
        if self.phase is Phase.BODY and (left := self._left()) > SLICE:
            return left
        if self.server_state.ahead >= AHEAD_IN_ALL:
            return SMALL_SLICE
        return FIRST_SLICE if self.answering is None or self.answering.response_complete else SLICE

    def _left(self) -> int:
        """Return how much of the body is to come, where that is declared [bytes]."""
        for name, value in self.scope["headers"]:
            if name == b"content-length":
                return int(value) - self.taken
        return 0

    def _count_waiting(self) -> None:
        waiting = len(self.pipeline)
        self.server_state.ahead += waiting - self._ahead
        self._ahead = waiting

    def _drop_waiting(self) -> None:
        """Forget what has not been begun."""
        self._rest = b""
        self.pipeline.clear()
        self._count_waiting()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """Begin to answer a request."""
        self.answering = cycle
        super()._start_asgi_task(cycle, app)
