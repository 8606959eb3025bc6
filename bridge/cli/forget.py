"""What erases: `forget` takes a user out of the store for good."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bridge.cli.common import DEFAULT_CONFIG, Config, Json, app, at_desk, print_json, progress, say, unknown

if TYPE_CHECKING:
    from bridge.forget import Tally
    from bridge.run import Keeper


@app.command()
def forget(
    user: Annotated[str, typer.Argument(metavar="USER_ID", help="As the lists name it, with its user_prefix.")],
    config: Config = DEFAULT_CONFIG,
    json: Json = False,
) -> None:
    """Erase a user for good: messages, state, calls, dead letters, directory rows (GDPR, article 17).

    MOOST keeps what it was sent. What the device cloud sends from now on is new.
    """
    from bridge.config import load

    rules = load(config, serving=False).rules()

    async def work(keeper: "Keeper") -> "tuple[Tally, bool]":
        from bridge import forget

        census = await keeper.census()
        with progress("reading", census.pending + census.dead) as advance:
            found = await forget.find(keeper, rules, user, advance)
        with progress("erasing", len(found.messages)) as advance:  # also where nothing is found: a hint may be left
            tally = await forget.erase(keeper, rules, found, lambda: datetime.now(UTC), advance)
        if not found:
            raise unknown(f"user {user!r} in this store")
        with progress("overwriting"):
            return tally, await keeper.compact(gently=True)

    tally, whole = at_desk(config, work)
    if json:
        print_json([_shown(user, tally, whole=whole)])
    _say(tally, whole=whole)


def _shown(user: str, tally: "Tally", *, whole: bool) -> dict[str, Any]:
    """Return what was erased, for programs."""
    erased = tally.erased
    return {
        "user": user,
        "messages": erased.messages,
        "calls": erased.calls,
        "dead_letters": erased.letters,
        "other_rows": erased.rows,
        "buildings": tally.alone,
        "shared_buildings": tally.shared,
        "file_rewritten": whole,
    }


def _say(tally: "Tally", *, whole: bool) -> None:
    """Say what was erased, and what was not."""
    erased = tally.erased
    say(
        f"forget: {erased.messages} messages, {erased.calls} calls, {erased.letters} dead letters, {erased.rows} other"
        f" rows erased; {tally.alone} buildings as a whole, {tally.shared} in part, because others live there"
    )
    if tally.alone or tally.shared:
        say("MOOST keeps what it was sent: delete the building there, or have it deleted")
    if not whole:
        say(
            "the store is too large to be written anew beside the daemon, or the disk has no room for that: fragments"
            " may stay between the rows of its pages until they are written over; `moost-bridge store compact`"
            " ends that, but accepts wait for it"
        )
