"""Names of things in MOOST, derived from the device cloud's (mapping rules M0.6, M0.7).

Rules:
- A device is (subscription, kind, id): nobody writes another subscription's device, and the device cloud's own
  examples give two kinds the same id.
- A name that MOOST's patterns refuse is made safe in a way that two different names never meet.
- MOOST's id of a device names no subscription, so that one keeps its id where subscriptions change. Where two of one
  building would have the same, the one that came later names its subscription.

Source: MOOST documentation, Event schema (`deviceId` 3..64, `customerBuildingId` 1..100, `deviceName` 1..100).
"""

import hashlib
import re
from collections.abc import Iterator
from typing import Final

from bridge.core.messages import Facts
from bridge.core.vocabulary import Kind

DEVICE_ID_MAX: Final = 64
BUILDING_ID_MAX: Final = 100
NAME_MAX: Final = 100
HOUSEHOLD: Final = "Household"

_UNSAFE: Final = re.compile(r"[^a-zA-Z0-9:._-]")
_USER: Final = re.compile(r"[a-zA-Z0-9:._@-]{1,100}")
_BREAKS: Final = re.compile(r"\s+")
_HASH: Final = 12  # hex digits of SHA-256 that keep two unsafe names apart
_HASHED: Final = re.compile(rf"(.*)-[0-9a-f]{{{_HASH}}}")
# As part of a path these name something else: MOOST's list of core data, the folder, the one above.
_RESERVED: Final = frozenset({"core-data", ".", ".."})


def safe(text: str, longest: int) -> str:
    """Return a name that fits MOOST's id pattern: the text itself if it does, else cleaned, cut and hashed.

    A text that looks like what this makes of another one is hashed too, or the two would meet.
    """
    if (
        0 < len(text) <= longest
        and text not in _RESERVED
        and not _UNSAFE.search(text)
        and not _looks_made(text, longest)
    ):
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH]
    return f"{_UNSAFE.sub('_', text)[: longest - _HASH - 1]}-{digest}"


def _looks_made(text: str, longest: int) -> bool:
    """Tell whether `safe` may have made a text: a hash, and before it a sign of what was not safe.

    That is a replaced character, nothing, a reserved word, a name that looks made itself, or a cut. A UUID ends like a
    hash too, and stays.
    """
    if text[-_HASH - 1 : -_HASH] != "-":
        return False
    found = _HASHED.fullmatch(text)
    if found is None:
        return False
    start = found[1]
    return "_" in start or not start or start in _RESERVED or len(text) == longest or _looks_made(start, longest)


def device_id(kind: Kind, device: str) -> str:
    """Return MOOST's deviceId of a device that shares it with nobody; see `devices.moost_id`."""
    return safe(f"{kind.value}:{device}", DEVICE_ID_MAX)


def device_ids(subscription: str, kind: Kind, device: str) -> Iterator[str]:
    """Yield the ids that a device takes where the ones before are another's."""
    yield device_id(kind, device)
    text = f"{kind.value}:{device}"
    while True:
        text = f"{text}@{subscription}"
        yield safe(text, DEVICE_ID_MAX)


def building_id(user: str) -> str:
    """Return the customerBuildingId of a user whom the directory does not know."""
    return safe(user, BUILDING_ID_MAX)


def gateway_id(building: str) -> str:
    """Return the deviceId of the household itself."""
    return safe(f"gateway:{building}", DEVICE_ID_MAX)


def moost_user(raw_user: str | None) -> tuple[str, ...]:
    """Return the user id as MOOST's `userIds` takes it, or nothing where its pattern refuses it."""
    return (raw_user,) if raw_user is not None and _USER.fullmatch(raw_user) else ()


def one_line(text: str | None, longest: int = NAME_MAX) -> str | None:
    """Return the text without line breaks, cut to a length; nothing where nothing is left."""
    if text is None:
        return None
    if text.isascii() and text.isprintable() and len(text) <= longest:
        return text.strip() or None
    printable = "".join(c if c.isprintable() else " " for c in text)
    return _BREAKS.sub(" ", printable).strip()[:longest].strip() or None


def product_name(facts: Facts) -> str | None:
    """Return "vendor model", as far as known."""
    return one_line(" ".join(part for part in (facts.vendor, facts.model) if part))


def device_name(kind: Kind, device: str, facts: Facts) -> str:
    """Return a name for people: the given one, else vendor and model, else the kind and the end of its id."""
    return one_line(facts.name) or product_name(facts) or one_line(f"{kind.value} {device[-4:]}") or kind.value
