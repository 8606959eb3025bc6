"""The life of the process around its rooms: signals from its first line on, as process 1 too, and its HTTP face."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.life.stage import ADMIN, SUBSCRIPTION, Bridge, Process, Sandbox, ask, bridged, environ, run, until, vehicle

GONE_S: Final = 5.0  # an end for which nothing has to be finished; a killed one would take PATIENCE_S of the tests
MOMENTS: Final = (0.0, 0.3, 0.8)  # s after the first line of the program
FIRST_CPU_S: Final = 0.2  # computing until that line, whatever else the machine does
NOWHERE: Final = "http://127.0.0.1:9"


def can_unshare() -> bool:
    program = shutil.which("unshare")
    command = [str(program), "--pid", "--fork", "--mount-proc", "true"]
    return program is not None and subprocess.run(command, capture_output=True, check=False).returncode == 0


NO_NAMESPACES: Final = "a process 1 of one's own needs unshare and the right to use it"
as_first = pytest.mark.skipif(not can_unshare(), reason=NO_NAMESPACES)


class First:
    """A command of the bridge as process 1 of a namespace of its own: what a container without init makes of it."""

    def __init__(self, log: Path, *arguments: str) -> None:
        self.log = log
        command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-m", "bridge"]
        with log.open("ab") as sink:
            self.outer = subprocess.Popen(
                [*command, *arguments], stdout=sink, stderr=sink, stdin=subprocess.DEVNULL, env=environ()
            )
        children = Path(f"/proc/{self.outer.pid}/task/{self.outer.pid}/children")
        self.number = int(until(lambda: children.read_text().split(), "its process 1")[0])
        until(lambda: b"bridge" in self.about("cmdline"), "the program")

    def about(self, name: str) -> bytes:
        return Path(f"/proc/{self.number}/{name}").read_bytes()

    def catches(self, number: signal.Signals) -> bool:
        """Return whether it has a handler for a signal."""
        (caught,) = (line.split()[1] for line in self.about("status").splitlines() if line.startswith(b"SigCgt"))
        return bool(int(caught, 16) >> (number - 1) & 1)

    def computed(self) -> float:
        """Return its processor time [s]."""
        user, system = self.about("stat").rpartition(b")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def send(self, number: signal.Signals) -> None:
        subprocess.run(["kill", f"-{number.value}", str(self.number)], check=True)  # noqa: S607

    def ended(self, seconds: float) -> int:
        return self.outer.wait(seconds)


@contextlib.contextmanager
def first(log: Path, *arguments: str) -> Iterator[First]:
    process = First(log, *arguments)
    try:
        yield process
    finally:
        if process.outer.poll() is None:
            process.outer.kill()
            process.outer.wait()


class Mute:
    """A database server that accepts connections and says nothing."""

    def __init__(self, server: socket.socket) -> None:
        self._server = server
        self._open: list[socket.socket] = []
        self.url = f"postgresql://bridge:pw@127.0.0.1:{server.getsockname()[1]}/bridge"

    def called(self) -> None:
        """Wait until somebody has connected."""
        self._server.settimeout(60)
        self._open.append(self._server.accept()[0])

    def close(self) -> None:
        for each in (*self._open, self._server):
            each.close()


@contextlib.contextmanager
def mute_database() -> Iterator[Mute]:
    mute = Mute(socket.create_server(("127.0.0.1", 0)))
    with contextlib.closing(mute):
        yield mute


# ---- told to end in the first second --------------------------------------------------------------------------------


@as_first
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("moment", MOMENTS)
def test_process_1_that_is_told_to_end_in_its_first_second_ends(
    moment: float, number: signal.Signals, tmp_path: Path
) -> None:
    with bridged(tmp_path, NOWHERE) as bridge:
        with first(tmp_path / "log", "serve", "--config", str(bridge.configure())) as process:
            until(lambda: process.catches(signal.SIGTERM), "the first line of the program")
            assert process.computed() < FIRST_CPU_S
            time.sleep(moment)
            process.send(number)
            assert 0 == process.ended(GONE_S)
        assert "Traceback" not in process.log.read_text()


@pytest.mark.parametrize("command", ["serve", "check", "demo"])
def test_a_signal_in_the_first_line_ends_any_command_without_a_traceback(command: str) -> None:
    planted = (
        "import os, signal, sys\n"
        f"sys.argv = ['bridge', '{command}']\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from bridge.__main__ import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", planted], capture_output=True, text=True, timeout=60, check=False)
    assert (0 if command in ("serve", "demo") else 1, "", "") == (done.returncode, done.stdout, done.stderr)


def test_a_hangup_before_the_daemon_is_ready_for_it_is_kept(tmp_path: Path) -> None:
    planted = (
        "import os, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'bridge.run':\n"
        "            os.kill(os.getpid(), signal.SIGHUP)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from bridge.__main__ import main\n"
        "main()\n"
    )
    with bridged(tmp_path, NOWHERE) as bridge:
        bridge.start(program=("-c", planted))
        until(lambda: '"reloaded"' in bridge.text(), "it reads its configuration again")
        assert 0 == bridge.stop()


@as_first
@pytest.mark.parametrize(
    ("command", "code"),
    [(("serve",), 0), (("store", "migrate"), 1), (("store", "check"), 1), (("check", "--online"), 1)],
)
def test_a_database_that_says_nothing_does_not_keep_process_1_from_ending(
    command: tuple[str, ...], code: int, tmp_path: Path
) -> None:
    with (
        mute_database() as database,
        bridged(tmp_path, NOWHERE, store={"url": database.url}, server={"drain_timeout": "2s"}) as bridge,
        first(tmp_path / "log", *command, "--config", str(bridge.configure())) as process,
    ):
        database.called()
        process.send(signal.SIGTERM)
        assert code == process.ended(GONE_S + 5)
    assert "Traceback" not in process.log.read_text()


def test_a_store_whose_closing_hangs_does_not_keep_the_process_from_ending_with_0(bridge: Bridge) -> None:
    planted = (
        "import time\n"
        "from bridge.store.sqlite import SqliteStore\n"
        "async def close(self):\n"
        "    time.sleep(100)\n"
        "SqliteStore.close = close\n"
        "from bridge.__main__ import main\n"
        "main()\n"
    )
    bridge.configure(server={"drain_timeout": "1s"})
    bridge.start(program=("-c", planted))
    assert bridge.process is not None
    bridge.process.send(signal.SIGTERM)
    assert 0 == bridge.process.ended(GONE_S)
    assert "drain_broken_off" in bridge.text()


def test_a_command_that_is_told_to_end_says_so_in_a_sentence(tmp_path: Path) -> None:
    with mute_database() as database, bridged(tmp_path, NOWHERE, store={"url": database.url}) as bridge:
        for command in ("check", "migrate"):
            process = Process(("store", command, "--config", str(bridge.configure())), tmp_path / command)
            process.start()
            database.called()
            process.send(signal.SIGTERM)
            assert 1 == process.ended(GONE_S + 5)
            assert re.fullmatch(r"told to end before it was done[^\n]*\n", process.text()), process.text()


# ---- a process without the receiver ---------------------------------------------------------------------------------


def test_a_process_without_the_receiver_answers_health_and_metrics_and_refuses_webhooks(
    tmp_path: Path, sandbox: Sandbox
) -> None:
    with bridged(tmp_path, sandbox.url) as bridge:
        bridge.start("--rooms", "receiver")
        bridge.take("vehicle.update", vehicle("user-1", "car-1", 50))
        assert 0 == bridge.stop()
        bridge.start("--rooms", "worker,sender,clock")
        bridge.settled()
        assert {"live": True} == ask("GET", f"{bridge.url}/health/live").json()
        assert {"ready": True, "failing": []} == ask("GET", f"{bridge.url}/health/ready").json()
        assert 1 == bridge.health()["ledger"]["settled"]
        assert "bridge_calls_delivered_total" in bridge.metrics()
        assert 200 == ask("GET", f"{bridge.url}/", headers={"authorization": f"Bearer {ADMIN}"}).status_code
        refused = bridge.post("vehicle.update", vehicle("user-1", "car-1", 60))
        assert (503, True) == (refused.status_code, int(refused.headers["retry-after"]) > 0)
        assert "receiver" in refused.json()["error"]
        for method, path in (("POST", f"/webhooks/{SUBSCRIPTION}.vehicle.update"), ("OPTIONS", "/webhooks")):
            assert 503 == ask(method, bridge.url + path).status_code
        assert 1 == bridge.health()["ledger"]["accepted"]
        assert '"rooms": ["clock", "sender", "worker"]' in bridge.text()
        assert 0 == bridge.stop()


def test_two_processes_on_one_machine_need_two_ports(tmp_path: Path) -> None:
    with bridged(tmp_path, NOWHERE) as bridge:
        bridge.start("--rooms", "receiver")
        port = bridge.url.rpartition(":")[2]
        other = tmp_path / "other"
        other.mkdir()
        with bridged(other, NOWHERE, server={"port": int(port)}) as second:
            done = run("serve", "--config", second.configure(), "--rooms", "worker")
    assert (2, 1) == (done.returncode, len(done.stderr.splitlines())), done.stderr
    assert done.stderr.startswith("server.port: ")


def test_before_the_store_is_open_the_process_is_live_and_not_ready(tmp_path: Path) -> None:
    with mute_database() as database, bridged(tmp_path, NOWHERE, store={"url": database.url}) as bridge:
        bridge.launch()
        assert 200 == ask("GET", f"{bridge.url}/health/live").status_code
        answer = ask("GET", f"{bridge.url}/health/ready")
        assert (503, ["starting"]) == (answer.status_code, answer.json()["failing"])
        assert 503 == bridge.post("vehicle.update", vehicle("user-1", "car-1", 50)).status_code
        assert 0 == bridge.health()["ledger"]["accepted"]
        assert 0 == bridge.stop()
    assert "Traceback" not in bridge.text()
