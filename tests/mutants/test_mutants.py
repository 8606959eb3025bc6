"""The table of mutants fits the code, and the runner tells a caught one from a survivor."""

import re
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.mutants.table import ROOT, Mutant, defined, mutants
from tests.mutants.trial import Verdict, copied

MUTANTS: Final = mutants()
COVERED: Final = frozenset(
    {*(f"R{number}" for number in range(1, 13)), "door", "erasure", "kafka", "privacy", "replicas"}
)
"""Promises that have a mutant."""


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_fits_the_code_and_names_tests_that_exist(mutant: Mutant) -> None:
    assert re.fullmatch(r"R([1-9]|1[0-3])|[a-z]+", mutant.promise)
    assert mutant.file.startswith("bridge/"), "what is broken is the bridge, not its tests"
    mutant.applied((ROOT / mutant.file).read_text())
    assert mutant.tests
    for test in mutant.tests:
        file, _, name = test.partition("::")
        assert name.partition("[")[0] in set(defined(ROOT / file)), f"there is no test {test}"


def test_every_promise_has_a_mutant() -> None:
    assert COVERED <= {mutant.promise for mutant in MUTANTS}


# ---- the runner -----------------------------------------------------------------------------------------------------

LAW: Final = "def answer() -> int:\n    return 42\n"
TESTS: Final = """
import pytest
import bridge

def test_the_answer_is_right():
    assert 42 == bridge.answer()

def test_there_is_an_answer():
    assert bridge.answer()

@pytest.mark.skip(reason="never")
def test_nobody_asks():
    raise AssertionError
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Make a small project that has all that the runner needs."""
    root = tmp_path / "project"
    for name, text in {"bridge/__init__.py": LAW, "tests/test_law.py": TESTS, ".gitignore": ".venv/\n"}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)  # noqa: S607 - from the system
    return root


@pytest.mark.parametrize(
    ("new", "test", "verdict", "by"),
    [
        ("41", "test_the_answer_is_right", Verdict.CAUGHT, ("test_the_answer_is_right",)),
        ("41", "test_there_is_an_answer", Verdict.SURVIVED, ()),
        ("41", "test_nobody_asks", Verdict.SKIPPED, ()),
        ("41", "test_that_is_not_there", Verdict.BROKEN, ()),
        ("__import__('nothing')", "test_the_answer_is_right", Verdict.BROKEN, ()),
    ],
)
def test_only_an_assertion_of_a_named_test_catches_a_mutant(
    project: Path, tmp_path: Path, new: str, test: str, verdict: Verdict, by: tuple[str, ...]
) -> None:
    mutant = Mutant(
        name="wrong",
        promise="R1",
        what="The answer is wrong.",
        file="bridge/__init__.py",
        old="42",
        new=new,
        tests=[f"tests/test_law.py::{test}"],
    )
    with copied(project, tmp_path / "copy") as tree:
        tree.apply(mutant)
        outcome = tree.run(mutant.tests)
    assert (verdict, by) == (outcome.verdict, outcome.by), outcome.text


def test_every_process_of_a_copy_runs_the_copy(tmp_path: Path) -> None:
    """Of the project itself, which is linked into the environment that the copy's packages come from."""
    with copied(ROOT, tmp_path / "copy") as tree:
        main = tree.root / "bridge" / "__main__.py"
        main.write_text('print("the copy")\n')
        for folder in (Path("/"), tree.root):
            done = subprocess.run(
                [tree.python, "-m", "bridge"], cwd=folder, env={}, capture_output=True, text=True, check=False
            )
            assert "the copy\n" == done.stdout, done.stderr
