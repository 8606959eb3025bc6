-- The ticks that buildings have had, for `replay`: they close slots, so what was in a slot depends on them.
-- after = every message up to this id had been processed before, no later one.
CREATE TABLE tick (
    id INTEGER PRIMARY KEY,
    building TEXT NOT NULL,
    after INTEGER NOT NULL,
    at INTEGER NOT NULL,
    catching_up INTEGER NOT NULL
);
CREATE INDEX tick_building ON tick (building, id);
