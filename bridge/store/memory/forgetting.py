"""Erasing a user from the keeper in memory."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime

from bridge.store.calls import CallState, done_before, doubt_without, redacted, size
from bridge.store.codec import Form, form
from bridge.store.desk import Erased, Forgetting, Redaction
from bridge.store.memory.rows import CallRow, Rows
from bridge.store.port import Doubt, Pending
from bridge.store.shares import PARTS


class MemoryForgetting:
    """The part of the desk that erases."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._rows = Rows()

    async def unowned(self) -> AsyncIterator[Pending]:
        """Stream the messages whose user the store does not know."""
        for number in sorted(self._rows.inbox.keys() - self._rows.owners.keys()):
            yield self._rows.message(number)

    async def owned(self, user: str) -> AsyncIterator[Sequence[int]]:
        """Stream the ids of messages that the worker found to be a user's, as one page."""
        rows = self._rows
        found = {number for named in (rows.owners, rows.parked) for number, name in named.items() if name == user}
        found |= {one.message for one in rows.letters.values() if one.user == user and one.message is not None}
        yield sorted(found)

    async def buildings_of(self, user: str, raw_users: Collection[str]) -> Sequence[str]:
        """Return the buildings that know a user."""
        rows = self._rows
        found = {row.building for row in rows.directory.values() if row.user == user}
        found |= {home.building for home in rows.homes.values() if home.user == user}
        for name, building in rows.buildings.items():
            living = (*building.state.devices.values(), *building.state.departed)
            if any(device.user == user for device in living) or set(raw_users) & set(building.state.users):
                found.add(name)
        return sorted(found)

    async def forget(self, what: Forgetting, now: Callable[[], datetime]) -> AsyncIterator[Erased]:
        """Erase."""
        yield Erased(messages=sum([self._erase_message(number) for number in set(what.messages)]))
        if what.user is not None:
            yield self._erase_user(what.user)
        if what.building is not None and what.redaction is None:
            yield self._erase_building(what.building)
        elif what.building is not None and what.redaction is not None:
            while self._lent(what.building, what.redaction, now()):  # noqa: ASYNC110 - a lease ends by itself
                await asyncio.sleep(0.01)
            yield self._redact(what.building, what.redaction)

    async def compact(self, *, gently: bool) -> bool:  # noqa: ARG002 - the promise names it
        """Nothing of it is on a disk."""
        return True

    # ---- messages and users ----

    def _erase_message(self, number: int) -> bool:
        rows, ledger = self._rows, self._rows.ledger
        arrival = rows.inbox.get(number)
        if arrival is None:
            return False
        ledger.erased_to = ledger.last_message
        letter = next((letter for letter in rows.letters.values() if letter.message == number), None)
        fate = self._fate(number)
        ledger.erase_message(fate)
        if fate in PARTS:
            rows.hold(number, out=fate)
        if letter is not None:
            ledger.erase_letter(letter.reason)
            del rows.letters[letter.id]
        ledger.again -= number in rows.again
        rows.drop(number)
        for group in (rows.pending, rows.again):
            group.discard(number)
        rows.parked.pop(number, None)
        return True

    def _fate(self, number: int) -> str:
        rows = self._rows
        if any(letter.message == number for letter in rows.letters.values()):
            return "dead"
        if number in rows.parked:
            return "parked"
        if number in rows.pending or number in rows.again:
            return "pending"
        return "discarded" if number in rows.discarded else "settled"

    def _erase_user(self, user: str) -> Erased:
        rows = self._rows
        residences = [key for key in rows.directory if key[0] == user]
        homes = [device for device, home in rows.homes.items() if home.user == user]
        for key in residences:
            del rows.directory[key]
        for device in homes:
            del rows.homes[device]
        rows.changed.pop(user, None)
        rows.left.pop(user, None)
        rows.owners = {number: name for number, name in rows.owners.items() if name != user}
        return Erased(rows=len(residences) + len(homes))

    # ---- buildings ----

    def _erase_building(self, building: str) -> Erased:
        rows, ledger = self._rows, self._rows.ledger
        calls = [row for row in rows.outbox.values() if row.call.building == building]
        letters = [letter for letter in rows.letters.values() if letter.row is not None and letter.row in calls]
        for letter in letters:
            ledger.discard_call(letter.reason)
            del rows.letters[letter.id]
        for row in calls:
            self._drop(row)
        known = rows.buildings.pop(building, None)
        if known is not None:
            ledger.flag(known.state.flags, ())
        ledger.erasures += 1
        rows.due.pop(building, None)
        rows.lanes.pop(building, None)
        rows.ticks = [one for one in rows.ticks if one[0] != building]
        rows.homes = {device: home for device, home in rows.homes.items() if home.building != building}
        return Erased(calls=len(calls), letters=len(letters), rows=int(known is not None))

    def _drop(self, row: CallRow) -> None:
        if row.owed:
            self._rows.ledger.erase_calls(row.progress.left)
            self._rows.owe(row, out=True)
        del self._rows.outbox[row.id]

    def _naming(self, building: str, what: Redaction) -> list[CallRow]:
        rows = (row for _, row in sorted(self._rows.outbox.items()))
        return [row for row in rows if row.call.building == building and redacted(row.call, what) != row.call]

    def _lent(self, building: str, what: Redaction, now: datetime) -> bool:
        lane = self._rows.lanes.get(building)
        if lane is None or lane.lent_until is None or lane.lent_until <= now:
            return False
        return any(row.owed and row.id <= lane.lent for row in self._naming(building, what))

    def _redact(self, building: str, what: Redaction) -> Erased:
        naming, letters = self._naming(building, what), self._redact_letters(building, what)
        for row in naming:
            self._redact_call(row, what)
        rows = self._rows
        rows.ticks = [(name, replace(one, state=None) if name == building else one) for name, one in rows.ticks]
        lane = self._rows.lanes.get(building)
        if lane is not None:
            for name in ("building", "devices"):
                call = getattr(lane, name)
                setattr(lane, name, None if call is None else redacted(call, what))
        return Erased(calls=len(naming), letters=letters)

    def _redact_call(self, row: CallRow, what: Redaction) -> None:
        left = redacted(row.call, what)
        if left is None:
            self._drop(row)
            return
        if row.doubt is not None:
            whole = form(row.call) is not Form.EVENTS
            row.doubt = Doubt(payload=b"", historical=False, count=1) if whole else doubt_without(row.doubt, what)
        if row.owed:
            before, done = row.progress.left, done_before(row.call, row.progress.done, what)
            row.progress = replace(row.progress, count=size(left), done=done, in_doubt=row.doubt is not None)
            self._rows.ledger.erase_calls(before - row.progress.left)
        if row.owed:
            self._rows.owe(row, out=True)
        row.call = left
        if row.owed:
            self._rows.owe(row)
        row.attempts.clear()

    def _redact_letters(self, building: str, what: Redaction) -> int:
        count = 0
        for letter in list(self._rows.letters.values()):
            if letter.row is None or letter.item is None or letter.row.call.building != building:
                continue
            left = redacted(letter.item, what)
            count += left != letter.item
            if left is None:
                self._rows.ledger.discard_call(letter.reason)
                del self._rows.letters[letter.id]
                lose(letter.row, CallState.DISCARDED)
            elif left != letter.item:
                self._rows.letters[letter.id] = replace(letter, item=left, answer="")
        return count


def lose(row: CallRow, end: CallState) -> None:
    """Take one dead item out of a row; the last one decides how a finished row ended."""
    row.progress = replace(row.progress, buried=row.progress.buried - 1)
    if row.progress.state is CallState.DEAD and not row.progress.buried:
        row.progress = replace(row.progress, state=end)
