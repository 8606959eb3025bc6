"""What was tried, and what came of it."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Tally:
    """Counts per kind of input and of answer."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    fates: Counter[str] = field(default_factory=Counter)  # of the messages that requests brought in

    def add(self, kind: str, answer: object, count: int = 1) -> None:
        """Count inputs of a kind that were answered alike."""
        self.counts[kind, str(answer)] += count

    def inputs(self, kind: str | None = None) -> int:
        """Return how many inputs there were, of a kind or of all."""
        return sum(count for (tried, _), count in self.counts.items() if kind in (None, tried))

    def answers(self, kind: str) -> dict[str, int]:
        """Return how often each answer came to a kind."""
        return {answer: count for (tried, answer), count in sorted(self.counts.items()) if tried == kind}

    def rows(self) -> list[str]:
        """Return the table for people."""
        lines = ["| input | answer | count |", "| --- | --- | --- |"]
        lines += [f"| {kind} | {answer} | {count:,} |" for (kind, answer), count in sorted(self.counts.items())]
        lines += [f"| all | | {self.inputs():,} |", "", "| accepted message | count |", "| --- | --- |"]
        return [*lines, *(f"| {fate} | {count:,} |" for fate, count in sorted(self.fates.items()))]
