"""What a run of the lab leaves on the terminal, and as Markdown beside it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.isolation.row import Result

COLUMNS: Final = (
    "line", "attack", "store", "p99 idle → attacked [ms]", "event idle → attacked [s]", "memory [MB]",
    "sent [MB]", "CPU [µs/byte]", "waited for a core", "verdict", "notes",
)  # fmt: skip


def cells(result: Result) -> tuple[str, ...]:
    """Return the row of a table."""
    return (
        result.row.name,
        result.row.what,
        result.store,
        f"{result.p99_idle_ms:.0f} → {result.p99_ms:.0f}",
        f"{result.event_idle_s:.2f} → {result.event_s:.2f}",
        f"{result.memory_mb:.0f}",
        f"{result.sent_mb:.1f}",
        f"{result.cpu_us_per_byte:.3f}",
        f"{result.busy:.0%}",
        "MISSED: " + "; ".join(result.wrong) if result.wrong else "met",
        "; ".join(result.notes),
    )


def line(result: Result) -> str:
    """Return a row as one line of Markdown."""
    return "| " + " | ".join(cell.replace("\n", " ").replace("|", "/") for cell in cells(result)) + " |"


def head() -> str:
    """Return the head of the table as Markdown."""
    return "| " + " | ".join(COLUMNS) + " |\n|" + " --- |" * len(COLUMNS)


def write(path: Path, results: Sequence[Result], about: Sequence[str]) -> None:
    """Write the table into a file."""
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(("# Isolation\n", *about, "", head(), *map(line, results), "")), encoding="utf-8")
