"""Several daemons on one PostgreSQL database behind one address, handled like one."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from signal import SIGTERM, Signals
from typing import Any

from bridge.sandbox import database
from bridge.sandbox.balancer import Balancer
from tests.life.stage import Bridge, Table, until


@dataclass
class Replicas(Bridge):
    """Whatever is asked of a bridge is asked of all of them, or of one that lives."""

    count: int = 3
    members: list[Bridge] = field(default_factory=list)
    balancer: Balancer | None = None

    def __post_init__(self) -> None:
        """Give each a folder of its own; the shared settings name the shared store."""
        for number in range(1, self.count + 1):
            folder = self.folder / f"replica-{number}"
            folder.mkdir()
            self.members.append(Bridge(folder, self.moost, self.settings))
        self._victims = cycle(self.members)

    @property
    def config(self) -> Path:
        """Return where the configuration of one of them stands."""
        return self.members[0].config

    def configure(self, **sections: Table) -> Path:
        """Write their configurations; the port is each one's own affair."""
        for name, section in sections.items():
            mine = {key: value for key, value in section.items() if (name, key) != ("server", "port")}
            for member in self.members:
                member.configure(**{name: mine})
        return self.config

    def start(self, *options: str, **_: object) -> None:
        """Start those that do not run, and wait until all take part."""
        asleep = [member for member in self.members if member.process is None or not member.process.running]
        with ThreadPoolExecutor(self.count) as pool:
            list(pool.map(lambda member: member.start(*options), asleep))
        for member in asleep:
            member.configure(server={"port": int(member.url.rpartition(":")[2])})  # it survives a kill
        if self.balancer is None:
            backends = [("127.0.0.1", int(member.url.rpartition(":")[2])) for member in self.members]
            self.balancer = Balancer(backends).__enter__()
        balancer = self.balancer
        until(lambda: len(balancer.ready) == self.count, "all replicas take part")
        self.url = f"http://127.0.0.1:{balancer.port}"
        self.process = self.members[0].process

    def kill(self) -> None:
        """End one of them as the power does; the next time another one."""
        next(self._victims).kill()

    def stop(self, number: Signals = SIGTERM) -> int:
        """Ask all to end; return the worst exit code."""
        return max(member.stop(number) for member in self.members)

    def health(self) -> dict[str, Any]:
        """Return what one that lives says of the store they share."""
        return next(one for one in self.members if one.process is not None and one.process.running).health()

    def end(self) -> None:
        """Leave nothing running."""
        if self.balancer is not None:
            self.balancer.__exit__()
        for member in self.members:
            member.kill()


@contextmanager
def replicated(folder: Path, url: str, count: int, /, **settings: Table) -> Iterator[Replicas]:
    """Prepare replicas on a database of their own, not yet started."""
    with database.running(database.Database) as server:
        store = {**settings.get("store", {}), "url": server.url}
        several = Replicas(folder, url, {**settings, "store": store}, count=count)
        try:
            yield several
        finally:
            several.end()
