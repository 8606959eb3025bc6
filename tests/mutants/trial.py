"""A copy of the tree with one mutant in it, and what its tests say.

Theory of operation: the copy has an interpreter of its own, which sees the packages of the project's environment but
not its link to the project: of `bridge` and `tests` there is nothing to import but the copy, whatever the folder and
the variables of a process are. The tests start their processes with `sys.executable`, so that they get the copy too.
Python's caches are not copied; nothing stale is run.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sysconfig
import time
import venv
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from tests.mutants.table import Mutant

PATIENCE_S: Final = 300.0
"""A mutant may make its tests hang; that is no way to catch it."""

_NO_IMPORT: Final = re.compile(r"\b(ImportError|ModuleNotFoundError|SyntaxError|IndentationError)\b")


class Verdict(StrEnum):
    """What became of a mutant; only the first is good."""

    CAUGHT = "caught"
    SURVIVED = "SURVIVED"
    SKIPPED = "NOT TRIED: its tests were skipped"
    BROKEN = "BROKEN: its tests could not be run"
    HUNG = "HUNG"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the tests said."""

    verdict: Verdict
    by: Sequence[str]  # tests that failed
    seconds: float
    text: str  # what pytest printed


@dataclass(frozen=True, slots=True)
class Tree:
    """A copy of the project's tracked files, with an interpreter that imports nothing but it."""

    root: Path

    @property
    def python(self) -> Path:
        """Return its interpreter."""
        return self.root / ".venv" / "bin" / "python"

    def apply(self, mutant: Mutant) -> None:
        """Break it."""
        path = self.root / mutant.file
        path.write_text(mutant.applied(path.read_text()))

    def imported(self) -> Path:
        """Return which `bridge` its interpreter imports, from elsewhere and without any variables.

        Nothing is cached: a mutant of the same length, written within the same second, would not be seen.
        """
        command = [str(self.python), "-B", "-c", "import bridge; print(bridge.__file__)"]
        done = subprocess.run(command, cwd="/", env={}, capture_output=True, text=True, check=True)
        return Path(done.stdout.strip())

    def run(self, tests: Sequence[str], *options: str) -> Outcome:
        """Run tests; the processes that they leave behind when they hang are ended."""
        report = self.root / "report.xml"
        command = [str(self.python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", *options]
        began = time.monotonic()
        process = subprocess.Popen(
            [*command, f"--junit-xml={report}", *tests],
            cwd=self.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            text, _ = process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            text, _ = process.communicate()
            return Outcome(verdict=Verdict.HUNG, by=(), seconds=time.monotonic() - began, text=text)
        verdict, by = _judged(process.returncode, report)
        return Outcome(verdict=verdict, by=by, seconds=time.monotonic() - began, text=text)


def _judged(code: int, report: Path) -> tuple[Verdict, Sequence[str]]:
    """Tell what an exit code of pytest and its report mean."""
    if code not in (0, 1) or not report.exists():
        return Verdict.BROKEN, ()
    cases = list(ET.parse(report).getroot().iter("testcase"))  # noqa: S314 - pytest wrote it just now
    if code == 0:
        ran = [case for case in cases if case.find("skipped") is None]
        return (Verdict.SURVIVED if ran else Verdict.SKIPPED), ()
    failed = {
        case.get("name", ""): trouble for case in cases for trouble in case if trouble.tag in {"failure", "error"}
    }
    if not failed or any(_NO_IMPORT.search(trouble.get("message", "")) for trouble in failed.values()):
        return Verdict.BROKEN, ()
    return Verdict.CAUGHT, tuple(failed)


@contextlib.contextmanager
def copied(root: Path, folder: Path) -> Iterator[Tree]:
    """Copy what git knows of or would add, and make the interpreter; the copy is deleted afterwards."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    folder.mkdir()
    try:
        for name in filter(None, listed.stdout.split("\0")):
            if (root / name).is_file():  # a deleted one is listed until it is committed
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(root / name, folder / name)
        venv.EnvBuilder(symlinks=True).create(folder / ".venv")
        tree = Tree(folder)
        packages = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        for own in (folder / ".venv").glob("lib/python*/site-packages"):
            (own / "tree.pth").write_text("\n".join([str(folder), *sorted(packages)]) + "\n")
        assert tree.imported().is_relative_to(folder), "the copy is not what is imported"
        yield tree
    finally:
        shutil.rmtree(folder, ignore_errors=True)
