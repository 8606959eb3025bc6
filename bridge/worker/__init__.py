"""From the inbox to state and outbox: what was accepted is decoded, reduced and written in one transaction.

Rooms: `room` the loop and its transactions, `step` one batch on its way through the core.
"""

from bridge.worker.room import Worker
from bridge.worker.step import Step

__all__ = ["Step", "Worker"]
