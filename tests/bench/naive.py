"""The bridge as one writes it in an afternoon: a FastAPI endpoint, a pydantic model, an httpx client, nothing else.

Each message is answered after MOOST has taken its event. No store, no signature, no retry, no order: what is on its
way when the process ends is gone. Run as `python -m tests.bench.naive MOOST_URL`; prints its address.
"""

import re
import sys
from datetime import datetime
from typing import Any, Final

import httpx
from fastapi import FastAPI
from pydantic import BaseModel

from tests.bench.bare import serve
from tests.bench.subject import CLIENT, CLIENT_SECRET, CUSTOMER

SOURCES: Final = {
    "vehicle": ("CAR", "STATE_OF_CHARGE_RATE"),
    "charger": ("CAR_CHARGER", "POWER_CONSUMPTION"),
    "battery": ("BATTERY", "ENERGY_IMPORT"),
    "meter": ("SMART_METER", "POWER_CONSUMPTION"),
    "pv-inverter": ("GATEWAY", "POWER_GENERATION"),
    "hvac": ("HEAT_PUMP", "POWER_CONSUMPTION"),
}


class Block(BaseModel):
    stateOfCharge: float | None = None  # noqa: N815 - as the device cloud spells it
    chargeRate: float | None = None  # noqa: N815
    power: float | None = None
    solarPower: float | None = None  # noqa: N815
    powerConsumption: float | None = None  # noqa: N815
    temperatureCurrent: float | None = None  # noqa: N815

    def value(self) -> float:
        """Return the first value that is there."""
        return next((value for value in self.__dict__.values() if value is not None), 0.0)


class Update(BaseModel):
    id: str
    userId: str  # noqa: N815
    lastUpdated: datetime  # noqa: N815
    chargeState: Block | None = None  # noqa: N815
    powerState: Block | None = None  # noqa: N815
    climateState: Block | None = None  # noqa: N815


class Accepted(BaseModel):
    accepted: int
    duplicates: int = 0


def build(moost: str) -> FastAPI:
    app = FastAPI()
    client = httpx.AsyncClient(base_url=moost)
    known: set[str] = set()

    async def post(path: str, body: dict[str, Any]) -> None:
        if "authorization" not in client.headers:
            answer = await client.get("/auth/token/v1", params={"clientId": CLIENT, "clientSecret": CLIENT_SECRET})
            client.headers["authorization"] = f"Bearer {answer.json()['access_token']}"
        await client.post(path, json=body)

    @app.post("/webhooks/{topic}", status_code=202)
    async def webhook(topic: str, update: Update) -> Accepted:
        source, event = SOURCES[topic.split(".")[1]]
        building = re.sub(r"[^a-zA-Z0-9_-]", "_", update.userId)
        if building not in known:
            known.add(building)
            await post(
                "/buildings/v1", {"customerBuildingId": building, "countryCode": "DE", "timeZoneId": "Europe/Berlin"}
            )
        block = update.chargeState or update.powerState or update.climateState or Block()
        await post(
            "/events/v1",
            {
                "customerId": CUSTOMER,
                "customerBuildingId": building,
                "deviceId": update.id,
                "deviceName": update.id,
                "source": source,
                "type": event,
                "value": block.value(),
                "timestamp": int(update.lastUpdated.timestamp()),
            },
        )
        return Accepted(accepted=1)

    return app


if __name__ == "__main__":
    serve(build(sys.argv[1]))
