"""Whom and what a raw message is about, found quickly and before it is understood.

For a store that shares messages out among several workers: those of one user stay together (see `whose`). A hint is no
decision; the worker reads the message properly.

Rules:
- Read like `decode` reads: user `userId`, device `id`, of a command `deviceId`; numbers are their text.
- The device is the one of the topic's subscription: nobody else's messages go by what this one says (M0.6).
- What cannot be read gives no hint, never an exception; what has too many values is not looked at.
"""

import json
from collections.abc import Callable
from typing import Any, Final

import msgspec

from bridge.core.rules import Rules
from bridge.core.vocabulary import Action
from bridge.source.bounds import is_crowded
from bridge.source.topics import subscription_of

Text = str | int | float | bool | None | list[Any] | dict[str, Any]


class _Members(msgspec.Struct):
    userId: Text = None  # noqa: N815 - as the device cloud spells it
    id: Text = None
    deviceId: Text = None  # noqa: N815


_decoder: Final = msgspec.json.Decoder(_Members)


def finder(rules: Rules) -> Callable[[str, bytes], tuple[str | None, str | None]]:
    """Return what finds the user, within the one namespace of all subscriptions (M0.6), and the device of a message."""
    prefixes = {name: found.user_prefix for name, found in rules.subscriptions.items()}

    def find(topic: str, body: bytes) -> tuple[str | None, str | None]:
        members = None if is_crowded(body, rules.values_per_message) else _members(body)
        if members is None:
            return None, None
        subscription = subscription_of(topic)
        kind, _, action = topic[len(subscription) + 1 :].partition(".")
        user, device = _text(members.userId), _text(members.deviceId if action == Action.COMMAND else members.id)
        if user is not None:
            user = prefixes.get(subscription, "") + user
        return user, None if device is None else f"{subscription}/{kind}:{device}"

    return find


def _members(body: bytes) -> _Members | None:
    try:
        return _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _slowly(body)


def _slowly(body: bytes) -> _Members | None:
    """Read what msgspec refuses and `decode` takes: NaN, lone surrogates."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    return _Members(userId=found.get("userId"), id=found.get("id"), deviceId=found.get("deviceId"))


def _text(value: Text) -> str | None:
    """Return an id as text; None where it names nothing."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = str(value)
    return text if text and not text.isspace() and "\x00" not in text else None
