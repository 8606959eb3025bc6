"""Many senders at once: what a busy device cloud does to the door, with a ledger of its own."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from tests.life.stage import SUBSCRIPTION, Bridge, signed

SENDERS: Final = 24


@dataclass(frozen=True)
class Letter:
    """One message to send; the id stays when it is sent again."""

    id: str
    topic: str  # without the subscription
    body: bytes


@dataclass
class Tally:
    """What became of the letters."""

    answered: dict[str, tuple[int, str]] = field(default_factory=dict)  # id -> status, text of the answer
    lost: list[str] = field(default_factory=list)  # ids of those whose answer never came

    def of(self, status: int) -> list[str]:
        """Return the ids of the letters answered with a status."""
        return [letter for letter, (said, _) in self.answered.items() if said == status]


def send(bridge: Bridge, letters: Iterable[Letter], *, answered: Callable[[int], object] = lambda _: None) -> Tally:
    """Send letters over some connections, each once; `answered` is told how many have got an answer so far."""
    return asyncio.run(_send(bridge, letters, answered))


async def _send(bridge: Bridge, letters: Iterable[Letter], answered: Callable[[int], object]) -> Tally:
    tally, waiting = Tally(), iter(letters)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as http:

        async def work() -> None:
            for letter in waiting:
                url = f"{bridge.url}/webhooks/{SUBSCRIPTION}.{letter.topic}"
                try:
                    async with http.post(url, data=letter.body, headers=signed(letter.body, letter.id)) as answer:
                        tally.answered[letter.id] = answer.status, await answer.text()
                except (aiohttp.ClientError, TimeoutError):
                    tally.lost.append(letter.id)
                    continue
                answered(len(tally.answered))

        await asyncio.gather(*(work() for _ in range(SENDERS)))
    return tally
