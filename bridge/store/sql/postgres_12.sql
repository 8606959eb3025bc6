-- Whose turn of the clock a building takes: of the subscription that pays for what no message asks for.
-- A replica of the release before takes buildings by building_due, whosever they are.
ALTER TABLE building ADD COLUMN subscription text COLLATE "C" NOT NULL DEFAULT '';
UPDATE building SET subscription = home.subscription
FROM (SELECT building, min(subscription) AS subscription FROM home GROUP BY building) AS home
WHERE home.building = building.id;
CREATE INDEX building_turn ON building (subscription, due, id) WHERE due IS NOT NULL;
