"""What keeps a store small and honest: retention, the census, the check."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from bridge.store.calls import CallState
from bridge.store.codec import maybe_from_ms, to_json
from bridge.store.ledger import Ledger
from bridge.store.port import Census
from bridge.store.sqlite.files import free_bytes
from bridge.store.sqlite.inbox import oldest_pending
from bridge.store.sqlite.statements import gathered, value

STEP_ROWS: Final = 200
"""Rows that one step deletes."""

LOOK_ROWS: Final = 1_000
"""Rows that one step looks at; most of them may be exempt."""

VACUUM_PAGES: Final = 64
"""Free pages that one step gives back to the disk, once there are many."""

MANY_FREE: Final = 0.25
"""Share of free pages from which on they are given back; fewer are used again soon."""

FULL_SHARE: Final = 0.6
"""Above this share of the greatest size settled rows go before their time."""


class Swept(NamedTuple):
    """What one step of the sweep did."""

    deleted: int
    more: bool


_LOOK: Final = f"""
SELECT json_group_array(json_array(id, received, length(body), id IN kept))
FROM (SELECT id, received, body FROM inbox WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT {LOOK_ROWS})
"""  # noqa: S608 - a constant
_KEPT: Final = """
WITH kept AS (
    SELECT id FROM parked WHERE id BETWEEN ?1 AND ?2 UNION ALL SELECT id FROM again WHERE id BETWEEN ?1 AND ?2
    UNION ALL SELECT message FROM letter WHERE message BETWEEN ?1 AND ?2
)
"""
_FORGET: Final = (
    """
    DELETE FROM seen WHERE (message_id, subscription, position, digest) IN (
        SELECT seen.message_id, seen.subscription, seen.position, digest
        FROM json_each(?) AS gone
        CROSS JOIN inbox ON inbox.id = gone.value
        CROSS JOIN seen ON seen.message_id = inbox.message_id AND seen.message = inbox.id
    )
    """,
    "DELETE FROM note WHERE message IN (SELECT value FROM json_each(?))",
    "DELETE FROM discarded WHERE id IN (SELECT value FROM json_each(?))",
    "DELETE FROM inbox WHERE id IN (SELECT value FROM json_each(?))",
)


def sweep(con: sqlite3.Connection, ledger: Ledger, edge: int, max_size: int, path: Path) -> Swept:
    """Take one step: delete settled rows older than the edge [ms], or the oldest while the store is too big."""
    too_big = size_bytes(con, path) > max_size * FULL_SHARE
    messages = _sweep_inbox(con, ledger, edge, everything=too_big)
    calls = _sweep_outbox(con, ledger, edge, everything=too_big and not messages.deleted)
    _give_back_pages(con)
    return Swept(messages.deleted + calls, messages.more or calls > 0)


def _sweep_inbox(con: sqlite3.Connection, ledger: Ledger, edge: int, *, everything: bool) -> Swept:
    rows = gathered(con, _KEPT + _LOOK, (ledger.swept, ledger.cursor))
    gone, size, last = [], 0, ledger.swept
    for number, received, length, kept in rows:
        old = everything or int(str(received)) < edge
        if (not old and not kept) or len(gone) >= STEP_ROWS:
            break
        last = int(str(number))
        if not kept:
            gone.append(last)
            size += int(str(length))
    moved = last > ledger.swept
    ledger.swept = last
    for statement in _FORGET if gone else ():
        con.execute(statement, (to_json(gone),))
    con.execute("DELETE FROM owner WHERE last <= ?", (ledger.swept,))
    ledger.inbox_rows -= len(gone)
    ledger.inbox_bytes -= size
    return Swept(len(gone), moved)


_DONE: Final = """
SELECT json_group_array(json_array(id, length(call)))
FROM (
    SELECT id, call FROM outbox
    WHERE settled < ? AND (state <> 'dead' OR NOT EXISTS (SELECT 1 FROM letter WHERE letter.call = outbox.id))
    ORDER BY settled LIMIT ?
)
"""
