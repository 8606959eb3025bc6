"""Who may serve a store: one daemon per file, by whatever name the file is called.

Rules:
- The daemon holds two locks, which a kill releases. One is on `<path>-lock`: a command asks it without touching the
  store. The other is on the file of the store itself: a hard link and a second mount of the file share it.
- SQLite's log stands beside one name of the file only. Who opens the store by another name starts a log of its own and
  destroys the store. So a command is refused while a daemon serves the file under another name.
- The lock on the file is one of the open file description (Linux), on a byte that SQLite neither locks nor stores data
  in. It holds across hard links, mounts and containers of one kernel, and an NFS server passes it on to other machines.
- The kernel does not let one lock across machines where the file system keeps locks to itself: NFS mounted with
  `nolock` or `local_lock`, SMB with `nobrl`, a folder that virtual machines share, most FUSE file systems.
- A process that closes a file ends its POSIX locks on it, those of SQLite too. So the file is opened before SQLite
  opens it, and closed after.
"""

import errno
import fcntl
import os
import struct
import time
from pathlib import Path
from typing import Final

from bridge.store.port import StoreUnavailable
from bridge.store.refusal import StoreRefused, of_file

PATIENCE_S: Final = 0.5
"""How long a starting daemon tries: a command that asks for the lock holds it for a moment."""

_PAUSE_S: Final = 0.05
_BYTE: Final = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0x4000_0000 + 1_024, 1, 0)
"""One byte of the page that SQLite leaves empty for its own locks, which are on the first 512 bytes of it."""

_UNKNOWN: Final = frozenset({errno.EINVAL, errno.ENOSYS})
_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, *_UNKNOWN})
_HELD: Final = frozenset({errno.EWOULDBLOCK, errno.EACCES})


class StoreServed(StoreRefused):
    """Another process holds the lock."""


class Lock:
    """The daemon's hold on a store."""

    def __init__(self, path: Path) -> None:
        """Name the store; nothing is held yet."""
        self._path = path
        self._held: list[int] = []

    def take(self) -> None:
        """Take the lock of this name, then that of the file, which must be there.

        Raises StoreServed when another process has one of them, StoreRefused where the file system knows no locks.
        """
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                self._take()
            except StoreServed:
                self.release()
                if time.monotonic() > until:
                    raise
                time.sleep(_PAUSE_S)
            except BaseException:
                self.release()
                raise
            else:
                return

    def _take(self) -> None:
        self._held.append(_opened(beside(self._path), os.O_RDWR | os.O_CREAT))
        if not _locked(self._held[-1]):
            raise StoreServed("another bridge already serves this store")
        self._held.append(_opened(self._path, os.O_RDWR))
        if not _file_locked(self._held[-1]):
            raise StoreServed("another bridge already serves this store, by another name of its file")

    def release(self) -> None:
        """Let another process take it; after SQLite has closed the store."""
        while self._held:
            os.close(self._held.pop())


def beside(path: Path) -> Path:
    """Return the file whose lock says that a store is served by this name."""
    return path.with_name(path.name + "-lock")


def served(path: Path) -> bool:
    """Tell whether a daemon serves a store by this name."""
    if not beside(path).exists():  # which a command does not make: it may run as another user than the daemon
        return False
    file = _opened(beside(path), os.O_RDWR)
    try:
        return not _locked(file)
    finally:
        os.close(file)


def refuse_another_name(path: Path) -> None:
    """Raise StoreServed where a daemon serves a store, but by another name of its file; before SQLite opens it."""
    if not path.exists() or served(path):
        return
    file = _opened(path, os.O_RDWR)
    try:
        if not _file_locked(file):
            raise StoreServed("a bridge serves this store by another name of its file: use that name")
    finally:
        os.close(file)


def _opened(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise of_file("the store cannot be opened", error) from error


def _locked(file: int) -> bool:
    """Take the lock of a file that is there for nothing else; False = another process has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return _answer(error)
    return True


def _file_locked(file: int) -> bool:
    """Take the lock of the file of a store; False = another process has it."""
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, _BYTE)
    except OSError as error:
        return _locked(file) if error.errno in _UNKNOWN else _answer(error)  # the kernel has no such locks
    return True


def _answer(error: OSError) -> bool:
    """Return that a lock is held, or say what the file system cannot do."""
    if error.errno in _HELD:
        return False
    if error.errno in _NO_LOCKS:
        sentence = f"the file system of the store knows no locks ({error.strerror}): put the store on a local disk"
        raise StoreRefused(sentence) from error
    raise StoreUnavailable(f"the store cannot be locked ({error.strerror})") from error
