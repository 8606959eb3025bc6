"""The shared keeper: one PostgreSQL database for any number of identical bridges.

Rooms: `keeper` the promise, `connection` the way to the server, `line` transactions, `replicas` who reduces whose
messages, `inbox`, `buildings`, `queueing`, `outbox`, `work`, `desk`, `upkeep` the statements.
"""

from bridge.store.postgres.keeper import PostgresStore

__all__ = ["PostgresStore"]
