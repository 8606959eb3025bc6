"""What keeps a store small and honest: retention, the census, the check."""

import sqlite3
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Final, NamedTuple

from bridge.store import entries
from bridge.store.codec import maybe_from_ms, to_json
from bridge.store.ledger import Ledger
from bridge.store.port import Census
from bridge.store.shares import EARLY_BYTES, EARLY_SHARE, FULL_SHARE
from bridge.store.sqlite import holdings
from bridge.store.sqlite.files import log_bytes
from bridge.store.sqlite.inbox import advance, forget_early, forget_rows, oldest_pending
from bridge.store.sqlite.room import disk_bytes, is_low, room_bytes
from bridge.store.sqlite.statements import gathered, value

STEP_ROWS: Final = 100
"""Rows that one step deletes, some 15 µs of CPU each: the door waits for one step at most."""

LOOK_ROWS: Final = 300
"""Rows that one step looks at; most of them may be exempt."""

SPARE_PAGES: Final = 128
"""Free pages that one step gives back to the disk, once there are many."""

SPARE_PAGES_LOW: Final = 1_000
"""The same while others need the disk (4 MiB, some 10 ms)."""

MANY_FREE: Final = 0.25
"""Share of free pages from which on they are given back; fewer are used again soon."""


class Swept(NamedTuple):
    """What one step of the sweep did."""

    deleted: int
    more: bool
    spare: int = 0  # free pages that the disk should have back


_LOOK: Final = f"""
SELECT json_group_array(json_array(id, received, message_id, length(body), id IN kept))
FROM (SELECT id, received, message_id, body FROM inbox WHERE id > :first AND id <= :last ORDER BY id LIMIT {LOOK_ROWS})
"""  # noqa: S608 - a constant
_KEPT: Final = """
WITH kept AS (
    SELECT id FROM parked WHERE id BETWEEN :first AND :last
    UNION ALL SELECT id FROM again WHERE id BETWEEN :first AND :last
    UNION ALL SELECT message FROM letter WHERE message BETWEEN :first AND :last
)
"""


def sweep(  # noqa: PLR0913 - what one step goes by
    con: sqlite3.Connection, ledger: Ledger, edge: int, *, young: int, max_size: int, path: Path, full: bool
) -> Swept:
    """Take one step: delete settled rows older than the edge [ms], or the oldest while there is too little room.

    What knows the repeats of messages that came at `young` [ms] or later stays in any case.
    """
    size = size_bytes(con, path)
    low = full or is_low(path, size)
    too_big = low or size > max_size * FULL_SHARE
    messages = _sweep_inbox(con, ledger, edge, young, everything=too_big)
    calls = _sweep_outbox(con, ledger, edge, everything=too_big and not messages.deleted)
    calls += con.execute(_FORGET_TICKS, (STEP_ROWS, ledger.forgotten_message)).rowcount
    room = int(min(max_size, disk_bytes(path) or max_size) * EARLY_SHARE)
    others = calls + _sweep_early(con, edge, young, room=room)
    return Swept(messages.deleted + others, messages.more or others > 0, _spare(con, low=low))


def _sweep_inbox(con: sqlite3.Connection, ledger: Ledger, edge: int, young: int, *, everything: bool) -> Swept:
    """Delete from the front of the log, up to the first message that is not old; of `everything` to the cursor."""
    advance(con, ledger)
    rows = gathered(con, _KEPT + _LOOK, {"first": ledger.swept, "last": ledger.cursor})
    since = entries.ages([int(str(row[1])) for row in rows])
    gone: list[int] = []
    ages: list[int] = []
    early: list[tuple[int, int, str]] = []
    size, last = 0, ledger.swept
    for (number, _, message_id, length, kept), received in zip(rows, since, strict=True):
        old = received < edge
        if (not old and not everything and not kept) or len(gone) >= STEP_ROWS:
            break
        last = int(str(number))
        if not kept:
            gone.append(last)
            ages.append(received)
            size += int(str(length))
            if (not old or received >= young) and message_id is not None:
                early.append((last, ages[-1], str(message_id)))
    moved = last > ledger.swept
    ledger.swept = last
    if gone:
        forget_rows(con, gone, early)
    con.execute("DELETE FROM owner WHERE last <= ?", (ledger.swept,))
    ledger.forget(gone, ages)
    ledger.inbox_rows -= len(gone)
    ledger.inbox_bytes -= size
    return Swept(len(gone), moved)


_EARLY: Final = "SELECT place, received FROM early ORDER BY place LIMIT ?"
_EARLY_ROWS: Final = "SELECT (SELECT max(place) FROM early) - (SELECT min(place) FROM early) + 1"


def _early_rows(con: sqlite3.Connection) -> int:
    """Return how many messages went early and have their repeats known still."""
    count = value(con, _EARLY_ROWS)
    return count if isinstance(count, int) else 0


def _sweep_early(con: sqlite3.Connection, edge: int, young: int, *, room: int) -> int:
    """Delete what knows repeats of messages that are old by now; the oldest of it where it takes more than its room."""
    over = _early_rows(con) - room // EARLY_BYTES
    rows = enumerate(con.execute(_EARLY, (STEP_ROWS,)).fetchall())
    past = takewhile(lambda row: row[1][1] < young and (row[0] < over or row[1][1] < edge), rows)
    gone = [place for _, (place, _) in past]
    if gone:
        forget_early(con, gone)
    return len(gone)


_DONE: Final = """
SELECT json_group_array(json_array(id, length(call), settled))
FROM (SELECT id, call, settled FROM outbox WHERE settled < ? AND state <> 'dead' ORDER BY settled LIMIT ?)
"""
_FORGET_CALLS: Final = (
    "DELETE FROM attempt WHERE call IN (SELECT value FROM json_each(?))",
    "DELETE FROM outbox WHERE id IN (SELECT value FROM json_each(?))",
)
# Without the messages before them ticks and copies say nothing.
_FORGET_TICKS: Final = "DELETE FROM tick WHERE id IN (SELECT id FROM tick ORDER BY id LIMIT ?) AND after < ?"
_END_OF_TIME: Final = 1 << 62


def _sweep_outbox(con: sqlite3.Connection, ledger: Ledger, edge: int, *, everything: bool) -> int:
    """Delete settled calls; a dead one stays as long as its letters."""
    rows = gathered(con, _DONE, (_END_OF_TIME if everything else edge, STEP_ROWS))
    gone = [row[0] for row in rows]
    for statement in _FORGET_CALLS if gone else ():
        con.execute(statement, (to_json(gone),))
    ledger.forget_calls([int(str(row[2])) for row in rows])
    ledger.outbox_rows -= len(gone)
    ledger.outbox_settled -= len(gone)
    ledger.outbox_bytes -= sum(int(str(row[1])) for row in rows)
    return len(gone)


_PAGES: Final = """
SELECT page_count, freelist_count, page_size
FROM pragma_page_count(), pragma_freelist_count(), pragma_page_size()
"""


def size_bytes(con: sqlite3.Connection, path: Path) -> int:
    """Return the size of a store: pages in use, and the log."""
    pages, free, page_size = con.execute(_PAGES).fetchone()
    return int((pages - free) * page_size + log_bytes(path))


def _spare(con: sqlite3.Connection, *, low: bool) -> int:
    """Return how many pages to give back: some when much of the file is free, or when others need the disk."""
    pages, free, _ = con.execute(_PAGES).fetchone()
    if low:
        return min(int(free), SPARE_PAGES_LOW)
    return SPARE_PAGES if free > max(SPARE_PAGES, pages * MANY_FREE) else 0


def spare_pages(con: sqlite3.Connection) -> int:
    """Return how many free pages to give back next, however few there are."""
    return min(int(con.execute(_PAGES).fetchone()[1]), SPARE_PAGES_LOW)


# ---- counting -------------------------------------------------------------------------------------------------------

_OLDEST_OWED: Final = "SELECT queued FROM outbox WHERE settled IS NULL ORDER BY id LIMIT 1"


def census(con: sqlite3.Connection, ledger: Ledger, *, path: Path, full: bool) -> Census:
    """Read the counts, and what is measured beside them."""
    owed, size = value(con, _OLDEST_OWED), size_bytes(con, path)
    return ledger.census(
        oldest_pending=maybe_from_ms(oldest_pending(con, ledger)),
        oldest_owed=maybe_from_ms(owed if isinstance(owed, int) else None),
        size_bytes=size,
        free_disk_bytes=room_bytes(path, size),
        passing_bytes=log_bytes(path) + _early_rows(con) * EARLY_BYTES,
        full=full,
    )


_COUNTS: Final = {
    "pending": """
        SELECT (SELECT count(*) FROM inbox WHERE id > (SELECT ledger ->> 'cursor' FROM bridge))
            - (SELECT count(*) FROM ahead) + (SELECT count(*) FROM again)
        """,
    "ahead": "SELECT count(*) FROM ahead",
    "again": "SELECT count(*) FROM again",
    "parked": "SELECT count(*) FROM parked",
    "dead": "SELECT count(*) FROM letter WHERE message IS NOT NULL",
    "calls_pending": "SELECT coalesce(sum(count - done), 0) FROM outbox WHERE state = 'owed'",
    "calls_dead": "SELECT count(*) FROM letter WHERE call IS NOT NULL",
    "inbox_rows": "SELECT count(*) FROM inbox",
    "inbox_bytes": "SELECT coalesce(sum(length(body)), 0) FROM inbox",
    "outbox_rows": "SELECT count(*) FROM outbox",
    "outbox_bytes": "SELECT coalesce(sum(length(call)), 0) FROM outbox",
    "outbox_settled": "SELECT count(*) FROM outbox WHERE settled IS NOT NULL",
}
_GROUPS: Final = {
    "dead_letters": "SELECT reason, count(*) FROM letter GROUP BY reason",
    "flags": "SELECT flag.value, count(*) FROM building, json_each(flags) AS flag GROUP BY flag.value",
}


def verify(con: sqlite3.Connection, ledger: Ledger) -> Sequence[str]:
    """Check the file, the identities, and the ledger against the rows; within one read transaction."""
    damage = [f"the file is damaged: {row[0]}" for row in con.execute("PRAGMA integrity_check(10)") if row[0] != "ok"]
    counted: dict[str, object] = {name: value(con, statement) for name, statement in _COUNTS.items()}
    counted |= {name: dict(con.execute(statement).fetchall()) for name, statement in _GROUPS.items()}
    return damage + ledger.problems() + ledger.differences(counted) + ledger.misheld(holdings.counted(con, ledger))
