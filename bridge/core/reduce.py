"""The law: (state of a building, message) -> (state, effects).

Rules:
- Total and pure: every message gives a state and effects; nothing here reads a clock or raises on input.
- Effects come in delivery order: last events of what changes, building, device list, tariff, events.
- What a repeat or an older message would do again is left out, so at-least-once delivery is harmless (M0.4).

Theory of operation: one function per kind of message changes the building (`report`, `slots.advance`, those here);
`on_change` adds the events that leave at once; `announce` compares the building before and after and adds what MOOST
must hear of it as a whole.
"""

import json
from collections.abc import Collection, Sequence
from typing import Final, assert_never

from bridge.core import tariffs
from bridge.core.announce import announce
from bridge.core.bounds import beyond, relieved
from bridge.core.copying import replace
from bridge.core.deletes import deleted_at
from bridge.core.effects import Effect, Event, Note, SendEvents
from bridge.core.findings import marked
from bridge.core.inheritance import inherited
from bridge.core.jumps import flagged as jumped
from bridge.core.messages import Command, Forgotten, Message, Moved, Prices, Readdressed, Report, Schedules, Tick
from bridge.core.model import Building, Device, Flag, Residence, Schedule, key, label, name_of
from bridge.core.on_change import on_change
from bridge.core.report import delete, report
from bridge.core.rules import Rules
from bridge.core.slots import advance

SCHEDULES_SIZE: Final = 64 * 1024
"""Characters of all weekly schedules of a building; that of a heat pump has some 5,000."""


def reduce(
    building: Building, message: Message, rules: Rules, residence: Residence | None = None
) -> tuple[Building, tuple[Effect, ...]]:
    """Return the building after a message, and what is to be done.

    `residence` is the directory row that led here, None where the directory has none.
    """
    before, building = building, inherited(building, rules)
    notes: tuple[Note, ...] = ()
    last: Sequence[Event] = ()  # of a device before it changes or leaves: MOOST lists it as it was
    events: tuple[Event, ...] = ()
    match message:
        case Report():
            after, last, notes = report(building, message, rules, residence)
            after, events = on_change(after, message, rules)
        case Prices():
            after, notes = _prices(building, message, rules)
        case Command():
            after, notes = building, (_remark(message),)
        case Schedules():
            after, notes = _schedules(building, message)
        case Moved():
            after, last = _moved(building, message, rules)
        case Forgotten():
            after = _forgotten(building, message)
        case Readdressed():
            after = building
        case Tick():
            after, events, notes = advance(building, message, rules)
        case _:
            assert_never(message)
    after = relieved(after, rules)
    after, calls = announce(before, after, message, rules, residence)
    return after, (*notes, *_sent(building, last), *calls, *_sent(building, events))


def _sent(building: Building, events: Sequence[Event]) -> tuple[SendEvents, ...]:
    """Return the call that sends events, if there are any."""
    return (SendEvents(building=building.id, events=tuple(events)),) if events else ()


def _remark(message: Command) -> Note:
    """Return what `explain` tells of a command (M7); failed ones are counted by a name of their own."""
    name = "command_failed" if message.state == "FAILED" else "command"
    return Note(name=name, detail=f"{message.type} {message.state} for {label(message.kind, message.device)}")


def _prices(building: Building, message: Prices, rules: Rules) -> tuple[Building, tuple[Note, ...]]:
    """Merge new prices; a tariff that was deleted stays deleted (M0.5)."""
    notes = tuple(Note(name="odd_time", detail=text) for text in message.odd_times)
    name = name_of(message)
    if name not in building.devices and deleted_at(building, name, message.received, rules) is not None:
        return building, notes
    slices = tariffs.merge(building.prices.get(name, ()), message.entries, message.received)
    if len(slices) > tariffs.MOST:
        text = f"{len(slices) - tariffs.MOST:,} of {label(message.kind, message.id)} not kept, the latest"
        slices, notes = slices[: tariffs.MOST], (*notes, beyond("prices_per_tariff", text))
    return replace(building, prices={**building.prices, name: slices}), notes


def _schedules(building: Building, message: Schedules) -> tuple[Building, tuple[Note, ...]]:
    """Keep the weekly schedule of a device; of an unknown device there is nothing to keep."""
    name = name_of(message)
    if name not in building.devices:
        return building, ()
    new = Schedule(message.time_zone, message.entries, len(json.dumps(message.entries)))
    others = {other: kept for other, kept in building.schedules.items() if other != name}
    if new.size > SCHEDULES_SIZE:
        note = beyond("schedules_size", f"that of {label(message.kind, message.id)} not kept")
        return replace(building, schedules=others), (note,)
    known = len(others)
    while new.size + sum(kept.size for kept in others.values()) > SCHEDULES_SIZE:
        del others[next(iter(others))]  # the oldest
    notes = (beyond("schedules_size", f"{known - len(others)} of others forgotten"),) if len(others) < known else ()
    return replace(building, schedules={**others, name: new}), notes


def _moved(building: Building, message: Moved, rules: Rules) -> tuple[Building, Sequence[Event]]:
    """Take a device out that lives in another building now, and leave the building to the operator (M1.6)."""
    if name_of(message) not in building.devices:
        return building, ()
    after, last, _ = delete(building, message, message.time, message.received, rules)
    # It was not deleted: any later message that names this building may bring it back.
    after = replace(after, gone=building.gone, gone_sent=building.gone_sent, early=building.early)
    return marked(after, Flag.LEFT_BEHIND, on=not after.devices), last


def _forgotten(building: Building, message: Forgotten) -> Building:
    """Take a user out as if it had never lived here; devices of others stay, and so do the household's sums so far."""

    def theirs(device: Device) -> bool:
        return device.user != message.user

    heard_of = {key(*device) for device in message.devices}
    devices = {name: device for name, device in building.devices.items() if theirs(device)}
    mine = (heard_of | building.devices.keys()) - devices.keys()
    after = replace(
        building,
        users=tuple(user for user in building.users if user not in message.raw_users),
        devices=devices,
        departed=tuple(device for device in building.departed if theirs(device)),
        gone={name: stamp for name, stamp in building.gone.items() if name not in mine},
        gone_sent={name: stamp for name, stamp in building.gone_sent.items() if name not in mine},
        early={name: came for name, came in building.early.items() if name not in mine},
        schedules={name: kept for name, kept in building.schedules.items() if name not in mine},
        prices={tariff: slices for tariff, slices in building.prices.items() if tariff not in mine},
        forgotten=message.received,
        waits={name: since for name, since in building.waits.items() if name not in mine},
        about={flag: others for flag, about in building.about.items() if (others := _without(about, mine))},
    )
    return jumped(after)


def _without(names: tuple[str, ...], gone: Collection[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name not in gone)
