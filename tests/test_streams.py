"""Where commands print: a full disk, a reader that has left, a stream that was closed."""

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_cli import CONFIG

FULL = Path("/dev/full")
COMMANDS = [
    ["--help"],
    ["check"],
    ["store", "check", "--json"],
    ["map", "sub-1.vehicle.update", "message.json"],
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bridge.toml").write_text(CONFIG.format(store=tmp_path / "bridge.db"))
    (tmp_path / "message.json").write_text(json.dumps({"id": "v-1", "userId": "u"}))
    return tmp_path


def shell(folder: Path, words: list[str], redirected: str) -> "subprocess.CompletedProcess[str]":
    command = f'"{sys.executable}" -m bridge {" ".join(words)} {redirected}'
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],  # noqa: S607
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def said(done: "subprocess.CompletedProcess[str]") -> str:
    """Return what was said on stderr, but for the note that there was no store before."""
    return "\n".join(line for line in done.stderr.splitlines() if not line.startswith("there was no store"))


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_a_result_that_does_not_fit_on_the_disk_is_told_in_a_sentence(words: list[str], folder: Path) -> None:
    done = shell(folder, words, ">/dev/full")
    assert 1 == done.returncode, done.stderr
    assert "stdout cannot be written: No space left on device" == said(done)


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_a_reader_that_has_left_hears_nothing(words: list[str], folder: Path) -> None:
    done = shell(folder, words, "| true")
    assert (1, "") == (done.returncode, said(done))


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_a_closed_stdout_is_told_and_no_file_takes_its_place(words: list[str], folder: Path) -> None:
    done = shell(folder, words, "<&- >&-" if "map" not in words else ">&-")
    assert (1, "stdout cannot be written: Bad file descriptor") == (done.returncode, said(done))
    if (folder / "bridge.db").exists():
        with sqlite3.connect(folder / "bridge.db") as con:
            assert [("ok",)] == con.execute("PRAGMA integrity_check").fetchall()


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("redirected", ["2>&-", "2>/dev/full", "2> >(true)"])
def test_lines_for_people_that_cannot_be_written_change_nothing_else(redirected: str, folder: Path) -> None:
    good = shell(folder, ["store", "check", "--json"], redirected)
    assert (0, []) == (good.returncode, json.loads(good.stdout))
    assert 2 == shell(folder, ["serve", "--nonsense"], redirected).returncode
    assert 2 == shell(folder, ["dead-letters", "show", "7"], redirected).returncode
