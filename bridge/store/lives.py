"""The ends of processes without a word, whichever keeper it is: how much was in hand, and how it is taken up again."""

from typing import Final

IN_HAND: Final = 256
"""Messages that a worker has in hand at most: a batch."""

HEAD_START_S: Final = 0.5
"""How long the door is open before a message is taken that may have ended the process, and may end it again."""
