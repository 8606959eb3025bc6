"""The memory: one promise (`port`), several keepers (`sqlite`, `memory`, later `postgres`)."""
