"""What the bridge is told, and the simulated device cloud that speaks to it."""

import base64
import contextlib
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from bridge.demo.processes import Process, process
from bridge.sandbox.moost import CLIENT_ID, CLIENT_SECRET, CUSTOMER_ID

SUBSCRIPTION: Final = "demo"
SPAN: Final = timedelta(hours=24)  # of simulated life before it goes on in real time
LEAD: Final = timedelta(seconds=3)  # for the processes to come up before the simulated day begins


def _secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One performance."""

    folder: Path
    homes: int
    speed: float
    lead: timedelta = LEAD
    secret: str = field(default_factory=_secret)
    admin: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    began: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def anchor(self) -> datetime:
        """Return when the simulated day begins."""
        return self.began + self.lead

    @property
    def tempo(self) -> str:
        """Return how time passes, for a person."""
        return f"their last day at {self.speed:g} times the speed, then in real time"

    def config(self, name: str, *, port: int, sandbox: str, store: str) -> Path:
        """Write the configuration of a bridge."""
        start = self.anchor - SPAN + SPAN / self.speed
        clock = (
            f"[clock]\nstart = {start.isoformat()}\nanchor = {self.anchor.isoformat()}\nspeed = {self.speed}\n"
            if self.speed > 1
            else ""
        )
        path = self.folder / f"{name}.toml"
        path.touch(0o600)
        path.write_text(
            f'[server]\nport = {port}\nadmin_token = "{self.admin}"\n'
            f'[[subscriptions]]\nid = "{SUBSCRIPTION}"\nsecrets = ["{self.secret}"]\n'
            f'[moost]\nbase_url = "{sandbox}"\nclient_id = "{CLIENT_ID}"\nclient_secret = "{CLIENT_SECRET}"\n'
            f'customer_id = "{CUSTOMER_ID}"\n'
            f'[store]\nurl = "{store}"\n{clock}'
        )
        return path


class Cloud:
    """The simulated device cloud: first the fast day, then on in real time."""

    def __init__(self, setting: Setting, url: str) -> None:
        """Speak to the bridge at this address; it has not begun."""
        self._setting = setting
        self._common = (
            *("simulate", "--target", url, "--homes", str(setting.homes), "--seed", "1"),
            *("--subscription", SUBSCRIPTION),
        )
        self._process: Process | None = None

    def start(self, held: contextlib.ExitStack) -> None:
        """Begin with the fast day."""
        self._begin(held, "--hours", f"{SPAN / timedelta(hours=1):g}", "--speed", f"{self._setting.speed:g}",
                    "--anchor", self._setting.anchor.isoformat())  # fmt: skip

    def keep_going(self, held: contextlib.ExitStack) -> None:
        """Go on in real time once the fast day is over."""
        if self._process is not None and self._process.poll() is not None:
            self._begin(held, "--hours", "720", "--speed", "1")

    def stop(self) -> None:
        """End it."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(10)

    def _begin(self, held: contextlib.ExitStack, *options: str) -> None:
        log = self._setting.folder / "cloud.log"
        environ = {"BRIDGE_SIMULATE_SECRET": self._setting.secret}
        self._process = held.enter_context(process(log, *self._common, *options, environ=environ))
