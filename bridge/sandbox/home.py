"""A simulated home: it advances in simulated time and says what the device cloud would say.

Rules:
- Everything changes at steps. Between two steps every power is constant, and whatever changed at a step is said with
  the time of that step: the messages describe exactly what happened.
- The grid meter shows the true balance: load + battery - sun, in whole watts.
- What is offline, disconnected or deleted draws no power; the inverter that sleeps at night is offline at 0 W.
- A home is a function of (seed, number, start, end): the same messages each time.
"""

import heapq
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from bridge.core.vocabulary import Action, EventType, Kind
from bridge.sandbox.build import Equipment
from bridge.sandbox.devices import Body, Device, Inverter, Tariff
from bridge.sandbox.happenings import Happening, planned
from bridge.sandbox.papers import command, prices, schedules
from bridge.sandbox.quirks import finish
from bridge.sandbox.sky import DAY_MS, HOUR_MS, solar_hour
from bridge.sandbox.truth import GATEWAY, QUARTER_MS, Flow, Ledger

_LINK_MS: Final = 1_000
_GAP: Final = 0.02
_GAP_FACTOR: Final = 6
_NEXT_DAY_PRICES_H: Final = 13
_UNSURE_MS: Final = 3 * HOUR_MS
"""How long before a delete the energies of the deleted device are not claimed, in whole slots: some may be open."""


@dataclass(frozen=True, slots=True)
class Said:
    """One message: what happened when [epoch ms], and the body."""

    at: int
    kind: Kind
    action: Action
    body: Body


class Home:
    """One household."""

    def __init__(self, equipment: Equipment, *, start: int, end: int, step_ms: int, dice: random.Random) -> None:
        """Live from start to end [epoch ms] in steps of about `step_ms`."""
        self.user = equipment.user
        self.now = start + dice.randrange(max(min(step_ms, end - start), 1))
        self.end = end
        self.ledger = Ledger(equipment.user, start)
        self._it = equipment
        self.dice = dice
        self._step_ms = step_ms
        self._base_w = dice.randint(120, 380)
        self._load_w = self._base_w
        self._appliance: tuple[int, int] = (0, start)
        self._met = False
        self._priced_until = 0
        self._plan: list[Happening] = planned(equipment, start=start, end=end, dice=dice)
        self._deletes = {one.device: one.at for one in self._plan if one.what is Action.DELETE}
        self._unsure = {device: _slot_of(at - _UNSURE_MS) for device, at in self._deletes.items()}
        heapq.heapify(self._plan)

    def advance(self) -> list[Said]:
        """Live one step and return what is said at its beginning."""
        at = self.now
        said = self._linked(at) if not self._met else []
        said += self._happen(at)
        duration = self._duration(at)
        self._decide(at, duration)
        said += self._reports(at)
        said += self._new_prices(at)
        self._write_down(at, at + duration)
        self._evolve(at, duration)
        self.now = at + duration
        return said

    def _duration(self, at: int) -> int:
        """Return how long this step lasts [ms]: whole seconds as often as not, cut at what is planned."""
        length = self.dice.uniform(0.4, 1.6) * self._step_ms * (_GAP_FACTOR if self.dice.random() < _GAP else 1)
        exact = int(length) if self.dice.random() < 0.5 else (at + int(length)) // 1000 * 1000 - at  # noqa: PLR2004
        limit = self._plan[0].at if self._plan else self.end
        return max(1, min(exact, limit - at, self.end - at))

    def _decide(self, at: int, duration: int) -> None:
        """Set all powers for this step; the meter shows what follows from them."""
        it = self._it
        for inverter in it.inverters:
            inverter.decide(at)
        for climate in it.climates:
            climate.decide(at)
        if it.car is not None:
            it.car.decide(at, duration)
        self._load_w = self._household_load(at) + sum(one.power_w for one in (*it.climates, it.car) if one is not None)
        sun = sum(one.power_w for one in it.inverters)
        if it.battery is not None:
            it.battery.decide(sun - self._load_w, duration)
        if it.meter is not None:
            it.meter.decide(self._load_w + self._battery_w - sun)

    def _household_load(self, at: int) -> int:
        """Return base load and appliances [W]."""
        power, until = self._appliance
        if at >= until:
            busy = 0.12 if solar_hour(at) > 6 else 0.01  # noqa: PLR2004 - people sleep until six
            power = self.dice.choice((900, 1_800, 2_100)) if self.dice.random() < busy else 0
            self._appliance = (power, at + self.dice.randint(300_000, 2_400_000))
        evening = 180 if solar_hour(at) > 17 else 0  # noqa: PLR2004 - lights
        return self._base_w + evening + power + self.dice.randint(-20, 60)

    @property
    def _battery_w(self) -> int:
        """Return the power of the battery [W], + = charging."""
        return 0 if self._it.battery is None else self._it.battery.power_w

    def _evolve(self, at: int, duration: int) -> None:
        """Let the step pass."""
        it = self._it
        if it.battery is not None:
            it.battery.evolve(duration)
        if it.meter is not None:
            it.meter.evolve(duration)
        if it.car is not None:
            it.car.evolve(duration)
        for climate in it.climates:
            climate.evolve(at, duration)

    def _linked(self, at: int) -> list[Said]:
        """Return the first messages of a home: everything is linked, nothing is known yet."""
        self._met = True
        said = [self._say(at, one, Action.CONNECT, one.first(at - _LINK_MS)) for one in self._it.devices]
        if self._it.tariff is not None:
            said.append(self._say(at, self._it.tariff, Action.UPDATE, self._it.tariff.first(at)))
        return said

    def _reports(self, at: int) -> list[Said]:
        """Return an update of every device that shows something new."""
        said = self._sleepers(at)
        for device in self._it.devices:
            if device.working:
                body = device.report(at)
                if body is not None:
                    said.append(self._say(at, device, Action.UPDATE, body))
        return said

    def _sleepers(self, at: int) -> list[Said]:
        """Put inverters to sleep some minutes after dark; the sun wakes them."""
        drowsy = [one for one in self._it.inverters if one.drowsy(at)]
        for inverter in drowsy:
            inverter.sleep()
        return [self._say(at, one, Action.OFFLINE, one.farewell(at)) for one in drowsy]

    def _happen(self, at: int) -> list[Said]:
        """Return what is said about everything planned until now."""
        said: list[Said] = []
        while self._plan and self._plan[0].at <= at:
            said += self._happened(heapq.heappop(self._plan), at)
        return said

    def _happened(self, happening: Happening, at: int) -> list[Said]:
        """Carry out one planned thing."""
        device, what = happening.device, happening.what
        match what:
            case Action.OFFLINE:
                device.lose()
            case Action.DISCONNECT:
                device.connected = False
            case Action.DELETE:
                device.present = False
            case Action.COMMAND:
                return [self._raw(at, device, what, body) for body in command(device, at, self.dice)]
            case Action.SCHEDULES_UPDATE:
                return [self._raw(at, device, what, schedules(device, self.dice))]
            case Action.CONNECT | Action.UPDATE:
                return self._back(device, what, at)
            case _:
                return []
        return [self._say(at, device, what, device.farewell(at))]

    def _back(self, device: Device, what: Action, at: int) -> list[Said]:
        """Bring a device back; only a lost account or a deleted device needs to be linked again."""
        device.online = device.connected = device.present = True
        said = [self._say(at, device, what, device.first(at - _LINK_MS))] if what is Action.CONNECT else []
        device.forget()
        if isinstance(device, Tariff):
            self._priced_until = 0
            if what is Action.UPDATE:
                said = [self._say(at, device, what, device.first(at))]
        return said

    def _new_prices(self, at: int) -> list[Said]:
        """Return the prices of today at first, those of tomorrow once they are published."""
        tariff = self._it.tariff
        if tariff is None or not tariff.working:
            return []
        today = at - at % DAY_MS
        known = today + (2 if solar_hour(at) >= _NEXT_DAY_PRICES_H else 1) * DAY_MS
        if known <= self._priced_until:
            return []
        begin = max(today, self._priced_until)
        self._priced_until = known
        return [self._raw(at, tariff, Action.PRICE_UPDATE, prices(tariff, begin, known))]

    def _say(self, at: int, device: Device, action: Action, body: Body) -> Said:
        """Return a message about a device as the wire carries it."""
        spoil = device.kind is Kind.VEHICLE and self._it.charger is not None
        return Said(at, device.kind, action, finish(device.kind, body, at=at, dice=self.dice, spoil_state=spoil))

    def _raw(self, at: int, device: Device, action: Action, body: Body) -> Said:
        """Return a message that is not about a device's state."""
        return Said(at, device.kind, action, body)

    def _write_down(self, begin: int, end: int) -> None:
        """Add this step to the truth, cut where a receiver stops believing a silent device and where claims end."""
        limits = {
            at for at in (*(one.held_until for one in self._it.devices), *self._unsure.values()) if begin < at < end
        }
        for start, stop in itertools.pairwise([begin, *sorted(limits), end]):
            self.ledger.add(list(self._flows(start)), start, stop)

    def _flows(self, at: int) -> Iterator[Flow]:
        """Yield the powers of this step as a perfect receiver would know them at a time [epoch ms]."""
        it = self._it
        sun = _known_sum(it.inverters, at)
        grid = it.meter.power_w if it.meter is not None and _known(it.meter, at) else None
        if sun is not None and it.inverters:
            yield Flow(GATEWAY, EventType.ENERGY_GENERATION, sun)
        if grid is not None:
            yield Flow(GATEWAY, EventType.GRID_ENERGY_CONSUMPTION, max(grid, 0))
            if it.inverters or it.battery is not None:
                yield Flow(GATEWAY, EventType.ENERGY_EXCESS, max(-grid, 0))
            if sun is not None and (it.battery is None or _known(it.battery, at)):
                yield Flow(GATEWAY, EventType.ENERGY_CONSUMPTION, sun + grid - self._battery_w)
        if it.battery is not None and _known(it.battery, at):
            yield Flow(_name(it.battery), EventType.ENERGY_IMPORT, max(self._battery_w, 0))
            yield Flow(_name(it.battery), EventType.ENERGY_EXPORT, max(-self._battery_w, 0))
        for device in self._consumers(at):
            yield Flow(_name(device), EventType.ENERGY_CONSUMPTION, device.power_w)

    def _consumers(self, at: int) -> Iterator[Device]:
        """Yield the devices whose own consumption is known now and will be claimed."""
        it = self._it
        candidates: list[Device | None] = [one for one in it.climates if one.consumes]
        candidates.append(it.car if it.charger is None else it.charger)
        for device in candidates:
            if device is None or not _known(device, at):
                continue
            if device not in self._deletes or not self._unsure[device] <= at < self._deletes[device]:
                yield device


def _slot_of(at: int) -> int:
    """Return the start of the slot that holds a time [epoch ms]."""
    return at - at % QUARTER_MS


def _known(device: Device, at: int) -> bool:
    """Say whether a receiver can know a device's power at a time [epoch ms]."""
    return device.working and at < device.held_until


def _known_sum(inverters: list[Inverter], at: int) -> int | None:
    """Return the sun's power [W], None while an inverter is unknown; night is 0."""
    if all(_known(one, at) or one.is_night for one in inverters):
        return sum(one.power_w for one in inverters if _known(one, at))
    return None


def _name(device: Device) -> str:
    """Return how the truth names a device."""
    return f"{device.kind}:{device.id}"
