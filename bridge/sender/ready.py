"""The lanes in hand that could send, and whose turn it is.

Rules:
- Turns are taken per subscription, by the requests that each has made; within a subscription per rank, as `ranks` says;
  within a rank one call, then to the back: a long lane delays nobody.
- Who had nothing to send has saved nothing up.
- A subscription that has as many calls on the wire as it may is passed over.
"""

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator

from bridge.sender.lanes import Run
from bridge.store.ranks import Line, Rank
from bridge.turns import Turns


class _Payer:
    """The lanes of one subscription."""

    def __init__(self) -> None:
        self.turns = Turns[Rank]()
        self.lanes: dict[Rank, deque[Run]] = {rank: deque() for rank in Rank}


class Ready:
    """Lanes that take turns."""

    def __init__(self) -> None:
        """Start empty."""
        self._turns = Turns[str]()
        self._payers: dict[str, _Payer] = {}

    def __len__(self) -> int:
        """Return how many lanes could send."""
        return sum(len(lanes) for payer in self._payers.values() for lanes in payer.lanes.values())

    def __iter__(self) -> Iterator[Run]:
        """Yield all lanes."""
        return (run for payer in self._payers.values() for lanes in payer.lanes.values() for run in lanes)

    def __contains__(self, subscription: str) -> bool:
        """Tell whether a subscription has a lane that could send."""
        return subscription in self._turns

    @property
    def lines(self) -> Counter[Line]:
        """Return how many lanes there are of each line."""
        return Counter(
            {
                Line(name, rank): len(lanes)
                for name, payer in self._payers.items()
                for rank, lanes in payer.lanes.items()
                if lanes
            }
        )

    def add(self, run: Run, line: Line, *, first: bool = False) -> None:
        """Let a lane wait for its turn; `first` = it has had one, and could not use it."""
        payer, rank = self._payers.setdefault(line.subscription, _Payer()), Rank(line.rank)
        if first:
            payer.lanes[rank].appendleft(run)
        else:
            payer.lanes[rank].append(run)
        payer.turns.wait(rank)
        self._turns.wait(line.subscription)

    def take(self, full: Collection[str] = ()) -> tuple[Run, Line] | None:
        """Take out the lane whose turn it is, until `use`; None = there is none but of those that are `full`."""
        name = self._turns.next(full)
        if name is None:
            return None
        payer = self._payers[name]
        rank = payer.turns.next()
        assert rank is not None, "who waits has a lane"  # noqa: S101
        return payer.lanes[rank].popleft(), Line(name, rank)

    def use(self, line: Line, requests: int) -> None:
        """Count what a turn was used for, before the next one is taken; 0 = for nothing."""
        rank = Rank(line.rank)
        if requests:
            self._turns.use(line.subscription, requests)
            self._payers[line.subscription].turns.use(rank, rank.cost)
        self._look(line.subscription)

    def remove(self, gone: Callable[[Run], bool]) -> list[Run]:
        """Take some lanes out, and return them."""
        found = [run for run in self if gone(run)]
        for name, payer in self._payers.items() if found else ():
            payer.lanes = {rank: deque(run for run in runs if run not in found) for rank, runs in payer.lanes.items()}
            self._look(name)
        return found

    def _look(self, name: str) -> None:
        """Let nobody wait who has no lane."""
        payer = self._payers[name]
        for rank, lanes in payer.lanes.items():
            if not lanes:
                payer.turns.rest(rank)
        if not len(payer.turns):
            self._turns.rest(name)
