"""Faults of MOOST: all that its look-alike can do wrong, and its end."""

import random
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.chaos.fault import Fault, Needs
from tests.chaos.scene import MOOST_TIMEOUT_S, Scene, seen
from tests.life.stage import Table

EVENTS: Final = "/events"
TOKEN: Final = "/auth"
REVOKED: Final[Table] = {"kind": "revoke_tokens", "times": 1}  # so that a token is wanted at all


_UNANSWERED: Final = re.compile(r'call_attempts_total\{[^}]*outcome="(?:not-sent|lost-reply)"[^}]*\} (\S+)')


@dataclass(frozen=True, kw_only=True)
class Row:
    """A fault that the look-alike knows."""

    name: str
    faults: Sequence[Table]
    enough: int = 3  # fired so often, it may end
    longest_s: float = 15.0
    counts: slice = field(default_factory=lambda: slice(None))  # which of the faults are what it is about


ROWS: Final = (
    Row(name="slow", faults=[{"kind": "latency", "seconds": 0.7}], enough=8),
    Row(
        name="slower than the timeout",
        faults=[{"kind": "latency", "seconds": MOOST_TIMEOUT_S + 1, "path": EVENTS, "times": 4}],
        enough=4,
    ),
    Row(name="401", faults=[{"kind": "status", "status": 401, "path": EVENTS, "times": 5}], enough=5),
    Row(name="403", faults=[{"kind": "status", "status": 403, "path": EVENTS, "times": 2}], enough=2),
    Row(name="429", faults=[{"kind": "status", "status": 429, "path": EVENTS, "times": 4}], enough=4),
    Row(
        name="429, Retry-After in seconds",
        faults=[{"kind": "status", "status": 429, "retry_after": 1, "path": EVENTS, "times": 2}],
        enough=2,
    ),
    Row(
        name="429, Retry-After as a date",
        faults=[{"kind": "status", "status": 429, "retry_after": 1, "as_date": True, "path": EVENTS, "times": 2}],
        enough=2,
    ),
    Row(name="500", faults=[{"kind": "status", "status": 500, "probability": 0.4}], enough=6),
    Row(
        name="503 with Retry-After",
        faults=[{"kind": "status", "status": 503, "retry_after": 1, "times": 3}],
        enough=3,
    ),
    Row(name="closes before it stores", faults=[{"kind": "close_before", "path": EVENTS, "probability": 0.5}]),
    Row(name="closes after it stores", faults=[{"kind": "close_after", "path": EVENTS, "probability": 0.5}]),
    Row(name="outage window", faults=[{"kind": "outage", "starts_in": 0.3, "lasts": 2.0}], enough=10, longest_s=2.5),
    Row(name="writes a part of an array", faults=[{"kind": "partial", "keep": 2, "times": 3}], enough=2),
    Row(
        name="gives no token",
        faults=[REVOKED, {"kind": "status", "status": 500, "path": TOKEN, "times": 2}],
        enough=2, counts=slice(1, None),
    ),
    Row(name="revokes tokens", faults=[{"kind": "revoke_tokens", "probability": 0.1, "times": 5}]),
    Row(
        name="tokens of two seconds",
        faults=[REVOKED, {"kind": "expires_in", "expires_in": 2}],
        enough=2, counts=slice(1, None),
    ),
)  # fmt: skip


class Unwilling(Fault):
    """MOOST answers as one row of the table says."""

    needs = frozenset({Needs.MOOST})

    def __init__(self, row: Row) -> None:
        """Take the row."""
        super().__init__()
        self.row = row
        self.name = f"MOOST: {row.name}"

    def inject(self, scene: Scene, dice: random.Random) -> int:
        """Switch it on until it has fired often enough, or time is over."""
        scene.platform.faults(*self.row.faults)
        seen(lambda: self._fired(scene) >= self.row.enough, self.row.longest_s)
        time.sleep(dice.uniform(0, 0.5))
        fired = self._fired(scene)
        scene.platform.faults()
        return fired

    def _fired(self, scene: Scene) -> int:
        return sum(scene.platform.fires()[self.row.counts])


class Forgets(Fault):
    """MOOST says of one event that it knows no such building: building and list are sent again, then the event."""

    name = "MOOST: unknown building"
    needs = frozenset({Needs.MOOST})

    def inject(self, scene: Scene, dice: random.Random) -> int:
        """Refuse one event of a home to which this has not happened yet: a second refusal would bury it."""
        homes = scene.crowd.town.steady
        home = homes[self.injected % len(homes)]
        fault = {"kind": "status", "status": 400, "path": "/events", "building": f"^{home.user}$", "times": 1}
        scene.platform.faults(fault)
        seen(lambda: sum(scene.platform.fires()), 15)
        fired = sum(scene.platform.fires())
        scene.platform.faults()
        return fired


class PlatformKilled(Fault):
    """MOOST ends without a word, and comes back with all it had, but for its tokens."""

    name = "MOOST: killed and restarted"
    needs = frozenset({Needs.MOOST})

    def inject(self, scene: Scene, dice: random.Random) -> int:
        """Kill it; the bridge has to notice."""
        before = _unanswered(scene)  # what was on the wire is lost at once, and the circuit may open with it
        scene.platform.kill()
        fired = seen(lambda: _unanswered(scene) > before, 8)
        time.sleep(dice.uniform(0, 1.5))
        scene.platform.start()
        return fired


def _unanswered(scene: Scene) -> float:
    """Return how many calls of the daemons' present lives got no answer."""
    told = "".join(one.metrics() for one in scene.replicas)
    return sum(float(number) for number in _UNANSWERED.findall(told))


def faults() -> list[Fault]:
    """Return all of them."""
    return [*(Unwilling(row) for row in ROWS), Forgets(), PlatformKilled()]
