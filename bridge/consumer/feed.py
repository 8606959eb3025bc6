"""The records of one subscription: read, stored, confirmed.

Rules:
- Offsets are told to the client only after the store has made the records durable.
- While the door is closed or the store cannot serve, the partitions are paused: what is in hand waits, nothing more
  comes, and the client is still asked, so that the group does not take us for dead.
- What is in hand of a partition that has gone is dropped: it comes again, here or elsewhere.
- Trouble with Kafka is said once when it begins and once when it ends; meanwhile the client goes on trying by itself.
- An empty array is a record that says nothing: it is passed over, and its offset committed.
- What Kafka deleted before it was read is told: a line for each partition, a count, and a problem for a day.

Theory of operation: one step asks the client (in its thread, up to `POLL_S`), the next one stores what came. So there
is never more in hand than one batch, and nothing at all when partitions are taken away within a poll.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol

from bridge import logs
from bridge.consumer.records import slices, taken
from bridge.consumer.thread import Thread
from bridge.core.effects import Note
from bridge.intake import tally
from bridge.metrics import Metrics
from bridge.receiver.gate import Gate
from bridge.repeated import Outage, store_outage
from bridge.source.kafka import (
    BrokenClientError,
    Client,
    Moved,
    Place,
    Record,
    Trouble,
    UnansweredError,
    UnusableSettingsError,
)
from bridge.store.port import Arrival, Receipt, Store, StoreBroken, StoreUnavailable, Work

BATCH: Final = 500  # records; the store takes them in one transaction, some ms
POLL_S: Final = 0.25  # longest wait for a first record: as long as it takes to notice that the process stops
READ_BEFORE: Final = "kafka_read"  # begins the name of the note of a group that has read
LOOK_S: Final = 5.0  # how often the lag is asked for
LOOK_IN_TROUBLE_S: Final = 1.0
RETRY_S: Final = 1.0  # until the store is tried again
REOPEN_S: Final = 5.0  # until a client that gave up is made anew
GOODBYE_S: Final = 5.0  # for the last commit; what it does not reach comes twice, and is recognised
LOSS_TOLD_S: Final = 86_400.0  # how long a loss is a problem of `/health`
KEEP_ALIVE_S: Final = 30.0  # while the store takes its time: far below Kafka's limit of five minutes

_log = logs.logger("consumer")


class Reader(Protocol):
    """What a feed asks of the client, see `source.kafka.Client`."""

    owned: frozenset[Place]
    missing: frozenset[str]
    moved: list[Moved]
    ever: bool | None

    @property
    def confirmed(self) -> bool:
        """Return whether the group has committed anything."""

    @property
    def suspected(self) -> Trouble | None:
        """Return what the library complained of."""

    @property
    def reason(self) -> str:
        """Return in a sentence what keeps us out of the group."""

    @property
    def gone(self) -> frozenset[str]:
        """Return topics that do not exist any more."""

    def poll(self, most: int, wait_s: float, stored: Sequence[Record] = ()) -> list[Record]:
        """Return what has come."""

    def pause(self) -> None:
        """Fetch nothing."""

    def resume(self) -> None:
        """Fetch again."""

    def ask(self) -> str:
        """Return the id of the cluster."""

    def lag(self) -> dict[str, int]:
        """Return what waits, by topic."""

    def inspect(self) -> None:
        """Look whether the topics are the same, and who is in the group."""

    def close(self, stored: Sequence[Record] = ()) -> None:
        """Commit and leave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What every feed lives on."""

    store: Store
    metrics: Metrics
    gate: Gate
    now: Callable[[], datetime]  # time of receipt, in UTC
    accepted: Callable[[], object]  # told after messages were stored
    max_body: int  # bytes
    outage: Outage = field(default_factory=store_outage)


@dataclass(slots=True, kw_only=True)
class State:
    """How a feed is, for `/health` and the metrics."""

    trouble: Trouble | None = None
    reason: str = ""  # of the trouble, in a sentence
    gone: frozenset[str] = frozenset()  # topics that were read, and do not exist any more
    lost: dict[str, int] = field(default_factory=dict)  # topic -> records that Kafka deleted before they were read
    lost_at: float | None = None  # when that was last found [s of the monotonic clock]
    paused: str = ""  # why
    partitions: int = 0
    lag: Mapping[str, int] = field(default_factory=dict)  # topic -> records


class Feed:
    """One consumer group member and what it has in hand."""

    def __init__(
        self, subscription: str, parts: Parts, properties: Mapping[str, Any], wanted: Sequence[str],
        connect: Callable[[Mapping[str, Any], Sequence[str]], Reader] = Client,
    ) -> None:  # fmt: skip
        """Connect; raises UnusableSettingsError."""
        self.subscription = subscription
        self.state = State()
        self._parts = parts
        self._wanted = wanted
        self._connect = connect
        self._properties = properties
        self._changed = False
        self._hand: list[Record] = []
        self._stored: list[Record] = []  # since the client was last told
        self._cluster: str | None = None
        self._retry_at = 0.0
        self._ever: bool | None = None  # the group has read before, by the store; None = it was not asked yet
        self._broken = Outage(_log, "client_failed", "client_works")
        self._troubled_at = 0.0  # when the trouble began [s of the monotonic clock]
        self._look_at = 0.0
        self._looked_at: frozenset[Place] = frozenset()  # partitions that were there at the last look
        self._missing: frozenset[str] = frozenset()  # topics, at the last look
        self._told: frozenset[str] = frozenset()  # the same, as last logged
        self._thread = Thread()
        self._client: Reader | None = connect(properties, wanted)

    def change(self, properties: Mapping[str, Any]) -> None:
        """Connect anew, with other credentials, if they are other ones."""
        self._changed = self._changed or properties != self._properties
        self._properties = properties

    async def run(self, stop: asyncio.Event) -> None:
        """Read until told to stop, then commit and leave the group."""
        while not stop.is_set():
            try:
                await self.step()
            except (BrokenClientError, UnusableSettingsError) as why:
                self._broken.met(self.subscription, str(why))
                self.state.trouble, self.state.reason = Trouble.GROUP, str(why)
                self._changed = True
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(REOPEN_S):
                        await stop.wait()
            else:
                self._broken.over(self.subscription)
        await self._leave()

    async def step(self) -> None:
        """Store what is in hand, then ask for more."""
        client = self._client
        if client is None or self._changed:
            client = await self._reconnect()
        obstacle = await self._obstacle(client)
        if self._hand and not obstacle:
            await self._store_hand(client)
        await self._pace(client, obstacle or ("store" if self._hand else ""))
        stored, self._stored = self._stored, []
        await self._recall(client)
        self._hand += await self._thread.call(client.poll, BATCH, POLL_S, stored)
        self._tell_moved(client)
        await self._look(client)

    async def _recall(self, client: Reader) -> None:
        """Tell the client whether its group has read before, which the broker forgets; let the store remember it."""
        if client.ever and self._ever:
            return
        note = Note(name=f"{READ_BEFORE} {self._properties.get('group.id', self.subscription)}")
        with contextlib.suppress(StoreUnavailable):  # it is asked again
            if self._ever is None:
                self._ever = note.name in (await self._parts.store.census()).notes
            if client.confirmed and not self._ever:
                await self._parts.store.commit(Work(now=self._parts.now(), notes=((0, note),)))
                self._ever = True
            client.ever = self._ever

    # ---- pace ----

    async def _pace(self, client: Reader, reason: str) -> None:
        """Pause while nothing may be taken in, for a reason; resume when there is none and nothing is left in hand."""
        if bool(reason) != bool(self.state.paused):
            await self._thread.call(client.pause if reason else client.resume)
            if reason:
                _log.info("feed_paused", subscription=self.subscription, reason=reason)
            else:
                _log.info("feed_resumed", subscription=self.subscription)
        self.state.paused = reason

    async def _obstacle(self, client: Reader) -> str:
        """Return why nothing may be taken in now; empty = nothing keeps us from it."""
        closed = await self._parts.gate.judged(self.subscription)
        if closed is not None:
            return closed.reason
        if time.monotonic() < self._retry_at:
            return "store"
        if self._hand and self._cluster is None:
            try:
                self._cluster = await self._thread.call(client.ask)
            except UnansweredError:
                return Trouble.UNREACHABLE
        return ""

    # ---- storing ----

    async def _store_hand(self, client: Reader) -> None:
        """Store what is in hand; what cannot be stored now stays there."""
        self._hand = [record for record in self._hand if record.place in client.owned]
        for records in slices(self._hand):
            if not await self._store(records, client):
                break
            self._stored += records
            self._hand = self._hand[len(records) :]

    async def _store(self, records: Sequence[Record], client: Reader) -> bool:
        """Store records; return whether they are."""
        parts, received = self._parts, self._parts.now()
        messages = [
            message
            for record in records
            for message in taken(
                record,
                subscription=self.subscription,
                cluster=str(self._cluster),
                max_body=parts.max_body,
                received=received,
            )
        ]
        try:
            receipts = await self._patiently(messages, client) if messages else ()
        except StoreBroken:
            raise  # ends the process (R10)
        except StoreUnavailable as why:
            parts.outage.met("consumer", str(why))
            parts.gate.failed(str(why))
            self._retry_at = time.monotonic() + RETRY_S
            return False
        parts.outage.over("consumer")
        parts.gate.took(sum(len(message.body) for message in messages), self.subscription)
        parts.accepted()
        tally(messages, receipts, parts.metrics)
        return True

    async def _patiently(self, messages: Sequence[Arrival], client: Reader) -> Sequence[Receipt]:
        """Return the store's receipts; the group hears of us meanwhile, however long it takes."""
        accepting = asyncio.ensure_future(self._parts.store.accept(messages))
        while not (await asyncio.wait([accepting], timeout=KEEP_ALIVE_S))[0]:
            await self._thread.call(client.pause)
            self._hand += await self._thread.call(client.poll, BATCH, 0)
            await self._thread.call(client.resume)
        return accepting.result()

    # ---- how it is ----

    async def _look(self, client: Reader) -> None:
        """Look now and then whether there is trouble and how much waits; at new partitions at once.

        So each commit carries the identity of its topic, however soon the topic is made anew.
        """
        state = self.state
        state.partitions = len(client.owned)
        alarmed = client.suspected is not None and state.trouble is None
        if time.monotonic() < self._look_at and not alarmed and client.owned <= self._looked_at:
            return
        self._looked_at = client.owned
        try:
            self._cluster = await self._thread.call(client.ask)
            state.lag = await self._thread.call(client.lag)
            await self._thread.call(client.inspect)
        except UnansweredError as why:
            self._tell(client.suspected or Trouble.UNREACHABLE, str(why))  # what it suspects by now
        else:
            self._tell(client.suspected, client.reason)
        self._tell_gone(client.gone)
        self._look_at = time.monotonic() + (LOOK_S if state.trouble is None else LOOK_IN_TROUBLE_S)
        self._tell_missing(client.missing)

    def _tell_missing(self, missing: frozenset[str]) -> None:
        """Say which topics do not exist, once they are the same for two looks."""
        if missing == self._missing and missing != self._told:
            self._told = missing
            _log.info("topics_missing", subscription=self.subscription, topics=sorted(missing))
        self._missing = missing

    def _tell_gone(self, gone: frozenset[str]) -> None:
        """Say which topics have gone and which have come again."""
        known, self.state.gone = self.state.gone, gone
        for topic in sorted(gone - known):
            _log.error("kafka_topic_gone", subscription=self.subscription, topic=topic)
        for topic in sorted(known - gone):
            _log.info("kafka_topic_back", subscription=self.subscription, topic=topic)

    def _tell_moved(self, client: Reader) -> None:
        """Say what is read from another place than where it was left, and count what was lost."""
        moved, client.moved = client.moved, []
        for (topic, partition), read, start in moved:
            about = {"subscription": self.subscription, "topic": topic, "partition": partition}
            _log.warning(
                "kafka_partition_moved", **about, left_at=read, reads_from=start.offset, why=start.change.value
            )
            if start.lost:
                _log.error("kafka_records_lost", **about, count=start.lost, why=start.change.value)
                self.state.lost[topic] = self.state.lost.get(topic, 0) + start.lost
                self.state.lost_at = time.monotonic()

    def _tell(self, trouble: Trouble | None, reason: str) -> None:
        """Say once what has changed."""
        known, self.state.trouble = self.state.trouble, trouble
        self.state.reason = reason if trouble is not None else ""
        if trouble is not None and trouble != known:
            if known is None:
                self._troubled_at = time.monotonic()
            _log.error(trouble.value, subscription=self.subscription, reason=reason)
        elif trouble is None and known is not None:
            seconds = round(time.monotonic() - self._troubled_at, 1)
            _log.info("kafka_connected", subscription=self.subscription, seconds=seconds, after=known.value)

    # ---- coming and going ----

    async def _reconnect(self) -> Reader:
        """Leave, and join again with the newest credentials."""
        await self._leave()
        self._hand, self._cluster, self.state.paused = [], None, ""
        self._look_at, self._looked_at = 0.0, frozenset()
        client = self._connect(self._properties, self._wanted)
        self._thread, self._client, self._changed = Thread(), client, False
        return client

    async def _leave(self) -> None:
        """Commit and leave the group; a client that cannot is left alone with it."""
        client, self._client = self._client, None
        if client is None:
            return
        stored, self._stored = self._stored, []
        leaving = asyncio.ensure_future(self._thread.call(client.close, stored))
        done, _ = await asyncio.wait([leaving], timeout=GOODBYE_S)
        self._thread.end()
        if not done:
            leaving.cancel()
            _log.warning("goodbye_unheard", subscription=self.subscription)
