-- How many transactions a line has committed: tells whether one whose end was not heard was among them.
ALTER TABLE counter ADD COLUMN number bigint NOT NULL DEFAULT 0;
-- The same of the lines of replicas that are gone.
CREATE TABLE ended (
    replica bigint NOT NULL,
    part text NOT NULL,
    number bigint NOT NULL,
    PRIMARY KEY (replica, part)
);
-- When the door last heard, to a day, whose a device is [ms]: a row that is old goes.
ALTER TABLE belongs ADD COLUMN heard bigint NOT NULL DEFAULT 0;
CREATE INDEX belongs_heard ON belongs (heard);
