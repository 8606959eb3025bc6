"""What only the shared keeper promises: replicas, durability, and what happens when the server goes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final, Self, cast

import pytest

from bridge.core.model import Residence
from bridge.store.ledger import Ledger
from bridge.store.port import (
    Arrival,
    Begin,
    Outdated,
    Pending,
    Return,
    Settlement,
    StoreUnavailable,
    Versioned,
    Work,
)
from bridge.store.postgres import PostgresStore, connection, replicas, schema
from bridge.store.postgres.line import TakenOver
from bridge.store.postgres.replicas import BUCKETS, bucket_of
from bridge.store.refusal import StoreRefused
from tests.postgres import PASSWORD, Server
from tests.store.values import HOLD, NOW, SECOND, arrival, doubt, events, house, out, said

pytestmark = pytest.mark.anyio

SOON: Final = timedelta(milliseconds=20)
LONG: Final = timedelta(minutes=10)
PATIENCE_S: Final = 30.0


def named(arrival_: Arrival) -> tuple[str | None, str | None]:
    """Read a test's body: user, device, number; "-" names nobody."""
    user, device, _ = arrival_.body.decode().split()
    return (None if user == "-" else user), (None if device == "-" else device)


def of(user: str, number: int, device: str = "-") -> Arrival:
    return arrival(f"{user} {device} {number}".encode())


def bodies(messages: Sequence[Pending]) -> list[str]:
    return [message.body.decode() for message in messages]


async def until(condition: Callable[[], Awaitable[object]], what: str) -> None:
    """Wait for a condition, asked again and again."""
    ends = asyncio.get_running_loop().time() + PATIENCE_S
    while not await condition():
        assert asyncio.get_running_loop().time() < ends, f"not within {PATIENCE_S} s: {what}"
        await asyncio.sleep(0.01)


@pytest.fixture
def url(server: Server) -> str:
    return server.emptied()


Opened = Callable[..., Awaitable[PostgresStore]]


@pytest.fixture
async def opened(url: str) -> AsyncIterator[Opened]:
    """Return what opens one more keeper on the same database; all are closed at the end, and the ledger is checked."""
    keepers: list[PostgresStore] = []

    async def one(*, lease: timedelta = LONG, beat: timedelta = SOON, serving: bool = True) -> PostgresStore:
        keeper = PostgresStore(url, serving=serving, whose=named, lease=lease, beat=beat)
        await keeper.open()
        keepers.append(keeper)
        return keeper

    yield one
    desk = PostgresStore(url)
    assert [] == await desk.verify()
    await desk.close()
    for keeper in keepers:
        await keeper.close()


async def shared_out(*keepers: PostgresStore) -> list[set[int]]:
    """Let replicas claim until each has its share; return their buckets."""
    fair = -(-BUCKETS // len(keepers))

    async def fairly() -> bool:
        for keeper in keepers:
            await keeper.claim(1)
        sizes = [len(keeper._share.buckets) for keeper in keepers]
        return sum(sizes) == BUCKETS and max(sizes) <= fair

    await until(fairly, "fair shares")
    return [set(keeper._share.buckets) for keeper in keepers]


def stop_heart(keeper: PostgresStore) -> None:
    """Let a replica live on without a sign of life, as one whose process was stopped."""
    assert keeper._pulse is not None
    keeper._pulse.cancel()


async def dead(keeper: PostgresStore) -> None:
    """End a replica as kill -9 does: its connections close, nothing is given back."""
    stop_heart(keeper)
    for line in keeper._lines.values():
        await line.close()


# ---- messages -------------------------------------------------------------------------------------------------------


async def test_replicas_claim_disjoint_users_and_together_everything(opened: Opened) -> None:
    one, two, three = [await opened() for _ in range(3)]
    shares = await shared_out(one, two, three)
    assert BUCKETS == len(set.union(*shares)) == sum(map(len, shares))
    await two.accept([of(f"user-{n % 50}", n) for n in range(300)])
    claims = [bodies((await keeper.claim(1_000))[0]) for keeper in (one, two, three)]
    users = [{body.split()[0] for body in bodies_} for bodies_ in claims]
    assert 300 == sum(map(len, claims))
    assert 50 == sum(map(len, users)) == len(set.union(*users))
    for body in claims[0]:
        assert bucket_of(body.split()[0]) in shares[0]
    numbers: dict[str, list[int]] = {}
    for body in [body for claim in claims for body in claim]:
        numbers.setdefault(body.split()[0], []).append(int(body.split()[2]))
    assert all(found == sorted(found) for found in numbers.values())


async def test_messages_accepted_through_any_door_wait_in_the_order_of_their_acceptance(opened: Opened) -> None:
    doors = [await opened() for _ in range(3)]
    for number in range(30):
        await doors[number % 3].accept([of("u", number)])
    await shared_out(*doors)
    found = [bodies((await door.claim(100))[0]) for door in doors]
    assert [[], [], [f"u - {number}" for number in range(30)]] == sorted(found, key=len)


async def test_a_message_that_names_no_user_waits_behind_those_of_its_device(opened: Opened) -> None:
    one, two = await opened(), await opened()
    await one.accept([of("anna", 1, "car-1")])
    await two.accept([of("-", 2, "car-1"), of("-", 3, "car-9")])
    await two.accept([of("berta", 4, "car-1")])
    await one.accept([of("-", 5, "car-1"), of("berta", 6)])
    await shared_out(one, two)
    holder = {row.body.decode(): keeper for keeper in (one, two) for row in (await keeper.claim(100))[0]}
    assert 6 == len(holder)
    assert holder["anna car-1 1"] is holder["- car-1 2"]
    assert holder["berta car-1 4"] is holder["- car-1 5"]
    buckets = {row[0] for row in await _rows(one, "SELECT bucket FROM waiting WHERE id = 2")}
    assert {bucket_of("anna")} == buckets


async def _rows(keeper: PostgresStore, statement: str) -> list[tuple[object, ...]]:
    return await keeper._lines["desk"].read(lambda con: con.fetch(statement))


async def test_a_replica_that_is_not_heard_of_is_taken_over_and_writes_nothing_any_more(opened: Opened) -> None:
    one, two = await opened(lease=timedelta(seconds=0.5)), await opened()
    await shared_out(one, two)
    await one.commit(Work(now=NOW, ticked=NOW))
    await two.accept([of(f"user-{n}", n) for n in range(40)])
    mine, _ = await one.claim(100)
    assert 0 < len(mine) < 40
    stop_heart(one)

    async def everything() -> bool:
        return 40 == len((await two.claim(100))[0])

    await until(everything, "the other has all")
    work = Work(now=NOW, settled=[row.id for row in mine], calls=out(events("a", 1)))
    with pytest.raises(StoreUnavailable, match="others have taken over"):
        await one.commit(work)
    assert (40, 0, 0) == ((await two.census()).pending, (await two.census()).settled, (await two.census()).queued)
    await two.commit(Work(now=NOW, settled=[row.id for row in (await two.claim(100))[0]]))

    # It begins anew: nothing that it counted before is lost, nothing is counted twice.
    assert [41] == [receipt.id for receipt in await one.accept([of("u", 1)])]
    census = await one.census()
    assert (41, 40, 1) == (census.accepted, census.settled, census.pending)


class Dozing:
    """A connection on which much time passes before its second transaction."""

    def __init__(self, con: connection.Connection, meanwhile: Callable[[], Awaitable[object]]) -> None:
        self._con, self._meanwhile = con, meanwhile
        self._begun = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._con, name)

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        self._begun += 1
        if self._begun == 2:
            await self._meanwhile()
        async with self._con.transaction():
            yield


async def test_who_is_taken_over_in_the_middle_of_a_beat_takes_no_bucket(opened: Opened) -> None:
    """Nobody would free it again: its holder is gone already."""
    one, two = await opened(), await opened()
    await shared_out(one, two)
    for keeper in (one, two):
        stop_heart(keeper)
    sleeper = one._share.replica

    async def over() -> None:
        await two._look(lambda con: replicas.take_over(con, sleeper))

    with pytest.raises(TakenOver):
        await one._look(lambda con: replicas.beat(cast("connection.Connection", Dozing(con, over)), one._share, LONG))
    assert [(0,)] == [tuple(row) for row in await _rows(two, f"SELECT count(*) FROM bucket WHERE holder = {sleeper}")]  # noqa: S608 - a number


async def test_a_transaction_counts_for_the_replica_that_began_it(opened: Opened) -> None:
    """It may become another in the middle of one."""
    keeper = await opened()
    line = keeper._lines["work"]

    async def note(_: connection.Connection, ledger: Ledger) -> None:
        ledger.note("odd")

    async def reborn(con: connection.Connection, ledger: Ledger) -> None:
        await note(con, ledger)
        await keeper._enter()

    for write in (note, reborn, note):
        await line.write(write)
    assert {"odd": 3} == (await keeper.census()).notes


async def test_after_a_kill_the_others_go_on_with_what_was_claimed(opened: Opened) -> None:
    one, two = await opened(lease=timedelta(seconds=0.5)), await opened()
    await shared_out(one, two)
    await one.accept([of(f"user-{n}", n) for n in range(40)])
    await dead(one)

    async def settled() -> bool:
        await two.commit(Work(now=NOW, settled=[row.id for row in (await two.claim(100))[0]]))
        return 40 == (await two.census()).settled

    await until(settled, "all settled")


async def test_who_waits_for_another_to_make_the_tables_finds_them_made(server: Server) -> None:
    """Its first look, before it waited, must not be what it still believes afterwards."""
    url = server.fresh()
    first, second = await connection.connect(url, statement_s=None), await connection.connect(url, statement_s=None)
    try:
        await first.execute("BEGIN")
        await first.execute(schema._LOCK)
        await first.execute("CREATE TABLE bridge (version integer, compatible integer)")  # of them all, to be quick
        await first.execute("INSERT INTO bridge VALUES ($1, $2)", schema.SCHEMA, schema.COMPATIBLE)
        waiting = asyncio.create_task(schema.prepare(second, migrate=False))
        held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        await until(lambda: first.fetchval(held), "the second waits")
        await first.execute("COMMIT")
        assert 0 == await waiting
    finally:
        await first.close(timeout=2)
        await second.close(timeout=2)


async def test_a_clean_stop_hands_everything_over_at_once(opened: Opened) -> None:
    one, two = await opened(lease=LONG), await opened(lease=LONG)
    await shared_out(one, two)
    await one.accept([of(f"user-{n}", n) for n in range(40)])
    await one.commit(Work(now=NOW, calls=out(events("a", 1))))
    await one.lease(NOW, 1, 1, LONG)
    before = await two.census()
    await one.close()

    async def everything() -> bool:
        return 40 == len((await two.claim(100))[0])

    await until(everything, "the other has all")
    assert ["a"] == [lane.building for lane in await two.lease(NOW, 1, 1, HOLD)]
    assert before == await two.census()


async def test_a_newcomer_gets_its_share_between_two_batches_only(opened: Opened) -> None:
    one = await opened()
    await one.accept([of(f"user-{n}", n) for n in range(40)])
    held, _ = await one.claim(100)
    assert 40 == len(held)
    two = await opened()
    await two.claim(1)

    async def asked() -> bool:
        await two.claim(1)
        return one._share.surplus > 0

    await until(asked, "the first knows of the second")
    assert 0 == len((await two.claim(100))[0]), "nothing is given back in the middle of a batch"
    await one.commit(Work(now=NOW, settled=[row.id for row in held]))
    await shared_out(one, two)


async def test_what_another_has_settled_meanwhile_breaks_a_step_off(opened: Opened) -> None:
    one = await opened()
    await one.accept([of("u", 1), of("u", 2)])
    await one.claim(10)
    command = PostgresStore(one._url)
    await command.commit(Work(now=NOW, settled=[1]))
    await command.close()
    with pytest.raises(Outdated):
        await one.commit(Work(now=NOW, settled=[1, 2], calls=out(events("a", 1))))
    census = await one.census()
    assert (1, 1, 0) == (census.settled, census.pending, census.queued)
    assert [2] == [row.id for row in (await one.claim(10))[0]]


async def test_a_changed_user_is_shown_to_the_replica_that_has_its_messages(opened: Opened) -> None:
    one, two = await opened(), await opened()
    shares = await shared_out(one, two)
    users = [f"user-{n}" for n in range(20)]
    await one.write_residences([Residence(user=user, location=None, building="b") for user in users])
    shown = [set((await keeper.claim(1))[1]) for keeper in (one, two)]
    assert set(users) == shown[0] | shown[1]
    assert [{user for user in users if bucket_of(user) in share} for share in shares] == shown


async def test_repeats_through_several_doors_at_once_are_accepted_once(opened: Opened) -> None:
    doors = [await opened() for _ in range(3)]
    messages = [arrival(f"u - {n}".encode(), message_id=f"m{n}") for n in range(20)]
    tasks = [door.accept(messages if turn % 2 else messages[::-1]) for turn in range(4) for door in doors]
    answers = await asyncio.gather(*tasks)
    assert 20 == sum(not receipt.duplicate for receipts in answers for receipt in receipts)
    census = await doors[0].census()
    assert (20, 220, 0) == (census.accepted, census.duplicates, census.same_id_other_bytes)


# ---- buildings ------------------------------------------------------------------------------------------------------


async def test_two_replicas_that_write_a_building_do_not_undo_each_other(opened: Opened) -> None:
    """Whatever the order and the pauses: a state is written only onto the version that it was made from."""
    keepers = [await opened() for _ in range(3)]
    names = ["a", "b", "c"]

    async def write(keeper: PostgresStore, turn: int) -> None:
        mine = names[turn % 3 :] + names[: turn % 3]
        while True:
            found = (await keeper.load((), (), mine)).buildings
            states = [found.get(name, house(name, 0)) for name in mine]
            grown = [
                Versioned(state=replace(row.state, users=(*row.state.users, str(turn))), version=row.version)
                for row in states
            ]
            if not await keeper.commit(Work(now=NOW, buildings=grown)):
                return

    await asyncio.gather(*(write(keepers[turn % 3], turn) for turn in range(12)))
    found = (await keepers[0].load((), (), names)).buildings
    assert {12} == {row.version for row in found.values()}
    assert {frozenset(map(str, range(12)))} == {frozenset(row.state.users) for row in found.values()}


async def test_a_building_that_is_due_is_given_to_one_clock(opened: Opened) -> None:
    one, two = await opened(), await opened()
    names = [f"b{n:02}" for n in range(20)]
    await one.commit(Work(now=NOW, buildings=[house(name) for name in names], due=dict.fromkeys(names, NOW)))
    await until(lambda: _know_of_each_other(one, two), "they know of each other")
    first = await asyncio.gather(one.due(NOW, 8), two.due(NOW, 8))
    assert 16 == len({name for _, found in first for name in found})
    assert first[0] == await one.due(NOW, 8), "its own it may ask for again"
    await one.commit(Work(now=NOW, due=dict.fromkeys(first[0][1], NOW - SECOND)))
    assert set(first[0][1]) == set((await two.due(NOW, 8))[1]), "what is written is free for anybody"


async def _know_of_each_other(*keepers: PostgresStore) -> bool:
    return not any(keeper._share.alone for keeper in keepers)


async def test_the_horizon_waits_for_the_messages_of_all_replicas(opened: Opened) -> None:
    one, two = await opened(), await opened()
    await shared_out(one, two)
    await one.accept([replace(of(f"user-{n}", n), received=NOW - n * SECOND) for n in range(20)])
    rows, _ = await one.claim(100)
    await one.commit(Work(now=NOW, settled=[row.id for row in rows]))
    left = min(row.received for row in (await two.claim(100))[0])
    assert [(left, []), (left, [])] == [await one.due(NOW, 8), await two.due(NOW, 8)]


# ---- calls ----------------------------------------------------------------------------------------------------------


async def test_a_lane_is_lent_to_one_replica_at_a_time(opened: Opened) -> None:
    keepers = [await opened() for _ in range(3)]
    names = [f"b{n:02}" for n in range(30)]
    await keepers[0].commit(Work(now=NOW, calls=out(*(events(name, 1) for name in names))))
    lent = await asyncio.gather(*(keeper.lease(NOW, 20, 5, HOLD) for keeper in keepers for _ in range(2)))
    buildings = [lane.building for lanes in lent for lane in lanes]
    assert names == sorted(buildings)


async def test_a_lane_that_was_lent_by_a_wrong_clock_comes_back_when_the_clock_is_right(opened: Opened) -> None:
    one, two = await opened(), await opened()
    await one.commit(Work(now=NOW, calls=out(events("a", 1))))
    assert 1 == len(await one.lease(NOW + 100 * HOLD, 1, 1, HOLD))
    await dead(one)
    assert [] == await two.lease(NOW, 1, 1, HOLD, afresh=True), "it is lent as long as it may be"
    assert ["a"] == [lane.building for lane in await two.lease(NOW + HOLD, 1, 1, HOLD)]


async def test_calls_of_a_building_keep_their_order_whoever_queues_and_sends(opened: Opened) -> None:
    keepers = [await opened() for _ in range(3)]
    for number in range(12):
        await keepers[number % 3].commit(Work(now=NOW, calls=out(events("a", number))))
    sent: list[float] = []
    for turn in range(6):
        keeper = keepers[turn % 3]
        (lane,) = await keeper.lease(NOW, 1, 2, HOLD)
        sent += [each.value for row in lane.calls for each in row.call.events]  # type: ignore[union-attr]
        ends = [Settlement(call_id=row.id, delivered=1) for row in lane.calls]
        await keeper.settle(NOW, ends, [], [Return(building="a", at=NOW)])
    assert [float(number) for number in range(12)] == sent


async def test_a_settlement_that_comes_after_the_lease_changes_nothing(opened: Opened) -> None:
    """It counts from the front of the row: taken now, it would settle events that were never sent."""
    one, two = await opened(), await opened()
    await one.commit(Work(now=NOW, calls=out(events("a", 1, 2, 3, 4))))
    await one.lease(NOW, 1, 1, HOLD)
    await one.settle(NOW, [], [Begin(call_id=1, doubt=doubt())], [])
    (lane,) = await two.lease(NOW + HOLD, 1, 1, HOLD)
    assert doubt() == lane.calls[0].doubt
    assert 1 == (await two.census()).in_doubt, "what another had on the wire has lost its reply"
    await two.settle(NOW, [Settlement(call_id=1, delivered=2)], [], [Return(building="a", at=NOW)])
    await one.settle(NOW, [Settlement(call_id=1, delivered=2)], [], [Return(building="a", at=NOW + LONG)])
    assert (2, 2) == ((await one.census()).delivered, (await one.census()).calls_pending)
    assert ["a"] == [one_.building for one_ in await two.lease(NOW, 1, 1, HOLD)], "nor is the lane given back"


async def test_counts_of_all_replicas_are_summed_and_survive_them(opened: Opened, url: str) -> None:
    keepers = [await opened() for _ in range(3)]
    for number, keeper in enumerate(keepers):
        await keeper.accept([of("u", number)])
        flags = [house(f"b{number}", flags=("x",))]
        await keeper.commit(Work(now=NOW, settled=[number + 1], buildings=flags, calls=out(events("a", 1))))
    await keepers[0].commit(Work(now=NOW, buildings=[house("b1", 1), house("b2", 1, flags=("y",))]))
    before = await keepers[1].census()
    assert (3, 3, 3, {"x": 1, "y": 1}) == (before.accepted, before.settled, before.queued, before.flags)
    for keeper in keepers:
        await keeper.close()
    command = PostgresStore(url)
    assert before == await command.census()
    await command.close()


# ---- when the server goes -------------------------------------------------------------------------------------------


class Cut:
    """Breaks the connection of a line at the end of its next transaction, before or after the server has heard."""

    def __init__(self, keeper: PostgresStore, part: str, *, heard: bool) -> None:
        self._line, self._heard = keeper._lines[part], heard
        self._connect = self._line._connect
        self.fired = 0

    async def __aenter__(self) -> Self:
        if self._line._con is not None:
            self._line._con.terminate()
        self._line._connect = self._bad
        return self

    async def _bad(self) -> connection.Connection:
        con = await self._connect()
        self._line._connect = self._connect
        return _Cutting(con, self)  # type: ignore[return-value]

    async def __aexit__(self, *_: object) -> None:
        assert 1 == self.fired


class _Cutting:
    def __init__(self, con: connection.Connection, cut: Cut) -> None:
        self._con, self._cut = con, cut

    def __getattr__(self, name: str) -> object:
        return getattr(self._con, name)

    async def execute(self, query: str, *args: object) -> str:
        if query == "COMMIT":
            self._cut.fired += 1
            if self._cut._heard:
                await self._con.execute(query)
            self._con.terminate()
            raise ConnectionResetError
        return await self._con.execute(query, *args)


@pytest.mark.parametrize("heard", [True, False])
async def test_an_accept_whose_end_is_not_heard_is_refused_and_its_repeat_is_exact(
    opened: Opened,
    heard: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    keeper = await opened()
    message = arrival(b"u - 1", message_id="m")
    async with Cut(keeper, "door", heard=heard):
        with pytest.raises(StoreUnavailable):
            await keeper.accept([message])
    assert [heard] == [receipt.duplicate for receipt in await keeper.accept([message])]
    assert (1, int(heard)) == ((await keeper.census()).accepted, (await keeper.census()).duplicates)


@pytest.mark.parametrize("heard", [True, False])
async def test_a_step_whose_end_is_not_heard_is_taken_once(
    opened: Opened,
    heard: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    keeper = await opened()
    await keeper.accept([of("u", 1)])
    work = Work(now=NOW, settled=[1], buildings=[house("a")], calls=out(events("a", 1)))
    async with Cut(keeper, "work", heard=heard):
        with pytest.raises(StoreUnavailable):
            await keeper.commit(work)
    waiting, _ = await keeper.claim(10)
    assert ([] if heard else [1]) == [row.id for row in waiting]
    if waiting:
        assert [] == await keeper.commit(work)
    census = await keeper.census()
    assert (1, 0, 1) == (census.settled, census.pending, census.queued)


@pytest.mark.parametrize("heard", [True, False])
async def test_a_settlement_whose_end_is_not_heard_counts_once(
    opened: Opened,
    heard: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """The sender says all of it again, with what has come in since; only the new part may be written."""
    keeper = await opened()
    await keeper.commit(Work(now=NOW, calls=out(events("a", 1, 2, 3, 4, 5), events("b", 1))))
    await keeper.lease(NOW, 2, 5, HOLD)
    first = [Settlement(call_id=1, delivered=2, attempt=said())]
    async with Cut(keeper, "send", heard=heard):
        with pytest.raises(StoreUnavailable):
            await keeper.settle(NOW, first, [], [])
    more = [*first, Settlement(call_id=1, delivered=1), Settlement(call_id=2, delivered=1)]

    async def written() -> bool:
        with contextlib.suppress(StoreUnavailable):  # the server may still be at work on the first
            await keeper.settle(NOW, more, [], [Return(building="a", at=NOW)])
            return True
        return False

    await until(written, "the sender is heard")
    census = await keeper.census()
    assert (4, 2) == (census.delivered, census.calls_pending)
    await keeper.settle(NOW, [Settlement(call_id=1, delivered=1)], [], [])
    assert 5 == (await keeper.census()).delivered, "afterwards nothing is left out any more"


@pytest.mark.parametrize("mode", ["immediate", "fast"])
async def test_a_server_that_goes_and_comes_back_is_waited_for(own: Server, mode: str) -> None:
    keeper = PostgresStore(own.fresh(), serving=True, whose=named, beat=SOON)
    await keeper.open()
    await keeper.accept([of("u", 1)])
    own.stop(mode)
    for ask in (keeper.census, lambda: keeper.claim(1), lambda: keeper.accept([of("u", 2)]), keeper.next_due):
        with pytest.raises(StoreUnavailable) as refused:
            await ask()
        assert type(refused.value).__name__ == "StoreUnavailable"
        assert PASSWORD not in str(refused.value)
    own.start()

    async def served() -> bool:
        with contextlib.suppress(StoreUnavailable):  # on a busy machine a first connection may take too long
            return bool(await keeper.accept([arrival(b"u - 3", message_id="again")]))
        return False

    await until(served, "it accepts again")
    assert ["u - 1", "u - 3"] == bodies((await keeper.claim(10))[0])
    assert [] == await keeper.verify()
    await keeper.close()


class Deaf:
    """A relay to a server that passes on what it says, but, once it is deaf, not that it has closed a connection."""

    def __init__(self, server: Server) -> None:
        self._port = server.port
        self.deaf = False
        self.open = 0  # connections that the server has not closed
        self._over = asyncio.Event()
        self._serving = set[asyncio.Task[None]]()

    async def __aenter__(self) -> int:
        """Return its port."""
        self._relay = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._relay.sockets[0].getsockname()[1])

    async def __aexit__(self, *_: object) -> None:
        self._relay.close()
        self._over.set()
        await asyncio.gather(*self._serving)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self.open += 1
        asked = asyncio.create_task(_copied(reader, far_writer))
        await _copied(far_reader, writer)
        self.open -= 1
        if self.deaf:
            await self._over.wait()
        asked.cancel()
        writer.close()
        far_writer.close()


async def _copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while some := await reader.read(65_536):
            writer.write(some)


async def test_a_connection_of_which_the_server_has_taken_leave_is_given_up(server: Server) -> None:
    """The driver calls it a bug of its own when the server's last words have come and the end has not."""
    deaf = Deaf(server)
    async with deaf as port:
        keeper = PostgresStore(server.fresh().replace(f":{server.port}/", f":{port}/"), serving=True, whose=named)
        await keeper.open()
        stop_heart(keeper)
        asks: Sequence[Callable[[], Awaitable[object]]] = (
            keeper.census,
            lambda: keeper.claim(1),
            lambda: keeper.accept([of("u", 1)]),
            lambda: keeper.lease(NOW, 1, 1, HOLD),
        )
        for ask in asks:
            await ask()
        assert deaf.open
        deaf.deaf = True
        server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'moost-bridge'")

        async def ended() -> bool:
            return not deaf.open

        await until(ended, "the server has ended all connections")
        for _ in range(10):  # its last words lie in our sockets; the loop reads them
            await asyncio.sleep(0)
        deaf.deaf = False
        for ask in asks:
            with pytest.raises(StoreUnavailable):
                await ask()
            await ask()
        await keeper.close()


async def test_limits_of_the_server_are_waited_for(opened: Opened) -> None:
    keeper = await opened()
    await keeper.accept([of("u", 1)])
    line = keeper._lines["work"]

    async def overslept(con: connection.Connection) -> None:
        await con.execute("SET idle_in_transaction_session_timeout = 50")
        await con.execute("BEGIN")
        await asyncio.sleep(0.3)
        await con.execute("SELECT 1")

    async def slow(con: connection.Connection) -> None:
        await con.execute("SET statement_timeout = 200")
        try:
            await con.execute("SELECT pg_sleep(60)")
        finally:
            await con.execute("RESET statement_timeout")

    for bad in (overslept, slow):
        with pytest.raises(StoreUnavailable):
            await line.read(bad)
    assert ["u - 1"] == bodies((await keeper.claim(1))[0])


@pytest.mark.parametrize("name", ["fsync", "full_page_writes"])
async def test_a_server_that_could_lose_what_it_has_accepted_is_refused(own: Server, name: str) -> None:
    keeper = PostgresStore(own.fresh(), serving=True, beat=SOON)
    await keeper.open()
    own.set(name, "off")
    try:
        with pytest.raises(StoreRefused, match=f"{name}=off: what it has accepted could be lost"):
            await PostgresStore(own.fresh(), serving=True).open()
        for line in keeper._lines.values():  # nor after a failover is such a server taken
            if line._con is not None:
                line._con.terminate()
        with pytest.raises(StoreUnavailable, match=f"{name}=off"):
            await keeper.accept([of("u", 1)])
    finally:
        own.set(name, "on")
    assert [1] == [receipt.id for receipt in await keeper.accept([of("u", 1)])]
    await keeper.close()


async def test_a_session_waits_for_the_disk_whatever_the_server_is_set_to(server: Server, opened: Opened) -> None:
    server.execute("ALTER DATABASE postgres SET synchronous_commit = off")
    try:
        keeper = await opened()
        found = await keeper._lines["door"].read(lambda con: con.fetchval("SHOW synchronous_commit"))
    finally:
        server.execute("ALTER DATABASE postgres RESET synchronous_commit")
    assert "on" == found


# ---- the start ------------------------------------------------------------------------------------------------------


async def test_a_dry_run_and_a_real_one_do_not_share_a_store(url: str) -> None:
    keeper = PostgresStore(url, serving=True, dry=True)
    await keeper.open()
    await keeper.close()
    with pytest.raises(StoreRefused, match="made for a dry run"):
        await PostgresStore(url, serving=True).open()


async def test_a_wrong_password_is_refused_without_saying_it(url: str) -> None:
    with pytest.raises(StoreUnavailable, match="refuses user or password") as refused:
        await PostgresStore(url.replace(PASSWORD, "canary-wrong-4c2a")).open()
    shown = f"{refused.value!r} {refused.value.__cause__!r} {refused.value.__context__!r}"
    assert "canary" not in shown


async def test_verify_names_a_count_that_the_rows_contradict(server: Server, url: str) -> None:
    keeper = PostgresStore(url, serving=True)
    await keeper.open()
    await keeper.accept([arrival(), arrival()])
    server.execute("DELETE FROM waiting WHERE id = 1", schema=url.rpartition("=")[2])
    assert ["the ledger says pending = 2, the rows say 1"] == await keeper.verify()
    await keeper.close()


def test_the_buckets_of_a_release_are_those_of_the_next() -> None:
    """Replicas of two releases share a store while they are replaced: they must agree."""
    assert [183, 3, 144, 213] == [bucket_of(name) for name in ("anna", "berta", "vehicle:1", "ü")]
    assert replicas.BUCKETS == 256
