"""The bridge as the benchmark runs it: the real daemon with its default settings, and the account it keeps."""

import asyncio
import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.bench.homes import SECRET, SUBSCRIPTION
from tests.bench.load import Tally, get
from tests.bench.machine import Cores
from tests.bench.process import BrokenError, Process, running

CUSTOMER: Final = "656730be2bc9719e6e5ed51d"
CLIENT: Final = "sandbox"
CLIENT_SECRET: Final = "sandbox-secret"
NOWHERE: Final = "http://127.0.0.1:9"  # for runs without a sender
_SETTLE_S: Final = 120.0
_LOOK_S: Final = 0.1

_CONFIG: Final = """
[server]
port = 0
[[subscriptions]]
id = "{subscription}"
secrets = ["{secret}"]
[moost]
base_url = "{moost}"
client_id = "{client}"
client_secret = "{client_secret}"
customer_id = "{customer}"
[store]
url = "{url}"
[logs]
format = "json"
{more}
"""


@dataclass(slots=True, kw_only=True)
class Bridge:
    """A running daemon."""

    process: Process

    @property
    def port(self) -> int:
        return self.process.port

    async def health(self) -> dict[str, Any]:
        """Return `/health`; raises BrokenError where one of its identities does not hold."""
        report: dict[str, Any] = await get(self.port, "/health")
        ledger, calls = report["ledger"], report["calls"]
        ends = ("settled", "pending", "parked", "dead", "discarded", "erased")
        if ledger["accepted"] != sum(ledger[name] for name in ends):
            msg = f"the ledger of messages does not balance: {ledger}"
            raise BrokenError(msg)
        if calls["queued"] != sum(calls[name] for name in ("delivered", "pending", "dead", "replaced", "discarded")):
            msg = f"the ledger of calls does not balance: {calls}"
            raise BrokenError(msg)
        return report

    async def idle(self, *, calls: bool = False) -> dict[str, Any]:
        """Wait until no message (and, if asked, no call) is pending; return the health then."""
        ends = time.monotonic() + _SETTLE_S
        while time.monotonic() < ends:
            health = await self.health()
            if not health["ledger"]["pending"] and not (calls and health["calls"]["pending"]):
                return health
            await asyncio.sleep(_LOOK_S)
        msg = f"not idle within {_SETTLE_S:.0f} s: {health['ledger']} {health['calls']}"
        raise BrokenError(msg)

    async def audit(self, tally: Tally, *, before: int = 0) -> dict[str, Any]:
        """Hold the client's account against the daemon's; raises BrokenError where they differ."""
        await asyncio.sleep(0.6)  # a report may be half a second old
        health = await self.health()
        stored = health["ledger"]["accepted"] - before
        if not tally.balanced or tally.accepted != stored or health["ledger"]["dead"]:
            msg = f"{tally}; the bridge has {stored} more than before, {health['dead_letters']} dead"
            raise BrokenError(msg)
        return health


@contextlib.contextmanager
def bridge(
    folder: Path,
    cores: Cores,
    rooms: str,
    *,
    moost: str = NOWHERE,
    more: str = "",
    environ: dict[str, str] | None = None,
) -> Iterator[Bridge]:
    """Serve while the block runs, on the store `bridge.db` in the folder.

    `more` is added to the configuration, `environ` overrides single settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "bridge.toml"
    config.write_text(
        _CONFIG.format(
            subscription=SUBSCRIPTION,
            secret=SECRET,
            moost=moost,
            client=CLIENT,
            client_secret=CLIENT_SECRET,
            customer=CUSTOMER,
            url=f"sqlite:///{folder}/bridge.db",
            more=more,
        )
    )
    command = [sys.executable, "-m", "bridge", "serve", "--config", str(config), "--rooms", rooms]
    address = r'"url": ?"http://[^"]*:(\d+)"'
    log = folder / f"bridge-{time.time_ns()}.log"
    with running(command, core=cores.server, log=log, address=address, environ=environ) as process:
        yield Bridge(process=process)


@contextlib.contextmanager
def sandbox(folder: Path, cores: Cores) -> Iterator[Process]:
    """Run the MOOST look-alike on the load's core while the block runs."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "bridge", "sandbox", "--port", "0"]
    with running(
        command, core=cores.load, log=folder / "sandbox.log", address=r"sandbox http://127.0.0.1:(\d+)"
    ) as process:
        yield process
