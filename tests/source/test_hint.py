"""A hint names the same user and device as the message once it is read, or nothing."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.messages import Tombstone, Unreadable
from bridge.core.model import key
from bridge.core.routing import device_of
from bridge.core.rules import Rules, SubscriptionRule
from bridge.source.decode import decode
from bridge.source.hint import finder
from bridge.source.topics import Topic, parse

RULES = Rules(subscriptions={"acme": SubscriptionRule(user_prefix="acme-"), "plain": SubscriptionRule()})
find = finder(RULES)


@pytest.mark.parametrize(
    ("topic", "body", "expected"),
    [
        ("acme.vehicle.update", b'{"id":"c","userId":"u"}', ("acme-u", "acme/vehicle:c")),
        ("plain.vehicle.update", b'{"userId":"u"}', ("u", None)),
        ("plain.vehicle.command", b'{"id":"x","deviceId":"c"}', (None, "plain/vehicle:c")),
        ("plain.meter.update", b'{"id":7,"userId":12}', ("12", "plain/meter:7")),
        ("plain.meter.update", b'{"id":"m","userId":" "}', (None, "plain/meter:m")),
        ("plain.meter.update", b'{"id":"m","userId":true}', (None, "plain/meter:m")),
        ("plain.meter.update", b'{"id":"m","power":NaN,"userId":"u"}', ("u", "plain/meter:m")),
        ("plain.meter.update", b'{"id":"a\\u0000b","userId":"u"}', ("u", None)),
        ("plain.meter.update", b"null", (None, None)),
        ("plain.meter.update", b"[1]", (None, None)),
        ("plain.meter.update", b"{", (None, None)),
        ("plain.meter.update", b"\xff", (None, None)),
        ("", b'{"userId":"u"}', ("u", None)),
    ],
)
def test_a_hint_is_found_quickly(topic: str, body: bytes, expected: tuple[str | None, str | None]) -> None:
    assert expected == find(topic, body)


_names = st.one_of(
    st.none(), st.text(max_size=5), st.integers(0, 99), st.booleans(), st.lists(st.integers(), max_size=1)
)


@given(
    topic=st.sampled_from(["acme.vehicle.update", "plain.meter.connect", "acme.charger.command"]),
    members=st.fixed_dictionaries({}, optional={"id": _names, "userId": _names, "deviceId": _names}),
)
def test_a_hint_names_whom_the_message_names(topic: str, members: dict[str, object]) -> None:
    body = json.dumps(members).encode()
    parsed = parse(topic)
    assert isinstance(parsed, Topic)
    message = decode(parsed, body, number=1, received=datetime(2026, 1, 1, tzinfo=UTC), rules=RULES)
    user, device = find(topic, body)
    if isinstance(message, Tombstone | Unreadable):
        return
    assert (message.user, key(*device_of(message))) == (user, device)


@given(body=st.binary(max_size=40))
def test_no_bytes_make_a_hint_raise(body: bytes) -> None:
    find("plain.meter.update", body)
