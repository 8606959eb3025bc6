"""wrk as the load for throughput: nothing that runs in Python loads a server as cheaply.

wrk ends with requests on the wire, so its own account is not exact. What it may have sent without an answer is sent
again afterwards: then everything that it ever sent has been answered, as new or as a duplicate.

Source: wrk 4.1, `SCRIPTING` (setup, init, request, done; summary.duration in µs).
"""

import asyncio
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench.load import Client, Request, Tally
from tests.bench.process import BrokenError

SCRIPT: Final = Path(__file__).with_name("wrk.lua")
LAST: Final = 512  # requests sent again; more than there are connections


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a load did."""

    rate: float  # answers per second
    sent: int  # different requests
    answered: int


def found() -> bool:
    """Tell whether wrk is there."""
    return shutil.which("wrk") is not None


async def load(port: int, seconds: float, requests: Sequence[Request], connections: int, folder: Path) -> Load:
    """Load a server with requests of one length; raises BrokenError where one fails or they do not last."""
    path, size = folder / "requests", len(requests[0].raw)
    path.write_bytes(b"".join(request.raw for request in requests))
    wrk = await asyncio.create_subprocess_exec(
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds:.0f}s",
        "--timeout",
        "30s",
        "-s",
        SCRIPT,
        f"http://127.0.0.1:{port}/",
        "--",
        path,
        str(size),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await wrk.communicate()
    path.unlink()
    result = re.search(rb"^result (\d+) (\d+) (\d+) (\d+) (\d+)$", out, re.MULTILINE)
    if result is None:
        msg = f"wrk said {out.decode(errors='replace')}"
        raise BrokenError(msg)
    issued, answered, micros, refused, failed = map(int, result.groups())
    if refused or failed or issued > len(requests):
        msg = f"wrk: {refused} refused, {failed} failed, {issued} of {len(requests)} requests used"
        raise BrokenError(msg)
    return Load(rate=answered / (micros / 1e6), sent=issued, answered=answered)


async def again(port: int, requests: Sequence[Request], done: Load) -> Tally:
    """Send what wrk may have sent without an answer once more; return the account."""
    client = await Client.connected(port, 4)
    last = iter([requests[0], *requests[max(1, done.sent - LAST) : done.sent]])
    await client.flood(lambda: next(last, None))
    client.close()
    return client.tally
