"""What leaves when one slot closes: the values of its devices and of the household (mapping rules M3, M4, M5.3).

Rules:
- A device's values leave as long as it is there; the household counts it up to its delete (M5.7).
- The excess energy of a half hour leaves with the second quarter, stamped by the half hour's own ends.

Theory of operation: `measure` says what there is; here it becomes events, and the state of the next slot.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final, assert_never
from zoneinfo import ZoneInfo

from bridge.core.copying import replace
from bridge.core.days import close_day, day_end, day_start, is_ahead, is_apart, own_day
from bridge.core.devices import entry_of, gateway_entry
from bridge.core.effects import DeviceEntry, Event, Note
from bridge.core.findings import marked
from bridge.core.household import SIGN_MARGIN_WH, Members, flows, lacking, suspects, turned, wrong_sign
from bridge.core.intervals import QUARTER, trim
from bridge.core.measure import NOTHING, Measure, Own, measure, own_of, tracked
from bridge.core.messages import Quantity
from bridge.core.model import Building, Device, Flag, Level, Series, added, name_of
from bridge.core.rules import Rules, Stamp
from bridge.core.tracks import Measured, Track, enough_of, present, setting_of
from bridge.core.units import tidy
from bridge.core.vocabulary import EventType, Kind

HALF_HOUR: Final = 2 * QUARTER
INSIDE: Final = timedelta(seconds=1)  # M5.1: how far before the end "inside" is
LEAST_COUNTED_WH: Final = 1.0  # less is rounding
PATIENCE: Final = timedelta(hours=6)  # M4.5: a household that waits longer for one device is told


def _event(entry: DeviceEntry, type_: EventType, value: float, end: datetime, rules: Rules) -> Event:
    """Return an event of the interval that ends at `end`."""
    match rules.stamp:
        case Stamp.END:
            at = end
        case Stamp.INSIDE:
            at = end - INSIDE
        case Stamp.START:
            at = end - (HALF_HOUR if type_ is EventType.ENERGY_EXCESS else QUARTER)
        case _:
            assert_never(rules.stamp)
    return Event(device=entry.id, name=entry.name, source=entry.type, type=type_, value=tidy(value), at=at)


def _events(entry: DeviceEntry, values: Mapping[EventType, Measured], end: datetime, rules: Rules) -> Iterator[Event]:
    """Yield the events of what leaves."""
    for type_, one in values.items():
        if one.why is None:
            yield _event(entry, type_, one.value, end, rules)


def close(building: Building, start: datetime, rules: Rules) -> tuple[Building, list[Event], list[Note]]:
    """Close one slot."""
    building = _by_one_setting(building, rules)
    found = measure(building, start, rules)
    end = found.end
    devices = dict(building.devices)
    events: list[Event] = []
    if not is_apart(building, end):
        events += _events(gateway_entry(building.id), found.house, end, rules)
    for name, one in found.living.items():
        devices[name], own = _close_device(one, found.own[name], end, rules)
        events += own
    building = replace(
        building,
        devices=devices,
        departed=_counted_on(building, found),
        days=added(building.days, found.days),
        half=found.half,
    )
    building = _waiting(found, _told_of(found, building), rules)
    if start.minute % 30 != 0:
        building = replace(building, half=None)
    if day_end(start, ZoneInfo(building.time_zone)) == end:
        building, of_day = close_day(building, start, end, rules)
        events += of_day
    return _open(building, end), events, [Note(name="implausible_balance")] if found.implausible else []


def _by_one_setting(building: Building, rules: Rules) -> Building:
    """Return a building whose open half hour and day hold nothing that other settings of a meter have made of it.

    A sum of both would be neither: the rest of the half hour or day is all that counts, and rarely enough to leave.
    """
    meters = {name: setting_of(one, rules) for name, one in building.devices.items() if one.kind is Kind.METER}
    if meters == building.meters:
        return building  # nearly always
    turned = {name for name, said in building.meters.items() if meters.get(name, said) != said}
    building = replace(building, meters=meters)
    if not turned:
        return building
    devices = {name: replace(one, days={}) if name in turned else one for name, one in building.devices.items()}
    days = {name: sum_ for name, sum_ in building.days.items() if name == EventType.ENERGY_GENERATION}
    return replace(building, devices=devices, days=days, half=None)


def _counted_on(building: Building, found: Measure) -> tuple[Device, ...]:
    """Return the devices that have left, with where their counters stand after a slot."""
    if not building.departed:
        return ()
    after = {id(one.device): one.counted.level for one in found.tracks if one.counted is not None}
    return tuple(
        replace(device, level=after[id(device)]) if id(device) in after else device for device in building.departed
    )


def close_own(building: Building, device: Device, until: datetime, rules: Rules) -> tuple[Device, list[Event]]:
    """Close the slots that ended by an instant for one device of the building, whatever the building's clock says.

    What a message changes of a device does not change what left before it (M5.7, M5.11). The household takes its own
    time: it counts the device in these slots when it closes them.
    """
    if building.open_from is None or device.kind is Kind.TARIFF:
        return device, []
    zone = ZoneInfo(building.time_zone)
    start, one = building.open_from, device  # as it would be, were the household's slots closed too
    if device.own_from is not None and device.own_from > start:
        start, one = device.own_from, replace(device, level=device.own_level)
    events: list[Event] = []
    while start + QUARTER <= until:
        end = start + QUARTER
        if device.since < end:
            found = tracked(one, start, rules)
            one, own = _close_device(
                found, own_of(found, start, rules, has_charger=_charged(building, end)), end, rules
            )
            events += own
        if day_end(start, zone) == end:
            events += own_day(one, end, enough_of(end - day_start(start, zone), rules))
            one = replace(one, days={})
        start = end
    return replace(device, days=one.days, own_from=start, own_level=one.level), events


def _charged(building: Building, end: datetime) -> bool:
    """Tell whether a charger takes part in the slot that ends at an instant."""
    return any(device.kind is Kind.CHARGER for device in present(building, end)[1])


def skip(building: Building, start: datetime) -> Building:
    """Return the building with `start` as its first open slot; nothing is known of those before it."""
    devices = {
        name: replace(device, series=_trimmed(device, start), level=_skipped(device.level, building, start))
        for name, device in building.devices.items()
    }
    return _open(replace(building, devices=devices, half=None), start)


def _skipped(level: Level | None, building: Building, start: datetime) -> Level | None:
    """Return where a counter stands when slots are passed over in which nothing is known."""
    if level is None or building.open_from is None:
        return level
    today_s = (start - day_start(start, ZoneInfo(building.time_zone))).total_seconds()
    return level._replace(gap_s=min(level.gap_s + (start - building.open_from).total_seconds(), today_s), lately=())


def _open(building: Building, start: datetime) -> Building:
    """Return the building with `start` as its first open slot."""
    departed = tuple(device for device in building.departed if device.until is not None and device.until > start)
    apart = tuple(one for one in building.apart if one[1] is None or one[1] > start)
    return replace(building, departed=departed, apart=apart, open_from=start, closed=True)


def _trimmed(device: Device, start: datetime) -> dict[Quantity, Series]:
    """Return a device's series without the samples that slots from `start` on do not need."""
    return {quantity: trim(samples, start) for quantity, samples in device.series.items()}


# ---- devices --------------------------------------------------------------------------------------------------------


def _close_device(one: Track, own: Own, end: datetime, rules: Rules) -> tuple[Device, list[Event]]:
    """Close a slot for one device; returns it with its day's sums so far, and its events."""
    device = one.device
    if is_ahead(device, end):
        own = NOTHING
    entry = entry_of(device) if own is not NOTHING else None
    events = [*_events(entry, own.values, end, rules)] if entry is not None else []
    return replace(
        device,
        series=_trimmed(device, end),
        days=added(device.days, own.days) if own.days else device.days,
        level=one.counted.level if one.counted is not None else None,
    ), events


# ---- household ------------------------------------------------------------------------------------------------------


def _told_of(found: Measure, building: Building) -> Building:
    """Return a building with what an operator should know of a slot."""
    building = marked(building, Flag.AMBIGUOUS_METERS, on=bool(found.unclear), about=found.unclear)
    against = tuple(name for name, one in found.living.items() if one.counted is not None and one.counted.against)
    if against or Flag.COUNTER_AGAINST_POWER in building.flags:
        building = _against(found, building, against)
    if found.implausible:
        return _suspected(building, found.who)
    if Flag.WRONG_METER_SIGN in building.flags and _is_sound(building, found):
        return marked(building, Flag.WRONG_METER_SIGN, on=False)
    return building


def _against(found: Measure, building: Building, against: tuple[str, ...]) -> Building:
    """Return a building with the counters that their powers do not fit (M4.4); one that counts again fits."""
    flag = Flag.COUNTER_AGAINST_POWER
    still = [
        name
        for name in building.about.get(flag, ())
        if (one := found.living.get(name)) is not None
        and not (one.counted is None or (one.counted.read and one.counted.energy_wh >= LEAST_COUNTED_WH))
    ]
    about = tuple(sorted({*against, *still}))
    return marked(building, flag, on=bool(about), about=about)


def _suspected(building: Building, who: Members) -> Building:
    """Return a building whose balance cannot be, with the one sign that would explain it (M4.5)."""
    found = suspects(who)
    known = building.about.get(Flag.WRONG_METER_SIGN, ())
    about = (name_of(found[0].device),) if len(found) == 1 else known
    return marked(building, Flag.WRONG_METER_SIGN, on=True, about=about)


def _is_sound(building: Building, found: Measure) -> bool:
    """Tell whether a balance would have shown a wrong sign: in the sun, or because the suspect's sign must be right."""
    sun, who = found.house.get(EventType.ENERGY_GENERATION), found.who
    if sun is not None and sun.why is None and sun.value >= SIGN_MARGIN_WH:
        return True
    about = building.about.get(Flag.WRONG_METER_SIGN, ())
    return any(
        name_of(one.device) in about and wrong_sign(flows(turned(who, one))) for one in (*who.grid, *who.batteries)
    )


def _waiting(found: Measure, building: Building, rules: Rules) -> Building:
    """Return the building with the devices for want of which its values are withheld (M4.5)."""
    names = [name_of(one.device) for one in lacking(found.who, enough_of(QUARTER, rules))]
    if not names and not building.waits:
        return building
    waits = {name: building.waits.get(name, found.start) for name in names}
    building = replace(building, waits=waits)
    about = building.about.get(Flag.WAITS_FOR_DEVICE, ())
    if len(names) == 1 and found.end - waits[names[0]] > PATIENCE:
        return marked(building, Flag.WAITS_FOR_DEVICE, on=True, about=(names[0],))
    return building if set(about) & set(names) else marked(building, Flag.WAITS_FOR_DEVICE, on=False)
