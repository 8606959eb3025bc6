"""A scratch world: states and homes that nobody stores, changed by messages and ticks as the real ones were."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bridge.core.effects import Call, Event, SendEvents
from bridge.core.inheritance import inherited
from bridge.core.messages import Tick
from bridge.core.model import Building, Residence, identity_of
from bridge.core.reduce import reduce
from bridge.core.rules import Rules
from bridge.core.vocabulary import DeviceKey
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
    firm: bool = True  # it was news by what is known; see `trust`


def by_user(rows: Iterable[Residence]) -> Directory:
    """Return the directory as the worker is given it."""
    found: dict[str, tuple[Residence, ...]] = {}
    for row in rows:
        found[row.user] = (*found.get(row.user, ()), row)
    return found


class World:
    """Some households, and nobody else."""

    def __init__(self, rules: Rules, directory: Directory) -> None:
        """Begin with nothing."""
        self._rules = rules
        self._directory = directory
        self._buildings: dict[str, Versioned] = {}
        self._homes: dict[DeviceKey, Home] = {}
        self.changed: frozenset[str] = frozenset()  # buildings that the last message changed

    def state(self, building: str) -> Building | None:
        """Return a building as it is now; None = it has not been heard of."""
        found = self._buildings.get(building)
        return found.state if found is not None else None

    def home(self, device: DeviceKey) -> str | None:
        """Return the building that a device lives in now; None = it has not been heard of."""
        found = self._homes.get(device)
        return found.building if found is not None else None

    def begin(self, state: Building) -> None:
        """Let a building be as the store has kept it, whatever it was."""
        state = inherited(state, self._rules)
        self._buildings[state.id] = Versioned(state=state, version=1)
        self._homes = {device: home for device, home in self._homes.items() if home.building != state.id}
        for device in state.devices.values():
            self._homes[identity_of(device)] = Home(building=state.id, user=device.user)

    def hear(self, row: Pending, message: Decoded) -> list[Made]:
        """Process one message as the worker does; return the events that it makes."""
        loaded = Loaded(residences=self._directory, homes=self._homes, buildings=self._buildings)
        step = Step(loaded, self._rules, row.received)
        step.take(row, message)
        work = step.work()
        self.changed = frozenset(new.state.id for new in work.buildings)
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
