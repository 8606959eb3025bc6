"""A durable bridge from an energy device cloud to MOOST."""
