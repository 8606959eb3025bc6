"""What the look-alike keeps in a file, so that it survives its own end.

Rules:
- One line of JSON per thing that happened, written before the call is answered; a kill loses none, a power cut may.
- A line that a kill cut short never happened.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

Line = tuple[str, dict[str, Any]]
"""What happened, and its particulars."""


class Journal:
    """A file that only grows; without a path it keeps nothing."""

    def __init__(self, path: Path | None) -> None:
        """Open or create it."""
        self._file: int | None = None
        if path is not None:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            os.ftruncate(self._file, _whole(path.read_bytes()))

    def write(self, what: str, entry: Mapping[str, Any]) -> None:
        """Keep one thing that happened."""
        if self._file is not None:
            os.write(self._file, msgspec.json.encode((what, entry)) + b"\n")

    def empty(self) -> None:
        """Forget everything."""
        if self._file is not None:
            os.ftruncate(self._file, 0)


def lines(path: Path | None) -> Iterator[Line]:
    """Yield what a file holds, in order; nothing where there is none."""
    if path is None or not path.exists():
        return
    decoder = msgspec.json.Decoder(Line)
    raw = path.read_bytes()
    for line in raw[: _whole(raw)].splitlines():
        yield decoder.decode(line)


def _whole(raw: bytes) -> int:
    """Return the length of the lines that are whole [bytes]."""
    return raw.rfind(b"\n") + 1
