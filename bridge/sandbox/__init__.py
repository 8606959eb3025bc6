"""The outside world to try the bridge against: a MOOST look-alike and a device cloud of simulated households.

Rules:
- Nothing of the bridge is imported but `core.vocabulary`: the sandbox judges the bridge, so it must not share its code.
- Everything random comes from a seed; everything that happened can be read back.
"""
