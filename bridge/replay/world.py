"""A scratch world: states and homes that nobody stores, changed by messages and ticks as the real ones were."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bridge.core.effects import Call, Event, SendEvents
from bridge.core.messages import Tick
from bridge.core.model import Building, Residence
from bridge.core.reduce import reduce
from bridge.core.rules import Rules
from bridge.core.vocabulary import Kind
from bridge.store.port import Home, Loaded, Pending, Versioned
from bridge.worker import Step
from bridge.worker.step import Decoded

Directory = Mapping[str, tuple[Residence, ...]]
"""User -> directory rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """An event that the scratch world has made."""

    building: str
    event: Event
    cause: int = 0  # message id; 0 = a tick
    firm: bool = True  # the messages so far decide that it is news; see `trust`


def by_user(rows: Iterable[Residence]) -> Directory:
    """Return the directory as the worker is given it."""
    found: dict[str, tuple[Residence, ...]] = {}
    for row in rows:
        found[row.user] = (*found.get(row.user, ()), row)
    return found


class World:
    """Some households, and nobody else."""

    def __init__(
        self,
        rules: Rules,
        directory: Directory,
        states: Iterable[Building] = (),
        homes: Mapping[tuple[Kind, str], Home] | None = None,
    ) -> None:
        """Begin with what is known of the time before the first message."""
        self._rules = rules
        self._directory = directory
        self._buildings = {state.id: Versioned(state=state, version=1) for state in states}
        self._homes = dict(homes or {})

    def state(self, building: str) -> Building | None:
        """Return a building as it is now; None = it has not been heard of."""
        found = self._buildings.get(building)
        return found.state if found is not None else None

    def hear(self, row: Pending, message: Decoded) -> list[Made]:
        """Process one message as the worker does; return the events that it makes."""
        loaded = Loaded(residences=self._directory, homes=self._homes, buildings=self._buildings)
        step = Step(loaded, self._rules, row.received)
        step.take(row, message)
        work = step.work()
        for new in work.buildings:
            self._buildings[new.state.id] = Versioned(state=new.state, version=1)
        for device, home in work.homes.items():
            if home is None:
                self._homes.pop(device, None)
            else:
                self._homes[device] = home
        return _events([outgoing.call for outgoing in work.calls], row.id)

    def tick(self, building: str, tick: Tick) -> list[Made]:
        """Let time pass for one building; return the events that it makes."""
        before = self.state(building)
        if before is None:
            return []
        after, effects = reduce(before, tick, self._rules)
        self._buildings[building] = Versioned(state=after, version=1)
        return _events([effect for effect in effects if isinstance(effect, SendEvents)], 0)


def _events(calls: Sequence[Call], cause: int) -> list[Made]:
    return [
        Made(building=call.building, event=event, cause=cause)
        for call in calls
        if isinstance(call, SendEvents)
        for event in call.events
    ]
