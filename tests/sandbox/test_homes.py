"""The simulated homes: repeatable, complete, and their messages say exactly what the truth says."""

import io
import itertools
import json
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bridge.core.vocabulary import ACTIONS, Action, Kind
from bridge.sandbox import cloud, quirks
from bridge.sandbox.delivery import asked_wait
from bridge.sandbox.sky import HOUR_MS, roof_irradiance

JUNE = int(datetime(2026, 6, 15, tzinfo=UTC).timestamp() * 1000)
WINTER = int(datetime(2026, 1, 7, tzinfo=UTC).timestamp() * 1000)
DAY = 24 * HOUR_MS
Slot = tuple[str, str, str, int]


def day(homes: int, *, seed: int = 1, start: int = JUNE, span: int = DAY) -> list[cloud.Post]:
    return list(cloud.posts(homes, seed=seed, start=start, end=start + span))


def stamp(text: str) -> int:
    at = datetime.fromisoformat(text)
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def times(value: object) -> list[str]:
    """Return every lastUpdated in a body."""
    if not isinstance(value, dict):
        return []
    own = [value["lastUpdated"]] if isinstance(value.get("lastUpdated"), str) else []
    return own + [one for part in value.values() for one in times(part)]


def truth(homes: int, *, seed: int = 1, start: int = JUNE, span: int = DAY) -> dict[Slot, dict[str, Any]]:
    file = io.StringIO()
    for _ in cloud.posts(homes, seed=seed, start=start, end=start + span, truth=file):
        pass
    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    found = {(one["user"], one["device"], one["type"], one["slot_start"]): one for one in lines}
    assert len(lines) == len(found)
    return found


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    assert day(3) == day(3)
    assert {post.body for post in day(3)}.isdisjoint(post.body for post in day(3, seed=2))


def test_more_homes_do_not_change_what_a_home_says() -> None:
    few, many = day(2), day(5)
    users = {post.user for post in few}
    assert few == [post for post in many if post.user in users]


def test_a_home_may_have_nothing_at_all() -> None:
    made = [list(cloud.homes(200, seed=seed, start=JUNE, end=JUNE + DAY)) for seed in range(1, 8)]
    assert {0, 1} <= {len(home._it.devices) for street in made for home in street}


@pytest.mark.parametrize("span", [HOUR_MS // 10, DAY])
def test_all_kinds_and_all_actions_occur_and_only_topics_that_exist(span: int) -> None:
    topics = {tuple(post.topic.split(".", 1)) for post in day(8, span=span)}
    assert set(Kind) == {kind for kind, _ in topics}
    assert set(Action) == {action for _, action in topics}
    assert topics <= {(str(kind), str(action)) for kind, actions in ACTIONS.items() for action in actions}


def test_messages_leave_in_order_never_before_what_they_tell_and_never_after_the_span() -> None:
    posts = day(6)
    assert sorted(post.due for post in posts) == [post.due for post in posts]
    for post in posts:
        assert post.due <= JUNE + DAY
        assert all(stamp(text) <= post.due + 2_125 for text in times(json.loads(post.body)))


def test_arrival_is_out_of_order_and_some_messages_come_twice() -> None:
    posts = day(6)
    ids = Counter(post.id for post in posts)
    told = [stamp(body["lastUpdated"]) for post in posts if (body := json.loads(post.body)).get("lastUpdated")]
    assert any(later < earlier for earlier, later in itertools.pairwise(told))
    assert {1, 2} == set(ids.values())
    assert len({(post.id, post.body) for post in posts}) == len(ids)


def test_messages_without_network_name_the_subscription_and_come_once() -> None:
    made = list(cloud.messages(2, seed=1, start=JUNE, end=JUNE + HOUR_MS, subscription="acme"))
    assert all(topic.startswith("acme.") for topic, _ in made)
    assert all(isinstance(json.loads(body), dict) for _, body in made)
    assert len(made) == len({post.id for post in day(2, span=HOUR_MS)})


def test_a_device_speaks_only_when_something_changed() -> None:
    states: dict[tuple[str, str], dict[int, Any]] = defaultdict(dict)
    for post in day(4):
        kind, action = post.topic.split(".", 1)
        if action == "update" and kind in {"meter", "battery", "charger", "pv-inverter"}:
            body = json.loads(post.body)
            block = body.get("powerState") or body.get("chargeState")
            at = stamp(block.pop("lastUpdated"))
            assert at == stamp(body["lastUpdated"])
            states[kind, body["id"]][at] = {**block, "mode": None, "chargingState": None}
    for device, told in states.items():
        in_order = [told[at] for at in sorted(told)]
        same = sum(earlier == later for earlier, later in itertools.pairwise(in_order))
        assert (device, True) == (device, same <= 4)  # being lost and found again is news too


def test_oddities_of_vendors_occur() -> None:
    bodies = [(post.topic, post.body.decode()) for post in day(30)]
    texts = [text for _, text in bodies]
    assert any('"chargingState":"null"' in text for text in texts)
    assert any('"climateState":null' in text for text in texts)
    assert any("STORM_WATCH" in text for text in texts)
    assert any('"startsAt"' in text for text in texts)
    assert any('"location":"' in text for topic, text in bodies if topic == "charger.update")
    digits = {
        len(one.split("+", maxsplit=1)[0].rstrip("Z").partition(".")[2]) for t in texts for one in times(json.loads(t))
    }
    assert {0, 3, 6, 7, 9} == digits


def test_kinds_share_ids_as_in_the_vendors_examples() -> None:
    kinds = defaultdict(set)
    for post in day(6, span=HOUR_MS):
        kind, action = post.topic.split(".", 1)
        if action == "connect":
            kinds[json.loads(post.body)["id"]].add(kind)
    shared = [one for one in kinds.values() if len(one) > 1]
    assert {"battery", "meter"} in shared
    assert {"hvac", "pv-inverter"} in shared


def test_the_sun_shines_by_day_and_more_in_summer() -> None:
    def hours(day_start: int) -> list[float]:
        return [roof_irradiance(day_start + hour * HOUR_MS) for hour in range(24)]

    assert hours(JUNE)[23] == hours(JUNE)[0] == 0
    assert 900 < max(hours(JUNE)) < 1200
    assert 0 < sum(hours(WINTER)) < sum(hours(JUNE)) / 3


def integrate(posts: list[cloud.Post], user: str) -> dict[Slot, float]:
    """Integrate what a home's messages say, knowing nothing of how they were made [Wh]."""
    changes: list[tuple[int, str, float]] = []
    for post in posts:
        kind, action = post.topic.split(".", 1)
        if post.user != user or action != "update" or kind == "tariff":
            continue
        body = json.loads(post.body)
        for name, field in (("powerState", "power"), ("powerState", "solarPower"), ("chargeState", "chargeRate")):
            if name in body and field in body[name] and body[name]["lastUpdated"]:
                changes.append(
                    (stamp(body[name]["lastUpdated"]), f"{kind}:{body['id']}", 1000 * (body[name][field] or 0))
                )
    now: dict[str, float] = {}
    sums: dict[Slot, float] = defaultdict(float)
    marks = sorted({at for at, _, _ in changes} | set(range(JUNE, JUNE + DAY + 1, 900_000)))
    by_time = defaultdict(list)
    for at, device, watts in changes:
        by_time[at].append((device, watts))
    for begin, end in itertools.pairwise(marks):
        now |= dict(by_time[begin])
        hours, slot = (end - begin) / HOUR_MS, begin // 900_000 * 900
        sun = sum(watts for device, watts in now.items() if device.startswith("pv-"))
        grid = sum(watts for device, watts in now.items() if device.startswith("meter"))
        store = sum(watts for device, watts in now.items() if device.startswith("battery"))
        sums[user, "GATEWAY", "ENERGY_GENERATION", slot] += sun * hours
        sums[user, "GATEWAY", "GRID_ENERGY_CONSUMPTION", slot] += max(grid, 0) * hours
        sums[user, "GATEWAY", "ENERGY_EXCESS", slot // 1800 * 1800] += max(-grid, 0) * hours
        sums[user, "GATEWAY", "ENERGY_CONSUMPTION", slot] += (sun + grid - store) * hours
        for device, watts in now.items():
            if device.startswith("battery"):
                sums[user, device, "ENERGY_IMPORT", slot] += max(watts, 0) * hours
                sums[user, device, "ENERGY_EXPORT", slot] += max(-watts, 0) * hours
            elif device.startswith("charger"):
                sums[user, device, "ENERGY_CONSUMPTION", slot] += watts * hours
    return sums


def test_the_truth_is_the_integral_of_the_messages() -> None:
    # Homes 3, 11, ... lose no device: their messages alone tell everything.
    quiet = {one.user: number for number, one in enumerate(cloud.homes(24, seed=1, start=JUNE, end=JUNE + DAY))}
    posts = day(24)
    sums: dict[str, dict[Slot, float]] = {}
    checked: Counter[str] = Counter()
    for slot, line in truth(24).items():
        user, device, kind, _ = slot
        if quiet[user] % 4 != 3 or quiet[user] % 3 == 1 or device.startswith(("hvac", "vehicle")):
            continue
        if user not in sums:
            sums[user] = integrate(posts, user)
        assert pytest.approx(sums[user][slot], abs=1e-3) == line["value_wh"], slot
        checked[kind] += 1
    assert {
        "ENERGY_GENERATION",
        "GRID_ENERGY_CONSUMPTION",
        "ENERGY_EXCESS",
        "ENERGY_CONSUMPTION",
        "ENERGY_IMPORT",
        "ENERGY_EXPORT",
    } == set(checked)
    assert all(number > 90 for number in checked.values())


def test_the_truth_has_every_slot_of_a_home_that_loses_nothing() -> None:
    lines = truth(8)
    kinds = Counter((user, kind) for user, device, kind, _ in lines if device == "GATEWAY")
    quiet = [one.user for one in cloud.homes(8, seed=1, start=JUNE, end=JUNE + DAY)][3::4]
    for user in quiet:
        assert 95 <= kinds[user, "ENERGY_CONSUMPTION"] <= 96
    assert all(0 < line["known"] <= 1 and line["value_wh"] >= 0 for line in lines.values())
    assert any(line["known"] < 1 for line in lines.values())


def test_before_a_delete_whole_slots_are_not_claimed() -> None:
    """A part of one would be less than a receiver knows, and what that sends would be called wrong."""
    claimed: dict[tuple[str, str], set[int]] = defaultdict(set)
    for user, device, _, slot in truth(24):
        claimed[user, device].add(slot)
    checked = 0
    for post in day(24):
        if post.topic == "hvac.delete":
            body = json.loads(post.body)
            at = stamp(body["lastUpdated"]) // 1000
            slots = claimed[post.user, f"hvac:{body['id']}"]
            first = (at - 3 * 3600) // 900 * 900
            assert set() == slots & set(range(first, at // 900 * 900, 900))
            checked += first - 900 in slots
    assert checked > 3


def test_a_device_that_stays_silent_is_believed_for_its_hold_only() -> None:
    meter = next(cloud.homes(1, seed=1, start=JUNE, end=JUNE + DAY))._it.meter
    assert meter is not None
    meter.decide(700)
    meter.report(JUNE)
    assert JUNE + HOUR_MS == meter.held_until
    meter.decide(0)
    meter.report(JUNE + 1)
    assert JUNE + 1 + DAY == meter.held_until


def test_times_are_written_with_any_number_of_digits_and_stay_the_same_time() -> None:
    for at in (JUNE, JUNE + 50, JUNE + 123):
        for digits in (0, 3, 6, 7, 9):
            assert at == stamp(quirks.text(at, digits))
    assert "2026-06-15T00:00:00Z" == quirks.text(JUNE, 0)
    assert "2026-06-15T00:00:00.050000+00:00" == quirks.text(JUNE + 50, 6, "+00:00")


@pytest.mark.parametrize(
    ("header", "expected"),
    [(None, 0), ("7", 7), ("Thu, 01 Jan 1970 00:01:40 GMT", 90), ("soon", 0), ("-3", 0)],
)
def test_retry_after_is_understood_in_both_forms(header: str | None, expected: float) -> None:
    assert expected == asked_wait(header, 10.0)
