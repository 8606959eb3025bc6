"""How the room of a store is shared out, whichever keeper keeps it."""

from typing import Final

FULL_SHARE: Final = 0.6
"""Above this share of the greatest size settled rows go before their time."""

EARLY_SHARE: Final = 0.1
"""Share of the greatest size for what still knows the repeats of messages that went before their time."""

EARLY_BYTES: Final = 200
"""What that is for one message in a file: its digest and the ids."""
