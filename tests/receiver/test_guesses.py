"""The admin token is not to be guessed."""

import pytest

from bridge.limits import Limit
from bridge.receiver.guesses import EACH_S, MOST_ADDRESSES, MOST_EACH, MOST_FRIENDS, MOST_IN_ALL_PER_S, Guesses
from tests.receiver.conftest import house, settings

pytestmark = pytest.mark.anyio

TOKEN = "a-token-that-nobody-guesses"


class Door:
    def __init__(self) -> None:
        self.now = 0.0
        self.told: list[tuple[Limit, str]] = []
        self.guesses = Guesses(lambda limit, who: self.told.append((limit, who)), lambda: self.now)

    def guess(self, who: str, count: int = 1) -> None:
        for _ in range(count):
            self.guesses.wrong(who)


def test_an_address_has_ten_wrong_ones_a_minute_and_is_told_when_to_come_again() -> None:
    door = Door()
    door.guess("a", MOST_EACH - 1)
    door.now = 2
    assert 0 == door.guesses.wait("a")
    door.guess("a")
    door.now = 5
    assert EACH_S - 5 == door.guesses.wait("a")
    assert 0 == door.guesses.wait("b")
    assert [(Limit.ADMIN_GUESSES, "a")] == door.told
    door.now = EACH_S
    assert 0 == door.guesses.wait("a")


def test_all_together_have_twenty_a_second_but_keep_out_nobody_who_knows_the_token() -> None:
    door = Door()
    door.guesses.right("friend")
    for number in range(MOST_IN_ALL_PER_S):
        door.guess(f"a{number}")
    assert 1 == door.guesses.wait("b")
    assert 0 == door.guesses.wait("friend")
    door.now = 1
    assert 0 == door.guesses.wait("b")


def test_what_is_remembered_of_guesses_is_bounded() -> None:
    door = Door()
    for number in range(MOST_ADDRESSES + 100):
        door.guess(str(number))
        door.guesses.right(str(number))
    assert (MOST_ADDRESSES, MOST_FRIENDS) == (len(door.guesses._of), len(door.guesses._right))


async def test_guessing_is_429_and_counted_and_not_compared() -> None:
    """1,760 guesses a second went through on one connection, and nobody was told."""
    built = house(settings(admin_token=TOKEN, trusted_proxies=["127.0.0.1"]))

    async def ask(token: str | None, who: str = "203.0.113.1") -> int:
        headers = {"x-forwarded-for": who} | ({} if token is None else {"authorization": f"Bearer {token}"})
        got = await built.client.get("/api/census", headers=headers)
        assert (got.status_code == 429) == ("retry-after" in got.headers)
        return got.status_code

    assert [401] * 20 == [await ask(None) for _ in range(20)], "no token is no guess"
    assert [401] * 10 + [429] * 5 == [await ask("wrong") for _ in range(15)]
    assert 429 == await ask(TOKEN)
    assert 200 == await ask(TOKEN, "203.0.113.2")
    assert {"admin_guesses": 6} == built.limits.of_last_hour()
