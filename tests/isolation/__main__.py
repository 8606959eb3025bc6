"""One bad sender takes nobody along: `make isolation`, or `python -m tests.isolation [--store …] [ROW …]`.

Each row is an attack beside a canary, on each store, against the real daemon over real sockets. The goal: the canary's
p99 stays within three times its idle one and 250 ms, another household's event takes at most 2 s, the daemon at most
400 MB. The exit code is 0 if every row meets it, 3 if not. `ONLY=` picks rows: 8 means 8a to 8d.
"""

import argparse
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.bench import machine
from tests.isolation import report, senders, strangers
from tests.isolation.ground import STORES, grounds
from tests.isolation.row import Result, Row, measure

FOUND: Final = 3
ROWS: Final[Sequence[Row]] = (*strangers.ROWS, *senders.ROWS)
IDLE_S: Final = 5.0
ATTACK_S: Final = 10.0
RESULTS: Final = Path(__file__).parents[2] / "isolation-results"


def run(chosen: Sequence[Row], stores: Sequence[str], folder: Path, *, idle_s: float, seconds: float) -> list[Result]:
    """Run rows on stores, one after the other, and print each when it is known."""
    results: list[Result] = []
    for store in stores:
        with grounds(folder, store) as ground:
            if ground is None:
                print(f"PostgreSQL is not installed: {store} is left out", flush=True)
                continue
            for row in chosen:
                try:
                    result = measure(row, ground, idle_s=idle_s, seconds=seconds)
                except Exception as why:  # noqa: BLE001 - a row that cannot be measured is a row that misses
                    result = Result(row=row, store=store, wrong=[f"{type(why).__name__}: {why}"[:500]])
                results.append(result)
                print(report.line(result), flush=True)
    return results


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m tests.isolation", description="Attack the bridge beside canaries.")
    parser.add_argument("--store", choices=STORES, action="append", help="default: all")
    parser.add_argument("--seconds", type=float, default=ATTACK_S, help="of each attack")
    parser.add_argument("rows", nargs="*", metavar="ROW", help="the number of a line, or one row such as 8a")
    options = parser.parse_args()
    names = [name for each in options.rows for name in each.lower().replace(",", " ").split()]
    chosen = [row for row in ROWS if row.wanted(names)]
    if not chosen:
        parser.error(f"no row is meant by that; there are {', '.join(row.name for row in ROWS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # nothing is left behind
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bridge-isolation-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        described = machine.described(machine.Cores(server=None, load=None), folder)
        about = [f"- {name}: {text}" for name, text in described.items()]
        print("\n".join((*about, "", report.head())), flush=True)
        results = run(chosen, options.store or STORES, folder, idle_s=IDLE_S, seconds=options.seconds)
    report.write(RESULTS / "isolation.md", results, about)
    missed = [f"{result.row.name} on {result.store}" for result in results if result.wrong]
    print(f"\n{len(results) - len(missed)} of {len(results)} rows met, after {time.monotonic() - began:.0f} s")
    if missed:
        print(f"missed: {', '.join(missed)}")
    sys.exit(FOUND if missed else 0)


if __name__ == "__main__":
    main()
