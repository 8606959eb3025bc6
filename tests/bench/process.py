"""Processes of the benchmark: started, watched, ended; whatever happens, none of them stays behind."""

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench.machine import Watch, on_core, peak_mb

START_S: Final = 30.0
END_S: Final = 40.0
_LOOK_S: Final = 0.02


class BrokenError(Exception):
    """A run that says nothing: something did not start, or a ledger does not balance."""


@dataclass(slots=True, kw_only=True)
class Process:
    """A server on one core."""

    popen: subprocess.Popen[bytes]
    log: Path
    core: int | None
    port: int = 0

    def watch(self) -> Watch:
        return Watch(self.popen.pid, self.core).start()

    @property
    def peak_mb(self) -> float:
        return peak_mb(self.popen.pid)

    def said(self, pattern: str) -> str:
        """Return the first group of a pattern once the process has printed it."""
        ends = time.monotonic() + START_S
        while time.monotonic() < ends:
            found = re.search(pattern, self.log.read_text(errors="replace"))
            if found:
                return found[1]
            if self.popen.poll() is not None:
                break
            time.sleep(_LOOK_S)
        msg = f"did not start: {self.log.read_text(errors='replace')[-2000:]}"
        raise BrokenError(msg)

    def end(self) -> int:
        """Ask the process to end, and make it; return its exit code."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
            try:
                return self.popen.wait(END_S)
            except subprocess.TimeoutExpired:
                self.popen.kill()
        return self.popen.wait()


@contextlib.contextmanager
def running(
    command: Sequence[str], *, core: int | None, log: Path, address: str, environ: dict[str, str] | None = None
) -> Iterator[Process]:
    """Run a server while the block runs; `address` is the pattern of its port in what it prints."""
    with log.open("wb") as sink:
        popen = subprocess.Popen(
            on_core(core, command),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            env={**os.environ, **(environ or {})},
        )
    process = Process(popen=popen, log=log, core=core)
    try:
        process.port = int(process.said(address))
        yield process
    finally:
        process.end()
