"""100,000 odd inputs and more: `make fuzz`, or `python -m tests.fuzz [--share 0.1] [--seed N]`.

Each run takes another seed, prints it, and does the same again when it is told that one. Ctrl-C ends it with what was
tried so far.

Prints how many inputs of each kind got which answer. Ends with 1 if anything was found: an answer that the document
does not know, an exception, a row that is stuck or faulty, counts that do not add up, a traceback in the log.
"""

import argparse
import contextlib
import secrets
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.fuzz import drive, outdoors
from tests.fuzz.inputs import ADMIN, SUBSCRIPTIONS
from tests.fuzz.tally import Tally
from tests.life.stage import SUBSCRIPTION, bridged, sandboxed

REQUESTS: Final = 34_000
PLAYS: Final = 15_000  # of four or five messages each
QUESTIONS: Final = 5_000
SCRIBBLES: Final = 5_000
LEAST: Final = 100_000  # inputs in all, of a whole run


class Findings:
    """Prints what was found and lets the rest go on; the seed is that of the round, which `--seed` begins with."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.count = 0

    def __call__(self, kind: str, number: int, error: BaseException) -> None:
        """Print one."""
        self.count += 1
        print(f"\nFOUND in {kind}, --seed {number}:", flush=True)
        traceback.print_exception(error, limit=-12)


def main() -> None:
    """Try all kinds of inputs."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz the door, decode and the core.")
    parser.add_argument("--share", type=float, default=1.0, help="of the whole run, for a short look")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**9), help="to do the same once more")
    options = parser.parse_args()
    share: float = options.share
    tally, found, began = Tally(), Findings(), time.monotonic()

    def tour(count: int) -> drive.Tour:
        return drive.Tour(count=round(count * share), seed=options.seed, found=found)

    print(f"--seed {options.seed}", flush=True)
    with contextlib.suppress(KeyboardInterrupt), tempfile.TemporaryDirectory(prefix="bridge-fuzz-") as temporary:
        folder = Path(temporary)
        _outside(folder, tally, tour, found)
        _say("requests", began)
        drive.indoor_requests(folder, tally, tour(REQUESTS))
        _say("decode and reduce", began)
        drive.core(tally, tour(PLAYS))
    print("\n".join(["", *tally.rows()]))
    print(f"\n{tally.inputs():,} inputs, {time.monotonic() - began:.0f} s, {found.count} findings")
    too_few = tally.inputs() < LEAST * share
    if too_few:
        print(f"fewer than {LEAST * share:,.0f} inputs: something ended early")
    sys.exit(1 if found.count or too_few else 0)


def _outside(folder: Path, tally: Tally, tour: Callable[[int], drive.Tour], found: Findings) -> None:
    """Ask the real process, with a look-alike of MOOST behind it that must see nothing odd."""
    with sandboxed(folder) as sandbox, bridged(folder, sandbox.url) as bridge:
        bridge.own = next(each for each in SUBSCRIPTIONS if each["id"] == SUBSCRIPTION)
        bridge.others = tuple(each for each in SUBSCRIPTIONS if each["id"] != SUBSCRIPTION)
        bridge.configure(server={"admin_token": ADMIN})
        bridge.start()
        began = time.monotonic()
        _say("schemathesis", began)
        drive.questions(bridge, tally, tour(QUESTIONS))
        _say("hardly HTTP", began)
        drive.scribbles(bridge, tally, tour(SCRIBBLES))
        try:
            outdoors.judge(bridge)
            bridge.settled()
            violations = sandbox.counts()["violations"]
            assert {} == violations, violations
        except AssertionError as error:
            found("the process afterwards", 0, error)


def _say(what: str, began: float) -> None:
    print(f"{time.monotonic() - began:5.0f} s: {what}", flush=True)


if __name__ == "__main__":
    main()
