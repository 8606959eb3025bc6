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
from bridge.receiver.protocol import DoorProtocol, DoorState, Limits

TICKS_PER_SWEEP: Final = 5  # of 0.1 s
SWEEP_EVERY: Final = 0.5  # s, while shutting down
UNREAD: Final = 64 * 2**10
"""Bytes of answers that the system keeps for a client that does not read; by itself Linux lets them grow to megabytes
a connection, and nobody would notice the client until then. Answers are small: the longest has some 20 KB."""


class DoorServer(uvicorn.Server):
    """A server that leaves signals to the owner of the process and ends slow connections."""

    def __init__(self, config: uvicorn.Config, sock: socket.socket, state: DoorState) -> None:
        """Serve on a socket that is already bound."""
        super().__init__(config)
        self.server_state = state
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
        sweeping = asyncio.create_task(self._keep_sweeping())
        try:
            await super().shutdown(sockets)
        finally:
            sweeping.cancel()

    def sweep(self) -> None:
        """End every connection that is past its deadline."""
        now = asyncio.get_running_loop().time()
        for connection in list(self.server_state.connections):
            cast("DoorProtocol", connection).expire(now)

    async def _keep_sweeping(self) -> None:
        while True:
            self.sweep()
            await asyncio.sleep(SWEEP_EVERY)


def make_server(
    app: ASGIApp,
    sock: socket.socket,
    settings: Settings,
    *,
    limits: Limits | None = None,
    refused: Callable[[int], None] = lambda status: None,  # noqa: ARG005
    reached: Callable[[Limit, str], None] = lambda limit, payer: None,  # noqa: ARG005
) -> DoorServer:
    """Build the server for a bound socket.

    `refused` is told the status of what the connection limits refuse, `reached` which limit it was and who reached it.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNREAD)  # connections inherit it
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
    return DoorServer(config, sock, DoorState(limits or Limits(), refused, reached))
