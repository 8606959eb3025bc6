"""The deliberately broken variants, one TOML file each: which promise, what is broken, which tests notice.

promise = "R1"                    # of docs/guarantees.md, or one word such as "door"
what = "The door answers before the message is committed."
file = "bridge/receiver/door.py"  # from the root of the project
old = "…"                         # exact text that stands there exactly once
new = "…"                         # what takes its place
tests = ["tests/receiver/test_answers.py::test_…"]
"""

import ast
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One broken variant."""

    name: str  # of its file
    promise: str
    what: str
    file: str
    old: str
    new: str
    tests: Sequence[str]

    def applied(self, text: str) -> str:
        """Return the file's text with the mutant in it; raises ValueError where it does not fit."""
        found = text.count(self.old)
        if found != 1:
            raise ValueError(f"{self.name}: what it replaces stands {found} times in {self.file}")
        mutated = text.replace(self.old, self.new)
        if mutated == text:
            raise ValueError(f"{self.name}: it changes nothing")
        if self.file.endswith(".py"):
            ast.parse(mutated)
        return mutated

    def wanted(self, filters: Sequence[str]) -> bool:
        """Tell whether one of the filters means it: its promise, or a part of its name; none = all are meant."""
        return not filters or any(word == self.promise or word in self.name for word in filters)


def mutants(root: Path = ROOT) -> list[Mutant]:
    """Read all of them, by promise; raises ValueError where a key is missing or unknown."""
    keys = {field.name for field in fields(Mutant)} - {"name"}
    found = []
    for path in sorted((root / "tests" / "mutants").glob("*.toml")):
        table = tomllib.loads(path.read_text())
        if set(table) != keys:
            raise ValueError(f"{path.name}: its keys are {sorted(table)}, wanted are {sorted(keys)}")
        found.append(Mutant(name=path.stem, **table))
    return sorted(found, key=lambda mutant: (len(mutant.promise), mutant.promise, mutant.name))


def defined(path: Path) -> Iterator[str]:
    """Yield the tests of a file as pytest names them, without parameters."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef):
            yield from (f"{node.name}::{name}" for name in _functions(node.body))
        else:
            yield from _functions([node])


def _functions(body: Sequence[ast.stmt]) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
            yield node.name
