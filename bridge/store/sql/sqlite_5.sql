-- What tells a repeat knows the topic: the digest ends with four bytes of it, for the same id and bytes on another topic
-- are another message. Where the sender has signed id and time, but not the topic, it does not: heard = the newest
-- signed time, its topics, and whether it was replayed on another one (JSON, see repeats.py).
-- Repeats of what was accepted before are not known any more.
ALTER TABLE seen ADD COLUMN heard TEXT;
