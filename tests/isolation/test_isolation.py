"""A few rows of the lab, shortly: that it runs, that it sees an honest bridge, and that it would see a broken promise.

`make isolation` runs all of them; how fast the canary is answered is judged there, on a quiet machine.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from tests.isolation.__main__ import ROWS
from tests.isolation.ground import grounds
from tests.isolation.row import Attack, Result, Row, measure
from tests.isolation.wire import signed

LINES: Final = range(1, 16)
OF_TIME: Final = re.compile(r"(p99|event) \d")  # what a busy machine does, too


def measured(row: Row, folder: Path) -> Result:
    with grounds(folder, "sqlite") as ground:
        assert ground is not None
        return measure(row, ground, idle_s=1.0, seconds=2.0)


def row(name: str) -> Row:
    return next(one for one in ROWS if one.name == name)


def test_every_line_of_the_promise_has_a_row() -> None:
    assert {str(line) for line in LINES} == {one.name.rstrip("abcd") for one in ROWS}
    assert len(ROWS) == len({one.name for one in ROWS})
    assert ["8a", "8b", "8c", "8d"] == [one.name for one in ROWS if one.wanted(["8"])]


@pytest.mark.parametrize("name", ["6", "14"])
def test_a_canary_beside_an_attack_is_served_and_untouched(name: str, tmp_path: Path) -> None:
    result = measured(row(name), tmp_path)
    assert [] == [each for each in result.wrong if not OF_TIME.match(each)]
    assert 0 < result.p99_idle_ms
    assert 0 < result.sent_mb
    assert 0 < result.event_s


async def _as_the_canary(attack: Attack) -> None:
    """Say of a canary's car what the canary never said."""
    said = {"id": "car-0", "userId": "home-0", "chargeState": {"stateOfCharge": 99.999, "chargingState": "UNPLUGGED"}}
    async with attack.lines.line() as line:
        for _ in range(3):
            assert (await line.ask(signed("vehicle.update", said, "canary"))).status == 202


def test_a_bridge_that_let_others_write_would_be_seen(tmp_path: Path) -> None:
    result = measured(replace(row("7"), attack=_as_the_canary), tmp_path)
    assert ["values of the canary that it never sent: ['c-home-0 99.999']"] == [
        each for each in result.wrong if not OF_TIME.match(each)
    ]
