"""What made one value: its slot, its devices, their samples, the messages these came with, and what became of it.

Rules:
- What was queued is read from the outbox; how it was made is made again, because closed slots are forgotten.
- Only the messages of the users are read that may have to do with the building, not the whole inbox.
- A value that did not leave is explained too: what was known, and how much of it is needed.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

from bridge.core.days import day_end, day_start, is_ahead
from bridge.core.devices import device_type, moost_id
from bridge.core.effects import Event, SendEvents
from bridge.core.identity import device_id, gateway_id
from bridge.core.inheritance import inherited
from bridge.core.intervals import BLANK, NEVER, QUARTER, holds_until, is_absence, slot_of
from bridge.core.mapping import DEVICE_TYPES
from bridge.core.messages import Quantity
from bridge.core.model import Building, Device, Sample, identity_of, key, label, name_of
from bridge.core.rules import Rules, Stamp
from bridge.core.tracks import hold_always, limit_of, roles
from bridge.core.units import tidy
from bridge.core.vocabulary import EVENT_TYPES, Cadence, DeviceKey, DeviceType, EventType, Kind
from bridge.errors import UsageError
from bridge.replay import anatomy
from bridge.replay.clusters import sorted_out_for
from bridge.replay.keeper import Keeper
from bridge.replay.remake import Key, Remade, calls, key_of, remake
from bridge.replay.trust import LENGTHS, interval_start, slot_end
from bridge.replay.world import Made, World, by_user
from bridge.store.desk import CallTrip

if TYPE_CHECKING:
    from bridge.store.port import Pending

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS: Final[Mapping[Quantity, str]] = {
    Quantity.POWER: "W",
    Quantity.TEMPERATURE: "°C",
    Quantity.COUNTER: "Wh",
    Quantity.STATE_OF_CHARGE: "%",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which value is meant: `device` = whose, None = the household's, or whatever is there."""

    building: str
    type: EventType
    at: datetime  # the event's own time, or any within its interval
    device: DeviceKey | None = None


@dataclass(slots=True)
class _Captured:
    """The household before what closed a slot: a tick, or a message after which its device was not what it had been."""

    building: str
    start: datetime
    device: str | None = None  # its name, if one is asked for
    state: Building | None = None

    def look(self, world: World, name: str) -> None:
        """Keep the newest state in which the slot is open, for the device too."""
        state = world.state(name) if name == self.building else None
        if state is None or state.open_from is None or state.open_from > self.start:
            return
        device = state.devices.get(self.device) if self.device is not None else None
        closed = self.device is not None and (device is None or is_ahead(device, self.start + QUARTER))
        if self.state is None or not closed:
            self.state = state


# ---- a value --------------------------------------------------------------------------------------------------------


async def explain_value(
    keeper: Keeper, rules: Rules, asked: Question, advance: Callable[[float], None] = lambda _: None
) -> list[dict[str, Any]]:
    """Return what made a value, for programs; empty where nothing is known of such a value."""
    directory = by_user(await keeper.residences())
    kept = await keeper.reach()
    clusters = await sorted_out_for(keeper, rules, directory, kept.processed, asked.building, advance)
    cluster = next(clusters.found(asked.building), None)
    live = await _state(keeper, rules, asked.building)
    own = _moost_id(asked, live)
    zone = live.time_zone if live is not None else rules.default_time_zone
    named = key(*asked.device) if asked.device is not None else None
    captured = _Captured(asked.building, _slot_start(asked, zone, rules), named)
    remade = None
    if cluster is not None:
        remade = await remake(keeper, rules, directory, cluster, kept.processed, captured.look)
    history = [call async for call in calls(keeper, asked.building)]
    wanted = _wanted(asked, own, rules, zone, remade, history)
    slot = None
    closed = live is not None and live.open_from is not None and live.open_from > captured.start
    if closed and captured.state is not None and EVENT_TYPES[asked.type].cadence is not Cadence.CHANGE:
        state = anatomy.opened(captured.state, captured.start, rules)
        slot = anatomy.dissect(state, captured.start, rules) if state is not None else None
    if not wanted and slot is not None:
        wanted = [_absent(asked, own)]
    past = _Past(rules=rules, zone=zone, slot=slot, remade=remade, history=history)
    return [await _explained(keeper, past, *one) for one in wanted]


def _slot_start(asked: Question, zone: str, rules: Rules) -> datetime:
    """Return the start of the slot with whose close a value leaves.

    An instant between two intervals belongs to the later one, unless events carry the ends of their intervals: then it
    is the time of the earlier one's event.
    """
    cadence = EVENT_TYPES[asked.type].cadence
    if cadence is Cadence.DAY:
        end = asked.at if day_start(asked.at, ZoneInfo(zone)) == asked.at else day_end(asked.at, ZoneInfo(zone))
        return end - QUARTER
    length = LENGTHS.get(cadence, QUARTER)
    start = slot_of(asked.at)
    start -= (start - _EPOCH) % length
    if start == asked.at and rules.stamp is Stamp.END:
        start -= length
    return start + length - QUARTER


async def _state(keeper: Keeper, rules: Rules, building: str) -> Building | None:
    """Return a household as it is now."""
    found = await keeper.building(building)
    return inherited(found.state, rules) if found is not None else None


def _moost_id(asked: Question, live: Building | None) -> str | None:
    """Return MOOST's id of the device that is meant; None = no device is."""
    if asked.device is None:
        return None
    devices = (*live.devices.values(), *live.departed) if live is not None else ()
    known = next((device for device in devices if identity_of(device) == asked.device), None)
    return moost_id(known) if known is not None else device_id(asked.device.kind, asked.device.id)


def _absent(asked: Question, own: str | None) -> tuple[Key, Event | None]:
    device = own if own is not None else gateway_id(asked.building)
    source = (
        DEVICE_TYPES.get(asked.device.kind, DeviceType.APPLIANCE) if asked.device is not None else DeviceType.GATEWAY
    )
    return (asked.building, device, source.value, asked.type.value, asked.at), None


def _wanted(
    asked: Question, own: str | None, rules: Rules, zone: str, remade: Remade | None, history: Iterable[CallTrip]
) -> list[tuple[Key, Event | None]]:
    """Return the events that are meant: those of exactly that time, else those whose interval holds it."""
    found: dict[Key, Event] = {}
    for made in remade.made if remade is not None else ():
        if made.building == asked.building:
            found[key_of(made.building, made.event)] = made.event
    for call in history:
        if isinstance(call.call, SendEvents):
            found |= {key_of(asked.building, event): event for event in call.call.events}
    fits = {k: e for k, e in found.items() if e.type is asked.type and own in (None, e.device)}
    exact = {k: e for k, e in fits.items() if e.at == asked.at}
    if not exact and EVENT_TYPES[asked.type].cadence is not Cadence.CHANGE:
        start = _slot_start(asked, zone, rules)
        exact = {k: e for k, e in fits.items() if slot_end(e, rules) == start + QUARTER}
    return sorted(exact.items(), key=lambda one: one[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Past:
    """Everything that a value may have come from."""

    rules: Rules
    zone: str
    slot: anatomy.Slot | None  # None = not closed yet, passed over, or its messages are gone
    remade: Remade | None
    history: Sequence[CallTrip]


async def _explained(keeper: Keeper, past: _Past, key_: Key, event: Event | None) -> dict[str, Any]:
    """Return everything about one value; without `event` it never left."""
    building, device, source, type_name, at = key_
    type_ = EventType(type_name)
    made = _made(past.remade, key_)
    told = [call for call in past.history if _holds(call, key_)]
    on_change = EVENT_TYPES[type_].cadence is Cadence.CHANGE
    shown: dict[str, Any] = {
        "building": building,
        "device": device,
        "source": source,
        "type": type_.value,
        "unit": EVENT_TYPES[type_].unit.value,
        "at": at,
        "value": made.event.value if made is not None else None,
        "sent": _value(told[-1], key_) if told else None,
        "start": None if on_change else _start(past, type_, event),
        "end": None if on_change else _end(past, event),
        "formula": anatomy.formula(type_, DeviceType(source), past.slot),
        "devices": [],
    }
    if on_change:
        cause = told[0].cause if told else made.cause if made is not None else 0
        shown["message"] = await _message(keeper, cause)
    elif past.slot is not None:
        own = None if device == gateway_id(building) else device
        shown |= _coverage(past, past.slot, type_, own, shown["end"] - shown["start"])
        if EVENT_TYPES[type_].cadence is not Cadence.DAY:
            shown["devices"] = [await _taking(keeper, one) for one in past.slot.taking(type_, own)]
    shown["reason"] = _reason(past, made, shown)
    shown["calls"] = [_call(call) for call in told]
    return shown


def _start(past: _Past, type_: EventType, event: Event | None) -> datetime | None:
    if event is not None:
        return interval_start(event, past.rules, past.zone)
    if past.slot is None:
        return None
    cadence = EVENT_TYPES[type_].cadence
    if cadence is Cadence.DAY:
        return day_start(past.slot.start, ZoneInfo(past.zone))
    return past.slot.end - LENGTHS.get(cadence, QUARTER)


def _end(past: _Past, event: Event | None) -> datetime | None:
    if event is not None:
        return slot_end(event, past.rules)
    return past.slot.end if past.slot is not None else None


def _coverage(past: _Past, slot: anatomy.Slot, type_: EventType, own: str | None, length: timedelta) -> dict[str, Any]:
    """Return for how long was known what a value needs, and how much of it is needed."""
    found: dict[str, Any] = {}
    cadence = EVENT_TYPES[type_].cadence
    if cadence is Cadence.DAY:
        total = slot.of_day(type_, own)
        known_s = total.known_s if total is not None else None
    else:
        measured = slot.measured(type_, own)
        known_s = measured.known_s if measured is not None else None
    half = slot.building.half
    if cadence is Cadence.HALF_HOUR and half is not None:
        found["first_quarter"] = {"value": tidy(half.energy_wh), "known_seconds": half.known_s}
    if known_s is not None:
        found |= {"known_seconds": known_s, "needed_seconds": past.rules.min_coverage * length.total_seconds()}
    return found


def _reason(past: _Past, made: Made | None, shown: Mapping[str, Any]) -> str | None:
    """Return why a value did not leave, or why it cannot be made again; None where all is well."""
    if made is not None:
        same = shown["sent"] == made.event.value
        sure = same or past.remade is None or past.remade.trust.allows(made, past.zone)
        return None if sure else "it is made again without messages that the store has forgotten: it is uncertain"
    if shown["start"] is None or past.slot is None:
        return "what made it is not in the store any more, or its slot has not closed yet"
    own = None if shown["device"] == gateway_id(shown["building"]) else shown["device"]
    why = past.slot.why(EventType(shown["type"]), own)
    if why is not None and why in anatomy.REASONS:
        return anatomy.REASONS[why]
    known, needed = shown.get("known_seconds"), shown.get("needed_seconds")
    if known is not None and needed is not None and known < needed:
        return f"it did not leave: what it needs was known for {known:.15g} s, {needed:.15g} s are needed"
    if not shown["devices"]:
        return "it did not leave: no device takes part in it"
    return "it did not leave: what it needs was not known just before the end"


def _made(remade: Remade | None, key_: Key) -> Made | None:
    found = None
    for made in remade.made if remade is not None else ():
        if key_of(made.building, made.event) == key_:
            found = made
    return found


def _holds(call: CallTrip, key_: Key) -> bool:
    return isinstance(call.call, SendEvents) and any(key_of(key_[0], event) == key_ for event in call.call.events)


def _value(call: CallTrip, key_: Key) -> float | None:
    events = call.call.events if isinstance(call.call, SendEvents) else ()
    return next((event.value for event in reversed(events) if key_of(key_[0], event) == key_), None)


def _call(call: CallTrip) -> dict[str, Any]:
    return {
        "id": call.id,
        "state": call.state,
        "replay": isinstance(call.call, SendEvents) and call.call.replay,
        "cause": call.cause or None,
        "queued": call.queued,
        "settled": call.settled,
        "attempts": [{"at": a.at, "outcome": a.outcome, "detail": a.detail} for a in call.attempts],
    }


async def _message(keeper: Keeper, number: int) -> dict[str, Any] | None:
    found = await keeper.messages([number]) if number else ()
    return next(({"id": row.id, "topic": row.topic, "received": row.received} for row in found), None)


async def _taking(keeper: Keeper, one: anatomy.Taking) -> dict[str, Any]:
    return {
        "device": label(one.device.kind, one.device.id),
        "subscription": one.device.subscription,
        "role": one.role,
        "quantity": one.quantity.value,
        "unit": _UNITS.get(one.quantity),
        "counted": one.counted_wh,
        "samples": await _samples(keeper, one.samples, one.quantity),
        "known": [{"from": piece.start, "to": piece.end, "value": piece.value} for piece in one.known],
    }


async def _samples(keeper: Keeper, samples: Sequence[Sample], quantity: Quantity) -> list[dict[str, Any]]:
    """Return samples with the messages that brought them."""
    rows: dict[int, Pending] = {row.id: row for row in await keeper.messages([one.number for one in samples])}
    return [
        {
            "at": one.at,
            "value": one.value,
            "mark": anatomy.mark(one, quantity) or None,
            "still_carried": None if is_absence(one) or one.seen >= BLANK else one.seen,
            "message": one.number or None,
            "received": rows[one.number].received if one.number in rows else None,
        }
        for one in samples
    ]


# ---- a device -------------------------------------------------------------------------------------------------------


def asked_for(text: str, rules: Rules) -> DeviceKey:
    """Return the device that "KIND:ID" or "SUBSCRIPTION/KIND:ID" means; without a subscription that is empty.

    Raises UsageError.
    """
    subscription, slash, rest = text.partition("/")
    kind, _, id_ = text.partition(":")
    if slash and (kind not in set(Kind) or subscription in rules.subscriptions):
        kind, _, id_ = rest.partition(":")
    else:
        subscription = ""
    if kind not in set(Kind) or not id_:
        raise UsageError(f"--device: write KIND:ID or SUBSCRIPTION/KIND:ID; the kinds are {', '.join(Kind)}")
    return rules.present(DeviceKey(subscription, Kind(kind), id_))


async def whereabouts(
    keeper: Keeper, rules: Rules, asked: DeviceKey, building: str | None = None
) -> tuple[DeviceKey, str | None]:
    """Return the device that is meant, with its subscription, and the building it lives in; None = it lives nowhere.

    Raises UsageError where several subscriptions have such a device.
    """
    found = await keeper.where_is(asked.kind, asked.id)
    homes = {
        rules.present(device): home
        for device, home in found.items()
        if asked.subscription in ("", rules.heir(device.subscription)) and building in (None, home)
    }
    if len(homes) > 1:
        names = ", ".join(sorted(device.subscription for device in homes))
        raise UsageError(f"--device: subscriptions {names} have such a device; write SUBSCRIPTION/KIND:ID")
    return next(iter(homes.items()), (asked, building))


async def explain_device(keeper: Keeper, rules: Rules, asked: DeviceKey, building: str) -> dict[str, Any] | None:
    """Return what is known of a device and what it last said to MOOST, for programs; None = it is not known."""
    state = await _state(keeper, rules, building)
    device = state.devices.get(key(*asked)) if state is not None else None
    if state is None or device is None:
        return None
    type_ = device_type(device)
    meters = [one for one in state.devices.values() if one.kind is Kind.METER]
    role = roles(meters, rules)[0].get(name_of(device)) if device.kind is Kind.METER else None
    name = moost_id(device)
    last: dict[EventType, dict[str, Any]] = {}
    async for call in calls(keeper, state.id):
        for event in call.call.events if isinstance(call.call, SendEvents) else ():
            known = last.get(event.type)
            if event.device == name and (known is None or known["at"] <= event.at):
                last[event.type] = {
                    "type": event.type.value, "value": event.value, "unit": EVENT_TYPES[event.type].unit.value,
                    "at": event.at, "call": _call(call),
                }  # fmt: skip
    return {
        "device": label(device.kind, device.id),
        "subscription": device.subscription,
        "moost_id": name,
        "type": type_.value if type_ is not None else None,
        "building": state.id,
        "role": role.value if role is not None else None,
        "name": device.facts.name,
        "since": device.since,
        "stamp": device.stamp,
        "offline": device.offline,
        "disconnected": device.disconnected,
        "series": [await _series(keeper, device, quantity, rules) for quantity in sorted(device.series)],
        "events": [last[one] for one in sorted(last)],
    }


async def _series(keeper: Keeper, device: Device, quantity: Quantity, rules: Rules) -> dict[str, Any]:
    samples = device.series[quantity]
    limit = limit_of(device.kind, rules) if quantity is Quantity.POWER else hold_always(rules)
    ends = bool(samples) and samples[-1].value is not None and quantity is not Quantity.AWAY
    until = holds_until(samples[-1], limit) if ends else None
    return {
        "quantity": quantity.value,
        "unit": _UNITS.get(quantity),
        "samples": await _samples(keeper, samples, quantity),
        "holds_until": until if until is not None and until < NEVER - timedelta(days=1) else None,
    }
