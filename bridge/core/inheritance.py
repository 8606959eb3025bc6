"""Devices of a subscription that has another id now (mapping rule M0.6).

Rules:
- A building is brought up to date as a whole, before anything else happens in it.
- A device keeps its id at MOOST.
- Where both subscriptions have told of a device, the newer one's is kept.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

from bridge.core.copying import replace
from bridge.core.model import Building, Device
from bridge.core.rules import Rules

T = TypeVar("T")


def inherited(building: Building, rules: Rules) -> Building:
    """Return a building with the devices of former subscriptions under their heirs."""
    if not rules.heirs:
        return building
    names = (*building.devices, *building.gone, *building.prices)
    departed = any(device.subscription in rules.heirs for device in building.departed)
    if not departed and not any(_owner(name) in rules.heirs for name in names):
        return building

    def heir(name: str) -> str:
        owner = _owner(name)
        return rules.heir(owner) + name[len(owner) :]

    devices = _renamed(building.devices, heir, lambda old, new: replace(new, moost_id=old.moost_id))
    return replace(
        building,
        devices={name: _of_heir(device, rules) for name, device in devices.items()},
        departed=tuple(_of_heir(device, rules) for device in building.departed),
        gone=_renamed(building.gone, heir, max),
        gone_sent=_renamed(building.gone_sent, heir, max),
        early=_renamed(building.early, heir, max),
        schedules=_renamed(building.schedules, heir, lambda _, new: new),
        prices=_renamed(building.prices, heir, lambda _, new: new),
        waits=_renamed(building.waits, heir, min),
        about={flag: tuple(dict.fromkeys(map(heir, names))) for flag, names in building.about.items()},
    )


def _owner(name: str) -> str:
    """Return the subscription in the name of a device."""
    return name.partition("/")[0]


def _of_heir(device: Device, rules: Rules) -> Device:
    heir = rules.heir(device.subscription)
    return device if heir == device.subscription else replace(device, subscription=heir)


def _renamed(values: Mapping[str, T], heir: Callable[[str], str], both: Callable[[T, T], T]) -> dict[str, T]:
    """Return values under the names of the heirs; `both` says what is kept of a former one's and its heir's."""
    found = {heir(name): value for name, value in values.items() if heir(name) != name}
    for name, value in values.items():
        if heir(name) == name:
            found[name] = both(found[name], value) if name in found else value
    return found
