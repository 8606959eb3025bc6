"""What works on the store: the directory, and the store itself.

Every command works beside a running daemon; changes are written in small steps, so a broken-off import is repeated.
"""

import base64
import dataclasses
import json as jsonlib
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, TextIO, cast

import typer

from bridge.cli.common import (
    DEFAULT_CONFIG,
    FOUND,
    Config,
    Json,
    Since,
    Until,
    app,
    at_desk,
    in_steps,
    patiently,
    print_fields,
    print_json,
    print_table,
    progress,
    say,
    unknown,
)
from bridge.errors import BridgeError, UsageError

if TYPE_CHECKING:
    from bridge.core.findings import Finding
    from bridge.core.model import Device, Residence
    from bridge.store.desk import Desk
    from bridge.store.port import Pending, Versioned

buildings = typer.Typer(help="The directory: who lives where.", no_args_is_help=True, rich_markup_mode=None)
store = typer.Typer(help="The store itself.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(buildings, name="buildings")
app.add_typer(store, name="store")


# ---- the directory --------------------------------------------------------------------------------------------------


@buildings.command("import")
def import_(
    file: Annotated[typer.FileBinaryRead, typer.Argument(help="CSV or JSON lines; - reads stdin.")],
    config: Config = DEFAULT_CONFIG,
    replace: Annotated[bool, typer.Option("--replace", help="Also remove rows that the file lacks.")] = False,
) -> None:
    """Take rows over into the directory; a file with a problem changes nothing."""
    from bridge import directory

    name = "stdin" if file.name in ("<stdin>", "-") else file.name
    try:
        rows = directory.read(cast("BinaryIO", file))
    except directory.DirectoryError as error:
        raise UsageError("\n".join(f"{name}: {line}" for line in str(error).splitlines())) from None
    except OSError as error:
        raise UsageError(f"{name}: cannot be read: {error.strerror}") from None

    async def write(desk: "Desk") -> tuple[int, int]:
        gone: list[tuple[str, str | None]] = []
        if replace:
            listed = await desk.residences()
            gone = [key for key in ((row.user, row.location) for row in listed) if key not in rows]
        changed = 0
        with progress("importing", len(rows) + len(gone)) as advance:
            for some in in_steps(rows):
                changed += await patiently(partial(desk.write_residences, some))
                advance(len(some))
            for others in in_steps(gone):
                await patiently(partial(desk.write_residences, (), others))
                advance(len(others))
        return changed, len(gone)

    changed, removed = at_desk(config, write)
    say(f"{len(rows)} rows read, {changed} changed, {removed} removed")


@buildings.command("list")
def list_(
    config: Config = DEFAULT_CONFIG,
    flag: Annotated[
        str | None, typer.Option("--flag", metavar="FLAG", help="Show the buildings with this flag instead, and why.")
    ] = None,
    json: Json = False,
) -> None:
    """Show the directory, or the buildings that want looking at."""
    if flag is not None:
        _list_flagged(config, flag, json=json)
        return
    from bridge.directory import as_row

    async def read(desk: "Desk") -> "Sequence[Residence]":
        return await desk.residences()

    rows = at_desk(config, read)
    if json:
        print_json(map(as_row, rows))
    else:
        columns = ("user_id", "location_id", "building", "attributes")
        print_table(
            columns, ((row.user, row.location, row.building, ", ".join(sorted(row.attributes))) for row in rows)
        )


def _list_flagged(config: Path, flag: str, *, json: bool) -> None:
    """Show the buildings with a flag, what is wrong with each and which setting would mend it."""
    from bridge.config import load
    from bridge.core.findings import FLAGS, finding

    if flag not in FLAGS:
        raise UsageError(f"--flag: {flag!r} is none; the flags are {', '.join(FLAGS)}")
    rules = load(config, serving=False).rules()

    async def read(desk: "Desk") -> "list[Finding]":
        found: list[Finding] = []
        names = await desk.flagged(flag)
        while names:
            for name in names:
                state = await desk.building(name)
                if state is not None and flag in state.state.flags:
                    found.append(finding(state.state, flag, rules))
            names = await desk.flagged(flag, names[-1])
        return found

    rows = [dataclasses.asdict(one) for one in at_desk(config, read)]
    if json:
        print_json(rows)
    else:
        columns = ("building", "flag", "problem", "setting")
        print_table(columns, ([row[column] for column in columns] for row in rows))


@buildings.command()
def show(
    building: Annotated[str, typer.Argument(metavar="ID", help="Its customerBuildingId.")],
    config: Config = DEFAULT_CONFIG,
    json: Json = False,
) -> None:
    """Show one building: its rows in the directory and what the bridge remembers of it."""

    async def read(desk: "Desk") -> "tuple[list[Residence], Versioned | None]":
        rows = [row for row in await desk.residences() if row.building == building]
        return rows, await desk.building(building)

    rows, state = at_desk(config, read)
    if not rows and state is None:
        raise unknown(f"building {building!r} in this store")
    shown = _building(building, rows, state)
    if json:
        print_json([shown])
        return
    print_fields({name: value for name, value in shown.items() if name not in ("directory", "devices")})
    for row in shown["directory"]:
        print_fields({"directory": jsonlib.dumps(row, ensure_ascii=False)})
    if shown["devices"]:
        print_table(tuple(shown["devices"][0]), (tuple(device.values()) for device in shown["devices"]))


def _building(building: str, rows: "Sequence[Residence]", state: "Versioned | None") -> dict[str, Any]:
    """Return what is known of a building, for programs."""
    from bridge.directory import as_row

    shown: dict[str, Any] = {"building": building, "directory": [as_row(row) for row in rows], "devices": []}
    if state is not None:
        known = state.state
        shown |= {
            "created": known.created,
            "users": list(known.users),
            "time_zone": known.time_zone,
            "newest_stamp": known.newest_stamp,
            "flags": list(known.flags),
            "devices": [_device(known.devices[key]) for key in sorted(known.devices)],
        }
    return shown


def _device(device: "Device") -> dict[str, Any]:
    """Return what is known of a device, without its series."""
    return {
        "subscription": device.subscription,
        "kind": device.kind.value,
        "id": device.id,
        "name": device.facts.name,
        "location": device.location,
        "since": device.since,
        "stamp": device.stamp,
        "offline": device.offline,
        "disconnected": device.disconnected,
    }


# ---- the store ------------------------------------------------------------------------------------------------------


@store.command("check")
def check_(config: Config = DEFAULT_CONFIG, json: Json = False) -> None:
    """Check the integrity of the store and its counts against its rows; 3 if something is wrong."""

    async def verify(desk: "Desk") -> Sequence[str]:
        with progress("checking"):
            return await desk.verify()

    problems = at_desk(config, verify, expected=True)
    if json:
        print_json(problems)
    else:
        say("\n".join(problems) or "no problems found")
    raise typer.Exit(FOUND if problems else 0)


@store.command()
def compact(config: Config = DEFAULT_CONFIG) -> None:
    """Write the store's file anew, so that nothing of what was deleted is in it; a running daemon waits meanwhile."""

    async def rewrite(desk: "Desk") -> None:
        with progress("writing anew"):
            await desk.compact(gently=False)

    at_desk(config, rewrite)


@store.command()
def backup(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="Where the copy goes; must not be there yet.")],
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Write a copy of the SQLite store as of one moment, also beside a running daemon."""
    from bridge.config import load

    loaded = load(config, serving=False)  # before the rooms are imported: a mistake is told at once
    from bridge import run

    with progress("copying"):
        run.backup(loaded, target)
    say(f"copied to {target}")


@store.command()
def migrate(config: Config = DEFAULT_CONFIG) -> None:
    """Bring the schema of the store up to date; on PostgreSQL before the replicas are replaced one by one."""
    from bridge.config import load

    loaded = load(config, serving=False)  # before the rooms are imported: a mistake is told at once
    from bridge import run

    steps = run.migrate(loaded)
    say("the schema is up to date now" if steps else "the schema was up to date")


@store.command()
def export(
    config: Config = DEFAULT_CONFIG,
    since: Since = None,
    until: Until = None,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Write here instead of stdout.")] = None,
) -> None:
    """Write stored raw messages as JSON lines, in order of acceptance."""

    async def stream(desk: "Desk") -> int:
        if output is None:
            return await _export(desk, since, until, sys.stdout)
        try:
            with output.open("x", encoding="utf-8") as target:
                return await _export(desk, since, until, target)
        except FileExistsError:
            raise UsageError(f"--output: {output} exists already") from None
        except OSError as error:
            raise BridgeError(f"--output: {output} cannot be written: {error.strerror}") from None

    say(f"{at_desk(config, stream)} messages written")


async def _export(desk: "Desk", since: datetime | None, until: datetime | None, target: TextIO) -> int:
    count = 0
    with progress("exporting") if not target.isatty() else nullcontext(_nobody) as advance:
        async for message in desk.raw(since, until):
            target.write(jsonlib.dumps(_raw(message), ensure_ascii=False) + "\n")
            count += 1
            advance(1)
    return count


def _nobody(_: float) -> None:
    """Show no bar where the lines themselves are on the terminal."""


def _raw(message: "Pending") -> dict[str, object]:
    """Return a raw message for JSON; bytes that are no text as base64."""
    try:
        body = {"body": message.body.decode()}
    except UnicodeDecodeError:
        body = {"body_base64": base64.b64encode(message.body).decode()}
    return {
        "id": message.id,
        "subscription": message.subscription,
        "topic": message.topic,
        "received": message.received.isoformat(),
        **body,
    }
