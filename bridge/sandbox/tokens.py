"""Access tokens that look and behave like MOOST's: long, dotted, expiring, revocable.

Source: MOOST documentation, "Common integration", authentication (lifetime 86,400 s, renewed by the same call, no
refresh token); the published sample token is an RS256 JWT with the claims customerId, iss, sub, aud, iat, exp, scope.
"""

import base64
import json
import random
from collections.abc import Callable
from typing import Final

SCOPE: Final = "read:buildings write:buildings read:events write:events read:pushnotifications write:pushnotifications"
LIFETIME_S: Final = 86_400
_SIGNATURE_BYTES: Final = 256


class Tokens:
    """All tokens issued and still good."""

    def __init__(self, *, customer_id: str, now: Callable[[], float], dice: random.Random) -> None:
        """Start without any token; `now` returns epoch seconds."""
        self._customer_id = customer_id
        self._now = now
        self._dice = dice
        self._good: dict[str, float] = {}

    def issue(self, lifetime_s: int = LIFETIME_S) -> str:
        """Return a new token that really expires after its lifetime."""
        now = self._now()
        self._good = {token: end for token, end in self._good.items() if end > now}
        claims = {
            "customerId": self._customer_id,
            "iss": "https://sandbox.invalid/",
            "sub": "sandbox@clients",
            "aud": "https://moost-api",
            "iat": int(now),
            "exp": int(now) + lifetime_s,
            "scope": SCOPE,
        }
        head = _part(json.dumps({"alg": "RS256", "typ": "JWT", "kid": "sandbox"}).encode())
        token = f"{head}.{_part(json.dumps(claims).encode())}.{self._signature()}"
        self._good[token] = now + lifetime_s
        return token

    def accepts(self, authorization: str | None) -> bool:
        """Say whether an Authorization header carries a good token."""
        if authorization is None or not authorization.startswith("Bearer "):
            return False
        return self._good.get(authorization[7:], 0.0) > self._now()

    def revoke(self) -> None:
        """Make every token issued so far worthless."""
        self._good.clear()

    def _signature(self) -> str:
        """Return a signature that nobody checks; a dash is in it, as in most real ones."""
        while "-" not in (text := _part(self._dice.randbytes(_SIGNATURE_BYTES))):
            pass
        return text


def _part(raw: bytes) -> str:
    """Return bytes as unpadded base64url."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
