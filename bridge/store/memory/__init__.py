"""The keeper that forgets at the end: for tests, the dry mapping, and as the shortest way to read the promise."""

from bridge.store.memory.keeper import MemoryStore

__all__ = ["MemoryStore"]
