"""What the rows of the outbox obey, whichever keeper holds them.

Rules:
- A whole state has a place: a newer one takes an unsent older one's place. What is lent or in doubt is not replaced,
  the newer stands behind it.
- A newer device list or creation replaces the content. A newer change carries only what changed: it is laid over the
  older one.
- An older list keeps its place where it names a device that the newer one lacks and events of that device wait behind
  it: no event reaches MOOST for a device that it was never told (mapping rule M2).
- What a building shall be at MOOST is remembered, all of it: its attributes and tariff as one change, its device list.
  A whole state that is sent once more (a dead letter, a repair) says what shall be by then, not what was once queued:
  it never takes anything back.
- Events are never merged. A row of events is worked off from its front; progress makes its front a new call, with no
  attempts behind it.
- A row with an item that died ends as `dead`, whatever became of the others.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final, assert_never

import msgspec

from bridge.core.effects import Attributes, Call, ChangeBuilding, CreateBuilding, Event, PutDevices, SendEvents
from bridge.store.desk import Redaction
from bridge.store.port import Burial, Doubt, Settlement


class CallState(StrEnum):
    """What became of a row of the outbox."""

    OWED = "owed"
    DELIVERED = "delivered"
    DRY = "dry"
    DEAD = "dead"
    REPLACED = "replaced"
    DISCARDED = "discarded"
    RETRIED = "retried"  # its dead items are owed again, in rows of their own


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What `explain` says of a try."""

    outcome: str
    detail: str


LOST_AT_THE_END: Final = Told(outcome="lost reply", detail="the bridge ended while the call was on the wire")
"""Of a call that was in doubt in a lane that a former process had been lent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a row is; everything that a settlement can change."""

    count: int
    done: int = 0
    buried: int = 0
    attempts: int = 0
    first_failed: datetime | None = None
    repaired: bool = False
    in_doubt: bool = False
    lost: bool = False
    state: CallState = CallState.OWED

    @property
    def left(self) -> int:
        """Return how many items are still owed."""
        return self.count - self.done


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one settlement does to a row."""

    after: Progress
    delivered: int
    buried: range  # places of the dead items in the row
    burial: Burial | None
    newly_lost: bool


def size(call: Call) -> int:
    """Return how many calls a row counts for: each event is one."""
    return len(call.events) if isinstance(call, SendEvents) else 1


def advance(row: Progress, said: Settlement, now: datetime) -> Step:
    """Apply a settlement to a row that is owed."""
    delivered = row.left if said.dry and not said.delivered else min(said.delivered, row.left)
    front = row.done + delivered
    dead = 0
    if said.buried is not None:
        dead = row.count - front if said.bury_all else min(1, row.count - front)
    after = replace(row, done=front + dead, buried=row.buried + dead)
    if delivered or dead:
        after = replace(after, attempts=0, first_failed=None, repaired=False)
    if said.failed:
        after = replace(after, attempts=after.attempts + 1, first_failed=after.first_failed or now)
    elif said.throttled:
        after = replace(after, attempts=after.attempts + 1)
    newly_lost = said.lost and not row.lost
    after = replace(
        after,
        repaired=after.repaired or said.repaired,
        in_doubt=said.lost and row.in_doubt,
        lost=said.lost,
        state=_end(after, dry=said.dry),
    )
    return Step(
        after=after,
        delivered=delivered,
        buried=range(front, front + dead),
        burial=said.buried if dead else None,
        newly_lost=newly_lost,
    )


def _end(row: Progress, *, dry: bool) -> CallState:
    if row.left:
        return CallState.OWED
    if row.buried:
        return CallState.DEAD
    return CallState.DRY if dry else CallState.DELIVERED


def rest(call: Call, done: int) -> Call:
    """Return a call without the events at its front that are done."""
    return replace(call, events=call.events[done:]) if done and isinstance(call, SendEvents) else call


def item(call: Call, place: int) -> Call:
    """Return the item at a place of a row as a call of its own."""
    return replace(call, events=call.events[place : place + 1]) if isinstance(call, SendEvents) else call


def replaceable(call: Call) -> bool:
    """Tell whether a newer call of the same form takes an unsent one's place."""
    return not isinstance(call, SendEvents)


def laid_over(older: Call, newer: Call) -> Call:
    """Return what is owed when a newer whole state takes an unsent older one's place."""
    match newer:
        case ChangeBuilding():
            assert isinstance(older, ChangeBuilding), "only calls of one form share a place"  # noqa: S101
            kept = {name: value for name, value in older.attributes.items() if name not in newer.removed}
            gone = [name for name in older.removed if name not in newer.attributes]
            return replace(
                newer,
                attributes={**kept, **newer.attributes},
                removed=tuple(sorted({*gone, *newer.removed})),
                create={**older.create, **newer.create},
                tariff=newer.tariff if newer.tariff_set else older.tariff,
                tariff_set=newer.tariff_set or older.tariff_set,
            )
        case CreateBuilding() | PutDevices() | SendEvents():
            return newer
        case _:
            assert_never(newer)


# ---- what a building shall be at MOOST ------------------------------------------------------------------------------


def wanted(known: ChangeBuilding | None, newer: Call) -> ChangeBuilding | None:
    """Return all that a building shall be once a call is queued, as one change; lists and events say nothing of it."""
    match newer:
        case CreateBuilding():
            return ChangeBuilding(building=newer.building, create=newer.attributes)
        case ChangeBuilding():
            changed = newer if known is None else laid_over(known, newer)
            return changed if isinstance(changed, ChangeBuilding) else known
        case PutDevices() | SendEvents():
            return known
        case _:
            assert_never(newer)


def whole(building: ChangeBuilding) -> CreateBuilding:
    """Return the creation of a building with all that it shall be."""
    known = {**building.create, **building.attributes}
    attributes = {name: value for name, value in known.items() if name not in building.removed and name != "settings"}
    given = known.get("settings")
    settings = dict(given) if isinstance(given, Mapping) else {}
    if building.tariff_set:
        settings.pop("tariff", None)
        settings |= {} if building.tariff is None else {"tariff": building.tariff}
    return CreateBuilding(
        building=building.building, attributes={**attributes, **({"settings": settings} if settings else {})}
    )


def sheet(building: Call | None, devices: Call | None) -> Iterator[Call]:
    """Return what is sent again after a refusal: the building with all that it shall be, then its list."""
    if isinstance(building, ChangeBuilding):
        yield whole(building)
    elif building is not None:
        yield building
    if devices is not None:
        yield devices


def renewed(call: Call, building: ChangeBuilding | None, devices: Call | None) -> Call:
    """Return what a whole state that is sent once more has to say by now."""
    match call:
        case PutDevices():
            return devices or call
        case CreateBuilding():
            return call if building is None else whole(building)
        case ChangeBuilding():
            return call if building is None else _renewed_change(call, building)
        case SendEvents():
            return call
        case _:
            assert_never(call)


def _renewed_change(call: ChangeBuilding, building: ChangeBuilding) -> ChangeBuilding:
    known = {**building.create, **building.attributes}
    named = {*call.attributes, *call.removed}
    gone = {name for name in named if name in building.removed or name not in known}
    return replace(
        call,
        attributes={name: known[name] for name in sorted(named - gone)},
        removed=tuple(sorted(gone & {*building.removed, *call.removed})),
        create=building.create,
        tariff=building.tariff if building.tariff_set else call.tariff,
    )


# ---- device lists and the events behind them ------------------------------------------------------------------------


def unlisted(older: Call, newer: Call) -> frozenset[str]:
    """Return the devices that an older list names and a newer one lacks, or names as something else."""
    if not isinstance(older, PutDevices) or not isinstance(newer, PutDevices):
        return frozenset()
    left = {(entry.id, entry.type) for entry in newer.devices}
    return frozenset(entry.id for entry in older.devices if (entry.id, entry.type) not in left)


# ---- erasing what a call names --------------------------------------------------------------------------------------


def redacted(call: Call, what: Redaction) -> Call | None:
    """Return a call without devices and users that are to be forgotten; None = nothing is left of it."""
    match call:
        case SendEvents():
            events = tuple(event for event in call.events if _stays(event, what))
            return replace(call, events=events) if events else None
        case PutDevices():
            return replace(call, devices=tuple(entry for entry in call.devices if entry.id not in what.devices))
        case CreateBuilding():
            return replace(call, attributes=_without(call.attributes, what))
        case ChangeBuilding():
            return replace(call, attributes=_without(call.attributes, what), create=_without(call.create, what))
        case _:
            assert_never(call)


def _stays(event: Event, what: Redaction) -> bool:
    return event.device not in what.devices


def _without(attributes: Attributes, what: Redaction) -> Attributes:
    users = attributes.get("userIds")
    if not isinstance(users, list | tuple):
        return attributes
    return {**attributes, "userIds": [user for user in users if user not in what.users]}


def done_before(call: Call, done: int, what: Redaction) -> int:
    """Return how many of the items at the front of a row that are done stay in it."""
    return sum(_stays(event, what) for event in call.events[:done]) if isinstance(call, SendEvents) else done


def doubt_without(doubt: Doubt, what: Redaction) -> Doubt | None:
    """Return what is in doubt of a row of events without those to be forgotten."""
    sent = msgspec.json.decode(doubt.payload)
    events = sent if doubt.historical else [sent]
    left = [event for event in events if event.get("deviceId") not in what.devices]
    if len(left) == len(events):
        return doubt
    payload = msgspec.json.encode(left if doubt.historical else left[0]) if left else b""
    return Doubt(payload=payload, historical=doubt.historical, count=len(left)) if left else None
