"""The lives of daemons on a file, and with what in hand one ended without a word: killed, or without memory.

Rules:
- A life begins at `open` and ends at `close`. One that is still running at the next open ended without a word.
- What it had in hand is taken one by one, each noted in a transaction of its own before. A message that was in hand
  alone at the end of an earlier life is told from others by that note.
- SQLite's log stands beside one name of the file. Where it was left beside another name, the store is refused: what was
  accepted last would be gone, and the log would destroy the store later.
"""

import contextlib
import sqlite3
from pathlib import Path
from typing import Final

from bridge import logs
from bridge.store.codec import to_json
from bridge.store.entries import pending
from bridge.store.ledger import Ledger
from bridge.store.lives import IN_HAND
from bridge.store.port import Pending
from bridge.store.refusal import StoreRefused
from bridge.store.sqlite.inbox import claim
from bridge.store.sqlite.statements import value

_log = logs.logger("store")

# ---- the name -------------------------------------------------------------------------------------------------------


def refuse_lost_log(con: sqlite3.Connection, path: Path, *, has_log: bool) -> None:
    """Raise StoreRefused where the log of the last life stands beside another name; say so where there is none.

    `has_log` tells whether there was a log when the file was opened.
    """
    running, name = con.execute("SELECT running, name FROM life").fetchone()
    if not running or has_log:
        return
    other = Path(name)
    if other != path and _is_same(path, other) and _size(Path(f"{name}-wal")):
        raise StoreRefused(f"the store was served as {name} at last, and its log stands there: use that name")
    _log.warning(
        "log_missing", reason="the last daemon was killed, and no log of it is there: right for a restored copy"
    )


def _is_same(path: Path, other: Path) -> bool:
    with contextlib.suppress(OSError):
        return path.samefile(other)
    return False


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0


# ---- a life ---------------------------------------------------------------------------------------------------------

_BEGIN: Final = "UPDATE life SET number = number + 1, running = 1, name = ?, hand = NULL"
_SUSPECT: Final = "INSERT OR IGNORE INTO suspect (id) SELECT value FROM json_each(?)"
_WAITS: Final = """
SELECT json_group_array(value) FROM json_each(?) AS named
WHERE EXISTS (SELECT 1 FROM again WHERE id = named.value) OR EXISTS (
    SELECT 1 FROM inbox WHERE id = named.value AND id > ? AND NOT EXISTS (SELECT 1 FROM ahead WHERE ahead.id = inbox.id)
)
"""


def begin(con: sqlite3.Connection, ledger: Ledger, *, path: Path) -> bool:
    """Begin a life; return whether messages are taken one by one in it."""
    running, hand = con.execute("SELECT running, hand FROM life").fetchone()
    if running and value(con, "SELECT 1 FROM suspect LIMIT 1") is None:
        if hand is None:
            hand = to_json([message.id for message in claim(con, ledger, IN_HAND)])
        con.execute(_SUSPECT, (value(con, _WAITS, (hand, ledger.cursor)),))
    con.execute(_BEGIN, (str(path),))
    return value(con, "SELECT 1 FROM suspect LIMIT 1") is not None


def end(con: sqlite3.Connection, _: Ledger) -> None:
    """End a life in order: what was in hand was let go of."""
    con.execute("UPDATE life SET running = 0, hand = NULL")
    con.execute("UPDATE suspect SET ends = ends - 1, life = NULL WHERE life = (SELECT number FROM life)")


def forget(con: sqlite3.Connection) -> None:
    """Let a copy begin without a life."""
    con.execute("UPDATE life SET running = 0, hand = NULL")
    con.execute("DELETE FROM suspect")


def name_hand(con: sqlite3.Connection, ids: str | None) -> None:
    """Remember which messages are taken next."""
    con.execute("UPDATE life SET hand = ?", (ids,))


# ---- one by one -----------------------------------------------------------------------------------------------------

_FIRST: Final = """
SELECT suspect.life, ends, inbox.id, subscription, topic, received, body FROM suspect JOIN inbox USING (id)
ORDER BY NOT EXISTS (SELECT 1 FROM again WHERE again.id = suspect.id), suspect.id LIMIT 1
"""


def take(con: sqlite3.Connection, _: Ledger) -> list[Pending]:
    """Return the next message that is taken alone, and note that it is."""
    row = con.execute(_FIRST).fetchone()
    if row is None:
        con.execute("DELETE FROM suspect")
        return []
    before, ends, *message = row
    now = con.execute("SELECT number FROM life").fetchone()[0]
    ends += before != now
    con.execute("UPDATE suspect SET life = ?, ends = ? WHERE id = ?", (now, ends, message[0]))
    return [pending(message, ends)]


def clear(con: sqlite3.Connection, ids: str) -> None:
    """Forget that messages were suspect, which are done."""
    con.execute("DELETE FROM suspect WHERE id IN (SELECT value FROM json_each(?))", (ids,))
