-- The buildings that the user's rows named before.
ALTER TABLE changed ADD COLUMN buildings text[];
