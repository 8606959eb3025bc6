"""What happens again and again, in the log: once when trouble begins and once when it ends, or once a minute.

Rules:
- `Outage`: one line when the first room meets the trouble, one when the last is rid of it, with how long it took and
  how often it was met. An end is told once the trouble has stayed away for a while: what flaps is one outage.
- `Digest`: the first of a kind at once, then at most one line a minute and kind, with how many there were since.
- Both are bounded, whatever a sender does, and cost nothing while nothing is wrong.
"""

import time
from collections.abc import Callable, Hashable
from typing import Final

from structlog.stdlib import BoundLogger

from bridge import logs

LINE_EVERY_S: Final = 60.0
MOST_KINDS: Final = 500  # told apart by one digest
QUIET_S: Final = 1.0  # that trouble stays away for before its end is told


class Outage:
    """Trouble that several rooms may meet."""

    def __init__(
        self, log: BoundLogger, begun: str, ended: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Name the two lines; `clock` returns seconds of any origin."""
        self._log = log
        self._begun = begun
        self._ended = ended
        self._clock = clock
        self._meeting: set[str] = set()  # rooms that have met it and have not done their work since
        self._began = self._last = 0.0
        self._times = 0
        self._reason = ""

    @property
    def lasts(self) -> bool:
        """Return whether it has begun and its end was not told."""
        return self._times > 0

    def met(self, room: str, reason: str) -> None:
        """Note that a room cannot do its work."""
        now = self._clock()
        if not self._times:
            self._began = now
            self._log.warning(self._begun, room=room, reason=reason)
        self._meeting.add(room)
        self._last, self._reason = now, reason
        self._times += 1

    def over(self, room: str) -> None:
        """Note that a room has done its work."""
        if not self._times:
            return
        self._meeting.discard(room)
        now = self._clock()
        if not self._meeting and now - self._last >= QUIET_S:
            self._log.info(
                self._ended, seconds=round(now - self._began, 1), times=self._times, last_reason=self._reason
            )
            self._times = 0


def store_outage() -> Outage:
    """Return the outage of the store, of which a process has one."""
    return Outage(logs.logger("store"), "store_unavailable", "store_available")


class Digest:
    """Lines of which there may be many alike."""

    def __init__(
        self, log: BoundLogger, event: str, *fields: str, error: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """Name the line and the fields that make a kind; `clock` returns seconds of any origin."""
        self._log = log
        self._error = error
        self._event = event
        self._fields = fields
        self._clock = clock
        self._told: dict[tuple[Hashable, ...], float] = {}  # kind -> when its last line was written
        self._untold: dict[tuple[Hashable, ...], int] = {}  # kind -> how many since

    def note(self, *kind: Hashable) -> None:
        """Count one; the first of a minute is told at once."""
        if kind not in self._told and len(self._told) >= MOST_KINDS:
            kind = ("other",) * len(self._fields)
        now = self._clock()
        self._untold[kind] = self._untold.get(kind, 0) + 1
        if kind not in self._told or now - self._told[kind] >= LINE_EVERY_S:
            self._tell(kind, now)

    def tell(self) -> None:
        """Write the lines that are due; forget the kinds of which there were none for a while."""
        now = self._clock()
        for kind, at in list(self._told.items()):
            if now - at >= LINE_EVERY_S:
                if kind in self._untold:
                    self._tell(kind, now)
                else:
                    del self._told[kind]

    def _tell(self, kind: tuple[Hashable, ...], now: float) -> None:
        about = {name: value for name, value in zip(self._fields, kind, strict=True) if value is not None}
        write = self._log.error if self._error else self._log.warning
        write(self._event, **about, count=self._untold.pop(kind))
        self._told[kind] = now
