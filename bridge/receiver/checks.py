"""What the door asks, in the order of the contract: 404, 413, 415, 403 before the body, 401 and 429 after it.

Rules:
- A refusal is a value with its status, its sentence and, where waiting helps, when to come again.
- Everything that can be prepared is, in a `Policy` that is replaced as a whole on reload.
- A caller whom no topic names is whoever's credentials verify the raw bytes.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

from starlette.types import Scope

from bridge.config import Auth, Settings, Subscription
from bridge.config.fields import Network
from bridge.receiver.addresses import client_address, is_within
from bridge.receiver.fields import first
from bridge.receiver.proofs import Proof, hashed, proofs_of
from bridge.source.signature import Headers, PlainHmac, Signed, StandardWebhooks, Verifier, verifier
from bridge.source.topics import subscription_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An answer that is not 202."""

    status: int
    error: str
    retry_after: int | None = None  # s
    closing: bool = False  # the connection ends with the answer
    check: str = ""  # which check failed, for the log only; empty = as the error says


_JSON: Final = b"application/json"

UNKNOWN: Final = Refusal(status=404, error="no such subscription")
TOO_LARGE: Final = Refusal(status=413, error="the body is too large", closing=True)
TOO_SLOW: Final = Refusal(status=408, error="the body took too long", closing=True, check="others needed its room")
WRONG_TYPE: Final = Refusal(status=415, error="the body must be application/json without a content encoding")
FOREIGN_ADDRESS: Final = Refusal(status=403, error="this address may not send here")
OVERDRAWN: Final = Refusal(status=429, error="too many failed requests from this address")
TOO_MANY: Final = Refusal(status=429, error="too many messages for this subscription")
UNVERIFIED: Final = Refusal(status=401, error="the request could not be verified")


class Bucket:
    """Messages per second of one subscription: full at one second's worth, an array may overdraw it."""

    def __init__(self, rate: float) -> None:
        """Start full; `rate` in messages per second."""
        self.rate = rate
        self._most = max(rate, 1.0)
        self._left = self._most
        self._at = -math.inf

    def wait(self, now: float, count: int = 1) -> int:
        """Return how long until messages may pass together [whole s]; 0 = at once. `now` [s] of any clock.

        They pass when as many of them may as a second allows; the rest is paid for afterwards.
        """
        if not count:
            return 0
        needed = min(float(count), self._most)
        self._left = min(self._most, self._left + max(0.0, now - self._at) * self.rate)
        self._at = now
        return 0 if self._left >= needed else math.ceil((needed - self._left) / self.rate)

    def take(self, count: int) -> None:
        """Let messages pass."""
        self._left -= count


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """What the door knows of one subscription."""

    id: str
    verify: Verifier
    networks: tuple[Network, ...]
    bucket: Bucket | None
    proofs: tuple[Proof, ...]
    by_header: bool = False  # the header alone proves it
    proving: bool = True  # a request that is verified has proved who sent it
    answer: Callable[[Headers, bytes], bytes | None] | None = None  # what a handshake within a signed body is answered
    signed: Callable[[Headers], Signed] | None = None  # what its senders sign beside the body


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """All settings of the door, ready for use."""

    guards: Mapping[str, Guard]
    callers: tuple[Guard, ...]  # who may call without being named
    max_body: int  # bytes
    trusted_proxies: tuple[Network, ...]
    topic_headers: tuple[bytes, ...]
    id_headers: tuple[bytes, ...]
    signatures: frozenset[bytes]  # names of the fields that carry signatures
    most_hashed: int  # secrets that a body may have to be hashed with
    limited: bool  # some subscription has a rate limit

    @classmethod
    def of(cls, settings: Settings, former: Self | None = None) -> Self:
        """Prepare the settings; rate limits that stay as they were keep their count. Raises UnusableSecretError."""
        server = settings.server
        calling = [each for each in settings.subscriptions if each.auth is not Auth.KAFKA]
        guards = {each.id: _guard(each, former) for each in calling}
        proving = tuple(guards[each.id] for each in calling if each.auth is not Auth.NONE)
        return cls(
            guards=guards,
            callers=proving or tuple(guards.values()),
            max_body=server.max_body,
            trusted_proxies=server.trusted_proxies,
            topic_headers=tuple(name.encode() for name in server.topic_headers),
            id_headers=tuple(name.encode() for name in server.id_headers),
            signatures=frozenset(name for guard in guards.values() for name in guard.verify.signatures),
            most_hashed=hashed(tuple(guards.values())),
            limited=any(guard.bucket for guard in guards.values()),
        )

    def topic_named_by(self, headers: Headers) -> str | None:
        """Return the topic that a header names for all messages of the body."""
        return first(self.topic_headers, headers)

    def delivery_id(self, headers: Headers) -> str | None:
        """Return the id that the sender gave to the whole delivery."""
        return first(self.id_headers, headers)


def _guard(subscription: Subscription, former: Policy | None) -> Guard:
    known = former.guards.get(subscription.id) if former else None
    bucket = known.bucket if known else None
    rate = subscription.rate_limit
    if not rate:
        bucket = None
    elif bucket is None or bucket.rate != rate:
        bucket = Bucket(rate)
    verify = verifier(subscription)
    return Guard(
        id=subscription.id,
        verify=verify,
        networks=subscription.allowed_networks,
        bucket=bucket,
        proofs=proofs_of(subscription),
        by_header=not verify.signatures,
        proving=subscription.auth is not Auth.NONE,
        answer=verify.answer if isinstance(verify, PlainHmac) else None,
        signed=verify.signed if isinstance(verify, StandardWebhooks) else None,
    )


# ---- before the body is read ----------------------------------------------------------------------------------------


def admit(
    policy: Policy, topic: str | None, headers: Headers, declared: int, scope: Scope, *, addressed: bool
) -> Sequence[Guard] | Refusal:
    """Return whose request this may be, or why it is refused before its body is read.

    `addressed` says that the path names the topic: it is for that subscription then. A topic in a header is a word
    about the message, as one in the body is, and who calls shows in the credentials.
    """
    guards: Sequence[Guard] = policy.callers
    if topic is not None:
        named = policy.guards.get(subscription_of(topic))
        if named is None:
            return UNKNOWN
        if addressed:
            guards = (named,)
    if declared > policy.max_body:
        return TOO_LARGE
    if not _is_json(headers):
        return WRONG_TYPE
    if any(guard.networks for guard in guards):
        address = client_address(scope, policy.trusted_proxies)
        guards = [guard for guard in guards if not guard.networks or is_within(address, guard.networks)]
        if not guards:
            return FOREIGN_ADDRESS
    return guards


def declared_length(headers: Headers) -> int:
    """Return the length of the body as its sender declares it [bytes]; 0 = not declared."""
    value = headers.get(b"content-length", b"")
    return int(value) if value.isdigit() and len(value) <= 20 else 0  # noqa: PLR2004 - digits of 2**64


def _is_json(headers: Headers) -> bool:
    if b"content-encoding" in headers:
        return False
    value = headers.get(b"content-type", b"")
    if value == _JSON:
        return True
    media = value.partition(b";")[0].strip().lower()
    return media in (b"", _JSON) or (media.startswith(b"application/") and media.endswith(b"+json"))


# ---- after the body is read -----------------------------------------------------------------------------------------


def limit(policy: Policy, owners: Sequence[str], now: float) -> Refusal | None:
    """Count messages, one owner each, against the rate limits of their subscriptions; `now` [s]."""
    counted = Counter(owners)
    buckets = [(bucket, count) for owner, count in counted.items() if (bucket := policy.guards[owner].bucket)]
    wait = max((bucket.wait(now, count) for bucket, count in buckets), default=0)
    if wait:
        return replace(TOO_MANY, retry_after=wait)
    for bucket, count in buckets:
        bucket.take(count)
    return None


def spent(found: Sequence[Guard], now: float) -> Refusal | None:
    """Return the refusal of a body that is not even looked into: none of those it may be from may send a message."""
    waits = [guard.bucket.wait(now) if guard.bucket else 0 for guard in found]
    return replace(TOO_MANY, retry_after=min(waits)) if all(waits) else None
