"""Every command with its arguments and options, from the parser itself."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import typer

from bridge.cli import PROGRAM, app
from docs.writers.tables import code, table

HEAD: Final = ("option", "default", "environment", "meaning")
_KINDS: Final = {"integer": "N", "integer range": "N", "int": "N", "float": "X", "float range": "X"}


def write() -> str:
    """Return a heading, the help and a table of options for each command."""
    return "\n\n".join(_one(name, command) for name, command in commands(typer.main.get_command(app), PROGRAM))


def commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield each command that does something, with its whole name."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name, command
        return
    for word in sorted(inner):
        yield from commands(inner[word], f"{name} {word}")


def _one(name: str, command: Any) -> str:
    shown = [parameter for parameter in command.params if not parameter.hidden and parameter.name != "help"]
    arguments = [each for each in shown if each.param_type_name == "argument"]
    options = [each for each in shown if each.param_type_name == "option"]
    usage = " ".join([name, *map(_argument, arguments), *(["[OPTIONS]"] if options else [])])
    rows = [_row(each) for each in (*arguments, *options)]
    about = "\n\n".join(" ".join(part.split()) for part in (command.help or "").split("\n\n"))
    return f"## `{name}`\n\n{about}\n\n```\n{usage}\n```" + (f"\n\n{table(HEAD, rows)}" if rows else "")


def _argument(parameter: Any) -> str:
    word = str(parameter.metavar or parameter.name).strip("[].").upper()
    word += "…" if parameter.nargs == -1 else ""
    return word if parameter.required else f"[{word}]"


def _row(parameter: Any) -> tuple[str, ...]:
    if parameter.param_type_name == "argument":
        written = _argument(parameter)
    else:
        written = parameter.opts[0] + ("" if parameter.is_flag else f" {_value(parameter)}")
    meaning = (parameter.help or "") + _choices(parameter) + _range(parameter)
    variable = parameter.envvar or ""
    return code(written), _default(parameter), code(variable), meaning


def _value(parameter: Any) -> str:
    """Return what stands behind an option."""
    annotation = parameter.type_descriptor.annotation
    if parameter.metavar:
        return str(parameter.metavar)
    if annotation in (int, float):
        return "N" if annotation is int else "X"
    return {datetime: "TIME", Path: "FILE"}.get(annotation, str(parameter.name).rpartition("_")[2].upper())


def _choices(parameter: Any) -> str:
    """Return the words of a choice."""
    annotation = parameter.type_descriptor.annotation
    words = [str(each.value) for each in annotation] if hasattr(annotation, "__members__") else []
    return " One of " + ", ".join(map(code, words)) + "." if words else ""


def _range(parameter: Any) -> str:
    low, high = getattr(parameter, "min", None), getattr(parameter, "max", None)
    if low is None:
        return ""
    return f" From {low:,}" + (f" to {high:,}." if high is not None and high < 2**60 else ".")


def _default(parameter: Any) -> str:
    if parameter.required:
        return "needed"
    default = parameter.default
    if default is None or default is False or callable(default):
        return ""
    return code(str(default))
