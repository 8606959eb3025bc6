"""Erases a user for good (GDPR, article 17), beside a running daemon or without one.

Rules:
- What was accepted before it began is gone when it ends, from the files too as far as `compact` says. What the device
  cloud sends later is new; so is a message that it repeats, because what knew the repeat is gone as well.
- Messages go first: from then on nothing can be made of them again, and what a worker has in hand is refused. Then the
  user, then the buildings, each with its calls in a way that leaves no state behind that rests on what was erased.
- Where others live in a building too, their devices, events and calls stay, in their order; the household's own sums
  so far stay as well, they are everybody's. MOOST is told the shorter device list.
- Nothing is taken back from MOOST: what it was sent is between it and the operator.

Theory of operation: the worker has noted whose each message was. What it has not read, or could not, is read here; what
nobody can read is the user's if the id stands in it as a string of its own.
"""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from bridge.core.devices import moost_id
from bridge.core.effects import ChangeBuilding, CreateBuilding, PutDevices, SendEvents
from bridge.core.identity import device_ids
from bridge.core.inheritance import inherited
from bridge.core.messages import Forgotten, Inbound, Tombstone, Unreadable
from bridge.core.model import Building, Device, Residence, identity_of
from bridge.core.reduce import reduce
from bridge.core.routing import device_of
from bridge.core.rules import Rules
from bridge.core.slots import due
from bridge.core.vocabulary import DeviceKey
from bridge.store.desk import Desk, Erased, Forgetting, Redaction
from bridge.store.port import Loaded, Outgoing, Pending, Versioned, Work
from bridge.worker.step import read

PAGE: Final = 100
IDS: Final = 2  # of those that a device may have had at MOOST: without its subscription, and with it


class Keeper(Desk, Protocol):
    """The desk, and of the worker's side what reads and writes a state."""

    async def load(self, users: Sequence[str], devices: Sequence[DeviceKey], buildings: Sequence[str]) -> Loaded:
        """Read directory rows, homes and states."""

    async def homes_of(self, user: str) -> Mapping[DeviceKey, str]:
        """Return all devices of a user, each with the building it lives in."""

    async def commit(self, work: Work) -> Sequence[str]:
        """Write a step of work."""


@dataclass(slots=True, kw_only=True)
class Found:
    """What there is of a user."""

    user: str
    raw_users: frozenset[str]  # as its subscriptions spell it
    messages: set[int] = field(default_factory=set)
    devices: set[DeviceKey] = field(default_factory=set)
    buildings: Sequence[str] = ()
    known: bool = False  # to the directory, or as the owner of a device

    def __bool__(self) -> bool:
        """Tell whether there is anything."""
        return bool(self.known or self.messages or self.buildings)


@dataclass(slots=True, kw_only=True)
class Tally:
    """What was erased."""

    erased: Erased = field(default_factory=Erased)
    alone: int = 0  # buildings erased as a whole
    shared: int = 0  # buildings in which others live


async def find(keeper: Keeper, rules: Rules, user: str, advance: Callable[[float], None]) -> Found:
    """Return what there is of a user; `advance` is told of messages as they are read."""
    found = Found(user=user, raw_users=_spellings(rules, user))
    async for row in keeper.unowned():
        await _look(keeper, rules, row, found)
        advance(1)
    async for page in keeper.owned(user):
        ids = sorted(set(page))
        found.messages.update(ids)
        for start in range(0, len(ids), PAGE):
            for row in await keeper.messages(ids[start : start + PAGE]):
                message = read(row, rules)
                if not isinstance(message, Tombstone | Unreadable):
                    found.devices.add(device_of(message))
                advance(1)
    rows = (await keeper.load([user], [], [])).residences.get(user, ())
    homes = await keeper.homes_of(user)
    sure = {*(row.building for row in rows), *homes.values()}
    knowing = await keeper.buildings_of(user, found.raw_users)
    found.buildings = [name for name in knowing if name in sure or await _knows(keeper, rules, name, found)]
    found.known = bool(rows or homes)
    return found


async def _knows(keeper: Keeper, rules: Rules, building: str, found: Found) -> bool:
    """Tell whether a state means this user, not one of another subscription that is spelled the same."""
    known = (await keeper.load([], [], [building])).buildings.get(building)
    if known is None:
        return False
    mine = any(device.user == found.user for device in _living(known.state))
    return mine or bool(_own_spellings(known.state, rules, found).intersection(known.state.users))


def _spellings(rules: Rules, user: str) -> frozenset[str]:
    """Return how the device cloud may spell a user, without the prefix of its subscription."""
    prefixes = {each.user_prefix for each in rules.subscriptions.values()} or {""}
    return frozenset(user.removeprefix(prefix) for prefix in prefixes if user.startswith(prefix)) - {""}


def _own_spellings(state: Building, rules: Rules, found: Found) -> frozenset[str]:
    """Return the spellings of the user that are nobody else's in a building."""
    others = (device for device in _living(state) if device.user != found.user)
    theirs = {each.user.removeprefix(rules.subscription(each.subscription).user_prefix) for each in others}
    return found.raw_users - theirs


async def _look(keeper: Keeper, rules: Rules, row: Pending, found: Found) -> None:
    """Take a message that no worker has read into what was found if it is the user's."""
    message = read(row, rules)
    if isinstance(message, Tombstone | Unreadable):
        prefix = rules.subscription(row.subscription).user_prefix
        if found.user.startswith(prefix) and _stands_in(row.body, found.user.removeprefix(prefix)):
            found.messages.add(row.id)
    elif await _whose(keeper, rules, message) == found.user:
        found.messages.add(row.id)
        found.devices.add(device_of(message))


async def _whose(keeper: Keeper, rules: Rules, message: Inbound) -> str | None:
    """Return whose a message is; where it does not say, whose its device is."""
    if message.user is not None:
        return message.user
    device = device_of(message)
    homes = (await keeper.load([], [device, *rules.former(device)], [])).homes
    return next((home.user for home in homes.values()), None)


def _stands_in(body: bytes, name: str) -> bool:
    """Tell whether a name stands in bytes as a string of its own, in quotes, also within a string."""
    forms = {json.dumps(name, ensure_ascii=ascii_)[1:-1].encode(errors="surrogatepass") for ascii_ in (True, False)}
    return any(quote + form + end in body for form in forms for quote, end in _QUOTES)


_QUOTES: Final = ((b'"', b'"'), (b"'", b"'"), (b'\\"', b'\\"'))


# ---- erasing --------------------------------------------------------------------------------------------------------


async def erase(
    keeper: Keeper, rules: Rules, found: Found, now: Callable[[], datetime], advance: Callable[[float], None]
) -> Tally:
    """Erase what was found; `advance` is told of messages, and of calls beyond them."""
    tally = Tally()

    async def take(what: Forgetting) -> None:
        async for erased in keeper.forget(what, now):
            tally.erased += erased
            advance(erased.messages)

    ids = sorted(found.messages)
    for start in range(0, len(ids), PAGE):
        await take(Forgetting(messages=ids[start : start + PAGE]))
    await take(Forgetting(user=found.user))
    directory = await keeper.residences()
    for building in found.buildings:
        redaction = await _withdrawn(keeper, rules, found, building, directory, now)
        tally.alone += redaction is None
        tally.shared += redaction is not None
        await take(Forgetting(building=building, redaction=redaction))
    return tally


async def _withdrawn(
    keeper: Keeper,
    rules: Rules,
    found: Found,
    building: str,
    directory: Sequence[Residence],
    now: Callable[[], datetime],
) -> Redaction | None:
    """Take the user out of a building in which others live; None = nobody else does."""
    theirs = next((row for row in directory if row.building == building and row.user != found.user), None)
    while True:
        known = (await keeper.load([], [], [building])).buildings.get(building)
        if known is None:
            return None if theirs is None else _redaction(found, (), found.raw_users)
        if theirs is None and not _others(known.state, found):
            return None
        names = _own_spellings(known.state, rules, found)
        message = Forgotten(user=found.user, raw_users=names, devices=frozenset(found.devices), received=now())
        state, effects = reduce(known.state, message, rules, theirs)
        work = Work(
            now=message.received,
            buildings=[Versioned(state=state, version=known.version)],
            due={building: due(state, rules)},
            calls=[
                Outgoing(call=effect, subscription=known.state.payer)
                for effect in effects
                if isinstance(effect, _CALLS)
            ],
        )
        if not await keeper.commit(work):
            return _redaction(found, _living(inherited(known.state, rules)), names)


_CALLS: Final = (CreateBuilding, ChangeBuilding, PutDevices, SendEvents)


def _living(state: Building) -> tuple[Device, ...]:
    """Return the devices of a building, those included that are gone but still counted."""
    return (*state.devices.values(), *state.departed)


def _others(state: Building, found: Found) -> bool:
    """Tell whether anybody else lives in a building."""
    strangers = any(device.user != found.user for device in _living(state))
    return strangers or not found.raw_users.issuperset(state.users)


def _redaction(found: Found, living: Sequence[Device], names: frozenset[str]) -> Redaction:
    """Return what may not be named any more: the user, and its devices that nobody else has by now."""
    theirs = [device for device in living if device.user != found.user]
    gone = found.devices - {identity_of(device) for device in theirs}
    mine = {name for device in gone for name in itertools.islice(device_ids(*device), IDS)}
    mine |= {moost_id(device) for device in living if device.user == found.user}
    return Redaction(devices=frozenset(mine.difference(map(moost_id, theirs))), users=names)
