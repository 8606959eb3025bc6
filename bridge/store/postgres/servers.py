"""The way to whichever server takes what it is told: each address has its time, the list is tried again and again.

Rules:
- The address is read anew for each connection: its password may have been changed in a file since.
- Names are looked up anew for each connection; while that fails, what was last found is tried.
- Who does not answer in `HOST_S`, or takes nothing, is passed over; the server that was had last is tried first.
- Whoever gives up waiting has not been in vain: the next one goes on with the next server.
- A session that comes to another store than the one that was opened is refused: half of what is written would be lost.
- A session to an address that its name has not had for `MOVED_S` is given up: the name points elsewhere now.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

import asyncpg  # type: ignore[import-untyped]

from bridge.store.port import StoreUnavailable
from bridge.store.postgres import schema
from bridge.store.postgres.address import Address, Host, Server, look_up, parsed
from bridge.store.postgres.conditions import POOLED, translated
from bridge.store.postgres.connection import STATEMENT_S, Session, judge, leave, prepare, stays_with_us
from bridge.store.refusal import StoreRefused

HOST_S: Final = 3.0
"""How long a server may take to let us in, where the address does not say otherwise (connect_timeout)."""

MOVED_S: Final = 30.0
"""How long a name may not have an address of which there are sessions; some names have other ones each time."""


class Servers:
    """The servers that an address names."""

    def __init__(self, url: Callable[[], str]) -> None:
        """Take what tells the address."""
        self._url = url
        self._first: Server | None = None  # the one to try first
        self._found: dict[Host, list[str]] = {}  # addresses, as last looked up
        self._named: dict[Server, float] = {}  # when its name last had the address [monotonic s]
        self.store: object = None  # the identity of the store that was opened; None = none yet

    async def connect(self, *, statement_s: float | None = STATEMENT_S) -> Session:
        """Open a session on a server that keeps what it is told."""
        return await self._first_of_all(statement_s, prepared=True)

    async def probe(self) -> None:
        """Look whether sessions keep their process of the server; raises StoreRefused where a pooler lends it out."""
        one = await self._first_of_all(STATEMENT_S, prepared=False)
        try:
            other = await self._first_of_all(STATEMENT_S, prepared=False)
            try:
                with translated():
                    kept = one.server != other.server or await stays_with_us(one, other)
            finally:
                await leave(other)
        finally:
            await leave(one)
        if not kept:
            raise StoreRefused(POOLED)

    async def departed(self, con: Session) -> bool:
        """Tell whether the name of a session's server points elsewhere now."""
        server = con.server
        if not server.host.is_name:
            return False
        try:
            async with asyncio.timeout(HOST_S):
                await self._look_up(server.host)
        except (OSError, TimeoutError):
            return False
        return time.monotonic() - self._named.get(server, 0.0) > MOVED_S

    # ---- one after the other ----

    async def _first_of_all(self, statement_s: float | None, *, prepared: bool) -> Session:
        address = parsed(self._url())
        refusals: list[tuple[Server | Host, StoreUnavailable]] = []
        servers = await self._servers(address, refusals)
        for place, server in enumerate(servers):
            try:
                con = await self._open(address, server, statement_s, prepared=prepared)
            except BaseException as why:
                if self._first in (None, server):  # else another one has been had, or has failed, meanwhile
                    self._first = servers[(place + 1) % len(servers)]
                if not isinstance(why, StoreUnavailable):
                    raise
                refusals.append((server, why))
            else:
                self._first = server
                return con
        raise _all_together(refusals)

    async def _servers(self, address: Address, refusals: list[tuple[Server | Host, StoreUnavailable]]) -> list[Server]:
        """Return all servers, from the one on that is to be tried first."""
        found: list[Server] = []
        for host in address.hosts:
            try:
                found += [Server(host=host, address=each) for each in await self._addresses(host)]
            except StoreUnavailable as why:
                refusals.append((host, why))
        if self._first in found:
            place = found.index(self._first)
            found = found[place:] + found[:place]
        return found

    async def _addresses(self, host: Host) -> Sequence[str]:
        if not host.is_name:
            return [host.name]
        try:
            async with asyncio.timeout(HOST_S):
                return await self._look_up(host)
        except (OSError, TimeoutError) as error:
            if host in self._found:
                return self._found[host]
            why = error.strerror or "no answer"
            raise StoreUnavailable(f"the name {host.name} cannot be looked up ({why})") from None

    async def _look_up(self, host: Host) -> list[str]:
        found = self._found[host] = await look_up(host)
        self._named.update((Server(host=host, address=each), time.monotonic()) for each in found)
        return found

    async def _open(self, address: Address, server: Server, statement_s: float | None, *, prepared: bool) -> Session:
        """Open a session on one server; raises StoreUnavailable."""
        seconds = address.host_s or HOST_S
        with translated(whatever=True):
            async with asyncio.timeout(seconds):
                con: Session = await asyncpg.connect(
                    host=server.address,
                    port=server.host.port,
                    user=address.user,
                    password=address.password,
                    passfile=address.passfile,
                    database=address.database,
                    ssl=address.tls_of(server.host),
                    timeout=seconds,
                    command_timeout=statement_s,
                    statement_cache_size=512,
                    max_cached_statement_lifetime=0,
                    connection_class=Session,
                )
                con.server = server
                try:
                    await judge(con)
                    if prepared:
                        await prepare(con, address.settings)
                        await self._recognise(con)
                except BaseException:
                    con.terminate()
                    raise
        return con

    async def _recognise(self, con: Session) -> None:
        if self.store is None:
            return
        try:
            found = await con.fetchval(schema.IDENTITY)
        except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError):
            found = None
        if found != self.store:
            raise StoreRefused("the address leads to another store than the one that was opened")


def _all_together(refusals: Sequence[tuple[Server | Host, StoreUnavailable]]) -> StoreUnavailable:
    """Return why no server could be had; what waiting may heal counts before what has to be changed."""
    sentences = list(dict.fromkeys(str(why) for _, why in refusals))
    if len(sentences) == 1:
        sentence = sentences[0]
    else:
        each = [f"{_name(server)}: {why}" for server, why in refusals]
        sentence = f"none of the servers can be had; {'; '.join(dict.fromkeys(each))}"
    kinds = {type(why) for _, why in refusals}
    return StoreRefused(sentence) if kinds == {StoreRefused} else StoreUnavailable(sentence)


def _name(server: Server | Host) -> str:
    if isinstance(server, Host):
        return str(server)
    return str(Host(name=server.address, port=server.host.port)) if server.host.is_name else str(server.host)
