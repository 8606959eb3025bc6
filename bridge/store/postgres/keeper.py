"""The shared store, as the rooms see it; for the commands see `commands`.

Rules:
- Five lines to the server: the door, the worker and the clock, the sender, those who look, and the commands of this
  process. None waits for another's transaction.
- A daemon is a replica (see `replicas`); a command is none, and needs no lease.
- A settlement whose end was not heard is looked up before the next one: the sender says everything again, and what has
  been written already is left out.
- A worker's step whose end was not heard needs no looking up: what it has written shows when it claims again.
- The server's clock is compared with ours at each sign of life; see `clock`.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Final, TypeVar

from bridge import logs
from bridge.core.model import Residence
from bridge.core.vocabulary import DeviceKey
from bridge.store import ranks
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
    StoreUnavailable,
    Work,
)
from bridge.store.postgres import buildings as states
from bridge.store.postgres import inbox, outbox, replicas, schema, upkeep
from bridge.store.postgres import work as steps
from bridge.store.postgres.clock import NOW, ServerClock, steady
from bridge.store.postgres.commands import PostgresDesk
from bridge.store.postgres.conditions import translated
from bridge.store.postgres.connection import LEAVE_S, STATEMENT_S, Connection, leave
from bridge.store.postgres.door import Door
from bridge.store.postgres.line import Line, Read, TakenOver, Unsure, Write
from bridge.store.postgres.servers import Servers
from bridge.store.recent import Recent
from bridge.store.repeats import KNOWN_FOR

CHANGED_USERS: Final = 100
"""Users whose directory changed, per claim."""

STATES_AT_ONCE: Final = 100
"""States decoded without a pause, some 30 µs each where they are not known."""

STEP_S: Final = 1.0
"""A server's clock that moves by more was set; less is how long it takes to ask."""

DIFFERS_S: Final = 5.0
"""A clock of this machine that is further off is told."""

BELONGS_S: Final = 60.0
"""How long this process trusts that whose a device is has been written."""

FOLLOW_S: Final = 10.0
"""How often it is looked where the names of the servers point."""

DOOR_S: Final = 5.0
"""How long a statement of the door may take: who waits for a 202 hears in time that there is none."""

_log = logs.logger("store")

_LINES: Final = (*replicas.PARTS, "look")

_AS_TO_ACCEPT: Final = "LOCK TABLE inbox, waiting, seen IN ROW EXCLUSIVE MODE"
"""What another session that holds a table keeps from the door; the counts are written in any case."""

T = TypeVar("T")
Whose = Callable[[Arrival], tuple[str | None, str | None]]


def nobody(_: Arrival) -> tuple[None, None]:
    """Tell neither the user nor the device of a message."""
    return None, None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unheard:
    """A settlement whose end was not heard."""

    end: Unsure
    settlements: Sequence[Settlement]
    returned: Sequence[Return]


class PostgresStore(PostgresDesk):
    """A store in a database that any number of bridges share."""

    def __init__(  # noqa: PLR0913 - what differs between a daemon, a command and a test
        self,
        url: str | Callable[[], str],
        *,
        dry: bool = False,
        serving: bool = False,
        migrate: bool = False,
        whose: Whose = nobody,
        committed: Callable[[float], None] = lambda _seconds: None,
        lease: timedelta = replicas.LEASE,
        beat: timedelta = replicas.BEAT,
        told: bool = False,
    ) -> None:
        """Name the database, or what tells its address anew for each connection.

        `serving` is for the daemon, `dry` says that its calls do not leave.

        `whose` tells the user and the device that a message names; `committed` hears how long a transaction took [s].
        `told` is for tests that play with time: leases and turns go by the times that they tell.
        """
        self._servers = Servers(url if callable(url) else lambda: url)
        self._dry, self._serving, self._migrate = dry, serving, migrate
        self._whose = whose
        self._lease, self._beat = lease, beat
        longest = dict.fromkeys(_LINES, STATEMENT_S) | {"door": DOOR_S}
        self._lines = {
            part: Line(
                part,
                partial(self._servers.connect, statement_s=longest[part]),
                committed,
                connect_s=DOOR_S if part == "door" else None,
            )
            for part in _LINES
        }
        self._share = replicas.Share()
        self._sharing = asyncio.Lock()
        self._turns = outbox.Turns(told=told)
        self._clock = ServerClock()
        self._set_back = False  # that clock was, and the leases of replicas do not know yet
        self._differs = False  # the clock of this machine from the server's, as last told
        self._belongs = inbox.Belongs()
        self._belongs_until = 0.0
        self._door = Door(self._store_round)
        self._recent = Recent()
        self._shown: dict[str, int] = {}
        self._claimed = claimed(())
        self._named = False  # some messages are named as the next
        self._began = False  # messages are being taken one by one
        self._unheard: _Unheard | None = None
        self._swept = 0
        self._pulse: list[asyncio.Task[None]] = []
        self._writable = True  # False from an accept that failed until a write of the door has gone through
        self._proof: asyncio.Task[None] | None = None
        self.steps_taken = 0  # of the schema, at `open`

    # ---- opening ----

    async def open(self) -> None:
        """Connect, make or check the tables; the daemon enters itself as a replica. May be tried again."""
        self._servers.store = None
        try:
            await self._servers.probe()
            con = await self._servers.connect(statement_s=None)
            try:
                with translated(whatever=True):
                    self.steps_taken = await schema.prepare(con, migrate=self._migrate)
                    self._servers.store = await con.fetchval(schema.IDENTITY)
                    if self._serving:
                        await schema.mark(con, dry=self._dry)
            finally:
                await leave(con)
            if self._serving:
                await self._enter()
                await self._look(self._show_life)
                if self._share.alone:  # as after a restart, perhaps by another clock
                    await self._write("send", lambda con, _: outbox.hasten(con, 0, timedelta()))
                self._pulse = [
                    asyncio.create_task(self._live(), name="store-pulse"),
                    asyncio.create_task(self._follow(), name="store-names"),
                ]
        except BaseException:
            await self._leave_all()
            raise

    async def close(self) -> None:
        """Finish what was begun, give everything back, close."""
        await self._door.close()
        await self._leave_all()
        await asyncio.gather(*(line.close() for line in self._lines.values()))

    async def _leave_all(self) -> None:
        """Give everything back, end all sessions; the store may be opened again."""
        tasks = [*self._pulse, *([self._proof] if self._proof is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._pulse, self._proof = [], None
        if self._share.replica:
            with contextlib.suppress(StoreUnavailable, TimeoutError):  # the others take over when the lease ends
                async with asyncio.timeout(LEAVE_S):
                    await self._leave()
            self._share.replica = 0
        await asyncio.gather(*(line.rest() for line in self._lines.values()))

    async def _leave(self) -> None:
        replica = self._share.replica

        async def write(con: Connection, ledger: Ledger) -> None:
            await outbox.free(con, ledger, replica)

        await self._lines["send"].write(write)
        self._share.replica = 0

        async def over(con: Connection) -> None:
            async with con.transaction():
                await replicas.take_over(con, replica, in_order=True)

        await self._lines["look"].read(over)

    async def _enter(self) -> None:
        """Become a replica, a new one where this was one before."""
        works = self._share.works
        replica = await self._look(lambda con: replicas.register(con, self._lease, works=works))
        self._share = replicas.Share(replica=replica, works=works)
        self._turns.holder = replica
        for part in replicas.PARTS:
            self._lines[part].becomes(replica)

    @property
    def clock(self) -> Callable[[], datetime]:
        """Return the clock that all who share this store go by."""
        return self._clock.now

    async def _show_life(self, con: Connection) -> None:
        """Give a sign of life, and see what time it is for all."""
        asked = steady()
        self._learn(await con.fetchval(f"SELECT {NOW}"), asked)
        if self._set_back:
            self._set_back = False
            await replicas.hasten(con, self._lease)
        await replicas.beat(con, self._share, self._lease)
        self._compare()

    def _learn(self, told: float, asked: float) -> bool:
        """Take in what time it is for the server [epoch s]; return whether that is another time than was thought."""
        stepped = self._clock.learn(told, asked, steady())
        self._set_back |= stepped < -STEP_S
        if abs(stepped) > STEP_S:
            _log.warning("database_clock_stepped", seconds=round(stepped, 1))
        return abs(stepped) > STEP_S

    def _compare(self) -> None:
        """Say once that the clock of this machine is wrong, and once that it is right."""
        ahead = time.time() - self._clock.now().timestamp()
        differs = abs(ahead) > DIFFERS_S
        if differs and not self._differs:
            _log.warning("clock_differs", seconds=round(ahead, 1), goes_by="the database's clock")
        elif self._differs and not differs:
            _log.info("clock_right")
        self._differs = differs

    async def _live(self) -> None:
        """Give signs of life, as long as the server hears them."""
        while True:
            await asyncio.sleep(self._beat.total_seconds())
            with contextlib.suppress(StoreUnavailable):
                await self._look_around()

    async def _follow(self) -> None:
        """Give up the sessions with a server that its name does not mean any more."""
        while True:
            await asyncio.sleep(FOLLOW_S)
            for line in self._lines.values():
                await line.renew(self._servers.departed)

    async def _look_around(self) -> None:
        """Give a sign of life and take what is ours to do."""
        async with self._sharing:
            try:
                await self._look(self._show_life)
            except TakenOver:
                await self._enter()
                await self._look(self._show_life)

    async def _look(self, read: Read[T]) -> T:
        return await self._lines["look"].read(read)

    async def _write(self, part: str, write: Write[T]) -> T:
        """Write as this replica; where it has been taken over, as a new one."""
        try:
            return await self._lines[part].write(write)
        except TakenOver:
            await self._look_around()
            return await self._lines[part].write(write)

    async def _ask(self, read: Read[T]) -> T:
        return await self._lines["desk"].read(read)

    # ---- the door ----

    async def accept(self, arrivals: Sequence[Arrival]) -> Sequence[Receipt]:
        """Store new messages; returns after the server has fsynced them."""
        if not arrivals:
            return []
        return await self._door.accept([inbox.entry(arrival, *self._whose(arrival)) for arrival in arrivals])

    async def _store_round(self, entries: Sequence[inbox.Entry]) -> Sequence[Receipt]:
        if time.monotonic() > self._belongs_until:
            self._belongs.forget()
            self._belongs_until = time.monotonic() + BELONGS_S
        try:
            receipts = await self._write("door", lambda con, ledger: inbox.accept(con, ledger, entries, self._belongs))
        except BaseException as error:
            self._belongs.forget()  # what was written may not be there
            self._writable = self._writable and not isinstance(error, StoreUnavailable)
            raise
        self._writable = True
        return receipts

    async def _prove(self) -> None:
        """Find out whether a write of the door goes through again: that the server can be asked proves nothing."""
        with contextlib.suppress(StoreUnavailable):
            await self._write("door", lambda con, _: con.execute(_AS_TO_ACCEPT))
            self._writable = True

    # ---- the worker ----

    async def claim(self, limit: int) -> tuple[Sequence[Pending], Sequence[str]]:
        """Return the oldest pending messages of our users, and those of them whose directory rows changed."""
        if self._serving and not self._share.buckets:
            self._share.works = True
            await self._look_around()
        if self._share.surplus:
            async with self._sharing:
                await self._lines["work"].read(lambda con: replicas.give_back(con, self._share))
        share = self._share

        alone = await self._take_alone(share) if share.careful else []
        if alone:
            limit = 0

        async def read(con: Connection) -> tuple[list[Pending], dict[str, int]]:
            everything = not self._serving or len(share.buckets) == replicas.BUCKETS
            changed = await inbox.changes(con, share.buckets, CHANGED_USERS, everything=everything)
            return await inbox.claim(con, share.buckets, limit, everything=everything), changed

        messages, self._shown = await self._lines["work"].read(read)
        messages = alone or messages
        self._claimed = claimed(messages)
        return messages, list(self._shown)

    async def changed_among(self, users: Sequence[str]) -> Sequence[str]:
        """Return those of some users whose directory rows changed."""
        found = await self._lines["work"].read(lambda con: inbox.changed_among(con, users))
        self._shown |= found
        return list(found)

    async def _take_alone(self, share: replicas.Share) -> list[Pending]:
        """Return the next message that a replica which ended without a word may have had in hand."""
        if not self._began:
            self._began = True
            await asyncio.sleep(HEAD_START_S)
        alone = await self._write("work", lambda con, _: inbox.take(con, share.buckets, share.replica))
        if not alone:
            self._began = False
            if share is self._share:
                share.careful = False
        return alone

    async def load(self, users: Sequence[str], devices: Sequence[DeviceKey], buildings: Sequence[str]) -> Loaded:
        """Read directory rows, homes and states."""
        line = self._lines["work"]
        residences, homes = await line.read(lambda con: states.places(con, users, devices))
        named = {*buildings, *(home.building for home in homes.values())}
        named.update(row.building for rows in residences.values() for row in rows)
        asked, found = sorted(named), {}
        for start in range(0, len(asked), STATES_AT_ONCE):
            some = asked[start : start + STATES_AT_ONCE]
            found.update(await line.read(lambda con, some=some: states.states(con, some, self._recent)))  # type: ignore[misc]
        return Loaded(residences=residences, homes=homes, buildings=found)

    async def homes_of(self, user: str) -> dict[DeviceKey, str]:
        """Return all devices of a user."""
        return await self._lines["work"].read(lambda con: states.homes_of(con, user))

    async def directory_of(self, user: str) -> dict[str, tuple[Residence, ...]]:
        """Return the rows of the buildings that a changed user's rows name, or named before."""
        return await self._lines["work"].read(lambda con: states.directory_of(con, user))

    async def commit(self, work: Work) -> Sequence[str]:
        """Write a step of work, or return the buildings that have moved."""
        named = self._share.replica if work.hand or self._named else 0
        at = self._turns.at(work.turn or work.now)
        step = steps.prepare(work, self._recent, self._shown, self._claimed, named, at)
        try:
            versions = await self._lines["work"].write(partial(steps.commit, step=step))
        except steps.Moved as moved:
            return moved.buildings
        self._named = bool(work.hand)
        for number in (*work.settled, *(row[0] for row in work.dead), *(row[0] for row in work.parked)):
            self._claimed.pop(number, None)
        for row in work.buildings:
            self._recent.keep(row.state, versions[row.state.id])
        return []

    async def due(
        self, now: datetime, limit: int, used: Mapping[str, float] = NO_TIME
    ) -> tuple[datetime, Sequence[str]]:
        """Return the horizon, and the buildings due at it that no other clock has just been told of."""
        share = self._share

        async def read(con: Connection) -> tuple[datetime, Sequence[str]]:
            asked = steady()
            oldest, told = await inbox.front(con)
            if self._learn(told, asked):
                return now, []  # it is not now; the next look knows better
            horizon = now if oldest is None else min(now, from_ms(oldest))
            if share.alone or not share.replica:
                return horizon, await states.due(con, to_ms(horizon), limit, used)
            return horizon, await states.take_due(con, to_ms(horizon), limit, used, share.replica)

        return await self._look(read)

    # ---- the sender ----

    async def lease(
        self,
        now: datetime,
        lanes: int,
        calls: int,
        hold: timedelta,
        *,
        held: Mapping[ranks.Line, int] = NO_LINES,
        afresh: bool = False,
    ) -> Sequence[Lane]:
        """Lend the lanes that have waited longest, in turns over the lines."""
        asked = outbox.Asked(now=now, lanes=lanes, calls=calls, hold=hold, held=held)

        async def write(con: Connection, ledger: Ledger) -> list[Lane]:
            if afresh:
                await outbox.hasten(con, self._turns.at(now), hold)
            return await outbox.lease(con, ledger, self._turns, asked)

        return await self._write("send", write)

    async def settle(
        self, now: datetime, settlements: Sequence[Settlement], begun: Sequence[Begin], returned: Sequence[Return]
    ) -> Sequence[int]:
        """Write what became of calls, which go on the wire next, and which lanes are given back.

        Returns the named calls that are not there any more, or whose lane has been lent to another meanwhile.
        """
        await self._hear()
        unheard = self._unheard
        said = outbox.Report(
            now=now,
            settlements=_without(settlements, unheard.settlements if unheard else ()),
            begun=begun,
            returned=_without(returned, unheard.returned if unheard else ()),
        )
        try:
            gone = await self._write("send", lambda con, ledger: outbox.settle(con, ledger, self._turns, said))
        except Unsure as unsure:
            self._unheard = _Unheard(end=unsure, settlements=settlements, returned=returned)
            raise
        self._unheard = None
        for back in returned:
            self._turns.mine.pop(back.building, None)
        return gone

    async def _hear(self) -> None:
        """Find out what became of a settlement whose end was not heard."""
        if self._unheard is not None and not await self._lines["send"].resolve(self._unheard.end):
            self._unheard = None

    async def next_due(self) -> datetime | None:
        """Return when `lease` could next lend something."""
        return await self._look(outbox.next_due)

    # ---- upkeep ----

    async def census(self) -> Census:
        """Return the counts of all replicas together."""
        found = await self._look(upkeep.census)
        if not self._writable and (self._proof is None or self._proof.done()):
            self._proof = asyncio.create_task(self._prove(), name="store-proof")
        return replace(found, writable=self._writable)

    async def sweep(self, now: datetime, retention: timedelta, max_size: int) -> int:
        """Take steps until one has deleted something, or nothing is left to look at; then begin at the front again."""
        edge, young = to_ms(now - retention), to_ms(now - KNOWN_FOR)
        while True:
            after = self._swept
            swept = await self._write(
                "desk",
                lambda con, ledger: upkeep.sweep(con, ledger, edge, young, max_size, after),  # noqa: B023
            )
            self._swept = swept.last if swept.more else 0
            if swept.deleted or not swept.more:
                return swept.deleted


def _without(said: Sequence[T], before: Sequence[T]) -> Sequence[T]:
    """Leave out what was said before: whoever repeats himself says the same things, not equal ones."""
    known = {id(one) for one in before}
    return [one for one in said if id(one) not in known] if known else said
