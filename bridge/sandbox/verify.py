"""Comparing the truth with what arrived: slot by slot, type by type.

Rules:
- A slot is expected where the receiver's coverage of it could be known, and once it must have left: the receiver's
  grace and spread have passed since its end. What is not due yet is counted, not judged.
- The sum of a local day is expected where the receiver's coverage of the day could be known, and its last slot at all:
  a device that was deleted before has none. It is the sum of the truth's slots, sent or not, and carries the first
  instant of the new day.
- The building of a user is the one whose id is made from the user id, else the one that lists the user.
- An energy that is further from the truth than `TOLERANCE_WH` is wrong, also one that came twice with two values. The
  same event twice is told and no fault: delivery is at least once.
- What the sandbox itself found questionable in these buildings (a wrong source, a value out of range) is told as well.
- Where hours are told within seconds, a device may be deleted before its slots close, and then nothing of it leaves any
  more (M5.7): what is missing of such a device is counted, not judged.
- Events keep coming for a while after the last message: the comparison waits until all is there or nothing more comes.

Source: mapping rules M0.6 (how ids are made safe) and M5 (slots, days, coverage, stamps), written again on purpose: the
judge does not share code with the judged.
"""

import asyncio
import errno
import hashlib
import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import aiohttp

from bridge.sandbox.truth import GATEWAY

TOLERANCE_WH: Final = 0.5
PATIENCE_S: Final = 30.0
BACKLOG_PATIENCE_S: Final = 100.0
"""Longer than a receiver waits for the rest of a backlog: 60 s after an old message, with a look every 20 s."""

_PAGE: Final = 20_000
_POLL_S: Final = 1.0
_HASH: Final = 12
_RESERVED: Final = frozenset({"core-data", ".", ".."})

Slot = tuple[str, str, str, int]
"""Building, device id, event type, start [epoch s]."""
Event = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """What of a receiver's settings decides which slots arrive and how; the defaults are its own."""

    user_prefix: str = ""
    stamp: str = "end"  # end | inside | start
    coverage: float = 0.9
    delay_s: float = 300.0  # longest time from a slot's end to its close: grace and spread
    time_zone: str = "Europe/Berlin"  # of all buildings

    def start(self, timestamp: int, seconds: int) -> int:
        """Return when the slot of an event began [epoch s]; any instant that is no stamp of a slot stays none."""
        match self.stamp:
            case "start":
                return timestamp
            case "inside":
                return timestamp + 1 - seconds
            case _:
                return timestamp - seconds


DEFAULT: Final = Receiver()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """How one event type fared: the expected slots, and the events of both lanes that belong to one."""

    type: str
    expected: int
    received: int
    missing: int
    repeated: int
    wrong: int
    live: int
    historical: int
    largest_error_wh: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the comparison found."""

    rows: Sequence[Row]
    not_due: int = 0  # slots that may still be open
    deleted: int = 0  # slots of devices that were deleted before they closed
    violations: Mapping[str, int] = field(default_factory=dict)  # rule of the sandbox -> how often it was broken

    @property
    def missing(self) -> int:
        """Return how many expected slots never arrived."""
        return sum(row.missing for row in self.rows)

    @property
    def wrong(self) -> int:
        """Return how many arrived with a wrong energy."""
        return sum(row.wrong for row in self.rows)

    @property
    def clean(self) -> bool:
        """Tell whether all is there, right, and as MOOST wants it."""
        return not (self.missing or self.wrong or self.violations)


def compare(
    truth: Iterable[Mapping[str, Any]],
    buildings: Mapping[str, Mapping[str, Any]],
    events: Iterable[Event],
    *,
    receiver: Receiver = DEFAULT,
    now: float | None = None,
    deleted: Collection[str] = (),
) -> Verdict:
    """Return one row per type of the truth; at `now` [epoch s] only those slots are expected that must have left.

    `deleted` are the devices of which nothing needs to have left, because they were deleted before their slots closed.
    """
    expected, not_due = _expected(truth, buildings, receiver, now)
    lengths = {kind: seconds for (_, _, kind, _), (_, seconds) in expected.items()}
    arrived: dict[Slot, list[Event]] = defaultdict(list)
    for event in events:
        seconds = lengths.get(event["type"])
        if seconds is not None and "timestamp" in event:
            start = receiver.start(event["timestamp"], seconds) if seconds else event["timestamp"]
            arrived[event["customerBuildingId"], event["deviceId"], event["type"], start].append(event)
    gone = {safe(device, 64) for device in deleted}
    excused = [slot for slot in expected.keys() - arrived.keys() if slot[1] in gone]
    for slot in excused:
        del expected[slot]
    rows = [_row(kind, expected, arrived) for kind in sorted(lengths)]
    return Verdict(rows=rows, not_due=not_due, deleted=len(excused))


def _expected(
    truth: Iterable[Mapping[str, Any]],
    buildings: Mapping[str, Mapping[str, Any]],
    receiver: Receiver,
    now: float | None,
) -> tuple[dict[Slot, tuple[float, int]], int]:
    """Return value [Wh] and length [s] of every slot that must arrive, and how many are not due."""
    homes = {user: name for name, one in buildings.items() for user in one.get("userIds") or ()}
    expected = {}
    not_due = 0
    for line in _with_days(truth, receiver.time_zone):
        if line["known"] < receiver.coverage:
            continue
        if now is not None and line["slot_start"] + line["seconds"] + receiver.delay_s > now:
            not_due += 1
            continue
        own = safe(receiver.user_prefix + line["user"], 100)
        building = own if own in buildings else homes.get(line["user"], own)
        device = f"gateway:{building}" if line["device"] == GATEWAY else line["device"]
        slot = building, safe(device, 64), line["type"], line["slot_start"]
        expected[slot] = line["value_wh"], line["seconds"]
    return expected, not_due


def _with_days(truth: Iterable[Mapping[str, Any]], time_zone: str) -> Iterator[Mapping[str, Any]]:
    """Yield every slot, then the local days whose first and last slot are among them: an instant, `seconds` is 0.

    A day's sum holds what is known of a slot that began before the truth did, of which the truth says nothing.
    """
    zone = ZoneInfo(time_zone)
    days: dict[tuple[str, str, str, date], list[float]] = {}
    first: dict[tuple[str, str, str, date], int] = {}
    ended: dict[tuple[str, str, str, date], int] = {}
    for line in truth:
        yield line
        start, end = line["slot_start"], line["slot_start"] + line["seconds"]
        day = datetime.fromtimestamp(start, zone).date()
        name = line["user"], line["device"], line["type"], day
        first[name] = min(start, first.get(name, start))
        sums = days.setdefault(name, [0.0, 0.0])
        sums[0] += line["value_wh"]
        sums[1] += line["known"] * line["seconds"]
        if datetime.fromtimestamp(end, zone).date() != day:
            ended[name] = end
    for name, end in ended.items():
        user, device, kind, day = name
        began = datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()
        if first[name] > began:
            continue
        yield {
            "user": user, "device": device, "type": f"{kind}_YESTERDAY", "slot_start": end, "seconds": 0,
            "value_wh": days[name][0], "known": days[name][1] / (end - began),
        }  # fmt: skip


def _row(kind: str, expected: Mapping[Slot, tuple[float, int]], arrived: Mapping[Slot, Sequence[Event]]) -> Row:
    """Compare the slots of one type."""
    wanted = {slot: value for slot, (value, _) in expected.items() if slot[2] == kind}
    there = [slot for slot in wanted if slot in arrived]
    errors = [max(abs(event["value"] - wanted[slot]) for event in arrived[slot]) for slot in there]
    lanes = Counter(event.get("lane", "live") for slot in there for event in arrived[slot])
    return Row(
        type=kind,
        expected=len(wanted),
        received=len(there),
        missing=len(wanted) - len(there),
        repeated=sum(len(arrived[slot]) > 1 for slot in there),
        wrong=sum(error > TOLERANCE_WH for error in errors),
        live=lanes["live"],
        historical=lanes["historical"],
        largest_error_wh=round(max(errors, default=0.0), 3),
    )


def safe(text: str, most: int) -> str:
    """Return an id as MOOST accepts it: itself where it fits, else spelled safely with a hash of the original.

    One that reads like such a spelling of another id does not fit.
    """
    fits = re.fullmatch(r"[a-zA-Z0-9:._-]+", text) and len(text) <= most and text not in _RESERVED
    plain = re.sub(r"(-[0-9a-f]{12})+$", "", text)  # what would have been spelled, once or again and again
    spelled = plain != text and (len(text) == most or not plain or "_" in plain or plain in _RESERVED)
    if fits and not spelled:
        return text
    cut = re.sub(r"[^a-zA-Z0-9:._-]", "_", text)[: most - _HASH - 1]
    return f"{cut}-{hashlib.sha256(text.encode()).hexdigest()[:_HASH]}"


# ---- asking a sandbox -----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Record:
    """What a sandbox has received so far."""

    buildings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    violations: list[Mapping[str, Any]] = field(default_factory=list)
    next: int = 0

    def broken(self, buildings: Collection[str]) -> dict[str, int]:
        """Return how often each rule was broken in some buildings."""
        return dict(Counter(one["rule"] for one in self.violations if one["building"] in buildings))


async def verify(
    truth: Path,
    sandbox: str,
    *,
    receiver: Receiver = DEFAULT,
    patience_s: float = PATIENCE_S,
    now: float | None = None,
    deleted: Collection[str] = (),
) -> Verdict:
    """Compare a truth file with a sandbox; waits until nothing is missing or nothing new comes for the patience [s].

    Expected is what is due at `now` [epoch s], by default when it is called. `deleted` as for
    `compare`. Raises OSError when the sandbox or the file cannot be read.
    """
    until = time.time() if now is None else now
    text = await asyncio.to_thread(truth.read_text, encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    users = {line["user"] for line in lines}
    async with aiohttp.ClientSession() as http:
        record = _Record()
        quiet_since = time.monotonic()
        while True:
            if await _read_on(http, sandbox.rstrip("/"), record):
                quiet_since = time.monotonic()
            found = compare(lines, record.buildings, record.events, receiver=receiver, now=until, deleted=deleted)
            if not found.missing or time.monotonic() - quiet_since >= patience_s:
                named = {safe(receiver.user_prefix + user, 100) for user in users}
                theirs = {name for name, one in record.buildings.items() if users & set(one.get("userIds") or ())}
                return replace(found, violations=record.broken(named | theirs))
            await asyncio.sleep(_POLL_S)


async def _read_on(http: aiohttp.ClientSession, sandbox: str, record: _Record) -> bool:
    """Add what came since; return whether there were events."""
    before = len(record.events)
    while True:
        page = await _page(http, sandbox, record.next)
        record.buildings = page["buildings"]
        record.events += page["events"]
        record.violations += page["violations"]
        record.next = page["next"]
        if record.next >= page["counts"]["next"]:
            return len(record.events) > before


async def _page(http: aiohttp.ClientSession, sandbox: str, since: int) -> dict[str, Any]:
    """Return what came from an index on, as far as one page goes."""
    query = {"since": str(since), "limit": str(_PAGE)}
    try:
        async with http.get(f"{sandbox}/_sandbox/received", params=query, raise_for_status=True) as answer:
            page: dict[str, Any] = await answer.json()
            return page
    except aiohttp.ClientError as why:
        raise OSError(errno.EIO, f"no sandbox answers at the address to verify ({type(why).__name__})") from None


# ---- for people -----------------------------------------------------------------------------------------------------

_COLUMNS: Final = ("expected", "received", "missing", "repeated", "wrong", "live", "historical")


def table(verdict: Verdict) -> str:
    """Return the comparison as text."""
    head = f"{'type':<26}" + "".join(f"{name:>11}" for name in _COLUMNS) + f"{'largest error Wh':>18}\n"
    body = "".join(
        f"{row.type:<26}"
        + "".join(f"{getattr(row, name):>11}" for name in _COLUMNS)
        + f"{row.largest_error_wh:>18.3f}\n"
        for row in verdict.rows
    )
    told = ", ".join(f"{rule} {count}" for rule, count in sorted(verdict.violations.items()))
    gone = f"of devices deleted before: {verdict.deleted}; " if verdict.deleted else ""
    return f"{head}{body}not due yet: {verdict.not_due}; {gone}violations: {told or 'none'}\n"
