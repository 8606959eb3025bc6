"""The memory: two promises (`port` to the rooms, `desk` to the commands) and several keepers of both."""
