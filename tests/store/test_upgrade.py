"""States of older schemas are brought up to date with their tables, in both kinds of store."""

import asyncio
import importlib.resources
import sqlite3
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Final

import pytest

from bridge import run
from bridge.config import Settings, StoreSettings
from bridge.core.messages import Facts, Quantity
from bridge.core.model import Building, Device, Sample, Slice, label
from bridge.core.vocabulary import DeadReason, DeviceKey, Kind
from bridge.store import upgrade
from bridge.store.codec import decode_state, encode_call, encode_state, to_ms
from bridge.store.desk import DeadFilter
from bridge.store.port import Outgoing, Work
from bridge.store.postgres import PostgresStore, schema
from bridge.store.postgres.replicas import BUCKETS
from bridge.store.ranks import Line, Rank
from bridge.store.shares import Share
from bridge.store.sqlite import SqliteStore, files
from tests.postgres import Server
from tests.store.values import HOLD, NOW, arrival, create, events

pytestmark = pytest.mark.anyio


def device(kind: Kind, id_: str, subscription: str = "sub-1") -> Device:
    sample = Sample(at=NOW, value=1.5, seen=NOW, updated=NOW, number=3)
    facts = Facts(name="Thing", updated=NOW)
    return Device(
        kind=kind, id=id_, user="user-1", subscription=subscription, since=NOW, stamp=NOW, facts=facts,
        series={Quantity.POWER: (sample,)},
    )  # fmt: skip


METER: Final = device(Kind.METER, "m")
TARIFF: Final = device(Kind.TARIFF, "t")
PRICES: Final = (Slice(start=NOW, end=NOW, price=Decimal("0.1000")),)


def as_before(*devices: Device, building: str = "home") -> Building:
    """Return a state as it was when a device was (kind, id)."""
    return Building(
        id=building,
        devices={label(one.kind, one.id): one for one in devices},
        gone={"vehicle:gone": NOW},
        gone_sent={"vehicle:gone": NOW},
        prices={"t": PRICES, "untold": PRICES},
    )


def now_of(state: Building) -> Building:
    return decode_state(upgrade.write(upgrade.by_subscription(upgrade.read(encode_state(state)))))


def test_what_a_state_names_is_its_subscriptions() -> None:
    found = now_of(as_before(METER, TARIFF))
    assert {"sub-1/meter:m": METER, "sub-1/tariff:t": TARIFF} == found.devices
    assert {"sub-1/vehicle:gone": NOW} == found.gone == found.gone_sent
    assert {"sub-1/tariff:t": PRICES, "sub-1/tariff:untold": PRICES} == found.prices


def test_what_nobody_can_tell_whose_it_was_is_dropped_where_two_live_together() -> None:
    other = device(Kind.METER, "n", "sub-2")
    found = now_of(as_before(TARIFF, other))
    assert {"sub-1/tariff:t": TARIFF, "sub-2/meter:n": other} == found.devices
    assert ({}, {}) == (found.gone, found.gone_sent)
    assert {"sub-1/tariff:t": PRICES} == found.prices
    departed = replace(as_before(TARIFF), departed=(replace(other, until=NOW),))
    assert {} == now_of(departed).gone


def test_an_empty_state_stays_empty() -> None:
    assert Building(id="home") == now_of(Building(id="home"))


async def compare(store: SqliteStore | PostgresStore) -> None:
    """Check that a store holds the states as they are named now."""
    mine = DeviceKey("sub-1", Kind.METER, "m")
    assert {mine: "home"} == await store.where_is(Kind.METER, "m")
    assert {"home-2"} == set((await store.where_is(Kind.METER, "n")).values())
    loaded = await store.load([], [mine], [])
    assert now_of(as_before(METER, TARIFF)) == loaded.buildings["home"].state
    assert 7 == loaded.buildings["home"].version
    (copy,) = await store.ticks("home")
    assert now_of(as_before(METER)) == copy.state
    assert {mine, mine._replace(kind=Kind.TARIFF, id="t")} <= set(await store.homes_of("user-1"))
    await store.commit(Work(now=NOW, due={"home": NOW, "home-2": NOW}))
    assert ["home-2"] == list((await store.due(NOW, 1, {"sub-1": 1.0}))[1])
    assert [] == list(await store.verify())


async def test_the_states_of_a_file_are_brought_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_PAGE", 1)
    path = tmp_path / "bridge.db"
    con = sqlite3.connect(path)
    for step in range(1, 6):
        con.executescript(
            importlib.resources.files("bridge.store").joinpath("sql", f"sqlite_{step}.sql").read_text(encoding="utf-8")
        )
    con.execute("INSERT INTO bridge (one, dry, ledger) VALUES (1, 0, '{}')")
    for state in (as_before(METER, TARIFF), as_before(device(Kind.METER, "n", "sub-2"), building="home-2")):
        con.execute("INSERT INTO building VALUES (?, 7, NULL, '[]', ?)", (state.id, encode_state(state)))
    con.execute("INSERT INTO home VALUES ('meter', 'm', 'home', 'user-1')")
    copy = encode_state(as_before(METER))
    con.execute("INSERT INTO tick VALUES (1, 'home', 0, ?, 0, 0, ?)", (to_ms(NOW), copy))
    con.execute(f"PRAGMA application_id = {files.APPLICATION}")
    con.execute("PRAGMA user_version = 5")
    con.commit()
    con.close()
    store = SqliteStore(str(path), exclusive=True)
    await store.open()
    await compare(store)
    await store.close()


async def test_the_states_of_a_shared_store_are_brought_up_to_date(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "_PAGE", 1)
    url = server.fresh()
    name = url.rpartition("=")[2]
    for step in range(1, 5):
        for statement in schema.script(step).split(";\n"):
            if statement.strip():
                server.execute(statement, schema=name)
    server.execute("INSERT INTO bridge (version, compatible) VALUES (4, 1)", schema=name)
    server.execute("INSERT INTO bucket (id) SELECT generate_series(0, $1::integer - 1)", BUCKETS, schema=name)
    for state in (as_before(METER, TARIFF), as_before(device(Kind.METER, "n", "sub-2"), building="home-2")):
        row = "INSERT INTO building (id, version, flags, state) VALUES ($1, 7, '[]', $2)"
        server.execute(row, state.id, encode_state(state), schema=name)
    server.execute("INSERT INTO home VALUES ('meter', 'm', 'home', 'user-1')", schema=name)
    server.execute("INSERT INTO belongs VALUES ('meter:m', 'user-1')", schema=name)
    copy = "INSERT INTO tick (building, after, at, catching_up, state) VALUES ('home', 0, $1, false, $2)"
    server.execute(copy, to_ms(NOW), encode_state(as_before(METER)), schema=name)
    assert schema.SCHEMA - 4 == await asyncio.to_thread(run.migrate, Settings(store=StoreSettings(url=url)))
    store = PostgresStore(url)
    await store.open()
    await compare(store)
    await store.close()


# ---- what is counted once -------------------------------------------------------------------------------------------

BEFORE_SHARES: Final = (
    "DROP INDEX letter_at",
    "DROP INDEX letter_subscription",
    "ALTER TABLE letter DROP COLUMN subscription",
)
"""What makes a store of schema 9 one that counted no shares, its counts aside."""

BEFORE_LINES: Final = tuple(
    f"ALTER TABLE {table} DROP COLUMN {column}" for table in ("lane", "outbox") for column in ("subscription", "rank")
)
"""What makes a store of today one of schema 9, its indexes aside."""


async def fill(store: SqliteStore | PostgresStore) -> dict[str, Share]:
    """Let subscriptions hold something of each kind; return what they hold."""
    await store.open()
    await store.accept([arrival() for _ in range(5)])
    await store.claim(10)
    calls = [Outgoing(call=events("a", 1), cause=1, subscription="sub-1")]
    await store.commit(Work(now=NOW, settled=[1], dead=[(2, DeadReason.FAULT, "")], parked=[(3, "u")], calls=calls))
    held = dict((await store.census()).shares)
    await store.close()
    assert 0 < min(held["sub-1"].pending, held["sub-1"].dead, held["sub-1"].parked, held["sub-1"].owed)
    return held


async def counted(store: SqliteStore | PostgresStore) -> dict[str, Share]:
    """Return what a store says that subscriptions hold."""
    await store.open()
    assert [] == list(await store.verify())
    assert ["sub-1"] == [letter.subscription for letter in await store.dead_letters(DeadFilter())]
    held = dict((await store.census()).shares)
    await store.close()
    return held


async def test_what_subscriptions_hold_of_an_old_file_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "bridge.db"
    held = await fill(SqliteStore(str(path), exclusive=True))
    con = sqlite3.connect(path)
    con.execute("DROP INDEX building_due")
    con.execute("ALTER TABLE building DROP COLUMN subscription")
    con.execute("CREATE INDEX building_due ON building (due)")
    con.execute("DROP INDEX lane_due")
    con.execute("CREATE INDEX lane_due ON lane (due)")
    for statement in (*BEFORE_LINES, *BEFORE_SHARES, "UPDATE bridge SET ledger = json_remove(ledger, '$.shares')"):
        con.execute(statement)
    con.execute("PRAGMA user_version = 8")
    con.commit()
    con.close()
    assert held == await counted(SqliteStore(str(path), exclusive=True))


async def test_what_subscriptions_hold_of_an_old_shared_store_is_counted(server: Server) -> None:
    url = server.fresh()
    name = url.rpartition("=")[2]
    held = await fill(PostgresStore(url, serving=True))
    less = "UPDATE counter SET ledger = (ledger::jsonb - 'shares')::text"
    for statement in (
        "DROP INDEX building_turn",
        "ALTER TABLE building DROP COLUMN subscription",
        "DROP INDEX lane_line",
        *BEFORE_LINES,
        *BEFORE_SHARES,
        less,
        "UPDATE bridge SET version = 8, compatible = 5",
    ):
        server.execute(statement, schema=name)
    assert schema.SCHEMA - 8 == await asyncio.to_thread(run.migrate, Settings(store=StoreSettings(url=url)))
    assert held == await counted(PostgresStore(url))


# ---- lines of lanes -------------------------------------------------------------------------------------------------

CALLS: Final = [
    (1, "a", "owed", 1, 1),  # id, building, state, form, cause
    (2, "a", "owed", 0, 1),
    (3, "b", "delivered", 1, 0),
    (4, "b", "owed", 0, 2),
    (5, "c", "owed", 0, 0),  # nobody's: of a tick
]


async def compare_lines(store: SqliteStore | PostgresStore) -> None:
    """Check that what waited waits in the lines where it belongs."""
    held = {Line("one", Rank.STATE): 9}
    lanes = [lane.building for lane in await store.lease(NOW, 10, 10, HOLD, held=held)]
    assert (["b", "c"], ["a"]) == (lanes, [lane.building for lane in await store.lease(NOW, 10, 10, HOLD)])


async def test_lanes_of_an_older_file_wait_in_lines(tmp_path: Path) -> None:
    path = tmp_path / "bridge.db"
    con = sqlite3.connect(path)
    for step in range(1, 9):
        con.executescript(
            importlib.resources.files("bridge.store").joinpath("sql", f"sqlite_{step}.sql").read_text(encoding="utf-8")
        )
    con.execute("INSERT INTO bridge (one, dry, ledger) VALUES (1, 0, '{}')")
    for number, name in enumerate(("one", "two"), 1):
        con.execute("INSERT INTO inbox VALUES (?, ?, 'topic', 0, NULL, 0, x'')", (number, name))
    for number, building, state, form, cause in CALLS:
        call = encode_call(create(building) if form else events(building, 1))
        con.execute(
            "INSERT INTO outbox (id, building, state, form, cause, queued, count, call)"
            " VALUES (?, ?, ?, ?, ?, 0, 1, ?)",
            (number, building, state, form, cause, call),
        )
        con.execute("INSERT INTO lane (building, due) VALUES (?, 0) ON CONFLICT DO NOTHING", (building,))
    con.execute(f"PRAGMA application_id = {files.APPLICATION}")
    con.execute("PRAGMA user_version = 8")
    con.commit()
    con.close()
    store = SqliteStore(str(path), exclusive=True)
    await store.open()
    await compare_lines(store)
    await store.close()


async def test_lanes_of_an_older_shared_store_wait_in_lines(server: Server) -> None:
    url = server.fresh()
    name = url.rpartition("=")[2]
    for step in range(1, 9):
        for statement in schema.script(step).split(";\n"):
            if statement.strip():
                server.execute(statement, schema=name)
    server.execute("INSERT INTO bridge (version, compatible) VALUES (8, 5)", schema=name)
    server.execute("INSERT INTO bucket (id) SELECT generate_series(0, $1::integer - 1)", BUCKETS, schema=name)
    for number, who in enumerate(("one", "two"), 1):
        row = "INSERT INTO inbox VALUES ($1, 0, $2, 'topic', 0, NULL, 0, NULL, '')"
        server.execute(row, number, who, schema=name)
    for number, building, state, form, cause in CALLS:
        call = encode_call(create(building) if form else events(building, 1)).decode()
        row = (
            "INSERT INTO outbox (id, building, state, form, cause, queued, count, call)"
            " VALUES ($1, $2, $3, $4, $5, 0, 1, $6)"
        )
        server.execute(row, number, building, state, form, cause, call, schema=name)
        row = "INSERT INTO lane (building, due) VALUES ($1, 0) ON CONFLICT DO NOTHING"
        server.execute(row, building, schema=name)
    await asyncio.to_thread(run.migrate, Settings(store=StoreSettings(url=url)))
    store = PostgresStore(url, told=True)
    await store.open()
    await compare_lines(store)
    await store.close()
