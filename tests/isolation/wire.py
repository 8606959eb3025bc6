"""HTTP by hand: requests as bytes, signed or not, and connections that count what goes over them.

Rules:
- Attackers come from addresses of their own (127.0.0.0/8), so that what one address pays is told from what others pay.
- What was written counts as sent; a connection that is cut off, or refused, is no error of the attacker.
"""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import itertools
import json
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

SECRETS: Final = {
    "canary": "whsec_Y2FuYXJ5LW1hZGUtdXAtc2VjcmV0LTAx",  # made up
    "mad": "whsec_bWFkLW1hZGUtdXAtc2VjcmV0LTAwMDAx",
    "limited": "whsec_bGltaXRlZC1tYWRlLXVwLXNlY3JldC0x",
}
STRANGER: Final = "127.0.0.66"
CHUNK: Final = 65_536
_numbers: Final = itertools.count(time.time_ns())


def stamp(at: datetime | None = None) -> str:
    """Return a time as the device cloud writes it; now by default."""
    return (at or datetime.now(UTC)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def dump(value: object) -> bytes:
    """Return a value as compact JSON; bytes stay as they are."""
    return value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()


def signature(subscription: str, body: bytes, message_id: str = "") -> dict[str, str]:
    """Return the headers of a signed request.

    Source: Standard Webhooks specification (headers webhook-id, webhook-timestamp, webhook-signature).
    """
    number, now = message_id or f"msg_{next(_numbers)}", str(int(time.time()))
    key = base64.b64decode(SECRETS[subscription].removeprefix("whsec_"))
    digest = hmac.digest(key, f"{number}.{now}.".encode() + body, hashlib.sha256)
    proof = "v1," + base64.b64encode(digest).decode()
    return {"webhook-id": number, "webhook-timestamp": now, "webhook-signature": proof}


def request(path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None, method: str = "") -> bytes:
    """Return a request; one with a body is a POST of JSON."""
    lines = [f"{method or ('GET' if body is None else 'POST')} {path} HTTP/1.1", "host: 127.0.0.1"]
    if body is not None:
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b"")


def signed(topic: str, content: object, subscription: str = "mad", **more: str) -> bytes:
    """Return a signed webhook; `topic` without the subscription; `more` are headers, `_` for `-`."""
    body = dump(content)
    headers = signature(subscription, body) | {name.replace("_", "-"): value for name, value in more.items()}
    return request(f"/webhooks/{subscription}.{topic}", body, headers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:  # noqa: ANN401 - whatever JSON holds
        """Return the content."""
        return json.loads(self.body)


@dataclass
class Line:
    """One connection of an attacker."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    lines: "Lines"
    reading: asyncio.Task[None] | None = None

    async def send(self, data: bytes) -> None:
        """Write, in pieces; raises OSError where the other side has hung up."""
        for start in range(0, len(data), CHUNK):
            piece = data[start : start + CHUNK]
            self.writer.write(piece)
            await self.writer.drain()
            self.lines.sent += len(piece)

    async def answer(self) -> Answer:
        """Read one answer; raises OSError or EOFError where there is none."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        first, *rest = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest if line)}
        body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        status = int(first.split()[1])
        self.lines.statuses[status] = self.lines.statuses.get(status, 0) + 1
        return Answer(status=status, headers=headers, body=body)

    async def ask(self, data: bytes) -> Answer:
        """Send a request and read its answer."""
        await self.send(data)
        return await self.answer()

    def forget_answers(self) -> None:
        """Read and throw away whatever comes."""

        async def read() -> None:
            with contextlib.suppress(OSError):
                while await self.reader.read(CHUNK):
                    pass

        self.reading = asyncio.create_task(read())


@dataclass
class Lines:
    """All connections of an attack."""

    port: int
    sent: int = 0  # bytes
    statuses: dict[int, int] = field(default_factory=dict)  # of answers that were read
    cut: int = 0  # connections that the other side ended

    @contextlib.asynccontextmanager
    async def line(self, source: str = STRANGER) -> AsyncIterator[Line]:
        """Connect; that the other side hangs up ends the block and is counted."""
        line = await self._connected(source)
        try:
            yield line
        except (OSError, EOFError, asyncio.LimitOverrunError):
            self.cut += 1
        finally:
            if line.reading is not None:
                line.reading.cancel()
            line.writer.transport.abort()

    async def _connected(self, source: str) -> Line:
        """Connect, as often as it takes: a full queue of the system refuses for a moment."""
        while True:
            try:
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", self.port, local_addr=(source, 0), limit=2 * CHUNK
                )
            except OSError:
                self.cut += 1
                await asyncio.sleep(0.1)
            else:
                return Line(reader, writer, self)

    async def post(self, requests: Iterable[bytes], source: str = STRANGER) -> None:
        """Send one request after the other, each when the one before is answered, over as few connections as can be."""
        pending = iter(requests)
        going = True
        while going:
            going = False
            async with self.line(source) as line:
                for one in pending:
                    going = True
                    answer = await line.ask(one)
                    if answer.status in (429, 503):
                        await asyncio.sleep(0.05)  # a mad sender waits for nothing, its lab does not spin
                going = False
            if going:
                await asyncio.sleep(0.02)
