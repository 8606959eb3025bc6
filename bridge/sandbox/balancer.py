"""One address for several replicas, as a load balancer in front of them gives: connections go round.

Rules:
- A replica takes part while it answers `/health/ready` with 200; it is asked every `ASK_S`.
- A connection goes to the next replica in turn that takes it; what the replica then does with it is its own affair.
- Bytes are passed on as they are; nothing is read, repeated or kept.
"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from typing import Any, Final, Self

ASK_S: Final = 0.5
ANSWER_S: Final = 2.0  # longest wait for an answer about readiness
CHUNK: Final = 64 * 1024  # bytes

Backend = tuple[str, int]


class Balancer:
    """Passes connections on, in a thread of its own; use as a context."""

    def __init__(self, backends: Sequence[Backend], port: int = 0) -> None:
        """Name the replicas, and the port to listen on; 0 = any free one."""
        self._backends = list(backends)
        self._ready: list[Backend] = []
        self._turn = 0
        self._asked = port
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._listening = threading.Event()
        self._failure: OSError | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._run, name="balancer", daemon=True)
        self.port = 0

    def __enter__(self) -> Self:
        """Listen. Raises OSError where the port is not to be had."""
        self._thread.start()
        self._listening.wait()
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *_: object) -> None:
        """End; connections are cut."""
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    @property
    def ready(self) -> Sequence[Backend]:
        """Return who takes part now."""
        return tuple(self._ready)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except OSError as why:
            self._failure = why
        finally:
            self._listening.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._pass_on, "127.0.0.1", self._asked)
        self.port = int(server.sockets[0].getsockname()[1])
        self._listening.set()
        asking = [asyncio.create_task(self._keep_asking(backend)) for backend in self._backends]  # noqa: F841 - kept
        await self._stop.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for writer in self._open:
            writer.transport.abort()
        await asyncio.sleep(0)  # for the loop to see them end

    # ---- who takes part ----

    async def _keep_asking(self, backend: Backend) -> None:
        while True:
            answers = await self._is_ready(backend)
            if answers and backend not in self._ready:
                self._ready.append(backend)
            elif not answers and backend in self._ready:
                self._ready.remove(backend)
            await asyncio.sleep(ASK_S)

    async def _is_ready(self, backend: Backend) -> bool:
        """Ask a replica whether it can accept."""
        try:
            async with asyncio.timeout(ANSWER_S), self._connected(backend) as (reader, writer):
                writer.write(b"GET /health/ready HTTP/1.1\r\nhost: replica\r\nconnection: close\r\n\r\n")
                line = await reader.readline()
        except (OSError, TimeoutError):
            return False
        return line.split(b" ")[1:2] == [b"200"]

    def _in_turn(self) -> list[Backend]:
        """Return the replicas in the order in which the next connection tries them."""
        self._turn += 1
        at = self._turn % max(1, len(self._ready))
        return [*self._ready[at:], *self._ready[:at]]

    # ---- connections ----

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with self._held(writer):
            for backend in self._in_turn():
                with contextlib.suppress(OSError):
                    async with self._connected(backend) as (there, back):
                        await _both(_copy(reader, back), _copy(there, writer))
                    return

    @contextlib.asynccontextmanager
    async def _connected(self, backend: Backend) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Connect to a replica; raises OSError where it does not take it."""
        reader, writer = await asyncio.open_connection(*backend)
        with self._held(writer):
            yield reader, writer

    @contextlib.contextmanager
    def _held(self, writer: asyncio.StreamWriter) -> Iterator[None]:
        """Close a connection at the end; what is still on its way out goes out first."""
        self._open = {one for one in self._open if not one.transport.is_closing() or _unsent(one)} | {writer}
        try:
            yield
        finally:
            writer.close()


def _unsent(writer: asyncio.StreamWriter) -> bool:
    return writer.transport.get_write_buffer_size() > 0


async def _both(*ways: Coroutine[Any, Any, None]) -> None:
    """Run both ways of a connection until one ends: HTTP needs no half-open connections."""
    tasks = [asyncio.create_task(way) for way in ways]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Pass bytes on until one side ends."""
    with contextlib.suppress(OSError):
        while data := await source.read(CHUNK):
            sink.write(data)
            await sink.drain()
