"""Dynamic tariffs: from price updates to MOOST's `settings.tariff` (mapping rule M6).

Rules:
- Prices are decimals with 4 places, half up, per kWh in the tariff's currency; negative ones pass.
- A price list has starts only: a slice ends where the next one of the same message starts. The length of the last one
  is a guess, which overrides no start that was sent.
- A message replaces everything stored from its first start to its last; slices that have ended are dropped.
- MOOST keeps no tariff that is gone, nor prices in a currency that is: what it was told last is remembered.
- Of several tariffs the one counts whose static data is newest; a price without a currency waits.

Source: EHA demo application (`prices[].startDate`, `totalPrice` in currency per kWh, no end); MOOST "Common
integration" (DYNAMIC tariff: price as string, from/to in epoch seconds).
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from itertools import pairwise
from typing import Final, NamedTuple

from bridge.core.effects import Attributes
from bridge.core.model import Building, Slice, name_of
from bridge.core.order import Time
from bridge.core.vocabulary import Kind

PLACES: Final = Decimal("0.0001")
HIGHEST: Final = Decimal(1_000_000)  # per kWh; more is no price
MOST: Final = 1_000  # slices of a tariff; 8 days of quarter hours are 768
ALONE: Final = timedelta(hours=1)  # length of a slice that is alone in its message

Entries = tuple[tuple[datetime, Decimal | None], ...]
"""Starts and prices [currency/kWh] as a message has them."""


class Desired(NamedTuple):
    """What MOOST should hold: the tariff that counts, its currency and slices."""

    tariff: str  # key of the tariff
    currency: str
    slices: tuple[Slice, ...]


def _price(price: Decimal | None) -> Decimal | None:
    """Return a price as MOOST gets it; None where it is none."""
    if price is None or not price.is_finite() or abs(price) >= HIGHEST:
        return None
    return price.quantize(PLACES, ROUND_HALF_UP) + 0  # minus zero becomes zero


def merge(
    stored: Sequence[Slice], entries: Sequence[tuple[datetime, Decimal | None]], now: datetime
) -> tuple[Slice, ...]:
    """Return the stored slices with a message's in their place, without those that have ended (M6.1, M6.2)."""
    prices = {start.replace(microsecond=0): _price(price) for start, price in entries}
    starts = sorted(prices)
    if not starts:
        return future(stored, now)
    first, until = starts[0], starts[-1]
    new = [Slice(start, end, price) for start, end in pairwise(starts) if (price := prices[start]) is not None]
    price = prices[until]
    if price is not None:
        last = Slice(until, _guessed_end(starts, stored), price)
        new.append(last)
        until = last.end
    kept = [piece for old in stored for piece in _without(old, first, until)] if first < until else stored
    return future(sorted((*kept, *new), key=lambda piece: piece.start), now)


def _without(old: Slice, first: datetime, until: datetime) -> list[Slice]:
    """Return what is left of a stored slice outside a span."""
    left, right = old._replace(end=min(old.end, first)), old._replace(start=max(old.start, until))
    return [piece for piece in (left, right) if piece.start < piece.end]


def _guessed_end(starts: Sequence[datetime], stored: Sequence[Slice]) -> datetime:
    """Return the end of the last slice of a message, whose length nobody sent: it overrides no start that was sent."""
    last = starts[-1]
    steps = [later - earlier for earlier, later in pairwise(starts)]
    following = [old for old in stored if old.start > last]
    if not steps:  # alone: as long as its neighbours
        earlier = [old for old in stored if old.start < last]
        there = [old for old in stored if old.start == last]
        steps = [old.end - old.start for old in (*earlier[-1:], *there, *following[:1])]
    end = last + min(steps, default=ALONE)
    return min(end, following[0].start) if following else end


def entries_of(slices: Sequence[Slice]) -> Entries:
    """Return what a message would have to say to be understood as these slices: the way back from `merge`."""
    ends = {piece.end: None for piece in slices}
    starts = {piece.start: piece.price for piece in slices}
    return tuple(sorted({**ends, **starts}.items()))


def future(slices: Sequence[Slice], now: datetime) -> tuple[Slice, ...]:
    """Return the slices that have not ended."""
    return tuple(piece for piece in slices if piece.end > now)


def desired(building: Building, now: datetime) -> Desired | None:
    """Return what MOOST should hold for the building; None = no dynamic tariff (M6.3)."""
    found: Desired | None = None
    chosen: Time | None = None
    for tariff in sorted(building.devices.values(), key=lambda device: (device.id, device.subscription)):
        name, currency, updated = name_of(tariff), tariff.facts.currency, tariff.facts.updated
        slices = future(building.prices.get(name, ()), now) if tariff.kind is Kind.TARIFF else ()
        if not slices or currency is None:
            continue
        time = Time(updated, tariff.facts.updated_sent) if updated is not None else Time(_OLDEST)
        if chosen is None or chosen.is_before(time):
            found, chosen = Desired(name, currency, slices), time
    return found


def is_gone(building: Building) -> bool:
    """Tell whether the dynamic tariff that MOOST was told last is no more, or in a currency that it has given up."""
    if building.tariff is None:
        return False
    name, currency = building.tariff
    tariff = building.devices.get(name)
    return tariff is None or tariff.facts.currency != currency


_OLDEST: Final = datetime.min.replace(tzinfo=UTC)


def as_moost(wanted: Desired) -> Attributes:
    """Return MOOST's `settings.tariff` of type DYNAMIC."""
    prices = [piece.price for piece in wanted.slices]
    return {
        "type": "DYNAMIC",
        "minPrice": str(min(prices)),
        "maxPrice": str(max(prices)),
        "currency": wanted.currency,
        "dynamic": {
            "tariffs": [
                {"price": str(piece.price), "from": int(piece.start.timestamp()), "to": int(piece.end.timestamp())}
                for piece in wanted.slices
            ]
        },
    }
