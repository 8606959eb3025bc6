"""One connection for one part of the bridge, and its transactions.

Rules:
- A line runs one transaction after the other; another line does not wait for it.
- A transaction ends with the counts that it changes, on a row that only this line writes. Where the row is missing
  this replica was away for too long and others have taken over: nothing is written (`TakenOver`).
- A connection that has failed is not used again; the next transaction takes a fresh one. One that has rested for a
  while is asked whether it is still there: what is in between may have cut it, or its server is gone without a word.
- At its end a transaction looks whether the session is what it was when it was set up: what its promise rests on holds.
- A transaction whose end was not heard is `Unsure`. The row of the counts holds how many transactions the line has
  committed; read before the line writes again, it tells whether that one was among them (`resolve`).

Theory of operation: what a line has counted so far is kept in memory and written whole, so that a transaction need not
read it. After any failure it is read anew, and locked: the server may still be at work on what failed.

A transaction is not known by the server's number for it: after a failover the new server may not have heard of it, or
may have given the same number to another transaction; and behind a coordinator (Citus) the number is not the one of the
server that holds the rows.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import asyncpg  # type: ignore[import-untyped]
import msgspec

from bridge.store.ledger import Ledger, total
from bridge.store.port import StoreUnavailable
from bridge.store.postgres.conditions import AGAIN, FAILED, POOLED, translated
from bridge.store.postgres.connection import SESSION, Connection, Session, leave
from bridge.store.refusal import StoreRefused

T = TypeVar("T")
Read = Callable[[Connection], Awaitable[T]]
Write = Callable[[Connection, Ledger], Awaitable[T]]

TRIES: Final = 5
"""How often a transaction is run that the server breaks off to let another go on."""

SHARED: Final = 0
"""The replica whose counts commands share, and where those of replicas that are gone end up."""

_encoder: Final = msgspec.json.Encoder()
_ledgers: Final = msgspec.json.Decoder(Ledger)


RESTED_S: Final = 5.0
"""A connection that was not used for so long is asked before it is used."""

ASK_S: Final = 2.0
"""How long it may take to answer."""


class TakenOver(StoreUnavailable):
    """Other replicas have taken over what this one had, because it was not heard of for too long."""

    def __init__(self) -> None:
        """Say so."""
        super().__init__("this replica was not heard of for too long, others have taken over")


class Unsure(StoreUnavailable):
    """The connection was lost at the end of a transaction: it may have been committed."""

    def __init__(self, replica: int, number: int) -> None:
        """Name the transaction: whose, and which one of its line."""
        super().__init__("the connection to the server was lost at the end of a transaction")
        self.replica = replica
        self.number = number
        self.committed: bool | None = None  # None = not yet known


class Line:
    """One connection, made when it is needed."""

    def __init__(
        self,
        part: str,
        connect: Callable[[], Awaitable[Session]],
        committed: Callable[[float], None],
        *,
        connect_s: float | None = None,
    ) -> None:
        """Name the part of the bridge; `committed` hears how long each transaction took [s].

        `connect_s` is how long who waits for a connection is kept waiting; None = until all servers were tried.
        """
        self._part = part
        self._connect = connect
        self._connect_s = connect_s
        self._used_at = 0.0  # the connection [monotonic s]
        self._committed = committed
        self._con: Session | None = None
        self._lock = asyncio.Lock()
        self._closed = False
        self._replica = SHARED
        self._text: str | None = None  # what has been counted, as last committed; None = not known
        self._unsure: Unsure | None = None  # the last transaction whose end was not heard

    def becomes(self, replica: int) -> None:
        """Count for a replica from now on."""
        self._replica = replica
        self._text = None

    async def read(self, read: Read[T]) -> T:
        """Run a statement, or several that need no common snapshot."""
        with translated():
            async with self._held() as con:
                return await read(con)

    async def snapshot(self, read: Read[T]) -> T:
        """Run statements on one snapshot."""
        with translated():
            async with self._held() as con:
                await con.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                try:
                    return await read(con)
                finally:
                    await _roll_back(con)

    async def write(self, write: Write[T]) -> T:
        """Run a transaction; all of it or nothing."""
        with translated():
            for _ in range(TRIES - 1):
                try:
                    return await self._once(write)
                except asyncpg.PostgresError as error:
                    if error.sqlstate not in AGAIN:
                        raise
            return await self._once(write)

    async def _once(self, write: Write[T]) -> T:
        async with self._held() as con:
            started, replica = time.monotonic(), self._replica
            await con.execute("BEGIN")
            try:
                ledger = await self._known(con, replica)
                result = await write(con, ledger)
                text, number = await self._count(con, replica, ledger)
            except BaseException as error:
                self._text = None
                if isinstance(error, (asyncio.CancelledError, *FAILED)):  # whom nobody waits for, or who does not hear
                    con.terminate()
                else:
                    await _roll_back(con)
                raise
            try:
                await con.execute("COMMIT")
            except BaseException as error:
                self._text = None
                con.terminate()
                if not isinstance(error, Exception):
                    raise
                self._unsure = Unsure(replica, number)
                raise self._unsure from None
            self._text = text if replica == self._replica else None
            self._committed(time.monotonic() - started)
            return result

    async def _known(self, con: Connection, replica: int) -> Ledger:
        """Return what this line has counted so far; a line of commands counts what a transaction adds."""
        if replica == SHARED:
            return Ledger()
        text = self._text
        if text is None:
            row = await con.fetchrow(_LOCKED, replica, self._part)
            if row is None:
                raise TakenOver
            text, number = row
            if self._unsure is not None and self._unsure.replica == replica:
                self._unsure.committed = number >= self._unsure.number
                self._unsure = None
        return _ledgers.decode(text)

    async def _count(self, con: Connection, replica: int, ledger: Ledger) -> tuple[str | None, int]:
        """Write the counts at the very end: the row is locked for no longer than the commit takes.

        Returns them, and how many transactions the line has committed with this one.
        """
        if replica == SHARED:
            await add(con, self._part, ledger)
            row, text = await con.fetchrow(_STILL), None
        else:
            text = _encoder.encode(ledger).decode()
            row = await con.fetchrow(_COUNT, replica, self._part, text)
        if row is None:
            raise TakenOver
        number, process, synchronous = row
        if process != con.process or synchronous != SESSION["synchronous_commit"]:
            con.terminate()
            spoilt = f"somebody has set synchronous_commit = {synchronous} in our session: a power cut could lose it"
            raise StoreRefused(POOLED if process != con.process else spoilt)
        return text, number

    async def resolve(self, unsure: Unsure) -> bool:
        """Return whether a transaction of this line was committed; it may have to be waited for."""
        with translated():
            async with self._held() as con:
                if unsure.committed is None:
                    row = await con.fetchrow(_LOCKED, unsure.replica, self._part)
                    number = await con.fetchval(_ENDED, unsure.replica, self._part) if row is None else row[1]
                    unsure.committed = number is not None and number >= unsure.number
        return unsure.committed

    @asynccontextmanager
    async def _held(self) -> AsyncIterator[Connection]:
        """Lend the connection; one that has failed is given up."""
        async with self._lock:
            if self._closed:
                raise StoreUnavailable("the store is closed")
            con = self._con = await self._ready()
            try:
                yield con
                self._used_at = time.monotonic()
            except BaseException as error:
                if isinstance(error, (asyncio.CancelledError, *FAILED)) or con.is_closed() or con.is_in_transaction():
                    con.terminate()
                    self._con = None
                raise

    async def _ready(self) -> Session:
        """Return a connection that is there."""
        con, self._con = self._con, None
        if con is not None and not con.is_closed():
            if time.monotonic() - self._used_at < RESTED_S or await _answers(con):
                return con
            con.terminate()
        async with asyncio.timeout(self._connect_s):
            return await self._connect()

    async def renew(self, departed: Callable[[Session], Awaitable[bool]]) -> None:
        """Between two transactions, give up a session whose server is not the right one any more."""
        async with self._lock:
            con = self._con
            if con is not None and not con.is_closed() and await departed(con):
                self._con = None
                await leave(con)

    async def close(self) -> None:
        """Let the transaction under way end, then close."""
        self._closed = True
        await self.rest()

    async def rest(self) -> None:
        """Let the transaction under way end, then end the session; the next one begins another."""
        async with self._lock:
            con, self._con = self._con, None
            if con is not None and not con.is_closed():
                await leave(con)


async def add(con: Connection, part: str, more: Ledger) -> None:
    """Add counts to those that are shared."""
    if more == Ledger():
        return
    await con.execute(_BEGIN_SHARED, SHARED, part)
    known = _ledgers.decode(await con.fetchval(_LOCKED, SHARED, part))  # its first column
    await con.execute(_COUNT, SHARED, part, _encoder.encode(total([known, more])).decode())


async def _answers(con: Session) -> bool:
    """Tell whether a connection that has rested is still there."""
    try:
        async with asyncio.timeout(ASK_S):
            await con.execute("SELECT 1")
    except (asyncpg.PostgresError, *FAILED):
        return False
    return True


async def _roll_back(con: Connection) -> None:
    """Break a transaction off; where that cannot be said, closing says it."""
    try:
        await con.execute("ROLLBACK")
    except (asyncpg.PostgresError, *FAILED):
        con.terminate()


_LOCKED: Final = "SELECT ledger, number FROM counter WHERE replica = $1 AND part = $2 FOR UPDATE"
_ENDED: Final = "SELECT number FROM ended WHERE replica = $1 AND part = $2"
_COUNT: Final = """
UPDATE counter SET ledger = $3, number = number + 1 WHERE replica = $1 AND part = $2
RETURNING number, pg_backend_pid(), current_setting('synchronous_commit')
"""
_STILL: Final = "SELECT 0::bigint, pg_backend_pid(), current_setting('synchronous_commit')"
_BEGIN_SHARED: Final = "INSERT INTO counter (replica, part, ledger) VALUES ($1, $2, '{}') ON CONFLICT DO NOTHING"
