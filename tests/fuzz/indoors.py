"""The whole way of a request within this process: the real ASGI app, the real SQLite store, the real worker."""

import contextlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from structlog.testing import capture_logs

from bridge.config import Settings
from bridge.limits import LimitCounts
from bridge.metrics import Metrics
from bridge.receiver.app import Receiver, build_app
from bridge.receiver.gate import Gate
from bridge.receiver.health import HealthSources
from bridge.store.desk import DeadFilter
from bridge.store.port import Census
from bridge.store.sqlite import SqliteStore
from bridge.worker import Worker
from tests.fuzz.inputs import ADMIN, SUBSCRIPTIONS

REFUSALS: Final = frozenset({400, 401, 403, 404, 405, 413, 415, 429, 503})
SETTINGS: Final = Settings.model_validate(
    {
        "server": {"admin_token": ADMIN},
        "subscriptions": SUBSCRIPTIONS,
        "codes": {"DEVICE_STATUS": {"CAR": {"online": 1, "offline": 0, "fault": 3}}},
        "moost": {"battery_soc": True},
    }
)


class Indoors:
    """A bridge without sockets: what is posted is accepted, worked off and looked at."""

    def __init__(self, store: SqliteStore) -> None:
        """Build the rooms on an open store."""
        self.store = store
        self.shift = timedelta()  # how far time has gone on by itself
        metrics = Metrics()
        gate = Gate(max_size=10**12, starting=False)
        rules = SETTINGS.rules()
        self.receiver: Receiver = build_app(
            settings=SETTINGS,
            store=store,
            metrics=metrics,
            gate=gate,
            limits=LimitCounts(metrics),
            sources=HealthSources(),
            now=self.now,
            wall=lambda: datetime.now(UTC),
        )
        self.worker = Worker(store, rules, metrics, queued=lambda: None, now=self.now)
        self.accepted = 0

    def now(self) -> datetime:
        """Return the time of receipt."""
        return datetime.now(UTC) + self.shift

    async def ask(
        self, method: str, path: bytes, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> tuple[int, dict[bytes, bytes], bytes]:
        """Make a request as an ASGI server hands it over; return status, headers and body."""
        sent: list[Any] = []
        given = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> Any:  # noqa: ANN401 - a message of ASGI
            return next(given, {"type": "http.disconnect"})

        async def send(message: Any) -> None:  # noqa: ANN401
            sent.append(message)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path.decode("utf-8", "surrogatepass"),
            "raw_path": path,
            "query_string": b"",
            "root_path": "",
            "headers": headers,
            "client": ("127.0.0.1", 4711),
            "server": ("127.0.0.1", 80),
        }
        await self.receiver.app(scope, receive, send)
        status = int(sent[0]["status"])
        return status, dict(sent[0]["headers"]), b"".join(message.get("body", b"") for message in sent[1:])

    async def post(self, method: str, path: bytes, headers: list[tuple[bytes, bytes]], body: bytes) -> int:
        """Make a request and check that its answer is one of those that are documented; return the status."""
        status, fields, content = await self.ask(method, path, headers, body)
        if status in REFUSALS:
            assert method == "HEAD" or ["error"] == list(json.loads(content)), content
            assert (status in (429, 503)) == (b"retry-after" in fields)
        elif status == 202:
            said = json.loads(content)
            assert ["accepted", "duplicates", "dead", "ids"] == list(said)
            assert said["accepted"] >= said["dead"]
            assert min(100, said["accepted"]) == len(said["ids"])
            self.accepted += said["accepted"]
        else:
            assert status == 200, (status, content)
        return status

    async def work(self) -> Census:
        """Work everything off; check that nothing is stuck, faulty or counted wrongly."""
        with capture_logs() as lines:
            while await self.worker.step():
                pass
        assert [] == [line for line in lines if line["event"] not in FINDINGS]
        census = await self.store.census()
        assert self.accepted == census.accepted == census.settled + census.parked + census.dead, census
        assert 0 == census.pending
        assert census.queued == census.calls_pending + census.replaced, census
        if "fault" in census.dead_letters:
            raise AssertionError([letter.detail for letter in await self.store.dead_letters(DeadFilter())][-3:])
        return census


FINDINGS: Final = frozenset({"building_flagged", "building_cleared"})
"""Lines about a household, which inputs of any kind may bring about."""


@contextlib.asynccontextmanager
async def indoors(folder: Path) -> AsyncIterator[Indoors]:
    """Open a bridge on a fresh store; in the end its file must be whole."""
    store = SqliteStore(str(folder / "fuzz.db"), exclusive=True)
    await store.open()
    try:
        bridge = Indoors(store)
        yield bridge
        await bridge.work()
        assert [] == list(await store.verify())
    finally:
        await store.close()
