"""What every keeper promises the commands."""

from dataclasses import replace

import pytest

from bridge.core.effects import Call, ChangeBuilding, CreateBuilding, Note
from bridge.core.model import Residence
from bridge.core.vocabulary import DeadReason
from bridge.store.desk import CallTrip, DeadFilter, MessageTrip
from bridge.store.port import MOST_ROWS, Attempt, Return, Settlement, Work
from tests.store.conftest import Keeper
from tests.store.values import (
    DAY,
    HOLD,
    NOW,
    SECOND,
    arrival,
    burial,
    change,
    create,
    devices,
    events,
    house,
    out,
    said,
    stillborn,
)

pytestmark = pytest.mark.anyio

LATER = Attempt(at=NOW + SECOND, outcome="201")


async def buried(store: Keeper) -> None:
    """Make two dead messages (letters 1, 2) and two dead events of one row (letters 3, 4)."""
    await store.accept([stillborn(b"{"), arrival(b"[]"), arrival(b"{}")])
    work = Work(now=NOW + SECOND, dead=[(2, DeadReason.FAULT, "at line 1")], settled=[3], users={2: "u", 3: "w"})
    await store.commit(work)
    await store.commit(Work(now=NOW, calls=out(events("a", 1, 2, 3), cause=3)))
    await store.lease(NOW, 1, 1, HOLD)
    ends = [
        Settlement(call_id=1, delivered=1, buried=burial()),
        Settlement(call_id=1, buried=burial(), attempt=said("400")),
    ]
    await store.settle(NOW + 2 * SECOND, ends, [], [Return(building="a", at=NOW)])


# ---- flags ----------------------------------------------------------------------------------------------------------


async def test_the_buildings_with_a_flag_are_listed_page_by_page(store: Keeper) -> None:
    marks = {"a": ("x", "y"), "b": (), "c": ("x",), "d": ("xy",), "e": ("x",), "B": ("x",)}
    await store.commit(Work(now=NOW, buildings=[house(name, flags=flags) for name, flags in marks.items()]))
    assert ["B", "a", "c", "e"] == list(await store.flagged("x"))
    assert ["B", "a"] == list(await store.flagged("x", limit=2))
    assert ["c", "e"] == list(await store.flagged("x", "a"))
    assert [] == list(await store.flagged("x", "e"))
    assert ["a"] == list(await store.flagged("y"))
    await store.commit(Work(now=NOW, buildings=[house("a", 1, flags=("y",))]))
    assert ["B", "c", "e"] == list(await store.flagged("x"))


# ---- the directory --------------------------------------------------------------------------------------------------


async def test_the_directory_is_upserted(store: Keeper) -> None:
    rows = [
        Residence(user="v", location=None, building="b1", attributes={"lat": 47.5}),
        Residence(user="u", location="", building="b2"),
        Residence(user="u", location=None, building="b3"),
    ]
    assert 3 == await store.write_residences(rows)
    assert [rows[2], rows[1], rows[0]] == list(await store.residences())
    assert 0 == await store.write_residences(rows)
    moved = Residence(user="v", location=None, building="b9")
    assert 2 == await store.write_residences([moved], [("u", ""), ("nobody", None)])
    assert [rows[2], moved] == list(await store.residences())


async def test_only_users_whose_rows_differ_are_shown_as_changed(store: Keeper) -> None:
    rows = [Residence(user=name, location=None, building="b") for name in ("a", "b", "c")]
    await store.write_residences(rows)
    await store.commit(Work(now=NOW, unparked=list((await store.claim(1))[1])))
    await store.write_residences([rows[0], Residence(user="c", location=None, building="x")], [("b", None)])
    assert ["c", "b"] == list((await store.claim(1))[1])


async def test_users_are_shown_as_changed_when_they_are_asked_for(store: Keeper) -> None:
    rows = [Residence(user=f"u{n:04}", location=None, building="b") for n in range(250)]
    await store.write_residences(rows)
    shown = set((await store.claim(1))[1])
    late = next(row for row in reversed(rows) if row.user not in shown) if len(shown) < len(rows) else rows[-1]
    assert [] == list(await store.changed_among([]))
    assert ["u0001", late.user] == list(await store.changed_among([late.user, "nobody", "u0001"]))
    await store.write_residences([replace(late, building="b2")])
    await store.commit(Work(now=NOW, unparked=[late.user, "u0001"]))
    assert [late.user] == list(await store.changed_among([late.user, "u0001"])), "the newer change was not shown"


async def test_a_large_directory_is_written_whole(store: Keeper) -> None:
    rows = [Residence(user=f"u{n:04}", location=None, building=f"b{n}") for n in range(350)]
    assert 350 == await store.write_residences(rows)
    assert rows == list(await store.residences())
    assert 350 == await store.write_residences([], [(row.user, None) for row in rows])
    assert [] == list(await store.residences())


async def test_a_building_is_read_with_its_version(store: Keeper) -> None:
    await store.commit(Work(now=NOW, buildings=[house("a")]))
    assert house("a", 1) == await store.building("a")
    assert None is await store.building("b")


async def test_the_rows_of_a_changed_users_buildings_are_told_together(store: Keeper) -> None:
    rows = [
        Residence(user="u", location=None, building="b1", attributes={"zip": "1"}),
        Residence(user="v", location="x", building="b1"),
        Residence(user="v", location=None, building="b1"),
        Residence(user="w", location=None, building="b2"),
    ]
    await store.write_residences(rows)
    assert {"b1": (rows[0], rows[2], rows[1])} == await store.directory_of("u")
    moved = Residence(user="u", location=None, building="b3")
    await store.write_residences([moved], [("w", None)])
    assert {"b1": (rows[2], rows[1]), "b3": (moved,)} == await store.directory_of("u")
    assert {"b2": ()} == await store.directory_of("w")
    _, changed = await store.claim(10)
    await store.commit(Work(now=NOW, unparked=changed))
    assert {"b3": (moved,)} == await store.directory_of("u")
    assert {} == await store.directory_of("w")


async def test_a_town_of_rows_is_not_told_whole(store: Keeper) -> None:
    rows = [Residence(user=f"u{n:04}", location=None, building="town") for n in range(MOST_ROWS + 10)]
    await store.write_residences(rows)
    assert {"town": tuple(rows[:MOST_ROWS])} == await store.directory_of("u0001")


# ---- dead letters ---------------------------------------------------------------------------------------------------


async def test_dead_letters_say_what_died_and_why(store: Keeper) -> None:
    await buried(store)
    one, two, three, four = await store.dead_letters(DeadFilter())
    assert (1, DeadReason.UNREADABLE, "not JSON", NOW, "sub-1", "sub-1.nonsense", None, b"{", 1) == (
        *(one.id, one.reason, one.detail, one.at, one.subscription, one.topic, one.user, one.body),
        one.message_id,
    )
    assert (2, DeadReason.FAULT, "at line 1", NOW + SECOND, "u", b"[]", 2) == (
        *(two.id, two.reason, two.detail, two.at, two.user, two.body),
        two.message_id,
    )
    assert (3, 4, 1, None, "a") == (three.id, four.id, four.call_id, four.message_id, four.building)
    assert ("sub-1.vehicle.update", '{"error":"no"}') == (four.topic, four.answer)


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        (DeadFilter(), [1, 2, 3, 4]),
        (DeadFilter(ids=[4, 2, 99]), [2, 4]),
        (DeadFilter(ids=[]), []),
        (DeadFilter(reason=DeadReason.REJECTED), [3, 4]),
        (DeadFilter(subscription="sub-1"), [1, 2, 3, 4]),
        (DeadFilter(subscription="sub-2"), []),
        (DeadFilter(building="a"), [3, 4]),
        (DeadFilter(since=NOW + SECOND), [2, 3, 4]),
        (DeadFilter(until=NOW + 2 * SECOND), [1, 2]),
        (DeadFilter(since=NOW + SECOND, until=NOW + 2 * SECOND, reason=DeadReason.FAULT), [2]),
    ],
)
async def test_dead_letters_are_chosen(store: Keeper, which: DeadFilter, expected: list[int]) -> None:
    await buried(store)
    assert expected == [letter.id for letter in await store.dead_letters(which)]


async def test_dead_letters_come_in_pages(store: Keeper) -> None:
    await buried(store)
    assert [2, 3] == [letter.id for letter in await store.dead_letters(DeadFilter(), after=1, limit=2)]


async def test_a_retried_message_waits_once_more(store: Keeper) -> None:
    await buried(store)
    assert 2 == await store.retry([1, 2, 2, 99], NOW)
    messages, _ = await store.claim(10)
    assert [1, 2] == [message.id for message in messages]
    assert (2, 0) == ((await store.census()).pending, (await store.census()).dead)
    await store.commit(Work(now=NOW, settled=[1], dead=[(2, DeadReason.RULE, "again")]))
    assert [DeadReason.REJECTED, DeadReason.REJECTED, DeadReason.RULE] == [
        letter.reason for letter in await store.dead_letters(DeadFilter())
    ]


@pytest.mark.parametrize("fate", ["retried", "discarded"])
async def test_knowing_a_repeat_swallows_no_dead_message(store: Keeper, fate: str) -> None:
    await store.accept([arrival(b"1", message_id="m-1"), arrival(b"2", message_id="m-2")])
    await store.commit(Work(now=NOW, dead=[(1, DeadReason.FAULT, "…"), (2, DeadReason.FAULT, "…")]))
    again, other = await store.accept([arrival(b"1", message_id="m-1"), arrival(b"one", message_id="m-1")])
    assert (True, False) == (again.duplicate, other.duplicate), "the same bytes are in a letter, other bytes are not"
    assert 1 == (await store.census()).same_id_other_bytes
    [letter, _] = await store.dead_letters(DeadFilter())
    await (store.retry if fate == "retried" else store.discard)([letter.id], NOW)
    flows = [b"1", b"one"] if fate == "retried" else [b"one"]
    assert flows == [message.body for message in (await store.claim(9))[0]]
    assert (await store.accept([arrival(b"1", message_id="m-1")]))[0].duplicate


async def test_a_retried_call_goes_to_the_end_of_its_lane_as_a_row_of_its_own(store: Keeper) -> None:
    await buried(store)
    await store.commit(Work(now=NOW, calls=out(events("a", 9))))
    assert 1 == await store.retry([3], NOW)
    (lane,) = await store.lease(NOW, 1, 10, HOLD)
    assert [events("a", 9), events("a", 2)] == [row.call for row in lane.calls]
    census = await store.census()
    assert (4, 1, 2, 1, {"unreadable": 1, "fault": 1, "rejected": 1}) == (
        census.queued,
        census.delivered,
        census.calls_pending,
        census.calls_dead,
        census.dead_letters,
    )
    trip = await store.trip(3)
    assert trip is not None
    assert ["dead", "owed"] == [call.state for call in trip.calls]


async def died(store: Keeper, *calls: Call) -> list[int]:
    """Queue whole states of one building, each with a lease of its own, and bury all; return their letters."""
    for call in calls:
        await store.commit(Work(now=NOW, calls=out(call)))
        (lane,) = await store.lease(NOW, 1, 10, HOLD)
        end = Settlement(call_id=lane.calls[0].id, buried=burial())
        await store.settle(NOW, [end], [], [Return(building="a", at=NOW)])
    return [letter.id for letter in await store.dead_letters(DeadFilter())]


async def delivered(store: Keeper, *calls: Call) -> None:
    """Queue calls of one building and let MOOST take them."""
    await store.commit(Work(now=NOW, calls=out(*calls)))
    (lane,) = await store.lease(NOW, 1, 10, HOLD)
    ends = [Settlement(call_id=row.id, delivered=1) for row in lane.calls]
    await store.settle(NOW, ends, [], [Return(building="a", at=NOW)])


async def owed(store: Keeper) -> list[Call]:
    """Return what is owed for one building."""
    return [row.call for lane in await store.lease(NOW + DAY, 1, 10, HOLD) for row in lane.calls]


async def test_a_retried_list_is_the_one_that_is_right_by_now(store: Keeper) -> None:
    letters = await died(store, devices("a", "c1"))
    await delivered(store, devices("a", "c1", "b1"))
    assert 1 == await store.retry(letters, NOW)
    assert [devices("a", "c1", "b1")] == await owed(store)


async def test_a_retried_list_takes_no_place_beside_a_newer_one_that_is_owed(store: Keeper) -> None:
    letters = await died(store, devices("a", "c1"))
    await store.commit(Work(now=NOW, calls=out(devices("a", "c1", "b1"), events("a", 1))))
    await store.retry(letters, NOW)
    assert [devices("a", "c1", "b1"), events("a", 1)] == await owed(store)
    census = await store.census()
    assert (3, 1, 2, 0) == (census.queued, census.replaced, census.calls_pending, census.calls_dead)


async def test_of_several_retried_lists_the_newest_counts(store: Keeper) -> None:
    letters = await died(store, devices("a", "c1"), devices("a", "c1", "b1"))
    await store.retry(letters, NOW)
    assert [devices("a", "c1", "b1")] == await owed(store)


async def test_a_retried_creation_holds_all_that_the_building_shall_be(store: Keeper) -> None:
    letters = await died(store, create("a", "Bern"))
    await delivered(store, change("a", city="Basel", zip="4000"))
    await store.retry(letters, NOW)
    assert [CreateBuilding(building="a", attributes={"city": "Basel", "zip": "4000"})] == await owed(store)


async def test_a_retried_change_says_what_it_named_as_it_is_by_now(store: Keeper) -> None:
    old = ChangeBuilding(
        building="a", attributes={"zip": "1", "city": "Bern"}, create={"k": 1}, tariff={"t": 1}, tariff_set=True
    )
    letters = await died(store, old)
    newer = ChangeBuilding(
        building="a", attributes={"zip": "2"}, removed=("city",), create={"k": 2}, tariff={"t": 2}, tariff_set=True
    )
    await delivered(store, newer)
    await delivered(store, change("a", other="x"))
    await store.retry(letters, NOW)
    assert [replace(newer, create={"k": 2})] == await owed(store)


async def test_a_retried_change_that_nothing_overtook_stays_as_it_is(store: Keeper) -> None:
    old = ChangeBuilding(building="a", attributes={"zip": "1"}, removed=("city",), tariff=None, tariff_set=True)
    letters = await died(store, old)
    await store.retry(letters, NOW)
    assert [old] == await owed(store)


async def test_discarded_letters_are_gone_for_good(store: Keeper) -> None:
    await buried(store)
    assert 3 == await store.discard([1, 3, 4], NOW)
    assert 0 == await store.discard([1], NOW)
    assert 0 == await store.retry([1], NOW)
    census = await store.census()
    assert (1, 1, 2, 0) == (census.discarded, census.dead, census.calls_discarded, census.calls_dead)
    message, call = await store.trip(1), await store.trip(3)
    assert message is not None
    assert call is not None
    assert ("discarded", None, ["discarded"]) == (message.state, message.dead, [row.state for row in call.calls])


# ---- trips ----------------------------------------------------------------------------------------------------------


async def test_a_trip_shows_the_calls_and_their_attempts(store: Keeper) -> None:
    await store.accept([arrival(b"{}")])
    calls = out(devices("a", "x"), events("a", 1, 2), cause=1)
    await store.commit(Work(now=NOW, settled=[1], calls=calls, notes=[(1, Note(name="odd", detail="why"))]))
    await store.lease(NOW, 1, 10, HOLD)
    tries = [
        Settlement(call_id=1, failed=True, attempt=said("503")),
        Settlement(call_id=1, delivered=1, attempt=LATER),
        Settlement(call_id=2, delivered=1, attempt=said()),
    ]
    await store.settle(NOW + SECOND, tries, [], [])
    expected = MessageTrip(
        id=1,
        subscription="sub-1",
        topic="sub-1.vehicle.update",
        body=b"{}",
        received=NOW,
        state="settled",
        building="a",
        notes=[Note(name="odd", detail="why")],
        calls=[
            CallTrip(
                id=1,
                call=devices("a", "x"),
                state="delivered",
                queued=NOW,
                settled=NOW + SECOND,
                attempts=(said("503"), LATER),
                cause=1,
            ),
            CallTrip(id=2, call=events("a", 1, 2), state="owed", queued=NOW, settled=None, attempts=(said(),), cause=1),
        ],
    )
    assert expected == await store.trip(1)


async def test_a_trip_tells_where_a_message_is(store: Keeper) -> None:
    await store.accept([arrival(), arrival(), arrival(), stillborn(), arrival()])
    await store.commit(Work(now=NOW, settled=[3], parked=[(2, "u")]))
    trips = [await store.trip(number) for number in range(1, 6)]
    assert ["pending", "parked", "settled", "dead", "pending"] == [trip.state for trip in trips if trip is not None]
    assert None is await store.trip(6)
    await store.commit(Work(now=NOW, unparked=["u"]))
    trip = await store.trip(2)
    assert trip is not None
    assert "pending" == trip.state


async def test_a_replaced_call_is_still_explained(store: Keeper) -> None:
    await store.accept([arrival(), arrival()])
    await store.commit(Work(now=NOW, settled=[1], calls=out(devices("a", "x"), cause=1)))
    await store.commit(Work(now=NOW, settled=[2], calls=out(devices("a", "y"), cause=2)))
    trips = [await store.trip(1), await store.trip(2)]
    assert [("replaced", devices("a", "x")), ("owed", devices("a", "y"))] == [
        (call.state, call.call) for trip in trips if trip is not None for call in trip.calls
    ]


# ---- raw messages ---------------------------------------------------------------------------------------------------


async def test_raw_messages_stream_in_order_of_acceptance(store: Keeper) -> None:
    await store.accept([arrival(str(n).encode(), at=NOW + n * SECOND) for n in range(250)])
    everything = [message.body async for message in store.raw(None, None)]
    some = [message.id async for message in store.raw(NOW + 5 * SECOND, NOW + 8 * SECOND)]
    none = [message.id async for message in store.raw(NOW + DAY, None)]
    assert [str(n).encode() for n in range(250)] == everything
    assert ([6, 7, 8], []) == (some, none)
