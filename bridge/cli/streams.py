"""stdout and stderr as they are: closed, on a full disk, or a pipe whose reader has left.

Rules:
- What a command prints is its result: where stdout cannot be written, the command ends with 1 and a sentence.
- A reader that leaves early (`| head`) has what it wanted: the command ends with 1 and says nothing.
- stderr is for people: where it cannot be written, its lines are lost, and nothing else changes.
- A closed stream is opened on nothing first, or the next file would take its number and be printed into.
"""

import os
import sys
from typing import TYPE_CHECKING, Any, Final, TextIO, cast

from bridge.errors import BridgeError

if TYPE_CHECKING:
    from io import TextIOWrapper

_STANDARD: Final = (0, 1, 2)


class OutputError(BridgeError):
    """What a command found cannot be printed; the text is empty where the reader has left."""


class _Stream:
    """A stream that does something about what cannot be written."""

    def __init__(self, stream: TextIO) -> None:
        self.plain = stream

    def write(self, text: str) -> int:
        try:
            self.plain.write(text)
        except OSError as error:
            self._failed(error)
        return len(text)

    def flush(self) -> None:
        try:
            self.plain.flush()
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        """Lose what could not be written."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the stream has
        return getattr(self.plain, name)


class _Result(_Stream):
    """The stream of what a command is for: once it cannot be written, each attempt says so."""

    error: OSError | None = None

    def write(self, text: str) -> int:
        self._complain()
        return super().write(text)

    def flush(self) -> None:
        self._complain()
        super().flush()

    def _failed(self, error: OSError) -> None:
        self.error = error
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)  # what is left in buffers goes there when the process ends
        os.close(nothing)
        self._complain()

    def _complain(self) -> None:
        if isinstance(self.error, BrokenPipeError):
            raise OutputError("")
        if self.error is not None:
            raise OutputError(f"stdout cannot be written: {self.error.strerror}")


def prepare() -> None:
    """Make both streams fit for any text, and open those that are closed."""
    while (number := os.open(os.devnull, os.O_RDONLY)) in _STANDARD:
        pass
    os.close(number)
    out, err = sys.stdout or _opened(1), sys.stderr or _opened(2)
    for stream in (out, err):  # a message may hold half a character; what prints it must not fail
        cast("TextIOWrapper", stream).reconfigure(encoding="utf-8", errors="backslashreplace")
    sys.stdout, sys.stderr = cast("TextIO", _Result(out)), cast("TextIO", _Stream(err))


def restore() -> None:
    """Take stdout back as it was: the interpreter flushes it once more, and that must not fail."""
    if isinstance(sys.stdout, _Result):
        sys.stdout = sys.stdout.plain


def _opened(number: int) -> TextIO:
    """Return a stream on a number that was closed: writing to it fails as it should."""
    return open(number, "w", encoding="utf-8", closefd=False)
