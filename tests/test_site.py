"""The site of the docs: it builds, each link and anchor leads somewhere, and each page is in its navigation."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest

from tests.test_architecture import COMMON, TABLE
from tests.test_rules import rules

ROOT: Final = Path(__file__).parent.parent
SETTINGS: Final = ROOT / ".zensical.toml"


def built(folder: Path) -> subprocess.CompletedProcess[str]:
    """Build a copy of the docs."""
    shutil.copytree(ROOT / "docs", folder / "docs", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(SETTINGS, folder)
    return run(folder)


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("zensical")), "build", "--strict", "--config-file", SETTINGS.name]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    ended = built(folder)
    assert 0 == ended.returncode, ended.stdout + ended.stderr
    return folder / "build" / "site"


def test_the_site_builds_without_a_warning_and_each_rule_can_be_linked_to(site: Path) -> None:
    anchors = {
        name: re.findall(r'id="([\w.-]+)"', (site / f"{name}.html").read_text()) for name in ("mapping", "guarantees")
    }
    expected = {"mapping" if number.startswith("M") else "guarantees": set[str]() for number in rules()}
    for number, anchor in rules().items():
        expected["mapping" if number.startswith("M") else "guarantees"].add(anchor)
    assert {name: set[str]() for name in expected} == {name: expected[name] - set(anchors[name]) for name in expected}


def test_the_site_fetches_nothing_from_elsewhere(site: Path) -> None:
    fetched = re.compile(r'(?:src|<link[^>]*href)="(https?://[^"]*)"')
    assert [] == [link for page in site.rglob("*.html") for link in fetched.findall(page.read_text())]


def test_a_link_that_leads_nowhere_ends_the_build(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# Home { #home }\n\n[there](index.md#home) [nowhere](index.md#m9.9)\n")
    shutil.copy(SETTINGS, tmp_path)
    ended = run(tmp_path)
    assert 0 != ended.returncode
    assert "anchor does not exist" in ended.stdout + ended.stderr
    assert "1 issue found" in ended.stdout + ended.stderr


def pages_of(nav: list[Any]) -> list[str]:
    """Return the pages of a navigation, in order."""
    found: list[str] = []
    for entry in nav:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            found += pages_of(value) if isinstance(value, list) else [value]
    return found


def test_each_page_is_in_the_navigation_once() -> None:
    docs = ROOT / "docs"
    pages = {page.relative_to(docs).as_posix() for page in docs.rglob("*.md")}
    decisions = {page for page in pages if page.startswith("adr/0")}  # adr/index.md lists them
    nav = pages_of(tomllib.loads(SETTINGS.read_text())["project"]["nav"])
    assert sorted(pages - decisions) == sorted(nav)
    index = (docs / "adr" / "index.md").read_text()
    assert [] == [page for page in sorted(decisions) if f"]({page.removeprefix('adr/')})" not in index]


# ---- the architecture -----------------------------------------------------------------------------------------------


def cells(title: str) -> list[list[str]]:
    """Return the rows of the first table under a heading of the architecture."""
    section = (ROOT / "docs" / "architecture.md").read_text().partition(f"## {title}\n")[2].partition("\n## ")[0]
    rows = [row.strip("| ").split(" | ") for row in re.findall(r"^\|.*$", section, re.MULTILINE)]
    return [rows[0], *rows[2:]]


def test_each_file_of_the_core_stands_in_the_architecture() -> None:
    files = {path.stem for path in (ROOT / "bridge" / "core").glob("*.py")} - {"__init__"}
    assert sorted(files) == sorted(name for row in cells("The core")[1:] for name in re.findall(r"`(\w+)`", row[0]))


def test_the_architecture_names_who_may_import_whom() -> None:
    head, *rows = cells("Who may import whom")
    assert COMMON == set(re.split(r", | ", head[1].partition(" beside ")[2])) - {""}
    assert [] == sorted({name for row in rows for name in re.findall(r"`(\w+)`", row[0])} - TABLE.keys())


# ---- the page of the tests ------------------------------------------------------------------------------------------


def test_each_folder_of_tests_stands_in_their_page() -> None:
    tests = ROOT / "tests"
    page = (tests / "README.md").read_text()
    folders = {
        path.name for path in tests.iterdir() if path.is_dir() and list(path.glob("*.py")) and path.name[0] != "_"
    }
    assert folders | {"examples"} == set(re.findall(r"`(\w+)/`", page)) - {"bridge"}
    named = re.findall(r"`(\w+\.py)`", page)
    assert [] == [name for name in named if not list(tests.rglob(name))]
