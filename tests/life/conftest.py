"""The real thing: `bridge serve` and `bridge sandbox` as processes, spoken to over real sockets."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from standardwebhooks import Webhook

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # made up
CLIENT_SECRET = "Kx7-canary-moost-secret_Q2"
ADMIN = "canary-admin-token-81"
CUSTOMER = "656730be2bc9719e6e5ed51d"
DEADLINE = 30.0  # s for what takes well under one

_T = TypeVar("_T")


def until(condition: Callable[[], _T], seconds: float = DEADLINE, what: str = "") -> _T:
    """Return the first true result of a condition that is asked again and again."""
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what or condition}")
        time.sleep(0.02)


@dataclass
class Process:
    """A running command whose lines go to a file."""

    command: list[str]
    log: Path
    environ: dict[str, str] = field(default_factory=dict)
    popen: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as sink:
            self.popen = subprocess.Popen(
                self.command, stdout=sink, stderr=sink, env={**os.environ, **self.environ}, start_new_session=True
            )

    def said(self, pattern: str) -> str:
        """Return the newest match of the pattern's group in what the process said."""

        def look() -> str:
            if self.popen is not None and self.popen.poll() is not None:
                raise AssertionError(f"ended with {self.popen.returncode}:\n{self.text()[-4000:]}")
            found = re.findall(pattern, self.text())
            return found[-1] if found else ""

        return until(look, what=pattern)

    def text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def kill(self) -> None:
        """End it as the power does."""
        assert self.popen is not None
        self.popen.kill()
        self.popen.wait(10)

    def stop(self, name: signal.Signals = signal.SIGTERM, seconds: float = 30) -> int:
        """Ask it to end; return its exit code."""
        assert self.popen is not None
        self.popen.send_signal(name)
        return self.popen.wait(seconds)

    def end(self) -> None:
        if self.popen is not None and self.popen.poll() is None:
            self.kill()


@dataclass
class Sandbox:
    """The MOOST look-alike as a process."""

    process: Process
    url: str

    def received(self) -> dict[str, Any]:
        return dict(httpx.get(f"{self.url}/_sandbox/received", timeout=30).json())

    def counts(self) -> dict[str, Any]:
        return dict(httpx.get(f"{self.url}/_sandbox/counts", timeout=30).json())

    def faults(self, *faults: dict[str, Any]) -> None:
        assert 200 == httpx.put(f"{self.url}/_sandbox/faults", json=list(faults), timeout=30).status_code


@dataclass
class Bridge:
    """The daemon as a process, on a folder of its own."""

    folder: Path
    moost: str
    extra: str = ""
    level: str = "info"
    environ: dict[str, str] = field(default_factory=dict)
    url: str = ""
    process: Process | None = None
    starts: int = 0

    def config(self) -> Path:
        path = self.folder / "bridge.toml"
        path.write_text(f"""
[server]
port = 0
admin_token = "{ADMIN}"
[[subscriptions]]
id = "acme"
secrets = ["{SECRET}"]
[moost]
base_url = "{self.moost}"
client_id = "canaryclient"
client_secret = "{CLIENT_SECRET}"
customer_id = "{CUSTOMER}"
[store]
url = "sqlite:///{self.folder}/bridge.db"
[logs]
level = "{self.level}"
format = "json"
{self.extra}
""")
        return path

    def start(self, *options: str, prefix: tuple[str, ...] = ()) -> None:
        self.starts += 1
        log = self.folder / f"bridge-{self.starts}.log"
        command = [*prefix, sys.executable, "-m", "bridge", "serve", "--config", str(self.config()), *options]
        self.process = Process(command, log, self.environ)
        self.process.start()
        self.url = self.process.said(r'"url": ?"(http://[^"]+)"')
        until(self.ready, what="ready")

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health/ready", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def health(self) -> dict[str, Any]:
        return dict(httpx.get(f"{self.url}/health", timeout=30).json())

    def post(self, topic: str, body: bytes, *, message_id: str = "", client: httpx.Client | None = None) -> httpx.Response:
        sender = client or httpx
        return sender.post(f"{self.url}/webhooks/{topic}", content=body, headers=signed(body, message_id), timeout=30)

    def settled(self, seconds: float = DEADLINE) -> dict[str, Any]:
        """Wait until nothing is pending or owed; return the health then."""

        def idle() -> dict[str, Any] | None:
            health = self.health()
            busy = health["ledger"]["pending"] or health["calls"]["pending"]
            return None if busy else health

        return until(idle, seconds, "an idle bridge")  # type: ignore[return-value]

    def text(self) -> str:
        return "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("bridge-*.log")))


def signed(body: bytes, message_id: str = "") -> dict[str, str]:
    """Return the headers of a signed message."""
    from datetime import UTC, datetime

    now = datetime.now(UTC)
    number = message_id or f"msg_{time.time_ns()}"
    signature = Webhook(SECRET).sign(number, now, body.decode("utf-8", "replace")) if _is_text(body) else _raw(number, now, body)
    return {
        "content-type": "application/json", "webhook-id": number,
        "webhook-timestamp": str(int(now.timestamp())), "webhook-signature": signature,
    }  # fmt: skip


def _is_text(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _raw(number: str, now: Any, body: bytes) -> str:  # noqa: ANN401 - a datetime
    """Sign bytes that the library, which wants text, cannot."""
    import base64
    import hashlib
    import hmac

    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    content = f"{number}.{int(now.timestamp())}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as held:
        yield held


@pytest.fixture
def sandbox(tmp_path: Path, stack: ExitStack) -> Sandbox:
    """A fresh look-alike that knows the test's credentials."""
    process = Process(
        [sys.executable, "-m", "bridge", "sandbox", "--port", "0", "--client-id", "canaryclient", "--customer-id", CUSTOMER],
        tmp_path / "sandbox.log", {"SANDBOX_CLIENT_SECRET": CLIENT_SECRET},
    )  # fmt: skip
    process.start()
    stack.callback(process.end)
    return Sandbox(process, process.said(r"sandbox (http://\S+)"))


@pytest.fixture
def bridge(tmp_path: Path, sandbox: Sandbox, stack: ExitStack) -> Bridge:
    """A daemon beside the look-alike, not yet started."""
    daemon = Bridge(tmp_path, sandbox.url)
    stack.callback(lambda: daemon.process.end() if daemon.process is not None else None)
    return daemon


@pytest.fixture
def wait() -> Callable[..., Any]:
    return until


def dump(value: object) -> bytes:
    return json.dumps(value).encode()
