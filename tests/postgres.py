"""A throw-away PostgreSQL server for the tests: its own folder, a free port of this machine, gone at the end.

PostgreSQL refuses to run as root; then it runs as the user `postgres` that Debian's package brings.
"""

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import asyncpg  # type: ignore[import-untyped]

PACKAGE: Final = "postgresql"
MISSING: Final = f"PostgreSQL is not installed; on Debian: apt-get install {PACKAGE}"
PASSWORD: Final = "canary-pg-5b1c"
START_S: Final = 60

_SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "autovacuum_naptime": "5s",
    "log_min_messages": "warning",
}


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


def binaries() -> Path | None:
    """Return the folder of the newest server's programs; Debian does not put them on the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=lambda path: float(path.parts[4]))
    if found:
        return found[-1].parent
    on_path = shutil.which("pg_ctl")
    return Path(on_path).resolve().parent if on_path else None


class Server:
    """One server; `stop` and `start` as an operator would."""

    def __init__(self, folder: Path, bin_: Path, **settings: str) -> None:
        """Make the cluster; nothing runs yet."""
        self._bin = bin_
        self._folder = folder
        self._data = folder / "data"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        if os.getuid() == 0:
            folder.chmod(0o755)
            shutil.chown(folder, "postgres", "postgres")
        password = folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        self._run(
            *(
                "initdb",
                "--pgdata",
                str(self._data),
                "--username",
                "bridge",
                "--encoding",
                "UTF8",
                "--locale",
                "C.UTF-8",
            ),
            *("--auth", "scram-sha-256", "--pwfile", str(password), "--no-sync"),
        )
        conf = {**_SETTINGS, "port": str(self.port), "unix_socket_directories": str(folder), **settings}
        with (self._data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in conf.items())
        self._schemas = 0
        self._shared = ""

    def _run(self, program: str, *args: str) -> None:
        command = [str(self._bin / program), *args]
        if os.getuid() == 0:
            command = ["runuser", "-u", "postgres", "--", *command]
        done = subprocess.run(command, cwd=self._folder, capture_output=True, text=True, timeout=START_S, check=False)
        assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}"

    def start(self) -> None:
        """Start, and wait until it answers."""
        log = str(self._folder / "log")
        self._run("pg_ctl", "start", "-D", str(self._data), "-l", log, "-w", "-t", str(START_S), "-s")

    def stop(self, mode: str = "fast") -> None:
        """Stop; `immediate` is a crash."""
        self._run("pg_ctl", "stop", "-D", str(self._data), "-m", mode, "-w", "-t", str(START_S), "-s")

    def kill(self) -> None:
        """End the server as the kernel would when memory runs out: it cleans nothing up."""
        pid = int((self._data / "postmaster.pid").read_text().splitlines()[0])
        os.kill(pid, 9)

    def set(self, name: str, value: str) -> None:
        """Change a setting of the running server."""
        self.execute(f"ALTER SYSTEM SET {name} = {value}")
        self.execute("SELECT pg_reload_conf()")
        end = time.monotonic() + START_S
        while [(value,)] != [tuple(row) for row in self.execute("SELECT current_setting($1)", name)]:
            assert time.monotonic() < end, f"{name} is not {value}"

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

    def url(self, schema: str = "public") -> str:
        """Return the address of a schema of the one database."""
        return f"postgresql://bridge:{PASSWORD}@127.0.0.1:{self.port}/postgres?search_path={schema}"

    def fresh(self) -> str:
        """Return the address of a new empty schema."""
        self._schemas += 1
        name = f"store_{self._schemas}"
        self.execute(f"CREATE SCHEMA {name}")
        return self.url(name)

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
            con = await asyncpg.connect(self.url(schema), statement_cache_size=0)
            try:
                return list(await con.fetch(statement, *args))
            finally:
                await con.close()

        return _in_a_loop_of_its_own(run)


def _in_a_loop_of_its_own(run: Any) -> list[Any]:  # noqa: ANN401 - a coroutine function
    """Run it also where a loop is running already."""
    result: list[Any] = []
    import threading  # noqa: PLC0415 - only here

    thread = threading.Thread(target=lambda: result.extend(asyncio.run(run())))
    thread.start()
    thread.join()
    return result


@contextlib.contextmanager
def running(**settings: str) -> Iterator[Server]:
    """Run a server for as long as the block lasts."""
    bin_ = binaries()
    assert bin_ is not None, MISSING
    with tempfile.TemporaryDirectory(prefix="bridge-pg-", ignore_cleanup_errors=True) as folder:
        server = Server(Path(folder), bin_, **settings)
        server.start()
        try:
            yield server
        finally:
            with contextlib.suppress(AssertionError):  # a test may have stopped it
                server.stop("immediate")
