"""The page for whoever is woken at night says every word and sentence that the code can say, and no other."""

import ast
import re
from pathlib import Path

import pytest

from bridge.cli import common
from bridge.consumer import room as consumer
from bridge.limits import SUBSCRIPTION_LIMITED
from bridge.receiver import gate
from bridge.sink import causes
from bridge.sink.token import Trouble as TokenTrouble
from bridge.source import kafka
from bridge.store.postgres import conditions
from bridge.store.sqlite import problems

ROOT = Path(__file__).parents[2]
NIGHT = (ROOT / "docs" / "operations" / "night.md").read_text()


def problem_words() -> set[str]:
    """Return every word that can stand among the problems of /health."""
    sender = ast.parse((ROOT / "bridge" / "sender" / "state.py").read_text())
    added = [node for node in ast.walk(sender) if isinstance(node, ast.Call) and ast.unparse(node.func) == "found.add"]
    said = {node.args[0].value for node in added if isinstance(node.args[0], ast.Constant)}
    set_aside = re.findall(r'\["([a-z_]+)"\] if clock.set_aside', (ROOT / "bridge" / "run.py").read_text())
    troubles = {each.value for each in (*kafka.Trouble, *TokenTrouble)}
    store = {gate.STORE.reason, gate.WATERMARK.reason, problems.LOCKED, problems.LOG}
    reading = {consumer.TOPIC_GONE, consumer.RECORDS_LOST, SUBSCRIPTION_LIMITED}
    return {str(word) for word in (*said, *set_aside, *troubles, *store, *reading)}


def first_cells(title: str) -> list[str]:
    """Return the first cells of the table under a heading of the page."""
    found = re.search(rf"^## {re.escape(title)}$(.*?)(?=^## |\Z)", NIGHT, re.MULTILINE | re.DOTALL)
    assert found, f"the page has no heading {title!r}"
    return [
        re.split(r"(?<!\\)\|", row.strip("|"))[0].strip() for row in re.findall(r"^\|.*$", found[1], re.MULTILINE)[2:]
    ]


def test_every_problem_of_health_stands_in_the_page_for_the_night() -> None:
    assert "faulty_buildings" in problem_words()
    assert "moost_throttled" in problem_words()
    assert sorted(problem_words()) == sorted(cell.strip("`") for cell in first_cells("Problems of /health"))
    http = (ROOT / "docs" / "reference" / "http.md").read_text()
    told = re.search(r"^\| problem \| meaning \|\n\| --- .*\n((?:^\|.*\n)+)", http, re.MULTILINE)
    assert told is not None
    assert problem_words() == set(re.findall(r"^\| `(\w+)`", told[1], re.MULTILINE))


def test_every_exit_code_stands_in_the_page_for_the_night() -> None:
    codes = {common.CRASHED, common.USAGE, common.FOUND, 0}
    assert sorted(f"`{code}`" for code in codes) == first_cells("Exit codes")


@pytest.mark.parametrize(
    ("title", "sentences"),
    [
        ("The database", [*conditions._CONDITIONS.values(), *conditions._CLASSES.values()]),
        ("The database", [*conditions._REFUSED.values(), *conditions._ENDS.values()]),
        ("The way to MOOST", [*causes._ERRNO_WORDS.values(), *causes._VERIFY_WORDS.values()]),
        ("Kafka", list(kafka._HINTS.values())),
    ],
)
def test_every_sentence_that_the_code_tells_of_the_outside_stands_in_the_page_for_the_night(
    title: str, sentences: list[str]
) -> None:
    assert [] == sorted(set(sentences) - set(first_cells(title)))


def test_the_page_for_the_night_tells_no_sentence_that_the_code_does_not_know() -> None:
    strings = {
        node.value
        for path in (ROOT / "bridge").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    code = "\n".join(strings) + "\n".join(kafka._HINTS.values())
    titles = ("At the start", "The database", "The disk", "The way to MOOST", "Kafka")
    told = [cell for title in titles for cell in first_cells(title) if not cell.startswith("the proxy says")]
    assert [] == [cell for cell in told if cell not in code]
