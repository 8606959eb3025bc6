"""What the commands share: the app, its options, loading, printing, running."""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Protocol, TypeVar

import typer
from typer.core import TyperGroup

from bridge import signals
from bridge.errors import UsageError

if TYPE_CHECKING:
    from bridge.config import Settings
    from bridge.run import Keeper
    from bridge.store.port import Census

T = TypeVar("T")

CRASHED: Final = 1
USAGE: Final = 2
FOUND: Final = 3

MOST_ID: Final = 2**63 - 1
"""What a store can number."""

TROUBLE_LASTS: Final = timedelta(minutes=3)
"""A sender says each minute what keeps calls from MOOST; what is older was said by one that is gone."""

STEP: Final = 100
"""Rows written at a time."""

PATIENCE_S: Final = 60.0  # that one step of many is tried for, while the store is busy
PAUSE_S: Final = 0.1

_EMPTY: Final[tuple[object, ...]] = ("", (), [], {})  # not worth a line

DEFAULT_CONFIG: Final = Path("bridge.toml")


class _Commands(TyperGroup):
    """The commands; one that a signal breaks off says so."""

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]  # typer's context is click's
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            say("told to end before it was done: what was not done yet is left as it was")
            signals.end_broken_off()
            raise


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # an error is a sentence, not a picture; and rich need not be imported
    pretty_exceptions_enable=False,  # they print local variables, which hold secrets
)


@app.callback()
def begin(context: typer.Context) -> None:
    """Streams an energy device cloud into MOOST."""
    if context.invoked_subcommand not in signals.SERVING:
        signals.break_off_by_signal()


Config = Annotated[
    Path,
    typer.Option("--config", metavar="FILE", envvar="BRIDGE_CONFIG", help="Configuration file."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON array and nothing else.")]


def instant(text: str) -> datetime:
    """Return a time given on the command line; without a zone it is UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter('write a time such as "2026-01-31" or "2026-01-31T12:00:00+01:00"') from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


Since = Annotated[datetime | None, typer.Option(parser=instant, metavar="TIME", help="Not before; UTC without a zone.")]
When = Annotated[datetime | None, typer.Option(parser=instant, metavar="TIME", help="UTC without a zone.")]
Until = Annotated[datetime | None, typer.Option(parser=instant, metavar="TIME", help="Not after; UTC without a zone.")]


def at_desk(config: Path, work: Callable[["Keeper"], Awaitable[T]], *, expected: bool = False) -> T:
    """Open the store beside a running daemon, or without one, and do some work there.

    Where one is expected, it is said that there was none yet.
    """
    from bridge.config import load

    loaded = load(config, serving=False)  # before the rooms are imported: a mistake is told at once
    from bridge import run
    from bridge.store.port import StoreUnavailable

    if expected and (missing := run.missing_file(loaded)) is not None:
        say(f"there was no store at {missing.absolute()}: an empty one is made")

    async def opened() -> T:
        async with run.open_store(loaded, patience_s=PATIENCE_S) as store:
            return await work(store)

    try:
        return asyncio.run(opened())
    except StoreUnavailable as error:
        raise run.not_usable(error) from None


class Counting(Protocol):
    """A store that knows its counts."""

    async def census(self) -> "Census":
        """Return them."""


async def trouble(store: Counting) -> str | None:
    """Return what keeps calls from MOOST now, as far as a sender has said so lately."""
    told = (await store.census()).trouble
    return told[1] or None if told is not None and datetime.now(UTC) - told[0] < TROUBLE_LASTS else None


def waits(calls: Iterable[Mapping[str, object]]) -> bool:
    """Tell whether a call is still owed to MOOST."""
    return any(call["state"] in {"owed", "in doubt"} for call in calls)


def unreached(cause: str | None) -> str | None:
    """Return what keeps calls from MOOST, for people."""
    return f"is not reached: {cause}" if cause else None


def in_steps(items: Iterable[T]) -> Iterator[Sequence[T]]:
    """Yield items, as many at a time as are written in one transaction."""
    left = iter(items)
    while some := tuple(islice(left, STEP)):
        yield some


async def patiently(write: Callable[[], Awaitable[T]]) -> T:
    """Write a step of many, and again while the store is busy: half of the steps would be no end."""
    from bridge.store.port import StoreBroken, StoreUnavailable

    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            return await write()
        except StoreBroken:
            raise
        except StoreUnavailable:
            if time.monotonic() > until:
                raise
            await asyncio.sleep(PAUSE_S)


def speak(settings: "Settings", secrets: Collection[str]) -> None:
    """Set up the log of the daemon as configured, without these secrets; a terminal gets lines for people."""
    from bridge import logs
    from bridge.config import LogFormat

    wanted = settings.logs.format
    as_json = wanted is LogFormat.JSON or (wanted is LogFormat.AUTO and not on_terminal())
    logs.configure(settings.logs.level, as_json, secrets, background=signals.caught())


def on_terminal() -> bool:
    """Return whether a person looks on."""
    return sys.stderr.isatty()


def say(text: str) -> None:
    """Write a line for people, where it does not disturb a program that reads our output."""
    sys.stderr.write(f"{text}\n")


@contextmanager
def progress(what: str, total: float | None = None) -> Iterator[Callable[[float], None]]:
    """Show how far long work is, on a terminal only; call the result with each number of items done."""
    if not on_terminal():
        yield lambda _done: None
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    counts = () if total == 1 else (MofNCompleteColumn(),)  # a share of one is no count
    with Progress(*Progress.get_default_columns(), *counts, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.advance(task, done)


def print_json(items: Iterable[Any]) -> None:
    """Print one JSON array, indented: for programs, and readable."""
    sys.stdout.write(json.dumps(list(items), indent=2, ensure_ascii=False, default=plain) + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under their columns, as wide as they need; control characters are made visible."""
    lines = [tuple(columns), *(tuple(_cell(cell) for cell in row) for row in rows)]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    for line in lines:
        sys.stdout.write("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n")


def print_fields(fields: Mapping[str, object]) -> None:
    """Print names and values, one a line; what is empty is left out."""
    shown = {name: _cell(value) for name, value in fields.items() if value is not None and value not in _EMPTY}
    width = max(map(len, shown), default=0)
    for name, value in shown.items():
        sys.stdout.write(f"{name.ljust(width)}  {value}\n")


def body_text(body: bytes) -> str:
    """Return a raw message as text; bytes that are none are shown as escapes."""
    return body.decode("utf-8", "backslashreplace")


def plain(value: object) -> object:
    """Return a JSON form of what is none by itself."""
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(type(value).__name__)


def _cell(value: object) -> str:
    """Return one line of plain text: a message may hold anything, a terminal must not obey it."""
    text = _words(value)
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _words(value: object) -> str:
    """Return a value as a person writes it."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case datetime():
            return value.isoformat(timespec="seconds")
        case list() | tuple():
            return ", ".join(map(_words, value)) or "-"
        case dict():
            return json.dumps(value, ensure_ascii=False, default=plain)
        case _:
            return str(value)


def unknown(what: str) -> UsageError:
    """Return the answer to a question about something that is not there."""
    return UsageError(f"there is no {what}")
