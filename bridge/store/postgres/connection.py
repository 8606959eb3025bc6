"""One connection to a server, and what it must promise; for what its errors mean see `conditions`.

Rules:
- What is committed survives a power cut: the session is set to synchronous_commit=on, and a server that runs with
  fsync=off or full_page_writes=off is refused.
- What a promise rests on is not asked for but verified: settings go by SET after connecting, because a pooler in
  between takes none in the start packet, and are read back. A connection that cannot promise them is refused.
- A session stays with one process of the server. A pooler that pools transactions is refused; each commit looks whether
  it is still the same process, see `line`.
- A client that has vanished frees its locks within seconds, also where the network tells nobody.
"""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol

import asyncpg  # type: ignore[import-untyped]

from bridge.store.port import StoreUnavailable
from bridge.store.postgres.address import Server
from bridge.store.postgres.conditions import FAILED
from bridge.store.refusal import StoreRefused

Row = tuple[Any, ...]
"""What the driver calls a record: values by place."""


class Connection(Protocol):
    """What this room needs of a connection of the driver."""

    process: int  # of the server

    async def execute(self, query: str, *args: object) -> str:
        """Run a statement; return the server's word for it."""

    async def fetch(self, query: str, *args: object) -> list[Row]:
        """Return all rows."""

    async def fetchrow(self, query: str, *args: object) -> Row | None:
        """Return the first row."""

    async def fetchval(self, query: str, *args: object) -> Any:  # noqa: ANN401 - whatever the statement says
        """Return the first value of the first row."""

    def transaction(self) -> AbstractAsyncContextManager[object]:
        """Return a transaction for `async with`."""

    def is_in_transaction(self) -> bool:
        """Tell whether a transaction is under way."""

    def is_closed(self) -> bool:
        """Tell whether the connection has gone."""

    async def close(self, *, timeout: float) -> None:  # noqa: ASYNC109 - the driver's
        """Take leave of the server."""

    def terminate(self) -> None:
        """Go without a word."""


LEAVE_S: Final = 2.0
"""How long the server may take to let a connection go."""

STATEMENT_S: Final = 30.0
"""How long a statement of a room may take."""

SESSION: Final[Mapping[str, str]] = {
    "synchronous_commit": "on",
    "default_transaction_isolation": "read committed",
    "idle_in_transaction_session_timeout": "15s",
    "lock_timeout": "15s",
    "statement_timeout": "0",  # ours ends it
}
"""What a session must promise."""

COMFORT: Final[Mapping[str, str]] = {
    "application_name": "moost-bridge",
    "client_connection_check_interval": "5s",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    "tcp_keepalives_idle": "15",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "jit": "off",  # no statement is long enough
}
"""What it is set to where the server knows it."""

_SERVER: Final = """
SELECT pg_backend_pid(), current_setting('fsync', true), current_setting('full_page_writes', true), pg_is_in_recovery(),
    current_setting('transaction_read_only'), current_setting('server_version_num')::integer
"""
_KNOWN: Final = "SELECT name FROM pg_settings WHERE name = ANY($1)"
_SET: Final = "SELECT set_config(name, value, false) FROM unnest($1::text[], $2::text[]) AS wanted (name, value)"
_READ: Final = "SELECT name, current_setting(name, true) FROM unnest($1::text[]) AS asked (name)"
OLDEST: Final = 140_000
"""Oldest server: version 14 looks after clients that have vanished (client_connection_check_interval)."""


class Session(asyncpg.Connection):  # type: ignore[misc]
    """A connection of the driver, and what we know of its other end."""

    process: int = 0  # of the server
    server: Server


async def judge(con: Session) -> None:
    """Look whether the server takes and keeps what it is told; raises StoreRefused or StoreUnavailable."""
    found = await con.fetchrow(_SERVER)
    if found is None:
        raise StoreUnavailable("the server does not answer")
    con.process, fsync, pages, standby, read_only, version = found
    if version < OLDEST:
        raise StoreRefused(
            f"the server is PostgreSQL {version // 10_000}; version {OLDEST // 10_000} or newer is needed"
        )
    if "off" in (fsync, pages):
        name = "fsync" if fsync == "off" else "full_page_writes"
        raise StoreRefused(f"the server runs with {name}=off: what it has accepted could be lost in a power cut")
    if standby:
        raise StoreUnavailable("the server only reads: it is a standby")
    if read_only == "on":
        raise StoreUnavailable(
            "the server lets the user only read: default_transaction_read_only is on for it, or for the database"
        )


async def prepare(con: Session, own: Mapping[str, str]) -> None:
    """Set up the session, also as the address wants (`own`); raises StoreRefused where it does not take that."""
    must = {**own, **SESSION}
    may = {name: value for name, value in COMFORT.items() if name not in must}
    known = {row[0] for row in await con.fetch(_KNOWN, list(may))}
    wanted = must | {name: value for name, value in may.items() if name in known}
    try:
        await con.execute(_SET, list(own), list(own.values()))
    except (asyncpg.SyntaxOrAccessError, asyncpg.DataError, asyncpg.ObjectNotInPrerequisiteStateError):
        raise StoreRefused(f"the server does not take what the address sets: {', '.join(own)}") from None
    await con.execute(_SET, list(wanted), list(wanted.values()))
    found = dict(await con.fetch(_READ, list(must)))
    for name, value in SESSION.items():
        if found[name] != value:
            raise StoreRefused(
                f"the session does not take {name} = {value}: it is {found[name]}; the server, or a pooler in between, "
                "sets it otherwise"
            )
    if eaten := [name for name in own if found[name] is None]:
        raise StoreRefused(f"the session does not take what the address sets: {', '.join(eaten)}")


async def stays_with_us(one: Session, other: Session) -> bool:
    """Tell whether two sessions have a process of the server each, also while one of them is in a transaction.

    A pooler that pools transactions lends the process of the one that rests to the one that does something.
    """
    before = one.process
    async with other.transaction():
        if before == await other.fetchval("SELECT pg_backend_pid()"):
            return False
        return bool(before == await one.fetchval("SELECT pg_backend_pid()"))


async def leave(con: Connection) -> None:
    """Take leave of the server; go without a word where it does not answer."""
    try:
        await con.close(timeout=LEAVE_S)
    except (asyncpg.PostgresError, *FAILED):
        con.terminate()


def changed(status: str) -> int:
    """Return how many rows a statement has changed, from the server's word for it."""
    return int(status.rpartition(" ")[2])


Rows = list[tuple[Any, ...]]


def columns(rows: Rows, width: int) -> list[list[Any]]:
    """Return rows as columns, as `unnest` takes them."""
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]
