"""Flags in the log: bounded, whatever senders do."""

import time

import pytest
from structlog.testing import capture_logs

from bridge.core.findings import marked
from bridge.core.model import Building, Flag
from bridge.core.rules import Rules
from bridge.findings import Findings


def test_a_minute_has_a_hundred_lines_at_most_and_says_how_many_it_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    findings = Findings(Rules())
    clear = Building(id="b")
    flagged = marked(clear, Flag.UNIT_JUMP, on=True, about=("sub-1/meter:m-1",))
    with capture_logs() as logged:
        for _ in range(75):
            findings.tell(clear, flagged)
            findings.tell(flagged, clear)
            findings.tell(flagged, flagged)
        assert 100 == len(logged)
        now += 60.0
        findings.tell(None, flagged)
    assert ["building_flags_left_out", "building_flagged"] == [line["event"] for line in logged[100:]]
    assert 50 == logged[100]["lines"]
