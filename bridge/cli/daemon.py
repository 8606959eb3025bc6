"""What runs on: the daemon, the demo, and the two sides to try it against; and `check`, which looks before it runs."""

import asyncio
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bridge.cli.common import DEFAULT_CONFIG, FOUND, Config, app, progress, say, speak
from bridge.errors import BridgeError, ConfigErrors, UsageError

if TYPE_CHECKING:
    from bridge.config import Settings
    from bridge.sandbox.verify import Receiver

ISO = ["%Y-%m-%dT%H:%M:%S.%f%z", "%Y-%m-%dT%H:%M:%S%z"]
LONGEST_SECRET = 1024  # bytes that are read of its file
ROOMS = ("receiver", "consumer", "worker", "sender", "clock")


@app.command()
def serve(
    config: Config = DEFAULT_CONFIG,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Do everything but call MOOST; needs its own store.")
    ] = False,
    rooms: Annotated[str, typer.Option(metavar="ROOM,…", help="Run only these.")] = ",".join(ROOMS),
) -> None:
    """Run the daemon."""
    from bridge.config import load

    wanted = frozenset(filter(None, (room.strip() for room in rooms.split(","))))
    if strange := sorted(wanted.difference(ROOMS)):
        raise UsageError(f"--rooms: there is no room {strange[0]!r}; the rooms are {', '.join(ROOMS)}")
    if not wanted:
        raise UsageError("--rooms: name at least one room")

    secrets: set[str] = set()

    def read() -> "Settings":
        loaded = load(config)
        secrets.update(loaded.secret_values())  # replaced ones too: they may still be in use somewhere
        speak(loaded, secrets)
        return loaded

    first = read()  # before the rooms are imported: a mistake is told at once
    from bridge import run

    raise typer.Exit(run.serve(first, dry_run=dry_run, rooms=wanted, reread=read))


@app.command()
def check(
    config: Config = DEFAULT_CONFIG,
    online: Annotated[
        bool, typer.Option("--online", help="Also open the store, fetch a token, ask the Kafka broker.")
    ] = False,
) -> None:
    """Look at the configuration: one line per problem, and one per thing that is probably none of what you want."""
    from bridge.config import doubts, load

    loaded = load(config)
    for doubt in doubts(loaded):
        sys.stderr.write(f"{doubt}\n")
    if online:
        from bridge import logs, run

        logs.configure("error", json=False, secrets=loaded.secret_values())
        if problems := run.check_online(loaded):
            raise ConfigErrors(problems)
    sys.stdout.write(f"{config}: no problems found\n")


@app.command()
def demo(
    homes: Annotated[int, typer.Option(min=1, max=10_000, help="Simulated households.")] = 20,
    speed: Annotated[float, typer.Option(min=0.1, max=10_000, help="Times real time.")] = 60,
    replicas: Annotated[
        int, typer.Option(min=1, max=16, help="More than one share a PostgreSQL database; one is killed now and then.")
    ] = 1,
) -> None:
    """Run the bridge between a simulated device cloud and the MOOST sandbox; ctrl-C ends it."""
    from bridge import demo as stage

    raise typer.Exit(stage.run(homes=homes, speed=speed, replicas=replicas))


@app.command()
def sandbox(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port; 0 = any free one.")] = 9090,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    client_id: Annotated[str | None, typer.Option(help="The clientId that gets a token.")] = None,
    client_secret_file: Annotated[
        typer.FileBinaryRead | None, typer.Option(help="A file with its clientSecret.")
    ] = None,
    customer_id: Annotated[str | None, typer.Option(help="The customer in the token.")] = None,
    keep: Annotated[int | None, typer.Option(min=0, help="Events kept for reading; none = all.")] = None,
    journal: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep everything received here; a restart goes on with it.")
    ] = None,
) -> None:
    """Run a MOOST look-alike that validates every call."""
    from bridge.files import text_of
    from bridge.sandbox import moost

    secret = text_of(client_secret_file.read(LONGEST_SECRET)).strip() if client_secret_file else ""
    try:
        moost.run(
            host=host,
            port=port,
            client_id=client_id or moost.CLIENT_ID,
            client_secret=secret or moost.CLIENT_SECRET,
            customer_id=customer_id or moost.CUSTOMER_ID,
            keep=keep,
            journal=journal,
        )
    except OSError as why:
        raise UsageError(f"sandbox: {host}:{port} or the journal cannot be used: {why.strerror or why}") from None


@app.command()
def simulate(
    target: Annotated[str, typer.Option(metavar="URL", help="The bridge, such as http://127.0.0.1:8080.")],
    homes: Annotated[int, typer.Option(min=1, help="Households.")] = 10,
    hours: Annotated[float, typer.Option(min=0.01, help="Simulated span; it ends now.")] = 1,
    speed: Annotated[float, typer.Option(min=0, help="Simulated seconds per second; 0 = as fast as possible.")] = 0,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 1,
    subscription: Annotated[str, typer.Option(metavar="ID", help="First part of the topics.")] = "sub-1",
    secret: Annotated[
        str | None,
        typer.Option(metavar="whsec_…", help="Signs as Standard Webhooks do.", envvar="BRIDGE_SIMULATE_SECRET"),
    ] = None,
    anchor: Annotated[
        datetime | None, typer.Option(formats=ISO, help="Wall time at which the span begins to run; now if not given.")
    ] = None,
    truth: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the true energies here.")] = None,
    verify: Annotated[str | None, typer.Option(metavar="URL", help="Compare with what this sandbox received.")] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The bridge's configuration, for --verify; else its defaults.")
    ] = None,
) -> None:
    """Let households live and post what a device cloud would; 3 if --verify finds a gap or a wrong value."""
    from bridge.sandbox import cloud
    from bridge.sandbox.verify import DEFAULT

    if not target.startswith(("http://", "https://")):
        raise UsageError("--target: must be an address such as http://127.0.0.1:8080")
    receiver = DEFAULT if config is None else _receiver(config, subscription)
    with progress("simulating", 1) as advance:
        shown = 0.0

        def tell(share: float, _tally: object) -> None:
            nonlocal shown
            advance(share - shown)
            shown = share

        try:
            summary = asyncio.run(
                cloud.simulate(
                    target=target,
                    homes=homes,
                    hours=hours,
                    speed=speed,
                    seed=seed,
                    subscription=subscription,
                    secret=secret,
                    truth=truth,
                    verify=verify,
                    receiver=receiver,
                    anchor=None if anchor is None else anchor.timestamp(),
                    progress=tell,
                )
            )
        except ValueError as error:
            raise UsageError(f"--secret: {error}") from None
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise BridgeError(f"simulate: {where}{error.strerror or type(error).__name__}") from None
    in_vain = 0 < summary.sent == summary.refused
    if in_vain:
        say("simulate: every message was refused; do subscription and secret fit the bridge?")
    raise typer.Exit(FOUND if in_vain or not summary.clean else 0)


def _receiver(config: Path, subscription: str) -> "Receiver":
    """Return what the comparison with the truth has to know of the bridge's configuration.

    Raises UsageError for settings under which the simulated homes tell another truth: their meters count import as
    positive, and what can be known of them follows from the default holds.
    """
    from bridge.config import Intervals, load
    from bridge.sandbox.verify import Receiver

    rules, default = load(config, serving=False).rules(), Intervals()
    mine = rules.subscription(subscription)
    strange = {
        "intervals.hold": rules.hold != default.hold,
        "intervals.hold_active": rules.hold_active != default.hold_active,
        f"subscriptions {subscription}.meter_sign": mine.meter_sign < 0,
        f"subscriptions {subscription}.meter_counter": mine.meter_counter,
        f"subscriptions {subscription}.unit": mine.unit == "W",
    }
    if found := [name for name, differs in strange.items() if differs]:
        raise UsageError(f"--verify: the simulated homes are made for the default of {', '.join(found)}")
    return Receiver(
        user_prefix=mine.user_prefix,
        stamp=rules.stamp.value,
        coverage=rules.min_coverage,
        delay_s=(rules.grace + rules.spread).total_seconds(),
        time_zone=rules.default_time_zone,
    )
