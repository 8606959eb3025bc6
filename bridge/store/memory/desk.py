"""The desk of the keeper in memory."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import datetime

from bridge.core.effects import SendEvents
from bridge.core.model import Residence
from bridge.core.vocabulary import DeviceKey, Kind
from bridge.store.calls import CallState
from bridge.store.codec import encode_call, from_ms, to_ms
from bridge.store.desk import CallTrip, DeadFilter, DeadLetter, MessageTrip, Reach, Ticked
from bridge.store.letters import KEPT
from bridge.store.memory.forgetting import MemoryForgetting, lose
from bridge.store.memory.rows import CallRow, Letter
from bridge.store.port import Pending, Versioned
from bridge.store.residences import left


class MemoryDesk(MemoryForgetting):
    """What the commands ask."""

    async def residences(self) -> Sequence[Residence]:
        """Return the directory, by user and location; the row without location first."""
        rows = self._rows.directory
        return [rows[key] for key in sorted(rows, key=lambda key: (key[0], key[1] is not None, key[1] or ""))]

    async def write_residences(self, rows: Sequence[Residence], remove: Sequence[tuple[str, str | None]] = ()) -> int:
        """Upsert and remove rows, in this order; mark their users as changed."""
        kept, touched = self._rows.directory, 0
        for row in rows:
            before = kept.get((row.user, row.location))
            if before != row:
                kept[row.user, row.location] = row
                self._mark(row.user, before.building if before and before.building != row.building else None)
                touched += 1
        for user, location in remove:
            gone = kept.pop((user, location), None)
            if gone is not None:
                self._mark(user, gone.building)
                touched += 1
        return touched

    def _mark(self, user: str, before: str | None) -> None:
        """Mark a user as changed; `before` is the building that a row of it does not name any more."""
        self._rows.changes += 1
        self._rows.changed[user] = self._rows.changes
        if before is not None:
            self._rows.left[user] = left(self._rows.left.get(user, ()), before)

    async def building(self, building: str) -> Versioned | None:
        """Return a building's state."""
        return self._rows.buildings.get(building)

    async def flagged(self, flag: str, after: str = "", limit: int = 100) -> Sequence[str]:
        """Return the ids > after of buildings with a flag, in order."""
        found = (name for name, row in self._rows.buildings.items() if name > after and flag in row.state.flags)
        return sorted(found)[:limit]

    async def where_is(self, kind: Kind, device: str) -> Mapping[DeviceKey, str]:
        """Return where a device lives, of each subscription that has one of this kind and id."""
        homes = self._rows.homes.items()
        return {found: home.building for found, home in homes if (found.kind, found.id) == (kind, device)}

    async def dead_letters(self, which: DeadFilter, after: int = 0, limit: int = 100) -> Sequence[DeadLetter]:
        """Return dead letters with id > after, in order."""
        letters = (self._letter(letter) for number, letter in sorted(self._rows.letters.items()) if number > after)
        return [letter for letter in letters if _fits(letter, which)][:limit]

    async def oldest_letters(
        self, *, before: datetime | None = None, subscription: str | None = None, limit: int = 100
    ) -> Sequence[DeadLetter]:
        """Return the oldest dead letters that may be given up."""
        letters = [self._letter(each) for each in self._rows.letters.values() if each.reason not in KEPT]
        found = [
            each
            for each in sorted(letters, key=lambda each: (each.at, each.id))
            if (before is None or each.at < before)
            and (subscription is None or (each.message_id is not None and each.subscription == subscription))
        ]
        return found[:limit]

    async def retry(self, ids: Sequence[int], now: datetime) -> int:
        """Put dead letters back into the flow."""
        letters = self._take(ids)
        for letter in letters:
            if letter.message is not None:
                self._rows.ledger.revive_message(letter.reason)
                self._rows.ledger.again += 1
                self._rows.hold(letter.message, out="dead", into="pending")
                self._rows.again.add(letter.message)
            elif letter.row is not None and letter.item is not None:
                self._rows.ledger.revive_call(letter.reason)
                self._rows.queue_again(letter.item, letter.row.cause, letter.row.line.subscription, now)
                lose(letter.row, CallState.RETRIED)
        return len(letters)

    async def discard(self, ids: Sequence[int], now: datetime) -> int:  # noqa: ARG002 - the promise names it
        """Give dead letters up for good."""
        letters = self._take(ids)
        for letter in letters:
            if letter.message is not None:
                self._rows.ledger.discard_message(letter.reason)
                self._rows.discarded.add(letter.message)
                self._rows.hold(letter.message, out="dead")
            elif letter.row is not None:
                self._rows.ledger.discard_call(letter.reason)
                lose(letter.row, CallState.DISCARDED)
        return len(letters)

    def _take(self, ids: Sequence[int]) -> list[Letter]:
        return [self._rows.letters.pop(number) for number in sorted(set(ids)) if number in self._rows.letters]

    async def trip(self, message_id: int) -> MessageTrip | None:
        """Return the trip of one message."""
        if message_id not in self._rows.inbox:
            return None
        message = self._rows.message(message_id)
        calls = [_trip(row) for _, row in sorted(self._rows.outbox.items()) if row.cause == message_id]
        dead = next((letter for letter in self._rows.letters.values() if letter.message == message_id), None)
        return MessageTrip(
            id=message_id,
            subscription=message.subscription,
            topic=message.topic,
            body=message.body,
            received=message.received,
            state=self._state(message_id),
            building=calls[0].call.building if calls else None,
            notes=[note for number, note in self._rows.notes if number == message_id],
            calls=calls,
            dead=None if dead is None else self._letter(dead),
        )

    def _state(self, number: int) -> str:
        rows = self._rows
        if number in rows.pending or number in rows.again:
            return "pending"
        if number in rows.parked:
            return "parked"
        if number in rows.discarded:
            return "discarded"
        return "dead" if any(letter.message == number for letter in rows.letters.values()) else "settled"

    async def raw(self, since: datetime | None, until: datetime | None) -> AsyncIterator[Pending]:
        """Stream stored raw messages received in [since, until), in order of acceptance."""
        for number in sorted(self._rows.inbox):
            message = self._rows.message(number)
            if (since is None or message.received >= since) and (until is None or message.received < until):
                yield message

    async def reach(self) -> Reach:
        """Return how far back messages and calls are complete."""
        return self._rows.ledger.reach(self._rows.cursor())

    async def settled(self, after: int, limit: int = 100) -> Sequence[Pending]:
        """Return settled messages with id > after, in order."""
        end = self._rows.cursor()
        found = [n for n in sorted(self._rows.inbox) if after < n <= end and self._state(n) == "settled"]
        return [self._rows.message(number) for number in found[:limit]]

    async def of_users(self, users: Collection[str]) -> Sequence[int]:
        """Return the ids of the settled messages of some users, in order."""
        return [n for n, user in sorted(self._rows.owners.items()) if user in users and self._state(n) == "settled"]

    async def messages(self, ids: Sequence[int]) -> Sequence[Pending]:
        """Return the messages with these ids that are still there, in order."""
        return [self._rows.message(number) for number in sorted(set(ids)) if number in self._rows.inbox]

    async def ticks(self, building: str) -> Sequence[Ticked]:
        """Return the remembered ticks of a building, in order."""
        return [ticked for name, ticked in self._rows.ticks if name == building]

    async def event_calls(self, building: str, after: int = 0, limit: int = 100) -> Sequence[CallTrip]:
        """Return the calls with events of a building that are remembered, with id > after, in order."""
        rows = (row for number, row in sorted(self._rows.outbox.items()) if number > after)
        found = [row for row in rows if isinstance(row.call, SendEvents) and row.call.building == building]
        return [_trip(row) for row in found[:limit]]

    async def verify(self) -> Sequence[str]:
        """Check the ledger against the rows."""
        rows, ledger = self._rows, self._rows.ledger
        return ledger.problems() + ledger.differences(rows.counted()) + ledger.misheld(rows.held())

    def _letter(self, letter: Letter) -> DeadLetter:
        cause = letter.row.cause if letter.row is not None else letter.message
        message = self._rows.message(cause) if cause in self._rows.inbox else None
        item = b"" if letter.item is None else encode_call(letter.item)
        return DeadLetter(
            id=letter.id,
            reason=letter.reason,
            detail=letter.detail,
            at=from_ms(to_ms(letter.at)),
            subscription=None if message is None else message.subscription,
            topic=None if message is None else message.topic,
            building=None if letter.row is None else letter.row.call.building,
            user=letter.user,
            body=message.body if letter.row is None and message is not None else item,
            answer=letter.answer,
            message_id=letter.message,
            call_id=None if letter.row is None else letter.row.id,
        )


def _trip(row: CallRow) -> CallTrip:
    state = "in doubt" if row.owed and row.doubt is not None else row.progress.state.value
    return CallTrip(
        id=row.id,
        call=row.call,
        state=state,
        queued=row.queued,
        settled=row.settled,
        attempts=tuple(row.attempts),
        cause=row.cause,
    )


def _fits(letter: DeadLetter, which: DeadFilter) -> bool:
    return (
        (which.ids is None or letter.id in which.ids)
        and which.reason in (None, letter.reason)
        and which.subscription in (None, letter.subscription)
        and which.building in (None, letter.building)
        and (which.since is None or letter.at >= which.since)
        and (which.until is None or letter.at < which.until)
    )
