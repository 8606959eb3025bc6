"""Statements that do much in one step.

Theory of operation: the driver releases and takes back the interpreter's lock at every step of a statement, and while
the event loop computes, each taking back waits for the loop's next pause. So a round has few steps: rows are written
by multi-row statements, and read as one row that holds them all.

Measured beside a busy loop (one core, rounds of 10 to 120 rows): one statement per row, statements of 64 rows, and one
`INSERT … SELECT … FROM json_each` over a joined blob leave the loop the same share of the core within the noise (89 to
91 %; the last 86 to 90 %). Statements of 64 rows it is: as cheap as any, and the fewest steps that can wait.
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

SIZES: Final = (64, 16, 4, 1)
"""Rows per prepared statement."""

Row = Sequence[object]


class Batch:
    """One statement over many rows of bound values."""

    def __init__(self, head: str, width: int, tail: str = "") -> None:
        """Take the text before and after the rows, and the number of values in a row."""
        row = "(" + ", ".join("?" * width) + ")"
        self._statements = tuple((size, f"{head}{', '.join([row] * size)}{tail}") for size in SIZES)

    def run(self, con: sqlite3.Connection, rows: Sequence[Row]) -> int:
        """Execute it for all rows, 64 at a time; return how many rows it has changed."""
        start, left, changed = 0, len(rows), 0
        for size, statement in self._statements:
            while left >= size:
                done = con.execute(statement, [value for row in rows[start : start + size] for value in row])
                start, left, changed = start + size, left - size, changed + done.rowcount
        return changed


_rows: Final = msgspec.json.Decoder(list[list[object]])


def gathered(con: sqlite3.Connection, statement: str, values: Row | Mapping[str, object] = ()) -> list[list[object]]:
    """Return the rows of a statement that gathers them into one JSON array of arrays."""
    text = con.execute(statement, values).fetchone()[0]
    return _rows.decode(text)


def value(con: sqlite3.Connection, statement: str, values: Row = ()) -> object:
    """Return the first value of the first row, None without a row."""
    row = con.execute(statement, values).fetchone()
    return None if row is None else row[0]


def cut(data: bytes, lengths: Iterable[int]) -> list[bytes]:
    """Take bytes apart that a statement put together."""
    parts, start = [], 0
    for length in lengths:
        parts.append(data[start : start + length])
        start += length
    return parts
