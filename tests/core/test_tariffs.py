"""Dynamic tariffs (M6): slices from price messages, what replaces what, currency, several tariffs."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.core.effects import ChangeBuilding, CreateBuilding, Effect
from bridge.core.model import Residence, Slice
from bridge.core.tariffs import entries_of, merge
from tests.core.house import House, at, body, calls, iso, listed, prices

SINGLE = {"type": "SINGLE", "minPrice": "0.31", "maxPrice": "0.31", "currency": "EUR"}


def tariff(clock: str = "08:00", **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever JSON holds
    """Return a tariff in EUR whose static data has a time."""
    static = {"lastUpdated": iso(clock), **changes.pop("staticData", {})}
    return body("tariff", staticData=static, **changes)


def sent(effects: tuple[Effect, ...]) -> list[Any]:
    """Return each tariff that is sent; None = it is removed."""
    return [effect.tariff for effect in effects if isinstance(effect, ChangeBuilding) and effect.tariff_set]


def slices(effects: tuple[Effect, ...]) -> list[tuple[str, str, str]]:
    """Return (price, from, to) of the last dynamic tariff that is sent."""
    found = sent(effects)[-1]["dynamic"]["tariffs"]
    clock = [(each["price"], each["from"], each["to"]) for each in found]
    return [(price, time_of(start), time_of(end)) for price, start, end in clock]


def time_of(epoch_s: int) -> str:
    """Return the time of day of an instant."""
    return f"{datetime.fromtimestamp(epoch_s, UTC):%H:%M}"


def told() -> House:
    """Return a building that knows its tariff's currency."""
    house = House()
    house.hear("tariff.connect", tariff())
    return house


# ---- one message (M6.1) ----------------------------------------------------------------------------------------------


def test_prices_leave_as_a_dynamic_tariff() -> None:
    effects = told().hear("tariff.price.update", prices(("12:00", 0.3104), ("13:00", -0.05), ("14:00", 0.2)))
    noon = int(at("12:00").timestamp())
    expected = {
        "type": "DYNAMIC",
        "minPrice": "-0.0500",
        "maxPrice": "0.3104",
        "currency": "EUR",
        "dynamic": {
            "tariffs": [
                {"price": "0.3104", "from": noon, "to": noon + 3600},
                {"price": "-0.0500", "from": noon + 3600, "to": noon + 7200},
                {"price": "0.2000", "from": noon + 7200, "to": noon + 10800},
            ]
        },
    }
    assert [expected] == sent(effects)
    (change,) = calls(effects)
    assert isinstance(change, ChangeBuilding)
    assert {} == change.attributes
    assert {"countryCode": "DE", "timeZoneId": "Europe/Berlin", "userIds": ["user-1"]} == change.create


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (0.32, "0.3200"), (0.00005, "0.0001"), (0.00004999, "0.0000"), (-0.00004, "0.0000"), (0, "0.0000"),
        (-0.00005, "-0.0001"), (12, "12.0000"), ("0.2867", "0.2867"), (0.12345, "0.1235"), (999_999.99, "999999.9900"),
    ],
)  # fmt: skip
def test_a_price_has_four_places_rounded_half_up(raw: object, text: str) -> None:
    assert [(text, "12:00", "13:00")] == slices(told().hear("tariff.price.update", prices(("12:00", raw))))


@pytest.mark.parametrize("raw", [None, "null", float("nan"), float("inf"), 1e6, -1e300, {}, True])
def test_what_is_no_price_only_ends_its_predecessor(raw: object) -> None:
    effects = told().hear("tariff.price.update", prices(("12:00", 0.3), ("12:30", raw), ("14:00", 0.2)))
    assert [("0.3000", "12:00", "12:30"), ("0.2000", "14:00", "14:30")] == slices(effects)


def test_the_last_slice_is_as_long_as_the_smallest_step_and_an_hour_if_alone() -> None:
    assert [("0.1000", "12:00", "12:15"), ("0.2000", "12:15", "14:00"), ("0.3000", "14:00", "14:15")] == slices(
        told().hear("tariff.price.update", prices(("12:00", 0.1), ("12:15", 0.2), ("14:00", 0.3)))
    )
    assert [("0.3000", "12:00", "12:15"), ("0.2000", "12:15", "12:30")] == slices(
        told().hear("tariff.price.update", prices(("12:00", 0.3), ("12:15", 0.2)))
    )
    assert [("0.3000", "12:10", "13:10")] == slices(told().hear("tariff.price.update", prices(("12:10", 0.3))))


def test_a_last_entry_without_price_ends_the_one_before_and_nothing_else() -> None:
    effects = told().hear("tariff.price.update", prices(("12:00", 0.3), ("12:20", None)))
    assert [("0.3000", "12:00", "12:20")] == slices(effects)


def test_entries_are_sorted_and_of_equal_starts_the_last_counts() -> None:
    content = prices(("14:00", 0.4), ("12:00", 0.3), ("13:00", 0.9), ("13:00", 0.2))
    content["prices"][3]["startDate"] = "2026-06-15T13:00:00.999Z"  # the same second
    assert [("0.3000", "12:00", "13:00"), ("0.2000", "13:00", "14:00"), ("0.4000", "14:00", "15:00")] == slices(
        told().hear("tariff.price.update", content)
    )


@pytest.mark.parametrize("nothing", [None, [], [{"totalPrice": 0.3}]])
def test_a_message_without_prices_changes_nothing(nothing: object) -> None:
    house = told()
    house.hear("tariff.price.update", prices(("12:00", 0.3)))
    before = house.state.prices
    assert () == calls(house.hear("tariff.price.update", prices(prices=nothing)))
    assert before == house.state.prices


# ---- several messages (M6.1, M6.2) -----------------------------------------------------------------------------------


def test_a_message_replaces_what_is_stored_in_its_span_and_cuts_what_overlaps() -> None:
    house = told()
    house.hear("tariff.price.update", prices(("12:00", 0.1), ("14:00", 0.2), ("16:00", 0.3)))
    effects = house.hear("tariff.price.update", prices(("13:00", 0.8), ("15:00", 0.9), ("17:00", None)))
    expected = [
        ("0.1000", "12:00", "13:00"),
        ("0.8000", "13:00", "15:00"),
        ("0.9000", "15:00", "17:00"),
        ("0.3000", "17:00", "18:00"),
    ]
    assert expected == slices(effects)


def test_a_message_in_the_middle_of_a_slice_leaves_both_ends_of_it() -> None:
    house = told()
    house.hear("tariff.price.update", prices(("12:00", 0.1), ("16:00", None)))
    effects = house.hear("tariff.price.update", prices(("13:00", 0.2), ("14:00", None)))
    expected = [("0.1000", "12:00", "13:00"), ("0.2000", "13:00", "14:00"), ("0.1000", "14:00", "16:00")]
    assert expected == slices(effects)


def test_slices_that_have_ended_are_dropped() -> None:
    house = told()
    house.hear("tariff.price.update", prices(("09:00", 0.1), ("10:00", 0.2), ("11:00", 0.3)), received="09:00")
    effects = house.hear("tariff.price.update", prices(("12:00", 0.4)), received="11:00")
    assert [("0.3000", "11:00", "12:00"), ("0.4000", "12:00", "13:00")] == slices(effects)


def test_nothing_leaves_when_no_future_slice_changed() -> None:
    house = told()
    house.hear("tariff.price.update", prices(("12:00", 0.3), ("13:00", 0.2)), received="11:00")
    again = house.hear("tariff.price.update", prices(("12:00", 0.3), ("13:00", 0.2)), received="11:30")
    past = house.hear("tariff.price.update", prices(("10:00", 0.9), ("11:00", None)), received="11:30")
    assert () == calls((*again, *past))


@settings(deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 200), st.none() | st.decimals(-1, 1, places=2)), max_size=6), max_size=5)
)
def test_stored_slices_never_overlap_and_are_what_the_last_message_says_in_its_span(
    messages: list[list[tuple[int, Decimal | None]]],
) -> None:
    start = at("12:00")
    stored: tuple[Slice, ...] = ()
    for message in messages:
        entries = [(start + timedelta(minutes=minute), price) for minute, price in message]
        before, stored = stored, merge(stored, entries, start)
        said = dict(entries)
        assert all(one.end <= other.start for one, other in pairwise(stored))
        assert all(piece.start < piece.end and piece.end > start for piece in stored)
        if said and list(said.values()) != [None]:
            first, last = min(said), max(said)
            wanted = {at: price for at, price in said.items() if price is not None}
            assert wanted == {piece.start: piece.price for piece in stored if first <= piece.start < last} | {
                piece.start: piece.price for piece in stored if piece.start == last and said[last] is not None
            }
            starts = {old.start: (old.price, old.end) for old in before if old.start > last}
            assert starts.items() <= {piece.start: (piece.price, piece.end) for piece in stored}.items()
            for old in before:
                if old.start < first:
                    assert old._replace(end=min(old.end, first)) in stored
        else:
            assert before == stored
    assert stored == merge((), entries_of(stored), start)


# ---- the length that nobody sent (M6.1) ------------------------------------------------------------------------------


def shown(effects: tuple[Effect, ...]) -> dict[str, str]:
    """Return the price at each start of the last dynamic tariff that is sent."""
    return {start: price for price, start, _ in slices(effects)}


def test_a_list_with_a_gap_leaves_tomorrow_alone() -> None:
    house = told()
    today = [(f"{hour}:00", hour / 100) for hour in range(12, 20)]
    later = [(f"{hour}:00", hour / 10) for hour in range(20, 24)]
    house.hear("tariff.price.update", prices(*today))
    house.hear("tariff.price.update", prices(*later))
    gap = [(clock, price + 1) for clock, price in today if clock not in ("17:00", "18:00")]
    effects = house.hear("tariff.price.update", prices(*gap))
    assert ("1.1900", "19:00", "20:00") in slices(effects)
    assert ("1.1600", "16:00", "19:00") in slices(effects)
    assert {"20:00": "2.0000", "21:00": "2.1000", "23:00": "2.3000"}.items() <= shown(effects).items()


def test_a_corrected_quarter_hour_alone_is_a_quarter_hour() -> None:
    house = told()
    house.hear("tariff.price.update", prices(*((f"14:{minute:02}", 0.3) for minute in range(0, 60, 15))))
    effects = house.hear("tariff.price.update", prices(("14:00", 0.99)))
    assert [("0.9900", "14:00", "14:15"), ("0.3000", "14:15", "14:30")] == slices(effects)[:2]
    effects = house.hear("tariff.price.update", prices(("15:00", 0.5)))
    assert ("0.5000", "15:00", "15:15") == slices(effects)[-1]


def test_one_that_is_alone_ends_where_a_stored_slice_starts_and_leaves_the_rest_of_what_it_cuts() -> None:
    house = told()
    house.hear("tariff.price.update", prices(("13:00", 0.1), ("14:00", 0.2), ("15:00", 0.3)))
    effects = house.hear("tariff.price.update", prices(("13:30", 0.9)))
    assert [("0.1000", "13:00", "13:30"), ("0.9000", "13:30", "14:00"), ("0.2000", "14:00", "15:00")] == (
        slices(effects)[:3]
    )
    effects = house.hear("tariff.price.update", prices(("13:50", 0.7), ("14:00", 0.8)))
    assert [("0.7000", "13:50", "14:00"), ("0.8000", "14:00", "14:10"), ("0.2000", "14:10", "15:00")] == (
        slices(effects)[2:5]
    )


def test_an_entry_without_a_price_alone_changes_nothing() -> None:
    house = told()
    house.hear("tariff.price.update", prices(("13:00", 0.1), ("15:00", None)))
    assert () == calls(house.hear("tariff.price.update", prices(("14:00", None))))


# ---- currency (M6.2) -------------------------------------------------------------------------------------------------


def test_a_price_that_comes_first_waits_for_its_currency() -> None:
    house = House()
    first = house.hear("tariff.price.update", prices(("13:00", 0.3)))
    assert [CreateBuilding] == [type(effect) for effect in first if isinstance(effect, CreateBuilding)]
    assert [["gateway:user-1"]] == listed(first)
    assert [] == sent(first)
    assert [("0.3000", "13:00", "14:00")] == slices(house.hear("tariff.update", tariff()))


def test_a_new_currency_drops_the_stored_slices() -> None:
    house = told()
    house.hear("tariff.price.update", prices(("13:00", 0.3)))
    assert [None] == sent(house.hear("tariff.update", tariff("09:00", staticData={"currency": "CHF"})))
    effects = house.hear("tariff.price.update", prices(("14:00", 0.3)))
    assert [("0.3000", "14:00", "15:00")] == slices(effects)
    assert "CHF" == sent(effects)[0]["currency"]


def test_a_new_currency_takes_prices_away_that_have_ended_meanwhile() -> None:
    """What MOOST was told last is in a currency that is gone, whether it still lies ahead or not."""
    house = told()
    house.hear("tariff.price.update", prices(("13:00", 0.3)))
    gone = house.hear("tariff.update", tariff("15:00", staticData={"currency": "CHF"}), received="15:00")
    assert [None] == sent(gone)
    assert () == calls(house.hear("tariff.update", tariff("16:00", staticData={"currency": "SEK"}), received="16:00"))


def test_a_new_currency_leaves_the_tariff_to_another_one_until_its_prices_come() -> None:
    house = two()
    effects = house.hear("tariff.update", tariff("10:00", id="t-2", staticData={"currency": "CHF"}))
    assert [("0.1000", "13:00", "14:00")] == slices(effects)
    effects = house.hear("tariff.price.update", prices(("13:00", 0.4), id="t-2"))
    assert ("CHF", "0.4000") == (sent(effects)[0]["currency"], sent(effects)[0]["minPrice"])


def test_a_deleted_tariff_whose_prices_have_ended_leaves_nothing_behind() -> None:
    house = told()
    house.hear("tariff.price.update", prices(("13:00", 0.3)))
    assert [None] == sent(house.hear("tariff.delete", tariff("15:00"), received="15:00"))


def test_on_the_delete_of_one_whose_prices_have_ended_the_other_one_is_told() -> None:
    house = two()
    house.hear("tariff.price.update", prices(("20:00", 0.5), id="t-1"), received="13:30")
    assert [("0.5000", "20:00", "21:00")] == slices(
        house.hear("tariff.delete", tariff("15:00", id="t-2"), received="15:00")
    )


def test_prices_that_lie_behind_change_nothing_at_moost() -> None:
    house = told()
    house.hear("tariff.price.update", prices(("13:00", 0.3)))
    assert () == calls(house.hear("tariff.price.update", prices(("13:00", 0.5)), received="15:00"))


def test_the_same_or_an_older_currency_drops_nothing() -> None:
    house = told()
    house.hear("tariff.price.update", prices(("13:00", 0.3)))
    assert () == calls(house.hear("tariff.update", tariff("09:00", staticData={"currency": "eur"})))
    assert () == calls(house.hear("tariff.update", tariff("07:00", staticData={"currency": "CHF"})))


# ---- several tariffs, delete (M6.3) ----------------------------------------------------------------------------------


def two(first: str = "08:00", second: str = "09:00") -> House:
    """Return a building with two tariffs, t-1 at 0.1 and t-2 at 0.2."""
    house = House()
    for name, clock, price in (("t-1", first, 0.1), ("t-2", second, 0.2)):
        house.hear("tariff.update", tariff(clock, id=name))
        house.hear("tariff.price.update", prices(("13:00", price), id=name))
    return house


@pytest.mark.parametrize(("first", "second", "price"), [("08:00", "09:00", "0.2000"), ("09:00", "08:00", "0.1000"),
                                                        ("09:00", "09:00", "0.1000")])  # fmt: skip
def test_of_several_tariffs_the_newest_counts_and_of_equals_the_smaller_id(first: str, second: str, price: str) -> None:
    house = two(first, second)
    assert price == sent(tuple(house.effects))[-1]["minPrice"]


def test_of_equals_the_smaller_id_counts_whichever_was_heard_of_first() -> None:
    house = House()
    for name, price in (("t-2", 0.2), ("t-1", 0.1)):
        house.hear("tariff.update", tariff(id=name))
        house.hear("tariff.price.update", prices(("13:00", price), id=name))
    assert "0.1000" == sent(tuple(house.effects))[-1]["minPrice"]


def test_on_its_delete_the_next_one_counts_and_then_none() -> None:
    house = two()
    gone = tariff("10:00", id="t-2")
    assert [("0.1000", "13:00", "14:00")] == slices(house.hear("tariff.delete", gone))
    assert () == calls(house.hear("tariff.delete", gone))
    assert [None] == sent(house.hear("tariff.delete", tariff("10:00", id="t-1")))


def test_after_the_last_dynamic_tariff_the_directory_s_own_counts_again() -> None:
    row = Residence(user="user-1", location=None, building="user-1", attributes={"tariff": SINGLE})
    house = House(residence=row)
    first = house.hear("tariff.connect", tariff())
    assert [{"tariff": SINGLE}] == [e.attributes["settings"] for e in first if isinstance(e, CreateBuilding)]
    house.hear("tariff.price.update", prices(("13:00", 0.3)))
    assert [SINGLE] == sent(house.hear("tariff.delete", tariff("10:00")))


def test_the_prices_of_a_tariff_that_does_not_count_send_nothing() -> None:
    house = two()
    assert () == calls(house.hear("tariff.price.update", prices(("14:00", 0.5), id="t-1")))


@pytest.mark.parametrize("action", ["disconnect", "offline"])
def test_disconnect_and_offline_send_nothing(action: str) -> None:
    house = two()
    assert () == calls(house.hear(f"tariff.{action}", tariff("10:00", id="t-2", isOnline=False)))


def test_a_tariff_that_came_back_has_no_prices_until_it_says_so() -> None:
    house = told()
    house.hear("tariff.price.update", prices(("13:00", 0.3)))
    house.hear("tariff.delete", tariff("10:00"))
    assert () == calls(house.hear("tariff.connect", tariff("11:00")))
    assert [("0.4000", "13:00", "14:00")] == slices(house.hear("tariff.price.update", prices(("13:00", 0.4))))


def test_prices_that_wait_leave_with_the_building_that_they_create() -> None:
    house = House()
    assert () == calls(house.hear("tariff.offline", tariff(isOnline=False)))
    effects = house.hear("tariff.price.update", prices(("13:00", 0.3)))
    assert [CreateBuilding, "PutDevices", ChangeBuilding] == [
        "PutDevices" if type(effect).__name__ == "PutDevices" else type(effect) for effect in effects
    ]
    assert [("0.3000", "13:00", "14:00")] == slices(effects)
