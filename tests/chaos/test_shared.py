"""Everything that can go wrong with three replicas on one PostgreSQL server, in a minute, with leases of some seconds.

`make chaos STORE=postgresql` does the same for ten minutes with the leases of life, by any seed, and turns the clocks.
"""

from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Final

import pytest

from bridge.sandbox.database import MISSING, binaries
from tests.chaos.conduct import STORES, Outcome, Plan, chaos
from tests.chaos.keeping import Shared

PLAN: Final = Plan(seed=4, seconds=0, homes=8, pace_s=0.5, store="postgresql", clocks=False)
LEASE: Final = timedelta(seconds=8)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    if binaries() is None:
        pytest.skip(MISSING)
    ground = replace(STORES[PLAN.store], keeping=partial(Shared, lease=LEASE))
    return chaos(tmp_path_factory.mktemp("chaos"), PLAN, ground=ground)


def test_three_replicas_lose_nothing_and_break_no_order_whatever_goes_wrong(outcome: Outcome) -> None:
    assert [] == list(outcome.wrong), outcome.told


def test_every_fault_of_the_replicas_fired(outcome: Outcome) -> None:
    assert [] == outcome.never
