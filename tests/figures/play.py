"""One message on its way through a real daemon, from the webhook to the call that MOOST took, and what it touches.

The play uses only what an operator and the device cloud use (commands, TOML keys, HTTP), so it runs on any checkout.

- The daemon runs without its clock and is asked nothing, so that little else happens beside the message.
- What happens anyway is measured in windows of the same length without a message, and taken off. The least
  of many windows counts.
- Objects are counted in a daemon that only delivers: of `EVENTS` owed events. A class of which as many are made is made
  for each event.
"""

import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

TRACED: Final = Path(__file__).with_name("traced.py")
WINDOWS: Final = 15
WINDOW_S: Final = 0.5
EVENTS: Final = 40
PATIENCE_S: Final = 60.0
DELIVERING: Final = ("bridge.store.", "bridge.sender.", "bridge.delivery.", "bridge.core.retry.")
ANSWERS: Final = frozenset({"bridge.core.retry.Delivered"})  # what MOOST said, a matter of the sink


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """What one message touches."""

    files: tuple[str, ...]  # that it enters
    hops: int  # between files
    classes: tuple[str, ...]  # of store and delivery, made for each event


def play(tree: Path) -> Way:
    """Play it with a checkout of the code."""
    with tempfile.TemporaryDirectory() as folder, look_alike() as moost:
        stage = Stage(tree, Path(folder), moost)
        with stage.daemon("receiver,worker,sender") as daemon:
            stage.send(range(EVENTS), soc=20.0)
            stage.delivered(EVENTS)
            with_message = [stage.window(daemon, soc=30.0 + number) for number in range(WINDOWS)]
            without = [stage.window(daemon) for _ in range(WINDOWS)]
        with stage.daemon("receiver,worker"):
            stage.send(range(EVENTS), soc=70.0)
            stage.settled()
        delivered = stage.events()
        with stage.daemon("sender", listening=False) as daemon:
            stage.delivered(delivered + EVENTS)
            time.sleep(WINDOW_S)
            made = daemon.stop()["made"]
    least, idle = _least(with_message), _least(without)
    hops = {edge: count for edge in least if (count := least[edge] - idle[edge]) > 0}
    return Way(
        files=tuple(sorted({file for edge in hops for file in edge})),
        hops=sum(hops.values()),
        classes=tuple(
            name for name, count in made if count >= EVENTS and name.startswith(DELIVERING) and name not in ANSWERS
        ),
    )


def _least(windows: Sequence[Counter[tuple[str, str]]]) -> Counter[tuple[str, str]]:
    """Return how often each hop is made at least, whatever else happens in a window."""
    edges = {edge for window in windows for edge in window}
    return Counter({edge: min(window[edge] for window in windows) for edge in edges})


class Daemon:
    """A traced daemon."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        """Take a process that has started."""
        self._process = process

    def start(self) -> None:
        """Begin to take notes."""
        self._say("start")

    def stop(self) -> Any:
        """Return the notes."""
        return self._say("stop")

    def _say(self, word: str) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


class Stage:
    """A checkout of the code, a folder with its store, and the look-alike of MOOST."""

    def __init__(self, tree: Path, folder: Path, moost: str) -> None:
        """Write the configuration."""
        self._tree, self._folder, self._moost = tree, folder, moost
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port: int = free.getsockname()[1]
        (folder / "bridge.toml").write_text(
            f"""
            [server]
            port = {self._port}
            [[subscriptions]]
            id = "sub-1"
            auth = "bearer"
            secrets = ["a-secret-of-the-figures"]
            [moost]
            base_url = "{moost}"
            client_id = "sandbox"
            client_secret = "sandbox-secret"
            customer_id = "656730be2bc9719e6e5ed51d"
            [store]
            url = "sqlite:///{folder}/bridge.db"
            """
        )

    @contextmanager
    def daemon(self, rooms: str, *, listening: bool = True) -> Iterator[Daemon]:
        """Run the traced daemon, with some of its parts; it takes notes from the start where it is not `listening`."""
        config = str(self._folder / "bridge.toml")
        command = [sys.executable, str(TRACED), str(self._tree), "serve", "--config", config, "--rooms", rooms]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as process:
            daemon = Daemon(process)
            try:
                if listening:
                    _until(self._ready)
                else:
                    daemon.start()
                yield daemon
            finally:
                process.terminate()
                process.communicate()

    def send(self, users: Sequence[int], *, soc: float) -> None:
        """Post the state of charge [%] of some users' cars."""
        for user in users:
            body = json.dumps(_car(user, soc)).encode()
            headers = {"content-type": "application/json", "authorization": "Bearer a-secret-of-the-figures"}
            url = f"http://127.0.0.1:{self._port}/webhooks/sub-1.vehicle.update"
            with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as answer:
                assert 202 == answer.status

    def delivered(self, events: int) -> None:
        """Wait until MOOST has so many events."""
        _until(lambda: self.events() >= events)

    def settled(self) -> None:
        """Wait until all messages are processed."""
        _until(lambda: not _get(f"http://127.0.0.1:{self._port}/health")["ledger"]["pending"])

    def _ready(self) -> bool:
        return bool(_get(f"http://127.0.0.1:{self._port}/health/ready").get("ready"))

    def events(self) -> int:
        """Return how many events MOOST has."""
        return len(_get(f"{self._moost}/_sandbox/received")["events"])

    def window(self, daemon: Daemon, soc: float | None = None) -> Counter[tuple[str, str]]:
        """Return the hops within a while, in which a message is sent where there is a state of charge [%]."""
        before = self.events()
        daemon.start()
        if soc is not None:
            self.send([0], soc=soc)
            self.delivered(before + 1)
        time.sleep(WINDOW_S)  # the answer of MOOST is written down meanwhile
        hops = daemon.stop()["hops"]
        return Counter({(there, here): count for there, here, count in hops})


def _car(user: int, soc: float) -> dict[str, object]:
    now = datetime.now(UTC).isoformat()
    return {
        "id": f"00000000-0000-4000-8000-{user:012}",
        "userId": f"user-{user}",
        "isOnline": True,
        "chargeState": {"stateOfCharge": soc, "lastUpdated": now},
        "lastUpdated": now,
    }


@contextmanager
def look_alike() -> Iterator[str]:
    """Run the look-alike of MOOST; yield its address."""
    command = [sys.executable, "-m", "bridge", "sandbox", "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout
        try:
            yield next(word for line in process.stdout for word in line.split() if word.startswith("http://"))
        finally:
            process.terminate()


def _get(url: str) -> Any:
    """Return the JSON at an address; nothing while nobody answers there."""
    try:
        with urllib.request.urlopen(url) as answer:
            return json.loads(answer.read())
    except OSError:
        return {}


def _until(condition: Callable[[], bool]) -> None:
    """Wait until something is true."""
    ends = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < ends, "it takes too long"
        time.sleep(0.02)
