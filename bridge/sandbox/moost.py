"""MOOST to try against: an ASGI application with MOOST's paths, status codes, validation and traps.

Every call takes the same way: read, faults, bearer check, path and body against the document, the operation itself,
record. `/_sandbox/received`, `/_sandbox/counts` and `/_sandbox/faults` are the sandbox's own; `/` is a page for people.

Rules:
- The document decides what is valid; `violations` records what is valid and still wrong.
- Faults never touch the sandbox's own paths.
- A query string is never recorded: MOOST's client secret travels in it.
- Started with a journal, it goes on with what the journal holds; tokens and faults are those of one life.

Source: MOOST OpenAPI 3.0.3 and "Common integration"; the codes that are not documented are named in `estate`.
"""

import asyncio
import math
import random
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from bridge.sandbox.call import Answer, Call, Nothing, Receive, Scope, Send, read, reply
from bridge.sandbox.document import Document, Operation
from bridge.sandbox.estate import Estate, refusal
from bridge.sandbox.faults import TOKEN_PATH, Faults, Verdict, buildings
from bridge.sandbox.journal import Journal, lines
from bridge.sandbox.page import page
from bridge.sandbox.received import Received
from bridge.sandbox.server import drop, until_signal
from bridge.sandbox.tokens import Tokens

CLIENT_ID: Final = "sandbox"
CLIENT_SECRET: Final = "sandbox-secret"  # noqa: S105 - the sandbox's own, documented
CUSTOMER_ID: Final = "656730be2bc9719e6e5ed51d"
_HISTORICAL: Final = "insertHistoricalEventsV1"


_NOT_MOOST: Final = ("/_sandbox", "/favicon.ico", "/apple-touch-icon", "/robots.txt", "/.well-known/")
"""Ours, and what a browser asks of any address: no calls of MOOST's API."""


class Moost:
    """The look-alike; give it to any ASGI server, or to `server.serving` for faults that drop connections."""

    def __init__(  # noqa: PLR0913 - one per option, and what tests turn
        self,
        *,
        client_id: str = CLIENT_ID,
        client_secret: str = CLIENT_SECRET,
        customer_id: str = CUSTOMER_ID,
        keep: int | None = None,
        journal: Path | None = None,
        seed: int = 0,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Build it; `keep` bounds what is held of events, calls and violations, `now` returns epoch seconds."""
        dice = random.Random(seed)  # noqa: S311 - a simulation, repeatable by its seed
        self._now = now
        self._document = Document()
        kept = Journal(journal)
        self._received = Received(keep, kept)
        self._tokens = Tokens(customer_id=customer_id, now=now, dice=dice)
        self._faults = Faults(now=now, dice=dice)
        self._estate = Estate(
            credentials=(client_id, client_secret),
            customer_id=customer_id,
            tokens=self._tokens,
            received=self._received,
            journal=kept,
            dice=dice,
        )
        for what, entry in lines(journal):
            self._received.recall(what, entry)
            self._estate.recall(what, entry)
        self._desk = Starlette(
            routes=[
                Route("/", self._page),
                Route("/_sandbox/received", self._read_received),
                Route("/_sandbox/received", self._empty, methods=["DELETE"]),
                Route("/_sandbox/counts", self._counts),
                Route("/_sandbox/faults", self._read_faults),
                Route("/_sandbox/faults", self._set_faults, methods=["PUT"]),
            ],
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path = scope.get("path", "/")
        if path == "/" or path.startswith(_NOT_MOOST):
            await self._desk(scope, receive, send)
            return
        call = await read(scope, receive, self._now())
        found = self._document.find(call.method, call.path)
        verdict = self._faults.judge(call) if self._faults else Verdict()
        if verdict.delay_s:
            await asyncio.sleep(verdict.delay_s)
            call.at = self._now()
        if verdict.close == "before":
            self._record(call, found, None)
            drop(scope)
            return
        answer = verdict.answer or self._answer(call, found, verdict)
        self._record(call, found, None if verdict.close else answer.status)
        if verdict.close:
            drop(scope)
        else:
            await reply(send, answer)

    def _answer(self, call: Call, found: tuple[Operation, Mapping[str, str]] | None, verdict: Verdict) -> Answer:
        """Do what a call asks."""
        if verdict.revoke:
            self._tokens.revoke()
        if call.path == TOKEN_PATH and found is not None:
            return self._estate.token(call, verdict.lifetime_s)
        if not self._tokens.accepts(call.authorization):
            return refusal(401, "no valid access token")
        if found is None:
            known = self._document.knows(call.path)
            return refusal(405 if known else 404, "method not allowed" if known else "no such path")
        operation, names = found
        wrong = operation.misplaced(names) or _wrong_query(operation, call) or self._wrong_body(operation, call)
        if wrong:
            return Answer(status=400, body=wrong)
        if verdict.keep is not None and operation.id == _HISTORICAL:
            return self._partial(call, verdict.keep)
        return self._estate.handlers[operation.id](call, names)

    def _wrong_body(self, operation: Operation, call: Call) -> dict[str, str]:
        """Return what is wrong with a body, as place -> sentence."""
        if operation.body is None:
            return {}
        if isinstance(call.body, Nothing):
            return {"body": call.body.value}
        if "json" not in call.content_type:
            detail = f"sent as {call.content_type or 'nothing'}"
            self._received.violation("content-type", detail, building=", ".join(buildings(call)[:1]), at=call.at)
        return operation.problems(_finite(call.body))

    def _partial(self, call: Call, keep: int) -> Answer:
        """Store only the first events of an array."""
        wrong = self._estate.refused(call.body)
        if wrong:
            return Answer(status=400, body=wrong)
        self._estate.store(call.body[:keep], lane="historical", at=call.at)
        return refusal(500, "only part of the data could be written")

    def _record(self, call: Call, found: tuple[Operation, Mapping[str, str]] | None, status: int | None) -> None:
        """Remember a call; status None means that the connection was dropped."""
        body = None if isinstance(call.body, Nothing) else call.body
        entry = {"method": call.method, "path": call.path, "status": status, "body": body, "at": call.at}
        self._received.call(entry, found[0].template if found else "(unknown)")

    async def _page(self, _request: Request) -> Response:
        """Show the page."""
        html = page(
            received=self._received,
            buildings=len(self._estate.buildings),
            faults=self._faults.listed(),
        )
        return HTMLResponse(html)

    async def _read_received(self, request: Request) -> Response:
        """Return what was received: `?building=ID&since=INDEX&limit=N`."""
        query = request.query_params
        building = query.get("building")
        try:
            since, limit = int(query.get("since", "0")), query.get("limit")
            held = self._received.page(since=since, limit=None if limit is None else int(limit), building=building)
        except ValueError:
            return _json({"message": "since and limit are whole numbers"}, status=400)
        body = {
            "buildings": _only(self._estate.buildings, building),
            "devices": _only(self._estate.devices(), building),
            **held,
            "counts": self._sums(),
        }
        return _json(body)

    async def _empty(self, _request: Request) -> Response:
        """Forget everything received, buildings included."""
        self._received.empty()
        self._estate.empty()
        return _json({})

    async def _counts(self, _request: Request) -> Response:
        """Return the numbers alone."""
        return _json(self._sums())

    async def _read_faults(self, _request: Request) -> Response:
        """Return the faults and how often each fired."""
        return _json(self._faults.listed())

    async def _set_faults(self, request: Request) -> Response:
        """Replace the faults."""
        try:
            self._faults.replace(await request.body())
        except ValueError as error:
            return _json({"message": str(error)}, status=400)
        return _json(self._faults.listed())

    def _sums(self) -> dict[str, Any]:
        """Return all counts."""
        return {
            "buildings": len(self._estate.buildings),
            **self._received.counts(),
            "faults": sum(fault["fired"] for fault in self._faults.listed()),
            "next": self._received.next,
        }


def _wrong_query(operation: Operation, call: Call) -> dict[str, str]:
    """Return what is wrong with the query: only booleans are documented beside the credentials."""
    if not call.query:
        return {}
    given = operation.query(call.query)
    return {
        name: "is neither true nor false"
        for name, value in given.items()
        if operation.query_schemas[name].get("type") == "boolean" and value not in {"true", "false"}
    }


def _finite(body: object) -> object:
    """Return a body with numbers that are not finite made 0, for the schema only (they are no JSON)."""
    match body:
        case float() if not math.isfinite(body):
            return 0.0
        case dict() if isinstance(value := body.get("value"), float) and not math.isfinite(value):
            return {**body, "value": 0.0}
        case list():
            return [_finite(item) for item in body]
        case _:
            return body


def _only(by_building: Mapping[str, Any], building: str | None) -> Mapping[str, Any]:
    """Return what belongs to one building, or all."""
    if building is None:
        return by_building
    return {building: by_building[building]} if building in by_building else {}


def _json(body: object, status: int = 200) -> Response:
    """Return a JSON response."""
    return Response(msgspec.json.encode(body), status, media_type="application/json")


def run(  # noqa: PLR0913, PLR0917 - one per option
    host: str = "127.0.0.1",
    port: int = 0,
    client_id: str = CLIENT_ID,
    client_secret: str = CLIENT_SECRET,
    customer_id: str = CUSTOMER_ID,
    keep: int | None = None,
    journal: Path | None = None,
) -> None:
    """Serve the look-alike until SIGTERM or SIGINT; prints `sandbox http://HOST:PORT` once it listens."""
    moost = Moost(client_id=client_id, client_secret=client_secret, customer_id=customer_id, keep=keep, journal=journal)
    uvloop.run(until_signal(moost, host=host, port=port, announce=_announce))


def _announce(address: str) -> None:
    """Print the address."""
    sys.stdout.write(f"sandbox {address}\n")
    sys.stdout.flush()
