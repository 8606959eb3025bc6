"""Every key of the configuration: type, default and limits from the models, its meaning from `config/bridge.toml`."""

import re
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, Final, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from bridge.config import fields
from bridge.config.layers import LISTS, PREFIX, SECRETS
from bridge.config.models import Settings
from bridge.config.reload import APPLIED, WHOLE
from docs.writers.tables import code, table

EXAMPLE: Final = Path(__file__).parents[2] / "config" / "bridge.toml"

HEAD: Final = ("key", "type", "default", "meaning", "environment", "SIGHUP")

UNITS: Final = {
    "server.port": "TCP port",
    "subscriptions.rate_limit": "messages a second",
    "moost.max_concurrency": "calls",
    "moost.requests_per_second": "requests a second",
    "moost.historical_batch": "events",
    "intervals.min_coverage": "share of the interval",
    "clock.speed": "times real time",
    "limits.connections": "connections",
    "limits.values_per_message": "values",
    "limits.devices_per_building": "devices",
}
"""What a plain number counts. A duration and a size carry their unit in the value."""

_NAMES: Final = {
    "duration": "duration",
    "_some": "over 0",
    "size": "size",
    "network": "network (CIDR)",
    "time_zone": "IANA time zone",
    "_web_address": "URL",
    "_maybe_web_address": "URL",
    "proxy_address": "URL",
}
"""What a value is, by the function that reads or checks it."""

_SECONDS: Final = (("h", 3600), ("m", 60), ("s", 1))
_GROUPED: Final = 10_000  # from here on digits are grouped
_SECRET_OF_SUBSCRIPTION: Final = ("secrets", "kafka_client_secret")


def write() -> str:
    """Return one table a section."""
    told = meanings(EXAMPLE.read_text(encoding="utf-8"))
    parts = []
    for name, info in Settings.model_fields.items():
        if name == "codes":
            parts.append(_codes(told["codes"]))
            continue
        model: Any = get_args(info.annotation)[0] if name in LISTS else info.annotation
        rows = [_row(name, key, field, told) for key, field in model.model_fields.items()]
        title = f"[[{name}]]" if name in LISTS else f"[{name}]"
        parts.append(f"### `{title}`\n\n{_about(model)}\n\n{table(HEAD, rows)}")
    return "\n\n".join(parts)


def meanings(example: str) -> Mapping[str, str]:
    """Return what each key and each section is for, as the comments of the example file say it."""
    found: dict[str, str] = {}
    section = ""
    for line in example.splitlines():
        if head := re.match(r"(?:# )?\[+(\w+)\]+(?:\s+# (.*))?$", line):
            section = head[1]
            found[section] = head[2] or ""
        elif key := re.match(r"(?:# )?(\w+) = .*?\s# (.*)$", line):
            found[f"{section}.{key[1]}"] = key[2]
    return found


def _about(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").split())


def _row(section: str, key: str, field: FieldInfo, told: Mapping[str, str]) -> tuple[str, ...]:
    """Return the row of one key. Raises KeyError for a key that the example file does not explain."""
    name = f"{section}.{key}"
    secret = (section, key) in SECRETS or (section == "subscriptions" and key in _SECRET_OF_SUBSCRIPTION)
    variable = f"{PREFIX}{section.upper()}" + ("" if section in LISTS else f"__{key.upper()}")
    words = told[name]
    return (
        code(key),
        _type(field, UNITS.get(name, "")),
        code(_toml(field.default)),
        words + (f"; or in a file, by `{key}_file`" if secret and f"{key}_file" not in words else ""),
        code(variable),
        "at once" if section in WHOLE or key in APPLIED.get(section, ()) else "restart",
    )


def _codes(about: str) -> str:
    row = (
        "`EVENT_TYPE.DEVICE_TYPE`",
        "table: word = code",
        "",
        about,
        code(f"{PREFIX}CODES__EVENT_TYPE__DEVICE_TYPE"),
        "at once",
    )
    return f"### `[codes]`\n\nCodes of MOOST's tables, by event type and device type.\n\n{table(HEAD, [row])}"


def _type(field: FieldInfo, unit: str) -> str:
    """Return what a value may be, in words."""
    kind: Any = field.annotation
    inner = [each for each in get_args(kind) if each is not type(None)]
    if get_origin(kind) is tuple:
        return f"list of {_plural(inner[0])}"
    if inner:
        kind = inner[0]
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return "one of " + ", ".join(code(each.value) for each in kind)
    names = [name for each in field.metadata if (name := _checked(each))]
    base = {bool: "true or false", int: "whole number", float: "number", str: "text", SecretStr: "secret"}.get(kind)
    if base is None:
        base = "duration" if kind is timedelta else "time with a zone"
    if names:
        base = ", ".join([base, *names] if kind is SecretStr else names)
    return ", ".join(filter(None, (base, unit, _limits(field))))


def _checked(check: object) -> str:
    """Return what a check asks of a value, in words; empty for one that says nothing."""
    function = getattr(check, "func", None)
    if isinstance(function, partial):
        return str(function.keywords["wanted"])
    return _NAMES.get(getattr(function, "__name__", ""), "")


def _plural(item: Any) -> str:
    """Return what the items of a list are."""
    words = [name for each in getattr(item, "__metadata__", ()) if (name := _checked(each))]
    if "the name of an HTTP header" in words:
        return "HTTP header names"
    if "network (CIDR)" in words:
        return "networks (CIDR)"
    return "secrets" if item is SecretStr else "texts"


def _limits(field: FieldInfo) -> str:
    """Return the range of a number."""
    low = [each.ge for each in field.metadata if isinstance(each, Ge)]
    above = [each.gt for each in field.metadata if isinstance(each, Gt) and not low]
    high = [each.le for each in field.metadata if isinstance(each, Le)]
    is_size = any(_checked(each) == "size" for each in field.metadata)
    written = _size if is_size else _number
    parts = [f"from {written(low[0])}"] if low else [f"over {written(above[0])}"] if above else []
    if high:
        parts.append(f"to {written(high[0])}")
    return " ".join(parts)


def _number(value: Any) -> str:
    return f"{value:,}"


def _size(value: Any) -> str:
    unit, size = next(
        (
            (unit, size)
            for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))
            if value and value % size == 0
        ),
        ("B", 1),
    )
    return f"{value // size} {unit}"


def _toml(value: object) -> str:
    """Return a default as the file writes it; empty for none."""
    if isinstance(value, timedelta):
        return f'"{_duration(value)}"'
    if isinstance(value, SecretStr | str):
        return f'"{value.get_secret_value() if isinstance(value, SecretStr) else value}"'
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(each) for each in value) + "]"
    if isinstance(value, bool) or value is None:
        return "" if value is None else str(value).lower()
    return _quantity(value)


def _duration(value: timedelta) -> str:
    """Return a duration in the largest unit that divides it; days are written as hours."""
    seconds = round(value.total_seconds())
    unit, size = next(((u, s) for u, s in _SECONDS if seconds and seconds % s == 0), ("s", 1))
    return f"{seconds // size}{unit}"


def _quantity(value: Any) -> str:
    """Return a plain number or a size."""
    if value >= fields.size("1MiB"):
        return f'"{_size(value).replace(" ", "")}"'
    if value == int(value):
        return str(int(value)) if value < _GROUPED else f"{value:_}"
    return str(value)
