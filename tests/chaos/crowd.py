"""The device cloud: many senders at once that repeat what was not answered with 202, and keep account of every answer.

Rules:
- A letter keeps its id however often it is sent; it is sent until it is answered with 202, whatever else is said.
- Some letters are sent again though they were taken, some twice at the same time, some cut off half way.
- The replicas take turns, so that a repeat often reaches another one than the first attempt.
"""

import asyncio
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from tests.chaos.town import Home, Letter, Town
from tests.life.stage import signed

if TYPE_CHECKING:
    from concurrent.futures import Future

TIMEOUT: Final = aiohttp.ClientTimeout(total=8)  # longer than the door waits for a held store
FIRST_WAIT_S: Final = 0.1
LONGEST_WAIT_S: Final = 1.0  # an impatient cloud: the run lasts a minute
AGAIN: Final = 0.08  # of the letters are sent again though they were taken
TWINS: Final = 0.08  # are sent twice at the same time


Life = Callable[[threading.Event], Coroutine[Any, Any, None]]
"""Somebody who sends until the event is set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A 202."""

    accepted: int
    duplicates: int
    dead: int
    ids: tuple[int, ...]


@dataclass(slots=True)
class Sent:
    """What became of one letter."""

    letter: Letter
    answers: list[Taken] = field(default_factory=list)
    lost: int = 0  # attempts without an answer
    refused: int = 0  # attempts answered with 503


@dataclass
class Crowd:
    """All senders; they live in a thread of their own."""

    town: Town
    urls: Callable[[], Sequence[str]]
    dice: random.Random
    pace_s: float  # mean pause of a sender between two letters
    book: dict[str, Sent] = field(default_factory=dict)
    statuses: Counter[int] = field(default_factory=Counter)  # of all answers
    lost: int = 0  # attempts without an answer
    did: Counter[str] = field(default_factory=Counter)  # what the cloud does of itself, and was seen to matter
    on_the_way: int = 0  # attempts
    said: list[tuple[str, int, float]] = field(default_factory=list)  # home, number, when it was taken [epoch s]
    delays: list[float] = field(default_factory=list)  # to MOOST, while only one subscription does wrong [s]
    others: list[Life] = field(default_factory=list)  # who sends besides, until the end
    troubles: list[str] = field(default_factory=list)
    _turn: int = 0
    _deadline: float = float("inf")

    # ---- the thread ----

    def start(self) -> None:
        """Begin to send."""
        self._ending, self._ready = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live()), name="crowd")
        self._thread.start()
        self._ready.wait()

    def finish(self, seconds: float) -> None:
        """Begin nothing new, and wait until everything begun is taken; what is not taken by then is trouble."""
        self._deadline = time.monotonic() + seconds
        self._ending.set()
        self._thread.join()

    async def deliver_here(self, letter: Letter) -> Taken:
        """Send a letter from the crowd's own thread."""
        return await self._deliver(letter)

    def deliver(self, letter: Letter) -> "Future[Taken]":
        """Send a letter from another thread."""
        return asyncio.run_coroutine_threadsafe(self._deliver(letter), self._loop)

    async def _live(self) -> None:
        town = self.town
        async with aiohttp.ClientSession(timeout=TIMEOUT, connector=aiohttp.TCPConnector(limit=0)) as self._http:
            self._loop = asyncio.get_running_loop()
            self._ready.set()
            lives: list[Coroutine[Any, Any, None]] = [
                *(self._steady(home) for home in (*town.steady, *town.archives)),
                *(self._hasty(home) for home in town.hasty),
                *(self._others() for _ in range(2)),
                *(life(self._ending) for life in self.others),
            ]
            await asyncio.gather(*(self._unless_trouble(life) for life in lives))
            others = asyncio.all_tasks() - {asyncio.current_task()}
            await asyncio.gather(*others, return_exceptions=True)

    async def _unless_trouble(self, life: Coroutine[Any, Any, None]) -> None:
        try:
            await life
        except Exception as error:  # noqa: BLE001 - told by the judge
            self.troubles.append(f"a sender ended by {error!r}")

    # ---- who sends ----

    async def _steady(self, home: Home) -> None:
        while not self._ending.is_set():
            await self._pause()
            letter = self.town.told(home)
            if self.dice.random() < TWINS:
                first, second = await asyncio.gather(self._deliver(letter), self._deliver(letter))
                self.did["sent twice at once"] += first.duplicates + second.duplicates > 0
            else:
                await self._deliver(letter)
            self.said.append((home.user, home.number, time.time()))
            self.did["arrays"] += len(letter.fates) > 1
            if self.dice.random() < AGAIN:
                answer = await self._deliver(letter)
                self.did["sent again though taken"] += answer.duplicates == len(letter.fates)

    async def _hasty(self, home: Home) -> None:
        while not self._ending.is_set():
            await self._pause()
            letters = self.town.burst(home)
            order: list[int] = []

            async def one(place: int, letter: Letter) -> None:
                await self._deliver(letter)
                order.append(place)  # noqa: B023 - of this burst: it is awaited

            mixed = list(enumerate(letters))
            self.dice.shuffle(mixed)
            await asyncio.gather(*(one(place, letter) for place, letter in mixed))
            self.did["out of order"] += order != sorted(order)

    async def _others(self) -> None:
        """Say what makes no event by itself: other devices, what nobody understands, who is not known."""
        while not self._ending.is_set():
            await self._pause(0.5)
            chance = self.dice.random()
            if chance < 0.7:
                await self._deliver(self.town.household())
            elif chance < 0.82:
                letter = self.town.poison()
                answer = await self._deliver(letter)
                self.did["poison"] += answer.dead > 0
            elif chance < 0.9:
                answer = await self._deliver(self.town.foreign())
                self.did["of another subscription"] += answer.dead > 0
            elif chance < 0.95:
                await self._deliver(self.town.stranger())
            else:
                for letter in self.town.newcomer():
                    await self._deliver(letter)

    async def _pause(self, times: float = 1.0) -> None:
        await asyncio.sleep(self.pace_s * times * self.dice.uniform(0.2, 1.8))

    # ---- one letter ----

    async def _deliver(self, letter: Letter) -> Taken:
        """Send a letter until it is taken."""
        sent = self.book.setdefault(letter.id, Sent(letter))
        wait = FIRST_WAIT_S
        while True:
            taken = await self._attempt(sent)
            if taken is not None:
                sent.answers.append(taken)
                return taken
            if time.monotonic() > self._deadline:
                raise TimeoutError(f"{letter.id} was not taken")
            await asyncio.sleep(wait * self.dice.uniform(0.5, 1.0))
            wait = min(2 * wait, LONGEST_WAIT_S)

    async def _attempt(self, sent: Sent) -> Taken | None:
        """Send a letter once; None = there was no 202."""
        letter = sent.letter
        urls = self.urls()
        self._turn += 1
        url = f"{urls[self._turn % len(urls)]}/webhooks{'/' if letter.topic else ''}{letter.topic}"
        self.on_the_way += 1
        try:
            async with self._http.post(
                url, data=letter.body, headers=signed(letter.body, letter.id, letter.secret)
            ) as answer:
                raw = await answer.read()
        except (aiohttp.ClientError, TimeoutError):
            sent.lost += 1
            self.lost += 1
            return None
        finally:
            self.on_the_way -= 1
        self.statuses[answer.status] += 1
        sent.refused += answer.status == 503
        if answer.status != 202:
            return None
        told = json.loads(raw)
        return Taken(
            accepted=told["accepted"], duplicates=told["duplicates"], dead=told["dead"], ids=tuple(told["ids"])
        )
