"""New dead letters in the log: number, reason, MOOST's status.

Rules:
- A process tells of what became a dead letter in it, whoever shares its store. The rooms note ids with the metrics; the
  store knows the numbers, and is asked for them afterwards.
- A burst is a few lines: `MOST_LINES` a minute and reason, then how many more there were.
- A line names no household and repeats nothing of a message: `dead-letters show NUMBER` does.
"""

import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

from bridge import logs
from bridge.metrics import Metrics
from bridge.repeated import Digest
from bridge.store.desk import DeadFilter, DeadLetter, Desk
from bridge.store.port import StoreUnavailable

MOST_LINES: Final = 10
PAGE: Final = 100  # letters read at a time
MOST_PAGES: Final = 10  # at a look
MINUTE_S: Final = 60.0
_STATUS: Final = re.compile(r"MOOST answered (\d{3})")

_log = logs.logger("dead_letters")


class DeadLetterLog:
    """What one process tells of its dead letters."""

    def __init__(self, desk: Desk, metrics: Metrics, now: Callable[[], datetime]) -> None:
        """Tell of what dies from now on; the rooms note its ids with the metrics."""
        self._desk = desk
        self._metrics = metrics
        self._since = now() - timedelta(seconds=1)
        self._last = 0  # number of the newest letter looked at
        self._minute = 0.0
        self._lines: dict[str, int] = {}  # reason -> lines in this minute
        self._more = Digest(_log, "dead_letters_more", "reason", "moost_status")

    async def look(self) -> None:
        """Tell of what was noted, as far as the store has it by now."""
        self._more.tell()
        if not self._metrics.dead_messages and not self._metrics.dead_calls:
            return
        found: list[DeadLetter] = []
        with suppress(StoreUnavailable):
            for _ in range(MOST_PAGES):
                page = await self._desk.dead_letters(DeadFilter(since=self._since), self._last, PAGE)
                found += [letter for letter in page if self._is_ours(letter)]
                if not page:
                    break
                self._last = page[-1].id
        for letter in found:
            self._tell(letter)
        self._forget(found)

    def _is_ours(self, letter: DeadLetter) -> bool:
        return letter.message_id in self._metrics.dead_messages or letter.call_id in self._metrics.dead_calls

    def _forget(self, told: Sequence[DeadLetter]) -> None:
        """Let go of what was told of."""
        messages, calls = ({getattr(letter, name) for letter in told} for name in ("message_id", "call_id"))
        for noted, gone in ((self._metrics.dead_messages, messages), (self._metrics.dead_calls, calls)):
            left = [number for number in noted if number not in gone]
            noted.clear()
            noted.extend(left)

    def _tell(self, letter: DeadLetter) -> None:
        found = _STATUS.search(letter.detail)
        status = int(found[1]) if found else None
        now = time.monotonic()
        if now - self._minute >= MINUTE_S:
            self._minute, self._lines = now, {}
        reason = letter.reason.value
        self._lines[reason] = self._lines.get(reason, 0) + 1
        if self._lines[reason] > MOST_LINES:
            self._more.note(reason, status)
            return
        about = {"moost_status": status, "message": letter.message_id, "call": letter.call_id}
        known = {name: value for name, value in about.items() if value is not None}
        _log.warning("dead_letter", number=letter.id, reason=reason, subscription=letter.subscription, **known)
