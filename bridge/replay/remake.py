"""One cluster of households, remade from what the store still holds.

Rules:
- What is read later in here may be newer than what was read earlier, never the other way round: first messages, then
  ticks, then calls, then what the store has deleted meanwhile.
- Ticks are those that there were. A household that never had one, because nothing was known of it as it was mapped
  then, gets those that it would have had; what will be closed by the clock is left to it.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from bridge.core.effects import Event, SendEvents
from bridge.core.inheritance import inherited
from bridge.core.messages import Tick, Tombstone, Unreadable
from bridge.core.model import Building
from bridge.core.routing import device_of
from bridge.core.rules import Rules
from bridge.core.slots import due
from bridge.replay.clusters import Cluster
from bridge.replay.keeper import Keeper
from bridge.replay.trust import Trust
from bridge.replay.world import Directory, Made, World
from bridge.store.desk import CallTrip, Reach, Ticked
from bridge.store.port import Pending
from bridge.worker.step import read

PAGE = 100

Key = tuple[str, str, str, str, datetime]
"""Building, MOOST's device, source, type, time: what makes an event the same event."""


def key_of(building: str, event: Event) -> Key:
    """Return what makes an event the same event."""
    return (building, event.device, event.source.value, event.type.value, event.at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """An event as it was queued, and its call."""

    event: Event
    call: CallTrip


@dataclass(frozen=True, slots=True, kw_only=True)
class Remade:
    """What came of one cluster."""

    made: Sequence[Made]  # in the order in which they were made
    told: Mapping[Key, Told]  # the last of each that was queued
    live: Mapping[str, Building]
    trust: Trust
    kept: Reach


Watch = Callable[[World, str], None]
"""Looks at a household before something happens to it."""


async def told(keeper: Keeper, buildings: Sequence[str]) -> dict[Key, Told]:
    """Read what was queued for some buildings."""
    found: dict[Key, Told] = {}
    for building in buildings:
        async for call in calls(keeper, building):
            if isinstance(call.call, SendEvents):
                for event in call.call.events:
                    found[key_of(building, event)] = Told(event=event, call=call)
    return found


async def calls(keeper: Keeper, building: str) -> AsyncIterator[CallTrip]:
    """Stream the calls with events of a building."""
    after = 0
    while page := await keeper.event_calls(building, after, PAGE):
        for call in page:
            yield call
        after = page[-1].id


async def remake(
    keeper: Keeper,
    rules: Rules,
    directory: Directory,
    cluster: Cluster,
    processed: int,
    watch: Watch | None = None,
) -> Remade:
    """Remake one cluster; nothing of what was processed after the message `processed` is looked at."""
    rows = await keeper.messages([number for number in cluster.messages if number <= processed])
    ticks = {name: await keeper.ticks(name) for name in cluster.buildings}
    queued = await told(keeper, cluster.buildings)
    found = {name: await keeper.building(name) for name in cluster.buildings}
    live = {name: inherited(one.state, rules) for name, one in found.items() if one is not None}
    kept = await keeper.reach()
    ticked = (await keeper.census()).last_tick
    world = World(rules, directory)
    missed = [name for name in live if not ticks[name] and due(live[name], rules) is None]
    trust = Trust((name for name in cluster.buildings if _first(ticks[name], kept) >= 0), rules)
    made: list[Made] = []
    for step in _in_order(rows, ticks, processed, kept):
        if isinstance(step, Pending):
            made += [one for name in missed for one in _missed(world, name, step.received, rules)]
            message = read(step, rules)
            if watch is not None:
                for name in cluster.buildings:
                    watch(world, name)
            home = world.home(device_of(message)) if not isinstance(message, Tombstone | Unreadable) else None
            new = world.hear(step, message)
            trust.touch(world.changed, home)
            made += [replace(one, firm=trust.firm(one)) for one in new]
        elif isinstance(step, Building):
            world.begin(step)
            trust.begin(step)
        else:
            name, tick = step
            if watch is not None:
                watch(world, name)
            made += world.tick(name, tick)
    if ticked is not None:
        made += [one for name in missed for one in _missed(world, name, ticked, rules)]
    trust.compare(live.values(), {name: world.state(name) for name in live})
    return Remade(made=made, told=queued, live=live, trust=trust, kept=kept)


def _missed(world: World, name: str, until: datetime, rules: Rules) -> Iterator[Made]:
    """Yield what the ticks make that a household would have had up to a time."""
    while (state := world.state(name)) is not None:
        at = due(state, rules)
        if at is None or at > until:
            break
        yield from world.tick(name, Tick(now=at))
        after = world.state(name)
        if after is None or after.open_from == state.open_from:
            break


Step = Pending | Building | tuple[str, Tick]
"""A message, the copy that a household begins with, or a household's tick."""


def _in_order(
    rows: Sequence[Pending], ticks: Mapping[str, Sequence[Ticked]], processed: int, kept: Reach
) -> Iterator[Step]:
    """Yield messages and ticks as they were processed, of a household that has to begin with a copy from there on."""
    waiting: list[tuple[int, int, str, Step]] = []
    for name, listed in ticks.items():
        first = _first(listed, kept)
        for place, ticked in enumerate(listed):
            step = ticked.state if place == first else (name, ticked.tick) if ticked.tick is not None else None
            if place >= first and ticked.after <= processed and step is not None:
                waiting.append((ticked.after, place, name, step))
    waiting.sort(key=lambda one: one[:3])
    begun = any(_first(listed, kept) < 0 for listed in ticks.values())
    at = 0
    for row in rows:
        while at < len(waiting) and waiting[at][0] < row.id:
            yield waiting[at][3]
            begun = True
            at += 1
        if begun:
            yield row
    yield from (one[3] for one in waiting[at:])


def _first(ticks: Sequence[Ticked], kept: Reach) -> int:
    """Return the place of the tick with whose copy a household begins; -1 = it begins with its first message."""
    moved = max((place for place, one in enumerate(ticks) if one.tick is None), default=-1)
    if kept.messages is None and moved < 0:
        return -1
    usable = (place for place, one in enumerate(ticks) if one.state is not None and one.after >= kept.forgotten)
    return next((place for place in usable if place >= moved), len(ticks))
