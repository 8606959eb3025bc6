"""What is planned to happen to a home: losses, deletions, commands, a new schedule.

Rules:
- Of every four homes the first lives through everything, the second loses a device for a while, the third has one
  deleted, the fourth is left in peace, as is a home without devices. Commands and schedules happen wherever there is a
  device for them.
- Times are shares of the simulated span, so that a short run shows everything too.
- Only devices that the balance of the home does not depend on are deleted.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from bridge.core.vocabulary import Action
from bridge.sandbox.build import Equipment
from bridge.sandbox.devices import Device
from bridge.sandbox.sky import HOUR_MS

_LONGEST_MS: Final = 2 * HOUR_MS
_IN_PEACE: Final = 3


@dataclass(frozen=True, slots=True, order=True)
class Happening:
    """Something that happens to a device at a time [epoch ms]."""

    at: int
    place: int
    device: Device = field(compare=False)
    what: Action = field(compare=False)


def planned(home: Equipment, *, start: int, end: int, dice: random.Random) -> list[Happening]:
    """Return what will happen to a home between start and end."""
    found: list[Happening] = []
    for place, (share, device, what) in enumerate(_shares(home, dice)):
        at = start + int((end - start) * share)
        if what in {Action.CONNECT, Action.UPDATE}:
            at = min(at, found[-1].at + _LONGEST_MS)
        found.append(Happening(at, place, device, what))
    return found


def _shares(home: Equipment, dice: random.Random) -> Iterator[tuple[float, Device, Action]]:
    """Yield when (share of the span) what happens; every end follows its beginning."""
    for climate in home.climates[:1]:
        yield dice.uniform(0.05, 0.1), climate, Action.SCHEDULES_UPDATE
        yield dice.uniform(0.1, 0.2), climate, Action.COMMAND
    for one in (home.car, home.charger):
        if one is not None:
            yield dice.uniform(0.15, 0.25), one, Action.COMMAND
    fate = home.number % 4 if home.devices else _IN_PEACE
    if fate in {0, 1}:
        device = dice.choice(home.devices)
        yield dice.uniform(0.25, 0.3), device, Action.OFFLINE
        yield dice.uniform(0.32, 0.4), device, Action.UPDATE
    if fate == 0:
        device = dice.choice(_unlinkable(home))
        yield dice.uniform(0.5, 0.55), device, Action.DISCONNECT
        yield dice.uniform(0.57, 0.65), device, Action.CONNECT
    if fate in {0, 2} and _deletable(home):
        device = dice.choice(_deletable(home))
        yield dice.uniform(0.7, 0.75), device, Action.DELETE
        yield dice.uniform(0.77, 0.85), device, Action.CONNECT


def _unlinkable(home: Equipment) -> list[Device]:
    """Return what may lose its vendor account: all but inverters, whose night needs no account."""
    return [one for one in home.devices if one not in home.inverters] or home.devices


def _deletable(home: Equipment) -> list[Device]:
    """Return what may be deleted."""
    return [*home.climates, *([] if home.tariff is None else [home.tariff])]
