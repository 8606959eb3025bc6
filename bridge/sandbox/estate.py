"""What the look-alike keeps and how it answers: one method per operation of the document.

Rules:
- Validation has happened; a method sees a body that fits the schema and path parameters that fit their patterns.
- A building PUT replaces the whole building except what MOOST sets itself; a devices PUT replaces the list.
- A new building gets attributes that no client knows (`UNKNOWN`, and one inside `settings`), so that a client that
  reads, changes and writes back can be caught losing them.
- Errors of the historical lane are an object of strings, as documented; other error bodies are not documented.

Source: MOOST documentation, "Common integration" (status codes: 201/409, 200/404, 201/400, 200/400/500); codes that
are not documented (lists and single buildings 200, unknown building 404, DELETE 200, devices PUT 200) are assumptions.
"""

import random
import zoneinfo
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final
from urllib.parse import parse_qs

from bridge.sandbox.call import Answer, Call
from bridge.sandbox.journal import Journal
from bridge.sandbox.received import Received
from bridge.sandbox.tokens import LIFETIME_S, SCOPE, Tokens
from bridge.sandbox.violations import NEVER_SENT, Judge

UNKNOWN: Final[Mapping[str, Any]] = {"mode": "INCLUDE"}
UNKNOWN_SETTINGS: Final[Mapping[str, Any]] = {"language": "de"}
_CORE_LEAVES_OUT: Final = frozenset({"devices", "settings", "profile"})
_NOBODY: Final[frozenset[str]] = frozenset()

Building = dict[str, Any]
Handler = Callable[[Call, Mapping[str, str]], Answer]


def refusal(status: int, message: str) -> Answer:
    """Return an answer that says what is wrong."""
    return Answer(status=status, body={"message": message})


class Estate:
    """The buildings, devices and tokens of one customer."""

    def __init__(
        self,
        *,
        credentials: tuple[str, str],
        customer_id: str,
        tokens: Tokens,
        received: Received,
        journal: Journal,
        dice: random.Random,
    ) -> None:
        """Start empty; `credentials` are client id and secret."""
        self._credentials = credentials
        self._customer_id = customer_id
        self._tokens = tokens
        self._received = received
        self._journal = journal
        self._dice = dice
        self._judge = Judge(customer_id)
        self._zones = zoneinfo.available_timezones()
        self._listed: dict[str, frozenset[str]] = {}
        self.buildings: dict[str, Building] = {}
        self.handlers: Final[Mapping[str, Handler]] = {
            "addEventV1": self._live,
            "insertHistoricalEventsV1": self._historical,
            "derivedCreateBuilding": self._create,
            "derivedUpdateBuilding": self._update,
            "derivedListBuildings": self._list,
            "derivedListBuildingsCoreData": self._core_data,
            "derivedGetBuilding": self._one,
            "derivedDeleteBuilding": self._delete,
            "derivedAttachDevices": self._devices,
        }

    def empty(self) -> None:
        """Forget all buildings; tokens stay good."""
        self.buildings.clear()
        self._listed.clear()

    def recall(self, what: str, entry: dict[str, Any]) -> None:
        """Build again what the journal holds; what it says of other things is not meant."""
        match what:
            case "building":
                self._hold(entry)
            case "gone":
                self._drop(entry["customerBuildingId"])
            case _:
                pass

    def devices(self) -> dict[str, list[dict[str, Any]]]:
        """Return the last device list of each building."""
        return {name: building.get("devices", []) for name, building in self.buildings.items()}

    def token(self, call: Call, lifetime_s: int | None) -> Answer:
        """Answer the token call; a fault may shorten the lifetime."""
        query = parse_qs(call.query.decode("latin-1"))
        if (query.get("clientId", [""])[0], query.get("clientSecret", [""])[0]) != self._credentials:
            return refusal(401, "client id or secret is invalid")
        lifetime = LIFETIME_S if lifetime_s is None else lifetime_s
        return Answer(
            status=200,
            body={
                "access_token": self._tokens.issue(lifetime),
                "token_type": "Bearer",
                "expires_in": lifetime,
                "scope": SCOPE,
            },
        )

    def store(self, events: Iterable[Mapping[str, Any]], *, lane: str, at: float) -> None:
        """Record events that were accepted, with what is questionable about them."""
        for event in events:
            building = event["customerBuildingId"]
            self._received.event(event, lane=lane, at=at)
            listed = self._listed.get(building, _NOBODY)
            for rule, detail in self._judge.event(event, listed=listed, now=at):
                self._received.violation(rule, detail, building=building, at=at)

    def refused(self, events: list[Mapping[str, Any]]) -> dict[str, str]:
        """Return what is wrong with an array of historical events beyond the schema."""
        wrong: dict[str, str] = {}
        for number, event in enumerate(events):
            if event["customerId"] != self._customer_id:
                wrong[f"[{number}].customerId"] = "is not the customer of the token"
            elif event["customerBuildingId"] not in self.buildings:
                wrong[f"[{number}].customerBuildingId"] = "is unknown"
        return wrong

    def _live(self, call: Call, _names: Mapping[str, str]) -> Answer:
        """Accept one event."""
        if call.body["customerBuildingId"] not in self.buildings:
            return refusal(400, "customerBuildingId is unknown")
        self.store((call.body,), lane="live", at=call.at)
        return Answer(status=201)

    def _historical(self, call: Call, _names: Mapping[str, str]) -> Answer:
        """Accept an array of events, all or none."""
        wrong = self.refused(call.body)
        if wrong:
            return Answer(status=400, body=wrong)
        self.store(call.body, lane="historical", at=call.at)
        return Answer(status=200)

    def _create(self, call: Call, _names: Mapping[str, str]) -> Answer:
        """Create a building."""
        body = call.body
        name: str = body["customerBuildingId"]
        if name in self.buildings:
            return refusal(409, "a building with this customerBuildingId exists")
        if self._strange_zone(body):
            return refusal(400, "timeZoneId is unknown")
        self._note(body, None, call.at)
        settings = {**(body.get("settings") or {}), **UNKNOWN_SETTINGS}
        made = {
            "id": f"{self._dice.getrandbits(96):024x}",
            "customerId": self._customer_id,
            "activationTimestamp": int(call.at),
            "profile": {"householdType": "UNKNOWN", "confidence": 0.1},
        }
        self._keep({**_given(body), **UNKNOWN, "settings": settings, **made})
        return Answer(status=201)

    def _update(self, call: Call, _names: Mapping[str, str]) -> Answer:
        """Replace a building."""
        held = self.buildings.get(call.body["customerBuildingId"])
        if held is None:
            return refusal(404, "building not found")
        if self._strange_zone(call.body):
            return refusal(400, "timeZoneId is unknown")
        self._note(call.body, held, call.at)
        self._keep({**_given(call.body), **{name: held[name] for name in (*NEVER_SENT, "customerId")}})
        return Answer(status=200)

    def _list(self, call: Call, _names: Mapping[str, str]) -> Answer:
        """List buildings."""
        return Answer(status=200, body=self._chosen(call))

    def _core_data(self, call: Call, _names: Mapping[str, str]) -> Answer:
        """List buildings without devices, settings and profile."""
        short = [
            {key: value for key, value in one.items() if key not in _CORE_LEAVES_OUT} for one in self._chosen(call)
        ]
        return Answer(status=200, body=short)

    def _one(self, _call: Call, names: Mapping[str, str]) -> Answer:
        """Return a building."""
        found = self.buildings.get(names["customerBuildingId"])
        return refusal(404, "building not found") if found is None else Answer(status=200, body=found)

    def _delete(self, _call: Call, names: Mapping[str, str]) -> Answer:
        """Delete a building."""
        name = names["customerBuildingId"]
        if name not in self.buildings:
            return refusal(404, "building not found")
        self._journal.write("gone", {"customerBuildingId": name})
        self._drop(name)
        return Answer(status=200)

    def _devices(self, call: Call, names: Mapping[str, str]) -> Answer:
        """Replace the device list of a building."""
        building = self.buildings.get(names["customerBuildingId"])
        if building is None:
            return refusal(404, "building not found")
        self._keep({**building, "devices": call.body})
        return Answer(status=200)

    def _keep(self, building: Building) -> None:
        """Remember a building, also for the next start."""
        self._journal.write("building", building)
        self._hold(building)

    def _drop(self, name: str) -> None:
        """Forget a building."""
        self._listed.pop(name, None)
        self.buildings.pop(name, None)

    def _hold(self, building: Building) -> None:
        """Hold a building and the ids of its devices."""
        name = building["customerBuildingId"]
        self.buildings[name] = building
        self._listed[name] = frozenset(device["id"] for device in building.get("devices", ()))

    def _chosen(self, call: Call) -> list[Building]:
        """Return all buildings, or those without a deactivatedTimestamp with activeOnly=true."""
        active = parse_qs(call.query.decode("latin-1")).get("activeOnly", ["false"])[0] == "true"
        return [one for one in self.buildings.values() if not active or one.get("deactivatedTimestamp") is None]

    def _strange_zone(self, body: Mapping[str, Any]) -> bool:
        """Say whether a building names a time zone that does not exist."""
        return "timeZoneId" in body and body["timeZoneId"] not in self._zones

    def _note(self, body: Mapping[str, Any], held: Mapping[str, Any] | None, at: float) -> None:
        """Record what is questionable about a building that is written."""
        for rule, detail in self._judge.building(body, held):
            self._received.violation(rule, detail, building=body["customerBuildingId"], at=at)


def _given(body: Mapping[str, Any]) -> Building:
    """Return what a client may set."""
    return {key: value for key, value in body.items() if key not in (*NEVER_SENT, "customerId")}
