"""Prints how large and how entangled a checkout of the code is.

    python -m tests.figures [TREE] [--quick] [--names]

Without TREE it is this project. `--quick` leaves out what a running daemon has to show (a minute). `--names` lists what
was counted.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.figures import counts
from tests.figures.play import play

OWN: Final = Path(__file__).parents[2]

Row = tuple[str, str, Sequence[str]]


def read(tree: Path) -> list[Row]:
    """Return what is read off the files."""
    twice, same = counts.classes_twice(tree), counts.files_twice(tree)
    untested, long = counts.without_test(tree), counts.long_files(tree)
    promises = counts.promises(tree)
    circles = [
        *(" ↔ ".join(circle) for circle in counts.circles(counts.imports(tree))),
        *(" ↔ ".join(circle) for circle in counts.circles(counts.folders(tree))),
    ]
    return [
        ("lines of Python in bridge/, without sandbox and demo", f"{counts.code_lines(tree):,}", ()),
        ("promises of a store", str(len(promises)), promises),
        ("class names with two definitions", str(len(twice)), twice),
        ("names that several files have", str(len(same)), same),
        ("citations of rules without text", str(counts.without_text(tree)), ()),
        ("rules M0 to M7 that no test cites", str(len(untested)), untested),
        ("lines of the README", str(counts.lines(tree / "README.md")), ()),
        ("files over 300 lines", str(len(long)), long),
        ("import circles of files and of folders", str(len(circles)), circles),
    ]


def played(tree: Path) -> list[Row]:
    """Return what one message shows on its way."""
    way = play(tree)
    return [
        ("files that one message enters", str(len(way.files)), way.files),
        ("hops between files", str(way.hops), ()),
        ("classes of store and delivery made per event, from lease to settled", str(len(way.classes)), way.classes),
    ]


def main(arguments: list[str]) -> None:
    """Print the rows."""
    options = {each for each in arguments if each.startswith("--")}
    tree = next((Path(each).resolve() for each in arguments if each not in options), OWN)
    rows = [*read(tree), *([] if "--quick" in options else played(tree))]
    width = max(len(title) for title, _, _ in rows)
    for title, value, names in rows:
        print(f"{title:<{width}}  {value:>7}")
        if "--names" in options:
            print("".join(f"    {name}\n" for name in names), end="")


if __name__ == "__main__":
    main(sys.argv[1:])
