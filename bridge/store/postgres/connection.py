"""The way to the server: its address, the settings of a session, and what its errors mean.

Rules:
- What is committed survives a power cut: each session asks for synchronous_commit=on, and a server that runs with
  fsync=off or full_page_writes=off is refused.
- Whatever waiting heals (a restart, a failover, a limit of the server, a lost connection) is StoreUnavailable; only
  damage and missing tables are StoreBroken.
- No error says anything of the password, nor of the values of a statement.
- A client that has vanished frees its locks within seconds, also where the network tells nobody.
"""

import ssl
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, Final, Protocol

import asyncpg  # type: ignore[import-untyped]

from bridge.store.port import StoreBroken, StoreUnavailable
from bridge.store.refusal import StoreRefused

Row = tuple[Any, ...]
"""What the driver calls a record: values by place."""


class Connection(Protocol):
    """What this room needs of a connection of the driver."""

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


CONNECT_S: Final = 5.0
"""How long a new connection may take."""

LEAVE_S: Final = 2.0
"""How long the server may take to let a connection go."""

STATEMENT_S: Final = 30.0
"""How long a statement of a room may take."""

_SESSION: Final = {
    "application_name": "moost-bridge",
    "synchronous_commit": "on",
    "default_transaction_isolation": "read committed",
    "idle_in_transaction_session_timeout": "15s",
    "lock_timeout": "15s",
    "client_connection_check_interval": "5s",
    "tcp_keepalives_idle": "15",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "jit": "off",  # no statement is long enough
    "bytea_output": "hex",
}

_SERVER: Final = """
SELECT current_setting('fsync'), current_setting('full_page_writes'), pg_is_in_recovery(),
    current_setting('transaction_read_only'), current_setting('server_version_num')::integer
"""
OLDEST: Final = 140_000
"""Oldest server: version 14 looks after clients that have vanished (client_connection_check_interval)."""


async def connect(url: str, *, statement_s: float | None = STATEMENT_S) -> Connection:
    """Open a connection to a server that keeps what it is told."""
    with translated():
        con: Connection = await asyncpg.connect(
            url,
            timeout=CONNECT_S,
            command_timeout=statement_s,
            server_settings=_SESSION,
            statement_cache_size=512,
            max_cached_statement_lifetime=0,
        )
        try:
            _judge(await con.fetchrow(_SERVER))
        except BaseException:
            con.terminate()
            raise
    return con


def _judge(found: Row | None) -> None:
    if found is None:
        raise StoreUnavailable("the server does not answer")
    fsync, pages, standby, read_only, version = found
    if version < OLDEST:
        raise StoreRefused(
            f"the server is PostgreSQL {version // 10_000}; version {OLDEST // 10_000} or newer is needed"
        )
    if fsync != "on" or pages != "on":
        name = "fsync" if fsync != "on" else "full_page_writes"
        raise StoreRefused(f"the server runs with {name}=off: what it has accepted could be lost in a power cut")
    if standby or read_only == "on":
        raise StoreUnavailable("the server only reads: it is a standby")


# ---- what errors mean -----------------------------------------------------------------------------------------------

_CONDITIONS: Final = {
    "53100": "the server's disk is full",
    "53300": "the server has no connection left",
    "57P01": "the server is shutting down",
    "57P02": "the server has crashed and recovers",
    "57P03": "the server is starting",
    "57P05": "the server has closed an idle connection",
    "57014": "the server has cancelled a statement that took too long",
    "25P02": "the transaction was broken off",
    "25P03": "the server has closed an idle transaction",
    "25006": "the server only reads: it is a standby",
    "40001": "the server could not put transactions in order",
    "40P01": "two transactions stood in each other's way",
    "55P03": "another transaction holds the rows for too long",
    "28P01": "the server refuses user or password",
    "28000": "the server refuses the user",
    "3D000": "there is no such database on the server",
    "42501": "the user may not do that in this database",
    "55000": "the server cannot do that now",
}
_CLASSES: Final = {
    "08": "the connection to the server was lost",
    "53": "the server has run out of something",
    "57": "the server has broken off",
    "58": "the server has trouble with its system",
    "40": "the server has broken off the transaction",
    "F0": "the server has trouble with its settings",
}
_ENDS: Final = {
    "XX001": "the database is damaged",
    "XX002": "an index of the database is damaged",
    "42P01": "the tables of the store are gone",
    "3F000": "the schema of the store is gone",
}
REFUSED: Final = frozenset({"28P01", "28000", "3D000", "42501"})
"""Conditions that only an operator can change."""

AGAIN: Final = frozenset({"40001", "40P01"})
"""A transaction that the server broke off to let another go on; it is run again."""


def condition(error: BaseException) -> StoreUnavailable | None:
    """Return the condition behind an error; None = it is a bug of ours."""
    if isinstance(error, asyncpg.PostgresError):
        return _of_server(str(error.sqlstate or ""))
    if isinstance(error, asyncpg.ClientConfigurationError):
        return StoreRefused("the address is not understood; see the driver asyncpg for what may stand in it")
    sentence = None
    if isinstance(error, TimeoutError):
        sentence = "the server does not answer in time"
    elif isinstance(error, ssl.SSLError):
        sentence = f"the server's certificate or encryption does not fit ({error.reason})"
    elif isinstance(error, OSError):
        sentence = f"the server cannot be reached ({error.strerror or type(error).__name__})"
    elif isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        sentence = "none of the servers takes anything: all are standbys"
    elif isinstance(error, (asyncpg.InterfaceError, asyncpg.InternalClientError)) and any(
        word in str(error) for word in _LOST
    ):
        sentence = "the connection to the server was lost"
    return None if sentence is None else StoreUnavailable(sentence)


def _of_server(code: str) -> StoreUnavailable | None:
    if code in _ENDS:
        return StoreBroken(f"{_ENDS[code]} ({code})")
    sentence = _CONDITIONS.get(code) or _CLASSES.get(code[:2])
    return None if sentence is None else StoreUnavailable(f"{sentence} ({code})")


_LOST: Final = ("closed", "connect", "terminated", "cannot switch to state")
"""Words that tell a connection that has gone from a driver that is used wrongly. The driver calls it an error of its
own when the server's last words have come and the end of the connection has not."""

FAILED: Final = (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""After these a connection is not used again."""


async def leave(con: Connection) -> None:
    """Take leave of the server; go without a word where it does not answer."""
    try:
        await con.close(timeout=LEAVE_S)
    except (asyncpg.PostgresError, *FAILED):
        con.terminate()


@contextmanager
def translated() -> Iterator[None]:
    """Turn an error of the driver into the condition behind it."""
    try:
        yield
    except StoreUnavailable:
        raise
    except (asyncpg.PostgresError, *FAILED) as error:
        found = condition(error)
        if found is None:
            raise
        raise found from None


def changed(status: str) -> int:
    """Return how many rows a statement has changed, from the server's word for it."""
    return int(status.rpartition(" ")[2])


Rows = list[tuple[Any, ...]]


def columns(rows: Rows, width: int) -> list[list[Any]]:
    """Return rows as columns, as `unnest` takes them."""
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]
