"""A jump of unit: a vendor that changes from kW to W overnight (mapping rule M0.11).

Rules:
- A power over 30 kW that is over 100 times the largest one so far is unknown, until somebody says what it means: the
  operator by `unit`, or the device, which shows nothing else for a day.
- "So far" is in the order of acceptance. A device that has shown no power but 0 cannot jump.
- A power outside its limits is no less a jump; but showing it for a day does not make it possible.
- A null is no power: it neither jumps nor ends a day of jumps.

The day after which a device is no longer said to jump keeps one wrong reading now and then from being told each time.
"""

from datetime import datetime, timedelta
from typing import Final

from bridge.core.findings import marked
from bridge.core.model import Building, Flag, Shown
from bridge.core.units import W_PER_KW

LEAST_W: Final = 30 * W_PER_KW
TIMES: Final = 100.0
BELIEVED_AFTER: Final = timedelta(hours=24)


def judge(shown: Shown, at: datetime, power_w: float, *, possible: bool, checked: bool) -> tuple[Shown, bool]:
    """Return what a device has shown after a power, and whether that is a jump of unit.

    `possible` = it is within its limits; `checked` = nobody has said which unit it has.
    """
    size_w = abs(power_w)
    if not checked:
        return Shown(max(shown.largest_w, size_w) if possible else shown.largest_w), False
    if size_w > LEAST_W and 0.0 < TIMES * shown.largest_w < size_w:
        since = shown.jumping_since or at
        if not (possible and at - since >= BELIEVED_AFTER):
            return Shown(shown.largest_w, since, max(at, shown.jumped or at)), True
        return Shown(size_w), False
    if not possible:
        return shown, False
    lately = shown.jumped is not None and at - shown.jumped < BELIEVED_AFTER
    return Shown(max(shown.largest_w, size_w), None, shown.jumped if lately else None), False


def flagged(building: Building) -> Building:
    """Return a building with the flag that says which of its devices jump."""
    about = tuple(sorted(name for name, device in building.devices.items() if device.shown.jumped is not None))
    return marked(building, Flag.UNIT_JUMP, on=bool(about), about=about)
