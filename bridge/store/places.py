"""New calls and the places they take, whichever keeper holds them.

A whole state takes the place of an unsent older one; the older content stays as a row of its own, for `explain`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from bridge.core.effects import Call
from bridge.store.calls import laid_over, replaceable, size
from bridge.store.codec import Form, encode_call, form
from bridge.store.ledger import Ledger
from bridge.store.port import Outgoing

Place = tuple[str, Form]


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A call to queue, encoded on the caller's side."""

    call: Call
    form: Form
    data: bytes
    cause: int
    count: int

    @classmethod
    def of(cls, call: Call, cause: int) -> "Planned":
        """Encode a call."""
        return cls(call=call, form=form(call), data=encode_call(call), cause=cause, count=size(call))


def planned(calls: Sequence[Outgoing]) -> list[Planned]:
    """Encode calls."""
    return [Planned.of(outgoing.call, outgoing.cause) for outgoing in calls]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsent:
    """A whole state whose place a newer one may take."""

    number: int
    content: Planned
    queued: int


@dataclass(slots=True)
class Plan:
    """What queueing changes: new rows, rows with new content, rows that keep the old content."""

    new: dict[int, Planned] = field(default_factory=dict)
    changed: dict[int, Planned] = field(default_factory=dict)
    retired: list[Unsent] = field(default_factory=list)
    whole: dict[Place, Planned] = field(default_factory=dict)
    grown: int = 0  # [bytes] of the rows with new content


def find_place(ledger: Ledger, plan: Plan, unsent: dict[Place, Unsent], row: Planned, number: int, ms: int) -> None:
    """Find the place of one call, whose number is used for its row or for the content that it displaces."""
    ledger.queue(row.count)
    if not replaceable(row.call):
        plan.new[number] = row
        return
    place = (row.call.building, row.form)
    older = unsent.get(place)
    if older is not None:
        ledger.replace()
        plan.retired.append(Unsent(number=number, content=older.content, queued=older.queued))
        number, queued = older.number, older.queued
        row = Planned.of(laid_over(older.content.call, row.call), row.cause)
    else:
        queued = ms
    if older is None or number in plan.new:
        plan.new[number] = row
    else:
        plan.changed[number] = row
        plan.grown += len(row.data) - len(unsent[place].content.data)
    unsent[place] = Unsent(number=number, content=row, queued=queued)
    plan.whole.pop(place, None)  # last queued, last written
    plan.whole[place] = row
