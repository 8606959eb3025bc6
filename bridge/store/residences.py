"""How a keeper writes a row of the directory down."""

from collections.abc import Iterable
from typing import Final

import msgspec

from bridge.core.model import Residence

NO_PLACE: Final = ""
"""The place of a user's row without location; other places are '=' and the location."""

MOST_LEFT: Final = 20
"""Buildings remembered that a user's rows named before."""

_attributes: Final = msgspec.json.Decoder(dict[str, object])


def residence(row: tuple[str, str, str, str]) -> Residence:
    """Return a row of the directory."""
    user, place, building, attributes = row
    location = None if place == NO_PLACE else place[1:]
    return Residence(user=user, location=location, building=building, attributes=_attributes.decode(attributes))


def by_building(rows: Iterable[tuple[str, str | None, str, str, str]]) -> dict[str, tuple[Residence, ...]]:
    """Return rows by the building that they name; a building comes with each of its rows, or with none."""
    found: dict[str, tuple[Residence, ...]] = {}
    for building, user, place_, named, attributes in rows:
        known = found.setdefault(building, ())
        if user is not None:
            found[building] = (*known, residence((user, place_, named, attributes)))
    return found


def left(known: Iterable[str], building: str) -> list[str]:
    """Return the buildings that rows named before, with one more."""
    return [*(each for each in known if each != building), building][-MOST_LEFT:]


def place(location: str | None) -> str:
    """Return the key of a location."""
    return NO_PLACE if location is None else "=" + location
