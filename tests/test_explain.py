"""What made one value: its samples, their messages, and what became of it."""

from datetime import datetime, timedelta
from typing import Any, Final

import pytest

from bridge.core.rules import Rules, Stamp
from bridge.core.vocabulary import DeviceKey, EventType, Kind
from bridge.replay import Question, explain_device, explain_value
from bridge.store.memory import MemoryStore
from tests.core.house import own
from tests.past import MINUTE, START, Past, car, device, inverter, meter

pytestmark = pytest.mark.anyio

CAR: Final = own(Kind.VEHICLE, "car-1")

SLOT_END = START + 15 * MINUTE


@pytest.fixture
async def past() -> Past:
    """Return an evening of one household: production, grid and a car, delivered."""
    past = Past(MemoryStore())
    await past.hear("meter.update", meter(past.now, -1.0))  # 1
    await past.hear("pv-inverter.update", inverter(past.now, 2.0))  # 2
    await past.hear("vehicle.update", car(past.now, 40))  # 3
    await past.live(5)
    await past.hear("meter.update", meter(past.now, -0.5))  # 4
    await past.live(15)
    await past.deliver()
    return past


async def ask(past: Past, type_: EventType, at: datetime, kind: DeviceKey | None = None) -> list[dict[str, Any]]:
    return await explain_value(past.store, past.rules, Question(building="user-1", type=type_, at=at, device=kind))


async def test_a_household_value_names_its_samples_their_messages_and_its_calls(past: Past) -> None:
    (shown,) = [one for one in await ask(past, EventType.ENERGY_CONSUMPTION, SLOT_END) if one["source"] == "GATEWAY"]
    assert 2_000 / 4 - 1_000 / 12 - 500 / 6 == pytest.approx(shown["value"], abs=0.001)
    assert shown["value"] == shown["sent"]
    assert (START, SLOT_END) == (shown["start"], shown["end"])
    assert "production + grid import - grid export" in shown["formula"]
    assert (900.0, 810.0) == (shown["known_seconds"], shown["needed_seconds"])
    parts = {one["device"]: one for one in shown["devices"]}
    assert {"meter:m-1", "pv-inverter:pv-1"} == parts.keys()
    assert "grid meter, import is positive" == parts["meter:m-1"]["role"]
    assert [(START, -1_000.0, 1, START), (START + 5 * MINUTE, -500.0, 4, START + 5 * MINUTE)] == [
        (one["at"], one["value"], one["message"], one["received"]) for one in parts["meter:m-1"]["samples"]
    ]
    assert [(START, START + 5 * MINUTE, -1_000.0), (START + 5 * MINUTE, SLOT_END, -500.0)] == [
        (one["from"], one["to"], one["value"]) for one in parts["meter:m-1"]["known"]
    ]
    assert ["delivered"] == [call["state"] for call in shown["calls"]]
    assert shown["reason"] is None


async def test_a_time_within_the_interval_finds_its_value(past: Past) -> None:
    exact = await ask(past, EventType.ENERGY_GENERATION, SLOT_END)
    within = await ask(past, EventType.ENERGY_GENERATION, START + 7 * MINUTE)
    assert exact == within
    assert 500.0 == within[0]["value"]


async def test_a_value_that_did_not_leave_says_what_was_missing() -> None:
    past = Past(MemoryStore())
    past.now += 5 * MINUTE
    await past.hear("meter.update", meter(past.now, 1.0))
    await past.live(20)
    (shown,) = await ask(past, EventType.GRID_ENERGY_CONSUMPTION, SLOT_END)
    assert (None, None) == (shown["value"], shown["sent"])
    assert "it did not leave: what it needs was known for 600 s, 810 s are needed" == shown["reason"]
    assert [] == shown["calls"]


@pytest.mark.parametrize("stamp", list(Stamp))
async def test_a_time_on_a_boundary_means_one_quarter_hour_and_not_parts_of_two(stamp: Stamp) -> None:
    past = Past(MemoryStore(), Rules(stamp=stamp))
    past.now += 2 * MINUTE
    await past.hear("meter.update", meter(past.now, 0.5))
    await past.live(35)
    await past.deliver()
    (shown,) = await ask(past, EventType.GRID_ENERGY_CONSUMPTION, SLOT_END)
    if stamp is Stamp.END:  # the event of that time is that of the quarter hour before, which did not leave
        assert (None, None, []) == (shown["value"], shown["sent"], shown["calls"])
        assert (780.0, START, SLOT_END) == (shown["known_seconds"], shown["start"], shown["end"])
        assert "it did not leave: what it needs was known for 780 s, 810 s are needed" == shown["reason"]
    else:
        assert (125.0, 125.0) == (shown["value"], shown["sent"])
        assert (900.0, SLOT_END, SLOT_END + 15 * MINUTE) == (shown["known_seconds"], shown["start"], shown["end"])
        assert shown["reason"] is None
    (within,) = await ask(past, EventType.GRID_ENERGY_CONSUMPTION, START + 3 * MINUTE)
    assert (None, 780.0, START) == (within["sent"], within["known_seconds"], within["start"])


@pytest.mark.parametrize("stamp", list(Stamp))
async def test_a_time_in_the_middle_of_a_half_hour_means_that_half_hour(stamp: Stamp) -> None:
    past = Past(MemoryStore(), Rules(stamp=stamp))
    await past.hear("meter.update", meter(past.now, -0.5))
    await past.hear("pv-inverter.update", inverter(past.now, 2.0))
    await past.live(65)
    found = [await ask(past, EventType.ENERGY_EXCESS, START + minutes * MINUTE) for minutes in (7, 15, 22)]
    assert [[(START, START + 30 * MINUTE, 250.0)]] * 3 == [
        [(one["start"], one["end"], one["sent"]) for one in some] for some in found
    ]
    assert [1_800.0] * 3 == [some[0]["known_seconds"] for some in found]


async def test_what_did_not_leave_is_held_against_the_length_of_its_own_interval() -> None:
    past = Past(MemoryStore())
    past.now += 10 * MINUTE
    await past.hear("meter.update", meter(past.now, -0.5))
    await past.hear("pv-inverter.update", inverter(past.now, 2.0))
    await past.live(35)
    (half,) = await ask(past, EventType.ENERGY_EXCESS, START + 30 * MINUTE)
    assert (START, START + 30 * MINUTE) == (half["start"], half["end"])
    assert (None, 1_200.0, 1_620.0) == (half["sent"], half["known_seconds"], half["needed_seconds"])
    past.now = START.replace(hour=22) - MINUTE
    await past.live(60)
    (day,) = await ask(past, EventType.ENERGY_GENERATION_YESTERDAY, START.replace(hour=22))
    assert (START.replace(hour=22) - timedelta(days=1), START.replace(hour=22)) == (day["start"], day["end"])
    assert (None, 77_760.0) == (day["sent"], day["needed_seconds"])
    assert day["known_seconds"] < 77_760


async def test_an_offline_end_is_named(past: Past) -> None:
    gone = past.now
    await past.hear("meter.offline", device("m-1", gone) | {"isOnline": False})
    await past.live(20)
    (shown,) = await ask(past, EventType.GRID_ENERGY_CONSUMPTION, START + 30 * MINUTE)
    (part,) = shown["devices"]
    assert ["", "offline"] == [one["mark"] or "" for one in part["samples"]]
    assert [(SLOT_END, gone)] == [(one["from"], one["to"]) for one in part["known"]]
    assert "known for 300 s" in shown["reason"]


async def test_an_on_change_value_names_its_message(past: Past) -> None:
    (shown,) = await ask(past, EventType.STATE_OF_CHARGE_RATE, START)
    assert (40.0, 3) == (shown["value"], shown["message"]["id"])
    assert "differs from the last one sent" in shown["formula"]


async def test_a_devices_value_is_found_by_the_device(past: Past) -> None:
    (shown,) = await ask(past, EventType.ENERGY_CONSUMPTION, SLOT_END, CAR)
    assert ("vehicle:car-1", 0.0) == (shown["device"], shown["value"])
    assert "its power, integrated over the slot" == shown["formula"]


async def test_a_half_hour_shows_its_first_quarter(past: Past) -> None:
    await past.live(20)
    (shown,) = await ask(past, EventType.ENERGY_EXCESS, START + 30 * MINUTE)
    assert (START, START + 30 * MINUTE) == (shown["start"], shown["end"])
    assert 166.667 == shown["first_quarter"]["value"]
    assert 291.667 == shown["value"]
    assert (1_800.0, 1_620.0) == (shown["known_seconds"], shown["needed_seconds"])


async def test_a_day_is_the_sum_of_its_slots() -> None:
    past = Past(MemoryStore())
    past.now = START.replace(hour=22)  # midnight in Berlin
    await past.hear("pv-inverter.update", inverter(past.now, 0.0) | {"powerState": None})
    for _ in range(49):
        await past.hear("pv-inverter.update", inverter(past.now, 4.0))
        past.now += 30 * MINUTE
        await past.work()
        await past.turn()
        await past.turn()
    await past.live(60)  # it catches up
    midnight = START.replace(hour=22) + timedelta(days=1)
    (shown,) = await ask(past, EventType.ENERGY_GENERATION_YESTERDAY, midnight)
    assert 96_000.0 == shown["value"] == shown["sent"]
    assert (86_400.0, 77_760.0) == (shown["known_seconds"], shown["needed_seconds"])


async def test_nothing_is_known_of_a_value_that_nobody_could_make(past: Past) -> None:
    assert [] == await ask(past, EventType.ENERGY_GENERATION, START + timedelta(days=9))
    assert [] == await ask(past, EventType.STATE_OF_CHARGE_RATE, START + timedelta(days=9))


async def test_a_value_whose_messages_are_forgotten_still_shows_its_calls(past: Past) -> None:
    await past.live(60)
    while await past.store.sweep(past.now, timedelta(minutes=70), 1 << 40):
        pass
    (shown,) = await ask(past, EventType.ENERGY_GENERATION, SLOT_END)
    assert (None, 500.0) == (shown["value"], shown["sent"])
    assert ["delivered"] == [call["state"] for call in shown["calls"]]
    assert "not in the store any more" in shown["reason"]


async def test_a_device_shows_its_samples_and_its_last_events(past: Past) -> None:
    shown = await explain_device(past.store, past.rules, CAR, "user-1")
    assert shown is not None
    assert ("user-1", "CAR") == (shown["building"], shown["type"])
    series = {one["quantity"]: one for one in shown["series"]}
    assert [(40.0, 3, START)] == [(s["value"], s["message"], s["received"]) for s in series["soc"]["samples"]]
    assert "STATE_OF_CHARGE_RATE" in {one["type"] for one in shown["events"]}


async def test_an_unknown_device_is_not_explained(past: Past) -> None:
    assert None is await explain_device(past.store, past.rules, own(Kind.METER, "nobody"), "user-1")


async def test_a_meters_role_is_told(past: Past) -> None:
    shown = await explain_device(past.store, past.rules, own(Kind.METER, "m-1"), "user-1")
    assert shown is not None
    assert "grid" == shown["role"]
