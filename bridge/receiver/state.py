"""What all connections share: their limits, their places, and how much of what they sent waits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from typing import Final

from starlette.types import Scope
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.server import ServerState

from bridge.config.fields import Network
from bridge.limits import Limit
from bridge.receiver.addresses import is_proxy, payer
from bridge.receiver.callers import Callers
from bridge.receiver.places import Places

HEALTH: Final = frozenset({"/health", "/health/live", "/health/ready"})


class Phase(IntEnum):
    """Where the parser is."""

    BETWEEN = 0  # no message has begun
    HEADER = 1
    BODY = 2
    REFUSED = 3  # the last word is said; what still comes is thrown away


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a connection may take."""

    header_bytes: int = 32 * 2**10  # trailers included
    header_fields: int = 128  # trailers included
    header_time: timedelta = timedelta(seconds=5)
    body_bytes: int = 8 * 2**20 + 64 * 2**10  # on the wire, chunk marks included
    body_time: timedelta = timedelta(seconds=10)
    answer_time: timedelta = timedelta(seconds=10)  # for a client that does not read
    idle_time: timedelta = timedelta(seconds=75)  # longer than the 60 s of common proxies, so that they close first
    linger_time: timedelta = timedelta(seconds=2)  # from a refusal to the end
    connections: int = 4_096
    connections_per_address: int = 512


class DoorState(ServerState):
    """What all connections of a server share."""

    def __init__(
        self,
        limits: Limits,
        refused: Callable[[int], None],
        reached: Callable[[Limit, str], None],
        callers: Callers,
        trusted: Sequence[Network] = (),
    ) -> None:
        """`refused` is told the status of every refusal, `reached` each limit that was reached and by whom."""
        super().__init__()
        self.limits = limits
        self.refused = refused
        self.reached = reached
        self.callers = callers
        self.trusted = trusted
        self.places = Places(limits.connections, limits.connections_per_address)
        self.ahead = 0  # requests of all connections that wait behind another one

    def is_welcome(self, scope: Scope) -> bool:
        """Return whether a request is answered though there is no place for its connection."""
        if scope["path"] in HEALTH:
            return True
        who = payer(scope, self.trusted)
        return not is_proxy(who) and self.callers.is_known(who)


class Flow(FlowControl):
    """Reading that stays paused while bytes wait that were read already."""

    held = False

    def hold(self) -> None:
        """Read no more until it is let go."""
        self.held = True
        self.pause_reading()

    def let_go(self) -> None:
        """Read on."""
        self.held = False
        self.resume_reading()

    def resume_reading(self) -> None:
        """Read on, unless bytes wait."""
        if not self.held:
            super().resume_reading()
