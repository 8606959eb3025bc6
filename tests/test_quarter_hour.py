"""The worked quarter hour of the docs (M4, M5.3): what it shows of messages, sums and events is what the core makes."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest

from bridge.core.effects import Event, SendEvents
from bridge.core.messages import Message, Tick, Tombstone, Unreadable
from bridge.core.model import Building, Sum
from bridge.core.reduce import reduce
from bridge.core.rules import Rules
from bridge.core.vocabulary import EVENT_TYPES, DeviceType
from bridge.source.decode import decode
from bridge.source.topics import Topic, parse

PAGE: Final = (Path(__file__).parent.parent / "docs" / "quarter-hour.md").read_text()
MESSAGE: Final = re.compile(r"<!-- message: (\S+) (\S+) -->\n```json\n(.*?)```", re.DOTALL)
EVENTS: Final = re.compile(r"<!-- events: (\S+) (\S+) -->\n\n\| .*\n\| --- .*\n((?:\| .*\n)+)")
DAY: Final = datetime(2026, 6, 15, tzinfo=UTC)
OPEN: Final = DAY + timedelta(hours=10)


def clock(text: str) -> datetime:
    hours, minutes = map(int, text.split(":"))
    return DAY + timedelta(hours=hours, minutes=minutes)


class Household:
    """The building of the page."""

    def __init__(self) -> None:
        self.state = Building(id="user-1")
        self.rules = Rules()
        self.number = 0

    def feed(self, message: Message) -> list[Event]:
        self.state, effects = reduce(self.state, message, self.rules)
        return [event for effect in effects if isinstance(effect, SendEvents) for event in effect.events]

    def hear(self, topic: str, body: str, received: datetime) -> list[Event]:
        named = parse(topic)
        assert isinstance(named, Topic)
        self.number += 1
        message = decode(named, body.encode(), number=self.number, received=received, rules=self.rules)
        assert not isinstance(message, Tombstone | Unreadable)
        return self.feed(message)

    def tick(self, at: datetime) -> list[Event]:
        return self.feed(Tick(now=at))


@pytest.fixture
def home() -> Household:
    """Return the household after the messages of the page, with the slots before 10:00 closed."""
    home = Household()
    found = MESSAGE.findall(PAGE)
    assert 3 == len(found)
    for topic, received, body in found:
        assert [] == home.hear(topic, body, datetime.fromisoformat(received))
    home.tick(clock("10:02"))
    assert OPEN == home.state.open_from
    return home


def shown(rows: str) -> dict[str, str]:
    """Return the values of a table of events by their types."""
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows.splitlines()]
    return {cell[0].strip("`"): cell[1] for cell in cells}


def spelled(events: Sequence[Event]) -> dict[str, str]:
    """Return values as the page writes them."""
    return {event.type.value: f"{event.value:.10g} {EVENT_TYPES[event.type].unit.value}" for event in events}


def test_the_events_of_the_page_are_those_that_leave(home: Household) -> None:
    tables = EVENTS.findall(PAGE)
    assert ["10:17", "10:32"] == [tick for tick, _, _ in tables]
    for tick, stamp, rows in tables:
        assert [] == home.tick(clock(tick) - timedelta(seconds=1))
        events = home.tick(clock(tick))
        assert {(DeviceType.GATEWAY, clock(stamp))} == {(event.source, event.at) for event in events}
        assert shown(rows) == spelled(events)


def test_the_excess_of_the_page_waits_for_its_half_hour(home: Household) -> None:
    home.tick(clock("10:17"))
    assert home.state.half is not None
    assert Sum(90.0, 900.0) == Sum(home.state.half.energy_wh, home.state.half.known_s)


def test_the_sums_of_the_page_add_up() -> None:
    sums = re.findall(r"\| ([\w-]+) \| (.*) = ([\d.]+) (Wh|%) \|$", PAGE, re.MULTILINE)
    assert 6 == len(sums)
    for name, text, result, unit in sums:
        for part in text.split(" = "):
            sum_ = re.sub(r" (W|s|Wh)\b", "", part).replace("×", "*").replace("−", "-")  # noqa: RUF001
            assert re.fullmatch(r"[\d.*/+() -]+", sum_), f"{name}: {part}"
            assert float(result) == pytest.approx(eval(sum_), abs=5e-4), f"{name} [{unit}]: {part}"  # noqa: S307


def test_a_late_copy_within_the_slot_changes_nothing(home: Household) -> None:
    late = Household()
    *first, last = MESSAGE.findall(PAGE)
    for topic, received, body in first:
        late.hear(topic, body, datetime.fromisoformat(received))
    late.tick(clock("10:02"))
    late.hear(last[0], last[2], clock("10:12"))
    assert spelled(home.tick(clock("10:17"))) == spelled(late.tick(clock("10:17")))


def test_a_message_after_the_close_counts_from_the_next_slot_on() -> None:
    home = Household()
    *first, last = MESSAGE.findall(PAGE)
    for topic, received, body in first:
        home.hear(topic, body, datetime.fromisoformat(received))
    home.tick(clock("10:02"))
    assert "625 Wh" == spelled(home.tick(clock("10:17")))["ENERGY_CONSUMPTION"]  # 2500 W
    home.hear(last[0], last[2], clock("10:20"))
    assert "275 Wh" == spelled(home.tick(clock("10:32")))["ENERGY_CONSUMPTION"]  # 1100 W


def test_an_inverter_that_says_null_leaves_only_what_the_meter_says(home: Household) -> None:
    body = (
        '{"id": "pv-1", "userId": "user-1", "powerState": {"solarPower": null, "lastUpdated": "2026-06-15T10:01:00Z"}}'
    )
    home.hear("sub-1.pv-inverter.update", body, clock("10:01"))
    expected = {"GRID_POWER_CONSUMPTION": "0 W", "POWER_EXCESS": "900 W", "GRID_ENERGY_CONSUMPTION": "75 Wh"}
    assert expected == spelled(home.tick(clock("10:17")))
