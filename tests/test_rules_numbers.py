"""The numbers and tables of the rules are those of the code: each stands in the text of its rule."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

from bridge.core import bounds, closing, counters, deletes, household, jumps, report, retry, slots, tariffs, tracks
from bridge.core.findings import FLAGS
from bridge.core.mapping import CHARGING_WORDS, DEVICE_TYPES, EVENTS, HVAC_OTHER, HVAC_TYPES, READINGS, NumberRow
from bridge.core.messages import Quantity
from bridge.core.reduce import SCHEDULES_SIZE
from bridge.core.rules import Rules
from bridge.core.vocabulary import ACTIONS, EVENT_TYPES, DeviceType, EventType, Kind
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


# ---- tables ---------------------------------------------------------------------------------------------------------


def rows(rule: str, head: str) -> list[list[str]]:
    """Return the rows of the table of a rule whose first cell of the head is given."""
    for found in re.finditer(r"(?:^\|.*\n)+", sections()[rule], re.MULTILINE):
        cells = [[cell.strip() for cell in row.strip("|\n").split("|")] for row in found[0].splitlines()]
        if cells[0][0] == head:
            return cells[2:]
    raise AssertionError(f"{rule} has no table of {head}")


def test_the_types_of_devices_are_those_of_the_code() -> None:
    told = {row[0]: re.findall(r"`([A-Z_]+)`", row[1]) for row in rows("M2", "kind")}
    assert {kind.value: [type_.value] for kind, type_ in DEVICE_TYPES.items()} == {
        kind: told[kind] for kind in told if kind in {each.value for each in DEVICE_TYPES}
    }
    heating = {word: told.get(f"hvac of type `{word}`", []) for word in HVAC_TYPES if HVAC_TYPES[word] != HVAC_OTHER}
    assert {word: [HVAC_TYPES[word].value] for word in heating} == heating


def test_the_events_of_devices_are_those_of_the_code() -> None:
    types = {type_.value for type_ in EventType}
    told = {word for row in rows("M3", "kind") for word in re.findall(r"`([A-Z_]+)`", row[1]) if word in types}
    codes = {EventType.DEVICE_STATUS, EventType.SWITCH_STATE, EventType.CHARGING_MODE}
    assert {*(row.type.value for row in EVENTS), *codes} == told


def test_the_words_of_charging_are_those_of_the_code() -> None:
    told = {word for row in rows("M3.1", "state") for word in re.findall(r"[A-Z]{5,}", row[0])}
    assert CHARGING_WORDS == told


def test_the_events_of_the_household_are_those_of_moost() -> None:
    told = {word for row in rows("M4", "event type") for word in re.findall(r"`([A-Z_]+)`", row[0])}
    own = {type_ for type_, rule in EVENT_TYPES.items() if DeviceType.GATEWAY in rule.sources}
    expected = {type_ for type_ in own if type_.endswith(("_GENERATION", "_EXCESS", "_RATE", "_CONSUMPTION"))}
    assert expected == told


def test_every_flag_has_its_row() -> None:
    assert sorted(FLAGS) == sorted(row[0].strip("`") for row in rows("M4.5", "flag"))


def test_the_actions_are_those_of_the_code() -> None:
    told: set[tuple[str, str]] = set()
    for actions, kinds, *_ in rows("M7", "action"):
        of = [kind.value for kind in Kind] if kinds == "all seven" else kinds.split(", ")
        told |= {(kind, action) for kind in of for action in actions.split(", ")}
    assert {(kind.value, action.value) for kind, actions in ACTIONS.items() for action in actions} == told
