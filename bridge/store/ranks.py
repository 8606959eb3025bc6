"""Whose turn it is at the outbox: lanes stand in lines of their subscription and rank.

Rules:
- A lane stands in the line of its first owed call: its subscription, and its rank at the time of queueing.
- Subscriptions share the lanes in hand equally, whoever has more waiting.
- Within a subscription a rank has three lanes for each one of the rank below: live events of a building that MOOST
  knows, then buildings and device lists, then history.
- Within a line whoever has waited longest is first.
"""

import heapq
from collections.abc import Callable, Hashable, Mapping
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Final, NamedTuple, TypeVar

from bridge.core.effects import Call, SendEvents

OLD: Final = timedelta(minutes=30)
"""Events that are older when they are queued are history, for the order of the lines. By which of MOOST's lanes they
leave is for the sender's settings to say."""

LOOK_S: Final = 0.001
"""What a look at a building takes the clock, about; what it took is measured."""

TIMES: Final = 3
"""Turns of a rank for each one of the rank below it."""

K = TypeVar("K", bound=Hashable)


class Rank(IntEnum):
    """What a lane is about to send."""

    LIVE = 0
    STATE = 1  # a building or a device list
    HISTORY = 2

    @property
    def cost(self) -> int:
        """Return what a turn costs within the subscription."""
        return int(TIMES**self)


class Line(NamedTuple):
    """Lanes that wait behind one another."""

    subscription: str
    rank: int


def rank(call: Call, now: datetime) -> Rank:
    """Return the rank of a call that is queued now."""
    if not isinstance(call, SendEvents):
        return Rank.STATE
    old = call.replay or (bool(call.events) and now - call.events[0].at > OLD)
    return Rank.HISTORY if old else Rank.LIVE


def lent(due: Mapping[Line, int], held: Mapping[Line, int], lanes: int) -> dict[Line, int]:
    """Return how many lanes of each line are lent, so that with those held each has its share of `lanes`.

    `due` = how many of each line could be, `held` = how many the asker has already. Lines that get none are left out.
    """
    wanted: dict[str, dict[Line, int]] = {}
    for line in sorted({*held, *due}):
        wanted.setdefault(line.subscription, {})[line] = due.get(line, 0) + held.get(line, 0)
    shares = _shared({name: sum(lines.values()) for name, lines in wanted.items()}, lanes, lambda _: 1)
    found: dict[Line, int] = {}
    for name, lines in wanted.items():
        for line, count in _shared(lines, shares[name], lambda line: Rank(line.rank).cost).items():
            more = min(due.get(line, 0), count - held.get(line, 0))
            if more > 0:
                found[line] = more
    return found


def looked_at(due: Mapping[str, int], used: Mapping[str, float], limit: int) -> dict[str, int]:
    """Return how many of each subscription's buildings the clock looks at; `used` is its time for them lately [s]."""
    return _shared(due, limit, lambda _: LOOK_S, used)


def _shared(
    wanted: Mapping[K, int], total: int, cost: Callable[[K], float], paid: Mapping[K, float] | None = None
) -> dict[K, int]:
    """Share `total` out: each time one to who has paid least, `paid` included."""
    before = paid or {}
    if sum(wanted.values()) <= total:
        return dict(wanted)
    if len(wanted) == 1:
        return dict.fromkeys(wanted, total)
    given = dict.fromkeys(wanted, 0)
    heap = [(before.get(key, 0.0) + cost(key), place, key) for place, key in enumerate(wanted) if wanted[key]]
    heapq.heapify(heap)
    for _ in range(total):
        least, place, key = heap[0]
        given[key] += 1
        if given[key] < wanted[key]:
            heapq.heapreplace(heap, (least + cost(key), place, key))
        else:
            heapq.heappop(heap)
    return given
