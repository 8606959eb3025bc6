"""What one message may cost: bounds that no honest one comes near (R13).

Rules:
- Counted before anything is built: a body of 1 MB that is one long array would cost seconds and hundreds of MB.
- The count is of `,`, `[` and `{`, also within strings: it is never less than the values that JSON makes of them.
- A body of up to 10 KB is not counted: nothing in it can cost much, and nearly all are smaller.

Measured on one core: counting 1 MB takes 0.6 ms; 5,000 values, all of them wrong, are given up after 4 ms.
"""

from typing import Final

from bridge.core.vocabulary import DeadReason

COUNTED_FROM: Final = 10 * 1024
"""Bytes of a body from which on its values are counted."""

SLOW_VALUES: Final = 120_000
"""Values of a body that cannot be read the quick way (NaN, deep nesting, broken JSON); 1,000 messages have 41,000."""

ENTRIES: Final = 1_000
"""Prices or schedule entries; two days of prices in quarter hours with a spare copy are 384."""

ID_LENGTH: Final = 256
"""Characters of an id; the device cloud's have 36."""

TEXT_LENGTH: Final = 100
"""Characters of a name, vendor or model that are looked at; MOOST takes as many."""

WORD_LENGTH: Final = 64
"""Characters of a word; the longest that is known has 15."""

FLAWS: Final = 100
"""Fields of the wrong type; a message has some 40 fields."""

PRICES_AHEAD_DAYS: Final = 8
"""Days ahead that a price is used; they are known two days ahead."""

_MARKS: Final = b",[{"


class NotUnderstood(Exception):  # noqa: N818 - a condition, not a fault of ours
    """Why a body cannot be read, in one sentence without its values; `limit` is the bound that it is over, if any."""

    def __init__(self, detail: str, limit: str = "") -> None:
        """Say why."""
        super().__init__(detail)
        self.limit = limit

    @property
    def reason(self) -> DeadReason:
        """Return the reason of the dead letter."""
        return DeadReason.TOO_LARGE if self.limit else DeadReason.UNREADABLE


def is_crowded(body: bytes, most: int) -> bool:
    """Tell whether a body holds more values than a message may."""
    return len(body) > COUNTED_FROM and len(body) - len(body.translate(None, _MARKS)) > most


def check_values(body: bytes, most: int) -> None:
    """Raise NotUnderstood where a body holds more values than a message may."""
    if is_crowded(body, most):
        raise NotUnderstood(f"the message has over {most:,} values (limits.values_per_message)", "values_per_message")


def check_entries(what: str, count: int) -> None:
    """Raise NotUnderstood where a message has too many prices or schedule entries."""
    if count > ENTRIES:
        raise NotUnderstood(f"the message has {count:,} {what}, the most is {ENTRIES:,}", "entries_per_message")


def check_id(raw: str) -> str:
    """Return an id; raise NotUnderstood where it is too long to be one."""
    if len(raw) > ID_LENGTH:
        raise NotUnderstood(f"an id has {len(raw):,} characters, the most is {ID_LENGTH}", "id_length")
    return raw
