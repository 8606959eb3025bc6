"""Small values that the tests of the keepers share."""

from datetime import UTC, datetime, timedelta

from bridge.core.effects import Attributes, ChangeBuilding, CreateBuilding, DeviceEntry, Event, PutDevices, SendEvents
from bridge.core.model import Building
from bridge.core.vocabulary import DeadReason, DeviceType, EventType
from bridge.store.port import Arrival, Attempt, Burial, Doubt, Outgoing, Versioned

NOW = datetime(2026, 5, 4, 12, 0, 0, 123_000, tzinfo=UTC)
SECOND = timedelta(seconds=1)
HOLD = timedelta(seconds=30)
DAY = timedelta(days=1)


def arrival(body: bytes = b"{}", *, message_id: str | None = None, position: int = 0, at: datetime = NOW) -> Arrival:
    return Arrival(
        subscription="sub-1",
        topic="sub-1.vehicle.update",
        body=body,
        received=at,
        message_id=message_id,
        position=position,
    )


def stillborn(body: bytes = b"{") -> Arrival:
    return Arrival(
        subscription="sub-1",
        topic="sub-1.nonsense",
        body=body,
        received=NOW,
        dead=DeadReason.UNREADABLE,
        detail="not JSON",
    )


def event(value: float = 1.0) -> Event:
    return Event(
        device="vehicle_1",
        name="Car",
        source=DeviceType.CAR,
        type=EventType.STATE_OF_CHARGE_RATE,
        value=value,
        at=NOW,
    )


def events(building: str, *values: float) -> SendEvents:
    return SendEvents(building=building, events=tuple(event(value) for value in values))


def create(building: str, city: str = "Bern") -> CreateBuilding:
    return CreateBuilding(building=building, attributes={"city": city})


def change(building: str, **attributes: object) -> ChangeBuilding:
    return ChangeBuilding(building=building, attributes=attributes)


def tariff(building: str, wanted: Attributes | None) -> ChangeBuilding:
    return ChangeBuilding(building=building, tariff=wanted, tariff_set=True)


def devices(building: str, *names: str) -> PutDevices:
    entries = [DeviceEntry(id=name, type=DeviceType.CAR, name=name) for name in names]
    return PutDevices(building=building, devices=tuple(entries))


def out(*calls: CreateBuilding | ChangeBuilding | PutDevices | SendEvents, cause: int = 0) -> list[Outgoing]:
    return [Outgoing(call=call, cause=cause) for call in calls]


def house(building: str, version: int = 0, *, flags: tuple[str, ...] = ()) -> Versioned:
    return Versioned(state=Building(id=building, created=True, flags=flags), version=version)


def said(outcome: str = "201") -> Attempt:
    return Attempt(at=NOW, outcome=outcome, detail="…")


def doubt(payload: bytes = b'{"a":1}') -> Doubt:
    return Doubt(payload=payload, historical=False, count=1)


def burial(reason: DeadReason = DeadReason.REJECTED) -> Burial:
    return Burial(reason=reason, detail="HTTP 400", answer='{"error":"no"}')
