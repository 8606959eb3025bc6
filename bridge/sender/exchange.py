"""One call on the wire: one request, or for a changed building read, change, write.

Rules:
- MOOST's own record is the base of a change; a building that MOOST does not know is created instead. A record that
  cannot be read is no reason to wait: the change is refused, and its building goes on.
- The outcome of the step that failed is the outcome of the call: all steps may be repeated.
- All steps together take no longer than one call may: the lease of the lane is counted on it.

Source: MOOST documentation, "Common integration" (PUT /buildings/v1: 200, 404; read first, change, send back).
"""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from http import HTTPStatus as Http
from typing import Protocol

from bridge.core.effects import Attributes, ChangeBuilding
from bridge.core.retry import CallKind, LostReply, Outcome, Refused, ServerTrouble
from bridge.sender.lanes import Job
from bridge.sink import encode
from bridge.sink.classify import Failure, Reply, classify, is_page, oddity
from bridge.sink.encode import WireCall


class Caller(Protocol):
    """Who can make a call."""

    async def call(self, call: WireCall, token: str) -> Reply | Failure:
        """Make one call with a token."""

    def mask(self, text: str) -> str:
        """Return a text of an answer without secrets and tokens."""


async def perform(job: Job, caller: Caller, token: str, now: Callable[[], datetime], longest: timedelta) -> Outcome:
    """Make the call of a job and return what came of it."""
    if isinstance(job.call, ChangeBuilding):
        try:
            async with asyncio.timeout(longest.total_seconds()):
                return await _change(job, job.call, caller, token, now)
        except TimeoutError:
            return LostReply(timeout=True, cause="timeout while answering")
    return classify(job.kind, await caller.call(job.wire, token), now(), caller.mask)


async def _change(job: Job, effect: ChangeBuilding, caller: Caller, token: str, now: Callable[[], datetime]) -> Outcome:
    reply = await caller.call(encode.read(effect.building), token)
    if _unknown(reply):
        return await _missing(job, effect, reply, caller, token, now)
    if isinstance(reply, Failure) or reply.status != Http.OK:
        return classify(CallKind.CHANGE, reply, now(), caller.mask)
    if what := "" if _is_object(reply.body) else oddity(reply) or "JSON that is no building":
        return ServerTrouble(status=reply.status, cause=f"status {reply.status} with {what}")
    try:
        changed = encode.changed_building(encode.record(reply.body), effect)
    except encode.UnreadableRecordError as error:
        return Refused(status=reply.status, answer="", why=f"the building that MOOST sent cannot be read: {error}")
    reply = await caller.call(encode.update(changed), token)
    if _unknown(reply):
        return await _missing(job, effect, reply, caller, token, now)
    return classify(CallKind.CHANGE, reply, now(), caller.mask)


async def _missing(
    job: Job,
    effect: ChangeBuilding,
    reply: Reply | Failure,
    caller: Caller,
    token: str,
    now: Callable[[], datetime],
) -> Outcome:
    """Return what it means that MOOST does not know a building: the lane makes it again, with its list; once."""
    if not job.run.is_repaired:
        return classify(CallKind.CHANGE, reply, now(), caller.mask)
    return await _create(effect, caller, token, now)


async def _create(effect: ChangeBuilding, caller: Caller, token: str, now: Callable[[], datetime]) -> Outcome:
    attributes: Attributes = {**effect.create, **effect.attributes}
    body = encode.new_building(effect.building, attributes, effect.tariff if effect.tariff_set else None)
    return classify(CallKind.CREATE, await caller.call(encode.create(body), token), now(), caller.mask)


def _unknown(reply: Reply | Failure) -> bool:
    return isinstance(reply, Reply) and reply.status == Http.NOT_FOUND and not is_page(reply)


def _is_object(body: bytes) -> bool:
    """Tell whether a body begins as a JSON object does."""
    return body.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")
