"""The switchboard: builds every part once, runs the rooms side by side, stops them in the order of the flow.

Rules:
- This is the only place that names a concrete store, and the only one that knows all rooms.
- The rooms run in one TaskGroup: a room that fails ends the process (exit 1) rather than leaving a half-dead one
  that still answers 202. They are not in the web framework's lifespan for that reason.
- SIGTERM and SIGINT drain: ready fails, accepts go on for `drain_delay`, then the listener closes, what is in hand is
  answered and the worker finishes its batch; beside that the sender settles what is on the wire, so that both share one
  `drain_timeout`. What is still owed is durable. A room that waits for a store that hangs is broken off then.
- SIGHUP reads the secrets and limits of the door again; a broken file keeps the old ones.
"""

import asyncio
import contextlib
import gc
import os
import resource
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import unquote, urlsplit

import uvloop

from bridge import errors, logs, times
from bridge.clock import Clock
from bridge.config import Settings
from bridge.limits import LimitCounts
from bridge.metrics import Metrics
from bridge.receiver.app import build_app
from bridge.receiver.gate import Gate
from bridge.receiver.health import HealthSources
from bridge.receiver.protocol import Limits
from bridge.receiver.server import DoorServer, make_server
from bridge.sender import Sender
from bridge.sink.client import MoostClient
from bridge.sink.token import Grant, Trouble, granted
from bridge.source.hint import finder
from bridge.store.desk import Desk
from bridge.store.port import Census, Store, StoreBroken, StoreUnavailable
from bridge.store.sqlite import SqliteStore
from bridge.worker import Worker

if TYPE_CHECKING:
    from bridge.consumer.room import Consumer
    from bridge.store.postgres import PostgresStore

ALL_ROOMS: Final = frozenset({"receiver", "consumer", "worker", "sender", "clock"})
DONE, CRASHED = 0, 1
FILES: Final = 8_192  # open files: the door's 4,096 connections, MOOST's, the store's
COLLECT_EVERY: Final = 20_000  # new objects between two looks of the garbage collector
LATE_S: Final = 1.5  # what a room may take beyond `drain_timeout`; the door counts whole seconds
TELLING_S: Final = 0.25  # while draining: new requests are told to come again, before their connections are closed

_log = logs.logger("run")


class Keeper(Store, Desk, Protocol):
    """What every concrete store is."""


# ---- the store ----------------------------------------------------------------------------------------------------


def sqlite_path(url: str) -> Path:
    """Return the file that a `sqlite:///` address names: relative, or with a fourth slash absolute.

    Raises UsageError for any other address.
    """
    parts = urlsplit(url)
    if parts.scheme != "sqlite" or parts.netloc or len(parts.path) < 2:  # noqa: PLR2004 - a slash and a name
        msg = "store.url: must be sqlite:///file or sqlite:////absolute/file"
        raise errors.UsageError(msg)
    return Path(unquote(parts.path[1:]))


def missing_file(settings: Settings) -> Path | None:
    """Return the file of the embedded store where there is none yet; opening it makes an empty one."""
    if _is_shared(settings):
        return None
    path = sqlite_path(settings.store.url.get_secret_value())
    return None if path.exists() else path


def _is_shared(settings: Settings) -> bool:
    """Tell whether the settings name a database that several bridges share."""
    return urlsplit(settings.store.url.get_secret_value()).scheme in ("postgresql", "postgres")


def _keeper(
    settings: Settings, *, serving: bool, dry: bool = False, committed: Callable[[float], None] = lambda _seconds: None
) -> Keeper:
    """Return the store that the settings name, not yet open; raises UsageError where its driver is missing."""
    url = settings.store.url.get_secret_value()
    if not _is_shared(settings):
        return SqliteStore(str(sqlite_path(url)), exclusive=serving, dry=dry, committed=committed)
    shared = _shared()
    find = finder(settings.rules())
    return shared(
        url, serving=serving, dry=dry, committed=committed, whose=lambda arrival: find(arrival.topic, arrival.body)
    )


def _shared() -> "type[PostgresStore]":
    """Return the keeper for PostgreSQL; raises UsageError without its driver."""
    try:
        from bridge.store.postgres import PostgresStore  # noqa: PLC0415 - an extra, and slow to import
    except ModuleNotFoundError as missing:
        msg = f"store.url: PostgreSQL needs the package {missing.name}: pip install 'moost-bridge[postgres]'"
        raise errors.UsageError(msg) from None
    return PostgresStore


@contextlib.asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[Keeper]:
    """Open the store beside a running daemon or without one, as the commands do."""
    keeper = _keeper(settings, serving=False)
    await keeper.open()
    try:
        yield keeper
    finally:
        await keeper.close()


def migrate(settings: Settings) -> int:
    """Bring the schema of the store up to date; return how many steps were taken.

    The embedded store takes them whenever it is opened. Raises BridgeError where the store cannot be used.
    """

    async def opened() -> int:
        if not _is_shared(settings):
            async with open_store(settings):
                return 0
        keeper = _shared()(settings.store.url.get_secret_value(), migrate=True)
        await keeper.open()
        await keeper.close()
        return keeper.steps_taken

    try:
        return asyncio.run(opened())
    except StoreUnavailable as why:
        msg = f"the store cannot be used: {why}"
        raise errors.BridgeError(msg) from None


# ---- the daemon ---------------------------------------------------------------------------------------------------


def serve(
    settings: Settings, *, dry_run: bool, rooms: frozenset[str], reread: Callable[[], Settings] | None = None
) -> int:
    """Run the daemon until it is told to stop; return the exit code.

    `reread` loads the configuration again (SIGHUP). Raises UsageError where it cannot start.
    """
    sock = _bind(settings) if "receiver" in rooms else None
    _allow_files()
    _calm_collector()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_Daemon(settings, sock, dry_run=dry_run, rooms=rooms, reread=reread).run())


def _calm_collector() -> None:
    """Let the garbage collector leave alone what lives as long as the process, and look less often at the rest.

    States are decoded into thousands of small objects that are soon gone by themselves; looking for cycles among them
    takes a sixth of the worker's time with Python's default threshold of 700.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_EVERY, 10, 10)


def _allow_files() -> None:
    """Let the process hold as many connections as the door admits, as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _bind(settings: Settings) -> socket.socket:
    """Return a listening socket; raises UsageError where the address is not to be had."""
    server = settings.server
    try:
        family = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)[0][0]
        sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # else Nagle's delay stays on
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((server.host, server.port))
    except OSError as why:
        msg = f"server.port: cannot listen on {server.host} port {server.port}: {why.strerror or why}"
        raise errors.UsageError(msg) from None
    sock.set_inheritable(False)
    return sock


class _Daemon:
    """One run of the daemon: its parts, its rooms, its end."""

    def __init__(
        self, settings: Settings, sock: socket.socket | None, *, dry_run: bool, rooms: frozenset[str],
        reread: Callable[[], Settings] | None,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._sock = sock
        self._dry_run = dry_run
        self._rooms = rooms
        self._reread = reread
        self._reloads: list[Callable[[Settings], None]] = []  # who takes other settings while running
        self._stop = asyncio.Event()  # told to stop
        self._hush = asyncio.Event()  # the sender begins no further call
        self._halt = asyncio.Event()  # the rooms behind the door stop

    async def run(self) -> int:
        """Run all rooms; return the exit code."""
        metrics = Metrics()
        keeper = _keeper(self._settings, serving=True, dry=self._dry_run, committed=metrics.commit_seconds.observe)
        try:
            await keeper.open()
        except StoreUnavailable as why:
            msg = f"store.url: {why}"
            raise errors.UsageError(msg) from None
        try:
            async with MoostClient(self._settings.moost) as client:
                return await self._run(keeper, client, metrics)
        finally:
            await keeper.close()

    async def _run(self, keeper: Keeper, client: MoostClient, metrics: Metrics) -> int:
        """Build the rooms on an open store and run them."""
        settings, rules, now = self._settings, self._settings.rules(), _clock(self._settings)
        sender = Sender(
            store=keeper, client=client, moost=settings.moost, metrics=metrics, now=times.wall, world=now,
            dry_run=self._dry_run, drain_timeout=settings.server.drain_timeout, desk=keeper,
        )  # fmt: skip
        worker = Worker(keeper, rules, metrics, queued=sender.nudge.set, now=now)
        gate = Gate(max_size=settings.store.max_size, disk_bytes=_disk_bytes(settings))
        limits = LimitCounts(metrics)

        def looked(census: Census | None) -> None:
            gate.refresh(census)
            limits.tell()

        clock = Clock(
            keeper, rules, retention=settings.store.retention, max_size=settings.store.max_size, now=now,
            queued=sender.nudge.set, looked=looked, speed=settings.clock.speed,
        )  # fmt: skip
        runs: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "worker": lambda: worker.run(self._halt),
            "sender": lambda: sender.run(self._hush),
            "clock": lambda: clock.run(self._halt) if "clock" in self._rooms else _watch(keeper, looked, self._halt),
        }
        consumer = self._consumer(keeper, metrics, gate, now, worker.wake.set)
        if consumer is not None:
            runs["consumer"] = lambda: consumer.run(self._hush)
            self._reloads.append(consumer.reload)
        sources = HealthSources(
            circuit=lambda: sender.state.circuit,
            token_expires_in=lambda: sender.state.token_expires_in_seconds,
            problems=lambda: [
                *sorted(sender.state.problems), *(["faulty_buildings"] if clock.set_aside else []),
                *(consumer.problems() if consumer else []),
            ],
            kafka=lambda: consumer.report() if consumer else None,
            gauge=lambda: consumer.gauge() if consumer else None,
        )  # fmt: skip
        server: DoorServer | None = None
        if self._sock is not None:
            receiver = build_app(
                settings=settings, store=keeper, metrics=metrics, gate=gate, limits=limits, sources=sources, now=now,
                wall=times.wall, accepted=worker.wake.set,
            )  # fmt: skip
            server = make_server(
                receiver.app, self._sock, settings,
                limits=Limits(
                    body_bytes=settings.server.max_body + Limits().body_bytes, connections=settings.limits.connections,
                ),
                refused=lambda status: metrics.requests_refused.labels(status=str(status)).inc(),
                reached=limits.reached,
            )  # fmt: skip
            runs["receiver"] = server.serve
            self._reloads.append(receiver.reload)
        self._reloads.append(lambda changed: client.reload(changed.moost))
        self._catch_signals()
        failed = False
        try:
            async with asyncio.TaskGroup() as group:
                tasks = {
                    name: group.create_task(self._room(name, room), name=name)
                    for name, room in runs.items()
                    if name in self._rooms or name in ("clock", "consumer")
                }
                group.create_task(self._conduct(gate, server, tasks), name="conductor")
        except* Exception as faults:  # noqa: BLE001 - whatever ends a room ends the process
            failed = True
            for fault in faults.exceptions:
                _log.error("room_failed", fault=errors.place_of(fault), reason=_sentence(fault))
        if failed:
            return CRASHED
        _log.info("drained", **await _counts(keeper))
        return DONE

    def _consumer(
        self, store: Store, metrics: Metrics, gate: Gate, now: times.Now, accepted: Callable[[], object]
    ) -> "Consumer | None":
        """Return the room that reads Kafka; None = nothing is to be read here. Raises UsageError."""
        if not self._settings.consumed() or not self._rooms & {"receiver", "consumer"}:
            return None
        from bridge.consumer.room import Consumer  # noqa: PLC0415 - its client is an extra that others do without

        return Consumer(settings=self._settings, store=store, metrics=metrics, gate=gate, now=now, accepted=accepted)

    async def _room(self, name: str, room: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run one room; one that ends before it is told to is broken."""
        await room()
        if not self._stop.is_set():
            msg = f"the {name} ended by itself"
            raise errors.BridgeError(msg)

    async def _conduct(self, gate: Gate, server: DoorServer | None, tasks: Mapping[str, asyncio.Task[None]]) -> None:
        """Open the door, wait for the word to stop, then stop the rooms in the order of the flow."""
        ways_in = [tasks[name] for name in ("receiver", "consumer") if name in tasks]
        gate.starting = False
        if self._sock is not None:
            host, port = self._sock.getsockname()[:2]
            url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
            named = sorted(tasks.keys() & {*self._rooms, "consumer"})
            _log.info("serving", url=url, rooms=named, dry_run=self._dry_run)
        await self._stop.wait()
        gate.draining = True
        _log.info("draining")
        await asyncio.sleep(self._settings.server.drain_delay.total_seconds())
        gate.shut = True
        self._hush.set()
        ends = asyncio.get_running_loop().time() + self._settings.server.drain_timeout.total_seconds() + LATE_S
        if server is not None:
            await asyncio.sleep(TELLING_S)
            server.should_exit = True
        await _ended(ways_in, ends)
        self._halt.set()
        await _ended([task for task in tasks.values() if task not in ways_in], ends)

    def _catch_signals(self) -> None:
        """Stop at SIGTERM and SIGINT, read the configuration again at SIGHUP."""
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)

    def _reload(self) -> None:
        """Read secrets and limits again at SIGHUP; keep the old ones where the new do not load."""
        if self._reread is None:
            return
        try:
            changed = self._reread()
            for reload in self._reloads:
                reload(changed)
        except errors.BridgeError as why:
            _log.error("reload_refused", problems=str(why).splitlines())
        else:
            _log.info("reloaded")


async def _ended(rooms: Sequence[asyncio.Task[None]], ends: float) -> None:
    """Wait for rooms to end; one that the store does not let go on is broken off, all or nothing of its step stored."""
    if rooms:
        _, late = await asyncio.wait(rooms, timeout=max(0.0, ends - asyncio.get_running_loop().time()))
        for room in late:
            room.cancel()


async def _counts(keeper: Keeper) -> dict[str, object]:
    """Return what a person wants to know at the end, as far as the store can be asked."""
    try:
        async with asyncio.timeout(LATE_S):
            return dict(_ledger(await keeper.census()))
    except StoreBroken:
        raise
    except (StoreUnavailable, TimeoutError):
        return {"store": "unavailable"}


async def _watch(store: Store, looked: Callable[[Census | None], None], halt: asyncio.Event) -> None:
    """Look at the store now and then, as the clock does, where that runs in another process."""
    while not halt.is_set():
        try:
            looked(await store.census())
        except StoreBroken:
            raise
        except StoreUnavailable:
            looked(None)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await halt.wait()


def _clock(settings: Settings) -> times.Now:
    """Return the clock that the settings ask for."""
    clock = settings.clock
    if clock.start is None and clock.speed == 1:
        return times.wall
    now = times.wall()
    return times.simulated(clock.start or now, clock.speed, clock.anchor or now)


def _disk_bytes(settings: Settings) -> int | None:
    """Return the size of the disk that the store fills; None where that is a server's."""
    if _is_shared(settings):
        return None
    folder = sqlite_path(settings.store.url.get_secret_value()).resolve().parent
    found = os.statvfs(folder)
    return found.f_blocks * found.f_frsize


def _sentence(fault: BaseException) -> str:
    """Return what is safe to say of a fault."""
    return str(fault) if isinstance(fault, errors.BridgeError | StoreUnavailable) else type(fault).__name__


def _ledger(census: Census) -> dict[str, int]:
    """Return what a person wants to know at the end."""
    return {
        "accepted": census.accepted, "settled": census.settled, "pending": census.pending, "dead": census.dead,
        "calls_delivered": census.delivered, "calls_pending": census.calls_pending, "calls_dead": census.calls_dead,
    }  # fmt: skip


# ---- looking before running ---------------------------------------------------------------------------------------


def check_online(settings: Settings) -> list[str]:
    """Open the store, fetch a token, ask the Kafka broker; return one line per problem."""
    return asyncio.run(_check_online(settings))


async def _check_online(settings: Settings) -> list[str]:
    problems: list[str] = []
    try:
        async with open_store(settings) as store:
            await store.census()
    except (errors.UsageError, StoreUnavailable) as why:
        problems.append(f"store.url: {str(why).removeprefix('store.url: ')}")
    async with MoostClient(settings.moost) as client:
        found = granted(await client.fetch_token())
    match found:
        case Grant():
            if found.customer is not None and found.customer != settings.moost.customer_id:
                problems.append(f"moost.customer_id: the token is for {found.customer}")
        case Trouble.REFUSED:
            problems.append("moost.client_secret: MOOST refuses client_id and client_secret")
        case _:
            problems.append(f"moost.base_url: no token from {settings.moost.base_url}")
    if settings.consumed():
        from bridge.consumer import room  # noqa: PLC0415 - its client is an extra that others do without

        problems += await room.problems(settings)
    return problems
