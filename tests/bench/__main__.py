"""How fast the bridge is: `make bench`, or `python -m tests.bench [--smoke] [B1 B2 …]`.

A benchmark is a file with `async def run(setting) -> list[Result]`, named in `BENCHMARKS`. A run whose accounts do not
balance is void, and the table says so; the exit code is 0 all the same: numbers are judged by people.
"""

import argparse
import gc
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import uvloop

from tests.bench import b1, b2, b3, b4, b5, b6, b7, machine, report, split
from tests.bench.process import BrokenError
from tests.bench.report import Result
from tests.bench.setting import Setting

BENCHMARKS: Final[dict[str, Callable[[Setting], Awaitable[list[Result]]]]] = {
    "B1": b1.run,
    "B2": b2.run,
    "B3": b3.run,
    "B4": b4.run,
    "B5": b5.run,
    "B6": b6.run,
    "B7": b7.run,
    "SPLIT": split.run,
}
RESULTS: Final = Path(__file__).parents[2] / "bench-results"


async def _measure(setting: Setting, names: list[str]) -> list[Result]:
    """Run benchmarks one after the other."""
    results: list[Result] = []
    for name in names:
        began = time.monotonic()
        try:
            results += await BENCHMARKS[name](setting)
        except (BrokenError, OSError) as why:
            results.append(report.void(name, f"{type(why).__name__}: {why}"))
        print(f"{name} done in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return results


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure how fast the bridge is.")
    parser.add_argument("--smoke", action="store_true", help="much shorter: shows that it works, not how fast it is")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; default: all")
    options = parser.parse_args()
    names = [name.upper() for name in options.names] or [*BENCHMARKS]
    if unknown := set(names) - set(BENCHMARKS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    RESULTS.mkdir(exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix="run-", dir=RESULTS))  # on the disk of the project, not in memory
    try:
        cores = machine.Cores.found()
        about = machine.described(cores, root)
        cores.keep_here()
        gc.collect()
        gc.freeze()
        results = uvloop.run(_measure(Setting(cores=cores, root=root, smoke=options.smoke), names))
    finally:
        shutil.rmtree(root, ignore_errors=True)
    report.show(results, about)
    report.write(RESULTS, results, about)


if __name__ == "__main__":
    main()
