"""What arrives at MOOST, in which order, by which lane."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from bridge.core.effects import ChangeBuilding, DeviceEntry, PutDevices
from bridge.core.vocabulary import DeadReason, DeviceType

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
