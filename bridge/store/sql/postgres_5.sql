-- A device is (subscription, kind, id). Filled from the states, which are written anew with it: see `upgrade`.
DROP TABLE home;
CREATE TABLE home (
    subscription text NOT NULL,
    kind text NOT NULL,
    device text NOT NULL,
    building text NOT NULL,
    user_id text NOT NULL,
    PRIMARY KEY (subscription, kind, device)
);
CREATE INDEX home_user ON home (user_id);
DELETE FROM belongs;
