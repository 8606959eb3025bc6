"""What maps the past again: `replay` compares it with what was queued, and queues what differs."""

import json as jsonlib
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from bridge.cli.common import (
    CRASHED,
    DEFAULT_CONFIG,
    FOUND,
    Config,
    Json,
    app,
    at_desk,
    instant,
    plain,
    print_table,
    progress,
    say,
    unknown,
)
from bridge.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bridge.replay import Difference, Span, Tally
    from bridge.replay.keeper import Keeper

SHOWN: Final = 100
"""Differences that a person sees."""

When = Annotated[datetime, typer.Option(parser=instant, metavar="TIME", help="UTC without a zone.")]


@app.command()
def replay(
    since: When,
    until: When,
    building: Annotated[str | None, typer.Option(metavar="ID", help="Only this building.")] = None,
    config: Config = DEFAULT_CONFIG,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the difference and queue nothing.")] = False,
    json: Json = False,
) -> None:
    """Map stored messages again; queue events never queued or of another value, on the historical lane.

    The span is that of the events' own times, without its end. 3 if --dry-run finds a difference.
    """
    if since >= until:
        raise UsageError("--until: must be later than --since")
    from bridge.config import load

    rules = load(config, serving=False).rules()
    from bridge.replay import Span, Tally

    span, tally, found = Span(since=since, until=until, building=building), Tally(), _Found(json=json)

    async def work(desk: "Keeper") -> None:
        from bridge.replay import replay as again

        await _refuse(desk, span)
        now = None if dry_run else lambda: datetime.now(UTC)
        with progress("reading") as advance:
            async for one in again(desk, rules, span, tally, now=now, advance=advance):
                found.add(one)

    at_desk(config, work)
    found.end()
    _summary(span, tally, dry_run=dry_run)
    if tally.faulted:
        raise typer.Exit(CRASHED)
    raise typer.Exit(FOUND if dry_run and found.count else 0)


async def _refuse(desk: "Keeper", span: "Span") -> None:
    """Raise UsageError where nothing of the span can be remade, or its building is not known."""
    from bridge.replay.differences import beginning

    if span.building is not None and await desk.building(span.building) is None:
        raise unknown(f"building {span.building!r} in this store")
    begun = beginning(await desk.reach())
    if begun is not None and span.until <= begun:
        raise UsageError(
            f"--since: the store has forgotten what was before {begun.isoformat(timespec='seconds')}"
            " (store.retention): nothing of this span can be mapped again"
        )


class _Found:
    """Prints differences as they are found, so that none has to be kept."""

    def __init__(self, *, json: bool) -> None:
        self.count = 0
        self._json = json
        self._rows: list[Sequence[object]] = []

    def add(self, one: "Difference") -> None:
        """Take one difference."""
        if self._json:
            text = jsonlib.dumps(_difference(one), ensure_ascii=False, default=plain)
            sys.stdout.write(f"{',' if self.count else '['}\n  {text}")
        elif self.count < SHOWN:
            e = one.event
            self._rows.append((one.building, e.device, e.type.value, e.at, one.before, e.value))
        self.count += 1

    def end(self) -> None:
        """Print what is left to print."""
        if self._json:
            sys.stdout.write("\n]\n" if self.count else "[]\n")
        elif self._rows:
            print_table(("building", "device", "type", "at", "before", "now"), self._rows)
            if self.count > SHOWN:
                say(f"the first {SHOWN} of {self.count}; --json shows all")


def _difference(one: "Difference") -> dict[str, Any]:
    """Return a difference for programs; `before` is null where the event was never queued."""
    return {
        "building": one.building,
        "device": one.event.device,
        "source": one.event.source.value,
        "type": one.event.type.value,
        "at": one.event.at,
        "value": one.event.value,
        "before": one.before,
    }


def _summary(span: "Span", tally: "Tally", *, dry_run: bool) -> None:
    """Say in a few lines what was found and what could not be remade."""
    verb = "would be queued" if dry_run else "queued for the historical lane"
    say(
        f"{tally.messages} messages of {tally.buildings} buildings mapped again: {tally.same} events as before, "
        f"{tally.missing} new and {tally.changed} changed {verb}"
    )
    if tally.since is not None and tally.since > span.since:
        since = tally.since.isoformat(timespec="seconds")
        say(f"before {since} nothing was looked at: the store has forgotten that (store.retention)")
    if tally.uncertain:
        say(
            f"{tally.uncertain} events left alone: they need messages that the store has forgotten, or their devices"
            " have moved by the directory"
        )
    if tally.departed:
        say(f"{tally.departed} events left alone: their devices are not there any more")
    if tally.waiting:
        say(f"{tally.waiting} messages left out: they wait, are parked or dead (`moost-bridge dead-letters list`)")
    for building, fault in tally.faulted.items():
        say(f"the buildings with {building} left alone: a fault of the bridge at {fault}")
