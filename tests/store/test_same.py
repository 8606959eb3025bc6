"""Whatever is done to them, file, database and memory say the same, and both ledgers hold after each step."""

import asyncio
import itertools
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from bridge.core.effects import Note
from bridge.core.model import Residence
from bridge.core.vocabulary import DeadReason, Kind
from bridge.store.calls import LOST_AT_THE_END
from bridge.store.desk import DeadFilter, Forgetting, MessageTrip, Redaction
from bridge.store.memory import MemoryStore
from bridge.store.port import Attempt, Begin, Census, Home, Outgoing, Return, Settlement, Work
from bridge.store.postgres import PostgresStore
from bridge.store.sqlite import SqliteStore, lives
from tests.core.house import own
from tests.postgres import Server
from tests.store.conftest import Keeper
from tests.store.values import (
    DAY,
    HOLD,
    NOW,
    SECOND,
    arrival,
    burial,
    change,
    create,
    devices,
    doubt,
    events,
    house,
    said,
    stillborn,
    tariff,
)

T = TypeVar("T")

HOUSES = ["a", "b", "c"]
USERS = ["u", "v"]
REASONS = [DeadReason.FAULT, DeadReason.RULE]

houses = st.sampled_from(HOUSES)
users = st.sampled_from(USERS)
calls = st.one_of(
    st.builds(lambda name, count: events(name, *map(float, range(count))), houses, st.integers(1, 3)),
    st.builds(create, houses, st.sampled_from(["x", "y"])),
    st.builds(lambda name, city: change(name, city=city), houses, st.sampled_from(["x", "y"])),
    st.builds(lambda name, zips: change(name, **zips), houses, st.sampled_from([{"zip": "1"}, {"zip": "2"}])),
    st.builds(tariff, houses, st.sampled_from([None, {"type": "SINGLE"}])),
    st.builds(
        lambda name, listed: devices(name, *listed),
        houses,
        st.sampled_from([["p"], ["q"], ["p", "vehicle_1"], ["vehicle_1"], ["q", "vehicle_1"]]),
    ),
)
arrivals = st.one_of(
    st.builds(
        lambda body, name, place: arrival(body, message_id=name, position=place),
        st.sampled_from([b"1", b"2"]),
        st.sampled_from([None, "m", "n"]),
        st.integers(0, 1),
    ),
    st.just(stillborn()),
)


class Same(RuleBasedStateMachine):
    """Does everything to both keepers and compares every answer; `make` returns the one beside the memory."""

    def __init__(self, make: Callable[[], Keeper]) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.make = make
        self.memory = MemoryStore()
        self.file = make()
        self.now = NOW

    @initialize()
    def begin(self) -> None:
        self.loop.run_until_complete(self.file.open())
        self.loop.run_until_complete(self.memory.open())

    def both(self, one: Awaitable[T], two: Awaitable[T]) -> T:
        """Ask both; return the answer they share."""

        async def ask() -> tuple[T, T]:
            return await one, await two

        first, second = self.loop.run_until_complete(ask())
        assert first == second
        return first

    @rule(rows=st.lists(arrivals, max_size=4))
    def accept(self, rows: list[Any]) -> None:
        rows = [replace(row, received=self.now) for row in rows]
        self.both(self.memory.accept(rows), self.file.accept(rows))

    @rule(data=st.data(), queued=st.lists(calls, max_size=4), wanted=st.lists(houses, unique=True))
    def commit(self, data: st.DataObject, queued: list[Any], wanted: list[str]) -> None:
        messages, changed = self.both(self.memory.claim(5), self.file.claim(5))
        ends = st.sampled_from(["settle", "bury", "park", "leave"])
        chosen = {message.id: data.draw(ends) for message in messages}
        states = self.both(self.memory.load([], [], wanted), self.file.load([], [], wanted)).buildings
        versions = {name: states[name].version if name in states else 0 for name in wanted}
        owners = {number: USERS[number % len(USERS)] for number in chosen}  # the same whenever it is read
        stale = bool(wanted) and data.draw(st.integers(0, 5)) == 0
        work = Work(
            now=self.now,
            settled=[number for number, end in chosen.items() if end == "settle"],
            dead=[
                (number, data.draw(st.sampled_from(REASONS)), "why") for number, end in chosen.items() if end == "bury"
            ],
            parked=[(number, owners[number]) for number, end in chosen.items() if end == "park"],
            users=owners,
            unparked=changed if data.draw(st.booleans()) else [],
            buildings=[house(name, version + stale, flags=data.draw(_flags)) for name, version in versions.items()],
            due={name: self.now + data.draw(_steps) for name in wanted},
            homes={own(Kind.METER, name): data.draw(_homes) for name in wanted},
            calls=[Outgoing(call=call, cause=data.draw(st.sampled_from([0, *chosen]))) for call in queued],
            notes=[(number, Note(name="odd", detail="x")) for number in chosen if data.draw(st.booleans())],
        )
        moved = self.both(self.memory.commit(work), self.file.commit(work))
        assert stale == bool(moved)

    @rule(data=st.data(), lanes=st.integers(1, 3), count=st.integers(1, 3))
    def send(self, data: st.DataObject, lanes: int, count: int) -> None:
        lent = self.both(self.memory.lease(self.now, lanes, count, HOLD), self.file.lease(self.now, lanes, count, HOLD))
        rows = [row for lane in lent for row in lane.calls]
        begun = [Begin(call_id=row.id, doubt=doubt()) for row in rows if data.draw(st.booleans())]
        self.both(self.memory.settle(self.now, [], begun, []), self.file.settle(self.now, [], begun, []))
        ends = [replace(data.draw(_ends), call_id=row.id) for row in rows if data.draw(st.booleans())]
        back = [
            Return(building=lane.building, at=self.now + data.draw(_steps)) for lane in lent if data.draw(st.booleans())
        ]
        self.both(self.memory.settle(self.now, ends, [], back), self.file.settle(self.now, ends, [], back))

    @rule(data=st.data(), retry=st.booleans())
    def judge(self, data: st.DataObject, retry: bool) -> None:  # noqa: FBT001 - drawn
        letters = self.both(self.memory.dead_letters(DeadFilter()), self.file.dead_letters(DeadFilter()))
        ids = data.draw(st.lists(st.sampled_from([letter.id for letter in letters]), max_size=3)) if letters else [1]
        if retry:
            self.both(self.memory.retry(ids, self.now), self.file.retry(ids, self.now))
        else:
            self.both(self.memory.discard(ids, self.now), self.file.discard(ids, self.now))

    @rule(user=users, building=houses, remove=st.booleans())
    def direct(self, user: str, building: str, remove: bool) -> None:  # noqa: FBT001 - drawn
        rows = [] if remove else [Residence(user=user, location=None, building=building)]
        gone = [(user, None)] if remove else []
        self.both(self.memory.write_residences(rows, gone), self.file.write_residences(rows, gone))

    @rule(seconds=st.integers(1, 40))
    def wait(self, seconds: int) -> None:
        self.now += seconds * SECOND

    @rule()
    def sweep(self) -> None:
        async def all_of(store: Keeper) -> None:
            while await store.sweep(self.now + DAY, DAY - 20 * SECOND, 1 << 40):
                pass

        self.both(all_of(self.memory), all_of(self.file))

    @rule(ids=st.lists(st.integers(1, 6), max_size=4), user=st.one_of(st.none(), users))
    def forget_messages(self, ids: list[int], user: str | None) -> None:
        self.forget(Forgetting(messages=ids, user=user))

    @rule(building=houses, device=st.sampled_from([None, "vehicle_1", "p"]))
    def forget_building(self, building: str, device: str | None) -> None:
        redaction = None if device is None else Redaction(devices=frozenset({device}), users=frozenset({"u"}))
        self.forget(Forgetting(building=building, redaction=redaction))

    def forget(self, what: Forgetting) -> None:
        """Erase in both, whatever is lent: its lease has ended by then."""

        async def all_of(store: Keeper) -> int:
            return sum([erased.messages async for erased in store.forget(what, lambda: self.now + 2 * HOLD)])

        self.both(all_of(self.memory), all_of(self.file))

    @rule(killed=st.booleans())
    def restart(self, *, killed: bool) -> None:
        async def again() -> None:
            without_a_word = killed and isinstance(self.file, SqliteStore)
            with pytest.MonkeyPatch.context() as patch:
                if without_a_word:
                    patch.setattr(lives, "end", lambda *_: None)
                await self.file.close()
            if not without_a_word:
                await self.memory.close()
            self.file = self.make()
            await asyncio.gather(self.file.open(), self.memory.open())

        self.loop.run_until_complete(again())

    @invariant()
    def both_say_the_same(self) -> None:
        assert [] == self.both(self.memory.verify(), self.file.verify())
        self.both(_counts(self.memory), _counts(self.file))
        self.both(self.memory.next_due(), self.file.next_due())
        self.both(self.memory.due(self.now, 10), self.file.due(self.now, 10))
        self.both(
            self.memory.load(USERS, [own(Kind.METER, "a")], HOUSES),
            self.file.load(USERS, [own(Kind.METER, "a")], HOUSES),
        )
        for number in range(1, 8):
            self.both(_trip(self.memory, number), _trip(self.file, number))
        for user in USERS:
            self.nobody_is_overlooked(user)
            self.both(self.memory.directory_of(user), self.file.directory_of(user))
            self.both(self.memory.buildings_of(user, {user}), self.file.buildings_of(user, {user}))

    def nobody_is_overlooked(self, user: str) -> None:
        """What a file has forgotten of whose a message is, it shows as a message that has to be read."""

        async def ask() -> tuple[set[int], set[int], set[int]]:
            unread = {message.id async for message in self.file.unowned()}
            return await _owned(self.memory, user), await _owned(self.file, user), unread

        every, owned, unread = self.loop.run_until_complete(ask())
        assert owned <= every <= owned | unread

    def teardown(self) -> None:
        self.loop.run_until_complete(self.file.close())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()


_flags = st.sampled_from([(), ("x",), ("x", "y")])
_steps = st.integers(0, 40).map(lambda seconds: timedelta(seconds=seconds))
_homes = st.one_of(st.none(), st.builds(lambda name, user: Home(building=name, user=user), houses, users))
_ends = st.sampled_from(
    [
        Settlement(call_id=0, delivered=1, attempt=said()),
        Settlement(call_id=0, delivered=3),
        Settlement(call_id=0, failed=True, attempt=said("503")),
        Settlement(call_id=0, lost=True, failed=True),
        Settlement(call_id=0, buried=burial()),
        Settlement(call_id=0, delivered=1, buried=burial(), bury_all=True),
        Settlement(call_id=0, repaired=True),
        Settlement(call_id=0, dry=True),
    ]
)


async def _trip(store: Keeper, number: int) -> MessageTrip | None:
    """Return a trip; when a keeper found a call lost is its own affair."""
    trip = await store.trip(number)
    if trip is None:
        return None
    calls = [replace(call, attempts=[_at_no_time(tried) for tried in call.attempts]) for call in trip.calls]
    return replace(trip, calls=calls)


def _at_no_time(tried: Attempt) -> Attempt:
    return replace(tried, at=NOW) if tried.detail == LOST_AT_THE_END.detail else tried


async def _owned(store: Keeper, user: str) -> set[int]:
    """Return the messages of a user that are there."""
    found = {number async for page in store.owned(user) for number in page}
    return {message.id for message in await store.messages(sorted(found))}


async def _counts(store: Keeper) -> Census:
    return replace(await store.census(), size_bytes=0, owed_bytes=0, log_bytes=0, free_disk_bytes=None)


def test_the_file_says_what_the_memory_says() -> None:
    with tempfile.TemporaryDirectory() as folder:
        numbers = itertools.count()

        def life() -> Same:
            path = str(Path(folder) / f"bridge-{next(numbers)}.db")
            return Same(lambda: SqliteStore(path, exclusive=True))

        run_state_machine_as_test(
            cast("type[Same]", life), settings=settings(max_examples=30, stateful_step_count=25, deadline=None)
        )


def test_the_database_says_what_the_memory_says(server: Server) -> None:
    def life() -> Same:
        url = server.emptied()
        return Same(lambda: PostgresStore(url, serving=True, told=True))

    run_state_machine_as_test(
        cast("type[Same]", life), settings=settings(max_examples=5, stateful_step_count=20, deadline=None)
    )
