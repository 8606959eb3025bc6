"""Where daemons that share a group keep what they accept: each in a file of its own, or all in one database.

Each is a parameter of the fixture `inboxes`, so that the stories run on both. Nothing may be twice in an inbox; in the
one database that holds across the daemons, whichever of them read a record first.
"""

import sqlite3
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from tests.life.stage import Bridge
from tests.postgres import Server

Place = tuple[str, int, int]
"""Topic, partition, offset."""


def place(message_id: str) -> Place:
    """Return where the record stands that a message was."""
    _, _, topic, partition, offset, _ = message_id.split(" ")
    return topic, int(partition), int(offset)


class Inboxes(Protocol):
    """What a story asks."""

    def prepare(self, bridge: Bridge) -> None:
        """Configure a daemon's store."""

    def held(self, bridges: Sequence[Bridge]) -> list[Counter[Place]]:
        """Return for each inbox which records it holds, and how often."""

    def rows(self, bridges: Sequence[Bridge]) -> int:
        """Return how many messages all inboxes hold, quickly."""


class OwnFiles:
    """SQLite: each daemon has a file."""

    def prepare(self, bridge: Bridge) -> None:
        """Leave it as it is."""

    def held(self, bridges: Sequence[Bridge]) -> list[Counter[Place]]:
        """Read each file."""
        return [inbox(bridge.store) for bridge in bridges]

    def rows(self, bridges: Sequence[Bridge]) -> int:
        """Return the sum of the last ids; a daemon that never ran has none."""
        return sum(last(bridge.store) for bridge in bridges)


class OneDatabase:
    """PostgreSQL: all daemons share one inbox."""

    def __init__(self, server: Server) -> None:
        """Make an empty one."""
        self._server = server
        self._url = server.fresh()
        self._schema = self._url.rpartition("=")[2]

    def prepare(self, bridge: Bridge) -> None:
        """Name the database."""
        bridge.configure(store={"url": self._url})

    def held(self, _bridges: Sequence[Bridge]) -> list[Counter[Place]]:
        """Read the inbox."""
        rows = self._read("SELECT message_id FROM inbox WHERE message_id LIKE 'kafka %'")
        return [Counter(place(str(row[0])) for row in rows)]

    def rows(self, _bridges: Sequence[Bridge]) -> int:
        """Count the rows; before a daemon has made the tables there are none."""
        made = self._read("SELECT to_regclass('inbox')")[0][0]
        return int(self._read("SELECT count(*) FROM inbox")[0][0]) if made else 0

    def _read(self, statement: str) -> list[Any]:
        return self._server.execute(statement, schema=self._schema)


def inbox(store: Path) -> Counter[Place]:
    """Return where the records stand that a file holds, each with how often it does."""
    return Counter(
        place(str(row[0])) for row in _read(store, "SELECT message_id FROM inbox WHERE message_id LIKE 'kafka %'")
    )


def last(store: Path) -> int:
    """Return the last id of an inbox."""
    rows = _read(store, "SELECT coalesce(max(id), 0) FROM inbox") if store.exists() else []
    return int(str(rows[0][0])) if rows else 0


def _read(store: Path, statement: str) -> list[tuple[object, ...]]:
    con = sqlite3.connect(f"file:{store}?mode=ro", uri=True, timeout=30)
    try:
        return list(con.execute(statement))
    except sqlite3.OperationalError:  # it is being made
        return []
    finally:
        con.close()
