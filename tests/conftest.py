"""What every room's tests share."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.postgres import MISSING, Server, binaries, running

# A shared machine is slow at times; a law is not broken by that.
settings.register_profile("bridge", deadline=None, print_blob=True)
settings.load_profile("bridge")


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Run asynchronous tests on plain asyncio."""
    return "asyncio", {"use_uvloop": False}


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the variables of whoever runs the tests out of them."""
    for name in [name for name in os.environ if name.startswith("BRIDGE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 64 MiB, which only root can do."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)  # noqa: S607 - from the system


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """Return the PostgreSQL server that the tests share."""
    yield from _served()


@pytest.fixture(scope="module")
def own() -> Iterator[Server]:
    """Run a server that a test may stop, and starts again."""
    yield from _served()


def _served() -> Iterator[Server]:
    """Run a server; where none is installed the tests are skipped, and say so."""
    if binaries() is None:
        pytest.skip(MISSING)
    with running() as one:
        yield one
