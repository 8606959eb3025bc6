"""A door with a store in memory behind it, spoken to as ASGI or over real sockets."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook

from bridge.config import Settings
from bridge.core.vocabulary import DeadReason
from bridge.limits import LimitCounts
from bridge.metrics import Metrics
from bridge.receiver.app import Receiver, build_app
from bridge.receiver.gate import Gate
from bridge.receiver.hands import Hands
from bridge.receiver.health import HealthSources
from bridge.receiver.protocol import DoorProtocol
from bridge.receiver.server import DoorServer, make_server
from bridge.receiver.state import Limits
from bridge.store.memory import MemoryStore
from bridge.store.port import Arrival, Receipt, StoreUnavailable

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TOPIC = "sub-1.vehicle.update"
PATH = f"/webhooks/{TOPIC}"
JSON = {"content-type": "application/json"}
PATIENCE = 10.0  # seconds until a condition that does not come true fails a test
OPEN = {"id": "sub-1", "auth": "none"}
SIGNED = {"id": "sub-1", "auth": "standard-webhooks", "secrets": [SECRET]}


def sign(body: bytes, *, secret: str = SECRET, at: datetime | None = None, message_id: str = "msg_1") -> dict[str, str]:
    """Return the headers of a signed request."""
    at = at or datetime.now(UTC)
    signature = Webhook(secret).sign(message_id, at, body.decode())
    return JSON | {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": signature,
    }


class Store(MemoryStore):
    """A store that a test can look into, break and hold up."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[Arrival] = []
        self.broken = False
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.waiting = 0

    async def accept(self, arrivals: Sequence[Arrival]) -> Sequence[Receipt]:
        self.waiting += 1
        await self.go_on.wait()
        self.waiting -= 1
        if self.broken:
            raise StoreUnavailable("the disk is full")
        receipts = await super().accept(arrivals)
        self.taken += [arrival for arrival, receipt in zip(arrivals, receipts, strict=True) if not receipt.duplicate]
        return receipts

    def dead(self) -> list[DeadReason | None]:
        return [arrival.dead for arrival in self.taken]

    def bodies(self) -> list[bytes]:
        return [arrival.body for arrival in self.taken]


@dataclass(kw_only=True)
class House:
    """The parts that a test turns."""

    settings: Settings
    store: Store
    gate: Gate
    metrics: Metrics
    receiver: Receiver
    limits: LimitCounts
    client: httpx.AsyncClient
    words: dict[str, Any] = field(default_factory=dict)
    clock: list[timedelta] = field(default_factory=lambda: [timedelta()])

    @property
    def hands(self) -> Hands:
        return self.receiver.pages.router.routes[0].app._hands  # type: ignore[attr-defined,no-any-return]

    async def post(self, path: str = PATH, content: bytes = b"{}", **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.post(path, content=content, headers=JSON | named)

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


def settings(*subscriptions: dict[str, Any], **server: object) -> Settings:
    return Settings.model_validate({"subscriptions": list(subscriptions) or [OPEN], "server": server})


def house(chosen: Settings, address: str = "127.0.0.1") -> House:
    """Build a receiver with an open door; the client speaks ASGI to it, from an address of its own."""
    store, metrics = Store(), Metrics()
    gate = Gate(max_size=10**9, disk_bytes=10**9, starting=False)
    words: dict[str, Any] = {"circuit": "closed", "cause": None, "token": None, "problems": []}
    clock = [timedelta()]
    limits = LimitCounts(metrics)
    receiver = build_app(
        settings=chosen,
        store=store,
        metrics=metrics,
        gate=gate,
        limits=limits,
        sources=HealthSources(
            circuit=lambda: words["circuit"],
            cause=lambda: words["cause"],
            token_expires_in=lambda: words["token"],
            problems=lambda: words["problems"],
        ),
        now=lambda: datetime.now(UTC) + clock[0],
    )
    transport = httpx.ASGITransport(receiver.app, client=(address, 4711))
    return House(
        settings=chosen,
        store=store,
        gate=gate,
        metrics=metrics,
        receiver=receiver,
        limits=limits,
        client=httpx.AsyncClient(transport=transport, base_url="http://bridge"),
        words=words,
        clock=clock,
    )


@pytest.fixture
async def door() -> House:
    """Return a house whose one subscription needs no proof."""
    return house(settings())


def answer(accepted: int, *, dead: int = 0, duplicates: int = 0, ids: Sequence[int] | None = None) -> dict[str, Any]:
    """Return the body of a 202 from a fresh store."""
    numbers = list(range(1, accepted + 1)) if ids is None else list(ids)
    return {"accepted": accepted, "duplicates": duplicates, "dead": dead, "ids": numbers}


# ---- real sockets ---------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Served:
    """A house behind a listening socket."""

    house: House
    server: DoorServer
    port: int
    refused: list[int]
    wires: "list[Wire]" = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connection(self) -> DoorProtocol:
        """Return the server's side of the only connection."""
        (found,) = self.server.server_state.connections
        assert isinstance(found, DoorProtocol)
        return found

    async def connect(self) -> "Wire":
        wire = Wire(*await asyncio.open_connection("127.0.0.1", self.port))
        self.wires.append(wire)
        return wire


class Wire:
    """One connection, spoken to byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], Any]:
        """Read one answer: status, headers, content."""
        async with asyncio.timeout(PATIENCE):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return int(first.split()[1]), headers, json.loads(body) if body else None

    async def ended(self) -> bytes:
        """Read to the end of the connection."""
        async with asyncio.timeout(PATIENCE):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""

    def close(self) -> None:
        self.writer.close()


def request(body: bytes = b"{}", *headers: str, path: str = PATH, length: int | None = None) -> bytes:
    """Return the bytes of a post."""
    lines = [f"POST {path} HTTP/1.1", "host: bridge", "content-type: application/json"]
    lines += [f"content-length: {len(body) if length is None else length}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@asynccontextmanager
async def served(chosen: Settings | None = None, limits: Limits | None = None) -> AsyncIterator[Served]:
    """Serve a house on a free port."""
    built = house(chosen or settings())
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    refused: list[int] = []
    server = make_server(
        built.receiver.app,
        sock,
        built.settings,
        callers=built.receiver.callers,
        limits=limits,
        refused=refused.append,
        reached=built.limits.reached,
    )
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    bridge = Served(house=built, server=server, port=sock.getsockname()[1], refused=refused)
    try:
        yield bridge
    finally:
        for wire in bridge.wires:
            wire.close()
        server.should_exit = True
        async with asyncio.timeout(PATIENCE):
            await serving


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition, but not for ever."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - the condition may be anybody's
            await asyncio.sleep(0.005)
