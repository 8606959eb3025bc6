"""What the store lies on, and how it can be troubled.

Rules:
- A store that several replicas may share says how many there are; the faults of its own kind are listed by `conduct`.
- Where the machine does not let a fault be set, it is said to be impossible, and why.
"""

import os
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Final, Protocol, Self

from bridge.sandbox.database import START_S, DatabaseError
from bridge.store.postgres.replicas import BEAT, LEASE
from tests import postgres
from tests.life.stage import Table

DISK: Final = 512 * 2**20  # bytes: the store of a long run, its log and its reserve


class Keeping(AbstractContextManager["Keeping"], Protocol):
    """A store to run on."""

    replicas: int
    settings: Table  # the section [store]
    takes_over_s: float  # after so long what a killed daemon had in hand is another's, or its next life's
    program: str  # what a daemon is told before it starts; `turned()` says how far its clock is wrong [s]
    tells_time: bool  # it does, to whoever shares it: what the daemons' system says is nobody's affair
    unheard: bool  # the end of a COMMIT may stay unheard, so that a 503 does not say that nothing was stored

    def troubled(self, since: float) -> bool:
        """Return whether it could not be had at some time since [monotonic s], so that a daemon may refuse to start."""

    def heal(self) -> None:
        """End all troubles."""


class Embedded(Keeping):
    """SQLite, on a small disk of its own where one can be made."""

    replicas = 1
    takes_over_s = 3.0
    program = ""
    tells_time = False
    unheard = False

    def __init__(self, folder: Path) -> None:
        """Name the place; nothing is there yet."""
        self.disk = folder / "disk"
        self.path = self.disk / "bridge.db"
        self.ballast = self.disk / "ballast"
        self.settings: Table = {"url": f"sqlite:///{self.path}"}
        self.small = False  # the disk is one of its own, and can be filled
        self._held = threading.Event()
        self._healed = 0.0  # monotonic [s]

    def __enter__(self) -> Self:
        """Make the disk."""
        self.disk.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=0700", "chaos", str(self.disk)]
        with suppress(FileNotFoundError):
            self.small = subprocess.run(command, capture_output=True, check=False).returncode == 0
        return self

    def __exit__(self, *_: object) -> None:
        """Take it away."""
        if self.small:
            subprocess.run(["umount", "--lazy", str(self.disk)], check=True)  # noqa: S607 - the one of this system

    def troubled(self, since: float) -> bool:
        """Return whether the disk was full or the store held at some time since."""
        return self._held.is_set() or self.ballast.exists() or self._healed > since

    def heal(self) -> None:
        """Free the disk."""
        if self.ballast.exists():
            self._healed = float("inf")  # no moment between the two
            self.ballast.unlink()
            self._healed = time.monotonic()

    def fill(self) -> None:
        """Fill the disk to the last page."""
        file = os.open(self.ballast, os.O_RDWR | os.O_CREAT, 0o600)
        size, step = 0, 2**20
        try:
            while step >= 4096:
                try:
                    os.posix_fallocate(file, size, step)
                    size += step
                except OSError:
                    step //= 2
        finally:
            os.close(file)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Be another writer that holds the store."""
        self._held.set()
        con = sqlite3.connect(self.path, timeout=10, isolation_level=None)
        try:
            con.execute("BEGIN IMMEDIATE")
            yield
        finally:
            con.close()
            self._healed = time.monotonic()
            self._held.clear()


PROGRAM: Final = """
import time
from bridge.sender import room
from bridge.store.postgres import PostgresStore
seconds = time.time
time.time = lambda: seconds() + turned()
room.LEASE = PostgresStore.__init__.__kwdefaults__["lease"] = timedelta(seconds={lease})
"""
"""Both clocks of the daemons' system are turned, but not the server's."""


class Shared(Keeping):
    """PostgreSQL, on a server of its own, with three replicas on one database."""

    replicas = 3
    tells_time = True
    unheard = True

    def __init__(self, _folder: Path, *, lease: timedelta = LEASE) -> None:
        """Need nothing of the folder: the server makes one of its own. With a shorter lease all goes on sooner."""
        self.lease = lease
        self.takes_over_s = (lease + BEAT).total_seconds() + 2
        self.program = PROGRAM.format(lease=lease.total_seconds())
        self._held = ExitStack()
        self._away = threading.Event()
        self._back = 0.0  # monotonic [s]

    def __enter__(self) -> Self:
        """Start the server. Raises DatabaseError where none is installed."""
        self.server = self._held.enter_context(postgres.running())
        self.settings: Table = {"url": self.server.schema()}
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self._held.close()

    def troubled(self, since: float) -> bool:
        """Return whether the server was away, or did not do as it was told, at some time since."""
        return self._away.is_set() or self._back > since

    def heal(self) -> None:
        """Leave it as it is: whoever ended it has started it again."""

    @contextmanager
    def trouble(self) -> Iterator[None]:
        """Let something be done to the server that a daemon may not get over while it starts."""
        self._away.set()
        try:
            yield
        finally:
            self._back = float("inf")  # no moment between the two
            self._away.clear()
            self._back = time.monotonic()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Let the server be ended; start it again at the end."""
        with self.trouble():
            try:
                yield
            finally:
                self._start()

    def _start(self) -> None:
        """Start it; what a kill has left behind may still be ending."""
        end = time.monotonic() + START_S
        while not self._started():
            assert time.monotonic() < end, "the server does not come back"
            time.sleep(0.2)

    def _started(self) -> bool:
        try:
            self.server.start()
        except DatabaseError:
            return False
        return True
