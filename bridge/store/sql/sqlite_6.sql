-- A device is (subscription, kind, id). Filled from the states, which are written anew with it: see `upgrade`.
DROP TABLE home;
CREATE TABLE home (
    subscription TEXT NOT NULL,
    kind TEXT NOT NULL,
    device TEXT NOT NULL,
    building TEXT NOT NULL,
    user TEXT NOT NULL,
    PRIMARY KEY (subscription, kind, device)
) WITHOUT ROWID;
CREATE INDEX home_user ON home (user);
