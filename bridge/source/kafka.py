"""The device cloud's own Kafka: records in, offsets out. The only file that knows the client.

Rules:
- An offset is committed only after the room said that the record is stored; what comes twice is told by its identity.
- A record of a partition that is no longer ours is dropped: whoever has it now reads it again.
- A call that raises leaves the client unusable: what it had already taken would be missing. It is closed and made
  anew, and reads on from the last commit.
- No method may be called by two threads at once; each may block for as long as its name or argument says.
- What librdkafka says goes to the logger `kafka`, at debug only: the room says what an operator has to know.

Theory of operation: librdkafka fetches ahead in threads of its own, into a queue of `QUEUE_KIB`; `poll` empties it.
Paused partitions are not fetched and their part of the queue is thrown away, so a pause costs no memory. Partitions
move by cooperative rebalancing: only those that change hands stop, and those are committed before they go.

`consume` may return records of partitions that were revoked within the call, see confluent-kafka-python issue 1013;
`consume` with a timeout waits for a full batch, so it is `poll` that waits and `consume` only takes what is there.

Source: librdkafka, "Configuration properties" and "Introduction" (rebalancing, `enable.auto.commit`, log queue);
EHA demo application, `application.properties` (SASL_SSL, OAUTHBEARER, earliest, no automatic commit);
EHA developer portal, "Streaming introduction" (a topic is named by its message, a value is the bare object).
"""

import contextlib
import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final, NamedTuple

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    OFFSET_INVALID,
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from bridge.config import Kafka, Mechanism, Settings, Subscription
from bridge.core.vocabulary import ACTIONS
from bridge.source.envelope import is_wrapped

SESSION: Final = timedelta(seconds=10)  # a consumer that is not heard of for so long loses its partitions
COMMIT_EVERY_S: Final = 0.2  # a kill makes at most so much come twice
LAST_COMMITS: Final = 5  # of partitions that go, while their group is busy with itself
LAST_COMMIT_AGAIN_S: Final = 0.2
QUEUE_KIB: Final = 16_384  # fetched ahead
FETCH_BYTES: Final = 8 * 2**20  # of one answer of a broker, one larger record aside
ANSWER_S: Final = 2.0  # how long a broker may take to answer a question
TRY_S: Final = 5.0  # the same from nothing: names are looked up, a token is fetched, the connection is made
RECONNECT_MS: Final = (500, 5_000)  # first and longest wait between two tries

_MECHANISMS: Final[Mapping[Mechanism, str]] = {
    Mechanism.OAUTHBEARER: "OAUTHBEARER",
    Mechanism.PLAIN: "PLAIN",
    Mechanism.SCRAM_SHA_256: "SCRAM-SHA-256",
    Mechanism.SCRAM_SHA_512: "SCRAM-SHA-512",
}
_REFUSED: Final = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    }
)
_AWAY: Final = frozenset(
    {KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._RESOLVE, KafkaError._SSL, KafkaError._TIMED_OUT}
)
_BUSY: Final = frozenset(
    {
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.ILLEGAL_GENERATION,  # the group has moved on, and will say so in a moment
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.NOT_COORDINATOR,
    }
)

Place = tuple[str, int]
"""Topic and partition."""

_library: Final = logging.getLogger("kafka")


class Trouble(StrEnum):
    """Why nothing comes, in the words of `/health`."""

    AUTH = "kafka_auth"
    UNREACHABLE = "kafka_unreachable"


class Record(NamedTuple):
    """One record as it was read."""

    topic: str
    partition: int
    offset: int
    time_ms: int  # as its producer or broker stamped it; 0 = not at all
    value: bytes | None  # None = a tombstone
    wrapped: bool = False  # its headers say that the value is a CloudEvents envelope

    @property
    def place(self) -> Place:
        """Return where it stands."""
        return self.topic, self.partition

    def identity(self, cluster: str) -> str:
        """Return what tells this record from every other one, also from one of a topic that was made anew."""
        return f"kafka {cluster} {self.topic} {self.partition} {self.offset} {self.time_ms}"


def _is_wrapped(headers: Iterable[tuple[str, object]]) -> bool:
    """Return whether the headers of a record say that its value is a CloudEvents envelope."""
    return any(
        name.lower() == "content-type" and isinstance(value, bytes) and is_wrapped(value) for name, value in headers
    )


class BrokenClientError(Exception):
    """The client has to be made anew."""


class UnansweredError(Exception):
    """No broker answered in time."""


class UnusableSettingsError(Exception):
    """The client cannot be made with these settings; the sentence says why."""


# ---- settings --------------------------------------------------------------------------------------------------------


def topics(kafka: Kafka, subscription: str) -> list[str]:
    """Return the topics of a subscription: names, and patterns that begin with "^"."""
    if not kafka.topics:
        return [f"{subscription}.{kind}.{action}" for kind, actions in ACTIONS.items() for action in actions]
    return [
        topic.replace("{subscription}", re.escape(subscription) if topic.startswith("^") else subscription)
        for topic in kafka.topics
    ]


def properties(settings: Settings, subscription: Subscription) -> dict[str, Any]:
    """Return librdkafka's properties for the topics of a subscription."""
    kafka = settings.kafka
    first, longest = RECONNECT_MS
    found: dict[str, Any] = {
        "bootstrap.servers": kafka.bootstrap_servers,
        "client.id": "moost-bridge",
        "group.id": kafka.group_id.replace("{subscription}", subscription.id),
        "auto.offset.reset": kafka.offset_reset.value,
        "enable.auto.commit": False,
        "allow.auto.create.topics": False,
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": round(SESSION.total_seconds() * 1000),
        "queued.max.messages.kbytes": QUEUE_KIB,
        "fetch.max.bytes": FETCH_BYTES,
        "reconnect.backoff.ms": first,
        "reconnect.backoff.max.ms": longest,
        "security.protocol": kafka.security.value.upper(),
    }
    if kafka.ca_file:
        found["ssl.ca.location"] = kafka.ca_file
    if kafka.security.proving:
        found |= _proof(kafka, *settings.kafka_credentials(subscription))
    return found


def _proof(kafka: Kafka, identifier: str, secret: str) -> dict[str, Any]:
    """Return the properties that say who the bridge is."""
    if kafka.mechanism is not Mechanism.OAUTHBEARER:
        return {"sasl.mechanism": _MECHANISMS[kafka.mechanism], "sasl.username": identifier, "sasl.password": secret}
    optional = {
        "sasl.oauthbearer.scope": kafka.scope,
        "sasl.oauthbearer.extensions": kafka.extensions,
        "https.ca.location": kafka.token_ca_file,
    }
    return {
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.token.endpoint.url": kafka.token_url,
        "sasl.oauthbearer.client.id": identifier,
        "sasl.oauthbearer.client.secret": secret,
        **{name: value for name, value in optional.items() if value},
    }


# ---- the client ------------------------------------------------------------------------------------------------------


class Client:
    """One member of a consumer group."""

    def __init__(self, settings: Mapping[str, Any], wanted: Sequence[str]) -> None:
        """Join; connecting goes on in the background. Raises UnusableSettingsError."""
        self.owned: frozenset[Place] = frozenset()
        self.missing: frozenset[str] = frozenset()  # topics that are wanted, and do not exist or are not for us
        self._names = frozenset(topic for topic in wanted if not topic.startswith("^"))
        self._refused: set[str] = set()  # topics that are not for us
        self._shut_out = False  # the group is not for us
        self._suspected: Trouble | None = None
        self._stored: dict[Place, int] = {}  # offset to read next after what is stored
        self._committed: dict[Place, int] = {}  # the same, as far as the broker has confirmed it
        self._committed_at = 0.0
        self._paused = False
        self._start = OFFSET_END if settings.get("auto.offset.reset") == "latest" else OFFSET_BEGINNING
        self._probe = min(self._names, default="_")
        with _usable():
            self._consumer = _made(settings, error_cb=self._on_error, on_commit=self._on_commit)
            self._consumer.subscribe(
                list(wanted), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )

    @property
    def suspected(self) -> Trouble | None:
        """Return what the library complained of; `ask` tells whether it still holds.

        Of the many topics that there may be some need not be for us; that none is, is trouble.
        """
        nothing = self._shut_out or (bool(self._names) and self._refused >= self._names)
        return Trouble.AUTH if nothing else self._suspected

    def poll(self, most: int, wait_s: float, stored: Iterable[Record] = ()) -> list[Record]:
        """Return what has come, waiting up to `wait_s` for a first record; raises BrokenClientError.

        `stored` are records that need not come again: their offsets are committed soon.
        """
        self._keep(stored)
        with _unbroken():
            self._commit_now_and_then()
            first = self._consumer.poll(wait_s)
            rest = [] if first is None else self._consumer.consume(most - 1, 0)
        found = [record for message in ([] if first is None else [first, *rest]) for record in self._read(message)]
        return [record for record in found if record.place in self.owned]

    def pause(self) -> None:
        """Fetch nothing until `resume`, from partitions that come meanwhile neither."""
        self._paused = True
        with _unbroken():
            self._consumer.pause(_at(self.owned))

    def resume(self) -> None:
        """Fetch again, from where the last record was read."""
        self._paused = False
        with _unbroken():
            self._consumer.resume(_at(self.owned))

    def ask(self) -> str:
        """Return the id of the cluster; raises UnansweredError after `ANSWER_S`."""
        try:
            found = self._consumer.list_topics(self._probe, timeout=ANSWER_S).cluster_id
        except KafkaException as why:
            raise UnansweredError(_sentence(why)) from None
        self._suspected = None
        return str(found)

    def lag(self) -> dict[str, int]:
        """Return for each topic how many records wait to be stored; raises UnansweredError after some `ANSWER_S`."""
        owned = sorted(self.owned)
        lags = dict.fromkeys((topic for topic, _ in owned), 0)
        try:
            ends = self._offsets(owned, OFFSET_END)
            unknown = [place for place in owned if place not in self._stored]
            known = self._consumer.committed(_at(unknown), ANSWER_S) if unknown else []
            begun = {(at.topic, at.partition): at.offset for at in known}
            fresh = [place for place in unknown if begun.get(place, OFFSET_INVALID) < 0]
            begun |= self._offsets(fresh, self._start)
        except KafkaException as why:
            raise UnansweredError(_sentence(why)) from None
        for place in owned:
            begin = self._stored.get(place, begun.get(place, 0))
            lags[place[0]] += max(0, ends.get(place, begin) - begin)
        return lags

    def close(self, stored: Iterable[Record] = ()) -> None:
        """Commit and leave the group; blocks up to `SESSION` and more while no broker can be reached."""
        self._keep(stored)
        with contextlib.suppress(KafkaException, RuntimeError):
            self._consumer.close()  # revokes what is owned first, and thereby commits

    # ---- records ----

    def _keep(self, stored: Iterable[Record]) -> None:
        for record in stored:
            if record.place in self.owned:
                self._stored[record.place] = record.offset + 1

    def _read(self, message: Message) -> list[Record]:
        """Return what a message holds; an error among the records is noted."""
        error = message.error()
        if error is not None:
            self._note(error, message.topic() or "")
            return []
        kind, stamp = message.timestamp()
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        if topic is None or partition is None or offset is None:
            return []  # never, by the client's documentation
        stamp = 0 if kind == TIMESTAMP_NOT_AVAILABLE else stamp
        wrapped = _is_wrapped(dict(message.headers() or ()).items())
        return [Record(topic, partition, offset, stamp, message.value(), wrapped)]

    def _note(self, error: KafkaError, topic: str) -> None:
        """Remember what the library complains of; raises BrokenClientError where it gives up."""
        code = error.code()
        if error.fatal():
            raise BrokenClientError(error.name())
        if code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
            self.missing |= {topic}
        elif code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            self._refused.add(topic)
            self.missing |= {topic}
        elif code == KafkaError.GROUP_AUTHORIZATION_FAILED:
            self._shut_out = True
        else:
            self._on_error(error)

    def _on_error(self, error: KafkaError) -> None:
        if error.code() in _REFUSED:
            self._suspected = Trouble.AUTH
        elif error.code() in _AWAY and self._suspected is None:
            self._suspected = Trouble.UNREACHABLE

    # ---- offsets ----

    def _offsets(self, places: Sequence[Place], which: int) -> dict[Place, int]:
        """Return the first or the next offset of partitions, in one question."""
        if not places:
            return {}
        asked = [TopicPartition(topic, partition, which) for topic, partition in places]
        found = self._consumer.offsets_for_times(asked, timeout=ANSWER_S)
        return {(at.topic, at.partition): at.offset for at in found if at.error is None and at.offset >= 0}

    def _commit_now_and_then(self) -> None:
        now = time.monotonic()
        due = self._uncommitted(self.owned)
        if due and now - self._committed_at >= COMMIT_EVERY_S:
            self._committed_at = now
            self._consumer.commit(offsets=due, asynchronous=True)

    def _uncommitted(self, places: Iterable[Place]) -> list[TopicPartition]:
        """Return the positions that the broker has not confirmed."""
        return [
            TopicPartition(*place, self._stored[place])
            for place in places
            if place in self._stored and self._committed.get(place) != self._stored[place]
        ]

    def _on_commit(self, error: KafkaError | None, places: list[TopicPartition]) -> None:
        """Take note of what is confirmed; what is not is committed again with what follows."""
        for at in places:
            if error is None and at.error is None and (at.topic, at.partition) in self.owned:
                self._committed[at.topic, at.partition] = at.offset

    # ---- partitions that come and go ----

    def _on_assign(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        mine = {(at.topic, at.partition) for at in places}
        self.owned |= mine
        self.missing -= {topic for topic, _ in mine}
        self._refused -= {topic for topic, _ in mine}
        self._shut_out = False
        if self._paused:
            consumer.incremental_assign(places)
            consumer.pause(places)

    def _on_revoke(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        due = self._uncommitted((at.topic, at.partition) for at in places)
        for _ in range(LAST_COMMITS):
            if not due or not _undecided(consumer, due):
                break  # where it was refused, whoever comes next reads it again, and it is recognised
            time.sleep(LAST_COMMIT_AGAIN_S)
        self._on_lost(consumer, places)

    def _on_lost(self, _consumer: Consumer, places: list[TopicPartition]) -> None:
        gone = {(at.topic, at.partition) for at in places}
        self.owned -= gone
        for place in gone:
            self._stored.pop(place, None)
            self._committed.pop(place, None)


def tried(settings: Mapping[str, Any]) -> Trouble | None:
    """Ask a broker one question without joining the group; None = it was answered. Blocks up to `TRY_S`.

    Raises UnusableSettingsError.
    """
    heard: set[int] = set()
    with _usable():
        consumer = _made(settings, error_cb=lambda error: heard.add(error.code()))
    ends = time.monotonic() + TRY_S
    try:
        while time.monotonic() < ends and heard.isdisjoint(_REFUSED):
            consumer.poll(0)  # tokens and errors come only to those who do
            with contextlib.suppress(KafkaException):
                consumer.list_topics("_", timeout=ANSWER_S / 4)
                return None
        return Trouble.UNREACHABLE if heard.isdisjoint(_REFUSED) else Trouble.AUTH
    finally:
        consumer.close()


def _undecided(consumer: Consumer, due: list[TopicPartition]) -> bool:
    """Commit; tell whether the group was busy with itself, so that it is worth another try."""
    try:
        done = consumer.commit(offsets=due, asynchronous=False) or []
    except KafkaException as why:
        codes = {why.args[0].code()}
    else:
        codes = {at.error.code() for at in done if at.error is not None}
    return not codes.isdisjoint(_BUSY)


def _at(places: Iterable[Place]) -> list[TopicPartition]:
    return [TopicPartition(*place) for place in places]


def _made(settings: Mapping[str, Any], **own: Callable[..., object]) -> Consumer:
    return Consumer({**settings, **own, **_logging()}, logger=_library)


@contextlib.contextmanager
def _usable() -> Iterator[None]:
    """Turn what the client raises when it is made into UnusableSettingsError."""
    try:
        yield
    except KafkaException as why:
        raise UnusableSettingsError(_sentence(why)) from None


def _logging() -> dict[str, Any]:
    """Return what the library may say: at debug also how it proves itself, for whoever cannot connect."""
    if _library.isEnabledFor(logging.DEBUG):
        return {"log_level": 7, "debug": "security,cgrp"}
    return {"log_level": 0}


@contextlib.contextmanager
def _unbroken() -> Iterator[None]:
    """Turn what the client raises into BrokenClientError."""
    try:
        yield
    except (KafkaException, RuntimeError) as why:
        raise BrokenClientError(_sentence(why)) from None


def _sentence(why: Exception) -> str:
    error = why.args[0] if why.args else None
    return str(error.str()) if isinstance(error, KafkaError) else type(why).__name__
