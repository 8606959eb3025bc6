"""What may be set and is probably a mistake is told by check."""

from typing import Any

import pytest

from bridge.config import Settings, doubts

GOOD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
GUESSED = "can be guessed: it should have at least 16 characters, by chance"


def told(secret: str, **more: object) -> list[str]:
    one = {"id": "sub-1", "secrets": [GOOD if "auth" not in more else "9f8e7d6c5b4a39281706", secret], **more}
    return list(doubts(Settings.model_validate({"subscriptions": [one]})))


@pytest.mark.parametrize("secret", ["whsec_AA==", "whsec_" + "AAAA" * 8])
def test_a_secret_that_can_be_guessed_is_told(secret: str) -> None:
    assert [f"subscriptions.0.secrets.1: {GUESSED}"] == told(secret)


@pytest.mark.parametrize("auth", ["bearer", "hmac", "basic"])
def test_so_is_one_of_each_other_kind(auth: str) -> None:
    more: dict[str, Any] = {"auth": auth} | ({"header": "x-sig"} if auth == "hmac" else {})
    good, bad = ("9f8e7d6c5b4a39281706", "x")
    if auth == "basic":
        good, bad = f"user:{good}", f"a-long-name-of-a-user:{bad}"
    assert [] == [line for line in told(good, **more) if "secrets.1" in line]
    assert [f"subscriptions.0.secrets.1: {GUESSED}"] == [line for line in told(bad, **more) if "secrets.1" in line]


def test_so_is_the_admin_token_and_nothing_else() -> None:
    assert [f"server.admin_token: {GUESSED}"] == list(doubts(Settings.model_validate({"server": {"admin_token": "x"}})))
    assert [] == list(doubts(Settings()))
    assert [] == told(GOOD)


@pytest.mark.parametrize("everybody", ["0.0.0.0/0", "::/0", "128.0.0.0/1"])
def test_proxies_that_are_everybody_are_told(everybody: str) -> None:
    (line,) = doubts(Settings.model_validate({"server": {"trusted_proxies": ["10.0.0.0/8", everybody]}}))
    assert line.startswith("server.trusted_proxies: holds every address")
