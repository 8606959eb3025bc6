-- Lanes wait in lines of a subscription and a rank (0 live events, 1 buildings and lists, 2 history): those of the first
-- owed call of the building, as it was queued. What waited before is told apart as far as that can still be known.
ALTER TABLE outbox ADD COLUMN subscription TEXT NOT NULL DEFAULT '';
ALTER TABLE outbox ADD COLUMN rank INTEGER NOT NULL DEFAULT 0;
UPDATE outbox SET
    subscription = coalesce((SELECT subscription FROM inbox WHERE inbox.id = outbox.cause), ''),
    rank = CASE WHEN form > 0 THEN 1 ELSE 0 END
WHERE state = 'owed' AND building IN (SELECT building FROM lane WHERE due IS NOT NULL OR lent_until IS NOT NULL);
ALTER TABLE lane ADD COLUMN subscription TEXT NOT NULL DEFAULT '';
ALTER TABLE lane ADD COLUMN rank INTEGER NOT NULL DEFAULT 0;
UPDATE lane SET subscription = first.subscription, rank = first.rank
FROM (
    SELECT building, subscription, rank, min(id) FROM outbox
    WHERE state = 'owed' AND building IN (SELECT building FROM lane WHERE due IS NOT NULL OR lent_until IS NOT NULL)
    GROUP BY building
) AS first
WHERE lane.building = first.building;
DROP INDEX lane_due;
CREATE INDEX lane_due ON lane (subscription, rank, due, building) WHERE due IS NOT NULL;
