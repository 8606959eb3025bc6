-- The first schema of the shared store.
-- Times are milliseconds since 1970, UTC; leases of replicas are times of this server. Ids come from sequences.
-- Each table carries what it is shared out by (bucket, building, user or device) in its primary key: see docs/operations/postgresql.md.

-- One row: the schema, the oldest release's schema that can still work with it, whether the store belongs to a dry run
-- (null = not yet decided), and how many times a building has been erased.
CREATE TABLE bridge (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    version integer NOT NULL,
    compatible integer NOT NULL,
    dry boolean,
    erasures bigint NOT NULL DEFAULT 0
);

CREATE SEQUENCE message_id;
CREATE SEQUENCE call_id;
CREATE SEQUENCE letter_id;
CREATE SEQUENCE change_id;
CREATE SEQUENCE replica_id;
CREATE SEQUENCE row_id;

-- The daemons. until = when the others may take over; works = it has a worker; gone = taken over.
CREATE TABLE replica (
    id bigint PRIMARY KEY,
    until timestamptz NOT NULL,
    works boolean NOT NULL DEFAULT false,
    gone boolean NOT NULL DEFAULT false
) WITH (fillfactor = 20);

-- The counts, one row per replica and connection that writes (JSON, see ledger.py); replica 0 holds those of commands
-- and of replicas that are gone. A replica whose row is missing has been taken over: it writes nothing any more.
CREATE TABLE counter (
    replica bigint NOT NULL,
    part text NOT NULL,
    ledger text NOT NULL,
    PRIMARY KEY (replica, part)
) WITH (fillfactor = 20);

-- The users' buckets, and which replica reduces their messages.
CREATE TABLE bucket (id smallint PRIMARY KEY, holder bigint);

-- The log of raw messages. Rows are added, deleted by retention, never changed.
CREATE TABLE inbox (
    id bigint NOT NULL,
    bucket smallint NOT NULL,
    subscription text NOT NULL,
    topic text NOT NULL,
    received bigint NOT NULL,
    message_id text,
    position integer NOT NULL,
    digest bytea,
    body bytea NOT NULL,
    PRIMARY KEY (id, bucket)
);

-- What has been accepted, to know a repeat.
CREATE TABLE seen (
    message_id text NOT NULL,
    subscription text NOT NULL,
    position integer NOT NULL,
    digest bytea NOT NULL,
    PRIMARY KEY (message_id, subscription, position, digest)
);

-- Messages that wait for the worker, in the order of place: the id, or far below zero for those that wait once more.
-- Short-lived rows: they are cleared away often.
CREATE TABLE waiting (
    id bigint NOT NULL,
    bucket smallint NOT NULL,
    place bigint NOT NULL,
    received bigint NOT NULL,
    size integer NOT NULL,
    PRIMARY KEY (id, bucket)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX waiting_place ON waiting (place);

-- Ids that wait for the directory.
CREATE TABLE parked (id bigint NOT NULL, bucket smallint NOT NULL, user_id text NOT NULL, PRIMARY KEY (id, bucket));
CREATE INDEX parked_user ON parked (user_id, id);

-- Ids whose dead letter was discarded.
CREATE TABLE discarded (id bigint PRIMARY KEY);

-- Whose a device was when it was last heard of at the door: puts a message that names no user into its bucket.
CREATE TABLE belongs (device text PRIMARY KEY, user_id text NOT NULL);

-- Which messages were a user's, one row per step of the worker.
CREATE TABLE owner (
    id bigint PRIMARY KEY DEFAULT nextval('row_id'),
    last bigint NOT NULL,
    messages bigint[] NOT NULL,
    users text[] NOT NULL
);
CREATE INDEX owner_last ON owner (last);

-- Dead messages (message) and dead items of calls (call, item).
CREATE TABLE letter (
    id bigint PRIMARY KEY DEFAULT nextval('letter_id'),
    reason text NOT NULL,
    detail text NOT NULL,
    answer text NOT NULL DEFAULT '',
    at bigint NOT NULL,
    user_id text,
    message bigint,
    call bigint,
    cause bigint,
    form smallint,
    building text,
    item text
);
CREATE INDEX letter_message ON letter (message) WHERE message IS NOT NULL;
CREATE INDEX letter_building ON letter (building) WHERE building IS NOT NULL;

-- Remarks on a message, for `explain`.
CREATE TABLE note (
    id bigint PRIMARY KEY DEFAULT nextval('row_id'),
    message bigint NOT NULL,
    name text NOT NULL,
    detail text NOT NULL
);
CREATE INDEX note_message ON note (message);

-- The directory. place = '' for the row of the user as such, else '=' and the location.
CREATE TABLE residence (
    user_id text NOT NULL,
    place text NOT NULL COLLATE "C",
    building text NOT NULL,
    attributes text NOT NULL,
    PRIMARY KEY (user_id, place)
);
CREATE INDEX residence_building ON residence (building);

-- Users whose directory rows changed, and which change it was.
CREATE TABLE changed (user_id text PRIMARY KEY, bucket smallint NOT NULL, change bigint NOT NULL);

-- Where a device lives.
CREATE TABLE home (
    kind text NOT NULL,
    device text NOT NULL,
    building text NOT NULL,
    user_id text NOT NULL,
    PRIMARY KEY (kind, device)
);
CREATE INDEX home_user ON home (user_id);

-- States (MessagePack, see codec.py). due = when the clock should look at it; lent to one clock until taken_until.
-- newest = the newest message that was applied.
CREATE TABLE building (
    id text COLLATE "C" PRIMARY KEY,
    version bigint NOT NULL,
    newest bigint NOT NULL DEFAULT 0,
    due bigint,
    taken_by bigint,
    taken_until timestamptz,
    flags text NOT NULL,
    state bytea NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX building_due ON building (due, id) WHERE due IS NOT NULL;

-- Calls owed to MOOST, and those that were. form: 0 events, 1 create, 2 change, 3 devices.
-- doubt = the payload on the wire; lost = its lost reply has been counted; tried, outcome, answer = the last attempt.
CREATE TABLE outbox (
    id bigint NOT NULL,
    building text COLLATE "C" NOT NULL,
    state text NOT NULL,
    form smallint NOT NULL,
    cause bigint NOT NULL,
    queued bigint NOT NULL,
    settled bigint,
    count integer NOT NULL,
    done integer NOT NULL DEFAULT 0,
    buried integer NOT NULL DEFAULT 0,
    attempts integer NOT NULL DEFAULT 0,
    first_failed bigint,
    repaired boolean NOT NULL DEFAULT false,
    lost boolean NOT NULL DEFAULT false,
    historical boolean,
    doubt_count integer,
    tried bigint,
    outcome text,
    answer text,
    doubt bytea,
    call text NOT NULL,
    PRIMARY KEY (id, building)
);
CREATE INDEX outbox_owed ON outbox (building, id) WHERE state = 'owed';
CREATE INDEX outbox_oldest ON outbox (id) WHERE settled IS NULL;
CREATE INDEX outbox_building ON outbox (building, form, id);
CREATE INDEX outbox_settled ON outbox (settled) WHERE settled IS NOT NULL;
CREATE INDEX outbox_cause ON outbox (cause) WHERE cause > 0;

-- Earlier attempts; the one that settled a row stands in the row.
CREATE TABLE attempt (
    id bigint NOT NULL DEFAULT nextval('row_id'),
    call bigint NOT NULL,
    at bigint NOT NULL,
    outcome text NOT NULL,
    detail text NOT NULL,
    PRIMARY KEY (call, id)
);

-- The turn of a building. due = null while it owes nothing or is lent; lent = newest row that is lent to holder;
-- turn = how many times it has been lent.
CREATE TABLE lane (
    building text COLLATE "C" PRIMARY KEY,
    due bigint,
    lent_until bigint,
    lent bigint,
    holder bigint,
    turn bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 70);
CREATE INDEX lane_due ON lane (due, building) WHERE due IS NOT NULL;
CREATE INDEX lane_lent ON lane (lent_until) WHERE lent_until IS NOT NULL;

-- The building and its device list as last queued, to send again after a refusal.
CREATE TABLE sheet (building text COLLATE "C" PRIMARY KEY, form smallint, call text, devices text);

-- The ticks that buildings have had, for `replay`: they close slots, so what was in a slot depends on them.
-- after = every message of the building up to this id had been processed before, no later one.
-- state = a copy of the building's state as that left it; moved = this was no tick: the directory changed the building.
CREATE TABLE tick (
    id bigint NOT NULL DEFAULT nextval('row_id'),
    building text COLLATE "C" NOT NULL,
    after bigint NOT NULL,
    at bigint NOT NULL,
    catching_up boolean NOT NULL,
    moved boolean NOT NULL DEFAULT false,
    state bytea,
    PRIMARY KEY (building, id)
);
CREATE INDEX tick_after ON tick (after);
