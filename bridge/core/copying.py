"""Copies of frozen values with some fields changed, at a third of the price of `dataclasses.replace`.

Rules:
- For dataclasses with slots that have nothing to do after their creation, and keep more than one field as it is.
- Type checkers see the original, so that a wrong name or type is found before it runs.

Measured on a state of twenty fields: 1.7 µs instead of 4.9, and a message makes three such copies.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import replace
else:
    from dataclasses import fields
    from functools import cache
    from itertools import repeat
    from operator import attrgetter, call

    @cache  # as many entries as there are ways to call `replace` in the source
    def _shape(kind, changed):  # noqa: ANN001, ANN202 - typed above
        kept = [field.name for field in fields(kind) if field.name not in changed]
        return attrgetter(*kept), tuple(getattr(kind, name).__set__ for name in (*kept, *changed))

    def replace(value, **changes):  # noqa: ANN001, ANN003, ANN201 - typed above
        """Return a copy with these fields changed."""
        kind = type(value)
        read, setters = _shape(kind, tuple(changes))
        copy = object.__new__(kind)
        any(map(call, setters, repeat(copy), (*read(value), *changes.values())))  # each sets one field; none is true
        return copy


__all__ = ["replace"]
