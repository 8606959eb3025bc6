"""The load: a client of few microseconds per request, open loop, and its exact account.

Rules:
- A request is counted from the moment it was due, whether a connection was free then or not: a slow server cannot
  slow the load down and look fast (no coordinated omission).
- One request at a time per connection; a request that was sent is always awaited.
- `sent = accepted + duplicates + refused`, message by message, by what the server answered.
"""

import asyncio
import time
from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, cast

import msgspec

ANSWERS_S: Final = 60.0  # how long the last answers may take
GIVE_UP_S: Final = 3.0  # of load unanswered: the server cannot follow, more load tells nothing
_TICK_S: Final = 0.001
_ACCEPTED: Final = 202


class Request(NamedTuple):
    """One request as bytes, and how many messages it holds."""

    raw: bytes
    messages: int


@dataclass(slots=True)
class Tally:
    """What became of the messages."""

    sent: int = 0
    accepted: int = 0
    duplicates: int = 0
    refused: int = 0
    statuses: dict[int, int] = field(default_factory=dict)

    @property
    def balanced(self) -> bool:
        return self.sent == self.accepted + self.duplicates + self.refused

    def __str__(self) -> str:
        taken = f"{self.accepted:,} accepted + {self.duplicates:,} duplicates"
        return f"{self.sent:,} sent = {taken} + {self.refused:,} refused"


class _Answer(msgspec.Struct):
    accepted: int = 0
    duplicates: int = 0


_answers: Final = msgspec.json.Decoder(_Answer)


class _Connection(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self, client: "Client") -> None:
        self._client = client
        self._buffer = b""
        self._messages = 0
        self._due = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._client.lost()

    def send(self, due: float, request: Request) -> None:
        self._due, self._messages = due, request.messages
        assert self._transport is not None
        self._transport.write(request.raw)

    def data_received(self, data: bytes) -> None:
        self._buffer = data if not self._buffer else self._buffer + data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        at = self._buffer.find(b"content-length: ") + 16
        size = int(self._buffer[at : self._buffer.find(b"\r", at)])
        if len(self._buffer) < end + 4 + size:
            return
        status, body, self._buffer = int(self._buffer[9:12]), self._buffer[end + 4 :], b""
        self._client.answered(self, status, body, self._messages, self._due)

    def close(self) -> None:
        assert self._transport is not None
        self._transport.close()


class Client:
    """Connections to one server, and the account of what went over them."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.due = array("d")  # when the answered requests were due [s]
        self.took = array("d")  # from then to the answer [s]
        self._connections: list[_Connection] = []
        self._free: deque[_Connection] = deque()
        self._waiting: deque[tuple[float, Request]] = deque()
        self._open = 0  # requests without answer
        self._closing = False
        self._failed = False
        self._source: Callable[[], Request | None] | None = None

    @classmethod
    async def connected(cls, port: int, connections: int) -> "Client":
        client, loop = cls(), asyncio.get_running_loop()
        for _ in range(connections):
            _, connection = await loop.create_connection(lambda: _Connection(client), "127.0.0.1", port)
            client._connections.append(connection)
        client._free.extend(client._connections)
        return client

    async def offer(
        self,
        rate: float,
        seconds: float,
        make: Callable[[], Request],
        *,
        patient: bool = False,
        until: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Send so many messages per second; return whether the server could follow.

        `make` returns the next request when it falls due. A patient load never gives up. `until` may end it early.
        """
        start, planned, total = time.perf_counter(), 0, int(rate * seconds)
        most = rate * GIVE_UP_S
        behind = 0
        while planned < total and not self._failed and not until():
            due = min(total, int((time.perf_counter() - start) * rate))
            while planned < due:
                request = make()
                self._waiting.append((start + planned / rate, request))
                planned += request.messages
            self._dispatch()
            behind = (
                sum(request.messages for _, request in self._waiting)
                if len(self._waiting) > len(self._connections)
                else 0
            )
            if behind > most and not patient:
                self._waiting.clear()
                break
            await asyncio.sleep(_TICK_S)
        await self._answers()
        return behind <= most or patient

    async def flood(self, source: Callable[[], Request | None]) -> None:
        """Keep every connection busy until the source ends."""
        self._source = source
        while self._free and (request := source()) is not None:
            self._send(time.perf_counter(), request)
        await self._answers()
        self._source = None

    def _dispatch(self) -> None:
        while self._free and self._waiting:
            self._send(*self._waiting.popleft())

    def _send(self, due: float, request: Request) -> None:
        self._open += 1
        self.tally.sent += request.messages
        self._free.popleft().send(due, request)

    def answered(self, connection: _Connection, status: int, body: bytes, messages: int, due: float) -> None:
        now = time.perf_counter()
        self._open -= 1
        self._free.append(connection)
        self.due.append(due)
        self.took.append(now - due)
        self.tally.statuses[status] = self.tally.statuses.get(status, 0) + 1
        if status == _ACCEPTED:
            answer = _answers.decode(body)
            self.tally.accepted += answer.accepted
            self.tally.duplicates += answer.duplicates
        else:
            self.tally.refused += messages
        if self._waiting:
            self._dispatch()
        elif self._source is not None and (request := self._source()) is not None:
            self._send(now, request)

    def lost(self) -> None:
        """Learn that a connection has gone, which only the end may bring."""
        self._failed |= not self._closing

    async def _answers(self) -> None:
        ends = time.monotonic() + ANSWERS_S
        while (self._open or self._waiting) and not self._failed and time.monotonic() < ends:
            self._dispatch()
            await asyncio.sleep(_TICK_S)
        if self._open or self._failed:
            msg = f"{self._open} requests were never answered"
            raise ConnectionError(msg)

    def percentile(self, share: float, *, after: float = 0.0, before: float = float("inf")) -> float:
        """Return a percentile of the times to answer [s] of what was due between two seconds of the load."""
        first = min(self.due)
        took = sorted(took for due, took in zip(self.due, self.took, strict=True) if after <= due - first < before)
        return took[min(len(took) - 1, int(len(took) * share))]

    def close(self) -> None:
        self._closing = True
        for connection in self._connections:
            connection.close()


async def get(port: int, path: str) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Return the JSON that a server answers to one GET."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n".encode())
        answer = await reader.read(-1)
    finally:
        writer.close()
    return msgspec.json.decode(answer.partition(b"\r\n\r\n")[2])
