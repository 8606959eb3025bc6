"""What the tests of the Kafka source share: a subscription's topics, records to write, inboxes to look into."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from confluent_kafka import Consumer, TopicPartition

from bridge.core.vocabulary import ACTIONS
from tests.kafka.broker import Broker
from tests.kafka.inboxes import Place
from tests.life.stage import PATIENCE_S, Bridge, Table, dump, vehicle

NAMES: Final = tuple(f"{kind}.{action}" for kind, actions in ACTIONS.items() for action in actions)
PARTITIONS: Final = 3

Letter = tuple[str, bytes | None]
"""Topic without its subscription, and value."""


@dataclass
class Stream:
    """The topics of one subscription."""

    broker: Broker
    subscription: str
    names: Sequence[str] = ("vehicle.update",)
    partitions: int = PARTITIONS
    settings: Mapping[str, str] = field(default_factory=dict)  # of the topics
    written: dict[Place, bytes | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Create the topics."""
        self.create(*self.names)

    def create(self, *names: str) -> None:
        """Create more topics."""
        self.broker.create([f"{self.subscription}.{name}" for name in names], self.partitions, **self.settings)

    def places(self) -> set[Place]:
        """Return every place that the broker has filled, also with a record that was repeated after a lost receipt."""
        consumer = Consumer({"bootstrap.servers": self.broker.address, "group.id": "places", "log_level": 0})
        try:
            return {
                (topic, partition, offset)
                for topic in {topic for topic, _, _ in self.written}
                for partition in range(self.partitions)
                for offset in range(consumer.get_watermark_offsets(TopicPartition(topic, partition), PATIENCE_S)[1])
            }
        finally:
            consumer.close()

    def write(self, letters: Iterable[Letter], patience: float = PATIENCE_S) -> None:
        """Write records and wait until the broker has them; remember where each stands."""
        producer = self.broker.producer()
        lost: list[str] = []

        def written(error: object, message: object) -> None:
            if error is not None:
                lost.append(str(error))
                return
            place = (message.topic(), message.partition(), message.offset())  # type: ignore[attr-defined]
            self.written[place] = message.value()  # type: ignore[attr-defined]

        for number, (name, value) in enumerate(letters):
            producer.produce(
                f"{self.subscription}.{name}", value, partition=number % self.partitions, on_delivery=written
            )
            producer.poll(0)
        assert 0 == producer.flush(patience)
        assert [] == lost


def cars(count: int, begin: int = 0) -> Iterable[Letter]:
    """Yield updates of cars, no two the same."""
    for number in range(begin, begin + count):
        yield "vehicle.update", dump(vehicle(f"user-{number % 50}", f"car-{number}", number % 1000 / 10))


def reading(bridge: Bridge, stream: Stream, **settings: object) -> Bridge:
    """Configure a daemon to read a stream, and no webhooks of its subscription."""
    bridge.others = ({"id": stream.subscription, "auth": "kafka"},)
    section: Table = {
        "bootstrap_servers": stream.broker.address,
        "security": "plaintext",
        "subscriptions": [stream.subscription],
        **settings,
    }
    bridge.configure(kafka=section)
    return bridge
