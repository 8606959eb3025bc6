"""The page a person opens to watch the sandbox: counts, last events, faults, violations; it reloads itself."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from html import escape
from itertools import islice
from typing import Any, Final

from bridge.sandbox.received import Received

_LAST: Final = 30

_HEAD: Final = """<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="2">
<title>MOOST sandbox</title><link rel="icon" href="data:,"><style>
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:76rem;padding:0 1rem;color:#1c2733}
h1{font-size:1.3rem}h2{font-size:1rem;margin-top:1.6rem}table{border-collapse:collapse}
td,th{text-align:left;padding:.15rem 1.2rem .15rem 0;border-bottom:1px solid #e3e8ee;font-variant-numeric:tabular-nums}
.bad{color:#b3261e}</style></head><body>
"""


def page(*, received: Received, buildings: int, faults: Iterable[Mapping[str, Any]]) -> str:
    """Return the page as HTML."""
    counts = received.counts()
    events = counts["events"]
    parts = [
        _HEAD,
        "<h1>MOOST sandbox</h1>",
        (
            f"<p>{buildings} buildings, {events['live']} live and {events['historical']} historical events. "
            'Everything as JSON: <a href="/_sandbox/received?limit=200">received</a>, '
            '<a href="/_sandbox/counts">counts</a>, <a href="/_sandbox/faults">faults</a>.</p>'
        ),
        _table("Calls", ("call and answer", "times"), counts["calls"].items()),
        _table("Faults", ("kind", "active", "fired"), ((f["kind"], f["active"], f["fired"]) for f in faults)),
        _table("Violations", ("rule", "times"), counts["violations"].items(), style="bad"),
        _table("Last events", ("at", "lane", "building", "device", "type", "value"), _last(received)),
        "</body></html>",
    ]
    return "".join(parts)


def _last(received: Received) -> Iterable[tuple[object, ...]]:
    """Yield the newest events, newest first."""
    for event in islice(reversed(received.events), _LAST):
        yield (
            _clock(event.get("timestamp")),
            event["lane"],
            event["customerBuildingId"],
            event["deviceName"],
            event["type"],
            event["value"],
        )


def _clock(seconds: object) -> str:
    """Return epoch seconds as a time of day, or as they are."""
    try:
        return datetime.fromtimestamp(float(str(seconds)), UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return str(seconds)


def _table(title: str, head: Iterable[str], rows: Iterable[Iterable[object]], style: str = "") -> str:
    """Return a titled table; without rows the title says so."""
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    if not body:
        return f"<h2>{escape(title)}: none</h2>"
    columns = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f'<h2 class="{style}">{escape(title)}</h2><table><tr>{columns}</tr>{body}</table>'
