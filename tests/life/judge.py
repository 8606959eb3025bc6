"""Judging what a sandbox received of a day: every event once, on the right lane, the accounts in order.

Rules:
- An event that came twice is a fault on a day without trouble; after a kill it may, but not with two values.
- No event takes the live lane when it is older than `live_max_age`; what an outage held up so long arrives as history.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tests.life.clock import Clock
from tests.life.ideal import Ideal, Name, matched, table, total
from tests.life.stage import assert_identities

LIVE_MAX_AGE: Final = timedelta(minutes=30)  # the bridge's default
ON_THE_WIRE_S: Final = 5.0  # longest real time from the choice of the lane to the receipt that is believed

Event = Mapping[str, Any]
Outage = tuple[datetime, datetime]


@dataclass(frozen=True, kw_only=True)
class Record:
    """All that is known of a day when it is over."""

    events: Sequence[Event]  # as the sandbox received them
    counts: Mapping[str, Any]  # the sandbox's
    health: Mapping[str, Any]  # the bridge's
    clock: Clock
    outage: Outage | None  # from when to when nobody answered the bridge, which was also killed
    ideal: Ideal

    def age(self, event: Event) -> timedelta:
        """Return how old an event was at its receipt."""
        return self.clock.at(event["received_at"]) - stamp(event)

    @property
    def owed(self) -> list[Event]:
        """Return the events of the outage's time that arrived once it was over."""
        if self.outage is None:
            return []
        began, ended = self.outage
        return [event for event in self.events if began <= stamp(event) < ended <= self._arrived(event)]

    def _arrived(self, event: Event) -> datetime:
        return self.clock.at(event["received_at"])


def stamp(event: Event) -> datetime:
    """Return the time an event is about."""
    return datetime.fromtimestamp(event["timestamp"], UTC)


def name(event: Event) -> Name:
    """Return what tells an event from all others."""
    return event["customerBuildingId"], event["deviceId"], event["type"], event["timestamp"]


# ---- what should not be ---------------------------------------------------------------------------------------------


def faults(record: Record) -> Iterator[str]:
    """Yield what should not be, a sentence each."""
    assert_identities(record.health)
    if record.health["dead_letters"] or record.health["calls"]["dead"]:
        yield f"dead letters {record.health['dead_letters']}, dead calls {record.health['calls']['dead']}"
    if record.counts["violations"]:
        yield f"questionable {record.counts['violations']}"
    yield from _repeats(record)
    yield from _lanes(record)
    for type_, match in _matched(record).items():
        if match.examples:
            yield (
                f"{type_}: {match.missing} missing, {match.unexpected} unexpected, {match.differing} differing, "
                f"such as {match.examples[0]}"
            )


def _repeats(record: Record) -> Iterator[str]:
    """Yield what is wrong about events that came more than once."""
    values: dict[Name, list[float]] = defaultdict(list)
    for event in record.events:
        values[name(event)].append(event["value"])
    twice = {one: found for one, found in values.items() if len(found) > 1}
    if twice and record.outage is None:
        yield f"came twice: {len(twice)}, such as {next(iter(twice.items()))}"
    differing = {one: found for one, found in twice.items() if len(set(found)) > 1}
    if differing:
        yield f"came with two values: {len(differing)}, such as {next(iter(differing.items()))}"


def _lanes(record: Record) -> Iterator[str]:
    """Yield what is wrong about the lanes."""
    limit = LIVE_MAX_AGE + timedelta(seconds=ON_THE_WIRE_S * record.clock.speed)
    late = [event for event in record.events if event["lane"] == "live" and record.age(event) > limit]
    if late:
        yield f"live though older than {LIVE_MAX_AGE}: {len(late)}, such as {late[0]}"
    if record.outage is None:
        return
    old = [event for event in record.owed if stamp(event) < record.outage[1] - LIVE_MAX_AGE]
    if not old:
        yield "nothing old was owed from the outage"
    if wrong := [event for event in old if event["lane"] != "historical"]:
        yield f"old, from the outage and yet live: {len(wrong)}, such as {wrong[0]}"


def _matched(record: Record) -> Mapping[str, Any]:
    return matched(record.ideal, {name(event): event["value"] for event in record.events})


# ---- for people -----------------------------------------------------------------------------------------------------


def remarks(record: Record) -> Iterator[str]:
    """Yield what a person wants to know besides."""
    found = _matched(record)
    yield f"against a bridge to which nothing happens, events of all types by slot:\n{table(found)}".rstrip()
    yield ", ".join(f"{word} {count}" for word, count in total(found).items())
    lanes = record.counts["events"]
    twice = len(record.events) - len({name(event) for event in record.events})
    oldest = max((record.age(event) for event in record.events if event["lane"] == "live"), default=timedelta())
    ledger = record.health["ledger"]
    yield f"messages: {ledger['accepted']} accepted, {ledger['dead']} dead"
    yield f"events: {lanes['live']} live, {lanes['historical']} historical, {twice} of them a second time"
    yield f"the oldest live event was {oldest.total_seconds() / 60:.1f} simulated minutes old"
    if record.outage is not None:
        late = sum(event["lane"] == "historical" for event in record.owed)
        yield f"of the outage: {late} events as history, {len(record.owed) - late} still young enough for live"
