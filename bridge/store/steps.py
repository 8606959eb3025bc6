"""Large orders in small steps: whoever works beside a running daemon keeps it waiting for one step at most."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeVar

T = TypeVar("T")

STEP: Final = 100
"""Most rows of one transaction of a command."""


def in_steps(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield rows, so many at a time."""
    return (rows[start : start + STEP] for start in range(0, len(rows), STEP))


def by_id(ids: Iterable[int]) -> Iterator[Sequence[int]]:
    """Yield ids in order and each once, so many at a time."""
    return in_steps(sorted(set(ids)))
