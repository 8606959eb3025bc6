"""What room a store has on its disk, the reserve that is held back of it, and what kind of file system that is.

Rules:
- `<path>-reserve` holds back room for the day the disk is full: giving it up lets settling and deleting go on. An empty
  file beside it holds back an inode more: a start makes two files.
- A quota (EDQUOT), a limit on the size of a file (EFBIG) and want of inodes are a full disk too. SQLite reports them as
  I/O errors and the system's numbers do not show all of them, so `lacking` tries to take a little room.
- A limit on the size of a file (LimitFSIZE, `ulimit -f`) can be seen coming: it counts as the size of the disk.
- File systems that write every change to a new place need room for a page that is there already. Where a quota is used
  up, a write to mapped memory is then a bus error, which no program survives. There the store has no log in shared
  memory but a rollback journal.
"""

import contextlib
import errno
import os
import resource
from pathlib import Path
from typing import Final

RESERVE_BYTES: Final = 16 * 1024 * 1024
"""Room to write the whole log back on a full disk; the log's own room is free afterwards."""

LOW_SHARE: Final = 0.13
"""Share of the disk that is free; below it settled rows go before their time, so that the door never closes for them.

The door closes at a tenth (`receiver.gate`).
"""

PROBE_BYTES: Final = 256 * 1024
"""With less than this a disk is full: SQLite writes a page at a time."""

COPYING: Final = frozenset({"btrfs", "bcachefs", "nilfs2"})
"""File systems that write every change to a new place and let a mapped write fail."""

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Reserve:
    """Disk space held back; without it new messages are refused."""

    def __init__(self, store: Path, size: int = RESERVE_BYTES) -> None:
        """Name the store; nothing is held yet."""
        self._store = store
        self._path = store.with_name(store.name + "-reserve")
        self._inode = store.with_name(store.name + "-reserve-2")
        self._size = size
        self._used = 0  # by the store when the space was given up [bytes]
        self.held = False
        self.wanted = False  # a command beside the daemon holds none

    def begin(self) -> None:
        """Keep what a former life held back, or hold it where that leaves room for work."""
        self.wanted = True
        if self._is_there():
            self._hold(self._size)
        else:
            self.take_back()

    def _is_there(self) -> bool:
        try:
            return self._path.stat().st_size >= self._size
        except OSError:
            return False

    def take_back(self) -> bool:
        """Hold the space where the disk has as much again, or that would fill it; tell whether it is held."""
        room = free_bytes(self._store)
        limit = file_limit()
        if room is None or room < 2 * self._size:
            return self.held
        return self._hold(2 * self._size if limit is None else min(2 * self._size, max(limit, self._size)))

    def _hold(self, size: int) -> bool:
        """Take so much room, which no quota can deny then, and keep the reserve of it."""
        if not self.held:
            try:
                _fill(self._path, size)
                os.truncate(self._path, self._size)
                _fill(self._inode, 0)
            except OSError:
                self.release()
            else:
                self.held = True
        return self.held

    def release(self) -> None:
        """Give the space up."""
        self.held = False
        self._used = _used(self._store)
        for path in (self._path, self._inode):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def low(self) -> bool:
        """Tell whether less than half of the space is left, by the disk or by what the store took since it was free."""
        if (free_bytes(self._store) or 0) < self._size // 2:
            return True
        return not self.held and _used(self._store) - self._used > self._size // 2


def _fill(path: Path, size: int) -> None:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if size:
            os.posix_fallocate(file, 0, size)
    finally:
        os.close(file)


def _used(store: Path) -> int:
    """Return what database and log take of the disk [bytes]."""
    used = 0
    for ending in ("", "-wal", "-journal"):
        with contextlib.suppress(OSError):
            used += store.with_name(store.name + ending).stat().st_blocks * 512
    return used


def lacking(store: Path) -> str | None:
    """Return what the system says where next to nothing can be stored any more; None = room is not what is lacking."""
    limit = file_limit()
    if limit is not None and any(
        _size(store.with_name(store.name + ending)) + PROBE_BYTES > limit for ending in ("", "-wal")
    ):
        return os.strerror(errno.EFBIG)
    probe = store.with_name(store.name + "-probe")
    try:
        _fill(probe, PROBE_BYTES)
    except OSError as error:
        return error.strerror if error.errno in _FULL else None
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
    return None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def file_limit() -> int | None:
    """Return how large this process may make a file [bytes]; None = as large as it likes."""
    soft, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return None if soft == resource.RLIM_INFINITY else soft


def free_bytes(store: Path) -> int | None:
    """Return the space left for this user on the disk of a store [bytes]."""
    disk = _disk(store)
    return None if disk is None else disk.f_bavail * disk.f_frsize


def room_bytes(store: Path, used: int) -> int | None:
    """Return how much a store of a size may grow [bytes]: the disk's space, or what a limit leaves of it."""
    free, limit = free_bytes(store), database_limit()
    return free if free is None or limit is None else max(0, min(free, limit - used))


def disk_bytes(store: Path) -> int | None:
    """Return the size of the disk of a store, or of the limit on its file if that is smaller [bytes]."""
    disk, limit = _disk(store), database_limit()
    if disk is None:
        return None
    size = disk.f_blocks * disk.f_frsize
    return size if limit is None else min(size, limit)


def database_limit() -> int | None:
    """Return how large the database may become under a limit [bytes]; what is left is the reserve under it."""
    limit = file_limit()
    return None if limit is None else max(0, limit - RESERVE_BYTES)


def is_low(store: Path, used: int) -> bool:
    """Tell whether a store of a size has so little room left that the door may soon close for it."""
    room, disk = room_bytes(store, used), disk_bytes(store)
    return room is not None and disk is not None and room < disk * LOW_SHARE


def _disk(store: Path) -> os.statvfs_result | None:
    try:
        return os.statvfs(store.parent)
    except OSError:
        return None


def copies(store: Path) -> bool:
    """Tell whether the file system of a store writes every change to a new place."""
    return _file_system(store.parent) in COPYING


def _file_system(folder: Path) -> str:
    """Return the type of the file system that a folder is on; empty = unknown."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    kinds: dict[str, str] = {}  # the last mount at a place hides those before
    for line in lines:
        before, _, after = line.partition(" - ")
        kinds[before.split(" ")[4].encode().decode("unicode_escape")] = after.split(" ")[0]
    around = (str(place) for place in (folder, *folder.parents))
    return next((kinds[place] for place in around if place in kinds), "")
