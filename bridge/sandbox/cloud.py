"""The device cloud: households that live in simulated time and post what changes.

`posts` makes the messages without any network (tests and benchmarks take them from there); `simulate` posts them.

Rules:
- The same seed, number of homes and span give the same messages, byte for byte, in the same order; more homes do not
  change what the others say.
- A message leaves some time after what it tells (each vendor polls in its own rhythm), so messages arrive in
  another order than things happened; some are posted twice, with the same id.
- The simulated span ends now: at speed X the run takes span / X, and what is posted is never from the future.
- While the receiver cannot be reached messages are kept; then they leave home by home in the order they were due.
"""

import asyncio
import heapq
import random
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, TextIO, cast

import aiohttp
import msgspec

from bridge.sandbox.build import equip
from bridge.sandbox.delivery import Courier, Signer, Tally
from bridge.sandbox.home import Home, Said
from bridge.sandbox.sky import HOUR_MS
from bridge.sandbox.verify import BACKLOG_PATIENCE_S, DEFAULT, PATIENCE_S, Receiver, Verdict, table
from bridge.sandbox.verify import verify as compared

SUBSCRIPTION: Final = "sub-1"
STEP_S: Final = 180.0
_LATEST_MS: Final = 75_000
"""The longest a message is under way [ms]; under the two minutes that a receiver waits by default."""
_TWICE: Final = 0.005
_HELD: Final = 50_000
"""The most messages that are kept while they cannot be delivered; then the homes stand still."""
_PROGRESS_S: Final = 0.2

Echo = Callable[[str], object]
Progress = Callable[[float, Tally], object]


@dataclass(frozen=True, slots=True)
class Post:
    """One message on its way: when it leaves [epoch ms], its id, topic without subscription, body."""

    due: int
    id: str
    topic: str
    user: str
    body: bytes


def homes(count: int, *, seed: int, start: int, end: int, step_s: float = STEP_S) -> Iterator[Home]:
    """Yield homes that live from start to end [epoch ms] in steps of about `step_s` seconds."""
    for number in range(count):
        dice = random.Random(f"{seed}:home:{number}")  # noqa: S311 - a simulation, repeatable by its seed
        yield Home(equip(number, dice), start=start, end=end, step_ms=int(step_s * 1000), dice=dice)


def posts(  # noqa: PLR0913 - all keywords, most with defaults
    count: int,
    *,
    seed: int,
    start: int,
    end: int,
    step_s: float = STEP_S,
    twice: float = _TWICE,
    truth: TextIO | None = None,
) -> Iterator[Post]:
    """Yield the messages of all homes in the order they leave; writes the truth beside, if asked."""
    return _Street(homes(count, seed=seed, start=start, end=end, step_s=step_s), twice, truth).posts()


def messages(
    count: int,
    *,
    seed: int,
    start: int,
    end: int,
    subscription: str = SUBSCRIPTION,
    step_s: float = STEP_S,
) -> Iterator[tuple[str, bytes]]:
    """Yield (topic, body) of all homes, each message once."""
    for post in posts(count, seed=seed, start=start, end=end, step_s=step_s, twice=0):
        yield f"{subscription}.{post.topic}", post.body


class _Street:
    """Many homes advancing together: one queue of homes to advance and of messages to leave."""

    def __init__(self, homes: Iterator[Home], twice: float, truth: TextIO | None) -> None:
        """Line the homes up by their next step."""
        self._twice = twice
        self._truth = truth
        self._number = 0
        self._queue: list[tuple[int, int, Home | Post]] = []
        for home in homes:
            self._push(home.now, home)

    def posts(self) -> Iterator[Post]:
        """Advance whoever is next and yield what leaves."""
        while self._queue:
            due, _, item = heapq.heappop(self._queue)
            if isinstance(item, Post):
                yield item
                continue
            for said in item.advance():
                self._send(item, said)
            if self._truth is not None:
                for slot in item.ledger.close(item.now):
                    self._truth.write(msgspec.json.encode(slot).decode() + "\n")
            if item.now < item.end:
                self._push(max(item.now, due), item)

    def _send(self, home: Home, said: Said) -> None:
        """Put a message on its way, now and then twice."""
        dice = home.dice
        due = said.at + min(_LATEST_MS, int(dice.expovariate(1 / 8_000)))
        post = Post(
            due=min(due, home.end),
            id=f"msg_{dice.getrandbits(96):024x}",
            topic=f"{said.kind}.{said.action}",
            user=home.user,
            body=msgspec.json.encode(said.body),
        )
        self._push(post.due, post)
        if dice.random() < self._twice:
            again = replace(post, due=min(post.due + dice.randint(1, 60_000), home.end))
            self._push(again.due, again)

    def _push(self, at: int, item: Home | Post) -> None:
        """Queue something; equal times keep the order of arrival."""
        self._number += 1
        heapq.heappush(self._queue, (at, self._number, item))


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a simulation did; sent = accepted + duplicates + refused."""

    homes: int
    hours: float
    seconds: float
    sent: int
    accepted: int
    duplicates: int
    dead: int
    refused: int
    retried: int
    missing: int | None = None  # slots of the truth that never arrived; None = not verified
    wrong: int | None = None  # slots that arrived with a wrong energy
    violations: int | None = None  # what the sandbox found questionable

    @property
    def clean(self) -> bool:
        """Tell whether nothing was found that should not be; also where nothing was looked at."""
        return not (self.missing or self.wrong or self.violations)


async def simulate(  # noqa: PLR0913 - the options of one command
    *,
    target: str,
    homes: int,
    hours: float,
    speed: float,
    seed: int,
    subscription: str = SUBSCRIPTION,
    secret: str | None = None,
    truth: Path | None = None,
    verify: str | None = None,
    receiver: Receiver = DEFAULT,
    verify_patience_s: float | None = None,
    connections: int = 32,
    step_s: float = STEP_S,
    anchor: float | None = None,
    echo: Echo = sys.stdout.write,
    progress: Progress | None = None,
) -> Summary:
    """Let homes live for some hours at some speed (simulated seconds per second; 0 = as fast as possible) and post.

    The span begins to run at the wall time `anchor` [epoch s], by default now, and ends when it has caught up with the
    wall clock. With the address of a sandbox to verify, what arrived there is compared with the truth afterwards.
    Raises OSError when the truth file cannot be written or the sandbox to verify cannot be read, ValueError when the
    secret is none.
    """
    began = time.monotonic()
    anchor = time.time() if anchor is None else anchor
    end = int((anchor + (hours * 3600 / speed if speed else 0)) * 1000)
    start = end - int(hours * HOUR_MS)
    signer = Signer(secret)
    with _truth_file(truth, needed=verify is not None) as file:
        street = posts(homes, seed=seed, start=start, end=end, step_s=step_s, truth=file)
        deleted = set[str]()
        if not speed:  # hours within seconds: a device may be deleted before its slots close
            street = _noting_deletes(street, deleted)
        connector = aiohttp.TCPConnector(limit=connections)
        async with aiohttp.ClientSession(connector=connector) as http:
            dice = random.Random(seed)  # noqa: S311 - jitter of retries
            courier = Courier(http, target=target, signer=signer, dice=dice, speed=speed)
            pace = _Pace(start=start, end=end, speed=speed, anchor=anchor)
            await _deliver(street, courier, pace, subscription, connections, progress)
        seconds = round(time.monotonic() - began, 3)
        verdict = None
        if file is not None and verify is not None:
            file.flush()
            patience_s = PATIENCE_S if speed else BACKLOG_PATIENCE_S
            if verify_patience_s is not None:
                patience_s = verify_patience_s
            verdict = await compared(Path(file.name), verify, receiver=receiver, patience_s=patience_s, deleted=deleted)
            echo(table(verdict))
    summary = Summary(homes=homes, hours=hours, seconds=seconds, **asdict(courier.tally), **_found(verdict))
    echo(" ".join(f"{key}={value}" for key, value in asdict(summary).items() if value is not None) + "\n")
    return summary


def _noting_deletes(street: Iterator[Post], deleted: set[str]) -> Iterator[Post]:
    """Yield messages and note which devices they delete."""
    for post in street:
        kind, _, action = post.topic.partition(".")
        if action == "delete":
            deleted.add(f"{kind}:{msgspec.json.decode(post.body)['id']}")
        yield post


def _found(verdict: Verdict | None) -> dict[str, int]:
    """Return the numbers of a comparison; none where nothing was compared."""
    if verdict is None:
        return {}
    return {
        "missing": verdict.missing,
        "wrong": verdict.wrong,
        "violations": sum(verdict.violations.values()),
    }


@contextmanager
def _truth_file(path: Path | None, *, needed: bool) -> Iterator[TextIO | None]:
    """Open the truth file, a temporary one where it is only needed to verify, or none."""
    if path is not None:
        with path.open("w", encoding="utf-8") as file:
            yield file
    elif needed:
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".jsonl") as file:
            yield cast("TextIO", file)
    else:
        yield None


class _Pace:
    """The relation of simulated and real time."""

    def __init__(self, *, start: int, end: int, speed: float, anchor: float) -> None:
        """Begin at a wall time [epoch s]; simulated times are epoch ms."""
        self._start = start
        self._span = max(end - start, 1)
        self._speed = speed
        self._began = time.monotonic() + anchor - time.time()

    @property
    def timed(self) -> bool:
        """Tell whether messages leave at a speed, not as fast as they are taken."""
        return self._speed > 0

    def wait_s(self, due: int) -> float:
        """Return how long it is until something is due [s]; never positive without a speed."""
        if not self._speed:
            return 0.0
        return self._began + (due - self._start) / 1000 / self._speed - time.monotonic()

    def share(self, due: int) -> float:
        """Return how much of the span has passed, 0..1."""
        return min(max((due - self._start) / self._span, 0.0), 1.0)


async def _deliver(
    street: Iterator[Post],
    courier: Courier,
    pace: _Pace,
    subscription: str,
    connections: int,
    progress: Progress | None,
) -> None:
    """Hand messages to a few couriers as they fall due, those of a home always to the same one."""
    queues: list[asyncio.Queue[Post | None]] = [asyncio.Queue() for _ in range(connections)]
    room = asyncio.Semaphore(_HELD if pace.timed else 4 * connections)

    async def work(queue: asyncio.Queue[Post | None]) -> None:
        while (post := await queue.get()) is not None:
            await courier.post(f"{subscription}.{post.topic}", post.id, post.body)
            room.release()

    async with asyncio.TaskGroup() as group:
        for queue in queues:
            group.create_task(work(queue))
        told = 0.0
        for post in street:
            await asyncio.sleep(max(pace.wait_s(post.due), 0))
            await room.acquire()
            queues[zlib.crc32(post.user.encode()) % connections].put_nowait(post)
            if progress is not None and time.monotonic() - told > _PROGRESS_S:
                told = time.monotonic()
                progress(pace.share(post.due), courier.tally)
        for queue in queues:
            queue.put_nowait(None)
    if progress is not None:
        progress(1.0, courier.tally)
