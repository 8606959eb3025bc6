"""Erasing: what a keeper is told to forget is gone, the ledger knows where it went, and nobody brings it back."""

import dataclasses
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest

from bridge.core.effects import CreateBuilding, DeviceEntry, PutDevices, SendEvents
from bridge.core.messages import Tick
from bridge.core.model import Building, Device, Residence
from bridge.core.vocabulary import DeadReason, DeviceType, Kind
from bridge.store.desk import DeadFilter, Erased, Forgetting, Redaction
from bridge.store.port import Begin, Doubt, Home, Outdated, Return, Settlement, Versioned, Work
from tests.core.house import own
from tests.store.conftest import Keeper
from tests.store.values import (
    HOLD,
    NOW,
    SECOND,
    arrival,
    burial,
    change,
    create,
    devices,
    event,
    events,
    house,
    out,
    said,
    stillborn,
)

pytestmark = pytest.mark.anyio
Reopened = Callable[[Keeper], Awaitable[Keeper]]
ME = "user-1"


async def forgotten(store: Keeper, what: Forgetting, now: datetime = NOW) -> Erased:
    total = Erased()
    async for erased in store.forget(what, lambda: now):
        total += erased
    return total


def living(device: str, user: str) -> Device:
    return Device(kind=Kind.VEHICLE, id=device, user=user, subscription="sub-1", since=NOW, stamp=NOW)


def at_home(building: str, *users: str, version: int = 0) -> Versioned:
    cars = {f"vehicle:car-of-{user}": living(f"car-of-{user}", user) for user in users}
    return Versioned(state=Building(id=building, created=True, users=users, devices=cars), version=version)


# ---- whose is it ----------------------------------------------------------------------------------------------------


async def test_what_the_worker_has_read_has_an_owner_and_the_rest_has_none(store: Keeper) -> None:
    await store.accept([arrival(b"%d" % number) for number in range(1, 7)])
    await store.accept([stillborn(), stillborn()])
    dead = [(2, DeadReason.FAULT, "…")]
    work = Work(now=NOW, settled=[1, 4], dead=dead, parked=[(3, ME)], users={1: ME, 2: ME, 3: ME, 4: "user-2"})
    await store.commit(work)
    await store.discard([letter.id for letter in await store.dead_letters(DeadFilter()) if letter.message_id == 8], NOW)

    unowned = {message.id async for message in store.unowned()}
    assert ({1, 2, 3}, {5, 6, 7, 8}) == (await ids_of(store, ME), unowned)


async def ids_of(store: Keeper, user: str) -> set[int]:
    return {number async for page in store.owned(user) for number in page}


async def test_the_buildings_of_a_user_are_found_by_rows_devices_and_state(store: Keeper) -> None:
    row = Residence(user=ME, location="l", building="by-row")
    await store.write_residences([row, Residence(user="user-2", location=None, building="another")])
    homes = {
        own(Kind.METER, "m"): Home(building="by-home", user=ME),
        own(Kind.METER, "n"): Home(building="x", user="user-2"),
    }
    states = [at_home("by-device", ME), at_home("not", "user-2"), at_home("nor", "user-11")]
    spelled = Versioned(state=Building(id="by-users", users=("raw",)), version=0)
    departed = Versioned(state=Building(id="by-departed", departed=(living("d", ME),)), version=0)
    await store.commit(Work(now=NOW, homes=homes, buildings=[*states, spelled, departed]))

    found = await store.buildings_of(ME, {"raw"})
    assert ["by-departed", "by-device", "by-home", "by-row", "by-users"] == list(found)


# ---- messages -------------------------------------------------------------------------------------------------------


async def test_an_erased_message_leaves_its_count_wherever_it_was(store: Keeper) -> None:
    await store.accept([arrival(b"%d" % number, message_id=f"m-{number}") for number in range(1, 9)])
    await store.accept([stillborn(b"{"), stillborn(b"[")])
    dead = [(2, DeadReason.FAULT, "…"), (8, DeadReason.FAULT, "…")]
    await store.commit(Work(now=NOW, settled=[1, 5], dead=dead, parked=[(3, ME)], users={3: ME}))
    letters = {letter.message_id: letter.id for letter in await store.dead_letters(DeadFilter())}
    await store.retry([letters[8]], NOW)
    await store.discard([letters[10]], NOW)

    erased = await forgotten(store, Forgetting(messages=[1, 2, 3, 4, 8, 9, 10, 99]))
    census = await store.census()
    counts = (census.settled, census.pending, census.parked, census.dead, census.discarded, census.erased)
    assert (7, (1, 2, 0, 0, 0, 7)) == (erased.messages, counts)
    assert {} == dict(census.dead_letters)
    assert [6, 7] == [message.id for message in (await store.claim(10))[0]]
    assert [5, 6, 7] == [message.id async for message in store.raw(None, None)]
    assert None is await store.trip(1)
    assert [] == await store.verify()


async def test_the_rest_goes_on_after_what_was_erased(store: Keeper, reopened: Reopened) -> None:
    await store.accept([arrival(b"%d" % number) for number in range(1, 6)])
    await forgotten(store, Forgetting(messages=[1, 4, 5]))
    await store.commit(Work(now=NOW, settled=[2]))
    await store.accept([arrival(b"6")])
    assert [3, 6] == [message.id for message in (await store.claim(10))[0]]
    await store.commit(Work(now=NOW, settled=[3, 6]))
    store = await reopened(store)
    assert [] == list((await store.claim(10))[0])
    assert (3, 3) == ((await store.census()).settled, (await store.census()).erased)
    assert [] == await store.verify()


async def test_what_knew_a_repeat_is_gone_with_the_message(store: Keeper) -> None:
    await store.accept([arrival(b"a", message_id="m-1")])
    await forgotten(store, Forgetting(messages=[1]))
    assert not (await store.accept([arrival(b"a", message_id="m-1")]))[0].duplicate


@pytest.mark.parametrize(
    "fate",
    [
        Work(now=NOW, settled=[1, 2]),
        Work(now=NOW, settled=[2], dead=[(1, DeadReason.FAULT, "")]),
        Work(now=NOW, settled=[2], parked=[(1, ME)]),
    ],
    ids=["settled", "dead", "parked"],
)
async def test_a_step_that_rests_on_an_erased_message_writes_nothing(store: Keeper, fate: Work) -> None:
    await store.accept([arrival(b"1"), arrival(b"2")])
    await store.claim(10)
    await forgotten(store, Forgetting(messages=[1]))
    step = dataclasses.replace(
        fate,
        buildings=[house("home")],
        calls=out(events("home", 1.0)),
        users={1: ME},
        homes={own(Kind.METER, "m"): Home(building="home", user=ME)},
    )
    with pytest.raises(Outdated):
        await store.commit(step)
    assert (0, 1, 1) == ((await store.census()).queued, (await store.census()).pending, (await store.census()).erased)
    assert None is await store.building("home")
    assert {} == dict(await store.homes_of(ME))
    assert set() == await ids_of(store, ME)


# ---- the user itself ------------------------------------------------------------------------------------------------


async def test_the_rows_of_a_user_go_and_those_of_others_stay(store: Keeper) -> None:
    await store.accept([arrival(), arrival()])
    await store.commit(Work(now=NOW, settled=[1, 2], users={1: ME, 2: "user-2"}))
    await store.write_residences([Residence(user=user, location=None, building=f"b-{user}") for user in (ME, "user-2")])
    homes = {own(Kind.METER, user): Home(building="b", user=user) for user in (ME, "user-2")}
    await store.commit(Work(now=NOW, homes=homes))

    await forgotten(store, Forgetting(user=ME))
    assert ["user-2"] == [row.user for row in await store.residences()]
    assert ["user-2"] == list((await store.claim(1))[1]), "nobody is told of a change"
    assert ({}, 1) == (dict(await store.homes_of(ME)), len(await store.homes_of("user-2")))
    assert set() == await ids_of(store, ME)
    assert {2} == await ids_of(store, "user-2")


# ---- a building of its own ------------------------------------------------------------------------------------------


async def test_a_building_goes_as_a_whole(store: Keeper) -> None:
    home = {own(Kind.METER, "m"): Home(building="home", user="user-9")}
    states = [house("home", flags=("odd",)), house("next", flags=("odd",))]
    queued = out(create("home"), devices("home", "car"), events("home", 1.0, 2.0, 3.0))
    due = {"home": NOW, "next": NOW}
    tick = Tick(now=NOW)
    await store.commit(Work(now=NOW, buildings=states, calls=queued, homes=home, due=due, tick=tick))
    [first] = await store.lease(NOW, 1, 10, HOLD)
    await store.commit(Work(now=NOW, calls=out(events("next", 9.0))))
    sent = [Settlement(call_id=first.calls[0].id, delivered=1), Settlement(call_id=first.calls[1].id, buried=burial())]
    bad = Settlement(call_id=first.calls[2].id, delivered=1, attempt=said())
    await store.settle(
        NOW, [*sent, bad], [Begin(call_id=first.calls[2].id, doubt=Doubt(payload=b"x", historical=False, count=1))], []
    )

    erased = await forgotten(store, Forgetting(building="home"))
    census = await store.census()
    assert (3, 1, 1) == (erased.calls, erased.letters, erased.rows)
    assert (6, 2, 1, 0, 3) == (
        census.queued, census.delivered, census.calls_pending, census.calls_dead, census.calls_discarded,
    )  # fmt: skip
    assert ({}, {"odd": 1}) == (dict(census.dead_letters), dict(census.flags))
    assert (None, {}, [], []) == (
        await store.building("home"), dict(await store.homes_of("user-9")), list(await store.ticks("home")),
        list(await store.event_calls("home")),
    )  # fmt: skip
    assert ["next"] == list((await store.due(NOW, 9))[1])
    assert ["next"] == [lane.building for lane in await store.lease(NOW + 2 * HOLD, 9, 9, HOLD)]
    assert 1 == len(await store.ticks("next"))
    assert [] == await store.verify()


async def test_a_building_with_many_calls_goes_in_steps(store: Keeper) -> None:
    for _ in range(5):
        await store.commit(Work(now=NOW, calls=out(*(events("home", 1.0, 2.0) for _ in range(50)))))
    assert 250 == (await forgotten(store, Forgetting(building="home"))).calls
    assert (500, 500) == ((await store.census()).queued, (await store.census()).calls_discarded)


async def test_a_sender_learns_that_its_calls_are_gone(store: Keeper) -> None:
    await store.commit(Work(now=NOW, calls=out(events("home", 1.0), events("home", 2.0), events("next", 3.0))))
    lanes = {lane.building: lane for lane in await store.lease(NOW, 2, 9, HOLD)}
    first, second = (call.id for call in lanes["home"].calls)
    third = lanes["next"].calls[0].id
    doubt = Doubt(payload=b"x", historical=False, count=1)
    assert [] == list(await store.settle(NOW, [], [Begin(call_id=first, doubt=doubt)], []))
    await forgotten(store, Forgetting(building="home"))

    settled = [Settlement(call_id=first, delivered=1, attempt=said()), Settlement(call_id=third, delivered=1)]
    returned = [Return(building=name, at=NOW) for name in lanes]
    gone = await store.settle(NOW, settled, [Begin(call_id=second, doubt=doubt)], returned)
    assert {first, second} == set(gone)
    assert (1, 2) == ((await store.census()).delivered, (await store.census()).calls_discarded)
    assert [] == list(await store.lease(NOW + SECOND, 9, 9, HOLD))


async def test_no_version_is_used_twice_for_a_building(store: Keeper) -> None:
    await store.commit(Work(now=NOW, buildings=[house("home")]))
    old = await store.building("home")
    assert old is not None
    await forgotten(store, Forgetting(building="home"))
    assert ["home"] == list(await store.commit(Work(now=NOW, buildings=[house("home", old.version)])))
    assert [] == list(await store.commit(Work(now=NOW, buildings=[house("home")])))
    fresh = await store.building("home")
    assert fresh is not None
    assert fresh.version != old.version
    assert ["home"] == list(await store.commit(Work(now=NOW, buildings=[house("home", old.version)])))
    assert [] == list(await store.commit(Work(now=NOW, buildings=[house("home", fresh.version)])))


# ---- a building of others -------------------------------------------------------------------------------------------

WHAT = Redaction(devices=frozenset({"mine"}), users=frozenset({ME}))


def both(building: str, *values: tuple[str, float]) -> SendEvents:
    made = (dataclasses.replace(event(value), device=device) for device, value in values)
    return SendEvents(building=building, events=tuple(made))


def lists(building: str, *names: str) -> PutDevices:
    entries = tuple(DeviceEntry(id=name, type=DeviceType.CAR, name=name) for name in names)
    return PutDevices(building=building, devices=entries)


def values(calls: object) -> list[list[float]]:
    return [[each.value for each in owed.call.events] for owed in calls if isinstance(owed.call, SendEvents)]  # type: ignore[attr-defined]


async def test_of_a_shared_building_only_what_names_the_user_goes(store: Keeper) -> None:
    made = CreateBuilding(building="home", attributes={"userIds": [ME, "user-2"], "zip": "1"})
    mixed = both("home", ("mine", 1.0), ("theirs", 2.0), ("mine", 3.0), ("theirs", 4.0))
    queued = out(
        made, change("home", city="Bern"), lists("home", "mine", "theirs"), mixed, both("home", ("mine", 5.0)),
        both("home", ("theirs", 6.0)), both("next", ("mine", 7.0)),
    )  # fmt: skip
    await store.commit(Work(now=NOW, buildings=[house("home")], calls=queued))

    await forgotten(store, Forgetting(building="home", redaction=WHAT))
    census = await store.census()
    assert (10, 7, 3) == (census.queued, census.calls_pending, census.calls_discarded)
    lanes = {lane.building: lane for lane in await store.lease(NOW, 9, 9, HOLD)}
    first, second, third, *rest = lanes["home"].calls
    assert isinstance(first.call, CreateBuilding)
    assert {"userIds": ["user-2"], "zip": "1"} == first.call.attributes
    assert (change("home", city="Bern"), lists("home", "theirs")) == (second.call, third.call)
    assert [[2.0, 4.0], [6.0]] == values(rest)
    assert [[7.0]] == values(lanes["next"].calls)
    assert lists("home", "theirs") in lanes["home"].sheet
    assert None is not await store.building("home")
    assert [] == await store.verify()


async def test_copies_of_a_shared_state_go_and_its_ticks_stay(store: Keeper) -> None:
    tick, names = Tick(now=NOW), ["home", "next"]
    states = [at_home(name, ME, "user-2") for name in names]
    await store.commit(Work(now=NOW, buildings=states, tick=tick, copied=names))
    await forgotten(store, Forgetting(building="home", redaction=WHAT))
    assert [None] == [one.state for one in await store.ticks("home")]
    assert [states[1].state] == [one.state for one in await store.ticks("next")]
    await forgotten(store, Forgetting(building="next"))
    assert [] == list(await store.ticks("next"))


async def test_a_call_of_a_shared_building_keeps_its_place_and_what_is_done(store: Keeper) -> None:
    mixed = both("home", ("mine", 1.0), ("theirs", 2.0), ("mine", 3.0), ("theirs", 4.0), ("theirs", 5.0))
    await store.commit(Work(now=NOW, calls=out(mixed)))
    [lane] = await store.lease(NOW, 1, 9, HOLD)
    number = lane.calls[0].id
    payload = b'[{"deviceId":"mine","value":3.0},{"deviceId":"theirs","value":4.0}]'
    doubt = Doubt(payload=payload, historical=True, count=2)
    await store.settle(
        NOW, [Settlement(call_id=number, delivered=2, attempt=said())], [Begin(call_id=number, doubt=doubt)], []
    )
    await store.settle(
        NOW, [Settlement(call_id=number, attempt=said(), failed=True, lost=True)], [], [Return(building="home", at=NOW)]
    )

    await forgotten(store, Forgetting(building="home", redaction=WHAT))
    [lane] = await store.lease(NOW, 1, 9, HOLD)
    [owed] = lane.calls
    assert (number, 1, [[4.0, 5.0]]) == (owed.id, owed.done, values([owed]))
    assert Doubt(payload=b'[{"deviceId":"theirs","value":4.0}]', historical=True, count=1) == owed.doubt
    await store.settle(NOW, [Settlement(call_id=number, delivered=2)], [], [])
    census = await store.census()
    assert (5, 4, 0, 1) == (census.queued, census.delivered, census.calls_pending, census.calls_discarded)
    assert [] == await store.verify()


async def test_dead_letters_of_a_shared_building_lose_what_names_the_user(store: Keeper) -> None:
    queued = out(both("home", ("mine", 1.0), ("theirs", 2.0)), lists("home", "mine", "theirs"))
    await store.commit(Work(now=NOW, calls=queued))
    [lane] = await store.lease(NOW, 1, 9, HOLD)
    dead = [Settlement(call_id=call.id, buried=burial(), bury_all=True) for call in lane.calls]
    await store.settle(NOW, dead, [], [])

    await forgotten(store, Forgetting(building="home", redaction=WHAT))
    letters = await store.dead_letters(DeadFilter())
    assert 2 == len(letters)
    assert not any(b"mine" in letter.body for letter in letters)
    census = await store.census()
    assert (2, 1, {"rejected": 2}) == (census.calls_dead, census.calls_discarded, dict(census.dead_letters))
    await store.retry([letter.id for letter in letters], NOW)
    assert 2 == (await store.census()).calls_pending
    assert [] == await store.verify()


async def test_nothing_is_cut_out_of_a_call_that_is_lent(store: Keeper) -> None:
    """A sender counts from the front of what it was lent: what it says of it later must mean the same."""
    now = datetime.now(UTC)
    await store.commit(Work(now=now, calls=out(both("home", ("mine", 1.0), ("theirs", 2.0)))))
    [lane] = await store.lease(now, 1, 9, HOLD)
    asked = 0

    def clock() -> datetime:
        nonlocal asked
        asked += 1
        return now if asked < 3 else now + HOLD + timedelta(seconds=1)

    async for _ in store.forget(Forgetting(building="home", redaction=WHAT), clock):
        [call] = await store.event_calls("home")
        assert isinstance(call.call, SendEvents)
        assert (2 if asked < 3 else 1) == len(call.call.events)
    assert asked >= 3
    assert lane.calls
