"""A program's system calls, as strace has seen them: what it wrote, made durable and sent, in which order.

Rules:
- A call has begun and ended at lines of the trace; of calls that overlap nothing is said about which came first.
- Data is complete: a string that strace cut short is an error.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

import pytest

STRACE: Final = (
    *("strace", "-D"),  # as a grandchild: the program keeps its process id, and a kill of it ends both
    *("-f", "--seccomp-bpf", "-y", "-x", "-s", "1000000"),
    "--signal=none",
    (
        "--trace=open,openat,creat,read,recvfrom,recvmsg,write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg,sendfile,"
        "copy_file_range,ftruncate,truncate,fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat"
    ),
)


@cache
def untraceable() -> str:
    """Return why system calls cannot be traced here; empty = they can."""
    if shutil.which("strace") is None:
        return "strace is not installed (Debian: apt-get install strace)"
    done = subprocess.run([*STRACE, "-o", "/dev/null", "true"], capture_output=True, text=True, check=False, timeout=60)
    return f"strace may not trace here: {done.stderr.strip()}" if done.returncode else ""


def program(output: Path) -> tuple[str, ...]:
    """Return what to start Python with so that it becomes a traced `bridge`; skips the test where that cannot be."""
    if why := untraceable():
        pytest.skip(why)
    command = [*STRACE, "-o", str(output), sys.executable, "-m", "bridge"]
    return ("-c", f"import os, sys; os.execvp('strace', {command!r} + sys.argv[1:])")


def is_complete(output: Path) -> bool:
    """Tell whether strace has seen the end of the program and written it down."""
    return b"+++ exited with" in output.read_bytes()[-60:]


@dataclass(slots=True)
class Call:
    """One system call."""

    name: str
    thread: int
    begun: int  # line of the trace
    path: str  # of its file, or which socket
    data: bytes = b""
    number: int = 0  # offset of a write, length of a truncation
    flags: str = ""
    ended: int = sys.maxsize
    result: int | None = None  # None = it had not ended


@dataclass(slots=True)
class _Reader:
    """Puts calls together that strace tells in two lines."""

    calls: list[Call] = field(default_factory=list)
    open: dict[int, tuple[int, str, str]] = field(default_factory=dict)  # by thread: line, name, first part

    def take(self, number: int, line: str) -> None:
        """Take a line."""
        thread, _, text = line.partition(" ")
        text = text.lstrip()
        if found := _RESUMED.match(text):
            begun, name, first = self.open.pop(int(thread))
            self._add(int(thread), name, first + found[2], begun, number)
        elif found := _BEGUN.match(text):
            name, rest = found[1], found[2]
            if rest.endswith("<unfinished ...>"):
                self.open[int(thread)] = number, name, rest.removesuffix("<unfinished ...>")
            else:
                self._add(int(thread), name, rest, number, number)

    def _add(self, thread: int, name: str, text: str, begun: int, ended: int) -> None:
        found = _RESULT.search(text)
        self.calls.append(_call(name, thread, begun, text[: found.start()] if found else text))
        if found:
            self.calls[-1].ended = ended
            self.calls[-1].result = int(found[1]) if found[1] != "?" else None


_BEGUN: Final = re.compile(r"(\w+)\((.*)", re.DOTALL)
_RESUMED: Final = re.compile(r"<\.\.\. (\w+) resumed>(.*)", re.DOTALL)
_RESULT: Final = re.compile(r"\)\s+= (-?\d+|\?)[^)\"]*(?:\([^()]*\))?$")
_FILE: Final = re.compile(r"\d+<([^>]*)>")
_LAST: Final = re.compile(r", (\d+)$")
_PLAIN: Final = re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)"')
_NAMING: Final = frozenset(
    {"open", "openat", "creat", "unlink", "unlinkat", "rename", "renameat", "renameat2", "link", "linkat"}
)


def _call(name: str, thread: int, begun: int, text: str) -> Call:
    strings, rest = _strings(text.rstrip())
    if name in _NAMING:
        return Call(name, thread, begun, strings[0].decode(), flags=rest)
    found, last = _FILE.match(text), _LAST.search(rest)
    assert last or name not in {"pwrite64", "ftruncate"}, f"where does it write: {text[-100:]}"
    return Call(name, thread, begun, found[1] if found else "", b"".join(strings), int(last[1]) if last else 0)


def _strings(text: str) -> tuple[list[bytes], str]:
    """Return the strings of a call's arguments, and what stands behind the last."""
    found = []
    while (start := text.find('"')) >= 0:
        if text.startswith("\\x", start + 1):  # strace writes a string in hex altogether, or not at all
            end = text.index('"', start + 1)
            found.append(bytes.fromhex(text[start + 1 : end].replace("\\x", "")))
            text = text[end + 1 :]
        else:
            plain = _PLAIN.match(text, start)
            assert plain is not None, f"a string without an end: {text[:100]}"
            found.append(plain[1].encode().decode("unicode_escape").encode("latin-1"))
            text = text[plain.end() :]
        assert not text.startswith("..."), "strace cut a string short"
    return found, text


def read(path: Path) -> list[Call]:
    """Return the calls of a trace, in the order in which they began."""
    reader = _Reader()
    with path.open(encoding="ascii", errors="replace") as lines:
        for number, line in enumerate(lines):
            reader.take(number, line.rstrip("\n"))
    for thread, (begun, name, first) in reader.open.items():
        reader.calls.append(_call(name, thread, begun, first))
    return sorted(reader.calls, key=lambda call: call.begun)


# ---- what the calls mean --------------------------------------------------------------------------------------------

SENDS: Final = frozenset({"write", "writev", "sendto", "sendmsg"})
READS: Final = frozenset({"read", "recvfrom", "recvmsg"})
SYNCS: Final = frozenset({"fsync", "fdatasync"})


@dataclass(frozen=True, slots=True)
class Trip:
    """The way of one request, as calls."""

    came: Call  # the read that brought the end of it
    written: Call | None  # its bytes, to the log
    synced: Call | None  # that log, by the same thread
    answered: Call  # the 202


def trips(calls: list[Call], words: list[bytes], log: str) -> Iterator[Trip]:
    """Yield the way of each request whose body holds one of these words and that got its 202."""
    written = [call for call in calls if call.name == "pwrite64" and call.path == log]
    synced = [call for call in calls if call.name in SYNCS and call.path == log and call.result == 0]
    for word in words:
        came = next(call for call in calls if call.name in READS and "socket" in call.path and word in call.data)
        answered = next(
            call
            for call in calls
            if call.begun > came.begun
            and call.name in SENDS
            and call.path == came.path
            and call.data.startswith(b"HTTP/1.1 202")
        )
        write = next((call for call in written if word in call.data), None)
        sync = write and next((c for c in synced if c.thread == write.thread and c.begun > write.ended), None)
        yield Trip(came, write, sync, answered)
