"""One subscription fills its share of the store; the door stays open for the other, in a real daemon (R13)."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.life.stage import Bridge, ask, bridged, dump, run, signed, until, vehicle

if TYPE_CHECKING:
    import httpx

    from tests.postgres import Server

MIB: Final = 2**20
OTHER: Final = "sub-2"
LARGE: Final = b"{" + b"x" * 100_000  # no JSON
SECRET: Final = "whsec_" + "b3RoZXItc2VjcmV0LW90aGVyLXNlY3JldA=="


def beside(bridge: Bridge, number: int) -> "httpx.Response":
    """Post a small message of the other subscription."""
    body = dump(vehicle("user-2", "car-2", number))
    return ask("POST", f"{bridge.url}/webhooks/{OTHER}.vehicle.update", body, signed(body, secret=SECRET))


def filled(bridge: Bridge, body: bytes) -> "httpx.Response":
    """Post the same message until it is refused; return the refusal."""
    for _ in range(400):
        answer = bridge.post("vehicle.update", body)
        if answer.status_code != 202:
            return answer
    raise AssertionError("it is never refused")


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_a_subscription_whose_messages_all_die_closes_the_door_for_itself_alone(
    engine: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    store: dict[str, Any] = {"max_size": 4 * MIB}
    if engine == "postgresql":
        server: Server = request.getfixturevalue("server")
        store["url"] = server.fresh()
    with bridged(tmp_path, "http://127.0.0.1:9", store=store) as bridge:
        bridge.others = [{"id": OTHER, "secrets": [SECRET]}]
        bridge.start("--dry-run")
        refusal = filled(bridge, LARGE)
        assert (503, "store_share", "30") == (
            refusal.status_code, refusal.json()["error"], refusal.headers["retry-after"]
        )  # fmt: skip
        assert [202] * 20 == [beside(bridge, number).status_code for number in range(20)]
        until(lambda: bridge.health()["ledger"]["settled"] == 20, "they are processed")
        health = bridge.health()
        assert (["subscription_limited"], 1) == (health["problems"], health["limits"]["store_share"])
        assert bridge.ready()

        # Its dead letters outlive the process, and so does the refusal; once they are given up it is served again.
        bridge.kill()
        bridge.start("--dry-run")
        until(lambda: bridge.post("vehicle.update", LARGE).status_code == 503, "it is known again")
        assert 202 == beside(bridge, 21).status_code
        assert 0 == run("dead-letters", "discard", "--all", "--config", bridge.config).returncode
        until(lambda: bridge.post("vehicle.update", LARGE).status_code == 202, "there is room for it")
