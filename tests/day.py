"""A whole day of many homes through the real processes: `make day`, or `python -m tests.day [--outage | --backlog]`.

Cloud, bridge and sandbox run on free ports and in a temporary folder. The exit code is 0 if every expected slot of
every type arrived once and right, and on the right lane; 1 if not. Unless one of them is asked for three days are
lived, one after the other: one on which nothing fails, one with an outage, and one that the bridge hears of as a
backlog. By the law of arrival (M5.11) the same must leave on all of them, with the same values.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.life.day import Outcome, Plan, live

DAYS: Final = {
    "plain": "on which nothing fails",
    "outage": "with an outage and two kills",
    "backlog": "that the bridge hears of as one backlog",
}
BACKLOG_FASTER: Final = 2.0  # it is sent as fast as the bridge takes it, not as it happens


def main() -> None:
    """Live the days, print what came of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.day", description="Live a simulated day.")
    parser.add_argument("--homes", type=int, default=200)
    parser.add_argument("--hours", type=float, default=26, help="enough for a whole local day (default: 26)")
    parser.add_argument("--speed", type=float, default=120, help="simulated seconds per second (default: 120)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plain", action="store_true", help="only the day on which nothing fails")
    parser.add_argument(
        "--outage", action="store_true", help="only the day with the sandbox down and the bridge killed"
    )
    parser.add_argument("--backlog", action="store_true", help="only the day that is heard of when it is over")
    parser.add_argument("--replicas", type=int, default=1, help="more than one share a PostgreSQL database")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep logs, store and truth here")
    options = parser.parse_args()
    asked = [name for name in DAYS if getattr(options, name)]
    good = True
    for name in asked or DAYS:
        backlog = name == "backlog"
        plan = Plan(
            homes=options.homes, hours=options.hours, speed=options.speed * (BACKLOG_FASTER if backlog else 1),
            seed=options.seed, outage=name == "outage", replicas=options.replicas, backlog=backlog,
        )  # fmt: skip
        good = _live(plan, options.keep) and good
    sys.exit(0 if good else 1)


def _live(plan: Plan, keep: Path | None) -> bool:
    """Live one day; return whether it was a good one."""
    name = "backlog" if plan.backlog else "outage" if plan.outage else "plain"
    print(f"\na day {DAYS[name]}", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bridge-day-") as temporary:
        folder = (keep or Path(temporary)) / name
        folder.mkdir(parents=True)  # a new one: an old store would be gone on with
        try:
            outcome = live(folder, plan, lambda line: print(f"  {line}", flush=True))
        except AssertionError as why:
            print(f"  FAILED: {why}", flush=True)
            return False
    _show(outcome, time.monotonic() - began)
    return not outcome.faults


def _show(outcome: Outcome, seconds: float) -> None:
    """Print what came of it."""
    print(outcome.compared)
    for line in outcome.told:
        print(line)
    for fault in outcome.faults:
        print(f"  FAULT: {fault}")
    print(f"  {'a good day' if not outcome.faults else 'a bad day'}, lived in {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
