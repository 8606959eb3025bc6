"""A piece of work is tried on a copy of the process."""

import os
import signal
import time
from pathlib import Path

import pytest

from bridge.worker import trial

pytestmark = pytest.mark.anyio


async def test_work_that_ends_is_lived_through_and_changes_nothing_here() -> None:
    seen: list[int] = []
    assert await trial.survives(lambda: seen.append(1))
    assert [] == seen


async def test_an_exception_is_no_end() -> None:
    def wrong() -> None:
        raise MemoryError

    assert await trial.survives(wrong)


async def test_a_copy_that_is_killed_has_not_lived_through_it() -> None:
    assert not await trial.survives(lambda: os.kill(os.getpid(), signal.SIGKILL))


async def test_a_copy_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "LONGEST_S", 0.2)
    before = _children()
    assert not await trial.survives(lambda: time.sleep(60))
    assert _children() <= before


def _children() -> set[str]:
    """Return the processes that this one has started; other tests of the same worker may have some of their own."""
    return {pid for tasks in Path("/proc/self/task").glob("*/children") for pid in tasks.read_text().split()}
