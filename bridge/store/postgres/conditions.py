"""What the errors of a server, of a pooler in between and of the driver mean.

Rules:
- Whatever waiting heals (a restart, a failover, a limit of the server, a lost connection, a password that is being
  changed) is StoreUnavailable; what an operator has to change is StoreRefused; only damage and missing tables are
  StoreBroken.
- No error says anything of the password, nor of the values of a statement.

Source: PostgreSQL documentation, "PostgreSQL Error Codes"; PgBouncer's sources (all its own errors are 08P01).
"""

import os
import re
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import asyncpg  # type: ignore[import-untyped]

from bridge.store.port import StoreBroken, StoreUnavailable
from bridge.store.refusal import StoreRefused

POOLED: Final = (
    "a pooler in between lends the processes of the server out by transaction; "
    "it must pool sessions (PgBouncer: pool_mode = session)"
)
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
_REFUSED: Final = {
    "28000": "the server lets this user not in from here: see its pg_hba.conf, and whether the user may log in",
    "3D000": "there is no such database on the server: CREATE DATABASE, or name another one in the address",
    "42501": (
        "the user lacks a right: it must own the store's tables, or have USAGE and CREATE on their schema and all "
        "rights on them"
    ),
    "26000": POOLED,
    "42P05": POOLED,
}
_ENDS: Final = {
    "XX001": "the database is damaged",
    "XX002": "an index of the database is damaged",
    "42P01": "the tables of the store are gone",
    "3F000": "the schema of the store is gone",
}
_RIGHTS: Final[Sequence[tuple[str, str]]] = (
    (
        r"permission denied for schema (.+)",
        "the user may not make tables in schema {0}: GRANT USAGE, CREATE ON SCHEMA {0} to it, or make it its owner",
    ),
    (
        r"permission denied for (table|sequence|relation|view) (.+)",
        "the user may not use {0} {1}: GRANT ALL ON ALL TABLES and SEQUENCES of the schema to it, or make it the owner",
    ),
    (
        r"must be owner of (table|sequence|relation|view) (.+)",
        "the user does not own {0} {1}: ALTER {0} {1} OWNER TO it, or run this as the owner",
    ),
    (r"permission denied for database (.+)", "the user may not use database {0}: GRANT CONNECT ON DATABASE {0} to it"),
)
"""What the server says of a right that is missing, where it speaks English; {0} is the first group."""

_POOLER: Final[Sequence[tuple[str, str]]] = (
    (r"unsupported startup parameter", "a pooler in between does not take a parameter of the start ({message})"),
    (r"transaction blocks not allowed", POOLED),
    (r"no such (database|user)", "a pooler in between does not know it ({message})"),
)
"""What a pooler says that an operator has to change."""

_PLAIN: Final = re.compile(r"[^\x20-\x7e]")
_SAID: Final = 120  # letters of what a pooler says

AGAIN: Final = frozenset({"40001", "40P01"})
"""A transaction that the server broke off to let another go on; it is run again."""

_LOST: Final = ("closed", "connect", "terminated", "cannot switch to state")
"""Words that tell a connection that has gone from a driver that is used wrongly. The driver calls it an error of its
own when the server's last words have come and the end of the connection has not."""

FAILED: Final = (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""After these a connection is not used again."""


def condition(error: BaseException) -> StoreUnavailable | None:
    """Return the condition behind an error; None = it is a bug of ours."""
    if isinstance(error, asyncpg.ConnectionDoesNotExistError) and isinstance(error.__cause__, asyncpg.PostgresError):
        error = error.__cause__  # the last words before the end
    if isinstance(error, asyncpg.PostgresError):
        return _of_server(str(error.sqlstate or ""), str(error.message or ""))
    if isinstance(error, asyncpg.ClientConfigurationError):
        return StoreRefused("the address is not understood")
    if isinstance(error, ssl.SSLError):
        return _of_encryption(error)
    sentence = None
    if isinstance(error, TimeoutError):
        sentence = "the server does not answer in time"
    elif isinstance(error, OSError):
        if "rejected SSL upgrade" in str(error):
            return StoreRefused(
                "the server offers no encryption, so the password would travel in the clear: switch its ssl on, or say "
                "sslmode=disable in the address if the way to it is safe"
            )
        why = os.strerror(error.errno) if error.errno else error.strerror or type(error).__name__
        sentence = f"the server cannot be reached ({why})"
    elif isinstance(error, (asyncpg.InterfaceError, asyncpg.InternalClientError)) and any(
        word in str(error) for word in _LOST
    ):
        sentence = "the connection to the server was lost"
    return None if sentence is None else StoreUnavailable(sentence)


def _of_server(code: str, message: str) -> StoreUnavailable | None:
    if code in _ENDS:
        return StoreBroken(f"{_ENDS[code]} ({code})")
    if code == "08P01":
        return _of_pooler(_PLAIN.sub("?", message)[:_SAID])
    if code in _REFUSED:
        sentence = _first(_RIGHTS, message) if code == "42501" else None
        return StoreRefused(f"{sentence or _REFUSED[code]} ({code})")
    sentence = _CONDITIONS.get(code) or _CLASSES.get(code[:2])
    return None if sentence is None else StoreUnavailable(f"{sentence} ({code})")


def _of_pooler(message: str) -> StoreUnavailable:
    """Return what a pooler means: it has one code for all."""
    sentence = _first(_POOLER, message)
    if sentence is not None:
        return StoreRefused(f"{sentence} (08P01)")
    return StoreUnavailable(f"a pooler in between, or the server, ends the connection ({message}, 08P01)")


def _first(table: Sequence[tuple[str, str]], message: str) -> str | None:
    """Return the sentence of the first pattern that a message fits."""
    for pattern, sentence in table:
        if found := re.search(pattern, message):
            return sentence.format(*found.groups(), message=message)
    return None


def _of_encryption(error: ssl.SSLError) -> StoreUnavailable:
    if not isinstance(error, ssl.SSLCertVerificationError):
        return StoreUnavailable(f"the server's encryption does not fit ({error.reason})")
    why = error.verify_message.rstrip(".")
    if "expired" in why or "not yet valid" in why:
        return StoreUnavailable(f"the server's certificate is not good now ({why})")
    return StoreRefused(
        f"the server's certificate is not trusted ({why}): "
        "name the file with its issuer's certificate by sslrootcert in the address"
    )


@contextmanager
def translated(*, whatever: bool = False) -> Iterator[None]:
    """Turn an error of the driver into the condition behind it; with `whatever` also one that only the server knows."""
    try:
        yield
    except StoreUnavailable:
        raise
    except (asyncpg.PostgresError, *FAILED) as error:
        found = condition(error)
        if found is None and whatever and isinstance(error, asyncpg.PostgresError):
            found = StoreRefused(f"the server does not do what the store needs ({error.sqlstate}: {error.message})")
        if found is None:
            raise
        raise found from None
