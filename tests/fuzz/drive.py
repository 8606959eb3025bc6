"""Who drives the inputs through: rounds of hypothesis, so that 100,000 of them take minutes and not gigabytes."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import requests
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz import inputs, law, outdoors
from tests.fuzz.indoors import indoors
from tests.fuzz.tally import Tally
from tests.life.stage import Bridge

ROUND: Final = 1_000  # examples that hypothesis remembers at a time
WORK_EVERY: Final = 100  # requests

T = TypeVar("T")
Found = Callable[[str, int, BaseException], object]
"""Hears of a finding: what kind of input, the seed of its round, what was raised."""


def raise_it(_kind: str, _seed: int, error: BaseException) -> None:
    """End with the first finding, as a test does."""
    raise error


@dataclass(frozen=True, slots=True, kw_only=True)
class Tour:
    """How far to go, from where, and who hears of what is found."""

    count: int
    seed: int = 0  # of the first round; each further one has the next
    found: Found = raise_it


def rounds(kind: str, strategy: st.SearchStrategy[T], check: Callable[[T], object], tour: Tour) -> None:
    """Check examples, some at a time."""
    for number, start in enumerate(range(0, tour.count, ROUND), tour.seed):

        @seed(number)
        @settings(
            max_examples=min(ROUND, tour.count - start),
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate,),
        )
        @given(strategy)
        def once(value: T) -> None:
            check(value)

        try:
            once()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
            tour.found(kind, number, error)


def core(tally: Tally, tour: Tour) -> None:
    """Play through decode and the core; the count is of plays, of up to eight messages each."""
    rounds("decode and reduce", law.plays, lambda said: law.play(said, tally), tour)


def indoor_requests(folder: Path, tally: Tally, tour: Tour) -> None:
    """Ask the app with its store and worker behind it."""
    with asyncio.Runner() as loop:
        stack = contextlib.AsyncExitStack()
        bridge = loop.run(stack.enter_async_context(indoors(folder)))
        asked = 0

        def check(question: inputs.Request) -> None:
            nonlocal asked
            kind, method, path, headers, body = question
            tally.add(f"request, {kind}", loop.run(bridge.post(method, path, headers, body)))
            asked += 1
            if asked % WORK_EVERY == 0:
                loop.run(bridge.work())

        try:
            rounds("request", inputs.requests(), check, tour)
        finally:
            census = loop.run(bridge.work())
            loop.run(stack.aclose())
    for fate in ("settled", "parked"):
        tally.fates[fate] += getattr(census, fate)
    for reason, dead in census.dead_letters.items():
        tally.fates[f"dead: {reason}"] += dead


def questions(bridge: Bridge, tally: Tally, tour: Tour) -> None:
    """Ask what schemathesis asks."""
    with requests.Session() as session:
        strategy = st.tuples(outdoors.cases(bridge), st.sampled_from(["open", "by-bearer", "acme", None]))
        rounds("schemathesis", strategy, lambda pair: outdoors.question(*pair, session, tally), tour)


def scribbles(bridge: Bridge, tally: Tally, tour: Tour) -> None:
    """Send what is hardly HTTP."""
    rounds("hardly HTTP", outdoors.scribbles(), lambda text: outdoors.scribble(bridge, text, tally), tour)
