"""All of it in order: read the layers, look at every value, then at what must fit together.

Theory of operation: pydantic stops looking at a section as a whole once one of its values is wrong. So each wrong
value is reported and taken out (its default takes its place) until what is left is sound; then the checks over several
values run on that. A check's problem at a place that is already reported is left out: it is only a consequence.
"""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from bridge.config import checks, layers
from bridge.config.checks import Place, Problem
from bridge.config.layers import Layers, Table
from bridge.config.models import Settings
from bridge.errors import ConfigErrors


def load(path: Path | str, *, serving: bool = True, environ: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of a file and the environment (default: this process's).

    Commands at the desk load with `serving` off: credentials and subscriptions may then be missing, and their secret
    files are not opened. Raises ConfigErrors with all problems at once.
    """
    read = layers.read(Path(path), os.environ if environ is None else environ, secrets=serving)
    problems = list(read.problems)
    settings = _sound(read.values, problems)
    reported = {place for place, _ in problems}
    problems += [
        (place, problem)
        for place, problem in checks.problems(settings, serving=serving, wrong=reported)
        if not any(_related(place, known) for known in reported)
    ]
    if problems:
        raise ConfigErrors([_line(place, problem, read) for place, problem in sorted(problems, key=_order)])
    settings.read_from(read.files)
    return settings


def _sound(values: Table, problems: list[Problem]) -> Settings:
    """Return the settings without their wrong values, which are added to the problems."""
    while True:
        try:
            return Settings(**values)
        except ValidationError as error:
            details = error.errors(include_url=False, include_input=False)
        for detail in details:
            problems.append((detail["loc"], _words(detail)))
            _take_out(values, detail["loc"])


def _take_out(values: Table, place: Place) -> None:
    """Remove the deepest key on the way to a wrong value; of a list with a wrong item, the whole list."""
    table: Any = values
    owner, key = values, place[0]
    for step in place:
        if isinstance(table, dict):
            if step not in table:
                return  # taken out before, for another item of the same list
            owner, key = table, step
        table = cast("Any", table)[step] if isinstance(table, dict | list) else None
    del owner[str(key)]


def _words(detail: ErrorDetails) -> str:
    """Return pydantic's finding in the operator's words; none of them holds the value."""
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == "extra_forbidden":
        return _unknown(detail["loc"])
    if kind in ("enum", "literal_error"):
        return f"must be one of {str(context['expected']).replace(' or ', ', ')}"
    for name, words in _LIMITS.items():
        if name in context:
            return f"{words} {context[name]:.15g}"
    return next((words for start, words in _TYPES.items() if kind.startswith(start)), "is not valid")


_LIMITS: Final = {
    "ge": "must be at least",
    "gt": "must be greater than",
    "le": "must be at most",
    "min_length": "must have a length of at least",
}
_TYPES: Final = {
    "int_": "must be a whole number",
    "float_": "must be a number",
    "finite_": "must be a finite number",
    "bool_": "must be true or false",
    "string_": "must be text",
    "enum": "must be text",
    "tuple_": "must be a list",
    "mapping_": "must be a table",
    "dict_": "must be a table",
    "model_": "must be a table",
    "timezone_": "needs a time zone, such as 2026-01-31T12:00:00Z",
    "datetime_": "must be a time, such as 2026-01-31T12:00:00Z",
}


def _unknown(place: Place) -> str:
    """Return that a key is not known, and which one may be meant."""
    model: Any = Settings
    for step in place[:-1]:
        if isinstance(step, str):
            model = _model(model.model_fields[step].annotation)
    close = difflib.get_close_matches(str(place[-1]), list(model.model_fields), n=1)
    return "unknown key" + (f"; {close[0]} may be meant" if close else "")


def _model(annotation: Any) -> type[BaseModel]:  # noqa: ANN401 - whatever stands behind a field
    """Return the model of a section, or of the items of a list."""
    items = get_args(annotation)
    return cast("type[BaseModel]", items[0] if items else annotation)


def _line(place: Place, problem: str, read: Layers) -> str:
    """Return one line for the operator; what the environment set names its variable."""
    origin = next((name for known, name in read.origins.items() if _related(place, known)), None)
    return f"{'.'.join(map(str, place))}: {problem}" + (f" (from {origin})" if origin else "")


def _related(one: Place, other: Place) -> bool:
    """Return whether a place lies within the other."""
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


def _order(problem: Problem) -> tuple[int, list[str]]:
    """Sort by section as in the sample file; unknown sections first."""
    place, _ = problem
    names = list(Settings.model_fields)
    steps = [f"{step:06}" if isinstance(step, int) else step for step in place]
    return (names.index(steps[0]) if steps[0] in names else -1), steps
