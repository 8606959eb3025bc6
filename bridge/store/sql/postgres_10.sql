-- Lanes wait in lines of a subscription and a rank (0 live events, 1 buildings and lists, 2 history): those of the first
-- owed call of the building, as it was queued. What waited before is told apart as far as that can still be known.
-- A replica of the release before takes lanes by lane_due, whosever they are.
ALTER TABLE outbox ADD COLUMN subscription text NOT NULL DEFAULT '';
ALTER TABLE outbox ADD COLUMN rank smallint NOT NULL DEFAULT 0;
UPDATE outbox SET
    subscription = coalesce((SELECT subscription FROM inbox WHERE inbox.id = outbox.cause), ''),
    rank = CASE WHEN form > 0 THEN 1 ELSE 0 END
WHERE state = 'owed';
ALTER TABLE lane ADD COLUMN subscription text COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE lane ADD COLUMN rank smallint NOT NULL DEFAULT 0;
UPDATE lane SET subscription = first.subscription, rank = first.rank
FROM (
    SELECT DISTINCT ON (building) building, subscription, rank FROM outbox WHERE state = 'owed' ORDER BY building, id
) AS first
WHERE lane.building = first.building;
CREATE INDEX lane_line ON lane (subscription, rank, due, building) WHERE due IS NOT NULL;
