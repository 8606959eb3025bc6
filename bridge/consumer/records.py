"""From records to arrivals, with the code of the door.

Rules:
- The topic decides whose a record is; one of another subscription than the feed's is a dead letter, as at the door.
- A tombstone (no value) is the message `null`; an empty value is one that cannot be read.
- A record larger than `server.max_body` cannot be refused, as the door does with 413: it is a dead letter, whole.
- What came together is stored together, up to `MOST_BYTES`; an array, which may hold a thousand messages, by itself.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from bridge.files import without_mark
from bridge.intake import Delivery, arrivals, buried, kept
from bridge.source.kafka import Record
from bridge.store.port import Arrival

MOST_BYTES: Final = 2**20  # of one transaction, one larger record aside
TOMBSTONE: Final = b"null"
TOO_LARGE: Final = "the record is larger than server.max_body"


def slices(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """Cut records into what is stored at a time."""
    begin = size = 0
    for place, record in enumerate(records):
        value = record.value or TOMBSTONE
        length = MOST_BYTES if without_mark(value).startswith(b"[") else len(value)
        if place > begin and size + length > MOST_BYTES:
            yield records[begin:place]
            begin, size = place, 0
        size += length
    if begin < len(records):
        yield records[begin:]


def taken(record: Record, *, subscription: str, cluster: str, max_body: int, received: datetime) -> list[Arrival]:
    """Return the messages of a record: one, or of an array each element; `max_body` [bytes]."""
    body = TOMBSTONE if record.value is None else record.value
    identity = Delivery(kept(record.identity(cluster)))
    callers = (subscription,)
    if len(body) > max_body:
        dead = buried(body, TOO_LARGE, topic=record.topic, callers=callers, delivery=identity, received=received)
        return [dead]
    return arrivals(
        body, topic=record.topic, wrapped=record.wrapped, callers=callers, delivery=identity, received=received
    )
