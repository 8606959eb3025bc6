"""A street: as many households of five devices as asked for, in a store that a daemon can be started on.

The simulated cloud lets some homes live for an hour; worker and clock make their states of what those say. A household
of the street is one of these models under a name of its own, written through the keeper: what is in the store is what
the bridge itself makes and writes, without a hundred thousand homes having to live first.

Rules:
- Time is that of a summer noon, long gone: daemons on a street run with a simulated clock.
- Names are drawn evenly, as user and device ids are in life: neighbours in the store are not neighbours in the load.
"""

import hashlib
import random
import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from bridge.clock import Clock
from bridge.core.devices import device_list
from bridge.core.effects import CreateBuilding, PutDevices
from bridge.core.identity import building_id
from bridge.core.model import Building, identity_of, name_of
from bridge.core.rules import Rules
from bridge.core.slots import due
from bridge.core.vocabulary import DeviceKey
from bridge.metrics import Metrics
from bridge.sandbox.cloud import Post, posts
from bridge.store.memory.keeper import MemoryStore
from bridge.store.port import Arrival, Home, Outgoing, Versioned, Work
from bridge.store.sqlite import SqliteStore
from bridge.times import Now
from bridge.worker import Worker
from tests.bench.homes import SEED, SUBSCRIPTION, Device, device, signed
from tests.bench.load import Request
from tests.bench.process import BrokenError

NOON: Final = datetime(2025, 6, 18, 12, tzinfo=UTC)
"""The end of a half hour on a sunny day: nobody has more to close, but once a day at midnight."""

DEVICES: Final = 5
LIVED: Final = timedelta(hours=1)
_HOMES: Final = 400  # a seventh of them has what a model needs
_TOGETHER: Final = 400  # households written at once
_FIRST_FOUR: Final = ("meter", "pv-inverter", "battery", "vehicle")
_FIFTH: Final = ("charger", "hvac")


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A household that has lived, and what its devices say."""

    user: str
    state: Building
    devices: tuple[Device, ...]


@dataclass(slots=True, kw_only=True)
class Street:
    """Many households."""

    models: Sequence[Model]
    count: int

    def model(self, number: int) -> Model:
        """Return which model a household follows."""
        return self.models[number % len(self.models)]

    def id(self, number: int) -> str:
        """Return the name of a household's building."""
        return building_id(name(number, "user"))

    def building(self, number: int) -> Building:
        """Return the state of a household."""
        model, user = self.model(number), name(number, "user")
        devices = {}
        for old in model.state.devices.values():
            new = replace(old, id=name(number, old.kind), user=user)
            devices[name_of(new)] = new
        return replace(model.state, id=building_id(user), users=(user,), devices=devices)

    def message(self, number: int, kind: str, at: bytes) -> Request:
        """Return the next message of a household's device."""
        model = self.model(number)
        said = next(device for device in model.devices if device.kind == kind)
        body = said.body(at).replace(said.id.encode(), name(number, kind).encode())
        return signed(said.topic, body.replace(model.user.encode(), name(number, "user").encode()))

    def kinds(self, number: int) -> list[str]:
        """Return the kinds of a household's devices."""
        return [device.kind for device in self.model(number).devices]

    async def write(self, path: Path, rules: Rules, announced: Sequence[int] = ()) -> None:
        """Write all households into a new store; what MOOST must hear first is owed for those `announced`."""
        keeper = SqliteStore(str(path))
        await keeper.open()
        chosen = set(announced)
        try:
            for start in range(0, self.count, _TOGETHER):
                some = range(start, min(start + _TOGETHER, self.count))
                states = {number: self.building(number) for number in some}
                work = Work(
                    now=NOON,
                    buildings=[Versioned(state=state, version=0) for state in states.values()],
                    due={state.id: due(state, rules) for state in states.values()},
                    homes={place: home for state in states.values() for place, home in _homes(state)},
                    calls=[call for number in some if number in chosen for call in _announcement(states[number])],
                )
                await keeper.commit(work)
        finally:
            await keeper.close()


def name(number: int, of: str) -> str:
    """Return a household's user id or the id of its device of some kind."""
    return str(uuid.UUID(bytes=hashlib.blake2b(b"%d:%b" % (number, of.encode()), digest_size=16).digest()))


def _homes(state: Building) -> Iterator[tuple[DeviceKey, Home]]:
    for one in state.devices.values():
        yield identity_of(one), Home(building=state.id, user=one.user)


def _announcement(state: Building) -> Iterator[Outgoing]:
    attributes = {"countryCode": "DE", "timeZoneId": state.time_zone, "userIds": list(state.users)}
    yield Outgoing(call=CreateBuilding(building=state.id, attributes=attributes))
    yield Outgoing(call=PutDevices(building=state.id, devices=device_list(state.id, state.devices.values())))


# ---- the models -----------------------------------------------------------------------------------------------------


async def lived(rules: Rules, until: datetime) -> list[Model]:
    """Return households that have lived up to NOON, their slots closed as of `until`."""
    all_posts = list(posts(_HOMES, seed=SEED, start=_ms(NOON - LIVED), end=_ms(NOON), twice=0))
    chosen = _chosen(all_posts)
    time = _Time()
    store = MemoryStore()
    worker = Worker(store, rules, Metrics(), queued=_nothing, now=time.now)
    clock = Clock(
        store, rules, retention=LIVED, max_size=0, now=time.now, queued=_nothing, looked=lambda _: None
    )  # fmt: skip
    for post in all_posts:
        if _place(post)[1:] in chosen.get(post.user, {}):
            while time.at + timedelta(minutes=1) <= _at(post.due):
                time.at += timedelta(minutes=1)
                await _work(worker, clock)
            topic = f"{SUBSCRIPTION}.{post.topic}"
            await store.accept(
                [Arrival(subscription=SUBSCRIPTION, topic=topic, body=post.body, received=_at(post.due))]
            )
    for at in (NOON, until):
        time.at = at
        await _work(worker, clock)
    found = [(user, devices, await store.building(building_id(user))) for user, devices in sorted(chosen.items())]
    models = [
        Model(user=user, state=row.state, devices=tuple(devices.values()))
        for user, devices, row in found
        if row is not None and len(row.state.devices) == DEVICES
    ]
    if len(models) < len(found):
        msg = f"of {len(found)} homes only {len(models)} have all their devices: {await store.census()}"
        raise BrokenError(msg)
    return models


async def _work(worker: Worker, clock: Clock) -> None:
    """Process what is there, close what is ripe."""
    while await worker.step():
        pass
    while await clock.step():
        pass


class _Time:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.at = NOON - LIVED

    def now(self) -> datetime:
        return self.at


def _chosen(said: Sequence[Post]) -> dict[str, dict[tuple[str, str], Device]]:
    """Return five devices of every home that has one of each kind wanted, with what they say."""
    newest: dict[str, dict[tuple[str, str], Post]] = defaultdict(dict)
    for post in said:
        action, *place = _place(post)
        if action in {"connect", "update", "offline", "disconnect", "delete"}:
            newest[post.user][place[0], place[1]] = post
    chosen: dict[str, dict[tuple[str, str], Device]] = {}
    for number, (user, there) in enumerate(newest.items()):
        kinds = {kind: (kind, id_) for (kind, id_), post in there.items() if post.topic.endswith(".update")}
        fifth = [kind for kind in (*_FIFTH[number % 2 :], *_FIFTH) if kind in kinds][:1]
        wanted = [*_FIRST_FOUR, *fifth]
        roofs = sum(kind == "pv-inverter" for kind, _ in there)  # without its second roof a house makes no sense
        if len(wanted) == DEVICES and roofs == 1 and all(kind in kinds for kind in wanted):
            chosen[user] = {kinds[kind]: device(kind, there[kinds[kind]].body) for kind in wanted}
    return chosen


class _Named(msgspec.Struct):
    id: str = ""


_named: Final = msgspec.json.Decoder(_Named)


def _place(post: Post) -> tuple[str, str, str]:
    """Return what a message does, and the kind and id of its device."""
    kind, _, action = post.topic.partition(".")
    return action, kind, _named.decode(post.body).id


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def _at(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def _nothing() -> None:
    """Do nothing: nobody waits for what is queued here."""


# ---- the load -------------------------------------------------------------------------------------------------------


class Talk:
    """What a street says: one message after the other, households drawn evenly."""

    def __init__(self, street: Street, now: Now, *, vehicles: Sequence[int] = ()) -> None:
        """Let one message of five be a new state of charge of the `vehicles` in turn, if there are any."""
        self._street = street
        self._now = now
        self._vehicles = vehicles
        self._dice = random.Random(SEED)
        self._turn = 0
        self.calls = 0  # how many messages were a vehicle's

    def next(self) -> Request:
        """Return the next message."""
        self._turn += 1
        at = self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ").encode()
        if self._vehicles and self._turn % 5 == 0:
            self.calls += 1
            return self._street.message(self._vehicles[self.calls % len(self._vehicles)], "vehicle", at)
        number = self._dice.randrange(self._street.count)
        others = [kind for kind in self._street.kinds(number) if kind != "vehicle"]
        return self._street.message(number, self._dice.choice(others), at)
