"""The token: its life, its renewal, its trouble (R5)."""

import base64
import json
import time
from collections.abc import Sequence
from typing import Any

import pytest

from bridge.sink.classify import End, Failure, Reply
from bridge.sink.token import Denial, Grant, TokenKeeper, Trouble, granted

CUSTOMER = "656730be2bc9719e6e5ed51d"


def jwt(**claims: object) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'RS256'})}.{part(claims)}.c2lnLW5hdHVyZQ"


def answered(status: int = 200, **body: object) -> Reply:
    return Reply(status=status, body=json.dumps(body).encode())


class Source:
    """Answers token calls one after the other, the last one again and again."""

    def __init__(self, answers: Sequence[Reply | Failure]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def fetch_token(self) -> Reply | Failure:
        self.asked += 1
        return self.answers[min(self.asked, len(self.answers)) - 1]


class Clock:
    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


def keeper(*answers: Reply | Failure) -> tuple[TokenKeeper, Clock, Source]:
    clock, source = Clock(), Source(answers)
    return TokenKeeper(source, CUSTOMER, clock), clock, source


class TestLife:
    @pytest.mark.parametrize(
        ("body", "seconds"),
        [
            ({"access_token": jwt(iat=100, exp=700), "expires_in": 60}, 60),
            ({"access_token": jwt(iat=100, exp=700)}, 600),
            ({"access_token": jwt(iat=700, exp=100)}, 86_400),
            ({"access_token": "opaque"}, 86_400),
            ({"access_token": "opaque", "expires_in": "soon"}, 86_400),
            ({"access_token": "opaque", "expires_in": 0}, 86_400),
            ({"access_token": "opaque", "expires_in": 10**400}, 86_400),
            ({"access_token": "a.b.c"}, 86_400),
            ({"access_token": "opaque", "expires_in": "3600"}, 3600),
            ({"access_token": "opaque", "expires_in": " 3600.5 "}, 3600.5),
            ({"access_token": "opaque", "expires_in": "-5"}, 86_400),
            ({"access_token": "opaque", "expires_in": "1e3"}, 86_400),
            ({"access_token": "opaque", "expires_in": "9" * 400}, 86_400),
            ({"access_token": "opaque", "expires_in": 1e-9}, 86_400),
            ({"access_token": "opaque", "expires_in": "0.000000001"}, 86_400),
            ({"access_token": jwt(iat=100, exp=700), "expires_in": 0.5}, 600),
            ({"access_token": jwt(iat=100, exp=100.5)}, 86_400),
        ],
    )
    def test_it_is_expires_in_else_exp_else_a_day(self, body: dict[str, Any], seconds: float) -> None:
        grant = granted(answered(**body))

        assert isinstance(grant, Grant)
        assert seconds == grant.life_seconds

    def test_without_iat_it_is_counted_from_now(self) -> None:
        grant = granted(answered(access_token=jwt(exp=time.time() + 500)))

        assert isinstance(grant, Grant)
        assert 490 < grant.life_seconds <= 500

    def test_a_jwt_of_many_hundred_characters_is_taken_as_it_is(self) -> None:
        token = jwt(customerId=CUSTOMER, filler="x" * 900)
        grant = granted(answered(access_token=token, token_type="Bearer"))

        assert isinstance(grant, Grant)
        assert (token, CUSTOMER) == (grant.value, grant.customer)

    @pytest.mark.parametrize(
        ("reply", "trouble", "cause"),
        [
            (answered(401), Trouble.REFUSED, "client_id and client_secret are refused: status 401"),
            (answered(403), Trouble.REFUSED, "client_id and client_secret are refused: status 403"),
            (answered(400), Trouble.REFUSED, "client_id and client_secret are refused: status 400"),
            (
                Reply(status=403, body=b"<html>"),
                Trouble.REFUSED,
                "client_id and client_secret are refused: status 403 and a web page",
            ),
            (
                answered(200, error="invalid_client"),
                Trouble.REFUSED,
                "client_id and client_secret are refused: status 200 with an error: invalid_client",
            ),
            (
                answered(200, error="https://moost?clientSecret=canary"),
                Trouble.REFUSED,
                "client_id and client_secret are refused: status 200 with an error",
            ),
            (answered(500), Trouble.UNREACHABLE, "status 500"),
            (answered(302), Trouble.UNREACHABLE, "status 302: a redirect to another address"),
            (answered(404), Trouble.UNREACHABLE, "status 404: there is nothing at this address"),
            (answered(407), Trouble.UNREACHABLE, "the proxy says 407: it wants other credentials"),
            (answered(200), Trouble.UNREACHABLE, "status 200 with JSON that holds no access_token"),
            (
                answered(200, access_token="line\nbreak"),
                Trouble.UNREACHABLE,
                "status 200 with JSON that holds no access_token",
            ),
            (answered(200, access_token=7), Trouble.UNREACHABLE, "status 200 with JSON that holds no access_token"),
            (Reply(status=200, body=b"<html>"), Trouble.UNREACHABLE, "status 200 with a web page instead of JSON"),
            (Reply(status=200, body=b"hello"), Trouble.UNREACHABLE, "status 200 with a body that is not JSON"),
            (
                Reply(status=200, body=b"[" * 100_000),
                Trouble.UNREACHABLE,
                "status 200 with JSON that holds no access_token",
            ),
            (Failure(end=End.NOT_SENT, cause="name unknown"), Trouble.UNREACHABLE, "name unknown"),
            (Failure(end=End.LOST, cause="the answer broke off"), Trouble.UNREACHABLE, "the answer broke off"),
        ],
    )
    def test_what_brings_no_token_says_why(self, reply: Reply | Failure, trouble: Trouble, cause: str) -> None:
        assert Denial(trouble=trouble, cause=cause) == granted(reply)


@pytest.mark.anyio
class TestRenewal:
    @pytest.mark.parametrize(("life", "early"), [(86_400, 300), (60, 12), (1000, 200)])
    async def test_a_token_is_renewed_before_its_end_and_used_meanwhile(self, life: int, early: float) -> None:
        tokens, clock, _ = keeper(answered(access_token="t", expires_in=life))
        await tokens.renew()

        clock.at += life - early - 0.01
        assert not tokens.wants_renewal()
        clock.at += 0.02
        assert tokens.wants_renewal()
        assert tokens.current() is not None
        clock.at += early
        assert tokens.current() is None

    async def test_a_failed_early_renewal_leaves_the_token_in_use(self) -> None:
        tokens, clock, _ = keeper(answered(access_token="t", expires_in=100), answered(500))
        await tokens.renew()
        clock.at += 85
        await tokens.renew()

        current = tokens.current()
        assert current is not None
        assert "t" == current.value
        assert not tokens.wants_renewal()
        assert 1085 < tokens.next_try <= 1086

    async def test_a_401_for_an_older_token_says_nothing_about_the_current(self) -> None:
        tokens, clock, _ = keeper(answered(access_token="1", expires_in=100), answered(access_token="2"))
        await tokens.renew()
        old = tokens.current()
        clock.at += 85
        await tokens.renew()

        assert old is not None
        assert not tokens.reject(old)
        assert not tokens.refuse(old, "unauthorized 401")
        current = tokens.current()
        assert current is not None
        assert "2" == current.value
        assert tokens.reject(current)
        assert tokens.current() is None
        clock.at += 1
        assert tokens.wants_renewal()

    async def test_token_calls_are_half_a_second_apart_whatever_life_a_token_has(self) -> None:
        tokens, clock, source = keeper(answered(access_token="t", expires_in=1e-9))
        for _ in range(1000):
            if tokens.wants_renewal():
                await tokens.renew()
                current = tokens.current()
                assert current is not None
                tokens.reject(current)
            clock.at += 0.01

        assert source.asked <= 21


@pytest.mark.anyio
class TestTrouble:
    async def test_refused_credentials_are_asked_again_with_waits_up_to_30_s(self) -> None:
        tokens, clock, source = keeper(answered(401))
        waits = []
        for _ in range(10):
            await tokens.renew()
            waits.append(tokens.next_try - clock.at)
            assert not tokens.wants_renewal()
            clock.at = tokens.next_try

        assert Trouble.REFUSED is tokens.trouble
        assert 10 == source.asked
        assert waits[0] <= 1
        assert 15 <= waits[-1] <= 30
        assert all(wait <= 30 for wait in waits)

    async def test_a_platform_that_is_away_is_asked_every_5_s(self) -> None:
        tokens, clock, _ = keeper(Failure(end=End.NOT_SENT))
        for _ in range(10):
            await tokens.renew()
            assert tokens.next_try - clock.at <= 5
            clock.at = tokens.next_try

        assert Trouble.UNREACHABLE is tokens.trouble

    async def test_a_token_call_honours_retry_after(self) -> None:
        tokens, clock, _ = keeper(Reply(status=503, headers={"retry-after": "40"}))
        await tokens.renew()

        assert 40 == tokens.next_try - clock.at

    async def test_another_customers_token_is_not_used(self) -> None:
        tokens, _, _ = keeper(answered(access_token=jwt(customerId="f" * 24)))
        await tokens.renew()

        assert Trouble.CUSTOMER is tokens.trouble
        assert tokens.current() is None

    async def test_it_heals_by_itself(self) -> None:
        tokens, clock, _ = keeper(answered(500), answered(access_token=jwt(customerId=CUSTOMER)))
        await tokens.renew()
        clock.at = tokens.next_try
        await tokens.renew()

        assert tokens.trouble is None
        assert tokens.current() is not None

    async def test_after_a_refused_call_only_an_accepted_one_heals(self) -> None:
        tokens, clock, _ = keeper(answered(access_token="t"))
        await tokens.renew()
        used = tokens.current()
        assert used is not None
        tokens.refuse(used, "forbidden 403")
        clock.at = tokens.next_try
        await tokens.renew()

        assert (Trouble.REFUSED, "forbidden 403") == (tokens.trouble, tokens.cause)
        tokens.accepted()
        assert tokens.trouble is None

    async def test_after_a_refused_token_call_a_token_heals(self) -> None:
        tokens, clock, _ = keeper(answered(401), answered(access_token="t"))
        await tokens.renew()
        assert Trouble.REFUSED is tokens.trouble
        clock.at = tokens.next_try
        await tokens.renew()

        healed = tokens.trouble
        assert healed is None
        assert "" == tokens.cause

    async def test_a_renewal_that_is_refused_stays_told_while_the_old_token_works(self) -> None:
        tokens, clock, _ = keeper(answered(access_token="t", expires_in=100), answered(401))
        await tokens.renew()
        clock.at += 85
        await tokens.renew()
        tokens.accepted()

        assert tokens.current() is not None
        assert Trouble.REFUSED is tokens.trouble
        assert not tokens.unproven

    async def test_no_repr_holds_the_token(self) -> None:
        tokens, _, _ = keeper(answered(access_token="canary"))
        await tokens.renew()

        assert "canary" not in repr((tokens, tokens.current(), granted(answered(access_token="canary"))))
