"""Comparing the truth with what arrived: slot by slot, type by type.

Rules:
- A slot is expected where at least `COVERAGE` of it could be known (the receiver's default).
- The building of a user is the one that lists the user, else the one whose id is made from the user id.
- Time stamps at the end of a slot or just inside it are understood (a second before the stamp lies in the slot).
- Events keep coming for a while after the last message: the comparison waits until all is there or nothing more comes.

Source: mapping rules M0.6 (how ids are made safe) and M5 (slots, coverage), written again on purpose: the judge does
not share code with the judged.
"""

import asyncio
import hashlib
import json
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from bridge.sandbox.truth import GATEWAY

COVERAGE: Final = 0.9
_PAGE: Final = 20_000
_POLL_S: Final = 1.0
_HASH: Final = 12

Slot = tuple[str, str, str, int]
"""Building, device id, event type, start [epoch s]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """How one event type fared."""

    type: str
    expected: int
    received: int
    missing: int
    repeated: int
    largest_error_wh: float


def compare(
    truth: Iterable[Mapping[str, Any]],
    buildings: Mapping[str, Mapping[str, Any]],
    events: Iterable[Mapping[str, Any]],
) -> list[Row]:
    """Return one row per type of the truth; `received` counts the expected slots that arrived."""
    expected = _expected(truth, buildings)
    lengths = {(kind, length) for (_, _, kind, _), (_, length) in expected.items()}
    by_kind = dict(lengths)
    arrived: dict[Slot, list[float]] = defaultdict(list)
    for event in events:
        length = by_kind.get(event["type"])
        if length is not None:
            start = (event["timestamp"] - 1) // length * length
            arrived[event["customerBuildingId"], event["deviceId"], event["type"], start].append(event["value"])
    return [_row(kind, expected, arrived) for kind in sorted(by_kind)]


def _expected(
    truth: Iterable[Mapping[str, Any]],
    buildings: Mapping[str, Mapping[str, Any]],
) -> dict[Slot, tuple[float, int]]:
    """Return value [Wh] and length [s] of every slot that must arrive."""
    homes = {user: name for name, one in buildings.items() for user in one.get("userIds") or ()}
    expected = {}
    for line in truth:
        if line["known"] >= COVERAGE:
            building = homes.get(line["user"]) or safe(line["user"], 100)
            device = f"gateway:{building}" if line["device"] == GATEWAY else line["device"]
            slot = building, safe(device, 64), line["type"], line["slot_start"]
            expected[slot] = line["value_wh"], line["seconds"]
    return expected


def _row(kind: str, expected: Mapping[Slot, tuple[float, int]], arrived: Mapping[Slot, list[float]]) -> Row:
    """Compare the slots of one type."""
    wanted = {slot: value for slot, (value, _) in expected.items() if slot[2] == kind}
    there = [slot for slot in wanted if slot in arrived]
    errors = (abs(value - wanted[slot]) for slot in there for value in arrived[slot])
    return Row(
        type=kind,
        expected=len(wanted),
        received=len(there),
        missing=len(wanted) - len(there),
        repeated=sum(len(arrived[slot]) > 1 for slot in there),
        largest_error_wh=round(max(errors, default=0.0), 3),
    )


def safe(text: str, most: int) -> str:
    """Return an id as MOOST accepts it: itself where it fits, else spelled safely with a hash of the original."""
    if re.fullmatch(r"[a-zA-Z0-9:._-]+", text) and len(text) <= most and text != "core-data":
        return text
    cut = re.sub(r"[^a-zA-Z0-9:._-]", "_", text)[: most - _HASH - 1]
    return f"{cut}-{hashlib.sha256(text.encode()).hexdigest()[:_HASH]}"


async def verify(truth: Path, sandbox: str, *, patience_s: float = 30.0) -> list[Row]:
    """Compare a truth file with a sandbox; waits until nothing is missing or nothing new comes for the patience [s].

    Raises aiohttp.ClientError when the sandbox cannot be read, OSError when the file cannot.
    """
    text = await asyncio.to_thread(truth.read_text, encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    async with aiohttp.ClientSession(sandbox.rstrip("/")) as http:
        events: list[dict[str, Any]] = []
        since, quiet_since = 0, time.monotonic()
        while True:
            buildings, more, until = await _news(http, since)
            events += more
            if more:
                quiet_since = time.monotonic()
            rows = compare(lines, buildings, events)
            if not any(row.missing for row in rows) or time.monotonic() - quiet_since >= patience_s:
                return rows
            since = until
            await asyncio.sleep(_POLL_S)


async def _news(http: aiohttp.ClientSession, since: int) -> tuple[dict[str, Any], list[dict[str, Any]], int]:
    """Return all buildings, the events since an index, and the index to go on from."""
    events: list[dict[str, Any]] = []
    while True:
        query = {"since": str(since), "limit": str(_PAGE)}
        async with http.get("/_sandbox/received", params=query, raise_for_status=True) as answer:
            page = await answer.json()
        events += page["events"]
        since = page["next"]
        if since >= page["counts"]["next"]:
            return page["buildings"], events, since


def table(rows: Iterable[Row]) -> str:
    """Return the comparison as text."""
    head = f"{'type':<28}{'expected':>10}{'received':>10}{'missing':>10}{'repeated':>10}{'largest error Wh':>18}\n"
    return head + "".join(
        f"{row.type:<28}{row.expected:>10}{row.received:>10}{row.missing:>10}{row.repeated:>10}"
        f"{row.largest_error_wh:>18.3f}\n"
        for row in rows
    )
