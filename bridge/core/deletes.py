"""Which devices were deleted, and until when that is remembered (mapping rule M0.5).

Rules:
- A delete is remembered so that an older message does not bring the device back.
- Of devices that were there the last 1,000 are remembered: a household deletes a few in a year.
- A delete may overtake the message that brings its device. So deletes of devices that were not there are remembered
  too, the last 200, as long as a message may be late (`max_backfill`).
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from bridge.core.bounds import beyond
from bridge.core.copying import replace
from bridge.core.effects import Note
from bridge.core.model import Building
from bridge.core.order import Time
from bridge.core.rules import Rules

OF_KNOWN: Final = 1_000
OF_UNKNOWN: Final = 200


def deleted_at(building: Building, name: str, received: datetime, rules: Rules) -> Time | None:
    """Return the stamp with which a device was deleted, if it was."""
    deleted = building.gone.get(name)
    if deleted is None:
        return None
    early = building.early.get(name)
    if early is not None and received - early > rules.max_backfill:
        return None
    return Time(deleted, building.gone_sent.get(name))


def remembered(
    building: Building, name: str, stamp: Time, received: datetime, rules: Rules
) -> tuple[Building, tuple[Note, ...]]:
    """Return a building that remembers a delete, and what it has forgotten for that."""
    early = {other: at for other, at in building.early.items() if received - at <= rules.max_backfill and other != name}
    outdated = building.early.keys() - early.keys()
    if name not in building.devices and (name not in building.gone or name in building.early):
        early[name] = received
    gone = {other: at for other, at in building.gone.items() if other != name and other not in outdated}
    gone[name] = stamp.at  # the last one, in the order of acceptance
    of_known = [other for other in gone if other not in early]
    forgotten = {*of_known[: max(len(of_known) - OF_KNOWN, 0)], *list(early)[: max(len(early) - OF_UNKNOWN, 0)]}
    sent = {other: at for other, at in building.gone_sent.items() if other in gone and other != name}
    if stamp.sent is not None:
        sent[name] = stamp.sent
    after = replace(
        building,
        gone=_without(gone, forgotten),
        gone_sent=_without(sent, forgotten),
        early=_without(early, forgotten),
    )
    notes = (beyond("deletes_per_building", f"{len(forgotten)} forgotten, the oldest"),) if forgotten else ()
    return after, notes


def _without(times: Mapping[str, datetime], forgotten: set[str]) -> Mapping[str, datetime]:
    return {name: at for name, at in times.items() if name not in forgotten} if forgotten else times
