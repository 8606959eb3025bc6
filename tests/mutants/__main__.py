"""Break each promise on purpose and see the tests notice: `make mutants`, or `python -m tests.mutants [FILTER …]`.

Each mutant is tried in a copy of the tree. Before those of a promise the tests that they name must pass on an unbroken
copy, or a failure would say nothing. The exit code is 0 if every mutant was caught, 3 if not.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from tests.mutants.table import ROOT, Mutant, mutants
from tests.mutants.trial import Outcome, Verdict, copied


def main() -> None:
    """Try the mutants, print what became of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description="Show that the tests can fail.")
    parser.add_argument("filters", nargs="*", metavar="FILTER", help="a promise such as R5, or a part of a name")
    parser.add_argument("--verbose", action="store_true", help="print what pytest printed, of those not caught too")
    options = parser.parse_args()
    chosen = [mutant for mutant in mutants() if mutant.wanted(options.filters)]
    if not chosen:
        parser.error("no mutant is meant by that")
    with tempfile.TemporaryDirectory(prefix="bridge-mutants-") as temporary:
        print("| promise | what is broken | caught by | seconds |\n| --- | --- | --- | --- |", flush=True)
        outcomes = []
        for promise, some in groupby(chosen, attrgetter("promise")):
            broken = list(some)
            if not _sound(Path(temporary), promise, broken):
                sys.exit(3)
            outcomes += [_tried(Path(temporary), mutant, verbose=options.verbose) for mutant in broken]
    caught = sum(outcome.verdict is Verdict.CAUGHT for outcome in outcomes)
    print(f"\n{caught} of {len(chosen)} caught")
    sys.exit(0 if caught == len(chosen) else 3)


def _sound(folder: Path, promise: str, chosen: Sequence[Mutant]) -> bool:
    """Run all tests that are named for a promise on an unbroken copy; what they say is no row of the table."""
    named = sorted({test for mutant in chosen for test in mutant.tests})
    with copied(ROOT, folder / "unbroken") as tree:
        outcome = tree.run(named)
    good = outcome.verdict in {Verdict.SURVIVED, Verdict.SKIPPED}
    said = "they pass" if good else f"they do not pass\n{outcome.text}"
    print(f"{promise}, unbroken: {len(named)} tests, {outcome.seconds:.0f} s: {said}", file=sys.stderr, flush=True)
    return good


def _tried(folder: Path, mutant: Mutant, *, verbose: bool) -> Outcome:
    """Try one and print its row."""
    with copied(ROOT, folder / mutant.name) as tree:
        tree.apply(mutant)
        outcome = tree.run(mutant.tests, "-x")
    by = ", ".join(outcome.by) if outcome.verdict is Verdict.CAUGHT else outcome.verdict
    print(f"| {mutant.promise} | {mutant.what} | {by} | {outcome.seconds:.1f} |", flush=True)
    if verbose or outcome.verdict not in {Verdict.CAUGHT, Verdict.SURVIVED}:
        print(outcome.text, flush=True)
    return outcome


if __name__ == "__main__":
    main()
