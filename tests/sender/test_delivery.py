"""What arrives at MOOST, in which order (R3), by which lane (M5.10, R7)."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, ClassVar, cast

import pytest
from structlog.testing import capture_logs

from bridge.core.effects import ChangeBuilding, CreateBuilding, DeviceEntry, PutDevices, SendEvents
from bridge.core.vocabulary import DeadReason, DeviceType, EventType
from bridge.sink.classify import Failure, Reply
from bridge.sink.encode import WireCall

pytestmark = pytest.mark.anyio
Desk = Any
Make = Callable[..., Desk]
HOUR = timedelta(hours=1)


async def test_a_home_arrives_as_building_list_events_in_order(desk: Make) -> None:
    d = desk()
    d.start()
    await d.home()
    await d.queue(d.events(1, 2, 3), d.events(4), d.events(5, 6))
    await d.done()

    received = await d.sandbox.received()
    paths = [(call["method"], call["path"], call["status"]) for call in received["calls"]]
    assert [
        ("GET", "/auth/token/v1", 200),
        ("POST", "/buildings/v1", 201),
        ("PUT", "/buildings/home-1/devices/v1", 200),
        *[("POST", "/events/v1", 201)] * 6,
    ] == paths
    assert [1, 2, 3, 4, 5, 6] == await d.sandbox.values(lane="live")
    assert {} == received["counts"]["violations"]


async def test_order_holds_in_every_building_while_many_are_served_at_once(desk: Make) -> None:
    d = desk(max_concurrency=16)
    names = [f"home-{number}" for number in range(40)]
    d.start()
    await d.home(*names)
    for start in range(0, 20, 4):
        for name in names:
            await d.queue(d.events(*range(start, start + 4), building=name))
    await d.done()

    received = await d.sandbox.received()
    for name in names:
        values = [event["value"] for event in received["events"] if event["customerBuildingId"] == name]
        assert list(range(20)) == values
    assert {} == received["counts"]["violations"]


async def test_a_building_that_exists_is_done(desk: Make) -> None:
    d = desk()
    d.start()
    await d.home()
    await d.home()

    assert [201, 409] == [call["status"] for call in await d.sandbox.calls("/buildings/v1") if call["method"] == "POST"]
    assert [] == await d.dead()


class TestChanges:
    async def test_a_change_is_read_changed_and_written_with_everything_else_carried_through(self, desk: Make) -> None:
        d = desk()
        d.start()
        await d.home()
        await d.queue(ChangeBuilding(building="home-1", attributes={"zip": "01067"}))
        await d.queue(ChangeBuilding(building="home-1", tariff={"type": "SINGLE", "minPrice": "0.3"}, tariff_set=True))
        await d.done()

        building = (await d.sandbox.received())["buildings"]["home-1"]
        assert ("01067", "Europe/Berlin", {"type": "SINGLE", "minPrice": "0.3"}) == (
            building["zip"],
            building["timeZoneId"],
            building["settings"]["tariff"],
        )
        puts = [call["body"] for call in await d.sandbox.calls("/buildings/v1") if call["method"] == "PUT"]
        for body in puts:
            assert not {"id", "customerId", "activationTimestamp", "profile"} & body.keys()
            assert "devices" in body

    async def test_a_change_of_an_unknown_building_creates_it(self, desk: Make) -> None:
        d = desk()
        d.start()
        await d.queue(
            ChangeBuilding(building="new", attributes={"zip": "1"}, create={"countryCode": "DE", "zip": "1"}),
        )
        await d.done()

        assert [("GET", 404), ("POST", 201)] == [
            (call["method"], call["status"]) for call in await d.sandbox.calls("/buildings")
        ]
        assert "DE" == (await d.sandbox.received())["buildings"]["new"]["countryCode"]
        assert 1 == (await d.store.census()).delivered

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            (f'{{"customerBuildingId": "home-1", "x": {"[" * 100_000}{"]" * 100_000}}}', "it has too many levels"),
            ('{"customerBuildingId": "home-1", "x": NaN}', "it holds NaN, which is no number of JSON"),
            ('{"customerBuildingId": "home-1", "x": 1', "it is not whole, or not JSON"),
        ],
    )
    async def test_a_record_that_cannot_be_read_is_refused_at_once_and_the_building_goes_on(
        self, desk: Make, text: str, why: str
    ) -> None:
        d = desk()
        d.start()
        await d.home()
        record = {"answer": text, "media_type": "application/json"}
        await d.sandbox.faults({"kind": "status", "status": 200, "method": "GET", "path": "^/buildings/", **record})
        await d.queue(ChangeBuilding(building="home-1", attributes={"zip": "1"}), d.events(1))
        await d.done()
        (letter,) = await d.dead()

        assert [1] == await d.sandbox.values()
        assert DeadReason.REJECTED is letter.reason
        assert f"the building that MOOST sent cannot be read: {why}" == letter.detail
        assert [] == [call for call in await d.sandbox.calls("/buildings/v1") if call["method"] == "PUT"]

    @pytest.mark.parametrize("value", ["9" * 5000, '"\\ud800"', "[" * 500 + "]" * 500])
    async def test_a_record_with_odd_values_is_changed_all_the_same(
        self, desk: Make, monkeypatch: pytest.MonkeyPatch, value: str
    ) -> None:
        d = desk()
        d.start()
        await d.home()
        real, written = d.client.call, []

        async def odd(wire: WireCall, token: str) -> Reply | Failure:
            if wire.method == "GET":
                return Reply(status=200, body=f'{{"customerBuildingId": "home-1", "x": {value}}}'.encode())
            if wire.path == "/buildings/v1":
                written.append(wire.body)
                return Reply(status=200)
            return cast("Reply | Failure", await real(wire, token))

        monkeypatch.setattr(d.client, "call", odd)
        await d.queue(ChangeBuilding(building="home-1", attributes={"zip": "1"}), d.events(1))
        await d.done()

        assert [] == await d.dead()
        assert [1] == await d.sandbox.values()
        assert [f'{{"customerBuildingId":"home-1","x":{value},"zip":"1"}}'.encode()] == written


def lists(building: str, *names: str) -> PutDevices:
    entries = [DeviceEntry(id=name, type=DeviceType.CAR, name=name) for name in names]
    gateway = DeviceEntry(id=f"gateway:{building}", type=DeviceType.GATEWAY, name="Household")
    return PutDevices(building=building, devices=(gateway, *entries))


def car_event(d: Desk, name: str, value: float) -> SendEvents:
    event = replace(
        d.events(value).events[0], device=name, name=name, source=DeviceType.CAR, type=EventType.STATE_OF_CHARGE_RATE
    )
    return SendEvents(building="home-1", events=(event,))


async def told(d: Desk, building: str = "home-1") -> list[str]:
    """Return the devices that MOOST knows now."""
    return sorted(entry["id"] for entry in (await d.sandbox.received())["devices"][building])


async def loses_everything(d: Desk) -> None:
    async with d.sandbox._http.delete(f"{d.sandbox.base_url}/_sandbox/received"):
        pass


class TestLostBuildings:
    """MOOST lost a building: whichever call finds out, it is made again with all that it shall be."""

    WANTED: ClassVar = [
        CreateBuilding(building="home-1", attributes={"countryCode": "DE", "timeZoneId": "Europe/Berlin"}),
        lists("home-1", "car-1"),
        ChangeBuilding(building="home-1", attributes={"zip": "01067"}),
        ChangeBuilding(building="home-1", tariff={"type": "SINGLE", "minPrice": "0.3"}, tariff_set=True),
    ]

    @pytest.mark.parametrize("what", ["a list", "a change", "an event", "a tariff"])
    async def test_it_is_made_again(self, desk: Make, what: str) -> None:
        d = desk()
        d.start()
        for call in self.WANTED:
            await d.queue(call)
            await d.done()
        await loses_everything(d)
        calls = {
            "a list": lists("home-1", "car-1", "car-2"),
            "a change": ChangeBuilding(building="home-1", attributes={"city": "Dresden"}),
            "an event": d.events(1),
            "a tariff": ChangeBuilding(
                building="home-1", tariff={"type": "SINGLE", "minPrice": "0.4"}, tariff_set=True
            ),
        }
        with capture_logs() as logged:
            await d.queue(calls[what], d.events(2))
            await d.done()
        building = (await d.sandbox.received())["buildings"]["home-1"]

        assert [] == await d.dead()
        assert ["building_made_again"] == [line["event"] for line in logged if line["event"].startswith("building_")]
        assert ["car-1", *(["car-2"] if what == "a list" else []), "gateway:home-1"] == await told(d)
        assert ("01067", "0.4" if what == "a tariff" else "0.3") == (
            building["zip"],
            building["settings"]["tariff"]["minPrice"],
        )
        assert (what == "a change") == (building.get("city") == "Dresden")
        assert 2 == (await d.sandbox.values())[-1]

    @pytest.mark.parametrize("status", [400, 404])
    async def test_a_list_that_moost_refuses_all_the_same_is_dead_after_one_repair(
        self, desk: Make, status: int
    ) -> None:
        d = desk()
        d.start()
        await d.home()
        before = len(await d.sandbox.calls())
        await d.sandbox.faults({"kind": "status", "status": status, "path": "/devices/"})
        await d.queue(lists("home-1", "car-1"), d.events(1))
        await d.done()

        calls = (await d.sandbox.calls())[before:]
        assert [("PUT", status), ("POST", 409), ("PUT", status), ("POST", 201)] == [
            (call["method"], call["status"]) for call in calls
        ]
        assert [DeadReason.REJECTED] == [letter.reason for letter in await d.dead()]

    async def test_a_change_of_a_building_that_moost_denies_to_have_and_to_lack_is_done(self, desk: Make) -> None:
        d = desk()
        d.start()
        await d.home()
        await d.sandbox.faults({"kind": "status", "status": 404, "method": "GET", "path": "/buildings/"})
        await d.queue(ChangeBuilding(building="home-1", attributes={"zip": "1"}), d.events(1))
        await d.done()

        assert [] == await d.dead()
        assert [1] == await d.sandbox.values()


class TestNothingIsTakenBack:
    """A whole state that is sent once more never undoes what MOOST was told since."""

    async def test_a_retried_list_does_not_remove_a_device(self, desk: Make) -> None:
        d = desk()
        d.start()
        await d.home()
        await d.sandbox.faults({"kind": "status", "status": 400, "path": "/devices/"})
        await d.queue(lists("home-1", "car-1", "veh-1"))
        await d.done()
        await d.sandbox.faults()
        await d.queue(lists("home-1", "bat-1", "car-1", "veh-1"))
        await d.done()
        await d.store.retry([letter.id for letter in await d.dead()], d.time.now())
        d.sender.nudge.set()
        await d.done()

        assert ["bat-1", "car-1", "gateway:home-1", "veh-1"] == await told(d)
        assert [] == await d.dead()

    async def test_a_list_that_was_stuck_does_not_remove_a_device(self, desk: Make) -> None:
        d = desk()
        d.start()
        await d.home("home-1", "other")
        await d.sandbox.faults({"kind": "status", "status": 500, "path": "home-1/devices"})
        await d.queue(lists("home-1", "car-1"))
        for value in range(11):  # eleven tries over an hour
            await d.until(lambda tries=value: not _owed(d) or _owed(d)[0].progress.attempts > tries)
            await d.queue(d.events(value, building="other"))
            await d.until(lambda: len(_owed(d)) <= 1)
            d.time.offset += timedelta(minutes=6)
            d.sender.nudge.set()
        await d.done()
        assert [DeadReason.STUCK] == [letter.reason for letter in await d.dead()]
        await d.sandbox.faults()
        await d.queue(lists("home-1", "bat-1", "car-1"))
        await d.done()
        d.time.offset += timedelta(minutes=61)
        await d.until(lambda: not d.store._rows.letters)
        await d.done()

        assert ["bat-1", "car-1", "gateway:home-1"] == await told(d)

    async def test_retried_changes_keep_what_came_later(self, desk: Make) -> None:
        d = desk()
        d.start()
        await d.home()
        await d.sandbox.faults({"kind": "status", "status": 400, "method": "PUT", "path": "^/buildings/v1"})
        await d.queue(
            ChangeBuilding(
                building="home-1",
                attributes={"zip": "1", "city": "Bern"},
                tariff={"type": "SINGLE", "minPrice": "0.1"},
                tariff_set=True,
            )
        )
        await d.done()
        await d.sandbox.faults()
        await d.queue(
            ChangeBuilding(
                building="home-1",
                attributes={"zip": "2"},
                tariff={"type": "SINGLE", "minPrice": "0.2"},
                tariff_set=True,
            )
        )
        await d.done()
        await d.store.retry([letter.id for letter in await d.dead()], d.time.now())
        d.sender.nudge.set()
        await d.done()
        building = (await d.sandbox.received())["buildings"]["home-1"]

        assert [] == await d.dead()
        assert ("2", "Bern", "0.2") == (building["zip"], building["city"], building["settings"]["tariff"]["minPrice"])

    async def test_a_repair_is_not_undone_by_an_older_list_behind_it(self, desk: Make) -> None:
        d = desk()
        d.start()
        await d.home()
        await d.stop()
        await loses_everything(d)
        await d.queue(d.events(1), lists("home-1", "car-1"), car_event(d, "car-1", 2), lists("home-1", "bat-1"))
        d.start()
        await d.done()

        puts = [sorted(each["id"] for each in call["body"]) for call in await d.sandbox.calls("/devices/")]
        assert [["bat-1", "gateway:home-1"], ["bat-1", "car-1", "gateway:home-1"], ["bat-1", "gateway:home-1"]] == puts
        assert [] == await d.dead()

    async def test_a_repair_tells_the_devices_whose_events_are_still_to_come(self, desk: Make) -> None:
        d = desk()
        d.start()
        await d.home()
        await d.queue(lists("home-1", "car-1"))
        await d.done()
        await d.stop()
        await loses_everything(d)
        await d.queue(d.events(1), car_event(d, "car-1", 2), lists("home-1"))
        d.start()
        await d.done()

        puts = [sorted(each["id"] for each in call["body"]) for call in await d.sandbox.calls("/devices/")]
        assert [["car-1", "gateway:home-1"], ["gateway:home-1"]] == puts
        assert [] == await d.dead()


async def test_no_event_arrives_for_a_device_that_moost_was_never_told(desk: Make) -> None:
    d = desk()
    d.start()
    await d.home()
    await d.sandbox.faults({"kind": "outage"})
    await d.queue(lists("home-1", "car-1"))
    await d.queue(car_event(d, "car-1", 50))
    await d.queue(lists("home-1"))
    await d.queue(lists("home-1", "car-2"))
    await d.sandbox.faults()
    await d.done(30)

    calls = (await d.sandbox.received())["calls"]
    known: set[str] = set()
    for call in calls:
        if call["status"] in {200, 201} and "/devices/" in call["path"]:
            known |= {entry["id"] for entry in call["body"]}
        if call["path"] == "/events/v1" and call["status"] == 201:
            assert call["body"]["deviceId"] in known
    assert 1 == len([call for call in calls if call["path"] == "/events/v1" and call["status"] == 201])
    assert ["car-2", "gateway:home-1"] == await told(d)


def _owed(d: Desk) -> list[Any]:
    return [row for _, row in sorted(d.store._rows.outbox.items()) if row.owed]


class TestLanes:
    async def test_an_old_event_takes_the_historical_lane_and_a_young_one_the_live_lane(self, desk: Make) -> None:
        d = desk()
        d.start()
        await d.home()
        await d.queue(
            d.events(1, age=timedelta(minutes=31)), d.events(2, age=timedelta(minutes=29)), d.events(3, age=HOUR)
        )
        await d.done()

        assert [2] == await d.sandbox.values(lane="live")
        assert [1, 3] == await d.sandbox.values(lane="historical")

    async def test_a_replay_takes_the_historical_lane_whatever_its_age(self, desk: Make) -> None:
        d = desk()
        d.start()
        await d.home()
        await d.queue(d.events(1, 2, replay=True))
        await d.done()

        assert [1, 2] == await d.sandbox.values(lane="historical")

    async def test_old_events_of_several_rows_leave_as_one_array(self, desk: Make) -> None:
        d = desk()
        d.start()
        await d.home()
        await d.stop()
        await d.queue(d.events(1, 2, age=HOUR), d.events(3, age=HOUR), d.events(4, 5, age=HOUR), d.events(6))
        await d.queue(d.events(7, age=HOUR))
        d.start()
        await d.done()

        arrays = [len(call["body"]) for call in await d.sandbox.calls("/events/historical") if call["status"] == 200]
        assert [5, 1] == arrays
        assert [1, 2, 3, 4, 5, 6, 7] == await d.sandbox.values()

    async def test_an_array_holds_at_most_historical_batch_events(self, desk: Make) -> None:
        d = desk(historical_batch=4)
        d.start()
        await d.home()
        await d.queue(d.events(1, 2, 3, 4, 5, 6, age=HOUR), d.events(7, 8, 9, age=HOUR))
        await d.done()

        arrays = [len(call["body"]) for call in await d.sandbox.calls("/events/historical")]
        assert [4, 4, 1] == arrays
        assert list(range(1, 10)) == await d.sandbox.values()

    async def test_an_event_that_grows_old_while_moost_is_away_is_not_sent_live(self, desk: Make) -> None:
        d = desk()
        d.start()
        await d.home()
        await d.sandbox.faults({"kind": "status", "status": 503, "path": "/events/v1"})
        await d.queue(d.events(1))
        await d.until(lambda: _tries(d) >= 1)
        d.time.offset = HOUR
        await d.sandbox.faults()
        await d.done()

        assert [] == await d.sandbox.values(lane="live")
        assert [1] == await d.sandbox.values(lane="historical")


def _tries(d: Desk) -> int:
    return sum(len(row.attempts) for row in d.store._rows.outbox.values() if row.owed)


class TestRules:
    async def test_what_breaks_a_rule_is_a_dead_letter_and_never_a_call(self, desk: Make) -> None:
        d = desk()
        d.start()
        await d.home()
        before = len(await d.sandbox.calls("/events"))
        await d.queue(d.events(1, -5, float("nan"), 2), d.events(-7, 3, age=HOUR))
        await d.done()

        letters = await d.dead()
        assert [1, 2, 3] == await d.sandbox.values()
        assert before + 3 == len(await d.sandbox.calls("/events"))
        assert [
            (DeadReason.RULE, "ENERGY_CONSUMPTION is below 0 Wh"),
            (DeadReason.RULE, "the value is not a finite number"),
            (DeadReason.RULE, "ENERGY_CONSUMPTION is below 0 Wh"),
        ] == [(letter.reason, letter.detail) for letter in letters]

    async def test_a_list_that_breaks_a_rule_does_not_hold_up_its_building(self, desk: Make) -> None:
        d = desk()
        d.start()
        await d.home()
        await d.queue(PutDevices(building="home-1", devices=()), d.events(1))
        await d.done()

        assert [1] == await d.sandbox.values()
        assert [DeadReason.RULE] == [letter.reason for letter in await d.dead()]


class TestRefusals:
    async def test_one_bad_event_of_a_hundred_is_found_and_the_others_arrive(self, desk: Make) -> None:
        d = desk()
        d.start()
        await d.home()
        await d.sandbox.faults({"kind": "status", "status": 400, "path": "/events", "body": '"value":57[,}]'})
        await d.queue(*[d.events(*range(start, start + 10), age=HOUR) for start in range(0, 100, 10)])
        await d.done()

        letters = await d.dead()
        assert [value for value in range(100) if value != 57] == await d.sandbox.values(lane="historical")
        assert [(DeadReason.REJECTED, '{"message":"fault"}')] == [(letter.reason, letter.answer) for letter in letters]
        assert b"57" in letters[0].body
        assert len(await d.sandbox.calls("/events/historical")) <= 20

    async def test_a_refused_live_event_is_sent_once_more_after_building_and_list_then_it_is_dead(
        self, desk: Make
    ) -> None:
        d = desk()
        d.start()
        await d.home()
        await d.sandbox.faults({"kind": "status", "status": 400, "path": "/events/v1", "body": '"value":1,'})
        before = len(await d.sandbox.calls())
        await d.queue(d.events(1, 2))
        await d.done()

        calls = (await d.sandbox.calls())[before:]
        assert [
            ("POST", "/events/v1", 400),
            ("POST", "/buildings/v1", 409),
            ("PUT", "/buildings/home-1/devices/v1", 200),
            ("POST", "/events/v1", 400),
            ("POST", "/events/v1", 201),
        ] == [(call["method"], call["path"], call["status"]) for call in calls]
        assert [2] == await d.sandbox.values()
        assert [DeadReason.REJECTED] == [letter.reason for letter in await d.dead()]

    async def test_a_building_that_moost_forgot_is_sent_again_and_its_events_arrive(self, desk: Make) -> None:
        d = desk()
        d.start()
        await d.home()
        async with d.sandbox._http.delete(f"{d.sandbox.base_url}/_sandbox/received"):
            pass
        await d.queue(d.events(1), d.events(2, age=HOUR), d.events(3))
        await d.done()

        assert [] == await d.dead()
        assert [1, 2, 3] == await d.sandbox.values()

    async def test_a_refused_building_does_not_hold_up_what_is_behind_it(self, desk: Make) -> None:
        d = desk()
        d.start()
        await d.home()
        await d.sandbox.faults({"kind": "status", "status": 400, "path": "/devices/"})
        devices = (DeviceEntry(id="gateway:home-1", type=DeviceType.GATEWAY, name="New name"),)
        await d.queue(PutDevices(building="home-1", devices=devices), d.events(1))
        await d.done()

        assert [1] == await d.sandbox.values()
        assert [DeadReason.REJECTED] == [letter.reason for letter in await d.dead()]

    async def test_a_partly_written_array_goes_again_in_halves(self, desk: Make) -> None:
        d = desk()
        d.start()
        await d.home()
        await d.sandbox.faults({"kind": "partial", "keep": 2, "times": 1})
        await d.queue(d.events(*range(8), age=HOUR))
        await d.done()

        arrays = [len(call["body"]) for call in await d.sandbox.calls("/events/historical")]
        assert [8, 4, 2, 1, 1] == arrays
        assert [0, 1, *range(8)] == await d.sandbox.values()
        assert 1 == (await d.store.census()).in_doubt


async def test_a_dry_run_does_everything_but_call(desk: Make) -> None:
    d = desk()
    d.start(dry_run=True)
    await d.queue(d.events(1, 2), d.events(-1), d.events(3, age=HOUR))
    await d.done()

    assert [] == await d.sandbox.calls()
    assert [DeadReason.RULE] == [letter.reason for letter in await d.dead()]
    assert 3 == (await d.store.census()).delivered
