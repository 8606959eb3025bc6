-- Copies of the building's state (MessagePack), as the tick left it: `replay` begins with one where the messages before
-- it are deleted. moved = this was no tick: the directory changed the building, which no message says.
ALTER TABLE tick ADD COLUMN moved INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tick ADD COLUMN state BLOB;

-- With the name in it: where all are due at once, the first ones are found without sorting all of them.
DROP INDEX building_due;
CREATE INDEX building_due ON building (due, id) WHERE due IS NOT NULL;

-- A directory of a hundred thousand users is worked off in order, some at a time.
CREATE INDEX changed_change ON changed (change);
