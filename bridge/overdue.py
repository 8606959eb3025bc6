"""Dead letters do not stay for ever: the oldest are given up, told, counted, and written to a file before.

Rules:
- A letter goes when it is older than `store.dead_retention`. Where dead letters take more than `store.dead_share` of
  the greatest size, the oldest of the subscription that holds most of them go.
- A letter goes only after it stands in `store.dead_export`, fsynced. Where that cannot be written nothing goes; then
  what is dead counts for the share of its subscription. After a kill in between, or with several replicas, a letter may
  stand there twice.
- What waits for MOOST or for an operator's hand never goes (`store.letters.KEPT`).
- `forget` does not reach into the file.
"""

import asyncio
import base64
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Final

from bridge import logs
from bridge.config.models import StoreSettings
from bridge.limits import Limit, LimitCounts
from bridge.metrics import Metrics
from bridge.repeated import Digest, Outage
from bridge.store.desk import DeadLetter, Desk
from bridge.store.port import Census, Store, StoreUnavailable
from bridge.store.shares import message_bytes

LOOK_S: Final = 10.0
PAGE: Final = 50  # letters read at a time: each may be as large as a body
MOST_PAGES: Final = 20  # at a look
MOST_BYTES: Final = 4 * 2**20  # of bodies written to the file at once, one aside

_log = logs.logger("dead_letters")


class Overdue:
    """Gives dead letters up, in one process or in several that share a store."""

    def __init__(
        self,
        store: Store,
        desk: Desk,
        settings: StoreSettings,
        metrics: Metrics,
        limits: LimitCounts,
        clocks: Sequence[Callable[[], datetime]],
    ) -> None:
        """Prepare; of several clocks the one that is behind counts."""
        self._store = store
        self._desk = desk
        self._settings = settings
        self._metrics = metrics
        self._limits = limits
        self._clocks = clocks
        self._look_at = 0.0
        self._digest = Digest(_log, "dead_letters_given_up", "cause", "subscription")
        self._outage = Outage(_log, "dead_export_failed", "dead_export_works")

    def reload(self, settings: StoreSettings) -> None:
        """Use other settings from the next look on."""
        self._settings = settings

    async def look(self) -> None:
        """Give up what is overdue, now and then; what a look leaves is the next one's."""
        self._digest.tell()
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK_S
        with suppress(StoreUnavailable):
            pages = 0
            while pages < MOST_PAGES and await self._step():
                pages += 1

    async def _step(self) -> bool:
        """Give up a page of letters; return whether there may be more."""
        now = min(clock() for clock in self._clocks)
        old = await self._desk.oldest_letters(before=now - self._settings.dead_retention, limit=PAGE)
        if old:
            return await self._give_up(_some(old), "retention", now)
        census = await self._store.census()
        excess = _dead(census) - self._settings.dead_share * self._settings.max_size
        if excess <= 0:
            return False
        for name in sorted(census.shares, key=lambda name: census.shares[name].dead, reverse=True):
            page = await self._desk.oldest_letters(subscription=name, limit=PAGE)
            if page:
                return await self._give_up(_some(_until(page, excess)), "share", now)
        return False

    async def _give_up(self, letters: Sequence[DeadLetter], cause: str, now: datetime) -> bool:
        if not await self._exported(letters):
            return False
        await self._desk.discard([letter.id for letter in letters], now)
        self._metrics.dead_letters_given_up.labels(cause=cause).inc(len(letters))
        for letter in letters:
            self._digest.note(cause, letter.subscription or "")
            if cause == "share":
                self._limits.reached(Limit.DEAD_SHARE, letter.subscription or "")
        return True

    async def _exported(self, letters: Sequence[DeadLetter]) -> bool:
        """Append letters to the file that the settings name; return whether they may go."""
        path = self._settings.dead_export
        if not path:
            return True
        try:
            await asyncio.to_thread(append, Path(path), letters)
        except OSError as why:
            self._outage.met("overdue", why.strerror or type(why).__name__)
            return False
        self._outage.over("overdue")
        return True


def append(path: Path, letters: Sequence[DeadLetter]) -> None:
    """Append letters to a file as JSON lines, for nobody else to read; returns after they are fsynced."""
    lines = "".join(json.dumps(_line(letter), ensure_ascii=False) + "\n" for letter in letters)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        data = lines.encode(errors="backslashreplace")
        while data:
            data = data[os.write(file, data) :]
        os.fsync(file)
    finally:
        os.close(file)


def _line(letter: DeadLetter) -> dict[str, object]:
    """Return a letter as it is written; a body that is no text is base64."""
    try:
        body = {"body": letter.body.decode()}
    except UnicodeDecodeError:
        body = {"body_base64": base64.b64encode(letter.body).decode()}
    return {
        "id": letter.id,
        "at": letter.at.isoformat(),
        "reason": letter.reason.value,
        "detail": letter.detail,
        "subscription": letter.subscription,
        "topic": letter.topic,
        "building": letter.building,
        "user": letter.user,
        "message_id": letter.message_id,
        "call_id": letter.call_id,
        "answer": letter.answer,
        **body,
    }


def _dead(census: Census) -> int:
    return sum(share.dead for share in census.shares.values())


def _until(letters: Sequence[DeadLetter], size: float) -> Sequence[DeadLetter]:
    """Return the first letters that hold a size together [bytes]."""
    for place, letter in enumerate(letters, 1):
        size -= message_bytes(len(letter.body))
        if size <= 0:
            return letters[:place]
    return letters


def _some(letters: Sequence[DeadLetter]) -> Sequence[DeadLetter]:
    """Return as many letters as are written at once."""
    room = MOST_BYTES
    for place, letter in enumerate(letters, 1):
        room -= len(letter.body)
        if room <= 0:
            return letters[:place]
    return letters
