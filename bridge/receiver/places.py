"""Who holds how many connections, and which of them gives way when a new one comes.

Rules:
- There are places for all, and for each address; trusted proxies have no bound of their own.
- Where no place is left, the connection that has been idle longest gives way: of the address that is over its bound,
  else of the one that holds most. Those of trusted proxies go last.
- Where none is idle, the new one is on probation: it has a second to say what it wants. Health is answered, and whoever
  has proved itself within a day; the others hear 503. When probation is full, who has been silent longest goes.

Theory of operation: connections say when they are idle; an address keeps its idle ones in the order in which they
became so. Addresses are kept by how many connections they hold, so the fullest is found without a look at each.
"""

from typing import Final, Protocol

from bridge.limits import Limit

PROBATION: Final = 64  # connections beyond all places
PROBATION_S: Final = 1.0  # for a header


class Holder(Protocol):
    """A connection, as far as places are concerned."""

    def give_way(self) -> None:
        """Close: the place is needed, and nothing is in hand."""

    def turn_away(self) -> None:
        """Refuse and close: there is no place."""


class Party:
    """The connections of one address."""

    __slots__ = ("address", "count", "exempt", "idle")

    def __init__(self, address: str, *, exempt: bool) -> None:
        """Begin with none."""
        self.address = address
        self.exempt = exempt
        self.count = 0
        self.idle: dict[Holder, None] = {}  # the one that has been idle longest first


class Places:
    """Gives connections a place."""

    def __init__(self, most: int, most_each: int) -> None:
        """Have `most` places, `most_each` of them for one address."""
        self._most = most
        self._most_each = most_each
        self._parties: dict[tuple[str, bool], Party] = {}
        self._sizes: tuple[dict[int, dict[Party, None]], ...] = ({}, {})  # of addresses, and of trusted proxies
        self._held: dict[Holder, Party] = {}
        self.silent: dict[Holder, None] = {}  # on probation, has not said yet what it wants
        self._guests = 0  # let in beyond all places

    def enter(self, holder: Holder, address: str, *, exempt: bool) -> tuple[Party, Limit | None]:
        """Take a new connection in; returns its party and the bound that is reached, if one is.

        The connection is on probation then if it is among the `silent`, else another one has given way.
        """
        party = self._parties.get((address, exempt))
        if party is None:
            party = self._parties[address, exempt] = Party(address, exempt=exempt)
        self._count(party, 1)
        self._held[holder] = party
        reached = None
        if not exempt and party.count > self._most_each:
            reached, way = Limit.CONNECTIONS_PER_ADDRESS, next(iter(party.idle), None)
        elif len(self._held) - len(self.silent) - self._guests > self._most:
            reached, way = Limit.CONNECTIONS, self._longest_idle()
        if reached is None:
            return party, None
        if way is not None:
            self.leave(way)
            way.give_way()
            return party, reached
        if len(self.silent) + self._guests >= PROBATION and self.silent:
            next(iter(self.silent)).turn_away()
        if self._guests < PROBATION:
            self.silent[holder] = None
        else:
            holder.turn_away()
        return party, reached

    def let_in(self, holder: Holder) -> None:
        """End a probation: it may stay for one request."""
        del self.silent[holder]
        self._guests += 1

    def leave(self, holder: Holder, *, guest: bool = False) -> None:
        """Give a place back; twice is once."""
        party = self._held.pop(holder, None)
        if party is None:
            return
        self._guests -= guest
        self.silent.pop(holder, None)
        party.idle.pop(holder, None)
        self._count(party, -1)
        if not party.count:
            del self._parties[party.address, party.exempt]

    def _count(self, party: Party, more: int) -> None:
        sizes = self._sizes[party.exempt]
        if party.count:
            same = sizes[party.count]
            del same[party]
            if not same:
                del sizes[party.count]
        party.count += more
        if party.count:
            sizes.setdefault(party.count, {})[party] = None

    def _longest_idle(self) -> Holder | None:
        """Return the longest idle connection of the address that holds most; None = nobody is idle."""
        for sizes in self._sizes:
            for size in sorted(sizes, reverse=True):
                for party in sizes[size]:
                    if party.idle:
                        return next(iter(party.idle))
        return None
