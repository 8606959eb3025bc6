"""One contract, every keeper: a new one is one more line in KEEPERS."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

import pytest

from bridge.store.memory import MemoryStore
from bridge.store.port import Desk, Store
from bridge.store.sqlite import SqliteStore


class Keeper(Store, Desk, Protocol):
    """What every keeper is: a store and a desk."""


def _memory(_: Path) -> Keeper:
    return MemoryStore()


def _sqlite(folder: Path) -> Keeper:
    return SqliteStore(str(folder / "bridge.db"), exclusive=True)


KEEPERS: Final[Mapping[str, Callable[[Path], Keeper]]] = {"memory": _memory, "sqlite": _sqlite}


@pytest.fixture(params=KEEPERS)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Keeper]:
    """Return a maker of keepers of one kind over the same file."""
    kind: str = request.param
    return lambda: KEEPERS[kind](tmp_path)


@pytest.fixture
async def store(make: Callable[[], Keeper]) -> AsyncIterator[Keeper]:
    """Return an open keeper; at its end the ledger must agree with the rows."""
    keeper = make()
    await keeper.open()
    yield keeper
    assert [] == await keeper.verify()
    await keeper.close()


@pytest.fixture
async def reopened(make: Callable[[], Keeper]) -> AsyncIterator[Callable[[Keeper], Awaitable[Keeper]]]:
    """Return a function that stops a keeper and starts another one on what it left."""
    opened: list[Keeper] = []

    async def again(keeper: Keeper) -> Keeper:
        await keeper.close()
        fresh = keeper if isinstance(keeper, MemoryStore) else make()
        await fresh.open()
        opened.append(fresh)
        return fresh

    yield again
    for keeper in opened:
        await keeper.close()
