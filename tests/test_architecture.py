"""Who may know whom: one table, and no file that trespasses."""

import ast
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent
PACKAGE: Final = ROOT / "bridge"

COMMON: Final = frozenset({"config", "errors", "files", "limits", "logs", "metrics", "repeated", "turns"})
"""What any room but the core may import."""

EVERYTHING: Final = frozenset({""})

# Room -> (rooms or modules of the bridge, packages from outside) that it may import, itself and COMMON aside.
# A name covers what lies below it: "core" is all of the core, "store.port" only the port.
TABLE: Final[dict[str, tuple[frozenset[str], frozenset[str]]]] = {
    "core": (frozenset(), frozenset()),
    "errors": (frozenset(), frozenset()),
    "files": (frozenset(), frozenset()),
    "times": (frozenset(), frozenset()),
    "limits": (frozenset(), frozenset()),
    "turns": (frozenset(), frozenset()),
    "logs": (frozenset(), frozenset({"structlog"})),
    "findings": (frozenset({"core"}), frozenset()),
    "metrics": (frozenset(), frozenset({"prometheus_client"})),
    # The words of roles, stamps and kinds are the core's; config spells none of them again.
    "config": (
        frozenset({"core.rules", "core.vocabulary"}),
        frozenset({"pydantic", "pydantic_core", "pydantic_settings"}),
    ),
    "directory": (frozenset({"core"}), frozenset()),
    "source": (frozenset({"core"}), frozenset({"pydantic", "pydantic_core", "msgspec"})),
    "sink": (frozenset({"core"}), frozenset({"msgspec"})),
    "store": (frozenset({"core"}), frozenset({"msgspec"})),
    "receiver": (
        frozenset({"intake", "source", "store.port", "store.shares", "core.vocabulary"}),
        frozenset({"starlette", "fastapi", "uvicorn", "httptools", "msgspec"}),
    ),
    # The second way in: what closes the door closes it too.
    "consumer": (
        frozenset(
            {"intake", "core.effects", "source.broker", "source.kafka", "source.topics", "receiver.gate", "store.port"}
        ),
        frozenset(),
    ),
    "intake": (frozenset({"source", "store.port", "core.vocabulary"}), frozenset()),
    "worker": (frozenset({"core", "findings", "source", "store.port"}), frozenset()),
    "sender": (
        frozenset({"core.retry", "core.effects", "core.vocabulary", "sink", "store.port", "store.desk", "store.ranks"}),
        frozenset({"msgspec"}),
    ),
    "clock": (frozenset({"core", "findings", "store.port"}), frozenset()),
    "sandbox": (
        frozenset({"core.vocabulary"}),
        frozenset({"aiohttp", "yarl", "jsonschema_rs", "msgspec", "starlette", "uvicorn", "uvloop", "rich"}),
    ),
    "preview": (frozenset({"core", "source", "sink", "store.port", "worker"}), frozenset({"pydantic_core"})),
    "replay": (frozenset({"core", "source", "store.port", "store.desk", "worker"}), frozenset()),
    "forget": (frozenset({"core", "source", "store.port", "store.desk", "worker"}), frozenset()),
    "demo": (frozenset({"sandbox"}), frozenset({"httpx"})),
    "signals": (frozenset(), frozenset()),
    "repeated": (frozenset(), frozenset({"structlog"})),
    "dead_letters": (frozenset({"store.port", "store.desk"}), frozenset()),
    "overdue": (frozenset({"store.port", "store.desk", "store.shares"}), frozenset()),
    "run": (EVERYTHING, frozenset({"uvloop"})),
    "cli": (
        frozenset(
            {
                *("run", "demo", "preview", "replay", "forget", "directory", "sandbox", "signals"),
                *("store.port", "store.desk", "core.vocabulary", "core.model", "core.findings"),
            }
        ),
        frozenset({"typer", "rich"}),
    ),
    "probe": (frozenset(), frozenset()),
    "__main__": (frozenset({"cli", "signals"}), frozenset()),
    "__init__": (frozenset(), frozenset()),
}

# File -> what it alone may import besides.
ALONE: Final[dict[str, frozenset[str]]] = {
    "sink/client.py": frozenset({"httpx", "httpx_aiohttp", "aiohttp"}),
    "sink/causes.py": frozenset({"aiohttp"}),
    "source/group.py": frozenset({"confluent_kafka"}),
    "source/kafka.py": frozenset({"confluent_kafka"}),
    "store/postgres/conditions.py": frozenset({"asyncpg"}),
    "store/postgres/connection.py": frozenset({"asyncpg"}),
    "store/postgres/line.py": frozenset({"asyncpg"}),
    "store/postgres/servers.py": frozenset({"asyncpg"}),
}

NO_COMMON: Final = frozenset({"core", "sandbox", *COMMON})
"""Rooms that do without COMMON, but for what the line below gives them."""

COMMON_AMONG: Final = {
    "config": frozenset({"errors", "files"}),
    "errors": frozenset(),
    "files": frozenset(),
    "repeated": frozenset({"logs"}),
    "limits": frozenset({"logs", "metrics"}),
    "logs": frozenset(),
    "metrics": frozenset(),
}

CORE_STDLIB: Final = frozenset(
    {
        "bisect",
        "collections",
        "dataclasses",
        "datetime",
        "decimal",
        "enum",
        "functools",
        "hashlib",
        "itertools",
        "json",
        "math",
        "operator",
        "re",
        "types",
        "typing",
        "zlib",
        "zoneinfo",
    }
)

# A distribution that brings a module of another name, or of a part of itself.
PARTS: Final = {"pydantic_core": "pydantic", "yarl": "aiohttp"}


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path: Path) -> Iterator[str]:
    """Yield every module that a file imports, wherever in it, by its full dotted name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            module = str(node.module)
            for alias in node.names:
                inner = PACKAGE.parent.joinpath(*module.split("."), alias.name)
                is_module = inner.with_suffix(".py").exists() or inner.is_dir()
                yield f"{module}.{alias.name}" if is_module else module


def covers(allowed: frozenset[str], module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") or not name for name in allowed)


def trespasses(path: Path) -> Iterator[str]:
    """Yield every import of a file that the table does not allow."""
    room, name = room_of(path), path.relative_to(PACKAGE).as_posix()
    inside, outside = TABLE[room]
    inside |= {room} | (COMMON_AMONG.get(room, frozenset()) if room in NO_COMMON else COMMON)
    outside |= ALONE.get(name, frozenset())
    for module in imports(path):
        top, _, rest = module.partition(".")
        if top == "bridge":
            if rest and not covers(inside, rest):
                yield f"{name} imports {module}"
        elif top in sys.stdlib_module_names:
            if room == "core" and top not in CORE_STDLIB:
                yield f"{name} imports {module}"
        elif top not in outside:
            yield f"{name} imports {module}"


def test_every_file_stands_in_a_room_of_the_table() -> None:
    assert [] == [path for path in sources() if room_of(path) not in TABLE]


def test_no_room_imports_what_it_may_not_know() -> None:
    assert [] == [line for path in sources() for line in trespasses(path)]


def test_only_run_names_a_concrete_store() -> None:
    stores = {
        f"bridge.store.{path.stem}"
        for path in (PACKAGE / "store").glob("*.py")
        if path.stem not in ("__init__", "port", "ranks", "shares", "desk")
    }
    assert {"run"} >= {room_of(path) for path in sources() if stores & set(imports(path)) and room_of(path) != "store"}


@pytest.mark.parametrize(
    ("name", "source", "found"),
    [
        ("core/x.py", "import httpx", "core/x.py imports httpx"),
        ("core/x.py", "import asyncio", "core/x.py imports asyncio"),
        ("core/x.py", "from bridge.logs import logger", "core/x.py imports bridge.logs"),
        ("receiver/x.py", "from bridge.core.reduce import reduce", "receiver/x.py imports bridge.core.reduce"),
        ("receiver/x.py", "from bridge.core import reduce", "receiver/x.py imports bridge.core.reduce"),
        ("sink/encode.py", "import httpx", "sink/encode.py imports httpx"),
        ("worker.py", "def f():\n    from bridge.sink import encode", "worker.py imports bridge.sink.encode"),
        ("sandbox/x.py", "import bridge.config", "sandbox/x.py imports bridge.config"),
    ],
)
def test_the_table_finds_a_trespass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, source: str, found: str
) -> None:
    house = tmp_path / "bridge"
    for module in ("core/reduce.py", "sink/encode.py", name):
        (house / module).parent.mkdir(parents=True, exist_ok=True)
        (house / module).write_text(source if module == name else "")
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", house)
    assert [found] == list(trespasses(house / name))


def test_the_core_never_waits_and_never_asks_the_time() -> None:
    clocks = re.compile(r"datetime\.(now|utcnow|today)\(|date\.today\(|time\.time\(")
    found = []
    for path in (PACKAGE / "core").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        waits = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor)]
        if waits or clocks.search(text):
            found.append(path.name)
    assert [] == found


def test_what_is_imported_from_outside_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *(line for name in extras if name != "dev" for line in extras[name])]
    declared = {re.split(r"[^\w.-]", line)[0].lower().replace("_", "-") for line in lines}
    owners = importlib.metadata.packages_distributions()
    used = {module.partition(".")[0] for path in sources() for module in imports(path)}
    outside = {PARTS.get(name, name) for name in used if name not in sys.stdlib_module_names and name != "bridge"}
    distributions = {name: {owner.lower().replace("_", "-") for owner in owners.get(name, [name])} for name in outside}
    assert {} == {name: owned for name, owned in distributions.items() if not owned & declared}
