"""What an operator should know of a building: its flags in words, and the setting that would mend each.

Rules:
- A flag is a word of `Flag`. `Building.about` names what it is about, as far as that is known: devices by their keys.
- One sentence says what is wrong, another names the setting. Neither holds an address, a coordinate or a name of a
  person; ids of buildings and devices are there to be looked up.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from bridge.core.copying import replace
from bridge.core.model import Building, Flag, flagged, parted
from bridge.core.rules import Rules
from bridge.core.tracks import sign_of
from bridge.core.vocabulary import Kind

MOST_NAMED: Final = 5  # devices in a sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A flag of a building, for people."""

    building: str
    flag: str
    problem: str
    setting: str


def marked(building: Building, flag: str, *, on: bool, about: tuple[str, ...] = ()) -> Building:
    """Return a building with a flag set or cleared; `about` names the devices that it is about."""
    flags = flagged(building.flags, flag, on=on)
    known = building.about.get(flag, ())
    wanted = about if on else ()
    if flags is building.flags and wanted == known:
        return building
    others = {name: devices for name, devices in building.about.items() if name != flag}
    return replace(building, flags=flags, about={**others, flag: wanted} if wanted else others)


def finding(building: Building, flag: str, rules: Rules) -> Finding:
    """Return what a flag of a building says."""
    about = building.about.get(flag, ())
    problem, setting = _SENTENCES.get(flag, _of_no_sentence)(building, about, rules)
    return Finding(building=building.id, flag=flag, problem=problem, setting=setting)


def changes(before: Building | None, after: Building) -> tuple[tuple[str, bool], ...]:
    """Return the flags that were set or are about other devices now (True), and those that were cleared (False)."""
    was, about = (before.flags, before.about) if before is not None else ((), {})
    if after.flags == was and after.about == about:
        return ()
    news = [flag for flag in after.flags if flag not in was or after.about.get(flag, ()) != about.get(flag, ())]
    return (*((flag, True) for flag in news), *((flag, False) for flag in was if flag not in after.flags))


# ---- the sentences --------------------------------------------------------------------------------------------------

_Sentences = tuple[str, str]


def _listed(building: Building, about: tuple[str, ...]) -> str:
    """Return devices for a sentence."""
    more = f" and {len(about) - MOST_NAMED} more" if len(about) > MOST_NAMED else ""
    return ", ".join(_named(building, name) for name in about[:MOST_NAMED]) + more


def _named(building: Building, name: str) -> str:
    """Return a device for a sentence, with its subscription where another one has such a device here."""
    return name if _is_shared(building, name) else name.partition("/")[2]


def _is_shared(building: Building, name: str) -> bool:
    """Tell whether several subscriptions have a device of this kind and id in a building."""
    _, kind, id_ = parted(name)
    return sum((one.kind, one.id) == (kind, id_) for one in building.devices.values()) > 1


def _table(building: Building, name: str, key: str) -> str:
    """Return the lines of the configuration that say something of one device."""
    subscription, kind, id_ = parted(name)
    whose = f', subscription = "{subscription}"' if _is_shared(building, name) else ""
    return f'[[devices]] kind = "{kind.value}", id = "{id_}"{whose}, {key}'


def _of_no_sentence(building: Building, about: tuple[str, ...], _rules: Rules) -> _Sentences:
    return _listed(building, about), ""


def _ambiguous_location(_building: Building, _about: tuple[str, ...], _rules: Rules) -> _Sentences:
    return (
        "its devices name more than one location, so nothing of the household leaves",
        "directory rows with user_id and location_id (moost-bridge buildings import)",
    )


def _ambiguous_meters(building: Building, about: tuple[str, ...], _rules: Rules) -> _Sentences:
    return (
        f"it has several meters, and those without a role count nowhere: {_listed(building, about)}",
        _table(building, about[0], 'role = "grid" (or "load", "sub", "ignore"), for each of them'),
    )


def _wrong_meter_sign(building: Building, about: tuple[str, ...], rules: Rules) -> _Sentences:
    what = "more flows out than can be, so its grid, excess, consumption and rate values are withheld"
    device = building.devices.get(about[0]) if about else None
    if device is None:
        return what, "the sign of a meter or a battery: [[devices]] sign, or meter_sign of the subscription"
    sign = sign_of(device, rules)
    if device.kind is Kind.BATTERY:
        mended = "discharge-positive" if sign > 0 else "charge-positive"
    else:
        mended = "export-positive" if sign > 0 else "import-positive"
    return f"{what}; the sign of {_named(building, about[0])} would explain it", _table(
        building, about[0], f'sign = "{mended}"'
    )


def _left_behind(_building: Building, _about: tuple[str, ...], _rules: Rules) -> _Sentences:
    return "all its devices live in another building now", "none: MOOST keeps the building until you delete it there"


def _unit_jump(building: Building, about: tuple[str, ...], _rules: Rules) -> _Sentences:
    return (
        f"powers over 100 times the largest so far are withheld: {_listed(building, about)}",
        _table(building, about[0], 'unit = "W" (or "kW" where they are right), or unit of the subscription'),
    )


def _waits_for_device(building: Building, about: tuple[str, ...], _rules: Rules) -> _Sentences:
    named = _listed(building, about)
    return (
        f"for over 6 hours values of the household have been withheld for want of one device: {named}",
        _table(building, about[0], 'role = "ignore", if it never will'),
    )


def _too_many(building: Building, about: tuple[str, ...], _rules: Rules) -> _Sentences:
    if about:
        return (
            f"more samples came than a quarter hour can hold, and were not kept: {_listed(building, about)}",
            "none: the device's vendor or a forwarder sends far too often, or the same again and again",
        )
    return (
        "it has all the devices that it may have, and the messages of further ones are dead letters",
        "limits.devices_per_building; or the forwarder sends one user id for everybody",
    )


def _counter_against_power(building: Building, about: tuple[str, ...], _rules: Rules) -> _Sentences:
    named = _listed(building, about)
    return (
        f"the counter shows over 1 kWh less than the power said, and what was sent is too much: {named}",
        _table(building, about[0], 'counter = "none", if the counter stands still, or unit, if the power is wrong'),
    )


_SENTENCES: Final[Mapping[str, Callable[[Building, tuple[str, ...], Rules], _Sentences]]] = {
    Flag.AMBIGUOUS_LOCATION: _ambiguous_location,
    Flag.AMBIGUOUS_METERS: _ambiguous_meters,
    Flag.WRONG_METER_SIGN: _wrong_meter_sign,
    Flag.LEFT_BEHIND: _left_behind,
    Flag.UNIT_JUMP: _unit_jump,
    Flag.WAITS_FOR_DEVICE: _waits_for_device,
    Flag.TOO_MANY: _too_many,
    Flag.COUNTER_AGAINST_POWER: _counter_against_power,
}

FLAGS: Final = tuple(sorted(_SENTENCES))
"""Every flag that a building can have."""
