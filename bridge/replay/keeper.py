"""What a replay needs of a store."""

from collections.abc import Sequence
from typing import Protocol

from bridge.core.vocabulary import DeviceKey
from bridge.store.desk import Desk
from bridge.store.port import Census, Loaded, Work


class Keeper(Desk, Protocol):
    """The desk, and of the worker's side what tells homes and takes calls."""

    async def load(self, users: Sequence[str], devices: Sequence[DeviceKey], buildings: Sequence[str]) -> Loaded:
        """Read directory rows, homes and states."""

    async def commit(self, work: Work) -> Sequence[str]:
        """Write a step of work."""

    async def census(self) -> Census:
        """Return the counts."""
