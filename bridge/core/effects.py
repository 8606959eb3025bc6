"""Everything the bridge can want done: what the core writes.

Rules:
- An effect is a whole state (building, device list, tariff: a newer one replaces an unsent older one) or events
  (never merged once queued).
- Values are W, Wh, %, °C or codes, finite, rounded to 3 decimals; times are aware UTC datetimes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from bridge.core.vocabulary import DeadReason, DeviceType, EventType

Attributes = Mapping[str, object]
"""MOOST building attributes in MOOST's spelling (zip, city, countryCode, timeZoneId, geolocation, userIds, …)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateBuilding:
    """POST /buildings/v1; 409 means done."""

    building: str
    attributes: Attributes


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeBuilding:
    """GET, change these attributes only, PUT; 404 on the GET: POST `create` instead (mapping rules M1.5, M6.3).

    `removed` are attributes that the building loses (M8.3). `tariff` is left alone unless `tariff_set`; None then
    removes `settings.tariff`.
    """

    building: str
    attributes: Attributes = field(default_factory=dict)
    removed: tuple[str, ...] = ()
    create: Attributes = field(default_factory=dict)
    tariff: Attributes | None = None
    tariff_set: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceEntry:
    """One device of the list; `id` is MOOST's deviceId."""

    id: str
    type: DeviceType
    name: str
    product_name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PutDevices:
    """PUT /buildings/{id}/devices/v1 with the complete list."""

    building: str
    devices: tuple[DeviceEntry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One MOOST event without the customer id, which only `sink` knows."""

    device: str  # MOOST's deviceId
    name: str
    source: DeviceType
    type: EventType
    value: float
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SendEvents:
    """Events of one building, in order; the lane is chosen at each attempt by their age."""

    building: str
    events: tuple[Event, ...]
    replay: bool = False  # always the historical lane


Call = CreateBuilding | ChangeBuilding | PutDevices | SendEvents
"""What is owed to MOOST."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something unusual: counted by `name`, and kept with the message for `explain` where there is a detail."""

    name: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bury:
    """Take the message out of the flow as a dead letter."""

    reason: DeadReason
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Park:
    """Keep the message until the directory knows its user (mapping rule M1.1)."""

    user: str


Effect = Call | Note | Bury | Park
