-- Messages that were deleted before their time, for want of room: what knows their repeats stays until they are old.
-- They come at the end and go from the front: last place - first place + 1 is how many there are.
CREATE TABLE early (
    place INTEGER PRIMARY KEY,
    id INTEGER NOT NULL,
    received INTEGER NOT NULL,
    message_id TEXT NOT NULL
);
