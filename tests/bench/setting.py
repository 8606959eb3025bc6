"""What all benchmarks of one run share: cores, a folder on the disk, how long, the households."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.bench.homes import Homes
from tests.bench.machine import Cores

BUILDINGS: Final = 1_000
_SMOKE: Final = 4  # a smoke run is so many times shorter: it shows that everything works, its numbers say little


@dataclass(slots=True, kw_only=True)
class Setting:
    """One run."""

    cores: Cores
    root: Path
    smoke: bool = False
    _homes: Homes | None = field(default=None, repr=False)

    def seconds(self, full: float) -> float:
        """Return how long something takes in this run [s]."""
        return max(1.0, full / _SMOKE) if self.smoke else full

    def repeats(self, full: int) -> int:
        """Return how often something is measured in this run."""
        return 1 if self.smoke else full

    def folder(self, name: str) -> Path:
        """Return a new folder."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.root))

    def homes(self) -> Homes:
        """Return the households, made once."""
        if self._homes is None:
            self._homes = Homes(BUILDINGS)
        return self._homes
