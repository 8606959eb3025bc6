"""Calls that stepped aside: an hour later they get another chance.

Rules:
- A second chance is one try: if it fails while others are served, the call steps aside again, and its building goes on.
- What is remembered of second chances is a hint; without it (after a restart) a call is judged as a new one.
"""

from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from typing import Final

from bridge.core.retry import STUCK_AFTER
from bridge.core.vocabulary import DeadReason
from bridge.store.desk import DeadFilter, Desk
from bridge.store.port import Owed

LOOK_EVERY: Final = timedelta(minutes=1)
REMEMBERED: Final = 10_000  # buildings
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Stuck:
    """Puts stuck calls back into the flow."""

    def __init__(self, desk: Desk | None, now: datetime) -> None:
        """Look for them first after a while; without a desk never."""
        self._desk = desk
        self._next_look = now + LOOK_EVERY
        self._chances: OrderedDict[str, int] = OrderedDict()  # building -> when its calls were queued again [ms]

    async def retry(self, now: datetime) -> bool:
        """Queue calls again that stepped aside an hour ago; returns whether there were any."""
        if self._desk is None or now < self._next_look:
            return False
        self._next_look = now + LOOK_EVERY
        letters = await self._desk.dead_letters(DeadFilter(reason=DeadReason.STUCK, until=now - STUCK_AFTER))
        if not letters:
            return False
        for letter in letters:
            if letter.building is not None:
                self._chances[letter.building] = _ms(now)
        while len(self._chances) > REMEMBERED:
            self._chances.popitem(last=False)
        await self._desk.retry([letter.id for letter in letters], now)
        return True

    def is_second_chance(self, owed: Owed, building: str) -> bool:
        """Return whether a call was queued again by `retry`."""
        return bool(self._chances) and self._chances.get(building) == _ms(owed.queued)


def _ms(at: datetime) -> int:
    """Return a time as keepers store it."""
    return (at - _EPOCH) // timedelta(milliseconds=1)
