"""A PostgreSQL server of one's own: in a folder that goes with it, on a free port of this machine.

Rules:
- The programs are those of the newest server that is installed; Debian does not put them on the path.
- PostgreSQL refuses to run as root; then it runs as the user `postgres` that Debian's package brings.
- What is stored there is durable like anywhere else: nothing is switched off for speed.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, TypeVar

MISSING: Final = "PostgreSQL is not installed; on Debian: apt-get install postgresql"
USER: Final = "bridge"
OWNER: Final = "postgres"  # of the processes, where we are root
START_S: Final = 60  # longest start or stop

_SETTINGS: Final[Mapping[str, str]] = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "autovacuum_naptime": "5s",
    "log_min_messages": "warning",
}


def free_port() -> int:
    """Return a port of this machine that nobody listens on just now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class DatabaseError(Exception):
    """The server does not do as told; the sentence says why."""


def binaries() -> Path | None:
    """Return the folder of the newest server's programs; None = none is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=lambda path: float(path.parts[4]))
    if found:
        return found[-1].parent
    on_path = shutil.which("pg_ctl")
    return Path(on_path).resolve().parent if on_path else None


class Database:
    """One server; `start`, `stop` and `kill` as an operator and fate would."""

    def __init__(self, folder: Path, password: str | None = None, **settings: str) -> None:
        """Make the cluster in an empty folder; nothing runs yet. Raises DatabaseError."""
        self._folder = folder
        self._data = folder / "data"
        self.password = password or secrets.token_urlsafe(12)
        self.port = free_port()
        if os.getuid() == 0:
            folder.chmod(0o755)
            shutil.chown(folder, OWNER, OWNER)
        secret = folder / "password"
        secret.write_text(self.password)
        if os.getuid() == 0:
            shutil.chown(secret, OWNER, OWNER)
        secret.chmod(0o600)
        options = ("--username", USER, "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync")
        self._run("initdb", "--pgdata", str(self._data), *options, "--auth", "scram-sha-256", "--pwfile", str(secret))
        conf = {**_SETTINGS, "port": str(self.port), "unix_socket_directories": str(folder), **settings}
        with (self._data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in conf.items())

    def _run(self, program: str, *arguments: str) -> None:
        found = binaries()
        if found is None:
            raise DatabaseError(MISSING)
        owner = OWNER if os.getuid() == 0 else None
        done = subprocess.run(  # noqa: S603 - the server's own programs
            [str(found / program), *arguments], cwd=self._folder, capture_output=True, text=True, timeout=START_S,
            check=False, user=owner, group=owner, extra_groups=None if owner is None else [],
        )  # fmt: skip
        if done.returncode:
            raise DatabaseError(f"{program}: {done.stdout}{done.stderr}".strip())

    def start(self) -> None:
        """Start, and wait until it answers."""
        log = str(self._folder / "log")
        self._run("pg_ctl", "start", "-D", str(self._data), "-l", log, "-w", "-t", str(START_S), "-s")

    def stop(self, mode: str = "fast") -> None:
        """Stop; `immediate` is a crash."""
        self._run("pg_ctl", "stop", "-D", str(self._data), "-m", mode, "-w", "-t", str(START_S), "-s")

    def kill(self) -> None:
        """End the server as the kernel would when memory runs out: it cleans nothing up."""
        os.kill(int((self._data / "postmaster.pid").read_text().splitlines()[0]), signal.SIGKILL)

    @property
    def url(self) -> str:
        """Return its address, password included."""
        return f"postgresql://{USER}:{self.password}@127.0.0.1:{self.port}/postgres"


D = TypeVar("D", bound=Database)


@contextlib.contextmanager
def running(kind: "type[D]", **settings: str) -> Iterator[D]:
    """Run a server for as long as the block lasts. Raises DatabaseError."""
    if binaries() is None:
        raise DatabaseError(MISSING)
    with TemporaryDirectory(prefix="bridge-pg-", ignore_cleanup_errors=True) as folder:
        one = kind(Path(folder), **settings)
        one.start()
        try:
            yield one
        finally:
            with contextlib.suppress(DatabaseError):  # it may have been stopped before
                one.stop("immediate")
