"""What a report does to a building: connect, update, offline, disconnect and delete of one device (M0, M3.1, M7).

Rules:
- Newest wins per series, whatever the order of arrival; a repeat changes nothing (M0.4).
- Offline and disconnect end a device's values; an inverter that goes offline at 0 sleeps (M0.5, M4.3).
- After a delete only a newer message brings the device back (M0.5).
- Coordinates are compared in passing; nothing of them stays (M0.8).
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final

from bridge.core.devices import device_type
from bridge.core.effects import Note
from bridge.core.household import limit_of
from bridge.core.intervals import NEVER, holds_until, insert, slot_of
from bridge.core.messages import Facts, Quantity, Reading, Report
from bridge.core.model import Building, Device, Residence, Sample, key
from bridge.core.rules import Rules
from bridge.core.vocabulary import Action, Kind

NEARBY_M: Final = 1_000.0  # M3.1: a vehicle further from its building does not charge there
EARTH_M: Final = 6_371_000.0

_SLOT_SERIES: Final = frozenset({Quantity.POWER, Quantity.TEMPERATURE, Quantity.COUNTER})


def report(building: Building, message: Report, rules: Rules, residence: Residence | None) -> tuple[Building, tuple[Note, ...]]:
    """Apply connect, update, offline, disconnect or delete of one device."""
    notes = tuple(Note(name="odd_value", detail=text) for text in message.odd)
    name = key(message.kind, message.id)
    deleted = building.gone.get(name)
    device = building.devices.get(name)
    if message.action is Action.DELETE:
        return delete(building, message.kind, message.id, message.stamp, message.received), notes
    if device is None:
        if deleted is not None and not _brings_back(message, deleted):
            return building, (*notes, Note(name="after_delete", detail=f"{name} was deleted at {deleted.isoformat()}"))
        if message.user is None:
            return building, (*notes, Note(name="unknown_device_ignored"))
        device = Device(
            kind=message.kind, id=message.id, user=message.user, subscription=message.subscription,
            since=message.stamp, stamp=message.stamp,
        )  # fmt: skip
    known_currency = device.facts.currency
    device, late = _updated(building, device, message, rules, residence)
    if known_currency is not None and device.facts.currency != known_currency:  # M6.2: prices in the old one mean nothing
        building = replace(building, prices={**building.prices, message.id: ()})
    gone = {other: stamp for other, stamp in building.gone.items() if other != name} if deleted is not None else building.gone
    building = replace(building, devices={**building.devices, name: device}, gone=gone)
    building = _begun(building, device, message, rules)
    if late:
        notes = (*notes, Note(name="late_sample", detail=f"{late} sample(s) of {name} came after their slot had closed"))
    return _heard(building, message), notes


def _brings_back(message: Report, deleted: datetime) -> bool:
    """Tell whether a message brings a deleted device back (M0.5)."""
    if message.action is Action.UPDATE:
        return message.stamp > deleted
    return message.action is Action.CONNECT and message.stamp >= deleted


def _heard(building: Building, message: Report) -> Building:
    """Remember how fresh the building's messages are; the clock of M5.4 needs it."""
    newest_stamp = building.newest_stamp
    if newest_stamp is None or message.stamp > newest_stamp:
        newest_stamp = message.stamp
    return replace(building, newest_stamp=newest_stamp, last_received=message.received)


def _updated(
    building: Building, device: Device, message: Report, rules: Rules, residence: Residence | None
) -> tuple[Device, int]:
    """Return a device after a message about it, and how many samples came too late for their slot."""
    old_type = device_type(device)
    device = replace(
        device,
        facts=_facts(device.facts, message),
        location=_location(device, message),
        since=min(device.since, message.stamp),
        stamp=max(device.stamp, message.stamp),
        user=message.user or device.user,
    )
    if device_type(device) is not old_type:  # M2: a changed type starts fresh series
        device = replace(device, series={}, sent={}, days={}, counter_base=None, since=message.stamp)
    away = _away(message)
    if away is not None:
        return _leave(device, message, rules, disconnected=away is Action.DISCONNECT), 0
    return _present(building, device, message, residence)


def _away(message: Report) -> Action | None:
    """Return how a message says that its device cannot be reached (M7)."""
    if message.action is Action.DISCONNECT or message.connected is False:
        return Action.DISCONNECT
    if message.action is Action.OFFLINE or message.online is False:
        return Action.OFFLINE
    return None


def _facts(known: Facts, message: Report) -> Facts:
    """Return static data: the newer wins field by field, missing keeps what is known (M2)."""
    said = message.facts
    if said == known or said == _NOTHING:
        return known
    newer = known.updated is None or said.updated is None or said.updated >= known.updated
    first, second = (said, known) if newer else (known, said)
    return Facts(
        vendor=first.vendor or second.vendor, model=first.model or second.model, name=first.name or second.name,
        type=first.type or second.type, engine=first.engine or second.engine, currency=first.currency or second.currency,
        updated=first.updated or second.updated,
    )  # fmt: skip


_NOTHING: Final = Facts()


def _location(device: Device, message: Report) -> str | None:
    """Return where the device is by its newest message that says so."""
    if message.location is None:
        return device.location
    return message.location if device.location is None or message.stamp >= device.stamp else device.location


def _leave(device: Device, message: Report, rules: Rules, *, disconnected: bool) -> Device:
    """End a device's values: offline or disconnected (M0.5). A repeat of what was applied does nothing."""
    applied = device.disconnect_stamp if disconnected else device.offline_stamp
    if applied is not None and message.stamp <= applied:
        return device
    at = message.stamp if _is_news(device, message.stamp) else message.received
    series = {
        quantity: insert(samples, _end(device, quantity, samples[-1], at, message, rules, asleep=not disconnected), None)
        for quantity, samples in device.series.items()
    }
    if disconnected:
        return replace(device, series=series, disconnected=True, disconnect_stamp=message.stamp)
    return replace(device, series=series, offline=True, offline_stamp=message.stamp)


def _is_news(device: Device, stamp: datetime) -> bool:
    """Tell whether a stamp is later than the device's newest sample."""
    return all(stamp > samples[-1].at for samples in device.series.values())


def _end(
    device: Device, quantity: Quantity, last: Sample, at: datetime, message: Report, rules: Rules, *, asleep: bool
) -> Sample:
    """Return the sample that ends a value; an inverter that goes offline at 0 sleeps and stays 0 (M4.3)."""
    if (
        asleep
        and device.kind is Kind.PV_INVERTER
        and quantity is Quantity.POWER
        and last.value == 0.0
        and holds_until(last, limit_of(device.kind, rules)) >= at
    ):
        return Sample(at, 0.0, NEVER, message.updated or message.stamp, message.number)
    return Sample(at, None, at, message.updated or message.stamp, message.number)


def _present(
    building: Building, device: Device, message: Report, residence: Residence | None
) -> tuple[Device, int]:
    """Take the values of a device that can be reached; a newer stamp ends its absence (M7)."""
    if message.online is True:
        if device.offline and device.offline_stamp is not None and message.stamp > device.offline_stamp:
            device = replace(device, offline=False)
        if device.disconnected and device.disconnect_stamp is not None and message.stamp > device.disconnect_stamp:
            device = replace(device, disconnected=False)
    series = dict(device.series)
    since = device.since
    late = 0
    apart = _apart(message, residence)
    for reading in message.readings:
        value = None if apart and reading.quantity is Quantity.POWER else reading.value
        samples = series.get(reading.quantity, ())
        if value is None and not samples:
            continue
        sample = Sample(reading.at, value, max(message.stamp, reading.at), message.updated or message.received, message.number)
        series[reading.quantity] = _with(samples, sample, reading, building)
        if reading.quantity in _SLOT_SERIES and value is not None:
            since = min(since, reading.at)
            late += _is_late(building, samples, sample)
    _wake(device, message, series)
    return replace(device, series=series, since=since), late


def _with(samples: tuple[Sample, ...], sample: Sample, reading: Reading, building: Building) -> tuple[Sample, ...]:
    """Return a series with a sample; only the series that slots are made of keep their history."""
    together = insert(samples, sample, building.open_from if building.closed else None)
    return together if reading.quantity in _SLOT_SERIES else together[-1:]


def _is_late(building: Building, samples: tuple[Sample, ...], sample: Sample) -> bool:
    """Tell whether a sample is news about a slot that has closed (M5.5); a value carried along is none."""
    if not building.closed or building.open_from is None or sample.at >= building.open_from:
        return False
    return all(other.at != sample.at for other in samples)


def _wake(device: Device, message: Report, series: dict[Quantity, tuple[Sample, ...]]) -> None:
    """End the sleep of an inverter at its next message, where that brings no newer power (M4.3)."""
    samples = series.get(Quantity.POWER, ())
    if device.kind is Kind.PV_INVERTER and samples and samples[-1].seen == NEVER and message.stamp > samples[-1].at:
        end = Sample(message.stamp, None, message.stamp, message.updated or message.received, message.number)
        series[Quantity.POWER] = (*samples, end)


def _apart(message: Report, residence: Residence | None) -> bool:
    """Tell whether a vehicle is more than 1 km from its building's coordinates (M3.1)."""
    place = residence.attributes.get("geolocation") if residence is not None else None
    if message.position is None or not isinstance(place, Mapping):
        return False
    lat, lon = place.get("lat"), place.get("lon")
    if not isinstance(lat, int | float) or not isinstance(lon, int | float):
        return False
    return _distance_m(message.position, (float(lat), float(lon))) > NEARBY_M


def _distance_m(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Return the great-circle distance of two points given in degrees."""
    lat1, lon1, lat2, lon2 = (math.radians(angle) for angle in (*one, *other))
    half = math.sin((lat2 - lat1) / 2) ** 2 + math.cos(lat1) * math.cos(lat2) * math.sin((lon2 - lon1) / 2) ** 2
    return 2 * EARTH_M * math.asin(math.sqrt(min(half, 1.0)))


def _begun(building: Building, device: Device, message: Report, rules: Rules) -> Building:
    """Open the building's first slot with its earliest sample; an old sample makes no slots (M5.6)."""
    oldest = message.received - rules.max_backfill
    first: datetime | None = None
    for reading in message.readings:
        if reading.quantity in _SLOT_SERIES and reading.value is not None and reading.quantity in device.series:
            begin = slot_of(reading.at if reading.at >= oldest else message.received)
            first = begin if first is None else min(first, begin)
    if first is None:
        return building
    if building.open_from is None or (first < building.open_from and not building.closed):
        return replace(building, open_from=first)
    if building.open_from < slot_of(oldest) and not building.days:  # nothing was known for so long: begin anew
        return replace(building, open_from=slot_of(oldest))
    return building


def delete(building: Building, kind: Kind, device_id: str, stamp: datetime, received: datetime) -> Building:
    """Take a device out; the household counts it up to its end (M0.5, M5.7)."""
    name = key(kind, device_id)
    gone = {**building.gone, name: max(stamp, building.gone.get(name, stamp))}
    device = building.devices.get(name)
    if device is None:
        return replace(building, gone=gone)
    until = stamp if _is_news(device, stamp) else received
    devices = {other: kept for other, kept in building.devices.items() if other != name}
    departed = building.departed if kind is Kind.TARIFF else (*building.departed, replace(device, until=until, sent={}, days={}))
    prices = {tariff: slices for tariff, slices in building.prices.items() if kind is not Kind.TARIFF or tariff != device_id}
    return replace(building, devices=devices, departed=departed, gone=gone, prices=prices)
