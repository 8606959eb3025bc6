"""uvicorn as a part of our process: our socket, our signals, our limits."""

import asyncio
import math
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, cast

import uvicorn
from starlette.types import ASGIApp

from bridge.config import Settings
from bridge.limits import Limit
from bridge.receiver.callers import Callers
from bridge.receiver.protocol import DoorProtocol
from bridge.receiver.state import DoorState, Limits

TICKS_PER_SWEEP: Final = 5  # of 0.1 s
SWEEP_EVERY: Final = 0.2  # s, while shutting down
UNREAD: Final = 64 * 2**10
"""Bytes of answers that the system keeps for a client that does not read; by itself Linux lets them grow to megabytes
a connection, and nobody would notice the client until then. Answers are small: the longest has some 20 KB."""
UNPARSED: Final = 64 * 2**10
"""Bytes that the system keeps of what a client sends (it keeps up to twice as much), and so the most that is read of a
connection at once. By itself Linux lets them grow to 6 MB. A megabyte then needs 16 round trips, 3 s at most."""
SPARES_FILES: Final = 512  # open files for everything but connections
LEAST_CONNECTIONS: Final = 64
UNFINISHED_SHARE: Final = 0.5  # of the time to drain that a half-sent request has


class DoorServer(uvicorn.Server):
    """A server that leaves signals to the owner of the process and ends slow connections."""

    def __init__(self, config: uvicorn.Config, sock: socket.socket, state: DoorState) -> None:
        """Serve on a socket that is already bound."""
        super().__init__(config)
        self.server_state: DoorState = state
        self._sock = sock

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until `should_exit` is set, then answer what is in hand and return."""
        await super().serve(sockets or [self._sock])

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield

    async def on_tick(self, counter: int) -> bool:
        """Look at the deadlines now and then."""
        if counter % TICKS_PER_SWEEP == 0:
            self.sweep()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listener, answer what is in hand, and keep the deadlines meanwhile."""
        grace = self.config.timeout_graceful_shutdown or 0
        sweeping = asyncio.create_task(self._keep_sweeping(self._loop_time() + UNFINISHED_SHARE * grace))
        try:
            await super().shutdown(sockets)
        finally:
            sweeping.cancel()

    def reload(self, settings: Settings) -> None:
        """Trust other proxies from the next connection on."""
        self.server_state.trusted = settings.server.trusted_proxies

    def sweep(self) -> None:
        """End every connection that is past its deadline."""
        now = asyncio.get_running_loop().time()
        for connection in list(self.server_state.connections):
            cast("DoorProtocol", connection).expire(now)

    async def _keep_sweeping(self, patient_until: float) -> None:
        """Look at the deadlines; from some time on [s of the loop] end whatever nobody works on here."""
        while True:
            self.sweep()
            if self._loop_time() >= patient_until:
                for connection in list(self.server_state.connections):
                    cast("DoorProtocol", connection).hurry()
            await asyncio.sleep(SWEEP_EVERY)

    def _loop_time(self) -> float:
        return asyncio.get_running_loop().time()


def make_server(  # noqa: PLR0913 - one argument per part
    app: ASGIApp,
    sock: socket.socket,
    settings: Settings,
    *,
    callers: Callers,
    limits: Limits | None = None,
    refused: Callable[[int], None] = lambda status: None,  # noqa: ARG005
    reached: Callable[[Limit, str], None] = lambda limit, payer: None,  # noqa: ARG005
) -> DoorServer:
    """Build the server for a bound socket.

    `callers` are those who have proved themselves; `refused` is told the status of what the connection limits refuse,
    `reached` which limit it was and who reached it.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNREAD)  # connections inherit it
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UNPARSED)
    config = uvicorn.Config(
        app,
        http=DoorProtocol,
        ws="none",
        loop="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(settings.server.drain_timeout.total_seconds()),
    )
    return DoorServer(
        config, sock, DoorState(limits or Limits(), refused, reached, callers, settings.server.trusted_proxies)
    )


def places(wanted: int, open_files: int) -> int:
    """Return how many connections there is room for: as many as wanted, as far as the system allows open files."""
    return max(LEAST_CONNECTIONS, min(wanted, open_files - SPARES_FILES))
