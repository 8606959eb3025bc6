"""The whole thing on one machine: MOOST sandbox, bridge and a simulated device cloud, as three processes.

Rules:
- It needs nothing but the installed package: a temporary store, made-up secrets, free ports.
- The last day of some households runs at `speed` through everything, the bridge's clock included; when it has caught
  up with the wall clock, life goes on in real time.
- ctrl-C stops the cloud, lets the backlog drain, ends the bridge as SIGTERM does, and prints the ledger as JSON.
"""

import base64
import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TextIO

import httpx

from bridge.errors import BridgeError
from bridge.sandbox.moost import CLIENT_ID, CLIENT_SECRET, CUSTOMER_ID

BRIDGE_PORT: Final = 8080
SANDBOX_PORT: Final = 9090
SUBSCRIPTION: Final = "demo"
SPAN: Final = timedelta(hours=24)  # of simulated life before it goes on in real time
LEAD: Final = timedelta(seconds=3)  # for the processes to come up before the simulated day begins
START_S: Final = 60.0  # longest start of a process
DRAIN_S: Final = 15.0  # longest wait for the backlog at the end
TELL_S: Final = 5.0  # how often a line tells what flows


def run(homes: int, speed: float) -> int:
    """Run until ctrl-C; return the exit code. Raises BridgeError where a part does not come up."""
    stop = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.set())
    with tempfile.TemporaryDirectory(prefix="bridge-demo-") as folder, contextlib.ExitStack() as held:
        stage = _Stage(folder=Path(folder), homes=homes, speed=speed)
        ledger = stage.play(held, stop)
    sys.stdout.write(json.dumps(ledger) + "\n")
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    """One performance."""

    folder: Path
    homes: int
    speed: float

    def play(self, held: contextlib.ExitStack, stop: threading.Event) -> dict[str, Any]:
        """Start the three, tell what flows until told to stop, and return the ledger at the end."""
        secret = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
        admin = secrets.token_urlsafe(12)
        sandbox = held.enter_context(
            _process(self.folder / "sandbox.log", "sandbox", "--port", str(_port(SANDBOX_PORT)))
        )
        sandbox_url = _address(self.folder / "sandbox.log", "sandbox ", sandbox)
        anchor = datetime.now(UTC) + LEAD
        port = _port(BRIDGE_PORT)
        config = self._config(port=port, sandbox=sandbox_url, secret=secret, admin=admin, anchor=anchor)
        bridge = held.enter_context(_process(self.folder / "bridge.log", "serve", "--config", str(config)))
        url = f"http://127.0.0.1:{port}"
        _ready(url, bridge, self.folder / "bridge.log")
        _say(f"bridge {url}")
        _say(f"sandbox {sandbox_url}")
        _say(f"  operator's page {url}/ (user: any, password: {admin}), health {url}/health, metrics {url}/metrics")
        _say(f"  what MOOST has   {sandbox_url}/ (page), {sandbox_url}/_sandbox/received (JSON)")
        _say(
            f"  {self.homes} homes; their last day at {self.speed:g} times the speed, then in real time; ctrl-C ends it"
        )
        cloud = _Cloud(self, url, secret, anchor)
        cloud.start(held)
        while not stop.wait(TELL_S):
            _flow(url, sandbox_url)
            cloud.keep_going(held)
            if bridge.poll() is not None or sandbox.poll() is not None:
                raise BridgeError(f"a part of the demo ended:\n{_tail(self.folder)}")
        cloud.stop()
        return _drain(url, bridge)

    def _config(self, *, port: int, sandbox: str, secret: str, admin: str, anchor: datetime) -> Path:
        """Write the bridge's configuration."""
        start = anchor - SPAN + SPAN / self.speed
        clock = (
            f"[clock]\nstart = {start.isoformat()}\nanchor = {anchor.isoformat()}\nspeed = {self.speed}\n"
            if self.speed > 1
            else ""
        )
        path = self.folder / "bridge.toml"
        path.write_text(
            f'[server]\nport = {port}\nadmin_token = "{admin}"\n'
            f'[[subscriptions]]\nid = "{SUBSCRIPTION}"\nsecrets = ["{secret}"]\n'
            f'[moost]\nbase_url = "{sandbox}"\nclient_id = "{CLIENT_ID}"\nclient_secret = "{CLIENT_SECRET}"\n'
            f'customer_id = "{CUSTOMER_ID}"\n'
            f'[store]\nurl = "sqlite:///{self.folder}/bridge.db"\n{clock}'
        )
        path.chmod(0o600)
        return path


class _Cloud:
    """The simulated device cloud: first the fast day, then on in real time."""

    def __init__(self, stage: _Stage, url: str, secret: str, anchor: datetime) -> None:
        self._stage = stage
        self._secret = secret
        self._anchor = anchor
        self._common = (
            "simulate",
            "--target",
            url,
            "--homes",
            str(stage.homes),
            "--seed",
            "1",
            "--subscription",
            SUBSCRIPTION,
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, held: contextlib.ExitStack) -> None:
        """Begin with the fast day."""
        self._begin(held, "--hours", f"{SPAN / timedelta(hours=1):g}", "--speed", f"{self._stage.speed:g}",
                    "--anchor", self._anchor.isoformat())  # fmt: skip

    def keep_going(self, held: contextlib.ExitStack) -> None:
        """Go on in real time once the fast day is over."""
        if self._process is not None and self._process.poll() is not None:
            self._begin(held, "--hours", "720", "--speed", "1")

    def stop(self) -> None:
        """End it."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(10)

    def _begin(self, held: contextlib.ExitStack, *options: str) -> None:
        log = self._stage.folder / "cloud.log"
        environ = {"BRIDGE_SIMULATE_SECRET": self._secret}
        self._process = held.enter_context(_process(log, *self._common, *options, environ=environ))


# ---- processes ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _process(log: Path, *arguments: str, environ: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run one of our own commands in a session of its own, so that ctrl-C reaches only this process."""
    with log.open("ab") as sink:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "bridge", *arguments], stdout=sink, stderr=sink, stdin=subprocess.DEVNULL,
            env={**os.environ, **(environ or {})}, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(25)
            except subprocess.TimeoutExpired:
                process.kill()


def _port(usual: int) -> int:
    """Return the usual port, or a free one where that is taken."""
    for port in (usual, 0):
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", port))
            return int(sock.getsockname()[1])
    raise BridgeError("there is no free port on 127.0.0.1")


def _address(log: Path, word: str, process: subprocess.Popen[bytes]) -> str:
    """Return the address that a process prints behind a word."""
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        for line in log.read_text(errors="replace").splitlines():
            if line.startswith(word):
                return line.removeprefix(word).strip()
        time.sleep(0.05)
    raise BridgeError(f"the sandbox did not come up:\n{_tail(log.parent)}")


def _ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the bridge accepts."""
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/health/ready", timeout=2).is_success:
                return
        time.sleep(0.05)
    raise BridgeError(f"the bridge did not come up:\n{_tail(log.parent)}")


def _tail(folder: Path) -> str:
    """Return the last lines of all logs."""
    return "\n".join(
        line for log in sorted(folder.glob("*.log")) for line in log.read_text(errors="replace").splitlines()[-5:]
    )


# ---- telling ------------------------------------------------------------------------------------------------------


def _say(line: str, stream: TextIO | None = None) -> None:
    """Print a line at once."""
    (stream or sys.stdout).write(line + "\n")
    (stream or sys.stdout).flush()


def _flow(url: str, sandbox: str) -> None:
    """Print what flows."""
    with contextlib.suppress(httpx.HTTPError):
        health = httpx.get(f"{url}/health", timeout=5).json()
        counts = httpx.get(f"{sandbox}/_sandbox/counts", timeout=5).json()
        ledger, calls, events = health["ledger"], health["calls"], counts["events"]
        clock = datetime.now().astimezone().strftime("%H:%M:%S")
        _say(
            f"{clock}  messages {ledger['accepted']} accepted, {ledger['pending']} waiting | "
            f"calls {calls['delivered']} delivered, {calls['pending']} owed | "
            f"sandbox {counts['buildings']} buildings, "
            f"{events['live']} live + {events['historical']} historical events, "
            f"{sum(counts['violations'].values())} violations"
            + (f" | {', '.join(health['problems'])}" if health["problems"] else "")
        )


def _drain(url: str, bridge: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Let the backlog drain, end the bridge, and return its ledger."""
    _say("draining …")
    health: dict[str, Any] = {}
    end = time.monotonic() + DRAIN_S
    with contextlib.suppress(httpx.HTTPError):
        while True:
            health = httpx.get(f"{url}/health", timeout=5).json()
            if time.monotonic() > end or not (health["ledger"]["pending"] or health["calls"]["pending"]):
                break
            time.sleep(0.1)
    bridge.send_signal(signal.SIGTERM)
    bridge.wait(25)
    return {"ledger": health.get("ledger"), "calls": health.get("calls"), "dead_letters": health.get("dead_letters")}
