"""Turns between those that wait, as plays and as laws."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from bridge.turns import Turns


def taken(turns: Turns[str], count: int, cost: float = 1.0) -> str:
    """Let some turns pass; return whose they were."""
    order = ""
    for _ in range(count):
        who = turns.next()
        assert who is not None
        turns.use(who, cost)
        order += who
    return order


def test_nobody_has_a_turn_where_nobody_waits() -> None:
    turns = Turns[str]()
    assert (None, 0) == (turns.next(), len(turns))
    turns.wait("a")
    turns.rest("a")
    assert None is turns.next()


def test_equals_take_turns_in_the_order_in_which_they_came() -> None:
    turns = Turns[str]()
    for name in "abc":
        turns.wait(name)
    assert "abcabcabc" == taken(turns, 9)


def test_who_uses_much_waits_longer() -> None:
    turns = Turns[str]()
    turns.wait("a")
    turns.wait("b")
    turns.use("a", 10)
    assert "bbbbbbbbbb" == taken(turns, 10)
    assert Counter(taken(turns, 10)) == {"a": 5, "b": 5}


def test_who_was_idle_has_saved_nothing_up_and_owes_nothing() -> None:
    turns = Turns[str]()
    turns.wait("a")
    taken(turns, 1000)
    turns.wait("b")
    assert Counter(taken(turns, 10)) == {"a": 5, "b": 5}
    turns.rest("a")
    taken(turns, 1000)
    turns.wait("a")
    assert Counter(taken(turns, 10)) == {"a": 5, "b": 5}


def test_going_away_for_a_moment_pays_no_debt() -> None:
    turns = Turns[str]()
    turns.wait("a")
    turns.wait("b")
    turns.use("a", 6)
    turns.rest("a")
    turns.wait("a")
    assert "bbbbbb" == taken(turns, 6)


def test_some_may_be_left_out() -> None:
    turns = Turns[str]()
    for name in "abc":
        turns.wait(name)
    assert "b" == turns.next(without={"a"})
    assert None is turns.next(without={"a", "b", "c"})
    assert "a" == turns.next()


def test_waiting_twice_is_waiting_once() -> None:
    turns = Turns[str]()
    turns.wait("a")
    turns.wait("a")
    turns.rest("a")
    turns.rest("a")
    assert "a" not in turns
    assert None is turns.next()


def test_nothing_stays_of_those_that_come_and_go() -> None:
    turns = Turns[str]()
    turns.wait("always")
    for number in range(1000):
        turns.wait(str(number))
        taken(turns, 4)
        turns.rest(str(number))
    taken(turns, 10)
    assert len(turns._used) < 10
    assert len(turns._heap) < 10


steps = st.lists(
    st.tuples(st.sampled_from(["wait", "rest", "use", "next"]), st.sampled_from("abcd"), st.integers(0, 5)), max_size=60
)


@given(steps)
def test_whoever_is_next_waits_and_has_used_least(said: list[tuple[str, str, int]]) -> None:
    turns = Turns[str]()
    waiting: set[str] = set()
    for what, who, amount in said:
        match what:
            case "wait":
                turns.wait(who)
                waiting.add(who)
            case "rest":
                turns.rest(who)
                waiting.discard(who)
            case "use":
                turns.use(who, amount)
            case _:
                found = turns.next()
                assert (found is None) == (not waiting)
                if found is not None:
                    assert found in waiting
                    assert turns._used[found] == min(turns._used[each] for each in waiting)
        assert waiting == set(turns._waiting)


@given(st.lists(st.sampled_from("abc"), min_size=1), st.integers(1, 40))
def test_those_that_wait_all_the_time_use_the_same(names: list[str], rounds: int) -> None:
    turns = Turns[str]()
    for name in names:
        turns.wait(name)
    used = Counter(taken(turns, rounds * len(set(names))))
    assert {rounds} == set(used.values())
