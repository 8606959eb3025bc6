"""Where to read on in a partition, and how many of its records nobody can read any more.

Rules:
- What a group has read decides, `offset_reset` only where it has never read anything. Where it has, a partition of
  which nothing is known is read from its beginning.
- What stands before the oldest record that the broker keeps is lost; what is still there is read.
- A topic that was made anew is read from its beginning: an offset of the old one says nothing about it.

Source: Apache Kafka documentation, "Broker configs" (`retention`, `offsets.retention.minutes`); librdkafka,
"Configuration properties" (`auto.offset.reset`).
"""

from dataclasses import dataclass
from enum import StrEnum


class Change(StrEnum):
    """What has happened to a partition while nobody read it."""

    NONE = ""
    DELETED = "retention"  # the broker deleted records, by age or size
    RENEWED = "renewed"  # the topic was deleted and made anew, or has lost its end
    EXPIRED = "no commit"  # the group has read before: the broker forgot what it committed, or the topic is new


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of a partition, in offsets."""

    first: int  # of the oldest record that the broker keeps
    end: int  # of the next record that will be written
    read: int | None  # of the record to read next; None = none was ever read
    expired: bool = False  # the group has read before, and the broker knows nothing of it here
    renewed: bool = False  # the topic has another identity than the one that was read


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where to read on."""

    offset: int
    lost: int = 0  # records that were deleted before they were read
    change: Change = Change.NONE


def start(known: Known, *, latest: bool) -> Start:
    """Return where to read on; `latest` = begin with what comes from now on, where none was ever read."""
    if known.read is None and known.expired:
        return Start(offset=known.first, change=Change.EXPIRED)
    if known.read is None:
        return Start(offset=known.end if latest else known.first)
    if known.renewed or known.read > known.end:
        return Start(offset=known.first, lost=known.first, change=Change.RENEWED)
    if known.read < known.first:
        return Start(offset=known.first, lost=known.first - known.read, change=Change.DELETED)
    return Start(offset=known.read, change=Change.EXPIRED if known.expired else Change.NONE)
