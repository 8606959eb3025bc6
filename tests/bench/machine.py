"""The machine under the benchmark: its cores, its disk, what its kernel tells of a process.

Rules:
- The server has one core for itself, load and look-alikes have another; where there is only one core, or no
  `taskset`, nothing is pinned and the report says so.
- Time of a process is CPU time: on a shared machine it tells more than the clock on the wall.

Source: proc(5), `/proc/[pid]/stat` fields 14 and 15, `/proc/[pid]/status` VmHWM, `/proc/stat`; taskset(1).
"""

import os
import platform
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_FSYNCS: Final = 200
_FSYNC_BYTES: Final = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Cores:
    """Who runs where; None = anywhere."""

    server: int | None
    load: int | None

    @classmethod
    def found(cls) -> "Cores":
        """Return the first two cores of this process, if it can be told to keep to them."""
        allowed = sorted(os.sched_getaffinity(0))
        if len(allowed) < 2 or shutil.which("taskset") is None:
            return cls(server=None, load=None)
        return cls(server=allowed[0], load=allowed[1])

    @property
    def pinned(self) -> bool:
        return self.server is not None

    def keep_here(self) -> None:
        """Keep this process, which makes the load, to its core."""
        if self.load is not None:
            os.sched_setaffinity(0, {self.load})


def on_core(core: int | None, command: Sequence[str]) -> list[str]:
    """Return a command that runs on one core."""
    return [*command] if core is None else ["taskset", "--cpu-list", str(core), *command]


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process so far, all threads, user and system [s]."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def peak_mb(pid: int) -> float:
    """Return the largest resident memory of a process so far [MB]."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kib = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return kib * 1024 / 1e6


def busy_s(core: int | None) -> float:
    """Return how long a core has been busy since the start of the machine, stolen time included [s]."""
    name = "cpu" if core is None else f"cpu{core}"
    line = next(line for line in Path("/proc/stat").read_text().splitlines() if line.split()[0] == name)
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, line.split()[1:9])
    return (user + nice + system + irq + softirq + steal) / _TICKS


@dataclass(slots=True)
class Watch:
    """Measures what a process took of its core, and how much of it went elsewhere."""

    pid: int
    core: int | None
    began: float = 0.0
    cpu: float = 0.0
    busy: float = 0.0

    def start(self) -> "Watch":
        self.began, self.cpu, self.busy = time.monotonic(), cpu_s(self.pid), busy_s(self.core)
        return self

    def stop(self) -> "Use":
        """Return the use since the start."""
        wall = time.monotonic() - self.began
        own = cpu_s(self.pid) - self.cpu
        foreign = max(0.0, busy_s(self.core) - self.busy - own)
        return Use(wall_s=wall, cpu_s=own, foreign_s=foreign if self.core is not None else 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What a process used."""

    wall_s: float
    cpu_s: float
    foreign_s: float  # time in which its core worked for others

    @property
    def share(self) -> float:
        """Return the part of the core that the process had, 0..1."""
        return self.cpu_s / self.wall_s

    @property
    def foreign(self) -> float:
        """Return the part of the core that others had, 0..1."""
        return self.foreign_s / self.wall_s

    def us_per(self, count: int) -> float:
        """Return the CPU time of one of `count` things [µs]."""
        return self.cpu_s * 1e6 / max(count, 1)


def fsync_ms(folder: Path) -> tuple[float, float]:
    """Return median and 99th percentile of an append of 8 KiB with fsync [ms]."""
    path = folder / "fsync"
    took = []
    with path.open("wb", buffering=0) as file:
        for _ in range(_FSYNCS):
            file.write(bytes(_FSYNC_BYTES))
            since = time.perf_counter()
            os.fsync(file.fileno())
            took.append((time.perf_counter() - since) * 1000)
    path.unlink()
    return statistics.median(took), statistics.quantiles(took, n=100)[98]


def described(cores: Cores, folder: Path) -> dict[str, str]:
    """Return what a reader must know of the machine."""
    median, tail = fsync_ms(folder)
    pinning = f"server on core {cores.server}, load on core {cores.load}" if cores.pinned else "nothing is pinned"
    return {
        "processor": _processor(),
        "cores": f"{os.cpu_count()}; {pinning}",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "disk": f"{_file_system(folder)}; append of 8 KiB + fsync: median {median:.2f} ms, p99 {tail:.2f} ms",
        "load before": " ".join(f"{value:.2f}" for value in os.getloadavg()),
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def _file_system(folder: Path) -> str:
    """Return the type of the file system that holds a folder."""
    best = ("", "unknown")
    for line in Path("/proc/mounts").read_text().splitlines():
        _, point, kind, *_ = line.split()
        if folder.resolve().is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, kind)
    return best[1]
