"""The credentials: one token, cached, renewed early, by one call at a time.

Rules:
- A token is good until its end; it is renewed at 80 % of its life or 5 minutes before its end, whichever is later.
- A 401 speaks of the token it was got with: an older one than the current says nothing about the current.
- Its life is `expires_in` (a number, or one in a string), else the JWT's `exp`, else a day; less than a second is no
  life. Token calls are at least half a second apart: each carries the secret.
- The published pattern of `access_token` is wrong (no JWT fits it) and never used.
- The JWT's customer is compared with the configured one, unverified, as a check of the configuration.
- Refused credentials and a wrong customer are asked again by themselves, with growing waits.
- Refused is what the token call says (400, 401, 403, or 200 with an error), or what a call says with a fresh token. The
  first ends with a token, the second with a call that gets through.
- Nothing here prints a token.

Source: MOOST documentation, "Common integration", "Request access token" (GET /auth/token/v1: 200, 401, 500; 86,400 s).
"""

import base64
import binascii
import json
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from http import HTTPStatus as Http
from typing import Final, Protocol

from bridge.core.retry import FIRST_WAIT, LONGEST_WAIT, LONGEST_WAIT_ALONE
from bridge.sink.classify import Failure, Reply, cause, is_page, oddity, retry_after

DEFAULT_LIFE_SECONDS: Final = 86_400.0
_END_OF_TIME_S: Final = 1e12  # no token lives, and no time is, beyond that
_SHORTEST_LIFE_S: Final = 1.0
_LEAST_BETWEEN_S: Final = 0.5  # two token calls
_RENEW_SHARE: Final = 0.8
_RENEW_BEFORE_SECONDS: Final = 300.0
_DOUBLINGS: Final = 10
_JWT_PARTS: Final = 3
_is_decimal: Final = re.compile(r"\s*[0-9]{1,18}(\.[0-9]{1,18})?\s*", re.ASCII).fullmatch
_is_error_code: Final = re.compile(r"[a-z_]{1,40}", re.ASCII).fullmatch  # of OAuth, such as invalid_client


class TokenSource(Protocol):
    """Who can ask MOOST for a token."""

    async def fetch_token(self) -> Reply | Failure:
        """Return MOOST's answer to the token call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token and when it ends; times in seconds of the keeper's clock."""

    value: str = field(repr=False)
    renew_at: float
    expires: float


class Trouble(Enum):
    """Why there is no new token; the values are `problems` of /health."""

    REFUSED = "moost_auth"
    CUSTOMER = "moost_customer"
    UNREACHABLE = "moost_unreachable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a token call brought."""

    value: str = field(repr=False)
    life_seconds: float
    customer: str | None  # the JWT's claim; None = the token does not say


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """Why a token call brought nothing."""

    trouble: Trouble
    cause: str  # in a few words, without an address


class TokenKeeper:
    """Holds the one token of this process. `renew` is never called twice at a time by its one user, the sender."""

    def __init__(self, source: TokenSource, customer: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Start without a token."""
        self._source = source
        self._customer = customer
        self._clock = clock
        self._token: Token | None = None
        self._failures = 0
        self._denied: Denial | None = None  # by the last token call
        self._calls_refused = ""  # with a fresh token: what the answer was
        self.next_try = 0.0  # no renewal before it [s of the clock]

    def __repr__(self) -> str:
        """Say nothing that could be a secret."""
        return f"{type(self).__name__}(trouble={self.trouble})"

    @property
    def trouble(self) -> Trouble | None:
        """Return what is wrong; None = nothing."""
        if self._denied is not None:
            return self._denied.trouble
        return Trouble.REFUSED if self._calls_refused else None

    @property
    def cause(self) -> str:
        """Return in a few words why there is trouble; empty where there is none."""
        return self._denied.cause if self._denied is not None else self._calls_refused

    @property
    def unproven(self) -> bool:
        """Return whether calls were refused and none has got through since: a new token proves nothing."""
        return bool(self._calls_refused)

    def current(self) -> Token | None:
        """Return the token if it can be used now."""
        if self._token is not None and self._clock() < self._token.expires:
            return self._token
        return None

    def wants_renewal(self) -> bool:
        """Return whether a token call is due now."""
        at = self._clock()
        return at >= self.next_try and (self._token is None or at >= self._token.renew_at)

    def expires_in(self) -> float | None:
        """Return the seconds until the token ends; None without one."""
        token = self.current()
        return None if token is None else token.expires - self._clock()

    def reject(self, used: Token) -> bool:
        """Drop a token that MOOST refused; False if a newer one has taken its place, or it was dropped before."""
        if self._token is not used:
            return False
        self._token = None
        return True

    def refuse(self, used: Token, cause: str) -> bool:
        """Note that a call was refused with a fresh token too: drop it and ask again later; False as for `reject`."""
        rejected = self.reject(used)
        if rejected:
            self._calls_refused = cause
            self._wait(Trouble.REFUSED, 0.0)
        return rejected

    def accepted(self) -> None:
        """Note that MOOST took a token with a call: it is good."""
        if self._calls_refused:
            self._calls_refused = ""
            self._failures = 0

    async def renew(self) -> None:
        """Make one token call and keep what it brings; afterwards `trouble` says what is wrong, if anything."""
        reply = await self._source.fetch_token()
        grant = granted(reply)
        if isinstance(grant, Grant):
            self._keep(grant)
        else:
            delay = retry_after(reply, datetime.now(UTC)) if isinstance(reply, Reply) else None
            self._deny(grant, 0.0 if delay is None else delay.total_seconds())

    def _keep(self, grant: Grant) -> None:
        if grant.customer is not None and grant.customer != self._customer:
            self._token = None
            self._deny(Denial(trouble=Trouble.CUSTOMER, cause="the token is for another customer"), 0.0)
            return
        now, life = self._clock(), grant.life_seconds
        renew_at = now + max(life * _RENEW_SHARE, life - _RENEW_BEFORE_SECONDS)
        self._token = Token(value=grant.value, renew_at=renew_at, expires=now + life)
        self.next_try = now + _LEAST_BETWEEN_S
        self._denied = None
        if not self._calls_refused:
            self._failures = 0

    def _deny(self, denial: Denial, delay: float) -> None:
        self._denied = denial
        self._wait(denial.trouble, delay)

    def _wait(self, trouble: Trouble, delay: float) -> None:
        """Wait longer each time: to 30 s where we are refused, to 5 s where the platform is merely away."""
        longest = LONGEST_WAIT_ALONE if trouble is Trouble.UNREACHABLE else LONGEST_WAIT
        step = min(longest, FIRST_WAIT * (1 << min(self._failures, _DOUBLINGS))).total_seconds()
        jitter = 0.5 + 0.5 * random.random()  # noqa: S311 - spreads retries, hides nothing
        self._failures += 1
        self.next_try = self._clock() + max(step * jitter, delay)


# ---- reading an answer ----------------------------------------------------------------------------------------------


def granted(reply: Reply | Failure) -> Grant | Denial:
    """Return what an answer to the token call grants, or why it does not."""
    if isinstance(reply, Failure):
        return Denial(trouble=Trouble.UNREACHABLE, cause=reply.cause)
    if reply.status in {Http.UNAUTHORIZED, Http.FORBIDDEN, Http.BAD_REQUEST}:
        page = " and a web page" if is_page(reply) else ""
        return Denial(
            trouble=Trouble.REFUSED, cause=f"client_id and client_secret are refused: status {reply.status}{page}"
        )
    if reply.status != Http.OK:
        return Denial(trouble=Trouble.UNREACHABLE, cause=cause(reply))
    body = _object(reply.body)
    value = body.get("access_token")
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or not value:
        return _without_token(reply, body.get("error"))
    claims = _claims(value)
    customer = claims.get("customerId")
    return Grant(
        value=value,
        life_seconds=_life(body.get("expires_in"), claims, time.time()),
        customer=customer if isinstance(customer, str) else None,
    )


def _without_token(reply: Reply, error: object) -> Denial:
    """Return what an answer 200 without a token means."""
    if error is not None:
        named = f": {error}" if isinstance(error, str) and _is_error_code(error) else ""
        return Denial(
            trouble=Trouble.REFUSED, cause=f"client_id and client_secret are refused: status 200 with an error{named}"
        )
    return Denial(
        trouble=Trouble.UNREACHABLE,
        cause=cause(reply) if oddity(reply) else "status 200 with JSON that holds no access_token",
    )


def _life(expires_in: object, claims: dict[str, object], wall: float) -> float:
    """Return how long a token lives [s]."""
    seconds = _positive(expires_in)
    if seconds is not None and seconds >= _SHORTEST_LIFE_S:
        return seconds
    expires = _positive(claims.get("exp"))
    if expires is None:
        return DEFAULT_LIFE_SECONDS
    issued = _positive(claims.get("iat"))
    life = expires - (wall if issued is None else issued)  # with both no clock of ours has to be right
    return life if life >= _SHORTEST_LIFE_S else DEFAULT_LIFE_SECONDS


def _positive(value: object) -> float | None:
    if isinstance(value, str) and _is_decimal(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < _END_OF_TIME_S:
        return None
    return float(value)


def _claims(token: str) -> dict[str, object]:
    """Return the claims of a JWT, unverified; nothing for any other token."""
    parts = token.split(".")
    if len(parts) != _JWT_PARTS:
        return {}
    try:
        return _object(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError):
        return {}


def _object(body: bytes) -> dict[str, object]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
