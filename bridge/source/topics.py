"""Names of messages: `<subscriptionId>.<kind>.<action>`.

Rules:
- The name is cut at its first dot, the rest at its first dot; an action may itself contain a dot.
- What does not exist is an `UnknownTopic` with one sentence, never an exception.

Source: EHA developer portal, "Streaming events" (format of the name); EHA demo application,
`KafkaJsonDeserializer.java` (the cuts; a subscription id contains no dot).
"""

from dataclasses import dataclass

from bridge.core.vocabulary import ACTIONS, Action, Kind


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


def parse(name: str) -> Topic | UnknownTopic:
    """Return what a name means."""
    subscription, _, rest = name.partition(".")
    kind_word, _, action_word = rest.partition(".")
    try:
        kind = Kind(kind_word)
    except ValueError:
        return UnknownTopic(detail="the topic names no kind of device that exists")
    try:
        action = Action(action_word)
    except ValueError:
        return UnknownTopic(detail="the topic names no action that exists")
    if not subscription:
        return UnknownTopic(detail="the topic names no subscription")
    if action not in ACTIONS[kind]:
        return UnknownTopic(detail=f"{kind.value} has no action {action.value}")
    return Topic(subscription=subscription, kind=kind, action=action)
