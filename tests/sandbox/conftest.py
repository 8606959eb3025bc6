"""A look-alike behind a real socket, and a client that knows its token."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from bridge.sandbox.moost import CLIENT_ID, CLIENT_SECRET, CUSTOMER_ID, Moost
from bridge.sandbox.server import serving


class Clock:
    """A wall clock that tests move by hand."""

    def __init__(self) -> None:
        self.now = 1_780_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Client:
    """Speaks to the look-alike; `call` returns (status, body)."""

    http: aiohttp.ClientSession
    base: str
    token: str = ""

    async def call(self, method: str, path: str, body: object = None, seconds: float = 30) -> tuple[int, Any]:
        headers = {"authorization": f"Bearer {self.token}"}
        limit = aiohttp.ClientTimeout(total=seconds)
        async with self.http.request(method, self.base + path, json=body, headers=headers, timeout=limit) as answer:
            raw = await answer.text()
            return answer.status, (await answer.json()) if raw else None

    async def login(self, client_id: str = CLIENT_ID, client_secret: str = CLIENT_SECRET) -> tuple[int, Any]:
        query = {"clientId": client_id, "clientSecret": client_secret}
        async with self.http.get(f"{self.base}/auth/token/v1", params=query) as answer:
            body = await answer.json()
            if answer.status == 200:
                self.token = body["access_token"]
            return answer.status, body

    async def received(self, query: str = "") -> dict[str, Any]:
        _, body = await self.call("GET", f"/_sandbox/received{query}")
        return dict(body)

    async def faults(self, *faults: dict[str, Any]) -> None:
        status, _ = await self.call("PUT", "/_sandbox/faults", list(faults))
        assert status == 200


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def moost(clock: Clock) -> AsyncIterator[Client]:
    """A fresh look-alike, logged in."""
    async with serving(Moost(now=clock)) as base, aiohttp.ClientSession() as http:
        client = Client(http, base)
        await client.login()
        yield client


@pytest.fixture
async def home(moost: Client) -> Client:
    """The same with one building that lists a gateway and a car."""
    assert (await moost.call("POST", "/buildings/v1", building()))[0] == 201
    devices = [{"id": "gateway:home-1", "type": "GATEWAY"}, {"id": "vehicle:1", "type": "CAR", "name": "Car"}]
    assert (await moost.call("PUT", "/buildings/home-1/devices/v1", devices))[0] == 200
    return moost


def building(name: str = "home-1", **more: object) -> dict[str, Any]:
    return {"customerBuildingId": name, "countryCode": "DE", "timeZoneId": "Europe/Berlin", **more}


def event(**more: object) -> dict[str, Any]:
    """A good event of the household."""
    return {
        "customerId": CUSTOMER_ID,
        "customerBuildingId": "home-1",
        "deviceId": "gateway:home-1",
        "deviceName": "Household",
        "source": "GATEWAY",
        "type": "ENERGY_CONSUMPTION",
        "value": 858.71,
        "timestamp": 1_779_999_900,
        **more,
    }
