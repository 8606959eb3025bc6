"""The promise every keeper gives to the rooms; `desk` is what it promises to the commands.

Rules:
- When `accept` returns, the bytes survive a power cut. Everything else survives a kill.
- `commit` and `settle` are transactions: all of it or nothing, ledger counts included.
- Ids grow in the order of acceptance and are never used again.
- Bodies are the raw bytes as they arrived; a keeper never looks into them.
- Times are aware UTC datetimes; a keeper stores milliseconds.
- A keeper raises `StoreUnavailable` when it cannot serve, `StoreBroken` when it never will again; any other exception
  is a bug.

Theory of operation: the inbox is a log that the worker reads in order; settled messages stay for `retention`.
The outbox holds one row per `effects.Call`, in order of queueing per building. A building with due rows is a *lane*;
`lease` lends whole lanes, so one building never has two calls on the wire. A row of events is worked off from its
front: `done` counts the events that are delivered or buried.

With the ticks of a building copies of its state are kept, for `replay` to begin with where messages are deleted or
do not say what happened. A copy holds every message up to the tick's `after`. One that does not any more is dropped:
when a message that waited once more is settled, the copies after it of the buildings that it changed. Ticks before the
newest deleted message go with it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Protocol

from bridge.core.effects import Call, Note
from bridge.core.messages import Tick
from bridge.core.model import Building, Residence
from bridge.core.vocabulary import DeadReason, DeviceKey
from bridge.store.ranks import Line

if TYPE_CHECKING:  # what the commands import must be light: `--help` answers at once
    from bridge.store.shares import Share

# ---- the door -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One message at the door, not yet stored."""

    subscription: str
    topic: str  # as named by the sender, e.g. "sub-1.vehicle.update"
    body: bytes = field(repr=False)
    received: datetime
    message_id: str | None = None  # the sender's id; None = every copy is accepted
    position: int = 0  # index within its array
    dead: DeadReason | None = None  # the door itself found it unreadable
    detail: str = ""  # why dead
    signed: datetime | None = None  # when the sender signed it, together with its id and bytes; None = not
    quoted: bool = False  # it came as JSON within a JSON string; counted, not kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What became of an arrival: a new row, or the same as an earlier one."""

    id: int  # of the row, for a duplicate 0
    duplicate: bool = False
    replayed: bool = False  # a new row, which is a dead letter: the signed delivery was heard before on another topic


# ---- the worker -----------------------------------------------------------------------------------------------------


MOST_ROWS: Final = 500
"""Directory rows that are read with a change of the directory: households share a building, towns do not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """An accepted message that waits for the worker."""

    id: int
    subscription: str
    topic: str
    body: bytes = field(repr=False)
    received: datetime
    ends: int = 0  # lives of processes in which it was in hand alone, this one counted; see `Store.claim`


@dataclass(frozen=True, slots=True, kw_only=True)
class Versioned:
    """A building's state and the version it was read at; version 0 = no row yet."""

    state: Building
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """Where a device lives, and whose it is."""

    building: str
    user: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What the worker asked for; what is not there is absent from the mapping."""

    residences: Mapping[str, tuple[Residence, ...]]  # user -> directory rows
    homes: Mapping[DeviceKey, Home]  # device -> where it lives
    buildings: Mapping[str, Versioned]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A call to queue; `cause` is the inbox id (0 = a tick or the directory)."""

    call: Call
    cause: int = 0
    subscription: str = ""  # whose turn it takes at the sender


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Everything that one step of the worker or the clock changes, for one transaction."""

    now: datetime
    settled: Sequence[int] = ()
    dead: Sequence[tuple[int, DeadReason, str]] = ()  # id, reason, detail
    parked: Sequence[tuple[int, str]] = ()  # id, user
    users: Mapping[int, str] = field(
        default_factory=dict
    )  # message id -> user, where known (for `forget` and the lists)
    unparked: Sequence[str] = ()  # changed users that have been dealt with: their parked messages are pending again
    buildings: Sequence[Versioned] = ()  # new states, each with the version it was read at
    newest: Mapping[str, int] = field(default_factory=dict)  # building -> newest message that was applied to it
    due: Mapping[str, datetime | None] = field(
        default_factory=dict
    )  # building -> when the clock should look at it; None = never
    homes: Mapping[DeviceKey, Home | None] = field(default_factory=dict)  # None = the device is gone
    calls: Sequence[Outgoing] = ()
    turn: datetime | None = None  # when they are due, by the clock that the sender goes by; None = `now` is of it
    notes: Sequence[tuple[int, Note]] = ()  # message id (0 = none), note
    ticked: datetime | None = None  # the clock room was alive then
    trouble: str | None = None  # what keeps calls from MOOST, as `now`, for the commands; empty = nothing any more
    hand: Sequence[int] = ()  # messages that are taken next, where more wait than one step takes
    tick: Tick | None = None  # what made it, to be remembered for each of its buildings: `replay` ticks them again
    copied: Collection[str] = ()  # those of a tick's buildings whose new state is kept as a copy beside it
    moved: Collection[str] = ()  # those of the buildings that the directory changes: what no message says is copied too


# ---- the sender -----------------------------------------------------------------------------------------------------

NO_LINES: Final[Mapping[Line, int]] = {}
NO_TIME: Final[Mapping[str, float]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """A call that was about to go on the wire when its outcome was lost."""

    payload: bytes = field(repr=False)  # exactly as it was sent
    historical: bool  # the lane it took
    count: int  # events in it, 1 for a whole state


@dataclass(frozen=True, slots=True, kw_only=True)
class Owed:
    """One row of the outbox, leased."""

    id: int
    call: Call  # events already done are cut off
    subscription: str  # who pays for it
    queued: datetime
    done: int = 0  # events delivered or buried before
    attempts: int = 0
    first_failed: datetime | None = None
    repaired: bool = False  # building and list were sent again after a 400
    doubt: Doubt | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """The calls owed for one building, oldest first, lent until `until`."""

    building: str
    calls: tuple[Owed, ...]
    until: datetime
    sheet: tuple[Call, ...] = ()  # the building and device list as last queued, to send again after a 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """A call goes on the wire next: from now on it is in doubt."""

    call_id: int
    doubt: Doubt


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try and its answer, for `explain`."""

    at: datetime
    outcome: str  # "201", "timeout", "refused 400", …
    detail: str = ""  # MOOST's answer, cut


@dataclass(frozen=True, slots=True, kw_only=True)
class Burial:
    """One item at the front of a call that is taken out of the flow."""

    reason: DeadReason
    detail: str
    answer: str = ""  # MOOST's answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What became of one call on the wire. Neither delivered nor buried = it is still owed."""

    call_id: int
    delivered: int = 0  # events (or 1) that MOOST took, from the front
    buried: Burial | None = None  # the front item (after the delivered ones) is dead
    bury_all: bool = False  # … and so are all items behind it
    attempt: Attempt | None = None
    failed: bool = False  # counts as an attempt, starts `first_failed`
    throttled: bool = False  # counts as an attempt only: the platform was busy
    repaired: bool = False
    lost: bool = False  # the reply was lost: stays in doubt (with its payload) and is counted
    dry: bool = False  # settled without a call (dry run)


@dataclass(frozen=True, slots=True, kw_only=True)
class Return:
    """Give a lane back; it is due again at `at` (if it still owes anything)."""

    building: str
    at: datetime


# ---- the numbers ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """Counts kept by the transactions that they describe; both identities hold at every moment.

    accepted = settled + pending + parked + dead + discarded + erased
    queued = delivered + calls_pending + calls_dead + replaced + calls_discarded   (events count one each)
    """

    accepted: int = 0
    settled: int = 0
    pending: int = 0
    parked: int = 0
    dead: int = 0
    discarded: int = 0
    erased: int = 0
    duplicates: int = 0
    same_id_other_bytes: int = 0
    queued: int = 0
    delivered: int = 0
    calls_pending: int = 0
    calls_dead: int = 0
    replaced: int = 0
    calls_discarded: int = 0
    in_doubt: int = 0  # lost replies so far
    last_tick: datetime | None = None  # newest `Work.ticked`
    trouble: tuple[datetime, str] | None = None  # newest `Work.trouble`, and when it was said
    oldest_pending: datetime | None = None
    oldest_owed: datetime | None = None
    shares: "Mapping[str, Share]" = field(default_factory=dict)  # subscription -> what it holds
    dead_letters: Mapping[str, int] = field(default_factory=dict)  # reason -> messages and calls
    flags: Mapping[str, int] = field(default_factory=dict)  # building flag -> buildings
    notes: Mapping[str, int] = field(default_factory=dict)  # note name -> count since the store was made
    size_bytes: int = 0  # pages in use plus log
    owed_bytes: int = 0  # of that, what may not be deleted yet (estimate)
    free_disk_bytes: int | None = None
    full: bool = False  # new messages are refused until there is room again
    writable: bool = True  # False from a write that failed until one has gone through
    log_bytes: int = 0  # of the size, what is not yet written back
    problems: Sequence[str] = ()  # of the store, as `/health` names them


class Outdated(Exception):  # noqa: N818 - not a mistake: the step begins again
    """A step of work rests on a message that was erased meanwhile; nothing of it was written. Claim again."""


class StoreUnavailable(Exception):  # noqa: N818 - a condition, named as the operator knows it
    """The store cannot serve now; the sentence says why."""


class StoreBusy(StoreUnavailable):
    """Another process holds the store for the moment: trying again helps."""


class StoreBroken(StoreUnavailable):
    """The store is damaged or gone: waiting does not help, the process has to end."""


class Store(Protocol):
    """What the rooms need of the memory."""

    async def open(self) -> None:
        """Open or create; check that the schema fits; free the leases of a former process.

        What that had on the wire has lost its reply: it stays in doubt, is counted, and an attempt of it says so
        (`store.calls.LOST_AT_THE_END`).
        """

    async def close(self) -> None:
        """Finish what was begun and close."""

    async def accept(self, arrivals: Sequence[Arrival]) -> Sequence[Receipt]:
        """Store new messages, one receipt each, in order; returns after they are fsynced.

        Same subscription, message_id, topic, position and bytes as an earlier one: a duplicate, not stored. What is
        signed is told apart by `repeats`, which knows what is replayed.
        """

    async def claim(self, limit: int) -> tuple[Sequence[Pending], Sequence[str]]:
        """Return the oldest pending messages, and users whose directory rows changed.

        A process that ends without `close` (a kill, no memory) had messages in hand: those that its last commit named
        (`Work.hand`), else the first that waited. They come before all others and one by one, when the door has had a
        head start. That one is in hand alone is committed before it is returned, with `Pending.ends` = 1. Where that
        process ends so too, it comes with 2: it may be what ends them.
        """

    async def changed_among(self, users: Sequence[str]) -> Sequence[str]:
        """Return those of some users whose directory rows changed; `claim` would show them some time."""

    async def load(self, users: Sequence[str], devices: Sequence[DeviceKey], buildings: Sequence[str]) -> Loaded:
        """Read directory rows, homes, and the states of the named buildings, of those homes and of those rows."""

    async def homes_of(self, user: str) -> Mapping[DeviceKey, str]:
        """Return all devices of a user, each with the building it lives in (asked only when the directory changed)."""

    async def directory_of(self, user: str) -> Mapping[str, tuple[Residence, ...]]:
        """Return the buildings that a changed user's rows name, or named before, each with the rows that name it.

        In the order of user and location; at most `MOST_ROWS` in all.
        """

    async def commit(self, work: Work) -> Sequence[str]:
        """Write a step of work, or nothing of it.

        Returns the buildings whose version has moved since they were read; then nothing was written. A version is
        never used twice for a building, also where the building was erased in between. Raises Outdated where a message
        that would be settled, buried or parked was erased; then too nothing was written.
        """

    async def due(
        self, now: datetime, limit: int, used: Mapping[str, float] = NO_TIME
    ) -> tuple[datetime, Sequence[str]]:
        """Return the horizon, and the buildings due at it, the longest waiting first.

        Where there are more than `limit`, subscriptions take turns: the one whose buildings have `used` the least of
        the clock's time [s].
        The horizon is the instant up to which every accepted message has been processed: `now`, or the receipt of the
        oldest pending message. Parked and dead ones hold it not back.
        """

    async def lease(
        self,
        now: datetime,
        lanes: int,
        calls: int,
        hold: timedelta,
        *,
        held: Mapping[Line, int] = NO_LINES,
        afresh: bool = False,
    ) -> Sequence[Lane]:
        """Lend buildings with due calls, each with up to `calls` oldest rows, the longest waiting first.

        With those that the asker has already, `held`, they are up to `lanes`, in turns over subscriptions and ranks
        (see `ranks`); a line that has less than its share gets it, also where others have more than theirs.
        `afresh` = the clock was set back: what would be due later by the old time is due now.
        """

    async def settle(
        self, now: datetime, settlements: Sequence[Settlement], begun: Sequence[Begin], returned: Sequence[Return]
    ) -> Sequence[int]:
        """Write what became of calls, which calls go on the wire next, and which lanes are given back.

        Returns the named calls that are not there any more, because they were erased: what of them was about to go on
        the wire must not be sent. Everything else is written all the same.
        """

    async def next_due(self) -> datetime | None:
        """Return when the next lane that is not lent is due; None = nothing is owed."""

    async def census(self) -> Census:
        """Return the counts, cheap enough for every scrape."""

    async def sweep(self, now: datetime, retention: timedelta, max_size: int) -> int:
        """Delete a bounded number of settled rows that are past retention (or, over 60 % of max_size, the oldest).

        Of a message that goes before its time the digest stays, for a repeat to be known until then; the oldest of
        these digests go where they take over a tenth of max_size.
        Returns the number of rows deleted; call again until it is 0.
        """
