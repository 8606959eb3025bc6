"""The honest sender beside an attack: it posts at a steady pace, and tells how long each answer took.

`python -m tests.isolation.canary PORT FILE` sends until SIGTERM, then writes what it saw as JSON into the file.

Rules:
- A request counts from the moment it was due: a slow bridge does not slow the canary down and look fast.
- One request in four comes over a new connection, as of a new sender; the others over kept ones.
- Every post is a new state of charge of one of its homes, which MOOST has to hear of at once.
- Once a second somebody asks for `/health/live` over a new connection, as Kubernetes does.
"""

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import uvloop

from tests.isolation.wire import request, signed, stamp

PREFIX: Final = "c-"  # of the canaries' buildings: the user_prefix of their subscription
HOMES: Final = 20
EVERY_S: Final = 0.04
PROBE_EVERY_S: Final = 1.0
PATIENCE_S: Final = 20.0
FRESH_EVERY: Final = 4
_VALUES: Final = 100_000  # a state of charge has three decimals

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def message(home: int, level: float) -> dict[str, Any]:
    """Return a new state of charge of a home's car."""
    when = stamp()
    return {
        "id": f"car-{home}",
        "userId": f"home-{home}",
        "isOnline": True,
        "lastUpdated": when,
        "staticData": {"vendor": "VW", "model": "ID.3", "name": "Car", "engineType": "BEV", "lastUpdated": when},
        "chargeState": {"stateOfCharge": level, "chargingState": "UNPLUGGED", "lastUpdated": when},
    }


@dataclass(slots=True)
class Sample:
    """One request: when it was due [s of the monotonic clock], how long it took [s], its status, what it said."""

    due: float
    took: float = PATIENCE_S
    status: int = 0  # 0 = no answer
    value: str = ""  # building and value; empty = a probe


class Canary:
    """The sender."""

    def __init__(self, port: int) -> None:
        """Have nothing sent yet."""
        self._port = port
        self._free: deque[Connection] = deque()
        self.samples: list[Sample] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Send until told to stop, and wait for the last answers."""
        start, number = time.monotonic(), 0
        while not stop.is_set():
            while start + number * EVERY_S <= time.monotonic():
                self._post(start + number * EVERY_S, number)
                if number % round(PROBE_EVERY_S / EVERY_S) == 0:
                    self._begin(Sample(start + number * EVERY_S), request("/health/live"), fresh=True)
                number += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 0.002)
        await asyncio.gather(*self._tasks)

    def _post(self, due: float, number: int) -> None:
        home, level = number % HOMES, number % _VALUES / 1000
        sample = Sample(due, value=f"{PREFIX}home-{home} {level:.3f}")
        self._begin(sample, signed("vehicle.update", message(home, level), "canary"), fresh=number % FRESH_EVERY == 0)

    def _begin(self, sample: Sample, raw: bytes, *, fresh: bool) -> None:
        self.samples.append(sample)
        task = asyncio.create_task(self._send(sample, raw, fresh=fresh))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, sample: Sample, raw: bytes, *, fresh: bool) -> None:
        """Send one request; a kept connection that has gone meanwhile is replaced once."""
        with contextlib.suppress(TimeoutError, OSError, EOFError):
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + PATIENCE_S):
                if not fresh and self._free:
                    with contextlib.suppress(OSError, EOFError):
                        sample.status = await self._over(self._free.popleft(), raw, keep=True)
                if not sample.status:
                    connection = await asyncio.open_connection("127.0.0.1", self._port)
                    sample.status = await self._over(connection, raw, keep=not fresh)
                sample.took = time.monotonic() - sample.due

    async def _over(self, connection: Connection, raw: bytes, *, keep: bool) -> int:
        reader, writer = connection
        kept = False
        try:
            writer.write(raw)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            await reader.readexactly(int(head.partition("content-length:")[2].split("\r\n")[0]))
            kept = keep and "connection: close" not in head
            return int(head.split()[1])
        finally:
            if kept:
                self._free.append(connection)
            else:
                writer.transport.abort()


async def _main(port: int) -> list[Sample]:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    canary = Canary(port)
    sys.stdout.write(f"canary at port {port}\n")
    sys.stdout.flush()
    await canary.run(stop)
    return canary.samples


if __name__ == "__main__":
    seen = uvloop.run(_main(int(sys.argv[1])))
    Path(sys.argv[2]).write_text(json.dumps([asdict(sample) for sample in seen]))
