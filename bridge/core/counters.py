"""Meters that count import: what the counter grew in a slot (mapping rule M4.4).

Rules:
- The energy of a slot is the last reading up to its end less the last one up to its start. A reading on the boundary
  ends one slot and begins the next, else a meter that reports on the quarter hour would never have consumed anything.
- What was counted once is never counted again, and nothing is lost: the base is the reading at which the last closed
  slot ended, so a late reading and the growth during an absence are in the first open slot (M5.5, M5.9).
- A reading lower by less than 1 kWh is noise. One lower by more, or higher than 60 kW could make it, is another
  counter: a new base, and the slot is left to the power.
- A slot without a reading is known, as unchanged, as long as the reading before it holds. Where it does not and the
  power serves the slot, the counter begins anew, so that no energy is reported twice.
"""

from datetime import datetime
from typing import Final, NamedTuple

from bridge.core.intervals import SECONDS_PER_HOUR, value_before
from bridge.core.messages import Quantity
from bridge.core.model import Device
from bridge.core.rules import Rules
from bridge.core.tracks import hold_always
from bridge.core.units import WH_PER_KWH

DIP_WH: Final = 1 * WH_PER_KWH  # lower by less is noise
STEEPEST_W: Final = 60_000.0  # no house draws more for long


class Reading(NamedTuple):
    """What a counter showed."""

    at: datetime
    energy_wh: float


class Count(NamedTuple):
    """What a counter says of a slot: its energy, None = nothing; and where the next slot goes on."""

    energy_wh: float | None
    base: Reading | None


def count(device: Device, start: datetime, end: datetime, rules: Rules, *, served: bool) -> Count:
    """Return what a meter's counter says of a slot; `served` = its power is known for a part of the slot."""
    series = device.series.get(Quantity.COUNTER, ())
    readings = [Reading(s.at, s.value) for s in series if s.at <= end and isinstance(s.value, float)]
    base = Reading(*device.counter_base) if device.counter_base is not None else _opening(readings, start)
    energy_wh = 0.0 if base is not None else None
    heard = False
    for reading in readings:
        if base is not None and reading.at <= base.at:
            continue
        heard = True
        if energy_wh is not None and base is not None:
            step_wh = _step(base, reading)
            energy_wh = energy_wh + step_wh if step_wh is not None else None
        base = _follow(base, reading)
    if not heard and value_before(series, end, hold_always(rules)) is None:
        return Count(None, None if served else base)
    return Count(energy_wh, base)


def _opening(readings: list[Reading], start: datetime) -> Reading | None:
    """Return the reading at the start of a meter's first slot."""
    base: Reading | None = None
    for reading in readings:
        if reading.at <= start:
            base = _follow(base, reading)
    return base


def _is_dip(base: Reading, reading: Reading) -> bool:
    """Tell whether a reading is lower by so little that it is noise."""
    return base.energy_wh - DIP_WH < reading.energy_wh < base.energy_wh


def _follow(base: Reading | None, reading: Reading) -> Reading:
    """Return the reading that counts from now on."""
    return base if base is not None and _is_dip(base, reading) else reading


def _step(base: Reading, reading: Reading) -> float | None:
    """Return what was counted from one reading to the next [Wh]; None where it is another counter."""
    if _is_dip(base, reading):
        return 0.0
    step_wh = reading.energy_wh - base.energy_wh
    steepest_wh = STEEPEST_W * (reading.at - base.at).total_seconds() / SECONDS_PER_HOUR
    return step_wh if 0.0 <= step_wh <= steepest_wh else None
