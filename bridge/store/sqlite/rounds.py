"""The only writing connection and the thread that owns it.

Rules:
- One round is one transaction and one fsync: all waiting accepts, then settlements, then everything else.
- A round that fails is rolled back and its parts run one by one: a part that fails takes no other along.
- Whatever happens in the thread becomes the answer of a part; the thread ends only when it is told to.
- A transaction ends after `SLICE_S`; what has not begun by then stands first in the next round.
- Under load new messages gather for `GATHER_S` before their round begins, or until there are `GATHER_PARTS` of them: a
  round costs some 0.3 ms whatever it holds.

Theory of operation: the event loop collects parts while a round is under way and starts the next one when its results
arrive; the thread itself never waits for the interpreter's lock to look for more work.

Measured on one core, 3,000 accepts/s beside a loop that is always busy: rounds started by the loop leave 89 % of the
core to the loop, a thread that takes from a queue 73 % (it makes 2.3 times as many rounds), statements on the loop
itself with only the commit in the thread 90 %, at the price of the disk blocking the loop. A switch interval of
0.5 ms instead of 5 ms halves the wait when the loop computes in slices of 4 ms (p50 28 to 17 ms, p99 90 to 40 ms)
for 1 % of the core.
"""

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from bridge.store.ledger import Ledger
from bridge.store.port import Receipt, StoreBroken, StoreUnavailable
from bridge.store.sqlite import room
from bridge.store.sqlite.checkpoint import Checkpoints
from bridge.store.sqlite.files import BUSY_TIMEOUT_S, give_back, identity, may_be_full, set_ceiling, unavailable
from bridge.store.sqlite.inbox import Entry, accept
from bridge.store.sqlite.room import Reserve

SLICE_S: Final = 0.015
"""After this long no further part begins; with the longest part a transaction stays under 20 ms."""

ACCEPT_ROWS: Final = 1_000
"""Most messages of one round; more wait for the next."""

GATHER_S: Final = 0.01
"""Least time from the start of a round to that of the next one that has nothing but new messages to store …"""

GATHER_PARTS: Final = 32
"""… unless so many wait already: then it is worth its price at once, and a door in full use is not slowed down."""

GATHER_FROM: Final = 4
"""Parts of a round from which on the next one gathers: a sender that waits for each answer is not kept waiting."""

RESERVE_LOOK_S: Final = 1.0
"""How often a full disk is looked at."""

ASK_AGAIN_S: Final = 0.001
"""How often a command asks for its turn to write."""

VACUUM_PAGES: Final = 1_000
"""Free pages given back to a full disk at each look (4 MiB)."""

T = TypeVar("T")
Write = Callable[[sqlite3.Connection, Ledger], T]


class Turn(IntEnum):
    """In which order the parts of a round run."""

    ACCEPT = 0
    READ = 1
    SETTLE = 2
    COMMIT = 3
    LEASE = 4
    DESK = 5


@dataclass(slots=True, eq=False)
class Part:
    """One caller's share of a round."""

    turn: Turn
    future: asyncio.Future[Any]
    run: Write[Any] | None = None  # None = accept these entries
    entries: Sequence[Entry] = ()
    result: Any = None
    error: BaseException | None = None
    done: bool = False

    def fail(self, error: BaseException) -> None:
        """Make an error the answer."""
        self.error, self.done = error, True

    def answer(self) -> None:
        """Hand the result to the caller, who may have gone."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


@dataclass(slots=True)
class _Waiting:
    accepts: deque[Part] = field(default_factory=deque)
    others: list[Part] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.accepts or self.others)

    def take(self) -> list[Part]:
        """Return the parts of the next round."""
        parts, rows = [], 0
        while self.accepts and rows < ACCEPT_ROWS:
            part = self.accepts.popleft()
            if not part.future.done():
                parts.append(part)
                rows += len(part.entries)
        others = sorted((part for part in self.others if not part.future.done()), key=lambda part: part.turn)
        self.others = []
        return parts + others


class Rounds:
    """Collects parts on the event loop, runs them in the thread."""

    def __init__(self, writer: "Writer") -> None:
        """Start the thread; call on the event loop."""
        self._loop = asyncio.get_running_loop()
        self._waiting = _Waiting()
        self._under_way = False
        self._scheduled: asyncio.Handle | None = None
        self._gather_until = 0.0  # [s of the loop's clock]
        self._closed = False
        self._probe: asyncio.Future[None] | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._writer = writer
        self._orders: queue.SimpleQueue[list[Part] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="store-writer", daemon=True)
        self._thread.start()

    @property
    def full(self) -> bool:
        """Whether new messages are refused because the disk is full."""
        return self._writer.full

    @property
    def trouble(self) -> StoreUnavailable | None:
        """Why the last transaction failed; None = it went through."""
        return self._writer.trouble

    def probe(self) -> None:
        """Find out whether a write goes through again, unless that is being found out."""
        if self._probe is None and not self._closed:
            self._probe = asyncio.ensure_future(self.write(Turn.DESK, _rewrite))
            self._probe.add_done_callback(self._probed)

    def _probed(self, probe: asyncio.Future[None]) -> None:
        self._probe = None
        if not probe.cancelled():
            probe.exception()  # which the writer knows

    def give_back(self, pages: int) -> None:
        """Have so many free pages given back to the disk after the round under way; called within it."""
        self._writer.spare = pages

    async def accept(self, entries: Sequence[Entry]) -> list[Receipt]:
        """Store new messages in the next round; refused at once while a try after a failure is under way."""
        if self._under_way and self._writer.trouble is not None:
            raise StoreUnavailable(str(self._writer.trouble))
        part = Part(turn=Turn.ACCEPT, future=self._loop.create_future(), entries=entries)
        self._waiting.accepts.append(part)
        if len(self._waiting.accepts) == GATHER_PARTS:
            self._gathered()
        receipts: list[Receipt] = await self._wait(part)
        return receipts

    async def write(self, turn: Turn, run: Write[T]) -> T:
        """Run a function of the connection and the ledger in the next round."""
        part = Part(turn=turn, future=self._loop.create_future(), run=run)
        self._waiting.others.append(part)
        self._gathered()
        result: T = await self._wait(part)
        return result

    def _wait(self, part: Part) -> asyncio.Future[Any]:
        if self._closed:
            raise StoreUnavailable("the store is closed")
        self._schedule()
        self._idle.clear()
        return part.future

    def _schedule(self) -> None:
        """Have the next round start: at once if anybody but the door waits, else when it has gathered."""
        if self._under_way or self._scheduled is not None:
            return
        if self._waiting.others or self._gather_until <= self._loop.time():
            self._scheduled = self._loop.call_soon(self._start)
        else:
            self._scheduled = self._loop.call_at(self._gather_until, self._start)

    def _gathered(self) -> None:
        """Let a round that gathers new messages wait for no more."""
        self._gather_until = 0.0
        if self._scheduled is not None:
            self._scheduled.cancel()
            self._scheduled = None

    def _start(self) -> None:
        self._scheduled = None
        parts = self._waiting.take()
        if parts:
            self._under_way = True
            self._gather_until = self._loop.time() + GATHER_S if len(parts) >= GATHER_FROM else 0.0
            self._orders.put(parts)
        elif not self._waiting:
            self._idle.set()

    def _finish(self, parts: list[Part]) -> None:
        self._under_way = False
        left = [part for part in parts if not part.done]
        self._waiting.accepts.extendleft(part for part in reversed(left) if part.turn is Turn.ACCEPT)
        self._waiting.others[:0] = [part for part in left if part.turn is not Turn.ACCEPT]
        for part in parts:
            if part.done:
                part.answer()
        if self._waiting:
            self._schedule()
        else:
            self._idle.set()

    def _work(self) -> None:
        while (parts := self._orders.get()) is not None:
            self._writer.run(parts)
            try:
                self._loop.call_soon_threadsafe(self._finish, parts)
            except RuntimeError:  # the loop has gone: nobody waits any more
                break
        self._writer.close()

    async def close(self) -> None:
        """Finish what was begun, then end the thread."""
        self._closed = True
        await self._idle.wait()
        self._orders.put(None)
        await asyncio.to_thread(self._thread.join)


def _rewrite(con: sqlite3.Connection, _: Ledger) -> None:
    """Write something, and nothing new."""
    con.execute("UPDATE bridge SET ledger = ledger")


_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Ledger)


class Writer:
    """What the thread does; blocking, one round at a time."""

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        path: Path,
        reserve: Reserve,
        checkpoints: Checkpoints,
        committed: Callable[[float], None],  # hears in the thread how long a transaction took [s]
    ) -> None:
        """Connect at the first round."""
        self._connect = connect
        self._eager = not reserve.wanted  # a command, beside the daemon
        self._reserve = reserve
        self._checkpoints = checkpoints
        self._committed = committed
        self._con: sqlite3.Connection | None = None
        self._path = path
        self._file: tuple[int, int] | None = None  # which file the path meant at first
        self.trouble: StoreUnavailable | None = None  # why the last transaction failed
        self.full = reserve.wanted and not reserve.held  # new messages are refused until the reserve is held
        self._looked = 0.0
        self._lacking: str | None = None  # what the system says of the last failure, where room is lacking
        self._cause: str | None = None  # what it said at last
        self.spare = 0  # pages to give back to the disk after this round

    def run(self, parts: list[Part]) -> None:
        """Run a round; afterwards every part is done, or has not begun."""
        self._look_at_reserve()
        started = [part for part in parts if not self._refused(part)]
        if not started:
            return
        try:
            self._transaction(started)
        except Exception as error:  # noqa: BLE001 - it becomes the answer of a part
            roomier = self._recover(error)
            if roomier or (len(started) > 1 and _of_one_part(error)):
                self._one_by_one(started)
            else:
                for part in started:
                    part.fail(self._answer(error))
        if self._con is not None:
            if self.spare:
                with contextlib.suppress(sqlite3.Error):
                    give_back(self._con, self.spare)
                self.spare = 0
            self._checkpoints.written(self._con)

    def _one_by_one(self, parts: Sequence[Part]) -> None:
        for part in parts:
            if self._refused(part):
                continue
            try:
                self._transaction([part])
            except Exception as error:  # noqa: BLE001 - it becomes the answer of this part
                self._recover(error)
                part.fail(self._answer(error))

    def _transaction(self, parts: Sequence[Part]) -> None:
        con = self._connected()
        if identity(self._path) != self._file:
            raise StoreBroken("the store was replaced by another file")
        started = time.monotonic()
        until = started + SLICE_S
        self._begin(con)
        text = con.execute("SELECT ledger FROM bridge").fetchone()[0]
        ledger = _decoder.decode(text)
        begun = self._accept(con, ledger, [part for part in parts if part.run is None])
        for part in parts:
            if part.run is None:
                continue
            if begun and time.monotonic() >= until:
                break
            part.result = part.run(con, ledger)
            begun.append(part)
        written = _encoder.encode(ledger).decode()
        if written != text:
            con.execute("UPDATE bridge SET ledger = ?", (written,))
        con.execute("COMMIT")
        self._committed(time.monotonic() - started)
        self.trouble = None
        for part in begun:
            part.error, part.done = None, True

    def _begin(self, con: sqlite3.Connection) -> None:
        """Begin a transaction. A command asks again and again: by SQLite's own waits a busy daemon goes first."""
        if not self._eager:
            con.execute("BEGIN IMMEDIATE")
            return
        until = time.monotonic() + BUSY_TIMEOUT_S
        con.execute("PRAGMA busy_timeout = 0")
        try:
            while True:
                try:
                    con.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError as error:
                    if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                        raise
                    time.sleep(ASK_AGAIN_S)
                else:
                    return
        finally:
            con.execute(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT_S * 1000)}")

    def _accept(self, con: sqlite3.Connection, ledger: Ledger, parts: Sequence[Part]) -> list[Part]:
        """Store the messages of all callers at once."""
        if parts:
            receipts = iter(accept(con, ledger, [row for part in parts for row in part.entries]))
            for part in parts:
                part.result = [next(receipts) for _ in part.entries]
        return list(parts)

    def _connected(self) -> sqlite3.Connection:
        if self._con is None:
            con = self._connect()
            self._file = self._file or identity(self._path)
            self._con = con
            set_ceiling(con, self._ceiling())
        return self._con

    def _ceiling(self) -> int | None:
        """Return how large the database may become under a limit on its file; the reserve is for a full disk."""
        return room.file_limit() if self.full else room.database_limit()

    def _recover(self, error: BaseException) -> bool:
        """Roll back; after trouble with the file take a fresh connection next time. Tell whether room was made."""
        con = self._con
        if con is not None:
            with contextlib.suppress(sqlite3.Error):
                if con.in_transaction:
                    con.execute("ROLLBACK")
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF
        self._lacking = room.lacking(self._path) if may_be_full(error) else None
        self._cause = self._lacking or self._cause
        full = code == sqlite3.SQLITE_FULL or self._lacking is not None
        if full and self._reserve.held:
            self._give_up_reserve()
            return True
        if con is not None and code in _BROKEN:
            with contextlib.suppress(sqlite3.Error):
                con.close()
            self._con = None
        return False

    def _answer(self, error: BaseException) -> BaseException:
        """Return what the caller is told: a condition as StoreUnavailable, a bug as itself."""
        if isinstance(error, sqlite3.Error):
            condition = unavailable(error, self._lacking)
            if condition is not None:
                condition.__cause__ = error
                self.trouble = condition
                return condition
        return error

    # ---- a full disk ----

    def _give_up_reserve(self) -> None:
        """Make room for settling and deleting: release the reserve, empty the log."""
        self.full = True
        self._looked = time.monotonic()
        self._reserve.release()
        if self._con is not None:
            with contextlib.suppress(sqlite3.Error):
                set_ceiling(self._con, self._ceiling())
            self._checkpoints.shorten(self._con)

    def _look_at_reserve(self) -> None:
        """Give what was deleted back to the disk, and take the reserve back as soon as there is room for it."""
        if self.full and time.monotonic() - self._looked >= RESERVE_LOOK_S:
            self._looked = time.monotonic()
            if self._con is not None:
                with contextlib.suppress(sqlite3.Error):
                    give_back(self._con, VACUUM_PAGES)
                self._checkpoints.shorten(self._con)
            self.full = not self._reserve.take_back()
            if not self.full:
                self._cause = None
            if self._con is not None:
                with contextlib.suppress(sqlite3.Error):
                    set_ceiling(self._con, self._ceiling())

    def _refused(self, part: Part) -> bool:
        """Turn away what makes the store grow while the disk is full."""
        if self.full and (part.turn is Turn.ACCEPT or (part.turn is Turn.COMMIT and self._reserve.low())):
            part.fail(StoreUnavailable("the disk is full" + (f" ({self._cause})" if self._cause else "")))
            return True
        return False

    def close(self) -> None:
        """Close the connection; the last one of a file writes its log back."""
        if self._con is not None:
            with contextlib.suppress(sqlite3.Error):
                self._con.close()
            self._con = None


_BROKEN: Final = frozenset(
    {
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
    }
)


def _of_one_part(error: BaseException) -> bool:
    """Tell whether an error may be one part's fault: a bug, or too little room for all of them."""
    if isinstance(error, StoreBroken):
        return False
    if not isinstance(error, sqlite3.Error) or unavailable(error) is None:
        return True
    return (error.sqlite_errorcode & 0xFF) == sqlite3.SQLITE_FULL
