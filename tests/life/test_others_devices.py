"""Two subscriptions, each with a valid secret: neither writes a device of the other, by webhook (M0.6)."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from tests.life.others_devices import attacks, household, newest, remembered
from tests.life.stage import Bridge, Sandbox, ask, bridged, dump, sandboxed, signed

OTHER: Final = "other"
SECRET: Final = "whsec_b3RoZXIgbWFkZS11cCBzZWNyZXQgMDE="  # made up


@pytest.fixture
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with sandboxed(tmp_path_factory.mktemp("foreign-sandbox")) as started:
        yield started


@pytest.mark.parametrize("prefixes", [("", ""), ("a-", "b-")], ids=["one namespace", "prefixes"])
@pytest.mark.parametrize("user", [None, "user-9"], ids=["no user", "a user of its own"])
def test_a_valid_secret_writes_no_device_of_another_subscription(
    tmp_path_factory: pytest.TempPathFactory, sandbox: Sandbox, prefixes: tuple[str, str], user: str | None
) -> None:
    with bridged(tmp_path_factory.mktemp("foreign"), sandbox.url) as bridge:
        own, foreign = prefixes
        bridge.others = ({"id": OTHER, "secrets": [SECRET], "user_prefix": foreign},)
        bridge.own = {"user_prefix": own}
        bridge.start()
        now = datetime.now(UTC)
        for topic, content in household("user-1", now - timedelta(minutes=2), 0.25):
            bridge.take(topic, content)
        bridge.settled()
        home = f"{own}user-1"
        before = seen(bridge, sandbox, home)
        assert [40] == before["charges"]
        for topic, content in attacks(user, now - timedelta(minutes=1)):
            raw = dump(content)
            answer = ask("POST", f"{bridge.url}/webhooks/{OTHER}.{topic}", raw, signed(raw, secret=SECRET))
            assert 202 == answer.status_code
            bridge.accepted += answer.json()["accepted"]
        health = bridge.settled()
        assert before == seen(bridge, sandbox, home)
        assert ({"unreadable": 5} if user is None else {}) == health["dead_letters"]
        assert user is None or f"{foreign}{user}" in sandbox.received()["buildings"]


def seen(bridge: Bridge, sandbox: Sandbox, home: str) -> dict[str, Any]:
    """Return what the daemon knows of the household's devices, and what MOOST holds of it."""
    state = asyncio.run(remembered(bridge, home))
    received = sandbox.received()
    own = [event for event in received["events"] if event["customerBuildingId"] == home]
    return {
        "newest": newest(state),
        "prices": state.prices,
        "devices": received["devices"].get(home),
        "tariff": received["buildings"][home].get("settings"),
        "charges": [event["value"] for event in own if event["type"] == "STATE_OF_CHARGE_RATE"],
    }
