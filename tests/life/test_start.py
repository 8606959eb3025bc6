"""Trouble at the start: what passes is waited for, what somebody has to change ends the daemon with a sentence.

The shipped unit starts a daemon again, but not after exit code 2.
"""

import contextlib
import os
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from bridge.sandbox.database import USER
from tests.between import mute
from tests.life.stage import Bridge, Sandbox, ask, bridged, run, until, vehicle
from tests.life.test_full_disk import fill_up
from tests.postgres import PASSWORD, Server, Standby, running

NOWHERE: Final = "http://127.0.0.1:9"
OTHER: Final = "canary-other-71b"


def waits(bridge: Bridge, why: str) -> None:
    """Let a daemon begin, and see that it lives, is not ready, turns senders away, and says why."""
    bridge.launch()
    until(lambda: why in bridge.text(), f"it says: {why}")
    until(lambda: ask("GET", f"{bridge.url}/health/live").status_code == 200, "it lives")
    ready = ask("GET", f"{bridge.url}/health/ready")
    assert (503, ["store", "starting"]) == (ready.status_code, ready.json()["failing"])
    health = bridge.health()
    assert ("degraded", ["store"]) == (health["status"], health["problems"])
    assert why in health["store"]["cause"]
    answer = bridge.post("vehicle.update", vehicle("user", "car", 50))
    assert (503, "2") == (answer.status_code, answer.headers["retry-after"])
    assert "Traceback" not in bridge.text()
    assert PASSWORD not in bridge.text()


def serves(bridge: Bridge) -> None:
    """See that it goes on by itself."""
    until(bridge.ready, "it serves")
    assert 202 == bridge.post("vehicle.update", vehicle("user", "car", 50)).status_code
    assert bridge.health()["store"]["cause"] is None
    lines = [line for line in bridge.text().splitlines() if '"waiting_for_store"' in line]
    assert len(lines) < 4, "each reason is told once"
    assert '"store_opened"' in bridge.text()
    assert 0 == bridge.stop()


# ---- PostgreSQL: what passes ----------------------------------------------------------------------------------------


def test_a_database_that_comes_a_moment_later_is_waited_for(tmp_path: Path, own: Server) -> None:
    url = own.fresh()
    own.stop("fast")
    with bridged(tmp_path, NOWHERE, store={"url": url}) as bridge:
        try:
            waits(bridge, "the server cannot be reached (Connection refused)")
        finally:
            own.start()
        serves(bridge)


def test_a_database_that_accepts_and_says_nothing_is_waited_for_and_left_in_time(tmp_path: Path) -> None:
    with mute() as port:
        url = f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{port}/postgres"
        with bridged(tmp_path, NOWHERE, store={"url": url}) as bridge:
            waits(bridge, "the server does not answer in time")
            assert 0 == bridge.stop()


def test_a_database_without_a_connection_left_is_waited_for(tmp_path: Path) -> None:
    with running(max_connections="12", superuser_reserved_connections="3") as server:
        server.execute(f"CREATE ROLE plain LOGIN PASSWORD '{PASSWORD}'")
        name = server.fresh().rpartition("=")[2]
        server.execute(f"GRANT ALL ON SCHEMA {name} TO plain")
        url = server.schema(name).replace(f"{USER}:", "plain:")
        with bridged(tmp_path, NOWHERE, store={"url": url}) as bridge, contextlib.ExitStack() as held:
            for number in range(9):
                held.enter_context(server.holding(f"SELECT {number}"))
            waits(bridge, "the server has no connection left (53300)")
            held.close()
            serves(bridge)


def test_a_standby_that_is_not_promoted_yet_is_waited_for(tmp_path: Path) -> None:
    with running() as primary, Standby.of(primary) as standby:
        name = primary.fresh().rpartition("=")[2]
        primary.kill()
        with bridged(tmp_path, NOWHERE, store={"url": standby.address(name)}) as bridge:
            waits(bridge, "the server only reads: it is a standby")
            standby.promote()
            serves(bridge)


def test_a_password_that_is_being_changed_is_waited_for(tmp_path: Path, own: Server) -> None:
    url = own.fresh().replace(PASSWORD, OTHER)
    own.execute("CREATE ROLE other SUPERUSER LOGIN")
    with bridged(tmp_path, NOWHERE, store={"url": url.replace(f"{USER}:", "other:")}) as bridge:
        try:
            waits(bridge, "the server refuses user or password (28P01)")
            own.execute(f"ALTER ROLE other PASSWORD '{OTHER}'")
            serves(bridge)
        finally:
            own.execute("REASSIGN OWNED BY other TO CURRENT_USER")
            own.execute("DROP ROLE other")


# ---- PostgreSQL: what somebody has to change ------------------------------------------------------------------------


@pytest.fixture
def plain(own: Server) -> Iterator[str]:
    """Make a database as by hand, and a role without any right in it; return its address."""
    own.execute("CREATE DATABASE plain")
    own.execute(f"CREATE ROLE plain LOGIN PASSWORD '{PASSWORD}'")
    yield f"postgresql://plain:{PASSWORD}@127.0.0.1:{own.port}/plain"
    own.execute("DROP DATABASE plain WITH (FORCE)")
    own.execute("DROP ROLE plain")


def refused(bridge: Bridge, *command: str) -> str:
    """Run a command that has to end with exit code 2; return its one line."""
    done = run(*command, "--config", bridge.configure())
    assert (2, "") == (done.returncode, done.stdout), done.stderr
    (line,) = (line for line in done.stderr.splitlines() if '"level": "info"' not in line)
    return line


COMMANDS: Final = [
    ("check", "--online"),
    ("serve",),
    ("store", "migrate"),
    ("dead-letters", "list"),
    ("store", "check"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_role_that_may_make_no_tables_is_told_what_to_grant(
    tmp_path: Path, sandbox: Sandbox, plain: str, command: tuple[str, ...]
) -> None:
    with bridged(tmp_path, sandbox.url, store={"url": plain}) as bridge:
        assert (
            "store.url: the user may not make tables in schema public: "
            "GRANT USAGE, CREATE ON SCHEMA public to it, or make it its owner (42501)"
        ) == refused(bridge, *command)


def test_tables_of_another_role_are_told_to_be_granted(tmp_path: Path, sandbox: Sandbox, own: Server) -> None:
    own.execute(f"CREATE ROLE guest LOGIN PASSWORD '{PASSWORD}'")
    url = own.fresh()
    name = url.rpartition("=")[2]
    try:
        with bridged(tmp_path, sandbox.url, store={"url": url}) as bridge:
            assert 0 == run("store", "migrate", "--config", bridge.configure()).returncode
            own.execute(f"GRANT USAGE, CREATE ON SCHEMA {name} TO guest")
            bridge.configure(store={"url": url.replace(f"{USER}:", "guest:")})
            assert (
                "store.url: the user may not use table bridge: "
                "GRANT ALL ON ALL TABLES and SEQUENCES of the schema to it, or make it the owner (42501)"
            ) == refused(bridge, "serve")
    finally:
        own.execute(f"DROP SCHEMA {name} CASCADE")
        own.execute("DROP ROLE guest")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda url: url.replace("/postgres?", "/nothing?"), "there is no such database on the server"),
        (
            lambda url: url.replace("search_path=", "search_path=no_"),
            "the database has no schema to use: see search_path",
        ),
        (lambda url: url + "&sslmode=verify-full", "the server offers no encryption"),
        (lambda url: url + "&sslmode=require&sslrootcert=/nowhere", "sslrootcert names a file that cannot be read"),
    ],
    ids=["database", "schema", "encryption", "root certificate"],
)
def test_what_is_wrong_with_the_way_in_is_one_sentence(
    tmp_path: Path, sandbox: Sandbox, own: Server, spoil: Callable[[str], str], said: str
) -> None:
    with bridged(tmp_path, sandbox.url, store={"url": spoil(own.fresh())}) as bridge:
        for command in (("serve",), ("check", "--online")):
            assert f"store.url: {said}" in refused(bridge, *command)


def test_a_role_that_may_only_read_is_no_standby(tmp_path: Path, own: Server) -> None:
    own.execute(f"CREATE ROLE reader SUPERUSER LOGIN PASSWORD '{PASSWORD}'")
    own.execute("ALTER ROLE reader SET default_transaction_read_only = on")
    try:
        with bridged(tmp_path, NOWHERE, store={"url": own.fresh().replace(f"{USER}:", "reader:")}) as bridge:
            waits(bridge, "the server lets the user only read: default_transaction_read_only is on")
            own.execute("ALTER ROLE reader RESET default_transaction_read_only")
            serves(bridge)
    finally:
        own.execute("REASSIGN OWNED BY reader TO CURRENT_USER")
        own.execute("DROP ROLE reader")


# ---- SQLite ---------------------------------------------------------------------------------------------------------


def test_a_file_that_another_program_has_locked_is_waited_for(tmp_path: Path) -> None:
    with bridged(tmp_path, NOWHERE) as bridge:
        assert 0 == run("store", "migrate", "--config", bridge.configure()).returncode
        with contextlib.closing(sqlite3.connect(bridge.store, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            waits(bridge, "another process holds the store")
        serves(bridge)


def test_a_full_disk_is_waited_for(small_disk: Path, tmp_path: Path) -> None:
    ballast = small_disk / "ballast"
    with bridged(tmp_path, NOWHERE, store={"url": f"sqlite:///{small_disk / 'bridge.db'}"}) as bridge:
        fill_up(ballast)
        waits(bridge, "the disk is full")
        ballast.unlink()
        serves(bridge)


@contextlib.contextmanager
def _few_inodes(folder: Path) -> Iterator[None]:
    """Mount a disk on which no further file can be made."""
    mount = ["mount", "-t", "tmpfs", "-o", "nr_inodes=2,size=64m", "few", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a disk with few inodes needs the right to mount one")
    try:
        (folder / "last").touch()
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # noqa: S607 - the one of this system


def test_want_of_inodes_is_waited_for(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    with _few_inodes(disk), bridged(tmp_path, NOWHERE, store={"url": f"sqlite:///{disk / 'bridge.db'}"}) as bridge:
        waits(bridge, "No space left on device")
        (disk / "last").unlink()
        subprocess.run(["mount", "-o", "remount,nr_inodes=1k", str(disk)], check=True)  # noqa: S607
        serves(bridge)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.parent.rmdir(), "the store cannot be opened (No such file or directory)"),
        (lambda path: path.mkdir(), "the store cannot be opened (Is a directory)"),
        (lambda path: path.write_bytes(b"no database" * 100), "the file is not a store"),
    ],
    ids=["no folder", "a folder", "something else"],
)
def test_a_path_that_is_wrong_ends_the_daemon(tmp_path: Path, spoil: Callable[[Path], object], said: str) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    with bridged(tmp_path, NOWHERE, store={"url": f"sqlite:///{folder / 'bridge.db'}"}) as bridge:
        spoil(folder / "bridge.db")
        assert f"store.url: {said}" in refused(bridge, "serve")


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_without_the_right_to_write_ends_the_daemon(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o500)
    with bridged(tmp_path, NOWHERE, store={"url": f"sqlite:///{folder / 'bridge.db'}"}) as bridge:
        assert "store.url: the store cannot be opened (Permission denied)" == refused(bridge, "serve")


# ---- told to end ----------------------------------------------------------------------------------------------------


def test_told_to_end_while_it_waits_it_ends_at_once(tmp_path: Path) -> None:
    url = f"postgresql://{USER}:{PASSWORD}@127.0.0.1:9/postgres"
    with bridged(tmp_path, NOWHERE, store={"url": url}) as bridge:
        waits(bridge, "the server cannot be reached (Connection refused)")
        began = time.monotonic()
        assert 0 == bridge.stop()
        assert time.monotonic() - began < 15, "before drain_timeout is over"
