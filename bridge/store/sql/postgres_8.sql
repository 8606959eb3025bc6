-- Messages that a replica which ended without a word may have had in hand are taken one by one. suspect = 0: not yet, or
-- let go of in order, else by which replica; ends = by how many. They wait like others, and the mark goes with the row.
ALTER TABLE waiting ADD COLUMN suspect bigint;
ALTER TABLE waiting ADD COLUMN ends smallint NOT NULL DEFAULT 0;
CREATE INDEX waiting_suspect ON waiting (bucket) WHERE suspect IS NOT NULL;

-- Which messages the worker of a replica takes next, in the row of its line; null = the first that wait.
ALTER TABLE counter ADD COLUMN hand bigint[];
