"""What a household must not be known by stands in the raw inbox alone: a canary over the real process at DEBUG (M0.8).

VIN, coordinates and address: not in state, outbox, letters, notes, owner rows, log, metrics, health, nor at MOOST.
"""

import json
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from tests.life.stage import bridged, run, sandboxed, until, vehicle
from tests.life.wire import relayed

VIN: Final = "CANARYVIN00000042"
LATITUDE: Final = 52.279112
LONGITUDE: Final = 8.047179
WORDS: Final = (VIN, "52.279", "8.0471", "Canary Street", "49074-canary")
FORMS: Final = (
    *(word.encode() for word in WORDS),
    *(struct.pack(order, value) for value in (LATITUDE, LONGITUDE) for order in (">d", "<d")),
)


def canary(level: float, at: datetime, **changes: object) -> dict[str, Any]:
    """Return a vehicle's message with everything that it must not be known by, in every place where it could stand."""
    car = vehicle("user-1", "car", level, at)
    place = {"latitude": LATITUDE, "longitude": LONGITUDE, "lastUpdated": car["lastUpdated"]}
    car["staticData"] |= {"vin": VIN, "name": f"My {VIN}", "model": "ID.3"}
    address = {"street": "Canary Street", "zip": "49074-canary"}
    return car | {"location": place, "position": place, "address": address, "geolocation": place} | changes


def meter(at: datetime) -> dict[str, Any]:
    """Return a meter's message with an address."""
    when = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    power = {"power": 1.5, "lastUpdated": when}
    return {"id": "m-1", "userId": "user-1", "lastUpdated": when, "powerState": power, "address": "Canary Street 1"}


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, bytes], Path]]:
    """Live through everything that could write something down; return what was said where, and the store."""
    folder = tmp_path_factory.mktemp("privacy")
    with sandboxed(folder) as sandbox, relayed(sandbox.port) as wire, bridged(folder, wire.url) as bridge:
        bridge.configure(logs={"level": "debug", "format": "json"}, moost={"timeout": "1s", "on_lost_reply": "hold"})
        bridge.start()
        begin = datetime.now(UTC) - timedelta(minutes=40)
        for minute in range(35):
            bridge.take("vehicle.update", [canary(minute, begin + timedelta(minutes=minute))])
            bridge.take("meter.update", meter(begin + timedelta(minutes=minute)))
        odd = {"staticData": VIN, "chargeState": {"stateOfCharge": VIN}, "userId": {"a": VIN}}
        for name, value in odd.items():
            bridge.take("vehicle.update", canary(1, begin, **{name: value}))
        bridge.take("vehicle.update", canary(50, begin + timedelta(hours=2), lastUpdated=VIN))
        bridge.take("vehicle.update", json.dumps(canary(50, begin)).encode()[:-3])
        bridge.take("vehicle.explode", canary(51, begin))
        bridge.take("vehicle.command", {"id": "c", "deviceId": "car-of-user-1", "type": "X", "vin": VIN})
        bridge.settled()
        sandbox.faults(
            {"kind": "status", "status": 400, "path": "/events", "times": 2},
            {"kind": "close_after", "path": "/events", "times": 1},
            {"kind": "status", "status": 500, "path": "/events", "times": 2},
        )
        for level in range(60, 66):
            bridge.take("vehicle.update", canary(level, datetime.now(UTC)))
        until(lambda: sandbox.fired() >= 5, "MOOST makes trouble")
        health = bridge.settled()
        assert health["dead_letters"].keys() >= {"unreadable", "unknown-topic", "rejected", "in-doubt"}
        said = {
            "health": json.dumps(bridge.health()).encode(),
            "metrics": bridge.metrics().encode(),
            "at MOOST": bytes(wire.said),
        }
        bridge.kill()
        bridge.start()
        bridge.settled()
        for words in (
            ("dead-letters", "list"),
            ("buildings", "show", "user-1"),
            ("explain", "--device", "vehicle:car-of-user-1"),
        ):
            said[" ".join(words)] = run(*words, "--config", bridge.config).stdout.encode()
        assert 0 == bridge.stop()
        said["log"] = bridge.text().encode()
        yield said, bridge.store


def test_the_canary_is_alive(life: tuple[dict[str, bytes], Path]) -> None:
    kept = life[1].read_bytes()
    assert all(word.encode() in kept for word in WORDS), "in the raw inbox"
    assert b"vehicle:car-of-user-1" in life[0]["at MOOST"]
    assert b"dead_letter" in life[0]["log"]


def test_nothing_of_it_is_said_anywhere(life: tuple[dict[str, bytes], Path]) -> None:
    found = {where: form for where, text in life[0].items() for form in FORMS if form in text}
    assert {} == found


def test_nothing_of_it_is_kept_outside_the_raw_inbox(life: tuple[dict[str, bytes], Path]) -> None:
    found = []
    with closing(sqlite3.connect(life[1])) as con:
        tables = [name for (name,) in con.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        assert {"building", "outbox", "letter", "note", "owner", "inbox"} <= set(tables)
        for table in set(tables) - {"inbox"}:
            rows = con.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608 - a name of the schema
            assert rows or table in EMPTY, f"the table {table} has nothing to show"
            for row in rows:
                for value in row:
                    raw = value if isinstance(value, bytes) else str(value).encode()
                    found += [(table, form) for form in FORMS if form in raw]
    assert [] == found


EMPTY: Final = frozenset(
    {"ahead", "again", "early", "parked", "discarded", "residence", "changed", "sheet", "lane", "attempt", "suspect"}
)
"""Tables that may have nothing to show at the end."""
