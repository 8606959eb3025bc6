"""When slots close (mapping rules M5.4-M5.6).

Rules:
- A slot closes when the building's clock has passed its end by `grace`; what arrives later changes no closed slot.
- The clock is a tick's wall time, or an hour behind the newest stamp while the building catches up. It never goes back.
- Stretches in which nothing is known are skipped, not closed one by one.

Theory of operation: `advance` is called with a tick, closes what is ripe and returns the events in order of time.
`due` says when the next tick makes sense, so that a silent building costs nothing. `passes` says which state is worth a
copy.
"""

import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from bridge.core.closing import close, skip
from bridge.core.copying import replace
from bridge.core.counters import next_slot_of
from bridge.core.days import day_end
from bridge.core.effects import Event, Note
from bridge.core.intervals import QUARTER, Limit, holds_until, slot_of
from bridge.core.messages import Quantity, Tick
from bridge.core.model import Building, Device, Series
from bridge.core.rules import Rules
from bridge.core.tracks import counts, hold_always, limit_of
from bridge.core.vocabulary import Kind

MOST_AT_ONCE: Final = 4  # slots closed per tick, so that one building never holds the others up (R13)
STALE_FOR: Final = timedelta(seconds=60)  # M5.4: a building is catching up this long after an old message
BEHIND: Final = timedelta(hours=1)  # M5.4: how far its clock then stays behind its newest stamp
TAIL_FOR: Final = timedelta(seconds=15)  # … and this long after a backlog, whose end is not old, yet still to come
LOOK_AGAIN: Final = timedelta(seconds=20)  # a building that waits for its backlog

_SLOT_SERIES: Final = (Quantity.POWER, Quantity.TEMPERATURE)  # and what counts
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def clock_of(building: Building, tick: Tick, rules: Rules) -> datetime:
    """Return the building's clock at a tick (M5.4)."""
    now = tick.now
    if tick.catching_up or _is_behind(building, tick.now, rules):
        now = min(now, (building.newest_stamp or now) - BEHIND)
    return max(now, building.clock) if building.clock is not None else now


def _is_behind(building: Building, now: datetime, rules: Rules) -> bool:
    """Tell whether a building's last message has just come, and with an old stamp, or whether a backlog just has."""
    if building.backlog is not None and now - building.backlog < TAIL_FOR:
        return True
    if building.last_received is None or building.last_stamp is None:
        return False
    return (
        now - building.last_received < STALE_FOR and building.last_received - building.last_stamp > rules.live_max_age
    )


def advance(building: Building, tick: Tick, rules: Rules) -> tuple[Building, tuple[Event, ...], tuple[Note, ...]]:
    """Close every slot that is ripe, at most `MOST_AT_ONCE`; return the events in order of time."""
    clock = clock_of(building, tick, rules)
    building = replace(building, clock=clock)
    ripe = slot_of(clock - rules.grace)
    events: list[Event] = []
    notes: list[Note] = []
    left = MOST_AT_ONCE
    while (start := building.open_from) is not None and start < ripe:
        following = next_slot(building, start, rules)
        target = ripe if following is None else min(following, ripe)
        if target > start:
            building = skip(building, target)
            continue
        if not left:
            break
        left -= 1
        building, closed, remarks = close(building, start, rules)
        events += closed
        notes += remarks
    return building, tuple(events), tuple(notes)


def due(building: Building, rules: Rules) -> datetime | None:
    """Return when the building's next slot is worth a tick; None = nothing is known or open."""
    if building.open_from is None:
        return None
    following = next_slot(building, building.open_from, rules)
    if following is None:
        return None
    return following + QUARTER + rules.grace + rules.spread * _share(building)


def passes(before: Building, after: Building, every: timedelta) -> bool:
    """Tell whether a building's first open slot has passed one of its marks: its first close, and one every so often.

    Each building has marks at times of its own, so that not all of them pass theirs at once.
    """
    if after.open_from is None or not after.closed:
        return False
    if before.open_from is None or not before.closed:
        return True
    shift = every * _share(after)
    return (before.open_from - _EPOCH + shift) // every != (after.open_from - _EPOCH + shift) // every


def _share(building: Building) -> float:
    """Return a number from 0 to 1 that is a building's own."""
    return zlib.crc32(building.id.encode()) / 2**32


def next_slot(building: Building, start: datetime, rules: Rules) -> datetime | None:
    """Return the next slot from `start` on in which something is known or summed up; None = none is in sight."""
    if building.half is not None and building.half.known_s > 0.0:
        return start  # the second quarter of a half hour
    known = _next_known(building, start, rules)
    if known is not None and known <= start:
        return start
    candidates = [known] if known is not None else []
    if building.days or any(device.days for device in building.devices.values()):
        candidates.append(day_end(start, ZoneInfo(building.time_zone)) - QUARTER)
    return min(candidates, default=None)


def _next_known(building: Building, start: datetime, rules: Rules) -> datetime | None:
    """Return the first slot from `start` on in which some series is known."""
    earliest: datetime | None = None
    for device in (*building.devices.values(), *building.departed):
        known = _known_from(device, start, rules)
        if known is not None and known < start + QUARTER:
            return start  # nearly always
        if known is not None and (earliest is None or known < earliest):
            earliest = known
    return slot_of(earliest) if earliest is not None else None


def _known_from(device: Device, start: datetime, rules: Rules) -> datetime | None:
    """Return the first instant from `start` on, or one before that holds until then, at which a device is known."""
    earliest = next_slot_of(device, start) if device.kind is Kind.METER and counts(device, rules) else None
    for quantity in _SLOT_SERIES:
        series = device.series.get(quantity)
        if not series:
            continue
        limit = limit_of(device.kind, rules) if quantity is Quantity.POWER else hold_always(rules)
        last = series[-1]
        if last.value is not None and last.at <= start and holds_until(last, limit) > start:
            return start  # the newest value counts, and older ones need no look
        for since, until in _known(series, limit):
            if until > start:
                earliest = since if earliest is None or since < earliest else earliest
                break
    return earliest


def _known(series: Series, limit: Limit) -> Iterator[tuple[datetime, datetime]]:
    """Yield (from, to) of each sample that says something."""
    for index, sample in enumerate(series):
        if sample.value is not None:
            until = holds_until(sample, limit)
            if index + 1 < len(series):
                until = min(until, series[index + 1].at)
            yield sample.at, until
