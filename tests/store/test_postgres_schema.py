"""The tables of the shared keeper: made once, brought up to date by a command, used by two releases at once."""

import asyncio
import contextlib

import pytest

from bridge import run
from bridge.config import Settings, StoreSettings
from bridge.store.port import Work
from bridge.store.postgres import PostgresStore, schema
from bridge.store.postgres.replicas import BUCKETS
from bridge.store.refusal import StoreRefused
from tests.postgres import Server
from tests.store.values import DAY, NOW, arrival

pytestmark = pytest.mark.anyio


@pytest.fixture
def url(server: Server) -> str:
    return server.emptied()


async def test_three_that_start_on_an_empty_database_make_the_tables_once(server: Server) -> None:
    url = server.fresh()
    keepers = [PostgresStore(url, serving=True) for _ in range(3)]
    await asyncio.gather(*(keeper.open() for keeper in keepers))
    assert [1] == [receipt.id for receipt in await keepers[1].accept([arrival()])]
    assert [0, 0, schema.SCHEMA] == sorted(keeper.steps_taken for keeper in keepers)
    for keeper in keepers:
        await keeper.close()


@pytest.mark.parametrize(
    ("version", "compatible", "refusal"),
    [
        (schema.SCHEMA + 1, schema.SCHEMA, None),  # the next release has been here, and lets us go on
        (schema.SCHEMA + 1, schema.SCHEMA + 1, "it is newer"),
        (schema.SCHEMA - 1, 0, "bridge store migrate"),
    ],
)
async def test_only_a_schema_that_fits_is_used(
    server: Server, url: str, version: int, compatible: int, refusal: str | None
) -> None:
    keeper = PostgresStore(url, serving=True)
    await keeper.open()
    await keeper.close()
    name = url.rpartition("=")[2]
    mark = "UPDATE bridge SET version = $1, compatible = $2"
    server.execute(mark, version, compatible, schema=name)
    try:
        again = PostgresStore(url, serving=True)
        with contextlib.nullcontext() if refusal is None else pytest.raises(StoreRefused, match=refusal):
            await again.open()
        await again.close()
    finally:
        server.execute(mark, schema.SCHEMA, schema.COMPATIBLE, schema=name)


async def test_a_store_of_the_first_schema_is_brought_up_to_date_by_the_command_alone(server: Server) -> None:
    url = server.fresh()
    name = url.rpartition("=")[2]
    for statement in schema.script(1).split(";\n"):
        if statement.strip():
            server.execute(statement, schema=name)
    server.execute("INSERT INTO bridge (version, compatible) VALUES (1, 1)", schema=name)
    server.execute("INSERT INTO bucket (id) SELECT generate_series(0, $1::integer - 1)", BUCKETS, schema=name)
    settings = Settings(store=StoreSettings(url=url))
    with pytest.raises(StoreRefused, match=r"has schema 1, .*: moost-bridge store migrate"):
        await PostgresStore(url, serving=True).open()
    assert schema.SCHEMA - 1 == await asyncio.to_thread(run.migrate, settings)
    assert 0 == await asyncio.to_thread(run.migrate, settings)
    keeper = PostgresStore(url, serving=True)
    await keeper.open()
    await keeper.accept([arrival(message_id="a")])
    await keeper.commit(Work(now=NOW, settled=[1]))
    assert 1 == await keeper.sweep(NOW, DAY, 1)
    assert [] == list(await keeper.verify())
    await keeper.close()
