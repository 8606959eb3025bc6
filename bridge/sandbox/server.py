"""Serving the look-alike over a real socket.

Rules:
- A fault that drops a connection needs the transport: the protocol subclass offers `drop` to the application as an
  ASGI extension; without it (an application driven without a socket) dropping is an error of the caller.
- uvicorn's own signal handling is not used: SIGTERM and SIGINT end the process with exit code 0.
"""

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import Any, Final, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from bridge.sandbox.call import Receive, Scope, Send

DROP: Final = "sandbox.drop"
_KEEP_ALIVE_S: Final = 75
_BACKLOG: Final = 2048

App = Callable[[Scope, Receive, Send], Awaitable[None]]


class DroppableProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol; the application may drop the connection."""

    def on_message_begin(self) -> None:
        """Offer the extension with each request."""
        super().on_message_begin()
        cast("dict[str, Any]", self.scope)["extensions"] = {DROP: self.drop}

    def drop(self) -> None:
        """Close the connection without an answer, at once."""
        self.cycle.disconnected = True
        self.transport.abort()


def drop(scope: Scope) -> None:
    """Drop the connection of a request; raises ConnectionResetError where there is no socket."""
    close = scope.get("extensions", {}).get(DROP)
    if close is None:
        message = "this server cannot drop connections"
        raise ConnectionResetError(message)
    close()


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, telling when it listens."""

    def __init__(self, config: uvicorn.Config, listening: asyncio.Event) -> None:
        """Set the event once connections are served."""
        super().__init__(config)
        self._listening = listening

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave signals to the caller."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then say so."""
        await super().startup(sockets)
        self._listening.set()


@contextlib.asynccontextmanager
async def serving(app: App, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Serve an application while the block runs; yields its address. Port 0 takes a free one."""
    listener = _bound(host, port)
    listening = asyncio.Event()
    config = uvicorn.Config(
        app,
        http=DroppableProtocol,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=1,
    )
    server = _Server(config, listening)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    waiter = asyncio.create_task(listening.wait())
    await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
    waiter.cancel()
    try:
        shown = f"[{host}]" if ":" in host else host
        yield f"http://{shown}:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        listener.close()


def _bound(host: str, port: int) -> socket.socket:
    """Return a listening socket; raises OSError where the port is taken.

    The protocol is named on purpose: asyncio switches off Nagle's delay (40 ms per answer) only for sockets
    that say IPPROTO_TCP, and `socket.create_server` does not.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    listener.listen(_BACKLOG)
    return listener


async def until_signal(app: App, *, host: str, port: int, announce: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; `announce` gets the address once it listens."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with serving(app, host=host, port=port) as address:
        announce(address)
        await stop.wait()
