"""Where a partition is read on, and what of it is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.source.positions import Change, Known, Start, start

OFFSETS = st.integers(0, 2**62)


@pytest.mark.parametrize(
    ("known", "earliest", "latest"),
    [
        (Known(first=3, end=9, read=None), Start(offset=3), Start(offset=9)),
        (Known(first=3, end=9, read=5), Start(offset=5), Start(offset=5)),
        (Known(first=3, end=9, read=9), Start(offset=9), Start(offset=9)),
        (
            Known(first=3, end=9, read=1),
            Start(offset=3, lost=2, change=Change.DELETED),
            Start(offset=3, lost=2, change=Change.DELETED),
        ),
        (
            Known(first=0, end=9, read=10),
            Start(offset=0, change=Change.RENEWED),
            Start(offset=0, change=Change.RENEWED),
        ),
        (
            Known(first=2, end=9, read=5, renewed=True),
            Start(offset=2, lost=2, change=Change.RENEWED),
            Start(offset=2, lost=2, change=Change.RENEWED),
        ),
        (
            Known(first=3, end=9, read=None, expired=True),
            Start(offset=3, change=Change.EXPIRED),
            Start(offset=3, change=Change.EXPIRED),
        ),
        (
            Known(first=3, end=9, read=5, expired=True),
            Start(offset=5, change=Change.EXPIRED),
            Start(offset=5, change=Change.EXPIRED),
        ),
        (
            Known(first=3, end=9, read=1, expired=True),
            Start(offset=3, lost=2, change=Change.DELETED),
            Start(offset=3, lost=2, change=Change.DELETED),
        ),
    ],
)
def test_what_was_read_decides_and_the_setting_only_where_nothing_was(
    known: Known, earliest: Start, latest: Start
) -> None:
    assert (earliest, latest) == (start(known, latest=False), start(known, latest=True))


@given(one=OFFSETS, other=OFFSETS, read=OFFSETS, renewed=st.booleans(), latest=st.booleans())
def test_nothing_that_is_still_there_is_skipped_and_all_that_is_not_is_counted(
    one: int, other: int, read: int, *, renewed: bool, latest: bool
) -> None:
    first, end = sorted((one, other))
    found = start(Known(first=first, end=end, read=read, renewed=renewed), latest=latest)
    left_at = 0 if renewed or read > end else read
    assert max(first, left_at) == found.offset <= end
    assert max(0, first - left_at) == found.lost
