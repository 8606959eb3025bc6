"""What /health says of the sender."""

from collections.abc import Callable

from bridge.sender.limits import CircuitState, Gate
from bridge.sink.token import TokenKeeper


class State:
    """A view of the parts of one sender."""

    def __init__(self, gate: Gate, tokens: TokenKeeper, clock: Callable[[], float]) -> None:
        """Look at these parts; `clock` is monotonic [s]."""
        self._gate = gate
        self._tokens = tokens
        self._clock = clock
        self.store_unavailable = False

    @property
    def circuit(self) -> str:
        """Return closed, open or half-open."""
        return self._gate.circuit.state.value

    @property
    def cause(self) -> str | None:
        """Return in a few words what keeps calls from MOOST; None = nothing."""
        return self._tokens.cause or (self._gate.circuit.cause if self.circuit != CircuitState.CLOSED else None)

    @property
    def token_expires_in_seconds(self) -> float | None:
        """Return how long the token is good; None without one."""
        return self._tokens.expires_in()

    @property
    def problems(self) -> set[str]:
        """Return what keeps calls from MOOST: `moost_auth`, `moost_customer`, `moost_unreachable`, `moost_throttled`.

        And `store`, where what became of calls cannot be written.
        """
        found: set[str] = set()
        if self._tokens.trouble is not None:
            found.add(self._tokens.trouble.value)
        if self._gate.circuit.state is not CircuitState.CLOSED:
            found.add("moost_unreachable")
        if self._gate.throttle.until > self._clock():
            found.add("moost_throttled")
        if self.store_unavailable:
            found.add("store")
        return found
