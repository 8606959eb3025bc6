"""The comparison finds what is missing, wrong or there twice."""

import json
from pathlib import Path
from typing import Any, Final

import pytest

from bridge.sandbox.verify import Receiver, Row, Verdict, compare, safe, table, verify
from tests.sandbox.conftest import Client, Clock, building, event

pytestmark = pytest.mark.anyio

SLOT = 1_779_998_400


def line(number: int, value_wh: float, known: float = 1.0, **more: object) -> dict[str, Any]:
    return {
        "user": "user-1",
        "device": "GATEWAY",
        "type": "ENERGY_CONSUMPTION",
        "slot_start": SLOT + 900 * number,
        "seconds": 900,
        "value_wh": value_wh,
        "known": known,
        **more,
    }


def sent(number: int, value: float, inside: int = 900, **more: object) -> dict[str, Any]:
    return event(value=value, timestamp=SLOT + 900 * number + inside, **more)


async def test_missing_wrong_and_repeated_slots_are_told_and_slots_nobody_could_know_are_not_expected() -> None:
    truth = [line(0, 100), line(1, 200), line(2, 300), line(3, 400, known=0.5), line(4, 500)]
    buildings = {"home-1": {"userIds": ["user-1"]}}
    events = [sent(0, 100.25), sent(1, 200), sent(1, 200, lane="historical"), sent(4, 499.4)]
    found = compare(truth, buildings, events)
    expected = Row(
        type="ENERGY_CONSUMPTION",
        expected=4,
        received=3,
        missing=1,
        repeated=1,
        wrong=1,
        live=3,
        historical=1,
        largest_error_wh=0.6,
    )
    assert [expected] == found.rows
    assert "0.600" in table(found)
    assert (1, 1, False) == (found.missing, found.wrong, found.clean)


def _told(found: Verdict) -> tuple[int, int, int]:
    """Return how many slots are expected, excused and wrong."""
    return sum(row.expected for row in found.rows), found.deleted, found.wrong


async def test_of_a_device_that_was_deleted_before_its_slots_closed_nothing_is_missed() -> None:
    truth = [line(0, 100), line(0, 50, device="hvac:h", type="ENERGY_CONSUMPTION"), line(1, 60, device="hvac:h")]
    buildings = {"home-1": {"userIds": ["user-1"]}}
    events = [sent(0, 100), sent(1, 61, deviceId="hvac:h")]
    assert (2, 1, 1) == _told(compare(truth, buildings, events, deleted=["hvac:h"])), "what did leave is judged"
    assert (3, 0, 1) == _told(compare(truth, buildings, events)), "at the pace of life it leaves before"


DAY: Final = 1_774_738_800  # 2026-03-29T00:00+01:00: summer time begins, the day has 23 hours
YESTERDAY: Final = "ENERGY_CONSUMPTION_YESTERDAY"


def a_day(slots: int = 92, known: float = 1.0) -> list[dict[str, Any]]:
    return [line(0, 10.0, known, slot_start=DAY + 900 * number) for number in range(slots)]


@pytest.mark.parametrize(
    ("truth", "value", "missing", "wrong"),
    [
        (a_day(), 920.0, 0, 0),
        (a_day(), 921.0, 0, 1),
        (a_day(), None, 1, 0),
        (a_day()[3:], None, 0, 0),  # the bridge may know a part of the slot before
        (a_day()[3:], 999.0, 0, 0),
        (a_day()[10:], None, 0, 0),
        (a_day(known=0.8), None, 0, 0),
        (a_day(91), None, 0, 0),  # gone, or not over
    ],
)
async def test_the_sum_of_a_local_day_is_expected_where_enough_of_it_is_known(
    truth: list[dict[str, Any]], value: float | None, missing: int, wrong: int
) -> None:
    buildings = {"home-1": {"userIds": ["user-1"]}}
    events = [event(type=YESTERDAY, value=value, timestamp=DAY + 23 * 3600)] if value is not None else []
    row = next((row for row in compare(truth, buildings, events).rows if row.type == YESTERDAY), None)
    assert (missing, wrong) == ((row.missing, row.wrong) if row is not None else (0, 0))
    assert (missing, wrong, value) != (0, 0, None) or row is None


async def test_the_same_event_twice_is_no_fault_and_another_value_for_it_is() -> None:
    buildings = {"home-1": {"userIds": ["user-1"]}}
    assert compare([line(0, 100)], buildings, [sent(0, 100), sent(0, 100)]).clean
    assert not compare([line(0, 100)], buildings, [sent(0, 100), sent(0, 101)]).clean


@pytest.mark.parametrize(("stamp", "inside"), [("end", 900), ("inside", 899), ("start", 0)])
async def test_a_slot_is_found_by_the_stamp_that_is_set_and_by_no_other(stamp: str, inside: int) -> None:
    buildings = {"home-1": {"userIds": ["user-1"]}}
    missing = {
        other: compare([line(0, 1)], buildings, [sent(0, 1, inside=at)], receiver=Receiver(stamp=stamp)).missing
        for other, at in (("end", 900), ("inside", 899), ("start", 0))
    }
    assert {other: int(other != stamp) for other in missing} == missing
    assert 0 == compare([line(0, 1)], buildings, [sent(0, 1, inside=inside)], receiver=Receiver(stamp=stamp)).missing


async def test_a_prefix_names_the_building_and_the_coverage_says_what_is_expected() -> None:
    truth = [line(0, 7, known=0.5)]
    receiver = Receiver(user_prefix="acme:", coverage=0.5)
    buildings = {name: {"userIds": ["user-1"]} for name in ("acme:user-1", "other:user-1")}
    arrived = [sent(0, 7, customerBuildingId="acme:user-1", deviceId="gateway:acme:user-1")]
    assert compare(truth, buildings, arrived, receiver=receiver).clean
    assert 1 == compare(truth, buildings, [sent(0, 7)], receiver=receiver).missing
    assert () == tuple(compare(truth, buildings, [], receiver=Receiver(user_prefix="acme:")).rows)


async def test_a_slot_is_expected_once_grace_and_spread_have_passed() -> None:
    end = SLOT + 900
    for now, due in ((end + 59.9, 0), (end + 60, 1)):
        found = compare([line(0, 1)], {}, [], receiver=Receiver(delay_s=60), now=now)
        assert (due, 1 - due) == (found.missing, found.not_due)
        assert f"not due yet: {1 - due}" in table(found)


async def test_devices_and_unlisted_users_are_found_by_their_safe_ids() -> None:
    user = "jörg müller/5"
    truth = [line(0, 7, user=user, device="hvac:abc")]
    arrived = [sent(0, 7, customerBuildingId=safe(user, 100), deviceId="hvac:abc")]
    assert 0 == compare(truth, {}, arrived).missing
    assert "j_rg_m_ller_5-" == safe(user, 100)[:14]
    assert "a" * 51 + "-" == safe("a" * 65, 64)[:52]


def mine() -> dict[str, Any]:
    return {"customerBuildingId": "user-1", "deviceId": "gateway:user-1"}


async def resident(home: Client) -> None:
    """Give the user of `line` a building."""
    await home.call("POST", "/buildings/v1", building("user-1", userIds=["user-1"]))
    await home.call("PUT", "/buildings/user-1/devices/v1", [{"id": "gateway:user-1", "type": "GATEWAY"}])


async def test_a_truth_file_is_compared_with_a_real_sandbox(home: Client, clock: Clock, tmp_path: Path) -> None:
    clock.now = SLOT + 3 * 900
    await resident(home)
    for number in range(3):
        await home.call("POST", "/events/v1", sent(number, 10.0 * number, **mine()))
    file = tmp_path / "truth.jsonl"
    file.write_text("".join(json.dumps(line(number, 10.0 * number)) + "\n" for number in range(3)))
    assert (await verify(file, home.base)).clean
    file.write_text(file.read_text() + json.dumps(line(3, 1)) + "\n")
    assert 1 == (await verify(file, home.base, patience_s=0)).missing


async def test_what_the_sandbox_finds_questionable_in_these_buildings_is_a_fault(home: Client, tmp_path: Path) -> None:
    await resident(home)
    await home.call("POST", "/buildings/v1", building("user-2"))
    for name in ("user-1", "user-2"):
        there: dict[str, Any] = {"customerBuildingId": name, "deviceId": f"gateway:{name}"}
        await home.call("POST", "/events/v1", sent(0, 1, **there, type="ENERGY_GENERATION", source="CAR"))
    file = tmp_path / "truth.jsonl"
    file.write_text(json.dumps(line(0, 1, type="ENERGY_GENERATION")) + "\n")
    found = await verify(file, home.base)
    assert ({"source": 1}, 0, 0, False) == (found.violations, found.missing, found.wrong, found.clean)
    assert "violations: source 1" in table(found)


async def test_a_place_that_is_no_sandbox_is_told_in_one_sentence(home: Client, tmp_path: Path) -> None:
    file = tmp_path / "truth.jsonl"
    file.write_text("")
    for address in (home.base + "/buildings", "http://127.0.0.1:9"):
        with pytest.raises(OSError, match="no sandbox answers at the address to verify"):
            await verify(file, address)
