"""The pages say what the code says, and their tables and links hold."""

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bridge.config.models import LimitSettings, Settings
from bridge.limits import Limit, LimitCounts
from bridge.metrics import Metrics
from bridge.receiver.gate import Gate
from bridge.receiver.guesses import MOST_EACH, MOST_IN_ALL_PER_S
from bridge.receiver.hands import MOST_IN_HAND, SHARE_IN_HAND, SHARE_UNVERIFIED, SMALL_BODY
from bridge.receiver.health import Health, HealthSources
from bridge.receiver.proofs import ALWAYS_CHECKED, FAILED_BURST, FAILED_PER_S, FAILED_PER_S_IN_ALL
from bridge.receiver.protocol import MARKS, MARKS_SHARE
from bridge.receiver.slices import AHEAD, AHEAD_BYTES, AHEAD_IN_ALL
from bridge.receiver.state import Limits
from bridge.source.signature import MOST_SIGNATURES
from bridge.store.memory import MemoryStore
from docs import generate
from docs.writers import tables

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
EXAMPLE = (ROOT / "config" / "bridge.toml").read_text()

# Sections whose keys belong to a list of tables or are free words.
LISTS = {"subscriptions", "devices"}


def table(page: str, title: str) -> list[list[str]]:
    """Return the rows of the first table under a heading of a page, without its head."""
    text = (ROOT / "docs" / page).read_text()
    found = re.search(rf"^#+ {re.escape(title)}$(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"{page} has no heading {title!r}"
    first = re.search(r"(?:^\|.*\n)+", found[1], re.MULTILINE)
    assert first, f"there is no table under {title!r}"
    return [[cell.strip() for cell in cells(row)] for row in first[0].splitlines()[2:]]


def settings() -> Iterator[str]:
    """Yield every key as section.key."""
    for section, field in Settings.model_fields.items():
        if section == "codes":
            yield "codes"
            continue
        model: Any = field.annotation
        if section in LISTS:
            model = model.__args__[0]
        for key in model.model_fields:
            yield f"{section}.{key}"


def test_every_setting_has_a_row_of_its_own() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    told = [
        f"{section}.{key}"
        for section, rows in re.findall(r"^### `\[+(\w+)\]+`\n(.*?)(?=^###|^<!-- end)", page, re.MULTILINE | re.DOTALL)
        for key in re.findall(r"^\| `(\w+)`", rows, re.MULTILINE)
    ]
    assert [name for name in settings() if name != "codes"] == [name for name in told if not name.startswith("codes.")]


def test_every_setting_stands_in_the_example_file() -> None:
    missing = [key for key in settings() if not re.search(rf"^(# )?{key.split('.')[-1]}( |\b)", EXAMPLE, re.MULTILINE)]
    assert [] == [key for key in missing if key != "codes"]


def test_make_alone_lists_every_target() -> None:
    said = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout  # noqa: S607
    (targets,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    listed = {name for pair in re.findall(r"make ([a-z-]+)|; ([a-z-]+):", said) for name in pair if name}
    assert set(targets.split()) - {"help"} == listed


def test_the_readme_names_the_two_commands_and_fits_on_two_pages() -> None:
    assert "make demo" in README
    assert "make test" in README
    assert len(README.splitlines()) <= 120


# ---- the pages ------------------------------------------------------------------------------------------------------

PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")])


def test_what_the_pages_say_of_the_code_is_what_it_says_now() -> None:
    assert [] == [path.name for path in generate.outdated()], "`make docs` writes them anew"


def test_every_block_stands_in_a_page() -> None:
    text = "".join(path.read_text() for path in generate.pages())
    assert [] == [name for name in generate.BLOCKS if f"<!-- generated: {name} -->" not in text]


def test_a_page_that_says_something_else_is_named() -> None:
    page = "# Metrics\n\n<!-- generated: metrics -->\nnothing\n<!-- end -->\n\nprose\n"
    written = generate.current(page)
    assert "bridge_pings_total" in written
    assert written.startswith("# Metrics\n")
    assert written.endswith("<!-- end -->\n\nprose\n")
    assert written == generate.current(written)


def test_a_bar_within_a_cell_is_escaped_once() -> None:
    assert "| a \\| b | c \\| d |" == tables.table(["x", "y"], [("a | b", "c \\| d")]).splitlines()[-1]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_no_table_loses_text_behind_a_bar(page: Path) -> None:
    assert [] == [row for row in split_tables(page.read_text()) if row[0] != row[1]]


def split_tables(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield for each row of each table how many cells its head has, how many it has itself, and the row."""
    for found in re.finditer(r"(?:^\|.*\n?)+", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE):
        head, *rows = found[0].splitlines()
        yield from ((len(cells(head)), len(cells(row)), row) for row in rows)


def cells(row: str) -> list[str]:
    return re.split(r"(?<!\\)\|", row.strip().strip("|"))


def test_a_table_that_loses_text_is_found() -> None:
    text = "| key | what for |\n| --- | --- |\n| `a` | one | two |\n| `b` | one \\| two |\n"
    assert ["| `a` | one | two |"] == [row for head, own, row in split_tables(text) if head != own]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_every_link_leads_somewhere(page: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()) if "://" not in link]
    missing = [link for link in links if not leads_somewhere(page, link)]
    assert [] == missing


def leads_somewhere(page: Path, link: str) -> bool:
    name, _, anchor = link.partition("#")
    target = (page.parent / name).resolve() if name else page
    if not target.exists():
        return False
    headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE) if target.is_file() else []
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return not anchor or anchor in anchors or f"{{ #{anchor} }}" in target.read_text()


@pytest.mark.anyio
async def test_every_field_of_health_stands_in_its_table() -> None:
    metrics = Metrics()
    gate, limits = Gate(max_size=1), LimitCounts(metrics)
    health = Health(
        store=MemoryStore(), metrics=metrics, gate=gate, sources=HealthSources(kafka=dict), limits=limits,
        now=lambda: datetime.now(UTC), version="1",
    )  # fmt: skip
    page = (ROOT / "docs" / "reference" / "http.md").read_text()
    told = re.search(r"^\| field \| content \|\n\| --- .*\n((?:^\|.*\n)+)", page, re.MULTILINE)
    assert told is not None
    assert list(await health.report()) == re.findall(r"^\| `(\w+)`", told[1], re.MULTILINE)


# ---- the door -------------------------------------------------------------------------------------------------------


def test_the_limits_of_a_connection_are_those_of_the_page() -> None:
    limits = Limits()
    times = [limits.header_time, limits.body_time, limits.answer_time]
    header, *others = [round(each.total_seconds()) for each in times]
    promised = (
        f"a header has {limits.header_bytes // 2**10} KiB and {header} s, a body {others[0]} s, an unread answer "
        f"{others[1]} s; there is room for {limits.connections:,} connections and {MOST_IN_HAND // 2**20} MiB of bodies"
    )
    page = (ROOT / "docs" / "reference" / "http.md").read_text()
    assert promised in " ".join(page.split())


def bounds() -> dict[str, str]:
    """Return the bounds of a connection as the page tells them, by the name of their limit."""
    return {row[0].strip("`"): row[1] for row in table("security.md", "Bounds of a connection")}


def test_the_bounds_of_a_connection_are_those_of_the_page() -> None:
    limits, settings = Limits(), LimitSettings()
    told = bounds()
    assert told["connections"].startswith(f"{settings.connections:,},")
    assert told["connections_per_address"].startswith(f"{settings.connections_per_address:,},")
    assert (limits.connections, limits.connections_per_address) == (
        settings.connections,
        settings.connections_per_address,
    )
    waiting = f"{AHEAD} requests of a connection before their turn, {AHEAD_BYTES // 2**10} KiB of their bodies; "
    assert told["parsed_ahead"].startswith(waiting)
    assert f"{AHEAD_IN_ALL:,} requests of all, then 1 each" in told["parsed_ahead"]
    header = f"{limits.header_bytes // 2**10} KiB, {limits.header_fields} fields, {limits.header_time.seconds} s"
    assert header in told["header"]
    assert told["unverified_bytes"].startswith(f"{settings.unverified_bytes // 2**20} MiB, a setting")
    assert f"1/{round(1 / SHARE_UNVERIFIED)} of it an address" in told["unverified_bytes"]
    assert f"up to {SMALL_BODY // 2**10} KiB" in told["unverified_bytes"]
    assert told["bytes_in_hand"].startswith(f"{MOST_IN_HAND // 2**20} MiB, 1/{round(1 / SHARE_IN_HAND)} of it ")
    assert told["signatures"].startswith(f"{MOST_SIGNATURES} in a request")
    each, burst, of_all, always = (
        bound // 2**20 for bound in (FAILED_PER_S, FAILED_BURST, FAILED_PER_S_IN_ALL, ALWAYS_CHECKED * 2**10)
    )
    assert f"{each} MiB/s an address after {burst} MiB, {of_all} MiB/s of all" in told["failed_work"]
    assert f"up to {always} KiB of it is always checked" in told["failed_work"]
    assert told["admin_guesses"].startswith(
        f"{MOST_EACH} wrong admin tokens a minute an address; {MOST_IN_ALL_PER_S} a"
    )
    assert f"{MARKS // 2**10} KiB and 1/{round(1 / MARKS_SHARE)} of it" in told["chunk_marks"]


def test_every_bound_that_the_page_names_is_counted_by_that_name() -> None:
    assert set(bounds()) <= {limit.value for limit in Limit}


# ---- receiver conformance -------------------------------------------------------------------------------------------

CONFORMANCE = "tests/life/test_conformance.py"


def conformance() -> list[str]:
    """Return the tests that the table of answers names."""
    return [row[2].strip("`") for row in table("reference/http.md", "What a sender gets for an answer")]


def test_every_scenario_of_the_table_of_answers_is_a_test_and_every_test_a_scenario() -> None:
    source = ast.parse((ROOT / CONFORMANCE).read_text())
    tests = [node.name for node in source.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    assert sorted(tests) == sorted(conformance())


def test_every_scenario_has_a_flawed_bridge_that_fails_it() -> None:
    mutants = [tomllib.loads(path.read_text()) for path in (ROOT / "tests" / "mutants").glob("*.toml")]
    failing = {test.partition("[")[0] for mutant in mutants for test in mutant["tests"]}
    assert [] == [test for test in conformance() if f"{CONFORMANCE}::{test}" not in failing]
