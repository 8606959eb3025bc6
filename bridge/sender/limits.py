"""How many calls may be on the wire: concurrency, circuit, throttle and budget.

Rules:
- Concurrency adapts to the platform: one more while answers come no slower than before and the limit was reached, a
  tenth less when they get slower, by more than noise, or fail. Smoothed over rounds of one mean answer time.
- The circuit opens when calls fail one after the other. While it is open one call at a time probes, at most 5 s apart,
  a hanging probe does not hold up the next. Any answer that is not trouble closes it.
- Where all of the failures are of one building that could be reached, it may be the building's own trouble: the circuit
  is told open, and keeps no other building from trying. The waits of the one are its probes.
- A 429 stops everything for 1 s, doubled to 30 s until a call gets through, and for at least as long as it says. Then
  one call tries it, and the others follow when it got through.
- The budget is a pace, not a bucket: calls are spread evenly over each second.
- Where there are several subscriptions, one has at most three quarters of the calls on the wire: calls that hang keep
  nobody else's waiting. The limit counts as reached where one of them has all of these.
- Times are seconds of a monotonic clock, handed in.

Source: Vector, "Adaptive Request Concurrency" (decrease 0.9, EWMA 0.4, deviation scale 2.5, one step per round).
"""

import math
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

FIRST_LIMIT: Final = 4
SHARE: Final = 3 / 4  # of the calls on the wire for one subscription, where there are several
_EWMA: Final = 0.4
_DECREASE: Final = 0.9
_DEVIATIONS: Final = 2.5
_NOISE_SECONDS: Final = 0.01
"""A difference in answer times that says nothing of the platform: our own event loop is as busy as that.

Measured against a look-alike that answers in 1 ms, sender and disk on one busy core: without it the limit stays at 5 to
10 calls and 970 events/s leave, with it at 32 and 2,700.
"""

_FAILURES_TO_OPEN: Final = 5
_FIRST_PROBE_SECONDS: Final = 0.5
_LONGEST_PROBE_SECONDS: Final = 5.0

_FIRST_THROTTLE_SECONDS: Final = 1.0
_LONGEST_THROTTLE_SECONDS: Final = 30.0

_BURST_SECONDS: Final = 0.05  # of the budget: what a turn of the loop may catch up on


class Concurrency:
    """The adaptive limit of calls on the wire."""

    def __init__(self, highest: int, *, several: bool = False) -> None:
        """Start low; `several` = there are several subscriptions."""
        self.highest = highest
        self.several = several
        self._mean: float | None = None
        self._variance = 0.0
        self.reset()

    def reset(self) -> None:
        """Begin anew, as after an outage."""
        self.limit = min(FIRST_LIMIT, self.highest)
        self._round_ends: float | None = None
        self._sum = 0.0
        self._count = 0
        self._pressed = False
        self._reached = False

    @property
    def share(self) -> int:
        """Return how many calls of one subscription may be on the wire."""
        return max(1, int(self.limit * SHARE)) if self.several else self.limit

    def observe(self, seconds: float, on_wire: int, at: float, *, pressed: bool) -> None:
        """Take note of one answer: how long it took, and whether it was a sign of overload."""
        self._pressed |= pressed
        self._reached |= on_wire >= self.share
        if not pressed:
            self._sum += seconds
            self._count += 1
        if self._round_ends is None:
            self._round_ends = at + seconds
        elif at >= self._round_ends:
            self._close_round(at)

    def _close_round(self, at: float) -> None:
        current = self._sum / self._count if self._count else None
        self._adjust(current)
        if current is not None:
            self._learn(current)
        self._round_ends = at + (self._mean or 0.0)
        self._sum, self._count = 0.0, 0
        self._pressed = self._reached = False

    def _adjust(self, current: float | None) -> None:
        mean = self._mean if self._mean is not None else current
        margin = max(_NOISE_SECONDS, _DEVIATIONS * math.sqrt(self._variance))
        slow = mean is not None and current is not None and current >= mean + margin
        if self._pressed or slow:
            self.limit = max(1, int(self.limit * _DECREASE))
        elif self._reached and current is not None and mean is not None and current <= mean + _NOISE_SECONDS:
            self.limit = min(self.highest, self.limit + 1)

    def _learn(self, current: float) -> None:
        if self._mean is None:
            self._mean = current
            return
        off = current - self._mean
        self._mean += _EWMA * off
        self._variance = (1 - _EWMA) * (self._variance + _EWMA * off * off)


class CircuitState(StrEnum):
    """What /health says of the circuit."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A call that failed."""

    building: str
    connected: bool  # there was a connection
    cause: str  # in a few words


class Circuit:
    """Keeps calls off a platform that is away."""

    def __init__(self) -> None:
        """Start closed."""
        self.failures = 0  # since the last success
        self._alone: str | None = (
            None  # the one building whose calls failed; None = there are several, or no connection
        )
        self._open = False
        self._probing = False
        self._wait = _FIRST_PROBE_SECONDS
        self.probe_at = 0.0
        self.opened_at = 0.0
        self.cause = ""  # of the last failure

    @property
    def state(self) -> CircuitState:
        """Return the state in the words of /health."""
        if not self._open:
            return CircuitState.CLOSED
        return CircuitState.HALF_OPEN if self._probing else CircuitState.OPEN

    @property
    def holds_back(self) -> bool:
        """Return whether only probes may go."""
        return self._open and self._alone is None

    def worked(self) -> bool:
        """Note an answer that is not trouble; returns whether that closed the circuit."""
        closed = self._open
        self._open = self._probing = False
        self.failures = 0
        self._alone = None
        self._wait = _FIRST_PROBE_SECONDS
        self.cause = ""
        return closed

    def failed(self, call: Failed, at: float) -> bool:
        """Note a failure; returns whether that opened the circuit."""
        held_back = self.holds_back
        if not call.connected or (self.failures and self._alone != call.building):
            self._alone = None
        elif not self.failures:
            self._alone = call.building
        self.failures += 1
        self.cause = call.cause
        self._probing = False
        opens = not self._open and self.failures >= _FAILURES_TO_OPEN
        if opens:
            self._open, self.opened_at = True, at
        if self.holds_back and not held_back:
            self.probe_at = at + self._wait
        return opens

    def probed(self, at: float) -> None:
        """Note that a probe goes out."""
        self._probing = True
        self._wait = min(_LONGEST_PROBE_SECONDS, self._wait * 2)
        self.probe_at = at + self._wait


class Throttle:
    """Stops everything for as long as the platform asks."""

    def __init__(self) -> None:
        """Start free."""
        self.until = 0.0
        self._wait = _FIRST_THROTTLE_SECONDS

    @property
    def lasts(self) -> bool:
        """Return whether no call has got through since the last 429."""
        return self._wait > _FIRST_THROTTLE_SECONDS

    def worked(self) -> None:
        """Note that a call got through."""
        self._wait = _FIRST_THROTTLE_SECONDS

    def throttled(self, delay: float | None, at: float) -> None:
        """Note a 429; the wait doubles, once per wait, and is never shorter than the platform's own delay."""
        if at >= self.until:
            self.until = at + self._wait
            self._wait = min(_LONGEST_THROTTLE_SECONDS, self._wait * 2)
        if delay is not None:
            self.until = max(self.until, at + delay)


class Budget:
    """An even pace of at most `rate` calls per second; 0 = no limit."""

    def __init__(self, rate: float) -> None:
        """Start with nothing used."""
        self._rate = rate
        self._next = 0.0  # when the next call is due

    def free(self, at: float) -> int | None:
        """Return how many calls may go now; None = any number."""
        if not self._rate:
            return None
        earliest = at - _BURST_SECONDS
        return max(0, math.floor((at - max(self._next, earliest)) * self._rate) + 1) if self._next <= at else 0

    def use(self, calls: int, at: float) -> None:
        """Count calls that go now."""
        if self._rate:
            self._next = max(self._next, at - _BURST_SECONDS) + calls / self._rate

    @property
    def opens_at(self) -> float:
        """Return when the next call may go."""
        return self._next


@dataclass(slots=True)
class Served:
    """Which buildings were served last: tells a failing building from a failing platform."""

    last: tuple[str, datetime] | None = None
    before: tuple[str, datetime] | None = None  # the last one of another building

    def note(self, building: str, now: datetime) -> None:
        """Note that a building was served."""
        if self.last is not None and self.last[0] != building:
            self.before = self.last
        self.last = (building, now)

    def other_than(self, building: str) -> datetime | None:
        """Return when another building was last served."""
        if self.last is not None and self.last[0] != building:
            return self.last[1]
        return None if self.before is None else self.before[1]


class Gate:
    """All limits together."""

    def __init__(self, max_concurrency: int, requests_per_second: float, *, several: bool = False) -> None:
        """Start closed to none; `several` = there are several subscriptions."""
        self.concurrency = Concurrency(max_concurrency, several=several)
        self.circuit = Circuit()
        self.throttle = Throttle()
        self.budget = Budget(requests_per_second)

    def room(self, on_wire: int, at: float) -> int:
        """Return how many calls may begin now."""
        if at < self.throttle.until:
            return 0
        if self.circuit.holds_back:
            free = 1 if at >= self.circuit.probe_at else 0
        else:
            limit = 1 if self.throttle.lasts else self.concurrency.limit
            free = max(0, limit - on_wire)
        paced = self.budget.free(at)
        return free if paced is None else min(free, paced)

    def opens_at(self, at: float) -> float | None:
        """Return when to look again if there is no room now; None = when a call ends."""
        times = [time for time in (self.throttle.until, self.budget.opens_at) if time > at]
        if self.circuit.holds_back:
            times.append(self.circuit.probe_at)
        return max(times, default=None)

    def begun(self, calls: int, at: float) -> None:
        """Count calls that go on the wire."""
        self.budget.use(calls, at)
        if self.circuit.holds_back:
            self.circuit.probed(at)

    def worked(self, seconds: float, on_wire: int, at: float) -> bool:
        """Note an answer that is not trouble; returns whether the platform is back from an outage."""
        self.throttle.worked()
        if self.circuit.worked():
            self.concurrency.reset()
            return True
        self.concurrency.observe(seconds, on_wire, at, pressed=False)
        return False

    def troubled(self, seconds: float, on_wire: int, at: float) -> None:
        """Note trouble: the platform may be overloaded."""
        self.concurrency.observe(seconds, on_wire, at, pressed=True)

    def throttled(self, delay: float | None, seconds: float, on_wire: int, at: float) -> None:
        """Note a 429."""
        self.concurrency.observe(seconds, on_wire, at, pressed=True)
        self.throttle.throttled(delay, at)
