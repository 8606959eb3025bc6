"""Every event of the log, found in the source: its level, its logger, its fields.

Rules:
- An event's name is public: who searches the log relies on it. `MEANINGS` says what each means; none may be missing.
- A name that is not written where it is logged stands in `DYNAMIC`, by the expression.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bridge.source.kafka import Trouble
from docs.writers.tables import code, table

PACKAGE: Final = Path(__file__).parents[2] / "bridge"
OUTSIDE: Final = frozenset({"sandbox", "demo"})

_LOGGING: Final = re.compile(r"_log\b|\blogger\(|\b(?:Digest|Outage)\(")  # a file without one writes no line

LEVELS: Final = frozenset({"debug", "info", "warning", "error", "critical", "exception"})

DYNAMIC: Final[Mapping[str, tuple[str, ...]]] = {
    "trouble.value": tuple(trouble.value for trouble in Trouble),
    "f'{name}_began'": ("store_locked_began", "store_log_began"),
    "f'{name}_ended'": ("store_locked_ended", "store_log_ended"),
    # Written by `Outage` and `Digest`, which are told the names where they are made.
    "self._begun": (),
    "self._ended": (),
    "self._event": (),
}

MEANINGS: Final[Mapping[str, str]] = {
    "batch_committed": "The worker has committed a batch.",
    "building_cleared": "A flag of a building was cleared.",
    "building_flagged": "A flag of a building was set: what is wrong, and the setting that would mend it.",
    "building_flags_left_out": "More flags changed in a minute than are told; the count of those left out.",
    "building_made_again": "MOOST no longer had a building; it was created again.",
    "building_set_aside": "A fault stopped a building's clock; the others go on.",
    "call_made": "One request to MOOST and its outcome.",
    "circuit_closed": "MOOST is reached again; how long it was not.",
    "circuit_opened": "MOOST is unreachable or failing; only probes are sent.",
    "client_failed": "The Kafka client failed; it is made anew.",
    "client_works": "The Kafka client works again.",
    "clock_differs": "This machine's clock and the database's differ by more than 5 s; the database's counts.",
    "clock_resumed": "The clock has made up for a pause.",
    "clock_right": "This machine's clock and the database's agree again.",
    "clock_set_back": "The clock of this machine was set back.",
    "database_clock_stepped": "The clock of the database server was set.",
    "dead_letter": "A message or call was taken out of the flow.",
    "dead_export_failed": "The file `store.dead_export` cannot be written; no dead letter is given up meanwhile.",
    "dead_export_works": "The file `store.dead_export` can be written again.",
    "dead_letters_given_up": "Dead letters were given up because they are old, or too many of a subscription, counted.",
    "dead_letters_more": "Further dead letters of a reason within a minute, counted.",
    "directory_faulted": "A fault while a change of the directory was processed.",
    "drain_broken_off": "The time to drain is over; what is owed stays in the store.",
    "drained": "The process has finished what was in hand, and ends.",
    "draining": "The process was told to end and finishes what is in hand.",
    "effect_faulted": "A fault while a call was sent; it is a dead letter.",
    "error_ignored": "Python could not raise an error where it happened.",
    "feed_paused": "Records of Kafka are not taken for the time being.",
    "feed_resumed": "Records of Kafka are taken again.",
    "goodbye_unheard": "The Kafka group was not left in time; the broker will notice.",
    "kafka_group": "The consumer group keeps the bridge out, or gives it nothing to read; the reason says why.",
    "kafka_partition_moved": "A partition is read from another place than where it was left: from, to, why.",
    "kafka_records_lost": "Kafka deleted records before they were read; topic, partition, count.",
    "kafka_topic_back": "A topic that had gone exists again.",
    "kafka_topic_gone": "A topic that was read does not exist any more; the others are read.",
    "kafka_auth": "The broker or its identity provider refuses the credentials.",
    "kafka_connected": "Kafka can be read again; how long it could not.",
    "kafka_unreachable": "No broker answers.",
    "limit_reached": "A bound was reached: which, by whom most often, how often since the last line.",
    "log_lines_lost": "Lines of the log could not be written.",
    "log_missing": "The store's log is missing after a kill.",
    "message_ended_the_process": "A message ended the process twice; it is a dead letter.",
    "messages_accepted": "A request's messages are stored.",
    "one_by_one_began": "The worker takes messages one by one, since the process ended without a word before.",
    "one_by_one_ended": "The worker takes messages in batches again.",
    "reload_refused": "The configuration read at SIGHUP has problems; the former one stays in force.",
    "reloaded": "SIGHUP was heard: what was applied, and what needs a restart.",
    "request_refused": "Webhook requests were refused, by subscription, status and check.",
    "room_failed": "A part of the daemon failed; the process ends with exit code 1.",
    "sender_paused": "Calls to MOOST pause: the credentials are refused, or they are another customer's.",
    "sender_resumed": "Calls to MOOST go on.",
    "serving": "The daemon has started: its address and its parts.",
    "store_available": "The store serves again; how long it did not.",
    "store_locked_began": "Another process holds the SQLite file; nothing can be written.",
    "store_locked_ended": "The SQLite file can be written again.",
    "store_log_began": "Another process keeps the log of the SQLite file from being shortened.",
    "store_log_ended": "The log of the SQLite file was shortened.",
    "store_opened": "The store is open.",
    "store_unavailable": "The store does not serve; the reason.",
    "thread_failed": "A thread ended with an error.",
    "ticked": "The clock has closed quarter hours.",
    "topics_missing": "Kafka has no such topics.",
    "waiting_for_store": "The store cannot be opened yet; the process waits for it.",
    "worker_faulted": "Faults while messages were processed, by kind; each is a dead letter.",
}


@dataclass(frozen=True, slots=True, order=True)
class Line:
    """One kind of line of the log."""

    event: str
    level: str
    logger: str
    fields: tuple[str, ...]


def write() -> str:
    """Return a table of all events. Raises LookupError for one whose meaning nobody has told."""
    merged: dict[str, list[Line]] = {}
    for line in sorted(set(lines())):
        merged.setdefault(line.event, []).append(line)
    if unknown := sorted(merged.keys() ^ MEANINGS.keys()):
        raise LookupError(f"docs/writers/log.py: MEANINGS and the code differ by {', '.join(unknown)}")
    rows = []
    for event, found in merged.items():
        fields = sorted({name for line in found for name in line.fields})
        levels, loggers = ({getattr(line, name) for line in found} for name in ("level", "logger"))
        text = (", ".join(sorted(levels)), ", ".join(sorted(loggers)), ", ".join(map(code, fields)), MEANINGS[event])
        rows.append((code(event), *text))
    return table(("event", "level", "logger", "fields", "meaning"), rows)


def lines() -> Iterator[Line]:
    """Yield every line that the daemon can write."""
    for path in sorted(PACKAGE.rglob("*.py")):
        inside = path.relative_to(PACKAGE)
        text = path.read_text(encoding="utf-8")
        if inside.parts[0] not in OUTSIDE and _LOGGING.search(text):
            yield from of_module(ast.parse(text), ".".join(inside.with_suffix("").parts))


def of_module(tree: ast.Module, module: str) -> Iterator[Line]:
    """Yield the lines that one module can write."""
    own = _logger(tree, f"bridge.{module}")
    for function in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]:
        yield from _by_another_name(function, own)
    for node in [node for node in ast.walk(tree) if isinstance(node, ast.Call)]:
        name = ast.unparse(node.func)
        if name in ("Digest", "Outage"):
            yield from _counted(node, name, own)
        elif isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS and _is_log(node.func.value):
            logger = own
            if isinstance(node.func.value, ast.Call):
                logger = ast.literal_eval(node.func.value.args[0])
            yield from (Line(event, node.func.attr, logger, _fields(node)) for event in _names(node.args[0], module))


def _by_another_name(function: ast.FunctionDef | ast.AsyncFunctionDef, own: str) -> Iterator[Line]:
    """Yield the lines that a function writes by `tell = _log.info` or `tell = partial(_log.info, "event")`."""
    calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
    for node in ast.walk(function):
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            continue
        called = {id(each.func) for each in ast.walk(node.value) if isinstance(each, ast.Call)}
        levels = [
            each.attr
            for each in ast.walk(node.value)
            if isinstance(each, ast.Attribute)
            and each.attr in LEVELS
            and _is_log(each.value)
            and id(each) not in called
        ]
        given = node.value if isinstance(node.value, ast.Call) and len(node.value.args) > 1 else None
        for call in (each for each in calls if levels and ast.unparse(each.func) == node.targets[0].id):
            names = _names(given.args[1] if given is not None else call.args[0], own)
            fields = (*_fields(call), *(_fields(given) if given is not None else ()))
            yield from (Line(event, level, own, fields) for event in names for level in levels)


def _fields(call: ast.Call) -> tuple[str, ...]:
    return tuple(keyword.arg for keyword in call.keywords if keyword.arg is not None)


def _is_log(node: ast.expr) -> bool:
    """Tell whether an expression is a logger."""
    return ast.unparse(node).rpartition(".")[2] in ("_log", "log") or (
        isinstance(node, ast.Call) and ast.unparse(node.func) in ("logger", "logs.logger")
    )


def _logger(tree: ast.Module, module: str) -> str:
    """Return the name of a module's logger."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_log" and isinstance(node.value, ast.Call):
            given = node.value.args[0]
            return str(given.value) if isinstance(given, ast.Constant) else module
    return module


def _counted(node: ast.Call, name: str, own: str) -> Iterator[Line]:
    """Yield the lines of an outage or a digest, whose arguments are: logger, names, fields."""
    first, *words = node.args
    logger = ast.literal_eval(first.args[0]) if isinstance(first, ast.Call) else own
    texts = [word.value for word in words if isinstance(word, ast.Constant) and isinstance(word.value, str)]
    if name == "Outage":
        yield Line(texts[0], "warning", logger, ("reason", "room"))
        yield Line(texts[1], "info", logger, ("last_reason", "seconds", "times"))
    else:
        level = "error" if any(keyword.arg == "error" for keyword in node.keywords) else "warning"
        yield Line(texts[0], level, logger, ("count", *texts[1:]))


def _names(node: ast.expr, module: str) -> tuple[str, ...]:
    """Return the names that an expression can be. Raises LookupError for one that cannot be read."""
    match node:
        case ast.Constant(value=str(name)):
            return (name,)
        case ast.IfExp():
            return (*_names(node.body, module), *_names(node.orelse, module))
        case _:
            pass
    written = ast.unparse(node)
    if written not in DYNAMIC:
        raise LookupError(f"docs/writers/log.py: {module} logs {written}, which DYNAMIC does not name")
    return DYNAMIC[written]
