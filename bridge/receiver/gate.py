"""Whether the door is open, and why not.

Rules:
- The door closes for a reason that the sender can wait out; every refusal says when to come again.
- After a write that failed it is ready when a write has gone through. That the store can be read proves nothing:
  another process may hold it, or the disk may be full.
- What is still owed counts with the bytes taken since the store was last asked, so a burst cannot overshoot; on the
  disk they count twice, for they stand in the log before they stand in the database. Most of a burst is settled soon:
  where only what was taken would close the door, the store is asked anew before anybody is refused (`judged`). On the
  disk nothing becomes less by being settled: there what was taken counts until the next regular look.
- Where several subscriptions share the store, each may hold `store_share` of what it holds and what is left of the
  watermark. Beyond that only it is refused: one that delivers what nobody takes never closes the door for others.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from bridge.store.port import Census, StoreUnavailable

OWED_SHARE: Final = 0.8  # of max_size may be owed
FREE_SHARE: Final = 0.1  # of the disk must be free
WRITES: Final = 2  # of each byte: to the log, and from there to the database
ASK_EVERY_S: Final = 0.05  # at most so often the store is asked for the sake of a refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """Why the door takes nothing now, and when to come again [s]."""

    reason: str
    retry_after: int


STARTING: Final = Closed(reason="starting", retry_after=2)
DRAINING: Final = Closed(reason="draining", retry_after=5)
STORE: Final = Closed(reason="store", retry_after=5)
WATERMARK: Final = Closed(reason="watermark", retry_after=30)
STORE_SHARE: Final = Closed(reason="store_share", retry_after=30)
ELSEWHERE: Final = Closed(reason="this process takes no webhooks: it runs without the room receiver", retry_after=30)
FULL_HANDS: Final = Closed(reason="too many bodies in hand", retry_after=1)


def _nothing(_: str) -> None:
    return None


@dataclass(slots=True, kw_only=True)
class Gate:
    """Built in `run`; the rooms turn its switches."""

    max_size: int  # bytes
    receiving: bool = True  # webhooks are taken in this process
    accepting: bool = True  # messages are taken in this process, by webhooks or from Kafka
    ask: Callable[[], Awaitable[Census]] | None = None  # asks the store how full it is; None = somebody refreshes
    store_share: float = 1.0  # of what it holds and what is left may be a subscription's
    alone: bool = True  # there is one subscription, which may hold everything
    limited: Callable[[str], object] = _nothing  # hears whose share is used up
    disk_bytes: int | None = None  # size of the disk, where there is one to fill
    starting: bool = True
    draining: bool = False  # ready fails, accepts go on
    shut: bool = False  # draining, and accepts no longer go on
    store: bool = False  # the store cannot even be asked
    unwritable: bool = False  # the last accept failed, and no write has gone through since; each new one is a try
    store_cause: str | None = None  # why one of both, in a sentence
    _held: bool = False  # the store says that writes fail, and tries by itself: nobody else has to wait for that
    _owed: int = 0
    _taken: int = 0
    _free: int | None = None  # bytes left on the disk at the last regular look
    _written: int = 0  # bytes taken since then
    _shares: Mapping[str, int] = field(default_factory=dict)  # subscription -> bytes that it holds
    _taken_of: dict[str, int] = field(default_factory=dict)  # subscription -> bytes of those taken
    _asking: asyncio.Task[None] | None = None
    _asked_at: float = float("-inf")  # [s of the monotonic clock]

    def refresh(self, census: Census | None) -> None:
        """Take in what the store says of itself; None = it cannot be asked."""
        self.store = census is None
        if census is not None:
            self._held = not census.writable
            self.unwritable = census.full or self._held
            self.store_cause = self.store_cause if self.unwritable else None
            self._owed, self._taken, self._taken_of = census.owed_bytes, 0, {}
            self._shares = {name: share.total for name, share in census.shares.items()}
            self._free, self._written = census.free_disk_bytes, 0

    def took(self, size: int, subscription: str = "") -> None:
        """Count bytes that were accepted of a subscription."""
        self.unwritable = self._held = False
        self.store_cause = None
        self._taken += size
        self._written += size
        self._taken_of[subscription] = self._taken_of.get(subscription, 0) + size

    def failed(self, why: str) -> None:
        """Note that an accept failed, and why."""
        self.unwritable, self.store_cause = True, why

    @property
    def watermark(self) -> bool:
        """Whether the store is too full to take more."""
        return self._is_full(self._taken)

    @property
    def _guessed(self) -> bool:
        """Whether that is so only if nothing of what was taken is settled by now, which can be asked."""
        return self.ask is not None and self.watermark and not self._disk_is_low and not self._is_full(0)

    def _exceeds(self, subscription: str, more: int, *, guessing: bool) -> bool:
        """Tell whether a subscription would hold more than its share; `guessing` that nothing taken is settled."""
        taken, own_taken = (self._taken, self._taken_of.get(subscription, 0)) if guessing else (0, 0)
        own = self._shares.get(subscription, 0) + own_taken
        free = max(0.0, self.max_size * OWED_SHARE - self._owed - taken)
        return own + more > self.store_share * (own + free)

    def _is_full(self, taken: int) -> bool:
        return self._disk_is_low or self._owed + taken > self.max_size * OWED_SHARE

    @property
    def _disk_is_low(self) -> bool:
        if self._free is None or self.disk_bytes is None:
            return False
        return self._free - WRITES * self._written < self.disk_bytes * FREE_SHARE

    async def judged(self, subscription: str | None = None, more: int = 0) -> Closed | None:
        """Return why so many bytes of a subscription are not taken now, None = they are; None as name = anybody's.

        What only seems to close the door is looked at anew.
        """
        if self._seems_closed(subscription, more):
            if self._asking is None and time.monotonic() - self._asked_at >= ASK_EVERY_S:
                self._asking = asyncio.create_task(self._ask(), name="gate")
            if self._asking is not None:
                await asyncio.wait([self._asking])
        closed = self.closed()
        if closed is None and self._is_limited(subscription, more):
            self.limited(subscription or "")
            return STORE_SHARE
        return closed

    def _is_limited(self, subscription: str | None, more: int) -> bool:
        return not self.alone and subscription is not None and self._exceeds(subscription, more, guessing=True)

    def _seems_closed(self, subscription: str | None, more: int) -> bool:
        """Tell whether only what was taken since the last look keeps bytes of a subscription out."""
        closed = self.closed()
        if closed is WATERMARK:
            return self._guessed
        if closed is not None or self.ask is None or not self._is_limited(subscription, more):
            return False
        return not self._exceeds(subscription or "", more, guessing=False)

    async def _ask(self) -> None:
        """Ask the store how full it is; what is taken meanwhile may not be in its answer."""
        before = self._taken
        try:
            census = await self.ask() if self.ask is not None else None
        except StoreUnavailable:
            pass  # whoever looks regularly says so, and whoever stores
        else:
            meanwhile, on_disk = self._taken - before, (self._free, self._written)
            self.refresh(census)
            self._taken = max(0, meanwhile)
            if on_disk[0] is not None:
                self._free, self._written = on_disk
        finally:
            self._asking, self._asked_at = None, time.monotonic()

    def closed(self) -> Closed | None:
        """Return why the door takes nothing now; None = it is open."""
        if self.starting:
            return STARTING
        if self.shut:
            return DRAINING
        if self.store or self._held:
            return STORE
        return WATERMARK if self.watermark else None

    def failing(self) -> list[str]:
        """Return what keeps this process from being ready."""
        wrong = {
            "store": self.store or self.unwritable,
            "watermark": self.accepting and self.watermark and not self._guessed,
            "draining": self.draining or self.shut,
            "starting": self.starting,
        }
        return [name for name, failed in wrong.items() if failed]
