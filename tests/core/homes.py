"""A building under test: feed it reports and ticks, look at the events that left.

Times are written as "12:05", "12:05:30" or "2 12:05" (a day of `MONTH`), all UTC.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from bridge.core.effects import Effect, Event, Note, SendEvents
from bridge.core.messages import Facts, Message, Quantity, Reading, Report, Tick, Value
from bridge.core.model import Building, Residence
from bridge.core.reduce import reduce
from bridge.core.rules import Rules
from bridge.core.vocabulary import Action, DeviceType, EventType, Kind

MONTH = datetime(2025, 6, 1, tzinfo=UTC)
PROMPT = timedelta(seconds=1)  # from a value's time to its acceptance

PV = (Kind.PV_INVERTER, "pv")
METER = (Kind.METER, "meter")
BATTERY = (Kind.BATTERY, "battery")
PUMP = (Kind.HVAC, "pump")
CHARGER = (Kind.CHARGER, "charger")
CAR = (Kind.VEHICLE, "car")

When = str | datetime


def at(when: When) -> datetime:
    """Return the instant that a short text names."""
    if isinstance(when, datetime):
        return when
    day, _, clock = when.rpartition(" ")
    parts = [float(part) for part in clock.split(":")]
    seconds = sum(part * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))
    return MONTH + timedelta(days=int(day or 1) - 1, seconds=seconds)


class Home:
    """One building and everything that left it."""

    def __init__(self, rules: Rules | None = None, residence: Residence | None = None) -> None:
        self.rules = rules or Rules()
        self.residence = residence
        self.state = Building(id="home")
        self.effects: list[Effect] = []
        self.events: list[Event] = []
        self.notes: list[Note] = []
        self.number = 0

    def feed(self, message: Message) -> None:
        """Reduce one message and keep what it did."""
        self.state, effects = reduce(self.state, message, self.rules, self.residence)
        self.effects += effects
        for effect in effects:
            if isinstance(effect, SendEvents):
                self.events += effect.events
            elif isinstance(effect, Note):
                self.notes.append(effect)

    def say(  # noqa: PLR0913 - a message has that many parts
        self,
        device: tuple[Kind, str],
        when: When,
        power: float | None = None,
        *,
        action: Action = Action.UPDATE,
        stamp: When | None = None,
        received: When | None = None,
        updated: When | None = None,
        values: Iterable[tuple[Quantity, Value | None]] = (),
        beyond: float | None = None,
        online: bool | None = True,
        connected: bool | None = None,
        facts: Facts | None = None,
        location: str | None = None,
        silent: bool = False,
    ) -> None:
        """Report a power [W] (None = null) and other values of a device, all with the block's time `when`."""
        block = at(when)
        stamped = at(stamp) if stamp is not None else block
        said = () if silent else tuple(values) or ((Quantity.POWER, power),)
        self.number += 1
        self.feed(
            Report(
                number=self.number, received=at(received) if received is not None else max(block, stamped) + PROMPT,
                subscription="sub-1", kind=device[0], action=action, id=device[1], user="user", raw_user="user",
                stamp=stamped, updated=at(updated) if updated is not None else stamped,
                location=location, online=online, connected=connected, facts=facts or Facts(),
                readings=tuple(Reading(quantity=q, at=block, value=v, beyond=beyond) for q, v in said),
            )
        )  # fmt: skip

    def leave(
        self, device: tuple[Kind, str], stamp: When, action: Action = Action.OFFLINE, received: When | None = None
    ) -> None:
        """Report that a device went offline, was disconnected or deleted; the body carries no values."""
        online = False if action is Action.OFFLINE else None
        self.say(device, stamp, action=action, received=received, online=online, silent=True)

    def tick(self, when: When, *, catching_up: bool = False) -> None:
        """Let time pass; ticks until nothing more closes, as the clock does."""
        while True:
            open_from = self.state.open_from
            self.feed(Tick(now=at(when), catching_up=catching_up))
            if self.state.open_from == open_from:
                return

    def run(self, since: When, until: When, every: timedelta = timedelta(minutes=15)) -> None:
        """Tick 2 minutes and a second after each quarter hour from `since` to `until`."""
        now = at(since)
        while now <= at(until):
            self.tick(now + timedelta(minutes=2, seconds=1))
            now += every

    def of(self, type_: EventType, source: DeviceType = DeviceType.GATEWAY) -> dict[str, float]:
        """Return what left of one type, by time ("2 12:15"); a second event of one time is an error."""
        found: dict[str, float] = {}
        for event in self.events:
            if event.type is type_ and event.source is source:
                name = label(event.at)
                assert name not in found, f"{type_} of {name} left twice"
                found[name] = event.value
        return found

    def types(self, source: DeviceType | None = None) -> set[str]:
        """Return which event types have left."""
        return {event.type.value for event in self.events if source is None or event.source is source}


def label(instant: datetime) -> str:
    """Return the short text of an instant, without the day on the first."""
    text = f"{instant:%H:%M}" if instant.second == 0 else f"{instant:%H:%M:%S}"
    day = (instant - MONTH).days + 1
    return text if day == 1 else f"{day} {text}"
