"""States, homes and the directory, as the worker and the clock need them."""

import sqlite3
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec

from bridge.core.model import Residence
from bridge.core.vocabulary import DeviceKey, Kind
from bridge.store.codec import maybe_ms, to_json
from bridge.store.ledger import Ledger
from bridge.store.port import MOST_ROWS, Home, Versioned, Work
from bridge.store.ranks import looked_at
from bridge.store.recent import Recent
from bridge.store.residences import by_building, residence
from bridge.store.sqlite.statements import Batch, Row, gathered

_strings: Final = msgspec.json.Decoder(list[str])

# ---- reading --------------------------------------------------------------------------------------------------------

_RESIDENCES: Final = """
SELECT user, place, building, attributes FROM residence
WHERE user IN (SELECT value FROM json_each(?)) ORDER BY user, place
"""
_HOMES: Final = """
SELECT subscription, kind, device, building, user FROM home
WHERE (subscription, kind, device) IN (SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?))
"""
_NEWEST: Final = "SELECT id, version FROM building WHERE id IN (SELECT value FROM json_each(?))"
_STATES: Final = "SELECT id, version, state FROM building WHERE id IN (SELECT value FROM json_each(?))"


def places(
    con: sqlite3.Connection, users: Sequence[str], devices: Sequence[DeviceKey]
) -> tuple[dict[str, tuple[Residence, ...]], dict[DeviceKey, Home]]:
    """Read the directory rows of users and the homes of devices."""
    residences: dict[str, tuple[Residence, ...]] = {}
    for row in con.execute(_RESIDENCES, (to_json(list(users)),)) if users else ():
        found = residence(row)
        residences[found.user] = (*residences.get(found.user, ()), found)
    homes: dict[DeviceKey, Home] = {}
    for subscription, kind, device, building, user in con.execute(_HOMES, (to_json(devices),)) if devices else ():
        homes[DeviceKey(subscription, Kind(kind), device)] = Home(building=building, user=user)
    return residences, homes


_DIRECTORY: Final = """
WITH named AS (
    SELECT building FROM residence WHERE user = :user
    UNION SELECT value FROM changed, json_each(coalesce(buildings, '[]')) WHERE user = :user
)
SELECT named.building, user, place, residence.building, attributes
FROM named LEFT JOIN residence ON residence.building = named.building
ORDER BY named.building, user, place LIMIT :most
"""


def directory_of(con: sqlite3.Connection, user: str) -> dict[str, tuple[Residence, ...]]:
    """Read the rows of the buildings that a changed user's rows name, or named before."""
    return by_building(con.execute(_DIRECTORY, {"user": user, "most": MOST_ROWS}))


def states(con: sqlite3.Connection, buildings: Sequence[str], recent: Recent) -> dict[str, Versioned]:
    """Read the states of buildings, those that are not known as they are now; what is not there is absent."""
    if not buildings:
        return {}
    found: dict[str, Versioned] = {}
    unknown: list[str] = []
    for building, version in con.execute(_NEWEST, (to_json(buildings),)):
        known = recent.get(building, version)
        if known is None:
            unknown.append(building)
        else:
            found[building] = known
    for building, version, state in con.execute(_STATES, (to_json(unknown),)) if unknown else ():
        found[building] = recent.read(state, version)
    return found


def homes_of(con: sqlite3.Connection, user: str) -> dict[DeviceKey, str]:
    """Return all devices of a user."""
    found = con.execute("SELECT subscription, kind, device, building FROM home WHERE user = ?", (user,))
    return {DeviceKey(subscription, Kind(kind), device): building for subscription, kind, device, building in found}


def where_is(con: sqlite3.Connection, kind: Kind, device: str) -> dict[DeviceKey, str]:
    """Return where a device lives, of each subscription that has it."""
    found = con.execute("SELECT subscription, building FROM home WHERE kind = ? AND device = ?", (kind, device))
    return {DeviceKey(subscription, kind, device): building for subscription, building in found}


_DUE_OF: Final = """
WITH RECURSIVE payer (name) AS (
    SELECT min(subscription) FROM building WHERE due IS NOT NULL
    UNION ALL
    SELECT (SELECT min(subscription) FROM building WHERE due IS NOT NULL AND subscription > name) FROM payer
    WHERE name IS NOT NULL
)
SELECT name, (
    SELECT count(*) FROM (SELECT 1 FROM building WHERE subscription = name AND due <= ? LIMIT ?)
) FROM payer WHERE name IS NOT NULL
"""
_FIRST_OF: Final = """
SELECT due, id FROM building WHERE subscription = ? AND due <= ? ORDER BY due, id LIMIT ?
"""


def due(con: sqlite3.Connection, horizon: int, limit: int, used: Mapping[str, float]) -> list[str]:
    """Return buildings that are due at the horizon [ms]; subscriptions take turns."""
    shares = looked_at(dict(con.execute(_DUE_OF, (horizon, limit)).fetchall()), used, limit)
    found = [row for name, count in shares.items() for row in con.execute(_FIRST_OF, (name, horizon, count))]
    return [building for _, building in sorted(found)]


# ---- writing --------------------------------------------------------------------------------------------------------

_VERSIONS: Final = """
SELECT json_group_array(json_array(id, version, flags)) FROM building
WHERE id IN (SELECT value FROM json_each(?))
"""


class Old(msgspec.Struct, array_like=True):
    """What a building's row said before."""

    id: str
    version: int
    flags: str


def old(con: sqlite3.Connection, new: Sequence[Versioned]) -> Mapping[str, Old]:
    """Read versions and flags of the buildings that are to be written."""
    if not new:
        return {}
    rows = gathered(con, _VERSIONS, (to_json([row.state.id for row in new]),))
    return {row.id: row for row in msgspec.convert(rows, list[Old])}


def moved(before: Mapping[str, Old], new: Sequence[Versioned]) -> list[str]:
    """Return the buildings that have changed since they were read."""
    return sorted(row.state.id for row in new if _version(before, row.state.id) != row.version)


def _version(before: Mapping[str, Old], building: str) -> int:
    return before[building].version if building in before else 0


_WRITE: Final = Batch(
    "INSERT INTO building (id, version, flags, state, subscription) VALUES ",
    5,
    " ON CONFLICT (id) DO UPDATE SET version = excluded.version, flags = excluded.flags, state = excluded.state,"
    " subscription = excluded.subscription",
)
_WRITE_DUE: Final = Batch(
    "INSERT INTO building (id, version, flags, state, subscription, due) VALUES ",
    6,
    " ON CONFLICT (id) DO UPDATE SET version = excluded.version, flags = excluded.flags, state = excluded.state,"
    " subscription = excluded.subscription, due = excluded.due",
)
_DUE: Final = Batch(
    "WITH new (id, due) AS (VALUES ", 2, ") UPDATE building SET due = new.due FROM new WHERE building.id = new.id"
)
_HOME: Final = Batch(
    "INSERT INTO home (subscription, kind, device, building, user) VALUES ",
    5,
    " ON CONFLICT (subscription, kind, device) DO UPDATE SET building = excluded.building, user = excluded.user",
)
_LEAVE: Final = "DELETE FROM home WHERE subscription = ? AND kind = ? AND device = ?"

States = Sequence[tuple[str, int, str, bytes, str]]


def _flags(flags: Sequence[str]) -> str:
    """Return flags as the table keeps them."""
    return to_json(sorted(set(flags))) if flags else "[]"


def prepared(new: Sequence[Versioned], recent: Recent) -> States:
    """Encode new states, on the caller's side."""
    return [
        (row.state.id, row.version + 1, _flags(row.state.flags), recent.encoded(row.state), row.state.payer)
        for row in new
    ]


def write(
    con: sqlite3.Connection, ledger: Ledger, before: Mapping[str, Old], rows: States, due: Mapping[str, datetime | None]
) -> None:
    """Write states, and when the clock should look at buildings."""
    for building, _, flags, *_ in rows:
        was = before[building].flags if building in before else "[]"
        if was != flags:
            ledger.flag(_strings.decode(was), _strings.decode(flags))
    if ledger.erasures:
        first = ledger.first_version()
        rows = [row if row[0] in before else (row[0], first, *row[2:]) for row in rows]
    written = {row[0] for row in rows}
    _WRITE.run(con, [row for row in rows if row[0] not in due])
    _WRITE_DUE.run(con, [(*row, maybe_ms(due[row[0]])) for row in rows if row[0] in due])
    _DUE.run(con, [(building, maybe_ms(at)) for building, at in due.items() if building not in written])


def move_in(con: sqlite3.Connection, work: Work) -> None:
    """Write where devices live."""
    rows: list[Row] = []
    for device, home in work.homes.items():
        if home is None:
            con.execute(_LEAVE, device)
        else:
            rows.append((*device, home.building, home.user))
    _HOME.run(con, rows)
