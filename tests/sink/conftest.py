"""A server that answers byte by byte as a test wants."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from bridge.config import Moost
from tests.certificates import Authority, Certificate

CUSTOMER = "656730be2bc9719e6e5ed51d"
SECRET = "canary-secret-0123456789"

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class RawServer:
    """Reads a request, then does what `answer` does; `requests` holds what came in."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.answer: bytes | None = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"
        self.close = True
        self.read_first = True
        self.hang = asyncio.Event()
        self.base_url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while self.read_first:
                head = await reader.readuntil(b"\r\n\r\n")
                length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                body = await reader.readexactly(int(length[0].split(b":")[1])) if length else b""
                self.requests.append(head + body)
                if self.answer is None:
                    await self.hang.wait()
                    break
                writer.write(self.answer)
                await writer.drain()
                if self.close:
                    break
        writer.close()


@pytest.fixture
async def server() -> AsyncIterator[RawServer]:
    raw = RawServer()
    listener = await asyncio.start_server(raw.serve, "127.0.0.1", 0)
    raw.base_url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    async with listener:
        yield raw
        raw.hang.set()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
async def tls(server: RawServer) -> AsyncIterator[Callable[[Certificate], Awaitable[str]]]:
    """Return what serves the raw server's answers by TLS with a certificate; its address names localhost."""
    listeners: list[asyncio.Server] = []

    async def serve(certificate: Certificate) -> str:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate.certificate, certificate.key)
        listeners.append(await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context))
        return f"https://localhost:{listeners[-1].sockets[0].getsockname()[1]}"

    yield serve
    for each in listeners:
        each.close()


@pytest.fixture
def moost() -> Callable[..., Moost]:
    def make(**changes: object) -> Moost:
        return Moost.model_validate(
            {"client_id": "client", "client_secret": SECRET, "customer_id": CUSTOMER, "timeout": "5s", **changes}
        )

    return make
