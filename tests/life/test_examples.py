"""The vendor's sample messages over real HTTP: what MOOST holds afterwards, to the last event."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from tests.life.stage import CUSTOMER, ROOT, Bridge, Sandbox, bridged, sandboxed, stamp, until

MESSAGES: Final = ROOT / "tests" / "examples" / "messages"
FILES: Final = sorted(MESSAGES.glob("*/*.json"))
ACTIONS: Final = ("schedules.update", "price.update", "command", "offline", "update")

HOME, SEED, TENANT = "user-4711", "896f9d5a-b618-48a2-98ae-957059bf1bc9", "5f48946a-4203-495b-9c8b-7c31ae84009a"

DEVICES: Final = {
    HOME: [
        ("gateway:user-4711", "GATEWAY", "Household", None),
        ("battery:b0a7e1d2-0001-4c1e-9a10-000000000001", "BATTERY", "Cellar battery", "SMA Sunny Boy Storage"),
        ("charger:e5b8a9f0-0006-4c1e-9a10-000000000006", "CAR_CHARGER", "Wallbox", "EASEE Home"),
        ("hvac:a1c0ffee-0004-4c1e-9a10-000000000004", "APPLIANCE", "AC bedroom", "VIESSMANN Vitocal 250"),
        ("hvac:a2c0ffee-0004-4c1e-9a10-000000000004", "HEAT_PUMP", "Heat pump", "VIESSMANN Vitocal 250"),
        ("hvac:a3c0ffee-0004-4c1e-9a10-000000000004", "WATER_HEATER", "Hot water", "VIESSMANN Vitocal 250"),
        ("hvac:a4c0ffee-0004-4c1e-9a10-000000000004", "THERMOSTAT", "Thermostat living room", "VIESSMANN Vitocal 250"),
        ("meter:4d2e77c4-0003-4c1e-9a10-000000000003", "SMART_METER", "Grid meter", "FRONIUS Smart Meter 63A"),
        ("pv-inverter:9f1c6a30-0002-4c1e-9a10-000000000002", "INVERTER", "Roof south", "FRONIUS Symo GEN24"),
        ("vehicle:c3d94f10-0005-4c1e-9a10-000000000005", "CAR", "Family car", "VW ID.3"),
    ],
    SEED: [
        (f"gateway:{SEED}", "GATEWAY", "Household", None),
        ("battery:3fa85f64-5717-4562-b3fc-2c963f66afa6", "BATTERY", "My device", "SMA Battery"),
        (
            "hvac:6eb5497d-c6bb-4290-84ef-4409fe9501f1",
            "APPLIANCE",
            "Viessmann Vitotronic 200",
            "VIESSMANN Vitotronic 200",
        ),
        ("meter:3fa85f64-5717-4562-b3fc-2c963f66afa6", "SMART_METER", "My device", "FRONIUS Meter"),
        ("pv-inverter:6eb5497d-c6bb-4290-84ef-4409fe9501f1", "INVERTER", "My device", "FRONIUS Inverter"),
        ("vehicle:3c90c3cc-0d44-4b50-8888-8dd25736052a", "CAR", "My Tesla", "TESLA Model 3"),
    ],
    TENANT: [(f"gateway:{TENANT}", "GATEWAY", "Household", None)],
}

FAMILY_CAR: Final = ("vehicle:c3d94f10-0005-4c1e-9a10-000000000005", "Family car")
AT_10_00_30, AT_10_55 = 1781517630, 1781520900  # 15 June 2026, UTC


def event(building: str, device: tuple[str, str], value: float, at: int) -> dict[str, Any]:
    return {
        "customerId": CUSTOMER,
        "customerBuildingId": building,
        "deviceId": device[0],
        "deviceName": device[1],
        "source": "CAR",
        "type": "STATE_OF_CHARGE_RATE",
        "value": value,
        "timestamp": at,
    }


CHARGING: Final = event(HOME, FAMILY_CAR, 56.4, AT_10_00_30)
UNPLUGGED: Final = event(HOME, FAMILY_CAR, 79.8, AT_10_55)
TESLA: Final = event(SEED, ("vehicle:3c90c3cc-0d44-4b50-8888-8dd25736052a", "My Tesla"), 72.25, 1699335116)


def topic(file: Path) -> str:
    """Return the topic of a sample by its folder and name."""
    action = next(action for action in ACTIONS if file.name.startswith(f"{action}."))
    return f"{file.parent.name}.{action}"


def post_all(bridge: Bridge, files: Sequence[Path]) -> None:
    for file in files:
        answer = bridge.take(topic(file), file.read_bytes())
        assert (1, 0, 0) == (answer["accepted"], answer["duplicates"], answer["dead"]), file


def sent(received: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the events as they were sent, without the look-alike's remarks."""
    remarks = ("lane", "received_at", "index")
    return [{name: value for name, value in one.items() if name not in remarks} for one in received["events"]]


def in_order(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return events in an order that does not depend on how buildings took turns."""
    return sorted(events, key=lambda one: (str(one["customerBuildingId"]), int(one["timestamp"])))


def entries(listed: Sequence[dict[str, Any]]) -> list[tuple[str, str, str, str | None]]:
    assert all(set(one) <= {"id", "type", "name", "product_name"} for one in listed)
    return [(one["id"], one["type"], one["name"], one.get("product_name")) for one in listed]


def test_every_kind_has_its_samples() -> None:
    assert ["battery", "charger", "hvac", "meter", "pv-inverter", "tariff", "vehicle"] == sorted(
        {file.parent.name for file in FILES}
    )
    assert 26 == len(FILES)


def test_moost_holds_exactly_the_buildings_devices_and_events_of_the_samples(all_sent: Sandbox) -> None:
    received = all_sent.received()
    created = [
        call["body"] for call in received["calls"] if (call["method"], call["path"]) == ("POST", "/buildings/v1")
    ]
    assert [
        {"customerBuildingId": name, "countryCode": "DE", "timeZoneId": "Europe/Berlin", "userIds": [name]}
        for name in sorted(DEVICES)
    ] == sorted(created, key=lambda body: str(body["customerBuildingId"]))
    assert DEVICES == {name: entries(listed) for name, listed in received["devices"].items()}
    assert in_order([CHARGING, UNPLUGGED, TESLA]) == in_order(sent(received))
    assert {"historical"} == {one["lane"] for one in received["events"]}  # months old: no advice about the past
    assert [] == received["violations"]
    assert {200, 201} == {call["status"] for call in received["calls"]}


@pytest.mark.parametrize("building", sorted(DEVICES))
def test_a_building_comes_before_its_list_and_the_list_before_its_events(building: str, all_sent: Sandbox) -> None:
    calls = [call for call in all_sent.received(building)["calls"] if call["method"] != "GET"]
    assert ["/buildings/v1", f"/buildings/{building}/devices/v1"] == [call["path"] for call in calls[:2]]
    listed: set[str] = set()
    before: object = None
    for call in calls[1:]:
        if call["path"].endswith("/devices/v1"):
            assert before != call["body"], "the list is sent only when it has changed"
            before, listed = call["body"], {device["id"] for device in call["body"]}
            assert f"gateway:{building}" == call["body"][0]["id"]
        else:
            assert {one["deviceId"] for one in call["body"]} <= listed
    times = [one["timestamp"] for one in all_sent.received(building)["events"]]
    assert sorted(times) == times


def test_devices_that_share_an_id_are_two(all_sent: Sandbox) -> None:
    ids = [device["id"] for device in all_sent.received(SEED)["devices"][SEED]]
    shared = ("3fa85f64-5717-4562-b3fc-2c963f66afa6", "6eb5497d-c6bb-4290-84ef-4409fe9501f1")
    assert [f"battery:{shared[0]}", f"hvac:{shared[1]}", f"meter:{shared[0]}", f"pv-inverter:{shared[1]}"] == [
        name for name in ids if name.endswith(shared)
    ]


def test_nothing_personal_reaches_moost(all_sent: Sandbox) -> None:
    said = json.dumps(all_sent.received(), ensure_ascii=False)
    for secret in ("WVWZZZE1ZMP000001", "1XKAD29X0KS502460", "52.2799", "8.0472", "50.770774", "Feldstraße"):
        assert secret not in said


def test_the_newest_wins_whatever_the_order_of_arrival(sent_backwards: Sandbox) -> None:
    backwards = sent_backwards.received()
    assert DEVICES == {name: entries(listed) for name, listed in backwards["devices"].items() if name in DEVICES}
    assert in_order([UNPLUGGED, TESLA]) == in_order(sent(backwards))


def test_a_repeat_of_everything_changes_nothing(again: Bridge, sent_backwards: Sandbox) -> None:
    before = sent_backwards.counts()["next"]
    post_all(again, FILES)
    again.settled()
    assert before == sent_backwards.counts()["next"]


# ---- M7: every action of every kind ---------------------------------------------------------------------------------

OTHERS: Final = ("vehicle.command", "hvac.command", "charger.command", "tariff.price.update", "hvac.schedules.update")
NOT_THERE: Final = (
    "meter.command",
    "battery.command",
    "pv-inverter.command",
    "tariff.command",
    "vehicle.price.update",
    "tariff.schedules.update",
    "charger.schedules.update",
    "vehicle.explode",
    "toaster.update",
    "vehicle",
    "vehicle.",
    "VEHICLE.update",
)


def sample(kind: str) -> dict[str, Any]:
    """Return the newest full update of a kind."""
    file = next(
        file
        for file in FILES
        if file.parent.name == kind and topic(file).endswith(".update") and "seed" not in file.name
    )
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def said(kind: str, user: str) -> dict[str, Any]:
    """Return a sample as said just now by another user."""
    body = {**sample(kind), "userId": user, "lastUpdated": stamp()}
    body.pop("chargeState", None)
    return body


@pytest.mark.parametrize("kind", ["vehicle", "charger", "battery", "pv-inverter", "meter", "hvac"])
def test_only_a_delete_removes_a_device(kind: str, again: Bridge, sent_backwards: Sandbox) -> None:
    user = f"life-of-{kind}"
    device = f"{kind}:{sample(kind)['id']}"

    def listed() -> list[str]:
        return [one["id"] for one in sent_backwards.received(user)["devices"].get(user, [])]

    again.take(f"{kind}.connect", said(kind, user))
    until(lambda: listed() == [f"gateway:{user}", device], "a connected device")
    for action in ("update", "offline", "disconnect"):
        again.take(f"{kind}.{action}", said(kind, user))
    again.settled()
    assert [f"gateway:{user}", device] == listed()
    again.take(f"{kind}.delete", said(kind, user))
    until(lambda: listed() == [f"gateway:{user}"], "a list without the deleted device")


def test_what_exists_settles_and_what_does_not_is_a_dead_letter(again: Bridge, sent_backwards: Sandbox) -> None:
    before = again.settled()
    calls = sent_backwards.counts()["next"]
    kinds = ("vehicle", "charger", "battery", "pv-inverter", "meter", "hvac", "tariff")
    for name in (*(f"{kind}.delete" for kind in kinds), *OTHERS):
        body = {
            "id": "nobody-knows",
            "userId": "user-unknown",
            "deviceId": "nobody-knows",
            "prices": [],
            "schedules": [],
        }
        assert 0 == again.take(name, body)["dead"], name
    for name in NOT_THERE:
        assert 1 == again.take(name, said("vehicle", "user-unknown"))["dead"], name
    after = again.settled()
    dead = after["dead_letters"].get("unknown-topic", 0) - before["dead_letters"].get("unknown-topic", 0)
    assert len(NOT_THERE) == dead
    assert len(kinds) + len(OTHERS) == after["ledger"]["settled"] - before["ledger"]["settled"]
    assert calls == sent_backwards.counts()["next"], "none of these is heard of by MOOST (M1.4)"


def test_a_tombstone_is_settled_without_effect(again: Bridge, sent_backwards: Sandbox) -> None:
    before, calls = again.settled()["ledger"]["settled"], sent_backwards.counts()["next"]
    assert 0 == again.take("vehicle.update", b"null")["dead"]
    assert (before + 1, calls) == (again.settled()["ledger"]["settled"], sent_backwards.counts()["next"])


# ---- processes that tests share -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def all_sent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """Return a look-alike that has got all samples."""
    folder = tmp_path_factory.mktemp("forwards")
    with sandboxed(folder) as sandbox, bridged(folder, sandbox.url) as bridge:
        bridge.start()
        post_all(bridge, FILES)
        bridge.settled()
        yield sandbox


@pytest.fixture(scope="module")
def backwards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bridge, Sandbox]]:
    folder = tmp_path_factory.mktemp("backwards")
    with sandboxed(folder) as sandbox, bridged(folder, sandbox.url) as bridge:
        bridge.start()
        post_all(bridge, FILES[::-1])
        bridge.settled()
        yield bridge, sandbox


@pytest.fixture
def sent_backwards(backwards: tuple[Bridge, Sandbox]) -> Sandbox:
    """Return a look-alike that got all samples in reverse order."""
    return backwards[1]


@pytest.fixture
def again(backwards: tuple[Bridge, Sandbox]) -> Bridge:
    """Return the daemon that sent them."""
    return backwards[0]


# ---- M3: what leaves each quarter hour ------------------------------------------------------------------------------

QUARTER: Final = 900
AT_10: Final = 1781517600
NOW_ON: Final = (
    "vehicle/update.charging.json", "charger/update.charging.json", "battery/update.charging.json",
    "hvac/update.heatpump.json", "hvac/update.dhw.json", "hvac/update.thermostat.json", "hvac/update.ac.json",
)  # fmt: skip
# Device, type, value of the quarter from 10:00 and of the next; None where too little of it is known to send an energy.
QUARTERS: Final = [
    ("CAR_CHARGER", "POWER_CONSUMPTION", 10_800, 10_800),  # from 10:00:31
    ("CAR_CHARGER", "ENERGY_CONSUMPTION", 2_607, 2_700),
    ("BATTERY", "ENERGY_IMPORT", None, 600),  # from 10:02:10
    ("BATTERY", "ENERGY_EXPORT", None, 0),
    ("HEAT_PUMP", "POWER_CONSUMPTION", 1_750, 1_750),  # from 10:04
    ("HEAT_PUMP", "ENERGY_CONSUMPTION", None, 437.5),
    ("WATER_HEATER", "POWER_CONSUMPTION", 600, 600),  # from 10:06
    ("WATER_HEATER", "ENERGY_CONSUMPTION", None, 150),
    ("WATER_HEATER", "WATER_TEMPERATURE", 52.4, 52.4),
    ("THERMOSTAT", "TEMPERATURE", 20.9, 20.9),  # its power is null
    ("APPLIANCE", "POWER_CONSUMPTION", 930, 930),  # from 10:06:30
    ("APPLIANCE", "ENERGY_CONSUMPTION", None, 232.5),
]


def test_devices_send_their_quarter_hours(bridge: Bridge, sandbox: Sandbox) -> None:
    bridge.configure(clock={"start": "2026-06-15T10:40:00Z", "speed": 120})
    bridge.start()
    post_all(bridge, [MESSAGES / name for name in NOW_ON])
    until(lambda: any(one["timestamp"] > AT_10 + 2 * QUARTER for one in sandbox.events()), "the third quarter")
    arrived = sorted(
        (one["source"], one["type"], one["timestamp"], one["value"])
        for one in sandbox.events()
        if one["source"] not in ("GATEWAY", "CAR") and one["timestamp"] <= AT_10 + 2 * QUARTER
    )
    expected = [
        (source, type_, AT_10 + number * QUARTER, value)
        for source, type_, *values in QUARTERS
        for number, value in enumerate(values, start=1)
        if value is not None
    ]
    assert sorted(expected) == arrived
    assert [("STATE_OF_CHARGE_RATE", 56.4)] == [
        (one["type"], one["value"]) for one in sandbox.events() if one["source"] == "CAR"
    ], "a charger stands there, so the car's power is the charger's"
    assert {} == sandbox.counts()["violations"]
