"""What a run leaves behind: a table on the terminal, the same as Markdown, and a picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

_ROW: Final = 44  # px
_LEFT: Final = 220
_WIDTH: Final = 420  # of a bar that meets its goal twice over
_MOST: Final = 2.5  # times the goal that still fit


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One line: a goal and what was measured."""

    name: str
    goal: str
    measured: str
    ratio: float | None  # to the goal, 1 = just met, more is better; None = there is no goal
    detail: str

    @property
    def verdict(self) -> str:
        if self.ratio is None:
            return "void" if self.measured == "void" else "-"
        return "met" if self.ratio >= 1 else "missed"


def void(name: str, why: str) -> Result:
    """Return the line of a run that says nothing."""
    return Result(name=name, goal="", measured="void", ratio=None, detail=why)


def show(results: Sequence[Result], machine: Mapping[str, str]) -> None:
    """Print the table."""
    console = Console()
    table = Table(title="Benchmarks", title_justify="left", show_lines=True)
    for column in ("what", "goal", "measured", "ratio to goal", "verdict", "detail"):
        table.add_column(column, overflow="fold")
    for result in results:
        table.add_row(result.name, result.goal, result.measured, _ratio(result), result.verdict, result.detail)
    console.print(table)
    for name, text in machine.items():
        console.print(f"{name}: {text}", highlight=False)


def write(folder: Path, results: Sequence[Result], machine: Mapping[str, str]) -> None:
    """Write `bench.md` and `bench.svg`."""
    (folder / "bench.md").write_text(_markdown(results, machine), encoding="utf-8")
    (folder / "bench.svg").write_text(_picture(results), encoding="utf-8")


def _ratio(result: Result) -> str:
    return "" if result.ratio is None else f"{result.ratio:.2f}"


def _markdown(results: Sequence[Result], machine: Mapping[str, str]) -> str:
    rows = [("what", "goal", "measured", "ratio to goal", "verdict", "detail"), ("---",) * 6]
    rows += [(r.name, r.goal, r.measured, _ratio(r), r.verdict, r.detail) for r in results]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    about = "\n".join(f"- {name}: {text}" for name, text in machine.items())
    return f"# Benchmarks\n\n{table}\n\n{about}\n\n![ratio to the goal](bench.svg)\n"


def _picture(results: Sequence[Result]) -> str:
    """Return bars of the ratio to the goal; the line is the goal."""
    shown = [result for result in results if result.ratio is not None]
    height, goal = len(shown) * _ROW + 40, _LEFT + _WIDTH / 2
    bars = "".join(_bar(result, 20 + place * _ROW) for place, result in enumerate(shown))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH * _MOST / 2 + 120:.0f}" height="{height}" '
        'font-family="sans-serif" font-size="13"><rect width="100%" height="100%" fill="white"/>'
        f'{bars}<path d="M{goal:.0f} 10V{height - 20}" stroke="black" stroke-dasharray="4 3"/>'
        f'<text x="{goal:.0f}" y="{height - 6}" text-anchor="middle">goal</text></svg>\n'
    )


def _bar(result: Result, top: int) -> str:
    ratio = result.ratio or 0.0
    width = min(ratio, _MOST) * _WIDTH / 2
    colour = "#2a9d5c" if ratio >= 1 else "#c8553d"
    return (
        f'<text x="{_LEFT - 10}" y="{top + 18}" text-anchor="end">{escape(result.name)}</text>'
        f'<rect x="{_LEFT}" y="{top}" width="{width:.0f}" height="28" fill="{colour}"/>'
        f'<text x="{_LEFT + width + 6:.0f}" y="{top + 18}">{escape(result.measured)} ({ratio:.2f})</text>'
    )
