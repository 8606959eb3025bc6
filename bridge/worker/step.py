"""One batch on its way through the core: where each message belongs, what it changes, what is owed then (M1).

Rules:
- Nothing here waits or writes: a step is made from what was loaded, and says what to store (`work`).
- A device lives in one building; it leaves the old one before it enters the new one (M1.6).
- A building that gets many devices in one batch is listed once.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import assert_never

from bridge.core.bounds import DEVICES, LIMIT_REACHED, overflowed, refusal
from bridge.core.copying import replace
from bridge.core.effects import Bury, ChangeBuilding, CreateBuilding, Effect, Note, Park, PutDevices, SendEvents
from bridge.core.inheritance import inherited
from bridge.core.messages import (
    Forgotten,
    Inbound,
    Message,
    Moved,
    Prices,
    Readdressed,
    Report,
    Tick,
    Tombstone,
    Unreadable,
)
from bridge.core.model import Building, Device, Residence, Slice, identity_of, key, name_of
from bridge.core.order import Time
from bridge.core.reduce import reduce
from bridge.core.report import ignored
from bridge.core.routing import Place, device_of, home_of, place, residence
from bridge.core.rules import Rules
from bridge.core.slots import LOOK_AGAIN, due
from bridge.core.tariffs import entries_of
from bridge.core.vocabulary import Action, DeadReason, DeviceKey, Kind
from bridge.source.decode import decode
from bridge.source.topics import Topic, parse
from bridge.store.port import MOST_ROWS, Home, Loaded, Outgoing, Pending, Versioned, Work

Decoded = Inbound | Tombstone | Unreadable
"""What `source.decode` makes of a message."""


def read(row: Pending, rules: Rules) -> Decoded:
    """Return what a stored message says."""
    topic = parse(row.topic)
    if not isinstance(topic, Topic):
        return Unreadable(number=row.id, detail=topic.detail, reason=DeadReason.UNKNOWN_TOPIC)
    if topic.subscription != row.subscription:  # also a dead letter that is retried: nobody writes another's data
        detail = "the topic belongs to another subscription than the caller's"
        return Unreadable(number=row.id, detail=detail, reason=DeadReason.FOREIGN_SUBSCRIPTION)
    return decode(topic, row.body, number=row.id, received=row.received, rules=rules)


class Step:
    """One batch on its way through the core: what was loaded, and what becomes of it."""

    def __init__(self, loaded: Loaded, rules: Rules, now: datetime) -> None:
        """Begin with what the store holds."""
        self._loaded = loaded
        self._rules = rules
        self._now = now
        self._states: dict[str, Building] = {}
        self._homes: dict[DeviceKey, Home | None] = {}
        self._due: dict[str, datetime | None] = {}
        self._newest: dict[str, int] = {}
        self._users: dict[int, str] = {}
        self._lists: dict[str, int] = {}  # building -> place in `calls` of its newest device list
        self.settled: list[int] = []
        self.dead: list[tuple[int, DeadReason, str]] = []
        self.parked: list[tuple[int, str]] = []
        self.calls: list[Outgoing] = []
        self.notes: list[tuple[int, Note]] = []
        self.moved: set[str] = set()
        self.limits = Counter[tuple[str, str]]()  # reached bounds, and whose messages reached them

    def work(self, unparked: Sequence[str] = (), turn: datetime | None = None) -> Work:
        """Return everything that the step changes; its calls are due at `turn`, else at the step's time."""
        states = [
            Versioned(state=state, version=self._version(name))
            for name, state in self._states.items()
            if state is not self._stored(name) or name in self.moved
        ]
        return Work(
            now=self._now,
            settled=self.settled,
            dead=self.dead,
            parked=self.parked,
            users=self._users,
            unparked=unparked,
            buildings=states,
            due=self._due,
            newest=self._newest,
            homes=self._homes,
            calls=self.calls,
            turn=turn,
            notes=self.notes,
            moved=self.moved,
        )

    def changes(self) -> Iterator[tuple[Building | None, Building]]:
        """Yield each building that the step changes, as it was stored and as it is now."""
        for name, state in self._states.items():
            stored = self._stored(name)
            if state is not stored:
                yield stored, state

    def take(self, row: Pending, message: Decoded) -> None:
        """Process one message."""
        match message:
            case Unreadable():
                self.dead.append((row.id, message.reason, message.detail))
                if message.limit:
                    self.limits[message.limit, row.subscription] += 1
            case Tombstone():
                self.settled.append(row.id)
                self.notes.append((row.id, Note(name="tombstone")))
            case _:
                self._route(row.id, message)

    def _route(self, number: int, message: Inbound) -> None:
        """Find the message's building and apply it there."""
        device = device_of(message)
        home = self._home(device)
        user = message.user or (home.user if home is not None else None)
        if user is not None:
            self._users[number] = user
        dwelling = self._dwelling(home)
        where = place(message, self._rows(message.user), dwelling, self._rules)
        match where:
            case Bury():
                self.dead.append((number, where.reason, where.detail))
                return
            case Park():
                self.parked.append((number, where.user))
                return
            case Note():
                self.settled.append(number)
                self.notes.append((number, where))
                return
            case Place():
                if self._refuse(number, message, home, where):
                    return
                self.settled.append(number)
                where, message = self._moved_in(number, message, dwelling, where)
                self._reduce(where.building, message, number, where.residence)
                self._settle_home(device, where.building)

    def _refuse(self, number: int, message: Inbound, home: Home | None, where: Place) -> bool:
        """Bury a message that would add a device to a building that has all that it may have, and flag that (R13)."""
        if (home is not None and home.building == where.building) or not isinstance(message, Report | Prices):
            return False
        building = inherited(self._state(where.building), self._rules)
        end = refusal(building, message, self._rules)
        if end is None or (isinstance(message, Report) and ignored(building, message, self._rules) is not None):
            return False
        self.dead.append((number, end.reason, end.detail))
        self.limits[DEVICES, message.subscription] += 1
        flagged = overflowed(building)
        if flagged is not building:
            self._states[where.building] = flagged
        return True

    def _moved_in(self, number: int, message: Inbound, dwelling: Place | None, where: Place) -> tuple[Place, Inbound]:
        """Return where a message applies, and how; a device that lived elsewhere leaves there (M1.6)."""
        if dwelling is None or dwelling.building == where.building or not isinstance(message, Report):
            return where, message
        if self._is_outdated(message, dwelling):
            return dwelling, message
        left = self._move(device_of(message), dwelling, message.time, message.received, number)
        return where, replace(message, arrived=left)

    def _is_outdated(self, message: Report, dwelling: Place) -> bool:
        """Tell whether a device has been heard of, where it lives now, after this message."""
        device = inherited(self._state(dwelling.building), self._rules).devices.get(name_of(message))
        return device is not None and (message.undated or message.time.is_before(device.time))

    def _move(
        self, device: DeviceKey, dwelling: Place, stamp: Time, received: datetime, number: int
    ) -> datetime | None:
        """Take a device out of the building it lived in; return up to when it counts there (M1.6)."""
        moved = Moved(
            subscription=device.subscription,
            kind=device.kind,
            id=device.id,
            stamp=stamp.at,
            stamp_sent=stamp.sent,
            received=received,
        )
        self._reduce(dwelling.building, moved, number, dwelling.residence)
        lives = [gone for gone in self._state(dwelling.building).departed if identity_of(gone) == device]
        return lives[-1].until if lives else None

    def _settle_home(self, device: DeviceKey, building: str) -> None:
        """Remember where the device lives now, under the name that it has now."""
        known = self._known_home(device)
        there = self._state(building).devices.get(key(*device))
        if there is None:
            if known is not None:
                self._homes[device] = None
        elif known is None or known.building != building or known.user != there.user:
            self._homes[device] = Home(building=building, user=there.user)
        if self._rules.heirs:
            self._homes |= {old: None for old in self._rules.former(device) if self._known_home(old) is not None}

    def readdress(self, user: str, homes: Iterable[DeviceKey], directory: Mapping[str, Sequence[Residence]]) -> None:
        """Apply a user's changed directory rows: moves first, then what the buildings should say.

        `directory` holds the buildings that the rows name, or named before, each with all rows that name it.
        """
        rows = self._loaded.residences.get(user, ())
        homes = sorted({self._rules.present(device) for device in homes})
        lived_in = {home.building for device in homes if (home := self._home(device)) is not None}
        for device in homes:
            home = self._home(device)
            state = self._stored(home.building) if home is not None else None
            state = inherited(state, self._rules) if state is not None else None
            known = state.devices.get(key(*device)) if state is not None else None
            row = residence(rows, known.location) if known is not None else None
            if state is None or known is None or row is None or row.building == state.id:
                continue
            prices = state.prices.get(name_of(known), ()) if known.kind is Kind.TARIFF else ()
            if refusal(self._state(row.building), next(self._arrivals(known, prices, None)), self._rules) is not None:
                self._states[row.building] = overflowed(self._state(row.building))
                continue  # it stays where it is
            left = self._move(device, home_of(state.id, rows), known.time, self._now, 0)
            for arrival in self._arrivals(known, prices, left):
                self._reduce(row.building, arrival, 0, row)
            self._settle_home(device, row.building)
            self._mark(state.id)
            self._mark(row.building)
        whole = sum(len(everybodys) for everybodys in directory.values()) < MOST_ROWS
        for name, everybodys in directory.items():
            before = self._state(name)
            if before.created:
                mine = next((row for row in rows if row.building == name), None)
                told = Readdressed(received=self._now, left=user if mine is None else None, whole=whole)
                self._reduce(name, told, 0, _together(mine, everybodys))
                after = self._state(name)
                if after.time_zone != before.time_zone or after.known != before.known or name not in lived_in:
                    self._mark(name)

    def _mark(self, building: str) -> None:
        """Remember that the directory changed what is made of a building: a replay begins with it as it is then."""
        self._states[building] = self._state(building)
        self.moved.add(building)

    def _arrivals(self, device: Device, prices: Sequence[Slice], left: datetime | None) -> Iterator[Report | Prices]:
        """Yield what a building hears of a device that the directory moves there: itself, and what it costs.

        `left` is up to when it counts where it was.
        """
        prefix = self._rules.subscription(device.subscription).user_prefix
        raw_user = device.user.removeprefix(prefix)
        yield Report(
            number=0,
            received=self._now,
            subscription=device.subscription,
            kind=device.kind,
            action=Action.CONNECT,
            id=device.id,
            user=device.user,
            raw_user=raw_user,
            stamp=device.stamp,
            stamp_sent=device.stamp_sent,
            location=device.location,
            online=False if device.offline else None,
            connected=False if device.disconnected else None,
            facts=device.facts,
            arrived=left,
        )
        if prices:
            yield Prices(
                number=0,
                received=self._now,
                subscription=device.subscription,
                kind=device.kind,
                action=Action.PRICE_UPDATE,
                id=device.id,
                user=device.user,
                raw_user=raw_user,
                entries=entries_of(prices),
            )

    def _reduce(self, name: str, message: Message, number: int, row: Residence | None) -> None:
        """Apply a message to one building and collect the effects."""
        before = self._state(name)
        after, effects = reduce(before, message, self._rules, row)
        self._newest[name] = max(number, self._newest.get(name, 0))
        if after is not before:
            self._states[name] = after
            self._schedule(after, message)
        if isinstance(message, Tick | Readdressed | Forgotten):
            payer = after.payer or before.payer
        else:
            payer = message.subscription
        for effect in effects:
            self._collect(effect, number, payer)

    def _schedule(self, building: Building, message: Message) -> None:
        """Tell the clock when to look at the building; one that catches up is not looked at with every message."""
        at = due(building, self._rules)
        if (
            at is not None
            and isinstance(message, Report)
            and message.received - message.stamp > self._rules.live_max_age
        ):
            at = max(at, message.received + LOOK_AGAIN)
        self._due[building.id] = at

    def _collect(self, effect: Effect, number: int, payer: str) -> None:
        """Put an effect where it belongs; `payer` is the subscription whose message brought it."""
        match effect:
            case PutDevices():
                self._list(effect, number, payer)
            case CreateBuilding() | ChangeBuilding() | SendEvents():
                self.calls.append(Outgoing(call=effect, cause=number, subscription=payer))
            case Note():
                self.notes.append((number, effect))
                if effect.name == LIMIT_REACHED:
                    self.limits[effect.detail.partition(":")[0], payer] += 1
            case Bury() | Park():
                msg = "the core buries and parks before it reduces"
                raise AssertionError(msg)
            case _:
                assert_never(effect)

    def _list(self, new: PutDevices, number: int, payer: str) -> None:
        """Queue a device list, in the place of an earlier one of the step that it says more than (M2).

        What is queued between the two may be about a device of the earlier one as it was listed there.
        """
        place = self._lists.get(new.building)
        earlier = self.calls[place].call if place is not None else None
        if place is not None and isinstance(earlier, PutDevices):
            types = {entry.id: entry.type for entry in new.devices}
            if all(types.get(entry.id) is entry.type for entry in earlier.devices):
                self.calls[place] = Outgoing(call=new, cause=number, subscription=payer)
                return
        self._lists[new.building] = len(self.calls)
        self.calls.append(Outgoing(call=new, cause=number, subscription=payer))

    def _rows(self, user: str | None) -> Sequence[Residence]:
        """Return the directory rows of a user."""
        return self._loaded.residences.get(user, ()) if user is not None else ()

    def _dwelling(self, home: Home | None) -> Place | None:
        """Return the place where a device lives."""
        return home_of(home.building, self._rows(home.user)) if home is not None else None

    def _home(self, device: DeviceKey) -> Home | None:
        """Return where a device lives as of this step, also one that is known from a former subscription."""
        home = self._known_home(device)
        if home is None and self._rules.heirs:
            return next(filter(None, map(self._known_home, self._rules.former(device))), None)
        return home

    def _known_home(self, device: DeviceKey) -> Home | None:
        """Return where a device lives as of this step, under this very name."""
        return self._homes[device] if device in self._homes else self._loaded.homes.get(device)

    def _stored(self, name: str) -> Building | None:
        """Return a building as it was loaded."""
        row = self._loaded.buildings.get(name)
        return row.state if row is not None else None

    def _version(self, name: str) -> int:
        """Return the version a building was loaded at; 0 = it is new."""
        row = self._loaded.buildings.get(name)
        return row.version if row is not None else 0

    def _state(self, name: str) -> Building:
        """Return a building as of this step; a new one where there is none."""
        found = self._states.get(name) or self._stored(name)
        return found if found is not None else Building(id=name, time_zone=self._rules.default_time_zone)


def _together(mine: Residence | None, rows: Sequence[Residence]) -> Residence | None:
    """Return what all rows of a building say of it; the one that has changed comes first."""
    ordered = [*(row for row in rows if row != mine), *([mine] if mine is not None else [])]
    if not ordered:
        return None
    attributes = {name: value for row in ordered for name, value in row.attributes.items()}
    return replace(ordered[-1], attributes=attributes)
