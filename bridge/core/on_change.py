"""Events that leave when a message is processed: state of charge and codes (M3.2, M3.3, M3.4).

Rules:
- The newest known value leaves, with its block's time, if it differs from the last one sent for the series.
- Codes leave only where the operator has configured them.
"""

from datetime import datetime

from bridge.core.copying import replace
from bridge.core.devices import STATUS_FALLBACK, device_type, entry_of, mode, status, switch
from bridge.core.effects import Event
from bridge.core.mapping import ENGINES_WITHOUT_PLUG, ON_CHANGE
from bridge.core.messages import Report
from bridge.core.model import Building, Device, name_of
from bridge.core.rules import Rules
from bridge.core.tracks import is_ignored
from bridge.core.units import tidy
from bridge.core.vocabulary import DeviceType, EventType


def on_change(building: Building, message: Report, rules: Rules) -> tuple[Building, tuple[Event, ...]]:
    """Return the events that leave at once (M3.2, M3.3), and the building that remembers what was sent."""
    name = name_of(message)
    device = building.devices.get(name)
    type_ = device_type(device) if device is not None else None
    if device is None or type_ is None or is_ignored(device, rules):
        return building, ()
    said = _measured(device, type_, rules)
    if rules.codes:
        said += _codes(device, type_, message, rules)
    news = [
        (event_type, leaving, at)
        for event_type, value, at in said
        if device.sent.get(event_type) != (leaving := tidy(value))
    ]
    entry = entry_of(device) if news else None
    if entry is None:
        return building, ()
    sent = {**device.sent, **{event_type: value for event_type, value, _ in news}}
    building = replace(building, devices={**building.devices, name: replace(device, sent=sent)})
    return building, tuple(
        Event(device=entry.id, name=entry.name, source=type_, type=event_type, value=value, at=at)
        for event_type, value, at in news
    )


def _measured(device: Device, type_: DeviceType, rules: Rules) -> list[tuple[EventType, float, datetime]]:
    """Return the newest measured values that leave on change."""
    found: list[tuple[EventType, float, datetime]] = []
    if device.facts.engine in ENGINES_WITHOUT_PLUG or (type_ is DeviceType.BATTERY and not rules.battery_soc):
        return found
    for row in ON_CHANGE[type_]:
        series = device.series.get(row.quantity)
        if series and isinstance(series[-1].value, float):
            found.append((row.type, series[-1].value, series[-1].at))
    return found


def _codes(device: Device, type_: DeviceType, message: Report, rules: Rules) -> list[tuple[EventType, float, datetime]]:
    """Return the codes that the operator has configured for this type of device (M3.3)."""
    found: list[tuple[EventType, float, datetime]] = []
    table = rules.codes.get((EventType.DEVICE_STATUS, type_))
    if table:
        word = status(device)
        while word not in table and word in STATUS_FALLBACK:
            word = STATUS_FALLBACK[word]
        if word in table:
            found.append((EventType.DEVICE_STATUS, float(table[word]), _as_of(device, message)))
    words = ((EventType.SWITCH_STATE, switch(device)), (EventType.CHARGING_MODE, mode(device)))
    for event_type, said in words:
        codes = rules.codes.get((event_type, type_))
        if codes and said is not None and said.word in codes:
            found.append((event_type, float(codes[said.word]), said.at))
    return found


def _as_of(device: Device, message: Report) -> datetime:
    """Return since when a device's status is known: it is the device's, not one block's.

    An absence that took effect at its receipt has left its ends there.
    """
    return max([message.stamp, *(samples[-1].at for samples in device.series.values())])
