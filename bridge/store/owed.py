"""The rows of the outbox as a keeper reads and writes them; what becomes of them is for `calls` to say.

Rules:
- A keeper names the columns of a row in the order of `Lent` and of `Live`; a truth may come as 0 or 1.
- A row is written once, however many settlements name it; of those the last one says what was tried.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

import msgspec

from bridge.core.effects import Call, PutDevices
from bridge.core.vocabulary import DeadReason
from bridge.store.calls import CallState, Progress, Step, advance, item, rest, sheet, wanted
from bridge.store.codec import Form, decode_call, encode_call, from_ms, maybe_from_ms, maybe_ms, plain, to_ms
from bridge.store.ledger import Ledger
from bridge.store.places import Sheet
from bridge.store.port import Doubt, Owed, Settlement
from bridge.store.shares import call_bytes

Row = tuple[object, ...]

# ---- lending --------------------------------------------------------------------------------------------------------


class Lent(msgspec.Struct, array_like=True):
    """One owed row, without its call."""

    id: int
    building: str
    form: int
    queued: int
    done: int
    attempts: int
    first_failed: int | None
    repaired: int
    subscription: str

    def owed(self, call: bytes, doubt: Doubt | None) -> Owed:
        """Return the row as the sender sees it."""
        return Owed(
            id=self.id,
            call=rest(decode_call(self.form, call), self.done),
            subscription=self.subscription,
            queued=from_ms(self.queued),
            done=self.done,
            attempts=self.attempts,
            first_failed=maybe_from_ms(self.first_failed),
            repaired=bool(self.repaired),
            doubt=doubt,
        )


def sheet_read(form: int | None, call: bytes | None, devices: bytes | None) -> Sheet:
    """Return what a building shall be, from a row of the sheets."""
    building = None if form is None or call is None else wanted(None, decode_call(form, call))
    listed = None if devices is None else decode_call(Form.DEVICES, devices)
    return Sheet(building=building, devices=listed if isinstance(listed, PutDevices) else None)


def sheet_of(form: int | None, call: bytes | None, devices: bytes | None) -> tuple[Call, ...]:
    """Return what is sent again after a refusal, from a row of the sheets."""
    known = sheet_read(form, call, devices)
    return tuple(sheet(known.building, known.devices))


# ---- settling -------------------------------------------------------------------------------------------------------


class Live(msgspec.Struct, array_like=True):
    """One owed row, as far as settling needs it."""

    id: int
    building: str
    form: int
    cause: int
    count: int
    done: int
    buried: int
    attempts: int
    first_failed: int | None
    repaired: int
    in_doubt: int
    lost: int
    subscription: str
    length: int  # of its content [bytes]

    def progress(self) -> Progress:
        """Return how far the row is."""
        return Progress(
            count=self.count,
            done=self.done,
            buried=self.buried,
            attempts=self.attempts,
            first_failed=maybe_from_ms(self.first_failed),
            repaired=bool(self.repaired),
            in_doubt=bool(self.in_doubt),
            lost=bool(self.lost),
        )


@dataclass(slots=True)
class Settled:
    """What settlements change: rows, attempts, and items that die."""

    rows: list[Row] = field(default_factory=list)  # see `_row`
    attempts: list[Row] = field(default_factory=list)  # call, time [ms], outcome, detail
    buried: list[tuple[Live, Step]] = field(default_factory=list)


def settle(ledger: Ledger, now: datetime, settlements: Sequence[Settlement], owed: Mapping[int, Live]) -> Settled:
    """Apply settlements to the rows that are owed; what they say of others is passed over."""
    progress = {number: row.progress() for number, row in owed.items()}
    last: dict[int, Settlement] = {}
    settled = Settled()
    for said in settlements:
        if said.call_id not in owed or progress[said.call_id].state is not CallState.OWED:
            continue
        step = advance(progress[said.call_id], said, now)
        progress[said.call_id], last[said.call_id] = step.after, said
        ledger.deliver(step.delivered)
        ledger.in_doubt += step.newly_lost
        if step.burial is not None:
            settled.buried.append((owed[said.call_id], step))
        if said.attempt is not None and step.after.left:
            tried = said.attempt
            settled.attempts.append((said.call_id, to_ms(tried.at), plain(tried.outcome), plain(tried.detail)))
    settled.rows += [_row(number, progress[number], said, now) for number, said in last.items()]
    ended = [owed[number] for number in last if progress[number].state is not CallState.OWED]
    ledger.outbox_settled += len(ended)
    ledger.hold(((row.subscription, call_bytes(row.length)) for row in ended), out="owed")
    return settled


def _row(number: int, row: Progress, said: Settlement, now: datetime) -> Row:
    ended = row.state is not CallState.OWED
    tried = said.attempt if ended else None
    return (
        number,
        row.state,
        to_ms(now) if ended else None,
        row.done,
        row.buried,
        row.attempts,
        maybe_ms(row.first_failed),
        row.repaired,
        row.lost,
        row.in_doubt,
        None if tried is None else to_ms(tried.at),
        None if tried is None else plain(tried.outcome),
        None if tried is None else plain(tried.detail),
    )


class DeadItem(NamedTuple):
    """A row of the letters."""

    number: int
    reason: DeadReason
    detail: str
    answer: str
    at: int
    call: int
    cause: int
    form: int
    building: str
    item: bytes


def dead_items(
    ledger: Ledger, now: datetime, buried: Sequence[tuple[Live, Step]], calls: Mapping[int, bytes]
) -> list[DeadItem]:
    """Return one letter per dead item; `calls` are the contents of the rows."""
    letters: list[DeadItem] = []
    for row, step in buried:
        burial = step.burial
        if burial is None:
            continue
        call = decode_call(row.form, calls[row.id])
        said = (burial.reason, plain(burial.detail), plain(burial.answer), to_ms(now))
        numbers = ledger.bury_calls(burial.reason, len(step.buried))
        letters += [
            DeadItem(number, *said, row.id, row.cause, row.form, row.building, encode_call(item(call, place)))
            for number, place in zip(numbers, step.buried, strict=True)
        ]
    return letters
