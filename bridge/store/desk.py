"""What the commands ask of every keeper, beside a running daemon or without one.

Rules:
- Whoever asks holds the daemon up for one step at most: 100 rows a transaction.
- What is taken back or given up here is counted as the rooms count: both identities of `port.Census` hold.
"""

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from bridge.core.effects import Call, Note
from bridge.core.messages import Tick
from bridge.core.model import Building, Residence
from bridge.core.vocabulary import DeadReason, DeviceKey, Kind
from bridge.store.port import Attempt, Pending, Versioned


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message or call that was taken out of the flow."""

    id: int
    reason: DeadReason
    detail: str
    at: datetime
    subscription: str | None
    topic: str | None
    building: str | None
    user: str | None
    body: bytes = field(repr=False)  # the raw message, or the call as JSON
    answer: str = ""  # what MOOST said
    message_id: int | None = None  # inbox id, for a message
    call_id: int | None = None  # outbox id, for a call


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadFilter:
    """Which dead letters; None = any."""

    ids: Sequence[int] | None = None
    reason: DeadReason | None = None
    subscription: str | None = None
    building: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallTrip:
    """One queued call and what happened to it."""

    id: int
    call: Call
    state: str  # "owed", "in doubt", "delivered", "dead", "replaced", "discarded", "dry"
    queued: datetime
    settled: datetime | None
    attempts: Sequence[Attempt]
    cause: int = 0  # inbox id; 0 = a tick, the directory or a replay


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageTrip:
    """One message and everything it caused."""

    id: int
    subscription: str
    topic: str
    body: bytes = field(repr=False)
    received: datetime
    state: str  # "pending", "parked", "settled", "dead", "discarded"
    building: str | None
    notes: Sequence[Note]
    calls: Sequence[CallTrip]
    dead: DeadLetter | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How far back the store remembers, and how far the worker has come."""

    processed: int  # every message up to this id has been processed, unless it waits once more
    messages: datetime | None = None  # newest receipt among the messages deleted for their age; None = none was
    calls: datetime | None = None  # newest settlement among the calls deleted for their age; None = none was
    forgotten: int = 0  # newest id among the messages deleted for their age; 0 = none was


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticked:
    """A tick that a building has had, or a change by the directory."""

    after: int  # every message up to this id had been processed before, no later one
    tick: Tick | None  # None = none: the directory changed the building
    state: Building | None = None  # a copy of the state as that left it, where one was kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Redaction:
    """What a building of others may not name any more."""

    devices: frozenset[str]  # MOOST's ids
    users: frozenset[str]  # as spelled in MOOST's `userIds`


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgetting:
    """What of a user is erased; what is left out stays."""

    user: str | None = None  # its rows: directory, homes, which messages were its
    messages: Sequence[int] = ()  # and what hangs on their ids
    building: str | None = None  # its calls and letters; and, without `redaction`, all that is known of it
    redaction: Redaction | None = None  # of a building of others: only what names these is erased


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """What one transaction erased."""

    messages: int = 0
    calls: int = 0  # rows of the outbox that are gone, or hold less than before; their letters do not count again
    letters: int = 0  # of messages, and single items of calls
    rows: int = 0  # all else: directory, homes, states

    def __add__(self, other: "Erased") -> "Erased":
        """Return both together."""
        return Erased(
            messages=self.messages + other.messages,
            calls=self.calls + other.calls,
            letters=self.letters + other.letters,
            rows=self.rows + other.rows,
        )

    def __bool__(self) -> bool:
        """Tell whether anything was there."""
        return bool(self.messages or self.calls or self.letters or self.rows)


class Desk(Protocol):
    """What the commands ask; in steps of at most 100 rows a transaction."""

    async def residences(self) -> Sequence[Residence]:
        """Return the directory, by user and location."""

    async def write_residences(self, rows: Sequence[Residence], remove: Sequence[tuple[str, str | None]] = ()) -> int:
        """Upsert and remove directory rows; mark their users as changed. Returns how many rows differ now."""

    async def building(self, building: str) -> Versioned | None:
        """Return a building's state."""

    async def flagged(self, flag: str, after: str = "", limit: int = 100) -> Sequence[str]:
        """Return the ids > after of buildings with a flag, in order."""

    async def where_is(self, kind: Kind, device: str) -> Mapping[DeviceKey, str]:
        """Return where a device lives, of each subscription that has one of this kind and id."""

    async def dead_letters(self, which: DeadFilter, after: int = 0, limit: int = 100) -> Sequence[DeadLetter]:
        """Return dead letters with id > after, in order."""

    async def retry(self, ids: Sequence[int], now: datetime) -> int:
        """Put dead letters back into the flow; returns how many."""

    async def discard(self, ids: Sequence[int], now: datetime) -> int:
        """Give dead letters up for good; returns how many."""

    async def oldest_letters(
        self, *, before: datetime | None = None, subscription: str | None = None, limit: int = 100
    ) -> Sequence[DeadLetter]:
        """Return the oldest dead letters that may be given up: from `before` a time, or messages of a subscription.

        See `letters.KEPT` for those that may not.
        """

    async def trip(self, message_id: int) -> MessageTrip | None:
        """Return the trip of one message."""

    def raw(self, since: datetime | None, until: datetime | None) -> AsyncIterator[Pending]:
        """Stream stored raw messages in order of acceptance."""

    async def reach(self) -> Reach:
        """Return how far back messages and calls are complete."""

    async def settled(self, after: int, limit: int = 100) -> Sequence[Pending]:
        """Return settled messages with id > after, in order; those that wait, are parked, dead or given up are not."""

    async def of_users(self, users: Collection[str]) -> Sequence[int]:
        """Return the ids of the settled messages of some users, in order; the worker has named the users."""

    async def messages(self, ids: Sequence[int]) -> Sequence[Pending]:
        """Return the messages with these ids that are still there, in order."""

    async def ticks(self, building: str) -> Sequence[Ticked]:
        """Return the remembered ticks of a building, in order."""

    async def event_calls(self, building: str, after: int = 0, limit: int = 100) -> Sequence[CallTrip]:
        """Return the calls with events of a building that are remembered, with id > after, in order."""

    # Erasing a user (GDPR, article 17), beside a running daemon. Whose a message is, and who else lives in a building,
    # is for the caller to find out (`bridge.forget`); a keeper erases what it is told to.

    def unowned(self) -> AsyncIterator[Pending]:
        """Stream the messages whose user the store does not know: no worker has read them, or could."""

    def owned(self, user: str) -> AsyncIterator[Sequence[int]]:
        """Stream pages of the ids of messages that the worker found to be a user's; some may be gone."""

    async def buildings_of(self, user: str, raw_users: Collection[str]) -> Sequence[str]:
        """Return the buildings that know a user by its directory rows, its devices or their own users, in order.

        `raw_users` are the spellings of the user in MOOST's `userIds`.
        """

    def forget(self, what: Forgetting, now: Callable[[], datetime]) -> AsyncIterator[Erased]:
        """Erase, in transactions of at most some 100 rows; yields what each of them took away. May be repeated.

        - `messages`: each with the digest that knows a repeat, its notes, its dead letter, its place among those that
          wait, are parked or given up. In the ledger it goes from where it was to `erased`. A step of the worker that
          rests on one raises Outdated from then on.
        - `user`: its directory rows (it is not marked as changed) and homes, and which messages were its.
        - `building`: its calls with attempts and doubts, and their letters: what was owed or dead counts as
          `calls_discarded`. The transaction that takes the last of them takes state, homes, ticks, lane and sheet too.
        - `building` with `redaction`: its calls, letters and sheet lose what they name of it (`store.calls.redacted`);
          what is left of them keeps its id and place. A call that is lent to a sender is waited for, until its lease
          ends. State, homes and ticks stay; copies of the state beside the ticks go.
        """

    async def compact(self, *, gently: bool) -> bool:
        """Let nothing of what was deleted remain on the disk; return whether that was done.

        `gently`: only as far as nobody has to wait longer than a second for it.
        """

    async def verify(self) -> Sequence[str]:
        """Check integrity and the ledger against the rows; returns one sentence per problem."""
