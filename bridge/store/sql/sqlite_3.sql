-- Copies of the building's state (MessagePack), as the tick left it: `replay` begins with one where the messages before
-- it are deleted. moved = this was no tick: the directory changed the building, which no message says.
ALTER TABLE tick ADD COLUMN moved INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tick ADD COLUMN state BLOB;
