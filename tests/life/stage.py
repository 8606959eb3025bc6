"""The real thing: `bridge serve` and `bridge sandbox` as processes, spoken to over real sockets."""

import base64
import hashlib
import hmac
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar, cast
from urllib.parse import urlencode

import httpx
from standardwebhooks import Webhook

SUBSCRIPTION: Final = "acme"
SECRET: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # made up
CLIENT_ID: Final = "canaryclient"
CLIENT_SECRET: Final = "Kx7-canary-moost-secret_Q2"
ADMIN: Final = "canary-admin-token-81"
CUSTOMER: Final = "656730be2bc9719e6e5ed51d"
PATIENCE_S: Final = 60.0  # for what takes well under one second on a quiet machine
PAUSE_S: Final = 0.02
ROOT: Final = Path(__file__).parents[2]

T = TypeVar("T")
Table = Mapping[str, object]

_numbers = itertools.count(1)


def until(condition: Callable[[], T | None], what: str, seconds: float = PATIENCE_S) -> T:
    """Return the first true result of a condition that is asked again and again."""
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(PAUSE_S)


def ask(
    method: str, url: str, content: bytes | Iterable[bytes] | None = None, headers: Mapping[str, str] | None = None
) -> httpx.Response:
    """Make a request on a connection of its own."""
    return httpx.request(
        method,
        url,
        content=content,
        headers=headers,
        timeout=PATIENCE_S,
        trust_env=False,
        verify=False,  # noqa: S501 - no TLS is spoken here, and reading all certificates takes 40 ms a request
    )


# ---- processes ------------------------------------------------------------------------------------------------------


def environ(**more: str) -> dict[str, str]:
    """Return the environment of a command: nobody's settings but the test's own."""
    return {**{name: value for name, value in os.environ.items() if not name.startswith("BRIDGE_")}, **more}


def run(*arguments: object, **more: str) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end; `more` are variables of its environment."""
    command = [sys.executable, "-m", "bridge", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=environ(**more))


@dataclass
class Process:
    """A running command whose lines, of both streams, go to a file."""

    arguments: Sequence[str]
    log: Path
    program: Sequence[str] = ("-m", "bridge")
    popen: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        """Start it in a session of its own, so that no signal to the tests reaches it."""
        command = [sys.executable, *self.program, *self.arguments]
        with self.log.open("ab") as sink:
            self.popen = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=environ(), start_new_session=True
            )

    @property
    def running(self) -> bool:
        """Return whether it runs."""
        return self.popen is not None and self.popen.poll() is None

    def text(self) -> str:
        """Return everything it said."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def said(self, pattern: str) -> str:
        """Wait until it has said something; return the first match's group."""

        def look() -> str | None:
            found = re.search(pattern, self.text())
            if found:
                return found[1]
            assert self.running, f"it ended:\n{self.text()[-4000:]}"
            return None

        return until(look, pattern)

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self.popen is not None
        self.popen.send_signal(number)

    def ended(self, seconds: float = PATIENCE_S) -> int:
        """Wait for its end; return its exit code."""
        assert self.popen is not None
        return self.popen.wait(seconds)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end; return its exit code."""
        self.send(number)
        return self.ended()

    def kill(self) -> None:
        """End it as the power does."""
        if self.running:
            self.send(signal.SIGKILL)
            self.ended()


# ---- the look-alike -------------------------------------------------------------------------------------------------


@dataclass
class Sandbox:
    """The MOOST look-alike as a process, at an address that survives its restart."""

    folder: Path
    options: Sequence[str] = ()  # of the command
    port: int = 0
    process: Process | None = None

    @property
    def url(self) -> str:
        """Return its address."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it; it knows the test's credentials."""
        secret = self.folder / "moost-secret"
        secret.write_text(CLIENT_SECRET)
        options = ("--client-id", CLIENT_ID, "--client-secret-file", str(secret), "--customer-id", CUSTOMER)
        log = self.folder / f"sandbox-{next(_numbers)}.log"
        self.process = Process(("sandbox", "--port", str(self.port), *options, *self.options), log)
        self.process.start()
        self.port = int(self.process.said(r"sandbox http://127\.0\.0\.1:(\d+)"))

    def kill(self) -> None:
        """End it without a word."""
        if self.process is not None:
            self.process.kill()

    def received(self, building: str | None = None, **page: int) -> dict[str, Any]:
        """Return what it holds and what came in; `page` is since and limit."""
        query = urlencode({**({"building": building} if building else {}), **page})
        return cast("dict[str, Any]", self._json("GET", f"/_sandbox/received?{query}"))

    def events(self) -> list[dict[str, Any]]:
        """Return all events, in order."""
        return cast("list[dict[str, Any]]", self.received()["events"])

    def counts(self) -> dict[str, Any]:
        """Return the numbers alone."""
        return cast("dict[str, Any]", self._json("GET", "/_sandbox/counts"))

    def fired(self) -> int:
        """Return how often the faults that are switched on have fired."""
        return int(self.counts()["faults"])

    def faults(self, *faults: Table) -> None:
        """Switch on exactly these faults."""
        self._json("PUT", "/_sandbox/faults", faults)

    def _json(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - whatever JSON holds
        answer = ask(method, self.url + path, None if body is None else dump(body))
        assert 200 == answer.status_code, answer.text
        return answer.json()


# ---- the daemon -----------------------------------------------------------------------------------------------------


@dataclass
class Bridge:
    """The daemon as a process, on a folder of its own; `settings` are added to the test's configuration."""

    folder: Path
    moost: str
    settings: Mapping[str, Table] = field(default_factory=dict)
    secrets: Sequence[str] = (SECRET,)
    own: Table = field(default_factory=dict)  # more about its subscription
    others: Sequence[Table] = ()  # more subscriptions
    url: str = ""
    process: Process | None = None
    accepted: int = 0  # messages, by its answers to `post`

    @property
    def config(self) -> Path:
        """Return where its configuration stands."""
        return self.folder / "bridge.toml"

    @property
    def store(self) -> Path:
        """Return where its store stands."""
        return self.folder / "bridge.db"

    def configure(self, **sections: Table) -> Path:
        """Write the configuration; `sections` are added for good."""
        self.settings = {
            **self.settings,
            **{name: {**self.settings.get(name, {}), **sections[name]} for name in sections},
        }
        tables: dict[str, Table] = {
            "server": {"port": 0, "admin_token": ADMIN},
            "moost": {
                "base_url": self.moost,
                "client_id": CLIENT_ID,
                "client_secret": CLIENT_SECRET,
                "customer_id": CUSTOMER,
            },
            "store": {"url": f"sqlite:///{self.store}"},
            "logs": {"format": "json"},
        }
        for name, section in self.settings.items():
            tables[name] = {**tables.get(name, {}), **section}
        subscriptions = ({"id": SUBSCRIPTION, "secrets": list(self.secrets), **self.own}, *self.others)
        listed = "".join(_toml("[subscriptions]", subscription) for subscription in subscriptions)
        self.config.write_text(listed + "".join(_toml(name, table) for name, table in tables.items()))
        return self.config

    def start(self, *options: str, program: Sequence[str] = ("-m", "bridge")) -> None:
        """Start it and wait until it accepts."""
        self.launch(*options, program=program)
        until(self.ready, "the bridge accepts")

    def launch(self, *options: str, program: Sequence[str] = ("-m", "bridge")) -> None:
        """Start it and wait for its address."""
        log = self.folder / f"bridge-{next(_numbers)}.log"
        self.process = Process(("serve", "--config", str(self.configure()), *options), log, program)
        self.process.start()
        self.url = self.process.said(r'"url": ?"(http://[^"]+)"')

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end; return its exit code."""
        assert self.process is not None
        return self.process.stop(number)

    def kill(self) -> None:
        """End it as the power does."""
        if self.process is not None:
            self.process.kill()

    def text(self) -> str:
        """Return everything that it said in all its lives."""
        return "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("bridge-*.log")))

    # ---- speaking to it ----

    def ready(self) -> bool:
        """Return whether it accepts."""
        try:
            return ask("GET", f"{self.url}/health/ready").status_code == 200
        except httpx.HTTPError:
            assert self.process is not None
            assert self.process.running, f"it ended:\n{self.process.text()[-4000:]}"
            return False

    def health(self) -> dict[str, Any]:
        """Return what it says of itself."""
        return dict(ask("GET", f"{self.url}/health").json())

    def metrics(self) -> str:
        """Return its metrics."""
        return ask("GET", f"{self.url}/metrics").text

    def post(
        self, topic: str, body: object, *, message_id: str = "", headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """Post a signed message; `topic` without the subscription, `body` bytes or a value."""
        raw = body if isinstance(body, bytes) else dump(body)
        address = f"{self.url}/webhooks/{SUBSCRIPTION}.{topic}" if topic else f"{self.url}/webhooks"
        fields = {**signed(raw, message_id, self.secrets[0]), **(headers or {})}
        answer = ask("POST", address, content=raw, headers=fields)
        if answer.status_code == 202:
            self.accepted += answer.json()["accepted"]
        return answer

    def take(self, topic: str, body: object) -> dict[str, Any]:
        """Post a message that is accepted; return the answer."""
        answer = self.post(topic, body)
        assert 202 == answer.status_code, answer.text
        return dict(answer.json())

    def settled(self, *, owed: bool = False) -> dict[str, Any]:
        """Wait until everything accepted is worked off, and with `owed` off nothing is owed; return the health then."""

        def look() -> dict[str, Any] | None:
            health = self.health()
            done = health["ledger"]["accepted"] >= self.accepted and not health["ledger"]["pending"]
            return health if done and (owed or not health["calls"]["pending"]) else None

        health = until(look, "an idle bridge")
        assert_identities(health)
        return health


def assert_identities(health: Mapping[str, Any]) -> None:
    """Check the two identities of the contract."""
    ledger, calls = health["ledger"], health["calls"]
    fates = ("settled", "pending", "parked", "dead", "discarded", "erased")
    assert ledger["accepted"] == sum(ledger[fate] for fate in fates), ledger
    assert calls["queued"] == sum(calls[fate] for fate in ("delivered", "pending", "dead", "replaced", "discarded")), (
        calls
    )


def _toml(name: str, table: Table) -> str:
    """Return one table as TOML; numbers, texts and lists of them are written as in JSON."""
    return f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())


# ---- both together --------------------------------------------------------------------------------------------------


@contextmanager
def sandboxed(folder: Path, *options: str) -> Iterator[Sandbox]:
    """Run a look-alike; `options` are its command's."""
    sandbox = Sandbox(folder, options)
    sandbox.start()
    try:
        yield sandbox
    finally:
        sandbox.kill()


@contextmanager
def bridged(folder: Path, url: str, /, **settings: Table) -> Iterator[Bridge]:
    """Prepare a daemon, not yet started."""
    bridge = Bridge(folder, url, settings)
    try:
        yield bridge
    finally:
        bridge.kill()


# ---- messages -------------------------------------------------------------------------------------------------------


def signed(body: bytes, message_id: str = "", secret: str = SECRET) -> dict[str, str]:
    """Return the headers of a signed message, as the scheme's own library signs it."""
    now = datetime.now(UTC)
    number = message_id or f"msg_{next(_numbers)}_{time.time_ns()}"
    try:
        signature = Webhook(secret).sign(number, now, body.decode())
    except UnicodeDecodeError:  # the library signs text only
        key = base64.b64decode(secret.removeprefix("whsec_"))
        content = f"{number}.{int(now.timestamp())}.".encode() + body
        signature = "v1," + base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
    return {
        "content-type": "application/json",
        "webhook-id": number,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signature,
    }


def dump(value: object) -> bytes:
    """Return a value as JSON."""
    return json.dumps(value).encode()


def stamp(at: datetime | None = None) -> str:
    """Return a time as the device cloud writes it; now by default."""
    return (at or datetime.now(UTC)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def vehicle(user: str, car: str, level: float, at: datetime | None = None) -> dict[str, Any]:
    """Return an update of one user's vehicle: the shortest message that makes an event at once."""
    when = stamp(at)
    return {
        "id": f"{car}-of-{user}",
        "userId": user,
        "isOnline": True,
        "lastUpdated": when,
        "staticData": {"vendor": "VW", "model": "ID.3", "name": f"Car {car}", "engineType": "BEV", "lastUpdated": when},
        "chargeState": {"stateOfCharge": level, "chargingState": "UNPLUGGED", "lastUpdated": when},
    }
