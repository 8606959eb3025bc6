"""A disk that keeps what was fsynced, and of the rest whatever it likes: what a power cut leaves of some files.

Rules:
- A write is certain once an fsync of its file that began after it has ended; until then any part of it may be lost:
  all, all but the first, some, or some sectors of it.
- A new, removed or replaced name is certain once its folder was fsynced.
- A call that the model does not know is an error, as soon as it touches one of the files.
"""

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.life.trace import SYNCS, Call

SECTOR: Final = 512
"""The least that a disk writes at once [bytes]."""

_READING: Final = frozenset({"read", "sendfile"})


@dataclass(slots=True)
class _File:
    certain: bytearray = field(default_factory=bytearray)
    waiting: list[Call] = field(default_factory=list)

    def synced(self, began: int) -> None:
        """Make certain what had ended when an fsync began."""
        for call in self.waiting:
            if call.ended < began:
                _apply(self.certain, call.number, call.data, truncate=call.name == "ftruncate")
        self.waiting = [call for call in self.waiting if call.ended >= began]

    def after_a_cut(self, chance: random.Random) -> bytearray:
        """Return one of the contents that the file may have."""
        content = bytearray(self.certain)
        fate = chance.choice(("all lost", "the first kept", "some kept", "torn"))
        if fate == "all lost":
            return content
        kept = self.waiting
        if fate == "the first kept":
            kept = kept[: chance.randint(0, len(kept))]
        for call in kept:
            if fate != "the first kept" and chance.random() < 1 / 2:
                continue
            torn = fate == "torn" and call.name == "pwrite64"
            for start, piece in _sectors(call) if torn else [(call.number, call.data)]:
                if not torn or chance.random() < 1 / 2:
                    _apply(content, start, piece, truncate=call.name == "ftruncate")
        return content


def _sectors(call: Call) -> list[tuple[int, bytes]]:
    edges = [call.number, *range(call.number // SECTOR * SECTOR + SECTOR, call.number + len(call.data), SECTOR)]
    ends = [*edges[1:], call.number + len(call.data)]
    return [(a, call.data[a - call.number : b - call.number]) for a, b in zip(edges, ends, strict=True)]


def _apply(content: bytearray, offset: int, data: bytes, *, truncate: bool) -> None:
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    if truncate:
        del content[offset:]
    else:
        content[offset : offset + len(data)] = data


class Disk:
    """The files of one folder, as far as a trace has been followed."""

    def __init__(self, folder: Path, names: frozenset[str]) -> None:
        """Follow these files; none is there yet."""
        self._folder = str(folder)
        self._paths = {f"{folder}/{name}" for name in names}
        self._names: dict[str, _File] = {}
        self._certain: dict[str, _File] = {}
        self._syncing: list[Call] = []
        self.seen: set[str] = set()  # calls that touched the files

    def follow(self, call: Call) -> None:
        """Follow one call; calls come in the order in which they began."""
        self.at(call.begun)
        if call.name in SYNCS and (call.path == self._folder or call.path in self._paths):
            self._syncing.append(call)
        elif call.path in self._paths and call.name not in _READING and (call.result or 0) >= 0:
            self._change(call)
        else:
            return
        self.seen.add(call.name)

    def at(self, line: int) -> None:
        """Let every fsync end that has ended before this line."""
        ended = [call for call in self._syncing if call.ended < line]
        self._syncing = [call for call in self._syncing if call.ended >= line]
        for call in sorted(ended, key=lambda one: one.ended):
            if call.path == self._folder:
                self._certain = dict(self._names)
            elif call.path in self._names:
                self._names[call.path].synced(call.begun)

    def _change(self, call: Call) -> None:
        match call.name:
            case "openat" | "open":
                if "O_CREAT" in call.flags:
                    self._names.setdefault(call.path, _File())
                assert "O_TRUNC" not in call.flags
            case "unlink":
                del self._names[call.path]
            case "pwrite64":
                assert call.result in {None, len(call.data)}, "a short write"
                self._names[call.path].waiting.append(call)
            case "ftruncate":
                self._names[call.path].waiting.append(call)
            case _:
                raise AssertionError(f"the model of the disk does not know {call.name}, of {call.path}")

    @property
    def unsafe(self) -> bool:
        """Tell whether there is anything to lose."""
        return self._names != self._certain or any(file.waiting for file in self._names.values())

    def certain(self) -> dict[str, bytes]:
        """Return the files as they are if nothing more is written."""
        return {Path(path).name: bytes(file.certain) for path, file in self._names.items()}

    def cut(self, chance: random.Random, into: Path) -> None:
        """Write what is left after a power cut at this moment into another folder."""
        into.mkdir()
        for path in self._names | self._certain:
            held = chance.choice((self._names, self._certain)).get(path)
            if held is not None:
                (into / Path(path).name).write_bytes(held.after_a_cut(chance))
