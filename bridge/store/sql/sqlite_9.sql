-- What subscriptions hold stands in the ledger from now on; it is counted once from the rows: see holdings.py.

-- Whose a dead letter is: the oldest go, and of a subscription that has too many of them.
ALTER TABLE letter ADD COLUMN subscription TEXT;
UPDATE letter SET subscription = (SELECT subscription FROM inbox WHERE inbox.id = coalesce(letter.message, letter.cause));
CREATE INDEX letter_at ON letter (at);
CREATE INDEX letter_subscription ON letter (subscription, at);
