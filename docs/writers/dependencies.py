"""Every package that the project names, with the reason that stands beside it in `pyproject.toml`."""

import re
import tomllib
from pathlib import Path
from typing import Final

from docs.writers.tables import code, table

PROJECT: Final = Path(__file__).parents[2] / "pyproject.toml"


def write() -> str:
    """Return a table a group. Raises LookupError for a package without a reason."""
    text = PROJECT.read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    groups = {"The daemon": project["dependencies"]}
    groups |= {f"Extra `{name}`": lines for name, lines in project["optional-dependencies"].items()}
    parts = []
    for title, lines in groups.items():
        rows = [(code(_name(line)), reason(text, line)) for line in lines if _name(line) != project["name"]]
        parts.append(f"## {title}\n\n{table(('package', 'why this one'), rows)}")
    return "\n\n".join(parts)


def reason(text: str, requirement: str) -> str:
    """Return the comment behind a requirement."""
    found = re.search(rf'^\s*"{re.escape(requirement)}",\s*# (.+)$', text, re.MULTILINE)
    if found is None:
        raise LookupError(f"pyproject.toml does not say why {requirement} is needed")
    return found[1]


def _name(requirement: str) -> str:
    return re.split(r"[<>=;\[ ]", requirement)[0]
