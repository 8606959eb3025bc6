"""What erasing a user does to rows and counts, whichever keeper erases.

Rules:
- Of a building of others a call keeps its id and its place. A sender counts the events of what it was lent from the
  front, so nothing is cut out of a row before it is given back.
- A row that is done keeps its numbers: they say what was counted then.
- Of a whole state that is in doubt nothing is sent as it was: it stays in doubt, its payload goes.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import datetime
from typing import ClassVar, Final, NamedTuple

import msgspec

from bridge.store.calls import CallState, done_before, doubt_without, redacted, size
from bridge.store.codec import Form, decode_call, encode_call
from bridge.store.desk import Erased, Forgetting, Redaction
from bridge.store.ledger import Ledger
from bridge.store.port import Doubt
from bridge.store.shares import PARTS, call_bytes, message_bytes
from bridge.store.steps import STEP, by_id

STATES: Final = 500
"""Most states that one look for a user reads."""


class Step(NamedTuple):
    """What one transaction did, and whether there is more for the next one."""

    erased: Erased
    more: bool
    after: int = 0  # the last row that was looked at
    waits: bool = False  # for a row that is lent to a sender


# ---- in which order -------------------------------------------------------------------------------------------------


class Eraser(ABC):
    """The order in which a keeper erases; what one transaction does is its own matter."""

    LENT_S: ClassVar[float]  # pause before another look at a call that is lent to a sender

    async def forget(self, what: Forgetting, now: Callable[[], datetime]) -> AsyncIterator[Erased]:
        """Erase, a bounded number of rows a transaction."""
        for some in by_id(what.messages):
            yield await self._erase_messages(some)
        if what.user is not None:
            yield await self._erase_user(what.user)
        if what.building is not None and what.redaction is not None:
            async for erased in self._redact(what.building, what.redaction, now):
                yield erased
        elif what.building is not None:
            more = True
            while more:
                erased, more, *_ = await self._erase_building(what.building)
                yield erased

    async def _redact(self, name: str, what: Redaction, now: Callable[[], datetime]) -> AsyncIterator[Erased]:
        await self._redact_sheet(name, what)
        step = Step(Erased(), more=True)
        while step.more:
            if step.waits:
                await asyncio.sleep(self.LENT_S)
            step = await self._redact_calls(name, what, step.after, now())
            yield step.erased
        step = Step(Erased(), more=True)
        while step.more:
            step = await self._redact_letters(name, what, step.after)
            yield step.erased

    @abstractmethod
    async def _erase_messages(self, ids: Sequence[int]) -> Erased:
        """Erase messages, and what hangs on their ids."""

    @abstractmethod
    async def _erase_user(self, user: str) -> Erased:
        """Forget whose messages were, a page at a time; then erase directory rows and homes."""

    @abstractmethod
    async def _erase_building(self, name: str) -> Step:
        """Erase some calls of a building; with the last of them the building."""

    @abstractmethod
    async def _redact_sheet(self, name: str, what: Redaction) -> None:
        """Take what is to be forgotten out of what is sent again after a refusal, and drop the copies of the state."""

    @abstractmethod
    async def _redact_calls(self, name: str, what: Redaction, after: int, now: datetime) -> Step:
        """Take what is to be forgotten out of a page of a building's calls, up to one that is lent to a sender."""

    @abstractmethod
    async def _redact_letters(self, name: str, what: Redaction, after: int) -> Step:
        """Take what is to be forgotten out of a page of a building's letters."""


# ---- messages -------------------------------------------------------------------------------------------------------


class OldMessage(NamedTuple):
    """A message that goes."""

    fate: str  # the count that it leaves
    reason: str | None  # of its letter
    subscription: str
    length: int  # [bytes]


def erase_messages(ledger: Ledger, gone: Iterable[OldMessage]) -> Erased:
    """Count messages that are erased."""
    messages = letters = 0
    for fate, reason, subscription, length in gone:
        ledger.erase_message(fate)
        if fate in PARTS:
            ledger.hold([(subscription, message_bytes(length))], out=fate)
        messages += 1
        if reason is not None:
            ledger.erase_letter(reason)
            letters += 1
    return Erased(messages=messages, letters=letters)


# ---- a building of its own ------------------------------------------------------------------------------------------


class OldCall(msgspec.Struct, array_like=True):
    """One row of the outbox that goes."""

    id: int
    state: str
    left: int  # items that are owed, where it is
    length: int  # [bytes]
    subscription: str

    @property
    def owed(self) -> bool:
        """Tell whether something of it is owed."""
        return self.state == CallState.OWED


def drop_calls(ledger: Ledger, rows: Sequence[OldCall]) -> list[int]:
    """Count rows that are taken out of the outbox; return their ids."""
    ledger.erase_calls(sum(row.left for row in rows if row.owed))
    ledger.hold(((row.subscription, call_bytes(row.length)) for row in rows if row.owed), out="owed")
    ledger.outbox_rows -= len(rows)
    ledger.outbox_bytes -= sum(row.length for row in rows)
    ledger.outbox_settled -= sum(not row.owed for row in rows)
    return [row.id for row in rows]


# ---- a building of others -------------------------------------------------------------------------------------------


class Naming(msgspec.Struct, array_like=True):
    """A row of the outbox that names what is to be forgotten."""

    id: int
    state: str
    form: int
    count: int
    done: int
    payload: bytes | None  # in doubt, with the next two
    historical: int | None
    doubted: int | None
    call: bytes
    lent: int
    subscription: str

    @property
    def old(self) -> OldCall:
        """Return it as a row that goes."""
        return OldCall(self.id, self.state, self.count - self.done, len(self.call), self.subscription)


def until_lent(rows: Sequence[Naming], after: int) -> tuple[Sequence[Naming], Step]:
    """Return the rows before the first that is lent to a sender, and what they make of this step."""
    free = rows[: next((place for place, row in enumerate(rows) if row.lent), len(rows))]
    waits = len(free) < len(rows)
    last = free[-1].id if free else after
    return free, Step(Erased(calls=len(free)), more=waits or len(rows) == STEP, after=last, waits=waits)


class Rewritten(NamedTuple):
    """What is left of a row of the outbox, as columns."""

    call: bytes
    items: int
    done: int
    payload: bytes | None
    historical: bool | None
    doubted: int | None


def without(ledger: Ledger, row: Naming, what: Redaction) -> Rewritten | None:
    """Return what is left of a row; None = nothing, the row goes."""
    call = decode_call(row.form, row.call)
    left = redacted(call, what)
    if left is None:
        return None
    owed = row.state == CallState.OWED
    count, done = (size(left), done_before(call, row.done, what)) if owed else (row.count, row.done)
    if owed:
        ledger.erase_calls((row.count - row.done) - (count - done))
    data = encode_call(left)
    ledger.outbox_bytes += len(data) - len(row.call)
    if owed:
        ledger.hold([(row.subscription, len(data) - len(row.call))], into="owed")
    doubt = _doubt_left(row, what)
    marks = (None, None, None) if doubt is None else (doubt.payload, doubt.historical, doubt.count)
    return Rewritten(data, count, done, *marks)


def _doubt_left(row: Naming, what: Redaction) -> Doubt | None:
    if row.payload is None:
        return None
    if row.form != Form.EVENTS:
        return Doubt(payload=b"", historical=False, count=1)
    return doubt_without(Doubt(payload=row.payload, historical=bool(row.historical), count=row.doubted or 0), what)


def less(form: int, call: bytes | None, what: Redaction) -> bytes | None:
    """Return what is left of a call; None = nothing."""
    left = None if call is None else redacted(decode_call(form, call), what)
    return None if left is None else encode_call(left)


def names(what: Redaction) -> list[str]:
    """Return what may not stand in a call any more, in order."""
    return sorted(what.devices | what.users)
