"""Flags of buildings in the log: one line when one is set, one when it is cleared.

Rules:
- A line names the building, the flag, what is wrong and the setting that would mend it.
- Whatever a sender does, the log has at most `MOST_LINES` such lines a minute; how many were left out is one more line.
"""

import time
from typing import Final

from bridge import logs
from bridge.core.findings import changes, finding
from bridge.core.model import Building
from bridge.core.rules import Rules

MOST_LINES: Final = 100  # a minute
MINUTE_S: Final = 60.0

_log = logs.logger("buildings")


class Findings:
    """What one room tells of the buildings that it changes."""

    def __init__(self, rules: Rules) -> None:
        """Begin with a full minute's lines."""
        self._rules = rules
        self._since = time.monotonic()
        self._lines = 0

    def tell(self, before: Building | None, after: Building) -> None:
        """Write a line for each flag that was set or cleared."""
        if before is not None and before.flags is after.flags and before.about is after.about:
            return  # nearly always
        for flag, on in changes(before, after):
            if not self._may_speak():
                continue
            if on:
                found = finding(after, flag, self._rules)
                _log.warning(
                    "building_flagged", building=after.id, flag=flag, problem=found.problem, setting=found.setting
                )
            else:
                _log.info("building_cleared", building=after.id, flag=flag)

    def _may_speak(self) -> bool:
        """Count a line; tell whether it may be written."""
        now = time.monotonic()
        if now - self._since >= MINUTE_S:
            if self._lines > MOST_LINES:
                _log.warning("building_flags_left_out", lines=self._lines - MOST_LINES)
            self._since, self._lines = now, 0
        self._lines += 1
        return self._lines <= MOST_LINES
