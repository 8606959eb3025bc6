"""Everything that can go wrong, at once and by chance: `make chaos`, or `python -m tests.chaos`.

The exit code is 0 if nothing was lost and every fault fired, 3 if not; the seed repeats the choices of a run.
"""

import argparse
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from bridge.sandbox.database import DatabaseError
from tests.chaos.conduct import STORES, Outcome, Plan, chaos

FOUND = 3


def main() -> None:
    """Conduct a run, print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Let everything go wrong at once.")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=None, help="what is chosen; none = any")
    parser.add_argument("--store", choices=sorted(STORES), default="sqlite")
    parser.add_argument("--homes", type=int, default=20)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep logs, store and MOOST's journal here")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # nothing is left behind
    seed = random.SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    plan = Plan(seed=seed, seconds=options.minutes * 60, homes=options.homes, store=options.store)
    print(f"chaos for {options.minutes:g} minutes, SEED={seed}", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bridge-chaos-", ignore_cleanup_errors=True) as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            outcome = chaos(folder, plan, lambda line: print(f"  {line}", flush=True))
        except DatabaseError as why:
            print(f"  {why}", flush=True)
            sys.exit(FOUND)
        except AssertionError as why:
            print(f"  FAILED with SEED={seed}: {why}", flush=True)
            sys.exit(FOUND)
    _show(outcome)
    good = not outcome.wrong and not outcome.never
    print(f"  {'nothing was lost' if good else f'FAILED with SEED={seed}'}, after {time.monotonic() - began:.0f} s")
    sys.exit(0 if good else FOUND)


def _show(outcome: Outcome) -> None:
    """Print the table, and what is to be said of it."""
    print(f"\n  {'fault':<44} {'injected':>8} {'fired':>8}")
    for name, injected, fired in outcome.table:
        print(f"  {name:<44} {injected:>8} {fired:>8}")
    print()
    for line in outcome.told:
        print(f"  {line}")
    for line in outcome.without:
        print(f"  LEFT OUT: {line}")
    for line in outcome.impossible:
        print(f"  IMPOSSIBLE HERE: {line}")
    for name in outcome.never:
        print(f"  NEVER FIRED: {name}")
    for line in outcome.wrong:
        print(f"  WRONG: {line}")


if __name__ == "__main__":
    main()
