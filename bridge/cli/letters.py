"""Dead letters: what was taken out of the flow, why, and what becomes of it.

What changes more than is named asks for a filter or `--all`: a bare `retry` is a mistake, not a wish.
"""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from bridge.cli.common import (
    DEFAULT_CONFIG,
    Config,
    Json,
    Since,
    Until,
    app,
    at_desk,
    body_text,
    in_steps,
    print_fields,
    print_json,
    print_table,
    progress,
    say,
    unknown,
)
from bridge.core.vocabulary import DeadReason
from bridge.errors import UsageError
from bridge.store.desk import DeadFilter, DeadLetter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bridge.store.desk import Desk

PAGE: Final = 100

letters = typer.Typer(help="Messages and calls taken out of the flow.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(letters, name="dead-letters")

Reason = Annotated[DeadReason | None, typer.Option(help="Only with this reason.")]
Subscription = Annotated[str | None, typer.Option(metavar="ID", help="Only of this subscription.")]
Building = Annotated[str | None, typer.Option(metavar="ID", help="Only of this building.")]
Every = Annotated[bool, typer.Option("--all", help="All that the filters leave.")]
Ids = Annotated[list[int] | None, typer.Argument(metavar="[ID]...", help="As `list` shows them.")]


@letters.command("list")
def list_(
    config: Config = DEFAULT_CONFIG,
    reason: Reason = None,
    subscription: Subscription = None,
    building: Building = None,
    since: Since = None,
    until: Until = None,
    every: Every = False,
    json: Json = False,
) -> None:
    """Show dead letters, oldest first; people see the first hundred unless they ask for --all."""
    which = _filter(reason, subscription, building, since, until)

    async def read(desk: "Desk") -> list[DeadLetter]:
        found: list[DeadLetter] = []
        async for page in _pages(desk, which):
            found += page
            if not (json or every) and len(found) > PAGE:
                break
        return found

    found = at_desk(config, read)
    if json:
        print_json(map(_brief, found))
        return
    shown = found if every else found[:PAGE]
    columns = ("id", "at", "reason", "topic", "building", "detail")
    print_table(columns, ((d.id, d.at, d.reason, d.topic, d.building, d.detail) for d in shown))
    if len(shown) < len(found):
        say(f"the first {PAGE}; --all shows the rest")


@letters.command()
def show(
    letter: Annotated[int, typer.Argument(metavar="ID", help="As `list` shows it.")],
    config: Config = DEFAULT_CONFIG,
    json: Json = False,
) -> None:
    """Show one dead letter with its raw message or call, and MOOST's answer."""

    async def read(desk: "Desk") -> Sequence[DeadLetter]:
        return await desk.dead_letters(DeadFilter(ids=(letter,)))

    found = at_desk(config, read)
    if not found:
        raise unknown(f"dead letter {letter} in this store")
    full = {**_brief(found[0]), "answer": found[0].answer, "body": body_text(found[0].body)}
    if json:
        print_json([full])
    else:
        print_fields(full)


@letters.command()
def retry(
    ids: Ids = None,
    config: Config = DEFAULT_CONFIG,
    reason: Reason = None,
    subscription: Subscription = None,
    building: Building = None,
    since: Since = None,
    until: Until = None,
    every: Every = False,
    json: Json = False,
) -> None:
    """Put dead letters back into the flow."""
    which = _filter(reason, subscription, building, since, until, ids)
    _settle(config, "retry", which, named=_named(which) or every, json=json)


@letters.command()
def discard(
    ids: Ids = None,
    config: Config = DEFAULT_CONFIG,
    reason: Reason = None,
    subscription: Subscription = None,
    building: Building = None,
    since: Since = None,
    until: Until = None,
    every: Every = False,
    json: Json = False,
) -> None:
    """Give dead letters up for good."""
    which = _filter(reason, subscription, building, since, until, ids)
    _settle(config, "discard", which, named=_named(which) or every, json=json)


def _filter(
    reason: DeadReason | None,
    subscription: str | None,
    building: str | None,
    since: datetime | None,
    until: datetime | None,
    ids: Sequence[int] | None = None,
) -> DeadFilter:
    return DeadFilter(
        ids=ids or None, reason=reason, subscription=subscription, building=building, since=since, until=until
    )


def _named(which: DeadFilter) -> bool:
    """Return whether a filter leaves anything out."""
    return which != DeadFilter()


async def _pages(desk: "Desk", which: DeadFilter) -> AsyncIterator[Sequence[DeadLetter]]:
    """Yield the dead letters of a filter, a page at a time."""
    after = 0
    while page := await desk.dead_letters(which, after, PAGE):
        yield page
        after = page[-1].id


def _settle(config: "Path", verb: str, which: DeadFilter, *, named: bool, json: bool) -> None:
    """Retry or discard what a filter leaves, a page at a time."""
    if not named:
        raise UsageError(f"{verb}: name the ids, a filter, or --all")

    async def work(desk: "Desk") -> list[int]:
        act = desk.retry if verb == "retry" else desk.discard
        with progress("reading") as advance:
            chosen = await _chosen(desk, which, advance)
        done: list[int] = []
        with progress(verb, len(chosen)) as advance:
            for ids in in_steps(chosen):
                await act(ids, datetime.now(UTC))  # one that somebody else took meanwhile is passed over
                done += ids
                advance(len(ids))
        return done

    done = at_desk(config, work)
    if missing := sorted(set(which.ids or ()).difference(done)):
        raise unknown(f"dead letter {', '.join(map(str, missing))} in this store; {len(done)} others done")
    if json:
        print_json(done)
    say(f"{verb}: {len(done)} dead letters")


async def _chosen(desk: "Desk", which: DeadFilter, advance: "Callable[[float], None]") -> list[int]:
    """Return the ids of all letters that a filter leaves now: what dies again meanwhile is not taken a second time."""
    chosen: list[int] = []
    async for page in _pages(desk, which):
        chosen += [letter.id for letter in page]
        advance(len(page))
    return chosen


def _brief(letter: DeadLetter) -> dict[str, Any]:
    """Return a dead letter for programs, without its content."""
    return {
        "id": letter.id,
        "at": letter.at,
        "reason": letter.reason.value,
        "detail": letter.detail,
        "subscription": letter.subscription,
        "topic": letter.topic,
        "building": letter.building,
        "user": letter.user,
        "message_id": letter.message_id,
        "call_id": letter.call_id,
    }
