"""What a report does to a building: connect, update, offline, disconnect and delete of one device (M0, M3.1, M7).

Rules:
- Newest wins per series, whatever the order of arrival; a repeat changes nothing (M0.4).
- Offline and disconnect end a device's values at their stamp; if that is not news, at their receipt (M0.5).
- An inverter whose last word was 0 or a few watts sleeps when it goes offline, falls silent or says nothing but nulls:
  its value is 0 until its next message (M4.3).
- After a delete only a newer message brings the device back (M0.5).
- Coordinates are compared in passing; nothing of them stays but whether a vehicle was away (M0.8, M3.1).
"""

import math
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Final

from bridge.core.bounds import LIMIT_REACHED, beyond, has_room, overflowed
from bridge.core.closing import close_own
from bridge.core.copying import replace
from bridge.core.counters import is_repeat, noted
from bridge.core.deletes import deleted_at, remembered
from bridge.core.devices import device_type, entry_of, new_moost_id
from bridge.core.effects import Event, Note
from bridge.core.intervals import (
    BLANK,
    GONE,
    NEVER,
    Limit,
    holds_until,
    in_force,
    insert,
    is_absence,
    room,
    slot_of,
    taken,
    told_until,
    trim,
)
from bridge.core.jumps import flagged as jumped
from bridge.core.jumps import judge
from bridge.core.mapping import QUANTITIES
from bridge.core.messages import Facts, Moved, Quantity, Reading, Report, Value
from bridge.core.model import Building, Device, Residence, Sample, Series, Shown, Slice, identity_of, label, name_of
from bridge.core.order import Time, is_before, later
from bridge.core.rules import Rules
from bridge.core.slots import next_slot
from bridge.core.tracks import hold_always, limit_of, runs_backwards
from bridge.core.vocabulary import Action, DeviceKey, Kind

DUSK_W: Final = 50.0  # M4.3: the last word at dusk is that small, or …
DUSK_SHARE: Final = 0.01  # … this share of the largest power that the inverter has shown
NEARBY_M: Final = 1_000.0  # M3.1: a vehicle further from its building does not charge there
EARTH_M: Final = 6_371_000.0

_SLOT_SERIES: Final = frozenset({Quantity.POWER, Quantity.TEMPERATURE, Quantity.COUNTER})
_NOTHING: Final = Facts()
_ABSENT: Final = Note(name="absent_value")
_JUMP: Final = Note(
    name="unit_jump", detail="a power over 100 times the largest so far is not used: has its unit changed?"
)
_BACKWARDS: Final = Note(name="odd_value", detail="powerState.power: negative at a meter that only draws, taken as 0")


def report(
    building: Building, message: Report, rules: Rules, residence: Residence | None
) -> tuple[Building, Sequence[Event], tuple[Note, ...]]:
    """Apply a report; return the building, the slots of a device that close before it changes, and what was unusual."""
    notes = tuple(Note(name="odd_value", detail=text) for text in message.odd) if message.odd else ()
    if message.odd_times:
        notes += tuple(Note(name="odd_time", detail=text) for text in message.odd_times)
    if message.action is Action.DELETE:
        after, last, forgotten = delete(building, message, message.time, message.received, rules)
        return _heard(after, message, rules), last, (*notes, *forgotten)
    name = name_of(message)
    before = building.devices.get(name)
    refusal = ignored(building, message, rules)
    if refusal is not None:
        return building, (), (*notes, refusal)
    device, last = _told(building, before or _new(building, message, rules), message, rules)
    away = _away(message)
    if away is not None:
        device = _leave(device, message, rules, disconnected=away is Action.DISCONNECT)
        open_from = building.open_from
    else:
        device, remarks = _present(building, device, message, rules, residence)
        notes = (*notes, *remarks)
        open_from = _open_from(building, device, message, rules)
    after = replace(
        building,
        devices={**building.devices, name: device},
        prices=_prices(building, before, device),
        open_from=open_from,
        newest_stamp=_later(building.newest_stamp, message.stamp),
        last_received=message.received,
        last_stamp=message.stamp,
        backlog=_backlog(building, message, rules),
    )
    if any(note.name == LIMIT_REACHED for note in notes):
        after = overflowed(after, name)
    jumps = device.shown.jumped is not None
    return jumped(after) if jumps or (before is not None and before.shown.jumped is not None) else after, last, notes


def _heard(building: Building, message: Report, rules: Rules) -> Building:
    """Remember how fresh the building's messages are: M5.4 needs to know."""
    return replace(
        building,
        newest_stamp=_later(building.newest_stamp, message.stamp),
        last_received=message.received,
        last_stamp=message.stamp,
        backlog=_backlog(building, message, rules),
    )


def _backlog(building: Building, message: Report, rules: Rules) -> datetime | None:
    """Return when a message last came that was old, though the building had heard of nothing newer.

    One device whose clock lags behind the others is no backlog.
    """
    old = message.received - message.stamp > rules.live_max_age
    newest = building.newest_stamp is None or message.stamp >= building.newest_stamp
    return message.received if old and newest else building.backlog


def _new(building: Building, message: Report, rules: Rules) -> Device:
    """Return a device that is heard of for the first time here, or again after its delete."""
    ends = [end for end in (message.arrived, _last_end(building, message, rules)) if end is not None]
    not_before = max(ends, default=None)
    return Device(
        kind=message.kind,
        id=message.id,
        user=message.user or "",
        subscription=message.subscription,
        since=_later(not_before, message.stamp),
        stamp=message.stamp,
        stamp_sent=message.stamp_sent,
        not_before=not_before,
        mute_until=NEVER if message.kind is Kind.PV_INVERTER else None,
        moost_id=new_moost_id(DeviceKey(message.subscription, message.kind, message.id), building.devices.values()),
    )


def _last_end(building: Building, message: Report, rules: Rules) -> datetime | None:
    """Return up to when earlier lives of a device here count."""
    me = DeviceKey(message.subscription, message.kind, message.id)
    deleted = deleted_at(building, name_of(message), message.received, rules)
    lives = [gone.until for gone in building.departed if identity_of(gone) == me]
    return max((end for end in (deleted and deleted.at, *lives) if end is not None), default=None)


def _since(device: Device, at: datetime) -> datetime:
    """Return since when a device counts, known at an instant: a value from before its life here counts from that on."""
    if device.not_before is not None and at < device.not_before:
        return device.since
    return min(device.since, at)


def ignored(building: Building, message: Report, rules: Rules) -> Note | None:
    """Return why a message says nothing; None if it does: it is older than a delete, or about nobody's device."""
    name = name_of(message)
    deleted = deleted_at(building, name, message.received, rules)
    there = name in building.devices
    if deleted is not None and (message.time.is_before(deleted) if there else not _brings_back(message, deleted)):
        text = f"{label(message.kind, message.id)} was deleted at {deleted.at.isoformat()}"
        return Note(name="after_delete", detail=text)
    return Note(name="unknown_device_ignored") if message.user is None and not there else None


def _brings_back(message: Report, deleted: Time) -> bool:
    """Tell whether a message brings a deleted device back (M0.5)."""
    if message.undated:
        return False
    if message.action is Action.UPDATE:
        return deleted.is_before(message.time)
    return message.action is Action.CONNECT and not message.time.is_before(deleted)


def _later(one: datetime | None, other: datetime) -> datetime:
    """Return the later of two times, the first of which may be missing."""
    return other if one is None or other > one else one


# ---- what it is ------------------------------------------------------------------------------------------------------


def _told(building: Building, device: Device, message: Report, rules: Rules) -> tuple[Device, Sequence[Event]]:
    """Return a device with what a message says of itself: static data, place, owner. Almost always that is nothing new.

    Its slots before are sent by what it was then: they close first. The stamps are left to what happens next, because a
    copy of a device is not free.
    """
    facts = _facts(device.facts, message.facts)
    location = _location(device, message)
    user = message.user or device.user
    if facts is device.facts and location == device.location and user == device.user:
        return device, ()
    told = replace(device, facts=facts, location=location, user=user)
    if facts.engine == device.facts.engine and entry_of(told) == entry_of(device):
        return told, ()
    before, last = close_own(building, device, message.stamp, rules)
    told = replace(told, days=before.days, own_from=before.own_from, own_level=before.own_level)
    if device_type(told) is not device_type(device):  # M2: a changed hvac type
        since = _later(told.not_before, message.stamp)
        told = replace(told, series={}, sent={}, days={}, since=since)
    return told, last


def _facts(known: Facts, said: Facts) -> Facts:
    """Return static data: the newer wins field by field, missing keeps what is known (M2)."""
    if said in (known, _NOTHING):
        return known
    older = (
        known.updated is not None
        and said.updated is not None
        and is_before(said.updated, said.updated_sent, known.updated, known.updated_sent)
    )
    first, second = (known, said) if older else (said, known)
    return Facts(
        vendor=first.vendor or second.vendor,
        model=first.model or second.model,
        name=first.name or second.name,
        type=first.type or second.type,
        engine=first.engine or second.engine,
        currency=first.currency or second.currency,
        updated=first.updated or second.updated,
        updated_sent=first.updated_sent if first.updated is not None else second.updated_sent,
    )


def _location(device: Device, message: Report) -> str | None:
    """Return where the device is by its newest message that says so."""
    if message.location is None or message.location == device.location:
        return device.location
    if device.location is not None and (message.undated or message.time.is_before(device.time)):
        return device.location
    return message.location


def _prices(building: Building, before: Device | None, device: Device) -> Mapping[str, tuple[Slice, ...]]:
    """Return the building's prices; those in a currency that the tariff has given up mean nothing (M6.2)."""
    known = before.facts.currency if before is not None else None
    if known is None or known == device.facts.currency:
        return building.prices
    return {**building.prices, name_of(device): ()}


# ---- away ------------------------------------------------------------------------------------------------------------


def _away(message: Report) -> Action | None:
    """Return how a message says that its device cannot be reached (M7)."""
    if message.action is Action.DISCONNECT or message.connected is False:
        return Action.DISCONNECT
    if message.action is Action.OFFLINE or message.online is False:
        return Action.OFFLINE
    return None


def _leave(device: Device, message: Report, rules: Rules, *, disconnected: bool) -> Device:
    """End a device's values (M0.5); a repeat of what was applied does nothing.

    Only a message newer than all that is known now ends the absence: a repeat of an older one does not.
    """
    stamp = _newest_stamp(device, message)
    device = replace(device, stamp=stamp.at, stamp_sent=stamp.sent, since=_since(device, message.stamp))
    if not _is_after(message, *_absence(device, disconnected=disconnected)):
        return device
    end_ = _end(device, message.time, message.received)
    end = Sample(
        end_.at,
        None,
        GONE if disconnected else NEVER,
        message.updated or message.stamp,
        message.number,
        end_.sent,
        message.updated_sent if message.updated is not None else message.stamp_sent,
    )
    # Every series gets its end, also one without values: an older value may still arrive.
    series = dict(device.series)
    for quantity in QUANTITIES[device.kind]:
        if quantity is not Quantity.COUNTER:  # its readings are points: there is nothing to end (M4.4)
            series[quantity] = _ended(series.get(quantity, ()), end, quantity)
    if device.kind is Kind.PV_INVERTER:
        series[Quantity.POWER] = _asleep(series[Quantity.POWER], limit_of(device.kind, rules))
    if disconnected:
        return replace(device, series=series, disconnected=True, disconnect_stamp=stamp.at, disconnect_sent=stamp.sent)
    return replace(device, series=series, offline=True, offline_stamp=stamp.at, offline_sent=stamp.sent)


def _newest_stamp(device: Device, message: Report) -> Time:
    """Return the newest stamp of a device after a message."""
    return device.time if message.undated else later(device.time, message.time)


def _absence(device: Device, *, disconnected: bool) -> tuple[datetime | None, datetime | None]:
    """Return the newest stamp that said that a device cannot be reached, and as sent."""
    if disconnected:
        return device.disconnect_stamp, device.disconnect_sent
    return device.offline_stamp, device.offline_sent


def _is_after(message: Report, stamp: datetime | None, sent: datetime | None) -> bool:
    """Tell whether a message is newer than a stamp, if there is one."""
    return stamp is None or Time(stamp, sent).is_before(message.time)


def _end(device: Device, stamp: Time, received: datetime) -> Time:
    """Return when an absence ends the values: at its stamp, or at its receipt if a value is as new as that (M0.5)."""
    newest = [
        samples[-1]
        for quantity, samples in device.series.items()
        if quantity is not Quantity.AWAY and not (quantity is Quantity.COUNTER and is_repeat(samples[-1]))
    ]
    if all(is_before(sample.at, sample.sent, *stamp) for sample in newest):
        return stamp
    return Time(max(received, *(sample.at for sample in newest)))


def _ended(series: Series, end: Sample, quantity: Quantity) -> Series:
    """Return a series with its end; only the series that slots are made of keep their history."""
    together = insert(room(series), end, None)
    return together if quantity in _SLOT_SERIES else together[-1:]


def _asleep(series: Series, limit: Limit) -> Series:
    """Return an inverter's power in which an offline or a block of nulls after its last watts is night: 0 (M4.3).

    Both are marked by their `seen`; what they follow may arrive after them.
    """
    if all(sample.seen < BLANK for sample in series):
        return series
    settled: list[Sample] = []
    for sample in series:
        if settled and sample.seen >= BLANK:
            last = settled[-1]
            sleeps = last.dusk or (last.value == 0.0 and holds_until(last, limit) >= sample.at)
            settled.append(sample._replace(value=0.0 if sleeps else None))
        else:
            settled.append(sample)
    return tuple(settled)


# ---- present ---------------------------------------------------------------------------------------------------------


def _present(
    building: Building, device: Device, message: Report, rules: Rules, residence: Residence | None
) -> tuple[Device, tuple[Note, ...]]:
    """Take the values of a device that can be reached; a newer stamp ends its absence (M7)."""
    series = dict(device.series)
    since = _since(device, message.stamp)
    late = absent = 0
    closed_to = building.open_from if building.closed else None
    updated = message.updated or message.received
    shown = device.shown
    remarks: tuple[Note, ...] = ()
    full: set[Quantity] = set()
    for reading in message.readings:
        quantity, at, value = reading.quantity, reading.at, reading.value
        if quantity is Quantity.POWER:
            value, shown, remarks = _power(device, reading, rules)
        samples = series.get(quantity, ())
        sample = Sample(at, value, max(message.stamp, at), updated, message.number, reading.sent, message.updated_sent)
        if quantity in _SLOT_SERIES and not has_room(samples, sample):
            full.add(quantity)
        elif together := _with(device, quantity, sample, message, closed_to, rules, shown=shown):
            series[quantity] = together
        if value is None:
            absent += 1
            continue
        if quantity in _SLOT_SERIES:
            since = min(since, _since(device, at))
            late += closed_to is not None and _is_late(samples, sample, closed_to)
    if device.kind is Kind.PV_INVERTER and not message.readings and Quantity.POWER in series:
        series[Quantity.POWER] = _awake(series[Quantity.POWER], message, limit_of(device.kind, rules))
    if message.position is not None:
        series[Quantity.AWAY] = _told_away(series.get(Quantity.AWAY, ()), message, residence, closed_to)
    if device.kind is Kind.METER:
        device = _with_power(device, series)
    device = _heard_of_power(device, message)
    remarks += (_ABSENT,) * absent + _unkept(device, full, late)
    stamp = _newest_stamp(device, message)
    device = replace(device, series=series, since=since, stamp=stamp.at, stamp_sent=stamp.sent, shown=shown)
    return _back(device, message), remarks


def _unkept(device: Device, full: Collection[Quantity], late: int) -> tuple[Note, ...]:
    """Return what to say of samples that are not kept, and of those that came after their slot had closed."""
    notes: tuple[Note, ...] = ()
    if full:
        text = f"{', '.join(sorted(full))} of {label(device.kind, device.id)} not kept"
        notes = (beyond("samples_per_slot", text),)
    if late:
        text = f"{late} sample(s) of {label(device.kind, device.id)} came after their slot had closed"
        notes = (*notes, Note(name="late_sample", detail=text))
    return notes


def _with(  # noqa: PLR0913 - a sample, and all that it is judged by
    device: Device,
    quantity: Quantity,
    sample: Sample,
    message: Report,
    closed_to: datetime | None,
    rules: Rules,
    *,
    shown: Shown,
) -> Series:
    """Return a series with what a message says; only the series that slots are made of keep their history."""
    series, back = device.series.get(quantity, ()), message.online is True
    if device.kind is Kind.PV_INVERTER and quantity is Quantity.POWER:
        return _power_of_inverter(series, sample, message, shown, closed_to, rules)
    if quantity is Quantity.COUNTER:
        return noted(series, sample, closed_to, silent=device.power_from is None)
    if quantity in _SLOT_SERIES:
        limit = limit_of(device.kind, rules) if quantity is Quantity.POWER else hold_always(rules)
        return taken(series, sample, message.stamp_sent, closed_to, limit, back=back)
    return taken(series, sample, message.stamp_sent, None, None, back=back)[-1:]


def _with_power(device: Device, series: Mapping[Quantity, Series]) -> Device:
    """Return a meter that remembers since when it has sent powers (M4.4)."""
    samples = series.get(Quantity.POWER, ())
    if device.power_from is not None and (not samples or device.power_from <= samples[0].at):
        return device  # nearly always
    known = [sample.at for sample in samples if sample.value is not None]
    return replace(device, power_from=min(known, default=device.power_from))


def _heard_of_power(device: Device, message: Report) -> Device:
    """Return an inverter that remembers since when it has said something of its power, be it null (M4.1)."""
    if device.mute_until is None:
        return device
    first = min((r.at for r in message.readings if r.quantity is Quantity.POWER), default=NEVER)
    return replace(device, mute_until=first) if first < device.mute_until else device


def _power(device: Device, reading: Reading, rules: Rules) -> tuple[Value | None, Shown, tuple[Note, ...]]:
    """Return what a reading says of the power of a device, and what that has shown then (M0.9, M0.11)."""
    value, shown = reading.value, device.shown
    notes: tuple[Note, ...] = ()
    if value is not None and runs_backwards(device, value, rules):
        value, notes = 0.0, (_BACKWARDS,)
    power_w = value if isinstance(value, float) else reading.beyond
    if power_w is None or (value is not None and abs(power_w) <= shown.largest_w and shown.jumped is None):
        return value, shown, notes  # nearly always
    checked = rules.unit(device.subscription, device.kind, device.id) is None
    shown, jump = judge(shown, reading.at, power_w, possible=value is not None, checked=checked)
    return (None, shown, (*notes, _JUMP)) if jump else (value, shown, notes)


def _power_of_inverter(
    series: Series, sample: Sample, message: Report, shown: Shown, closed_to: datetime | None, rules: Rules
) -> Series:
    """Return the power of an inverter with a sample, awake or asleep (M4.3)."""
    if series and closed_to is not None and sample.seen < series[0].at <= closed_to:
        return series  # of a time that is closed: what followed it may be forgotten, so that nothing tells night
    limit = limit_of(Kind.PV_INVERTER, rules)
    blank = sample.value is None and _is_blank(message)
    there = in_force(series, sample.at) if blank else None
    again = there is not None and there.at == sample.at and there.seen == BLANK
    if blank and series and (there is None or again):
        return trim(series, closed_to)  # the same nulls, or the watts that they follow are forgotten
    if blank:
        sample = sample._replace(seen=BLANK)
    elif isinstance(sample.value, float):
        sample = sample._replace(dusk=sample.value <= max(DUSK_W, DUSK_SHARE * shown.largest_w))
    together = taken(series, sample, message.stamp_sent, None, limit, back=message.online is True)
    return trim(_awake(_asleep(together, limit), message, limit), closed_to)


def _is_blank(message: Report) -> bool:
    """Tell whether the block of an inverter is there and holds nothing but nulls."""
    readings = message.readings
    return bool(readings) and all(reading.value is None and reading.beyond is None for reading in readings)


def _told_away(series: Series, message: Report, residence: Residence | None, closed_to: datetime | None) -> Series:
    """Return whether a vehicle was away, with what its newest position says; it lasts until another one (M3.1).

    Of positions in a row that say the same the first and the last say it all.
    """
    if message.position is None or message.positioned is None:
        return series
    at, updated = message.positioned, message.updated or message.received
    away, stamp = _apart(message.position, residence), max(message.stamp, at.at)
    sample = Sample(at.at, away, stamp, updated, message.number, at.sent, message.updated_sent)
    if not has_room(series, sample):
        return series
    together = insert(series, sample, closed_to)
    kept = len(together) > 2 and together[-3].value is together[-2].value is together[-1].value  # noqa: PLR2004
    return (*together[:-2], together[-1]) if kept else together


def _back(device: Device, message: Report) -> Device:
    """End a device's absence if a message says so with a newer stamp."""
    if message.online is not True or message.undated or not (device.offline or device.disconnected):
        return device
    return replace(
        device,
        offline=device.offline and not _is_after(message, *_absence(device, disconnected=False)),
        disconnected=device.disconnected and not _is_after(message, *_absence(device, disconnected=True)),
    )


def _is_late(samples: Series, sample: Sample, closed_to: datetime) -> bool:
    """Tell whether a sample is news about a slot that has closed (M5.5); a value carried along is none."""
    if sample.at >= closed_to:
        return False
    same = in_force(samples, sample.at)
    if same is not None and same.at == sample.at:
        return False
    there = in_force(samples, sample.seen)
    return there is None or (there.value != sample.value and not is_absence(there))


def _awake(series: Series, message: Report, limit: Limit) -> Series:
    """End the sleep of an inverter at its next message, where that brings no newer power (M4.3)."""
    last = series[-1]
    asleep = last.value is not None and (last.seen >= BLANK or (last.dusk and told_until(last, limit) < message.stamp))
    if not asleep or _is_blank(message) or not is_before(last.at, last.sent, *message.time):
        return series
    updated = message.updated or message.received
    awake = Sample(
        message.stamp, None, message.stamp, updated, message.number, message.stamp_sent, message.updated_sent
    )
    return insert(series, awake, None)


def _apart(position: tuple[float, float], residence: Residence | None) -> bool:
    """Tell whether a vehicle is more than 1 km from its building's coordinates (M3.1)."""
    place = residence.attributes.get("geolocation") if residence is not None else None
    if not isinstance(place, Mapping):
        return False
    lat, lon = place.get("lat"), place.get("lon")
    if not isinstance(lat, int | float) or not isinstance(lon, int | float):
        return False
    return _distance_m(position, (float(lat), float(lon))) > NEARBY_M


def _distance_m(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Return the great-circle distance of two points given in degrees."""
    lat1, lon1, lat2, lon2 = (math.radians(angle) for angle in (*one, *other))
    half = math.sin((lat2 - lat1) / 2) ** 2 + math.cos(lat1) * math.cos(lat2) * math.sin((lon2 - lon1) / 2) ** 2
    return 2 * EARTH_M * math.asin(math.sqrt(min(half, 1.0)))


def _open_from(building: Building, device: Device, message: Report, rules: Rules) -> datetime | None:
    """Return the first open slot: the one of the earliest sample that counts; an old sample makes no slots (M5.6)."""
    starts = [max(reading.at, device.since) for reading in message.readings if _makes_slots(reading)]
    if not starts:
        return building.open_from
    oldest = message.received - rules.max_backfill
    first = slot_of(min(at if at >= oldest else message.received for at in starts))
    if building.open_from is None or (first < building.open_from and not building.closed):
        return first
    if min(starts) < oldest and building.open_from < first and next_slot(building, building.open_from, rules) is None:
        return first  # nothing was known or summed up since: begin anew, lest the old sample fills the gap
    return building.open_from


def _makes_slots(reading: Reading) -> bool:
    """Tell whether a value is one that slots are made of."""
    return reading.quantity in _SLOT_SERIES and reading.value is not None


# ---- gone ------------------------------------------------------------------------------------------------------------


def delete(
    building: Building, what: Report | Moved, stamp: Time, received: datetime, rules: Rules
) -> tuple[Building, Sequence[Event], tuple[Note, ...]]:
    """Take a device out, after its last slots have closed; the household counts it up to its end (M0.5, M5.7).

    The delete is remembered, so that an older message does not bring the device back, and a repeat of the delete does
    not take it away again once a newer one has.
    """
    name = name_of(what)
    device = building.devices.get(name)
    known = deleted_at(building, name, received, rules)
    if known is not None and not known.is_before(stamp) and (device is None or known.is_before(device.time)):
        return building, (), ()
    after, notes = remembered(building, name, later(known, stamp), received, rules)
    if name in building.prices:
        after = replace(after, prices={tariff: slices for tariff, slices in building.prices.items() if tariff != name})
    if name in building.schedules:
        after = replace(after, schedules={other: kept for other, kept in building.schedules.items() if other != name})
    if device is None:
        return after, (), notes
    after = replace(after, devices={other: kept for other, kept in building.devices.items() if other != name})
    if device.shown.jumped is not None:
        after = jumped(after)
    if what.kind is Kind.TARIFF:
        return after, (), notes
    _, last = close_own(building, device, stamp.at, rules)
    departed = (*building.departed, replace(device, until=_end(device, stamp, received).at, sent={}, days={}))
    return replace(after, departed=departed), last, notes
