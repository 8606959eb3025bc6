"""B3, delivery: live events to the MOOST look-alike on the other core, each building's in order.

A bridge without sender fills the outbox; another process on the same store delivers it. What the look-alike received is
then compared with what was sent, building by building: every event once, in order.
"""

import asyncio
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from bridge.core.identity import building_id, device_id
from bridge.core.vocabulary import Kind
from tests.bench.homes import Device
from tests.bench.load import Client, Request, get
from tests.bench.process import BrokenError, Process
from tests.bench.report import Result
from tests.bench.setting import Setting
from tests.bench.subject import bridge, sandbox

if TYPE_CHECKING:
    from tests.bench.machine import Watch

CONNECTIONS: Final = 64
EVENTS: Final = 30_000
GOAL: Final = 2_500.0  # events/s
ALL: Final = "receiver,worker,sender,clock"
PATIENCE_S: Final = 120.0
_WARM_UP: Final = 0.1  # of the events
_LOOK_S: Final = 0.1
_PAGE: Final = 20_000

Sent = dict[tuple[str, str], list[float]]


async def run(setting: Setting) -> list[Result]:
    """Return the result of B3."""
    folder, count = setting.folder("b3"), EVENTS // 4 if setting.smoke else EVENTS
    with sandbox(folder, setting.cores) as moost:
        url = f"http://127.0.0.1:{moost.port}"
        with bridge(folder, setting.cores, ALL, moost=url) as subject:
            firsts = setting.homes().firsts()
            await _flood(subject.port, lambda: next(firsts, None))
            await subject.idle(calls=True)
        known = (await get(moost.port, "/_sandbox/counts"))["events"]["live"]
        with bridge(folder, setting.cores, "receiver,worker,clock", moost=url) as subject:
            sent = await _fill(setting, subject.port, count)
            before = await subject.idle()
        with bridge(folder, setting.cores, ALL, moost=url) as subject:
            rate, cpu, load = await _deliver(subject.process, moost, known, count)
            after = await subject.idle(calls=True)
        if after["calls"]["queued"] != before["calls"]["queued"] or after["calls"]["dead"]:
            msg = f"before {before['calls']}, after {after['calls']}"
            raise BrokenError(msg)
        wrong = await _out_of_order(moost.port, sent, known)
    if wrong:
        msg = f"{wrong} devices whose events are not as sent"
        raise BrokenError(msg)
    detail = f"{cpu:.0f} µs CPU per event; look-alike {load:.0%} of its core; "
    detail += f"{count:,} events of {len(sent):,} vehicles, all once and in order"
    return [
        Result(
            name="B3 delivery",
            goal=f"≥ {GOAL:,.0f} events/s",
            measured=f"{rate:,.0f} events/s",
            ratio=rate / GOAL,
            detail=detail,
        )
    ]


async def _flood(port: int, source: Any) -> None:  # noqa: ANN401 - a source of requests
    client = await Client.connected(port, CONNECTIONS)
    await client.flood(source)
    client.close()
    if not client.tally.balanced or client.tally.refused:
        raise BrokenError(str(client.tally))


async def _fill(setting: Setting, port: int, count: int) -> Sent:
    """Send vehicle after vehicle a new state of charge; return the values, by building and device.

    One request at a time per vehicle is on its way: there are more vehicles than connections.
    """
    sent: Sent = defaultdict(list)
    homes = setting.homes()

    def source() -> Request | None:
        nonlocal count
        if not count:
            return None
        count -= 1
        device, request = homes.next_vehicle()
        sent[_name(device)].append(round(device.value, 3))
        return request

    await _flood(port, source)
    return sent


def _name(device: Device) -> tuple[str, str]:
    """Return building and device as MOOST knows them."""
    return building_id(device.user), device_id(Kind.VEHICLE, device.id)


async def _deliver(process: Process, moost: Process, known: int, count: int) -> tuple[float, float, float]:
    """Return events per second and CPU per event [µs] of the bridge, and the look-alike's share of its core."""
    first: tuple[float, int, Watch, Watch] | None = None
    ends = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends:
        done = (await get(moost.port, "/_sandbox/counts"))["events"]["live"] - known
        if first is None and done >= _WARM_UP * count:
            first = (time.perf_counter(), done, process.watch(), moost.watch())
        if done >= count:
            break
        await asyncio.sleep(_LOOK_S)
    if first is None or done != count:
        msg = f"{done} of {count} events were delivered"
        raise BrokenError(msg)
    since, began_with, ours, theirs = first
    delivered, use = count - began_with, ours.stop()
    return delivered / (time.perf_counter() - since), use.us_per(delivered), theirs.stop().share


async def _out_of_order(port: int, sent: Sent, known: int) -> int:
    """Return how many devices' events are not exactly those that were sent, in order."""
    received: Sent = defaultdict(list)
    since = 0
    while True:
        page = await get(port, f"/_sandbox/received?since={since}&limit={_PAGE}")
        for event in page["events"]:
            received[event["customerBuildingId"], event["deviceId"]].append(event["value"])
        if page["next"] <= since:
            break
        since = page["next"]
    del known
    return sum(received[name][-len(values) :] != values for name, values in sent.items())
