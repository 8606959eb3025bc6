"""What a bridge sends to which nothing ever happens: the core alone, fed with the cloud's messages in their order.

The truth beside the cloud says what the energies must be; this says which events of all types belong to them, so that a
day with trouble can be held against a day without, event by event.

Rules:
- A slot closes at its time, as if no tick were ever late; what leaves at once, on change, is not compared.
- By the law of arrival (M5.11) nothing else is left out: live, after an outage and from a backlog the same must leave,
  up to the last quarter hour before a device's delete.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from bridge.core.effects import Effect, SendEvents
from bridge.core.identity import building_id
from bridge.core.messages import Tick, Tombstone, Unreadable
from bridge.core.model import Building
from bridge.core.reduce import reduce
from bridge.core.rules import Rules
from bridge.core.slots import LOOK_AGAIN, due
from bridge.core.vocabulary import EVENT_TYPES, Cadence, EventType
from bridge.sandbox.cloud import Post
from bridge.source.decode import decode
from bridge.source.topics import Topic, parse

CLOSE: Final = 0.01  # values are rounded to thousandths; sums depend on the order of adding by less

Name = tuple[str, str, str, int]
"""Building, device, event type, timestamp [epoch s]."""
Values = dict[Name, float]


@dataclass
class _Home:
    """One building, and what has left it."""

    state: Building
    rules: Rules
    sent: Values
    tick_at: datetime | None = None

    def take(self, effects: Iterable[Effect]) -> None:
        """Note the events, and when the next slot closes."""
        for effect in effects:
            if isinstance(effect, SendEvents):
                for event in effect.events:
                    if EVENT_TYPES[event.type].cadence is not Cadence.CHANGE:
                        self.sent[self.state.id, event.device, event.type.value, int(event.at.timestamp())] = (
                            event.value
                        )
        self.tick_at = due(self.state, self.rules)

    def wait(self, until: datetime) -> None:
        """Close every slot whose time comes."""
        while self.tick_at is not None and self.tick_at <= until:
            now, open_from = self.tick_at, self.state.open_from
            self.state, effects = reduce(self.state, Tick(now=now), self.rules)
            self.take(effects)
            if self.state.open_from == open_from:
                self.tick_at = now + LOOK_AGAIN


@dataclass(frozen=True, kw_only=True)
class Ideal:
    """The events that belong to the cloud's messages."""

    values: Values
    until: datetime  # no event is about a later time

    def compared(self, name: Name) -> bool:
        """Tell whether an event is one that must have left by the end."""
        _, _, type_, timestamp = name
        return EVENT_TYPES[EventType(type_)].cadence is not Cadence.CHANGE and timestamp <= self.until.timestamp()


def ideal(posts: Iterable[Post], subscription: str, rules: Rules, end: datetime) -> Ideal:
    """Return the events that must have left by the end of the span."""
    sent: Values = {}
    homes: dict[str, _Home] = {}
    for number, post in enumerate(posts, 1):
        now = datetime.fromtimestamp(post.due / 1000, UTC)
        name = building_id(rules.subscription(subscription).user_prefix + post.user)
        if name not in homes:
            homes[name] = _Home(Building(id=name, time_zone=rules.default_time_zone), rules, sent)
        home = homes[name]
        home.wait(now)
        topic = parse(f"{subscription}.{post.topic}")
        assert isinstance(topic, Topic)
        message = decode(topic, post.body, number=number, received=now, rules=rules)
        assert not isinstance(message, Tombstone | Unreadable)
        home.state, effects = reduce(home.state, message, rules)
        home.take(effects)
    for home in homes.values():
        home.wait(end)
    return Ideal(values=sent, until=end - rules.grace - rules.spread)


@dataclass
class Match:
    """How the events of one type compare."""

    expected: int = 0
    missing: int = 0
    unexpected: int = 0
    differing: int = 0
    largest: float = 0.0
    examples: list[Any] = field(default_factory=list)


def matched(expected: Ideal, arrived: Mapping[Name, float]) -> dict[str, Match]:
    """Return per type how what arrived compares with what belongs there."""
    found: dict[str, Match] = defaultdict(Match)
    for name in expected.values.keys() | arrived.keys():
        if not expected.compared(name):
            continue
        match, value, other = found[name[2]], expected.values.get(name), arrived.get(name)
        match.expected += value is not None
        match.missing += other is None
        match.unexpected += value is None
        if value is not None and other is not None:
            match.largest = max(match.largest, abs(value - other))
            match.differing += abs(value - other) > CLOSE
        if value is None or other is None or abs(value - other) > CLOSE:
            match.examples.append((name, value, other))
    return dict(sorted(found.items()))


def table(found: Mapping[str, Match]) -> str:
    """Return the comparison for people."""
    columns = ("expected", "missing", "unexpected", "differing")
    head = f"{'type':<26}" + "".join(f"{name:>11}" for name in columns) + f"{'largest difference':>20}\n"
    return head + "".join(
        f"{type_:<26}" + "".join(f"{getattr(match, name):>11}" for name in columns) + f"{match.largest:>20.3f}\n"
        for type_, match in found.items()
    )


def total(found: Mapping[str, Match]) -> Counter[str]:
    """Return the sums over all types."""
    return Counter(
        {
            name: sum(getattr(match, name) for match in found.values())
            for name in ("expected", "missing", "unexpected", "differing")
        }
    )
