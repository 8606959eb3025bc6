"""The law of arrival (M5.11): the same messages in the same order lead to the same events, whenever they are heard."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.core.effects import Event, PutDevices, SendEvents
from bridge.core.messages import Facts, Message, Quantity, Tick, Tombstone, Unreadable
from bridge.core.model import Building
from bridge.core.reduce import reduce
from bridge.core.rules import Rules
from bridge.core.vocabulary import Action, DeviceType, EventType
from bridge.source.decode import decode
from bridge.source.topics import Topic, parse
from bridge.store.codec import decode_state, encode_state
from tests.arrivals import GRACE_S, QUARTER_S, Sent, end_of, households, kinds_of_settings, moment, told
from tests.core.homes import BATTERY, CAR, CHARGER, METER, PUMP, PV, Home, at

LATER_S: Final = 3 * 3600

EXAMPLES = settings(max_examples=60, deadline=None)


# ---- random households ----------------------------------------------------------------------------------------------


class Street:
    """One user's building in the core alone."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.state = Building(id="user-1", time_zone=rules.default_time_zone)
        self.events: list[Event] = []
        self.number = 0

    def hear(self, sent: Sent, received: datetime) -> None:
        topic = parse(f"sub-1.{sent.topic}")
        assert isinstance(topic, Topic)
        self.number += 1
        body = json.dumps(sent.body).encode()
        message = decode(topic, body, number=self.number, received=received, rules=self.rules)
        assert not isinstance(message, Tombstone | Unreadable)
        self._reduce(message)

    def tick(self, now: datetime, *, catching_up: bool = False) -> None:
        """Let time pass; ticks until nothing more closes, as the clock does."""
        while True:
            open_from = self.state.open_from
            self._reduce(Tick(now=now, catching_up=catching_up))
            if self.state.open_from == open_from:
                return

    def restart(self) -> None:
        self.state = decode_state(encode_state(self.state))

    def _reduce(self, message: Message) -> None:
        self.state, effects = reduce(self.state, message, self.rules)
        self.events += [e for effect in effects if isinstance(effect, SendEvents) for e in effect.events]


def as_it_happens(sent: Sequence[Sent], rules: Rules, *, restarts: bool = False) -> Sequence[object]:
    """Return what leaves a bridge that runs all the time."""
    street = Street(rules)
    ticks = [(second, None) for second in range(QUARTER_S + GRACE_S, end_of(sent) + 1, QUARTER_S)]
    for second, one in sorted([*((one.received, one) for one in sent), *ticks], key=lambda step: step[0]):
        if restarts:
            street.restart()
        if one is None:
            street.tick(moment(second))
        else:
            street.hear(one, moment(second))
    return told(street.events)


def at_once(sent: Sequence[Sent], rules: Rules, looks: frozenset[int] = frozenset()) -> Sequence[object]:
    """Return what leaves a bridge that hears it all hours later, and looks at the clock now and then meanwhile."""
    street = Street(rules)
    begins = sent[-1].received + LATER_S
    for place, one in enumerate(sent):
        if place in looks:
            street.tick(moment(begins + place / 1000))
        street.hear(one, moment(begins + place / 1000))
    street.tick(moment(max(end_of(sent), begins + 100)))
    return told(street.events)


def with_an_outage(sent: Sequence[Sent], rules: Rules, down: int, up: int) -> Sequence[object]:
    """Return what leaves a bridge that is down for a while, and hears of that time afterwards."""
    street = Street(rules)
    times = [down <= one.received < up for one in sent]
    missed = [up + place / 1000 for place in range(sum(times))]
    heard = [(missed.pop(0) if away else one.received, one) for one, away in zip(sent, times, strict=True)]
    ticks = [
        (second, None)
        for second in [*range(QUARTER_S + GRACE_S, end_of(sent) + 1, QUARTER_S), *range(up + 1, up + 900, 60)]
        if not down <= second < up
    ]
    for second, one in sorted([*heard, *ticks], key=lambda step: step[0]):
        if one is None:
            street.tick(moment(second), catching_up=up <= second < up + 600)
        else:
            street.hear(one, moment(second))
    return told(street.events)


@EXAMPLES
@given(households(), kinds_of_settings(), st.frozensets(st.integers(1, 60)))
def test_a_backlog_leads_to_what_would_have_left_live(sent: list[Sent], rules: Rules, looks: frozenset[int]) -> None:
    assert as_it_happens(sent, rules) == at_once(sent, rules, looks)


@EXAMPLES
@given(households(), kinds_of_settings(), st.integers(0, 15_000), st.integers(300, 15_000))
def test_an_outage_leads_to_what_would_have_left_without(
    sent: list[Sent], rules: Rules, down: int, length: int
) -> None:
    assert as_it_happens(sent, rules) == with_an_outage(sent, rules, down, down + length)


@EXAMPLES
@given(households(), kinds_of_settings())
def test_a_restart_at_every_point_changes_nothing(sent: list[Sent], rules: Rules) -> None:
    assert as_it_happens(sent, rules) == as_it_happens(sent, rules, restarts=True)


# ---- each reason by itself ------------------------------------------------------------------------------------------

UTC_RULES = Rules(default_time_zone="UTC")


def late(home: Home, *args: object, **kwargs: object) -> None:
    """Let a home hear of something the next morning."""
    home.say(*args, received=at("2 06:00"), **kwargs)  # type: ignore[arg-type]


def energies(home: Home, source: DeviceType, type_: EventType = EventType.ENERGY_CONSUMPTION) -> list[str]:
    return list(home.of(type_, source))


def test_a_battery_that_is_deleted_in_a_backlog_sends_its_quarter_hours() -> None:
    home = Home()
    late(home, BATTERY, "12:00", 400.0, stamp="12:00")
    late(home, BATTERY, "13:00", 400.0, stamp="13:00")
    home.leave(BATTERY, "13:40", Action.DELETE, received="2 06:00")
    quarters = ["12:15", "12:30", "12:45", "13:00", "13:15", "13:30"]
    assert quarters == energies(home, DeviceType.BATTERY, EventType.ENERGY_IMPORT)
    home.tick("2 08:00")
    assert quarters == energies(home, DeviceType.BATTERY, EventType.ENERGY_IMPORT), "and no more after it"


def test_a_slot_that_ends_with_the_delete_is_closed_by_it() -> None:
    home = Home()
    home.say(BATTERY, "12:00", 400.0)
    home.leave(BATTERY, "12:15", Action.DELETE)
    assert ["12:15"] == energies(home, DeviceType.BATTERY, EventType.ENERGY_IMPORT)
    assert {} == home.of(EventType.GRID_ENERGY_CONSUMPTION), "the household goes by its own clock"


def test_last_slots_leave_before_the_list_without_the_device() -> None:
    home = Home()
    home.say(BATTERY, "12:00", 400.0)
    home.effects.clear()
    home.leave(BATTERY, "12:16", Action.DELETE)
    assert [SendEvents, PutDevices] == [type(effect) for effect in home.effects]


def test_a_delete_in_a_backlog_sends_the_day_before_it() -> None:
    home = Home(UTC_RULES)
    for hour in range(24):
        home.say(PUMP, f"1 {hour}:00", 400.0, received="2 08:00")
    home.leave(PUMP, "2 00:20", Action.DELETE, received="2 08:00")
    assert {"2 00:00": 9600.0} == home.of(EventType.ENERGY_CONSUMPTION_YESTERDAY, DeviceType.APPLIANCE)
    assert "2 00:15" == energies(home, DeviceType.APPLIANCE)[-1]
    home.tick("3 08:00")
    assert {"2 00:00": 9600.0} == home.of(EventType.ENERGY_CONSUMPTION_YESTERDAY, DeviceType.APPLIANCE)


def test_a_delete_that_is_repeated_or_older_closes_nothing_twice() -> None:
    home = Home()
    home.say(BATTERY, "12:00", 400.0)
    for _ in range(2):
        home.leave(BATTERY, "12:31", Action.DELETE)
    home.say(BATTERY, "12:40", 400.0, action=Action.CONNECT)
    home.leave(BATTERY, "12:31", Action.DELETE)
    home.run("12:45", "13:00")
    assert ["12:15", "12:30", "13:00"] == energies(home, DeviceType.BATTERY, EventType.ENERGY_IMPORT)


def test_a_charger_that_had_left_before_takes_nothing_from_the_last_slots_of_a_car() -> None:
    home = Home()
    late(home, CHARGER, "12:00", 0.0, stamp="12:00")
    late(home, CAR, "12:00", 400.0, stamp="12:00")
    home.leave(CHARGER, "12:20", Action.DELETE, received="2 06:00")
    home.leave(CAR, "12:50", Action.DELETE, received="2 06:00")
    assert ["12:45"] == energies(home, DeviceType.CAR)


def test_an_hvac_of_another_type_sends_the_quarter_hours_of_the_old_one() -> None:
    home = Home(UTC_RULES)
    late(home, PUMP, "12:00", 400.0, stamp="12:00", facts=Facts(type="AC", updated=at("11:00")))
    late(home, PUMP, "12:31", 800.0, stamp="12:31", facts=Facts(type="HEATPUMP", updated=at("12:31")))
    home.tick("2 07:00")
    assert ["12:15", "12:30"] == energies(home, DeviceType.APPLIANCE)
    assert ["12:45", "13:00"] == energies(home, DeviceType.HEAT_PUMP)[:2]


def test_a_car_that_turns_out_to_have_no_plug_sends_what_was_before() -> None:
    home = Home()
    late(home, CAR, "12:00", 400.0, stamp="12:00", facts=Facts(engine="BEV", updated=at("11:00")))
    late(home, CAR, "12:31", 400.0, stamp="12:31", facts=Facts(engine="HEV", updated=at("12:31")))
    home.tick("2 07:00")
    assert ["12:15", "12:30"] == energies(home, DeviceType.CAR)


def test_a_device_with_a_new_name_sends_what_was_before_by_the_old_one() -> None:
    home = Home(UTC_RULES)
    late(home, PUMP, "1 22:00", 400.0, stamp="1 22:00", facts=Facts(name="old", updated=at("11:00")))
    late(home, PUMP, "2 00:05", 400.0, stamp="2 00:05", facts=Facts(name="new", updated=at("2 00:05")))
    home.tick("2 07:00")
    names = (
        {event.name for event in home.events if event.at <= at("2 00:00")},
        {event.name for event in home.events if event.at > at("2 00:00")},
    )
    assert ({"old"}, {"new"}) == names
    assert 8 * 4 == len([e for e in home.events if e.type is EventType.ENERGY_CONSUMPTION])


def test_a_household_keeps_its_slots_before_a_second_place_was_named() -> None:
    home = Home()
    late(home, PV, "12:00", 400.0, stamp="12:00", location="here")
    late(home, PUMP, "12:31", 0.0, stamp="12:31", location="there")
    late(home, PUMP, "12:50", 0.0, stamp="12:50", location="here")
    home.tick("2 07:00")
    assert ["12:15", "12:30", "13:00"] == energies(home, DeviceType.GATEWAY, EventType.ENERGY_GENERATION)


def test_a_value_that_is_carried_again_after_its_end_is_known_from_then_on() -> None:
    """Whoever heard it live has closed the time between without it."""
    home = Home()
    late(home, METER, "12:00", 400.0, stamp="12:00")
    late(home, METER, "12:00", 400.0, stamp="13:30")
    late(home, METER, "12:00", 400.0, stamp="13:50")
    late(home, METER, "12:00", 400.0, stamp="16:00")
    home.tick("2 07:00")
    powers = list(home.of(EventType.GRID_POWER_CONSUMPTION))
    assert ["12:15", "12:30", "12:45", "13:00", "13:45", "14:00", "14:15", "14:30", "14:45"] == powers[:9]
    assert ["16:15", "16:30", "16:45", "17:00"] == powers[9:]


def test_an_older_block_that_is_carried_says_nothing_of_a_newer_one() -> None:
    home = Home()
    home.say(METER, "12:00", 400.0)
    home.say(METER, "12:10", 800.0)
    home.say(METER, "12:00", 400.0, stamp="12:20")
    home.say(METER, "12:00", 300.0, stamp="12:25", updated="12:25")
    home.run("12:15", "12:30")
    assert {"12:15": 800.0, "12:30": 800.0} == home.of(EventType.GRID_POWER_CONSUMPTION)
    assert 200.0 == home.of(EventType.GRID_ENERGY_CONSUMPTION)["12:30"]


def test_a_temperature_that_is_carried_after_a_day_counts_from_then_on() -> None:
    home = Home(Rules(hold=timedelta(hours=1)))
    for stamp in ("12:00", "13:31"):
        late(
            home, PUMP, "12:00", stamp=stamp, values=[(Quantity.TEMPERATURE, 21.5)],
            facts=Facts(type="THERMOSTAT", updated=at("11:00")),
        )  # fmt: skip
    home.tick("2 07:00")
    assert ["12:15", "12:30", "12:45", "13:00", "13:45", "14:00", "14:15", "14:30"] == list(
        home.of(EventType.TEMPERATURE, DeviceType.THERMOSTAT)
    )
