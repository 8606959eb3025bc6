-- Whose turn of the clock a building takes: of the subscription that pays for what no message asks for.
ALTER TABLE building ADD COLUMN subscription TEXT NOT NULL DEFAULT '';
UPDATE building SET subscription = home.subscription
FROM (SELECT building, min(subscription) AS subscription FROM home GROUP BY building) AS home
WHERE home.building = building.id;
DROP INDEX building_due;
CREATE INDEX building_due ON building (subscription, due, id) WHERE due IS NOT NULL;
