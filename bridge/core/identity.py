"""Names of things in MOOST, derived from the device cloud's (mapping rules M0.6, M0.7).

Rules:
- A device is (kind, id), because the device cloud's own examples give two kinds the same id.
- A name that MOOST's patterns refuse is made safe in a way that two different names never meet.

Source: MOOST documentation, Event schema (`deviceId` 3..64, `customerBuildingId` 1..100, `deviceName` 1..100).
"""

import hashlib
import re
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
# As part of a path these name something else: MOOST's list of core data, the folder, the one above.
_RESERVED: Final = frozenset({"core-data", ".", ".."})


def safe(text: str, longest: int) -> str:
    """Return a name that fits MOOST's id pattern: the text itself if it does, else cleaned, cut and hashed."""
    if 0 < len(text) <= longest and text not in _RESERVED and not _UNSAFE.search(text):
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH]
    return f"{_UNSAFE.sub('_', text)[: longest - _HASH - 1]}-{digest}"


def device_id(kind: Kind, device: str) -> str:
    """Return MOOST's deviceId of a device."""
    return safe(f"{kind.value}:{device}", DEVICE_ID_MAX)


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
