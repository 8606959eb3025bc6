"""What explains: the dry mapping of one message, the trip of a stored one, and what made one value."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bridge.cli import values
from bridge.cli.common import (
    DEFAULT_CONFIG,
    FOUND,
    MOST_ID,
    Config,
    Json,
    When,
    app,
    at_desk,
    body_text,
    print_fields,
    print_json,
    print_table,
    say,
    trouble,
    unknown,
    unreached,
    waits,
)
from bridge.core.vocabulary import EventType
from bridge.errors import UsageError

if TYPE_CHECKING:
    from bridge.replay.keeper import Keeper
    from bridge.store.desk import MessageTrip


@app.command("map")
def map_(
    topic: Annotated[str, typer.Argument(help="Such as acme.vehicle.update.")],
    file: Annotated[typer.FileBinaryRead, typer.Argument(help="The message; - reads it from stdin.")],
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", envvar="BRIDGE_CONFIG", help="Its rules; without it the defaults."),
    ] = None,
    content_type: Annotated[
        str, typer.Option(metavar="TYPE", help="As it was posted, such as application/cloudevents+json.")
    ] = "application/json",
) -> None:
    """Show what MOOST would get for the messages of one body: a JSON array of calls, in sending order."""
    from bridge.config import Server, load
    from bridge.preview import map_message

    loaded = None if config is None else load(config, serving=False)
    most = Server().max_body if loaded is None else loaded.server.max_body
    body = file.read(most + 1)
    if len(body) > most:
        raise UsageError(f"{file.name}: is larger than server.max_body ({most:,} bytes): the bridge answers 413 to it")
    mapped = map_message(topic, body, loaded, content_type=content_type)
    print_json(mapped.calls)
    for reason in mapped.reasons:
        say(reason)
    raise typer.Exit(FOUND if mapped.dead else 0)


@app.command()
def explain(
    message_id: Annotated[int | None, typer.Argument(min=1, help="The id that the 202 named.")] = None,
    device: Annotated[
        str | None, typer.Option(metavar="[S/]KIND:ID", help="As the device cloud names it; S = its subscription.")
    ] = None,
    building: Annotated[str | None, typer.Option(metavar="ID", help="Its customerBuildingId.")] = None,
    type_: Annotated[EventType | None, typer.Option("--type", metavar="TYPE", help="MOOST's event type.")] = None,
    at: When = None,
    config: Config = DEFAULT_CONFIG,
    json: Json = False,
) -> None:
    """Show the trip of one message, what is known of a device (--device), or what made one value (--type --at)."""
    of_value = (type_, at) != (None, None)
    if message_id is not None and (device, building, type_, at) != (None, None, None, None):
        raise UsageError("explain: a message id stands alone")
    if type_ is not None and at is not None and (building is not None or device is not None):
        values.value(config, building, device, type_, at, json=json)
    elif message_id is not None:
        _message(config, message_id, json=json)
    elif device is not None and building is None and not of_value:
        values.device(config, device, json=json)
    else:
        raise UsageError("explain: name a message id, --device, or --building (or --device) with --type and --at")


def _message(config: Path, message_id: int, *, json: bool) -> None:
    """Show the trip of one message: received, mapped, queued, each attempt, MOOST's answer."""

    async def find(desk: "Keeper") -> "tuple[MessageTrip | None, str | None]":
        trip = await desk.trip(message_id) if message_id <= MOST_ID else None
        owed = trip is not None and waits({"state": call.state} for call in trip.calls)
        return trip, await trouble(desk) if owed else None

    trip, cause = at_desk(config, find)
    if trip is None:
        raise unknown(f"message {message_id} in this store; it may have passed retention")
    if json:
        print_json([_trip(trip, cause)])
    else:
        _print_trip(trip, cause)


def _trip(trip: "MessageTrip", cause: str | None) -> dict[str, Any]:
    """Return a trip for programs; `cause` is what keeps calls from MOOST."""
    return {
        "id": trip.id,
        "subscription": trip.subscription,
        "topic": trip.topic,
        "received": trip.received,
        "state": trip.state,
        "building": trip.building,
        "body": body_text(trip.body),
        "reason": trip.dead.reason if trip.dead else None,
        "detail": trip.dead.detail if trip.dead else None,
        "notes": [{"name": note.name, "detail": note.detail} for note in trip.notes],
        "moost_cause": cause,
        "calls": [
            {
                "id": call.id,
                "call": type(call.call).__name__,
                "state": call.state,
                "queued": call.queued,
                "settled": call.settled,
                "attempts": [{"at": a.at, "outcome": a.outcome, "detail": a.detail} for a in call.attempts],
            }
            for call in trip.calls
        ],
    }


def _print_trip(trip: "MessageTrip", cause: str | None) -> None:
    """Print a trip for people, in the order in which it happened."""
    shown = _trip(trip, cause)
    apart = ("notes", "calls", "body", "moost_cause")
    print_fields({name: value for name, value in shown.items() if name not in apart})
    for note in trip.notes:
        print_fields({"note": f"{note.name} {note.detail}".rstrip()})
    for call in trip.calls:
        print_fields({"call": f"{call.id} {type(call.call).__name__}, {call.state}, queued {call.queued.isoformat()}"})
        if call.attempts:
            print_table(
                ("  at", "outcome", "detail"), ((f"  {a.at.isoformat()}", a.outcome, a.detail) for a in call.attempts)
            )
    print_fields({"MOOST": unreached(cause)})
    print_fields({"body": body_text(trip.body)})
