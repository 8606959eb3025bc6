"""The addresses of the bridge: webhooks, health, metrics, documentation, the operator's page.

Rules:
- The webhook routes are plain Starlette routes and stand first; a FastAPI endpoint would cost 50 µs more per request.
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

from bridge import metrics as metrics_room
from bridge.config import Settings
from bridge.metrics import Metrics
from bridge.receiver.door import Door
from bridge.receiver.gate import Gate
from bridge.receiver.health import Health, HealthSources
from bridge.receiver.openapi import component_schemas, webhook_paths
from bridge.receiver.operator import Operator
from bridge.store.port import Store

METHODS: Final = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """The door as `run` sees it."""

    app: FastAPI
    health: Health
    reload: Callable[[Settings], None]  # secrets and limits, at once and as a whole; raises UnusableSecretError


class _App(FastAPI):
    """FastAPI whose document also knows the plain routes."""

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document."""
        document = super().openapi()
        document["paths"] = webhook_paths() | document["paths"]
        document.setdefault("components", {}).setdefault("schemas", {}).update(component_schemas())
        return document


def build_app(
    *,
    settings: Settings,
    store: Store,
    metrics: Metrics,
    gate: Gate,
    sources: HealthSources,
    now: Callable[[], datetime],
) -> Receiver:
    """Build the receiver of its parts; `now` returns the wall time in UTC."""
    own_version = version("moost-bridge")
    door = Door(settings=settings, store=store, metrics=metrics, gate=gate, now=now)
    health = Health(store=store, metrics=metrics, gate=gate, sources=sources, now=now, version=own_version)
    operator = Operator(token=settings.server.admin_token.get_secret_value(), health=health)
    app = _App(title="Bridge", version=own_version, redirect_slashes=False, redoc_url=None)
    app.router.routes[:0] = [
        Route("/webhooks/{topic}", door, methods=["POST", "OPTIONS"]),
        Route("/webhooks", door, methods=["POST", "OPTIONS"]),
        Route("/", operator.page, methods=["GET"]),
        Route("/api/{path:path}", operator.api, methods=METHODS),
    ]
    _add_health(app, health)
    app.add_exception_handler(HTTPException, _error)

    def reload(changed: Settings) -> None:
        door.reload(changed)
        operator.admit(changed.server.admin_token.get_secret_value())

    return Receiver(app=app, health=health, reload=reload)


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

    @app.get("/health/ready", summary="Whether the process can accept.", responses={503: {"description": "It cannot; `failing` says why."}})
    async def ready() -> JSONResponse:
        failing = health.failing()
        return JSONResponse({"ready": not failing, "failing": failing}, status_code=503 if failing else 200)

    @app.get("/health", summary="The ledgers and what is wrong; always 200.")
    async def report() -> JSONResponse:
        return JSONResponse(await health.report())

    @app.get("/metrics", summary="Prometheus text.", response_class=Response)
    async def metrics() -> Response:
        return Response(await health.metrics(), headers={"content-type": metrics_room.CONTENT_TYPE})
