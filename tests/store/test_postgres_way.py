"""The way to the server: through poolers and balancers, past machines that do not answer, encrypted, after names."""

import asyncio
import contextlib
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from bridge.sandbox.database import USER
from bridge.store.port import StoreUnavailable, Work
from bridge.store.postgres import PostgresStore, address, keeper, line, servers
from bridge.store.postgres.address import Address, Host, parsed
from bridge.store.postgres.address import Server as AServer
from bridge.store.postgres.connection import Session
from bridge.store.refusal import StoreRefused
from tests.between import balancer, dark, mute, pooler
from tests.certificates import Authority
from tests.postgres import PASSWORD, Server, running
from tests.store.replicas import SOON, bodies, named, of, until
from tests.store.values import HOLD, NOW, events, out

pytestmark = pytest.mark.anyio

ONE_HOST_S: Final = 1.0


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each server a second."""
    monkeypatch.setattr(servers, "HOST_S", ONE_HOST_S)


def by(url: str, *ports: int) -> str:
    """Return an address with other ports of this machine in it."""
    login, _, rest = url.partition("@")
    return f"{login}@{','.join(f'127.0.0.1:{port}' for port in ports)}/{rest.partition('/')[2]}"


@contextlib.asynccontextmanager
async def opened(url: str | Callable[[], str]) -> AsyncIterator[PostgresStore]:
    found = PostgresStore(url, serving=True, whose=named, beat=SOON, told=True)
    await found.open()
    try:
        yield found
    finally:
        await found.close()


async def refusal(url: str) -> str:
    """Return why an address cannot be used; an operator has to change something."""
    with pytest.raises(StoreRefused) as refused:
        await PostgresStore(url, serving=True).open()
    assert PASSWORD not in str(refused.value)
    return str(refused.value)


async def lives(store: PostgresStore) -> None:
    """Let a message go all the way."""
    await store.accept([of("u", 1)])
    rows, _ = await store.claim(10)
    await store.commit(Work(now=NOW, settled=[row.id for row in rows], calls=out(events("a", 1))))
    assert 1 == len(await store.lease(NOW, 1, 1, HOLD))
    assert (1, 1) == ((await store.census()).settled, (await store.census()).queued)


# ---- poolers --------------------------------------------------------------------------------------------------------


async def test_a_pooler_that_pools_sessions_is_as_good_as_the_server(own: Server) -> None:
    own.execute("ALTER DATABASE postgres SET synchronous_commit = off")
    try:
        with pooler(own, "session") as port:
            url = by(own.fresh(), port)
            async with opened(url) as one, opened(url) as two:
                await lives(one)
                await two.accept([of("u", 2)])
                found = await two._lines["door"].read(
                    lambda con: con.fetchrow(
                        "SELECT current_setting('synchronous_commit'), current_setting('lock_timeout'), current_schema"
                    )
                )
                assert found is not None
                assert ("on", "15s", url.rpartition("=")[2]) == tuple(found)
                assert 2 == (await one.census()).accepted
                assert [] == await one.verify()
    finally:
        own.execute("ALTER DATABASE postgres RESET synchronous_commit")


async def test_a_schema_may_be_named_as_an_option_too(own: Server) -> None:
    name = own.fresh().rpartition("=")[2]
    with pooler(own, "session") as port:
        async with opened(by(f"{own.url}?options=-csearch_path%3D{name}", port)) as store:
            await lives(store)
    assert [(1,)] == [tuple(row) for row in own.execute("SELECT count(*) FROM inbox", schema=name)]


@pytest.mark.parametrize("mode", ["transaction", "statement"])
async def test_a_pooler_that_pools_transactions_is_refused_by_name(own: Server, mode: str) -> None:
    with pooler(own, mode) as port:
        said = await refusal(by(own.fresh(), port))
    assert "it must pool sessions (PgBouncer: pool_mode = session)" in said


async def test_a_process_that_changes_under_a_session_is_noticed_before_anything_is_committed(own: Server) -> None:
    """As where a pooler pools transactions, and the look at the start was lucky."""
    async with opened(own.fresh()) as store:
        await store.accept([of("u", 1)])
        con = store._lines["door"]._con
        assert con is not None
        con.process += 1
        with pytest.raises(StoreUnavailable, match="it must pool sessions"):
            await store.accept([of("u", 2)])
        await store.accept([of("u", 3)])
        assert ["u - 1", "u - 3"] == bodies((await store.claim(10))[0])


async def test_what_durability_rests_on_is_looked_at_in_every_transaction(own: Server) -> None:
    async with opened(own.fresh()) as store:
        await store.accept([of("u", 1)])
        await store._lines["door"].read(lambda con: con.execute("SET synchronous_commit = off"))
        with pytest.raises(StoreUnavailable, match="synchronous_commit = off"):
            await store.accept([of("u", 2)])
        await store.accept([of("u", 3)])
        assert ["u - 1", "u - 3"] == bodies((await store.claim(10))[0])


async def test_a_session_that_does_not_take_a_setting_is_refused(own: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.store.postgres.connection._SET", "SELECT $1::text[], $2::text[]")
    assert "the session does not take default_transaction_isolation" not in await refusal(own.fresh())
    own.execute("ALTER DATABASE postgres SET synchronous_commit = off")
    try:
        assert "the session does not take synchronous_commit = on: it is off" in await refusal(own.fresh())
    finally:
        own.execute("ALTER DATABASE postgres RESET synchronous_commit")


@pytest.mark.parametrize("option", ["no_such_setting=1", "fsync=off", "lock_timeout=soon"])
async def test_a_setting_of_the_address_that_the_server_does_not_take_is_named(own: Server, option: str) -> None:
    said = await refusal(f"{own.fresh()}&{option}")
    assert f"the server does not take what the address sets: search_path, {option.partition('=')[0]}" == said


async def test_a_pooler_whose_server_is_away_is_waited_for(own: Server) -> None:
    with pooler(own, "session", server_login_retry="1") as port:
        async with opened(by(own.fresh(), port)) as store:
            await store.accept([of("u", 1)])
            own.stop("immediate")
            with pytest.raises(StoreUnavailable) as refused:
                await store.accept([of("u", 2)])
            assert type(refused.value) is StoreUnavailable
            own.start()

            async def served() -> bool:
                with contextlib.suppress(StoreUnavailable):
                    return bool(await store.accept([of("u", 3)]))
                return False

            await until(served, "it accepts again")
            assert ["u - 1", "u - 3"] == bodies((await store.claim(10))[0])


async def test_a_balancer_that_cuts_what_rests_costs_no_message(own: Server) -> None:
    url = own.fresh()
    with balancer(own, idle="2s") as (port, _):
        async with opened(url) as maker, opened(by(url, port)) as store:
            await maker.close()
            for number in range(3):
                await store.accept([of("u", number)])
                await asyncio.sleep(3)
            assert 3 == (await store.census()).accepted


# ---- several servers ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("first", [dark, mute])
async def test_a_first_server_that_does_not_answer_is_passed_over(
    own: Server, first: Callable[[], contextlib.AbstractContextManager[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with first() as port:
        async with opened(by(own.fresh(), port, own.port)) as store:
            tried: list[int] = []
            real = store._servers._open

            async def noted(address: Address, server: AServer, statement_s: float | None, *, prepared: bool) -> Session:
                tried.append(server.host.port)
                return await real(address, server, statement_s, prepared=prepared)

            monkeypatch.setattr(store._servers, "_open", noted)
            await lives(store)
            for part in store._lines.values():
                if part._con is not None:
                    part._con.terminate()
            await store.accept([of("u", 2)])
            assert {own.port} == set(tried), "the one that was had last is tried first"


@pytest.mark.usefixtures("quick")
async def test_a_server_that_goes_dark_is_left_for_the_next_one(own: Server) -> None:
    with balancer(own) as (port, process):
        async with opened(by(own.fresh(), port, own.port)) as store:
            await lives(store)
            process.send_signal(signal.SIGSTOP)
            began = time.monotonic()

            async def served() -> bool:
                with contextlib.suppress(StoreUnavailable):
                    return bool(await store.accept([of("u", 2)]))
                return False

            await until(served, "the next one is had")
            assert time.monotonic() - began < keeper.DOOR_S + 3 * ONE_HOST_S
            await until(lambda: _settled(store), "the rooms go on too")
            process.send_signal(signal.SIGCONT)


@pytest.mark.usefixtures("quick")
async def test_a_connection_that_has_rested_and_is_dead_without_a_word_costs_no_message(
    own: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "RESTED_S", 0.0)
    monkeypatch.setattr(line, "ASK_S", 0.5)
    monkeypatch.setattr(keeper, "DOOR_S", 60.0)
    with balancer(own) as (port, process):
        async with opened(by(own.fresh(), port, own.port)) as store:
            await store.accept([of("u", 1)])
            process.send_signal(signal.SIGSTOP)
            async with asyncio.timeout(keeper.DOOR_S / 2):
                await store.accept([of("u", 2)])
            process.send_signal(signal.SIGCONT)


async def _settled(store: PostgresStore) -> bool:
    with contextlib.suppress(StoreUnavailable):
        rows, _ = await store.claim(10)
        await store.commit(Work(now=NOW, settled=[row.id for row in rows]))
        return not (await store.census()).pending
    return False


@pytest.mark.usefixtures("quick")
async def test_who_gives_up_waiting_has_not_waited_in_vain(own: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """With more dark servers than the door may wait for, the next request comes to the one that answers."""
    monkeypatch.setattr(keeper, "DOOR_S", 1.5 * ONE_HOST_S)
    with dark() as one, dark() as two, dark() as three:
        url = own.fresh()
        async with opened(by(url, own.port)) as store:
            store._servers._first = None
            store._servers._url = lambda: by(url, one, two, three, own.port)

            async def served() -> bool:
                with contextlib.suppress(StoreUnavailable):
                    return bool(await store.accept([of("u", 2)]))
                return False

            await until(served, "the last one is had")


@pytest.mark.usefixtures("quick")
async def test_each_server_that_cannot_be_had_is_named_with_its_reason(own: Server) -> None:
    with dark() as port, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        refused = int(closed.getsockname()[1])
        with pytest.raises(StoreUnavailable) as why:
            await PostgresStore(by(own.fresh(), port, refused), serving=True).open()
    assert (
        f"none of the servers can be had; 127.0.0.1:{port}: the server does not answer in time; "
        f"127.0.0.1:{refused}: the server cannot be reached (Connection refused)"
    ) == str(why.value)
    assert type(why.value) is StoreUnavailable


# ---- names ----------------------------------------------------------------------------------------------------------


class Names:
    """A name service that a test tells what to answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answer: list[str] | OSError = []
        self.asked = 0
        for module in (address, servers):
            monkeypatch.setattr(module, "look_up", self._look_up)

    async def _look_up(self, _: Host) -> list[str]:
        self.asked += 1
        if isinstance(self.answer, OSError):
            raise self.answer
        return self.answer


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names(monkeypatch)


@pytest.fixture
def twice() -> Iterator[Server]:
    """Run a server that listens at two addresses of this machine."""
    with running(listen_addresses="127.0.0.1,127.0.0.2") as server:
        yield server


def at(server: Server, name: str = "db.test", **options: str) -> str:
    """Return the address of a new store under a name."""
    schema = server.fresh().rpartition("=")[2]
    said = "&".join(f"{key}={value}" for key, value in {"sslmode": "disable", **options}.items())
    return f"postgresql://{USER}:{PASSWORD}@{name}:{server.port}/postgres?search_path={schema}&{said}"


@pytest.mark.usefixtures("quick")
async def test_of_a_name_with_several_addresses_one_that_is_dark_is_passed_over(own: Server, names: Names) -> None:
    names.answer = ["127.0.0.3", "127.0.0.1"]
    with dark("127.0.0.3", own.port):
        async with opened(at(own)) as store:
            await lives(store)


async def test_sessions_follow_a_name_that_moves(twice: Server, names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a managed database fails over: the old server may still answer, but is not the one that counts."""
    monkeypatch.setattr(keeper, "FOLLOW_S", 0.05)
    monkeypatch.setattr(servers, "MOVED_S", 0.3)
    names.answer = ["127.0.0.1"]
    async with opened(at(twice)) as store:
        await lives(store)

        async def where() -> set[str]:
            asked = [
                part.read(lambda con: con.fetchval("SELECT host(inet_server_addr())")) for part in store._lines.values()
            ]
            return set(await asyncio.gather(*asked))

        names.answer = OSError("the name service is away")
        asked = names.asked
        await until(lambda: _asked(names, asked + 20), "it is asked again and again")
        assert {"127.0.0.1"} == await where()
        names.answer = ["127.0.0.2"]

        async def moved() -> bool:
            return await where() == {"127.0.0.2"}

        await until(moved, "all sessions are with the new one")
        names.answer = OSError("the name service is away")
        for part in store._lines.values():
            assert part._con is not None
            part._con.terminate()
        assert {"127.0.0.2"} == await where(), "without the name service it is where it was last"


async def _asked(names: Names, times: int) -> bool:
    return names.asked >= times


async def test_a_name_that_is_not_known_is_said(own: Server, names: Names) -> None:
    names.answer = socket.gaierror(-2, "Name or service not known")
    with pytest.raises(StoreUnavailable, match=r"^the name db.test cannot be looked up \(Name or service not known\)$"):
        await PostgresStore(at(own), serving=True).open()


# ---- encryption -----------------------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def encrypted(authority: Authority) -> Iterator[Server]:
    """Run a server with a certificate for db.test from a private authority."""
    issued = authority.issue("db.test")
    with running() as server:
        server.certify(issued)
        yield server


@pytest.mark.usefixtures("names")
async def test_the_password_goes_to_a_proven_server_only_unless_the_address_says_otherwise(
    own: Server, encrypted: Server, authority: Authority, names: Names
) -> None:
    names.answer = ["127.0.0.1"]
    trusted = {"sslrootcert": str(authority.file)}
    plain = at(own, sslmode="")
    assert "the server offers no encryption, so the password would travel in the clear" in await refusal(plain)
    assert "is not trusted (unable to get local issuer certificate)" in await refusal(at(encrypted, sslmode=""))
    assert "is not trusted (unable to get local issuer certificate)" in await refusal(
        at(encrypted, sslmode="verify-full")
    )
    mismatch = at(encrypted, "other.test", sslmode="verify-full", **trusted)
    assert "is not trusted (Hostname mismatch, certificate is not valid for 'other.test')" in await refusal(mismatch)
    for url in (
        at(encrypted, sslmode="", **trusted),
        at(encrypted, sslmode="verify-full", **trusted),
        at(encrypted, "other.test", sslmode="verify-ca", **trusted),
        at(encrypted, sslmode="require"),
        at(own, sslmode="prefer"),
        at(own, sslmode="disable"),
    ):
        async with opened(url) as store:
            secret = await store._lines["door"].read(
                lambda con: con.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
            )
            assert secret is ("sslmode=disable" not in url and "sslmode=prefer" not in url)


async def test_a_certificate_that_has_expired_is_waited_for(own: Server, authority: Authority, names: Names) -> None:
    """Whoever looks after the server renews it; nothing has to be changed here."""
    names.answer = ["127.0.0.1"]
    own.certify(authority.issue("db.test", ends="20210101000000Z"))
    try:
        with pytest.raises(StoreUnavailable, match="certificate has expired") as refused:
            await PostgresStore(at(own, sslmode="", sslrootcert=str(authority.file))).open()
        assert type(refused.value) is StoreUnavailable
    finally:
        own.uncertify()


@pytest.mark.usefixtures("quick")
async def test_who_answers_without_encryption_and_asks_for_the_password_does_not_get_it(names: Names) -> None:
    names.answer = ["127.0.0.1"]
    heard = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def lure() -> None:
            with contextlib.suppress(OSError):
                while True:
                    con, _ = listening.accept()
                    with con:
                        heard.extend(con.recv(8))
                        con.sendall(b"N")
                        heard.extend(con.recv(1_000))
                        con.sendall(b"R\x00\x00\x00\x08\x00\x00\x00\x03")  # the password in the clear, please
                        heard.extend(con.recv(1_000))

        thread = threading.Thread(target=lure, daemon=True)
        thread.start()
        port = listening.getsockname()[1]
        said = await refusal(f"postgresql://{USER}:{PASSWORD}@db.test:{port}/postgres")
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert heard, "it was asked"
    assert PASSWORD.encode() not in heard
    assert "sslmode=disable" in said


# ---- the address ----------------------------------------------------------------------------------------------------


def test_an_address_is_taken_apart() -> None:
    found = parsed(
        "postgresql://us%40r:p%2Fw@one:1,[::1]:2,three/data?search_path=a&options=-c%20jit%3Doff%20--work-mem%3D1MB"
        "&sslmode=require&target_session_attrs=read-write&connect_timeout=7"
    )
    assert ("us@r", "p/w", "data", 7.0) == (found.user, found.password, found.database, found.host_s)
    assert ["one:1", "[::1]:2", "three:5432"] == [str(host) for host in found.hosts]
    assert {"search_path": "a", "jit": "off", "work_mem": "1MB"} == dict(found.settings)
    assert "p/w" not in repr(found)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://u:canary@h:port/d", "the address is not understood"),
        ("postgresql://u:canary@h/d?sslmode=full", "sslmode must be one of disable, allow, prefer, require, verify-ca"),
        ("postgresql://u:canary@h/d?service=s", "a service file is not read"),
        ("postgresql://u:canary@h/d?options=-x", "the address is not understood"),
        ("postgresql://u:canary@h/d?sslmode=verify-ca&sslrootcert=/nowhere", "sslrootcert names a file that cannot be"),
        ("postgresql://u:canary@h/d?sslmode=require&ssl_min_protocol_version=3", "must be TLSv1.2 or TLSv1.3"),
    ],
)
async def test_what_is_wrong_with_an_address_is_said_without_it(url: str, said: str, names: Names) -> None:
    names.answer = ["127.0.0.1"]
    with pytest.raises(StoreRefused) as refused:
        await PostgresStore(url).open()
    assert said in str(refused.value)
    assert "canary" not in str(refused.value)
