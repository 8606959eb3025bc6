"""Three replicas on one database say what one process on a file says, event by event and field by field.

`python -m tests.day --replicas 3` lives a whole day of many homes that way, judged by itself.
"""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import Final

import pytest

from bridge.sandbox.database import MISSING, binaries
from tests.life.day import Outcome, Plan, live
from tests.life.judge import Event

LEAD: Final = timedelta(seconds=40)  # for the daemons to come up; with another lead their days would not be the same
FIELDS: Final = ("customerId", "customerBuildingId", "deviceId", "deviceName", "source", "type", "value", "timestamp")


def told(event: Event) -> tuple[object, ...]:
    assert set(FIELDS) <= set(event)
    return tuple(event[name] for name in FIELDS)


@pytest.mark.skipif(binaries() is None, reason=MISSING)
def test_three_replicas_say_what_one_process_says_every_field_equal(tmp_path: Path) -> None:
    anchors: list[datetime] = []
    together = Barrier(2, lambda: anchors.append(datetime.now(UTC) + LEAD), timeout=120)

    def begins() -> datetime:
        together.wait()
        return anchors[0]

    def lived(replicas: int) -> Outcome:
        folder = tmp_path / str(replicas)
        folder.mkdir()
        return live(folder, Plan(homes=6, hours=2, speed=180, replicas=replicas), begins=begins)

    with ThreadPoolExecutor(2) as pool:
        one, three = pool.map(lived, (1, 3))
    for outcome in (one, three):
        assert [] == list(outcome.faults), f"{outcome.compared}\n{outcome.told}"
    assert len(one.events) > 400
    assert Counter(map(told, one.events)) == Counter(map(told, three.events))
