"""What a remade past says otherwise than the outbox, and queueing it.

Rules:
- Events are the same event by building, device, source, type and time; of several queued the last one counts.
- Queued, delivered, dead and given up are all "told": what is dead is the operator's.
- The span is that of the events' own times, from `since` up to, but not including, `until`.
- No event is queued twice, however many replays run at a time: what is queued of a household is looked at once more,
  and the calls are written together with its state, unchanged, at the version read before. Whatever else queues events
  changes the state too.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from bridge import errors
from bridge.core.devices import moost_id
from bridge.core.effects import Event, SendEvents
from bridge.core.identity import gateway_id
from bridge.core.model import Building
from bridge.core.rules import Rules
from bridge.replay.clusters import Cluster, sorted_out
from bridge.replay.keeper import Keeper
from bridge.replay.remake import Key, Remade, Told, key_of, remake, told
from bridge.replay.trust import interval_start
from bridge.replay.world import Made, by_user
from bridge.store.desk import Reach
from bridge.store.port import Outgoing, StoreUnavailable, Work

ROWS: Final = 100
"""Events of one call, and calls of one transaction."""

MOST_CONFLICTS: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Which events are looked at."""

    since: datetime
    until: datetime
    building: str | None = None  # None = every one


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """An event that was never queued, or with another value."""

    building: str
    event: Event
    before: float | None  # the value queued so far; None = never queued


@dataclass(slots=True, kw_only=True)
class Tally:
    """What a replay found, in numbers."""

    messages: int = 0
    buildings: int = 0
    same: int = 0
    missing: int = 0
    changed: int = 0
    uncertain: int = 0  # differ or cannot be made: they need messages that are not there any more
    waiting: int = 0  # messages that are left out: pending, parked, dead
    departed: int = 0  # differ, of devices or buildings that are not there any more
    faulted: dict[str, str] = field(default_factory=dict)  # building on which a bug of ours fails -> where
    since: datetime | None = None  # from when on the span could be remade


def beginning(kept: Reach) -> datetime | None:
    """Return from when on messages and calls are complete; None = from the start."""
    return max((at for at in (kept.messages, kept.calls) if at is not None), default=None)


async def replay(
    keeper: Keeper,
    rules: Rules,
    span: Span,
    tally: Tally,
    *,
    now: Callable[[], datetime] | None = None,
    advance: Callable[[float], None] = lambda _: None,
) -> AsyncIterator[Difference]:
    """Yield what today's mapping says otherwise within a span, and queue it where `now` says when that is.

    `advance` is told of messages as they are read; `tally` counts.
    """
    directory = by_user(await keeper.residences())
    kept = await keeper.reach()
    clusters = await sorted_out(keeper, rules, directory, kept.processed, advance)
    census = await keeper.census()
    tally.waiting = census.pending + census.parked + census.dead
    for cluster in clusters.found(span.building):
        try:
            remade = await remake(keeper, rules, directory, cluster, kept.processed)
        except StoreUnavailable:
            raise
        except Exception as fault:  # noqa: BLE001 - one household must not hold up the others (R12)
            tally.faulted[cluster.buildings[0]] = errors.place_of(fault)
            continue
        _count(tally, cluster, span, remade)
        strangers = {user for one in remade.live.values() for user in one.users if user not in cluster.users}
        moved = any(clusters.knows_user(user) for user in strangers)
        found = list(_differences(span, remade, rules, tally, moved=moved))
        if now is not None:
            queued = [one for name in cluster.buildings for one in await _queue(keeper, name, found, now)]
            tally.same += len(found) - len(queued)
            found = queued
        for difference in found:
            tally.missing += difference.before is None
            tally.changed += difference.before is not None
            yield difference


def _count(tally: Tally, cluster: Cluster, span: Span, remade: Remade) -> None:
    tally.messages += len(cluster.messages)
    tally.buildings += len(cluster.buildings)
    tally.since = max(at for at in (span.since, tally.since, beginning(remade.kept)) if at is not None)


def _differences(span: Span, remade: Remade, rules: Rules, tally: Tally, *, moved: bool) -> Iterator[Difference]:
    """Yield the events of one cluster that are to be queued, in order of time; count the others."""
    since = max(at for at in (span.since, beginning(remade.kept)) if at is not None)
    there = {name: _devices(state) for name, state in remade.live.items()}
    last: dict[Key, tuple[Made, bool]] = {}
    for made in remade.made:
        zone = remade.live[made.building].time_zone if made.building in remade.live else rules.default_time_zone
        sure = remade.trust.allows(made, zone) and not moved and not _forgotten(made, remade, rules, zone)
        last[key_of(made.building, made.event)] = (made, sure)
    for key, one in remade.told.items():
        zone = remade.live[key[0]].time_zone if key[0] in remade.live else rules.default_time_zone
        lost = key not in last and since <= one.event.at < span.until and span.building in (None, key[0])
        tally.uncertain += lost and not remade.trust.reaches(key[0], one.event, zone)
    for key, (made, sure) in sorted(last.items(), key=lambda item: (item[0][0], item[0][4])):
        if not since <= made.event.at < span.until or span.building not in (None, made.building):
            continue
        said = remade.told.get(key)
        if not _is_news(said, made.event):
            tally.same += 1
        elif made.event.device not in there.get(made.building, ()):
            tally.departed += 1
        elif not sure:
            tally.uncertain += 1
        else:
            before = said.event.value if said is not None else None
            yield Difference(building=made.building, event=made.event, before=before)


def _forgotten(made: Made, remade: Remade, rules: Rules, time_zone: str) -> bool:
    """Tell whether an event needs messages of a user of its household who was forgotten."""
    state = remade.live.get(made.building)
    at = state.forgotten if state is not None else None
    return at is not None and interval_start(made.event, rules, time_zone) <= at


def _devices(state: Building) -> frozenset[str]:
    """Return what MOOST knows of a household now."""
    return frozenset({gateway_id(state.id), *(moost_id(one) for one in state.devices.values())})


async def _queue(
    keeper: Keeper, building: str, found: Sequence[Difference], now: Callable[[], datetime]
) -> list[Difference]:
    """Queue what differs of one building for the historical lane; return what nobody else has queued meanwhile."""
    left = [one for one in found if one.building == building]
    queued: list[Difference] = []
    conflicts = 0
    while left:
        there = await keeper.building(building)
        said = await told(keeper, [building])
        left = [one for one in left if _is_news(said.get(key_of(building, one.event)), one.event)]
        if there is None or not left:
            break
        some, rest = left[: ROWS * ROWS], left[ROWS * ROWS :]
        if not await keeper.commit(Work(now=now(), buildings=[there], calls=_calls(there.state, some))):
            queued, left, conflicts = queued + some, rest, 0
            continue
        conflicts += 1
        if conflicts == MOST_CONFLICTS:
            raise StoreUnavailable("a building changed under the replay again and again")
    return queued


def _is_news(said: Told | None, event: Event) -> bool:
    """Tell whether a value differs from the one that was queued last."""
    return said is None or said.event.value != event.value


def _calls(building: Building, found: Sequence[Difference]) -> list[Outgoing]:
    events = tuple(one.event for one in found)
    return [
        Outgoing(
            call=SendEvents(building=building.id, events=events[start : start + ROWS], replay=True),
            subscription=building.payer,
        )
        for start in range(0, len(events), ROWS)
    ]
