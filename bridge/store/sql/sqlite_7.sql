-- The rows that name a building: what one of them no longer says may be said by another.
CREATE INDEX residence_building ON residence (building);
-- The buildings that the user's rows named before (JSON).
ALTER TABLE changed ADD COLUMN buildings TEXT;
