"""One bridge on a file of its own: what `make demo` shows."""

import contextlib
import json
import tempfile
import threading
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import httpx

from bridge.demo.processes import address, drained, end, flow, port, process, ready, say, tail
from bridge.demo.setting import Cloud, Setting
from bridge.errors import BridgeError

BRIDGE_PORT: Final = 8080
SANDBOX_PORT: Final = 9090
TELL_S: Final = 5.0  # how often a line tells what flows


def run(*, homes: int, speed: float, stop: threading.Event) -> int:
    """Run until told to stop; the last line is the ledger."""
    with tempfile.TemporaryDirectory(prefix="bridge-demo-") as folder, contextlib.ExitStack() as held:
        ledger = _play(Setting(folder=Path(folder), homes=homes, speed=speed), held, stop)
    say(json.dumps(ledger))
    return 0


def _play(setting: Setting, held: contextlib.ExitStack, stop: threading.Event) -> dict[str, Any]:
    """Start the three, tell what flows until told to stop, and return the ledger at the end."""
    folder, number = setting.folder, port(BRIDGE_PORT)
    sandbox = held.enter_context(process(folder / "sandbox.log", "sandbox", "--port", str(port(SANDBOX_PORT))))
    sandbox_url = address(folder / "sandbox.log", "sandbox ", sandbox)
    config = setting.config("bridge", port=number, sandbox=sandbox_url, store=f"sqlite:///{folder}/bridge.db")
    bridge = held.enter_context(process(folder / "bridge.log", "serve", "--config", str(config)))
    url = f"http://127.0.0.1:{number}"
    ready(url, bridge, folder / "bridge.log")
    say(f"bridge {url}")
    say(f"sandbox {sandbox_url}")
    say(f"  operator's page {url}/ (user: any, password: {setting.admin}), health {url}/health, metrics {url}/metrics")
    say(f"  what MOOST has   {sandbox_url}/ (page), {sandbox_url}/_sandbox/received (JSON)")
    say(f"  {setting.homes} homes; {setting.tempo}; ctrl-C ends it")
    cloud = Cloud(setting, url)
    cloud.start(held)
    while not stop.wait(TELL_S):
        with contextlib.suppress(httpx.HTTPError):
            health = httpx.get(f"{url}/health", timeout=5).json()
            say(f"{datetime.now().astimezone():%H:%M:%S}  {flow(health, sandbox_url)}")
        cloud.keep_going(held)
        if bridge.poll() is not None or sandbox.poll() is not None:
            raise BridgeError(f"a part of the demo ended:\n{tail(folder)}")
    cloud.stop()
    ledger = drained(url)
    end(bridge)
    return ledger
