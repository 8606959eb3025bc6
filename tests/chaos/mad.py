"""A subscription gone mad, with a valid secret and without one: what it costs is bounded, and others do not notice.

Rules:
- Each of its messages has one fate, whatever else goes wrong: its ledger is as exact as the others'.
- It never rests but where the judge wants to see the others alone.
- In a calm, where nobody but the mad one does wrong, what the others say is at MOOST within `OTHERS_S`. Where the
  machine is too busy to work off what the faults left, there is no calm to judge; it is told.
"""

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final
from urllib.parse import urlsplit

from tests.chaos import judge
from tests.chaos.crowd import Crowd
from tests.chaos.scene import Scene, seen
from tests.chaos.town import MAD, MAD_USER, Fate
from tests.life.stage import stamp

PACE_S: Final = 0.4
AT_ONCE: Final = 100  # messages of an array
DEVICES: Final = 200  # that one building may have: the default
PIPELINED: Final = 20  # connections
OTHERS_S: Final = 10.0
"""Two seconds are the goal on a machine that does nothing else (`make isolation`); without turns it is much more."""

CALM_S: Final = 6.0
SLOWER: Final = 3.0  # the others, when all is healed
SMALL: Final = 60  # messages or calls that are on their way at any time
DRAINED_S: Final = 90.0

DEEDS: Final = (
    "mad: deletes without end", "mad: devices without end", "mad: heavy messages", "mad: dead letters",
    "mad: strangers", "mad: pipelines",
)  # fmt: skip


class Mad:
    """The sender; it lives in the crowd's thread."""

    def __init__(self, crowd: Crowd) -> None:
        """Begin at once."""
        self.crowd = crowd
        self.resting = threading.Event()
        self._dice = random.Random(crowd.dice.random())
        self._turn = 0

    async def live(self, ending: threading.Event) -> None:
        """Do what is mad, one after the other and again."""
        deeds: tuple[Callable[[], Awaitable[bool]], ...] = (
            self._deletes, self._devices, self._heavy, self._junk, self._strangers, self._pipelines,
        )  # fmt: skip
        for part in range(DEVICES // AT_ONCE):
            await self._say(self._inverters(part), *[Fate.SETTLED] * AT_ONCE)
        while not ending.is_set():
            await asyncio.sleep(PACE_S * self._dice.uniform(0.2, 1.8))
            if not self.resting.is_set():
                deed = self._turn % len(deeds)
                self._turn += 1
                self.crowd.did[DEEDS[deed]] += await deeds[deed]()

    # ---- with a secret ----

    async def _deletes(self) -> bool:
        said = [{"id": f"never-{self._turn}-{number}", "userId": MAD_USER} for number in range(AT_ONCE)]
        return await self._say(("vehicle.delete", said), *[Fate.SETTLED] * AT_ONCE)

    async def _devices(self) -> bool:
        return await self._say(self._inverters(DEVICES // AT_ONCE), *[Fate.TOO_MANY] * AT_ONCE)

    async def _heavy(self) -> bool:
        said = {**self._device("heavy"), "climateState": {"temperatureTargets": [1] * 100_000}}
        return await self._say(("hvac.update", said), Fate.TOO_LARGE)

    async def _junk(self) -> bool:
        return await self._say(("vehicle.update", b"%d no JSON " % self._turn * 10_000), Fate.UNREADABLE)

    async def _strangers(self) -> bool:
        said = [self._device(f"car-{number}", f"stranger-{self._turn}-{number}") for number in range(AT_ONCE // 4)]
        return await self._say(("vehicle.update", said), *[Fate.PARKED] * len(said))

    def _inverters(self, part: int) -> tuple[str, object]:
        return "pv-inverter.update", [self._device(f"inverter-{part * AT_ONCE + number}") for number in range(AT_ONCE)]

    def _device(self, name: str, user: str = MAD_USER) -> dict[str, Any]:
        return {"id": name, "userId": user, "isOnline": True, "lastUpdated": stamp(self.crowd.town.world())}

    async def _say(self, said: tuple[str, object], *fates: Fate) -> bool:
        topic, content = said
        letter = self.crowd.town.letter(f"{MAD}.{topic}", content, *fates)
        return (await self.crowd.deliver_here(letter)).accepted > 0

    # ---- without one ----

    async def _pipelines(self) -> bool:
        place = urlsplit(self._dice.choice(list(self.crowd.urls())))
        one = f"POST /webhooks/{MAD}.vehicle.update HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{{}}".encode()

        async def pipeline() -> bool:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(1):
                    reader, writer = await asyncio.open_connection(place.hostname, place.port)
                    try:
                        writer.write(one * 500)
                        return b" 401 " in await reader.read(1000)
                    finally:
                        writer.transport.abort()
            return False

        return any(await asyncio.gather(*(pipeline() for _ in range(PIPELINED))))


def calm(scene: Scene, mad: Mad) -> Iterator[str]:
    """Let only the mad one do wrong for a while; yield where the others had to wait longer than their bound."""
    crowd = scene.crowd
    mad.resting.set()
    crowd.pace_s *= SLOWER  # what is owed from before may be more than a busy machine works off beside so many
    if not seen(lambda: _small(scene), DRAINED_S):
        return  # there is no calm; that all arrives in the end is judged anyhow
    deeds = sum(crowd.did[name] for name in DEEDS)
    mad.resting.clear()
    began = time.time()
    time.sleep(CALM_S)
    mad.resting.set()
    if sum(crowd.did[name] for name in DEEDS) == deeds:
        yield "the mad subscription did nothing in the calm"
    said = {(user, number): at for user, number, at in list(crowd.said) if at >= began}
    seen(lambda: set(said) <= set(arrivals(scene)), OTHERS_S)
    came = arrivals(scene)
    late = {name: came.get(name, time.time()) - at for name, at in said.items()}
    worst = max(late.values(), default=0.0)
    if not said:
        yield "nobody but the mad one said anything in the calm"
    if worst > OTHERS_S:
        yield f"beside the mad subscription {len(late)} values took up to {worst:.1f} s to MOOST"
    crowd.delays = sorted(late.values())
    mad.resting.clear()


def _small(scene: Scene) -> bool:
    health = scene.health()
    return int(health["ledger"]["pending"]) + int(health["calls"]["pending"]) < SMALL


def arrivals(scene: Scene) -> dict[tuple[str, int], float]:
    """Return when MOOST stored each value of the crowd's homes [epoch s], by home and number."""
    return {
        (event["customerBuildingId"], round(event["value"] * 1000)): event["received_at"]
        for event in judge.events(scene.platform.journal)
        if event["type"] == judge.COUNTED
    }
