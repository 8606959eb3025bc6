"""What only an administrator's client can ask of Kafka: which topic of a name it is, and who reads in a group.

Rules:
- Nothing is changed; the rights to read a topic and a group include these questions.
- What is not answered is unknown, never trouble: the reading client says what it cannot do.
"""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

if TYPE_CHECKING:
    from concurrent.futures import Future

ANSWER_S: Final = 2.0
STEP_S: Final = 0.02

_ABOUT: Final = ("bootstrap.", "client.id", "security.", "sasl.", "ssl.", "https.", "reconnect.", "log_level", "debug")

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Who reads."""

    strategy: str  # by which the partitions are shared out; empty = nobody reads
    partitions: Mapping[str, int]  # member -> how many it reads


class Desk:
    """Asks, on a connection of its own that is made with the first question."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """Keep what is needed of librdkafka's properties."""
        self._settings = {name: value for name, value in settings.items() if name.startswith(_ABOUT)}
        self._made: AdminClient | None = None

    def ids(self, topics: Collection[str]) -> dict[str, str]:
        """Return the identities of topics; one that cannot be learnt is absent."""
        if not topics:
            return {}
        asked = self._ask(lambda admin: admin.describe_topics(TopicCollection(sorted(topics))))
        found = {topic: self._answer(future) for topic, future in asked.items()}
        return {topic: str(about.topic_id) for topic, about in found.items() if about is not None}

    def group(self, name: str) -> Group | None:
        """Return who reads in a group; None = unknown."""
        asked = self._ask(lambda admin: admin.describe_consumer_groups([name]))
        about = self._answer(asked[name]) if name in asked else None
        if about is None:
            return None
        shares = {
            each.member_id: len(each.assignment.topic_partitions) if each.assignment else 0 for each in about.members
        }
        return Group(strategy=about.partition_assignor if about.members else "", partitions=shares)

    def _ask(self, question: "Callable[[AdminClient], Mapping[str, Future[Any]]]") -> "Mapping[str, Future[Any]]":
        try:
            if self._made is None:
                self._made = AdminClient(self._settings)
            return question(self._made)
        except KafkaException:
            return {}

    def _answer(self, future: "Future[T]") -> T | None:
        """Return an answer; None = there is none in time."""
        ends = time.monotonic() + ANSWER_S
        while not future.done() and time.monotonic() < ends and self._made is not None:
            self._made.poll(STEP_S)  # tokens come only to those who do
        try:
            return future.result(0)
        except (KafkaException, TimeoutError):
            return None
