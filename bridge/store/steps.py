"""Large orders in small steps: whoever works beside a running daemon keeps it waiting for one step at most."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Final, TypeVar

T = TypeVar("T")
U = TypeVar("U")

STEP: Final = 100
"""Most rows of one transaction of a command."""


def in_steps(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield rows, so many at a time."""
    return (rows[start : start + STEP] for start in range(0, len(rows), STEP))


def by_id(ids: Iterable[int]) -> Iterator[Sequence[int]]:
    """Yield ids in order and each once, so many at a time."""
    return in_steps(sorted(set(ids)))


async def both_in_steps(
    write: Callable[[Sequence[T], Sequence[U]], Awaitable[int]], rows: Sequence[T], others: Sequence[U]
) -> int:
    """Write one sort of things and then another, some of one sort at a time; return what the writes add up to."""
    done = 0
    for some in in_steps(rows):
        done += await write(some, ())
    for some_others in in_steps(others):
        done += await write((), some_others)
    return done
