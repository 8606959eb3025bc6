"""Who sent it: five ways to prove that raw bytes come from a subscription.

Rules:
- The proof is over the bytes as they arrived, before anything reads them.
- Comparisons are of bytes and take the same time wherever they differ.
- Several secrets may be valid at once (rotation): any of them will do.
- Whatever is missing or malformed is "not verified", never an exception.

Source: Standard Webhooks specification, "Signature scheme" (`whsec_` + base64 secret; HMAC-SHA256 over
`id.timestamp.body`; `v1,<base64>` in a list separated by spaces; timestamp tolerance of five minutes);
Svix documentation, "Verifying webhooks manually" (the same under `svix-…` header names);
Enode, Smartcar, High Mobility and GitHub webhook documentation (plain HMAC of the body, hex, with or without prefix;
Smartcar's challenge: see `challenge`).
"""

import base64
import binascii
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final, NamedTuple, Protocol, assert_never

from bridge.config import Auth, Subscription
from bridge.errors import BridgeError
from bridge.source.challenge import challenge_in

TOLERANCE: Final = timedelta(minutes=5)  # a signed timestamp may be this old, or this far ahead
MOST_SIGNATURES: Final = 16  # in one request; a sender has one for each of its secrets
LONGEST_TIMESTAMP: Final = 12  # digits; more is no time
SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - a marker, not a secret

_VERSION: Final = b"v1,"
_LISTED: Final = re.compile(rb"(?:^|(?<=[ ,]))v1,([^ ,]+)")
"""Signatures in a list: separated by blanks, or by commas where somebody joined two lines of a header."""

_NAMES: Final = (b"webhook-id", b"webhook-timestamp", b"webhook-signature")
_SVIX_NAMES: Final = (b"svix-id", b"svix-timestamp", b"svix-signature")

Headers = Mapping[bytes, bytes]
"""Names in lower case, as ASGI delivers them."""


class UnusableSecretError(BridgeError):
    """A configured secret is not what its kind of authentication needs."""


class Signed(NamedTuple):
    """What a sender signed beside the body; known after the proof only."""

    message_id: str
    at: int  # [epoch s]


class Verifier(Protocol):
    """Tells whether a request was made by somebody who knows a secret."""

    @property
    def signatures(self) -> Sequence[bytes]:
        """Return the names of the fields that carry signatures."""

    def __call__(self, headers: Headers, body: bytes, now: float) -> bool:
        """Return whether the proof holds at `now` [epoch s]."""

    def offers(self, headers: Headers) -> int:
        """Return how many signatures a request carries."""


class StandardWebhooks:
    """HMAC-SHA256 over `id.timestamp.body`, with a time that must be close."""

    signatures = (_NAMES[-1], _SVIX_NAMES[-1])

    def __init__(self, secrets: Sequence[str]) -> None:
        """Take `whsec_…` secrets."""
        self._keyed = [hmac.new(_decoded(secret), digestmod="sha256") for secret in secrets]

    def __call__(self, headers: Headers, body: bytes, now: float) -> bool:
        """Return whether any listed `v1` signature fits any secret."""
        identifier, timestamp, signatures = map(headers.get, _NAMES if _NAMES[-1] in headers else _SVIX_NAMES)
        if not identifier or not signatures or not timestamp or not _is_close(timestamp, now):
            return False
        if signatures.count(_VERSION) > MOST_SIGNATURES:
            return False  # before they are listed: every subscription may have to look
        offered = _LISTED.findall(signatures)
        if not offered:
            return False
        signed = b"%b.%b.%b" % (identifier, timestamp, body)
        return any(_is_among(_signature(keyed, signed), offered) for keyed in self._keyed)

    def offers(self, headers: Headers) -> int:
        """Return how many signatures a request carries."""
        return headers.get(_NAMES[-1] if _NAMES[-1] in headers else _SVIX_NAMES[-1], b"").count(_VERSION)

    def signed(self, headers: Headers) -> Signed:
        """Return the id and time of a verified request: those of the header set that verified, no other."""
        identifier, timestamp, _ = map(headers.get, _NAMES if _NAMES[-1] in headers else _SVIX_NAMES)
        return Signed((identifier or b"").decode(errors="replace"), int(timestamp or 0))


class PlainHmac:
    """HMAC of the body alone, in a header of the sender's choice."""

    def __init__(self, secrets: Sequence[str], *, header: str, algorithm: str, encoding: str, prefix: str) -> None:
        """Take the secrets as text; `encoding` is hex or base64."""
        self._keys = [secret.encode() for secret in secrets]
        self._algorithm = algorithm
        self._header = header.lower().encode()
        self.signatures = (self._header,)
        self._hex = encoding == "hex"
        self._prefix = prefix.encode()

    def __call__(self, headers: Headers, body: bytes, now: float) -> bool:  # noqa: ARG002 - no time is signed
        """Return whether the header holds the digest under any secret."""
        return self._key(headers, body) is not None

    def offers(self, headers: Headers) -> int:
        """Return how many signatures a request carries."""
        return headers.get(self._header, b"").count(b", ") + 1

    def answer(self, headers: Headers, body: bytes) -> bytes | None:
        """Return what a signed handshake is answered with; None = the body is none, or not signed by us both.

        The answer is made with the secret that the body was signed with: during a rotation the other side knows one.
        """
        challenge = challenge_in(body) if self._algorithm == "sha256" else None
        if challenge is None:
            return None
        key = self._key(headers, body)
        if key is None:
            return None
        return json.dumps({"challenge": hmac.digest(key, challenge.encode(), "sha256").hex()}).encode()

    def _key(self, headers: Headers, body: bytes) -> bytes | None:
        """Return the secret that the body is signed with; None = none of ours."""
        if self.offers(headers) > MOST_SIGNATURES:
            return None
        values = headers.get(self._header, b"").split(b", ")
        start = len(self._prefix)
        offered = [value[start:] for value in values if value.startswith(self._prefix)]
        if self._hex:
            offered = [value.lower() for value in offered]
        return next((key for key in self._keys if _is_among(self._signature(key, body), offered)), None)

    def _signature(self, key: bytes, body: bytes) -> bytes:
        """Return what the header should hold behind its prefix."""
        digest = hmac.digest(key, body, self._algorithm)
        return digest.hex().encode() if self._hex else _base64(digest)


class _Header:
    """What is proved by the header alone, without a signature."""

    signatures = ()

    def offers(self, headers: Headers) -> int:  # noqa: ARG002 - there is nothing to count
        """Return 0."""
        return 0


class Bearer(_Header):
    """`Authorization: Bearer <secret>`."""

    def __init__(self, secrets: Sequence[str]) -> None:
        """Take the tokens."""
        self._tokens = [secret.encode() for secret in secrets]

    def __call__(self, headers: Headers, body: bytes, now: float) -> bool:  # noqa: ARG002 - proves the caller only
        """Return whether the token is one of ours."""
        offered = _credentials(headers, b"bearer")
        return any(_is_among(token, [offered]) for token in self._tokens)


class Basic(_Header):
    """`Authorization: Basic base64(user:password)`."""

    def __init__(self, secrets: Sequence[str]) -> None:
        """Take `user:password` secrets."""
        self._pairs = [base64.b64encode(secret.encode()) for secret in secrets]

    def __call__(self, headers: Headers, body: bytes, now: float) -> bool:  # noqa: ARG002 - proves the caller only
        """Return whether user and password are one of our pairs."""
        offered = _credentials(headers, b"basic")
        return any(_is_among(pair, [offered]) for pair in self._pairs)


class Open(_Header):
    """No authentication: the network keeps strangers out."""

    def __call__(self, headers: Headers, body: bytes, now: float) -> bool:  # noqa: ARG002 - nothing is proved
        """Return True."""
        return True


class Nobody(_Header):
    """No request comes from it: its messages take another way."""

    def __call__(self, headers: Headers, body: bytes, now: float) -> bool:  # noqa: ARG002 - nothing could prove it
        """Return False."""
        return False


def verifier(subscription: Subscription) -> Verifier:
    """Build what checks a subscription's requests; raises UnusableSecretError."""
    secrets = [secret.get_secret_value() for secret in subscription.secrets]
    match subscription.auth:
        case Auth.STANDARD_WEBHOOKS:
            return StandardWebhooks(secrets)
        case Auth.HMAC:
            return PlainHmac(
                secrets,
                header=subscription.header,
                algorithm=subscription.algorithm,
                encoding=subscription.encoding,
                prefix=subscription.prefix,
            )
        case Auth.BEARER:
            return Bearer(secrets)
        case Auth.BASIC:
            return Basic(secrets)
        case Auth.NONE:
            return Open()
        case Auth.KAFKA:
            return Nobody()
        case _:
            assert_never(subscription.auth)


def _decoded(secret: str) -> bytes:
    """Return the key of a `whsec_…` secret."""
    text = secret.removeprefix(SECRET_PREFIX)
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        message = "a secret for standard-webhooks must be whsec_ followed by base64"
        raise UnusableSecretError(message) from None
    return key


def _signature(keyed: hmac.HMAC, signed: bytes) -> bytes:
    """Return a signature in base64.

    A copy of a keyed HMAC keeps the interpreter's lock for messages of up to 2 KB; `hmac.digest` lets it go each time,
    and the door then waits for whoever takes it.
    """
    own = keyed.copy()
    own.update(signed)
    return _base64(own.digest())


def _base64(raw: bytes) -> bytes:
    return binascii.b2a_base64(raw, newline=False)


def _is_close(timestamp: bytes, now: float) -> bool:
    """Return whether a timestamp [epoch s, decimal] is within the tolerance."""
    if not timestamp.isdigit() or len(timestamp) > LONGEST_TIMESTAMP:
        return False
    return abs(now - int(timestamp)) <= TOLERANCE.total_seconds()


def _credentials(headers: Headers, scheme: bytes) -> bytes:
    """Return what follows the scheme in `Authorization`; empty where it is another one."""
    named, _, credentials = headers.get(b"authorization", b"").strip().partition(b" ")
    return credentials.strip() if named.lower() == scheme else b""


def _is_among(expected: bytes, offered: Sequence[bytes]) -> bool:
    """Return whether the expected value is offered."""
    return any(hmac.compare_digest(expected, value) for value in offered)
