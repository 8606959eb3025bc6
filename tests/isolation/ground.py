"""What a row stands on: the real daemon on either store, MOOST, the canary, each a process of its own.

Rules:
- Every row has a daemon and a store of its own, with a hundred subscriptions: the canary's, a mad one, one with a
  `rate_limit`, and neighbours that say nothing.
- Attackers are on other machines in life. On this one daemon, MOOST and canary come before them, where we may say so.
- Where a row says so the daemon may have only so much memory, as a container would.
"""

import base64
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from bridge.sandbox.database import binaries, free_port
from tests.bench.machine import cpu_s, peak_mb
from tests.bench.process import Process, running
from tests.bench.subject import CLIENT, CLIENT_SECRET, CUSTOMER
from tests.isolation.canary import PREFIX, Sample
from tests.isolation.wire import SECRETS
from tests.postgres import Server
from tests.postgres import running as database

ADMIN: Final = "isolation-admin-token-4711"
STORES: Final = ("sqlite", "postgresql")
NEIGHBOURS: Final = 97
RATE_LIMIT: Final = 5
_CONFIG: Final = """
[server]
port = {port}
admin_token = "{admin}"
[moost]
base_url = "{moost}"
client_id = "{client}"
client_secret = "{client_secret}"
customer_id = "{customer}"
[store]
url = "{url}"
{store}
[logs]
format = "json"
"""
_ADDRESS: Final = r'"url": ?"http://[^"]*:(\d+)"'


@dataclass
class Ground:
    """Where the rows of one run happen."""

    folder: Path
    store: str
    server: Server | None = None
    _number: int = 0

    def fresh(self) -> tuple[Path, str]:
        """Return a folder of one row, and the address of its empty store."""
        self._number += 1
        folder = self.folder / f"row-{self._number}"
        folder.mkdir(parents=True)
        return folder, f"sqlite:///{folder}/bridge.db" if self.server is None else self.server.fresh()


@contextlib.contextmanager
def grounds(folder: Path, store: str) -> Iterator[Ground | None]:
    """Prepare a store; None = this machine has no PostgreSQL."""
    if store == "sqlite":
        yield Ground(folder / store, store)
    elif binaries() is None:
        yield None
    else:
        with database() as server:
            yield Ground(folder / store, store, server)


@dataclass
class Subject:
    """The daemon under attack, and those beside it."""

    folder: Path
    config: Path
    moost: Process
    memory_mb: int | None
    environ: Mapping[str, str]
    lives: list[Process] = field(default_factory=list)
    _open: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    cpu_before_s: float = 0.0  # of lives that have ended
    peak_before_mb: float = 0.0

    @property
    def process(self) -> Process:
        """Return the daemon's process."""
        return self.lives[-1]

    @property
    def port(self) -> int:
        """Return where it listens."""
        return self.process.port

    def start(self) -> None:
        """Start it, and wait until it accepts."""
        command = first([sys.executable, "-m", "bridge", "serve", "--config", str(self.config)])
        if self.memory_mb is not None:
            command = ["prlimit", f"--data={self.memory_mb * 2**20}", *command]
        log = self.folder / f"bridge-{len(self.lives)}.log"
        process = running(command, core=None, log=log, address=_ADDRESS, environ=dict(self.environ))
        self.lives.append(self._open.enter_context(process))
        wait(lambda: self.ask("/health/ready").status_code == 200, 30, "the daemon accepts")

    def kill(self) -> None:
        """End it as the power does."""
        self._remember()
        self.process.popen.kill()
        self.process.popen.wait()

    def end(self) -> tuple[int, float]:
        """Ask it to end; return its exit code and how long that took [s]."""
        self._remember()
        began = time.monotonic()
        return self.process.end(), time.monotonic() - began

    def _remember(self) -> None:
        with contextlib.suppress(OSError, StopIteration):  # it may have ended by itself
            self.peak_before_mb = max(self.peak_before_mb, peak_mb(self.process.popen.pid))
            self.cpu_before_s += cpu_s(self.process.popen.pid)

    @property
    def alive(self) -> bool:
        """Return whether it runs."""
        return self.process.popen.poll() is None

    def cpu_s(self) -> float:
        """Return the CPU time of all its lives [s]."""
        return self.cpu_before_s + (cpu_s(self.process.popen.pid) if self.alive else 0.0)

    def peak_mb(self) -> float:
        """Return the largest resident memory of any of its lives [MB]."""
        return max(self.peak_before_mb, peak_mb(self.process.popen.pid) if self.alive else 0.0)

    def ask(self, path: str, **headers: str) -> httpx.Response:
        """Ask it something, as an operator on this machine."""
        url = f"http://127.0.0.1:{self.port}{path}"
        return httpx.get(url, headers=headers, timeout=30, trust_env=False, verify=False)  # noqa: S501 - no TLS is spoken here

    def health(self) -> dict[str, Any]:
        """Return what it says of itself."""
        return dict(self.ask("/health").json())

    def metric(self, name: str) -> float:
        """Return the sum of a metric over its labels."""
        lines = self.ask("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    def seen(self) -> dict[str, Any]:
        """Return what MOOST has seen."""
        url = f"http://127.0.0.1:{self.moost.port}/_seen"
        return dict(httpx.get(url, timeout=30, trust_env=False, verify=False).json())  # noqa: S501

    def log(self) -> str:
        """Return everything that it said in all its lives."""
        return "".join(each.log.read_text(errors="replace") for each in self.lives)

    def canary(self) -> "contextlib.AbstractContextManager[Callable[[], list[Sample]]]":
        """Let the canary send while the block runs; what is yielded ends it and returns what it saw."""
        return _canary(self.folder, self.port)


@contextlib.contextmanager
def subject(ground: Ground, *, store: str = "", memory_mb: int | None = None) -> Iterator[Subject]:
    """Run a daemon with all that belongs to it; `store` are more lines of its section."""
    folder, url = ground.fresh()
    command = first([sys.executable, "-m", "tests.isolation.moost"])
    with running(command, core=None, log=folder / "moost.log", address=r"moost http://127.0.0.1:(\d+)") as moost:
        config = folder / "bridge.toml"
        text = _CONFIG.format(
            port=free_port(),
            admin=ADMIN,
            moost=f"http://127.0.0.1:{moost.port}",
            client=CLIENT,
            client_secret=CLIENT_SECRET,
            customer=CUSTOMER,
            url=url,
            store=store,
        )
        config.write_text(text + _subscriptions())
        one = Subject(folder, config, moost, memory_mb, {})
        with one._open:
            one.start()
            yield one


def _subscriptions() -> str:
    """Return the hundred subscriptions."""
    own: list[dict[str, Any]] = [
        {"id": "canary", "secrets": [SECRETS["canary"]], "user_prefix": PREFIX},
        {"id": "mad", "secrets": [SECRETS["mad"]], "user_prefix": "m-"},
        {"id": "limited", "secrets": [SECRETS["limited"]], "user_prefix": "l-", "rate_limit": RATE_LIMIT},
    ]
    quiet: list[dict[str, Any]] = [
        {
            "id": f"neighbour-{n}",
            "secrets": ["whsec_" + base64.b64encode(b"neighbour-secret-%06d" % n).decode()],
            "user_prefix": f"n{n}-",
        }
        for n in range(NEIGHBOURS)
    ]
    return "\n".join(
        "[[subscriptions]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in each.items())
        for each in (*own, *quiet)
    )


@contextlib.contextmanager
def _canary(folder: Path, port: int) -> Iterator[Callable[[], list[Sample]]]:
    path = folder / "canary.json"
    command = first([sys.executable, "-m", "tests.isolation.canary", str(port), str(path)])
    with running(command, core=None, log=folder / "canary.log", address=r"canary at port (\d+)") as process:

        def stop() -> list[Sample]:
            process.popen.send_signal(signal.SIGTERM)
            process.popen.wait(60)
            return [Sample(**each) for each in json.loads(path.read_text())]

        yield stop


def first(command: Sequence[str]) -> list[str]:
    """Return a command that comes before attackers and others of this machine, which only root may say."""
    return ["nice", "-n", "-10", *command] if os.geteuid() == 0 else [*command]


def waited_s(pid: int) -> float:
    """Return how long a process was ready to run and others had the cores [s].

    Source: kernel documentation, "Scheduler Statistics", /proc/<pid>/schedstat.
    """
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(each.read_text().split()[1]) for each in tasks) / 1e9


def wait(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Wait until a condition holds; raises AssertionError when it does not in time."""
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(httpx.HTTPError):
            if condition():
                return
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.05)
