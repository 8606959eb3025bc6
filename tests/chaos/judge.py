"""Judging a run when everything is healed and drained: accounts, order, fates.

Rules:
- What the cloud was told in its 202s is held against the bridge's ledger, message by message and as sums.
- A value arrives a second time only where its call was in doubt: never more often than `in_doubt` says, and with the
  same bytes. The lane may be another: the event has grown old meanwhile.
- The first arrivals of a home are in the order of their numbers, without a gap.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from tests.chaos.crowd import Sent
from tests.chaos.town import Fate, Home, Town

COUNTED: Final = "STATE_OF_CHARGE_RATE"
DEAD: Final = (Fate.UNREADABLE, Fate.UNKNOWN_TOPIC, Fate.FOREIGN, Fate.TOO_LARGE, Fate.TOO_MANY)
SOME: Final = 5  # examples in a sentence

Entry = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Record:
    """All that is known when it is over."""

    book: Mapping[str, Sent]
    town: Town
    health: Mapping[str, Any]
    dead_letters: Sequence[Entry]  # as the command lists them
    journal: Sequence[tuple[str, Entry]]  # MOOST's
    refused: int  # events that MOOST was told to refuse once
    unheard: bool = False  # a 503 does not say that nothing was stored

    def said(self, what: str) -> Iterator[Entry]:
        """Yield what the journal holds of one sort."""
        return (entry for name, entry in self.journal if name == what)


def read(journal: Path) -> list[tuple[str, Entry]]:
    """Return what MOOST wrote down."""
    with journal.open("rb") as file:
        return [tuple(json.loads(line)) for line in file]


def events(journal: Path) -> list[Entry]:
    """Return the events that MOOST stored."""
    return [entry for what, entry in read(journal) if what == "event"]


def verdict(record: Record) -> Iterator[str]:
    """Yield what should not be, a sentence each."""
    yield from _answers(record)
    yield from _ledger(record)
    yield from _letters(record)
    yield from _arrivals(record)
    yield from _once(record)
    yield from _buildings(record)
    yield from _questionable(record)


# ---- messages -------------------------------------------------------------------------------------------------------


def _answers(record: Record) -> Iterator[str]:
    """Yield what was said of a letter and cannot be: it is stored as a whole, and once."""
    for sent in record.book.values():
        count = len(sent.letter.fates)
        told = [(one.accepted, one.duplicates) for one in sent.answers]
        if not told:
            yield f"{sent.letter.id} was never taken"
        elif wrong := [one for one in told if one not in ((count, 0), (0, count))]:
            yield f"{sent.letter.id} with {count} messages was answered {wrong}"
        elif count and told.count((count, 0)) > 1:
            yield f"{sent.letter.id} was accepted {told.count((count, 0))} times"
        elif count and not sent.lost and not (record.unheard and sent.refused) and (count, 0) not in told:
            yield f"{sent.letter.id} was only ever called a duplicate, though no answer was lost"


def _ledger(record: Record) -> Iterator[str]:
    """Yield where the bridge's ledger differs from what was sent."""
    fates = expected(record)
    ledger, calls = record.health["ledger"], record.health["calls"]
    wanted = {
        "accepted": fates.total(),
        "settled": fates[Fate.SETTLED],
        "pending": 0,
        "parked": fates[Fate.PARKED],
        "dead": sum(fates[fate] for fate in DEAD),
        "discarded": 0,
        "erased": 0,
    }
    if ledger != wanted:
        yield f"the ledger says {ledger}, sent was {wanted}"
    reasons = {fate.value: fates[fate] for fate in DEAD if fates[fate]}
    if record.health["dead_letters"] != reasons:
        yield f"dead letters {record.health['dead_letters']}, sent was {reasons}"
    if left := {name: calls[name] for name in ("pending", "dead", "discarded") if calls[name]}:
        yield f"calls {left} that should have been delivered"


def expected(record: Record) -> Counter[Fate]:
    """Return how many messages should have ended how."""
    fates = Counter(fate for sent in record.book.values() for fate in sent.letter.fates)
    waiting = sum(len(home.must) for home in record.town.newcomers[: record.town.moved_in])
    fates[Fate.PARKED] -= waiting
    fates[Fate.SETTLED] += waiting
    return fates


def _letters(record: Record) -> Iterator[str]:
    """Yield messages that are dead for another reason than they should be, by the ids of the answers."""
    reasons = {letter["message_id"]: letter["reason"] for letter in record.dead_letters}
    for sent in record.book.values():
        for answer in sent.answers:
            for number, fate in zip(answer.ids, sent.letter.fates, strict=True) if answer.ids else ():
                found = reasons.get(number)
                if found != (fate.value if fate in DEAD else None):
                    yield f"message {number} of {sent.letter.id} should be {fate}, and is {found or 'no dead letter'}"


# ---- events ---------------------------------------------------------------------------------------------------------


def _arrivals(record: Record) -> Iterator[str]:
    """Yield what is missing or out of order at MOOST."""
    arrived: dict[str, list[int]] = defaultdict(list)
    for event in record.said("event"):
        if event["type"] == COUNTED:
            arrived[event["customerBuildingId"]].append(_number(event))
    for home in record.town.counted:
        found = list(dict.fromkeys(arrived.pop(home.user, [])))
        yield from _in_order(home, found)
    if arrived:
        yield f"events of buildings that nobody lives in: {sorted(arrived)[:SOME]}"


def _in_order(home: Home, found: Sequence[int]) -> Iterator[str]:
    if missing := sorted(set(home.must) - set(found)):
        yield f"{home.user}: {len(missing)} of {len(home.must)} values never came, such as {missing[:SOME]}"
    if wrong := [pair for pair in pairwise(found) if pair[0] > pair[1]]:
        yield f"{home.user}: {len(wrong)} values came before older ones, such as {wrong[:SOME]}"


def _number(event: Entry) -> int:
    number: int = round(event["value"] * 1000)
    return number


def _key(event: Entry) -> tuple[object, ...]:
    """Return what tells an event from all others: of a counted one that is its number."""
    mark = _number(event) if event["type"] == COUNTED else event["timestamp"]
    return event["customerBuildingId"], event["deviceId"], event["type"], mark


def repeats(record: Record) -> dict[tuple[object, ...], list[Entry]]:
    """Return the events that came more than once."""
    found: dict[tuple[object, ...], list[Entry]] = defaultdict(list)
    for event in record.said("event"):
        found[_key(event)].append({name: event[name] for name in event if name not in {"received_at", "lane"}})
    return {key: events for key, events in found.items() if len(events) > 1}


def _once(record: Record) -> Iterator[str]:
    """Yield where something came again that should not have, or not as it was."""
    twice = repeats(record)
    for events in twice.values():
        if any(event != events[0] for event in events):
            yield f"came again as something else: {events[:2]}"
    again = sum(len(events) - 1 for key, events in twice.items() if key[2] == COUNTED)
    doubts = in_doubt(record)
    if again > doubts:
        yield f"{again} values came again, though only {doubts} calls were in doubt"


def in_doubt(record: Record) -> int:
    """Return how many calls were in doubt."""
    return int(record.health["calls"]["in_doubt"])


def _buildings(record: Record) -> Iterator[str]:
    """Yield the buildings that MOOST heard of in the wrong order: building, device list, events."""
    made: set[str] = set()
    listed: set[str] = set()
    wrong: set[str] = set()
    for what, entry in record.journal:
        if what == "event" and entry["customerBuildingId"] not in listed:
            wrong.add(f"{entry['customerBuildingId']}: an event before the device list")
        if what != "call" or entry["status"] not in (200, 201, 409):
            continue
        match entry["method"], entry["template"]:
            case "POST", "/buildings/v1":
                made.add(entry["body"]["customerBuildingId"])
            case "PUT", "/buildings/{customerBuildingId}/devices/v1":
                name = entry["path"].split("/")[2]
                listed.add(name)
                if name not in made:
                    wrong.add(f"{name}: the device list before the building")
            case _:
                pass
    yield from sorted(wrong)[:SOME]


def _questionable(record: Record) -> Iterator[str]:
    """Yield what MOOST would have refused, or wondered about."""
    found = Counter(entry["rule"] for entry in record.said("violation"))
    if found:
        first = next(record.said("violation"))
        yield f"questionable: {dict(found)}, such as {first}"
    odd = Counter(
        (entry["method"], entry["template"], entry["status"])
        for entry in record.said("call")
        if entry["status"] in (400, 404, 405)
    )
    event = ("POST", "/events/v1", 400)
    if odd.pop(event, 0) + odd.pop(("POST", "/events/historical/v1", 400), 0) != record.refused:
        yield f"MOOST refused events that it was not told to refuse ({record.refused} times it was)"
    if odd:
        yield f"MOOST refused {dict(odd)}"
