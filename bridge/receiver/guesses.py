"""How often the admin token may be guessed.

Rules:
- An address has ten wrong ones a minute, all addresses together twenty a second. Beyond that a token is not even
  compared: 429.
- All together never keep out an address that had the right one within a day.
- A request without a token is no guess.
"""

import math
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from bridge.limits import Limit

MOST_EACH: Final = 10
EACH_S: Final = 60.0
MOST_IN_ALL_PER_S: Final = 20
MOST_ADDRESSES: Final = 2_000  # more than can be wrong in a minute
MOST_FRIENDS: Final = 100
FRIEND_S: Final = 24 * 3600.0


class Guesses:
    """Counts wrong tokens by address."""

    def __init__(self, reached: Callable[[Limit, str], object], clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with none."""
        self._reached = reached
        self._clock = clock
        self._of: dict[str, deque[float]] = {}
        self._of_all = deque[float](maxlen=MOST_IN_ALL_PER_S)
        self._right: dict[str, float] = {}

    def wait(self, who: str) -> int:
        """Return how long until a token of an address is compared [whole s]; 0 = at once."""
        now = self._clock()
        own = self._of.get(who)
        wait = own[0] + EACH_S - now if own is not None and len(own) == MOST_EACH else 0.0
        friend = now - self._right.get(who, -math.inf) < FRIEND_S
        if len(self._of_all) == MOST_IN_ALL_PER_S and not friend:
            wait = max(wait, self._of_all[0] + 1 - now)
        if wait <= 0:
            return 0
        self._reached(Limit.ADMIN_GUESSES, who)
        return math.ceil(wait)

    def wrong(self, who: str) -> None:
        """Note a token that was wrong."""
        now = self._clock()
        self._of_all.append(now)
        own = self._of.pop(who, None) or deque[float](maxlen=MOST_EACH)
        own.append(now)
        self._of[who] = own
        if len(self._of) > MOST_ADDRESSES:
            del self._of[next(iter(self._of))]

    def right(self, who: str) -> None:
        """Note a token that was right."""
        self._right.pop(who, None)
        self._right[who] = self._clock()
        if len(self._right) > MOST_FRIENDS:
            del self._right[next(iter(self._right))]
