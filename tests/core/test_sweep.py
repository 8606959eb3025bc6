"""The powers of a group are summed in one sweep over all changes, and to the last bit (R13)."""

import math
import time
from datetime import timedelta
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from bridge.core.household import Exact, Members, flows, load
from bridge.core.intervals import QUARTER_S, Piece, merged
from bridge.core.model import Device
from bridge.core.tracks import Track
from bridge.core.vocabulary import Kind
from tests.core.homes import at

DEVICE: Final = Device(kind=Kind.METER, id="m", user="u", subscription="s", since=at("12:00"), stamp=at("12:00"))
NOBODY: Final = Members(inverters=(), batteries=(), grid=(), load=())

numbers = st.floats(-1e6, 1e6, allow_nan=False)


@st.composite
def tracks(draw: st.DrawFn) -> Track:
    """Return what a device did: there for a part of the slot, known for parts of that."""
    times = sorted(draw(st.lists(st.integers(0, 900), min_size=2, max_size=8)))
    born, *inner, gone = times
    pieces = [
        Piece(float(start), float(end), draw(numbers))
        for start, end in zip(inner[::2], inner[1::2], strict=False)
        if start < end
    ]
    return Track(DEVICE, pieces, float(born), float(gone))


def integrated(group: list[Track]) -> tuple[float, float]:
    """Return energy [Ws] and known time [s] of a group, second by second."""
    total, known_s = 0.0, 0
    for second in range(900):
        there = [one for one in group if one.born <= second < one.gone]
        values = [[p.value for p in one.pieces if p.start <= second < p.end] for one in there]
        if there and all(values):
            known_s += 1
            total += sum(each[0] for each in values)
    return total, known_s


@given(st.lists(tracks(), min_size=2, max_size=5))
def test_a_group_is_known_while_everybody_who_is_there_is_known(group: list[Track]) -> None:
    energy_ws, known_s = integrated(group)
    found = load(Members(inverters=(), batteries=(), grid=(), load=tuple(group)))
    assert known_s == found.known_s
    assert math.isclose(max(energy_ws, 0.0) / 3600, found.energy_wh, rel_tol=1e-9, abs_tol=1e-4)


@given(st.lists(numbers, min_size=1, max_size=30))
def test_what_is_added_and_taken_away_leaves_nothing(values: list[float]) -> None:
    total = Exact()
    for value in values:
        total.add(value)
    assert math.fsum(values) == total.value
    for value in values:
        total.add(-value)
    assert 0.0 == total.value


@given(st.lists(tracks(), min_size=2, max_size=4))
def test_the_order_of_the_devices_changes_nothing(group: list[Track]) -> None:
    one = Members(inverters=(), batteries=(), grid=(), load=tuple(group))
    other = Members(inverters=(), batteries=(), grid=(), load=tuple(reversed(group)))
    assert load(one) == load(other)


def seconds_of(inverters: int) -> float:
    """Return how long it takes to sum inverters up, each of which changes at a time of its own [s]."""
    step = QUARTER_S / (inverters + 1)
    group = tuple(
        Track(DEVICE, [Piece(0.0, step * n, 100.0), Piece(step * n, QUARTER_S, 200.0)], 0.0, QUARTER_S)
        for n in range(1, inverters + 1)
    )
    who = Members(inverters=group, batteries=(), grid=(), load=(), sources=group)
    times = []
    for _ in range(3):
        began = time.process_time()
        found = flows(who)
        times.append(time.process_time() - began)
    assert math.isclose(found.generation.sum.energy_wh, inverters * 150.0 / 4, rel_tol=1e-9)
    return min(times)


def test_ten_times_the_inverters_take_some_ten_times_as_long() -> None:
    few, many = seconds_of(200), seconds_of(2_000)
    assert many < 40 * few, "a hundred times, if each change looks at each of them"


def test_common_stretches_of_nothing_are_the_slot() -> None:
    assert [(0.0, QUARTER_S, [])] == list(merged([]))
    assert timedelta(minutes=15).total_seconds() == QUARTER_S
