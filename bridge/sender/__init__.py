"""Leases lanes from the outbox, delivers, settles.

Rooms: `room` the loop and its one transaction at a time, `hand` the lanes in hand, `lanes` what a lane sends next,
`exchange` one call on the wire, `results` what an outcome does, `limits` how many calls may be on the wire,
`stuck` second chances, `state` what /health says.
"""

from bridge.sender.room import Sender
from bridge.sender.state import State

__all__ = ["Sender", "State"]
