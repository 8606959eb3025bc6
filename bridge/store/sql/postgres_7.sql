-- What tells this store from every other one: a session that comes to another one is given up.
ALTER TABLE bridge ADD COLUMN identity uuid NOT NULL DEFAULT gen_random_uuid();
