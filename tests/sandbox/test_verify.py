"""The comparison finds what is missing, wrong or there twice."""

import json
from pathlib import Path
from typing import Any

import pytest

from bridge.sandbox.verify import Row, compare, safe, table, verify
from tests.sandbox.conftest import Client, building, event

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
    truth = [line(0, 100), line(1, 200), line(2, 300), line(3, 400, known=0.5)]
    buildings = {"home-1": {"userIds": ["user-1"]}}
    rows = compare(truth, buildings, [sent(0, 100.25), sent(1, 200), sent(1, 200, inside=899)])
    assert [
        Row(type="ENERGY_CONSUMPTION", expected=3, received=2, missing=1, repeated=1, largest_error_wh=0.25),
    ] == rows
    assert "0.250" in table(rows)


async def test_devices_and_unlisted_users_are_found_by_their_safe_ids() -> None:
    user = "jörg müller/5"
    truth = [line(0, 7, user=user, device="hvac:abc")]
    arrived = [sent(0, 7, customerBuildingId=safe(user, 100), deviceId="hvac:abc")]
    assert [0] == [row.missing for row in compare(truth, {}, arrived)]
    assert "j_rg_m_ller_5-" == safe(user, 100)[:14]
    assert "a" * 51 + "-" == safe("a" * 65, 64)[:52]


async def test_a_truth_file_is_compared_with_a_real_sandbox(home: Client, tmp_path: Path) -> None:
    await home.call("PUT", "/buildings/v1", building(userIds=["user-1"]))
    for number in range(3):
        await home.call("POST", "/events/v1", sent(number, 10.0 * number))
    file = tmp_path / "truth.jsonl"
    file.write_text("".join(json.dumps(line(number, 10.0 * number)) + "\n" for number in range(3)))
    assert [0] == [row.missing for row in await verify(file, home.base)]
    file.write_text(file.read_text() + json.dumps(line(3, 1)) + "\n")
    assert [1] == [row.missing for row in await verify(file, home.base, patience_s=0)]
