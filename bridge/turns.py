"""Whose turn it is, where several wait for one thing: whoever has used least of it.

Rules:
- Used is measured: seconds of the worker, rows of the store, calls of the sender. Nobody is favoured or promised more.
- Who was idle begins at the least of those that wait: what it did not use is not saved up, what others used does not
  count against it.
- Among equals whoever began to wait first is next.
- What is remembered is bounded by who waits, and by who has used more than the least of these.

Theory of operation: a heap of (used, number, who). An entry whose amount is not that of its owner any more, or whose
owner does not wait, is passed over when it comes up.
"""

import heapq
from collections.abc import Container, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Turns(Generic[K]):
    """Takes turns between subscriptions, or whoever pays for a thing."""

    def __init__(self) -> None:
        """Start with nobody."""
        self._used: dict[K, float] = {}  # also of those that are idle, as long as it is more than the floor
        self._waiting: dict[K, int] = {}  # who -> number
        self._heap: list[tuple[float, int, K]] = []
        self._floor = 0.0  # the least of those that waited last
        self._number = 0

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiting)

    def __contains__(self, who: K) -> bool:
        """Return whether somebody waits."""
        return who in self._waiting

    def wait(self, who: K) -> None:
        """Let somebody wait for a turn; one that waits already keeps its place."""
        if who in self._waiting:
            return
        self._number += 1
        self._waiting[who] = self._number
        self._used[who] = max(self._used.get(who, 0.0), self._least())
        heapq.heappush(self._heap, (self._used[who], self._number, who))

    def rest(self, who: K) -> None:
        """Let somebody wait no longer."""
        if self._waiting.pop(who, None) is not None and not self._waiting:
            self._floor = max(self._floor, self._used[who])
            self._heap.clear()
        if self._used.get(who, 0.0) <= self._least():
            self._used.pop(who, None)

    def use(self, who: K, amount: float) -> None:
        """Count what somebody used."""
        self._used[who] = self._used.get(who, self._floor) + amount
        if who in self._waiting:
            heapq.heappush(self._heap, (self._used[who], self._waiting[who], who))

    def next(self, without: Container[K] = ()) -> K | None:
        """Return who of those that wait has used least, some left out; None = nobody. It goes on waiting."""
        passed: list[tuple[float, int, K]] = []
        found: K | None = None
        while self._heap and found is None:
            used, number, who = self._heap[0]
            if self._waiting.get(who) != number or self._used[who] != used:
                heapq.heappop(self._heap)  # an old entry
            elif who in without:
                passed.append(heapq.heappop(self._heap))
            else:
                found = who
        for entry in passed:
            heapq.heappush(self._heap, entry)
        return found

    def _least(self) -> float:
        """Return the least that one of those that wait has used."""
        while self._heap:
            used, number, who = self._heap[0]
            if self._waiting.get(who) == number and self._used[who] == used:
                self._floor = max(self._floor, used)
                break
            heapq.heappop(self._heap)
        return self._floor
