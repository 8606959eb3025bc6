"""A look-alike and a daemon for each test; files that can share them make their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.life.stage import Bridge, Sandbox, bridged, sandboxed


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    """Run a fresh look-alike."""
    with sandboxed(tmp_path) as started:
        yield started


@pytest.fixture
def bridge(tmp_path: Path, sandbox: Sandbox) -> Iterator[Bridge]:
    """Prepare a daemon beside it, not yet started."""
    with bridged(tmp_path, sandbox.url) as prepared:
        yield prepared
