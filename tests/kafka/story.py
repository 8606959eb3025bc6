"""Two daemons read one stream while everything is killed, and an exact ledger over both at the end.

Rules:
- Every record that the broker holds is in an inbox; nothing is in an inbox twice.
- Each kill has to hit: daemons and broker are killed while records are under way, not before and not after.
- What the group had not committed when a daemon was killed is what its inbox recognises afterwards.
"""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from confluent_kafka import TopicPartition
from confluent_kafka._model import ConsumerGroupTopicPartitions

from tests.kafka.inboxes import Inboxes, Place
from tests.kafka.stage import NAMES, Letter, Stream, reading
from tests.life.stage import PATIENCE_S, Bridge, assert_identities, dump, until

BROKEN_EVERY = 97
EMPTY_EVERY = 89


def letters(begin: int, end: int) -> Iterator[Letter]:
    """Yield records of all topics, no two the same; some are poison, some tombstones."""
    for number in range(begin, end):
        name = NAMES[number % len(NAMES)]
        body = dump({"id": f"device-{number % 500}", "userId": f"user-{number % 100}", "deviceId": "d", "n": number})
        if number % BROKEN_EVERY == 0:
            yield name, body[:-9]
        elif number % EMPTY_EVERY == 0:
            yield name, None
        else:
            yield name, body


@dataclass
class Story:
    """The daemons, the stream, and what has happened."""

    stream: Stream
    inboxes: Inboxes
    bridges: Sequence[Bridge]
    count: int  # records
    rooms: str
    told: list[str] = field(default_factory=list)  # what fired

    def run(self) -> None:
        """Live through it; raises AssertionError where a promise is broken."""
        one, other = self.bridges
        for bridge in self.bridges:
            self.inboxes.prepare(bridge)
            reading(bridge, self.stream)
            bridge.start("--rooms", self.rooms)
        until(lambda: all(self._partitions(bridge) for bridge in self.bridges), "both have partitions")
        with self._writing(0, self.count // 2):
            self._when(self.count // 8)
            self._kill(one)
            one.start("--rooms", self.rooms)
            self._when(self.count // 4)
            self._kill_broker()
            until(lambda: other.health()["problems"], "a daemon notices that the broker is away")
            other.take("vehicle.update", {"id": "by-webhook", "userId": "user-1"})
            self.stream.broker.start()
        with self._writing(self.count // 2, self.count):
            self._when(self.count * 5 // 8)
            assert 0 == other.stop()
            self._when(self.count * 6 // 8)
            other.start("--rooms", self.rooms)
        self.judge()

    # ---- what happens ----

    @contextmanager
    def _writing(self, begin: int, end: int) -> Iterator[None]:
        """Write records beside what happens; wait for the last one at the end."""
        lost: list[BaseException] = []

        def work() -> None:
            try:
                self.stream.write(letters(begin, end), patience=PATIENCE_S * 3)
            except BaseException as fault:  # noqa: BLE001 - told below
                lost.append(fault)

        writer = threading.Thread(target=work)
        writer.start()
        try:
            yield
        finally:
            writer.join()
        assert [] == lost

    def _when(self, rows: int) -> None:
        """Wait until the inboxes hold so many."""
        until(lambda: self.inboxes.rows(self.bridges) >= rows, f"{rows} records are stored", PATIENCE_S * 3)

    def _kill(self, bridge: Bridge) -> None:
        """End a daemon as the power does, in the middle."""
        before = self.inboxes.rows(self.bridges)
        bridge.kill()
        assert before < self.count // 2, "the kill hit while records were coming in"
        self.told.append("daemon killed")

    def _kill_broker(self) -> None:
        self.stream.broker.stop(signal.SIGKILL)
        assert self.inboxes.rows(self.bridges) < self.count, "the broker was killed while records were coming in"
        self.told.append("broker killed")

    @staticmethod
    def _partitions(bridge: Bridge) -> int:
        return int(bridge.health()["kafka"]["partitions"])

    # ---- the ledger ----

    def judge(self) -> None:
        """Compare what was written with what is held."""
        assert self.count == len(self.stream.written)
        written = self.stream.places()
        assert set(self.stream.written) <= written
        until(lambda: self.count <= self.inboxes.rows(self.bridges), "all are stored", PATIENCE_S * 5)
        until(lambda: written <= set().union(*self.inboxes.held(self.bridges)), "each is stored", PATIENCE_S)
        for bridge in self.bridges:
            until(lambda: not bridge.health()["kafka"]["lag"], "nothing waits")  # noqa: B023
        held = self.inboxes.held(self.bridges)
        for box in held:
            assert {} == {place: times for place, times in box.items() if times > 1}, "nothing is twice in an inbox"
            assert set() == set(box) - written
        assert written == set().union(*held)
        for bridge in self.bridges:
            assert_identities(bridge.health())


def uncommitted(stream: Stream, group: str, held: Callable[[], Sequence[Place]]) -> int:
    """Return how many stored records the group has not committed."""
    admin = stream.broker.admin()
    asked = [ConsumerGroupTopicPartitions(group)]
    found = admin.list_consumer_group_offsets(asked)[group].result(PATIENCE_S)
    known = {
        (at.topic, at.partition): at.offset for at in found.topic_partitions or () if isinstance(at, TopicPartition)
    }
    return sum(offset >= max(0, known.get((topic, partition), 0)) for topic, partition, offset in held())
