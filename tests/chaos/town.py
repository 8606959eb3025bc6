"""Who lives in the town, and what the device cloud says of them.

Rules:
- Every change of a state of charge has a number of its own within its home, and the value is that number in
  thousandths: what MOOST received can be put beside what was sent, in its order.
- Steady homes are told one after the other; of hasty ones several values travel at once, in any order, so of each
  burst only the newest has to arrive. What an archive says is always too old for the live lane.
- Stamps are old enough that no clock step of the run makes them later than their receipt.
- The directory knows everybody but newcomers, who move in later, and strangers, who never do; their messages wait.
"""

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from tests.life.stage import SECRET, SUBSCRIPTION, dump, stamp, vehicle

STEADY_AGE: Final = timedelta(hours=3)
ARCHIVE_AGE: Final = timedelta(hours=10)
LIVE_MAX_AGE: Final = timedelta(hours=6)  # the bridge's setting: with the clock far ahead the steady become history
MOST_CARS: Final = 5
NEW_CAR_EVERY: Final = 40  # numbers
MOST_AT_ONCE: Final = 8  # messages of an array, letters of a burst
NUMBERS: Final = 100_000  # a state of charge has three decimals

UPDATE: Final = f"{SUBSCRIPTION}.vehicle.update"

PREFIX: Final = "t-"  # of the town's users, so that no other subscription writes of them
MAD: Final = "mad"
MAD_PREFIX: Final = "m-"
MAD_USER: Final = "constant"
SECRETS: Final = {SUBSCRIPTION: SECRET, MAD: "whsec_bWFkLW1hZGUtdXAtc2VjcmV0LTAwMDAx"}  # made up


class Fate(StrEnum):
    """How a message ends."""

    SETTLED = "settled"
    PARKED = "parked"
    UNREADABLE = "unreadable"
    UNKNOWN_TOPIC = "unknown-topic"
    FOREIGN = "foreign-subscription"
    TOO_LARGE = "too-large"
    TOO_MANY = "too-many"


@dataclass(frozen=True, kw_only=True)
class Letter:
    """One request; its id stays when it is sent again."""

    id: str
    topic: str  # empty = each message names its own
    body: bytes
    fates: tuple[Fate, ...] = (Fate.SETTLED,)  # of its messages

    @property
    def secret(self) -> str:
        """Return the secret of whoever sends it."""
        return SECRETS.get(self.topic.partition(".")[0], SECRET)


@dataclass
class Home:
    """A user whose cars' states of charge count upwards."""

    user: str
    age: timedelta = STEADY_AGE
    most_cars: int = MOST_CARS
    number: int = 0
    must: list[int] = field(default_factory=list)  # what has to reach MOOST, in order
    _newest: datetime | None = None

    def next(self, world: datetime) -> dict[str, Any]:
        """Return the next message, at the latest possible stamp."""
        assert self.number < NUMBERS, f"{self.user} has run out of numbers"
        self.number += 1
        at = world - self.age
        self._newest = at if self._newest is None else max(at, self._newest + timedelta(milliseconds=1))
        cars = min(self.most_cars, 1 + self.number // NEW_CAR_EVERY)
        return vehicle(self.user, f"car-{self.number % cars}", self.number / 1000, self._newest)


@dataclass
class Town:
    """Writes letters; `world` tells the time in which the town lives."""

    dice: random.Random
    world: Callable[[], datetime]
    homes: int
    steady: list[Home] = field(init=False)
    hasty: list[Home] = field(init=False)
    archives: list[Home] = field(init=False)
    newcomers: list[Home] = field(default_factory=list)
    moved_in: int = 0  # of the newcomers
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        """Let the first ones move in."""
        self.steady = [Home(f"steady-{number}") for number in range(self.homes)]
        self.hasty = [Home(f"hasty-{number}", most_cars=1) for number in range(max(2, self.homes // 4))]
        self.archives = [Home(f"archive-{number}", ARCHIVE_AGE) for number in range(max(2, self.homes // 10))]

    @property
    def known(self) -> Sequence[Home]:
        """Return those whom the directory knows from the beginning."""
        return [*self.steady, *self.hasty, *self.archives]

    @property
    def counted(self) -> Sequence[Home]:
        """Return those whose values have to reach MOOST."""
        return [*self.known, *self.newcomers[: self.moved_in]]

    # ---- letters ----

    def letter(self, topic: str, content: object, *fates: Fate) -> Letter:
        """Return a letter under an id of its own."""
        body = content if isinstance(content, bytes) else dump(content)
        return Letter(id=f"chaos-{next(self._numbers)}", topic=topic, body=body, fates=fates)

    def told(self, home: Home) -> Letter:
        """Return a home's next value, or several at once."""
        count = self.dice.choice((1, 1, 1, 2, MOST_AT_ONCE)) if home.age < ARCHIVE_AGE else MOST_AT_ONCE
        said = [home.next(self.world()) for _ in range(count)]
        home.must += range(home.number - count + 1, home.number + 1)
        return self.letter(UPDATE, said[0] if count == 1 else said, *[Fate.SETTLED] * count)

    def burst(self, home: Home) -> list[Letter]:
        """Return some values of a hasty home, a letter each; only the last of them has to reach MOOST."""
        letters = [
            self.letter(UPDATE, home.next(self.world()), Fate.SETTLED)
            for _ in range(self.dice.randint(2, MOST_AT_ONCE))
        ]
        home.must.append(home.number)
        return letters

    def newcomer(self) -> list[Letter]:
        """Return what is said of somebody who will move in later."""
        home = Home(f"newcomer-{len(self.newcomers)}")
        letters = []
        for _ in range(2):
            letters.append(self.letter(UPDATE, home.next(self.world()), Fate.PARKED))
            home.must.append(home.number)
        self.newcomers.append(home)
        return letters

    def stranger(self) -> Letter:
        """Return what is said of somebody who never moves in."""
        body = vehicle(f"stranger-{self.dice.randrange(5)}", "car", 50, self.world() - STEADY_AGE)
        return self.letter(UPDATE, body, Fate.PARKED)

    def household(self) -> Letter:
        """Return what another device says, at the time that it is; it makes no event by itself."""
        user = self.dice.choice(self.steady).user
        topic, body = self.dice.choice(_HOUSEHOLD)(user, stamp(self.world()), self.dice)
        return self.letter(
            f"{SUBSCRIPTION}.{topic}", body, *[Fate.SETTLED] * (len(body) if isinstance(body, list) else 1)
        )

    def poison(self) -> Letter:
        """Return a letter of which something cannot be understood."""
        topic, body, fates = self.dice.choice(_POISON)
        return self.letter(topic, body, *fates)

    def foreign(self) -> Letter:
        """Return a letter in which a message of another subscription is among good ones."""
        user, at = self.dice.choice(self.steady).user, stamp(self.world())
        good = {"topic": f"{SUBSCRIPTION}.meter.update", "data": _meter(user, at, self.dice)}
        alien = {"topic": "stranger.meter.update", "data": _meter(user, at, self.dice)}
        return self.letter("", [good, alien, good], Fate.SETTLED, Fate.FOREIGN, Fate.SETTLED)


# ---- other devices --------------------------------------------------------------------------------------------------


def _device(kind: str, user: str, at: str, **blocks: object) -> dict[str, Any]:
    return {"id": f"{kind}-of-{user}", "userId": user, "isOnline": True, "lastUpdated": at, **blocks}


def _meter(user: str, at: str, dice: random.Random) -> dict[str, Any]:
    return _device("meter", user, at, powerState={"power": dice.uniform(-3, 3), "lastUpdated": at})


def _meters(user: str, at: str, dice: random.Random) -> tuple[str, object]:
    return "meter.update", [_meter(user, at, dice) for _ in range(3)]


def _inverter(user: str, at: str, dice: random.Random) -> tuple[str, object]:
    state = {"solarPower": dice.uniform(0, 5), "state": "PRODUCING", "lastUpdated": at}
    return "pv-inverter.update", _device("inverter", user, at, powerState=state)


def _battery(user: str, at: str, dice: random.Random) -> tuple[str, object]:
    state = {"chargeRate": dice.uniform(0, 2), "stateOfCharge": 50, "chargingState": "CHARGING", "lastUpdated": at}
    return "battery.update", _device("battery", user, at, chargeState=state)


def _heat_pump(user: str, at: str, dice: random.Random) -> tuple[str, object]:
    facts = {"vendor": "X", "model": "Y", "type": "HEATPUMP", "lastUpdated": at}
    power = {"powerConsumption": dice.uniform(0, 3), "lastUpdated": at}
    return "hvac.update", _device("hvac", user, at, staticData=facts, powerState=power)


def _gone(user: str, at: str, _: random.Random) -> tuple[str, object]:
    return "hvac.offline", _device("hvac", user, at) | {"isOnline": False}


def _command(user: str, at: str, dice: random.Random) -> tuple[str, object]:
    return "vehicle.command", {
        "id": f"command-{dice.getrandbits(40)}", "userId": user, "deviceId": f"car-0-of-{user}", "type": "START",
        "state": dice.choice(("CONFIRMED", "FAILED")), "lastUpdated": at,
    }  # fmt: skip


def _tariff(user: str, at: str, _: random.Random) -> tuple[str, object]:
    facts = {"vendor": "TIBBER", "name": "Tariff", "currency": "EUR", "countryCode": "DE", "lastUpdated": at}
    return "tariff.update", _device("tariff", user, at, staticData=facts)


def _prices(user: str, at: str, dice: random.Random) -> tuple[str, object]:
    starts = datetime.fromisoformat(at) + timedelta(hours=dice.randint(8, 20))
    slices = [{"startDate": stamp(starts + timedelta(hours=hour)), "totalPrice": dice.random()} for hour in range(3)]
    return "tariff.price.update", {"id": f"tariff-of-{user}", "userId": user, "prices": slices}


_HOUSEHOLD: Final = (_meters, _inverter, _battery, _heat_pump, _gone, _command, _tariff, _prices)


# ---- what nobody can understand -------------------------------------------------------------------------------------

_DEAD: Final = (Fate.UNREADABLE,)
_POISON: Final = (
    (UPDATE, b'{"id": "car", "userId"', _DEAD),
    (UPDATE, b"\xff\xfe\x00", _DEAD),
    (UPDATE, b'"a text"', _DEAD),
    (UPDATE, b"[" * 5_000, _DEAD),
    (UPDATE, b'{"userId": "nobody"}', _DEAD),
    (UPDATE, b'[{}, 3, "text", null]', (*_DEAD * 3, Fate.SETTLED)),  # null is a message without a value
    (UPDATE, b"[]", ()),
    (f"{SUBSCRIPTION}.toaster.update", b"{}", (Fate.UNKNOWN_TOPIC,)),
    (f"{SUBSCRIPTION}.meter.command", b"[{}, {}]", (Fate.UNKNOWN_TOPIC,) * 2),
    ("", b'{"data": {"id": "no topic"}}', (Fate.UNKNOWN_TOPIC,)),
)
