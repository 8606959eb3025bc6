"""The embedded store, as the rooms see it; for the commands see `commands`.

Rules:
- What writes goes through the rounds; what the rooms read is read on the event loop, from a connection of its own. With
  a rollback journal (see `room`) readers keep the writer waiting: then what the rooms read goes through the rounds too.
- Every read is one short transaction: an open reader would keep the log from starting anew.

Reading in a thread would hand the interpreter's lock back and forth for each row. Measured beside a busy loop (slices
of 1 ms, one core, claim and load of 100 messages and buildings): a thread needs 1.2 times the CPU and 1.45 times the
time. The price: a page that the system does not have in memory blocks the loop for one access to the disk.
"""

import asyncio
import contextlib
import os
import sqlite3
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from bridge.core.model import Residence
from bridge.core.vocabulary import DeviceKey
from bridge.store.codec import from_ms, to_ms
from bridge.store.entries import claimed
from bridge.store.ledger import Ledger
from bridge.store.lives import HEAD_START_S
from bridge.store.port import (
    NO_LINES,
    NO_TIME,
    Arrival,
    Begin,
    Census,
    Lane,
    Loaded,
    Pending,
    Receipt,
    Return,
    Settlement,
    StoreBroken,
    StoreUnavailable,
    Work,
)
from bridge.store.ranks import Line
from bridge.store.recent import Recent
from bridge.store.refusal import StoreRefused
from bridge.store.repeats import KNOWN_FOR
from bridge.store.sqlite import buildings as states
from bridge.store.sqlite import files, inbox, lives, outbox, room, upkeep
from bridge.store.sqlite import work as steps
from bridge.store.sqlite.checkpoint import Checkpoints
from bridge.store.sqlite.commands import SqliteDesk
from bridge.store.sqlite.inspection import Inspection
from bridge.store.sqlite.lock import Lock, refuse_another_name
from bridge.store.sqlite.problems import Problems
from bridge.store.sqlite.reads import Read, transaction, translated
from bridge.store.sqlite.rounds import Rounds, Turn, Writer

SWITCH_INTERVAL_S: Final = 0.0005
"""How long a computing loop may keep the writer waiting; see `rounds` for what it brings."""

STATES_AT_ONCE: Final = 40
"""States read without a pause, some 30 µs each; versions make up for the snapshot that they do not share."""

CHANGED_USERS: Final = 100
"""Users whose directory changed, per claim."""

T = TypeVar("T")


class SqliteStore(SqliteDesk):
    """A store in one file."""

    def __init__(
        self,
        path: str,
        *,
        dry: bool = False,
        exclusive: bool = False,
        committed: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        """Name the file; `exclusive` is for the daemon, `dry` says that its calls do not leave.

        `committed` hears from another thread how long each transaction took [s].
        """
        self._path = Path(os.path.realpath(path))  # so that the lock is the same by whatever name
        self._dry = dry
        self._exclusive = exclusive
        self._committed = committed
        self._lock = Lock(self._path)
        self._rounds: Rounds | None = None
        self._checkpoints: Checkpoints | None = None
        self._inspection: Inspection | None = None
        self._reader: sqlite3.Connection | None = None
        self._aside = True  # readers and the writer do not wait for each other
        self._file: tuple[int, int] | None = None
        self._shown: dict[str, int] = {}
        self._claimed = claimed(())
        self._recent = Recent()
        self._problems = Problems()
        self._careful = self._began = False  # messages are taken one by one; the first of them was
        self._named = False  # some are named as the next
        self._switch_interval = sys.getswitchinterval()

    @property
    def clock(self) -> None:
        """Say that nobody else's clock counts."""

    # ---- opening ----

    async def open(self) -> None:
        """Open or create; the daemon takes the lock and frees the leases of a former process."""
        reserve = room.Reserve(self._path)
        try:
            await asyncio.to_thread(self._open_on, reserve)
        except BaseException:
            self._close_files()
            raise
        if self._exclusive:
            reserve.begin()
            sys.setswitchinterval(SWITCH_INTERVAL_S)
        connect = partial(files.connect, self._path, write=True)
        self._checkpoints = Checkpoints(connect, self._path)
        self._rounds = Rounds(Writer(connect, self._path, reserve, self._checkpoints, self._committed))
        if self._exclusive:
            try:
                self._careful = await self._rounds.write(Turn.SETTLE, self._begin)
            except BaseException:
                await self.close()
                raise
            await asyncio.to_thread(self._checkpoints.now)  # so that the file itself says who serves it
            self._inspection = Inspection(partial(files.connect, self._path, write=False), self._path)

    def _begin(self, con: sqlite3.Connection, ledger: Ledger) -> bool:
        """Begin a life of the daemon; return whether it takes messages one by one first."""
        outbox.free(con, ledger, datetime.now(UTC))
        return lives.begin(con, ledger, path=self._path)

    def _open_on(self, reserve: room.Reserve) -> None:
        """Open the files; on a disk so full that not even that works, with the room that a former life held back."""
        files.create(self._path)
        if self._exclusive:
            self._lock.take()
        else:
            refuse_another_name(self._path)
        try:
            self._open_files()
        except StoreUnavailable as first:
            if not self._exclusive or not files.may_be_full(first.__cause__):
                raise
            if reserve.low() or room.lacking(self._path) is not None:
                reserve.release()
            self._open_again()  # even where nothing was released: the first try may have written the log back

    def _open_again(self) -> None:
        """Open the files for the last time; say what the system lacks where SQLite does not know."""
        try:
            self._open_files()
        except StoreUnavailable as error:
            lacking = room.lacking(self._path)
            if lacking is not None:
                raise StoreUnavailable(f"the disk is full ({lacking})") from error
            if files.lacks_memory(error.__cause__):
                raise StoreRefused(f"{error}: put the store on a local disk") from error
            raise

    def _open_files(self) -> None:
        has_log = files.log_is_there(self._path) or room.copies(self._path)
        with translated():
            files.leave_log(self._path)
            con = files.connect(self._path, write=True)
            try:
                files.prepare(con)
                if self._exclusive:
                    files.mark(con, dry=self._dry)
                    lives.refuse_lost_log(con, self._path, has_log=has_log)
            finally:
                con.close()
            self._reader = files.connect(self._path, write=False)
            self._aside = not room.copies(self._path)
            self._file = files.identity(self._path)

    async def close(self) -> None:
        """Finish what was begun and close; the writer last, because it can write the log back."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        if self._inspection is not None:
            await asyncio.to_thread(self._inspection.close)
            self._inspection = None
        if self._checkpoints is not None:
            await asyncio.to_thread(self._checkpoints.close)
            self._checkpoints = None
        if self._rounds is not None:
            if self._exclusive:
                with contextlib.suppress(StoreUnavailable):  # then the next life is careful
                    await self._rounds.write(Turn.SETTLE, lives.end)
            await self._rounds.close()
            self._rounds = None
            if self._exclusive:
                sys.setswitchinterval(self._switch_interval)
        self._close_files()

    def _close_files(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        self._lock.release()

    def _writing(self) -> Rounds:
        if self._rounds is None:
            raise StoreUnavailable("the store is not open")
        return self._rounds

    async def _read(self, read: Read[T]) -> T:
        """Run a read in one transaction: on the event loop, or in a round where readers keep the writer waiting."""
        if self._reader is None:
            raise StoreUnavailable("the store is not open")
        if self._aside:
            return transaction(self._reader, read)
        return await self._writing().write(Turn.READ, read)

    async def _read_aside(self, read: Read[T]) -> T:
        """Run a long read in a thread, on a connection of its own."""
        return await asyncio.to_thread(self._read_once, read)

    def _read_once(self, read: Read[T]) -> T:
        with translated():
            con = files.connect(self._path, write=False)
        try:
            return transaction(con, read)
        finally:
            con.close()

    # ---- the door ----

    async def accept(self, arrivals: Sequence[Arrival]) -> Sequence[Receipt]:
        """Store new messages; returns after they are fsynced."""
        return await self._writing().accept([inbox.entry(arrival) for arrival in arrivals])

    # ---- the worker ----

    async def claim(self, limit: int) -> tuple[Sequence[Pending], Sequence[str]]:
        """Return the oldest pending messages, and users whose directory rows changed."""
        alone = await self._take_alone() if self._careful else []
        self._careful = bool(alone)
        messages, changed = await self._read(partial(_claim, limit=0 if alone else limit))
        self._shown = dict(changed)
        messages = alone or messages
        self._claimed = claimed(messages)
        return messages, list(self._shown)

    async def _take_alone(self) -> list[Pending]:
        """Return the next message that was in hand when the last daemon ended without a word."""
        if not self._began:
            self._began = True
            await asyncio.sleep(HEAD_START_S)
        return await self._writing().write(Turn.COMMIT, lives.take)

    async def changed_among(self, users: Sequence[str]) -> Sequence[str]:
        """Return those of some users whose directory rows changed."""
        found = await self._read(lambda con, _: inbox.changed_among(con, users))
        self._shown |= found
        return list(found)

    async def load(self, users: Sequence[str], devices: Sequence[DeviceKey], buildings: Sequence[str]) -> Loaded:
        """Read directory rows, homes and states; the loop breathes between some states and the next."""
        residences, homes = await self._read(lambda con, _: states.places(con, users, devices))
        named = {*buildings, *(home.building for home in homes.values())}
        named.update(row.building for rows in residences.values() for row in rows)
        asked, found = sorted(named), {}
        for start in range(0, len(asked), STATES_AT_ONCE):
            if start:
                await asyncio.sleep(0)
            some = asked[start : start + STATES_AT_ONCE]
            found.update(await self._read(lambda con, _, some=some: states.states(con, some, self._known)))  # type: ignore[misc]
        return Loaded(residences=residences, homes=homes, buildings=found)

    @property
    def _known(self) -> Recent:
        """Return the states that a read may look up and remember: none where it is not on the event loop."""
        return self._recent if self._aside else Recent()

    async def homes_of(self, user: str) -> dict[DeviceKey, str]:
        """Return all devices of a user."""
        return await self._read(lambda con, _: states.homes_of(con, user))

    async def directory_of(self, user: str) -> dict[str, tuple[Residence, ...]]:
        """Return the rows of the buildings that a changed user's rows name, or named before."""
        return await self._read(lambda con, _: states.directory_of(con, user))

    async def commit(self, work: Work) -> Sequence[str]:
        """Write a step of work, or return the buildings that have moved."""
        step = steps.prepare(work, self._shown, self._claimed, self._recent, careful=self._careful, named=self._named)
        moved = await self._writing().write(Turn.COMMIT, partial(steps.commit, step=step))
        if not moved:
            self._named = bool(work.hand)
            for row in work.buildings:
                self._recent.keep(row.state, row.version + 1)
        return moved

    async def due(
        self, now: datetime, limit: int, used: Mapping[str, float] = NO_TIME
    ) -> tuple[datetime, Sequence[str]]:
        """Return the horizon, and the buildings due at it."""

        def read(con: sqlite3.Connection, ledger: Ledger) -> tuple[datetime, Sequence[str]]:
            oldest = inbox.oldest_pending(con, ledger)
            horizon = now if oldest is None else min(now, from_ms(oldest))
            return horizon, states.due(con, to_ms(horizon), limit, used)

        return await self._read(read)

    # ---- the sender ----

    async def lease(
        self,
        now: datetime,
        lanes: int,
        calls: int,
        hold: timedelta,
        *,
        held: Mapping[Line, int] = NO_LINES,
        afresh: bool = False,
    ) -> Sequence[Lane]:
        """Lend the lanes that have waited longest, in turns over the lines."""

        def write(con: sqlite3.Connection, _: Ledger) -> Sequence[Lane]:
            if afresh:
                outbox.hasten(con, now)
            return outbox.lease(con, outbox.Asked(now=now, lanes=lanes, calls=calls, hold=hold, held=held))

        return await self._writing().write(Turn.LEASE, write)

    async def settle(
        self, now: datetime, settlements: Sequence[Settlement], begun: Sequence[Begin], returned: Sequence[Return]
    ) -> Sequence[int]:
        """Write what became of calls, which go on the wire next, and which lanes are given back."""

        def write(con: sqlite3.Connection, ledger: Ledger) -> list[int]:
            gone = outbox.settle(con, ledger, now, settlements)
            gone += outbox.begin(con, begun)
            outbox.give_back(con, returned)
            return gone

        return await self._writing().write(Turn.SETTLE, write)

    async def next_due(self) -> datetime | None:
        """Return when `lease` could next lend something."""
        return await self._read(lambda con, _: outbox.next_due(con))

    # ---- upkeep ----

    async def census(self) -> Census:
        """Return the counts, as long as the file is sound and still the one that was opened."""
        if self._inspection is not None and self._inspection.damage is not None:
            raise StoreBroken(self._inspection.damage)
        if files.identity(self._path) != self._file:
            raise StoreBroken("the file of the store is another than the one that was opened")
        rounds = self._writing()
        found = await self._read(partial(upkeep.census, path=self._path, full=rounds.full))
        if rounds.full or rounds.trouble is not None:
            rounds.probe()
        log = files.log_bytes(self._path)
        problems = self._problems.seen(log_bytes=log, trouble=rounds.trouble)
        return replace(found, writable=rounds.trouble is None, log_bytes=log, problems=problems)

    async def sweep(self, now: datetime, retention: timedelta, max_size: int) -> int:
        """Take steps until one has deleted something, or nothing is left to look at."""
        edge, young, rounds = to_ms(now - retention), to_ms(now - KNOWN_FOR), self._writing()

        def step(con: sqlite3.Connection, ledger: Ledger) -> upkeep.Swept:
            swept = upkeep.sweep(con, ledger, edge, young=young, max_size=max_size, path=self._path, full=rounds.full)
            rounds.give_back(swept.spare)
            return swept

        while True:
            swept = await rounds.write(Turn.DESK, step)
            if swept.deleted or not swept.more:
                return swept.deleted


def _claim(con: sqlite3.Connection, ledger: Ledger, *, limit: int) -> tuple[list[Pending], list[tuple[str, int]]]:
    changed = con.execute("SELECT user, change FROM changed ORDER BY change LIMIT ?", (CHANGED_USERS,)).fetchall()
    return inbox.claim(con, ledger, limit), changed
