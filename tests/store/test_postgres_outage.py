"""What the shared keeper promises when its server goes, does not answer, or could lose what it has accepted."""

import asyncio
import contextlib
from typing import TYPE_CHECKING, Self

import pytest

from bridge.store.port import (
    Return,
    Settlement,
    StoreUnavailable,
    Work,
)
from bridge.store.postgres import PostgresStore, connection, keeper, replicas
from bridge.store.postgres.servers import Servers
from bridge.store.refusal import StoreRefused
from tests.postgres import PASSWORD, Server, Standby, running
from tests.store.replicas import SOON, Opened, bodies, named, of, stop_heart, until
from tests.store.values import HOLD, NOW, arrival, events, house, out, said

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

pytestmark = pytest.mark.anyio


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

    async def _bad(self) -> connection.Session:
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


@pytest.mark.parametrize("kept", [True, False])
async def test_a_settlement_whose_end_is_not_heard_counts_once_after_a_failover(
    kept: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """The new server may never have heard of the transaction, or have given its number to another one."""
    with running() as primary, Standby.of(primary) as standby:
        keeper = PostgresStore(standby.address(primary.fresh().rpartition("=")[2]), serving=True, beat=SOON, told=True)
        await keeper.open()
        await keeper.commit(Work(now=NOW, calls=out(events("a", 1, 2, 3))))
        await keeper.lease(NOW, 1, 5, HOLD)
        if not kept:
            primary.reset("synchronous_standby_names")
            standby.stop()
        settled = [Settlement(call_id=1, delivered=1)]
        async with Cut(keeper, "send", heard=True):
            with pytest.raises(StoreUnavailable):
                await keeper.settle(NOW, settled, [], [])
        primary.kill()
        if not kept:
            standby.start()
        standby.promote()

        async def written() -> bool:
            with contextlib.suppress(StoreUnavailable):
                await keeper.settle(NOW, settled, [], [])
                return True
            return False

        await until(written, "the sender is heard")
        census = await keeper.census()
        assert (1, 2) == (census.delivered, census.calls_pending)
        assert [] == await keeper.verify()
        await keeper.close()


async def test_a_settlement_whose_end_is_not_heard_counts_once_though_the_replica_is_taken_over(opened: Opened) -> None:
    for heard in (True, False):
        one, two = await opened(), await opened()
        building = f"b{heard}"
        await one.commit(Work(now=NOW, calls=out(events(building, 1, 2, 3))))
        (lane,) = await one.lease(NOW, 1, 5, HOLD)
        settled = [Settlement(call_id=lane.calls[0].id, delivered=1)]
        async with Cut(one, "send", heard=heard):
            with pytest.raises(StoreUnavailable):
                await one.settle(NOW, settled, [], [])
        stop_heart(one)
        sleeper, before = one._share.replica, (await two.census()).delivered
        await two._look(lambda con: replicas.take_over(con, sleeper))  # noqa: B023 - run at once
        await one.settle(NOW, settled, [], [])
        assert 1 - heard == (await two.census()).delivered - before


@pytest.mark.parametrize("mode", ["immediate", "fast"])
async def test_a_server_that_goes_and_comes_back_is_waited_for(own: Server, mode: str) -> None:
    keeper = PostgresStore(own.fresh(), serving=True, whose=named, beat=SOON, told=True)
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


async def test_a_server_that_answers_but_takes_nothing_is_not_writable_until_a_write_has_gone_through(
    opened: Opened, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "DOOR_S", 0.3)
    store = await opened()
    assert (await store.census()).writable
    other = await Servers(lambda: url).connect(statement_s=None)
    await other.execute("BEGIN")
    await other.execute("LOCK TABLE inbox IN EXCLUSIVE MODE")  # which can still be read
    with pytest.raises(StoreUnavailable):
        await store.accept([of("u", 1)])
    for _ in range(5):
        assert not (await store.census()).writable
        await asyncio.sleep(0.2)
    await other.execute("ROLLBACK")
    await connection.leave(other)

    async def writable() -> bool:
        return (await store.census()).writable

    await until(writable, "a write has gone through")
    await store.accept([of("u", 1)])
