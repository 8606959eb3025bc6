"""The embedded keeper: one file beside the bridge."""

from bridge.store.sqlite.keeper import SqliteStore

__all__ = ["SqliteStore"]
