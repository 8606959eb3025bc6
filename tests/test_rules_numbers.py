"""The numbers of the rules are those of the code: each stands in the text of its rule."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

from bridge.core import bounds, closing, counters, deletes, household, jumps, report, retry, slots, tariffs, tracks
from bridge.core.mapping import READINGS, NumberRow
from bridge.core.messages import Quantity
from bridge.core.reduce import SCHEDULES_SIZE
from bridge.core.rules import Rules
from bridge.core.vocabulary import EVENT_TYPES, EventType, Kind
from bridge.receiver import gate
from bridge.sender import limits
from bridge.source import bounds as of_message
from bridge.source import times
from bridge.store import shares

DOCS: Final = Path(__file__).parent.parent / "docs"
RULES: Final = Rules()


def sections() -> dict[str, str]:
    """Return the text of each rule by its number, up to the next heading."""
    text = "".join((DOCS / name).read_text() for name in ("mapping.md", "guarantees.md"))
    parts = re.split(r"^(#{2,3}) (.*?)$", text, flags=re.MULTILINE)[1:]
    found: dict[str, str] = {}
    number = ""
    for hashes, heading, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        rule = re.match(r"[MR]\d+(\.\d+)?", heading)
        if rule is not None:
            number = rule[0]
        elif hashes == "##":
            number = ""
        if number:
            found[number] = found.get(number, "") + body
    return found


def span(time: timedelta) -> str:
    """Return a time as the pages write it."""
    seconds = time.total_seconds()
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def highest(kind: Kind, quantity: Quantity) -> NumberRow:
    return next(row for row in READINGS[kind] if isinstance(row, NumberRow) and row.quantity is quantity)


def kilowatts(kind: Kind) -> str:
    return f"± {highest(kind, Quantity.POWER).highest / 1000:,.0f} kW"


POWERS: Final = (Kind.HVAC, Kind.VEHICLE, Kind.CHARGER, Kind.METER, Kind.BATTERY, Kind.PV_INVERTER)
HEAT: Final = highest(Kind.HVAC, Quantity.TEMPERATURE)
STATUS: Final = EVENT_TYPES[EventType.DEVICE_STATUS]
MODE: Final = EVENT_TYPES[EventType.CHARGING_MODE]

NUMBERS: Final = (
    ("M0.3", f"before {times.EARLIEST.year}"),
    ("M0.3", f"above 10^{len(str(times.MILLISECONDS_FROM)) - 1}"),
    ("M0.3", span(times.FAR_AHEAD)),
    ("M0.5", f"the last {deletes.OF_KNOWN:,}"),
    ("M0.5", f"the last {deletes.OF_UNKNOWN}"),
    *(("M0.9", kilowatts(kind)) for kind in POWERS),
    ("M0.9", f"−{-HEAT.lowest:g} to {HEAT.highest:g} °C"),  # noqa: RUF001
    ("M0.10", f"{len(EventType)} event types"),
    ("M0.11", f"{jumps.LEAST_W / 1000:g} kW"),
    ("M0.11", f"{jumps.TIMES:g} times"),
    ("M0.11", span(jumps.BELIEVED_AFTER)),
    ("M3.1", f"{report.NEARBY_M / 1000:g} km"),
    ("M3.3", f"−1 to {STATUS.highest:g}"),  # noqa: RUF001
    ("M3.3", f"0 to {MODE.highest:g}"),
    ("M4", f"under {household.LEAST_WH:g} Wh"),
    ("M4.3", f"{report.DUSK_W:g} W"),
    ("M4.3", f"{100 * report.DUSK_SHARE:g} %"),
    ("M4.4", f"under {counters.DIP_WH / 1000:g} kWh"),
    ("M4.4", f"More than {counters.MOST_TAKEN_BACK_WH / 1000:g} kWh"),
    ("M4.4", f"{counters.STEEPEST_W / 1000:g} kW"),
    ("M4.4", f"Up to {counters.ROUNDING_WH:g} Wh"),
    ("M4.5", f"{household.SIGN_MARGIN_WH:g} Wh + {100 * household.SIGN_SHARE:g} %"),
    ("M4.5", f"Beyond {household.MOST_SUSPECTS} devices"),
    ("M4.5", span(closing.PATIENCE)),
    ("M5.2", f"`hold`, {span(RULES.hold)}"),
    ("M5.2", f"`hold_active`, {span(RULES.hold_active)}"),
    ("M5.2", span(tracks.HOLD_CONSUMER)),
    ("M5.4", f"{slots.STALE_FOR.total_seconds():g} s"),
    ("M5.4", f"newest message − {span(slots.BEHIND)}"),  # noqa: RUF001
    ("M5.4", span(slots.TAIL_FOR)),
    ("M5.4", f"`catch_up`, {span(RULES.catch_up)}"),
    ("M5.4", f"up to {slots.MOST_AT_ONCE} slots"),
    ("M5.6", f"`max_backfill` ({RULES.max_backfill.total_seconds() / 3600:g} h)"),
    ("M6.1", f"{-tariffs.PLACES.normalize().as_tuple().exponent} places"),  # type: ignore[operator]  # a finite decimal
    ("M6.1", f"{tariffs.HIGHEST:,} or more"),
    ("M6.1", span(tariffs.ALONE)),
    ("M6.1", f"{of_message.ENTRIES:,} prices a message"),
    ("M6.1", f"{of_message.PRICES_AHEAD_DAYS} days"),
    ("M6.1", f"{tariffs.MOST:,} slices a tariff"),
    ("M7", f"{SCHEDULES_SIZE // 1024} KiB"),
    ("R4", span(retry.STUCK_AFTER)),
    ("R6", f"within {span(retry.FIRST_WAIT)}"),
    ("R6", f"doubled up to {span(retry.LONGEST_WAIT)}"),
    ("R6", f"at most {span(retry.LONGEST_WAIT_ALONE)}"),
    ("R6", f"decrease to {limits._DECREASE:g}"),
    ("R6", f"(EWMA) {limits._EWMA:g}"),
    ("R9", f"{100 * gate.OWED_SHARE:g} %"),
    ("R9", f"{100 * gate.FREE_SHARE:g} %"),
    ("R9", f"{100 * shares.FULL_SHARE:g} %"),
    ("R13", f"`values_per_message` {RULES.values_per_message:,}"),
    ("R13", f"`devices_per_building` {RULES.devices_per_building}"),
    ("R13", f"tariffs {bounds.TARIFFS}"),
    ("R13", f"{bounds.SAMPLES_A_SLOT:,} in a quarter hour of a series, {bounds.SAMPLES:,} in all"),
    ("R13", f"{of_message.FLAWS} fields of the wrong type"),
    ("R13", f"{of_message.SLOW_VALUES:,} values"),
    ("R13", f"an id has {of_message.ID_LENGTH} characters"),
    ("R13", f"cut to {of_message.TEXT_LENGTH} characters, words to {of_message.WORD_LENGTH}"),
    ("R13", f"over {of_message.COUNTED_FROM // 1024} KB"),
)
"""A rule, and what its text must have."""


@pytest.mark.parametrize(("rule", "number"), sorted(set(NUMBERS)))
def test_a_number_of_the_code_stands_in_its_rule(rule: str, number: str) -> None:
    assert re.search(rf"(?<![\w.,]){re.escape(number)}(?!\w)", sections()[rule]), f"{rule} does not say {number!r}"


def test_a_section_ends_where_the_next_rule_begins() -> None:
    found = sections()
    assert "Counter mode" not in found["M4.3"]
    assert "60 kW" in found["M4.4"]
    assert "60 kW" not in found["M4.3"]
