"""Random households for the law of arrival (M5.11): what is sent, and when a bridge that runs hears of it.

Rules:
- Messages are JSON as the device cloud sends it. All times are whole seconds from `START`.
- What one device says arrives in its order and within the grace, so no message is late for a bridge that runs.
- An absence or delete is newer than all that was said before, so no rule looks at a receipt.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from hypothesis import strategies as st

from bridge.core.effects import Event
from bridge.core.rules import MeterRule, Role, Rules
from bridge.core.vocabulary import DeviceType, EventType, Kind

START: Final = datetime(2026, 6, 15, 8, 0, tzinfo=UTC)
ZONE: Final = "Etc/GMT-14"  # a local day ends at 10:00 UTC
QUARTER_S: Final = 900
GRACE_S: Final = 120
LONGEST_DELAY_S: Final = 100  # shorter than the grace
AFTER_S: Final = 26 * 3600  # what is told last may hold for a day

_DEVICES: Final = (
    ("pv-inverter", "pv-1"),
    ("pv-inverter", "pv-2"),
    ("meter", "m-1"),
    ("meter", "m-2"),
    ("battery", "b-1"),
    ("hvac", "h-1"),
    ("charger", "c-1"),
    ("vehicle", "car-1"),
)
_SAYS: Final = (
    ("value",) * 8 + ("carry",) * 3 + ("null", "bare", "offline", "disconnect", "rename", "place", "move", "delete")
)
_GAPS_S: Final = st.sampled_from((7, 60, 200, 450, 900, 901, 1500, 4000))
_KW: Final = st.sampled_from((0.0, 0.4, 1.0, 2.5, 7.0))


@dataclass(frozen=True, slots=True)
class Sent:
    """One message, and when a bridge that runs accepts it [s]."""

    topic: str
    body: dict[str, Any]
    received: int


@st.composite
def households(draw: st.DrawFn) -> list[Sent]:
    """Draw what a household's devices say in some hours, in the order in which it arrives."""
    chosen = draw(st.lists(st.sampled_from(_DEVICES), min_size=1, max_size=5, unique=True))
    sent = [one for kind, number in chosen for one in draw(_device(kind, number))]
    return sorted(sent, key=lambda one: one.received)


@st.composite
def _device(draw: st.DrawFn, kind: str, number: str) -> list[Sent]:
    now = draw(st.integers(0, 1800))
    speaker = _Speaker(kind, number, now, draw(_KW))
    found = [speaker.say("connect", now, draw(st.integers(1, LONGEST_DELAY_S)), bare=draw(st.booleans()))]
    for says, gap in draw(st.lists(st.tuples(st.sampled_from(_SAYS), _GAPS_S), max_size=14)):
        now += gap
        action = speaker.hear(says, now, draw(_KW))
        found.append(speaker.say(action, now, draw(st.integers(1, LONGEST_DELAY_S)), bare=says == "bare"))
    return found


class _Speaker:
    """One device, and what it last said of itself."""

    def __init__(self, kind: str, number: str, at: int, power_kw: float) -> None:
        self.kind, self.number = kind, number
        self.at, self.power_kw = at, power_kw  # of its block
        self.count_kwh = 100.0
        self.known: float | None = power_kw
        self.here, self.told = True, False
        self.user = "user-1"
        self.place: str | None = None
        self.second = False  # its second name and type
        self.received = 0

    def hear(self, says: str, now: int, power_kw: float) -> str:
        """Let something happen to it; return the action of its message."""
        if says in {"value", "null"}:
            self.count_kwh = round(self.count_kwh + self.power_kw * (now - self.at) / 3600, 3)
            self.at, self.power_kw, self.known = now, power_kw, power_kw if says == "value" else None
        elif says == "rename":
            self.second = not self.second
        elif says == "place":
            self.place = "loc-2" if self.place == "loc-1" else "loc-1"
        elif says == "move":
            self.user = "user-2" if self.user == "user-1" else "user-1"
        here, self.here = self.here, says != "delete"
        if says in {"offline", "disconnect", "delete"}:
            return says
        return "update" if here else "connect"

    def say(self, action: str, now: int, delay: int, *, bare: bool) -> Sent:
        """Return its message; a bare one has no block of values. What has never been told is as new as its message."""
        self.received = max(self.received, now + delay)
        if action in {"connect", "update"} and not bare and not self.told:
            self.at, self.told = now, True
        body: dict[str, Any] = {"id": self.number, "userId": self.user, "lastUpdated": iso(now)}
        if action in {"connect", "update"}:
            body |= {"isOnline": True, "staticData": self._static(now), **({} if bare else self._blocks())}
            body["location" if self.kind == "charger" else "locationId"] = self.place
        return Sent(f"{self.kind}.{action}", body, self.received)

    def _static(self, now: int) -> dict[str, Any]:
        types = {"hvac": ("type", "HEATPUMP", "THERMOSTAT"), "vehicle": ("engineType", "BEV", "HEV")}
        found: dict[str, Any] = {"name": "second" if self.second else "first", "lastUpdated": iso(now)}
        if self.kind in types:
            name, first, second = types[self.kind]
            found[name] = second if self.second else first
        return found

    def _blocks(self) -> dict[str, Any]:
        power, at = self.known, {"lastUpdated": iso(self.at)}
        match self.kind:
            case "meter":
                return {"powerState": {"power": power, "meterValue": self.count_kwh, **at}}
            case "pv-inverter":
                return {"powerState": {"solarPower": power, "state": "PRODUCING", **at}}
            case "hvac":
                temperature = None if power is None else 20 + power
                return {
                    "powerState": {"powerConsumption": power, **at},
                    "climateState": {"temperatureCurrent": temperature, **at},
                }
            case _:
                charge = None if power is None else 50 + power
                return {
                    "chargeState": {"stateOfCharge": charge, "chargingState": "CHARGING", "chargeRate": power, **at}
                }


def end_of(sent: Sequence[Sent]) -> int:
    """Return the second at which a slot closes after which a household says nothing more."""
    return (sent[-1].received + AFTER_S) // QUARTER_S * QUARTER_S + GRACE_S


def told(events: Iterable[Event]) -> Sequence[object]:
    """Return events in an order that does not depend on when they left."""
    return sorted((f"{e.at:%d %H:%M:%S}", e.device, e.type.value, e.value, e.name, e.source.value) for e in events)


def iso(second: int) -> str:
    """Return a time as the device cloud spells it."""
    return moment(second).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def moment(second: float) -> datetime:
    """Return the instant of a second."""
    return START + timedelta(seconds=second)


@st.composite
def kinds_of_settings(draw: st.DrawFn) -> Rules:
    """Draw settings."""
    roles = st.sampled_from((None, Role.GRID, Role.LOAD, Role.SUB))
    meters = {
        (Kind.METER, number): MeterRule(role=draw(roles), counter=draw(st.booleans())) for number in ("m-1", "m-2")
    }
    return Rules(
        devices=meters, default_time_zone=ZONE, min_coverage=draw(st.sampled_from((0.9, 0.02))),
        hold_active=timedelta(minutes=draw(st.sampled_from((20, 60)))),
        codes={(EventType.DEVICE_STATUS, type_): {"online": 1, "offline": 0} for type_ in DeviceType},
    )  # fmt: skip
