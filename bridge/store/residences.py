"""How a keeper writes a row of the directory down."""

from typing import Final

import msgspec

from bridge.core.model import Residence

NO_PLACE: Final = ""
"""The place of a user's row without location; other places are '=' and the location."""

_attributes: Final = msgspec.json.Decoder(dict[str, object])


def residence(row: tuple[str, str, str, str]) -> Residence:
    """Return a row of the directory."""
    user, place, building, attributes = row
    location = None if place == NO_PLACE else place[1:]
    return Residence(user=user, location=location, building=building, attributes=_attributes.decode(attributes))


def place(location: str | None) -> str:
    """Return the key of a location."""
    return NO_PLACE if location is None else "=" + location
