"""What the embedded keeper remembers of states never hides what somebody else wrote."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.model import Building, Device, key
from bridge.core.vocabulary import Kind
from bridge.store.codec import decode_state, encode_state
from bridge.store.port import Work
from bridge.store.recent import Recent
from bridge.store.sqlite import SqliteStore
from tests.store.values import NOW, house


def device(number: int, user: str = "u") -> Device:
    return Device(kind=Kind.METER, id=f"m-{number}", user=user, subscription="sub-1", since=NOW, stamp=NOW)


def test_a_state_counts_only_with_its_version() -> None:
    recent = Recent()
    recent.keep(Building(id="b"), 3)

    assert recent.get("b", 2) is None
    assert recent.get("b", 4) is None
    assert house("b", 3).version == recent.keep(Building(id="b"), 3).version
    assert recent.get("b", 3) is not None


def test_the_building_unused_for_longest_goes_first() -> None:
    recent = Recent(most=2)
    recent.keep(Building(id="a"), 1)
    recent.keep(Building(id="b"), 1)
    recent.get("a", 1)
    recent.keep(Building(id="c"), 1)

    assert [True, False, True] == [recent.get(name, 1) is not None for name in "abc"]


def test_large_states_are_few() -> None:
    recent = Recent(most_bytes=2_500)
    for name in "abcd":
        recent.read(encode_state(Building(id=name, users=("u" * 900,))), 1)
    assert [False, False, True, True] == [recent.get(name, 1) is not None for name in "abcd"]

    grown = Building(id="c", users=("u" * 2_200,))
    recent.encoded(grown)
    recent.keep(grown, 2)
    assert [2, 0] == [recent.version(name) for name in "cd"]
    recent.read(encode_state(Building(id="e", users=("u" * 9_000,))), 1)
    assert [0, 1] == [recent.version(name) for name in "ce"], "the newest one stays, however large"


_steps = st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["new", "changed", "gone"])), max_size=12)


@given(steps=_steps)
def test_a_state_written_from_pieces_reads_like_one_written_at_once(steps: list[tuple[int, str]]) -> None:
    recent, state = Recent(), Building(id="b")
    for version, (number, what) in enumerate(steps, 1):
        devices = {name: kept for name, kept in state.devices.items() if name != key("s", Kind.METER, f"m-{number}")}
        if what != "gone":
            user = "u" if what == "new" else f"user-{version}"
            devices[key("s", Kind.METER, f"m-{number}")] = device(number, user)
        state = replace(state, devices=devices)
        written = recent.encoded(state)
        recent.keep(state, version)

        assert state == decode_state(written) == decode_state(encode_state(state))


@pytest.mark.anyio
async def test_what_another_process_wrote_is_read_anew(tmp_path: Path) -> None:
    path = str(tmp_path / "bridge.db")
    daemon, command = SqliteStore(path, exclusive=True), SqliteStore(path)
    await daemon.open()
    await command.open()
    await daemon.commit(Work(now=NOW, buildings=[house("b")]))
    assert 1 == (await daemon.load((), (), ["b"])).buildings["b"].version

    changed = replace(house("b").state, users=("somebody",))
    await command.commit(Work(now=NOW, buildings=[replace(house("b", 1), state=changed)]))

    assert ("somebody",) == (await daemon.load((), (), ["b"])).buildings["b"].state.users
    await command.close()
    await daemon.close()
