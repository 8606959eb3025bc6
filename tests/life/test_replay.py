"""Replay and explain beside a running daemon, as an operator uses them."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from bridge.store.sqlite import SqliteStore
from tests.life.stage import Bridge, Sandbox, dump, run, stamp, until, vehicle
from tests.past import MINUTE, START, Past, inverter, meter

ALWAYS = ("--since", "2020-01-01", "--until", "2100-01-01")


def battery(level: float, at: datetime) -> dict[str, Any]:
    """Return an update of a battery: its state of charge leaves only where the operator wants it."""
    when = stamp(at)
    state = {"stateOfCharge": level, "chargingState": "IDLE", "chargeRate": 0, "lastUpdated": when}
    return {"id": "b-1", "userId": "anna", "isOnline": True, "lastUpdated": when, "chargeState": state}


def levels(sandbox: Sandbox) -> list[tuple[float, bool]]:
    """Return the battery's states of charge as (value, historical)."""
    return [
        (event["value"], event["lane"] == "historical")
        for event in sandbox.events()
        if event["type"] == "STATE_OF_CHARGE_RATE" and event["source"] == "BATTERY"
    ]


def test_a_changed_setting_reaches_the_past_on_the_historical_lane(bridge: Bridge, sandbox: Sandbox) -> None:
    bridge.start()
    now = datetime.now(UTC)
    for minute, level in enumerate((40.0, 41.0, 42.0)):
        bridge.take("battery.update", battery(level, now + timedelta(milliseconds=minute)))
    bridge.take("vehicle.update", vehicle("anna", "c-1", 55, now))
    bridge.settled()
    assert [] == levels(sandbox)
    config = ("--config", str(bridge.config))

    untouched = run("replay", *ALWAYS, "--dry-run", "--json", *config)
    assert (0, []) == (untouched.returncode, json.loads(untouched.stdout)), untouched.stderr

    assert 0 == bridge.stop()
    bridge.configure(moost={"battery_soc": True})
    bridge.start()
    dry = run("replay", *ALWAYS, "--building", "anna", "--dry-run", "--json", *config)
    assert 3 == dry.returncode, dry.stderr
    found = json.loads(dry.stdout)
    assert [(40.0, None), (41.0, None), (42.0, None)] == [(one["value"], one["before"]) for one in found]
    assert [] == levels(sandbox)

    done = run("replay", *ALWAYS, "--building", "anna", *config)
    assert 0 == done.returncode, done.stderr
    assert "3 new and 0 changed queued for the historical lane" in done.stderr
    until(lambda: len(levels(sandbox)) == 3, "the past arrives")
    assert [(40.0, True), (41.0, True), (42.0, True)] == levels(sandbox)
    bridge.settled()

    twice = run("replay", *ALWAYS, "--json", *config)
    assert (0, []) == (twice.returncode, json.loads(twice.stdout)), twice.stderr


def test_what_made_a_value_is_explained_beside_a_running_daemon(bridge: Bridge) -> None:
    bridge.start()
    now = datetime.now(UTC)
    number = bridge.take("vehicle.update", vehicle("anna", "c-1", 55, now))["ids"][0]
    bridge.settled()
    config = ("--config", str(bridge.config))
    asked = ("--building", "anna", "--type", "STATE_OF_CHARGE_RATE", "--at", stamp(now))
    told = run("explain", *asked, "--json", *config)
    assert 0 == told.returncode, told.stderr
    (value,) = json.loads(told.stdout)
    assert (55.0, 55.0, number) == (value["value"], value["sent"], value["message"]["id"])
    assert ["delivered"] == [call["state"] for call in value["calls"]]
    for words in (asked, ("--device", "vehicle:c-1-of-anna"), (number,)):
        shown = run("explain", *words, *config)
        assert 0 == shown.returncode, shown.stderr
        assert "delivered" in shown.stdout


def test_what_is_not_there_is_said_in_a_sentence(bridge: Bridge) -> None:
    bridge.start()
    bridge.post("vehicle.update", dump(vehicle("anna", "c-1", 55)))
    bridge.settled()
    config = ("--config", str(bridge.config))
    for words, sentence in (
        (("explain", "--device", "meter:nobody"), "there is no device 'meter:nobody' in this store"),
        (("explain", "--device", "nonsense"), "--device: write KIND:ID"),
        (("explain", "--building", "x", "--type", "ENERGY_EXCESS", "--at", "2026-01-01"), "there is no building 'x'"),
        (
            ("explain", "--building", "anna", "--type", "ENERGY_EXCESS", "--at", "2026-01-01"),
            "there is no ENERGY_EXCESS",
        ),
        (("explain", "--building", "anna"), "explain: name a message id"),
        (("explain",), "explain: name a message id"),
        (("explain", "1", "--device", "meter:a"), "a message id stands alone"),
        (("replay", *ALWAYS, "--building", "x"), "there is no building 'x' in this store"),
        (("replay", "--since", "2026-01-02", "--until", "2026-01-01"), "--until: must be later than --since"),
    ):
        done = run(*words, *config)
        assert (2, "") == (done.returncode, done.stdout), words
        assert sentence in done.stderr
        assert 1 == len(done.stderr.splitlines())


async def forgetful(path: str) -> None:
    """Fill a store with two hours, and let it forget the first."""
    store = SqliteStore(path)
    await store.open()
    past = Past(store)
    for _ in range(12):
        await past.hear("meter.update", meter(past.now, -1.0))
        await past.hear("pv-inverter.update", inverter(past.now, 2.0))
        await past.live(10)
    await past.deliver()
    await past.forget(timedelta(minutes=59))
    await store.close()


def test_a_span_that_is_forgotten_is_refused_and_a_part_of_it_is_told(bridge: Bridge) -> None:
    asyncio.run(forgetful(str(bridge.store)))
    config = ("--config", str(bridge.configure()))
    early = ("--since", START.isoformat(), "--until", (START + 30 * MINUTE).isoformat())
    refused = run("replay", *early, *config)
    assert (2, "") == (refused.returncode, refused.stdout)
    assert "--since: the store has forgotten what was before" in refused.stderr
    clipped = run("replay", *ALWAYS, "--dry-run", *config)
    assert (0, "") == (clipped.returncode, clipped.stdout), clipped.stderr
    assert "nothing was looked at: the store has forgotten that" in clipped.stderr


def test_a_value_is_explained_in_words(bridge: Bridge) -> None:
    asyncio.run(forgetful(str(bridge.store)))
    config = ("--config", str(bridge.configure()))
    at = (START + 105 * MINUTE).isoformat()
    shown = run("explain", "--building", "user-1", "--type", "ENERGY_CONSUMPTION", "--at", at, *config)
    assert 0 == shown.returncode, shown.stderr
    for words in ("250 Wh", "900 s, 810 s are needed", "meter:m-1, grid meter", "production", "delivered", "received"):
        assert words in shown.stdout, shown.stdout
