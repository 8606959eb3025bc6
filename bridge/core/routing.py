"""Which building a message belongs to (mapping rule M1.1, M1.2, M1.6).

Rules:
- The directory row for (user, location), else the row for the user alone, else the setting `buildings.unknown`.
- A vehicle and any message without a location belong to the user's building.
- Where a device lives already, only connect and update can move it, or an offline or disconnect that names a location.
- A message that names no user belongs where its device lives; where that is unknown too it is unreadable.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bridge.core.effects import Bury, Note, Park
from bridge.core.identity import building_id
from bridge.core.messages import Command, Inbound, Prices, Report
from bridge.core.model import Residence
from bridge.core.rules import Rules, Unknown
from bridge.core.vocabulary import Action, DeadReason, DeviceKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The building a message belongs to, and its directory row where there is one."""

    building: str
    residence: Residence | None = None


def device_of(message: Inbound) -> DeviceKey:
    """Return the device a message is about."""
    id_ = message.device if isinstance(message, Command) else message.id
    return DeviceKey(message.subscription, message.kind, id_)


def location_of(message: Inbound) -> str | None:
    """Return the location a message names."""
    return message.location if isinstance(message, Report | Prices) else None


def residence(rows: Sequence[Residence], location: str | None) -> Residence | None:
    """Return the directory row of one user that counts for a location."""
    if not rows:
        return None
    by_location = {row.location: row for row in rows}
    if location is not None:
        return by_location.get(location) or by_location.get(None)
    if None in by_location:
        return by_location[None]
    return min(rows, key=lambda row: row.building, default=None)


def home_of(building: str, rows: Sequence[Residence]) -> Place:
    """Return the place where a device lives; `rows` are the directory rows of its owner."""
    residence = next((row for row in rows if row.building == building), None) if rows else None
    return Place(building=building, residence=residence)


def place(message: Inbound, rows: Sequence[Residence], home: Place | None, rules: Rules) -> Place | Park | Bury | Note:
    """Return where a message belongs; a `Note` where it is settled without effect.

    `rows` are the directory rows of its user, `home` is where its device lives so far.
    """
    if home is not None and _stays(message):
        return home
    if message.user is None:
        return Bury(reason=DeadReason.UNREADABLE, detail="the message names no user and its device is not known")
    row = residence(rows, location_of(message))
    if row is not None:
        return Place(building=row.building, residence=row)
    if rules.unknown is Unknown.CREATE:
        return Place(building=building_id(message.user))
    if isinstance(message, Command):
        return Note(name="unknown_device_ignored")  # without effect in any case
    return Park(user=message.user)  # a delete too: what it deletes may be parked before it


def _stays(message: Inbound) -> bool:
    """Tell whether a message is about its device where that lives, whatever it says of user and location."""
    if message.user is None or not isinstance(message, Report):
        return True
    if message.action is Action.DELETE:
        return True
    return message.action in {Action.OFFLINE, Action.DISCONNECT} and message.location is None
