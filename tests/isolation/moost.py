"""A MOOST that costs next to nothing: it takes every call after some milliseconds and notes what canaries' homes get.

`python -m tests.isolation.moost` prints `moost http://127.0.0.1:PORT`. `GET /_seen` tells when each value of a canary
came (seconds of the machine's monotonic clock), and what of a canary somebody else touched.
"""

import asyncio
import json
import random
import signal
import sys
import time
from dataclasses import dataclass, field
from typing import Any, Final, cast

import httptools
import uvloop

from bridge.sandbox.tokens import Tokens
from tests.bench.subject import CUSTOMER
from tests.isolation.canary import PREFIX

LATENCY_S: Final = 0.01
_SOC: Final = "STATE_OF_CHARGE_RATE"


@dataclass
class Seen:
    """What MOOST was told of canaries, and how much in all."""

    values: dict[str, float] = field(default_factory=dict)  # building and value -> when it came first
    touched: list[str] = field(default_factory=list)
    buildings: set[str] = field(default_factory=set)
    calls: int = 0

    def call(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """Take a call; return status and body."""
        self.calls += 1
        if path.startswith("/events"):
            read = json.loads(body)
            for event in read if isinstance(read, list) else (read,):
                self._event(event)
        elif path == "/buildings/v1" and method == "POST":
            name = json.loads(body)["customerBuildingId"]
            if name in self.buildings:
                return 409, b'{"message":"exists"}'
            self.buildings.add(name)
        elif path.startswith("/buildings/") and path.endswith("/devices/v1"):
            name = path.split("/")[2]
            if name.startswith(PREFIX):
                self._list(name, json.loads(body))
        elif path.startswith("/buildings/") and method == "GET":
            name = path.split("/")[2]
            return 200, json.dumps({"customerBuildingId": name, "timeZoneId": "Europe/Berlin"}).encode()
        elif path == "/buildings/v1" and PREFIX.encode() in body:
            self.touched.append(f"a canary's building was changed: {body[:200]!r}")
        return 201 if method == "POST" else 200, b""

    def _event(self, event: dict[str, Any]) -> None:
        building = event["customerBuildingId"]
        if not building.startswith(PREFIX):
            return
        if event["type"] == _SOC:
            self.values.setdefault(f"{building} {event['value']:.3f}", time.monotonic())

    def _list(self, building: str, devices: list[dict[str, Any]]) -> None:
        kinds = sorted(device["type"] for device in devices)
        if kinds != ["CAR", "GATEWAY"]:
            self.touched.append(f"{building} has devices {kinds}")


class _Connection(asyncio.Protocol):
    """One connection of the bridge, which asks for one thing at a time."""

    def __init__(self, seen: Seen, tokens: Tokens) -> None:
        self._seen, self._tokens = seen, tokens
        self._parser = httptools.HttpRequestParser(self)
        self._url, self._body = b"", b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        url, body, self._url, self._body = self._url.decode(), self._body, b"", b""
        method, path = self._parser.get_method().decode(), url.partition("?")[0]
        if path == "/_seen":
            told = {"values": self._seen.values, "touched": self._seen.touched[:5], "calls": self._seen.calls}
            self._say(200, json.dumps(told).encode())
        elif path == "/auth/token/v1":
            token = {"access_token": self._tokens.issue(), "token_type": "Bearer", "expires_in": 86_400}
            self._say(200, json.dumps(token).encode())
        else:
            asyncio.get_running_loop().call_later(LATENCY_S, self._say, *self._seen.call(method, path, body))

    def _say(self, status: int, body: bytes) -> None:
        assert self._transport is not None
        if not self._transport.is_closing():
            head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            self._transport.write(head.encode() + body)


async def _serve() -> None:
    seen = Seen()
    tokens = Tokens(customer_id=CUSTOMER, now=time.time, dice=random.Random(1))
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await loop.create_server(lambda: _Connection(seen, tokens), "127.0.0.1", 0)
    sys.stdout.write(f"moost http://127.0.0.1:{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await stop.wait()


if __name__ == "__main__":
    uvloop.run(_serve())
