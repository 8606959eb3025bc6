"""How many bytes of bodies are in hand, who pays for them, and who gives way where there is no room.

Rules:
- A body that has not proved itself is paid for by its address, which has a quarter of the room. One of up to 64 KiB
  that comes whole needs no room: it is judged at once.
- A body that has proved itself is paid for by its subscription, which has half of the room. So is an unfinished one of
  an address that proved itself for that subscription within ten minutes.
- Small bodies keep half of the subscriptions' room to themselves.
- Whoever is alone may have all the room.
- Where there is no room, reading waits. After a second of want the slowest of the unfinished bodies is cut, and more
  of them until there is room: those of the same payer if only its share is used up. Those that wait themselves, and
  those of trusted proxies, are not cut. Who has waited ten seconds in all hears 503.

Theory of operation: a body that is cut is told by cancelling the task that reads it, which nobody else does while it
waits for more; `Reading` makes a refusal of it.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from bridge.limits import Limit

MOST_IN_HAND: Final = 64 * 2**20  # bytes of bodies that have proved themselves
SHARE_IN_HAND: Final = 1 / 2  # of one subscription
SHARE_UNVERIFIED: Final = 1 / 4  # of one address
SMALL_BODY: Final = 64 * 2**10  # bytes
WANT_S: Final = 1.0  # until others are cut
CUT_EVERY_S: Final = 0.25
LONGEST_WANT_S: Final = 10.0


class Place:
    """The room that one body takes."""

    __slots__ = ("began", "fixed", "paused_s", "payer", "size", "task")

    def __init__(self, payer: str, began: float, *, fixed: bool = False) -> None:
        """Begin with nothing; `fixed` = it is never cut."""
        self.payer = payer
        self.size = 0  # bytes
        self.began = began  # [s of the clock]
        self.paused_s = 0.0  # how long it has waited for room
        self.fixed = fixed
        self.task: asyncio.Task[object] | None = None  # that reads it; None = it has come whole, or is cut

    @property
    def is_cut(self) -> bool:
        """Return whether it has lost its room while it was read."""
        return self.size < 0

    def pace(self, now: float) -> float:
        """Return how fast it came so far, without the time that it had to wait [bytes/s]."""
        return self.size / max(now - self.began - self.paused_s, 1e-6)


class Room:
    """Bytes for the bodies of many payers."""

    def __init__(
        self,
        limit: Limit,
        most: int,
        most_each: int,
        *,
        most_of_large: int | None = None,
        reached: Callable[[Limit, str], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Hold `most` bytes, `most_each` of one payer; a large body may enter up to `most_of_large`."""
        self._limit = limit
        self._most = most
        self._most_each = most_each
        self._most_of_large = most if most_of_large is None else most_of_large
        self._reached = reached
        self._clock = clock
        self.held = 0
        self._by: dict[str, int] = {}
        self._unfinished: dict[Place, None] = {}
        self._waiting: dict[Place, tuple[int, asyncio.Future[None]]] = {}

    def place(self, payer: str, *, fixed: bool = False) -> Place:
        """Return a place of no size yet."""
        return Place(payer, self._clock(), fixed=fixed)

    def take_now(self, payer: str, size: int) -> Place | None:
        """Return the place of a body that has come whole; None = there is no room for it now."""
        place = Place(payer, 0.0)
        if not self._fits(place, size):
            return None
        self._grow(place, size)
        return place

    async def take(self, place: Place, more: int) -> bool:
        """Let a body grow, as soon as there is room; returns False where there was none for ten seconds."""
        if self._fits(place, more):
            self._grow(place, more)
            return True
        self._reached(self._limit, place.payer)
        loop, began = asyncio.get_running_loop(), self._clock()
        granted = loop.create_future()
        self._waiting[place] = more, granted
        timer = loop.call_later(max(0.0, WANT_S - place.paused_s), self._cut_for, place)
        try:
            async with asyncio.timeout(max(0.0, LONGEST_WANT_S - place.paused_s)):
                await granted
        except TimeoutError:
            return granted.done() and not granted.cancelled()
        finally:
            timer.cancel()
            self._waiting.pop(place, None)
            place.paused_s += self._clock() - began
        return True

    def reading(self, place: Place) -> None:
        """Note that the current task waits for more of a body, and that it may be cut."""
        place.task = asyncio.current_task()
        self._unfinished[place] = None

    def read(self, place: Place) -> None:
        """Note that a body came to its end."""
        self._unfinished.pop(place, None)
        place.task = None

    def give_back(self, place: Place) -> None:
        """Give back what a body holds."""
        self._unfinished.pop(place, None)
        if place.size > 0:
            self.held -= place.size
            left = self._by[place.payer] - place.size
            if left:
                self._by[place.payer] = left
            else:
                del self._by[place.payer]
            place.size = 0
            if self._waiting:
                self._serve()

    def _fits(self, place: Place, more: int) -> bool:
        held, size = self.held, place.size
        if held == size:
            return True
        return self._share_fits(place, more) and held + more <= (
            self._most if size + more <= SMALL_BODY else self._most_of_large
        )

    def _share_fits(self, place: Place, more: int) -> bool:
        used = self._by.get(place.payer, 0)
        return used == place.size or used + more <= self._most_each

    def _grow(self, place: Place, more: int) -> None:
        place.size += more
        self.held += more
        self._by[place.payer] = self._by.get(place.payer, 0) + more

    def _serve(self) -> None:
        """Grant what fits now, first come first served."""
        for place, (more, granted) in list(self._waiting.items()):
            if self._fits(place, more):
                del self._waiting[place]
                self._grow(place, more)
                if not granted.done():
                    granted.set_result(None)

    def _cut_for(self, place: Place) -> None:
        """Cut others until a body fits that has waited long enough; look again soon where nobody can be cut."""
        while place in self._waiting and not self._fits(place, self._waiting[place][0]):
            slowest = self._slowest(place, self._waiting[place][0])
            if slowest is None:
                asyncio.get_running_loop().call_later(CUT_EVERY_S, self._cut_for, place)
                return
            self._cut(slowest)
        self._serve()

    def _slowest(self, place: Place, more: int) -> Place | None:
        """Return the slowest body whose end makes room for another one."""
        own = not self._share_fits(place, more)
        now = self._clock()
        others = (
            each
            for each in self._unfinished
            if each.size and not each.fixed and each not in self._waiting and (each.payer == place.payer or not own)
        )
        return min(others, key=lambda each: each.pace(now), default=None)

    def _cut(self, place: Place) -> None:
        task, place.task = place.task, None
        self.give_back(place)
        place.size = -1
        if task is not None:
            task.cancel()


class Hands:
    """The room for what has proved itself, and for what has not."""

    def __init__(self, unverified: int, reached: Callable[[Limit, str], object]) -> None:
        """Hold some bytes of bodies that have not proved themselves."""
        self.unverified = Room(
            Limit.UNVERIFIED_BYTES, unverified, round(unverified * SHARE_UNVERIFIED), reached=reached
        )
        self.verified = Room(
            Limit.BYTES_IN_HAND,
            MOST_IN_HAND,
            round(MOST_IN_HAND * SHARE_IN_HAND),
            most_of_large=MOST_IN_HAND // 2,
            reached=reached,
        )
