"""The database of an embedded store; for its lock see `lock`, for the disk below it `room`.

Rules:
- The log is fsynced at every commit (WAL, synchronous=FULL): what is committed survives a power cut.
- What SQLite is asked for is checked: a database without the log in shared memory is refused, and named.
- On a file system where a mapped write may fail there is a rollback journal instead, fsynced as well (see `room`).
- Deleted bytes are overwritten where that costs no extra page (secure_delete=FAST).
"""

import contextlib
import importlib.resources
import os
import sqlite3
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from bridge.store import upgrade
from bridge.store.ledger import Ledger
from bridge.store.port import StoreBroken, StoreBusy, StoreUnavailable
from bridge.store.refusal import StoreRefused
from bridge.store.sqlite import holdings, room

APPLICATION: Final = 0x4D4F4F53
"""Marks the file as ours ("MOOS")."""

SCHEMA: Final = 12
"""Newest schema; older ones are brought up to date at `open`, one script per step, and what the states need of it."""

BUSY_TIMEOUT_S: Final = 5.0
"""How long to wait for another process; commands write at most 100 rows a transaction."""

LOG_BYTES: Final = 16 * 1024 * 1024
"""A longer log is shortened by the writer itself, whatever that costs."""

SMALL_BYTES: Final = 32 * 1024 * 1024
"""A file up to this size is written anew within a fraction of a second, on a slow disk too."""

EMPTY_S: Final = 30.0
"""How long to try to empty the log beside a busy daemon."""

_CACHE_KIB: Final = 16 * 1024
_INCREMENTAL: Final = 2  # SQLite's number for giving pages back on request
_MOST_PAGES: Final = 0x3FFF_FFFF
_MARGIN: Final = 4 * 2**20  # [bytes] for what else is written meanwhile
_HEADER: Final = 20  # [bytes] of a file, of which two say whether it keeps a log
_VERSIONS: Final = slice(18, 20)
_NO_MEMORY: Final = "the file system gives the log of the store no shared memory"


def create(path: Path) -> None:
    """Make the file if there is none, for nobody else to read; the log takes its mode from it."""
    with contextlib.suppress(OSError):  # opening it says what is wrong
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def connect(path: Path, *, write: bool) -> sqlite3.Connection:
    """Open a connection without implicit transactions; usable from any thread, one at a time."""
    mode = "rwc" if write else "ro"
    con = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=512,
    )
    try:
        con.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        con.execute("PRAGMA temp_store = MEMORY")
        if write:
            if _pragma(con, "auto_vacuum") != _INCREMENTAL:  # setting it is a write, for which a full disk has no room
                con.execute(f"PRAGMA auto_vacuum = {_INCREMENTAL}")
            _set_journal(con, path)
            con.execute("PRAGMA synchronous = FULL")
            con.execute("PRAGMA secure_delete = FAST")
            con.execute("PRAGMA wal_autocheckpoint = 0")
    except sqlite3.Error:
        con.close()
        raise
    return con


def _set_journal(con: sqlite3.Connection, path: Path) -> None:
    """Have the log in shared memory, or a rollback journal where that is not safe; raise StoreRefused without it."""
    wanted = "truncate" if room.copies(path) else "wal"
    (mode,) = con.execute(f"PRAGMA journal_mode = {wanted}").fetchone()
    if mode != wanted:
        raise StoreRefused(f"{_NO_MEMORY} (journal mode {mode}): put the store on a local disk")


def leave_log(path: Path) -> None:
    """Give a store its rollback journal where it still has a log, and shared memory is not safe; before all else.

    So it comes from another disk or from an older release. Nothing is mapped here: this connection is the only one.
    """
    if not room.copies(path) or not has_log(path):
        return
    con = sqlite3.connect(f"{path.absolute().as_uri()}?vfs=unix-excl", uri=True, timeout=BUSY_TIMEOUT_S)
    try:
        _set_journal(con, path)  # with the fsyncs that are SQLite's default
    finally:
        con.close()


def has_log(path: Path) -> bool:
    """Tell whether a file is a database that keeps a log, by its header."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        return file.read(_HEADER)[_VERSIONS] == b"\2\2"
    return False


def prepare(con: sqlite3.Connection) -> None:
    """Create the schema or bring it up to date; refuse a file that is not ours or too new."""
    con.execute("BEGIN IMMEDIATE")
    try:
        _migrate(con)
    except BaseException:
        con.execute("ROLLBACK")
        raise
    con.execute("COMMIT")


def _migrate(con: sqlite3.Connection) -> None:
    version, application = _pragma(con, "user_version"), _pragma(con, "application_id")
    empty = con.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    if application != APPLICATION and not empty:
        raise StoreRefused("the file is a database of another program")
    if version > SCHEMA:
        raise StoreRefused(f"the store has schema {version}, this release knows only {SCHEMA}: it is newer")
    for step in range(version + 1, SCHEMA + 1):
        script = importlib.resources.files("bridge.store").joinpath("sql", f"sqlite_{step}.sql").read_text()
        for statement in _statements(script):
            con.execute(statement)
        if step in _STATES:
            _STATES[step](con)
    if empty:
        con.execute("INSERT INTO bridge (one, dry, ledger) VALUES (1, NULL, '{}')")
    if version != SCHEMA or application != APPLICATION:
        con.execute(f"PRAGMA application_id = {APPLICATION}")
        con.execute(f"PRAGMA user_version = {SCHEMA}")


def _by_subscription(con: sqlite3.Connection) -> None:
    """Name the devices of all states with their subscription; fill `home` from them."""
    after = ""
    while rows := con.execute(
        "SELECT id, state FROM building WHERE id > ? ORDER BY id LIMIT ?", (after, _PAGE)
    ).fetchall():
        states = [upgrade.by_subscription(upgrade.read(state)) for _, state in rows]
        con.executemany(
            "UPDATE building SET state = ? WHERE id = ?", [(upgrade.write(state), state["id"]) for state in states]
        )
        con.executemany(
            "INSERT INTO home VALUES (?, ?, ?, ?, ?)", [home for one in states for home in upgrade.homes(one)]
        )
        after = rows[-1][0]
    place = 0
    while copies := con.execute(
        "SELECT id, state FROM tick WHERE id > ? AND state IS NOT NULL ORDER BY id LIMIT ?", (place, _PAGE)
    ).fetchall():
        changed = [(upgrade.write(upgrade.by_subscription(upgrade.read(state))), number) for number, state in copies]
        con.executemany("UPDATE tick SET state = ? WHERE id = ?", changed)
        place = copies[-1][0]


def _by_share(con: sqlite3.Connection) -> None:
    """Count what subscriptions hold."""
    for (text,) in con.execute("SELECT ledger FROM bridge").fetchall():
        ledger = msgspec.json.decode(text, type=Ledger)
        ledger.shares = holdings.counted(con, ledger)
        con.execute("UPDATE bridge SET ledger = ?", (msgspec.json.encode(ledger).decode(),))


_PAGE: Final = 500
_STATES: Final[Mapping[int, Callable[[sqlite3.Connection], None]]] = {6: _by_subscription, 11: _by_share}
"""What else a step does, by its number."""


def _statements(script: str) -> list[str]:
    lines = [line for line in script.splitlines() if not line.startswith("--")]
    return [statement for statement in "\n".join(lines).split(";") if statement.strip()]


def _pragma(con: sqlite3.Connection, name: str) -> int:
    return int(con.execute(f"PRAGMA {name}").fetchone()[0])


def mark(con: sqlite3.Connection, *, dry: bool) -> None:
    """Check that a store belongs to this kind of run; the first daemon decides."""
    marked = con.execute("SELECT dry FROM bridge").fetchone()[0]
    if marked is None:
        con.execute("UPDATE bridge SET dry = ?", (int(dry),))
    elif bool(marked) != dry:
        made = "a dry run" if marked else "real calls"
        raise StoreRefused(f"the store was made for {made}: give a dry run a store of its own")


def small(path: Path) -> bool:
    """Tell whether a file is written anew before anybody notices."""
    return path.stat().st_size <= SMALL_BYTES


def no_room_to_rewrite(path: Path, used: int) -> str | None:
    """Return why a file cannot be written anew, in a sentence; None = there is room. `used` is what it holds [bytes].

    SQLite writes a copy, a small one in memory, and then all of it to the log (or what was there to the journal).
    """
    needed, free = used + used * (not small(path)) + _MARGIN, room.free_bytes(path)
    if free is None or free >= needed:
        return None
    wanted, there = needed // 2**20 + 1, free // 2**20
    return f"writing the file anew takes {wanted} MiB of the disk for a while, {there} MiB are free: make room first"


def rewrite(con: sqlite3.Connection, path: Path) -> None:
    """Write the whole file anew: nothing of what was deleted is in it afterwards.

    A large copy is written beside the file, not to the system's temporary folder, which may be small or in memory.
    """
    if not small(path):
        con.execute("PRAGMA temp_store = FILE")
        folder = str(path.parent)
        con.execute("PRAGMA temp_store_directory = '{}'".format(folder.replace("'", "''")))
        asked = con.execute("PRAGMA temp_store_directory").fetchone()
        if asked != (folder,) and "SQLITE_TMPDIR" not in os.environ:
            raise StoreUnavailable("this SQLite does not say where it writes its copy: set SQLITE_TMPDIR to a folder")
    con.execute("VACUUM")


def copy(con: sqlite3.Connection, target: Path) -> None:
    """Write all that a database holds at this moment to a new file, for nobody else to read, and fsync it."""
    file = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        con.execute("VACUUM INTO ?", (str(target),))
        os.fsync(file)
    finally:
        os.close(file)


def sync_folder(path: Path) -> None:
    """Make the name of a file certain."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def empty_log(con: sqlite3.Connection) -> None:
    """Write the log back and cut it to nothing; a reader, or another checkpoint, is waited for."""
    end = time.monotonic() + EMPTY_S
    while con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
        if time.monotonic() > end:
            raise StoreUnavailable("the log cannot be emptied: another process reads the store all the time")
        time.sleep(0.05)


def give_back(con: sqlite3.Connection, pages: int) -> None:
    """Shrink the file by so many free pages, or all there are, in a transaction of its own.

    SQLite returns after each page, and of a statement without columns Python takes only the first step; a script it
    runs to its end.
    """
    if not con.in_transaction:  # which a script would commit
        con.executescript(f"PRAGMA incremental_vacuum({pages})")


def set_ceiling(con: sqlite3.Connection, size: int | None) -> None:
    """Let a database grow up to a size [bytes], beyond which SQLite calls the disk full; None = as far as it can."""
    pages = _MOST_PAGES if size is None else max(1, size // _pragma(con, "page_size"))
    con.execute(f"PRAGMA max_page_count = {pages}")


def log_bytes(path: Path) -> int:
    """Return the length of the log file of a store [bytes]."""
    try:
        return os.stat(f"{path}-wal").st_size  # noqa: PTH116 - after every transaction: a path of its own costs 15 µs
    except OSError:
        return 0


def log_is_there(path: Path) -> bool:
    """Tell whether a log stands beside a store, however short."""
    return os.path.exists(f"{path}-wal")  # noqa: PTH110 - as in `log_bytes`


def unavailable(error: sqlite3.Error, lacking: str | None = None) -> StoreUnavailable | None:
    """Return the condition behind a database error; None = it is a bug of ours.

    `lacking` is what the system says where it has no room, whatever SQLite makes of that.
    """
    full = _code(error)
    code = full & 0xFF
    if code in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISUSE):
        return None
    if lacking is not None:
        return StoreUnavailable(f"the disk is full ({lacking})")
    words = _NO_MEMORY if full in _MEMORY else _CONDITIONS.get(code, "the disk does not do as told")
    sentence = f"{words} ({error})"
    if code == sqlite3.SQLITE_BUSY:
        return StoreBusy(sentence)
    return StoreBroken(sentence) if code in _ENDS else StoreUnavailable(sentence)


def may_be_full(error: BaseException | None) -> bool:
    """Tell whether want of room may be behind an error: of a quota, a limit and inodes SQLite does not say so."""
    return isinstance(error, sqlite3.Error) and (_code(error) & 0xFF) in _ROOM


def lacks_memory(error: BaseException | None) -> bool:
    """Tell whether the log could not have its shared memory."""
    return isinstance(error, sqlite3.Error) and _code(error) in _MEMORY


def _code(error: sqlite3.Error) -> int:
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return code


_CONDITIONS: Final[Mapping[int, str]] = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_BUSY: "another process holds the store",
    sqlite3.SQLITE_READONLY: "the store cannot be written",
    sqlite3.SQLITE_CANTOPEN: "the store cannot be opened",
    sqlite3.SQLITE_CORRUPT: "the store is damaged",
    sqlite3.SQLITE_NOTADB: "the file is not a store",
}
_ROOM: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN})
_MEMORY: Final = frozenset({sqlite3.SQLITE_IOERR_SHMOPEN, sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_SHMMAP})
_ENDS: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
"""Conditions that waiting does not heal."""


def identity(path: Path) -> tuple[int, int]:
    """Return which file a path means now; raise StoreBroken if none: SQLite would go on writing into a deleted file."""
    try:
        found = path.stat()
    except OSError as error:
        raise StoreBroken(f"the store is gone ({error.strerror})") from error
    return found.st_dev, found.st_ino
