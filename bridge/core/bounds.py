"""What one building may hold: bounds that no honest one comes near (R13).

Rules:
- Whatever a message can add to has a bound, so that the cost of the next message does not grow with what came before.
- A device beyond the bound is refused: its messages are dead letters, and the building is flagged. Usually a forwarder
  sends one user id for everybody.
- Where something is merely not kept, the rest of the message counts, and a note tells the bound by its word.
"""

from bisect import bisect_left
from operator import attrgetter
from typing import Final

from bridge.core.effects import Bury, Note
from bridge.core.findings import marked
from bridge.core.intervals import QUARTER, slot_of
from bridge.core.messages import Prices, Report
from bridge.core.model import Building, Flag, Sample, Series, name_of
from bridge.core.rules import Rules
from bridge.core.vocabulary import Action, DeadReason, Kind

TARIFFS: Final = 20
"""Of a building; a household has one, or two at a time."""

SAMPLES_A_SLOT: Final = 1_000
"""Of a series and quarter hour; a reading each 5 s makes 180."""

SAMPLES: Final = 10_000
"""Of a series in all open slots: 14 hours of a reading each 5 s."""

LIMIT_REACHED: Final = "limit_reached"
"""The name of a note whose detail begins with the word of a bound."""

DEVICES: Final = "devices_per_building"

_AT: Final = attrgetter("at")


def beyond(word: str, detail: str) -> Note:
    """Return the note that something was not kept."""
    return Note(name=LIMIT_REACHED, detail=f"{word}: {detail}")


def refusal(building: Building, message: Report | Prices, rules: Rules) -> Bury | None:
    """Return the end of a message that would add a device where a building has all that it may have; None = it fits."""
    name = name_of(message)
    if name in building.devices or (isinstance(message, Report) and message.action is Action.DELETE):
        return None
    if message.kind is Kind.TARIFF:
        if name in building.prices or not _has_all_tariffs(building):
            return None
        return Bury(reason=DeadReason.TOO_MANY, detail=f"the building has {TARIFFS} tariffs, the most it may have")
    if not is_full(building, rules):
        return None
    most = rules.devices_per_building
    detail = f"the building has {most} devices, the most it may have (limits.devices_per_building)"
    return Bury(reason=DeadReason.TOO_MANY, detail=detail)


def is_full(building: Building, rules: Rules) -> bool:
    """Tell whether a building has all the devices that it may have, or as many that left and still count."""
    most = rules.devices_per_building
    if len(building.departed) >= most:
        return True
    return len(building.devices) >= most and (
        sum(device.kind is not Kind.TARIFF for device in building.devices.values()) >= most
    )


def has_room(series: Series, sample: Sample) -> bool:
    """Tell whether a series may take a sample; one of an instant that it has already takes no room."""
    if len(series) < SAMPLES_A_SLOT:
        return True
    place = bisect_left(series, sample.at, key=_AT)
    if place < len(series) and series[place].at == sample.at:
        return True
    if len(series) >= SAMPLES:
        return False
    start = slot_of(sample.at)
    first = bisect_left(series, start, 0, place, key=_AT)
    return bisect_left(series, start + QUARTER, place, key=_AT) - first < SAMPLES_A_SLOT


def overflowed(building: Building, *names: str) -> Building:
    """Return a building with the flag that says that it got more than it may hold; `names` are of devices."""
    about = sorted({*building.about.get(Flag.TOO_MANY, ()), *names})
    return marked(building, Flag.TOO_MANY, on=True, about=tuple(about))


def relieved(building: Building, rules: Rules) -> Building:
    """Return a building without that flag, or with fewer devices in it, where there is room again."""
    if Flag.TOO_MANY not in building.flags:
        return building
    about = tuple(name for name in building.about.get(Flag.TOO_MANY, ()) if _is_crowded(building, name))
    on = bool(about) or is_full(building, rules) or _has_all_tariffs(building)
    return marked(building, Flag.TOO_MANY, on=on, about=about)


def _is_crowded(building: Building, name: str) -> bool:
    """Tell whether a series of a device has as many samples as a quarter hour may have."""
    device = building.devices.get(name)
    return device is not None and any(len(series) >= SAMPLES_A_SLOT for series in device.series.values())


def _has_all_tariffs(building: Building) -> bool:
    """Tell whether a building has all the tariffs that it may have, those included of which only prices are known."""
    tariffs = {name for name, device in building.devices.items() if device.kind is Kind.TARIFF}
    return len(tariffs | building.prices.keys()) >= TARIFFS
