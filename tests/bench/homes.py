"""The messages of the load: households as the simulated cloud equips them, each message new when it is sent.

The cloud makes every device's message once; the load sends it again and again with a new value and new times. That
takes microseconds, so that a core can offer thousands per second, and the share of messages that make an event is
exact: only a vehicle's state of charge leaves at once (mapping rule M3.2), all else waits for its slot.
"""

import base64
import hashlib
import hmac
import itertools
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from bridge.sandbox.cloud import messages
from tests.bench.load import Request

SECRET: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SUBSCRIPTION: Final = "sub-1"
SEED: Final = 11
_SPAN_MS: Final = 15 * 60_000
_KEY: Final = base64.b64decode(SECRET.removeprefix("whsec_"))

# Which value of a device's message changes: block, field; lowest value, step, number of steps.
_VALUES: Final = {
    "vehicle": ("chargeState", "stateOfCharge", 0.0, 0.001, 100_000),
    "charger": ("chargeState", "chargeRate", 0.5, 0.01, 500),
    "battery": ("chargeState", "chargeRate", -2.0, 0.01, 500),
    "meter": ("powerState", "power", -3.0, 0.01, 500),
    "pv-inverter": ("powerState", "solarPower", 0.1, 0.01, 500),
    "hvac": ("climateState", "temperatureCurrent", 18.0, 0.01, 500),
}


@dataclass(slots=True)
class Device:
    """One device and the message that it sends."""

    topic: str
    kind: str
    id: str
    user: str
    template: bytes  # with %(t)b for the time and %(v)b for the value
    lowest: float
    step: float
    steps: int
    sent: int = 0

    @property
    def value(self) -> float:
        """Return the value that it sent last."""
        return self.lowest + self.step * (self.sent % self.steps)

    def body(self, at: bytes) -> bytes:
        """Return its next message, with a value that differs from the last one."""
        self.sent += 1
        return self.template % {b"t": at, b"v": b"%.3f" % self.value}


class Homes:
    """Households and their devices."""

    def __init__(self, count: int) -> None:
        """Let the simulated cloud equip homes."""
        self.devices, self._weights = _devices(count)
        self.vehicles = [device for device in self.devices if device.kind == "vehicle"]
        self._others: dict[str, list[Device]] = {}
        for device, weight in zip(self.devices, self._weights, strict=True):
            if device.kind != "vehicle":
                self._others.setdefault(device.kind, []).extend([device] * weight)
        self._dice = random.Random(SEED)
        self._turn = itertools.count()
        self._next_vehicle = itertools.cycle(self.vehicles)
        self._every = [device for devices in self._others.values() for device in devices]

    def firsts(self) -> Iterator[Request]:
        """Yield one message of every device."""
        for device in self.devices:
            yield signed(device.topic, device.body(stamp()))

    def next(self) -> Request:
        """Return the next message: of five one is a vehicle's new state of charge."""
        return signed(*self.next_record())

    def next_record(self) -> tuple[str, bytes]:
        """Return topic and body of the next message."""
        vehicle = next(self._turn) % 5 == 0
        device = next(self._next_vehicle) if vehicle else self._dice.choice(self._every)
        return device.topic, device.body(stamp())

    def next_hundred(self) -> Request:
        """Return a hundred messages of one topic in an array: of five arrays one is of vehicles."""
        if next(self._turn) % 5 == 0:
            devices = list(itertools.islice(self._next_vehicle, 100))
        else:
            kind = self._dice.choice(self._every).kind
            devices = self._dice.choices(self._others[kind], k=100)
        at = stamp()
        return signed(devices[0].topic, b"[" + b",".join([device.body(at) for device in devices]) + b"]", len(devices))

    def next_vehicle(self) -> tuple[Device, Request]:
        """Return a vehicle and its message with a new state of charge, vehicle after vehicle."""
        device = next(self._next_vehicle)
        return device, signed(device.topic, device.body(stamp()))


def _devices(count: int) -> tuple[list[Device], list[int]]:
    """Return all devices that are there at the end of a quarter hour, and how often each spoke in it."""
    now = int(time.time() * 1000)
    newest: dict[tuple[str, str], tuple[str, bytes]] = {}
    spoke: dict[tuple[str, str], int] = {}
    for topic, body in messages(count, seed=SEED, start=now - _SPAN_MS, end=now, subscription=SUBSCRIPTION):
        _, kind, action = topic.split(".", 2)
        if kind not in _VALUES or action not in {"connect", "update", "offline", "disconnect", "delete"}:
            continue
        name = (kind, msgspec.json.decode(body)["id"])
        newest[name] = (action, body)
        spoke[name] = spoke.get(name, 0) + (action == "update")
    there = {name: body for name, (action, body) in newest.items() if action == "update"}
    return [device(kind, body) for (kind, _), body in there.items()], [spoke[name] for name in there]


def device(kind: str, body: bytes) -> Device:
    """Return a device with its newest message as template."""
    content: dict[str, Any] = msgspec.json.decode(body)
    block, value, lowest, step, steps = _VALUES[kind]
    if kind == "hvac" and content["powerState"]["powerConsumption"] is not None:
        block, value, lowest = "powerState", "powerConsumption", 0.1
    content[block] |= {value: "@V@", "lastUpdated": "@T@"}
    content["lastUpdated"] = "@T@"
    template = msgspec.json.encode(content).replace(b"%", b"%%").replace(b'"@V@"', b"%(v)b").replace(b"@T@", b"%(t)b")
    return Device(
        topic=f"{SUBSCRIPTION}.{kind}.update",
        kind=kind,
        id=content["id"],
        user=content["userId"],
        template=template,
        lowest=lowest,
        step=step,
        steps=steps,
    )


def stamp() -> bytes:
    """Return now as the device cloud writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").encode()


_numbers: Final = itertools.count(int(time.time() * 1e6))


def signed(topic: str, body: bytes, messages: int = 1) -> Request:
    """Return a signed request.

    Source: Standard Webhooks specification (headers webhook-id, webhook-timestamp, webhook-signature).
    """
    number, now = b"msg_%020d" % next(_numbers), b"%d" % time.time()
    digest = hmac.digest(_KEY, number + b"." + now + b"." + body, hashlib.sha256)
    return Request(
        b"POST /webhooks/%b HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\nwebhook-id: %b\r\n"
        b"webhook-timestamp: %b\r\nwebhook-signature: v1,%b\r\ncontent-length: %d\r\n\r\n%b"
        % (topic.encode(), number, now, base64.b64encode(digest), len(body), body),
        messages,
    )


def kilobytes(vehicles: Sequence[Device]) -> Iterator[Request]:
    """Yield updates of vehicles without end, each of one length and about 1 KB."""
    longest = max(len(device.body(stamp())) for device in vehicles) + len("99.999") - len("0.001")
    for device in itertools.cycle(vehicles):
        yield signed(device.topic, device.body(stamp()).ljust(longest))
