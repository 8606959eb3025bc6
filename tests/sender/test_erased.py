"""A user is forgotten (GDPR, article 17) while calls of its building are in the sender's hand and on the wire."""

from collections.abc import Callable
from typing import Any

import pytest

from bridge.store.desk import Forgetting

pytestmark = pytest.mark.anyio
Desk = Any
Make = Callable[..., Desk]


async def forgotten(d: Desk, building: str) -> None:
    async for _ in d.store.forget(Forgetting(building=building), d.time.now):
        pass


async def test_a_call_on_the_wire_is_the_last_of_its_building(desk: Make) -> None:
    d = desk(max_concurrency=2)
    d.start()
    await d.home("home-1", "home-2")
    await d.sandbox.faults({"kind": "latency", "seconds": 0.3, "path": "/events", "building": "^home-1$", "times": 1})
    await d.queue(d.events(*range(50)), d.events(7, building="home-2"))

    async def on_the_wire() -> bool:
        return bool(await d.sandbox.fired() == [1])

    await d.until(on_the_wire)
    await forgotten(d, "home-1")
    await d.done()

    async def stored() -> bool:
        return bool(await d.sandbox.values() == [0])

    await d.until(stored)
    await d.queue(*d.sheet("home-1"), d.events(99))
    await d.done()
    assert [0, 99] == await d.sandbox.values(), "what comes later flows, and nothing of before"
    assert [7] == await d.sandbox.values("home-2")
    census = await d.store.census()
    assert (50, 0) == (census.calls_discarded, census.in_doubt)
    assert [] == await d.store.verify()


async def test_a_building_is_not_sent_again_for_a_call_that_was_erased(desk: Make) -> None:
    """A refused call has the building and its list sent again first: what is in hand for that goes too."""
    d = desk(max_concurrency=1)
    d.start()
    await d.home()
    before = len(await d.sandbox.calls("/buildings"))
    await d.sandbox.faults(
        {"kind": "status", "status": 400, "path": "/events", "times": 1},
        {"kind": "latency", "seconds": 0.3, "path": "/buildings/v1", "times": 1},
    )
    await d.queue(d.events(1))

    async def building_is_on_the_wire() -> bool:
        return bool(await d.sandbox.fired() == [1, 1])

    await d.until(building_is_on_the_wire)
    await forgotten(d, "home-1")
    await d.until(lambda: not d.sender._calls and not d.sender._hand.ready and not d.sender._hand.unwritten)
    assert before + 1 == len(await d.sandbox.calls("/buildings")), "the building was on the wire, the list was not"
    assert [] == await d.sandbox.values()
