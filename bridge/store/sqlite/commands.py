"""The embedded store, as the commands see it.

Rules:
- What writes goes through the rounds, in their last turn.
- What reads much reads in a thread, from a connection of its own.
"""

import asyncio
import contextlib
import sqlite3
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from bridge.core.model import Residence
from bridge.core.vocabulary import DeviceKey, Kind
from bridge.store.codec import maybe_ms, to_json, to_ms
from bridge.store.desk import CallTrip, DeadFilter, DeadLetter, Erased, MessageTrip, Reach, Redaction, Ticked
from bridge.store.erasing import Eraser, Step
from bridge.store.ledger import Ledger
from bridge.store.port import Pending, StoreUnavailable, Versioned
from bridge.store.recent import Recent
from bridge.store.sqlite import buildings as states
from bridge.store.sqlite import desk, files, forgetting, lives, lock, upkeep
from bridge.store.sqlite.reads import Read, translated
from bridge.store.sqlite.rounds import Rounds, Turn
from bridge.store.steps import both_in_steps, by_id

T = TypeVar("T")


class SqliteDesk(Eraser):
    """What the commands ask of one file."""

    LENT_S = 0.1

    _path: Path  # this and what follows is for the keeper to bring
    _exclusive: bool

    @abstractmethod
    def _writing(self) -> Rounds:
        """Return what writes; raises StoreUnavailable while the store is not open."""

    @abstractmethod
    async def _read(self, read: Read[T]) -> T:
        """Run a read in one transaction."""

    @abstractmethod
    async def _read_aside(self, read: Read[T]) -> T:
        """Run a long read in a thread, on a connection of its own."""

    async def residences(self) -> Sequence[Residence]:
        """Return the directory, by user and location."""
        return await self._read_aside(lambda con, _: desk.residences(con))

    async def write_residences(self, rows: Sequence[Residence], remove: Sequence[tuple[str, str | None]] = ()) -> int:
        """Upsert and remove directory rows, 100 at a time."""
        return await both_in_steps(self._write_some, rows, remove)

    async def _write_some(self, rows: Sequence[Residence], remove: Sequence[tuple[str, str | None]]) -> int:
        return await self._writing().write(Turn.DESK, partial(desk.write_residences, rows=rows, remove=remove))

    async def building(self, building: str) -> Versioned | None:
        """Return a building's state."""
        return await self._read(lambda con, _: states.states(con, [building], Recent()).get(building))

    async def flagged(self, flag: str, after: str = "", limit: int = 100) -> Sequence[str]:
        """Return the ids > after of buildings with a flag, in order."""
        return await self._read_aside(lambda con, _: desk.flagged(con, flag, after, limit))

    async def where_is(self, kind: Kind, device: str) -> Mapping[DeviceKey, str]:
        """Return where a device lives, of each subscription that has one of this kind and id."""
        return await self._read_aside(lambda con, _: states.where_is(con, kind, device))

    async def dead_letters(self, which: DeadFilter, after: int = 0, limit: int = 100) -> Sequence[DeadLetter]:
        """Return dead letters with id > after, in order."""
        return await self._read_aside(lambda con, _: desk.dead_letters(con, which, after, limit))

    async def oldest_letters(
        self, *, before: datetime | None = None, subscription: str | None = None, limit: int = 100
    ) -> Sequence[DeadLetter]:
        """Return the oldest dead letters that may be given up."""
        edge = maybe_ms(before)
        return await self._read(lambda con, _: desk.oldest_letters(con, edge, subscription, limit))

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
        return await self._read(lambda _, ledger: ledger.reach(ledger.cursor))

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

    # ---- forgetting ----

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
        rows, whatever secure_delete says (tried: 28 fragments of 3,000 rows). Only a file written anew has none. Raises
        StoreUnavailable where the disk has no room for that; `gently` it is left out then.
        """
        whole = not gently or files.small(self._path) or not (self._exclusive or lock.served(self._path))
        used = await self._read(lambda con, _: upkeep.size_bytes(con, self._path))
        no_room = files.no_room_to_rewrite(self._path, used) if whole else None
        if no_room is not None and not gently:
            raise StoreUnavailable(no_room)
        if no_room is not None:
            whole = False
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

    async def backup(self, target: Path) -> None:
        """Write a copy of the store as of one moment, beside a running daemon; raise FileExistsError if it is there.

        The copy is complete, or not there. The log grows as long as it takes.
        """
        await asyncio.to_thread(self._copy, target)

    def _copy(self, target: Path) -> None:
        if target.exists():
            raise FileExistsError(target)
        part = target.with_name(target.name + "-part")
        part.unlink(missing_ok=True)
        try:
            with translated():
                con = files.connect(self._path, write=False)
                try:
                    files.copy(con, part)
                finally:
                    con.close()
                _begin_anew(part)
            part.rename(target)
            files.sync_folder(target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    async def verify(self) -> Sequence[str]:
        """Check the file, and the ledger against the rows; one sentence per problem.

        Reads everything, in a thread; beside a busy daemon the log grows until it is done.
        """
        try:
            return await self._read_aside(upkeep.verify)
        except StoreUnavailable as error:
            return [str(error)]


def _begin_anew(copy: Path) -> None:
    """Let nobody take what a daemon has in hand for what was in hand when it ended."""
    with contextlib.closing(files.connect(copy, write=True)) as con:
        lives.forget(con)
        files.empty_log(con)


def _owned(con: sqlite3.Connection, _: Ledger, *, user: str, after: int) -> tuple[list[int], int | None]:
    return forgetting.owned(con, user, after)


def _knowing(
    con: sqlite3.Connection, _: Ledger, *, user: str, raw_users: Collection[str], after: str
) -> tuple[list[str], str | None]:
    return forgetting.buildings_by_state(con, user, sorted(raw_users), after)


def _disown(con: sqlite3.Connection, _: Ledger, *, user: str, after: int) -> int | None:
    return forgetting.disown(con, user, after)
