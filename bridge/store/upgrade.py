"""What a step of the schema changes in states that were written before it.

Rules:
- A state is taken as it was written, not as today's core would read it: nothing that another step needs is lost.
- A copy of a state beside a tick is changed like the state itself.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

State = dict[str, Any]
"""A building's state as MessagePack holds it."""

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(State)


class Homing(NamedTuple):
    """Where a device lives, as the table `home` has it."""

    subscription: str
    kind: str
    device: str
    building: str
    user: str


def read(data: bytes) -> State:
    """Read a state."""
    return _decoder.decode(data)


def write(state: State) -> bytes:
    """Write a state down."""
    return _encoder.encode(state)


def by_subscription(state: State) -> State:
    """Return a state whose devices are named with their subscription (mapping rule M0.6).

    What says no subscription stays where all devices of the building have the same one: deletes, and prices that came
    before their tariff.
    """
    devices: Mapping[str, State] = state.get("devices", {})
    everybody = [*devices.values(), *state.get("departed", ())]
    subscriptions = {device["subscription"] for device in everybody}
    only = subscriptions.pop() if len(subscriptions) == 1 else None

    def named(values: Mapping[str, Any], name_of: Callable[[str], str]) -> State:
        found = {}
        for key, value in values.items():
            name = name_of(key)
            subscription = devices[name]["subscription"] if name in devices else only
            if subscription is not None:
                found[f"{subscription}/{name}"] = value
        return found

    schedules = {
        name: (device.get("schedules_zone"), device["schedules"], len(json.dumps(device["schedules"])))
        for name, device in devices.items()
        if device.get("schedules")
    }
    return {
        **state,
        "devices": named(devices, str),
        "schedules": named(schedules, str),
        "gone": named(state.get("gone", {}), str),
        "gone_sent": named(state.get("gone_sent", {}), str),
        "waits": named(state.get("waits", {}), str),
        "about": {},
        "prices": named(state.get("prices", {}), "tariff:{}".format),
    }


def homes(state: State) -> list[Homing]:
    """Return where the devices of a building live."""
    return [
        Homing(device["subscription"], device["kind"], device["id"], state["id"], device["user"])
        for device in state["devices"].values()
    ]
