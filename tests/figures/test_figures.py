"""The figures count what they say."""

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.figures import counts
from tests.figures.traced import Notes


def written(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_only_lines_of_the_bridge_itself_are_counted(tmp_path: Path) -> None:
    tree = written(tmp_path, {"bridge/core/a.py": "x = 1\ny = 2\n", "bridge/demo/b.py": "z = 3\n"})
    assert 2 == counts.code_lines(tree)


def test_a_promise_is_a_public_method_of_a_protocol(tmp_path: Path) -> None:
    text = "class Store(Protocol):\n    async def open(self): ...\n    def _x(self): ...\n"
    text += "class Row:\n    def y(self): ...\n"
    assert ["Store.open"] == counts.promises(written(tmp_path, {"bridge/store/port.py": text}))


def test_names_that_stand_twice_are_found(tmp_path: Path) -> None:
    tree = written(
        tmp_path,
        {
            "bridge/a/room.py": "class Row:\n    class Inner: ...\n",
            "bridge/b/room.py": "class Row: ...\n",
            "bridge/b/__init__.py": "",
            "bridge/a/__init__.py": "",
        },
    )
    assert ["Row"] == counts.classes_twice(tree)
    assert ["room.py"] == counts.files_twice(tree)


def test_a_citation_needs_a_text_and_a_rule_a_test(tmp_path: Path) -> None:
    tree = written(
        tmp_path,
        {
            "docs/mapping.md": "## M5 Slots { #m5 }\n### M5.1 a\n### M5.2 b\n### M5.3 c\n### M5.4 d\n## M8 Life\n",
            "bridge/core/a.py": '"""M5.1, M5.9 and M5.9."""\n',
            "tests/core/test_a.py": "# M5, M5.2-M5.3\n",
        },
    )
    assert 2 == counts.without_text(tree)
    assert ["M5.1", "M5.4"] == counts.without_test(tree)


def test_a_circle_of_imports_is_found_among_files_and_among_folders(tmp_path: Path) -> None:
    tree = written(
        tmp_path,
        {
            "bridge/a/one.py": "from bridge.b.two import x\n",
            "bridge/b/two.py": "def f():\n    import bridge.a.one\n",
            "bridge/c/three.py": "from bridge.a import one\n",
        },
    )
    assert [["bridge.a.one", "bridge.b.two"]] == counts.circles(counts.imports(tree))
    assert [["bridge.a", "bridge.b"]] == counts.circles(counts.folders(tree))


ONE = """
from house.two import Pair, Row

def f():
    return sorted([Row(2), Row(1)]), Pair(1)
"""
TWO = """
from typing import NamedTuple

class Row:
    def __init__(self, n):
        self.n = n

    def __lt__(self, other):
        return self.n < other.n

class Pair(NamedTuple):
    a: int
"""


def test_hops_and_objects_are_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, {"house/one.py": ONE, "house/two.py": TWO})
    monkeypatch.syspath_prepend(str(tmp_path))
    one = importlib.import_module("house.one")
    notes = Notes(tmp_path / "house")
    before = sys.getprofile()
    sys.setprofile(notes.see)
    try:
        one.f()
        notes.active = True
        one.f()
        notes.active = False
    finally:
        sys.setprofile(before)
    assert [["one.py", "two.py", 3]] == notes.take()["hops"]
    assert [["house.two.Pair", 1], ["house.two.Row", 2]] == notes.take()["made"]
