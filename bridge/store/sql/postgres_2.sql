-- Messages that were deleted before their time, for want of room: what knows their repeats stays until they are old.
CREATE TABLE early (
    id bigint NOT NULL,
    received bigint NOT NULL,
    message_id text NOT NULL,
    subscription text NOT NULL,
    position integer NOT NULL,
    digest bytea NOT NULL,
    PRIMARY KEY (id, message_id)
);
