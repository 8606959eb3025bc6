"""What tells a repeat, whichever keeper asks.

Rules:
- The same id, subscription, topic, position and bytes are a repeat.
- Where the sender signed id and time (`Arrival.signed`) the topic is not signed: who has caught a request can send it
  again on another topic while its time is close. So a signed delivery that comes on another topic, signed no later than
  it was heard before, is replayed: one dead letter, then repeats. Signed later it is a new message of its sender.
- A repeat that was signed later moves the time on: the sender tries again.
"""

import hashlib
import zlib
from datetime import timedelta
from enum import Enum
from typing import Final

import msgspec

KNOWN_FOR: Final = timedelta(minutes=10)
"""What tells a repeat stays at least so long, whatever the room: a signed time is good for five minutes before and
after."""

BYTES: Final = 16
"""So much of a digest says which bytes they are; what follows, the topic."""

REPLAYED: Final = "the same signed delivery was heard before on another topic"


def digest_of(body: bytes, topic: str | None) -> bytes:
    """Return the digest of bytes and topic; None = the topic is no part of what tells a repeat."""
    digest = hashlib.blake2b(body, digest_size=BYTES).digest()
    return digest if topic is None else digest + zlib.crc32(topic.encode()).to_bytes(4, "big")


class Verdict(Enum):
    """What a message is."""

    NEW = 0
    REPEAT = 1
    REPLAYED = 2


class Heard(msgspec.Struct, array_like=True):
    """A signed delivery as it has been heard; a row holds it as JSON."""

    signed: int  # newest signed time [ms]
    topics: list[str]
    replayed: bool = False  # on another topic

    def judge(self, topic: str, signed: int) -> tuple[Verdict, bool]:
        """Tell what one more delivery is, and remember it; return also whether there was anything to remember."""
        later, known = signed > self.signed, topic in self.topics
        if known and not later:
            return Verdict.REPEAT, False
        if later:
            self.signed = signed
            if not known:
                self.topics.append(topic)
            return (Verdict.REPEAT if known else Verdict.NEW), True
        if self.replayed:
            return Verdict.REPEAT, False
        self.replayed = True
        return Verdict.REPLAYED, True


_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Heard)


def written(heard: Heard) -> str:
    """Return what a row holds."""
    return _encoder.encode(heard).decode()


def read(text: str) -> Heard:
    """Return what a row says."""
    return _decoder.decode(text)
