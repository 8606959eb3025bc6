-- Messages that were deleted before their time, for want of room: what knows their repeats stays until they are old.
CREATE TABLE early (id INTEGER PRIMARY KEY, received INTEGER NOT NULL, message_id TEXT NOT NULL);
