"""The addresses of the bridge: webhooks, health, metrics, documentation, the operator's page.

Rules:
- The webhook routes are plain Starlette routes and stand first; a FastAPI endpoint would cost 50 µs more per request.
  A post to them does not even pass the router.
- Every error is `{"error": "…"}`; never a redirect.
- Nothing is global: `build_app` is told its parts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from typing import Any, Final

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from bridge import metrics as metrics_room
from bridge.config import Settings
from bridge.limits import LimitCounts
from bridge.metrics import Metrics
from bridge.receiver.callers import Callers
from bridge.receiver.door import Door
from bridge.receiver.gate import Gate
from bridge.receiver.guesses import Guesses
from bridge.receiver.health import Health, HealthSources
from bridge.receiver.openapi import component_schemas, webhook_paths
from bridge.receiver.operator import Operator
from bridge.receiver.refusals import Refusals
from bridge.store.port import Store

WEBHOOKS: Final = "/webhooks"
WEBHOOK: Final = "/webhooks/"
AT_THE_DOOR: Final = frozenset({"POST", "GET", "HEAD", "OPTIONS"})
_NOT_FOUND: Final = {"type": "http.response.body", "body": b'{"error":"not found"}'}
_NOWHERE: Final = {
    "type": "http.response.start",
    "status": 404,
    "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(b'{"error":"not found"}'))],
}
METHODS: Final = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """The door as `run` sees it."""

    app: ASGIApp  # what the server serves
    pages: FastAPI  # the same without the shortcut
    health: Health
    callers: Callers  # who has proved itself
    reload: Callable[[Settings], None]  # secrets and limits, at once and as a whole; raises UnusableSecretError


class _Front:
    """A shortcut for the hot path: webhooks go to the door past the middlewares and the router.

    Those cost some 30 µs a request, more than the whole way through the door. The same routes stand in the app too, and
    answer whatever does not take the shortcut (405). What is no address at all is worth no more than a constant.
    """

    def __init__(self, door: Door, pages: FastAPI) -> None:
        self._door = door
        self._pages = pages
        paths = [route.path for route in pages.routes if isinstance(route, Route)]
        self._exact = frozenset(path for path in paths if "{" not in path)
        self._below = tuple({path.partition("{")[0] for path in paths if "{" in path} - {WEBHOOK})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._pages(scope, receive, send)
            return
        path = scope["path"]
        topic = path[len(WEBHOOK) :] if path.startswith(WEBHOOK) else None
        if (path == WEBHOOKS or (topic and "/" not in topic)) and scope["method"] in AT_THE_DOOR:
            scope["path_params"] = {"topic": topic} if topic else {}
            await self._door(scope, receive, send)
        elif path in self._exact or path.startswith(self._below) or (topic and "/" not in topic):
            await self._pages(scope, receive, send)
        else:
            await send(_NOWHERE)
            await send(_NOT_FOUND)


class _App(FastAPI):
    """FastAPI whose document also knows the plain routes."""

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document."""
        document = super().openapi()
        document["paths"] = webhook_paths() | document["paths"]
        document.setdefault("components", {}).setdefault("schemas", {}).update(component_schemas())
        return document


def build_app(  # noqa: PLR0913 - one argument per part
    *,
    settings: Settings,
    store: Store,
    metrics: Metrics,
    gate: Gate,
    limits: LimitCounts,
    sources: HealthSources,
    now: Callable[[], datetime],
    wall: Callable[[], datetime] | None = None,
    accepted: Callable[[], object] = lambda: None,
    refusals: Refusals | None = None,
) -> Receiver:
    """Build the receiver of its parts.

    `now` returns the time in UTC, `wall` the real one where `now` is simulated; `accepted` is called after messages
    were stored, to wake who works on them.
    """
    own_version = version("moost-bridge")
    callers = Callers()
    door = Door(
        settings=settings,
        store=store,
        metrics=metrics,
        gate=gate,
        now=now,
        wall=wall or now,
        accepted=accepted,
        refusals=refusals,
        callers=callers,
        reached=limits.reached,
    )
    health = Health(
        store=store, metrics=metrics, gate=gate, sources=sources, limits=limits, now=now, version=own_version
    )
    operator = Operator(
        token=settings.server.admin_token.get_secret_value(),
        health=health,
        guesses=Guesses(limits.reached),
        trusted=settings.server.trusted_proxies,
    )
    app = _App(title="Bridge", version=own_version, redirect_slashes=False, docs_url=None, redoc_url=None)
    app.router.routes[:0] = [
        Route("/webhooks/{topic}", door, methods=["POST", "OPTIONS", "GET"]),
        Route("/webhooks", door, methods=["POST", "OPTIONS", "GET"]),
        Route("/", operator.page, methods=["GET"]),
        Route("/api/{path:path}", operator.api, methods=METHODS),
    ]
    _add_health(app, health)
    app.add_exception_handler(HTTPException, _error)

    def reload(changed: Settings) -> None:
        door.reload(changed)
        operator.admit(changed.server.admin_token.get_secret_value(), changed.server.trusted_proxies)

    return Receiver(app=_Front(door, app), pages=app, health=health, callers=callers, reload=reload)


async def _error(_: Request, error: Exception) -> Response:
    """Return an HTTP error in our form."""
    if not isinstance(error, HTTPException):
        raise error
    return JSONResponse({"error": error.detail.lower()}, status_code=error.status_code, headers=error.headers)


def _add_health(app: FastAPI, health: Health) -> None:
    """Add what monitoring asks."""

    @app.get("/health/live", summary="Whether the process can serve.")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @app.get(
        "/health/ready",
        summary="Whether the process can accept.",
        responses={503: {"description": "It cannot; `failing` says why."}},
    )
    async def ready() -> JSONResponse:
        failing = health.failing()
        return JSONResponse({"ready": not failing, "failing": failing}, status_code=503 if failing else 200)

    @app.get("/health", summary="The ledgers and what is wrong; always 200.")
    async def report() -> JSONResponse:
        return JSONResponse(await health.report())

    @app.get("/metrics", summary="Prometheus text.", response_class=Response)
    async def metrics() -> Response:
        return Response(await health.metrics(), headers={"content-type": metrics_room.CONTENT_TYPE})

    for path, answer in {
        "/health/live": live, "/health/ready": ready, "/health": report, "/metrics": metrics,
    }.items():  # fmt: skip
        app.add_api_route(path, answer, methods=["HEAD"], include_in_schema=False)  # some monitors only ask so
