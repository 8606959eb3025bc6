"""The embedded store, as the rooms and the commands see it.

Rules:
- What writes goes through the rounds; what the rooms read is read on the event loop, from a connection of its own.
- Every read is one short transaction: an open reader would keep the log from starting anew.

Reading in a thread would hand the interpreter's lock back and forth for each row. Measured beside a busy loop (slices
of 1 ms, one core, claim and load of 100 messages and buildings): a thread needs 1.2 times the CPU and 1.45 times the
time. The price: a page that the system does not have in memory blocks the loop for one access to the disk.
"""

import asyncio
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from bridge.core.model import Residence
from bridge.core.vocabulary import Kind
from bridge.store.codec import from_ms, maybe_ms, to_json, to_ms
from bridge.store.erasing import Eraser, Step
from bridge.store.ledger import Ledger
from bridge.store.port import (
    Arrival,
    Begin,
    CallTrip,
    Census,
    DeadFilter,
    DeadLetter,
    Erased,
    Lane,
    Loaded,
    MessageTrip,
    Pending,
    Reach,
    Receipt,
    Redaction,
    Return,
    Settlement,
    StoreBroken,
    StoreUnavailable,
    Ticked,
    Versioned,
    Work,
)
from bridge.store.recent import Recent
from bridge.store.sqlite import buildings as states
from bridge.store.sqlite import desk, files, forgetting, inbox, outbox, upkeep
from bridge.store.sqlite import work as steps
from bridge.store.sqlite.checkpoint import Checkpoints
from bridge.store.sqlite.inspection import Inspection
from bridge.store.sqlite.rounds import Rounds, Turn, Writer
from bridge.store.steps import by_id, in_steps

SWITCH_INTERVAL_S: Final = 0.0005
"""How long a computing loop may keep the writer waiting; see `rounds` for what it brings."""

STATES_AT_ONCE: Final = 40
"""States read without a pause, some 30 µs each; versions make up for the snapshot that they do not share."""

CHANGED_USERS: Final = 100
"""Users whose directory changed, per claim."""

T = TypeVar("T")
Read = Callable[[sqlite3.Connection, Ledger], T]

_ledgers: Final = msgspec.json.Decoder(Ledger)


class SqliteStore(Eraser):
    """A store in one file."""

    LENT_S = 0.1

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
        self._path = Path(path)
        self._dry = dry
        self._exclusive = exclusive
        self._committed = committed
        self._lock: files.Lock | None = None
        self._rounds: Rounds | None = None
        self._checkpoints: Checkpoints | None = None
        self._inspection: Inspection | None = None
        self._reader: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._shown: dict[str, int] = {}
        self._recent = Recent()
        self._switch_interval = sys.getswitchinterval()

    # ---- opening ----

    async def open(self) -> None:
        """Open or create; the daemon takes the lock and frees the leases of a former process."""
        reserve = files.Reserve(self._beside("-reserve"))
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
            await self._rounds.write(Turn.SETTLE, partial(outbox.free, now=datetime.now(UTC)))
            self._inspection = Inspection(partial(files.connect, self._path, write=False), self._path)

    def _open_on(self, reserve: files.Reserve) -> None:
        """Open the files; on a disk so full that not even that works, with the room that a former life held back."""
        if self._exclusive:
            self._lock = files.Lock(self._beside("-lock"))
        try:
            self._open_files()
        except StoreUnavailable:
            if not self._exclusive:
                raise
            if reserve.low():
                reserve.release()
            self._open_files()  # even where nothing was released: the first try may have written the log back

    def _open_files(self) -> None:
        files.create(self._path)
        with translated():
            con = files.connect(self._path, write=True)
            try:
                files.prepare(con)
                if self._exclusive:
                    files.mark(con, dry=self._dry)
            finally:
                con.close()
            self._reader = files.connect(self._path, write=False)
            self._file = files.identity(self._path)

    def _beside(self, ending: str) -> Path:
        return self._path.with_name(self._path.name + ending)

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
            await self._rounds.close()
            self._rounds = None
            if self._exclusive:
                sys.setswitchinterval(self._switch_interval)
        self._close_files()

    def _close_files(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _writing(self) -> Rounds:
        if self._rounds is None:
            raise StoreUnavailable("the store is not open")
        return self._rounds

    def _read(self, read: Read[T]) -> T:
        """Run a read on the event loop, in one transaction."""
        if self._reader is None:
            raise StoreUnavailable("the store is not open")
        return _transaction(self._reader, read)

    async def _read_aside(self, read: Read[T]) -> T:
        """Run a long read in a thread, on a connection of its own."""
        return await asyncio.to_thread(self._read_once, read)

    def _read_once(self, read: Read[T]) -> T:
        with translated():
            con = files.connect(self._path, write=False)
        try:
            return _transaction(con, read)
        finally:
            con.close()

    # ---- the door ----

    async def accept(self, arrivals: Sequence[Arrival]) -> Sequence[Receipt]:
        """Store new messages; returns after they are fsynced."""
        return await self._writing().accept([inbox.entry(arrival) for arrival in arrivals])

    # ---- the worker ----

    async def claim(self, limit: int) -> tuple[Sequence[Pending], Sequence[str]]:
        """Return the oldest pending messages, and users whose directory rows changed."""
        messages, changed = self._read(partial(_claim, limit=limit))
        self._shown = dict(changed)
        return messages, list(self._shown)

    async def load(self, users: Sequence[str], devices: Sequence[tuple[Kind, str]], buildings: Sequence[str]) -> Loaded:
        """Read directory rows, homes and states; the loop breathes between some states and the next."""
        residences, homes = self._read(lambda con, _: states.places(con, users, devices))
        named = {*buildings, *(home.building for home in homes.values())}
        named.update(row.building for rows in residences.values() for row in rows)
        asked, found = sorted(named), {}
        for start in range(0, len(asked), STATES_AT_ONCE):
            if start:
                await asyncio.sleep(0)
            some = asked[start : start + STATES_AT_ONCE]
            found.update(self._read(lambda con, _, some=some: states.states(con, some, self._recent)))  # type: ignore[misc]
        return Loaded(residences=residences, homes=homes, buildings=found)

    async def homes_of(self, user: str) -> dict[tuple[Kind, str], str]:
        """Return all devices of a user."""
        return self._read(lambda con, _: states.homes_of(con, user))

    async def commit(self, work: Work) -> Sequence[str]:
        """Write a step of work, or return the buildings that have moved."""
        step = steps.prepare(work, self._shown, self._recent)
        moved = await self._writing().write(Turn.COMMIT, partial(steps.commit, step=step))
        if not moved:
            for row in work.buildings:
                self._recent.keep(row.state, row.version + 1)
        return moved

    async def due(self, now: datetime, limit: int) -> tuple[datetime, Sequence[str]]:
        """Return the horizon, and the buildings due at it."""

        def read(con: sqlite3.Connection, ledger: Ledger) -> tuple[datetime, Sequence[str]]:
            oldest = inbox.oldest_pending(con, ledger)
            horizon = now if oldest is None else min(now, from_ms(oldest))
            return horizon, states.due(con, to_ms(horizon), limit)

        return self._read(read)

    # ---- the sender ----

    async def lease(
        self, now: datetime, lanes: int, calls: int, hold: timedelta, *, afresh: bool = False
    ) -> Sequence[Lane]:
        """Lend the lanes that have waited longest."""

        def write(con: sqlite3.Connection, _: Ledger) -> Sequence[Lane]:
            if afresh:
                outbox.hasten(con, now)
            return outbox.lease(con, now, lanes, calls, hold)

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
        return self._read(lambda con, _: outbox.next_due(con))

    # ---- upkeep ----

    async def census(self) -> Census:
        """Return the counts, as long as the file is sound and still the one that was opened."""
        if self._inspection is not None and self._inspection.damage is not None:
            raise StoreBroken(self._inspection.damage)
        if files.identity(self._path) != self._file:
            raise StoreBroken("the file of the store is another than the one that was opened")
        return self._read(partial(upkeep.census, path=self._path, full=self._writing().full))

    async def sweep(self, now: datetime, retention: timedelta, max_size: int) -> int:
        """Take steps until one has deleted something, or nothing is left to look at."""
        edge, rounds = to_ms(now - retention), self._writing()

        def step(con: sqlite3.Connection, ledger: Ledger) -> upkeep.Swept:
            swept = upkeep.sweep(con, ledger, edge, max_size=max_size, path=self._path, full=rounds.full)
            rounds.give_back(swept.spare)
            return swept

        while True:
            swept = await rounds.write(Turn.DESK, step)
            if swept.deleted or not swept.more:
                return swept.deleted

    # ---- the desk ----

    async def residences(self) -> Sequence[Residence]:
        """Return the directory, by user and location."""
        return await self._read_aside(lambda con, _: desk.residences(con))

    async def write_residences(self, rows: Sequence[Residence], remove: Sequence[tuple[str, str | None]] = ()) -> int:
        """Upsert and remove directory rows, 100 at a time."""
        differ = 0
        for some in in_steps(rows):
            differ += await self._write_some(some, ())
        for others in in_steps(remove):
            differ += await self._write_some((), others)
        return differ

    async def _write_some(self, rows: Sequence[Residence], remove: Sequence[tuple[str, str | None]]) -> int:
        return await self._writing().write(Turn.DESK, partial(desk.write_residences, rows=rows, remove=remove))

    async def building(self, building: str) -> Versioned | None:
        """Return a building's state."""
        return self._read(lambda con, _: states.states(con, [building], self._recent).get(building))

    async def dead_letters(self, which: DeadFilter, after: int = 0, limit: int = 100) -> Sequence[DeadLetter]:
        """Return dead letters with id > after, in order."""
        return await self._read_aside(lambda con, _: desk.dead_letters(con, which, after, limit))

    async def retry(self, ids: Sequence[int], now: datetime) -> int:
        """Put dead letters back into the flow, 100 at a time."""
        return await self._in_steps(ids, lambda con, ledger, some: desk.retry(con, ledger, some, now))

    async def discard(self, ids: Sequence[int], now: datetime) -> int:  # noqa: ARG002 - the promise names it
        """Give dead letters up, 100 at a time."""
        return await self._in_steps(ids, desk.discard)

    async def _in_steps(
        self, ids: Sequence[int], write: Callable[[sqlite3.Connection, Ledger, Sequence[int]], int]
    ) -> int:
        done = 0
        for some in by_id(ids):
            done += await self._writing().write(
                Turn.DESK,
                lambda con, ledger, some=some: write(con, ledger, some),  # type: ignore[misc]
            )
        return done

    async def trip(self, message_id: int) -> MessageTrip | None:
        """Return the trip of one message."""
        return await self._read_aside(partial(desk.trip, number=message_id))

    async def raw(self, since: datetime | None, until: datetime | None) -> AsyncIterator[Pending]:
        """Stream stored raw messages received in [since, until), in order of acceptance."""
        start, end, after = maybe_ms(since) or 0, maybe_ms(until) or 1 << 62, 0
        while page := await self._read_aside(lambda con, _: desk.raw(con, after, start, end)):  # noqa: B023 - run at once
            for message in page:
                yield message
            after = page[-1].id

    async def reach(self) -> Reach:
        """Return how far back messages and calls are complete."""
        return self._read(lambda _, ledger: ledger.reach(ledger.cursor))

    async def settled(self, after: int, limit: int = 100) -> Sequence[Pending]:
        """Return settled messages with id > after, in order."""
        return await self._read_aside(lambda con, ledger: desk.settled(con, ledger, after, limit))

    async def of_users(self, users: Collection[str]) -> Sequence[int]:
        """Return the ids of the settled messages of some users, in order."""
        asked, found = to_json(sorted(users)), set[int]()
        last: int | None = 0
        while last is not None:
            last, ids = await self._read_aside(partial(desk.of_users, after=last, users=asked))
            found.update(ids)
        return sorted(found)

    async def messages(self, ids: Sequence[int]) -> Sequence[Pending]:
        """Return the messages with these ids that are still there, 100 at a time."""
        found: list[Pending] = []
        for some in by_id(ids):
            found += await self._read_aside(lambda con, _, some=some: desk.messages(con, some))  # type: ignore[misc]
        return found

    async def ticks(self, building: str) -> Sequence[Ticked]:
        """Return the remembered ticks of a building, in order."""
        return await self._read_aside(lambda con, _: desk.ticks(con, building))

    async def event_calls(self, building: str, after: int = 0, limit: int = 100) -> Sequence[CallTrip]:
        """Return the calls with events of a building that are remembered, with id > after, in order."""
        return await self._read_aside(lambda con, _: desk.event_calls(con, building, after, limit))

    async def unowned(self) -> AsyncIterator[Pending]:
        """Stream the messages whose user the store does not know."""
        for statement in forgetting.UNOWNED:
            after = 0
            while page := await self._read_aside(lambda con, _: forgetting.unowned(con, statement, after)):  # noqa: B023 - run at once
                for message in page:
                    yield message
                after = page[-1].id

    async def owned(self, user: str) -> AsyncIterator[Sequence[int]]:
        """Stream pages of the ids of messages that the worker found to be a user's."""
        after: int | None = 0
        while after is not None:
            page, after = await self._read_aside(partial(_owned, user=user, after=after))
            yield page
        yield await self._read_aside(lambda con, _: forgetting.apart(con, user))

    async def buildings_of(self, user: str, raw_users: Collection[str]) -> Sequence[str]:
        """Return the buildings that know a user; states are looked through a page at a time."""
        found = set(await self._read_aside(lambda con, _: forgetting.buildings_by_rows(con, user)))
        after: str | None = ""
        while after is not None:
            page, after = await self._read_aside(partial(_knowing, user=user, raw_users=raw_users, after=after))
            found.update(page)
        return sorted(found)

    async def _erase(self, write: Callable[[sqlite3.Connection, Ledger], T]) -> T:
        """Write in a transaction that overwrites what it deletes."""

        def thoroughly(con: sqlite3.Connection, ledger: Ledger) -> T:
            con.execute("PRAGMA secure_delete = ON")
            return write(con, ledger)

        return await self._writing().write(Turn.DESK, thoroughly)

    async def _erase_messages(self, ids: Sequence[int]) -> Erased:
        return await self._erase(partial(forgetting.messages, ids=ids))

    async def _erase_user(self, user: str) -> Erased:
        after: int | None = 0
        while after is not None:
            after = await self._erase(partial(_disown, user=user, after=after))
        return await self._erase(lambda con, _: forgetting.rows_of_user(con, user))

    async def _erase_building(self, name: str) -> Step:
        return await self._erase(partial(forgetting.building, name=name))

    async def _redact_sheet(self, name: str, what: Redaction) -> None:
        await self._erase(lambda con, _: forgetting.sheet(con, name, what))

    async def _redact_calls(self, name: str, what: Redaction, after: int, now: datetime) -> Step:
        return await self._erase(partial(forgetting.calls, name=name, what=what, after=after, now=to_ms(now)))

    async def _redact_letters(self, name: str, what: Redaction, after: int) -> Step:
        return await self._erase(partial(forgetting.letters, name=name, what=what, after=after))

    async def compact(self, *, gently: bool) -> bool:
        """Give free pages back and empty the log; where that is quick, or not `gently`, write the whole file anew.

        Free pages are not all: what a page held before its rows were moved to another may stay in the gap between its
        rows, whatever secure_delete says (tried: 28 fragments of 3,000 rows). Only a file written anew has none.
        """
        whole = not gently or files.small(self._path) or not (self._exclusive or files.served(self._beside("-lock")))
        if not whole:
            rounds = self._writing()

            def step(con: sqlite3.Connection, _: Ledger) -> int:
                spare = upkeep.spare_pages(con)
                rounds.give_back(spare)
                return spare

            while await rounds.write(Turn.DESK, step):
                pass
        await asyncio.to_thread(self._empty, whole=whole)
        return whole

    def _empty(self, *, whole: bool) -> None:
        with translated():
            con = files.connect(self._path, write=True)
            try:
                if whole:
                    files.rewrite(con, self._path)
                files.empty_log(con)
            finally:
                con.close()

    async def verify(self) -> Sequence[str]:
        """Check the file, and the ledger against the rows; one sentence per problem.

        Reads everything, in a thread; beside a busy daemon the log grows until it is done.
        """
        try:
            return await self._read_aside(upkeep.verify)
        except StoreUnavailable as error:
            return [str(error)]


def _claim(con: sqlite3.Connection, ledger: Ledger, *, limit: int) -> tuple[list[Pending], list[tuple[str, int]]]:
    changed = con.execute("SELECT user, change FROM changed ORDER BY change LIMIT ?", (CHANGED_USERS,)).fetchall()
    return inbox.claim(con, ledger, limit), changed


def _owned(con: sqlite3.Connection, _: Ledger, *, user: str, after: int) -> tuple[list[int], int | None]:
    return forgetting.owned(con, user, after)


def _knowing(
    con: sqlite3.Connection, _: Ledger, *, user: str, raw_users: Collection[str], after: str
) -> tuple[list[str], str | None]:
    return forgetting.buildings_by_state(con, user, sorted(raw_users), after)


def _disown(con: sqlite3.Connection, _: Ledger, *, user: str, after: int) -> int | None:
    return forgetting.disown(con, user, after)


def _transaction(con: sqlite3.Connection, read: Read[T]) -> T:
    with translated():
        con.execute("BEGIN")
        try:
            ledger = _ledgers.decode(con.execute("SELECT ledger FROM bridge").fetchone()[0])
            return read(con, ledger)
        finally:
            con.execute("ROLLBACK")


@contextmanager
def translated() -> Iterator[None]:
    """Turn an error of the database into the condition behind it."""
    try:
        yield
    except sqlite3.Error as error:
        condition = files.unavailable(error)
        if condition is None:
            raise
        raise condition from error
