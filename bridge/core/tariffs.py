"""Dynamic tariffs: from price updates to MOOST's `settings.tariff` (mapping rule M6).

Rules:
- Prices are decimals with 4 places, half up, per kWh in the tariff's currency; negative ones pass.
- A price list has starts only: a slice ends where the next one of the same message starts.
- A message replaces everything stored within its own span; slices that have ended are dropped.
- Of several tariffs the one counts whose static data is newest; a price without a currency waits.

Source: EHA demo application (`prices[].startDate`, `totalPrice` in currency per kWh, no end); MOOST "Common
integration" (DYNAMIC tariff: price as string, from/to in epoch seconds).
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

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

Desired = tuple[str, tuple[Slice, ...]]
"""Currency and slices that MOOST should hold."""


def slices_of(
    entries: Sequence[tuple[datetime, Decimal | None]],
) -> tuple[tuple[Slice, ...], datetime | None, datetime | None]:
    """Return the slices of one message and the span it speaks for (M6.1)."""
    by_start = {start.replace(microsecond=0): _price(price) for start, price in entries}
    starts = sorted(by_start)
    if not starts:
        return (), None, None
    step = starts[-1] - starts[-2] if len(starts) > 1 else ALONE
    ends = [*starts[1:], starts[-1] + step if by_start[starts[-1]] is not None else starts[-1]]
    found = tuple(
        Slice(start, end, price)
        for start, end in zip(starts, ends, strict=True)
        if (price := by_start[start]) is not None
    )
    return found, starts[0], ends[-1]


def _price(price: Decimal | None) -> Decimal | None:
    """Return a price as MOOST gets it; None where it is none."""
    if price is None or not price.is_finite() or abs(price) >= HIGHEST:
        return None
    return price.quantize(PLACES, ROUND_HALF_UP) + 0  # minus zero becomes zero


def merge(
    stored: Sequence[Slice], entries: Sequence[tuple[datetime, Decimal | None]], now: datetime
) -> tuple[Slice, ...]:
    """Return the stored slices with a message's in their place, without those that have ended (M6.2)."""
    new, first, last = slices_of(entries)
    kept: list[Slice] = []
    for old in stored:
        if first is None or last is None or old.end <= first or old.start >= last:
            kept.append(old)
            continue
        if old.start < first:
            kept.append(old._replace(end=first))
        if old.end > last:
            kept.append(old._replace(start=last))
    return future(sorted((*kept, *new), key=lambda piece: piece.start), now)


def entries_of(slices: Sequence[Slice]) -> Entries:
    """Return what a message would have to say to be understood as these slices: the way back from `slices_of`."""
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
        currency, updated = tariff.facts.currency, tariff.facts.updated
        slices = future(building.prices.get(name_of(tariff), ()), now) if tariff.kind is Kind.TARIFF else ()
        if not slices or currency is None:
            continue
        time = Time(updated, tariff.facts.updated_sent) if updated is not None else Time(_OLDEST)
        if chosen is None or chosen.is_before(time):
            found, chosen = (currency, slices), time
    return found


_OLDEST: Final = datetime.min.replace(tzinfo=UTC)


def as_moost(wanted: Desired) -> Attributes:
    """Return MOOST's `settings.tariff` of type DYNAMIC."""
    currency, slices = wanted
    prices = [piece.price for piece in slices]
    return {
        "type": "DYNAMIC",
        "minPrice": str(min(prices)),
        "maxPrice": str(max(prices)),
        "currency": currency,
        "dynamic": {
            "tariffs": [
                {"price": str(piece.price), "from": int(piece.start.timestamp()), "to": int(piece.end.timestamp())}
                for piece in slices
            ]
        },
    }
