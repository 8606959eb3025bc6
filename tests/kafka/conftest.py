"""One broker and one token endpoint for all tests; topics and groups of its own for each."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.kafka.broker import Broker, missing, running
from tests.kafka.inboxes import Inboxes, OneDatabase, OwnFiles
from tests.kafka.stage import Stream, reading
from tests.kafka.tokens import Issuer, issuing
from tests.life.stage import Bridge, Sandbox, bridged, sandboxed

_numbers: Final = itertools.count(1)


@pytest.fixture(scope="session")
def issuer() -> Iterator[Issuer]:
    """Run the token endpoint that the broker believes."""
    if reason := missing():
        pytest.skip(reason)
    with issuing() as started:
        yield started


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory, issuer: Issuer) -> Iterator[Broker]:
    """Run the broker."""
    with running(tmp_path_factory.mktemp("kafka"), issuer) as started:
        yield started


@pytest.fixture
def stream(broker: Broker) -> Stream:
    """Make the topics of a subscription that nobody else uses."""
    return Stream(broker, f"sub-{next(_numbers)}")


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    """Run a fresh look-alike of MOOST."""
    with sandboxed(tmp_path) as started:
        yield started


@pytest.fixture
def bridge(tmp_path: Path, stream: Stream) -> Iterator[Bridge]:
    """Prepare a daemon that reads the stream and whose MOOST is never there."""
    with bridged(tmp_path, "http://127.0.0.1:9") as prepared:
        yield reading(prepared, stream)


@pytest.fixture(params=["sqlite", "postgresql"])
def inboxes(request: pytest.FixtureRequest) -> Inboxes:
    """Return where daemons of one group keep what they accept."""
    return OwnFiles() if request.param == "sqlite" else OneDatabase(request.getfixturevalue("server"))


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Bridge, Bridge]]:
    """Prepare two daemons whose MOOST is never there."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    with bridged(one, "http://127.0.0.1:9") as first, bridged(other, "http://127.0.0.1:9") as second:
        yield first, second
