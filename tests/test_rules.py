"""The law is in the house: each rule that is cited stands in the docs, and a test cites each rule."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent
DOCS: Final = ROOT / "docs"
PAGES: Final = (DOCS / "mapping.md", DOCS / "guarantees.md")

HEADING: Final = re.compile(r"^#{2,3} ([MR]\d+(?:\.\d+)?) [^{\n]+ \{ #([\w.-]+) \}$", re.MULTILINE)

# "M4.4", "R12", and what spans several: "M5.1-M5.3", "M3.2 to M3.4", "M0.6-7", "M0 to M6", "R1-R13".
CITATION: Final = re.compile(
    r"(?<![\w/.-])([MR])(\d{1,2})(?:\.(\d{1,2}))?(?:(?: to |[-–])\1?(\d{1,2})(?:\.(\d{1,2}))?)?(?![\w-]|\.\w)"  # noqa: RUF001
)
TEXTS: Final = frozenset({".py", ".toml", ".sql", ".md", ".csv", ".yaml", ".service"})
FOLDERS: Final = ("bridge", "tests", "docs", "config", "deploy")


def rules() -> dict[str, str]:
    """Return each rule's anchor by its number."""
    return {found[1]: found[2] for page in PAGES for found in HEADING.finditer(page.read_text())}


def files() -> Iterator[Path]:
    """Yield everything that may cite a rule."""
    yield from ROOT.glob("*.md")
    yield ROOT / "Makefile"
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in TEXTS and path != Path(__file__) and "target" not in path.parts:
                yield path


def cited(text: str) -> Iterator[str]:
    """Yield the number of each rule that a text cites; a range cites all in it."""
    for found in CITATION.finditer(text):
        letter, section, rule, to_section, to_rule = found.groups()
        if to_section is None:
            yield f"{letter}{section}.{rule}" if rule else f"{letter}{section}"
        elif rule is None:
            yield from (f"{letter}{number}" for number in range(int(section), int(to_section) + 1))
        else:  # "M5.1-M5.3", or "M0.6-7"
            assert to_rule is None or to_section == section, f"{found[0]} spans sections"
            last = int(to_rule or to_section)
            yield from (f"{letter}{section}.{number}" for number in range(int(rule), last + 1))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("newest wins (M0.4).", ["M0.4"]),
        ("mapping rules M4, M5.3", ["M4", "M5.3"]),
        ("(M5.1-M5.3, M5.5)", ["M5.1", "M5.2", "M5.3", "M5.5"]),
        ("(M3.2 to M3.4)", ["M3.2", "M3.3", "M3.4"]),
        ("M0.6-7", ["M0.6", "M0.7"]),
        ("R1-R3, R12", ["R1", "R2", "R3", "R12"]),
        ("M5.4, R12).", ["M5.4", "R12"]),
        ("mapping.md#m0.4, M12345, AM4, M4x, r13-foreign", []),
    ],
)
def test_a_citation_is_read_also_where_it_spans_several_rules(text: str, expected: list[str]) -> None:
    assert expected == list(cited(text))


def test_each_rule_has_an_anchor_of_its_number() -> None:
    assert {number: number.lower() for number in rules()} == rules()


def test_the_law_has_all_its_rules() -> None:
    rules_of = {"M0": 11, "M1": 6, "M2": 0, "M3": 4, "M4": 5, "M5": 11, "M6": 3, "M7": 0}
    expected = {*rules_of, *(f"{section}.{rule + 1}" for section, count in rules_of.items() for rule in range(count))}
    expected |= {"M8", "M8.3"} | {f"R{number}" for number in range(1, 14)}
    assert expected == rules().keys()


def test_each_rule_that_is_cited_stands_in_the_docs() -> None:
    known = rules()
    unknown = [
        f"{path.relative_to(ROOT)}: {number}"
        for path in files()
        for number in cited(path.read_text())
        if number not in known
    ]
    assert [] == unknown


def test_a_test_cites_each_rule() -> None:
    shown = {
        number
        for path in (ROOT / "tests").rglob("test_*.py")
        if not path.name.startswith("test_rules")
        for number in cited(path.read_text())
    }
    shown |= {number.partition(".")[0] for number in shown}  # a section whose rules are shown
    assert [] == sorted(rules().keys() - shown)


def test_each_guarantee_names_what_shows_it() -> None:
    page = PAGES[1].read_text()
    sections = re.split(r"^## (?=R\d)", page, flags=re.MULTILINE)[1:]
    promised = {
        path.stem: tomllib.loads(path.read_text())["promise"] for path in (ROOT / "tests" / "mutants").glob("*.toml")
    }
    assert [] == [path for path in re.findall(r"`((?:tests|bridge)/[\w./]+)`", page) if not (ROOT / path).exists()]
    for section in sections:
        number = section.partition(" ")[0]
        assert re.search(r"`tests/[\w./]+`", section), f"{number} names no test"
        mutants = re.findall(rf"`({number.lower()}-[\w-]+)`", section)
        assert mutants, f"{number} names no mutant"
        assert [] == [name for name in mutants if promised.get(name) != number]


# ---- the glossary ---------------------------------------------------------------------------------------------------


def glossary() -> Iterator[tuple[str, list[str]]]:
    """Yield the title of each table of words, and its words in their order."""
    for section in re.split(r"^## ", (DOCS / "glossary.md").read_text(), flags=re.MULTILINE)[1:]:
        rows = re.findall(r"^\| ([^|]+?) \|", section, re.MULTILINE)
        yield section.partition("\n")[0], [row for row in rows if not re.fullmatch(r"-+|word|word to come", row)]


def test_the_glossary_has_each_word_once_in_the_order_of_the_alphabet() -> None:
    tables = dict(glossary())
    assert ["Energy", "Messaging", "This project", "Words to come"] == list(tables)
    words = [word for table in tables.values() for word in table]
    assert [] == sorted({word for word in words if words.count(word) > 1})
    for title, table in tables.items():
        if title != "Words to come":  # they stand by families
            assert sorted(table, key=str.lower) == table


def words_of_the_code() -> set[str]:
    """Return the words of which the names in bridge/ are made, cut at `_` and at capitals."""
    found: set[str] = set()
    for path in (ROOT / "bridge").rglob("*.py"):
        names = {path.stem}
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                    names.add(node.name)
                case ast.Name():
                    names.add(node.id)
                case ast.Attribute():
                    names.add(node.attr)
                case ast.arg():
                    names.add(node.arg)
                case _:
                    pass
        found |= {word.lower().rstrip("s") for name in names for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)}
    return found


def test_a_word_to_come_leaves_its_table_when_it_has_come() -> None:
    section = (DOCS / "glossary.md").read_text().partition("## Words to come")[2]
    today = [
        cell for row in re.findall(r"^\| [^|]+ \| ([^|]+) \|", section, re.MULTILINE)[2:] for cell in row.split(",")
    ]
    used = words_of_the_code()
    assert [] == [word for word in today if not {each.rstrip("s") for each in word.lower().split()} <= used]
