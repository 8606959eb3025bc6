"""Why a request could not be verified, in words for the operator's log: which check failed, never what was offered.

Rules:
- Asked only after a verification has failed, and cheap: nothing is hashed again.
- The words are few and fixed, so that they can be counted.
"""

from collections.abc import Sequence
from typing import Final

from bridge.source.signature import (
    LONGEST_TIMESTAMP,
    TOLERANCE,
    Basic,
    Bearer,
    Headers,
    PlainHmac,
    StandardWebhooks,
    Verifier,
)

_NO_SECRET: Final = "it fits none of the secrets"  # noqa: S105 - words


def flaw(verifiers: Sequence[Verifier], headers: Headers, now: float) -> str:
    """Return which check failed; `now` [epoch s]. Several verifiers = the address names no subscription."""
    found = {_flaw(verify, headers, now) for verify in verifiers}
    return found.pop() if len(found) == 1 else "it fits no subscription"


def _flaw(verify: Verifier, headers: Headers, now: float) -> str:
    match verify:
        case StandardWebhooks():
            return _standard(headers, now)
        case PlainHmac():
            return _NO_SECRET if verify.signatures[0] in headers else f"no header {verify.signatures[0].decode()}"
        case Bearer() | Basic():
            scheme = "bearer" if isinstance(verify, Bearer) else "basic"
            offered = headers.get(b"authorization", b"").partition(b" ")[0].lower()
            if not offered:
                return "no header authorization"
            return _NO_SECRET if offered == scheme.encode() else f"its authorization is not {scheme}"
        case _:
            return _NO_SECRET


def _standard(headers: Headers, now: float) -> str:
    prefix = "webhook" if b"webhook-signature" in headers else "svix" if b"svix-signature" in headers else ""
    if not prefix:
        return "no header webhook-signature"
    for name in ("id", "timestamp"):
        if not headers.get(f"{prefix}-{name}".encode()):
            return f"no header {prefix}-{name}"
    stamp = headers[f"{prefix}-timestamp".encode()]
    if not stamp.isdigit() or len(stamp) > LONGEST_TIMESTAMP:
        return f"{prefix}-timestamp is no time"
    if abs(int(stamp) - now) > TOLERANCE.total_seconds():
        return "its time is more than 5 min in the " + ("past" if int(stamp) < now else "future")
    return _NO_SECRET
