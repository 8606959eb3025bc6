"""What made one value, and what is known of one device: printed for people, or as JSON."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bridge.cli.common import (
    at_desk,
    print_fields,
    print_json,
    print_table,
    progress,
    trouble,
    unknown,
    unreached,
    waits,
)
from bridge.core.vocabulary import EventType

if TYPE_CHECKING:
    from bridge.replay.keeper import Keeper

Shown = Mapping[str, Any]


def value(
    config: Path, building: str | None, device: str | None, type_: EventType, at: datetime, *, json: bool
) -> None:
    """Show what made the values of one type at one time."""
    from bridge.config import load
    from bridge.replay import asked_for

    rules = load(config, serving=False).rules()
    asked = asked_for(device, rules) if device is not None else None

    async def find(desk: "Keeper") -> list[dict[str, Any]]:
        from bridge.replay import Question, explain_value, whereabouts

        cause = await trouble(desk)
        named, home = (None, building) if asked is None else await whereabouts(desk, rules, asked, building)
        if home is None:
            raise unknown(f"device {device!r} in this store")
        if await desk.building(home) is None:
            raise unknown(f"building {home!r} in this store")
        with progress("reading") as advance:
            question = Question(building=home, type=type_, at=at, device=named)
            shown = await explain_value(desk, rules, question, advance)
        return [{**one, "moost_cause": cause if waits(one["calls"]) else None} for one in shown]

    found = at_desk(config, find)
    if not found:
        where = device if building is None else building
        raise unknown(f"{type_.value} of {where} at {at.isoformat()} in this store, nor anything it could be made of")
    if json:
        print_json(found)
    else:
        for one in found:
            _print_value(one)


def device(config: Path, name: str, *, json: bool) -> None:
    """Show what is known of one device."""
    from bridge.config import load
    from bridge.replay import asked_for

    rules = load(config, serving=False).rules()
    asked = asked_for(name, rules)

    async def find(desk: "Keeper") -> dict[str, Any] | None:
        from bridge.replay import explain_device, whereabouts

        named, home = await whereabouts(desk, rules, asked)
        return await explain_device(desk, rules, named, home) if home is not None else None

    found = at_desk(config, find)
    if found is None:
        raise unknown(f"device {name!r} in this store")
    if json:
        print_json([found])
    else:
        _print_device(found)


# ---- for people -----------------------------------------------------------------------------------------------------


def _print_value(one: Shown) -> None:
    """Print what made one value, from the outside to the samples."""
    unit = one["unit"]
    print_fields(
        {
            "value": f"{one['type']} of {one['device']} at {_time(one['at'])}",
            "building": one["building"],
            "interval": f"{_time(one['start'])} to {_time(one['end'])}" if one["start"] else None,
            "formula": one["formula"],
            "result": _with(one["value"], unit),
            "sent": _with(one["sent"], unit) or "never queued",
            "known": _coverage(one),
            "first quarter": _half(one.get("first_quarter"), unit),
            "but": one.get("reason"),
            "message": _message(one.get("message")),
        }
    )
    names = [taking["device"] for taking in one["devices"]]
    for taking in one["devices"]:
        _print_taking(taking, shared=names.count(taking["device"]) > 1)
    _print_calls(one["calls"])
    print_fields({"MOOST": unreached(one["moost_cause"])})


def _print_taking(taking: Shown, *, shared: bool) -> None:
    """Print what a device gave; with its subscription where two subscriptions have a device of that name here."""
    whose = f" of {taking['subscription']}" if shared else ""
    print_fields(
        {
            "device": f"{taking['device']}{whose}, {taking['role']}",
            "counted": _with(taking["counted"], "Wh"),
        }
    )
    _print_samples(taking["samples"], taking["unit"])
    for piece in taking["known"]:
        print_fields({"    known": f"{_time(piece['from'])} to {_time(piece['to'])}: {_with(piece['value'], 'W')}"})


def _print_samples(samples: Sequence[Shown], unit: str | None) -> None:
    if samples:
        columns = ("    sample at", "value", "message", "received", "")
        print_table(columns, ((f"    {_time(s['at'])}", *_sample(s, unit)) for s in samples))


def _sample(sample: Shown, unit: str | None) -> Iterable[object]:
    value = sample["value"]
    yield "unknown" if value is None else _with(value, unit) if isinstance(value, float) else value
    yield sample["message"]
    yield sample["received"]
    carried = sample["still_carried"]
    yield sample["mark"] or (f"carried until {_time(carried)}" if carried and carried > sample["at"] else "")


def _print_calls(calls: Sequence[Shown]) -> None:
    for call in calls:
        lane = ", a replay" if call["replay"] else ""
        print_fields({"call": f"{call['id']}, {call['state']}, queued {_time(call['queued'])}{lane}"})
        if call["attempts"]:
            print_table(
                ("    at", "outcome", "detail"),
                ((f"    {_time(a['at'])}", a["outcome"], a["detail"]) for a in call["attempts"]),
            )


def _print_device(one: Shown) -> None:
    print_fields({name: value for name, value in one.items() if name not in ("series", "events")})
    for series in one["series"]:
        until = series["holds_until"]
        print_fields({"series": series["quantity"] + (f", holds until {_time(until)}" if until else "")})
        _print_samples(series["samples"], series["unit"])
    for event in one["events"]:
        print_fields({"event": f"{event['type']} {_with(event['value'], event['unit'])} at {_time(event['at'])}"})
        _print_calls([event["call"]])


def _time(at: datetime) -> str:
    return at.isoformat(timespec="seconds" if at.microsecond == 0 else "milliseconds")


def _with(number: float | None, unit: str | None) -> str | None:
    return None if number is None else f"{number:.15g} {unit or ''}".rstrip()


def _coverage(one: Shown) -> str | None:
    known, needed = one.get("known_seconds"), one.get("needed_seconds")
    return None if known is None else f"{known:.15g} s, {needed:.15g} s are needed"


def _half(quarter: Shown | None, unit: str) -> str | None:
    return None if quarter is None else f"{_with(quarter['value'], unit)}, known for {quarter['known_seconds']:.15g} s"


def _message(message: Shown | None) -> str | None:
    return None if message is None else f"{message['id']} {message['topic']}, received {_time(message['received'])}"
