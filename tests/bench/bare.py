"""The same as the door of the bridge, written bare: signature, group commit, 202, and nothing else.

Raw ASGI on the same server; the simplest group commit into SQLite with synchronous=FULL: while one transaction is
being written, the next one collects. No limits, no duplicates, no ledger, no health. Run as
`python -m tests.bench.bare FILE`; prints its address.
"""

import asyncio
import base64
import hmac
import socket
import sqlite3
import sys
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from queue import SimpleQueue
from typing import Any

import uvicorn

from tests.bench.homes import SECRET

Waiting = list[tuple[bytes, asyncio.Future[int]]]
_KEY = base64.b64decode(SECRET.removeprefix("whsec_"))


class GroupCommit:
    """One writing thread; whoever waits is written in one transaction."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._waiting: Waiting = []
        self._busy = False
        self._orders: SimpleQueue[Waiting] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def store(self, body: bytes) -> int:
        """Return the row of a body once it is on the disk."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            threading.Thread(target=self._work, daemon=True).start()
        future: asyncio.Future[int] = self._loop.create_future()
        self._waiting.append((body, future))
        if not self._busy:
            self._next()
        return await future

    def _next(self) -> None:
        self._busy, order, self._waiting = bool(self._waiting), self._waiting, []
        if order:
            self._orders.put(order)

    def _work(self) -> None:
        con = sqlite3.connect(self._path, isolation_level=None)
        con.execute("PRAGMA journal_mode = WAL")
        con.execute("PRAGMA synchronous = FULL")
        con.execute("CREATE TABLE IF NOT EXISTS inbox (id INTEGER PRIMARY KEY, body BLOB NOT NULL)")
        first = 1
        while True:
            order = self._orders.get()
            con.execute("BEGIN IMMEDIATE")
            con.executemany("INSERT INTO inbox (body) VALUES (?)", [(body,) for body, _ in order])
            con.execute("COMMIT")
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._done, order, first)
            first += len(order)

    def _done(self, order: Waiting, first: int) -> None:
        for row, (_, future) in enumerate(order, first):
            future.set_result(row)
        self._next()


class Bare:
    """The application."""

    def __init__(self, store: GroupCommit) -> None:
        self._store = store

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message["body"]
            more = message["more_body"]
        headers = dict(scope["headers"])
        signed = b".".join((headers[b"webhook-id"], headers[b"webhook-timestamp"], body))
        signature = b"v1," + base64.b64encode(hmac.digest(_KEY, signed, "sha256"))
        if hmac.compare_digest(signature, headers[b"webhook-signature"]):
            row = await self._store.store(body)
            status, answer = 202, b'{"accepted":1,"duplicates":0,"dead":0,"ids":[%d]}' % row
        else:
            status, answer = 401, b"{}"
        fields = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": status, "headers": fields})
        await send({"type": "http.response.body", "body": answer})


def listening() -> socket.socket:
    """Return a listening socket on any free port."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # else Nagle's delay stays on
    sock.bind(("127.0.0.1", 0))
    sock.listen(2048)  # whoever reads the address may connect at once
    return sock


def serve(app: Any) -> None:  # noqa: ANN401 - any ASGI application
    """Serve an application as the bridge is served; prints the address."""
    sock = listening()
    config = uvicorn.Config(
        app, http="httptools", loop="uvloop", ws="none", lifespan="off", access_log=False, log_level="warning"
    )
    print(f"listening on 127.0.0.1:{sock.getsockname()[1]}", flush=True)
    uvicorn.Server(config).run(sockets=[sock])


if __name__ == "__main__":
    serve(Bare(GroupCommit(sys.argv[1])))
