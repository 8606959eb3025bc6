"""A minute of everything that can go wrong, at once: nothing acknowledged is lost, no order broken, every fault fires.

`make chaos` does the same for ten minutes, by any seed.
"""

from typing import Final

import pytest

from tests.chaos.conduct import Outcome, Plan, chaos

PLAN: Final = Plan(seed=4, seconds=0, homes=8, pace_s=0.5)  # every fault once, and as often as it takes to fire


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return chaos(tmp_path_factory.mktemp("chaos"), PLAN)


def test_nothing_is_lost_and_no_order_broken_whatever_goes_wrong(outcome: Outcome) -> None:
    assert [] == list(outcome.wrong), outcome.told


def test_every_fault_fired(outcome: Outcome) -> None:
    assert [] == outcome.never


def test_the_disk_was_full(outcome: Outcome) -> None:
    if outcome.impossible:
        pytest.skip("; ".join(outcome.impossible))
    assert "disk full" in [name for name, _, _ in outcome.table]
