"""Replicas on one PostgreSQL database behind one address, of which one is killed now and then: `make demo-cluster`.

What to watch: a replica that is killed takes nothing with it. The balancer sends on to the others at once; its share of
the users' messages is reduced by the others once its lease has run out; the device cloud repeats what was not answered.
"""

import contextlib
import json
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx

from bridge.demo.processes import Process, address, drained, end, flow, port, process, ready, say, tail
from bridge.demo.setting import Cloud, Setting
from bridge.errors import BridgeError, UsageError
from bridge.sandbox import database
from bridge.sandbox.balancer import Balancer

ADDRESS_PORT: Final = 8080
SANDBOX_PORT: Final = 9090
TELL_S: Final = 5.0  # how often what flows is told
KILL_AFTER: Final = 6  # tellings from the start, or from a return, to the next kill
AWAY: Final = 8  # tellings that a killed replica stays away: longer than its lease of 30 s
LEAD: Final = timedelta(seconds=8)  # for database and replicas to come up before the simulated day begins

_COUNTERS: Final = {
    "taken in": "bridge_messages_accepted_total",
    "worked off": "bridge_messages_settled_total",
    "delivered": "bridge_calls_delivered_total",
}
"""What a line tells of a replica, and the metric that says it."""


def run(*, homes: int, speed: float, replicas: int, stop: threading.Event) -> int:
    """Run until told to stop; the last line is the ledger. Raises UsageError without PostgreSQL."""
    with tempfile.TemporaryDirectory(prefix="bridge-demo-") as folder, contextlib.ExitStack() as held:
        try:
            server = held.enter_context(database.running(database.Database))
        except database.DatabaseError as why:
            raise UsageError(f"--replicas: {why}") from None
        setting = Setting(folder=Path(folder), homes=homes, speed=speed, lead=LEAD)
        ledger = _play(setting, server.url, replicas, held, stop)
    say(json.dumps(ledger))
    return 0


@dataclass(slots=True, kw_only=True)
class _Replica:
    """One bridge of several."""

    name: str
    config: Path
    port: int
    process: Process | None = None
    told: dict[str, int] = field(default_factory=dict)  # what it had counted when it was last asked

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.config.with_suffix(".log")

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self, held: contextlib.ExitStack) -> None:
        """Start it, and wait until it accepts."""
        self.told = {}
        self.process = held.enter_context(process(self.log, "serve", "--config", str(self.config)))
        ready(self.url, self.process, self.log)

    def kill(self) -> None:
        """End it without a word, as a machine that loses its power."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def line(self) -> str:
        """Return what it has done, and what of it since it was last asked."""
        if not self.alive:
            return f"  {self.name}  away"
        try:
            counts = _counts(httpx.get(f"{self.url}/metrics", timeout=5).text)
        except httpx.HTTPError:
            return f"  {self.name}  does not answer"
        parts = [f"{counts[word]:>7} {word} (+{counts[word] - self.told.get(word, 0)})" for word in _COUNTERS]
        self.told = counts
        return f"  {self.name}  {', '.join(parts)}"


def _counts(text: str) -> dict[str, int]:
    """Return the counters of a replica's metrics, summed over their labels."""
    found = dict.fromkeys(_COUNTERS, 0)
    for line in text.splitlines():
        for word, metric in _COUNTERS.items():
            if line.partition("{")[0].partition(" ")[0] == metric:
                found[word] += int(float(line.rpartition(" ")[2]))
    return found


def _play(
    setting: Setting, store: str, replicas: int, held: contextlib.ExitStack, stop: threading.Event
) -> dict[str, Any]:
    """Start everything, tell what flows until told to stop, and return the ledger at the end."""
    folder = setting.folder
    sandbox = held.enter_context(process(folder / "sandbox.log", "sandbox", "--port", str(port(SANDBOX_PORT))))
    sandbox_url = address(folder / "sandbox.log", "sandbox ", sandbox)
    several = [_replica(number, setting, sandbox_url, store) for number in range(1, replicas + 1)]
    for one in several:
        one.start(held)
    balancer = held.enter_context(Balancer([("127.0.0.1", one.port) for one in several], port(ADDRESS_PORT)))
    url = f"http://127.0.0.1:{balancer.port}"
    say(f"bridge {url}")
    say(f"sandbox {sandbox_url}")
    say(f"  behind that address: {', '.join(f'{one.name} {one.url}' for one in several)}; one PostgreSQL database")
    say(
        f"  operator's page {url}/ (user: any, password: {setting.admin}), health {url}/health, metrics of each replica"
    )
    say(f"  what MOOST has   {sandbox_url}/ (page), {sandbox_url}/_sandbox/received (JSON)")
    say(f"  {setting.homes} homes; {setting.tempo}; ctrl-C ends it")
    lease = timedelta(seconds=30 * setting.speed)
    say(f"  every {(KILL_AFTER + AWAY) * TELL_S:.0f} s one replica is killed (kill -9) and started again later")
    say(f"  its lease of 30 s, after which the others take over, is {lease} of simulated time")
    cloud, fate = Cloud(setting, url), _fate(several, held)
    cloud.start(held)
    while not stop.wait(TELL_S):
        _tell(several, sandbox_url)
        cloud.keep_going(held)
        next(fate)()
        if sandbox.poll() is not None:
            raise BridgeError(f"a part of the demo ended:\n{tail(folder)}")
    cloud.stop()
    living = next(one for one in several if one.alive)
    ledger = drained(living.url)
    for one in several:
        if one.process is not None:
            end(one.process)
    return ledger


def _replica(number: int, setting: Setting, sandbox: str, store: str) -> _Replica:
    free, name = port(0), f"replica-{number}"
    return _Replica(name=name, config=setting.config(name, port=free, sandbox=sandbox, store=store), port=free)


def _tell(several: list[_Replica], sandbox: str) -> None:
    """Print what flows, all together and replica by replica."""
    with contextlib.suppress(httpx.HTTPError, StopIteration):
        living = next(one for one in several if one.alive)
        health = httpx.get(f"{living.url}/health", timeout=5).json()
        say(f"{datetime.now().astimezone():%H:%M:%S}  {flow(health, sandbox)}")
    for one in several:
        say(one.line())


def _fate(several: list[_Replica], held: contextlib.ExitStack) -> Iterator[Callable[[], None]]:
    """Yield what happens after each telling: mostly nothing; each replica in turn is killed, and comes back."""

    def nothing() -> None:
        pass

    while True:
        for one in reversed(several):
            yield from [nothing] * KILL_AFTER
            yield lambda one=one: _kill(one)  # type: ignore[misc]
            yield from [nothing] * AWAY
            yield lambda one=one: _revive(one, held)  # type: ignore[misc]


def _kill(one: _Replica) -> None:
    one.kill()
    say(f"           {one.name} was killed; its share moves to the others when its lease ends (30 s)")


def _revive(one: _Replica, held: contextlib.ExitStack) -> None:
    one.start(held)
    say(f"           {one.name} is back, and takes its share again")
