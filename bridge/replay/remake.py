"""One cluster of households, remade from what the store still holds.

Rules:
- What is read later in here may be newer than what was read earlier, never the other way round: first messages, then
  ticks, then calls, then what the store has deleted meanwhile.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from bridge.core.effects import Event, SendEvents
from bridge.core.messages import Tick, Tombstone, Unreadable
from bridge.core.model import Building
from bridge.core.rules import Rules
from bridge.replay.clusters import Cluster
from bridge.replay.keeper import Keeper
from bridge.replay.trust import Trust
from bridge.replay.world import Directory, Made, World
from bridge.store.port import CallTrip, Home, Pending, Reach, Ticked
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


Watch = Callable[[World, str, Tick], None]
"""Looks at a household before a tick."""


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
    live = {name: found.state for name in cluster.buildings if (found := await keeper.building(name)) is not None}
    kept = await keeper.reach()
    edge = kept.messages
    trust = Trust(live.values(), edge, rules)
    homes = {
        (device.kind, device.id): Home(building=state.id, user=device.user)
        for state in trust.states
        for device in state.devices.values()
    }
    world = World(rules, directory, trust.states, homes)
    made: list[Made] = []
    for step in _in_order(rows, ticks, processed, edge):
        if isinstance(step, Pending):
            message = read(step, rules)
            made += [replace(one, firm=trust.firm(one.event)) for one in world.hear(step, message)]
            if not isinstance(message, Tombstone | Unreadable):
                trust.hear(message)
        else:
            name, tick = step
            if watch is not None:
                watch(world, name, tick)
            made += world.tick(name, tick)
    trust.compare(live.values(), {name: world.state(name) for name in live})
    return Remade(made=made, told=queued, live=live, trust=trust, kept=kept)


def _in_order(
    rows: Sequence[Pending], ticks: Mapping[str, Sequence[Ticked]], processed: int, edge: datetime | None
) -> Iterator[Pending | tuple[str, Tick]]:
    """Yield messages and ticks as they were processed, those after the edge."""
    waiting = sorted(
        (
            (ticked.after, place, name, ticked.tick)
            for name, listed in ticks.items()
            for place, ticked in enumerate(listed)
            if ticked.after <= processed and (edge is None or ticked.tick.now > edge)
        ),
        key=lambda one: one[:3],
    )
    at = 0
    for row in rows:
        while at < len(waiting) and waiting[at][0] < row.id:
            yield waiting[at][2:]
            at += 1
        if edge is None or row.received > edge:
            yield row
    yield from (one[2:] for one in waiting[at:])
