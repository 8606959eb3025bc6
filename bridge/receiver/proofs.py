"""Whose a request is: which secrets are tried, in which order, and what a stranger may cost by failing.

Rules:
- Each distinct secret is tried once, whoever has it: first those of the subscription that the request names, then those
  of the one that its address proved last, then the rest. The first one that fits ends it.
- Failing is paid for by the address, in bytes times secrets; nobody is shut out for it. What costs up to 64 KiB is
  always checked, so a right secret never waits. Dearer requests of an address that is overdrawn hear 429, unless it
  proved itself for the subscription within ten minutes.
"""

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from bridge.config import Subscription
from bridge.limits import Limit
from bridge.receiver.callers import Callers
from bridge.source.signature import MOST_SIGNATURES, Headers, Verifier, verifier

ALWAYS_CHECKED: Final = 64 * 2**10  # bytes times secrets
FAILED_PER_S: Final = 8 * 2**20  # bytes times secrets, of one address
FAILED_BURST: Final = 64 * 2**20
FAILED_PER_S_IN_ALL: Final = 64 * 2**20
MOST_DEBTORS: Final = 10_000  # addresses


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """One secret of a subscription."""

    key: bytes  # the same for the same secret, used in the same way
    verify: Verifier


class Holder(Protocol):
    """A subscription, as far as proofs are concerned."""

    @property
    def id(self) -> str:
        """Return its id."""

    @property
    def verify(self) -> Verifier:
        """Return what checks all its secrets."""

    @property
    def proofs(self) -> tuple[Proof, ...]:
        """Return its secrets, each for itself."""


H = TypeVar("H", bound=Holder)


def proofs_of(subscription: Subscription) -> tuple[Proof, ...]:
    """Return the secrets of a subscription, each for itself; raises UnusableSecretError."""
    way = (subscription.auth, subscription.header, subscription.algorithm, subscription.encoding, subscription.prefix)
    found = []
    for secret in subscription.secrets:
        key = hashlib.sha256(repr((*way, secret.get_secret_value())).encode()).digest()
        found.append(Proof(key=key, verify=verifier(subscription.model_copy(update={"secrets": (secret,)}))))
    return tuple(found) or (Proof(key=repr(way).encode(), verify=verifier(subscription)),)


def verified(
    guards: Sequence[H], headers: Headers, body: bytes, now: float, *, named: str | None = None, last: str | None = None
) -> list[H]:
    """Return the subscriptions whose credentials fit the raw bytes; `now` [epoch s].

    `named` is the subscription that the request names, `last` the one that its address proved last.
    """
    if len(guards) == 1:
        return [guard for guard in guards if guard.verify(headers, body, now)]
    tried: set[bytes] = set()
    for guard in sorted(guards, key=lambda guard: 0 if guard.id == named else 1 if guard.id == last else 2):
        for proof in guard.proofs:
            if proof.key not in tried and proof.verify(headers, body, now):
                return [each for each in guards if any(proof.key == other.key for other in each.proofs)]
            tried.add(proof.key)
    return []


def with_few_signatures(guards: Sequence[H], headers: Headers) -> Sequence[H]:
    """Return the subscriptions of whose signatures no more are offered than one may look at.

    Those that look into the same fields are offered the same, so it is counted once for all of them.
    """
    if len(guards) == 1:
        return guards  # it counts itself
    looking = {guard.verify.signatures: guard.verify for guard in guards}
    crowded = {fields for fields, verify in looking.items() if verify.offers(headers) > MOST_SIGNATURES}
    return [guard for guard in guards if guard.verify.signatures not in crowded] if crowded else guards


def hashed(guards: Sequence[Holder]) -> int:
    """Return how many secrets a body may have to be hashed with."""
    return len({proof.key for guard in guards for proof in guard.proofs if proof.verify.signatures})


class FailedWork:
    """What addresses have cost by failing, and for how long those that are overdrawn hear 429."""

    def __init__(
        self, reached: Callable[[Limit, str], object], callers: Callers, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin with no debts."""
        self._reached = reached
        self._callers = callers
        self._clock = clock
        self._debts: dict[str, tuple[float, float]] = {}  # address -> work, and when
        self._of_all = 0.0
        self._at = clock()

    def failed(self, who: str, work: int) -> None:
        """Count the work of a request that proved nothing [bytes times secrets]."""
        if not work:
            return
        now = self._clock()
        self._of_all = self._all(now) + work
        self._at = now
        debt = self._debt(who, now) + work
        self._debts.pop(who, None)
        self._debts[who] = debt, now
        if len(self._debts) > MOST_DEBTORS:
            del self._debts[next(iter(self._debts))]

    def wait(self, who: str, work: int, subscriptions: Sequence[str]) -> int:
        """Return how long until a request of that much work is checked [whole s]; 0 = at once."""
        if work <= ALWAYS_CHECKED:
            return 0
        now = self._clock()
        own = (self._debt(who, now) - FAILED_BURST) / FAILED_PER_S
        wait = max(own, (self._all(now) - FAILED_BURST) / FAILED_PER_S_IN_ALL)
        if wait <= 0 or any(self._callers.is_recent(who, each) for each in subscriptions):
            return 0
        self._reached(Limit.FAILED_WORK, who)
        return math.ceil(wait)

    def _debt(self, who: str, now: float) -> float:
        work, at = self._debts.get(who, (0.0, now))
        return max(0.0, work - (now - at) * FAILED_PER_S)

    def _all(self, now: float) -> float:
        return max(0.0, self._of_all - (now - self._at) * FAILED_PER_S_IN_ALL)
