-- What subscriptions owe stands in the counts too; what they hold is counted once more from the rows: see holdings.py.
-- An older release would not count it, so its replicas are stopped first.
COMMENT ON TABLE counter IS 'counts, and what subscriptions hold';
