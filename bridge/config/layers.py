"""Where settings come from: the file, the environment over it, and secrets from files of their own.

Rules:
- `BRIDGE_<SECTION>__<KEY>` replaces one key of the file; lists are replaced as a whole, as a JSON array
  (`BRIDGE_SUBSCRIPTIONS`, `BRIDGE_DEVICES`, `BRIDGE_SERVER__TOPIC_HEADERS`). Other variables are none of our business.
- `<key>_file` names a file with the secret: one trailing newline is removed; `secrets_file` holds one per line.
- A byte order mark at the start of any of these files is passed over.
- A secret and its file are never both set. An empty secret counts as not set: the sample file ships them empty.
- What cannot be read is a problem among the others, not an exception.
"""

import json
import stat
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bridge.config.checks import Place, Problem
from bridge.config.models import Settings, one_secret
from bridge.errors import ConfigErrors
from bridge.files import read_text

Table = dict[str, Any]

PREFIX: Final = "BRIDGE_"
LISTS: Final = ("subscriptions", "devices")
SECRETS: Final = (
    ("server", "admin_token"),
    ("moost", "client_secret"),
    ("moost", "proxy"),
    ("store", "url"),
    ("kafka", "client_secret"),
)
"""Keys that may come from a file of their own; the secrets of each subscription too."""


@dataclass(slots=True, kw_only=True)
class Layers:
    """The settings as written, before their values are looked at."""

    values: Table
    problems: list[Problem] = field(default_factory=list)
    origins: dict[Place, str] = field(default_factory=dict)  # key -> the variable that set it
    files: dict[Place, str] = field(default_factory=dict)  # secret -> the file that it was read from


def read(path: Path, environ: Mapping[str, str], *, secrets: bool) -> Layers:
    """Return all layers merged; without `secrets` the files of those that only `serve` needs are left alone."""
    layers = Layers(values=_file(path))
    for name in sorted(environ):
        if name.startswith(PREFIX):
            _variable(layers, name, environ[name])
    for place in _secret_places(layers.values):
        _secret(layers, place, needed=secrets or place[0] == "store")
    return layers


def _file(path: Path) -> Table:
    """Return the tables of the file; a missing or broken one ends everything, there is nothing else to report."""
    try:
        found = stat.S_IFMT(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigErrors([f"{path}: there is no such file"]) from None
    except OSError as error:
        raise ConfigErrors([f"{path}: cannot be read: {error.strerror}"]) from None
    if found == stat.S_IFDIR:
        raise ConfigErrors([f"{path}: is a folder; name the file in it, such as {path / 'bridge.toml'}"])
    if found != stat.S_IFREG:
        raise ConfigErrors([f"{path}: is no ordinary file, and SIGHUP could not read it again"])
    try:
        return tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        problem = f"{path}: is not TOML: {error}"
    except RecursionError:
        problem = f"{path}: is not TOML: it is nested too deeply"
    except UnicodeDecodeError:
        problem = f"{path}: is not text in UTF-8"
    except OSError as error:
        problem = f"{path}: cannot be read: {error.strerror}"
    raise ConfigErrors([problem])


def _variable(layers: Layers, name: str, text: str) -> None:
    """Put the value of one variable in its place."""
    section, *keys = name.removeprefix(PREFIX).lower().split("__")
    if section in LISTS:
        where: Place = (section,)
        if keys:
            layers.problems.append((where, f"is set as a whole, by {PREFIX}{section.upper()}, not by {name}"))
            return
    elif not keys:
        return
    else:
        where = (section, *(key.upper() for key in keys)) if section == "codes" else (section, "__".join(keys))
    value: object = text
    if _is_json(where):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            layers.origins[where] = name
            layers.problems.append((where, "must be JSON"))
            return
    layers.origins[where] = name
    _put(layers.values, where, value)


def _is_json(where: Place) -> bool:
    """Return whether the value at a place is a list or table."""
    if where[0] in LISTS or where[0] == "codes":
        return True
    section = Settings.model_fields.get(str(where[0]))
    model = section.annotation if section else None
    known = getattr(model, "model_fields", {}).get(str(where[1]))
    return known is not None and isinstance(known.default, tuple)


def _put(values: Table, where: Place, value: object) -> None:
    """Set one key; a wrong type on the way is left for the check of the file's own values."""
    *parents, last = where
    for parent in parents:
        values = values.setdefault(str(parent), {})
        if not isinstance(values, dict):
            return
    values[str(last)] = value


def _secret_places(values: Table) -> Iterator[Place]:
    """Yield the places of all secrets."""
    yield from SECRETS
    subscriptions = values.get("subscriptions")
    if isinstance(subscriptions, list):
        for index in range(len(subscriptions)):
            yield from (("subscriptions", index, key) for key in ("secrets", "kafka_client_secret"))


def _secret(layers: Layers, place: Place, *, needed: bool) -> None:
    """Replace `<key>_file` by what the file holds."""
    *parents, key = place
    table: Any = layers.values
    for parent in parents:
        table = table[int(parent)] if isinstance(table, list) else table.get(parent)
        if not isinstance(table, dict | list):
            return
    if not isinstance(table, dict) or f"{key}_file" not in table:
        return
    name = table.pop(f"{key}_file")
    if not isinstance(name, str) or not name:
        if name != "":
            layers.problems.append((place, f"{key}_file must be the name of a file"))
    elif table.get(str(key)):
        layers.problems.append((place, f"set either {key} or {key}_file, not both"))
    elif needed:
        _read_secret(layers, place, table, name)


def _read_secret(layers: Layers, place: Place, table: Table, name: str) -> None:
    """Put the content of a file where the secret belongs."""
    key = str(place[-1])
    try:
        text = read_text(Path(name))
    except UnicodeDecodeError:
        layers.problems.append((place, f"{key}_file is not text in UTF-8"))
        return
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a file name"
        layers.problems.append((place, f"{key}_file {name!r} cannot be read: {reason}"))
        return
    layers.files[place] = name
    if key == "secrets":
        table[key] = [line for line in text.splitlines() if line.strip()]
    else:
        table[key] = one_secret(text)
    if not table[key]:
        layers.problems.append((place, f"{key}_file {name!r} is empty"))
