"""What failed in the field, as it was sent: each test is a household of somebody who filed a bug somewhere (M0 to M6).

Messages are read by the real decoder, a second after they were stamped; time passes a quarter hour at a time.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bridge.core.effects import Event
from bridge.core.findings import finding
from bridge.core.messages import Tick, Tombstone, Unreadable
from bridge.core.model import Flag, Residence
from bridge.core.rules import MeterRule, Role, Rules
from bridge.core.vocabulary import Action, EventType, Kind
from bridge.source.decode import decode
from bridge.source.topics import Topic
from tests.core.house import House, events

DAY = datetime(2026, 6, 15, tzinfo=UTC)
STATIC = {"vendor": "ACME", "model": "One", "name": "Thing", "lastUpdated": "2026-01-02T10:00:00.000Z"}
QUARTER = timedelta(minutes=15)

Said = tuple[str, str, dict[str, Any]]  # topic, "HH:MM" of the first day or "+1 HH:MM", what is in the body


def when(clock: str) -> datetime:
    """Return the instant that a short text names."""
    days, _, time = clock.rpartition(" ")
    hours, minutes = time.split(":")
    return DAY + timedelta(days=int(days or 0), hours=int(hours), minutes=int(minutes))


def said(topic: str, clock: str, device: str, **blocks: Any) -> Said:  # noqa: ANN401 - whatever JSON holds
    """Return a message of a device; every block has the message's time."""
    stamp = f"{when(clock):%Y-%m-%dT%H:%M:%S}.000Z"
    body: dict[str, Any] = {"id": device, "userId": "user-1", "isOnline": True, "staticData": STATIC}
    for name, block in blocks.items():
        body[name] = {**block, "lastUpdated": stamp} if isinstance(block, dict) else block
    return topic, clock, {**body, "lastUpdated": stamp}


def play(house: House, messages: Sequence[Said], until: str) -> list[Event]:
    """Let a house hear messages in order of time, tick it up to an instant, and return all that left."""
    found: list[Event] = []
    waiting = sorted(messages, key=lambda one: when(one[1]))
    now = when(waiting[0][1]).replace(minute=0)
    while now <= when(until):
        while waiting and when(waiting[0][1]) < now:
            topic, clock, body = waiting.pop(0)
            kind, _, action = topic.partition(".")
            house.number += 1
            message = decode(
                Topic(subscription="sub-1", kind=Kind(kind), action=Action(action)),
                json.dumps(body).encode(),
                number=house.number,
                received=when(clock) + timedelta(seconds=1),
                rules=house.rules,
            )
            assert not isinstance(message, Tombstone | Unreadable)
            found += events(house.feed(message))
        found += events(house.feed(Tick(now=now + timedelta(minutes=2))))
        now += QUARTER
    return found


def of(found: Sequence[Event], type_: EventType, source: str = "GATEWAY") -> dict[str, float]:
    """Return the values of one type by the end of their slots."""
    return {
        f"{(event.at - DAY).days or ''} {event.at:%H:%M}".strip(): event.value
        for event in found
        if event.type is type_ and event.source == source
    }


def test_a_car_that_charges_far_away_and_stops_telling_where_it_is() -> None:
    home = {"geolocation": {"lat": 52.2799, "lon": 8.0472}}
    house = House(residence=Residence(user="user-1", location=None, building="b-1", attributes=home))
    charging = {"stateOfCharge": 50, "chargingState": "CHARGING", "chargeRate": 11.0}
    far = {"latitude": 48.1371, "longitude": 11.5754}
    found = play(
        house,
        [
            said("vehicle.update", "10:00", "car-1", chargeState=charging, location=far),
            said("vehicle.update", "10:05", "car-1", chargeState=charging, location=None),
            said("vehicle.update", "10:15", "car-1", chargeState=charging),
            said("vehicle.update", "10:45", "car-1", chargeState={**charging, "chargingState": "FINISHED"}),
        ],
        "12:00",
    )
    assert {EventType.STATE_OF_CHARGE_RATE} == {event.type for event in found}


@pytest.mark.parametrize("end", ["offline", "silence", "nulls"])
def test_an_inverter_whose_last_word_at_dusk_is_twelve_watts(end: str) -> None:
    """Not a quarter hour of the night and no day is missing; the sun is down, the house takes what the grid gives."""
    messages = []
    for day in (0, 1):
        for minute in range(0, 1440, 50):
            clock = f"{day} {minute // 60}:{minute % 60}"
            messages.append(said("meter.update", clock, "meter-1", powerState={"power": 0.4, "meterValue": None}))
        for clock, power in (("03:30", 0.1), ("04:20", 1.5), ("05:00", 2.0), ("18:00", 0.1), ("18:40", 0.012)):
            sun = {"solarPower": power, "state": "PRODUCING"}
            messages.append(said("pv-inverter.update", f"{day} {clock}", "pv-1", powerState=sun))
        for hour in range(6, 18):
            sun = {"solarPower": 2.0, "state": "PRODUCING"}
            messages.append(said("pv-inverter.update", f"{day} {hour}:00", "pv-1", powerState=sun))
        if end == "offline":
            messages.append(said("pv-inverter.offline", f"{day} 19:00", "pv-1"))
        elif end == "nulls":
            nulls = {"solarPower": None, "state": None}
            messages.append(said("pv-inverter.update", f"{day} 19:00", "pv-1", powerState=nulls))
    found = play(House(Rules(default_time_zone="UTC")), messages, "2 00:00")
    consumption = of(found, EventType.ENERGY_CONSUMPTION)
    night = [consumption[f"{(DAY + n * QUARTER):%H:%M}"] for n in range(80, 96)]
    assert {100.0} == set(night)
    assert 2 * 96 - 14 <= len(consumption)
    assert {"2 00:00"} <= of(found, EventType.ENERGY_GENERATION_YESTERDAY).keys()
    assert {"2 00:00"} <= of(found, EventType.ENERGY_CONSUMPTION_YESTERDAY).keys()


def test_a_meter_with_the_wrong_sign_is_named_with_the_setting() -> None:
    messages = []
    for clock in ("11:00", "11:40", "12:20"):
        messages.append(said("pv-inverter.update", clock, "pv-9", powerState={"solarPower": 3.0, "state": "PRODUCING"}))
        messages.append(said("meter.update", clock, "meter-9", powerState={"power": -5.0, "meterValue": None}))
    house = House()
    found = play(house, messages, "13:00")
    assert {EventType.POWER_GENERATION, EventType.ENERGY_GENERATION} == {event.type for event in found}
    assert (Flag.WRONG_METER_SIGN,) == house.state.flags
    told = finding(house.state, Flag.WRONG_METER_SIGN, house.rules)
    assert 'kind = "meter", id = "meter-9", sign = "export-positive"' in told.setting


@pytest.mark.parametrize("ignored", [False, True])
def test_an_account_that_lists_a_box_which_never_produces(*, ignored: bool) -> None:
    box = {(Kind.PV_INVERTER, "gateway-box"): MeterRule(role=Role.IGNORE)}
    house = House(Rules(devices=box if ignored else {}))
    nulls = {"solarPower": None, "state": None}
    messages = [said("pv-inverter.connect", "06:00", "gateway-box", powerState=nulls)]
    for hour in range(6, 14):
        sun = {"solarPower": 1.0, "state": "PRODUCING"}
        messages.append(said("pv-inverter.update", f"{hour}:05", "pv-1", powerState=sun))
        messages.append(said("meter.update", f"{hour}:05", "meter-1", powerState={"power": -0.5, "meterValue": None}))
    found = play(house, messages, "14:00")
    assert ignored == (EventType.ENERGY_GENERATION in {event.type for event in found})
    assert (() if ignored else (Flag.WAITS_FOR_DEVICE,)) == house.state.flags
    if not ignored:
        told = finding(house.state, Flag.WAITS_FOR_DEVICE, house.rules)
        assert "gateway-box" in told.problem
        assert 'role = "ignore"' in told.setting


def test_a_reader_that_quotes_every_value() -> None:
    charge = {"stateOfCharge": "72.25", "chargingState": "UNPLUGGED", "chargeRate": None}
    offline = said("vehicle.update", "10:00", "car-2", chargeState={**charge, "stateOfCharge": 55})
    offline[2]["isOnline"] = "false"
    messages = [
        said("vehicle.update", "10:00", "car-1", chargeState=charge),
        said("meter.update", "10:00", "meter-1", powerState={"power": "0.400", "meterValue": None}),
        said("meter.update", "10:30", "meter-1", powerState={"power": "0.400", "meterValue": None}),
        offline,
    ]
    found = play(House(), messages, "11:15")
    assert [72.25] == [event.value for event in found if event.type is EventType.STATE_OF_CHARGE_RATE]
    assert {"10:15": 100.0, "10:30": 100.0, "10:45": 100.0, "11:00": 100.0, "11:15": 100.0} == (
        of(found, EventType.GRID_ENERGY_CONSUMPTION)
    )


def test_a_vendor_that_changes_from_kilowatts_to_watts() -> None:
    messages = []
    for minute in range(0, 120, 10):
        clock = f"{11 + minute // 60}:{minute % 60}"
        power = 0.531 if minute < 30 else 531
        messages.append(
            said("pv-inverter.update", clock, "pv-1", powerState={"solarPower": power, "state": "PRODUCING"})
        )
        messages.append(said("meter.update", clock, "meter-1", powerState={"power": -0.2, "meterValue": None}))
    house = House()
    found = play(house, messages, "13:00")
    assert {"11:15": 132.75, "11:30": 132.75} == of(found, EventType.ENERGY_GENERATION)
    assert {"11:15": 82.75, "11:30": 82.75} == of(found, EventType.ENERGY_CONSUMPTION)
    assert (Flag.UNIT_JUMP,) == house.state.flags
