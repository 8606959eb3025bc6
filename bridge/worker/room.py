"""The loop: claims messages, has a `Step` made of them, and writes it in one transaction.

Rules:
- Messages are processed in order of acceptance; a crash half-way leaves nothing behind (one transaction a batch).
- A batch that raises is taken item by item; the item that raises again is a dead letter `fault` (R12).
- After an end without a word (a kill, no memory) what was in hand comes from the store one by one. A message that was
  in hand alone at another such end is a dead letter `fault`: it may need more memory than there is, at every start.
- A building that somebody else changed meanwhile makes the batch start over from what is stored now; a message that
  was erased meanwhile (GDPR) makes it begin with a new claim.
- The event loop is never held for more than a slice of a few milliseconds. A batch ends after a tenth of a second:
  what is left of it is claimed again, after what has come before it meanwhile.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from bridge import errors, logs
from bridge.core.effects import Note
from bridge.core.identity import building_id
from bridge.core.messages import Inbound, Tombstone, Unreadable
from bridge.core.model import Residence
from bridge.core.routing import device_of
from bridge.core.rules import Rules, Unknown
from bridge.core.vocabulary import DeadReason, DeviceKey
from bridge.findings import Findings
from bridge.limits import Limit
from bridge.metrics import Metrics
from bridge.repeated import Digest, Outage, store_outage
from bridge.store.port import Loaded, Outdated, Pending, Store, StoreBroken, StoreUnavailable, Work
from bridge.worker import trial
from bridge.worker.step import Decoded, Step, read

BATCH: Final = 256  # messages a transaction, some 10 ms of the store
PACE_S: Final = 0.05  # least time from one batch to the next, where messages come fast: a batch costs 1 ms by itself
PACE_FROM: Final = 8  # messages of a batch from which on they come fast
SLICE_S: Final = 0.002  # longest computing without letting the door breathe
TURN_S: Final = 0.1  # longest computing for a batch; half of it at most for reading the messages
ROWS_AT_ONCE: Final = 1_000  # of the directory, that users of one transaction have together
IDLE_S: Final = 0.5  # how often to look for messages that another process put back
WAIT_S: Final = 1.0  # pause while the store cannot serve
MOST_ENDS: Final = 2  # of processes at which a message was in hand alone; beyond it is not even tried
MOST_CONFLICTS: Final = 20

_ENDED_TWICE: Final = "the process ended twice with this message in hand: it may need more memory than there is"
_CONTENDED: Final = "a building changed under the worker again and again"

_log = logs.logger("worker")


class Worker:
    """The room between inbox and outbox."""

    def __init__(  # noqa: PLR0913 - everything it lives on, named
        self,
        store: Store,
        rules: Rules,
        metrics: Metrics,
        *,
        queued: Callable[[], None],
        now: Callable[[], datetime],
        turns: Callable[[], datetime] | None = None,
        reached: Callable[[Limit, str, int], None] = lambda _limit, _payer, _count: None,
        outage: Outage | None = None,
    ) -> None:
        """Prepare; `queued` tells the sender that there is something to deliver, `reached` counts reached bounds.

        `turns` is the clock that the sender goes by, where `now` is a simulated one.
        """
        self._store = store
        self._rules = rules
        self._changed_rules: Rules | None = None  # to be used from the next batch on
        self._metrics = metrics
        self.faults = Digest(_log, "worker_faulted", "what", "fault", error=True)
        self._outage = outage or store_outage()
        self._queued = queued  # tells the sender that there is something to deliver
        self._now = now
        self._turns = turns or now
        self._reached = reached
        self._findings = Findings(rules)
        self._careful = False  # messages are taken one by one
        self.wake = asyncio.Event()  # set by whoever accepted something

    def reload(self, rules: Rules) -> None:
        """Use other rules from the next batch on."""
        self._changed_rules = rules

    async def run(self, stop: asyncio.Event) -> None:
        """Work until told to stop; a store that cannot serve is waited for."""
        while not stop.is_set():
            began = time.perf_counter()
            if self._changed_rules is not None:
                self._rules, self._changed_rules = self._changed_rules, None
                self._findings = Findings(self._rules)
            try:
                done = await self.step()
            except StoreBroken:
                raise  # ends the process (R10)
            except StoreUnavailable as why:
                self._outage.met("worker", str(why))
                await _pause(stop, WAIT_S)
                continue
            self._outage.over("worker")
            if PACE_FROM <= done < BATCH:
                await asyncio.sleep(PACE_S - (time.perf_counter() - began))
            if not done:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(IDLE_S):
                        await self.wake.wait()
                self.wake.clear()

    async def step(self) -> int:
        """Process one batch; return of how many messages, or 1 for what else there was to do.

        Changed directory rows are dealt with beside the messages, some users a batch: an import changes hundreds of
        thousands. Those of a message's own user come before it, because older messages of that user may be parked.
        """
        rows, changed = await self._store.claim(BATCH)
        self._tell_of_care(any(row.ends for row in rows))
        if rows and rows[0].ends > 1 and not await self._is_innocent(rows[0]):
            _log.error("message_ended_the_process", message=rows[0].id)
            await self._bury(rows[0], _ENDED_TWICE, unread=True)
            return 1
        if not changed:
            return await self._work_off(rows)
        own = await self._changed_among(rows)
        done = 0 if own else await self._work_off(rows)
        await self._follow_all(own or changed)
        return max(1, done)

    async def _changed_among(self, rows: Sequence[Pending]) -> Sequence[str]:
        """Return the users of messages whose directory rows changed."""
        inbound = []
        for row in rows:
            with contextlib.suppress(Exception):  # what cannot be read is nobody's
                message = read(row, self._rules)
                if not isinstance(message, Tombstone | Unreadable):
                    inbound.append(message)
        if not inbound:
            return ()
        homes = (await self._store.load((), sorted(self._devices(inbound)), ())).homes
        users = {message.user for message in inbound if message.user is not None}
        return await self._store.changed_among(sorted(users | {home.user for home in homes.values()}))

    async def _work_off(self, rows: Sequence[Pending]) -> int:
        """Process claimed messages, together or if that fails one by one; return how many there were."""
        if not rows:
            return 0
        try:
            return await self._process(rows)
        except StoreUnavailable:
            raise
        except Outdated:
            return 1  # a message was erased since it was claimed: claim again
        except Exception as fault:  # noqa: BLE001 - one bad item must not hold up the rest (R12)
            self.faults.note("batch", errors.place_of(fault))
            await self._one_by_one(rows)
        return len(rows)

    def _tell_of_care(self, careful: bool) -> None:  # noqa: FBT001 - what it is now
        """Say it when messages begin to come one by one, and when that is over."""
        if careful is not self._careful:
            _log.warning("one_by_one_began" if careful else "one_by_one_ended")
        self._careful = careful

    async def _one_by_one(self, rows: Sequence[Pending]) -> None:
        """Process a failed batch message by message; the culprit is buried with the place of its fault."""
        for row in rows:
            try:
                await self._process([row])
            except StoreUnavailable:
                raise
            except Outdated:
                continue
            except Exception as fault:  # noqa: BLE001 - isolates the item; it becomes a dead letter
                detail = errors.place_of(fault)
                self.faults.note("message", detail)
                await self._bury(row, detail)

    async def _is_innocent(self, row: Pending) -> bool:
        """Tell whether the process lives through a message that was in hand when it ended, as a copy of it shows."""
        if row.ends > MOST_ENDS or not await trial.survives(lambda: read(row, self._rules)):
            return False
        message = read(row, self._rules)
        step = Step(await self._load([message]), self._rules, self._now())

        def rest() -> None:
            step.take(row, message)
            step.work()

        return await trial.survives(rest)

    async def _bury(self, row: Pending, detail: str, *, unread: bool = False) -> None:
        """Take a message out of the flow that fails on a bug of ours, with its user where that can still be read."""
        user = None if unread else self._user_of(row)
        users = {} if user is None else {row.id: user}
        with contextlib.suppress(Outdated):
            await self._store.commit(Work(now=self._now(), dead=[(row.id, DeadReason.FAULT, detail)], users=users))
            self._metrics.messages_dead.inc()
            self._metrics.dead_messages.append(row.id)

    def _user_of(self, row: Pending) -> str | None:
        """Return whose a message is, where that can be read; it may be the reading that fails."""
        with contextlib.suppress(Exception):
            message = read(row, self._rules)
            if not isinstance(message, Tombstone | Unreadable):
                return message.user
        return None

    async def _process(self, rows: Sequence[Pending]) -> int:
        """Decode, load, reduce and commit the first rows, as many as fit into a turn; return how many they were.

        Starts over where a building has moved meanwhile.
        """
        breath = _Breath()
        decoded: list[tuple[Pending, Decoded]] = []
        for row in rows:
            if decoded and breath.is_short:
                await breath.take()
                if breath.spent_s > TURN_S / 2:
                    break
            decoded.append((row, read(row, self._rules)))
        for _ in range(MOST_CONFLICTS):
            step = Step(await self._load(message for _, message in decoded), self._rules, self._now())
            ends_s, done = breath.spent_s + TURN_S / 2, 0
            for row, message in decoded:
                if done and breath.is_short:
                    await breath.take()
                    if breath.spent_s > ends_s:
                        break
                step.take(row, message)
                done += 1
            if not await self._store.commit(step.work(turn=self._turns())):
                self._count(step)
                return done
        raise StoreUnavailable(_CONTENDED)

    async def _load(self, messages: Iterable[Decoded]) -> Loaded:
        """Read everything a batch needs in one go."""
        inbound = [message for message in messages if not isinstance(message, Tombstone | Unreadable)]
        users = {message.user for message in inbound if message.user is not None}
        buildings = {building_id(user) for user in users} if self._rules.unknown is Unknown.CREATE else set()
        devices = self._devices(inbound)
        loaded = await self._store.load(sorted(users), sorted(devices), sorted(buildings))
        owners = {home.user for home in loaded.homes.values()} - users
        if owners:  # a message names no user, or another than its device has so far
            loaded = await self._store.load(sorted(users | owners), sorted(devices), sorted(buildings))
        return loaded

    def _devices(self, inbound: Iterable[Inbound]) -> set[DeviceKey]:
        """Return the devices that messages are about, and what these were called before."""
        devices = {device_of(message) for message in inbound}
        if self._rules.heirs:
            devices |= {old for device in devices for old in self._rules.former(device)}
        return devices

    def _count(self, step: Step) -> None:
        """Count a committed step, tell what it found, and wake the sender where it queued something."""
        if logs.debugging():
            _log.debug("batch_committed", settled=len(step.settled), dead=len(step.dead), calls=len(step.calls))
        self._metrics.messages_settled.inc(len(step.settled))
        if step.dead:
            self._metrics.messages_dead.inc(len(step.dead))
            self._metrics.dead_messages.extend(number for number, *_ in step.dead)
        late = sum(note.name == "late_sample" for _, note in step.notes)
        if late:
            self._metrics.late_samples.inc(late)
        for before, after in step.changes():
            self._findings.tell(before, after)
        for (limit, payer), count in step.limits.items():
            self._reached(Limit(limit), payer, count)
        if step.calls:
            self._queued()

    async def _follow_all(self, users: Sequence[str]) -> None:
        """Deal with changed directory rows: of all users in one transaction, as long as no bug of ours prevents that.

        An import changes hundreds of thousands of users, and the messages of everybody wait meanwhile.
        """
        try:
            await self._readdress(users)
        except StoreUnavailable:
            raise
        except Exception:  # noqa: BLE001 - one bad user must not hold up the rest (R12)
            for user in users:
                await self._follow(user)

    async def _follow(self, user: str) -> None:
        """Deal with a user's changed directory rows; if a bug of ours fails on them, its messages flow all the same."""
        try:
            await self._readdress([user])
        except StoreUnavailable:
            raise
        except Exception as fault:  # noqa: BLE001 - one user must not hold up the rest (R12)
            detail = errors.place_of(fault)
            _log.error("directory_faulted", fault=detail)
            note = Note(name="directory_fault", detail=detail)
            await self._store.commit(Work(now=self._now(), unparked=[user], notes=[(0, note)]))

    async def _readdress(self, users: Sequence[str]) -> None:
        """Bring the buildings of users in line with their changed directory rows, then free their parked messages.

        As many users a transaction as have `ROWS_AT_ONCE` rows together: a building may be shared by hundreds.
        """
        changes: list[_Changed] = []
        for user in users:
            homes, directory = await self._store.homes_of(user), await self._store.directory_of(user)
            changes.append(_Changed(user=user, homes=sorted(homes), directory=directory))
            if sum(change.rows for change in changes) > ROWS_AT_ONCE:
                await self._write(changes)
                changes = []
        if changes:
            await self._write(changes)

    async def _write(self, changes: Sequence["_Changed"]) -> None:
        """Write what the changed rows of some users lead to."""
        breath = _Breath()
        users = [change.user for change in changes]
        devices = sorted({device for change in changes for device in change.homes})
        buildings = sorted({name for change in changes for name in change.directory})
        for _ in range(MOST_CONFLICTS):
            step = Step(await self._store.load(users, devices, buildings), self._rules, self._now())
            for change in changes:
                if breath.is_short:
                    await breath.take()
                step.readdress(change.user, change.homes, change.directory)
            if not await self._store.commit(step.work(unparked=users, turn=self._turns())):
                self._count(step)
                return
        raise StoreUnavailable(_CONTENDED)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Changed:
    """A user whose directory rows changed, with what that may concern."""

    user: str
    homes: Sequence[DeviceKey]
    directory: Mapping[str, Sequence[Residence]]

    @property
    def rows(self) -> int:
        """Return how many rows of the directory are concerned."""
        return sum(len(rows) for rows in self.directory.values())


class _Breath:
    """Lets the event loop run once a slice of computing has passed."""

    __slots__ = ("_since", "_since_s", "spent_s")

    def __init__(self) -> None:
        self.spent_s = 0.0  # of the processor, up to the last breath
        self._begin()

    def _begin(self) -> None:
        self._since = time.perf_counter()
        self._since_s = time.thread_time()

    @property
    def is_short(self) -> bool:
        """Return whether the slice is used up."""
        return time.perf_counter() - self._since > SLICE_S

    async def take(self) -> None:
        """Give way."""
        self.spent_s += time.thread_time() - self._since_s
        await asyncio.sleep(0)
        self._begin()


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    """Wait, but not longer than until told to stop."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
