"""The credentials: one token, cached, renewed early, by one call at a time.

Rules:
- A token is good until its end; it is renewed at 80 % of its life or 5 minutes before its end, whichever is later.
- A 401 speaks of the token it was got with: an older one than the current says nothing about the current.
- Its life is `expires_in`, else the JWT's `exp`, else a day. The published pattern of `access_token` is wrong (no JWT
  fits it) and never used.
- The JWT's customer is compared with the configured one, unverified, as a check of the configuration.
- Refused credentials and a wrong customer are asked again by themselves, with growing waits.
- Nothing here prints a token.

Source: MOOST documentation, "Common integration", "Request access token" (GET /auth/token/v1: 200, 401, 500; 86,400 s).
"""

import base64
import binascii
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from http import HTTPStatus as Http
from typing import Final, Protocol

from bridge.core.retry import FIRST_WAIT, LONGEST_WAIT, LONGEST_WAIT_ALONE
from bridge.sink.classify import Failure, Reply, retry_after

DEFAULT_LIFE_SECONDS: Final = 86_400.0
_END_OF_TIME_S: Final = 1e12  # no token lives, and no time is, beyond that
_RENEW_SHARE: Final = 0.8
_RENEW_BEFORE_SECONDS: Final = 300.0
_DOUBLINGS: Final = 10
_JWT_PARTS: Final = 3


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


class TokenKeeper:
    """Holds the one token of this process. `renew` is never called twice at a time by its one user, the sender."""

    def __init__(self, source: TokenSource, customer: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Start without a token."""
        self._source = source
        self._customer = customer
        self._clock = clock
        self._token: Token | None = None
        self._failures = 0
        self.next_try = 0.0  # no renewal before it [s of the clock]
        self.trouble: Trouble | None = None

    def __repr__(self) -> str:
        """Say nothing that could be a secret."""
        return f"{type(self).__name__}(trouble={self.trouble})"

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

    def refuse(self, used: Token) -> bool:
        """Note that a call was refused with a fresh token too: drop it and ask again later; False as for `reject`."""
        rejected = self.reject(used)
        if rejected:
            self._fail(Trouble.REFUSED, 0.0)
        return rejected

    def accepted(self) -> None:
        """Note that MOOST took a call: the credentials are good."""
        self._failures = 0
        self.trouble = None

    async def renew(self) -> None:
        """Make one token call and keep what it brings; afterwards `trouble` says what is wrong, if anything."""
        reply = await self._source.fetch_token()
        grant = granted(reply)
        if isinstance(grant, Grant):
            self._keep(grant)
        else:
            delay = retry_after(reply, datetime.now(UTC)) if isinstance(reply, Reply) else None
            self._fail(grant, 0.0 if delay is None else delay.total_seconds())

    def _keep(self, grant: Grant) -> None:
        if grant.customer is not None and grant.customer != self._customer:
            self._token = None
            self._fail(Trouble.CUSTOMER, 0.0)
            return
        now, life = self._clock(), grant.life_seconds
        renew_at = now + max(life * _RENEW_SHARE, life - _RENEW_BEFORE_SECONDS)
        self._token = Token(value=grant.value, renew_at=renew_at, expires=now + life)
        self.next_try = now
        if self.trouble is not Trouble.REFUSED:  # a new token proves nothing where calls are refused: `accepted` does
            self.accepted()

    def _fail(self, trouble: Trouble, delay: float) -> None:
        """Wait longer each time: to 30 s where we are refused, to 5 s where the platform is merely away."""
        longest = LONGEST_WAIT_ALONE if trouble is Trouble.UNREACHABLE else LONGEST_WAIT
        step = min(longest, FIRST_WAIT * (1 << min(self._failures, _DOUBLINGS))).total_seconds()
        jitter = 0.5 + 0.5 * random.random()  # noqa: S311 - spreads retries, hides nothing
        self._failures += 1
        self.next_try = self._clock() + max(step * jitter, delay)
        self.trouble = trouble


# ---- reading an answer ----------------------------------------------------------------------------------------------


def granted(reply: Reply | Failure) -> Grant | Trouble:
    """Return what an answer to the token call grants, or why it does not."""
    if isinstance(reply, Failure):
        return Trouble.UNREACHABLE
    if reply.status in {Http.UNAUTHORIZED, Http.FORBIDDEN, Http.BAD_REQUEST}:
        return Trouble.REFUSED
    body = _object(reply.body) if reply.status == Http.OK else {}
    value = body.get("access_token")
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or not value:
        return Trouble.UNREACHABLE
    claims = _claims(value)
    customer = claims.get("customerId")
    return Grant(
        value=value,
        life_seconds=_life(body.get("expires_in"), claims, time.time()),
        customer=customer if isinstance(customer, str) else None,
    )


def _life(expires_in: object, claims: dict[str, object], wall: float) -> float:
    """Return how long a token lives [s]."""
    if (seconds := _positive(expires_in)) is not None:
        return seconds
    expires = _positive(claims.get("exp"))
    if expires is None:
        return DEFAULT_LIFE_SECONDS
    issued = _positive(claims.get("iat"))
    life = expires - (wall if issued is None else issued)  # with both no clock of ours has to be right
    return life if life > 0 else DEFAULT_LIFE_SECONDS


def _positive(value: object) -> float | None:
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
