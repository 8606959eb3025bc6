"""The law: what the energy domain asks for, as pure functions over frozen values.

Standard library only; no I/O, no clock, no await. Time is an argument.
"""
