-- The first schema of the embedded store.
-- Times are milliseconds since 1970, UTC. Ids come from the ledger's high-water marks, never from SQLite.

-- One row: all counts (JSON, see ledger.py), and whether the store belongs to a dry run (null = not yet decided).
CREATE TABLE bridge (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    dry INTEGER,
    ledger TEXT NOT NULL
);

-- The log of raw messages. Rows are added at the end, deleted by retention, never changed.
CREATE TABLE inbox (
    id INTEGER PRIMARY KEY,
    subscription TEXT NOT NULL,
    topic TEXT NOT NULL,
    received INTEGER NOT NULL,
    message_id TEXT,
    position INTEGER NOT NULL,
    body BLOB NOT NULL
);

-- What has been accepted, to know a repeat. The sender's id comes first: most senders' ids grow with time.
CREATE TABLE seen (
    message_id TEXT NOT NULL,
    subscription TEXT NOT NULL,
    position INTEGER NOT NULL,
    digest BLOB NOT NULL,
    message INTEGER NOT NULL,
    PRIMARY KEY (message_id, subscription, position, digest)
) WITHOUT ROWID;

-- Ids beyond the cursor that need no processing any more.
CREATE TABLE ahead (id INTEGER PRIMARY KEY);

-- Ids that wait once more: unparked, or retried dead letters. Read before the log.
CREATE TABLE again (id INTEGER PRIMARY KEY);

-- Ids that wait for the directory.
CREATE TABLE parked (id INTEGER PRIMARY KEY, user TEXT NOT NULL);
CREATE INDEX parked_user ON parked (user, id);

-- Ids whose dead letter was discarded.
CREATE TABLE discarded (id INTEGER PRIMARY KEY);

-- Which messages were a user's, one row per step of the worker: a JSON object of id and user.
CREATE TABLE owner (last INTEGER PRIMARY KEY, users TEXT NOT NULL);

-- Dead messages (message) and dead items of calls (call, item).
CREATE TABLE letter (
    id INTEGER PRIMARY KEY,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    answer TEXT NOT NULL DEFAULT '',
    at INTEGER NOT NULL,
    user TEXT,
    message INTEGER,
    call INTEGER,
    cause INTEGER,
    form INTEGER,
    building TEXT,
    item BLOB
);
CREATE INDEX letter_message ON letter (message) WHERE message IS NOT NULL;

-- Remarks on a message, for `explain`.
CREATE TABLE note (id INTEGER PRIMARY KEY, message INTEGER NOT NULL, name TEXT NOT NULL, detail TEXT NOT NULL);
CREATE INDEX note_message ON note (message);

-- The directory. place = '' for the row of the user as such, else '=' and the location.
CREATE TABLE residence (
    user TEXT NOT NULL,
    place TEXT NOT NULL,
    building TEXT NOT NULL,
    attributes TEXT NOT NULL,
    PRIMARY KEY (user, place)
) WITHOUT ROWID;

-- Users whose directory rows changed, and which change it was.
CREATE TABLE changed (user TEXT PRIMARY KEY, change INTEGER NOT NULL) WITHOUT ROWID;

-- Where a device lives.
CREATE TABLE home (
    kind TEXT NOT NULL,
    device TEXT NOT NULL,
    building TEXT NOT NULL,
    user TEXT NOT NULL,
    PRIMARY KEY (kind, device)
) WITHOUT ROWID;
CREATE INDEX home_user ON home (user);

-- States (MessagePack, see codec.py). due = when the clock should look at it.
CREATE TABLE building (
    id TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    due INTEGER,
    flags TEXT NOT NULL,
    state BLOB NOT NULL
);
CREATE INDEX building_due ON building (due) WHERE due IS NOT NULL;

-- Calls owed to MOOST, and those that were. form: 0 events, 1 create, 2 change, 3 devices.
-- doubt = the payload on the wire; lost = its lost reply has been counted; tried, outcome, answer = the last attempt.
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY,
    building TEXT NOT NULL,
    state TEXT NOT NULL,
    form INTEGER NOT NULL,
    cause INTEGER NOT NULL,
    queued INTEGER NOT NULL,
    settled INTEGER,
    count INTEGER NOT NULL,
    done INTEGER NOT NULL DEFAULT 0,
    buried INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    first_failed INTEGER,
    repaired INTEGER NOT NULL DEFAULT 0,
    lost INTEGER NOT NULL DEFAULT 0,
    historical INTEGER,
    doubt_count INTEGER,
    tried INTEGER,
    outcome TEXT,
    answer TEXT,
    doubt BLOB,
    call BLOB NOT NULL
);
CREATE INDEX outbox_building ON outbox (building, state, id);
CREATE INDEX outbox_settled ON outbox (settled);
CREATE INDEX outbox_cause ON outbox (cause) WHERE cause > 0;

-- Earlier attempts; the one that settled a row stands in the row.
CREATE TABLE attempt (
    id INTEGER PRIMARY KEY,
    call INTEGER NOT NULL,
    at INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    detail TEXT NOT NULL
);
CREATE INDEX attempt_call ON attempt (call, id);

-- The turn of a building. due = null while it owes nothing or is lent; lent = newest row that is lent.
CREATE TABLE lane (
    building TEXT PRIMARY KEY,
    due INTEGER,
    lent_until INTEGER,
    lent INTEGER
) WITHOUT ROWID;
CREATE INDEX lane_due ON lane (due, building) WHERE due IS NOT NULL;
CREATE INDEX lane_lent ON lane (lent_until) WHERE lent_until IS NOT NULL;

-- The building and its device list as last queued, to send again after a refusal.
CREATE TABLE sheet (
    building TEXT PRIMARY KEY,
    form INTEGER,
    call BLOB,
    devices BLOB
) WITHOUT ROWID;
