"""What MOOST would swallow and a good client never sends: recorded, not refused.

Rules:
- The schema decides between 2xx and 400; this file only says what is questionable about what passed it.
- Limits and allowed sources come from the table in `core.vocabulary`.

Source: MOOST documentation, "Common integration" (customer-provided event types with unit and source; timestamps in
seconds; attributes that the client must not set).
"""

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from bridge.core.vocabulary import EVENT_TYPES, EventRule

MOST_SECONDS: Final = 10**11
"""A greater timestamp can only be milliseconds [s]."""
FUTURE_S: Final = 600
"""How far ahead of the sandbox's clock a timestamp may be [s]."""
NEVER_SENT: Final = ("id", "activationTimestamp", "profile")
"""Attributes of a building that MOOST sets; the document marks them readOnly."""

Violation = tuple[str, str]
"""Name of the rule, and a sentence."""


class Judge:
    """Looks at events and buildings that the schema let through."""

    def __init__(self, customer_id: str) -> None:
        """Judge calls of one customer."""
        self._customer_id = customer_id
        self._rules: dict[str, EventRule] = {str(name): rule for name, rule in EVENT_TYPES.items()}

    def event(self, event: Mapping[str, Any], *, listed: Collection[str], now: float) -> Iterator[Violation]:
        """Yield what is questionable about an event; `listed` are the ids of the building's last device list."""
        rule = self._rules.get(event["type"])
        if rule is None:
            yield "event-type", f"{event['type']} is not a type that customers provide"
        else:
            yield from _against(rule, event)
        yield from _timestamp(event.get("timestamp"), now)
        if event["deviceId"] not in listed:
            yield "device-unlisted", f"{event['deviceId']} is not in the building's last device list"
        if event["customerId"] != self._customer_id:
            yield "customer", f"customerId {event['customerId']} is not the token's"

    def building(self, body: Mapping[str, Any], held: Mapping[str, Any] | None) -> Iterator[Violation]:
        """Yield what is questionable about a building; `held` is what a PUT replaces."""
        for name in NEVER_SENT:
            if name in body:
                yield "read-only", f"{name} is set by MOOST"
        if body.get("customerId", self._customer_id) != self._customer_id:
            yield "customer", "customerId is not the token's"
        if body["customerBuildingId"] == "core-data":
            yield "building-id", "core-data collides with the path of the core-data list"
        for name in () if held is None else held:
            if name not in body and name not in NEVER_SENT and name != "customerId":
                yield "attribute-lost", f"{name} is gone after this PUT"
        settings = {} if held is None else held.get("settings") or {}
        for name in settings:
            if name != "tariff" and name not in (body.get("settings") or {}):
                yield "attribute-lost", f"settings.{name} is gone after this PUT"


def _against(rule: EventRule, event: Mapping[str, Any]) -> Iterator[Violation]:
    """Compare an event with its row of the table."""
    source, value = event.get("source"), event["value"]
    if source not in rule.sources:
        yield "source", f"{event['type']} may not come from {source}"
    if not math.isfinite(value):
        yield "value", f"{value} is not a finite number"
    elif (rule.lowest is not None and value < rule.lowest) or (rule.highest is not None and value > rule.highest):
        yield "value", f"{value} is outside {rule.lowest}..{rule.highest}"


def _timestamp(timestamp: int | None, now: float) -> Iterator[Violation]:
    """Check a timestamp [s]."""
    if timestamp is None:
        yield "timestamp", "missing"
    elif timestamp > MOST_SECONDS:
        yield "timestamp", f"{timestamp} can only be milliseconds"
    elif timestamp > now + FUTURE_S:
        yield "timestamp", f"{timestamp} is more than 10 min ahead"
