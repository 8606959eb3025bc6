"""The device cloud's own Kafka: records in, offsets out. Only this file and `group` know the client.

Rules:
- An offset is committed only after the room said that the record is stored; what comes twice is told by its identity.
- A record of a partition that is no longer ours is dropped: whoever has it now reads it again.
- A call that raises leaves the client unusable: what it had already taken would be missing. It is closed and made
  anew, and reads on from the last commit.
- The library never decides where to begin: where it finds no offset, or one that the broker does not keep, `positions`
  does, and what was lost is told. A commit carries the identity of its topic, so that one made anew is noticed.
- No method may be called by two threads at once; each may block for as long as its name or argument says.
- What librdkafka says goes to the logger `kafka`, at debug only: the room says what an operator has to know.

Theory of operation: librdkafka fetches ahead in threads of its own, into a queue of bounded size; `poll` empties it.
Where a partition ends, the library says so with an offset, behind what transactions leave there: that is committed too,
and nothing is taken for waiting that can never come.
Paused partitions are not fetched and their part of the queue is thrown away, so a pause costs no memory. Partitions
move by cooperative rebalancing: only those that change hands stop, and those are committed before they go.

`consume` may return records of partitions that were revoked within the call, see confluent-kafka-python issue 1013;
`consume` with a timeout waits for a full batch, so it is `poll` that waits and `consume` only takes what is there.

Source: librdkafka, "Configuration properties" and "Introduction" (rebalancing, `enable.auto.commit`, log queue);
EHA developer portal, "Streaming introduction" (a topic is named by its message, a value is the bare object).
"""

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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

from bridge.source.broker import SESSION, STRATEGY
from bridge.source.envelope import is_wrapped
from bridge.source.group import Desk
from bridge.source.positions import Known, Start, start

COMMIT_EVERY_S: Final = 0.2  # a kill makes at most so much come twice
LAST_COMMITS: Final = 5  # of partitions that go, while their group is busy with itself
LAST_COMMIT_AGAIN_S: Final = 0.2
ANSWER_S: Final = 2.0  # how long a broker may take to answer a question
TRY_S: Final = 5.0  # the same from nothing: names are looked up, a token is fetched, the connection is made
ASTRAY_AGAIN_S: Final = 1.0  # until it is asked again where to begin
BARRED_S: Final = 15.0  # that the group keeps us out, since it last said so: it says so every other second
IDENTITY_S: Final = 30.0  # how often it is asked whether a topic is still the same
IDLE_S: Final = 60.0  # without a partition, until it is asked who reads them

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
_UNKNOWN: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})
_BUSY: Final = frozenset(
    {
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.ILLEGAL_GENERATION,  # the group has moved on, and will say so in a moment
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.NOT_COORDINATOR,
    }
)
_PASSING: Final = _BUSY | {
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.MEMBER_ID_REQUIRED,
    KafkaError._MAX_POLL_EXCEEDED,
}
"""What a member of a group meets and mends by itself."""

_HINTS: Final[Mapping[int, str]] = {
    KafkaError.INCONSISTENT_GROUP_PROTOCOL: (
        "another program reads in it by another assignment strategy; end it, or set another kafka.group_id"
    ),
    KafkaError.INVALID_SESSION_TIMEOUT: (
        f"the broker allows no session timeout of {SESSION.total_seconds():.0f} s (its group.min.session.timeout.ms "
        "and group.max.session.timeout.ms)"
    ),
    KafkaError.GROUP_MAX_SIZE_REACHED: "it is full (the broker's group.max.size); run fewer replicas",
}

Place = tuple[str, int]
"""Topic and partition."""

_library: Final = logging.getLogger("kafka")


class Trouble(StrEnum):
    """Why nothing comes, in the words of `/health`."""

    AUTH = "kafka_auth"
    UNREACHABLE = "kafka_unreachable"
    GROUP = "kafka_group"


class Moved(NamedTuple):
    """A partition that is read from another place than where it was left."""

    place: Place
    read: int | None  # the offset where it was left
    start: Start


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


class Client:
    """One member of a consumer group."""

    def __init__(self, settings: Mapping[str, Any], wanted: Sequence[str]) -> None:
        """Join; connecting goes on in the background. Raises UnusableSettingsError."""
        self.owned: frozenset[Place] = frozenset()
        self.missing: frozenset[str] = frozenset()  # topics that are wanted, and do not exist or are not for us
        self.ever: bool | None = None  # the group has read before; None = not known yet, and nothing is begun
        self.moved: list[Moved] = []  # to be told by whoever takes them out
        self._had: set[str] = set()  # topics of which we had partitions
        self._names = frozenset(topic for topic in wanted if not topic.startswith("^"))
        self._refused: set[str] = set()  # topics that are not for us
        self._shut_out = False  # the group is not for us
        self._suspected: Trouble | None = None
        self._stored: dict[Place, int] = {}  # offset to read next after what is stored
        self._committed: dict[Place, int] = {}  # the same, as far as the broker has confirmed it
        self._committed_at = 0.0
        self._paused = False
        self._handed: dict[Place, int] = {}  # offset behind what was handed out
        self._ends: dict[Place, int] = {}  # offset at which the partition ended, behind all that was handed out
        self._astray: dict[Place, int] = {}  # partitions that the library cannot read, and the offset where it was
        self._astray_at = 0.0
        self._remembered: dict[Place, int] = {}  # how far partitions were read that we had
        self._barred: tuple[str, float] = ("", 0.0)  # why the group keeps us out, and when it last said so
        self._idle = ""  # why we have no partitions
        self._idle_since = time.monotonic()
        self._ids: dict[str, str] = {}  # of the topics that we read
        self._ids_at = 0.0
        self._group = str(settings.get("group.id", ""))
        self._desk = Desk({**settings, **_logging()})
        self._latest = settings.get("auto.offset.reset") == "latest"
        self._probe = min(self._names, default="_")
        with _usable():
            own = {**settings, "auto.offset.reset": "error", "enable.partition.eof": True}
            self._consumer = _made(own, error_cb=self._on_error, on_commit=self._on_commit)
            self._consumer.subscribe(
                list(wanted), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )

    @property
    def suspected(self) -> Trouble | None:
        """Return what the library complained of; `ask` tells whether it still holds.

        Of the many topics that there may be some need not be for us; that none is, is trouble.
        """
        nothing = self._shut_out or (bool(self._names) and self._refused >= self._names)
        if nothing or self._suspected is not None:
            return Trouble.AUTH if nothing else self._suspected
        return Trouble.GROUP if self.reason else None

    @property
    def reason(self) -> str:
        """Return in a sentence what keeps us out of the group; empty = nothing."""
        why, at = self._barred
        return why if why and time.monotonic() - at < BARRED_S else self._idle

    @property
    def confirmed(self) -> bool:
        """Return whether the group has committed anything."""
        return bool(self._committed)

    @property
    def gone(self) -> frozenset[str]:
        """Return the topics that we read, and that do not exist any more."""
        return (self.missing & self._had) - self._refused

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
            self._find_ways()
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
            begun = {place: offset for place, (offset, _) in self._commits(unknown).items()}
            fresh = [place for place in unknown if place not in begun]
            begun |= self._offsets(fresh, OFFSET_END if self._latest else OFFSET_BEGINNING)
        except KafkaException as why:
            raise UnansweredError(_sentence(why)) from None
        back = self.missing & {topic for topic, _ in ends} - self._refused
        if back:
            self.missing -= back
            self._ids_at = 0.0  # it may be another one
        for place in owned:
            begin = self._stored.get(place, begun.get(place, 0))
            lags[place[0]] += max(0, ends.get(place, begin) - begin)
        return lags

    def inspect(self) -> None:
        """Look now and then whether the topics are still the same, and who reads where we have nothing to read."""
        now = time.monotonic()
        if self.owned:
            self._idle, self._idle_since = "", now
        elif now - self._idle_since >= IDLE_S:
            self._idle = self._why_idle()
        topics = {topic for topic, _ in self.owned}
        if now - self._ids_at < IDENTITY_S and topics <= self._ids.keys():
            return
        self._ids_at = now
        found = self._desk.ids(topics)
        with _unbroken():
            self._compare(found)

    def close(self, stored: Iterable[Record] = ()) -> None:
        """Commit and leave the group; blocks up to `SESSION` and more while no broker can be reached."""
        self._keep(stored)
        with contextlib.suppress(KafkaException, RuntimeError):
            self._consumer.close()  # revokes what is owned first, and thereby commits

    # ---- records ----

    def _keep(self, stored: Iterable[Record]) -> None:
        for record in stored:
            place = record.place
            if place in self.owned and record.offset < self._handed.get(place, record.offset + 1):
                self._stored[place] = record.offset + 1
                self._reach(place)

    def _reach(self, place: Place) -> None:
        """Count as stored what stands between the last record and the end: nothing that will ever be handed out."""
        end, handed, stored = self._ends.get(place), self._handed.get(place), self._stored.get(place)
        if end is not None and (handed is None or (stored is not None and stored >= handed)):
            self._stored[place] = max(end, stored or 0)

    def _read(self, message: Message) -> list[Record]:
        """Return what a message holds; an error among the records is noted."""
        error = message.error()
        if error is not None:
            self._note(error, message)
            return []
        kind, stamp = message.timestamp()
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        if topic is None or partition is None or offset is None:
            return []  # never, by the client's documentation
        self._handed[topic, partition] = offset + 1
        stamp = 0 if kind == TIMESTAMP_NOT_AVAILABLE else stamp
        wrapped = _is_wrapped(dict(message.headers() or ()).items())
        return [Record(topic, partition, offset, stamp, message.value(), wrapped)]

    def _note(self, error: KafkaError, message: Message) -> None:
        """Remember what the library complains of; raises BrokenClientError where it gives up."""
        code, topic = error.code(), message.topic()
        place: Place = topic or "", message.partition() or 0
        if error.fatal():
            raise BrokenClientError(error.name())
        if code == KafkaError._PARTITION_EOF:
            if place in self.owned:
                self._ends[place] = message.offset() or 0
                self._reach(place)
        elif code in (KafkaError._AUTO_OFFSET_RESET, KafkaError._LOG_TRUNCATION):
            offset = message.offset()
            self._astray[place] = OFFSET_INVALID if offset is None else offset
        elif code in _UNKNOWN:
            self.missing |= {place[0]}
        elif code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            self._refused.add(place[0])
            self.missing |= {place[0]}
        elif code == KafkaError.GROUP_AUTHORIZATION_FAILED:
            self._shut_out = True
        elif topic is None and not self._on_error(error) and code not in _PASSING and not error.retriable():
            hint = _HINTS.get(code, error.str())
            self._barred = f"the group {self._group} keeps this process out ({error.name()}): {hint}", time.monotonic()

    def _on_error(self, error: KafkaError) -> bool:
        """Remember trouble with the connection; tell whether it is that."""
        if error.code() in _REFUSED:
            self._suspected = Trouble.AUTH
        elif error.code() in _AWAY:
            self._suspected = self._suspected or Trouble.UNREACHABLE
        else:
            return False
        return True

    def _why_idle(self) -> str:
        """Return why nothing is to be read here; empty = others of the group read it, or it is not known."""
        if self._names and self._names <= self.missing:
            return "none of the topics exists"
        group = self._desk.group(self._group)
        if group is None or any(group.partitions.values()):
            return ""
        return f"the group {self._group} has given this process no partition, and nobody else in it has one"

    # ---- where to begin ----

    def _find_ways(self) -> None:
        """Decide where to begin in the partitions that the library cannot read; what is not answered is asked again."""
        astray = sorted(self._astray.keys() & self.owned)
        self._astray = {place: self._astray[place] for place in astray}
        if not astray or self.ever is None or time.monotonic() < self._astray_at:
            return
        self._astray_at = time.monotonic() + ASTRAY_AGAIN_S
        try:
            firsts, ends = self._offsets(astray, OFFSET_BEGINNING), self._offsets(astray, OFFSET_END)
            commits = self._commits(astray)
        except KafkaException:
            return
        for place in astray:
            if place in firsts and place in ends:
                stood = self._astray.pop(place)
                read = stood if stood >= 0 else commits[place][0] if place in commits else None
                expired = read is None and (self.ever or place in self._remembered)
                read = self._remembered.get(place) if expired else read
                self._begin(place, Known(first=firsts[place], end=ends[place], read=read, expired=expired))

    def _begin(self, place: Place, known: Known) -> None:
        """Read a partition from where it is right to, and commit that."""
        begin = start(known, latest=self._latest)
        self._consumer.incremental_unassign(_at([place]))
        self._consumer.incremental_assign([TopicPartition(*place, begin.offset)])
        if self._paused:
            self._consumer.pause(_at([place]))
        self._ends.pop(place, None)
        self._committed.pop(place, None)
        self._handed[place] = self._stored[place] = begin.offset
        self._committed_at = 0.0
        if begin.change:
            self.moved.append(Moved(place, known.read, begin))

    def _compare(self, found: Mapping[str, str]) -> None:
        """Begin anew in topics that are not those that were read, by their identities."""
        strange = {topic for topic, identity in found.items() if self._ids.get(topic, identity) != identity}
        unsure = [place for place in self.owned if place[0] in found and place[0] not in self._ids]
        try:
            marks = {place: mark for place, (_, mark) in self._commits(unsure).items()}
            renewed = sorted(
                place
                for place in self.owned
                if place[0] in strange or marks.get(place, "") not in ("", found.get(place[0], ""))
            )
            firsts, ends = self._offsets(renewed, OFFSET_BEGINNING), self._offsets(renewed, OFFSET_END)
        except KafkaException:
            return
        self._ids |= found
        for place in renewed:
            if place in firsts and place in ends:
                read = self._stored.get(place, 0)
                self._begin(place, Known(first=firsts[place], end=ends[place], read=read, renewed=True))

    # ---- offsets ----

    def _commits(self, places: Sequence[Place]) -> dict[Place, tuple[int, str]]:
        """Return what the group has committed of partitions: the offset to read next, and the mark with it."""
        found = self._consumer.committed(_at(places), ANSWER_S) if places else []
        return {(at.topic, at.partition): (at.offset, at.metadata or "") for at in found if at.offset >= 0}

    def _offsets(self, places: Sequence[Place], which: int) -> dict[Place, int]:
        """Return the first or the next offset of partitions, in one question."""
        if not places:
            return {}
        asked = [TopicPartition(topic, partition, which) for topic, partition in places]
        found = self._consumer.offsets_for_times(asked, timeout=ANSWER_S)
        self.missing |= {at.topic for at in found if at.error is not None and at.error.code() in _UNKNOWN}
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
            TopicPartition(*place, self._stored[place], self._ids.get(place[0], ""))
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
        self._had |= {topic for topic, _ in mine}
        self._shut_out = False
        self._barred = ("", 0.0)  # it is said at each joining, also where there is nothing to read
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
            if place in self._stored:
                self._remembered[place] = self._stored[place]
            for known in (self._stored, self._committed, self._handed, self._ends, self._astray):
                known.pop(place, None)


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


def strangers(settings: Mapping[str, Any]) -> str:
    """Return in a sentence who keeps us out of the group, without joining it; empty = nobody. Blocks for seconds."""
    name = str(settings["group.id"])
    group = Desk({**settings, **_logging()}).group(name)
    if group is None or group.strategy in ("", STRATEGY):
        return ""
    return f"another program reads in the group {name} by another assignment strategy ({group.strategy})"


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
