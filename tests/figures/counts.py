"""Figures that are read off the files of a checkout: sizes, names, promises, citations, circles.

- Files are those of `bridge/`. Lines of Python leave `sandbox` and `demo` out, which are the outside
  world.
- A rule is a heading of `docs/mapping.md` (M0 to M7). A checkout without that page is held against this project's own.
- A name has two definitions if two classes are called so, wherever they stand. Names of files leave `__init__.py` out.
- An import circle is a set of files, or of folders and single files below `bridge/`, of which each needs all others.
  What a folder hands on in its `__init__.py` is no file of its own.
"""

import ast
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

OUTSIDE: Final = frozenset({"sandbox", "demo"})
LONG: Final = 300  # lines
PORTS: Final = ("port", "desk", "api", "admin")  # modules of bridge/store that hold its promises
OWN: Final = Path(__file__).parents[2]

_RULE: Final = re.compile(r"\bM([0-8])(?:\.(\d+))?\b")
_RANGE: Final = re.compile(r"\bM([0-8])\.(\d+)-M?(?:\1\.)?(\d+)\b")
_HEADING: Final = re.compile(r"^#+ (M[0-8](?:\.\d+)?)\b", re.MULTILINE)


def python(tree: Path) -> list[Path]:
    """Return the files of the package."""
    return sorted((tree / "bridge").rglob("*.py"))


def lines(path: Path) -> int:
    """Return how many lines a file has."""
    return len(path.read_text(encoding="utf-8").splitlines())


def code_lines(tree: Path) -> int:
    """Return the lines of Python of the bridge itself."""
    package = tree / "bridge"
    return sum(lines(path) for path in python(tree) if path.relative_to(package).parts[0] not in OUTSIDE)


def long_files(tree: Path) -> list[str]:
    """Return the files over 300 lines."""
    return [path.relative_to(tree).as_posix() for path in python(tree) if lines(path) > LONG]


def promises(tree: Path) -> list[str]:
    """Return the public methods of the protocols and of the plain classes that a store has to have."""
    found = []
    for name in PORTS:
        path = tree / "bridge" / "store" / f"{name}.py"
        if not path.exists():
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and (_is_protocol(node) or node.name in ("Store", "StoreAdmin")):
                methods = [each.name for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
                found += [f"{node.name}.{method}" for method in methods if not method.startswith("_")]
    return found


def _is_protocol(node: ast.ClassDef) -> bool:
    return any(ast.unparse(base).partition("[")[0] == "Protocol" for base in node.bases)


def classes_twice(tree: Path) -> list[str]:
    """Return the names that several classes have."""
    names = Counter(
        node.name
        for path in python(tree)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    )
    return sorted(name for name, count in names.items() if count > 1)


def files_twice(tree: Path) -> list[str]:
    """Return the names that several files have."""
    names = Counter(path.name for path in python(tree) if path.name != "__init__.py")
    return sorted(name for name, count in names.items() if count > 1)


# ---- rules ----------------------------------------------------------------------------------------------------------


def rules(tree: Path) -> set[str]:
    """Return the rules that a checkout holds the text of."""
    page = tree / "docs" / "mapping.md"
    return set(_HEADING.findall(page.read_text(encoding="utf-8"))) if page.exists() else set()


def cited(text: str) -> Iterator[str]:
    """Yield each rule that a text cites, as often as it does; of a range both ends."""
    yield from (found[0] for found in _RULE.finditer(text))


def without_text(tree: Path) -> int:
    """Return how many citations in the code name a rule that the checkout does not hold."""
    known = rules(tree)
    return sum(rule not in known for path in python(tree) for rule in cited(path.read_text(encoding="utf-8")))


def without_test(tree: Path) -> list[str]:
    """Return the rules M0 to M7 that no test cites; a range with a dash cites all in it."""
    shown: set[str] = set()
    for path in (tree / "tests").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        shown.update(cited(text))
        for section, first, last in _RANGE.findall(text):
            shown.update(f"M{section}.{number}" for number in range(int(first), int(last) + 1))
    wanted = {rule for rule in rules(tree) or rules(OWN) if not rule.startswith("M8")}
    return sorted(wanted - shown)


# ---- circles --------------------------------------------------------------------------------------------------------


def imports(tree: Path) -> dict[str, set[str]]:
    """Return the files of the package by their dotted name, each with those that it imports wherever it does."""
    names = {_module(path, tree): path for path in python(tree) if path.name != "__init__.py"}
    return {
        name: {found for found in _imported(path) if found in names and found != name} for name, path in names.items()
    }


def _module(path: Path, tree: Path) -> str:
    return ".".join(path.relative_to(tree).with_suffix("").parts)


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def circles(graph: Mapping[str, Collection[str]]) -> list[list[str]]:
    """Return the sets of nodes of which each reaches all others."""
    reached = {node: _reached(node, graph) for node in graph}
    found = {
        tuple(sorted(other for other in reached[node] if node in reached[other]))
        for node in graph
        if node in reached[node]
    }
    return sorted(list(circle) for circle in found if len(circle) > 1)


def _reached(node: str, graph: Mapping[str, Collection[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = list(graph[node])
    while waiting:
        each = waiting.pop()
        if each not in seen:
            seen.add(each)
            waiting += graph[each]
    return seen


def folders(tree: Path) -> dict[str, set[str]]:
    """Return what lies directly below the package, each with what of that it imports."""
    graph: dict[str, set[str]] = {}
    for path in python(tree):
        mine = _top(_module(path, tree))
        found = {_top(name) for name in _imported(path) if name.startswith("bridge.")}
        graph.setdefault(mine, set()).update(found - {mine})
    return {mine: {other for other in needed if other in graph} for mine, needed in graph.items()}


def _top(name: str) -> str:
    return ".".join(name.split(".")[:2])
