"""The law of arrival (M5.11) through worker, clock room and both SQL stores, which are opened anew at every point.

`tests/core/test_arrival.py` holds the core to it with many more households.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from bridge.core.effects import SendEvents
from bridge.core.rules import Rules
from bridge.store.postgres import PostgresStore
from bridge.store.sqlite import SqliteStore
from tests.arrivals import QUARTER_S, Sent, households, kinds_of_settings, moment, told
from tests.past import Keeper, Past

if TYPE_CHECKING:
    from tests.postgres import Server

pytestmark = pytest.mark.anyio

HOLD: Final = timedelta(hours=2)  # so that a household has said everything soon after its last message
BEAT_S: Final = 120  # between two ticks; longer than `grace` would be a gap
LATER_S: Final = 4 * 3600
USERS: Final = ("user-1", "user-2")
EXAMPLES: Final = settings(  # not made smaller when one fails: that takes too long through a store
    max_examples=3, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)  # fmt: skip

Open = Callable[[], Keeper]
Told = Sequence[object]


class Life:
    """A bridge on a store that is opened anew as often as asked."""

    def __init__(self, make: Open, rules: Rules) -> None:
        self.make = make
        self.rules = rules
        self.past: Past | None = None

    async def start(self) -> None:
        store = self.make()
        await store.open()
        self.past = Past(store, self.rules)

    async def stop(self) -> None:
        assert self.past is not None
        assert [] == list(await self.past.store.verify())
        await self.past.store.close()

    async def hear(self, sent: Sent, at: datetime) -> None:
        assert self.past is not None
        self.past.now = at
        await self.past.hear(sent.topic, sent.body)
        await self.past.work()

    async def tick(self, at: datetime) -> None:
        assert self.past is not None
        self.past.now = at
        await self.past.turn()

    async def told(self, until: int) -> Told:
        """Return all that has been queued for MOOST about the time up to a second; a sleeping inverter never ends."""
        assert self.past is not None
        calls = [row.call for user in USERS for row in await self.past.store.event_calls(user, 0, 100_000)]
        events = (event for call in calls if isinstance(call, SendEvents) for event in call.events)
        return told(event for event in events if event.at <= moment(until))


def over(sent: Sequence[Sent]) -> int:
    """Return the second at which a household says nothing more."""
    return sent[-1].received + int(HOLD.total_seconds()) + 3600


async def as_it_happens(life: Life, sent: Sequence[Sent], *, restarts: bool = False) -> Told:
    ticks = [(second, None) for second in range(0, over(sent), BEAT_S)]
    await life.start()
    for second, one in sorted([*((one.received, one) for one in sent), *ticks], key=lambda step: step[0]):
        if restarts and one is not None:
            await life.stop()
            await life.start()
        await (life.tick(moment(second)) if one is None else life.hear(one, moment(second)))
    found = await life.told(over(sent) - QUARTER_S)
    await life.stop()
    return found


async def at_once(life: Life, sent: Sequence[Sent]) -> Told:
    begins = over(sent) + LATER_S
    await life.start()
    for place, one in enumerate(sent):
        await life.hear(one, moment(begins + place / 1000))
    for second in range(begins + BEAT_S, begins + 3600, BEAT_S):
        await life.tick(moment(second))
    found = await life.told(over(sent) - QUARTER_S)
    await life.stop()
    return found


Makers = Callable[[AsyncExitStack], Open]


@pytest.fixture(params=["sqlite", "postgres"])
def makers(request: pytest.FixtureRequest) -> Makers:
    """Return what makes an empty file or database, and opens it as often as asked."""
    if request.param == "postgres":
        server: Server = request.getfixturevalue("server")

        def postgres(_: AsyncExitStack) -> Open:
            url = server.emptied()
            return lambda: PostgresStore(url, serving=True, told=True)

        return postgres

    def sqlite(held: AsyncExitStack) -> Open:
        folder = Path(held.enter_context(TemporaryDirectory()))
        return lambda: SqliteStore(str(folder / "bridge.db"), exclusive=True)

    return sqlite


async def by(makers: Makers, rules: Rules, live: Callable[[Life], Awaitable[Told]]) -> Told:
    async with AsyncExitStack() as held:
        return await live(Life(makers(held), replace(rules, hold=HOLD, spread=timedelta(0))))


@EXAMPLES
@given(sent=households(), rules=kinds_of_settings())
async def test_live_restarted_and_as_a_backlog_the_same_leaves(makers: Makers, sent: list[Sent], rules: Rules) -> None:
    live = await by(makers, rules, lambda life: as_it_happens(life, sent))
    assert live == await by(makers, rules, lambda life: as_it_happens(life, sent, restarts=True))
    assert live == await by(makers, rules, lambda life: at_once(life, sent))
