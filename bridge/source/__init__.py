"""The device cloud's language: topics, signatures, envelopes, bodies."""
