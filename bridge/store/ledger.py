"""The counts that a keeper holds beside its rows.

Rules:
- A count changes in the transaction that changes the rows it describes.
- Every movement is one method that takes from one side of an identity and gives to the other, so both identities of
  `port.Census` hold at every moment.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final, TypeVar

import msgspec

from bridge.store.codec import from_ms, maybe_from_ms
from bridge.store.desk import Reach
from bridge.store.port import Census
from bridge.store.shares import PARTS, Held, Share, grow, summed


class Ledger(msgspec.Struct, kw_only=True):
    """All counts and high-water marks of a store; written as one JSON value, readable in the file."""

    # high-water marks: no id is used twice
    last_message: int = 0
    last_call: int = 0
    last_letter: int = 0
    # messages: every id up to `cursor` has been processed unless it waits in `again`; some beyond it are done already
    cursor: int = 0
    ahead: int = 0  # ids beyond the cursor that need no processing any more
    again: int = 0  # ids up to the cursor (or ahead of it) that wait once more
    changes: int = 0  # changes of the directory so far
    swept: int = 0  # every settled message up to here is deleted
    erased_to: int = 0  # newest message that there was when messages were last erased
    erasures: int = 0  # steps that erased a building so far: a new one of the same name gets versions of its own
    forgotten: int | None = None  # newest receipt among deleted messages [ms]
    forgotten_message: int = 0  # newest id among them
    forgotten_calls: int | None = None  # newest settlement among deleted calls [ms]
    accepted: int = 0
    settled: int = 0
    pending: int = 0
    parked: int = 0
    dead: int = 0
    discarded: int = 0
    erased: int = 0
    duplicates: int = 0
    same_id_other_bytes: int = 0
    # calls; a row of events counts its events
    queued: int = 0
    delivered: int = 0
    calls_pending: int = 0
    calls_dead: int = 0
    replaced: int = 0
    calls_discarded: int = 0
    in_doubt: int = 0
    last_tick: int | None = None  # [ms]
    trouble: tuple[int, str] | None = None  # what a sender last said of its way to MOOST, and when [ms]
    # what is in the store, for the estimate of what may be deleted
    inbox_rows: int = 0
    inbox_bytes: int = 0
    outbox_rows: int = 0
    outbox_bytes: int = 0
    outbox_settled: int = 0
    shares: dict[str, Share] = {}  # subscription -> what it holds
    dead_letters: dict[str, int] = {}
    flags: dict[str, int] = {}
    notes: dict[str, int] = {}

    def tick(self, ms: int) -> None:
        """Remember the newest sign of life of the clock room."""
        self.last_tick = ms if self.last_tick is None else max(self.last_tick, ms)

    def tell(self, ms: int, cause: str) -> None:
        """Remember what keeps calls from MOOST; empty = nothing any more."""
        self.trouble = (ms, cause)

    def forget(self, ids: Iterable[int], received: Iterable[int]) -> None:
        """Remember how far deleted messages reach: their ids, and when they came [ms]."""
        self.forgotten_message = max((*ids, self.forgotten_message))
        self.forgotten = max((*received, *_known(self.forgotten)), default=None)

    def forget_calls(self, settled: Iterable[int]) -> None:
        """Remember how far deleted calls reach [ms]."""
        self.forgotten_calls = max((*settled, *_known(self.forgotten_calls)), default=None)

    def reach(self, processed: int) -> Reach:
        """Return how far back the store remembers."""
        return Reach(
            processed=processed,
            messages=maybe_from_ms(self.forgotten),
            calls=maybe_from_ms(self.forgotten_calls),
            forgotten=self.forgotten_message,
        )

    def take_in(self, messages: int, size: int) -> None:
        """Count new messages and their bytes."""
        self.last_message += messages
        self.accepted += messages
        self.pending += messages
        self.inbox_rows += messages
        self.inbox_bytes += size

    def hold(self, held: Iterable[Held], *, out: str = "", into: str = "") -> None:
        """Count what subscriptions hold: it leaves one part of their shares, and comes to another."""
        for subscription, size in summed(held).items():
            if out:
                grow(self.shares, subscription, out, -size)
            if into:
                grow(self.shares, subscription, into, size)

    def settle(self, messages: int) -> None:
        """Count messages that are done."""
        self.pending -= messages
        self.settled += messages

    def park(self, messages: int) -> None:
        """Count messages that wait for the directory."""
        self.pending -= messages
        self.parked += messages

    def unpark(self, messages: int) -> None:
        """Count parked messages that are pending again."""
        self.parked -= messages
        self.pending += messages

    def bury_message(self, reason: str) -> int:
        """Count a dead message; return the number of its letter."""
        self.pending -= 1
        self.dead += 1
        return self._letter(reason)

    def bury_calls(self, reason: str, calls: int) -> range:
        """Count dead calls; return the numbers of their letters."""
        self.calls_pending -= calls
        self.calls_dead += calls
        first = self.last_letter + 1
        for _ in range(calls):
            self._letter(reason)
        return range(first, first + calls)

    def _letter(self, reason: str) -> int:
        self.last_letter += 1
        self.dead_letters[reason] = self.dead_letters.get(reason, 0) + 1
        return self.last_letter

    def revive_message(self, reason: str) -> None:
        """Count a dead message that is pending again."""
        self.dead -= 1
        self.pending += 1
        _take(self.dead_letters, reason)

    def revive_call(self, reason: str) -> None:
        """Count a dead call that is owed again."""
        self.calls_dead -= 1
        self.calls_pending += 1
        _take(self.dead_letters, reason)

    def discard_message(self, reason: str) -> None:
        """Count a dead message that was given up."""
        self.dead -= 1
        self.discarded += 1
        _take(self.dead_letters, reason)

    def discard_call(self, reason: str) -> None:
        """Count a dead call that was given up."""
        self.calls_dead -= 1
        self.calls_discarded += 1
        _take(self.dead_letters, reason)

    def erase_message(self, fate: str) -> None:
        """Count a message that was erased; `fate` is the count that it leaves."""
        setattr(self, fate, getattr(self, fate) - 1)
        self.erased += 1

    def erase_letter(self, reason: str) -> None:
        """Count the letter of an erased message or call."""
        _take(self.dead_letters, reason)

    def erase_calls(self, pending: int) -> None:
        """Count owed calls that were erased."""
        self.calls_pending -= pending
        self.calls_discarded += pending

    def first_version(self) -> int:
        """Return the version of a building that is not there yet: never one that an erased one of its name had."""
        return 1 + (self.erasures << 32)

    def queue(self, calls: int) -> None:
        """Count calls that are owed from now on."""
        self.queued += calls
        self.calls_pending += calls

    def replace(self) -> None:
        """Count an unsent whole state whose place a newer one took."""
        self.calls_pending -= 1
        self.replaced += 1

    def deliver(self, calls: int) -> None:
        """Count calls that MOOST took."""
        self.calls_pending -= calls
        self.delivered += calls

    def flag(self, before: Iterable[str], after: Iterable[str]) -> None:
        """Count the flags of one building."""
        old, new = set(before), set(after)
        for name in new - old:
            self.flags[name] = self.flags.get(name, 0) + 1
        for name in old - new:
            _take(self.flags, name)

    def note(self, name: str) -> None:
        """Count something unusual."""
        self.notes[name] = self.notes.get(name, 0) + 1

    def deletable_bytes(self) -> int:
        """Estimate what settled rows occupy."""
        messages = self.settled_rows()
        inbox = self.inbox_bytes * messages // self.inbox_rows if self.inbox_rows else 0
        outbox = self.outbox_bytes * self.outbox_settled // self.outbox_rows if self.outbox_rows else 0
        return inbox + outbox

    def settled_rows(self) -> int:
        """Return how many messages in the store may be deleted."""
        return max(0, self.inbox_rows - self.pending - self.parked - self.dead)

    def census(
        self,
        *,
        oldest_pending: datetime | None,
        oldest_owed: datetime | None,
        size_bytes: int,
        free_disk_bytes: int | None,
        passing_bytes: int = 0,
        full: bool = False,
    ) -> Census:
        """Return the counts as the rooms see them.

        Of the size `passing_bytes` are not owed, though no row of messages or calls: a log that soon starts anew, what
        knows repeats of messages that are gone.
        """
        return Census(
            **{name: getattr(self, name) for name in _SHARED},
            last_tick=maybe_from_ms(self.last_tick),
            trouble=None if self.trouble is None else (from_ms(self.trouble[0]), self.trouble[1]),
            oldest_pending=oldest_pending,
            oldest_owed=oldest_owed,
            shares={name: msgspec.structs.replace(share) for name, share in self.shares.items()},
            dead_letters=dict(self.dead_letters),
            flags=dict(self.flags),
            notes=dict(self.notes),
            size_bytes=size_bytes,
            owed_bytes=max(0, size_bytes - passing_bytes - self.deletable_bytes()),
            free_disk_bytes=free_disk_bytes,
            full=full,
        )

    def problems(self) -> list[str]:
        """Return one sentence per identity that does not hold."""
        found = []
        ends = self.settled + self.pending + self.parked + self.dead + self.discarded + self.erased
        if self.accepted != ends:
            found.append(f"{self.accepted} messages were accepted, but {ends} are accounted for")
        ends = self.delivered + self.calls_pending + self.calls_dead + self.replaced + self.calls_discarded
        if self.queued != ends:
            found.append(f"{self.queued} calls were queued, but {ends} are accounted for")
        return found

    def differences(self, counted: Mapping[str, object]) -> list[str]:
        """Return one sentence per count that the rows contradict."""
        return [
            f"the ledger says {name} = {getattr(self, name)}, the rows say {found}"
            for name, found in counted.items()
            if getattr(self, name) != found
        ]

    def misheld(self, counted: Mapping[str, Share]) -> list[str]:
        """Return one sentence per share that the rows contradict."""
        return [
            f"the ledger says {subscription} holds {known} bytes {part}, the rows say {found}"
            for subscription in sorted({*self.shares, *counted})
            for part in PARTS
            for known in (getattr(self.shares.get(subscription, Share()), part),)
            for found in (getattr(counted.get(subscription, Share()), part),)
            if known != found
        ]


_SHARED = (
    *("accepted", "settled", "pending", "parked", "dead", "discarded", "erased", "duplicates", "same_id_other_bytes"),
    *("queued", "delivered", "calls_pending", "calls_dead", "replaced", "calls_discarded", "in_doubt"),
)
"""Counts that the census shows as they are."""


Mark = TypeVar("Mark", int, tuple[int, str])


def _known(mark: Mark | None) -> tuple[Mark, ...]:
    return () if mark is None else (mark,)


def _take(counts: dict[str, int], name: str) -> None:
    """Count one down; a part of a shared ledger may owe what another part has counted."""
    counts[name] = counts.get(name, 0) - 1
    if not counts[name]:
        del counts[name]


def total(parts: Iterable[Ledger]) -> Ledger:
    """Return what several ledgers say together."""
    found = Ledger()
    for part in parts:
        for name in _SUMMED:
            setattr(found, name, getattr(found, name) + getattr(part, name))
        for name in _NAMED:
            counts: dict[str, int] = getattr(found, name)
            for key, count in getattr(part, name).items():
                counts[key] = counts.get(key, 0) + count
        for subscription, share in part.shares.items():
            for name in PARTS:
                grow(found.shares, subscription, name, getattr(share, name))
        for name in _NEWEST:
            known = (*_known(getattr(found, name)), *_known(getattr(part, name)))
            setattr(found, name, max(known, default=None))
    for name in _NAMED:
        setattr(found, name, {key: count for key, count in getattr(found, name).items() if count})
    return found


_NAMED: Final = ("dead_letters", "flags", "notes")
_NEWEST: Final = ("forgotten", "forgotten_message", "forgotten_calls", "erased_to", "last_tick", "trouble")
_SUMMED: Final = tuple(set(Ledger.__struct_fields__).difference(_NAMED, _NEWEST, ("shares",)))
