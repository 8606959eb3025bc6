"""Our own commands as processes: started, asked, ended; and the lines that a person reads."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx

from bridge.errors import BridgeError

START_S: Final = 60.0  # longest start of a process
DRAIN_S: Final = 15.0  # longest wait for the backlog at the end
END_S: Final = 25.0  # longest end of a process: drain_timeout and a little

Process = subprocess.Popen[bytes]


@contextlib.contextmanager
def process(log: Path, *arguments: str, environ: dict[str, str] | None = None) -> Iterator[Process]:
    """Run one of our own commands in a session of its own, so that ctrl-C reaches only this process."""
    with log.open("ab") as sink:
        started = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "bridge", *arguments], stdout=sink, stderr=sink, stdin=subprocess.DEVNULL,
            env={**os.environ, **(environ or {})}, start_new_session=True,
        )  # fmt: skip
    try:
        yield started
    finally:
        end(started)


def end(running: Process) -> None:
    """End a process as an operator does; kill it where that does not help."""
    if running.poll() is None:
        running.terminate()
        try:
            running.wait(END_S)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def port(usual: int) -> int:
    """Return the usual port, or a free one where that is taken; 0 = any free one."""
    for number in (usual, 0):
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", number))
            return int(sock.getsockname()[1])
    raise BridgeError("there is no free port on 127.0.0.1")


def address(log: Path, word: str, running: Process) -> str:
    """Return the address that a process prints behind a word."""
    until = time.monotonic() + START_S
    while time.monotonic() < until and running.poll() is None:
        for line in log.read_text(errors="replace").splitlines():
            if line.startswith(word):
                return line.removeprefix(word).strip()
        time.sleep(0.05)
    raise BridgeError(f"the {word.strip()} did not come up:\n{tail(log.parent)}")


def ready(url: str, running: Process, log: Path) -> None:
    """Wait until a bridge accepts."""
    until = time.monotonic() + START_S
    while time.monotonic() < until and running.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/health/ready", timeout=2).is_success:
                return
        time.sleep(0.05)
    raise BridgeError(f"the bridge did not come up:\n{tail(log.parent)}")


def tail(folder: Path) -> str:
    """Return the last lines of all logs."""
    return "\n".join(
        line for log in sorted(folder.glob("*.log")) for line in log.read_text(errors="replace").splitlines()[-5:]
    )


# ---- telling ------------------------------------------------------------------------------------------------------


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def flow(health: dict[str, Any], sandbox: str) -> str:
    """Return what flows, in a line; raises httpx.HTTPError where the sandbox does not answer."""
    counts = httpx.get(f"{sandbox}/_sandbox/counts", timeout=5).json()
    ledger, calls, events = health["ledger"], health["calls"], counts["events"]
    return (
        f"messages {ledger['accepted']} accepted, {ledger['pending']} waiting | "
        f"calls {calls['delivered']} delivered, {calls['pending']} owed | "
        f"sandbox {counts['buildings']} buildings, "
        f"{events['live']} live + {events['historical']} historical events, "
        f"{sum(counts['violations'].values())} violations"
        + (f" | {', '.join(health['problems'])}" if health["problems"] else "")
    )


def drained(url: str) -> dict[str, Any]:
    """Let the backlog drain; return the ledger."""
    say("draining …")
    health: dict[str, Any] = {}
    until = time.monotonic() + DRAIN_S
    with contextlib.suppress(httpx.HTTPError):
        while True:
            health = httpx.get(f"{url}/health", timeout=5).json()
            if time.monotonic() > until or not (health["ledger"]["pending"] or health["calls"]["pending"]):
                break
            time.sleep(0.1)
    return {"ledger": health.get("ledger"), "calls": health.get("calls"), "dead_letters": health.get("dead_letters")}
