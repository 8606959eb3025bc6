"""Which addresses have proved themselves lately, and as whom.

Rules:
- Whoever has proved itself within a day is let in when connections run out.
- Whoever has proved itself for a subscription within ten minutes is trusted with more: see `RECENTLY`.
- What is remembered is bounded: the address that has proved nothing for longest is forgotten first.
"""

import time
from collections.abc import Callable
from typing import Final

KNOWN_FOR: Final = 24 * 3600.0  # s
RECENTLY: Final = 600.0  # s
MOST_ADDRESSES: Final = 10_000
MOST_SUBSCRIPTIONS: Final = 100  # of one address, the last ones
MOVED_EVERY: Final = 60.0  # s: how exact the order is in which addresses are forgotten


class _Caller:
    """What an address has proved."""

    __slots__ = ("at", "moved", "subscriptions")

    def __init__(self, now: float) -> None:
        self.at = self.moved = now
        self.subscriptions: dict[str, float] = {}  # when last; the last one stands last


class Callers:
    """Remembers by address; all times are seconds of `clock`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with strangers only."""
        self._clock = clock
        self._callers: dict[str, _Caller] = {}

    def proved(self, address: str, subscription: str) -> None:
        """Note that a request from an address was that of a subscription."""
        now = self._clock()
        caller = self._callers.get(address)
        if caller is None or now - caller.moved > MOVED_EVERY:
            caller = self._callers.pop(address, None) or _Caller(now)
            caller.moved = now
            self._callers[address] = caller
            if len(self._callers) > MOST_ADDRESSES:
                del self._callers[next(iter(self._callers))]
        caller.at = now
        known = caller.subscriptions
        if len(known) > 1 or subscription not in known:
            known.pop(subscription, None)
            if len(known) >= MOST_SUBSCRIPTIONS:
                del known[next(iter(known))]
        known[subscription] = now

    def is_known(self, address: str) -> bool:
        """Return whether an address has proved itself within a day."""
        caller = self._callers.get(address)
        return caller is not None and self._clock() - caller.at < KNOWN_FOR

    def is_recent(self, address: str, subscription: str) -> bool:
        """Return whether an address has proved itself for a subscription within ten minutes."""
        caller = self._callers.get(address)
        at = caller.subscriptions.get(subscription) if caller is not None else None
        return at is not None and self._clock() - at < RECENTLY

    def last(self, address: str) -> str | None:
        """Return the subscription that an address proved last; None = none within a day."""
        if not self.is_known(address):
            return None
        return next(reversed(self._callers[address].subscriptions))
