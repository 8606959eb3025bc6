"""States, homes and the directory, as the worker and the clock need them.

Rules:
- The rows of the buildings that a step changes are locked first, in the order of their ids: no two steps wait for each
  other in a circle.
- A state that is known as of the version that the row has now is not sent again by the server.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final, NamedTuple

import msgspec

from bridge.core.model import Residence
from bridge.core.vocabulary import DeviceKey, Kind
from bridge.store.codec import maybe_ms, to_json
from bridge.store.ledger import Ledger
from bridge.store.port import MOST_ROWS, Home, Versioned, Work
from bridge.store.postgres.connection import Connection, Row, columns
from bridge.store.ranks import looked_at
from bridge.store.recent import Recent
from bridge.store.residences import by_building, residence

TAKEN: Final = timedelta(seconds=10)
"""How long a building that is due belongs to the clock that was told so, where several run."""

_strings: Final = msgspec.json.Decoder(list[str])

# ---- reading --------------------------------------------------------------------------------------------------------

_PLACES: Final = """
SELECT NULL, NULL, user_id, place, building, attributes FROM residence WHERE user_id = ANY($1::text[])
UNION ALL
SELECT subscription, kind, device, building, user_id, NULL
FROM unnest($2::text[], $3::text[], $4::text[]) AS asked (subscription, kind, device)
    JOIN home USING (subscription, kind, device)
"""
_STATES: Final = """
SELECT id, building.version, CASE WHEN building.version = known.version THEN NULL ELSE state END
FROM unnest($1::text[], $2::bigint[]) AS known (id, version) JOIN building USING (id)
"""


async def places(
    con: Connection, users: Sequence[str], devices: Sequence[DeviceKey]
) -> tuple[dict[str, tuple[Residence, ...]], dict[DeviceKey, Home]]:
    """Read the directory rows of users and the homes of devices."""
    residences: dict[str, list[Residence]] = {}
    homes: dict[DeviceKey, Home] = {}
    if not users and not devices:
        return {}, {}
    found = await con.fetch(_PLACES, list(users), *columns(list(devices), 3))
    for subscription, kind, one, two, three, attributes in found:
        if kind is None:
            residences.setdefault(one, []).append(residence((one, two, three, attributes)))
        else:
            homes[DeviceKey(subscription, Kind(kind), one)] = Home(building=two, user=three)
    in_order = {user: tuple(sorted(rows, key=_by_place)) for user, rows in residences.items()}
    return in_order, homes


def _by_place(row: Residence) -> str:
    return "" if row.location is None else "=" + row.location


_DIRECTORY: Final = """
WITH named AS (
    SELECT building FROM residence WHERE user_id = $1 UNION SELECT unnest(buildings) FROM changed WHERE user_id = $1
)
SELECT named.building, user_id, place, residence.building, attributes
FROM named LEFT JOIN residence ON residence.building = named.building
ORDER BY named.building COLLATE "C", user_id COLLATE "C", place LIMIT $2
"""


async def directory_of(con: Connection, user: str) -> dict[str, tuple[Residence, ...]]:
    """Read the rows of the buildings that a changed user's rows name, or named before."""
    return by_building([tuple(row) for row in await con.fetch(_DIRECTORY, user, MOST_ROWS)])


async def states(con: Connection, buildings: Sequence[str], recent: Recent) -> dict[str, Versioned]:
    """Read the states of buildings; what is not there is absent."""
    if not buildings:
        return {}
    known = [recent.version(building) for building in buildings]
    found: dict[str, Versioned] = {}
    for building, version, state in await con.fetch(_STATES, list(buildings), known):
        as_known = recent.get(building, version) if state is None else None
        if as_known is not None:
            found[building] = as_known
        elif state is not None:
            found[building] = recent.read(state, version)
        else:  # forgotten while the server was asked
            found.update(await states(con, [building], Recent()))
    return found


async def homes_of(con: Connection, user: str) -> dict[DeviceKey, str]:
    """Return all devices of a user."""
    found = await con.fetch("SELECT subscription, kind, device, building FROM home WHERE user_id = $1", user)
    return {DeviceKey(subscription, Kind(kind), device): building for subscription, kind, device, building in found}


async def where_is(con: Connection, kind: Kind, device: str) -> dict[DeviceKey, str]:
    """Return where a device lives, of each subscription that has it."""
    found = await con.fetch("SELECT subscription, building FROM home WHERE kind = $1 AND device = $2", kind, device)
    return {DeviceKey(subscription, kind, device): building for subscription, building in found}


_PAYERS: Final = """
WITH RECURSIVE payer (name) AS (
    SELECT min(subscription) FROM building WHERE due IS NOT NULL
    UNION ALL
    SELECT (SELECT min(subscription) FROM building WHERE due IS NOT NULL AND subscription > name) FROM payer
    WHERE name IS NOT NULL
)
SELECT name, waiting.count FROM payer CROSS JOIN LATERAL (
    SELECT count(*) AS count FROM (
        SELECT FROM building WHERE subscription = name AND due <= $1 AND ($3::bigint = 0 OR taken_by = $3
            OR taken_until IS NULL OR taken_until NOT BETWEEN statement_timestamp() AND statement_timestamp() + $4)
        LIMIT $2
    ) AS found
) AS waiting WHERE name IS NOT NULL
"""
_DUE: Final = """
SELECT late.id FROM unnest($2::text[], $3::bigint[]) AS asked (subscription, share) CROSS JOIN LATERAL (
    SELECT id, due FROM building
    WHERE building.subscription = asked.subscription AND due <= $1 ORDER BY due, id LIMIT asked.share
) AS late
ORDER BY late.due, late.id
"""
_TAKE: Final = """
WITH first AS (
    SELECT late.id, late.due FROM unnest($2::text[], $5::bigint[]) AS asked (subscription, share) CROSS JOIN LATERAL (
        SELECT id, due FROM building
        WHERE building.subscription = asked.subscription AND due <= $1 AND (taken_by = $3 OR taken_until IS NULL
            OR taken_until NOT BETWEEN statement_timestamp() AND statement_timestamp() + $4)
        ORDER BY due, id LIMIT asked.share FOR UPDATE SKIP LOCKED
    ) AS late
), taken AS (
    UPDATE building SET taken_by = $3, taken_until = statement_timestamp() + $4 FROM first WHERE building.id = first.id
)
SELECT id FROM first ORDER BY due, id
"""


async def _shares(
    con: Connection, horizon: int, limit: int, used: Mapping[str, float], replica: int
) -> tuple[list[str], list[int]]:
    """Return how many buildings of which subscriptions have their turn."""
    due = {name: count for name, count in await con.fetch(_PAYERS, horizon, limit, replica, TAKEN) if count}
    shares = looked_at(due, used, limit)
    return list(shares), list(shares.values())


async def due(con: Connection, horizon: int, limit: int, used: Mapping[str, float]) -> list[str]:
    """Return buildings that are due at the horizon [ms]; subscriptions take turns."""
    names, shares = await _shares(con, horizon, limit, used, 0)
    return [row[0] for row in await con.fetch(_DUE, horizon, names, shares)] if names else []


async def take_due(con: Connection, horizon: int, limit: int, used: Mapping[str, float], replica: int) -> list[str]:
    """Return buildings that are due at the horizon [ms] and that no other clock was told of just now."""
    names, shares = await _shares(con, horizon, limit, used, replica)
    return [row[0] for row in await con.fetch(_TAKE, horizon, names, replica, TAKEN, shares)] if names else []


# ---- writing --------------------------------------------------------------------------------------------------------

_LOCK: Final = "SELECT id, version, flags FROM building WHERE id = ANY($1) ORDER BY id FOR UPDATE"
_INSERT: Final = """
INSERT INTO building (id, version, newest, due, flags, state, subscription)
SELECT id, version, newest, due, flags, state, subscription
FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::boolean[], $5::bigint[], $6::text[], $7::bytea[], $8::text[])
    AS new (id, version, newest, dues, due, flags, state, subscription)
ORDER BY id COLLATE "C"
ON CONFLICT DO NOTHING RETURNING id
"""
_UPDATE: Final = """
UPDATE building SET version = new.version, newest = greatest(building.newest, new.newest),
    due = CASE WHEN dues THEN new.due ELSE building.due END,
    taken_until = CASE WHEN dues THEN NULL ELSE taken_until END, flags = new.flags, state = new.state,
    subscription = new.subscription
FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::boolean[], $5::bigint[], $6::text[], $7::bytea[], $8::text[])
    AS new (id, version, newest, dues, due, flags, state, subscription)
WHERE building.id = new.id
"""
_LOOK: Final = """
UPDATE building SET due = new.due, taken_until = NULL FROM unnest($1::text[], $2::bigint[]) AS new (id, due)
WHERE building.id = new.id
"""
_HOME: Final = """
INSERT INTO home (subscription, kind, device, building, user_id)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])
    AS new (subscription, kind, device, building, user_id)
ORDER BY subscription, kind, device
ON CONFLICT (subscription, kind, device) DO UPDATE SET building = excluded.building, user_id = excluded.user_id
"""
_LEAVE: Final = """
DELETE FROM home USING unnest($1::text[], $2::text[], $3::text[]) AS gone (subscription, kind, device)
WHERE home.subscription = gone.subscription AND home.kind = gone.kind AND home.device = gone.device
"""


class Encoded(NamedTuple):
    """A state to write, encoded before the transaction."""

    id: str
    version: int  # as it was read
    flags: str
    state: bytes
    payer: str


def prepared(new: Sequence[Versioned], recent: Recent) -> list[Encoded]:
    """Encode new states."""
    return [
        Encoded(
            row.state.id,
            row.version,
            to_json(sorted(set(row.state.flags))) if row.state.flags else "[]",
            recent.encoded(row.state),
            row.state.payer,
        )
        for row in new
    ]


class Old(NamedTuple):
    """What a building's row said before."""

    version: int
    flags: str


async def lock(con: Connection, new: Sequence[Encoded], others: Sequence[str]) -> dict[str, Old]:
    """Lock the rows that are to be written, and return what they say."""
    named = {*(row.id for row in new), *others}
    if not named:
        return {}
    return {row[0]: Old(row[1], row[2]) for row in await con.fetch(_LOCK, list(named))}


def moved(before: Mapping[str, Old], new: Sequence[Encoded]) -> list[str]:
    """Return the buildings that have changed since they were read."""
    return sorted(row.id for row in new if (before[row.id].version if row.id in before else 0) != row.version)


async def write(
    con: Connection, ledger: Ledger, before: Mapping[str, Old], rows: Sequence[Encoded], work: Work
) -> dict[str, int] | list[str]:
    """Write states, and when the clock should look at buildings.

    Returns the new versions, or the buildings that somebody else has made in this moment.
    """
    values: dict[bool, list[tuple[object, ...]]] = {True: [], False: []}
    versions: dict[str, int] = {}
    first = 1 if all(row.id in before for row in rows) else await _first_version(con)
    for row in rows:
        old = before.get(row.id)
        versions[row.id] = first if old is None else row.version + 1
        was = "[]" if old is None else old.flags
        if was != row.flags:
            ledger.flag(_strings.decode(was), _strings.decode(row.flags))
        due = (row.id in work.due, maybe_ms(work.due.get(row.id)))
        newest = work.newest.get(row.id, 0)
        values[old is None].append((row.id, versions[row.id], newest, *due, row.flags, row.state, row.payer))
    if values[True]:
        made = {row[0] for row in await con.fetch(_INSERT, *columns(values[True], 8))}
        if len(made) < len(values[True]):
            return sorted(str(row[0]) for row in values[True] if row[0] not in made)
    if values[False]:
        await con.execute(_UPDATE, *columns(values[False], 8))
    looks = [(building, maybe_ms(at)) for building, at in work.due.items() if building not in versions]
    if looks:
        await con.execute(_LOOK, *columns(looks, 2))
    return versions


async def _first_version(con: Connection) -> int:
    """Return the version of a building that is not there yet: never one that an erased one of its name had."""
    found: int = await con.fetchval("SELECT 1 + (erasures << 32) FROM bridge")
    return found


async def move_in(con: Connection, work: Work) -> None:
    """Write where devices live."""
    if not work.homes:
        return
    rows = [(*device, home.building, home.user) for device, home in work.homes.items() if home is not None]
    gone: list[Row] = [device for device, home in work.homes.items() if home is None]
    if rows:
        await con.execute(_HOME, *columns(rows, 5))
    if gone:
        await con.execute(_LEAVE, *columns(gone, 3))
