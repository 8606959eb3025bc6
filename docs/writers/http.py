"""The addresses of the bridge, from its own OpenAPI document; the order of the checks, from the door itself."""

import re
from datetime import UTC, datetime
from typing import Any, Final

from bridge.config import Settings
from bridge.limits import LimitCounts
from bridge.metrics import Metrics
from bridge.receiver import door
from bridge.receiver.app import build_app
from bridge.receiver.gate import Gate
from bridge.receiver.health import HealthSources
from bridge.store.memory import MemoryStore
from docs.writers.tables import code, table

_WITHOUT_DOCUMENT: Final = (
    ("GET", "/", "200, 401, 404", "The operator's page; 404 without `server.admin_token`."),
    ("GET", "/api/census", "200, 401, 404", "The content of `/health`, for whoever has the admin token."),
    ("GET", "/openapi.json", "200", "The OpenAPI document of the addresses above."),
)


def document() -> dict[str, Any]:
    """Return the OpenAPI document of a bridge with default settings."""
    metrics = Metrics()
    receiver = build_app(
        settings=Settings(),
        store=MemoryStore(),
        metrics=metrics,
        gate=Gate(max_size=1),
        limits=LimitCounts(metrics),
        sources=HealthSources(),
        now=lambda: datetime.now(UTC),
    )
    return receiver.pages.openapi()


def addresses() -> str:
    """Return a table of all addresses."""
    rows = [
        (code(method.upper()), code(path), ", ".join(sorted(what["responses"])), what["summary"])
        for path, methods in document()["paths"].items()
        for method, what in methods.items()
    ]
    rows += [(code(method), code(path), answers, text) for method, path, answers, text in _WITHOUT_DOCUMENT]
    return table(("method", "path", "answers", "what it says"), rows)


def checks() -> str:
    """Return the checks of a webhook request in their order, with what each refusal says."""
    order = re.search(r"The order of the checks is the contract's: (.*?)\.", door.__doc__ or "", re.DOTALL)
    if order is None:
        raise LookupError("the door's docstring has lost its order of the checks")
    answers = document()["paths"]["/webhooks/{topic}"]["post"]["responses"]
    rows, steps = [], [step.strip() for step in order[1].split(",")]
    for number, step in enumerate(steps, start=1):
        status = re.findall(r"\d{3}", step)[0]
        waits = "yes" if "Retry-After" in answers[status].get("headers", {}) else ""
        when = "while the body is read: " if step.startswith("body") else ""
        rows.append((str(number), code(status), when + answers[status]["description"], waits))
    others = [status for status in sorted(answers) if not any(status in step for step in steps)]
    rows += [("", code(status), answers[status]["description"], "") for status in others]
    return table(("step", "status", "why", "`Retry-After`"), rows)
