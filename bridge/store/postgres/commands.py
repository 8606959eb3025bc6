"""The shared store, as the commands see it.

Rules:
- What they ask goes over a line of its own: neither the door nor the rooms wait for a command.
- What takes as long as the store is large has a connection for itself.
"""

from abc import abstractmethod
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TypeVar

from bridge.core.model import Residence
from bridge.core.vocabulary import DeviceKey, Kind
from bridge.store.codec import maybe_ms
from bridge.store.desk import CallTrip, DeadFilter, DeadLetter, Erased, MessageTrip, Reach, Redaction, Ticked
from bridge.store.erasing import Eraser, Step
from bridge.store.port import Pending, StoreUnavailable, Versioned
from bridge.store.postgres import buildings as states
from bridge.store.postgres import desk, forgetting, inbox, outbox, upkeep
from bridge.store.postgres.conditions import translated
from bridge.store.postgres.connection import Connection, leave
from bridge.store.postgres.line import Line, Read, Write
from bridge.store.postgres.servers import Servers
from bridge.store.recent import Recent
from bridge.store.steps import both_in_steps, by_id

T = TypeVar("T")


class PostgresDesk(Eraser):
    """What the commands ask of one database."""

    LENT_S = 0.5

    _servers: Servers  # this and what follows is for the keeper to bring
    _recent: Recent
    _turns: outbox.Turns

    @abstractmethod
    async def _ask(self, read: Read[T]) -> T:
        """Read over the line of the commands."""

    @abstractmethod
    async def _write(self, part: str, write: Write[T]) -> T:
        """Write over a line; where this replica has been taken over, as a new one."""

    async def residences(self) -> Sequence[Residence]:
        """Return the directory, by user and location."""
        return await self._ask(desk.residences)

    async def write_residences(self, rows: Sequence[Residence], remove: Sequence[tuple[str, str | None]] = ()) -> int:
        """Upsert and remove directory rows, 100 at a time."""
        return await both_in_steps(self._write_some, rows, remove)

    async def _write_some(self, rows: Sequence[Residence], remove: Sequence[tuple[str, str | None]]) -> int:
        return await self._write("desk", lambda con, _: desk.write_residences(con, rows, remove))

    async def building(self, building: str) -> Versioned | None:
        """Return a building's state."""
        found = await self._ask(lambda con: states.states(con, [building], self._recent))
        return found.get(building)

    async def flagged(self, flag: str, after: str = "", limit: int = 100) -> Sequence[str]:
        """Return the ids > after of buildings with a flag, in order."""
        return await self._ask(lambda con: desk.flagged(con, flag, after, limit))

    async def where_is(self, kind: Kind, device: str) -> Mapping[DeviceKey, str]:
        """Return where a device lives, of each subscription that has one of this kind and id."""
        return await self._ask(lambda con: states.where_is(con, kind, device))

    async def dead_letters(self, which: DeadFilter, after: int = 0, limit: int = 100) -> Sequence[DeadLetter]:
        """Return dead letters with id > after, in order."""
        return await self._ask(lambda con: desk.dead_letters(con, which, after, limit))

    async def oldest_letters(
        self, *, before: datetime | None = None, subscription: str | None = None, limit: int = 100
    ) -> Sequence[DeadLetter]:
        """Return the oldest dead letters that may be given up."""
        edge = maybe_ms(before)
        return await self._ask(lambda con: desk.oldest_letters(con, edge, subscription, limit))

    async def retry(self, ids: Sequence[int], now: datetime) -> int:
        """Put dead letters back into the flow, 100 at a time."""
        done, at = 0, self._turns.at(now)
        for some in by_id(ids):
            done += await self._write("desk", lambda con, ledger, some=some: desk.retry(con, ledger, some, now, at))  # type: ignore[misc]
        return done

    async def discard(self, ids: Sequence[int], now: datetime) -> int:  # noqa: ARG002 - the promise names it
        """Give dead letters up, 100 at a time."""
        done = 0
        for some in by_id(ids):
            done += await self._write("desk", lambda con, ledger, some=some: desk.discard(con, ledger, some))  # type: ignore[misc]
        return done

    async def trip(self, message_id: int) -> MessageTrip | None:
        """Return the trip of one message."""
        return await self._ask(lambda con: desk.trip(con, message_id))

    async def raw(self, since: datetime | None, until: datetime | None) -> AsyncIterator[Pending]:
        """Stream stored raw messages received in [since, until), in order of acceptance."""
        start, end, after = maybe_ms(since) or 0, maybe_ms(until) or 1 << 62, 0
        while page := await self._ask(lambda con: desk.raw(con, after, start, end)):  # noqa: B023 - run at once
            for message in page:
                yield message
            after = page[-1].id

    async def reach(self) -> Reach:
        """Return how far back messages and calls are complete."""

        async def read(con: Connection) -> Reach:
            return (await upkeep.ledger(con)).reach(await inbox.cursor(con))

        return await self._ask(read)

    async def settled(self, after: int, limit: int = 100) -> Sequence[Pending]:
        """Return settled messages with id > after, in order."""
        return await self._ask(lambda con: desk.settled(con, after, limit))

    async def of_users(self, users: Collection[str]) -> Sequence[int]:
        """Return the ids of the settled messages of some users, in order."""
        last, asked, found = await self._ask(forgetting.last_owner), sorted(users), set[int]()
        for after in range(0, last, forgetting.OWNERS):
            found.update(await self._ask(lambda con: desk.of_users(con, asked, after, forgetting.OWNERS)))  # noqa: B023
        return sorted(found)

    async def messages(self, ids: Sequence[int]) -> Sequence[Pending]:
        """Return the messages with these ids that are still there, 100 at a time."""
        found: list[Pending] = []
        for some in by_id(ids):
            found += await self._ask(lambda con, some=some: desk.messages(con, some))  # type: ignore[misc]
        return found

    async def ticks(self, building: str) -> Sequence[Ticked]:
        """Return the remembered ticks of a building, in order."""
        return await self._ask(lambda con: desk.ticks(con, building))

    async def event_calls(self, building: str, after: int = 0, limit: int = 100) -> Sequence[CallTrip]:
        """Return the calls with events of a building that are remembered, with id > after, in order."""
        return await self._ask(lambda con: desk.event_calls(con, building, after, limit))

    # ---- forgetting ----

    async def unowned(self) -> AsyncIterator[Pending]:
        """Stream the messages whose user the store does not know."""
        after = 0
        while page := await self._ask(lambda con: forgetting.unowned(con, after)):  # noqa: B023 - run at once
            for message in page:
                yield message
            after = page[-1].id

    async def owned(self, user: str) -> AsyncIterator[Sequence[int]]:
        """Stream pages of the ids of messages that the worker found to be a user's."""
        last = await self._ask(forgetting.last_owner)
        for after in range(0, last, forgetting.OWNERS):
            yield await self._ask(lambda con: forgetting.owned(con, user, after))  # noqa: B023 - run at once
        yield await self._ask(lambda con: forgetting.apart(con, user))

    async def buildings_of(self, user: str, raw_users: Collection[str]) -> Sequence[str]:
        """Return the buildings that know a user; states are looked through a page at a time."""
        found = set(await self._ask(lambda con: forgetting.buildings_by_rows(con, user)))
        spelled, after = sorted(raw_users), ""
        while True:
            page, last = await self._ask(lambda con: forgetting.buildings_by_state(con, user, spelled, after))  # noqa: B023
            found.update(page)
            if last is None:
                return sorted(found)
            after = last

    async def _erase(self, write: Write[T]) -> T:
        return await self._write("desk", write)

    async def _erase_messages(self, ids: Sequence[int]) -> Erased:
        return await self._erase(partial(forgetting.messages, ids=ids))

    async def _erase_user(self, user: str) -> Erased:
        last = await self._ask(forgetting.last_owner)
        for after in range(0, last, forgetting.OWNERS):
            await self._erase(lambda con, _: forgetting.disown(con, user, after))  # noqa: B023 - run at once
        return await self._erase(lambda con, _: forgetting.rows_of_user(con, user))

    async def _erase_building(self, name: str) -> Step:
        return await self._erase(partial(forgetting.building, name=name))

    async def _redact_sheet(self, name: str, what: Redaction) -> None:
        await self._erase(lambda con, _: forgetting.sheet(con, name, what))

    async def _redact_calls(self, name: str, what: Redaction, after: int, now: datetime) -> Step:
        at = self._turns.at(now)
        return await self._erase(partial(forgetting.calls, name=name, what=what, after=after, at=at))

    async def _redact_letters(self, name: str, what: Redaction, after: int) -> Step:
        return await self._erase(partial(forgetting.letters, name=name, what=what, after=after))

    async def compact(self, *, gently: bool) -> bool:
        """Let the room of deleted rows be used again; unless `gently`, write the tables anew, while nobody else can.

        What the server's write-ahead log and backups hold is for the operator.
        """
        con = await self._servers.connect(statement_s=None)
        try:
            with translated():
                for table in forgetting.TABLES:
                    await con.execute(f"VACUUM {table}" if gently else f"VACUUM (FULL, ANALYZE) {table}")
        finally:
            await leave(con)
        return not gently

    async def verify(self) -> Sequence[str]:
        """Check the ledger against the rows; one sentence per problem. Reads everything, on one snapshot."""
        line = Line("look", partial(self._servers.connect, statement_s=None), lambda _seconds: None)
        try:
            return await line.snapshot(upkeep.verify)
        except StoreUnavailable as error:
            return [str(error)]
        finally:
            await line.close()
