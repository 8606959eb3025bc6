"""The tables of the shared store: made, checked, brought up to date.

Rules:
- An empty database is filled by whoever comes first; the others wait for it (advisory lock).
- A schema that is older than this release is brought up to date by `moost-bridge store migrate` alone, before the
  replicas are replaced one by one.
- Old and new release run side by side for one release: a step only adds tables, and columns with a default; what it
  removes was not used by the release before. `bridge.compatible` names the oldest release's schema that can go on.
  After a step that changes more (5: what a device is; 11: what is counted) that is its own: the older replicas are
  stopped first.
"""

import importlib.resources
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec

from bridge.store import upgrade
from bridge.store.ledger import Ledger, total
from bridge.store.postgres import holdings
from bridge.store.postgres.connection import Connection, Row, columns
from bridge.store.postgres.line import add
from bridge.store.postgres.replicas import BUCKETS
from bridge.store.refusal import StoreRefused
from bridge.store.shares import PARTS, grow

SCHEMA: Final = 12
"""Newest schema, one script per step, and what the states need of it."""

COMPATIBLE: Final = 11
"""Oldest release's schema that works with it."""

IDENTITY: Final = "SELECT identity FROM bridge"
"""What tells this store from every other one, also after a failover or a restore."""

_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtext('moost-bridge schema ' || current_schema()))"
# Not by to_regclass: within a transaction the server goes on believing its first answer, also after waiting for whoever
# makes the tables. A look into the catalogue is a look at what is committed.
_THERE: Final = """
SELECT EXISTS (SELECT FROM pg_class WHERE relname = 'bridge' AND relkind = 'r' AND pg_table_is_visible(oid))
"""
_STRANGE: Final = """
SELECT count(*) FROM pg_class
WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' AND relname = ANY($1)
"""
_TABLES: Final = ("inbox", "outbox", "building", "letter", "lane", "counter", "replica")


async def prepare(con: Connection, *, migrate: bool) -> int:
    """Make the tables where there are none, or check them; return how many steps were taken."""
    async with con.transaction():
        if await con.fetchval("SELECT current_schema()") is None:
            raise StoreRefused("the database has no schema to use: see search_path")
        if await con.fetchval(_THERE):
            ((version, compatible),) = await con.fetch("SELECT version, compatible FROM bridge")
            if version == SCHEMA or (version > SCHEMA >= compatible):
                return 0
            if version > SCHEMA:
                raise StoreRefused(f"the store has schema {version}, this release knows only {SCHEMA}: it is newer")
            if not migrate:
                raise StoreRefused(
                    f"the store has schema {version}, this release needs {SCHEMA}: moost-bridge store migrate"
                )
        await con.execute(_LOCK)
        return await _migrate(con)


async def _migrate(con: Connection) -> int:
    """Take all steps that are missing; whoever held the lock before may have taken them."""
    version = 0
    if await con.fetchval(_THERE):
        version = await con.fetchval("SELECT version FROM bridge")
    elif await con.fetchval(_STRANGE, list(_TABLES)):
        raise StoreRefused("the database holds tables of another program under the names of the store")
    for step in range(version + 1, SCHEMA + 1):
        await con.execute(script(step))
        if step in _STATES:
            await _STATES[step](con)
    if version == 0:
        await con.execute("INSERT INTO bridge (version, compatible) VALUES ($1, $2)", SCHEMA, COMPATIBLE)
        await con.execute("INSERT INTO bucket (id) SELECT generate_series(0, $1::integer - 1)", BUCKETS)
    elif version < SCHEMA:
        await con.execute("UPDATE bridge SET version = $1, compatible = $2", SCHEMA, COMPATIBLE)
    return max(0, SCHEMA - version)


async def _by_subscription(con: Connection) -> None:
    """Name the devices of all states with their subscription; fill `home` and `belongs` from them."""
    after = ""
    while rows := await con.fetch("SELECT id, state FROM building WHERE id > $1 ORDER BY id LIMIT $2", after, _PAGE):
        states = [upgrade.by_subscription(upgrade.read(state)) for _, state in rows]
        await con.execute(_STATE, [state["id"] for state in states], [upgrade.write(state) for state in states])
        homes: list[Row] = [home for state in states for home in upgrade.homes(state)]
        if homes:
            await con.execute(_HOME, *columns(homes, 5))
        after = rows[-1][0]
    place = 0
    while copies := await con.fetch(_COPIES, place, _PAGE):
        changed = [upgrade.write(upgrade.by_subscription(upgrade.read(state))) for _, state in copies]
        await con.execute(_COPY, [number for number, _ in copies], changed)
        place = copies[-1][0]
    await con.execute(
        "INSERT INTO belongs (device, user_id) SELECT subscription || '/' || kind || ':' || device, user_id FROM home"
    )


_PAGE: Final = 500
_STATE: Final = """
UPDATE building SET state = new.state FROM unnest($1::text[], $2::bytea[]) AS new (id, state)
WHERE building.id = new.id
"""
_HOME: Final = "INSERT INTO home SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])"
_COPIES: Final = "SELECT id, state FROM tick WHERE id > $1 AND state IS NOT NULL ORDER BY id LIMIT $2"
_COPY: Final = (
    "UPDATE tick SET state = new.state FROM unnest($1::bigint[], $2::bytea[]) AS new (id, state) WHERE tick.id = new.id"
)


async def _by_share(con: Connection) -> None:
    """Count what subscriptions hold."""
    known = total(msgspec.json.decode(row[0], type=Ledger) for row in await con.fetch("SELECT ledger FROM counter"))
    more = Ledger(shares=await holdings.counted(con))
    for subscription, share in known.shares.items():
        for part in PARTS:
            grow(more.shares, subscription, part, -getattr(share, part))
    await add(con, "gone", more)


_STATES: Final[Mapping[int, Callable[[Connection], Awaitable[None]]]] = {5: _by_subscription, 11: _by_share}
"""What else a step does, by its number."""


def script(step: int) -> str:
    """Return the statements of one step."""
    return importlib.resources.files("bridge.store").joinpath("sql", f"postgres_{step}.sql").read_text()


async def mark(con: Connection, *, dry: bool) -> None:
    """Check that a store belongs to this kind of run; the first daemon decides."""
    await con.execute("UPDATE bridge SET dry = $1 WHERE dry IS NULL", dry)
    marked = await con.fetchval("SELECT dry FROM bridge")
    if marked != dry:
        made = "a dry run" if marked else "real calls"
        raise StoreRefused(f"the store was made for {made}: give a dry run a store of its own")
