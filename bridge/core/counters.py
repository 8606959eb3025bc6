"""Meters that count import: the counter says how much, the power says when (mapping rule M4.4).

Rules:
- The level at an instant is the last reading at or before it and what the power has drawn since. The energy of a slot
  is the level at its end less the level up to which the closed slots have their energy: over all slots it is the
  counter's.
- A reading is a point. Where it shows less than the level so far, the slots that follow give it back, never below 0;
  more than 1 kWh is not given back, and told. Where it shows more after a longer time than `hold_active`, nobody knows
  when that was drawn: it is in the day alone.
- A reading lower by less than 1 kWh is noise. Lower by more, or higher than 60 kW could make it, is another base once a
  second reading confirms it; until then it is only remembered. A counter that comes back was never away.
- A slot with a reading is known, and one in which enough of the power is; with a meter that never sends power also one
  with a message that repeats a reading. The day is known from reading to reading.

Theory of operation: `count` walks through the readings of one slot in order of time, from the `Level` that the slot
before has left. Seconds are those from the slot's start; an instant before it is negative.
"""

from datetime import datetime, timedelta
from math import ceil
from typing import Final, NamedTuple

from bridge.core.intervals import QUARTER, QUARTER_S, SECONDS_PER_HOUR, Piece, insert, slot_of
from bridge.core.messages import Quantity
from bridge.core.model import Device, Level, Sample, Series
from bridge.core.rules import Rules
from bridge.core.tracks import Count, Track, Why
from bridge.core.units import WH_PER_KWH

DIP_WH: Final = 1 * WH_PER_KWH  # lower by less is noise
MOST_TAKEN_BACK_WH: Final = 1 * WH_PER_KWH  # by more the power was wrong, or the counter stood still
STEEPEST_W: Final = 60_000.0  # no house draws more for long
ROUNDING_WH: Final = 1.0
LEAST_WH: Final = 1e-6  # what adding up may leave of nothing
RESOLUTION: Final = timedelta(microseconds=1)
LOOK_BACK: Final = 8  # closed slots of which the power's energy is kept, for a reading that comes late


class Reading(NamedTuple):
    """What a counter showed."""

    at: datetime
    energy_wh: float


def is_repeat(sample: Sample) -> bool:
    """Tell whether a sample of a counter is no reading, but a message that carries the one of the time `seen` again."""
    return sample.seen < sample.at


def noted(series: Series, sample: Sample, open_from: datetime | None, *, silent: bool) -> Series:
    """Return a counter's readings with what a message says.

    A null says nothing of a counter. Of readings that come again only those of a meter that has never sent any power
    are kept, the first one of each slot; `silent` = this is one.
    """
    if sample.value is None:
        return series
    again = any(sample.at in {other.at, other.seen} and sample.value == other.value for other in series)
    if not again:
        return insert(series, sample._replace(seen=sample.at), open_from)
    stamp = sample.seen
    start = slot_of(stamp)
    said = any(slot_of(other.at) == start and (is_repeat(other) or other.at > start) for other in series)
    if not silent or said:
        return series
    return insert(series, sample._replace(at=stamp, seen=sample.at, sent=None), open_from)


def count(one: Track, start: datetime, rules: Rules, *, served: bool) -> Count:
    """Return what a meter's counter says of a slot; `served` = enough of its power is known to do without a reading."""
    device = one.device
    walk = _Walk(one, start, rules)
    silent = device.power_from is None or device.power_from >= start + QUARTER  # it has not sent any power so far
    repeated = False
    for sample in device.series.get(Quantity.COUNTER, ()):
        at_s = walk.second(sample.at)
        if at_s > one.gone or not isinstance(sample.value, float):
            continue
        if is_repeat(sample):
            within = 0.0 <= at_s < QUARTER_S and sample.at - sample.seen < rules.hold_active
            repeated = repeated or (silent and within)
        elif walk.heard is None or sample.at > walk.heard:
            walk.hear(Reading(sample.at, sample.value))
    return walk.found(served=served, repeated=repeated)


def next_slot_of(device: Device, start: datetime) -> datetime | None:
    """Return the first slot from `start` on of which a counter says something; None = none is in sight."""
    heard = device.level.heard if device.level is not None else None
    for sample in device.series.get(Quantity.COUNTER, ()):
        if is_repeat(sample):
            if sample.at >= start:
                return slot_of(sample.at)
        elif heard is None or sample.at > heard:
            return max(start, slot_of(sample.at - RESOLUTION))  # a reading on the boundary ends a slot
    return None


def _confirms(base: Reading, other: Reading, reading: Reading) -> bool:
    """Tell whether a reading confirms that an earlier one began another base."""
    below = other.energy_wh >= base.energy_wh or reading.energy_wh < base.energy_wh
    return below and other.energy_wh <= reading.energy_wh <= _highest(other, reading.at)


def _highest(base: Reading, at: datetime) -> float:
    """Return the most that a counter can show at an instant [Wh]."""
    return base.energy_wh + STEEPEST_W * (at - base.at).total_seconds() / SECONDS_PER_HOUR


class _Walk:
    """A way through the readings of one slot."""

    def __init__(self, one: Track, start: datetime, rules: Rules) -> None:
        """Begin where the slot before has ended."""
        self._one, self._start, self._rules = one, start, rules
        self._base: Reading | None = None  # the last reading that counts
        self._other: Reading | None = None  # one of another base, not yet confirmed
        self._since_wh = 0.0  # by the power, from the base to the start
        self._booked_wh = 0.0  # the level up to which the closed slots have their energy
        self._gap_s = 0.0  # of the closed slots of the day, not known yet
        self._lately: tuple[float, ...] = ()
        self._spare_s = 0.0
        self.heard: datetime | None = None  # the newest reading so far
        level = one.device.level
        if level is not None:
            self.heard = level.heard
            self._base = Reading(level.at, level.energy_wh)
            self._other = Reading(*level.other) if level.other is not None else None
            self._since_wh, self._booked_wh = level.since_wh, level.booked_wh
            self._gap_s, self._lately, self._spare_s = level.gap_s, level.lately, level.spare_s
        self._first_s: float | None = None  # when the very first reading came, if it is in this slot
        self._last_s: float | None = None  # up to when readings say how much was drawn
        self._new: tuple[float, float] | None = None  # another base: since when, and what it showed at the start
        self._before_wh = 0.0  # what the old base is owed then
        self._filled_s = 0.0
        self._unplaced = self._against = self._lost = False

    def second(self, at: datetime) -> float:
        """Return an instant in seconds from the slot's start."""
        return (at - self._start).total_seconds()

    # ---- one reading ----

    def hear(self, reading: Reading) -> None:
        """Take a reading."""
        base, other = self._base, self._other
        self.heard = reading.at
        if base is None:
            self._begin(reading)
        elif other is not None and _confirms(base, other, reading):
            self._begin_anew(base, other)
            self._move(reading)
        elif base.energy_wh <= reading.energy_wh <= _highest(base, reading.at):
            self._compare(base, reading)
            self._move(reading)
        elif not base.energy_wh - DIP_WH < reading.energy_wh < base.energy_wh:
            self._other = reading

    def _begin(self, reading: Reading) -> None:
        """Take the very first reading: before it the power alone counts."""
        at_s = self.second(reading.at)
        self._base, self._booked_wh = reading, reading.energy_wh - self._drawn(0.0, at_s)
        self._first_s = at_s if at_s > 0.0 else None

    def _begin_anew(self, base: Reading, other: Reading) -> None:
        """Go on with the first reading of another base."""
        at_s = self.second(other.at)
        if at_s > 0.0:
            self._before_wh += max(self._level(base, at_s) - self._booked_wh, 0.0)
        self._new = (max(at_s, 0.0), other.energy_wh + self._late(at_s))
        self._gap_s = 0.0
        self._lost = True  # nobody will ever know what the old base has counted up to then

    def _compare(self, base: Reading, reading: Reading) -> None:
        """Hold a reading against the level so far."""
        at_s = self.second(reading.at)
        late_wh = self._late(at_s)
        so_far_wh = max(self._level(base, at_s), self._booked_wh) - late_wh
        if so_far_wh - reading.energy_wh > MOST_TAKEN_BACK_WH:
            self._booked_wh = min(self._booked_wh, reading.energy_wh + late_wh)
            self._against = True
        if reading.energy_wh - so_far_wh >= ROUNDING_WH and reading.at - base.at > self._rules.hold_active:
            self._unplaced = True

    def _move(self, reading: Reading) -> None:
        """Go on from a reading: the time up to it is known."""
        at_s = self.second(reading.at)
        self._base, self._other, self._since_wh = reading, None, self._late(at_s)
        self._last_s = max(at_s, 0.0)
        left_s = min(max(-at_s, 0.0), self._gap_s)
        self._filled_s += self._gap_s - left_s
        self._gap_s = left_s

    # ---- the slot ----

    def found(self, *, served: bool, repeated: bool) -> Count:
        """Return what the readings say of the slot."""
        gone = self._one.gone
        drawn_wh = self._drawn(0.0, gone)
        by_power = [Piece(start, end, 1.0) for start, end, _ in self._one.pieces]
        base = self._base
        if base is None:
            return Count(drawn_wh, by_power, by_power, lost=True)
        level_wh = self._level(base, gone)
        energy_wh = max(level_wh - self._booked_wh, 0.0)
        known = day = by_power
        why = None
        if self._new is not None:
            since_s, showed_wh = self._new
            energy_wh = drawn_wh if served else self._before_wh + level_wh - showed_wh
            day = by_power if served else self._whole(since_s, self._last_s or 0.0)
            why = None if served else Why.NEW_BASE
            self._booked_wh = level_wh
        else:
            if self._last_s is not None:
                first_s = self._first_s or 0.0
                known, day = self._whole(first_s, gone), self._whole(first_s, self._last_s)
            elif repeated:
                known = day = [Piece(0.0, gone, 1.0)]
            if self._unplaced:
                why = Why.UNPLACED
            elif energy_wh <= LEAST_WH and drawn_wh >= ROUNDING_WH:
                why = Why.SURPLUS
        level = self._level_after(base, level_wh, drawn_wh, repeated=repeated)
        return Count(
            energy_wh=energy_wh,
            known=known,
            day=day,
            filled_s=self._filled_s,
            why=why,
            against=self._against,
            read=self._last_s is not None,
            lost=self._lost or self._first_s is not None,
            level=level,
        )

    def _level_after(self, base: Reading, level_wh: float, drawn_wh: float, *, repeated: bool) -> Level:
        """Return where the next slot goes on."""
        base_s = self.second(base.at)
        slots = min(ceil(max(-base_s, 0.0) / QUARTER_S) + 1, LOOK_BACK)
        known_to_s = self._last_s or self._first_s or 0.0
        gap_s = 0.0 if repeated else self._one.gone - known_to_s - self._known(known_to_s)
        return Level(
            at=base.at,
            energy_wh=base.energy_wh,
            heard=self.heard or base.at,
            since_wh=level_wh - base.energy_wh,
            booked_wh=max(self._booked_wh, level_wh),
            gap_s=self._gap_s + gap_s,
            lately=(*self._lately, drawn_wh)[-slots:],
            other=self._other,
            spare_s=self._spare_s,
        )

    def _whole(self, start_s: float, end_s: float) -> list[Piece]:
        """Return the known stretches with one that readings make known as a whole."""
        before = [Piece(start, min(end, start_s), 1.0) for start, end, _ in self._one.pieces if start < start_s]
        after = [Piece(max(start, end_s), end, 1.0) for start, end, _ in self._one.pieces if end > end_s]
        return [*before, *([Piece(start_s, end_s, 1.0)] if start_s < end_s else []), *after]

    # ---- energies by the power ----

    def _drawn(self, from_s: float, to_s: float) -> float:
        """Return what the power has drawn between two instants of the slot [Wh]."""
        joule = 0.0
        for start, end, power_w in self._one.pieces:
            if power_w > 0.0 and start < to_s and end > from_s:
                joule += power_w * (min(end, to_s) - max(start, from_s))
        return joule / SECONDS_PER_HOUR

    def _late(self, at_s: float) -> float:
        """Return what the power has drawn from an instant before the slot to its start, as far as that is kept [Wh]."""
        found_wh, left_s = 0.0, -at_s
        for slot_wh in reversed(self._lately):
            if left_s <= 0.0:
                break
            found_wh += slot_wh * min(left_s / QUARTER_S, 1.0)
            left_s -= QUARTER_S
        return found_wh

    def _level(self, base: Reading, at_s: float) -> float:
        """Return the level at an instant of the slot [Wh]; that at the start for an instant before."""
        return base.energy_wh + self._since_wh + self._drawn(max(self.second(base.at), 0.0), at_s)

    def _known(self, from_s: float) -> float:
        """Return for how long the power is known from an instant of the slot on [s]."""
        return sum(end - max(start, from_s) for start, end, _ in self._one.pieces if end > from_s)
