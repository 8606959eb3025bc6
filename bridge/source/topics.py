"""Names of messages: `<subscriptionId>.<kind>.<action>`.

Rules:
- The name is cut at its first dot, the rest at its first dot; an action may itself contain a dot.
- What does not exist is an `UnknownTopic` with one sentence, never an exception.

Source: EHA developer portal, "Streaming events" (format of the name); EHA demo application,
`KafkaJsonDeserializer.java` (the cuts; a subscription id contains no dot).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from bridge.core.vocabulary import ACTIONS, Action, Kind

_KNOWN: Final[Mapping[str, tuple[Kind, Action]]] = {
    f"{kind.value}.{action.value}": (kind, action) for kind, actions in ACTIONS.items() for action in actions
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """A name that means something."""

    subscription: str
    kind: Kind
    action: Action

    def __str__(self) -> str:
        """Return the name as the device cloud spells it."""
        return f"{self.subscription}.{self.kind.value}.{self.action.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownTopic:
    """A name that means nothing here, and why."""

    detail: str


def subscription_of(name: str) -> str:
    """Return the subscription a name claims to belong to: all before the first dot."""
    return name.partition(".")[0]


def exists(name: str) -> bool:
    """Return whether a name means something, without taking it apart for good."""
    subscription, _, rest = name.partition(".")
    return rest in _KNOWN and bool(subscription)


@lru_cache(maxsize=1_024)  # the same few come again and again; bounded, because senders write them
def parse(name: str) -> Topic | UnknownTopic:
    """Return what a name means."""
    subscription, _, rest = name.partition(".")
    known = _KNOWN.get(rest)
    if known is None or not subscription:
        return UnknownTopic(detail=_why_unknown(subscription, rest))
    kind, action = known
    return Topic(subscription=subscription, kind=kind, action=action)


def _why_unknown(subscription: str, rest: str) -> str:
    """Return what is wrong with a name, without repeating what its sender wrote."""
    if not subscription:
        return "the topic names no subscription"
    kind, _, action = rest.partition(".")
    if kind not in set(Kind):
        return "the topic names no kind of device that exists"
    if action not in set(Action):
        return "the topic names no action that exists"
    return f"{kind} has no action {action}"
