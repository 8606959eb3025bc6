"""A real forward proxy, tinyproxy, that alone can resolve MOOST's name; without it tests are skipped."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

NAME: Final = "moost.behind-the-proxy.invalid"  # resolved by nobody else
USER: Final = "bridge"
PASSWORD: Final = "canary-proxy-password"
MISSING: Final = "the proxy is missing: apt-get install tinyproxy brings it"
NO_NAMESPACE: Final = "a hosts file of its own needs root, and a kernel that lets mounts be private"
_SETTINGS: Final = """
Port {port}
Listen 127.0.0.1
Timeout 30
MaxClients 50
Allow 127.0.0.1
LogLevel Connect
"""


@dataclass
class Proxy:
    """A running proxy."""

    port: int
    log: Path
    process: "subprocess.Popen[bytes]"

    def url(self, user: str = "", password: str = "") -> str:
        """Return its address."""
        return f"http://{f'{user}:{password}@' if user else ''}127.0.0.1:{self.port}"

    def asked(self) -> list[str]:
        """Return what was asked of it: method and target."""
        lines = self.log.read_text().splitlines()
        return [line.partition("): ")[2].removesuffix(" HTTP/1.1") for line in lines if "Request (file" in line]


@contextmanager
def proxied(folder: Path, *, credentials: bool = False) -> Iterator[Proxy]:
    """Run a proxy; with `credentials` it wants them."""
    if shutil.which("tinyproxy") is None:
        pytest.skip(MISSING)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    hosts, settings, log = folder / "hosts", folder / "tinyproxy.conf", folder / "tinyproxy.log"
    hosts.write_text(f"127.0.0.1 localhost {NAME}\n")
    settings.write_text(_SETTINGS.format(port=port) + (f"BasicAuth {USER} {PASSWORD}\n" if credentials else ""))
    mount = f"mount --bind {hosts} /etc/hosts && exec tinyproxy -d -c {settings}"
    with log.open("wb") as sink:
        process = subprocess.Popen(["unshare", "-m", "sh", "-c", mount], stdout=sink, stderr=sink)  # noqa: S607
    try:
        _wait(process, port)
        yield Proxy(port, log, process)
    finally:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)
        process.wait(10)


def _wait(process: "subprocess.Popen[bytes]", port: int) -> None:
    ends = time.monotonic() + 20
    while time.monotonic() < ends:
        if process.poll() is not None:
            pytest.skip(NO_NAMESPACE)
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    pytest.fail("the proxy does not listen")
