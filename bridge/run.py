"""The switchboard: builds every part once, runs the rooms side by side, stops them in the order of the flow.

Rules:
- This is the only place that names a concrete store, and the only one that knows all rooms.
- The rooms run in one TaskGroup: a room that fails ends the process (exit 1) rather than leaving a half-dead one
  that still answers 202. They are not in the web framework's lifespan for that reason.
- Every process answers HTTP, from before the store is open: health and metrics in any case, webhooks where the room
  `receiver` runs.
- SIGTERM and SIGINT drain: ready fails, accepts go on for `drain_delay`, then the listener closes, what is in hand is
  answered and the worker finishes its batch; beside that the sender settles what is on the wire, so that both share one
  `drain_timeout`. What is still owed is durable. Whatever hangs then is broken off, closing the store included.
- SIGHUP applies what can be applied while running and names what needs a restart; a broken file changes nothing.
"""

import asyncio
import contextlib
import gc
import resource
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import unquote, urlsplit

import uvloop

from bridge import errors, logs, signals, times
from bridge.clock import Clock
from bridge.config import Settings, reloaded
from bridge.config.database import is_database
from bridge.dead_letters import DeadLetterLog
from bridge.limits import Limit, LimitCounts
from bridge.metrics import Metrics
from bridge.overdue import Overdue
from bridge.receiver.app import build_app
from bridge.receiver.gate import Gate
from bridge.receiver.health import HealthSources
from bridge.receiver.refusals import Refusals
from bridge.receiver.server import DoorServer, make_server, places
from bridge.receiver.state import Limits
from bridge.repeated import store_outage
from bridge.sender import Sender
from bridge.sink.client import MoostClient
from bridge.sink.token import Denial, Grant, Trouble, granted
from bridge.source.hint import finder
from bridge.store.desk import Desk
from bridge.store.port import Arrival, Census, Store, StoreBroken, StoreBusy, StoreUnavailable
from bridge.store.refusal import StoreRefused
from bridge.store.sqlite import SqliteStore, room
from bridge.store.sqlite.lock import StoreServed
from bridge.worker import Worker

if TYPE_CHECKING:
    import threading

    from bridge.consumer.room import Consumer
    from bridge.store.postgres import PostgresStore

ALL_ROOMS: Final = frozenset({"receiver", "consumer", "worker", "sender", "clock"})
DONE, CRASHED = 0, 1
FILES: Final = 8_192  # open files: the door's 4,096 connections, MOOST's, the store's
COLLECT_EVERY: Final = 20_000  # new objects between two looks of the garbage collector
BUSY_PAUSE_S: Final = 0.1  # between two tries of a command to open a store that is busy
OPEN_AGAIN_S: Final = 1.0  # until a store that could not be opened is tried again
TELL_EVERY_S: Final = 1.0  # between two looks whether there is something to sum up in the log
LATE_S: Final = 2.0  # a store takes longer to open: it is said that the process listens already
LAST_LINE_S: Final = 0.2  # for the last line, where the process is broken off
LAST_SHARE: Final = 0.05  # of `drain_timeout`: left for closing the store when the rooms have ended
TELLING_S: Final = 0.25  # while draining: new requests are told to come again, before their connections are closed

_log = logs.logger("run")


Whose = Callable[[Arrival], tuple[str | None, str | None]]
"""Tells the user and the device that a message names."""


class Keeper(Store, Desk, Protocol):
    """What every concrete store is."""

    @property
    def clock(self) -> times.Now | None:
        """Return the clock that all who share the store go by; None = that of this machine."""


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
    return is_database(settings.store.url.get_secret_value())


def _keeper(
    settings: Settings,
    *,
    serving: bool,
    dry: bool = False,
    committed: Callable[[float], None] = lambda _seconds: None,
    whose: Whose = lambda _arrival: (None, None),
    url: Callable[[], str] | None = None,
) -> Keeper:
    """Return the store that the settings name, not yet open; raises UsageError where its driver is missing.

    `url` tells the address of a database anew for each session.
    """
    if not _is_shared(settings):
        path = sqlite_path(settings.store.url.get_secret_value())
        return SqliteStore(str(path), exclusive=serving, dry=dry, committed=committed)
    return _shared()(url or settings.store_url, serving=serving, dry=dry, committed=committed, whose=whose)


def _shared() -> "type[PostgresStore]":
    """Return the keeper for PostgreSQL; raises UsageError without its driver."""
    try:
        from bridge.store.postgres import PostgresStore  # noqa: PLC0415 - an extra, and slow to import
    except ModuleNotFoundError as missing:
        needed = f"PostgreSQL needs the package {missing.name}, which is not installed"
        msg = f"store.url: {needed}: the bridge's requirements.lock names it"
        raise errors.UsageError(msg) from None
    return PostgresStore


@contextlib.asynccontextmanager
async def open_store(settings: Settings, *, patience_s: float = 0.0) -> AsyncIterator[Keeper]:
    """Open the store beside a running daemon or without one, as the commands do; one that is busy is tried again."""
    keeper = _keeper(settings, serving=False)
    until = time.monotonic() + patience_s
    while True:
        try:
            await keeper.open()
            break
        except StoreBusy:
            if time.monotonic() > until:
                raise
            await asyncio.sleep(BUSY_PAUSE_S)
    try:
        yield keeper
    finally:
        await keeper.close()


def backup(settings: Settings, target: Path) -> None:
    """Write a copy of the embedded store, beside a running daemon or without one.

    Raises UsageError where there is nothing to copy, or the copy is there already, BridgeError where that fails.
    """
    if _is_shared(settings):
        msg = "store.url: a PostgreSQL store is backed up by the server's own tools, such as pg_dump"
        raise errors.UsageError(msg)
    if (missing := missing_file(settings)) is not None:
        msg = f"there is no store at {missing.absolute()}"
        raise errors.UsageError(msg)

    async def copied() -> None:
        keeper = SqliteStore(str(sqlite_path(settings.store.url.get_secret_value())))
        await keeper.open()
        try:
            await keeper.backup(target)
        finally:
            await keeper.close()

    try:
        asyncio.run(copied())
    except FileExistsError:
        msg = f"{target} is there already: name a file that is not"
        raise errors.UsageError(msg) from None
    except OSError as why:
        msg = f"{target} cannot be written ({why.strerror})"
        raise errors.BridgeError(msg) from None
    except StoreUnavailable as why:
        msg = f"the store cannot be copied: {why}"
        raise errors.BridgeError(msg) from None


def migrate(settings: Settings) -> int:
    """Bring the schema of the store up to date; return how many steps were taken.

    The embedded store takes them whenever it is opened. Raises BridgeError where the store cannot be used.
    """

    async def opened() -> int:
        if not _is_shared(settings):
            async with open_store(settings):
                return 0
        keeper = _shared()(settings.store_url, migrate=True)
        await keeper.open()
        await keeper.close()
        return keeper.steps_taken

    try:
        return asyncio.run(opened())
    except StoreUnavailable as why:
        raise not_usable(why) from None


def not_usable(why: StoreUnavailable) -> errors.BridgeError:
    """Return how a command ends that cannot use the store: whoever calls it has to change something, or to wait."""
    if isinstance(why, StoreRefused) and not isinstance(why, StoreServed):
        return errors.UsageError(f"store.url: {why}")
    return errors.BridgeError(f"the store cannot be used: {why}")


# ---- the daemon ---------------------------------------------------------------------------------------------------


def serve(
    settings: Settings, *, dry_run: bool, rooms: frozenset[str], reread: Callable[[], Settings] | None = None
) -> int:
    """Run the daemon until it is told to stop; return the exit code.

    `reread` loads the configuration again (SIGHUP). Raises UsageError where it cannot start.
    """
    sock = _bind(settings)
    _allow_files()
    _calm_collector()
    daemon = _Daemon(settings, sock, dry_run=dry_run, rooms=rooms, reread=reread)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(daemon.run())
    finally:
        daemon.ended()


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
        self, settings: Settings, sock: socket.socket, *, dry_run: bool, rooms: frozenset[str],
        reread: Callable[[], Settings] | None,
    ) -> None:  # fmt: skip
        self._settings = settings  # what is in force
        self._sock = sock
        self._dry_run = dry_run
        self._rooms = rooms
        self._reread = reread
        self._reloads: list[Callable[[Settings], None]] = []  # who takes other settings while running
        self._find = finder(settings.rules())
        self._outage = store_outage()
        self._stop = asyncio.Event()  # told to stop
        self._hush = asyncio.Event()  # the sender begins no further call
        self._halt = asyncio.Event()  # the rooms behind the door stop
        self._ends: float | None = None  # when the process has to be gone [s of the loop]
        self._watchdog: threading.Timer | None = None
        self._closed = False  # nothing of the store is at work any more

    async def run(self) -> int:
        """Run all rooms; return the exit code."""
        self._catch_signals()
        metrics = Metrics()
        keeper = _keeper(
            self._settings, serving=True, dry=self._dry_run, committed=metrics.commit_seconds.observe,
            whose=lambda arrival: self._find(arrival.topic, arrival.body), url=self._store_url,
        )  # fmt: skip
        try:
            async with MoostClient(self._settings.moost, secrets=self._settings.secret_values()) as client:
                return await self._run(keeper, client, metrics)
        finally:
            if self._ends is None:  # nobody told it to stop: a room failed, or it could not start
                self._must_end(self._drain_timeout(), CRASHED)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._ends):
                    await keeper.close()
                    self._closed = True

    def _store_url(self) -> str:
        return self._settings.store_url()  # of those in force now

    def ended(self) -> None:
        """Let the process live on, unless something of the store still hangs."""
        if self._closed and self._watchdog is not None:
            self._watchdog.cancel()

    async def _run(self, keeper: Keeper, client: MoostClient, metrics: Metrics) -> int:
        """Build the rooms and run them."""
        wall = keeper.clock or times.wall
        settings, rules, now = self._settings, self._settings.rules(), _clock(self._settings, wall)
        limits = LimitCounts(metrics)
        sender = Sender(
            store=keeper, client=client, moost=settings.moost, metrics=metrics, now=wall, world=now,
            dry_run=self._dry_run, drain_timeout=_sender_time(settings), desk=keeper, outage=self._outage,
            subscriptions=len(settings.subscriptions), reached=limits.reached,
        )  # fmt: skip
        refusals = Refusals(metrics)
        letters = DeadLetterLog(keeper, metrics, wall)
        overdue = Overdue(keeper, keeper, settings.store, metrics, limits, (now, wall))
        worker = Worker(
            keeper,
            rules,
            metrics,
            queued=sender.nudge.set,
            now=now,
            turns=wall,
            reached=limits.reached,
            outage=self._outage,
        )
        gate = Gate(
            max_size=settings.store.max_size, receiving="receiver" in self._rooms,
            accepting=not self._rooms.isdisjoint({"receiver", "consumer"}), ask=keeper.census,
            store_share=settings.store.store_share, alone=len(settings.subscriptions) < 2,  # noqa: PLR2004 - one or several
            limited=partial(limits.reached, Limit.STORE_SHARE),
        )  # fmt: skip

        def looked(census: Census | None) -> None:
            gate.refresh(census)
            limits.tell()

        clock = Clock(
            keeper, rules, retention=settings.store.retention, max_size=settings.store.max_size, now=now, turns=wall,
            queued=sender.nudge.set, looked=looked, speed=settings.clock.speed, outage=self._outage,
        )  # fmt: skip
        consumer = self._consumer(keeper, metrics, gate, now, worker.wake.set)
        runs: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "worker": lambda: worker.run(self._halt),
            "sender": lambda: sender.run(self._hush),
            "clock": lambda: clock.run(self._halt) if "clock" in self._rooms else self._watch(keeper, looked),
        }
        runs = {name: room for name, room in runs.items() if name in self._rooms or name == "clock"}
        runs["teller"] = lambda: self._tell(refusals, worker, letters, overdue if "clock" in self._rooms else None)
        if consumer is not None:
            runs["consumer"] = lambda: consumer.run(self._hush)
        sources = HealthSources(
            circuit=lambda: sender.state.circuit,
            cause=lambda: sender.state.cause,
            token_expires_in=lambda: sender.state.token_expires_in_seconds,
            problems=lambda: [
                *sorted(sender.state.problems), *(["faulty_buildings"] if clock.set_aside else []),
                *(consumer.problems() if consumer else []),
            ],
            kafka=lambda: consumer.report() if consumer else None,
            gauge=lambda: consumer.gauge() if consumer else None,
        )  # fmt: skip
        receiver = build_app(
            settings=settings, store=keeper, metrics=metrics, gate=gate, limits=limits, sources=sources, now=now,
            wall=wall, accepted=worker.wake.set, refusals=refusals,
        )  # fmt: skip
        server = make_server(
            receiver.app, self._sock, settings,
            callers=receiver.callers,
            limits=Limits(
                body_bytes=settings.server.max_body + Limits().body_bytes,
                connections=places(settings.limits.connections, resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
                connections_per_address=settings.limits.connections_per_address,
            ),
            refused=lambda status: refusals.count(status, "the limits of a connection"),
            reached=limits.reached,
        )  # fmt: skip

        def reload(changed: Settings) -> None:
            receiver.reload(changed)  # may refuse the settings, so it stands first
            server.reload(changed)
            overdue.reload(changed.store)
            gate.max_size, gate.store_share = changed.store.max_size, changed.store.store_share
            gate.alone = len(changed.subscriptions) < 2  # noqa: PLR2004 - one or several
            worker.reload(changed.rules())
            sender.reload(len(changed.subscriptions))
            clock.reload(changed.rules(), changed.store.retention, changed.store.max_size)
            client.reload(changed.moost, changed.secret_values())
            sender.drain_timeout = _sender_time(changed)
            if consumer is not None:
                consumer.reload(changed)
            self._find = finder(changed.rules())

        self._reloads.append(reload)
        failures: list[Exception] = []
        try:
            async with asyncio.TaskGroup() as group:
                door = group.create_task(self._room("receiver", server.serve), name="receiver")
                group.create_task(self._conduct(keeper, gate, server, door, runs, group), name="conductor")
        except* Exception as faults:  # noqa: BLE001 - whatever ends a room ends the process
            failures += faults.exceptions
        if refused := [fault for fault in failures if isinstance(fault, errors.UsageError)]:
            raise refused[0]
        for fault in failures:
            _log.error("room_failed", fault=errors.place_of(fault), reason=_sentence(fault))
        if failures:
            return CRASHED
        _log.info("drained", **await self._counts(keeper))
        return DONE

    def _consumer(
        self, store: Store, metrics: Metrics, gate: Gate, now: times.Now, accepted: Callable[[], object]
    ) -> "Consumer | None":
        """Return the room that reads Kafka; None = nothing is to be read here. Raises UsageError."""
        if not self._settings.consumed() or not self._rooms & {"receiver", "consumer"}:
            return None
        from bridge.consumer.room import Consumer  # noqa: PLC0415 - its client is an extra that others do without

        return Consumer(
            settings=self._settings, store=store, metrics=metrics, gate=gate, now=now, accepted=accepted,
            outage=self._outage,
        )  # fmt: skip

    async def _tell(self, refusals: Refusals, worker: Worker, letters: DeadLetterLog, overdue: Overdue | None) -> None:
        """Write the lines of the log that sum up what happens often."""
        while not self._halt.is_set():
            refusals.tell()
            worker.faults.tell()
            await letters.look()
            if overdue is not None:
                await overdue.look()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TELL_EVERY_S):
                    await self._halt.wait()

    async def _watch(self, store: Store, looked: Callable[[Census | None], None]) -> None:
        """Look at the store now and then, as the clock does, where that runs in another process."""
        while not self._halt.is_set():
            try:
                looked(await store.census())
                self._outage.over("watch")
            except StoreBroken:
                raise
            except StoreUnavailable as why:
                looked(None)
                self._outage.met("watch", str(why))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self._halt.wait()

    async def _room(self, name: str, room: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run one room; one that ends before it is told to is broken."""
        await room()
        if not self._stop.is_set():
            msg = f"the {name} ended by itself"
            raise errors.BridgeError(msg)

    async def _conduct(
        self, keeper: Keeper, gate: Gate, server: DoorServer, door: asyncio.Task[None],
        runs: Mapping[str, Callable[[], Coroutine[Any, Any, None]]], group: asyncio.TaskGroup,
    ) -> None:  # fmt: skip
        """Open the store, start the rooms, wait for the word to stop, then stop them in the order of the flow."""
        tasks: dict[str, asyncio.Task[None]] = {}
        if await self._opened(keeper, gate):
            gate.disk_bytes = _disk_bytes(self._settings)
            tasks = {name: group.create_task(self._room(name, room), name=name) for name, room in runs.items()}
            gate.starting = False
            named = sorted(self._rooms & {"receiver", *tasks} | tasks.keys() & {"consumer"})
            _log.info("serving", url=_url(self._sock), rooms=named, dry_run=self._dry_run)
            await self._stop.wait()
        gate.draining = True
        _log.info("draining")
        await asyncio.sleep(self._settings.server.drain_delay.total_seconds())
        gate.shut = True
        self._hush.set()
        last = self._last() - LAST_SHARE * self._drain_timeout()
        await asyncio.sleep(min(TELLING_S, LAST_SHARE * self._drain_timeout()))
        server.config.timeout_graceful_shutdown = max(0.0, last - _now())  # type: ignore[assignment]  # any number does
        server.should_exit = True
        ways_in = [door, *(tasks[name] for name in ("consumer",) if name in tasks)]
        await _ended(ways_in, last)
        self._halt.set()
        await _ended([task for task in tasks.values() if task not in ways_in], last)

    async def _opened(self, keeper: Keeper, gate: Gate) -> bool:
        """Open the store, and try again for as long as what keeps it from that may pass.

        Returns whether it is open; False where the word to stop came before. Raises UsageError where somebody has to
        change something.
        """
        began, told = _now(), asyncio.create_task(self._stop.wait())
        tell = partial(_log.warning, "waiting_for_store", url=_url(self._sock))
        late = asyncio.get_running_loop().call_later(LATE_S, tell)
        opening = asyncio.create_task(keeper.open())
        try:
            while True:
                await asyncio.wait({opening, told}, return_when=asyncio.FIRST_COMPLETED)
                if not opening.done():
                    return False
                try:
                    opening.result()
                except (StoreRefused, StoreBroken) as why:
                    msg = f"store.url: {why}"
                    raise errors.UsageError(msg) from None
                except StoreUnavailable as why:
                    late.cancel()
                    if str(why) != gate.store_cause:  # each reason once
                        tell(reason=str(why))
                    gate.store, gate.store_cause = True, str(why)
                else:
                    break
                await asyncio.wait({told}, timeout=OPEN_AGAIN_S)
                opening = asyncio.create_task(keeper.open())
        finally:
            for each in (late, told, opening):
                each.cancel()
        if gate.store:
            _log.info("store_opened", seconds=round(_now() - began, 1))
        gate.store, gate.store_cause = False, None
        return True

    async def _counts(self, keeper: Keeper) -> dict[str, object]:
        """Return what a person wants to know at the end, as far as the store can be asked."""
        try:
            async with asyncio.timeout_at(self._last() - LAST_SHARE / 2 * self._drain_timeout()):
                return dict(_ledger(await keeper.census()))
        except StoreBroken:
            raise
        except (StoreUnavailable, TimeoutError):
            return {"store": "unavailable"}

    # ---- signals ----

    def _catch_signals(self) -> None:
        """Stop at SIGTERM and SIGINT, read the configuration again at SIGHUP."""
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self._told)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        if signals.hung_up():
            loop.call_soon(self._reload)

    def _told(self) -> None:
        """Begin to stop; from now on the time runs."""
        if not self._stop.is_set():
            self._must_end(self._settings.server.drain_delay.total_seconds() + self._drain_timeout(), DONE)
            self._stop.set()

    def _must_end(self, seconds: float, code: int) -> None:
        """Let the process end after a time, with a code, whatever hangs then: what is owed is durable."""
        self._ends = _now() + seconds

        def last() -> None:
            _log.warning("drain_broken_off", seconds=seconds)
            logs.flush(LAST_LINE_S)

        self._watchdog = signals.end_by(seconds, code, last)

    def _drain_timeout(self) -> float:
        return self._settings.server.drain_timeout.total_seconds()

    def _last(self) -> float:
        """Return when the process has to be gone [s of the loop]."""
        return self._ends if self._ends is not None else _now() + self._drain_timeout()

    def _reload(self) -> None:
        """Read the configuration again at SIGHUP; keep the old one where the new does not load."""
        if self._reread is None:
            return
        try:
            changed = reloaded(self._settings, self._reread())
            for reload in self._reloads:
                reload(changed.settings)
        except errors.BridgeError as why:
            _log.error("reload_refused", problems=str(why).splitlines())
            return
        self._settings = changed.settings
        tell = _log.warning if changed.needs_restart else _log.info
        tell("reloaded", applied=list(changed.applied), needs_restart=list(changed.needs_restart))


def _sender_time(settings: Settings) -> timedelta:
    """Return how long the sender may wait for calls on the wire: it writes down what came of them afterwards."""
    return settings.server.drain_timeout * (1 - 2 * LAST_SHARE)


def _url(sock: socket.socket) -> str:
    """Return the address that a socket listens at."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _ended(rooms: Sequence[asyncio.Task[None]], ends: float) -> None:
    """Wait for rooms to end; one that the store does not let go on is broken off, all or nothing of its step stored."""
    if rooms:
        _, late = await asyncio.wait(rooms, timeout=max(0.0, ends - asyncio.get_running_loop().time()))
        for room in late:
            room.cancel()


def _clock(settings: Settings, wall: times.Now) -> times.Now:
    """Return the clock that the settings ask for; `wall` tells the true time."""
    clock = settings.clock
    if clock.start is None and clock.speed == 1:
        return wall
    now = wall()
    return times.simulated(clock.start or now, clock.speed, clock.anchor or now, wall)


def _disk_bytes(settings: Settings) -> int | None:
    """Return the size of the disk that the store fills; None where that is a server's."""
    if _is_shared(settings):
        return None
    return room.disk_bytes(sqlite_path(settings.store.url.get_secret_value()).resolve())


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
        case Denial(trouble=Trouble.REFUSED):
            problems.append(f"moost.client_secret: {found.cause}")
        case Denial():
            problems.append(f"moost.base_url: no token: {found.cause}")
    if settings.consumed():
        from bridge.consumer import room  # noqa: PLC0415 - its client is an extra that others do without

        problems += await room.problems(settings)
    return problems
