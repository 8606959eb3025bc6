"""What stands between the bridge and a database: PgBouncer, haproxy, and machines that do not answer."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest

from bridge.sandbox.database import OWNER, START_S, USER, free_port
from tests.postgres import Server

PGBOUNCER: Final = """
[databases]
* = host=127.0.0.1 port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users
pool_mode = {mode}
{more}
"""
HAPROXY: Final = """
defaults
    mode tcp
    timeout connect 2s
    timeout client {idle}
    timeout server {idle}
listen database
    bind 127.0.0.1:{port}
    server primary 127.0.0.1:{server}
"""


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed; on Debian: apt-get install {name}")
    return found


@contextlib.contextmanager
def _running(command: list[str], folder: Path, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    owner = OWNER if os.getuid() == 0 else None
    groups = None if owner is None else list[int]()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, user=owner, group=owner, extra_groups=groups
        )
    try:
        end = time.monotonic() + START_S
        while not _listens(port):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < end, f"{command[0]} does not listen"
            time.sleep(0.02)
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def pooler(server: Server, mode: str, **more: str) -> Iterator[int]:
    """Run PgBouncer as it comes, in one of its modes; yield its port."""
    program = _program("pgbouncer")
    with TemporaryDirectory(prefix="bridge-pgbouncer-", ignore_cleanup_errors=True) as name:
        folder, port = Path(name), free_port()
        settings = "\n".join(f"{key} = {value}" for key, value in more.items())
        text = PGBOUNCER.format(server=server.port, port=port, folder=folder, mode=mode, more=settings)
        (folder / "pgbouncer.ini").write_text(text)
        (folder / "users").write_text(f'"{USER}" "{server.password}"\n')
        if os.getuid() == 0:
            for path in (folder, *folder.iterdir()):
                shutil.chown(path, OWNER, OWNER)
        with _running([program, "pgbouncer.ini"], folder, port):
            yield port


@contextlib.contextmanager
def balancer(server: Server, *, idle: str = "1h") -> Iterator[tuple[int, "subprocess.Popen[bytes]"]]:
    """Run haproxy, which cuts a connection that rests; yield its port and its process, to be stopped."""
    program = _program("haproxy")
    with TemporaryDirectory(prefix="bridge-haproxy-", ignore_cleanup_errors=True) as name:
        folder, port = Path(name), free_port()
        (folder / "haproxy.cfg").write_text(HAPROXY.format(server=server.port, port=port, idle=idle))
        if os.getuid() == 0:
            for path in (folder, *folder.iterdir()):
                shutil.chown(path, OWNER, OWNER)
        with _running([program, "-db", "-f", "haproxy.cfg"], folder, port) as process:
            yield port, process


@contextlib.contextmanager
def dark(address: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """Be a machine that is switched off: it answers no attempt to connect. Yield its port."""
    with contextlib.ExitStack() as held:
        listening = held.enter_context(socket.socket())
        listening.bind((address, port))
        listening.listen(0)
        for _ in range(4):  # its queue is full then
            waiting = held.enter_context(socket.socket())
            waiting.settimeout(0)
            waiting.connect_ex(listening.getsockname())
        yield int(listening.getsockname()[1])


@contextlib.contextmanager
def mute() -> Iterator[int]:
    """Be a machine that accepts every connection and says nothing. Yield its port."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        yield int(listening.getsockname()[1])
