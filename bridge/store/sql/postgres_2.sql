-- Messages that were deleted before their time, for want of room: what knows their repeats stays until they are old.
-- They come at the end and go from the front: last place - first place + 1 is how many there are.
CREATE SEQUENCE early_place;
CREATE TABLE early (
    place bigint NOT NULL DEFAULT nextval('early_place'),
    received bigint NOT NULL,
    message_id text NOT NULL,
    subscription text NOT NULL,
    position integer NOT NULL,
    digest bytea NOT NULL,
    PRIMARY KEY (place, message_id)
);
