"""What may happen to a household, for laws: every kind of device, late and lost messages, crashes, moves.

Rules:
- A deed is a name and what it takes; `happen` does them to a `Past`, one after the other.
- Two users share the devices: a device that names the other user moves. One of them has two places.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from hypothesis import strategies as st

from bridge.core.model import Residence
from bridge.core.vocabulary import DeadReason
from bridge.store.desk import DeadFilter
from bridge.store.port import Work
from tests.past import Past, device

Deed = tuple[str, Any]

_DEVICES: Final = {
    "meter": ("m-1", "m-2"),
    "pv-inverter": ("pv-1",),
    "battery": ("b-1",),
    "vehicle": ("car-1",),
    "charger": ("c-1",),
    "hvac": ("h-1",),
}
_TELLING: Final = frozenset({"update", "connect", "lost", "cut"})
_TOPICS: Final = frozenset({"connect", "offline", "disconnect", "delete"})
_AGES: Final = st.sampled_from([0, 0, 0, 5, 60, 400, 1_000, 2_400, 8_000])  # seconds that a message is late
_WAITS: Final = st.sampled_from([0.0, 0.5, 3.0, 7.5, 14.0, 15.0, 16.0, 17.0, 17.5, 40.0, 130.0, 1_000.0])  # minutes
_SHORT: Final = st.sampled_from([1.0, 4.0, 8.0, 15.0, 15.0, 20.0])
_POWERS: Final = st.sampled_from([None, 0.0, 1.0, -2.0, 3.5])
_HOMES: Final = st.sampled_from([("user-1", None)] * 5 + [("user-1", "loc-1"), ("user-2", None)])
_HOUSES: Final = st.sampled_from(["house-1", "house-2"])
_KINDS: Final = st.sampled_from([(kind, number) for kind, numbers in _DEVICES.items() for number in numbers])
_ACTIONS: Final = st.sampled_from(
    ["update"] * 8 + ["connect", "offline", "disconnect", "delete", "lost", "cut", "silent"]
)

_HEAR: Final = st.tuples(st.just("hear"), st.tuples(_KINDS, _ACTIONS, _HOMES, _POWERS, _AGES))
_REPORT: Final = st.tuples(
    st.just("hear"),
    st.tuples(_KINDS, st.just("update"), st.just(("user-1", None)), st.sampled_from([0.0, 1.0, 2.0, 4.0]), _AGES),
)
_LIVE: Final = st.tuples(st.just("live"), _SHORT)
_TROUBLE: Final = st.one_of(
    st.tuples(st.just("sleep"), _WAITS),
    st.tuples(st.just("live"), _WAITS),
    st.tuples(st.just("work"), st.none()),
    st.tuples(st.just("tick"), st.none()),
    st.tuples(st.just("crash"), _WAITS),
    st.tuples(st.just("price"), st.none()),
    st.tuples(st.just("die"), st.none()),
    st.tuples(st.just("retry"), st.none()),
    st.tuples(
        st.just("settle in"), st.tuples(st.sampled_from([None, "loc-1"]), st.sampled_from(["house-1", "house-2"]))
    ),
)


def deeds(least: int = 0, most: int = 30) -> st.SearchStrategy[list[Deed]]:
    """Return lists of deeds: devices that mostly report, slots that close, and now and then something else."""
    return st.lists(st.one_of(_REPORT, _LIVE, _REPORT, _LIVE, _HEAR, _TROUBLE), min_size=least, max_size=most)


def body(
    kind: str, number: str, action: str, home: tuple[str, str | None], power: float | None, at: datetime
) -> dict[str, Any]:
    """Return what a device says; `power` in kW, of a vehicle and a charger its charge too."""
    user, location = home
    said = device(number, at, user, **(_blocks(kind, power, at) if action in _TELLING else {}))
    if location is not None:
        said["location" if kind == "charger" else "locationId"] = location
    match action:
        case "lost":
            return said | {"isOnline": False}
        case "cut":
            return said | {"isConnected": False}
        case "delete" | "offline" | "disconnect":
            return {name: value for name, value in said.items() if name != "isOnline"}
        case _:
            return said


def _blocks(kind: str, power: float | None, at: datetime) -> dict[str, dict[str, object]]:
    match kind:
        case "meter":
            return {"powerState": {"power": power, "meterValue": None if power is None else 100.0 + at.hour}}
        case "pv-inverter":
            return {"powerState": {"solarPower": power, "state": "PRODUCING" if power else "IDLE"}}
        case "hvac":
            return {
                "powerState": {"powerConsumption": power},
                "climateState": {"temperatureCurrent": power, "isActive": bool(power)},
                "staticData": {"type": "HEATPUMP" if power != 1.0 else "THERMOSTAT"},
            }
        case _:
            word = "CHARGING" if power or kind == "battery" else "UNPLUGGED"
            return {"chargeState": {"stateOfCharge": power, "chargingState": word, "chargeRate": power}}


async def happen(past: Past, done: Sequence[Deed]) -> None:
    """Do deeds one after the other."""
    for what, how in done:
        match what:
            case "hear":
                await _hear(past, *how)
            case "live":
                await past.live(min(how, 20))
                past.now += timedelta(minutes=how)
                await past.work()
                await past.turn()
            case "sleep":
                past.now += timedelta(minutes=how)
            case "work":
                await past.worker.step()
            case "tick":
                await past.turn()
            case "crash":
                past.restart()
                past.now += timedelta(minutes=how)
                await past.turn()
            case _:
                await _trouble(past, what, how)


async def _hear(
    past: Past, who: tuple[str, str], action: str, home: tuple[str, str | None], power: float | None, age: int
) -> None:
    """Let a device say something, `age` seconds late."""
    kind, number = who
    topic = f"{kind}.{action if action in _TOPICS else 'update'}"
    await past.hear(topic, body(kind, number, action, home, power, past.now - timedelta(seconds=age)))
    past.now += timedelta(seconds=1)


async def _trouble(past: Past, what: str, how: tuple[str | None, str]) -> None:
    match what:
        case "price":
            prices = [{"startDate": past.now.isoformat(), "totalPrice": 0.3}]
            await past.hear("tariff.price.update", {"id": "t-1", "userId": "user-1", "prices": prices})
        case "die":  # a bug fails on the oldest message that waits
            rows, _ = await past.store.claim(1)
            dead = [(row.id, DeadReason.FAULT, "a bug") for row in rows]
            await past.store.commit(Work(now=past.now, dead=dead))
        case "retry":
            letters = await past.store.dead_letters(DeadFilter())
            await past.store.retry([letter.id for letter in letters], past.now)
        case _:
            location, house = how
            await past.store.write_residences([Residence(user="user-1", location=location, building=house)])
