"""SECURITY.md says what is bounded by what: its limits and settings exist, and its numbers are the code's."""

import re
from pathlib import Path
from typing import Final, cast

import pytest
from pydantic import BaseModel

from bridge.config.models import LimitSettings, Server, Settings, StoreSettings
from bridge.core import bounds, deletes, reduce
from bridge.limits import Limit
from bridge.receiver import guesses, hands, places, proofs, protocol, slices
from bridge.receiver.state import Limits
from bridge.source import bounds as source
from bridge.source import signature

ROOT: Final = Path(__file__).parent.parent
PAGE: Final = (ROOT / "SECURITY.md").read_text()
SETTINGS: Final = (ROOT / "docs" / "configuration.md").read_text()

KIB: Final = 2**10
MIB: Final = 2**20


def rows() -> list[list[str]]:
    """Return the rows of all tables whose first column is a limit."""
    found = [line for line in PAGE.splitlines() if re.match(r"\| (`\w+`|-) \|", line)]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))] for line in found]


BOUNDS: Final = {row[0].strip("`"): row for row in rows()}


def number(value: int, unit: str = "") -> str:
    return f"{value:,}{unit}"


NUMBERS: Final[dict[str, list[str]]] = {
    "connections": [number(LimitSettings().connections), number(places.PROBATION)],
    "connections_per_address": [number(LimitSettings().connections_per_address)],
    "parsed_ahead": [number(slices.AHEAD)],
    "header": [number(Limits().header_bytes // KIB, " KiB"), number(Limits().header_fields)],
    "chunk_marks": [number(protocol.MARKS // KIB, " KiB")],
    "signatures": [number(signature.MOST_SIGNATURES)],
    "failed_work": [
        number(proofs.FAILED_PER_S // MIB, " MiB/s"),
        number(proofs.FAILED_BURST // MIB, " MiB"),
        number(proofs.FAILED_PER_S_IN_ALL // MIB, " MiB/s"),
    ],
    "admin_guesses": [number(guesses.MOST_EACH), number(guesses.MOST_IN_ALL_PER_S)],
    "rate_limit": [],
    "unverified_bytes": [number(LimitSettings().unverified_bytes // MIB, " MiB")],
    "calls_on_the_wire": ["three quarters"],
    "store_share": [str(StoreSettings().store_share)],
    "dead_share": [str(StoreSettings().dead_share), str(StoreSettings().dead_retention.days)],
    "bytes_in_hand": [number(hands.MOST_IN_HAND // MIB, " MiB")],
    "values_per_body": [number(source.SLOW_VALUES)],
    "values_per_message": [number(LimitSettings().values_per_message), number(source.COUNTED_FROM // KIB, " KB")],
    "entries_per_message": [number(source.ENTRIES)],
    "id_length": [number(source.ID_LENGTH)],
    "devices_per_building": [number(LimitSettings().devices_per_building), number(bounds.TARIFFS)],
    "deletes_per_building": [number(deletes.OF_KNOWN), number(deletes.OF_UNKNOWN)],
    "samples_per_slot": [number(bounds.SAMPLES_A_SLOT), number(bounds.SAMPLES)],
    "prices_per_tariff": [number(source.PRICES_AHEAD_DAYS)],
    "schedules_size": [number(reduce.SCHEDULES_SIZE // KIB, " KiB")],
}


def test_every_limit_has_its_row_and_no_other_is_named() -> None:
    assert {limit.value for limit in Limit} == set(BOUNDS) - {"-"}


@pytest.mark.parametrize("limit", [limit.value for limit in Limit])
def test_the_numbers_of_a_limit_are_the_code_s(limit: str) -> None:
    missing = [
        each for each in NUMBERS[limit] if not re.search(rf"(?<![\d,]){re.escape(each)}(?!,?\d)", BOUNDS[limit][1])
    ]
    assert [] == missing


def test_every_limit_says_what_happens_beyond_it_and_what_an_honest_one_has() -> None:
    assert [] == [row[0] for row in rows() if len(row) != 5 or not all(row) or "-" in row[1:]]


def keys(model: type[BaseModel], prefix: str) -> set[str]:
    return {f"{prefix}.{name}" for name in model.model_fields}


def test_every_setting_that_is_named_exists_and_every_one_of_limits_is_named() -> None:
    known = {"subscriptions.rate_limit", *keys(LimitSettings, "limits"), *keys(Server, "server")}
    known |= keys(cast("type[BaseModel]", Settings.model_fields["store"].annotation), "store")
    named = set(re.findall(r"`((?:limits|server|store|subscriptions)\.\w+)`", PAGE))
    assert set() == named - known
    assert keys(LimitSettings, "limits") <= {cell.strip("`") for row in rows() for cell in row}


@pytest.mark.parametrize("key", sorted(LimitSettings.model_fields))
def test_the_table_of_settings_says_why_no_honest_household_meets_a_limit(key: str) -> None:
    """That is: it says what an honest one has, beside the bound itself."""
    found = re.search(rf"^\| `{key}` \|.*?\| `[^|]*` \| (.*) \| `BRIDGE_LIMITS__", SETTINGS, re.MULTILINE)
    assert found
    assert re.search(r"\b(has|have|sends?|needs?)\b", found[1]), found[1]


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)", PAGE))
def test_every_link_of_the_page_leads_somewhere(link: str) -> None:
    assert (ROOT / link).exists()
