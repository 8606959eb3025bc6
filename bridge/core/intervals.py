"""Step functions of time: series, holding, slots, exact integration (mapping rules M5.1-M5.3, M5.5, M5.9).

Rules:
- A slot is a quarter hour [start, end) of UTC.
- A series is a step function: a sample's value holds until the next sample, or a limit after it was last seen.
- Inside a slot time is counted in seconds from its start; a known stretch is a `Piece`.
- The integral is exact over known pieces and never scaled up.

Theory of operation: `insert` keeps a series in order whatever the order of arrival, and drops what closed slots no
longer need. `pieces` cuts it to a slot. `merged` walks the common breakpoints of several of them.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from operator import attrgetter
from typing import Final, NamedTuple

from bridge.core.messages import Value
from bridge.core.model import Sample, Series
from bridge.core.order import is_before

QUARTER: Final = timedelta(minutes=15)
QUARTER_S: Final = QUARTER.total_seconds()
SECONDS_PER_HOUR: Final = 3600.0
NEVER: Final = datetime.max.replace(tzinfo=UTC)
"""Last seen "for ever": the mark of an absence. Its value is unknown, or the 0 of a sleeping inverter (M4.3)."""
GONE: Final = datetime.min.replace(tzinfo=UTC)
"""Last seen "before all time": the mark of a disconnect, which nobody sleeps through."""

BLANK: Final = NEVER - timedelta(days=1)
"""Last seen "for ever", too: the mark of an inverter's block that is all null. After its last watts that is night."""

_NEAR: Final = 8
_AT: Final = attrgetter("at")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Piece(NamedTuple):
    """A known value from `start` to `end`, both in seconds from the slot's start."""

    start: float
    end: float
    value: float


def slot_of(at: datetime) -> datetime:
    """Return the start of the slot that holds an instant."""
    return at - (at - _EPOCH) % QUARTER


def precedes(one: Sample, other: Sample) -> bool:
    """Tell whether a sample is older than another one (M0.3)."""
    return is_before(one.at, one.sent, other.at, other.sent)


def insert(series: Series, sample: Sample, open_from: datetime | None) -> Series:
    """Return the series with a sample in its place (M0.4), without what open slots do not need."""
    if sample.sent is not None and series and series[-1].sent is not None:
        return trim(_insert_ahead(series, sample, series[-1].sent), open_from)
    position = last_at(series, sample.at)
    if position == len(series) - 1 and (position < 0 or series[position].at < sample.at):
        return trim((*series, sample), open_from)
    if position < 0:
        return trim((sample, *series), open_from)
    there = series[position]
    if there.at < sample.at:
        return trim((*series[: position + 1], sample, *series[position + 1 :]), open_from)
    return (*series[:position], _stronger(there, sample), *series[position + 1 :])


def _insert_ahead(series: Series, sample: Sample, newest: datetime) -> Series:
    """Return the series with a sample whose clock was ahead, as that of the newest one was: in the order of sending.

    One that is older as sent has no time of its own: when it came, the newer one was known.
    """
    last = series[-1]
    if sample.sent is None or sample.sent < newest:
        return series
    if sample.sent == newest:
        return (*series[:-1], _stronger(last, sample)._replace(at=last.at))
    return (*series, sample) if sample.at > last.at else (*series[:-1], sample._replace(at=last.at))


def _stronger(one: Sample, other: Sample) -> Sample:
    """Return which of two samples of one instant counts: the greater object time, then the later accepted."""
    older = is_before(other.updated, other.updated_sent, one.updated, one.updated_sent)
    newer = is_before(one.updated, one.updated_sent, other.updated, other.updated_sent)
    winner = other if newer or (not older and other.number >= one.number) else one
    if one.value == other.value and type(one.value) is type(other.value):
        return winner._replace(seen=max(one.seen, other.seen))
    return winner


def trim(series: Series, open_from: datetime | None) -> Series:
    """Return the series from the last sample at or before the first open slot on."""
    if open_from is None:
        return series
    first = 0
    while first + 1 < len(series) and series[first + 1].at <= open_from:
        first += 1
    return series[first:] if first else series


def is_absence(sample: Sample) -> bool:
    """Tell whether a sample is the mark of an absence, not a value that a message brought."""
    return sample.seen == NEVER or sample.seen == GONE  # noqa: PLR1714 - hashing them costs more than comparing


def in_force(series: Series, at: datetime) -> Sample | None:
    """Return the sample that counts at an instant."""
    position = last_at(series, at)
    return series[position] if position >= 0 else None


def last_at(series: Series, at: datetime) -> int:
    """Return the place of the last sample up to an instant; -1 = there is none.

    Nearly always it is one of the last; of many the rest is searched, not walked through.
    """
    position = len(series) - 1
    near = max(position - _NEAR, -1)
    while position > near and series[position].at > at:
        position -= 1
    if position > near or position < 0:
        return position
    return bisect_right(series, at, 0, near + 1, key=_AT) - 1


Limit = Callable[[Value], timedelta]
"""How long a value holds after it was last seen."""


def holds_until(sample: Sample, limit: Limit) -> datetime:
    """Return when a sample's value stops being known by itself."""
    return NEVER if sample.dusk and sample.value is not None else told_until(sample, limit)


def told_until(sample: Sample, limit: Limit) -> datetime:
    """Return up to when a sample's value counts as told; an inverter's last watts are followed by night (M4.3)."""
    if sample.value is None:
        return sample.at
    if sample.seen >= BLANK:
        return NEVER
    return max(sample.seen, sample.at) + limit(sample.value)


def taken(
    series: Series,
    sample: Sample,
    stamp_sent: datetime | None,
    open_from: datetime | None,
    limit: Limit | None,
    *,
    back: bool,
) -> Series:
    """Return a series with a sample that a message carries, which may be older than what counts at its stamp.

    A value that is carried still holds on from the message's stamp (M5.2). Where it had ended by itself before, it is
    known again from the stamp on, not for the time between: that has closed for whoever heard of all this in time
    (M5.11). A device that is back is known again from the stamp on, too (M7). `limit` None = it holds for good.
    """
    there = in_force(series, sample.seen) if series and not precedes(series[-1], sample) else None
    if there is None or sample.value is None or precedes(there, sample):
        return insert(series, sample, open_from)
    now = sample._replace(at=sample.seen, sent=stamp_sent)
    if not precedes(sample, there):
        again = there.value == sample.value and type(there.value) is type(sample.value)
        ended = again and limit is not None and told_until(there, limit) < sample.seen
        return insert(series, now if ended else sample, open_from)
    series = _filled_in(series, sample, open_from)
    if is_absence(there):
        return insert(series, now, None) if back and precedes(there, now) else series
    if there.value != sample.value or there.seen >= sample.seen:
        return series
    if limit is not None and told_until(there, limit) < sample.seen:
        return insert(series, now, None)
    return tuple(other._replace(seen=sample.seen) if other is there else other for other in series)


def _filled_in(series: Series, sample: Sample, open_from: datetime | None) -> Series:
    """Return a series with a sample that others have followed, unless it is known already: its end is known too."""
    there = in_force(series, sample.at)
    known = there is not None and there.at == sample.at and there.value == sample.value
    return series if known else insert(series, sample, open_from)


def room(series: Series) -> Series:
    """Return a series that is to end again: of absences in a row the first and the last say it all."""
    if len(series) > 1 and is_absence(series[-1]) and is_absence(series[-2]) and series[-1].value == series[-2].value:
        return series[:-1]
    return series


def value_before(series: Series, instant: datetime, limit: Limit) -> Value | None:
    """Return the value just before an instant, if it is known then."""
    for sample in reversed(series):
        if sample.at < instant:
            return sample.value if holds_until(sample, limit) >= instant else None
    return None


def pieces(series: Series, start: datetime, end: datetime, limit: Limit) -> list[Piece]:
    """Return the known stretches of a numeric series within [start, end)."""
    found: list[Piece] = []
    next_ = end
    for sample in reversed(series):
        at, value = sample.at, sample.value
        if at < next_ and isinstance(value, float):
            since, until = max(at, start), holds_until(sample, limit)
            if until > next_:  # noqa: PLR1730 - a call costs more, and this runs for every sample of a slot
                until = next_
            if sample.dusk and value and (night := max(told_until(sample, limit), since)) < until:
                found.append(Piece((night - start).total_seconds(), (until - start).total_seconds(), 0.0))
                until = night
            if since < until:
                found.append(Piece((since - start).total_seconds(), (until - start).total_seconds(), value))
        if at <= start:
            break
        if at < next_:  # noqa: PLR1730 - as above
            next_ = at
    return found[::-1]


class Stretch(NamedTuple):
    """A time in seconds from the slot's start in which none of several tracks changes; None = unknown."""

    start: float
    end: float
    values: list[float | None]


def merged(tracks: Sequence[Sequence[Piece]], length_s: float = QUARTER_S) -> Iterator[Stretch]:
    """Yield every stretch between the common breakpoints of tracks whose pieces are in order."""
    points = {0.0, length_s}
    for track in tracks:
        for piece in track:
            points.add(piece.start)
            points.add(piece.end)
    ends = sorted(points)
    at = [0] * len(tracks)
    for start, end in pairwise(ends):
        values: list[float | None] = []
        for index, track in enumerate(tracks):
            if at[index] < len(track) and track[at[index]].end <= start:
                at[index] += 1
            here = at[index]
            values.append(track[here].value if here < len(track) and track[here].start <= start else None)
        yield Stretch(start, end, values)
