"""A few hours of a few homes through the real processes, with and without trouble: the same slots, each once and right.

`python -m tests.day` does the same with hundreds of homes and a whole day.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from tests.life.day import Outcome, Plan, live

HOURS: Final = 3.5
SPEED: Final = 240.0
ENERGIES: Final = (
    "ENERGY_CONSUMPTION",
    "ENERGY_EXCESS",
    "ENERGY_EXPORT",
    "ENERGY_GENERATION",
    "ENERGY_IMPORT",
    "GRID_ENERGY_CONSUMPTION",
)

Days = dict[bool, Future[Outcome]]


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Days]:
    """Live both days side by side: they take their time, but little of the machine."""
    with ThreadPoolExecutor(2) as pool:
        yield {outage: pool.submit(lived, tmp_path_factory.mktemp("day"), outage=outage) for outage in (False, True)}


def lived(folder: Path, *, outage: bool) -> Outcome:
    return live(folder, Plan(homes=8, hours=HOURS, speed=SPEED, outage=outage))


DAY_SUMS: Final = frozenset({f"{energy}_YESTERDAY" for energy in ENERGIES})


def assert_good(outcome: Outcome) -> None:
    assert [] == list(outcome.faults), f"{outcome.compared}\n{outcome.told}"
    assert {} == outcome.counts["violations"]
    assert all(f"\n{energy} " in outcome.compared for energy in ENERGIES)
    assert "missing=0 wrong=0 violations=0" in outcome.compared


def test_every_slot_of_every_type_arrives_once_and_right(days: Days) -> None:
    outcome = days[False].result()
    assert_good(outcome)
    assert 0 == outcome.counts["events"]["historical"]


def test_with_the_sandbox_down_and_the_bridge_killed_twice_the_same_arrives_by_the_right_lane(days: Days) -> None:
    outcome = days[True].result()
    assert_good(outcome)
    assert outcome.counts["events"]["historical"] > 100


def test_a_whole_day_as_one_backlog_leads_to_what_would_have_left_live(tmp_path: Path) -> None:
    """The law of arrival (M5.11): every event of every type with its value, up to the deletes, and the day's sums."""
    outcome = live(tmp_path, Plan(homes=3, hours=26, speed=5_000, seed=4, backlog=True))
    assert_good(outcome)
    rows = {words[0]: words[1:] for line in outcome.compared.splitlines() if (words := line.split())}
    assert {(True, "0", "0")} == {(int(rows[n][0]) > 0, rows[n][2], rows[n][4]) for n in DAY_SUMS}, outcome.compared
    rates = ("SELF_CONSUMPTION_RATE_YESTERDAY ", "SELF_SUFFICIENCY_RATE_YESTERDAY ")
    assert all(any(line.startswith(rate) for told in outcome.told for line in told.splitlines()) for rate in rates)
