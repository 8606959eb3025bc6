"""A throw-away PostgreSQL server for the tests, and what they do to it behind the bridge's back."""

import asyncio
import contextlib
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

import asyncpg  # type: ignore[import-untyped]

from bridge.sandbox import database
from bridge.sandbox.database import MISSING, OWNER, START_S, USER, Database, DatabaseError, binaries, free_port
from tests.certificates import Certificate

__all__ = ["MISSING", "PASSWORD", "Server", "Standby", "binaries", "running"]

PASSWORD: Final = "canary-pg-5b1c"

_EMPTY: Final = """
DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = current_schema()
        AND tablename NOT IN ('bridge', 'bucket') LOOP EXECUTE 'DELETE FROM ' || name; END LOOP;
    FOR name IN SELECT sequencename FROM pg_sequences WHERE schemaname = current_schema()
        LOOP EXECUTE 'ALTER SEQUENCE ' || name || ' RESTART'; END LOOP;
    UPDATE bridge SET dry = NULL, erasures = 0;
    UPDATE bucket SET holder = NULL;
END $$
"""


class Server(Database):
    """One server, with as many stores as are asked for."""

    def __init__(self, folder: Path, **settings: str) -> None:
        """Make the cluster; nothing runs yet."""
        super().__init__(folder, PASSWORD, **settings)
        self._schemas = 0
        self._shared = ""

    def set(self, name: str, value: str) -> None:
        """Change a setting of the running server."""
        self.execute(f"ALTER SYSTEM SET {name} = {value}")
        self.execute("SELECT pg_reload_conf()")
        end = time.monotonic() + START_S
        while [(value,)] != [tuple(row) for row in self.execute("SELECT current_setting($1)", name)]:
            assert time.monotonic() < end, f"{name} is not {value}"

    def reset(self, name: str) -> None:
        """Let a setting of the running server be as it was at its start."""
        self.execute(f"ALTER SYSTEM RESET {name}")
        self.execute("SELECT pg_reload_conf()")

    def certify(self, issued: Certificate) -> None:
        """Encrypt, with a certificate; the files have to be the server's own."""
        for name, path in (("certificate", issued.certificate), ("key", issued.key)):
            copy = self._folder / name
            copy.write_bytes(path.read_bytes())
            copy.chmod(0o600)
            if os.getuid() == 0:
                shutil.chown(copy, OWNER, OWNER)
        self.execute(f"ALTER SYSTEM SET ssl_cert_file = '{self._folder / 'certificate'}'")
        self.execute(f"ALTER SYSTEM SET ssl_key_file = '{self._folder / 'key'}'")
        self.set("ssl", "on")

    def uncertify(self) -> None:
        """Encrypt no more."""
        self.set("ssl", "off")

    def cpu_s(self) -> float:
        """Return the CPU time of all processes of the server that live [s]."""
        first = int((self._data / "postmaster.pid").read_text().splitlines()[0])
        total = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = stat.read_text().rpartition(")")[2].split()
                if first in (int(fields[1]), int(stat.parent.name)):
                    total += int(fields[11]) + int(fields[12])
        return total / os.sysconf("SC_CLK_TCK")

    def log_bytes(self) -> int:
        """Return how much the server has written to its write-ahead log so far [bytes]."""
        return int(self.execute("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')")[0][0])

    def schema(self, name: str = "public") -> str:
        """Return the address of a schema of the one database."""
        return f"{self.url}?search_path={name}"

    def fresh(self) -> str:
        """Return the address of a new empty schema."""
        self._schemas += 1
        name = f"store_{self._schemas}"
        self.execute(f"CREATE SCHEMA {name}")
        return self.schema(name)

    def emptied(self) -> str:
        """Return the address of a store without content; making the tables anew takes a third of a second."""
        if not self._shared:
            self._shared = self.fresh()
        else:
            self.execute(_EMPTY, schema=f"store_{self._shared.rpartition('_')[2]}")
        return self._shared

    def execute(self, statement: str, *args: object, schema: str = "public") -> list[Any]:
        """Run a statement from outside the bridge."""

        async def run() -> list[Any]:
            con = await asyncpg.connect(self.schema(schema), statement_cache_size=0)
            try:
                return list(await con.fetch(statement, *args))
            finally:
                await con.close()

        return _in_a_loop_of_its_own(run)

    @contextlib.contextmanager
    def holding(self, lock: str, *, schema: str = "public") -> Iterator[None]:
        """Be somebody else who is idle in a transaction and holds what a statement locks."""
        held, over = threading.Event(), threading.Event()

        async def hold() -> None:
            con = await asyncpg.connect(self.schema(schema))
            try:
                async with con.transaction():
                    await con.execute(lock)
                    held.set()
                    await asyncio.to_thread(over.wait)
            finally:
                await con.close()

        thread = threading.Thread(target=lambda: asyncio.run(hold()), name="idle in transaction")
        thread.start()
        try:
            assert held.wait(START_S), f"not had: {lock}"
            yield
        finally:
            over.set()
            thread.join()


class Standby:
    """A second server that repeats everything the first one does, before that says it is done."""

    def __init__(self, primary: Server) -> None:
        """Copy the first server, and have it wait for this one from now on."""
        self._primary, self._data = primary, primary._folder / "standby"
        self.port = free_port()
        options = ("--write-recovery-conf", "--wal-method", "stream", "--checkpoint", "fast")
        primary._run("pg_basebackup", "--dbname", primary.url, "--pgdata", str(self._data), *options)
        with (self._data / "postgresql.conf").open("a") as file:
            file.write(f"port = {self.port}\n")
        self.start()
        primary.set("synchronous_standby_names", "walreceiver")
        follows = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
        end = time.monotonic() + START_S
        while primary.execute(follows)[0][0] != 1:
            assert time.monotonic() < end, "the standby does not follow"

    @classmethod
    @contextlib.contextmanager
    def of(cls, primary: Server) -> "Iterator[Standby]":
        """Run one for as long as the block lasts."""
        standby = cls(primary)
        try:
            yield standby
        finally:
            with contextlib.suppress(DatabaseError):  # it may have been stopped before
                standby.stop()

    def start(self) -> None:
        """Start, and wait until it answers."""
        self._run("start", "-l", str(self._primary._folder / "standby-log"))

    def address(self, name: str) -> str:
        """Return the address of a schema on whichever of the two may write."""
        hosts = f"127.0.0.1:{self._primary.port},127.0.0.1:{self.port}"
        login = f"{USER}:{self._primary.password}"
        return f"postgresql://{login}@{hosts}/postgres?search_path={name}&target_session_attrs=read-write"

    def promote(self) -> None:
        """Take over."""
        self._run("promote")

    def stop(self) -> None:
        """End at once."""
        self._run("stop", "-m", "immediate")

    def _run(self, order: str, *options: str) -> None:
        self._primary._run("pg_ctl", order, "-D", str(self._data), "-w", "-t", str(START_S), "-s", *options)


def _in_a_loop_of_its_own(run: Any) -> list[Any]:  # noqa: ANN401 - a coroutine function
    """Run it also where a loop is running already."""
    result: list[Any] = []
    thread = threading.Thread(target=lambda: result.extend(asyncio.run(run())))
    thread.start()
    thread.join()
    return result


def running(**settings: str) -> AbstractContextManager[Server]:
    """Run a server for as long as the block lasts."""
    return database.running(Server, **settings)
