"""How a message really looks on the wire: times as text, and the oddities that vendors are known for.

Rules:
- An oddity never changes what is true: blocks that just changed keep their numbers, and the word of a state is only
  spoiled where no power depends on it.
- Oddities are rare and come from the seed.

Source: EHA developer portal, "Streaming examples" (0 to 9 fractional digits, the string "null", null blocks, unknown
words, keys added without notice); vendor demo application (retired and differently spelled words).
"""

import random
from datetime import UTC, datetime
from typing import Any, Final

from bridge.core.vocabulary import Kind
from bridge.sandbox.devices import Body

_ODD: Final = 0.02
_OPTIONAL_BLOCKS: Final = {Kind.VEHICLE: ("climateState", "odometer", "location"), Kind.HVAC: ("climateState",)}
_STATE_BLOCK: Final = {Kind.BATTERY: "chargeState", Kind.HVAC: "climateState"}
_SECOND: Final = 1000


def text(at: int, digits: int = 3, zone: str = "Z") -> str:
    """Return epoch ms as ISO 8601 with so many fractional digits; 0 digits only for whole seconds."""
    base = datetime.fromtimestamp(at // _SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    if digits == 0 and at % _SECOND == 0:
        return base + zone
    return f"{base}.{f'{at % _SECOND:03d}'.ljust(max(digits, 3), '0')}{zone}"


def finish(kind: Kind, body: Body, *, at: int, dice: random.Random, spoil_state: bool) -> Body:
    """Return the message as it is sent; `spoil_state` allows the string "null" as a charging state."""
    digits, zone = 3, "Z"
    if dice.random() < 4 * _ODD:
        digits, zone = dice.choice((0, 3, 6, 7, 9)), dice.choice(("Z", "+00:00"))
    if dice.random() < _ODD:
        _empty_a_block(kind, body, at, dice)
    if dice.random() < _ODD:
        _spoil_a_word(kind, body, dice, spoil_state=spoil_state)
    if dice.random() < _ODD:
        body["isConnected"] = True
        body["staticData"]["firmware"] = "4.2.0-rc1"
    for name, value in body.items():
        if isinstance(value, dict) and "lastUpdated" in value:
            value["lastUpdated"] = _when(value["lastUpdated"], digits, zone)
        elif name == "lastUpdated":
            body[name] = _when(value, digits, zone)
    return body


def _when(at: int | None, digits: int, zone: str) -> str | None:
    """Return a time as text, or null."""
    return None if at is None else text(at, digits, zone)


def _empty_a_block(kind: Kind, body: Body, at: int, dice: random.Random) -> None:
    """Make a block that did not change null, or leave it out."""
    names = [name for name in _OPTIONAL_BLOCKS.get(kind, ()) if name in body and body[name]["lastUpdated"] != at]
    if names:
        name = dice.choice(names)
        if dice.random() < 0.5:  # noqa: PLR2004 - a coin
            body[name] = None
        else:
            del body[name]


def _spoil_a_word(kind: Kind, body: Body, dice: random.Random, *, spoil_state: bool) -> None:
    """Use a word that nobody documented, or an old spelling."""
    state: Any = body.get("chargeState")
    if kind is Kind.VEHICLE and state:
        if spoil_state:
            state["chargingState"] = "null"
        elif state["chargingState"]:
            state["chargingState"] = state["chargingState"].capitalize()
    elif kind is Kind.CHARGER and state and state["chargingState"] == "PREPARING":
        state["chargingState"] = "PLUGGED"
    elif kind in _STATE_BLOCK and body.get(_STATE_BLOCK[kind]):
        body[_STATE_BLOCK[kind]]["mode"] = dice.choice(("STORM_WATCH", "null", "auto"))
