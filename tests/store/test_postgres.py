"""What only the shared keeper promises: replicas, durability, and what happens when the server goes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import cast

import pytest

from bridge.core.model import Residence
from bridge.store.ledger import Ledger
from bridge.store.port import (
    Begin,
    Outdated,
    Return,
    Settlement,
    StoreUnavailable,
    Versioned,
    Work,
)
from bridge.store.postgres import PostgresStore, connection, replicas, schema
from bridge.store.postgres.line import TakenOver
from bridge.store.postgres.replicas import BUCKETS, bucket_of
from bridge.store.postgres.servers import Servers
from bridge.store.refusal import StoreRefused
from tests.postgres import PASSWORD, Server
from tests.store.replicas import LONG, Opened, bodies, dead, of, shared_out, stop_heart, until
from tests.store.values import DAY, HOLD, NOW, SECOND, arrival, doubt, events, house, out

pytestmark = pytest.mark.anyio


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


async def test_whose_a_device_is_goes_when_it_was_not_heard_of_for_the_retention(opened: Opened) -> None:
    one, two = await opened(), await opened()
    whose = "SELECT device, user_id FROM belongs ORDER BY device"

    async def swept(days: int) -> list[str]:
        while await one.sweep(NOW + days * DAY, 3 * DAY, 1 << 40):
            pass
        return [f"{device} {user}" for device, user in await _rows(one, whose)]

    async def settled(keeper: PostgresStore) -> None:
        await keeper.commit(Work(now=NOW, settled=[row.id for row in (await keeper.claim(100))[0]]))

    await one.accept([of("anna", 1, "car-1"), of("berta", 2, "car-2")])
    await shared_out(one, two)
    await two.accept([replace(of("anna", 3, "car-1"), received=NOW + 2 * DAY)])
    assert ["car-1 anna", "car-2 berta"] == await swept(3)
    assert ["car-1 anna", "car-2 berta"] == await swept(9), "their messages wait"
    for keeper in (one, two):
        await settled(keeper)
    assert ["car-1 anna"] == await swept(5)
    assert [] == await swept(9)
    await one.accept([replace(of("anna", 4, "car-1"), received=NOW + 20 * DAY)])  # it has known that before
    one._belongs.forget()
    await one.accept([replace(of("anna", 5, "car-1"), received=NOW + 20 * DAY)])
    await settled(one)
    await settled(two)
    assert ["car-1 anna"] == await swept(22)


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

    async def taken_over() -> bool:
        return (await two.claim(100))[0][0].ends == 1

    await until(taken_over, "the other has what was in hand, one by one")
    work = Work(now=NOW, settled=[row.id for row in mine], calls=out(events("a", 1)))
    with pytest.raises(StoreUnavailable, match="others have taken over"):
        await one.commit(work)
    assert (40, 0, 0) == ((await two.census()).pending, (await two.census()).settled, (await two.census()).queued)
    while rows := (await two.claim(100))[0]:
        await two.commit(Work(now=NOW, settled=[row.id for row in rows]))

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
    servers = Servers(lambda: url)
    first, second = [await servers.connect(statement_s=None) for _ in range(2)]
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


async def test_what_another_has_settled_meanwhile_breaks_a_step_off(opened: Opened, url: str) -> None:
    one = await opened()
    await one.accept([of("u", 1), of("u", 2)])
    await one.claim(10)
    command = PostgresStore(url)
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
    held = "the ledger says sub-1 holds 804 bytes pending, the rows say 402"
    assert ["the ledger says pending = 2, the rows say 1", held] == await keeper.verify()
    await keeper.close()


def test_the_buckets_of_a_release_are_those_of_the_next() -> None:
    """Replicas of two releases share a store while they are replaced: they must agree."""
    assert [183, 3, 144, 213] == [bucket_of(name) for name in ("anna", "berta", "vehicle:1", "ü")]
    assert replicas.BUCKETS == 256
