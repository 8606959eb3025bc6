"""One contract, every keeper: a new one is one more line in KEEPERS. And replicas: several keepers on one database."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Protocol

import pytest

from bridge.store.desk import Desk
from bridge.store.memory import MemoryStore
from bridge.store.port import Store
from bridge.store.postgres import PostgresStore
from bridge.store.sqlite import SqliteStore, lives
from tests.postgres import Server
from tests.store.replicas import LONG, SOON, Opened, dead, forget_soon, named

if TYPE_CHECKING:
    from pathlib import Path


class Keeper(Store, Desk, Protocol):
    """What every keeper is: a store and a desk."""


Maker = Callable[[], Keeper]


def _memory(_: pytest.FixtureRequest) -> Maker:
    return MemoryStore


def _sqlite(request: pytest.FixtureRequest) -> Maker:
    folder: Path = request.getfixturevalue("tmp_path")
    return lambda: SqliteStore(str(folder / "bridge.db"), exclusive=True)


def _postgres(request: pytest.FixtureRequest) -> Maker:
    server: Server = request.getfixturevalue("server")
    url = server.emptied()
    return lambda: PostgresStore(url, serving=True, told=True)


KEEPERS: Final[Mapping[str, Callable[[pytest.FixtureRequest], Maker]]] = {
    "memory": _memory,
    "sqlite": _sqlite,
    "postgres": _postgres,
}


@pytest.fixture(params=KEEPERS)
def make(request: pytest.FixtureRequest) -> Maker:
    """Return a maker of keepers of one kind over the same file or database."""
    return KEEPERS[request.param](request)


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


@pytest.fixture
async def after_a_kill(
    make: Callable[[], Keeper], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[[Keeper], Awaitable[Keeper]]]:
    """Return a function that ends a keeper without a word and starts another one on what it left."""
    opened: list[Keeper] = []

    async def again(keeper: Keeper) -> Keeper:
        match keeper:
            case MemoryStore():
                fresh: Keeper = keeper
            case SqliteStore():
                with monkeypatch.context() as patch:
                    patch.setattr(lives, "end", lambda *_: None)
                    await keeper.close()
                fresh = make()
            case PostgresStore():
                await dead(keeper)
                fresh = make()
                await forget_soon(keeper)
            case _:
                raise AssertionError(keeper)
        await fresh.open()
        opened.append(fresh)
        return fresh

    yield again
    for keeper in opened:
        await keeper.close()


@pytest.fixture
def url(server: Server) -> str:
    return server.emptied()


@pytest.fixture
async def opened(url: str) -> AsyncIterator[Opened]:
    """Return what opens one more keeper on the same database; all are closed at the end, and the ledger is checked."""
    keepers: list[PostgresStore] = []

    async def one(
        *, lease: timedelta = LONG, beat: timedelta = SOON, serving: bool = True, told: bool = True
    ) -> PostgresStore:
        keeper = PostgresStore(url, serving=serving, whose=named, lease=lease, beat=beat, told=told)
        await keeper.open()
        keepers.append(keeper)
        return keeper

    yield one
    desk = PostgresStore(url)
    assert [] == await desk.verify()
    await desk.close()
    for keeper in keepers:
        await keeper.close()
