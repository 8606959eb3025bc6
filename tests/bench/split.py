"""Where the time of a message goes: the CPU that each part of its way takes, in this process.

Without sockets, and with batches of one size: each part is measured several times, and the fastest counts, so that two
versions can be compared on a noisy machine. The sum is less than what B2 shows, which has the system's part of the
network besides, smaller transactions at lower rates, and caches that others use too.

Measured before batches became larger, with little else on the machine (AMD EPYC, Python 3.11), in µs: http 16, door 24,
accept 40, decode 23, reduce 51, work 76, together 230. Two things stand behind the parts: a round of the store costs
some 400 µs whatever it holds, and reducing a message whose household is in the processor's cache takes only 36 µs
instead of 60, so that objects left untouched are worth more than calls saved.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NoReturn

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from bridge.config import Settings
from bridge.core.identity import building_id
from bridge.core.messages import Report
from bridge.core.routing import device_of
from bridge.core.rules import Rules
from bridge.limits import Limit, LimitCounts
from bridge.metrics import Metrics
from bridge.receiver.app import build_app
from bridge.receiver.callers import Callers
from bridge.receiver.gate import Gate
from bridge.receiver.health import HealthSources
from bridge.receiver.protocol import DoorProtocol
from bridge.receiver.state import DoorState, Limits
from bridge.store.memory import MemoryStore
from bridge.store.port import Arrival, Pending, Receipt, Store
from bridge.store.sqlite import SqliteStore
from bridge.times import wall
from bridge.worker import Step, Worker
from bridge.worker.room import BATCH
from bridge.worker.step import read
from tests.bench.homes import SECRET, SUBSCRIPTION
from tests.bench.load import Request
from tests.bench.process import BrokenError
from tests.bench.report import Result
from tests.bench.setting import Setting

MESSAGES: Final = 20 * BATCH
TURNS: Final = 7
CONNECTIONS: Final = 32  # whose messages share a transaction, as at some 2,500 msg/s
_ANSWER: Final = b'{"accepted":1,"duplicates":0,"dead":0,"ids":[1]}'
_FIELDS: Final = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(_ANSWER))]
_PARTS: Final = {
    "http": "parser, ASGI, answer",
    "door": "checks, signature, arrivals",
    "accept": f"inbox, {CONNECTIONS} messages a transaction",
    "decode": "from bytes to what the core reads",
    "reduce": "routing and the core",
    "work": f"claim, load, encode, commit; {BATCH} messages a transaction",
}


async def run(setting: Setting) -> list[Result]:
    """Return one line per part."""
    homes, rules = setting.homes(), Rules()
    turns: list[dict[str, float]] = []
    async with _opened(setting.folder("split") / "bridge.db") as store:
        worker = Worker(store, rules, Metrics(), queued=lambda: None, now=wall)
        bare, quick, whole = _Connections(_answer), _Connections(_door(_Nowhere())), _Connections(_door(store))
        await whole.send([*homes.firsts()])
        await _drain(worker)
        for _ in range(setting.repeats(TURNS) + 1):  # the first one warms up
            requests = [homes.next() for _ in range(MESSAGES)]
            http = await _timed(lambda: bare.send(requests))  # noqa: B023 - run at once
            door = await _timed(lambda: quick.send(requests))  # noqa: B023
            accept = await _timed(lambda: whole.send(requests))  # noqa: B023
            decode, reduce = await _computed(store, requests, rules)
            work = await _timed(lambda: _drain(worker))
            turns.append(
                {
                    "http": http,
                    "door": door - http,
                    "accept": accept - door,
                    "decode": decode,
                    "reduce": reduce,
                    "work": work - decode - reduce,
                }
            )
    fastest = {name: min(turn[name] for turn in turns[1:] or turns) for name in _PARTS}
    return [
        *(_result(name, fastest[name], what) for name, what in _PARTS.items()),
        _result("sum", sum(fastest.values()), "of the fastest turns"),
    ]


def _result(name: str, us: float, what: str) -> Result:
    return Result(name=f"split: {name}", goal="", measured=f"{us:.1f} µs", ratio=None, detail=what)


async def _timed(run: Callable[[], Awaitable[None]]) -> float:
    """Return the CPU of all threads for one message [µs]."""
    since = time.process_time()
    await run()
    return (time.process_time() - since) * 1e6 / MESSAGES


# ---- the door -------------------------------------------------------------------------------------------------------


async def _answer(_: Scope, receive: Receive, send: Send) -> None:
    """Answer without a look."""
    await receive()
    await send({"type": "http.response.start", "status": 202, "headers": _FIELDS})
    await send({"type": "http.response.body", "body": _ANSWER})


class _Nowhere(MemoryStore):
    """A store that forgets at once."""

    async def accept(self, arrivals: Sequence[Arrival]) -> Sequence[Receipt]:
        return [Receipt(id=1) for _ in arrivals]


def _door(store: Store) -> ASGIApp:
    settings = Settings.model_validate({"subscriptions": [{"id": SUBSCRIPTION, "secrets": [SECRET]}]})
    gate = Gate(max_size=1 << 40, starting=False)
    metrics = Metrics()
    return build_app(
        settings=settings, store=store, metrics=metrics, gate=gate, limits=LimitCounts(metrics),
        sources=HealthSources(), now=wall,
    ).app  # fmt: skip


class _Wire(asyncio.Transport):
    """A connection that counts its answers."""

    def __init__(self, answered: Callable[[], None]) -> None:
        super().__init__()
        self._answered = answered

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if bytes(data[:12]).startswith(b"HTTP/1.1 202"):
            self._answered()

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class _Connections:
    """Connections to one application, each with one request at a time."""

    def __init__(self, app: ASGIApp) -> None:
        config = uvicorn.Config(app, http=DoorProtocol, ws="none", lifespan="off", interface="asgi3", log_config=None)
        config.load()
        state = DoorState(Limits(), _refused, _reached, Callers())
        self._open = 0
        self._all_answered = asyncio.Event()
        self._protocols = [DoorProtocol(config, state, {}) for _ in range(CONNECTIONS)]
        for protocol in self._protocols:
            protocol.connection_made(_Wire(self._answered))

    async def send(self, requests: Sequence[Request]) -> None:
        """Send requests, one on each connection at a time."""
        for start in range(0, len(requests), CONNECTIONS):
            some = requests[start : start + CONNECTIONS]
            self._open = len(some)
            self._all_answered.clear()
            for protocol, request in zip(self._protocols, some, strict=False):
                protocol.data_received(request.raw)
            await self._all_answered.wait()
            await asyncio.sleep(0)  # for the end of the last request

    def _answered(self) -> None:
        self._open -= 1
        if not self._open:
            self._all_answered.set()


def _refused(status: int) -> NoReturn:
    msg = f"refused with {status}"
    raise BrokenError(msg)


def _reached(limit: Limit, payer: str) -> NoReturn:
    msg = f"{payer} reached the limit {limit}"
    raise BrokenError(msg)


# ---- the worker -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _opened(path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(str(path), exclusive=True, dry=False)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def _drain(worker: Worker) -> None:
    while await worker.step():
        pass


async def _computed(store: Store, requests: Sequence[Request], rules: Rules) -> tuple[float, float]:
    """Return the CPU of reading and of reducing one message [µs], on the states before they are reduced for good."""
    decoding = reducing = 0.0
    for batch in _batches(requests):
        since = time.process_time()
        messages = [read(row, rules) for row in batch]
        decoding += time.process_time() - since
        reports = [message for message in messages if isinstance(message, Report)]
        users = sorted({report.user or "" for report in reports})
        devices = sorted({device_of(report) for report in reports})
        step = Step(await store.load(users, devices, [building_id(user) for user in users]), rules, wall())
        since = time.process_time()
        for row, message in zip(batch, messages, strict=True):
            step.take(row, message)
        reducing += time.process_time() - since
    return decoding * 1e6 / MESSAGES, reducing * 1e6 / MESSAGES


def _batches(requests: Sequence[Request]) -> Iterator[list[Pending]]:
    """Yield what the worker would claim."""
    now = wall()
    for start in range(0, len(requests), BATCH):
        batch = []
        for number, request in enumerate(requests[start : start + BATCH], start + 1):
            head, _, body = request.raw.partition(b"\r\n\r\n")
            topic = head.split(b" ", 2)[1].decode().removeprefix("/webhooks/")
            batch.append(Pending(id=number, subscription=SUBSCRIPTION, topic=topic, body=body, received=now))
        yield batch
