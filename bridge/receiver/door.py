"""The way of one webhook request: checked, read, verified, stored, answered.

Rules:
- The order of the checks is the contract's: 404, 413, 415, 403, 429 (an address that failed too much), 503, body (413),
  401, 429 (nothing may be sent now), 503 (too much in hand), 429 (not that much), 202.
- 202 is said only after the store has made the bytes durable.
- A handshake within a signed body is answered with 200, a ping with 202. Neither is stored; each counts as a message of
  its subscription.
- No request raises: a store that cannot serve is a 503.

The door speaks ASGI without the framework's request and response objects: at some 20 µs each they would cost as much
as all checks together.

Source: CloudEvents 1.0 "HTTP 1.1 Web Hooks", sections 2 and 4 (the answer is 202; the handshake is an OPTIONS request,
allowed rate in requests per minute).
"""

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from starlette.types import Receive, Scope, Send

from bridge import logs
from bridge.config import Settings
from bridge.core.vocabulary import DeadReason
from bridge.intake import arrivals, tally
from bridge.limits import Limit
from bridge.metrics import Metrics
from bridge.receiver.addresses import is_proxy, payer
from bridge.receiver.aside import Aside
from bridge.receiver.callers import Callers
from bridge.receiver.checks import (
    OVERDRAWN,
    UNKNOWN,
    UNVERIFIED,
    Guard,
    Policy,
    Refusal,
    admit,
    declared_length,
    limit,
    spent,
)
from bridge.receiver.fields import fields
from bridge.receiver.gate import DRAINING, ELSEWHERE, Closed, Gate
from bridge.receiver.hands import SMALL_BODY, Hands
from bridge.receiver.intake import Reading, busy, delivery
from bridge.receiver.proofs import ALWAYS_CHECKED, FailedWork, hashed, verified, with_few_signatures
from bridge.receiver.refusals import Refusals
from bridge.source.envelope import is_wrapped
from bridge.source.ping import is_ping
from bridge.source.signature import MOST_SIGNATURES, Headers
from bridge.source.topics import subscription_of
from bridge.source.unproved import flaw
from bridge.store.port import Arrival, Receipt, Store, StoreUnavailable
from bridge.store.shares import summed

MOST_IDS: Final = 100  # row ids in an answer
MOST_NAMED: Final = 10  # ids or topics in a line of the log
LINGER: Final = timedelta(seconds=2)  # how long a refused body is still swallowed, so that the sender reads the answer
LINGER_BYTES: Final = 4 * 2**20
STORE_RETRY_AFTER: Final = 5  # s
_log = logs.logger("receiver")

_NOTHING: Final = b'{"accepted":0,"duplicates":0,"dead":0,"ids":[]}'
_SHOWN: Final = b'{"webhook":"messages are taken by POST"}'
_UNKNOWN: Final = json.dumps({"error": UNKNOWN.error}).encode()
_JSON: Final = (b"content-type", b"application/json")
_VISIBLE: Final = re.compile(rb"[\x21-\x7e]{1,2000}")


@dataclass(frozen=True, slots=True)
class Handshake:
    """An answer to a handshake: there was nothing to store."""

    body: bytes


@dataclass(slots=True)
class _Call:
    """What is known of a request before its body is read."""

    policy: Policy
    headers: Headers
    topic: str | None  # that is named for all messages
    guards: Sequence[Guard]  # whose request it may be
    who: str  # the address that pays for it
    reading: Reading


class Door:
    """The ASGI application behind `/webhooks…`."""

    def __init__(  # noqa: PLR0913 - one argument per part
        self,
        *,
        settings: Settings,
        store: Store,
        metrics: Metrics,
        gate: Gate,
        now: Callable[[], datetime],
        wall: Callable[[], datetime],
        accepted: Callable[[], object],
        callers: Callers,
        reached: Callable[[Limit, str], object],
        refusals: Refusals | None = None,
    ) -> None:
        """Prepare the checks.

        `now` returns the time of receipt, `wall` the one that signatures are held against, both in UTC; `accepted` is
        called after messages were stored, `reached` where a limit is reached, with whoever pays.
        """
        self._policy = Policy.of(settings)
        self._callers = callers
        self._reached = reached
        self._failures = FailedWork(reached, callers)
        self._aside = Aside()
        self._store = store
        self._metrics = metrics
        self._refusals = refusals or Refusals(metrics)
        metrics.know(self._policy.guards)
        self._gate = gate
        self._hands = Hands(settings.limits.unverified_bytes, reached)
        self._now = now
        self._wall = wall
        self._accepted = accepted

    def reload(self, settings: Settings) -> None:
        """Use other secrets and limits from the next request on; if they are unusable, nothing changes."""
        self._policy = Policy.of(settings, self._policy)
        self._metrics.know(self._policy.guards)

    def _whose(self, scope: Scope, headers: Headers) -> str | None:
        """Return the subscription that a request names, where it is ours."""
        topic = scope["path_params"].get("topic") or self._policy.topic_named_by(headers)
        name = subscription_of(topic) if topic is not None else None
        return name if name in self._policy.guards else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["method"] != "POST" and self._gate.receiving:
            await (self._shake_hands if scope["method"] == "OPTIONS" else self._show)(scope, send)
            return
        headers = fields(scope["headers"], self._policy.signatures)
        reading = Reading(self._hands, self._policy.max_body)
        try:
            answer = await self._answer(scope, headers, reading, receive)
        except asyncio.CancelledError:
            if not self._gate.shut:
                raise
            answer = Refusal(status=503, error=DRAINING.reason, retry_after=DRAINING.retry_after)  # no time is left
        finally:
            reading.let_go()
        if isinstance(answer, Refusal):
            self._refusals.count(answer.status, answer.check or answer.error, self._whose(scope, headers))
            await _refuse(answer, headers, reading, receive, send)
        elif answer is not None:
            status, body = (200, answer.body) if isinstance(answer, Handshake) else (202, answer)
            said = [_JSON, (b"content-length", b"%d" % len(body))]
            await send({"type": "http.response.start", "status": status, "headers": said})
            await send({"type": "http.response.body", "body": body})

    async def _answer(
        self, scope: Scope, headers: Headers, reading: Reading, receive: Receive
    ) -> bytes | Handshake | Refusal | None:
        """Return the body of a 202, or what is answered instead; None = the sender has gone."""
        if not self._gate.receiving:
            return Refusal(status=503, error=ELSEWHERE.reason, retry_after=ELSEWHERE.retry_after)
        policy = self._policy
        addressed = scope["path_params"].get("topic")
        topic = addressed or policy.topic_named_by(headers)
        declared = declared_length(headers)
        guards = admit(policy, topic, headers, declared, scope, addressed=bool(addressed))
        if isinstance(guards, Refusal):
            return guards
        call = _Call(policy, headers, topic, guards, payer(scope, policy.trusted_proxies), reading)
        dear = declared * policy.most_hashed > ALWAYS_CHECKED
        refusal = self._overdrawn(call, declared) if dear else None
        if refusal is None and (closed := await self._gate.judged(self._named(call), declared)):
            refusal = _shut(closed)
        if refusal is not None:
            return refusal
        body = await reading.read(receive, call.who, lambda: self._proved_before(call))
        if body is None or isinstance(body, Refusal):
            return body
        if not declared and (overdrawn := self._overdrawn(call, len(body))):
            return overdrawn
        return await self._take_in(call, body)

    def _overdrawn(self, call: _Call, size: int) -> Refusal | None:
        """Return the refusal of a body of some size [bytes] whose address has cost too much by failing."""
        wait = self._failures.wait(call.who, size * hashed(call.guards), [guard.id for guard in call.guards])
        return replace(OVERDRAWN, retry_after=wait) if wait else None

    def _verified(self, call: _Call, body: bytes, now: float) -> list[Guard]:
        """Return the subscriptions whose credentials fit."""
        guards = with_few_signatures(call.guards, call.headers)
        if len(call.guards) == 1:
            return self._noted(call, body, verified(guards, call.headers, body, now))
        named, last = self._named(call), self._callers.last(call.who)
        return self._noted(call, body, verified(guards, call.headers, body, now, named=named, last=last))

    async def _verified_aside(self, call: _Call, body: bytes, now: float) -> list[Guard]:
        """Return the same for a large body, which is hashed beside the loop."""
        named, last = self._named(call), self._callers.last(call.who)
        guards = with_few_signatures(call.guards, call.headers)
        check = partial(verified, guards, call.headers, body, now, named=named, last=last)
        known = any(self._callers.is_recent(call.who, guard.id) for guard in call.guards)
        return self._noted(call, body, await self._aside.do(call.who, check, known=known))

    def _noted(self, call: _Call, body: bytes, found: list[Guard]) -> list[Guard]:
        """Remember who proved itself, and what a failure has cost."""
        if found:
            if found[0].proving and not is_proxy(call.who):
                self._callers.proved(call.who, found[0].id)
        elif not call.headers.keys().isdisjoint(call.policy.signatures):
            self._failures.failed(call.who, len(body) * hashed(call.guards))
            if any(guard.verify.offers(call.headers) > MOST_SIGNATURES for guard in call.guards):
                self._reached(Limit.SIGNATURES, call.who)
        return found

    @staticmethod
    def _named(call: _Call) -> str | None:
        """Return the subscription that a header names."""
        return None if call.topic is None else subscription_of(call.topic)

    def _proved_before(self, call: _Call) -> str | None:
        """Return the subscription whose message a body is before it is read: by its header, or by its address."""
        by_header = (each.id for each in call.guards if each.by_header and each.verify(call.headers, b"", 0))
        lately = (each.id for each in call.guards if self._callers.is_recent(call.who, each.id))
        return next(by_header, None) or next(lately, None)

    async def _take_in(self, call: _Call, body: bytes) -> bytes | Handshake | Refusal:
        """Return the body of the 202 after the messages of a body are stored, or why they are not."""
        policy, headers = call.policy, call.headers
        received = self._now()
        now = self._wall().timestamp()
        small = len(body) <= SMALL_BODY
        found = self._verified(call, body, now) if small else await self._verified_aside(call, body, now)
        if not found:
            return replace(UNVERIFIED, check=flaw([guard.verify for guard in call.guards], headers, now))
        callers = [guard.id for guard in found]
        if policy.limited and (refusal := spent(found, now)):
            return self._limited(refusal, callers[0])
        answered = self._answered(found, headers, body, has_topic=call.topic is not None)
        if answered is not None:
            refusal = limit(policy, callers[:1], now)
            return answered if refusal is None else self._limited(refusal, callers[0])
        messages = arrivals(
            body,
            topic=call.topic,
            wrapped=is_wrapped(headers.get(b"content-type", b"")),
            callers=callers,
            delivery=delivery(policy, found[0], headers),
            received=received,
        )
        for message in messages:
            if message.dead is DeadReason.TOO_LARGE:
                self._reached(Limit.VALUES_PER_BODY, message.subscription)
        full = None if self._gate.alone else await self._full_for(messages)
        if full is None and not call.reading.keep_now(callers[0], len(body)):
            full = await self._busy_for(call, callers[0], len(body))
        if full is not None:
            return full
        if policy.limited and (refusal := limit(policy, [message.subscription for message in messages], now)):
            return self._limited(refusal, callers[0])
        return await self._stored(messages, len(body))

    async def _full_for(self, messages: Sequence[Arrival]) -> Refusal | None:
        """Return the refusal of messages for which a subscription has no room left in the store."""
        if self._gate.alone:
            return None
        for whose, size in summed((each.subscription, len(each.body)) for each in messages).items():
            closed = await self._gate.judged(whose, size)
            if closed is not None:
                return _shut(closed)
        return None

    async def _busy_for(self, call: _Call, subscription: str, size: int) -> Refusal | None:
        """Return the refusal of a body of some size [bytes] while a subscription has too much in hand."""
        return None if await call.reading.keep(subscription, size) else busy()

    def _limited(self, refusal: Refusal, subscription: str) -> Refusal:
        """Count the refusal of a subscription that sends too much."""
        self._reached(Limit.RATE_LIMIT, subscription)
        return refusal

    def _answered(
        self, found: Sequence[Guard], headers: Headers, body: bytes, *, has_topic: bool
    ) -> bytes | Handshake | None:
        """Return the answer to a body that is no message: a handshake or a ping."""
        for guard in found:
            if guard.answer is not None and (said := guard.answer(headers, body)) is not None:
                return Handshake(said)
        if not is_ping(body, has_topic=has_topic):
            return None
        self._metrics.pings.inc()
        return _NOTHING

    async def _stored(self, messages: Sequence[Arrival], size: int) -> bytes | Refusal:
        """Return the body of the 202 after messages of a body of some size [bytes] are stored."""
        try:
            receipts = await self._store.accept(messages) if messages else ()
        except StoreUnavailable as why:
            self._gate.failed(str(why))
            return Refusal(status=503, error="store", retry_after=STORE_RETRY_AFTER)
        self._gate.took(size, messages[0].subscription if messages else "")
        self._accepted()
        return self._counted(messages, receipts)

    def _counted(self, messages: Sequence[Arrival], receipts: Sequence[Receipt]) -> bytes:
        """Count what was stored and return it as the answer's body."""
        rows, dead = tally(messages, receipts, self._metrics)
        accepted, duplicates = len(rows), len(receipts) - len(rows)
        if logs.debugging():
            topics = sorted({message.topic for message in messages})
            _log.debug("messages_accepted", topics=topics[:MOST_NAMED], ids=rows[:MOST_NAMED], accepted=accepted,
                       duplicates=duplicates, dead=dead)  # fmt: skip
        ids = ",".join([str(row) for row in rows[:MOST_IDS]])
        return f'{{"accepted":{accepted},"duplicates":{duplicates},"dead":{dead},"ids":[{ids}]}}'.encode()

    async def _shake_hands(self, scope: Scope, send: Send) -> None:
        """Grant a sender what it asks for: to post here, as often as the subscription may."""
        asked = dict(scope["headers"]).get(b"webhook-request-origin", b"*")
        named = self._policy.guards.get(subscription_of(scope["path_params"].get("topic", "")))
        rate = b"%d" % max(1, round(named.bucket.rate * 60)) if named and named.bucket else b"*"
        headers = [
            (b"allow", b"POST, OPTIONS"),
            (b"webhook-allowed-origin", asked if _VISIBLE.fullmatch(asked) else b"*"),
            (b"webhook-allowed-rate", rate),
            (b"content-length", b"0"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    async def _show(self, scope: Scope, send: Send) -> None:
        """Answer a GET: some senders and monitors try an address that way before they use it."""
        topic = scope["path_params"].get("topic")
        there = topic is None or subscription_of(topic) in self._policy.guards
        status, body = (200, _SHOWN) if there else (UNKNOWN.status, _UNKNOWN)
        said = [_JSON, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": said})
        await send({"type": "http.response.body", "body": body})


def _shut(closed: Closed) -> Refusal:
    """Return the refusal of a door that is closed."""
    return Refusal(status=503, error=closed.reason, retry_after=closed.retry_after)


async def _refuse(refusal: Refusal, headers: Headers, reading: Reading, receive: Receive, send: Send) -> None:
    """Send a refusal; where it ends the connection, swallow what is on the way first.

    A connection closed under a sender that is still writing is reset, and the answer may be lost with it.
    """
    body = json.dumps({"error": refusal.error}).encode()
    said = [_JSON, (b"content-length", b"%d" % len(body))]
    closing = refusal.closing or b"expect" in headers  # who waits for "100 Continue" may not send the body at all
    if refusal.retry_after is not None:
        said.append((b"retry-after", b"%d" % refusal.retry_after))
    if closing:
        said.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": refusal.status, "headers": said})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    if refusal.closing and not reading.ended:
        await _swallow(receive)
    await send({"type": "http.response.body", "body": b""})


async def _swallow(receive: Receive) -> None:
    """Read and forget the rest of a body, within bounds."""
    left = LINGER_BYTES
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER.total_seconds()):
            while left > 0:
                message = await receive()
                if not message.get("more_body", False):
                    return
                left -= len(message.get("body", b""))
