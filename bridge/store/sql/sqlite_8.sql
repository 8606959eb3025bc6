-- One row: how many daemons have served the store, whether the last of them is still at work or ended without a word, by
-- which name it called the file, and which messages it takes next (JSON; null = the first that wait).
CREATE TABLE life (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    number INTEGER NOT NULL,
    running INTEGER NOT NULL,
    name TEXT NOT NULL,
    hand TEXT
);
INSERT INTO life (one, number, running, name) VALUES (1, 0, 0, '');

-- Messages that a daemon which ended without a word may have had in hand: each is taken alone. ends = in how many lives it
-- was, life = in which at last (null = it was let go of in order).
CREATE TABLE suspect (id INTEGER PRIMARY KEY, life INTEGER, ends INTEGER NOT NULL DEFAULT 0);
