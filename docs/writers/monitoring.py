"""Metrics, from the registry itself; alerts, from the rules that are deployed."""

import re
from pathlib import Path
from typing import Any, Final

import yaml
from prometheus_client import Histogram

from bridge.metrics import Metrics
from docs.writers.tables import code, table

ALERTS: Final = Path(__file__).parents[2] / "deploy" / "prometheus" / "alerts.yaml"


def metrics() -> str:
    """Return a table of all metrics of the bridge."""
    built = Metrics()
    collectors: dict[str, Any] = dict(built.registry._names_to_collectors)  # noqa: SLF001 - nothing public tells labels
    rows = []
    for metric in built.registry.collect():
        if not metric.name.startswith("bridge_"):
            continue
        collector = collectors[metric.name]
        name = metric.name + ("_total" if metric.type == "counter" else "")
        labels = ", ".join(map(code, collector._labelnames))  # noqa: SLF001
        rows.append((code(name), metric.type, labels, metric.documentation + _buckets(collector)))
    return table(("metric", "type", "labels", "meaning"), rows)


def _buckets(collector: object) -> str:
    if not isinstance(collector, Histogram):
        return ""
    bounds = [f"{bound:g}" for bound in collector._upper_bounds if bound != float("inf")]  # noqa: SLF001
    return f" Buckets: {', '.join(bounds)}."


def alerts() -> str:
    """Return each alert with its severity, its condition and what to do."""
    rules = [rule for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]
    return "\n\n".join(_alert(rule) for rule in rules)


def _alert(rule: Any) -> str:
    said = rule["annotations"]
    lasting = f", for {rule['for']}" if "for" in rule else ""
    return (
        f"## {rule['alert']}\n\nSeverity **{rule['labels']['severity']}**. {_plain(said['summary'])}\n\n"
        f"What to do: {_plain(said['action'])}\n\n```\n{' '.join(rule['expr'].split())}{lasting}\n```"
    )


def _plain(text: str) -> str:
    """Return a text without what only Prometheus fills in."""
    named = {"reason": "<reason>"}
    text = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: named.get(found[1], f"<{found[1]}>"), text)
    return " ".join(re.sub(r"\{\{ \$value(?: \| \w+)? \}\}", "…", text).split())
