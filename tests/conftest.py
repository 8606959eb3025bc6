"""What every room's tests share."""

import os
from typing import Any

import pytest
from hypothesis import settings

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
