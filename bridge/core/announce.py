"""What MOOST must hear of a building as a whole: itself, its device list, its tariff (M1.4, M1.5, M2, M6.3).

Rules:
- The building before and after a message is compared; what MOOST knows already is not said again.
- Order: building, device list, tariff.
- The state keeps fingerprints of what was said, never addresses or coordinates (M0.8).
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Final

from bridge.core import tariffs
from bridge.core.copying import replace
from bridge.core.days import on_calendar
from bridge.core.devices import device_list, entry_of
from bridge.core.effects import Attributes, ChangeBuilding, CreateBuilding, DeviceEntry, Effect, PutDevices
from bridge.core.findings import marked
from bridge.core.identity import moost_user
from bridge.core.messages import Message, Moved, Prices, Readdressed, Report, Tick
from bridge.core.model import Building, Device, Flag, Residence, name_of
from bridge.core.rules import Rules, Unknown
from bridge.core.tracks import is_ignored
from bridge.core.vocabulary import Action, Kind

_DEFAULTED: Final = frozenset({"countryCode", "timeZoneId"})  # what a building is told where no row says it
MOST_APART: Final = 100  # times in the open slots in which the devices of a building named two places
CREATING: Final = frozenset({Action.CONNECT, Action.UPDATE, Action.OFFLINE, Action.DISCONNECT})
CREATING_TARIFF: Final = frozenset({Action.CONNECT, Action.UPDATE})  # and price.update, which is no report


Period = tuple[datetime, datetime | None]
"""From, and until; None = still."""


def announce(
    before: Building, after: Building, message: Message, rules: Rules, residence: Residence | None
) -> tuple[Building, tuple[Effect, ...]]:
    """Return the building and the calls about it as a whole: itself, its device list, its tariff."""
    if isinstance(message, Report | Prices | Readdressed):
        after = _placed(after, message, rules, residence)
    news = _tells_anew(before, after)
    if news or isinstance(message, Readdressed):
        after = _without_who_left(before, after, message, rules, residence)
    now = message.now if isinstance(message, Tick) else message.received
    if news or after.flags or after.known != before.known:
        after = _doubted(after, rules, message.stamp if isinstance(message, Report | Moved) else now)
    calls: list[Effect] = []
    if not after.created:
        if not _creates(after, message):
            return after, ()
        after, calls = _created(after, rules, residence)
    else:
        if isinstance(message, Readdressed) or after.users != before.users or after.known != before.known:
            after, calls = _changed(
                after, rules, residence, now, whole=isinstance(message, Readdressed) and message.whole
            )
        if news and _lists_differently(before, after):
            calls.append(PutDevices(building=after.id, devices=device_list(after.id, after.devices.values())))
    if after.prices is not before.prices or _tariffs_differ(before, after):
        after, changes = _tariff_change(before, after, rules, residence, now)
        calls += changes
    return after, tuple(calls)


def _creates(building: Building, message: Message) -> bool:
    """Tell whether a message makes MOOST hear of the building (M1.4)."""
    if isinstance(message, Prices):
        return name_of(message) in building.prices
    if not isinstance(message, Report) or name_of(message) not in building.devices:
        return False
    return message.action in (CREATING_TARIFF if message.kind is Kind.TARIFF else CREATING)


def _placed(
    building: Building, message: Report | Prices | Readdressed, rules: Rules, residence: Residence | None
) -> Building:
    """Return the building with what the directory and the message say of it: users, time zone."""
    users = building.users
    raw_user = None if isinstance(message, Readdressed) else message.raw_user
    if raw_user is not None and raw_user not in users and len(users) < rules.devices_per_building:  # (R13)
        users = (*users, *moost_user(raw_user))
    zone = residence.attributes.get("timeZoneId") if residence is not None else None
    time_zone = zone if isinstance(zone, str) else rules.default_time_zone
    known = residence is not None
    if (users, known, time_zone) == (building.users, building.known, building.time_zone):
        return building
    return replace(on_calendar(building, time_zone), users=users, known=known)


def _without_who_left(
    before: Building, after: Building, message: Message, rules: Rules, residence: Residence | None
) -> Building:
    """Return a building of several users without those who have neither a row nor a device there any more (M8.3)."""
    gone: set[str] = set()
    if isinstance(message, Readdressed) and message.left is not None:
        gone = {message.left.removeprefix(each.user_prefix) for each in rules.subscriptions.values()} | {message.left}
    elif residence is None and before.devices.keys() - after.devices.keys():
        gone = {_raw_user(device, rules) for name, device in before.devices.items() if name not in after.devices}
    gone &= set(after.users)
    if not gone:
        return after
    left = gone - {_raw_user(device, rules) for device in after.devices.values()}
    users = tuple(user for user in after.users if user not in left)
    return replace(after, users=users) if users and users != after.users else after


def _raw_user(device: Device, rules: Rules) -> str:
    """Return how the device cloud spells the user of a device."""
    return device.user.removeprefix(rules.subscription(device.subscription).user_prefix)


def _doubted(building: Building, rules: Rules, at: datetime) -> Building:
    """Return the building with the flags that say whether its devices belong together (M1.3) and are here (M1.6).

    `at` is when they began or ceased to: what comes later changes nothing of a slot that ended before (M5.11).
    """
    places = {
        device.location
        for device in building.devices.values()
        if device.location is not None
        and device.kind is not Kind.TARIFF  # a contract is no device
        and not is_ignored(device, rules)
    }
    ambiguous = not building.known and rules.unknown is Unknown.CREATE and len(places) > 1
    if building.known and building.apart:
        building = replace(building, apart=())  # the directory makes an end of it all
    elif ambiguous is not (Flag.AMBIGUOUS_LOCATION in building.flags):
        *earlier, last = (*building.apart, (at, None)) if ambiguous else building.apart
        building = replace(building, apart=_few(*earlier, last if ambiguous else (last[0], at)))
    building = marked(building, Flag.AMBIGUOUS_LOCATION, on=ambiguous)
    return marked(building, Flag.LEFT_BEHIND, on=False) if building.devices else building


def _few(*apart: Period) -> tuple[Period, ...]:
    """Return times apart, of which a building holds some: of too many the first two become one."""
    if len(apart) <= MOST_APART:
        return apart
    (since, _), (_, until), *others = apart
    return ((since, until), *others)


def _created(building: Building, rules: Rules, residence: Residence | None) -> tuple[Building, list[Effect]]:
    """Return a building that MOOST hears of for the first time, with its device list."""
    sheet = _sheet(building, rules, residence)
    return replace(building, created=True, sheet=_fingerprints(sheet)), [
        CreateBuilding(building=building.id, attributes=_wire_sheet(sheet)),
        PutDevices(building=building.id, devices=device_list(building.id, building.devices.values())),
    ]


def _tells_anew(before: Building, after: Building) -> bool:
    """Tell whether a device has joined, left or said something new of itself; almost always none has.

    Devices that are the same object are not looked into: that would bring the whole building into the processor's
    cache.
    """
    old, new = before.devices, after.devices
    return old is not new and (
        old.keys() != new.keys()
        or any(device is not old[name] and _differ(old[name], device) for name, device in new.items())
    )


def _differ(one: Device, other: Device) -> bool:
    """Tell whether two states of a device may be listed or placed differently."""
    return one.facts is not other.facts or one.location != other.location


def _lists_differently(before: Building, after: Building) -> bool:
    """Tell whether the device list has changed; only the devices that have changed are looked into."""
    old, new = before.devices, after.devices
    changed = [name for name, device in new.items() if old.get(name) is not device]
    changed += [name for name in old if name not in new]
    was, now = (sorted(_entries(devices, changed), key=repr) for devices in (old, new))
    return was != now


def _entries(devices: Mapping[str, Device], names: Iterable[str]) -> Iterator[DeviceEntry]:
    """Yield how some devices are listed."""
    for name in names:
        entry = entry_of(devices[name]) if name in devices else None
        if entry is not None:
            yield entry


def _tariffs_differ(before: Building, after: Building) -> bool:
    """Tell whether another tariff or currency can count now; without prices none does."""
    old, new = before.devices, after.devices
    if not before.prices or old is new:
        return False
    return any(
        _another_tariff(other.get(name), device)
        for devices, other in ((new, old), (old, new))
        for name, device in devices.items()
        if device.kind is Kind.TARIFF
    )


def _another_tariff(other: Device | None, tariff: Device) -> bool:
    """Tell whether a tariff has come or gone, or says something new of itself."""
    return other is None or other.facts is not tariff.facts


def _sheet(building: Building, rules: Rules, residence: Residence | None) -> Attributes:
    """Return MOOST's attributes of a building (M1.5); the directory's tariff is under "tariff"."""
    attributes: dict[str, object] = {
        "countryCode": rules.default_country,
        "timeZoneId": rules.default_time_zone,
        **(residence.attributes if residence is not None else {}),
    }
    if building.users:
        attributes["userIds"] = list(building.users)
    return attributes


def _wire_sheet(sheet: Attributes) -> Attributes:
    """Return attributes as MOOST's building carries them."""
    attributes = {name: value for name, value in sheet.items() if name != "tariff"}
    return {**attributes, "settings": {"tariff": sheet["tariff"]}} if "tariff" in sheet else attributes


def _fingerprints(sheet: Attributes) -> dict[str, str]:
    """Return what was said of each attribute, unreadable: addresses and coordinates stay out of the state (M0.8)."""
    return {
        name: hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
        for name, value in sheet.items()
    }


def _changed(
    building: Building, rules: Rules, residence: Residence | None, now: datetime, *, whole: bool
) -> tuple[Building, list[Effect]]:
    """Return the change of building attributes that the directory or a new user asks for (M1.5).

    `whole` = `residence` is all that the directory says: what it said before and does not any more goes (M8.3).
    """
    sheet = _sheet(building, rules, residence)
    said = set(residence.attributes) if residence is not None else set[str]()
    gone = building.sheet.keys() - sheet.keys() if whole and residence is not None else set[str]()
    own = {"userIds", *said, *(_DEFAULTED & building.sheet.keys() if whole and residence is not None else ())}
    prints = _fingerprints({name: value for name, value in sheet.items() if name in own})
    different = {name for name, value in prints.items() if building.sheet.get(name) != value}
    attributes = {name: sheet[name] for name in sorted(different - {"tariff"})}
    tariff_set = "tariff" in different | gone and tariffs.desired(building, now) is None
    kept = {name: value for name, value in building.sheet.items() if name not in gone}
    building = replace(building, sheet={**kept, **prints}, tariff=None if tariff_set else building.tariff)
    removed = tuple(sorted(gone - {"tariff"}))
    if not attributes and not removed and not tariff_set:
        return building, []
    change = _change(
        building,
        sheet,
        attributes=attributes,
        tariff=sheet.get("tariff") if tariff_set else None,
        tariff_set=tariff_set,
    )
    return building, [replace(change, removed=removed)]


def _change(
    building: Building, sheet: Attributes, *, attributes: Attributes, tariff: object, tariff_set: bool
) -> ChangeBuilding:
    """Return a GET-change-PUT of some attributes."""
    return ChangeBuilding(
        building=building.id,
        attributes=attributes,
        create=_wire_sheet(sheet),
        tariff=tariff if isinstance(tariff, Mapping) else None,
        tariff_set=tariff_set,
    )


def _tariff_change(
    before: Building, after: Building, rules: Rules, residence: Residence | None, now: datetime
) -> tuple[Building, list[Effect]]:
    """Return the change of `settings.tariff` that prices, a currency or a deleted tariff ask for (M6.2, M6.3)."""
    wanted = tariffs.desired(after, now)
    told = (wanted.tariff, wanted.currency) if wanted is not None else None
    if told is None:
        if not tariffs.is_gone(after):
            return after, []
    elif told == after.tariff and wanted == tariffs.desired(before, now):
        return after, []
    sheet = _sheet(after, rules, residence)
    tariff = tariffs.as_moost(wanted) if wanted is not None else sheet.get("tariff")
    return replace(after, tariff=told), [_change(after, sheet, attributes={}, tariff=tariff, tariff_set=True)]
