"""Text that comes to us: files of ours and bodies, without the mark that some programs write before it.

Rules:
- One UTF-8 byte order mark at the very beginning carries no meaning: editors and shells on Windows and .NET's writers
  put it there. It is passed over wherever text is read: settings, secrets, the directory, messages.
- A second one, or one elsewhere, is part of the text.

Source: RFC 8259 section 8.1 (a parser may ignore the mark); Unicode 15, section 23.8.
"""

import errno
from pathlib import Path
from typing import Final

MARK: Final = b"\xef\xbb\xbf"
MOST_BYTES: Final = 2**20  # of settings or secrets


def without_mark(raw: bytes) -> bytes:
    """Return bytes without the byte order mark that they may begin with."""
    return raw.removeprefix(MARK)


def text_of(raw: bytes) -> str:
    """Return the text of bytes in UTF-8, without its mark; raises UnicodeDecodeError."""
    return without_mark(raw).decode()


def read_text(path: Path) -> str:
    """Return the text of a file in UTF-8, without its mark; raises OSError, UnicodeDecodeError.

    A file that is larger than `MOST_BYTES`, or without an end, was named by mistake.
    """
    with path.open("rb") as file:
        raw = file.read(MOST_BYTES + 1)
    if len(raw) > MOST_BYTES:
        raise OSError(errno.EFBIG, f"it is larger than {MOST_BYTES // 2**20} MiB")
    return text_of(raw)
