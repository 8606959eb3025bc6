"""Everything the look-alike received, readable as JSON.

Rules:
- Calls, events and violations share one running index, so one `since` pages through all three.
- With `keep` only the last so many of each are held; counts are always exact.
- What is remembered goes into the journal too, if there is one; `recall` puts it back after a restart.
"""

from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from bridge.sandbox.journal import Journal

Entry = dict[str, Any]


class Received:
    """The record of what came in."""

    def __init__(self, keep: int | None, journal: Journal) -> None:
        """Hold the last `keep` entries of each kind, or all."""
        self._keep = keep
        self._journal = journal
        self._forget()

    def empty(self) -> None:
        """Forget everything, counts included."""
        self._journal.empty()
        self._forget()

    def recall(self, what: str, entry: Entry) -> None:
        """Remember again what the journal holds; what it says of other things is not meant."""
        match what:
            case "event":
                self._keep_event(entry)
            case "violation":
                self._keep_violation(entry)
            case "call":
                self._keep_call(entry)
            case _:
                pass

    def _forget(self) -> None:
        self.next = 0
        self.events: deque[Entry] = deque(maxlen=self._keep)
        self.calls: deque[Entry] = deque(maxlen=self._keep)
        self.violations: deque[Entry] = deque(maxlen=self._keep)
        self._events: Counter[str] = Counter()
        self._types: Counter[str] = Counter()
        self._calls: Counter[tuple[str, str, int | None]] = Counter()
        self._violations: Counter[str] = Counter()

    def event(self, event: Mapping[str, Any], *, lane: str, at: float) -> None:
        """Remember an event that was stored."""
        entry = {**event, "lane": lane, "received_at": at}
        self._journal.write("event", entry)
        self._keep_event(entry)

    def violation(self, rule: str, detail: str, *, building: str, at: float) -> None:
        """Remember something questionable."""
        entry = {"rule": rule, "detail": detail, "building": building, "at": at}
        self._journal.write("violation", entry)
        self._keep_violation(entry)

    def call(self, entry: Entry, template: str) -> None:
        """Remember a call; its status is None when the connection was dropped."""
        entry["template"] = template
        self._journal.write("call", entry)
        self._keep_call(entry)

    def _keep_event(self, entry: Entry) -> None:
        self.events.append({**entry, "index": self._index()})
        self._events[entry["lane"]] += 1
        self._types[entry["type"]] += 1

    def _keep_violation(self, entry: Entry) -> None:
        self.violations.append({**entry, "index": self._index()})
        self._violations[entry["rule"]] += 1

    def _keep_call(self, entry: Entry) -> None:
        template = entry.pop("template")
        entry["index"] = self._index()
        self.calls.append(entry)
        self._calls[entry["method"], template, entry["status"]] += 1

    def counts(self) -> dict[str, Any]:
        """Return exact numbers of everything so far."""
        return {
            "events": {"live": self._events["live"], "historical": self._events["historical"]},
            "types": dict(self._types),
            "calls": {f"{method} {path} {status or 'dropped'}": n for (method, path, status), n in self._calls.items()},
            "violations": dict(self._violations),
        }

    def page(self, *, since: int, limit: int | None, building: str | None) -> dict[str, Any]:
        """Return events, calls and violations with since <= index < since + limit, and where the next page starts."""
        end = self.next if limit is None else min(self.next, since + limit)
        return {
            "events": _cut(self.events, since, end, building, "customerBuildingId"),
            "calls": [entry for entry in _cut(self.calls, since, end) if building is None or _names(entry, building)],
            "violations": _cut(self.violations, since, end, building, "building"),
            "next": end,
        }

    def _index(self) -> int:
        """Return the next number of the common count."""
        self.next += 1
        return self.next - 1


def _cut(
    entries: Collection[Entry],
    since: int,
    end: int,
    building: str | None = None,
    key: str = "building",
) -> list[Entry]:
    """Return the entries of a stretch of the index, of one building or of all."""
    return [
        entry for entry in entries if since <= entry["index"] < end and (building is None or entry[key] == building)
    ]


def _names(call: Entry, building: str) -> bool:
    """Say whether a call is about a building."""
    if f"/{building}/" in call["path"]:
        return True
    body = call["body"]
    items: Iterable[object] = body if isinstance(body, list) else (body,)
    return any(isinstance(item, dict) and item.get("customerBuildingId") == building for item in items)
