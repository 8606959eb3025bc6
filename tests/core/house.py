"""One building that hears messages as the device cloud sends them, and answers with what it wants done.

Messages are JSON read by the real decoder. Times are "10:05" of one day, UTC.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from bridge.core.effects import Effect, Event, Note, PutDevices, SendEvents
from bridge.core.messages import Inbound, Message, Quantity, Tombstone, Unreadable, Value
from bridge.core.model import Building, Device, Residence
from bridge.core.reduce import reduce
from bridge.core.rules import Rules
from bridge.core.vocabulary import DeviceKey, Kind
from bridge.source.decode import decode
from bridge.source.topics import Topic, parse

DAY: Final = "2026-06-15"
NOON: Final = "12:00"  # when messages are accepted, unless said otherwise

BLOCKS: Final[Mapping[str, Mapping[str, Mapping[str, object]]]] = {
    "vehicle": {"chargeState": {"stateOfCharge": 50, "chargingState": "CHARGING", "chargeRate": 7}},
    "charger": {"chargeState": {"isPlugged": True, "chargingState": "CHARGING", "chargeRate": 7}},
    "battery": {"chargeState": {"stateOfCharge": 50, "chargingState": "CHARGING", "chargeRate": 2, "mode": "AUTO"}},
    "pv-inverter": {"powerState": {"solarPower": 4, "state": "PRODUCING"}},
    "meter": {"powerState": {"power": 1, "meterValue": 100}},
    "hvac": {
        "powerState": {"powerConsumption": 1},
        "climateState": {"isActive": True, "mode": "HEAT", "temperatureCurrent": 21},
    },
    "tariff": {},
}
"""A kind's blocks with something in every field that is read."""

STATIC: Final[Mapping[str, Mapping[str, object]]] = {
    "hvac": {"type": "HEATPUMP"},
    "tariff": {"currency": "EUR"},
    "vehicle": {"engineType": "BEV", "vin": "WVWZZZE1ZMP000001"},
}


def at(clock: str) -> datetime:
    """Return the instant that a short text names."""
    return datetime.fromisoformat(f"{DAY}T{clock}Z")


def iso(clock: str) -> str:
    """Return the same as the device cloud spells it."""
    return f"{DAY}T{clock}:00.000Z"


def body(kind: str, clock: str = "10:00", /, **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever JSON holds
    """Return a device's full model at a time.

    A changed field that is a dict is merged into its block; anything else replaces.
    """
    found: dict[str, Any] = {"id": "d-1", "userId": "user-1", "isOnline": True, "lastUpdated": iso(clock)}
    if kind == "tariff":
        del found["lastUpdated"]  # it has none
    static = {"vendor": "ACME", "model": "One", "name": "Thing", "lastUpdated": iso("08:00"), **STATIC.get(kind, {})}
    found["staticData"] = static
    for name, block in BLOCKS[kind].items():
        found[name] = {**block, "lastUpdated": iso(clock)}
    for name, value in changes.items():
        found[name] = {**found.get(name, {}), **value} if isinstance(value, dict) else value
    return found


def prices(*entries: tuple[str, object], **changes: object) -> dict[str, Any]:
    """Return a price message; entries are (start, total price)."""
    listed = [{"startDate": iso(clock), "totalPrice": price} for clock, price in entries]
    return {"id": "d-1", "userId": "user-1", "locationId": None, "prices": listed, **changes}


def read(
    topic: str,
    content: object,
    *,
    number: int = 1,
    received: str = NOON,
    rules: Rules | None = None,
    subscription: str = "sub-1",
) -> Inbound | Tombstone | Unreadable:
    """Return what a message says; `topic` is without the subscription, content is JSON or raw bytes."""
    name = parse(f"{subscription}.{topic}")
    assert isinstance(name, Topic)
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return decode(name, raw, number=number, received=at(received), rules=rules or Rules())


def own(kind: Kind, device: str = "d-1") -> DeviceKey:
    """Return a device of the subscription that all messages here are of."""
    return DeviceKey("sub-1", kind, device)


class House:
    """One building; `state` is what it remembers, `effects` all that it ever wanted done."""

    def __init__(self, rules: Rules | None = None, residence: Residence | None = None, *, name: str = "user-1") -> None:
        self.rules = rules or Rules()
        self.residence = residence
        self.state = Building(id=name)
        self.effects: list[Effect] = []
        self.number = 0

    def hear(
        self, topic: str, content: object, received: str = NOON, *, subscription: str = "sub-1"
    ) -> tuple[Effect, ...]:
        """Decode and reduce one message; return its effects."""
        self.number += 1
        message = read(
            topic, content, number=self.number, received=received, rules=self.rules, subscription=subscription
        )
        assert not isinstance(message, Tombstone | Unreadable)
        return self.feed(message)

    def feed(self, message: Message) -> tuple[Effect, ...]:
        """Reduce one message; return its effects."""
        self.state, effects = reduce(self.state, message, self.rules, self.residence)
        self.effects += effects
        return effects

    def device(self, name: str) -> Device:
        """Return a device of "sub-1" by "<kind>:<id>"."""
        return self.state.devices[f"sub-1/{name}"]

    def series(self, name: str, quantity: Quantity) -> list[tuple[datetime, Value | None]]:
        """Return the samples of a series as (time, value)."""
        return [(sample.at, sample.value) for sample in self.device(name).series.get(quantity, ())]


def calls(effects: tuple[Effect, ...]) -> tuple[Effect, ...]:
    """Return effects without the notes."""
    return tuple(effect for effect in effects if not isinstance(effect, Note))


def events(effects: tuple[Effect, ...]) -> tuple[Event, ...]:
    """Return the events among effects."""
    return tuple(event for effect in effects if isinstance(effect, SendEvents) for event in effect.events)


def notes(effects: tuple[Effect, ...]) -> list[str]:
    """Return the names of the notes among effects."""
    return [effect.name for effect in effects if isinstance(effect, Note)]


def listed(effects: tuple[Effect, ...]) -> list[list[str]]:
    """Return the ids of each device list among effects."""
    return [[entry.id for entry in effect.devices] for effect in effects if isinstance(effect, PutDevices)]


def without_places(building: Building) -> Building:
    """Return a state without what tells in which order and how often messages were accepted."""
    devices = {
        name: replace(
            device,
            series={
                quantity: tuple(sample._replace(number=0) for sample in samples)
                for quantity, samples in device.series.items()
            },
        )
        for name, device in sorted(building.devices.items())
    }
    return replace(building, devices=devices, last_received=None, last_stamp=None, backlog=None)
